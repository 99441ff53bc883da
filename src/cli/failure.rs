//! Failure: the error of a command, as text for people and as JSON for programs.
//!
//! With `--output json` it is one line of JSON on standard error:
//! `{"error": {"code", "reason", "message", "violations": [{"field", "description"}]}}`.
//!
//! Not here: a denial, which is a response and not an error.

use std::error::Error as _;
use std::ffi::OsString;

use anyhow::anyhow;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::diagnosis::{self, Unreachable};
use super::field_words;
use crate::observe::log;
use crate::policy::text;
use crate::wire::names::code_name;

/// The code of a command line that cannot be parsed.
const USAGE: &str = "USAGE";
/// The code of an error that no server returned.
const LOCAL: &str = "LOCAL";
/// The reason if the server cannot be reached.
const UNREACHABLE: &str = "UNREACHABLE";

/// An error that a server returned, or that the server cannot be reached.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{text}")]
pub(super) struct CommandError {
    /// The name of the gRPC code.
    code: &'static str,
    /// The reason of `ErrorInfo`.
    reason: String,
    message: String,
    violations: Vec<FieldViolation>,
    /// The whole error as text for people.
    #[serde(skip)]
    text: String,
}

#[derive(Clone, Debug, Serialize)]
struct FieldViolation {
    field: String,
    description: String,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: Shown<'a>,
}

#[derive(Serialize)]
struct Shown<'a> {
    code: &'a str,
    reason: &'a str,
    message: &'a str,
    violations: &'a [FieldViolation],
}

impl CommandError {
    pub(super) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let unreachable = status.source().and_then(|why| why.downcast_ref::<Unreachable>());
        let message = match (details.error_info(), unreachable) {
            (Some(_), _) | (_, Some(_)) => status.message().to_owned(),
            // The message is of this program, or of a proxy.
            _ if status.code() == Code::DeadlineExceeded => status.message().to_owned(),
            // The message is not of the server: the connection failed.
            _ => match status.source().map(diagnosis::cause) {
                Some(cause) => format!(
                    "the connection to the server broke ({cause}): check that the server runs, and \
                     try again"
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

/// The error of a command to which a server returned an error.
pub(super) fn server_error(status: &Status) -> anyhow::Error {
    CommandError::of(status).into()
}

/// A copy of an error. A copy of a server error is a server error, too.
pub(super) fn again(error: &anyhow::Error) -> anyhow::Error {
    reworded(error, format!("{error:#}"))
}

/// An error with another text. A server error keeps its code, its reason and its violations.
pub(super) fn reworded(error: &anyhow::Error, text: String) -> anyhow::Error {
    match error.downcast_ref::<CommandError>() {
        Some(error) if error.text == text => error.clone().into(),
        Some(error) => CommandError { message: text.clone(), text, ..error.clone() }.into(),
        None => anyhow!(text),
    }
}

/// The violations in the details of a server error.
fn violations(details: &ErrorDetails) -> Vec<FieldViolation> {
    let violation = |field: &str, description: &str| FieldViolation {
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

/// The message with the names of flags and arguments for fields. Below it are the violations, if there
/// are several, or if one has a suggestion.
fn for_people(
    message: &str,
    reason: &str,
    violations: &[FieldViolation],
    details: &ErrorDetails,
) -> String {
    let fields = details.bad_request().map_or(0, |bad| bad.field_violations.len());
    let mut text = match message.strip_suffix(" fields are malformed; see the details") {
        Some(count) => format!("{} arguments are malformed:", text::escaped(count)),
        None => field_words::in_sentence(&text::escaped(message)),
    };
    for violation in violations {
        // Replace the field only at the beginning: elsewhere it may be a name from the user's input.
        let field = format!("`{}`", violation.field);
        if let Some(word) = field_words::of(&violation.field)
            && let Some(rest) = text.strip_prefix(&field)
        {
            text = format!("`{word}`{rest}");
        }
    }
    for (index, FieldViolation { field, description }) in violations.iter().enumerate() {
        let (field, wrong) = (text::escaped(field), text::escaped(description));
        if index >= fields {
            // The message has the quotas already.
            let is_in_message = reason == "FIRST_KEY_NOT_OPERATOR";
            if details.precondition_failure().is_some() && !is_in_message {
                text.push_str(&format!("\n  {field}: {wrong}"));
            }
        } else if wrong.starts_with('`') && (fields > 1 || wrong.contains("did you mean")) {
            // The description names its subject itself.
            text.push_str(&format!("\n  {wrong}"));
        } else if fields > 1 {
            let word = field_words::of(&field).unwrap_or_else(|| field.into_owned());
            let wrong = field_words::in_sentence(&wrong);
            text.push_str(&format!("\n  `{word}` {wrong}"));
        }
    }
    let is_list = |violation: &FieldViolation| {
        let name = violation.description.strip_prefix('`').and_then(|text| text.split_once('`'));
        name.is_some_and(|(name, _)| name.contains(','))
    };
    if reason == "SCOPE_UNKNOWN" && violations.iter().any(is_list) {
        text.push_str("\n  separate scopes by spaces: a comma is a part of a scope's name");
    }
    text
}

/// The line on standard error for a command that failed.
#[must_use]
pub fn line(error: &anyhow::Error) -> String {
    let full = format!("{error:#}");
    if !is_json(std::env::args_os()) {
        // It may quote text from a server or a file.
        return format!("scopegate: {}", text::escaped_lines(&full));
    }
    let of = |code, reason, message, violations| Shown { code, reason, message, violations };
    json(&match (error.downcast_ref::<CommandError>(), error.downcast_ref::<Unreachable>()) {
        (Some(error), _) => {
            let is_alone = full == error.text;
            let message = if is_alone { &error.message } else { &full };
            of(error.code, &error.reason, message, &error.violations)
        }
        (None, Some(_)) => of("UNAVAILABLE", UNREACHABLE, &full, &[]),
        (None, None) => of(LOCAL, "", &full, &[]),
    })
}

/// The line of JSON for a command line that cannot be parsed; None without `--output json`.
#[must_use]
pub fn usage(message: &str) -> Option<String> {
    let shown = Shown { code: USAGE, reason: "", message, violations: &[] };
    is_json(std::env::args_os()).then(|| json(&shown))
}

/// Writes a warning to standard error.
pub fn warn(message: &str) {
    if is_json(std::env::args_os()) {
        let line = serde_json::json!({ "warning": message }).to_string();
        log::tell(&text::escaped_json(&line));
    } else {
        log::tell(&format!("scopegate: warning: {}", text::escaped(message)));
    }
}

fn json(error: &Shown<'_>) -> String {
    let error = Shown { ..*error };
    let line = serde_json::to_string(&ErrorLine { error }).unwrap_or_default();
    text::escaped_json(&line).into_owned()
}

/// Whether the command line has `--output json`. It may not be valid as a whole. The --output of a
/// backup and of an export is a file.
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
    fn output_json_is_found_anywhere_on_the_line() {
        let is = |line: &str| is_json(line.split(' ').map(OsString::from));
        assert!(is("scopegate check a b c --output json"));
        assert!(is("scopegate check --output=json --nonsense"));
        assert!(!is("scopegate check a b c"));
        assert!(!is("scopegate check --output table json"));
        assert!(!is("scopegate check a b -- --output json"));
        assert!(!is("scopegate backup --output json"), "a file of this name");
    }
}
