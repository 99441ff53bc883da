//! Signing key files: the private halves of the keys that sign own tokens, one file a key (T28).
//!
//! A file `KID.pem` has the key as PKCS#8 and mode 0600. It is durable before its public half becomes a
//! fact. The private keys are nowhere else: in no store, backup, export or log.
//!
//! Not here: which key signs, which is a fact; see [`crate::policy::token::signing_keys`].

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pem::Pem;

use crate::policy::token::key_set::Thumbprint;
use crate::policy::token::private_key::PrivateKey;
use crate::store::data_dir;

/// The label of a PKCS#8 key in PEM (RFC 7468 section 10).
const LABEL: &str = "PRIVATE KEY";
/// The extension of the files.
const EXTENSION: &str = "pem";

/// The files of the private keys. Their methods block.
#[derive(Debug)]
pub(super) struct SigningKeyFiles {
    dir: PathBuf,
    loaded: Mutex<HashMap<Thumbprint, Arc<PrivateKey>>>,
}

impl SigningKeyFiles {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, loaded: Mutex::default() }
    }

    /// The file of a key.
    pub(super) fn path(&self, id: &Thumbprint) -> PathBuf {
        self.dir.join(format!("{id}.{EXTENSION}"))
    }

    /// Makes a key. With `is_kept`, its file is durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn make(&self, is_kept: bool) -> io::Result<Arc<PrivateKey>> {
        let (key, pkcs8) = PrivateKey::generate().map_err(io::Error::other)?;
        let key = Arc::new(key);
        if is_kept {
            data_dir::create(&self.dir)?;
            let text = pem::encode(&Pem::new(LABEL, &*pkcs8));
            let path = self.path(&key.id);
            if let Err(error) = write_durably(&path, text.as_bytes()) {
                fs::remove_file(&path).ok();
                return Err(error);
            }
            self.loaded().insert(key.id, Arc::clone(&key));
        }
        Ok(key)
    }

    /// The key of this file, if it was loaded before. Does not block.
    pub(super) fn loaded_key(&self, id: &Thumbprint) -> Option<Arc<PrivateKey>> {
        self.loaded().get(id).map(Arc::clone)
    }

    /// Reads the file of a key.
    ///
    /// # Errors
    /// The file does not exist, or has no such key.
    pub(super) fn load(&self, id: &Thumbprint) -> io::Result<Arc<PrivateKey>> {
        let parsed = pem::parse(fs::read(self.path(id))?).map_err(io::Error::other)?;
        let key = PrivateKey::from_pkcs8(parsed.contents()).map_err(io::Error::other)?;
        let key = Arc::new(key);
        if key.id != *id {
            return Err(io::Error::other("has another key"));
        }
        self.loaded().insert(*id, Arc::clone(&key));
        Ok(key)
    }

    /// Removes the file of a key.
    pub(super) fn remove(&self, id: &Thumbprint) {
        self.loaded().remove(id);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(
                    key_id = %id, %error,
                    "the file of a signing key that is no longer used cannot be removed"
                );
            }
            _ => {}
        }
    }

    /// The keys with a file that is at least this old. Other files are not looked at.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn older_than(&self, age: Duration) -> io::Result<Vec<Thumbprint>> {
        let mut keys = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let is_key = path.extension().is_some_and(|extension| extension == EXTENSION);
            let id = path.file_stem().and_then(|stem| Thumbprint::parse(stem.to_str()?));
            let (true, Some(id)) = (is_key, id) else { continue };
            // Of the entry itself, and not of what a link leads to.
            let metadata = entry.metadata()?;
            let written = metadata.modified()?;
            // A file of the future is as new as one of now.
            let is_old = SystemTime::now().duration_since(written).is_ok_and(|past| past >= age);
            if metadata.is_file() && is_old {
                keys.push(id);
            }
        }
        Ok(keys)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Thumbprint, Arc<PrivateKey>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a new file that only this user can read, and makes it and its name durable.
fn write_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn t28_a_key_is_in_a_file_that_only_this_user_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("signing-keys");
        let files = SigningKeyFiles::new(dir.clone());
        let key = files.make(true).expect("made");
        let path = dir.join(format!("{}.pem", key.id));
        assert_eq!(path, files.path(&key.id));
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir)), (0o600, 0o700));
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"), "{text}");
        // Another process reads the same key.
        let read = SigningKeyFiles::new(dir).load(&key.id).expect("a key");
        assert_eq!((read.id, read.point), (key.id, key.point));
        assert!(!format!("{read:?}").contains("pair"));
    }

    #[test]
    fn only_files_of_keys_have_an_age() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = SigningKeyFiles::new(dir.path().join("keys"));
        let of_age = |seconds| files.older_than(Duration::from_secs(seconds)).expect("read");
        assert_eq!(of_age(0), [], "there is no directory");
        let key = files.make(true).expect("made");
        let path = files.path(&key.id);
        let touch = |path: &Path, hours: u64| {
            let time = SystemTime::now() - Duration::from_secs(hours * 3600);
            File::options().append(true).open(path).and_then(|file| file.set_modified(time))
        };
        touch(&path, 2).expect("set");
        let name = path.file_name().expect("a name").to_str().expect("text");
        for other in ["notes.pem".to_owned(), name.replace(".pem", ".key"), format!("{name}.old")] {
            fs::copy(&path, path.with_file_name(&other)).expect("copied");
            touch(&path.with_file_name(&other), 2).expect("set");
        }
        let other = files.make(true).expect("made").id;
        fs::remove_file(files.path(&other)).expect("removed");
        std::os::unix::fs::symlink(&path, files.path(&other)).expect("linked");
        assert_eq!((of_age(3600), of_age(3 * 3600)), (vec![key.id], vec![]));
        let future = SystemTime::now() + Duration::from_secs(3600);
        File::options().append(true).open(&path).and_then(|f| f.set_modified(future)).expect("set");
        assert_eq!(of_age(1), []);
    }

    #[test]
    fn t28_a_file_with_another_key_or_none_is_not_this_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = SigningKeyFiles::new(dir.path().to_owned());
        let (one, other) = (files.make(true).expect("made"), files.make(true).expect("made"));
        let load = |id| SigningKeyFiles::new(dir.path().to_owned()).load(id).is_ok();
        assert!(load(&one.id) && load(&other.id));
        fs::copy(files.path(&other.id), files.path(&one.id)).expect("copied");
        assert!(!load(&one.id));
        fs::write(files.path(&one.id), "hello").expect("written");
        assert!(!load(&one.id));
        files.remove(&one.id);
        assert!(!load(&one.id) && files.loaded_key(&one.id).is_none());
        files.remove(&one.id);
        let unkept = files.make(false).expect("made");
        assert!(!files.path(&unkept.id).exists() && files.loaded_key(&unkept.id).is_none());
    }
}
