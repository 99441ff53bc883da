//! LogMetrics: what a replica measures of the log and of its own commits.
//!
//! Not here: the names of the metrics; see `transport::collector`. And what is measured of the barrier and
//! of the sessions; see [`BarrierMetrics`](super::BarrierMetrics) and
//! [`MembershipMetrics`](super::membership::MembershipMetrics).

use super::head::Head;
use crate::metrics::{Counter, Gauge, Histogram};

/// Metrics of the log of a replica since the process started.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Durations of own commits, from the first transaction to the known outcome.
    pub commits: Histogram,
    /// Own commits that were lost to an entry of another replica. The writer tries again.
    pub lost: Counter,
    /// The last revision of the log, as of the last head that was read or committed.
    pub head_revision: Gauge,
    /// The bytes of the entries that the log has, as of the same head.
    pub bytes: Gauge,
    /// Snapshots that other replicas began to take from this one.
    pub snapshots_given: Counter,
    /// Snapshots that this replica has installed.
    pub snapshots_taken: Counter,
}

impl LogMetrics {
    pub(super) fn set_head(&self, head: &Head) {
        self.head_revision.set(head.revision.0);
        self.bytes.set(head.bytes.saturating_sub(head.truncated_bytes));
    }
}
