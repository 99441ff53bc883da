//! Decision log: reads the file that `serve --decision-log` writes, and finds the decisions of a
//! check.
//!
//! The log has every denial, unless the server counted it as dropped, and a sample of the allowed
//! decisions. It has no tokens. Unknown fields of a line are ignored.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text_file;
use super::time::TimeRange;
use crate::proto::{CheckRequest, Endpoint};

/// The maximum length of a line in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// One line of the log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct LoggedDecision {
    /// The time of the decision.
    #[serde(deserialize_with = "read_time", serialize_with = "write_time")]
    pub time: Timestamp,
    /// The revision of the decision.
    pub revision: u64,
    /// The name of the API key that asked for the decision.
    #[serde(default)]
    pub caller: String,
    // The line of a client that did not prove who it is has no ids.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    company_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    credential_id: String,
    /// The issuer of the token that the server verified, if it verified one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token_issuer: String,
    /// The token's id, which its issuer chose.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token_id: String,
    #[serde(default)]
    scopes: Vec<String>,
    /// The number of scopes of the check, if the line does not have all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes_count: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    method: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    audience: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    resource_owner_id: String,
    /// `ALLOWED` or `DENIED`.
    pub decision: String,
    /// The reason.
    pub reason: String,
    /// The cause, for a reason that has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// The scopes that were missing.
    #[serde(default)]
    pub missing_scopes: Vec<String>,
}

/// The decisions of a check that a log has.
#[derive(Debug, Default)]
pub(super) struct LogMatch {
    /// The number of decisions in the requested time range.
    pub count: u64,
    /// The number of denials among them.
    pub denied: u64,
    /// The last denial among them, or else the last decision.
    pub last: Option<LoggedDecision>,
    /// The nearest denial outside of the time range.
    pub nearest: Option<LoggedDecision>,
    /// The number of lines that could not be parsed.
    pub foreign: u64,
}

fn read_time<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    String::deserialize(input)?.parse().map_err(D::Error::custom)
}

fn write_time<S: Serializer>(time: &Timestamp, output: S) -> Result<S::Ok, S::Error> {
    output.collect_str(time)
}

impl LoggedDecision {
    /// The token that the server verified, for people; empty if it verified none.
    pub(super) fn token(&self) -> String {
        match (self.token_issuer.as_str(), self.token_id.as_str()) {
            (issuer, "") => issuer.to_owned(),
            (issuer, id) => format!("{id} of {issuer}"),
        }
    }

    /// Whether the decision is a denial.
    pub(super) fn is_denied(&self) -> bool {
        self.decision == "DENIED"
    }

    /// The check of this decision, with the token of `check`, because the log has no tokens.
    pub(super) fn check(&self, check: &CheckRequest) -> CheckRequest {
        let has_endpoint = !self.path.is_empty();
        let endpoint =
            has_endpoint.then(|| Endpoint { method: self.method.clone(), path: self.path.clone() });
        CheckRequest {
            // The line does not have all scopes, so use the requested ones.
            scopes: match self.scopes_count {
                Some(_) => check.scopes.clone(),
                None => self.scopes.clone(),
            },
            endpoint,
            audience: self.audience.clone(),
            user_id: self.user_id.clone(),
            resource_owner_id: self.resource_owner_id.clone(),
            ..check.clone()
        }
    }

    /// Whether this is a decision of such a check. Empty fields of `check` match any value.
    fn matches_check(&self, check: &CheckRequest) -> bool {
        let same = |expected: &str, logged: &str| expected.is_empty() || expected == logged;
        let has_scope = |scope: &String| {
            // The line does not have all scopes, so any scope may have been part of the check.
            self.scopes_count.is_some()
                || self.scopes.contains(scope)
                || self.missing_scopes.contains(scope)
        };
        let call = check.endpoint.as_ref();
        self.company_id == check.company_id
            && self.credential_id == check.credential_id
            && check.scopes.iter().all(has_scope)
            && call.is_none_or(|call| call.method == self.method && call.path == self.path)
            && same(&check.audience, &self.audience)
            && same(&check.user_id, &self.user_id)
            && same(&check.resource_owner_id, &self.resource_owner_id)
    }
}

/// Finds the decisions of a check in a log; `-` is standard input. Without `range`, decisions of
/// any time match.
///
/// # Errors
/// The file cannot be read.
pub(super) fn find(
    log: &Path,
    check: &CheckRequest,
    revision: Option<u64>,
    range: Option<TimeRange>,
) -> anyhow::Result<LogMatch> {
    let cannot_read = || format!("cannot read --decision-log {}", log.display());
    let input: Box<dyn Read> = match log.as_os_str().to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(log).with_context(cannot_read)?),
    };
    let (mut input, mut line, mut matches) =
        (BufReader::new(input), Vec::new(), LogMatch::default());
    let unusable = |error| anyhow!("--decision-log {} {error}", log.display());
    text_file::skip_mark(&mut input).map_err(unusable)?;
    let mut is_empty = true;
    loop {
        line.clear();
        if (&mut input)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .with_context(cannot_read)?
            == 0
        {
            if is_empty {
                return Err(unusable(anyhow!("is empty: use the log of the requested time")));
            }
            return Ok(matches);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        is_empty = false;
        match serde_json::from_slice::<LoggedDecision>(&line) {
            Ok(decision) if decision.matches_check(check) => matches.add(decision, revision, range),
            Ok(_) => {}
            Err(_) => matches.foreign += 1,
        }
    }
}

impl LogMatch {
    fn add(&mut self, decision: LoggedDecision, revision: Option<u64>, range: Option<TimeRange>) {
        let distance = |time: Timestamp| {
            range.map_or(0, |range| time.duration_since(range.from).as_millis().abs())
        };
        let is_in_range = range.is_none_or(|range| range.has(decision.time))
            && revision.is_none_or(|revision| revision == decision.revision);
        if is_in_range {
            self.count += 1;
            self.denied += u64::from(decision.is_denied());
            let has_denial = self.last.as_ref().is_some_and(LoggedDecision::is_denied);
            if decision.is_denied() || !has_denial {
                self.last = Some(decision);
            }
        } else if decision.is_denied() {
            let is_nearer = |nearest: &LoggedDecision| {
                range.is_none() || distance(decision.time) <= distance(nearest.time)
            };
            if self.nearest.as_ref().is_none_or(is_nearer) {
                self.nearest = Some(decision);
            }
        }
    }
}
