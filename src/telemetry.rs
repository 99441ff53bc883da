//! Telemetry: the log. It goes to standard error, one event a line, as text or JSON; times are
//! RFC 3339, in UTC. As JSON, everything that the process says there is such a line: why it did
//! not start, and why it broke, too.
//!
//! Not here: a line per decision. A check writes nothing. Metrics and traces; see the server's.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::policy::text;

/// Starts the log of this process.
///
/// # Errors
/// The filter cannot be read, in a sentence.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("--log `{filter}`: {error}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Shown { log: io::stderr(), format });
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

/// A log whose lines show every character that a caller put into them. The library escapes control
/// characters, of which colours are made, and no others.
struct Shown<W> {
    log: W,
    format: LogFormat,
}

impl<W: Write> Write for Shown<W> {
    /// Writes a line, or none of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if line.is_ascii() {
            return self.log.write_all(line);
        }
        let line = String::from_utf8_lossy(line);
        let line = match self.format {
            LogFormat::Text => text::escaped_colours(&line),
            LogFormat::Json => text::escaped_json(&line),
        };
        self.log.write_all(line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}

/// Says why the process ends, whatever the filter of the log, and ends it so.
#[must_use]
pub fn end(format: LogFormat, why: &str, exit_code: u8) -> ExitCode {
    match format {
        LogFormat::Text => eprintln!("scopegate: {}", text::escaped_lines(why)),
        LogFormat::Json => eprintln!("{}", text::escaped_json(&Last::line(why, exit_code))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_shows_every_character() {
        let written = |format, line: &str| {
            let mut shown = Shown { log: Vec::new(), format };
            assert_eq!(shown.write(line.as_bytes()).expect("written"), line.len());
            String::from_utf8(shown.log).expect("text")
        };
        let line = "\u{1b}[2mINFO\u{1b}[0m caller=ad\u{202e}nim \u{fc}\n";
        let shown = "\u{1b}[2mINFO\u{1b}[0m caller=ad\\u{202e}nim \u{fc}\n";
        assert_eq!(written(LogFormat::Text, line), shown);
        let json = "{\"caller\":\"ad\u{202e}nim\"}\n";
        assert_eq!(written(LogFormat::Json, json), "{\"caller\":\"ad\\u202enim\"}\n");
    }
}
