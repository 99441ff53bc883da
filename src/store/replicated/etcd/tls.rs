//! TlsFiles: the files of a TLS connection to etcd.
//!
//! They are read for each new connection, so a file that changes is used by the next one.

use std::fs;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The files of a TLS connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The CAs that may have signed etcd's certificate. None: those of this machine.
    pub ca: Option<PathBuf>,
    /// The certificate that this client presents, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.identity.is_none()
    }

    /// Reads the files. It blocks.
    pub(super) fn read(&self) -> Result<ClientTlsConfig, String> {
        let mut config = ClientTlsConfig::new();
        config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read("--replicate-ca", ca)?)),
            None => config.with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            let (cert, key) = (read("--replicate-cert", cert)?, read("--replicate-key", key)?);
            config = config.identity(Identity::from_pem(cert, key));
        }
        Ok(config)
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}
