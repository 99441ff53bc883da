//! TlsFiles: the files of a TLS connection to etcd, or to another replica.
//!
//! They are read for each new connection, so a file that changes is used by the next one.

use std::fs;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The files of a TLS connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The CAs that may have signed the certificate of the server. None: those of this machine.
    pub ca: Option<PathBuf>,
    /// The certificate that this client presents, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.identity.is_none()
    }

    /// Reads the files. It blocks. An error names the flag of its file, of these.
    pub(in crate::store) fn read(
        &self,
        [ca_flag, cert_flag, key_flag]: [&str; 3],
    ) -> Result<ClientTlsConfig, String> {
        let mut config = ClientTlsConfig::new();
        config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca_flag, ca)?)),
            None => config.with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            let (cert, key) = (read(cert_flag, cert)?, read(key_flag, key)?);
            config = config.identity(Identity::from_pem(cert, key));
        }
        Ok(config)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}
