//! JWKS: reads the documents of issuers' key sets, from URLs and from the files of `--jwks-dir`.
//!
//! Not here: when they are read, and what is in them; see [`crate::authority::issuer_keys`].

mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::client::Client;
use super::tls;
use crate::authority::issuer_keys::{KeyReadError, KeyReader, KeyReading};
use crate::policy::catalog::issuer::KeySource;
use crate::policy::token::key_set::MAX_BYTES;

/// How many files may be read at a time, so that files that hang take few of the threads that may block.
const MAX_FILE_READS: usize = 16;

/// Where the key sets of issuers may be read.
#[derive(Clone, Debug, Default)]
pub struct JwksSettings {
    /// The CAs that URLs are verified by, in PEM. None: those of this machine.
    pub ca: Option<PathBuf>,
    /// The directory of the files that the catalog names.
    pub dir: Option<PathBuf>,
}

/// Reads the documents of key sets.
pub struct JwksReader {
    client: Client,
    dir: Option<PathBuf>,
    file_reads: Arc<Semaphore>,
}

impl JwksReader {
    /// A reader with these settings.
    ///
    /// # Errors
    /// The file of the CAs cannot be read, or holds none: a sentence.
    pub fn new(settings: JwksSettings) -> Result<Self, String> {
        let file_reads = Arc::new(Semaphore::new(MAX_FILE_READS));
        Ok(Self { client: Client::new(settings.ca)?, dir: settings.dir, file_reads })
    }

    async fn read_file(&self, name: &str) -> Result<Bytes, KeyReadError> {
        let dir = self.dir.as_ref();
        let dir = dir.ok_or_else(|| KeyReadError("--jwks-dir is not given".to_owned()))?;
        let path = dir.join(name);
        // A name with a separator, or `..`, would lead elsewhere.
        if path.parent() != Some(dir) || path.file_name() != Some(name.as_ref()) {
            return Err(KeyReadError(format!("`{name}` is not the name of a file")));
        }
        // It is never closed.
        let permit = Arc::clone(&self.file_reads).acquire_owned().await.ok();
        let read = tokio::task::spawn_blocking(move || {
            // Held until the read returns, also if its caller has gone.
            let _permit = permit;
            read_regular(&path)
        });
        match read.await {
            Ok(read) => read.map(Bytes::from).map_err(KeyReadError),
            Err(_) => Err(KeyReadError("the read was interrupted".to_owned())),
        }
    }
}

/// Reads a regular file, or one that a link leads to. A read of a pipe or a device may never end.
fn read_regular(path: &Path) -> Result<Vec<u8>, String> {
    const FLAG: &str = "--jwks-dir";
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{FLAG} {}: is not a regular file", path.display()));
    }
    tls::read(FLAG, path, MAX_BYTES as u64)
}

impl KeyReader for JwksReader {
    fn read<'a>(&'a self, source: &'a KeySource) -> KeyReading<'a> {
        Box::pin(async move {
            match source {
                KeySource::Url(url) => self.client.fetch(url).await.map_err(KeyReadError),
                KeySource::File(name) => self.read_file(name).await,
                KeySource::Inline(_) => Err(KeyReadError("the keys are in the catalog".to_owned())),
            }
        })
    }
}
