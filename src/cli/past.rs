//! `scopegate explain` at a moment of the past: what was decided then, what had led to it, and what
//! has become of it.
//!
//! The decision log says what was answered. The audit log says what every commit did, so replaying
//! it up to that revision gives the facts of then, of which the evaluator that a server asks decides
//! again, at that time. Where the audit log no longer reaches back, or the catalog of then is not at
//! hand, no answer is given for one; the changes are shown all the same.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::asking::{Asking, Desk, answer, whole};
use super::catalog::{listed, text};
use super::changes::{of_whom, what, who};
use super::check::{sheet, word};
use super::decided::{self, Decided, Found};
use super::moment::{self, Span};
use super::printer::{Sheet, Words, count};
use super::typed;
use crate::policy::catalog::{AudienceError, Reach};
use crate::policy::change::{Change, ChangeKind};
use crate::policy::decision::{Explanation, Verdict, decide, explain};
use crate::policy::past::{Past, asks_otherwise};
use crate::policy::query::Query;
use crate::proto::{self, CheckRequest, CheckResponse, ExplainCheckRequest, ListChangesRequest};

/// How many changes up to the moment are shown, and how many since.
const SHOWN: (usize, usize) = (5, 20);

/// Which moment.
#[derive(Debug, Args)]
pub struct PastArgs {
    /// As it was then: an RFC 3339 time, or a time of day in UTC, the last that there was.
    #[arg(long, value_name = "TIME", value_parser = moment::past)]
    at: Option<Span>,

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

impl PastArgs {
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
struct When {
    revision: Option<u64>,
    span: Option<Span>,
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
    args: PastArgs,
    mut check: CheckRequest,
    asking: &Asking,
) -> anyhow::Result<bool> {
    let mut when = When { revision: args.at_revision, span: args.at };
    let found = match &args.decision_log {
        Some(log) => Some(decided::find(log, &check, when.revision, when.span)?),
        None => None,
    };
    let logged = found.as_ref().and_then(|found| found.last.clone());
    if let Some(logged) = &logged {
        check = logged.check(&check);
        let (from, until) = (logged.time, logged.time);
        when = When { revision: Some(logged.revision), span: Some(Span { from, until }) };
    }
    if check.scopes.is_empty() && check.endpoint.is_none() {
        let found = found.map(|found| missing(&found)).unwrap_or_default();
        bail!(
            "{found}; to know what would have been decided, name the scopes and the time by --at"
        );
    }
    check.at_least_revision = 0;
    let query = typed::query(&check)?;
    let mut desk = asking.open().await?;
    let log = read(&mut desk, &query, when).await?;
    let file = args.catalog.as_deref().map(|path| Ok::<_, anyhow::Error>((path, text(path)?)));
    let (then, steps) = replay(&log, &query, file.transpose()?)?;
    let now = ExplainCheckRequest { check: Some(check.clone()) };
    let now = answer(desk.authorization.explain_check(now).await)?;
    let now = whole(&now.decision)?;
    let report = Report { check: &check, found, logged, when, log: &log, then, steps, now };
    desk.printer.print_value(&report.json(), report.sheet())?;
    Ok(true)
}

/// What a decision log does not say.
fn missing(found: &Found) -> String {
    let mut text = "the decision log has no such decision of this credential at that time: every \
                    denial is in it unless the server counted it as dropped, and a sample of what \
                    was allowed"
        .to_owned();
    if let Some(nearest) = &found.nearest {
        text.push_str(&format!("; the nearest denial is of {}", nearest.time));
    }
    if found.foreign > 0 {
        let lines = count(found.foreign, "line", "lines");
        text.push_str(&format!("; {lines} of the file could not be read"));
    }
    text
}

/// Reads the whole audit log: changes of the catalog are among all others.
async fn read(desk: &mut Desk, query: &Query, when: When) -> anyhow::Result<Log> {
    let request = proto::GetCatalogRequest {};
    let catalog = answer(desk.catalog.get_catalog(request).await)?;
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
        let page = answer(desk.changes.list_changes(request.clone()).await)
            .context("the past is read from the audit log of all companies")?;
        for told in page.changes {
            let change = typed::change(&told)?;
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
            if Past::is_concerned(query, &change) {
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
            "the audit log has no change, or none any more (--keep-changes): restore a backup to \
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
    file: Option<(&std::path::Path, String)>,
) -> anyhow::Result<(Then, Vec<Step<'a>>)> {
    let otherwise: Vec<_> = log.changes.iter().filter(|(_, c)| asks_otherwise(query, c)).collect();
    let life = |at: u64| otherwise.iter().filter(|(change, _)| change.revision <= at).count();
    let yaml = |at: u64| match (life(at) == otherwise.len(), &file) {
        (true, _) => Some(log.yaml.as_str()),
        (false, Some((_, file))) if life(at) == life(log.revision) => Some(file.as_str()),
        (false, _) => None,
    };
    let first = log.kept.map_or(0, |(first, _)| first);
    let mut past = Past::of(query, first <= 1);
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
    past: &Past,
    log: &Log,
    query: &Query,
    yaml: Option<&str>,
    file: Option<&(&std::path::Path, String)>,
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
                 after the company did (--keep-changes); restore a backup of before to another \
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

/// What there is to tell.
struct Report<'a> {
    check: &'a CheckRequest,
    found: Option<Found>,
    logged: Option<Decided>,
    when: When,
    log: &'a Log,
    then: Then,
    steps: Vec<Step<'a>>,
    now: &'a CheckResponse,
}

impl Report<'_> {
    fn sheet(&self) -> Sheet {
        let mut all = Sheet::default()
            .fact("at", self.log.time.to_string())
            .fact("needed", needs(self.check));
        if let Some(logged) = &self.logged {
            all = all
                .fact("asked by", logged.caller.clone())
                .fact("logged", Words::news(!logged.is_denied(), logged_answer(logged)));
        }
        match (&self.then.answer, &self.then.unknown) {
            (Some(Ok(verdict)), _) => {
                all = all.then(sheet(&response(verdict, self.log.revision)));
            }
            (Some(Err(error)), _) => all = all.fact("invalid", format!("`audience` {error}")),
            (None, why) => {
                all = all.fact("revision", self.log.revision);
                all = all.line(why.clone().unwrap_or_default());
            }
        }
        all = self.notes().into_iter().fold(all, Sheet::line);
        let rows = self.then.layers.iter().flat_map(|explained| {
            explained.layers.iter().map(|(layer, said)| {
                let (said_so, detail) = match said {
                    Ok(Reach::All) => ("passed".to_owned(), ""),
                    Ok(Reach::Own) => ("passed".to_owned(), "for the user's own records"),
                    Err(reason) => (typed::word(*reason), reason.remedy()),
                };
                let layer = format!("{layer:?}").to_ascii_lowercase();
                let said = Words::news(said.is_ok(), said_so);
                [explained.scope.to_string().into(), layer.into(), said, detail.into()]
            })
        });
        all = all.rows(&["SCOPE", "LAYER", "VERDICT", "DETAIL"], rows);
        let (before, since): (Vec<_>, Vec<_>) =
            self.steps.iter().partition(|step| self.is_before(step));
        // What made the answer what it was is shown, however long ago that is.
        let skipped = before.len().saturating_sub(SHOWN.0);
        let cause = before.iter().rposition(|step| step.turned).filter(|at| *at < skipped);
        let cause = cause.and_then(|at| before.get(at));
        let shown = cause.into_iter().chain(before.iter().skip(skipped));
        let head = &["REVISION", "TIME", "CHANGE", "BY", "OF", "WHAT", "REASON", "FROM THEN ON"];
        all = all.line("\nuntil then").rows(head, shown.map(|step| row(step)));
        if before.is_empty() {
            all = all.line("nothing");
        }
        all = all.line("\nsince then").rows(head, since.iter().take(SHOWN.1).map(|step| row(step)));
        if since.is_empty() {
            all = all.line("nothing");
        }
        if since.len() > SHOWN.1 {
            let more = since.len() - SHOWN.1;
            all = all.line(format!("and {more} more: scopegate changes list has them"));
        }
        all.line(format!("\n{}", self.now_text()))
    }

    /// Whether it was so already at the moment. A change of the moment's own revision was, whatever
    /// the clocks of two machines say.
    fn is_before(&self, step: &Step<'_>) -> bool {
        let came = step.change.is_some() || step.time <= self.log.time;
        step.revision <= self.log.revision && came
    }

    /// What else must be known to read the answer.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        if let Some(found) = &self.found {
            match &self.logged {
                None => notes.push(format!("{}; this is what the audit log gives", missing(found))),
                Some(_) if found.count > 1 => notes.push(format!(
                    "the decision log has {} of it in that time, {} of them denied; this is the \
                     last{}",
                    count(found.count, "decision", "decisions"),
                    found.denied,
                    if found.denied > 0 { " denial" } else { "" },
                )),
                Some(_) => {}
            }
        }
        if let (Some(logged), Some(Ok(verdict))) = (&self.logged, &self.then.answer)
            && logged_answer(logged) != verdict_text(verdict)
        {
            notes.push(
                "the server decided otherwise: it saw what the decision log does not keep, such \
                 as the call's token; give that by the --token flags"
                    .to_owned(),
            );
        }
        let within = |step: &&Step<'_>| {
            let span = self.when.span.filter(|_| self.logged.is_none());
            !self.is_before(step) && span.is_some_and(|span| span.has(step.time))
        };
        for step in self.steps.iter().filter(within).filter(|step| step.turned) {
            let answer = answer_text(&step.answer);
            notes.push(format!("within that time, at {}, it became {answer}", seconds(step.time)));
        }
        notes
    }

    fn now_text(&self) -> String {
        let decision = word(self.now.decision().as_str_name(), "DECISION_");
        let reason = word(self.now.reason().as_str_name(), "REASON_");
        let now = if reason == decision { decision } else { format!("{decision} {reason}") };
        let last = self.steps.last();
        let same = last.is_some_and(|last| answer_text(&last.answer) == now);
        if !same {
            // One that was made since the log was read is no contradiction.
            let known = last.is_some_and(|last| last.answer.is_some());
            let read = self.log.kept.is_some_and(|(_, last)| last == self.now.revision);
            return match known && read {
                true => format!("now {now}, says the server, which the replay does not explain"),
                false => format!("now {now}"),
            };
        }
        match self.steps.iter().rfind(|step| step.turned) {
            Some(Step { change: Some(change), time, .. }) => {
                let why = match change.reason.as_str() {
                    "" => String::new(),
                    why => format!(" ({why})"),
                };
                format!(
                    "now {now}, since revision {} of {}: {} by {}{why}",
                    change.revision,
                    seconds(*time),
                    change.kind,
                    who(change)
                )
            }
            Some(Step { time, .. }) => format!("now {now}, since {}, by time", seconds(*time)),
            None => format!("now {now}"),
        }
    }

    fn json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            let change = step.change.map(|change| {
                json!({
                    "actor": change.actor, "onBehalfOf": change.on_behalf_of, "kind": change.kind,
                    "companyId": change.company_id, "credentialId": change.credential_id,
                    "userId": change.user_id, "addedScopes": change.added_scopes,
                    "removedScopes": change.removed_scopes, "reason": change.reason,
                })
            });
            json!({
                "revision": step.revision.to_string(), "time": step.time.to_string(),
                "change": change, "then": answer_json(&step.answer), "turned": step.turned,
            })
        });
        let layers = self.then.layers.iter().flat_map(|explained| {
            explained.layers.iter().map(|(layer, said)| {
                json!({
                    "scope": explained.scope.as_str(),
                    "layer": format!("{layer:?}").to_ascii_uppercase(),
                    "passed": said.is_ok(), "reason": said.err().map(typed::word),
                })
            })
        });
        json!({
            "companyId": self.check.company_id, "credentialId": self.check.credential_id,
            "needed": needs(self.check), "time": self.log.time.to_string(),
            "revision": self.log.revision.to_string(), "logged": self.logged,
            "then": answer_json(&self.then.answer), "unknown": self.then.unknown,
            "layers": layers.collect::<Vec<_>>(), "notes": self.notes(),
            "history": steps.collect::<Vec<_>>(),
            "now": {
                "decision": self.now.decision().as_str_name(),
                "reason": self.now.reason().as_str_name(),
                "missingScopes": self.now.missing_scopes,
                "revision": self.now.revision.to_string(),
            },
        })
    }
}

fn row(step: &Step<'_>) -> [Words; 8] {
    let answer = answer_text(&step.answer);
    let allowed = matches!(step.answer, Some(Ok(Verdict::Allowed { .. })));
    let answer = if step.turned && step.answer.is_some() {
        Words::news(allowed, answer)
    } else {
        answer.into()
    };
    let time = seconds(step.time).into();
    match step.change {
        Some(change) => [
            change.revision.into(),
            time,
            change.kind.clone().into(),
            who(change).into(),
            of_whom(change).into(),
            what(change).into(),
            change.reason.clone().into(),
            answer,
        ],
        None => {
            let time_alone = "something ends or begins".into();
            ["".into(), time, "".into(), "time".into(), "".into(), time_alone, "".into(), answer]
        }
    }
}

fn seconds(time: Timestamp) -> String {
    moment::text(Some(&moment::wire(time)))
}

fn needs(check: &CheckRequest) -> String {
    match &check.endpoint {
        Some(call) => format!("{} {}", call.method, call.path),
        None => check.scopes.join(" "),
    }
}

fn logged_answer(logged: &Decided) -> String {
    match logged.is_denied() {
        true => format!("DENIED {}", logged.reason),
        false => "ALLOWED".to_owned(),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed { .. } => "ALLOWED".to_owned(),
        Verdict::Denied { reason, .. } => format!("DENIED {}", typed::word(*reason)),
    }
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        None => "not known".to_owned(),
        Some(Ok(verdict)) => verdict_text(verdict),
        Some(Err(_)) => "INVALID".to_owned(),
    }
}

/// As the contract's JSON has a check's answer.
fn answer_json(answer: &Answer) -> Value {
    match answer {
        None => Value::Null,
        Some(Err(error)) => json!({ "decision": "INVALID", "message": error.to_string() }),
        Some(Ok(verdict)) => {
            let said = response(verdict, 0);
            json!({
                "decision": said.decision().as_str_name(), "reason": said.reason().as_str_name(),
                "missingScopes": said.missing_scopes, "reach": said.reach().as_str_name(),
            })
        }
    }
}

/// A verdict as a server would answer it.
fn response(verdict: &Verdict, revision: u64) -> CheckResponse {
    match verdict {
        Verdict::Allowed { reach } => CheckResponse {
            decision: proto::Decision::Allowed.into(),
            reason: proto::Reason::Allowed.into(),
            reach: match reach {
                Reach::All => proto::Reach::All.into(),
                Reach::Own => proto::Reach::Own.into(),
            },
            http_status: 200,
            revision,
            ..CheckResponse::default()
        },
        Verdict::Denied { reason, missing } => {
            let name = format!("REASON_{}", typed::word(*reason));
            let known = proto::Reason::from_str_name(&name).unwrap_or_default();
            CheckResponse {
                decision: proto::Decision::Denied.into(),
                reason: known.into(),
                missing_scopes: missing.iter().map(ToString::to_string).collect(),
                http_status: reason.http_status().into(),
                error: reason.error().to_owned(),
                message: reason.remedy().to_owned(),
                revision,
                ..CheckResponse::default()
            }
        }
    }
}
