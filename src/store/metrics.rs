//! Measures: what an engine tells of its work.

use super::quota::Bound;
use crate::metrics::{Count, Level, Times};

/// What an engine tells of its work, from its opening on.
#[derive(Debug, Default)]
pub struct Measures {
    /// How many changes were committed.
    pub committed: Count,
    /// How many proposals were refused: as a rule because what they rest on had changed.
    pub refused: Count,
    /// How many of those by each bound of a company, in the order of [`Bound::ALL`].
    pub at_bound: [Count; 4],
    /// How many orders wait for the writer.
    pub waiting: Level,
    /// How long a batch took, from its first proposal to its publication.
    pub batches: Times,
    /// How long the disk took of that, to have the batch safe.
    pub syncs: Times,
    /// How much of the disk is left, in bytes, as of the last batch.
    pub room: Level,
    /// How much of the disk is reserved for changes that take away, in bytes, as of the last batch.
    pub reserve: Level,
}

impl Measures {
    /// How many proposals were refused by each bound of a company.
    pub fn at_bounds(&self) -> impl Iterator<Item = (Bound, u64)> {
        Bound::ALL.into_iter().zip(&self.at_bound).map(|(bound, count)| (bound, count.read()))
    }

    /// A proposal was refused by this bound.
    pub(super) fn refused_at(&self, bound: Bound) {
        let count = Bound::ALL.iter().zip(&self.at_bound).find(|(of, _)| **of == bound);
        if let Some((_, count)) = count {
            count.one();
        }
    }
}
