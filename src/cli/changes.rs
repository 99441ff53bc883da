//! `scopegate changes`: the audit log, and the stream of it.

use std::time::Duration;

use clap::Subcommand;

use super::client::ServerArgs;
use super::history::{ListArgs, list};
use super::printer;
use super::time;
use super::watch::watch;
use crate::proto::Change;

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

/// A change on a line.
pub(super) fn line(change: &Change) -> String {
    let time = time::text(change.time.as_ref());
    let (who, kind) = (who(change), &change.kind);
    let reason =
        if change.reason.is_empty() { String::new() } else { format!("({})", change.reason) };
    let parts = [
        change.revision.to_string(),
        time,
        who,
        kind.clone(),
        of_whom(change),
        if printer::is_on_a_terminal() { what(change) } else { what_whole(change) },
        reason,
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// Who made it.
pub(super) fn who(change: &Change) -> String {
    match change.on_behalf_of.as_str() {
        "" => change.actor.clone(),
        person => format!("{} for {person}", change.actor),
    }
}

/// The ids of what it concerns, from the company down.
pub(super) fn of_whom(change: &Change) -> String {
    let ids = [&change.company_id, &change.credential_id, &change.user_id];
    let ids: Vec<_> = ids.into_iter().filter(|id| !id.is_empty()).map(String::as_str).collect();
    ids.join("/")
}

/// How much of a change people are shown; programs get all of it.
const SHOWN: usize = 8;
/// How much of a field's value.
const SHOWN_OF_A_VALUE: usize = 40;

/// What moved, as much of it as is read at a glance.
pub(super) fn what(change: &Change) -> String {
    moved(change, SHOWN, SHOWN_OF_A_VALUE)
}

/// All that moved.
pub(super) fn what_whole(change: &Change) -> String {
    moved(change, usize::MAX, usize::MAX)
}

/// A list as people read it: by its names, so many of them at most.
fn names(value: &str, most: usize) -> String {
    let Ok(names) = serde_json::from_str::<Vec<String>>(value) else { return value.to_owned() };
    let shown = names.get(..most).unwrap_or(&names).join(" ");
    match names.len().saturating_sub(most) {
        _ if names.is_empty() => "none".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn moved(change: &Change, most: usize, most_of_a_value: usize) -> String {
    let added = change.added_scopes.iter().map(|scope| format!("+{scope}"));
    let removed = change.removed_scopes.iter().map(|scope| format!("-{scope}"));
    let fields = change.fields.iter().map(|field| {
        let shown = |value: &str| match value.char_indices().nth(most_of_a_value) {
            _ if value.is_empty() => "none".to_owned(),
            _ if most < usize::MAX && value.starts_with('[') => names(value, most),
            Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
            None => value.to_owned(),
        };
        match (shown(&field.before), shown(&field.after)) {
            // Of what did not exist, and of what has none.
            (before, after) if before == "none" && after == "none" => {
                format!("{}: none", field.field)
            }
            (before, after) => format!("{}: {before} -> {after}", field.field),
        }
    });
    let mut parts: Vec<_> = added.chain(removed).chain(fields).collect();
    if parts.len() > most {
        let more = parts.len() - most;
        parts.truncate(most);
        parts.push(format!("and {more} more"));
    }
    parts.join(" ")
}
