//! FirstKeyFile: the file that gets the first operator key of a cluster.
//!
//! The key is valid only if the cluster is initialised with it. Until that is known, the key is in a
//! file whose name has the id of the cluster at its end. If the command is interrupted in between, the
//! next one finds that file, and gives it its name if the cluster with this id is in etcd.
//!
//! Not here: the key itself; see [`super::bootstrap`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::StartupError;

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

    fn error(&self, error: &io::Error) -> StartupError {
        let (path, kind) = (self.0.display(), error.kind());
        StartupError::Config(format!("--first-key-to-file {path} cannot be created: {kind}"))
    }
}

/// Makes the names in the directory of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
