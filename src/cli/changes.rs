//! `scopegate changes`: the audit log, and the stream of it.

use anyhow::bail;
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use tonic::Code;

use super::asking::{Asking, Desk, Limit, Pages, answer, cut, whole};
use super::connect_for_long;
use super::moment;
use super::printer::Sheet;
use super::said;
use crate::proto::{
    Change, ListChangesRequest, ListChangesResponse, ListCompaniesRequest, WatchChangesRequest,
};
use crate::telemetry;

/// Commands of the audit log.
#[derive(Debug, Subcommand)]
pub enum ChangesCommand {
    /// List changes, oldest first.
    List {
        /// Only changes of this company.
        #[arg(long)]
        company: Option<String>,
        /// Only changes behind this revision.
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
        after: u64,
        /// How many.
        #[command(flatten)]
        limit: Limit,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
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
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn changes(command: ChangesCommand) -> anyhow::Result<bool> {
    match command {
        ChangesCommand::List { company, after, limit, asking } => {
            list(company, after, limit, &asking).await?;
        }
        ChangesCommand::Watch { company, after, cursor, asking } => {
            watch(company, after, cursor, &asking).await?;
        }
    }
    Ok(true)
}

async fn list(
    company: Option<String>,
    after: u64,
    limit: Limit,
    asking: &Asking,
) -> anyhow::Result<()> {
    let mut desk = asking.open().await?;
    let (mut all, mut pages) = (ListChangesResponse::default(), Pages::of(limit));
    loop {
        let request = ListChangesRequest {
            company_id: company.clone(),
            after_revision: after,
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = answer(desk.changes.list_changes(request).await)?;
        let more = pages.turn(page.changes.len(), &page.next_page_token);
        all.changes.extend(page.changes);
        all.next_page_token = page.next_page_token;
        if !more {
            break;
        }
    }
    let rows = all.changes.iter().map(|change| {
        [
            change.revision.into(),
            moment::text(change.time.as_ref()).into(),
            who(change).into(),
            change.kind.clone().into(),
            of_whom(change).into(),
            what(change).into(),
            change.reason.clone().into(),
        ]
    });
    let head = &["REVISION", "TIME", "ACTOR", "KIND", "OF", "WHAT", "REASON"];
    let sheet = Sheet::default().rows(head, rows);
    desk.printer.print(&all, cut(sheet, &all.next_page_token))
}

async fn watch(
    company: Option<String>,
    after: Option<u64>,
    mut cursor: String,
    asking: &Asking,
) -> anyhow::Result<()> {
    let mut desk = asking.open_on(connect_for_long(&asking.server).await?)?;
    let after_revision = match after {
        Some(after) => after,
        None if cursor.is_empty() => head(&mut desk).await?,
        None => 0,
    };
    let request =
        WatchChangesRequest { company_id: company, after_revision, cursor: cursor.clone() };
    // Before the first change is shown: whoever has seen it may stop this.
    let mut stop = signal(SignalKind::interrupt())?;
    let mut stream = answer(desk.changes.watch_changes(request).await)?;
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            _ = stop.recv() => break,
        };
        match next {
            Ok(Some(step)) => {
                desk.printer.print_line(&step, &line(whole(&step.change)?))?;
                cursor = step.cursor;
            }
            Ok(None) => bail!("the server has ended the stream; {}", resume(&cursor)),
            // Nothing was sent that could be lost.
            Err(status) if status.code() == Code::OutOfRange => return Err(said(&status)),
            Err(status) => bail!("{}; {}", said(&status), resume(&cursor)),
        }
    }
    if desk.printer.is_for_people() && !cursor.is_empty() {
        telemetry::tell(&resume(&cursor));
    }
    Ok(())
}

fn resume(cursor: &str) -> String {
    match cursor {
        "" => "no change was seen: run it again".to_owned(),
        cursor => format!("go on behind the last change with --cursor {cursor}"),
    }
}

/// The revision that the server is at.
async fn head(desk: &mut Desk) -> anyhow::Result<u64> {
    let one = ListCompaniesRequest { page_size: 1, page_token: String::new() };
    Ok(answer(desk.directory.list_companies(one).await)?.revision)
}

fn line(change: &Change) -> String {
    let time = moment::text(change.time.as_ref());
    let (who, kind) = (who(change), &change.kind);
    let reason =
        if change.reason.is_empty() { String::new() } else { format!("({})", change.reason) };
    let parts = [
        change.revision.to_string(),
        time,
        who,
        kind.clone(),
        of_whom(change),
        what(change),
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

/// What moved.
pub(super) fn what(change: &Change) -> String {
    let added = change.added_scopes.iter().map(|scope| format!("+{scope}"));
    let removed = change.removed_scopes.iter().map(|scope| format!("-{scope}"));
    let fields = change.fields.iter().map(|field| {
        let shown = |value: &str| match value.char_indices().nth(SHOWN_OF_A_VALUE) {
            _ if value.is_empty() => "none".to_owned(),
            Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
            None => value.to_owned(),
        };
        format!("{}: {} -> {}", field.field, shown(&field.before), shown(&field.after))
    });
    let mut parts: Vec<_> = added.chain(removed).chain(fields).collect();
    if parts.len() > SHOWN {
        let more = parts.len() - SHOWN;
        parts.truncate(SHOWN);
        parts.push(format!("and {more} more"));
    }
    parts.join(" ")
}
