//! Output: a file that has its name only when it is whole, or standard output.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use rustix::fs::OFlags;

/// Whoever owns the file reads it, and nobody else.
const MODE: u32 = 0o600;
/// A link is not followed, and a FIFO not waited for, should one be there since it was looked.
const FLAGS: i32 = (OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()).cast_signed();

/// What a command writes.
pub(super) enum Output {
    /// To standard output.
    Standard(io::Stdout),
    /// To a file, under its first name.
    File {
        file: File,
        /// Its first name.
        partial: PathBuf,
        /// Its name.
        path: PathBuf,
    },
}

impl Output {
    /// Opens a file, or standard output for `-`.
    ///
    /// The name is a plain file's, or nobody's yet. A device or a FIFO has nobody who could tell a
    /// whole file from a part, and a link would be replaced, or followed to where nobody looks.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Standard(io::stdout()));
        }
        check_plain("--output", path)?;
        if path.file_name().is_none() {
            bail!("--output {} is a directory: name a file in it", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = first_of_its_name(&partial)?;
        Ok(Self::File { file, partial, path: path.to_owned() })
    }

    /// Gives the file its name, for good: it is found after a crash, too.
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

    /// Leaves nothing behind.
    pub(super) fn give_up(self) {
        if let Self::File { partial, .. } = self {
            fs::remove_file(partial).ok();
        }
    }
}

/// Refuses a path at which something else than a plain file is.
fn check_plain(what: &str, path: &Path) -> anyhow::Result<()> {
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
        "{what} {shown} is no plain file but a FIFO, a device or a socket: name a file, or write to \
         standard output with `-`"
    )
}

/// A new file of this name, for its owner alone. One that was left behind there is replaced.
fn first_of_its_name(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot write {}", path.display());
    let busy = || anyhow!("another process writes {}: wait for its end", path.display());
    let mut options = File::options();
    options.write(true).custom_flags(FLAGS).mode(MODE);
    // Locked until the new one is, so that no other process takes the new one for left behind.
    let left = match fs::symlink_metadata(path) {
        Ok(_) => {
            check_plain("the first name of --output,", path)?;
            let left = options.open(path).with_context(cannot)?;
            if is_locked(&left) {
                return Err(busy());
            }
            fs::remove_file(path).with_context(cannot)?;
            Some(left)
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
    drop(left);
    Ok(file)
}

/// Locks a file, and says whether another process has. Some file systems have no locks.
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
