//! StoreMetrics: what an engine tells of its work.

use super::quota::Quota;
use crate::metrics::{Counter, Gauge, Histogram};

/// What an engine tells of its work, from its opening on.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// How many changes were committed.
    pub committed: Counter,
    /// How many proposals were refused: as a rule because what they rest on had changed.
    pub refused: Counter,
    /// How many of those by each bound of a company, in the order of [`Quota::ALL`].
    pub at_bound: [Counter; 4],
    /// How many orders wait for the writer.
    pub waiting: Gauge,
    /// How long a batch took, from its first proposal to its publication.
    pub batches: Histogram,
    /// How long the disk took of that, to have the batch safe.
    pub syncs: Histogram,
    /// How much of the disk is left, in bytes, as of the last batch.
    pub room: Gauge,
    /// How much of the disk is reserved for changes that take away, in bytes, as of the last batch.
    pub reserve: Gauge,
}

impl StoreMetrics {
    /// How many proposals were refused by each bound of a company.
    pub fn at_bounds(&self) -> impl Iterator<Item = (Quota, u64)> {
        Quota::ALL.into_iter().zip(&self.at_bound).map(|(bound, count)| (bound, count.read()))
    }

    /// A proposal was refused by this bound.
    pub(super) fn refused_at(&self, bound: Quota) {
        let count = Quota::ALL.iter().zip(&self.at_bound).find(|(of, _)| **of == bound);
        if let Some((_, count)) = count {
            count.inc();
        }
    }
}
