//! `scopegate changes`: the commands of the audit log.

use std::time::Duration;

use clap::Subcommand;

use super::client::ServerArgs;
use super::history::{ChangeListArgs, list};
use super::time;
use super::watch::watch;

/// Commands of the audit log.
#[derive(Debug, Subcommand)]
pub enum ChangesCommand {
    /// List changes, newest first.
    List(ChangeListArgs),
    /// Print changes as they are made, one a line, until Ctrl-C.
    Watch {
        /// Only changes of this company.
        #[arg(long)]
        company: Option<String>,
        /// Start after this revision; 0 starts with the oldest change that is retained. The default
        /// is the next change.
        #[arg(long, value_name = "REVISION")]
        after: Option<u64>,
        /// Start after the change that was printed with this cursor.
        #[arg(long, conflicts_with = "after", default_value = "", hide_default_value = true)]
        cursor: String,
        /// How long to retry when the connection is lost, such as `30s` or `5m`. The stream
        /// continues after the last printed change. `0s` disables retries.
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
