//! `scopegate explain` for a time in the past: the decision of that time, the changes that led to
//! it, and the changes after it.
//!
//! The decision log has the original decision. The audit log has all changes, so a replay up to a
//! revision restores the facts of that revision, and the evaluator of the server decides the check
//! again. If the audit log does not reach back far enough, or the catalog of that time is not
//! available, the decision is unknown. The changes are shown in any case.

mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;

use self::report::PastExplanation;
use super::catalog_file::{format_errors, read_text};
use super::client::{Client, ServerArgs, require, unwrap_response};
use super::decision_log;
use super::time::{self, TimeRange};
use crate::policy::catalog::AudienceError;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::decision::{Explanation, Verdict, decide, explain};
use crate::policy::query::Query;
use crate::policy::replay::{Replay, requirement_changed};
use crate::proto::{self, CheckRequest, ExplainCheckRequest, ListChangesRequest};
use crate::wire::convert;

/// The time in the past that is explained.
#[derive(Debug, Args)]
pub struct AtArgs {
    /// Explain the decision of this time: an RFC 3339 time, a date (its start in UTC), or a time of
    /// day in UTC (its last occurrence).
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    at: Option<TimeRange>,

    /// Explain the decision of this revision.
    #[arg(long, value_name = "REVISION", conflicts_with = "at")]
    at_revision: Option<u64>,

    /// Find the decision in this decision log of a server, `-` for standard input: the last denial,
    /// or the one of the given time. The scopes or the endpoint are read from it, if they are not
    /// given.
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,

    /// The catalog file of that time. Needed if the current catalog requires something else for
    /// this check.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
}

impl AtArgs {
    /// Whether a time in the past is given.
    ///
    /// # Errors
    /// --catalog is given without a time.
    pub(super) fn is_given(&self) -> anyhow::Result<bool> {
        let given = self.at.is_some() || self.at_revision.is_some() || self.decision_log.is_some();
        if !given && self.catalog.is_some() {
            bail!(
                "--catalog is for the past: give a time with --at, --at-revision or --decision-log"
            );
        }
        Ok(given)
    }
}

/// The requested time, before the audit log is read.
#[derive(Clone, Copy, Debug)]
struct Moment {
    revision: Option<u64>,
    range: Option<TimeRange>,
}

/// The part of the server's audit log that concerns a check.
struct AuditLog {
    /// The changes that concern the check, oldest first.
    changes: Vec<(proto::Change, Change)>,
    /// The oldest and the newest retained revision.
    retained: Option<(u64, u64)>,
    /// The time of the oldest retained change.
    begins_at: Timestamp,
    /// The revision and the time that are explained.
    revision: u64,
    time: Timestamp,
    /// The current catalog.
    yaml: String,
}

/// The decision from some time on. `None` if it is not known.
type PossibleDecision = Option<Result<Verdict, AudienceError>>;

/// A change, or a time at which a start or an expiry changed the decision.
struct Step<'a> {
    change: Option<&'a proto::Change>,
    time: Timestamp,
    revision: u64,
    /// The decision from this time on.
    decision: PossibleDecision,
    /// Whether the decision before was different.
    is_different: bool,
}

/// The decision at the requested time.
struct PastDecision {
    decision: PossibleDecision,
    layers: Vec<Explanation>,
    /// The reason why the decision is not known.
    unknown: Option<String>,
}

/// Explains a check as of a time in the past.
///
/// # Errors
/// The server cannot be reached or returns an error, or the logs do not reach back far enough.
pub(super) async fn explain_at(
    args: AtArgs,
    mut check: CheckRequest,
    server: &ServerArgs,
) -> anyhow::Result<bool> {
    let mut moment = Moment { revision: args.at_revision, range: args.at };
    let matches = match &args.decision_log {
        Some(log) => Some(decision_log::find(log, &check, moment.revision, moment.range)?),
        None => None,
    };
    let logged = matches.as_ref().and_then(|matches| matches.last.clone());
    if let Some(logged) = &logged {
        check = logged.check(&check);
        let (from, until) = (logged.time, logged.time);
        moment = Moment { revision: Some(logged.revision), range: Some(TimeRange { from, until }) };
    }
    if check.scopes.is_empty()
        && let Some(count) = logged.as_ref().and_then(|logged| logged.scopes_count)
    {
        bail!(
            "the check had {count} scopes, and the decision log does not have all of them: name \
             the scopes to explain"
        );
    }
    if check.scopes.is_empty() && check.endpoint.is_none() {
        let matches = matches.map(|matches| report::missing(&matches)).unwrap_or_default();
        bail!(
            "{matches}; to compute the decision instead, name the scopes, and the time with --at"
        );
    }
    check.at_least_revision = 0;
    let query = convert::query_from_proto(check.clone())?;
    let mut client = server.open().await?;
    let log = read(&mut client, &query, moment).await?;
    let file = args.catalog.as_deref().map(|path| Ok::<_, anyhow::Error>((path, read_text(path)?)));
    let (past, steps) = replay(&log, &query, file.transpose()?)?;
    let current = ExplainCheckRequest { check: Some(check.clone()) };
    let current = unwrap_response(client.authorization.explain_check(current).await)?;
    let current = require(&current.decision)?;
    let explanation =
        PastExplanation { check: &check, matches, logged, moment, log: &log, past, steps, current };
    client.printer.print_value(&explanation.json(), explanation.report())?;
    Ok(true)
}

/// Reads the whole audit log, because only the log of all companies has the changes of the catalog.
async fn read(client: &mut Client, query: &Query, moment: Moment) -> anyhow::Result<AuditLog> {
    let request = proto::GetCatalogRequest {};
    let catalog = unwrap_response(client.catalog.get_catalog(request).await)?;
    let mut log = AuditLog {
        changes: vec![],
        retained: None,
        begins_at: Timestamp::MIN,
        revision: 0,
        time: Timestamp::MIN,
        yaml: catalog.yaml,
    };
    let mut request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    let requested = moment.range.map(|range| range.from);
    loop {
        let page = unwrap_response(client.changes.list_changes(request.clone()).await)
            .context("explaining the past needs read access to the audit log of all companies")?;
        for entry in page.changes {
            let change = convert::change(entry.clone())?;
            let last = log.retained.map_or(0, |(_, last)| last);
            if let (ChangeKind::RestoreBackup, Some(requested)) = (change.kind, moment.revision)
                && (last + 1..entry.revision).contains(&requested)
            {
                bail!(
                    "revision {requested} was lost when a backup of revision {last} was restored: \
                     the audit log does not have it"
                );
            }
            if log.retained.is_none() {
                log.begins_at = change.time;
            }
            log.retained =
                Some((log.retained.map_or(entry.revision, |(first, _)| first), entry.revision));
            let is_reached = match moment.revision {
                Some(revision) => entry.revision <= revision,
                None => requested.is_none_or(|time| change.time <= time),
            };
            if is_reached {
                (log.revision, log.time) = (entry.revision, change.time);
            }
            if change.kind == ChangeKind::ApplyCatalog && entry.revision > catalog.revision {
                bail!("the catalog changed during the command: run it again");
            }
            if Replay::is_concerned(query, &change) {
                log.changes.push((entry, change));
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    log.time = requested.unwrap_or(log.time);
    let Some((first, last)) = log.retained else {
        bail!(
            "the audit log is empty (--audit-log-retention): restore a backup to another \
             directory, and run the command there"
        );
    };
    if let Some(requested) = moment.revision.filter(|requested| *requested > last) {
        bail!("revision {requested} does not exist: the last is {last}");
    }
    // There is nothing before the first change, unless older changes were removed.
    if log.revision == 0 && first > 1 {
        bail!(
            "the audit log begins at revision {first}, of {}: restore an earlier backup to another \
             directory, and run the command there",
            log.begins_at
        );
    }
    Ok(log)
}

/// The decision at the requested time, and after each change.
fn replay<'a>(
    log: &'a AuditLog,
    query: &Query,
    file: Option<(&Path, String)>,
) -> anyhow::Result<(PastDecision, Vec<Step<'a>>)> {
    let requirement_changes: Vec<_> =
        log.changes.iter().filter(|(_, c)| requirement_changed(query, c)).collect();
    let requirement_version =
        |at: u64| requirement_changes.iter().filter(|(change, _)| change.revision <= at).count();
    let yaml = |at: u64| match (requirement_version(at) == requirement_changes.len(), &file) {
        (true, _) => Some(log.yaml.as_str()),
        (false, Some((_, file)))
            if requirement_version(at) == requirement_version(log.revision) =>
        {
            Some(file.as_str())
        }
        (false, _) => None,
    };
    let first = log.retained.map_or(0, |(first, _)| first);
    let mut replay_state = Replay::of(query, first <= 1);
    let mut steps: Vec<Step<'_>> = Vec::new();
    let (mut state_at_moment, end) = (replay_state.clone(), Timestamp::now());
    for (n, (entry, change)) in log.changes.iter().enumerate() {
        replay_state.take(change)?;
        if entry.revision <= log.revision {
            state_at_moment = replay_state.clone();
        }
        let next = log.changes.get(n + 1).map_or(end, |(_, next)| next.time);
        let catalog = match yaml(entry.revision).filter(|_| replay_state.is_whole()) {
            Some(yaml) => Some(replay_state.catalog(yaml).map_err(|error| anyhow!("{error}"))?),
            None => None,
        };
        let decide_at = |time| Some(decide(query, replay_state.facts(catalog.as_ref()?, time)));
        let mut push_step = |change: Option<&'a proto::Change>, time| {
            let (decision, revision) = (decide_at(time), entry.revision);
            let is_different = steps.last().is_none_or(|last| last.decision != decision);
            if change.is_some() || is_different {
                steps.push(Step { change, time, revision, decision, is_different });
            }
        };
        push_step(Some(entry), change.time);
        let time_limits = catalog.iter().flat_map(|catalog| replay_state.turns(catalog));
        let time_limits = time_limits.filter(|time| change.time < *time && *time < next);
        time_limits.for_each(|time| push_step(None, time));
    }
    let past = decide_at_moment(
        &state_at_moment,
        log,
        query,
        yaml(log.revision),
        file.as_ref(),
        &requirement_changes,
    )?;
    Ok((past, steps))
}

fn decide_at_moment(
    replay_state: &Replay,
    log: &AuditLog,
    query: &Query,
    yaml: Option<&str>,
    file: Option<&(&Path, String)>,
    requirement_changes: &[&(proto::Change, Change)],
) -> anyhow::Result<PastDecision> {
    let unknown = |why| PastDecision { decision: None, layers: vec![], unknown: Some(why) };
    if !replay_state.is_whole() {
        let first = log.retained.map_or(0, |(first, _)| first);
        let is_unchanged = log.changes.iter().all(|(change, _)| change.revision <= log.revision);
        return Ok(unknown(match is_unchanged {
            true => {
                "the audit log begins after the company was created, but nothing that the check \
                 depends on has changed since then: the decision was the same as now, unless \
                 something has expired in between"
                    .to_owned()
            }
            false => format!(
                "the decision is not known: the audit log begins at revision {first}, after the \
                 company was created (--audit-log-retention); restore an earlier backup to another \
                 directory, and run the command there"
            ),
        }));
    }
    let has_changes = log.changes.iter().any(|(change, _)| change.revision <= log.revision);
    let Some(yaml) = yaml else {
        if !has_changes {
            return Ok(unknown("there was no catalog yet, so every check was denied".to_owned()));
        }
        let next = requirement_changes.iter().find(|(change, _)| change.revision > log.revision);
        let next = next.map_or(0, |(change, _)| change.revision);
        return Ok(unknown(format!(
            "the decision is not known: the catalog of revision {next} changed the requirement of \
             this check; give the previous catalog file with --catalog"
        )));
    };
    let catalog = replay_state.catalog(yaml);
    let catalog = match file {
        Some((path, file)) if file.as_str() == yaml => {
            let catalog =
                catalog.map_err(|problems| anyhow!("{}", format_errors(path, &problems)))?;
            let catalog_scopes: Vec<_> = catalog.scope_ids().collect();
            let (catalog_scopes, retained) =
                (catalog.names(&catalog_scopes), replay_state.scopes());
            if log.retained.is_some_and(|(first, _)| first <= 1)
                && !catalog_scopes.iter().eq(retained)
            {
                bail!(
                    "--catalog {} is not the catalog of revision {}: its scopes differ",
                    path.display(),
                    log.revision
                );
            }
            catalog
        }
        _ => catalog.map_err(|error| anyhow!("{error}"))?,
    };
    let facts = replay_state.facts(&catalog, log.time);
    let layers = explain(query, facts).unwrap_or_default();
    Ok(PastDecision { decision: Some(decide(query, facts)), layers, unknown: None })
}
