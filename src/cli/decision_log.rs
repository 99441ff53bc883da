//! Decided: lines of a server's decision log, as `serve --decision-log` writes them.
//!
//! Every denial is there, unless the server counted it as dropped; of allowed decisions a sample.
//! Of tokens nothing is. What a line has besides, this version does not look at.

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

/// The longest line that is read.
const LONGEST: u64 = 1 << 20;

/// One decision of the log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct LoggedDecision {
    /// When it was decided.
    #[serde(deserialize_with = "read_time", serialize_with = "write_time")]
    pub time: Timestamp,
    /// At which revision.
    pub revision: u64,
    /// Who asked.
    #[serde(default)]
    pub caller: String,
    company_id: String,
    credential_id: String,
    #[serde(default)]
    scopes: Vec<String>,
    /// How many there are, if the line has not all.
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
    /// Why.
    pub reason: String,
    /// Which cause of the reason it was, where that has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// What was missing.
    #[serde(default)]
    pub missing_scopes: Vec<String>,
}

/// What a log says of a check.
#[derive(Debug, Default)]
pub(super) struct LogMatch {
    /// How many lines of the time asked for are of it.
    pub count: u64,
    /// How many of these are denials.
    pub denied: u64,
    /// The last of them, denials before others.
    pub last: Option<LoggedDecision>,
    /// The denial of it that is nearest to that time, if none is within.
    pub nearest: Option<LoggedDecision>,
    /// How many lines are none of a decision log.
    pub foreign: u64,
}

fn read_time<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    String::deserialize(input)?.parse().map_err(D::Error::custom)
}

fn write_time<S: Serializer>(time: &Timestamp, output: S) -> Result<S::Ok, S::Error> {
    output.collect_str(time)
}

impl LoggedDecision {
    /// Whether it was denied.
    pub(super) fn is_denied(&self) -> bool {
        self.decision == "DENIED"
    }

    /// The check that it decided, with the token of another: the log has none.
    pub(super) fn check(&self, asked: &CheckRequest) -> CheckRequest {
        let called = !self.path.is_empty();
        let endpoint =
            called.then(|| Endpoint { method: self.method.clone(), path: self.path.clone() });
        CheckRequest {
            // Of a line that has not all, the ones that were asked for.
            scopes: match self.scopes_count {
                Some(_) => asked.scopes.clone(),
                None => self.scopes.clone(),
            },
            endpoint,
            audience: self.audience.clone(),
            user_id: self.user_id.clone(),
            resource_owner_id: self.resource_owner_id.clone(),
            ..asked.clone()
        }
    }

    /// Whether it decided a check like this one. What that does not name may be anything.
    fn is_of(&self, asked: &CheckRequest) -> bool {
        let same = |asked: &str, own: &str| asked.is_empty() || asked == own;
        let needed = |scope: &String| {
            // Of a line that has not all it cannot be told.
            self.scopes_count.is_some()
                || self.scopes.contains(scope)
                || self.missing_scopes.contains(scope)
        };
        let call = asked.endpoint.as_ref();
        self.company_id == asked.company_id
            && self.credential_id == asked.credential_id
            && asked.scopes.iter().all(needed)
            && call.is_none_or(|call| call.method == self.method && call.path == self.path)
            && same(&asked.audience, &self.audience)
            && same(&asked.user_id, &self.user_id)
            && same(&asked.resource_owner_id, &self.resource_owner_id)
    }
}

/// Reads a log, `-` for standard input, for what it says of a check at a time; at any, if none is
/// given.
///
/// # Errors
/// The file cannot be read.
pub(super) fn find(
    log: &Path,
    asked: &CheckRequest,
    revision: Option<u64>,
    span: Option<TimeRange>,
) -> anyhow::Result<LogMatch> {
    let cannot = || format!("cannot read --decision-log {}", log.display());
    let input: Box<dyn Read> = match log.as_os_str().to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(log).with_context(cannot)?),
    };
    let (mut input, mut line, mut found) = (BufReader::new(input), Vec::new(), LogMatch::default());
    let unusable = |error| anyhow!("--decision-log {} {error}", log.display());
    text_file::skip_mark(&mut input).map_err(unusable)?;
    let mut is_empty = true;
    loop {
        line.clear();
        if (&mut input).take(LONGEST).read_until(b'\n', &mut line).with_context(cannot)? == 0 {
            if is_empty {
                return Err(unusable(anyhow!("is empty: give the log of the time asked for")));
            }
            return Ok(found);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        is_empty = false;
        match serde_json::from_slice::<LoggedDecision>(&line) {
            Ok(decided) if decided.is_of(asked) => found.take(decided, revision, span),
            Ok(_) => {}
            Err(_) => found.foreign += 1,
        }
    }
}

impl LogMatch {
    fn take(&mut self, decided: LoggedDecision, revision: Option<u64>, span: Option<TimeRange>) {
        let far = |time: Timestamp| {
            span.map_or(0, |span| time.duration_since(span.from).as_millis().abs())
        };
        let within = span.is_none_or(|span| span.has(decided.time))
            && revision.is_none_or(|revision| revision == decided.revision);
        if within {
            self.count += 1;
            self.denied += u64::from(decided.is_denied());
            let before = self.last.as_ref().is_some_and(LoggedDecision::is_denied);
            if decided.is_denied() || !before {
                self.last = Some(decided);
            }
        } else if decided.is_denied() {
            let nearer =
                |nearest: &LoggedDecision| span.is_none() || far(decided.time) <= far(nearest.time);
            if self.nearest.as_ref().is_none_or(nearer) {
                self.nearest = Some(decided);
            }
        }
    }
}
