//! Environment: parses the command line with the environment variables of flags, and warns of
//! mistyped variables.
//!
//! An empty variable counts as not set. The variable of a switch accepts `true`, `yes`, `1` and the
//! like. Kubernetes sets variables for a Service that is named `scopegate`; they are neither read nor
//! reported.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::command::Cli;
use super::field_words;
use super::suggestion::nearest;

/// The prefix of every variable of this program.
const PREFIX: &str = "SCOPEGATE_";
/// Variables that belong to no flag.
const OTHERS: [&str; 2] = ["SCOPEGATE_KEY", "SCOPEGATE_CONFIG"];
/// The maximum number of variables to report.
const MAX_WARNINGS: usize = 10;

/// Parses the command line and the environment.
///
/// # Errors
/// The command line or a variable is invalid.
pub fn parse() -> Result<Cli, clap::Error> {
    field_words::set_commands(Cli::command);
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    if is_overruled(&matches) {
        command = without(self::command(), "endpoint");
        matches = command.try_get_matches_from_mut(std::env::args_os())?;
    }
    Cli::from_arg_matches_mut(&mut matches)
}

/// Whether --context is on the command line and the endpoint comes from a variable. The variable then
/// names another server and is ignored.
fn is_overruled(matches: &ArgMatches) -> bool {
    if let Some((_, inner)) = matches.subcommand() {
        return is_overruled(inner);
    }
    let is_from = |id: &str, source| {
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(source)
    };
    is_from("context", ValueSource::CommandLine) && is_from("endpoint", ValueSource::EnvVariable)
}

/// The commands, with one flag that does not read its variable.
fn without(command: Command, id: &'static str) -> Command {
    let reset = |arg: Arg| if arg.get_id() == id { arg.env(Resettable::Reset) } else { arg };
    command.mut_args(reset).mut_subcommands(|inner| without(inner, id))
}

/// The commands, with the rules of this file for variables.
fn command() -> Command {
    with_rules(Cli::command())
}

fn with_rules(command: Command) -> Command {
    command.mut_args(arg_with_rules).mut_subcommands(with_rules)
}

fn arg_with_rules(arg: Arg) -> Arg {
    let Some(name) = arg.get_env().map(OsStr::to_owned) else { return arg };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let arg = if is_switch { arg.value_parser(switch) } else { arg };
    match std::env::var_os(&name) {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        // A switch that is off must not conflict with another flag.
        Some(value) if is_switch && value.to_str().map(switch) == Some(Ok(false)) => {
            arg.env(Resettable::Reset)
        }
        _ => arg,
    }
}

/// Parses the value of a switch.
fn switch(text: &str) -> Result<bool, &'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write `1`, `true`, `yes` or `on`, or `0`, `false`, `no` or `off`"),
    }
}

/// The variable of a rejected value; None if the value is on the command line.
#[must_use]
pub fn origin(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = shown.split([' ', '=', '[']).next()?;
    let is_flag = |word: &OsString| {
        let word = word.to_string_lossy();
        word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
    };
    if std::env::args_os().any(|word| is_flag(&word)) {
        return None;
    }
    let long = flag.strip_prefix("--")?;
    let mut names = BTreeSet::new();
    collect(&Cli::command(), &mut |arg, name| {
        if arg.get_long() == Some(long) {
            names.insert(name.to_owned());
        }
    });
    names.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// A sentence for each variable that is probably mistyped. Other unknown variables are not reported,
/// because scripts around the commands have variables of their own.
#[must_use]
pub fn mistyped() -> Vec<String> {
    unknown().into_iter().filter(|sentence| sentence.contains(MEANT)).collect()
}

/// A sentence for each unknown variable with the prefix of this program.
#[must_use]
pub fn unknown() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_among(names)
}

/// The text before a suggested variable.
const MEANT: &str = "did you mean `";

fn unknown_among(names: impl Iterator<Item = String>) -> Vec<String> {
    let known = known();
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX))
        .filter(|name| !known.contains(name) && !is_of_kubernetes(name))
        .collect();
    unknown.sort();
    let more = unknown.len().saturating_sub(MAX_WARNINGS);
    let mut sentences: Vec<_> = unknown
        .iter()
        .take(MAX_WARNINGS)
        .map(|name| {
            let shown = crate::policy::text::escaped(name);
            match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => {
                    format!("the variable `{shown}` is not read: {MEANT}{near}`?")
                }
                None => format!(
                    "the variable `{shown}` is not read: `scopegate serve --help` has those that \
                     are"
                ),
            }
        })
        .collect();
    if more > 0 {
        sentences.push(format!("{more} more variables that begin with `{PREFIX}` are not read"));
    }
    sentences
}

/// Every variable that the program reads.
fn known() -> BTreeSet<String> {
    let mut known: BTreeSet<_> = OTHERS.map(str::to_owned).into();
    collect(&Cli::command(), &mut |_, name| {
        known.insert(name.to_owned());
    });
    known
}

fn collect(command: &Command, each: &mut impl FnMut(&Arg, &str)) {
    for arg in command.get_arguments() {
        if let Some(name) = arg.get_env().and_then(OsStr::to_str) {
            each(arg, name);
        }
    }
    for child in command.get_subcommands() {
        collect(child, each);
    }
}

/// Whether Kubernetes sets a variable of this name for a Service whose name begins with
/// `scopegate`: `…_SERVICE_HOST`, `…_SERVICE_PORT[_NAME]`, `…_PORT`,
/// `…_PORT_N_TCP[_ADDR|_PORT|_PROTO]`.
fn is_of_kubernetes(name: &str) -> bool {
    if ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end)) {
        return true;
    }
    if name.contains("_SERVICE_PORT_") {
        return true;
    }
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let is_number = parts
        .next()
        .is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    is_number
        && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        && matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_take_the_usual_words_in_any_case() {
        for text in ["1", "true", "TRUE", "Yes", "on", " on "] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["0", "false", "No", "OFF"] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        for text in ["", "2", "y", "enabled"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_of_kubernetes_are_neither_flags_nor_reported() {
        let service = [
            "SCOPEGATE_PORT",
            "SCOPEGATE_PORT_50051_TCP",
            "SCOPEGATE_PORT_50051_TCP_ADDR",
            "SCOPEGATE_PORT_50051_TCP_PORT",
            "SCOPEGATE_PORT_50051_TCP_PROTO",
            "SCOPEGATE_PORT_53_UDP",
            "SCOPEGATE_SERVICE_HOST",
            "SCOPEGATE_SERVICE_PORT",
            "SCOPEGATE_SERVICE_PORT_GRPC",
            "SCOPEGATE_METRICS_PORT",
            "SCOPEGATE_METRICS_PORT_9464_TCP_ADDR",
            "SCOPEGATE_METRICS_SERVICE_HOST",
        ];
        assert_eq!(unknown_among(service.into_iter().map(str::to_owned)), [""; 0]);
        // The other way round: no flag has a name that a Service could set.
        assert_eq!(known().into_iter().find(|name| is_of_kubernetes(name)), None);
    }

    #[test]
    fn mistyped_variable_gets_a_suggestion() {
        let of = |name: &str| unknown_among([name.to_owned()].into_iter()).join("\n");
        assert!(of("SCOPEGATE_LISTN").contains("did you mean `SCOPEGATE_LISTEN`?"));
        assert!(of("SCOPEGATE_TLS_CRET").contains("did you mean `SCOPEGATE_TLS_CERT`?"));
        assert!(of("SCOPEGATE_FOO_BAR").contains("scopegate serve --help"));
        assert!(of("SCOPEGATE_PORT_X").contains("is not read"), "not a port of a Service");
        for known in known() {
            assert_eq!(of(&known), "", "{known}");
        }
        assert_eq!(of("SCOPEGATES_LISTEN"), "", "another program's");
        let many = (0..30).map(|n| format!("SCOPEGATE_ZZZZ_{n}"));
        assert_eq!(unknown_among(many).len(), MAX_WARNINGS + 1);
    }
}
