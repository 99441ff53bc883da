//! `scopegate changes list`: lists the changes of the audit log, newest or oldest first.

use clap::Args;
use clap::builder::PossibleValuesParser;
use prost_types::Timestamp;

use super::change_row::{actor, full, resource, summary};
use super::client::{Client, Limit, Pages, ServerArgs, truncated, unwrap_response};
use super::printer::{self, Cell, Report};
use super::suggestion;
use super::time;
use crate::policy::change::ChangeKind;
use crate::proto::{Change, ListChangesRequest, ListChangesResponse};

/// Arguments of `changes list`.
#[derive(Debug, Args)]
pub struct ChangeListArgs {
    /// Only changes of this company.
    #[arg(long)]
    company: Option<String>,

    /// Only changes of this credential of the --company.
    #[arg(long, requires = "company", default_value = "", hide_default_value = true)]
    credential: String,

    /// Only changes by this caller, or on behalf of this person.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    actor: String,

    /// Only changes of these kinds; repeat the flag or separate kinds by commas.
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        ignore_case = true,
        value_parser = PossibleValuesParser::new(ChangeKind::ALL.iter().map(|kind| kind.name()))
    )]
    kind: Vec<String>,

    /// Only changes at or after this time: a date (its start in UTC), an RFC 3339 time, or a
    /// duration before now such as `7d`.
    #[arg(long, value_name = "WHEN", value_parser = time::ago)]
    since: Option<Timestamp>,

    /// Only changes before this time, in the format of --since.
    #[arg(long, value_name = "WHEN", value_parser = time::ago)]
    until: Option<Timestamp>,

    /// Only changes after this revision.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    after: u64,

    /// List the oldest retained change first.
    #[arg(long)]
    oldest_first: bool,

    /// The maximum number to list.
    #[command(flatten)]
    limit: Limit,

    /// The server to call.
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists the changes, and prints them.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub(super) async fn list(args: ChangeListArgs) -> anyhow::Result<()> {
    let mut client = args.server.open().await?;
    // Kinds are matched without case, and sent in the spelling of the API.
    let kind = |input: &String| {
        let same = |kind: &&ChangeKind| kind.name().eq_ignore_ascii_case(input);
        ChangeKind::ALL.iter().find(same).map_or(input.clone(), |kind| kind.name().to_owned())
    };
    let filter = ListChangesRequest {
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
    let (mut listed, mut pages) = (ListChangesResponse::default(), Pages::of(args.limit));
    loop {
        let (page_size, page_token) = (pages.size(), pages.token.clone());
        let request = ListChangesRequest { page_size, page_token, ..filter.clone() };
        let page = unwrap_response(client.changes.list_changes(request).await)?;
        let more = pages.turn(page.changes.len(), &page.next_page_token);
        listed.changes.extend(page.changes);
        listed.next_page_token = page.next_page_token;
        if !more {
            break;
        }
    }
    let report = if client.printer.is_for_people() {
        let oldest = if listed.next_page_token.is_empty() {
            oldest_retained(&mut client, &filter).await
        } else {
            None
        };
        report(&listed, oldest.as_ref())
    } else {
        Report::default()
    };
    client.printer.print(&listed, report)?;
    match filter.company_id {
        Some(company) if listed.changes.is_empty() => match filter.credential_id.as_str() {
            "" => suggestion::warn_of_company(&mut client, &company).await,
            credential => suggestion::warn_of_credential(&mut client, &company, credential).await,
        },
        _ => {}
    }
    Ok(())
}

/// The oldest retained change in the range of the list, if older changes were removed.
async fn oldest_retained(client: &mut Client, list: &ListChangesRequest) -> Option<Change> {
    if list.after_revision > 0 {
        return None;
    }
    let company_id = list.company_id.clone();
    let request = ListChangesRequest { company_id, page_size: 1, ..Default::default() };
    // This is only for a note, so an error is ignored.
    let page = client.changes.list_changes(request).await.ok()?.into_inner();
    let oldest = page.changes.into_iter().next()?;
    let is_first = match list.company_id {
        Some(_) => oldest.kind == ChangeKind::CreateCompany.name(),
        None => oldest.revision <= 1,
    };
    let time = |time: Option<&Timestamp>| time.map(|time| (time.seconds, time.nanos));
    let reaches_back = time(list.start_time.as_ref())
        .is_none_or(|start| time(oldest.time.as_ref()).is_none_or(|retained| start < retained));
    Some(oldest).filter(|_| !is_first && reaches_back)
}

fn report(listed: &ListChangesResponse, oldest: Option<&Change>) -> Report {
    let row = |change: &Change| {
        [
            change.revision.into(),
            time::text(change.time.as_ref()).into(),
            actor(change).into(),
            change.kind.clone().into(),
            resource(change).into(),
        ]
    };
    let changes = listed.changes.iter();
    let report = if printer::is_on_a_terminal() {
        let details = listed.changes.iter().map(|change| {
            let reason = match change.reason.as_str() {
                "" => String::new(),
                reason => format!("reason: {reason}"),
            };
            [summary(change), reason].into_iter().filter(|line| !line.is_empty()).collect()
        });
        let head = &["REVISION", "TIME", "ACTOR", "KIND", "RESOURCE"];
        Report::default().rows_with(head, changes.map(row), details)
    } else {
        // One line for each change and nothing cut, for `grep`.
        let head = &["REVISION", "TIME", "ACTOR", "KIND", "RESOURCE", "CHANGE", "REASON"];
        let rows = changes.map(|change| {
            let [revision, time, actor, kind, resource]: [Cell; 5] = row(change);
            let (fields, reason) = (full(change), change.reason.clone());
            [revision, time, actor, kind, resource, fields.into(), reason.into()]
        });
        Report::default().rows(head, rows)
    };
    let report = truncated(report, &listed.next_page_token);
    match oldest {
        Some(oldest) => report.line(format!(
            "changes before revision {} ({}) are no longer retained (serve --audit-log-retention)",
            oldest.revision,
            time::text(oldest.time.as_ref())
        )),
        None => report,
    }
}
