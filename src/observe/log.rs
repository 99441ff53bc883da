//! Log: writes the log of the process to standard error, one event per line, as text or JSON. Times
//! are RFC 3339, in UTC. With JSON every line on standard error is a JSON object, also the reason
//! for a failed start and for a panic.
//!
//! A separate thread writes the log, so nothing else waits for standard error. Lines that cannot be
//! written are counted.
//!
//! Not here: a line for each decision; a check writes nothing to this log. See
//! [`super::decision_log`].

mod queue;

use clap::ValueEnum;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use self::queue::LogQueue;

use crate::policy::text;

/// How to write the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How long the process waits at its exit for queued lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of the process. There is one, as `tracing` has one subscriber for all events.
static LOG: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Starts the log of this process.
///
/// # Errors
/// The filter is not valid. The error is a sentence.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(own_level(filter))
        .map_err(|error| format!("--log `{filter}`: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // The library would write its own errors to standard error, or panic.
    let log = log.log_internal_errors(false);
    let log = log.with_writer(move || EscapedOutput { log: LogLine(log_queue(format)), format });
    let log = log.with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => {
            let log = log.json().flatten_event(true);
            log.with_current_span(false).with_span_list(false).try_init()
        }
    };
    if started.is_ok() {
        panic::set_hook(Box::new(move |panic| report_panic(format, panic)));
    }
    // A process that embeds the server may have a log already. Then that log is used.
    started.or(Ok(()))
}

/// An output that escapes the invisible characters that a caller put into a line. The library escapes
/// only control characters, of which colour codes consist.
struct EscapedOutput<W> {
    log: W,
    format: LogFormat,
}

impl<W: Write> Write for EscapedOutput<W> {
    /// Writes the whole line or nothing.
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

/// Logs why the process ends, whatever the filter of the log, and returns the exit code.
#[must_use]
pub fn end(format: LogFormat, why: &str, exit_code: u8) -> ExitCode {
    let line = match format {
        LogFormat::Text => format!("scopegate: {}\n", text::escaped_lines(why)),
        LogFormat::Json => text::escaped_json(
            &LogEvent { exit_code: Some(exit_code), ..LogEvent::error(why) }.line(),
        )
        .into(),
    };
    let log = log_queue(format);
    if log.has_thread() {
        log.push(line.as_bytes());
        flush();
    } else {
        // The process ends because it gets no thread, so nothing else waits while this line is written.
        io::stderr().write_all(line.as_bytes()).ok();
    }
    ExitCode::from(exit_code)
}

/// Waits for queued lines, for one second at most.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_TIMEOUT);
    }
}

/// The number of lines that were lost because standard error could not be written.
#[must_use]
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.dropped())
}

/// Prints a line for the person who runs a command. A closed standard error is no failure.
pub fn tell(what: &str) {
    writeln!(io::stderr(), "{what}").ok();
}

fn log_queue(format: LogFormat) -> &'static LogQueue {
    LOG.get_or_init(|| LogQueue::start(io::stderr(), Box::new(move |lost| loss_line(format, lost))))
}

/// The filter, in which a level for everything applies only to the events of this program. Callers
/// can cause warnings of the libraries, so libraries log only errors unless the filter names
/// them.
fn own_level(filter: &str) -> String {
    let is_level = |part: &str| {
        !part.is_empty() && part.parse::<tracing::level_filters::LevelFilter>().is_ok()
    };
    let mut parts: Vec<_> = filter.split(',').map(str::trim).collect();
    let Some(index) = parts.iter().rposition(|part| is_level(part)) else {
        return filter.to_owned();
    };
    let level = parts.remove(index);
    let is_off = level.eq_ignore_ascii_case("off") || level == "0";
    let others = if is_off { "off" } else { "error" };
    let own = format!("scopegate={level}");
    [others, &own].into_iter().chain(parts).collect::<Vec<_>>().join(",")
}

/// Writes one event to the queue.
struct LogLine(&'static LogQueue);

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn report_panic(format: LogFormat, panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let mut line = match format {
        LogFormat::Text => {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("unnamed");
            format!("scopegate: thread `{thread}` panicked at {place}: {what}\n")
        }
        LogFormat::Json => {
            let message = format!("broken: {what}");
            LogEvent { place: Some(&place), ..LogEvent::error(&message) }.line()
        }
    };
    let trace = Backtrace::capture();
    if format == LogFormat::Text && trace.status() == BacktraceStatus::Captured {
        writeln!(line, "{trace}").ok();
    }
    log_queue(format).push(line.as_bytes());
}

fn loss_line(format: LogFormat, lost: u64) -> String {
    let message = format!("{lost} lines of this log are lost: standard error could not be written");
    match format {
        LogFormat::Text => format!("{:.6}  WARN {message}\n", crate::metrics::machine_time()),
        LogFormat::Json => LogEvent { level: "WARN", ..LogEvent::error(&message) }.line(),
    }
}

/// A line of the JSON log that is written whatever the filter. It has the same fields as the other
/// lines.
#[derive(Serialize)]
struct LogEvent<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    target: &'static str,
}

impl<'a> LogEvent<'a> {
    fn error(message: &'a str) -> Self {
        let timestamp = format!("{:.6}", crate::metrics::machine_time());
        Self {
            timestamp,
            level: "ERROR",
            message,
            place: None,
            exit_code: None,
            target: "scopegate",
        }
    }

    fn line(&self) -> String {
        // All fields can be serialized.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_for_everything_applies_to_this_programs_events() {
        for (given, meant) in [
            ("info", "error,scopegate=info"),
            ("off", "off,scopegate=off"),
            ("info,h2=warn", "error,scopegate=info,h2=warn"),
            ("scopegate::calls=debug, WARN", "error,scopegate=WARN,scopegate::calls=debug"),
            ("h2=debug", "h2=debug"),
        ] {
            assert_eq!(own_level(given), meant);
        }
    }

    #[test]
    fn invisible_characters_of_a_line_are_escaped() {
        let written = |format, line: &str| {
            let mut shown = EscapedOutput { log: Vec::new(), format };
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
