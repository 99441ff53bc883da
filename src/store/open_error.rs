//! OpenError: why a store cannot be opened, and what the operator can do.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::engine::EngineError;
use super::{REPLICATED_SCHEMA_VERSION, StoreError};
use crate::metrics::shortage;

/// Why a store cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "another process has the store in `{0}` open; stop that one, or choose another --data-dir"
    )]
    Locked(String),
    /// It is corrupt.
    #[error(
        "the store in `{0}` is damaged; restore it from a backup, or move the directory away to start an empty one"
    )]
    Damaged(String),
    /// A restore is in progress there, or was interrupted.
    #[error(
        "the store in `{0}` is only partly restored; run `scopegate restore` again with this --data-dir"
    )]
    HalfRestored(String),
    /// It is being installed from a snapshot of another replica, or that was interrupted.
    #[error(
        "the store in `{0}` is only partly copied from another replica; start the server again as a replica"
    )]
    HalfInstalled(String),
    /// A newer version wrote it.
    #[error(
        "the store in `{dir}` was written by a newer version (schema {found}, this program knows {REPLICATED_SCHEMA_VERSION}); run that version or a later one"
    )]
    Newer {
        /// The data directory.
        dir: String,
        /// Its schema version.
        found: u64,
    },
    /// The operating system refused something: a permission, a file, a thread, memory. As far as is
    /// known the data is intact.
    #[error("the store in `{dir}` cannot be opened: {told}")]
    Refused {
        /// The data directory, or the path in it that cannot be used.
        dir: String,
        /// The system's error, and what to do.
        told: String,
    },
}

impl OpenError {
    /// Why an open store cannot be used.
    #[must_use]
    pub fn of(dir: &Path, error: &StoreError) -> Self {
        let dir = dir.display().to_string();
        match error {
            StoreError::Damaged => Self::Damaged(dir),
            other => Self::Refused { dir, told: format!("{other} (the log says why)") },
        }
    }

    /// The same, from the message of a panic during a read.
    #[must_use]
    pub fn of_panic(dir: &Path, panic_message: &str) -> Self {
        let dir = dir.display().to_string();
        match shortage::number_in(panic_message) {
            Some(number) => Self::Refused { dir, told: shortage::told_by_number(number) },
            None => Self::Damaged(dir),
        }
    }
}

/// Translates the engine's error. A panic on another thread of the engine may tell the cause.
pub(super) fn of_engine(dir: &Path, error: &EngineError, panic_message: &str) -> OpenError {
    let damaged = || OpenError::of_panic(dir, panic_message);
    match error {
        EngineError::Locked => OpenError::Locked(dir.display().to_string()),
        EngineError::Damaged => damaged(),
        EngineError::Panicked(error) => of_engine(dir, error, panic_message),
        EngineError::Io(error) if error.raw_os_error().is_some() => refused(dir, error),
        EngineError::Io(error) => match error.kind() {
            // The errors of an engine for data that it cannot follow.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
                damaged()
            }
            _ => refused(dir, error),
        },
    }
}

/// An error of the system, with the path that caused it if that is known.
pub(super) fn refused(dir: &Path, error: &io::Error) -> OpenError {
    let is_permission = error.kind() == io::ErrorKind::PermissionDenied;
    let culprit = is_permission.then(|| not_permitted(dir)).flatten();
    let dir = culprit.as_deref().unwrap_or(dir).display().to_string();
    OpenError::Refused { dir, told: shortage::told(error) }
}

/// The first path of a store that this process cannot read and write.
fn not_permitted(dir: &Path) -> Option<PathBuf> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let files = match fs::read_dir(dir) {
        Ok(files) => files,
        Err(error) => return refused(&error).then(|| dir.to_path_buf()),
    };
    files.filter_map(|file| Some(file.ok()?.path())).filter(|path| path.is_file()).find(|path| {
        File::options().read(true).write(true).open(path).is_err_and(|error| refused(&error))
    })
}
