//! `scopegate explain` at a moment of the past: what was decided then, what had led to it, and what
//! has become of it.
//!
//! The decision log says what was answered. The audit log says what every commit did, so replaying
//! it up to that revision gives the facts of then, of which the evaluator that a server asks decides
//! again, at that time. Where the audit log no longer reaches back, or the catalog of then is not at
//! hand, no answer is given for one; the changes are shown all the same.

mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;

use self::report::PastExplanation;
use super::catalog::{listed, text};
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

/// Which moment.
#[derive(Debug, Args)]
pub struct AtArgs {
    /// As it was then: an RFC 3339 time, a date (its start in UTC), or a time of day in UTC, the
    /// last that there was.
    #[arg(long, value_name = "TIME", value_parser = time::past)]
    at: Option<TimeRange>,

    /// As it was at this revision.
    #[arg(long, value_name = "REVISION", conflicts_with = "at")]
    at_revision: Option<u64>,

    /// As a server's decision log has it, `-` for standard input: the last denial in it, or of the
    /// time that is given. What the call needed is read there, if it is not given.
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,

    /// The catalog file of then, where today's asks something else of the check.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
}

impl AtArgs {
    /// Whether a moment of the past is asked for.
    ///
    /// # Errors
    /// A catalog of then is given, and no then.
    pub(super) fn is_given(&self) -> anyhow::Result<bool> {
        let given = self.at.is_some() || self.at_revision.is_some() || self.decision_log.is_some();
        if !given && self.catalog.is_some() {
            bail!("--catalog is for the past: say when by --at, --at-revision or --decision-log");
        }
        Ok(given)
    }
}

/// A moment as far as it is known before the audit log is read.
#[derive(Clone, Copy, Debug)]
struct Moment {
    revision: Option<u64>,
    span: Option<TimeRange>,
}

/// What the server's audit log says of a check.
struct Log {
    /// The changes that concern it, in order.
    changes: Vec<(proto::Change, Change)>,
    /// The oldest revision that is kept; the last.
    kept: Option<(u64, u64)>,
    /// When the oldest was made.
    begins: Timestamp,
    /// The moment's revision, and its time.
    revision: u64,
    time: Timestamp,
    /// The catalog of today.
    yaml: String,
}

/// What was decided from some moment on; nothing, where that cannot be known.
type Answer = Option<Result<Verdict, AudienceError>>;

/// A change, or a moment at which time alone changed the answer.
struct Step<'a> {
    change: Option<&'a proto::Change>,
    time: Timestamp,
    revision: u64,
    /// What was decided from then on.
    answer: Answer,
    /// Whether that was another answer before.
    turned: bool,
}

/// What was decided at the moment.
struct Then {
    answer: Answer,
    layers: Vec<Explanation>,
    /// Why nothing can be said, where that is so.
    unknown: Option<String>,
}

/// Explains a check as of then.
///
/// # Errors
/// Could not ask, or the logs do not reach back.
pub(super) async fn at(
    args: AtArgs,
    mut check: CheckRequest,
    asking: &ServerArgs,
) -> anyhow::Result<bool> {
    let mut when = Moment { revision: args.at_revision, span: args.at };
    let found = match &args.decision_log {
        Some(log) => Some(decision_log::find(log, &check, when.revision, when.span)?),
        None => None,
    };
    let logged = found.as_ref().and_then(|found| found.last.clone());
    if let Some(logged) = &logged {
        check = logged.check(&check);
        let (from, until) = (logged.time, logged.time);
        when = Moment { revision: Some(logged.revision), span: Some(TimeRange { from, until }) };
    }
    if check.scopes.is_empty()
        && let Some(count) = logged.as_ref().and_then(|logged| logged.scopes_count)
    {
        bail!(
            "the check named {count} scopes, and the decision log has not all of them: name those \
             that you want explained"
        );
    }
    if check.scopes.is_empty() && check.endpoint.is_none() {
        let found = found.map(|found| report::missing(&found)).unwrap_or_default();
        bail!(
            "{found}; to know what would have been decided, name the scopes and the time by --at"
        );
    }
    check.at_least_revision = 0;
    let query = convert::query_from_proto(check.clone())?;
    let mut desk = asking.open().await?;
    let log = read(&mut desk, &query, when).await?;
    let file = args.catalog.as_deref().map(|path| Ok::<_, anyhow::Error>((path, text(path)?)));
    let (then, steps) = replay(&log, &query, file.transpose()?)?;
    let now = ExplainCheckRequest { check: Some(check.clone()) };
    let now = unwrap_response(desk.authorization.explain_check(now).await)?;
    let now = require(&now.decision)?;
    let report =
        PastExplanation { check: &check, found, logged, when, log: &log, then, steps, now };
    desk.printer.print_value(&report.json(), report.sheet())?;
    Ok(true)
}

/// Reads the whole audit log: changes of the catalog are among all others.
async fn read(desk: &mut Client, query: &Query, when: Moment) -> anyhow::Result<Log> {
    let request = proto::GetCatalogRequest {};
    let catalog = unwrap_response(desk.catalog.get_catalog(request).await)?;
    let mut log = Log {
        changes: vec![],
        kept: None,
        begins: Timestamp::MIN,
        revision: 0,
        time: Timestamp::MIN,
        yaml: catalog.yaml,
    };
    let mut request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    let asked = when.span.map(|span| span.from);
    loop {
        let page = unwrap_response(desk.changes.list_changes(request.clone()).await)
            .context("the past is read from the audit log of all companies")?;
        for told in page.changes {
            let change = convert::change(told.clone())?;
            let last = log.kept.map_or(0, |(_, last)| last);
            if let (ChangeKind::RestoreBackup, Some(asked)) = (change.kind, when.revision)
                && (last + 1..told.revision).contains(&asked)
            {
                bail!(
                    "revision {asked} is of what was lost when a backup of revision {last} was \
                     restored: no log has it any more"
                );
            }
            if log.kept.is_none() {
                log.begins = change.time;
            }
            log.kept = Some((log.kept.map_or(told.revision, |(first, _)| first), told.revision));
            let reached = match when.revision {
                Some(revision) => told.revision <= revision,
                None => asked.is_none_or(|time| change.time <= time),
            };
            if reached {
                (log.revision, log.time) = (told.revision, change.time);
            }
            if change.kind == ChangeKind::ApplyCatalog && told.revision > catalog.revision {
                bail!("the catalog was changed just now: run it again");
            }
            if Replay::is_concerned(query, &change) {
                log.changes.push((told, change));
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    log.time = asked.unwrap_or(log.time);
    let Some((first, last)) = log.kept else {
        bail!(
            "the audit log has no change, or none any more (--audit-log-retention): restore a backup to \
             another directory, and ask there"
        );
    };
    if let Some(asked) = when.revision.filter(|asked| *asked > last) {
        bail!("there is no revision {asked}: the last is {last}");
    }
    // What came before the first is empty, unless the first that is kept is another.
    if log.revision == 0 && first > 1 {
        bail!(
            "the audit log begins at revision {first}, of {}: restore a backup of before to \
             another directory, and ask there",
            log.begins
        );
    }
    Ok(log)
}

/// What was decided at the moment, and from each change on.
fn replay<'a>(
    log: &'a Log,
    query: &Query,
    file: Option<(&Path, String)>,
) -> anyhow::Result<(Then, Vec<Step<'a>>)> {
    let otherwise: Vec<_> =
        log.changes.iter().filter(|(_, c)| requirement_changed(query, c)).collect();
    let life = |at: u64| otherwise.iter().filter(|(change, _)| change.revision <= at).count();
    let yaml = |at: u64| match (life(at) == otherwise.len(), &file) {
        (true, _) => Some(log.yaml.as_str()),
        (false, Some((_, file))) if life(at) == life(log.revision) => Some(file.as_str()),
        (false, _) => None,
    };
    let first = log.kept.map_or(0, |(first, _)| first);
    let mut past = Replay::of(query, first <= 1);
    let mut steps: Vec<Step<'_>> = Vec::new();
    let (mut of_then, end) = (past.clone(), Timestamp::now());
    for (n, (told, change)) in log.changes.iter().enumerate() {
        past.take(change)?;
        if told.revision <= log.revision {
            of_then = past.clone();
        }
        let next = log.changes.get(n + 1).map_or(end, |(_, next)| next.time);
        let catalog = match yaml(told.revision).filter(|_| past.is_whole()) {
            Some(yaml) => Some(past.catalog(yaml).map_err(|error| anyhow!("{error}"))?),
            None => None,
        };
        let decided = |time| Some(decide(query, past.facts(catalog.as_ref()?, time)));
        let mut tell = |change: Option<&'a proto::Change>, time| {
            let (answer, revision) = (decided(time), told.revision);
            let turned = steps.last().is_none_or(|last| last.answer != answer);
            if change.is_some() || turned {
                steps.push(Step { change, time, revision, answer, turned });
            }
        };
        tell(Some(told), change.time);
        let turns = catalog.iter().flat_map(|catalog| past.turns(catalog));
        let turns = turns.filter(|turn| change.time < *turn && *turn < next);
        turns.for_each(|turn| tell(None, turn));
    }
    let then = decide_then(&of_then, log, query, yaml(log.revision), file.as_ref(), &otherwise)?;
    Ok((then, steps))
}

fn decide_then(
    past: &Replay,
    log: &Log,
    query: &Query,
    yaml: Option<&str>,
    file: Option<&(&Path, String)>,
    otherwise: &[&(proto::Change, Change)],
) -> anyhow::Result<Then> {
    let unknown = |why| Then { answer: None, layers: vec![], unknown: Some(why) };
    if !past.is_whole() {
        let first = log.kept.map_or(0, |(first, _)| first);
        let untouched = log.changes.iter().all(|(change, _)| change.revision <= log.revision);
        return Ok(unknown(match untouched {
            true => "the audit log begins after the company did, but nothing that the check rests \
                     on was changed since then: what is decided now was decided then, unless \
                     something has ended meanwhile"
                .to_owned(),
            false => format!(
                "what was decided then cannot be said: the audit log begins at revision {first}, \
                 after the company did (--audit-log-retention); restore a backup of before to another \
                 directory, and ask there"
            ),
        }));
    }
    let begun = log.changes.iter().any(|(change, _)| change.revision <= log.revision);
    let Some(yaml) = yaml else {
        if !begun {
            return Ok(unknown("there was no catalog yet, so every check was denied".to_owned()));
        }
        let next = otherwise.iter().find(|(change, _)| change.revision > log.revision);
        let next = next.map_or(0, |(change, _)| change.revision);
        return Ok(unknown(format!(
            "what was decided then cannot be said: the catalog of revision {next} asks something \
             else of this check; give the file that was in force before it by --catalog"
        )));
    };
    let catalog = past.catalog(yaml);
    let catalog = match file {
        Some((path, file)) if file.as_str() == yaml => {
            let catalog = catalog.map_err(|problems| anyhow!("{}", listed(path, &problems)))?;
            let own: Vec<_> = catalog.scope_ids().collect();
            let (own, kept) = (catalog.names(&own), past.scopes());
            if log.kept.is_some_and(|(first, _)| first <= 1) && !own.iter().eq(kept) {
                bail!(
                    "--catalog {} is not the catalog of revision {}: its scopes are others",
                    path.display(),
                    log.revision
                );
            }
            catalog
        }
        _ => catalog.map_err(|error| anyhow!("{error}"))?,
    };
    let facts = past.facts(&catalog, log.time);
    let layers = explain(query, facts).unwrap_or_default();
    Ok(Then { answer: Some(decide(query, facts)), layers, unknown: None })
}
