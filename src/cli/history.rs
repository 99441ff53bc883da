//! `scopegate changes list`: the audit log, from either end, all of it or what is asked for.

use clap::Args;
use clap::builder::PossibleValuesParser;
use prost_types::Timestamp;

use super::change_row::{actor, full, resource, summary};
use super::client::{Client, Limit, Pages, ServerArgs, unwrap_response};
use super::printer::{self, Cell, Report};
use super::suggestion;
use super::time;
use crate::policy::change::ChangeKind;
use crate::proto::{Change, ListChangesRequest, ListChangesResponse};

/// Which changes to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only changes of this company.
    #[arg(long)]
    company: Option<String>,

    /// Only changes of this credential of the --company.
    #[arg(long, requires = "company", default_value = "", hide_default_value = true)]
    credential: String,

    /// Only changes that this caller made, or that were made on behalf of this person.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    actor: String,

    /// Only changes of these kinds: repeat it, or put commas between.
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        ignore_case = true,
        value_parser = PossibleValuesParser::new(ChangeKind::ALL.iter().map(|kind| kind.name()))
    )]
    kind: Vec<String>,

    /// Only changes of this time or later: a date (its start in UTC), an RFC 3339 time, or how long
    /// ago, such as `7d`.
    #[arg(long, value_name = "WHEN", value_parser = time::ago)]
    since: Option<Timestamp>,

    /// Only changes of before this time: as --since.
    #[arg(long, value_name = "WHEN", value_parser = time::ago)]
    until: Option<Timestamp>,

    /// Only changes behind this revision.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    after: u64,

    /// Begin with the oldest that is kept.
    #[arg(long)]
    oldest_first: bool,

    /// The maximum number to list.
    #[command(flatten)]
    limit: Limit,

    /// The server to call.
    #[command(flatten)]
    server: ServerArgs,
}

/// Asks, and prints the changes.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut client = args.server.open().await?;
    // The spelling of the contract, whatever was typed.
    let kind = |typed: &String| {
        let same = |kind: &&ChangeKind| kind.name().eq_ignore_ascii_case(typed);
        ChangeKind::ALL.iter().find(same).map_or(typed.clone(), |kind| kind.name().to_owned())
    };
    let all = ListChangesRequest {
        company_id: args.company,
        after_revision: args.after,
        newest_first: !args.oldest_first,
        start_time: args.since,
        end_time: args.until,
        actor: args.actor,
        kinds: args.kind.iter().map(kind).collect(),
        credential_id: args.credential,
        ..ListChangesRequest::default()
    };
    let (mut found, mut pages) = (ListChangesResponse::default(), Pages::of(args.limit));
    loop {
        let (page_size, page_token) = (pages.size(), pages.token.clone());
        let request = ListChangesRequest { page_size, page_token, ..all.clone() };
        let page = unwrap_response(client.changes.list_changes(request).await)?;
        let more = pages.turn(page.changes.len(), &page.next_page_token);
        found.changes.extend(page.changes);
        found.next_page_token = page.next_page_token;
        if !more {
            break;
        }
    }
    let report = if client.printer.is_for_people() {
        let oldest = if found.next_page_token.is_empty() {
            oldest_kept(&mut client, &all).await
        } else {
            None
        };
        report(&found, oldest.as_ref())
    } else {
        Report::default()
    };
    client.printer.print(&found, report)?;
    match all.company_id {
        Some(company) if found.changes.is_empty() => match all.credential_id.as_str() {
            "" => suggestion::warn_of_company(&mut client, &company).await,
            credential => suggestion::warn_of_credential(&mut client, &company, credential).await,
        },
        _ => {}
    }
    Ok(())
}

/// The oldest change that is kept of those that the list would go back to, if older ones were
/// removed.
async fn oldest_kept(client: &mut Client, list: &ListChangesRequest) -> Option<Change> {
    if list.after_revision > 0 {
        return None;
    }
    let company_id = list.company_id.clone();
    let request = ListChangesRequest { company_id, page_size: 1, ..Default::default() };
    // It is a note. Nothing fails for the lack of it.
    let page = client.changes.list_changes(request).await.ok()?.into_inner();
    let oldest = page.changes.into_iter().next()?;
    let is_first = match list.company_id {
        Some(_) => oldest.kind == ChangeKind::CreateCompany.name(),
        None => oldest.revision <= 1,
    };
    let time = |time: Option<&Timestamp>| time.map(|time| (time.seconds, time.nanos));
    let reaches = time(list.start_time.as_ref())
        .is_none_or(|start| time(oldest.time.as_ref()).is_none_or(|kept| start < kept));
    Some(oldest).filter(|_| !is_first && reaches)
}

fn report(found: &ListChangesResponse, oldest: Option<&Change>) -> Report {
    let row = |change: &Change| {
        [
            change.revision.into(),
            time::text(change.time.as_ref()).into(),
            actor(change).into(),
            change.kind.clone().into(),
            resource(change).into(),
        ]
    };
    let changes = found.changes.iter();
    let mut report = if printer::is_on_a_terminal() {
        let below = found.changes.iter().map(|change| {
            let reason = match change.reason.as_str() {
                "" => String::new(),
                reason => format!("reason: {reason}"),
            };
            [summary(change), reason].into_iter().filter(|line| !line.is_empty()).collect()
        });
        let head = &["REVISION", "TIME", "ACTOR", "KIND", "RESOURCE"];
        Report::default().rows_with(head, changes.map(row), below)
    } else {
        // A line each, and nothing cut: for `grep`.
        let head = &["REVISION", "TIME", "ACTOR", "KIND", "RESOURCE", "CHANGE", "REASON"];
        let rows = changes.map(|change| {
            let [revision, time, actor, kind, resource]: [Cell; 5] = row(change);
            let (fields, reason) = (full(change), change.reason.clone());
            [revision, time, actor, kind, resource, fields.into(), reason.into()]
        });
        Report::default().rows(head, rows)
    };
    if !found.next_page_token.is_empty() {
        return report.line("there are more: raise --limit");
    }
    if found.changes.is_empty() {
        report = report.line("none");
    }
    match oldest {
        Some(oldest) => report.line(format!(
            "changes before revision {} ({}) are no longer kept (serve --audit-log-retention)",
            oldest.revision,
            time::text(oldest.time.as_ref())
        )),
        None => report,
    }
}
