//! `scopegate restore`: a new store of a backup. The one command that touches a store itself:
//! where it is needed there is no server.

use clap::Args;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use crate::policy::change::Author;
use crate::policy::text;
use crate::store::sled::{RestoreError, Restored, restore as make};

/// What to restore, and where to.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup; `-` for standard input.
    pub file: PathBuf,

    /// How long standard input may be silent, in seconds, before the restore is given up; for ever,
    /// if not given.
    #[arg(
        long,
        env = "SCOPEGATE_TIMEOUT",
        value_name = "DURATION",
        value_parser = super::endpoint_args::timeout
    )]
    pub timeout: Option<u32>,

    /// The directory of the new store. It must be empty but for `lost+found`, or not exist.
    #[arg(long, env = "SCOPEGATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Why, for the audit record.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,

    /// For whom, for the audit record.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub on_behalf_of: String,
}

/// Restores, and prints what came of it. True if the store is there.
///
/// # Errors
/// Nothing was restored, and why.
pub fn restore(args: RestoreArgs) -> anyhow::Result<bool> {
    let RestoreArgs { file, timeout, data_dir, reason, on_behalf_of } = args;
    for (flag, text) in [("--reason", &reason), ("--on-behalf-of", &on_behalf_of)] {
        text::check_line(text).map_err(|error| anyhow!("{flag} {error}"))?;
    }
    let backup: Box<dyn Read> = if file.as_os_str() == "-" {
        match timeout {
            Some(seconds) => Box::new(TimedInput::new(Duration::from_secs(seconds.into()))),
            None => Box::new(io::stdin()),
        }
    } else {
        let opened = File::open(&file);
        Box::new(opened.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let author = Author { actor: "scopegate restore".to_owned(), on_behalf_of, reason };
    let restored = make(&data_dir, backup, author, Timestamp::now());
    let restored = restored.map_err(|error| explain(&error, &file.display().to_string()))?;
    let Restored { backup, revision, .. } = restored;
    writeln!(
        io::stdout(),
        "restored revision {backup}; the store goes on at revision {revision}, and what was \
         changed after the backup is lost"
    )?;
    Ok(true)
}

fn explain(error: &RestoreError, file: &str) -> anyhow::Error {
    if error.is_of_the_backup() { anyhow!("`{file}` {error}") } else { anyhow!("{error}") }
}

/// How many bytes are read at once, and how many pieces are read ahead.
const PIECE: usize = 1 << 16;
const AHEAD: usize = 16;

/// Standard input, which may be silent for so long and no longer.
struct TimedInput {
    pieces: Receiver<io::Result<Vec<u8>>>,
    limit: Duration,
    piece: Cursor<Vec<u8>>,
}

impl TimedInput {
    fn new(limit: Duration) -> Self {
        let (send, pieces) = sync_channel(AHEAD);
        // A read that never returns ends with the process.
        thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let read = io::stdin().read(&mut piece).map(|length| {
                    piece.truncate(length);
                    piece
                });
                if read.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {
                    continue;
                }
                let is_last = read.as_ref().map_or(true, Vec::is_empty);
                if send.send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self { pieces, limit, piece: Cursor::default() }
    }
}

impl Read for TimedInput {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(into)?;
        if read > 0 {
            return Ok(read);
        }
        match self.pieces.recv_timeout(self.limit) {
            Ok(piece) => self.piece = Cursor::new(piece?),
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(0),
        }
        self.piece.read(into)
    }
}
