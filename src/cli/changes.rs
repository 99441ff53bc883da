//! `scopegate changes`: the audit log, and the stream of it.

use std::time::Duration;

use clap::Subcommand;

use super::client::ServerArgs;
use super::history::{ListArgs, list};
use super::time;
use super::watch::watch;

/// Commands of the audit log.
#[derive(Debug, Subcommand)]
pub enum ChangesCommand {
    /// List changes, newest first.
    List(ListArgs),
    /// Print changes as they are made, one a line, until Ctrl-C.
    Watch {
        /// Only changes of this company.
        #[arg(long)]
        company: Option<String>,
        /// Begin behind this revision, 0 for all that is kept; if not given, with the next change.
        #[arg(long, value_name = "REVISION")]
        after: Option<u64>,
        /// Begin behind the change that came with this cursor.
        #[arg(long, conflicts_with = "after", default_value = "", hide_default_value = true)]
        cursor: String,
        /// For how long to try to connect again when the server is gone, such as `30s` or `5m`. The
        /// stream goes on behind the last change. `0s`: end at once.
        #[arg(
            long,
            env = "SCOPEGATE_RECONNECT",
            default_value = "30s",
            value_name = "DURATION",
            value_parser = time::window
        )]
        reconnect: Duration,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn changes(command: ChangesCommand) -> anyhow::Result<bool> {
    match command {
        ChangesCommand::List(args) => list(args).await?,
        ChangesCommand::Watch { company, after, cursor, reconnect, server } => {
            watch(company, after, cursor, reconnect, &server).await?;
        }
    }
    Ok(true)
}
