//! Output: a file that gets its name only when it is complete, or standard output.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use rustix::fs::OFlags;

/// Only the owner can read the file.
const MODE: u32 = 0o600;
/// If a link or a FIFO has appeared since the check, the open does not follow or wait for it.
const FLAGS: i32 = (OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).cast_signed();

/// The output of a command.
pub(super) enum Output {
    /// Standard output.
    Standard(io::Stdout),
    /// A file, under its temporary name.
    File {
        file: File,
        /// The temporary name.
        partial: PathBuf,
        /// The final name.
        path: PathBuf,
    },
}

impl Output {
    /// Opens a file, or standard output for `-`.
    ///
    /// # Errors
    /// The path is not a regular file or free. The reader of a device or a FIFO could not distinguish
    /// a complete file from a part. A link would be replaced or followed, which may both surprise.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Standard(io::stdout()));
        }
        check_regular("--output", path)?;
        if path.file_name().is_none() {
            bail!("--output {} is a directory: name a file in it", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = create_temporary(&partial)?;
        Ok(Self::File { file, partial, path: path.to_owned() })
    }

    /// Syncs the file and its directory and gives the file its final name, so that it survives a crash.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut output) => output.flush().context("cannot write standard output"),
            Self::File { file, partial, path } => {
                let cannot = || format!("cannot write {}", path.display());
                file.sync_all().with_context(cannot)?;
                fs::rename(&partial, &path).with_context(cannot)?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                File::open(parent).and_then(|parent| parent.sync_all()).with_context(cannot)
            }
        }
    }

    /// Removes the incomplete file.
    pub(super) fn give_up(self) {
        if let Self::File { partial, .. } = self {
            fs::remove_file(partial).ok();
        }
    }
}

/// Rejects a path that exists and is not a regular file.
fn check_regular(what: &str, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let kind = match fs::symlink_metadata(path) {
        Ok(about) => about.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                bail!("{what} {shown} is a directory: name a file in it");
            }
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {shown}")),
    };
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        bail!("{what} {shown} is a directory: name a file in it");
    }
    if kind.is_symlink() {
        bail!("{what} {shown} is a symbolic link: name the file itself");
    }
    bail!(
        "{what} {shown} is not a regular file but a FIFO, a device or a socket: name a file, or write to \
         standard output with `-`"
    )
}

/// Creates a file of this name that only its owner can read. Replaces one that an interrupted command
/// has left.
fn create_temporary(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot write {}", path.display());
    let busy = || anyhow!("another process writes {}: wait until it ends", path.display());
    let mut options = File::options();
    options.write(true).custom_flags(FLAGS).mode(MODE);
    // The old file stays locked until the new one is locked, so that no other process takes the new one
    // for an abandoned file.
    let abandoned = match fs::symlink_metadata(path) {
        Ok(_) => {
            check_regular("the temporary name of --output,", path)?;
            let abandoned = options.open(path).with_context(cannot)?;
            if is_locked(&abandoned) {
                return Err(busy());
            }
            fs::remove_file(path).with_context(cannot)?;
            Some(abandoned)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(cannot),
    };
    let file = match options.create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(busy()),
        opened => opened.with_context(cannot)?,
    };
    if is_locked(&file) {
        return Err(busy());
    }
    drop(abandoned);
    Ok(file)
}

/// Locks a file. True if another process has locked it. A file system without locks gives false.
fn is_locked(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(output) => output.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(output) => output.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}
