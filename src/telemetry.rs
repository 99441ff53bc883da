//! Telemetry: the log. It goes to standard error, one event a line, as text or JSON; times are
//! RFC 3339, in UTC. As JSON, everything that the process says there is such a line: why it did
//! not start, and why it broke, too.
//!
//! Not here: a line per decision. A check writes nothing. Metrics and traces; see the server's.

use std::io::{self, IsTerminal};
use std::panic;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts the log of this process.
///
/// # Errors
/// The filter cannot be read, in a sentence.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("--log `{filter}`: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => {
            panic::set_hook(Box::new(|panic| {
                let place = panic.location().map(ToString::to_string);
                tracing::error!(place, "broken: {}", panic.payload_as_str().unwrap_or_default());
            }));
            let log = log.json().flatten_event(true);
            log.with_current_span(false).with_span_list(false).try_init()
        }
    };
    // A process that embeds the server may have a log already: that one is used.
    started.or(Ok(()))
}

/// Says why the process ends, whatever the filter of the log, and ends it so.
#[must_use]
pub fn end(format: LogFormat, why: &str, exit_code: u8) -> ExitCode {
    match format {
        LogFormat::Text => eprintln!("scopegate: {why}"),
        LogFormat::Json => eprintln!("{}", Last::line(why, exit_code)),
    }
    ExitCode::from(exit_code)
}

/// The last line of a log in JSON. Its fields are those of the others.
#[derive(Serialize)]
struct Last<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    exit_code: u8,
    target: &'static str,
}

impl Last<'_> {
    fn line(message: &str, exit_code: u8) -> String {
        let timestamp = format!("{:.6}", Timestamp::now());
        let target = "scopegate";
        let last = Last { timestamp, level: "ERROR", message, exit_code, target };
        // It has nothing that JSON cannot say.
        serde_json::to_string(&last).unwrap_or_default()
    }
}
