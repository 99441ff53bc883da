//! Output: the file, named pipe or standard output that the decision log is written to.
//!
//! Each line starts on a new line, even if a crash or a full disk truncated the line before it. A
//! named pipe is opened without waiting for its reader. A write to a full pipe is tried again until
//! the file is to be opened again.
//!
//! Not here: which lines are written; see [`super::writer`].

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// How long to wait before a full pipe is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// The output of the log.
pub struct DecisionLogOutput {
    /// None for standard output.
    path: Option<PathBuf>,
    /// None for a named pipe that had no reader yet.
    file: Option<File>,
    /// Whether the output ends within a line.
    is_torn: bool,
}

impl DecisionLogOutput {
    /// Opens a file to append to it, or standard output for `-`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            // This bypasses the buffer of the standard library, so the number of written bytes is known.
            let file = io::stdout().as_fd().try_clone_to_owned()?.into();
            return Ok(Self { path: None, file: Some(file), is_torn: false });
        }
        let file = open(path)?;
        let is_torn = file.is_some() && ends_torn(path);
        Ok(Self { path: Some(path.to_owned()), file, is_torn })
    }

    /// Opens the file of the same name again, for example after a rotation. The old file stays in
    /// use if that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            *self = Self::open(path)?;
        }
        Ok(())
    }

    /// Writes lines and returns how many bytes of them were written. A full pipe is tried again
    /// until `give_up` is true.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        give_up: impl Fn() -> bool,
    ) -> (usize, io::Result<()>) {
        if let (None, Some(path)) = (&self.file, &self.path) {
            match open(path) {
                Ok(file) => self.file = file,
                Err(error) => return (0, Err(error)),
            }
        }
        let Some(file) = &mut self.file else {
            return (0, Err(io::Error::new(ErrorKind::BrokenPipe, "the pipe has no reader")));
        };
        if self.is_torn {
            let (written, result) = write_all(file, b"\n", &give_up);
            if written == 0 {
                return (0, result);
            }
            self.is_torn = false;
        }
        let (written, result) = write_all(file, lines, give_up);
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = lines.get(last) != Some(&b'\n');
        }
        (written, result)
    }
}

/// Opens a file to append to it, so that it can be moved or truncated while it is written. None: it
/// is a named pipe without a reader.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(0o600).custom_flags(flags);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file ends within a line. False for a file that cannot be read.
fn ends_torn(path: &Path) -> bool {
    let last = || {
        let is_file = path.metadata()?.is_file();
        let mut last = *b"\n";
        if is_file {
            let mut file = File::open(path)?;
            if file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
        }
        io::Result::Ok(last)
    };
    last().is_ok_and(|last| last != *b"\n")
}

fn write_all(
    output: &mut impl Write,
    bytes: &[u8],
    give_up: impl Fn() -> bool,
) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !give_up() => {
                thread::sleep(RETRY);
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_after_a_truncated_line_starts_on_a_new_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("decisions.jsonl");
        let text = || std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, "{\"whole\":1}\n{\"torn\":").expect("written");
        let mut output = DecisionLogOutput::open(&path).expect("opened");
        let (written, result) = output.write(b"{}\n", || true);
        assert!(result.is_ok() && written == 3);
        assert_eq!(text(), "{\"whole\":1}\n{\"torn\":\n{}\n");
        // A file that is empty or ends with a newline gets no extra newline.
        output.reopen().expect("opened");
        output.write(b"{}\n", || true).1.expect("written");
        assert_eq!(text(), "{\"whole\":1}\n{\"torn\":\n{}\n{}\n");
        std::fs::remove_file(&path).expect("gone");
        output.reopen().expect("opened");
        output.write(b"{}\n", || true).1.expect("written");
        assert_eq!(text(), "{}\n");
    }

    #[test]
    fn next_write_ends_a_truncated_write() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let flags = rustix::fs::fcntl_getfl(&writer).expect("flags");
        rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set");
        let file = std::os::fd::OwnedFd::from(writer).into();
        let mut output = DecisionLogOutput { path: None, file: Some(file), is_torn: false };
        let line = [&[b'x'; 99_999][..], b"\n"].concat();
        let (written, result) = output.write(&line, || true);
        assert!(result.is_err() && written > 0 && written < line.len(), "{written}");
        let mut read = vec![0; written];
        reader.read_exact(&mut read).expect("read");
        output.write(b"{}\n", || true).1.expect("written");
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "\n{}\n");
    }
}
