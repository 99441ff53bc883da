//! Report: what is told of a moment of the past, to people and to programs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, Log, Moment, Step, Then};
use crate::cli::changes::{of_whom, what, what_whole, who};
use crate::cli::check::{sheet, word};
use crate::cli::decision_log::{LogMatch, LoggedDecision};
use crate::cli::lookup::Lookup;
use crate::cli::printer::{self, Cell, Report, count};
use crate::cli::time;
use crate::policy::catalog::Reach;
use crate::policy::cause::Cause;
use crate::policy::decision::Verdict;
use crate::proto::{self, CheckRequest, CheckResponse};
use crate::wire::names::reason_name;

/// How many changes up to the moment are shown, and how many since.
const SHOWN: (usize, usize) = (5, 20);

/// What there is to tell.
pub(super) struct PastExplanation<'a> {
    /// What was asked.
    pub check: &'a CheckRequest,
    /// What the decision log says, if one was read.
    pub found: Option<LogMatch>,
    /// The decision of it that is explained.
    pub logged: Option<LoggedDecision>,
    /// The moment as it was asked for.
    pub when: Moment,
    /// What the audit log says.
    pub log: &'a Log,
    /// What was decided.
    pub then: Then,
    /// The changes, and what was decided from each on.
    pub steps: Vec<Step<'a>>,
    /// What the server decides now.
    pub now: &'a CheckResponse,
}

impl PastExplanation<'_> {
    /// For people.
    pub(super) fn sheet(&self) -> Report {
        let mut all = Report::default()
            .fact("at", self.log.time.to_string())
            .fact("needed", needs(self.check));
        if let Some(logged) = &self.logged {
            all = all
                .fact("caller", logged.caller.clone())
                .fact("logged", Cell::colored(!logged.is_denied(), logged_text(logged)));
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
        all = self.notes().into_iter().fold(all, Report::line);
        let rows = self.then.layers.iter().flat_map(|explained| {
            explained.layers.iter().map(|(layer, said)| {
                let (said_so, detail) = match said {
                    Ok(Reach::All) => ("passed", ""),
                    Ok(Reach::Own) => ("passed", "for the user's own records"),
                    Err(cause) => (reason_name(cause.reason), cause.detail()),
                };
                let layer = format!("{layer:?}").to_ascii_lowercase();
                let said = Cell::colored(said.is_ok(), said_so);
                [explained.scope.to_string().into(), layer.into(), said, detail.into()]
            })
        });
        let scopes = self.then.layers.iter().map(|explained| explained.scope.as_str());
        all = all.then(Lookup::of_catalog(&self.log.yaml).table(scopes));
        all = all.rows(&["SCOPE", "LAYER", "VERDICT", "DETAIL"], rows);
        let (before, since): (Vec<_>, Vec<_>) =
            self.steps.iter().partition(|step| self.is_before(step));
        // What made the answer what it was is shown, however long ago that is.
        let skipped = before.len().saturating_sub(SHOWN.0);
        let cause = before.iter().rposition(|step| step.turned).filter(|at| *at < skipped);
        let cause = cause.and_then(|at| before.get(at));
        let shown = cause.into_iter().chain(before.iter().skip(skipped));
        let head = &[
            "REVISION",
            "TIME",
            "KIND",
            "ACTOR",
            "RESOURCE",
            "CHANGE",
            "REASON",
            "DECISION AFTER",
        ];
        all = all.line("\nchanges before").rows(head, shown.map(|step| row(step)));
        if before.is_empty() {
            all = all.line("nothing");
        }
        all = all
            .line("\nchanges after")
            .rows(head, since.iter().take(SHOWN.1).map(|step| row(step)));
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
            if self.logged.is_some()
                && found.denied == 0
                && let Some(nearest) = &found.nearest
            {
                let time = nearest.time;
                notes.push(format!(
                    "nothing of that time was denied; the nearest denial is of {time}"
                ));
            }
        }
        if let Some(count) = self.logged.as_ref().and_then(|logged| logged.scopes_count) {
            notes.push(format!(
                "the server decided of {count} scopes: this is of the ones that you name, for the \
                 decision log has not all of them"
            ));
        }
        if let (Some(logged), Some(Ok(verdict))) = (&self.logged, &self.then.answer)
            && logged.scopes_count.is_none()
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

    /// For programs.
    pub(super) fn json(&self) -> Value {
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
                    "passed": said.is_ok(),
                    "reason": said.err().map(|cause| reason_name(cause.reason)),
                    "detail": said.err().map(Cause::detail),
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

fn row(step: &Step<'_>) -> [Cell; 8] {
    let answer = answer_text(&step.answer);
    let allowed = matches!(step.answer, Some(Ok(Verdict::Allowed { .. })));
    let answer = if step.turned && step.answer.is_some() {
        Cell::colored(allowed, answer)
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
            if printer::is_on_a_terminal() { what(change) } else { what_whole(change) }.into(),
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
    time::text(Some(&time::wire(time)))
}

fn needs(check: &CheckRequest) -> String {
    match &check.endpoint {
        Some(call) => format!("{} {}", call.method, call.path),
        None => check.scopes.join(" "),
    }
}

fn logged_answer(logged: &LoggedDecision) -> String {
    match logged.is_denied() {
        true => format!("DENIED {}", logged.reason),
        false => "ALLOWED".to_owned(),
    }
}

/// The same with its cause, where the reason has several.
fn logged_text(logged: &LoggedDecision) -> String {
    match logged.cause.as_str() {
        "" => logged_answer(logged),
        cause => format!("{} ({cause})", logged_answer(logged)),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed { .. } => "ALLOWED".to_owned(),
        Verdict::Denied { reason, .. } => format!("DENIED {}", reason_name(*reason)),
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
        Verdict::Denied { reason, fault, missing } => {
            let name = format!("REASON_{}", reason_name(*reason));
            let known = proto::Reason::from_str_name(&name).unwrap_or_default();
            CheckResponse {
                decision: proto::Decision::Denied.into(),
                reason: known.into(),
                missing_scopes: missing.iter().map(ToString::to_string).collect(),
                http_status: reason.http_status().into(),
                error: reason.error().to_owned(),
                message: Cause { reason: *reason, fault: *fault }.message().to_owned(),
                revision,
                ..CheckResponse::default()
            }
        }
    }
}

/// What a decision log does not say.
pub(super) fn missing(found: &LogMatch) -> String {
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
