//! Transport error: why the listener did not start.
//!
//! Not here: the exit code of the process; see `server::StartupError`.

use std::io;

use crate::metrics::shortage;

/// Why the listener did not start. Each message is one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// A setting is wrong, or the system does not allow it.
    #[error("{0}")]
    Config(String),
    /// The system has no thread, file or memory left for the server.
    #[error("{0}")]
    Shortage(String),
}

impl TransportError {
    /// The error for an operation that the system refused. `what` names the operation. A process
    /// that gets no thread, file or memory is not configured wrongly, so the two are kept apart.
    pub(crate) fn of_system(what: &str, error: &io::Error) -> Self {
        if shortage::is_one(error) {
            Self::Shortage(format!("{what}: {}", shortage::told(error)))
        } else {
            Self::Config(format!("{what}: {}", error.kind()))
        }
    }
}
