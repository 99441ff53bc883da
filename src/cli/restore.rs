//! `scopegate restore`: creates a new store from a backup. It works on the data directory itself,
//! because there is no server when a restore is needed.

use clap::Args;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::policy::change::Author;
use crate::policy::text;
use crate::store::{RestoreError, Restored, restore as restore_store};

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup file; `-` for standard input.
    pub file: PathBuf,

    /// The maximum time to wait for data on standard input before the restore fails. The default is
    /// no limit.
    #[arg(
        long,
        env = "SCOPEGATE_TIMEOUT",
        value_name = "DURATION",
        value_parser = super::endpoint_args::timeout
    )]
    pub timeout: Option<u32>,

    /// The directory of the new store. It must not exist, or be empty except for `lost+found`.
    #[arg(long, env = "SCOPEGATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The reason, for the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,

    /// The person on whose behalf you act, for the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub on_behalf_of: String,
}

/// Restores a backup, and prints the result. True if the store was created.
///
/// # Errors
/// Nothing was restored; the error has the reason.
pub fn restore(args: RestoreArgs) -> anyhow::Result<bool> {
    let RestoreArgs { file, timeout, data_dir, reason, on_behalf_of } = args;
    for (flag, text) in [("--reason", &reason), ("--on-behalf-of", &on_behalf_of)] {
        text::check_line(text).map_err(|error| anyhow!("{flag} {error}"))?;
    }
    let backup: Box<dyn Read> = if file.as_os_str() == "-" {
        match timeout {
            Some(seconds) => Box::new(TimedInput(Timespec { tv_sec: seconds.into(), tv_nsec: 0 })),
            None => Box::new(io::stdin()),
        }
    } else {
        let opened = File::open(&file);
        Box::new(opened.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let author = Author { actor: "scopegate restore".to_owned(), on_behalf_of, reason };
    let restored = restore_store(&data_dir, backup, author, Timestamp::now());
    let restored = restored.map_err(|error| explain(&error, &file.display().to_string()))?;
    let Restored { backup, revision, .. } = restored;
    writeln!(
        io::stdout(),
        "restored revision {backup}; the store continues at revision {revision}, and changes after \
         the backup are lost"
    )?;
    Ok(true)
}

fn explain(error: &RestoreError, file: &str) -> anyhow::Error {
    if error.is_of_the_backup() { anyhow!("`{file}` {error}") } else { anyhow!("{error}") }
}

/// Standard input, unbuffered, with a time limit for each read.
struct TimedInput(Timespec);

impl Read for TimedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = io::stdin();
        if poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&self.0))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(rustix::io::read(&input, buffer)?)
    }
}
