//! Failure: why a command has no answer, as people read it, and as programs do.
//!
//! With `--output json` it is one line of JSON on standard error:
//! `{"error": {"code", "reason", "message", "violations": [{"field", "description"}]}}`.
//!
//! Not here: a denial, which is an answer.

use std::error::Error as _;
use std::ffi::OsString;

use anyhow::anyhow;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::diagnosis::Unreachable;
use super::{connection, field_words};
use crate::observe::log;
use crate::policy::text;
use crate::wire::names::code_name;

/// The code of words that make no command, and of a failure that is none of a server's.
const USAGE: &str = "USAGE";
const LOCAL: &str = "LOCAL";
/// The reason of a server that could not be asked.
const UNREACHABLE: &str = "UNREACHABLE";

/// What a server answered instead, or that it did not answer.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{text}")]
pub(super) struct CommandError {
    /// The code of gRPC, by name.
    code: &'static str,
    /// The reason of `ErrorInfo`.
    reason: String,
    message: String,
    violations: Vec<Violation>,
    /// All of it, for people.
    #[serde(skip)]
    text: String,
}

#[derive(Clone, Debug, Serialize)]
struct Violation {
    field: String,
    description: String,
}

#[derive(Serialize)]
struct Line<'a> {
    error: Shown<'a>,
}

#[derive(Serialize)]
struct Shown<'a> {
    code: &'a str,
    reason: &'a str,
    message: &'a str,
    violations: &'a [Violation],
}

impl CommandError {
    pub(super) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let unreachable = status.source().and_then(|why| why.downcast_ref::<Unreachable>());
        let message = match (details.error_info(), unreachable) {
            (Some(_), _) | (_, Some(_)) => status.message().to_owned(),
            // A sentence of this program, or of a proxy.
            _ if status.code() == Code::DeadlineExceeded => status.message().to_owned(),
            // No sentence of the server's: it did not come to that.
            _ => match status.source().map(connection::cause) {
                Some(cause) => format!(
                    "the connection to the server broke ({cause}): see whether it runs, and try \
                     again"
                ),
                None => format!("{}: {}", status.code().description(), status.message()),
            },
        };
        let reason = match unreachable {
            Some(_) => UNREACHABLE.to_owned(),
            None => reason.unwrap_or_default(),
        };
        let violations = violations(&details);
        let text = for_people(&message, &reason, &violations, &details);
        Self { code: code_name(status.code()), reason, message, violations, text }
    }
}

/// An error that is needed once more: that of a server stays one.
pub(super) fn again(error: &anyhow::Error) -> anyhow::Error {
    reworded(error, format!("{error:#}"))
}

/// An error in other words: that of a server keeps its code, its reason and its violations.
pub(super) fn reworded(error: &anyhow::Error, text: String) -> anyhow::Error {
    match error.downcast_ref::<CommandError>() {
        Some(failure) if failure.text == text => failure.clone().into(),
        Some(failure) => CommandError { message: text.clone(), text, ..failure.clone() }.into(),
        None => anyhow!(text),
    }
}

/// All that is wrong with something, as the server lists it.
fn violations(details: &ErrorDetails) -> Vec<Violation> {
    let violation = |field: &str, description: &str| Violation {
        field: field.to_owned(),
        description: description.to_owned(),
    };
    let mut all = Vec::new();
    if let Some(bad) = details.bad_request() {
        let fields = bad.field_violations.iter();
        all.extend(fields.map(|wrong| violation(&wrong.field, &wrong.description)));
    }
    if let Some(failed) = details.precondition_failure() {
        let subjects = failed.violations.iter();
        all.extend(subjects.map(|wrong| violation(&wrong.subject, &wrong.description)));
    }
    if let Some(quota) = details.quota_failure() {
        let subjects = quota.violations.iter();
        all.extend(subjects.map(|wrong| violation(&wrong.subject, &wrong.description)));
    }
    all
}

/// A sentence in the words of the command, and below it what is wrong with what, where the server
/// says that of several things, or has a proposal.
fn for_people(
    message: &str,
    reason: &str,
    violations: &[Violation],
    details: &ErrorDetails,
) -> String {
    let fields = details.bad_request().map_or(0, |bad| bad.field_violations.len());
    let mut text = match message.strip_suffix(" fields are malformed; see the details") {
        Some(count) => format!("{} arguments are malformed:", text::escaped(count)),
        None => field_words::in_sentence(&text::escaped(message)),
    };
    for violation in violations {
        // Only where the sentence begins with the field: elsewhere it may be a name of the user's.
        let field = format!("`{}`", violation.field);
        if let Some(word) = field_words::of(&violation.field)
            && let Some(rest) = text.strip_prefix(&field)
        {
            text = format!("`{word}`{rest}");
        }
    }
    for (place, Violation { field, description }) in violations.iter().enumerate() {
        let (field, wrong) = (text::escaped(field), text::escaped(description));
        if place >= fields {
            // Quotas are in the message.
            let is_said = reason == "FIRST_KEY_NOT_OPERATOR";
            if details.precondition_failure().is_some() && !is_said {
                text.push_str(&format!("\n  {field}: {wrong}"));
            }
        } else if wrong.starts_with('`') && (fields > 1 || wrong.contains("did you mean")) {
            // It says itself of what it is.
            text.push_str(&format!("\n  {wrong}"));
        } else if fields > 1 {
            let word = field_words::of(&field).unwrap_or_else(|| field.into_owned());
            let wrong = field_words::in_sentence(&wrong);
            text.push_str(&format!("\n  `{word}` {wrong}"));
        }
    }
    let is_list = |violation: &Violation| {
        let name = violation.description.strip_prefix('`').and_then(|text| text.split_once('`'));
        name.is_some_and(|(name, _)| name.contains(','))
    };
    if reason == "SCOPE_UNKNOWN" && violations.iter().any(is_list) {
        text.push_str("\n  separate scopes by spaces: a comma is a part of a scope's name");
    }
    text
}

/// What stands on standard error for a command that failed.
#[must_use]
pub fn line(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    if !is_json(std::env::args_os()) {
        // It may quote a server, or a file.
        return format!("scopegate: {}", text::escaped_lines(&whole));
    }
    let of = |code, reason, message, violations| Shown { code, reason, message, violations };
    json(&match (error.downcast_ref::<CommandError>(), error.downcast_ref::<Unreachable>()) {
        (Some(failure), _) => {
            let is_alone = whole == failure.text;
            let message = if is_alone { &failure.message } else { &whole };
            of(failure.code, &failure.reason, message, &failure.violations)
        }
        (None, Some(_)) => of("UNAVAILABLE", UNREACHABLE, &whole, &[]),
        (None, None) => of(LOCAL, "", &whole, &[]),
    })
}

/// The line for words that make no command, if a program reads it.
#[must_use]
pub fn usage(message: &str) -> Option<String> {
    let shown = Shown { code: USAGE, reason: "", message, violations: &[] };
    is_json(std::env::args_os()).then(|| json(&shown))
}

/// Warns the person who runs a command, or the program.
pub fn warn(what: &str) {
    if is_json(std::env::args_os()) {
        let line = serde_json::json!({ "warning": what }).to_string();
        log::tell(&text::escaped_json(&line));
    } else {
        log::tell(&format!("scopegate: warning: {}", text::escaped(what)));
    }
}

fn json(error: &Shown<'_>) -> String {
    let error = Shown { ..*error };
    let line = serde_json::to_string(&Line { error }).unwrap_or_default();
    text::escaped_json(&line).into_owned()
}

/// Whether answers were asked for as JSON, among words that may make no sense as a whole. The
/// output of a backup and of an export is a file.
fn is_json(words: impl IntoIterator<Item = OsString>) -> bool {
    let words: Vec<_> = words.into_iter().skip(1).take_while(|word| word != "--").collect();
    if words.first().is_some_and(|word| word == "backup" || word == "export") {
        return false;
    }
    words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|two| two == ["--output", "json"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_anywhere_on_the_line() {
        let is = |line: &str| is_json(line.split(' ').map(OsString::from));
        assert!(is("scopegate check a b c --output json"));
        assert!(is("scopegate check --output=json --nonsense"));
        assert!(!is("scopegate check a b c"));
        assert!(!is("scopegate check --output table json"));
        assert!(!is("scopegate check a b -- --output json"));
        assert!(!is("scopegate backup --output json"), "a file of this name");
    }
}
