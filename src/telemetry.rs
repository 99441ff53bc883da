//! Telemetry: the log. It goes to standard error, as text or JSON.
//!
//! Not here: a line per decision. A check writes nothing.

use std::io::{self, IsTerminal};

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
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // A process that embeds the server may have a log already: that one is used.
    started.or(Ok(()))
}
