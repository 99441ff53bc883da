//! MembershipMetrics: what a replica counts of its sessions.

use crate::metrics::{Counter, Histogram};

/// Metrics of the sessions of a replica since the process started.
#[derive(Debug, Default)]
pub struct MembershipMetrics {
    /// Sessions that began to answer calls.
    pub sessions: Counter,
    /// Sessions that another replica ended.
    pub fences: Counter,
    /// Durations of beats, from the first sending of a beat to its answer.
    pub beats: Histogram,
}
