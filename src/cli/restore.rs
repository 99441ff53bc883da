//! `scopegate restore`: a new store of a backup. The one command that touches a store itself:
//! where it is needed there is no server.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use crate::config::RestoreArgs;
use crate::policy::change::Author;
use crate::store::sled::{RestoreError, Restored, restore as make};

/// Restores, and prints what came of it. True if the store is there.
///
/// # Errors
/// Nothing was restored, and why.
pub fn restore(args: RestoreArgs) -> anyhow::Result<bool> {
    let RestoreArgs { file, data_dir, reason, on_behalf_of } = args;
    let backup: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
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
