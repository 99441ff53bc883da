//! Report: the explanation of a past decision, as a report for people and as JSON for programs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AuditLog, Moment, PastDecision, PossibleDecision, Step};
use crate::cli::change_row::{actor, full, resource, summary};
use crate::cli::check::{report, word};
use crate::cli::decision_log::{LogMatch, LoggedDecision};
use crate::cli::lookup::Lookup;
use crate::cli::printer::{self, Cell, Report, count};
use crate::cli::time;
use crate::policy::catalog::Reach;
use crate::policy::cause::Cause;
use crate::policy::decision::Verdict;
use crate::proto::{self, CheckRequest, CheckResponse};
use crate::wire::names::reason_name;

/// The maximum number of changes that are shown before and after the requested time.
const MAX_CHANGES: (usize, usize) = (5, 20);

/// An explanation of a past decision.
pub(super) struct PastExplanation<'a> {
    /// The check.
    pub check: &'a CheckRequest,
    /// The matches in the decision log, if one was read.
    pub matches: Option<LogMatch>,
    /// The logged decision that is explained.
    pub logged: Option<LoggedDecision>,
    /// The requested time.
    pub moment: Moment,
    /// The audit log.
    pub log: &'a AuditLog,
    /// The decision at that time.
    pub past: PastDecision,
    /// The changes, and the decision after each.
    pub steps: Vec<Step<'a>>,
    /// The current decision of the server.
    pub current: &'a CheckResponse,
}

impl PastExplanation<'_> {
    /// The report for people.
    pub(super) fn report(&self) -> Report {
        let mut all = Report::default()
            .fact("at", self.log.time.to_string())
            .fact("needed", requirement(self.check));
        if let Some(logged) = &self.logged {
            all = all
                .fact("caller", logged.caller.clone())
                .fact("token", logged.token())
                .fact("logged", Cell::colored(!logged.is_denied(), logged_text(logged)));
        }
        match (&self.past.decision, &self.past.unknown) {
            (Some(Ok(verdict)), _) => {
                all = all.then(report(&response(verdict, self.log.revision)));
            }
            (Some(Err(error)), _) => all = all.fact("invalid", format!("`audience` {error}")),
            (None, reason_text) => {
                all = all.fact("revision", self.log.revision);
                all = all.line(reason_text.clone().unwrap_or_default());
            }
        }
        all = self.notes().into_iter().fold(all, Report::line);
        let rows = self.past.layers.iter().flat_map(|explained| {
            explained.layers.iter().map(|(layer, verdict)| {
                let (text, detail) = match verdict {
                    Ok(Reach::All) => ("passed", ""),
                    Ok(Reach::Own) => ("passed", "for the user's own records"),
                    Err(cause) => (reason_name(cause.reason), cause.detail()),
                };
                let layer = format!("{layer:?}").to_ascii_lowercase();
                let verdict = Cell::colored(verdict.is_ok(), text);
                [explained.scope.to_string().into(), layer.into(), verdict, detail.into()]
            })
        });
        let scopes = self.past.layers.iter().map(|explained| explained.scope.as_str());
        all = all.then(Lookup::of_catalog(&self.log.yaml).table(scopes));
        all = all.rows(&["SCOPE", "LAYER", "VERDICT", "DETAIL"], rows);
        let (before, since): (Vec<_>, Vec<_>) =
            self.steps.iter().partition(|step| self.is_before(step));
        // The change that led to the decision is shown even if it is older than the last few.
        let skipped = before.len().saturating_sub(MAX_CHANGES.0);
        let cause = before.iter().rposition(|step| step.is_different).filter(|at| *at < skipped);
        let cause = cause.and_then(|at| before.get(at));
        let hidden = skipped - cause.iter().count();
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
        if hidden > 0 {
            all = all.line(format!("and {hidden} earlier: see scopegate changes list"));
        }
        all = all
            .line("\nchanges after")
            .rows(head, since.iter().take(MAX_CHANGES.1).map(|step| row(step)));
        if since.is_empty() {
            all = all.line("nothing");
        }
        if since.len() > MAX_CHANGES.1 {
            let more = since.len() - MAX_CHANGES.1;
            all = all.line(format!("and {more} more: see scopegate changes list"));
        }
        all.line(format!("\n{}", self.now_text()))
    }

    /// Whether a step is not after the requested time. A change of the requested revision counts as
    /// before it, even if the clocks of two machines differ.
    fn is_before(&self, step: &Step<'_>) -> bool {
        let has_come = step.change.is_some() || step.time <= self.log.time;
        step.revision <= self.log.revision && has_come
    }

    /// Notes that are needed to interpret the decision.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        if let Some(matches) = &self.matches {
            match &self.logged {
                None => notes.push(format!(
                    "{}; this decision is computed from the audit log",
                    missing(matches)
                )),
                Some(_) if matches.count > 1 => notes.push(format!(
                    "the decision log has {} of this check in that time, {} of them denied; this \
                     is the last{}",
                    count(matches.count, "decision", "decisions"),
                    matches.denied,
                    if matches.denied > 0 { " denial" } else { "" },
                )),
                Some(_) => {}
            }
            if self.logged.is_some()
                && matches.denied == 0
                && let Some(nearest) = &matches.nearest
            {
                let time = nearest.time;
                notes.push(format!(
                    "no decision of that time was a denial; the nearest denial is of {time}"
                ));
            }
        }
        if let Some(count) = self.logged.as_ref().and_then(|logged| logged.scopes_count) {
            notes.push(format!(
                "the server decided a check of {count} scopes: this explains only the scopes that \
                 you named, because the decision log does not have all of them"
            ));
        }
        if let (Some(logged), Some(Ok(verdict))) = (&self.logged, &self.past.decision)
            && logged.scopes_count.is_none()
            && logged_decision_text(logged) != verdict_text(verdict)
        {
            notes.push(
                "the server decided differently, because of data that the decision log does not \
                 have, such as the token of the call; give it with the --token flags"
                    .to_owned(),
            );
        }
        let is_in_range = |step: &&Step<'_>| {
            let range = self.moment.range.filter(|_| self.logged.is_none());
            !self.is_before(step) && range.is_some_and(|range| range.has(step.time))
        };
        for step in self.steps.iter().filter(is_in_range).filter(|step| step.is_different) {
            let decision = decision_text(&step.decision);
            notes.push(format!(
                "within that time, at {}, the decision became {decision}",
                seconds(step.time)
            ));
        }
        notes
    }

    fn now_text(&self) -> String {
        let decision = word(self.current.decision().as_str_name(), "DECISION_");
        let reason = word(self.current.reason().as_str_name(), "REASON_");
        let now = if reason == decision { decision } else { format!("{decision} {reason}") };
        let last = self.steps.last();
        let same = last.is_some_and(|last| decision_text(&last.decision) == now);
        if !same {
            // A change that was made after the log was read is no contradiction.
            let is_known = last.is_some_and(|last| last.decision.is_some());
            let read = self.log.retained.is_some_and(|(_, last)| last == self.current.revision);
            return match is_known && read {
                true => format!("now {now} on the server, which the replay does not explain"),
                false => format!("now {now}"),
            };
        }
        match self.steps.iter().rfind(|step| step.is_different) {
            Some(Step { change: Some(change), time, .. }) => {
                let reason_text = match change.reason.as_str() {
                    "" => String::new(),
                    reason_text => format!(" ({reason_text})"),
                };
                format!(
                    "now {now}, since revision {} of {}: {} by {}{reason_text}",
                    change.revision,
                    seconds(*time),
                    change.kind,
                    actor(change)
                )
            }
            Some(Step { time, .. }) => {
                format!("now {now}, since {}, because of a start or an expiry", seconds(*time))
            }
            None => format!("now {now}"),
        }
    }

    /// The JSON for programs.
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
                "change": change, "then": decision_json(&step.decision), "turned": step.is_different,
            })
        });
        let layers = self.past.layers.iter().flat_map(|explained| {
            explained.layers.iter().map(|(layer, verdict)| {
                json!({
                    "scope": explained.scope.as_str(),
                    "layer": format!("{layer:?}").to_ascii_uppercase(),
                    "passed": verdict.is_ok(),
                    "reason": verdict.err().map(|cause| reason_name(cause.reason)),
                    "detail": verdict.err().map(Cause::detail),
                })
            })
        });
        json!({
            "companyId": self.check.company_id, "credentialId": self.check.credential_id,
            "needed": requirement(self.check), "time": self.log.time.to_string(),
            "revision": self.log.revision.to_string(), "logged": self.logged,
            "then": decision_json(&self.past.decision), "unknown": self.past.unknown,
            "layers": layers.collect::<Vec<_>>(), "notes": self.notes(),
            "history": steps.collect::<Vec<_>>(),
            "now": {
                "decision": self.current.decision().as_str_name(),
                "reason": self.current.reason().as_str_name(),
                "missingScopes": self.current.missing_scopes,
                "revision": self.current.revision.to_string(),
            },
        })
    }
}

fn row(step: &Step<'_>) -> [Cell; 8] {
    let decision = decision_text(&step.decision);
    let allowed = matches!(step.decision, Some(Ok(Verdict::Allowed { .. })));
    let decision = if step.is_different && step.decision.is_some() {
        Cell::colored(allowed, decision)
    } else {
        decision.into()
    };
    let time = seconds(step.time).into();
    match step.change {
        Some(change) => [
            change.revision.into(),
            time,
            change.kind.clone().into(),
            actor(change).into(),
            resource(change).into(),
            if printer::is_on_a_terminal() { summary(change) } else { full(change) }.into(),
            change.reason.clone().into(),
            decision,
        ],
        None => {
            let time_alone = "a start or an expiry".into();
            ["".into(), time, "".into(), "time".into(), "".into(), time_alone, "".into(), decision]
        }
    }
}

fn seconds(time: Timestamp) -> String {
    time::text(Some(&time::wire(time)))
}

fn requirement(check: &CheckRequest) -> String {
    match &check.endpoint {
        Some(call) => format!("{} {}", call.method, call.path),
        None => check.scopes.join(" "),
    }
}

fn logged_decision_text(logged: &LoggedDecision) -> String {
    match logged.is_denied() {
        true => format!("DENIED {}", logged.reason),
        false => "ALLOWED".to_owned(),
    }
}

/// The logged decision with its cause, for a reason that has several.
fn logged_text(logged: &LoggedDecision) -> String {
    match logged.cause.as_str() {
        "" => logged_decision_text(logged),
        cause => format!("{} ({cause})", logged_decision_text(logged)),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed { .. } => "ALLOWED".to_owned(),
        Verdict::Denied { reason, .. } => format!("DENIED {}", reason_name(*reason)),
    }
}

fn decision_text(decision: &PossibleDecision) -> String {
    match decision {
        None => "unknown".to_owned(),
        Some(Ok(verdict)) => verdict_text(verdict),
        Some(Err(_)) => "INVALID".to_owned(),
    }
}

/// A decision in the JSON style of the API.
fn decision_json(decision: &PossibleDecision) -> Value {
    match decision {
        None => Value::Null,
        Some(Err(error)) => json!({ "decision": "INVALID", "message": error.to_string() }),
        Some(Ok(verdict)) => {
            let response = response(verdict, 0);
            json!({
                "decision": response.decision().as_str_name(),
                "reason": response.reason().as_str_name(),
                "missingScopes": response.missing_scopes, "reach": response.reach().as_str_name(),
            })
        }
    }
}

/// The response of a server to such a verdict.
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
            let known_reason = proto::Reason::from_str_name(&name).unwrap_or_default();
            CheckResponse {
                decision: proto::Decision::Denied.into(),
                reason: known_reason.into(),
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

/// The note that the decision log has no matching decision.
pub(super) fn missing(matches: &LogMatch) -> String {
    let mut text =
        "the decision log has no such decision of this credential at that time: it has every \
         denial, unless the server counted it as dropped, and a sample of allowed decisions"
            .to_owned();
    if let Some(nearest) = &matches.nearest {
        text.push_str(&format!("; the nearest denial is of {}", nearest.time));
    }
    if matches.foreign > 0 {
        let lines = count(matches.foreign, "line", "lines");
        text.push_str(&format!("; {lines} of the file could not be parsed"));
    }
    text
}
