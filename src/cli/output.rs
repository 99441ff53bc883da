//! Output: a file that has its name only when it is whole, or standard output.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Whoever owns the file reads it, and nobody else.
const MODE: u32 = 0o600;

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
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Standard(io::stdout()));
        }
        if path.is_dir() {
            bail!("--output {} is a directory: name a file in it", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let cannot = || format!("cannot write {}", partial.display());
        let open =
            File::options().create(true).truncate(false).write(true).mode(MODE).open(&partial);
        let file = open.with_context(cannot)?;
        if file.try_lock().is_err() {
            bail!("another process writes {}: wait for its end", partial.display());
        }
        // One that was left behind may be readable for others.
        file.set_permissions(Permissions::from_mode(MODE)).with_context(cannot)?;
        file.set_len(0).with_context(cannot)?;
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
