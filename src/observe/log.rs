//! Telemetry: the log. It goes to standard error, one event a line, as text or JSON; times are
//! RFC 3339, in UTC. As JSON, everything that the process says there is such a line: why it did
//! not start, and why it broke, too.
//!
//! A log that cannot be written never hurts: a thread of its own writes it, nothing else waits for
//! standard error, and lines that are lost are counted.
//!
//! Not here: a line per decision. A check writes nothing. Metrics and traces; see the server's.

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

use self::queue::Queue;

use crate::policy::text;

/// How to write the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How long the end of the process waits for lines that are still to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of the process: as with the events of `tracing`, there is one.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// Starts the log of this process.
///
/// # Errors
/// The filter cannot be read, in a sentence.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(own_level(filter))
        .map_err(|error| format!("--log `{filter}`: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // What it would say of errors of the log, it would say on standard error, or panic.
    let log = log.log_internal_errors(false);
    let log = log.with_writer(move || Shown { log: Line(log_of(format)), format });
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
    let line = match format {
        LogFormat::Text => format!("scopegate: {}\n", text::escaped_lines(why)),
        LogFormat::Json => {
            text::escaped_json(&Event { exit_code: Some(exit_code), ..Event::error(why) }.line())
                .into()
        }
    };
    let log = log_of(format);
    if log.has_thread() {
        log.push(line.as_bytes());
        flush();
    } else {
        // The process ends for want of a thread: nothing is held up by waiting for its last line.
        io::stderr().write_all(line.as_bytes()).ok();
    }
    ExitCode::from(exit_code)
}

/// Waits for the lines that are still to be written, but not for long.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_TIMEOUT);
    }
}

/// How many lines of the log were lost because standard error could not be written.
#[must_use]
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.dropped())
}

/// Says something to the person who runs a command. Nothing is wrong if nobody reads it.
pub fn tell(what: &str) {
    writeln!(io::stderr(), "{what}").ok();
}

fn log_of(format: LogFormat) -> &'static Queue {
    LOG.get_or_init(|| Queue::start(io::stderr(), Box::new(move |lost| loss_line(format, lost))))
}

/// The filter, with a level that is given for everything taken for this program's own events:
/// callers have a hand in what the libraries below it warn of. Of those it says errors, and what
/// else the filter names them for.
fn own_level(filter: &str) -> String {
    let is_level = |part: &str| {
        !part.is_empty() && part.parse::<tracing::level_filters::LevelFilter>().is_ok()
    };
    let mut parts: Vec<_> = filter.split(',').map(str::trim).collect();
    let Some(place) = parts.iter().rposition(|part| is_level(part)) else {
        return filter.to_owned();
    };
    let level = parts.remove(place);
    let is_off = level.eq_ignore_ascii_case("off") || level == "0";
    let others = if is_off { "off" } else { "error" };
    let own = format!("scopegate={level}");
    [others, &own].into_iter().chain(parts).collect::<Vec<_>>().join(",")
}

/// One event, on its way to the queue.
struct Line(&'static Queue);

impl Write for Line {
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
            Event { place: Some(&place), ..Event::error(&message) }.line()
        }
    };
    let trace = Backtrace::capture();
    if format == LogFormat::Text && trace.status() == BacktraceStatus::Captured {
        writeln!(line, "{trace}").ok();
    }
    log_of(format).push(line.as_bytes());
}

fn loss_line(format: LogFormat, lost: u64) -> String {
    let message = format!("{lost} lines of this log are lost: standard error could not be written");
    match format {
        LogFormat::Text => format!("{:.6}  WARN {message}\n", crate::metrics::machine_time()),
        LogFormat::Json => Event { level: "WARN", ..Event::error(&message) }.line(),
    }
}

/// A line of a log in JSON that is written whatever the filter. Its fields are those of the
/// others.
#[derive(Serialize)]
struct Event<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    target: &'static str,
}

impl<'a> Event<'a> {
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
        // It has nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_for_everything_is_that_of_our_own_events() {
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
