//! FirstKeyFile: the file that gets the first operator key of a cluster.
//!
//! The key is valid only if the cluster is initialised with it. Until that is known, the key is in a
//! file whose name has the id of the cluster at its end. If the command is interrupted in between, the
//! next one finds that file, and gives it its name if the cluster with this id is in etcd.
//!
//! Not here: the key itself; see [`super::bootstrap`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::StartupError;

/// The end of the name of the directory beside a draft.
const DIR: &str = ".dir";

/// The file of a first key.
#[derive(Clone, Debug)]
pub(super) struct FirstKeyFile<'a>(pub(super) &'a Path);

impl FirstKeyFile<'_> {
    /// The file until the cluster is initialised.
    pub(super) fn draft(&self, cluster: Uuid) -> PathBuf {
        let mut name = self.0.as_os_str().to_owned();
        name.push(format!(".{}", cluster.simple()));
        name.into()
    }

    /// Writes the draft durably. Only this user can read it.
    pub(super) fn write(&self, cluster: Uuid, secret: &str) -> Result<(), StartupError> {
        let draft = self.draft(cluster);
        let written = (|| {
            if self.0.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            writeln!(file, "{secret}")?;
            file.sync_all()?;
            sync_directory(&draft)
        })();
        written.map_err(|error| self.error(&error))
    }

    /// Gives the draft of this cluster its name. False: there is none.
    pub(super) fn finish(&self, cluster: Uuid) -> Result<bool, StartupError> {
        match fs::rename(self.draft(cluster), self.0).and_then(|()| sync_directory(self.0)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Removes the draft of a cluster that certainly was not initialised.
    pub(super) fn remove(&self, cluster: Uuid) {
        fs::remove_file(self.draft(cluster)).ok();
    }

    /// Removes what earlier runs left behind that were interrupted. Call it when the cluster of another
    /// run is initialised, so that theirs can no longer be.
    pub(super) fn remove_others(&self) {
        let Some(name) = self.0.file_name().and_then(|name| name.to_str()) else { return };
        let is_draft = |other: &str| {
            let rest = other.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            let id = rest.map(|rest| rest.strip_suffix(DIR).unwrap_or(rest));
            id.is_some_and(|id| id.len() == 32 && Uuid::try_parse(id).is_ok())
        };
        for entry in fs::read_dir(directory(self.0)).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_draft) {
                match entry.path().is_dir() {
                    true => fs::remove_dir_all(entry.path()).ok(),
                    false => fs::remove_file(entry.path()).ok(),
                };
            }
        }
    }

    fn error(&self, error: &io::Error) -> StartupError {
        let (path, kind) = (self.0.display(), error.kind());
        StartupError::Config(format!("--first-key-to-file {path} cannot be created: {kind}"))
    }
}

/// Makes the names in the directory of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A private directory beside a draft, for the store in which the key is made. It is removed with what is
/// in it.
pub(super) struct DraftDir(pub(super) PathBuf);

impl DraftDir {
    /// Creates the directory.
    pub(super) fn beside(draft: &Path) -> Result<Self, StartupError> {
        let mut name = draft.as_os_str().to_owned();
        name.push(DIR);
        let dir = Self(name.into());
        fs::DirBuilder::new().mode(0o700).create(&dir.0).map_err(|error| {
            let path = dir.0.display();
            StartupError::Config(format!("`{path}` cannot be created: {}", error.kind()))
        })?;
        Ok(dir)
    }
}

impl Drop for DraftDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
