//! StoreMetrics: counters, gauges and histograms of a store.

use super::quota::Quota;
use crate::metrics::{Counter, Gauge, Histogram};

/// Metrics of a store since it was opened.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Committed changes.
    pub committed: Counter,
    /// Rejected proposals, most of them because a precondition no longer held.
    pub refused: Counter,
    /// Proposals that a quota rejected, in the order of [`Quota::ALL`].
    pub at_bound: [Counter; 4],
    /// Entries of other replicas that replaced other facts here than at the replica that wrote the entry.
    pub diverged: Counter,
    /// Commands in the queue of the writer.
    pub waiting: Gauge,
    /// Duration of a batch, from its first proposal to its publication.
    pub batches: Histogram,
    /// The part of that duration for making the batch durable.
    pub syncs: Histogram,
    /// Free bytes of the disk, as of the last batch.
    pub room: Gauge,
    /// Bytes of the reserve for changes that only remove access, as of the last batch.
    pub reserve: Gauge,
}

impl StoreMetrics {
    /// The number of proposals that each quota rejected.
    pub fn at_bounds(&self) -> impl Iterator<Item = (Quota, u64)> {
        Quota::ALL.into_iter().zip(&self.at_bound).map(|(bound, count)| (bound, count.read()))
    }

    /// Counts a proposal that this quota rejected.
    pub(super) fn refused_at(&self, bound: Quota) {
        let count = Quota::ALL.iter().zip(&self.at_bound).find(|(of, _)| **of == bound);
        if let Some((_, count)) = count {
            count.inc();
        }
    }
}
