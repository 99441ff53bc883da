//! MembershipMetrics: what a replica counts of its sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::etcd::EtcdError;
use crate::metrics::Counter;

/// The kinds of [`EtcdError`], in the order of [`MembershipMetrics::etcd_errors`].
pub const ETCD_ERROR_KINDS: [&str; 3] = ["no_answer", "no_space", "refused"];

/// Metrics of the sessions of a replica since the process started.
#[derive(Debug, Default)]
pub struct MembershipMetrics {
    /// Sessions that began to answer calls.
    pub sessions: Counter,
    /// Sessions that another replica ended.
    pub fences: Counter,
    /// Errors of etcd, by [kind](ETCD_ERROR_KINDS).
    pub etcd_errors: [Counter; 3],
    /// Nanoseconds from the first sending of the last beat to its answer.
    beat: AtomicU64,
}

impl MembershipMetrics {
    /// The time from the first sending of the last beat to its answer; zero before the first.
    #[must_use]
    pub fn last_beat(&self) -> Duration {
        Duration::from_nanos(self.beat.load(Ordering::Relaxed))
    }

    pub(super) fn set_last_beat(&self, nanoseconds: u64) {
        self.beat.store(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn count_error(&self, error: &EtcdError) {
        let [no_answer, no_space, refused] = &self.etcd_errors;
        match error {
            EtcdError::NoAnswer(_) => no_answer.inc(),
            EtcdError::NoSpace => no_space.inc(),
            EtcdError::Refused(_) | EtcdError::TooLarge { .. } => refused.inc(),
        }
    }
}
