//! ErrorCounts: how many calls of etcd ended with an error, by its kind.
//!
//! Not here: transactions that were too large and therefore not sent.

use super::EtcdError;
use crate::metrics::Counter;

/// The number of errors of each kind, over all clients that share it.
#[derive(Debug, Default)]
pub struct ErrorCounts {
    no_answer: Counter,
    no_space: Counter,
    refused: Counter,
}

impl ErrorCounts {
    pub(super) fn count(&self, error: &EtcdError) {
        match error {
            EtcdError::NoAnswer(_) => self.no_answer.inc(),
            EtcdError::NoSpace => self.no_space.inc(),
            EtcdError::Refused(_) | EtcdError::TooLarge { .. } => self.refused.inc(),
        }
    }

    /// The present values, with the names of the kinds.
    #[must_use]
    pub fn read(&self) -> [(&'static str, u64); 3] {
        [("no_answer", &self.no_answer), ("no_space", &self.no_space), ("refused", &self.refused)]
            .map(|(kind, counter)| (kind, counter.read()))
    }
}
