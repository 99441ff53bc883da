//! BarrierMetrics: counts of what the barrier did.
//!
//! Not here: their names; see `observe::prometheus`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::{Counter, Histogram};
use crate::policy::id::Name;

/// Counts of what the barrier did.
#[derive(Debug, Default)]
pub struct BarrierMetrics {
    /// Durations of the waits that ended because each record had told the revision or was gone.
    pub seconds: Histogram,
    /// Waits that ended without that.
    pub given_up: Counter,
    /// Waits that did not end at once, by the names of the replicas that they waited for.
    pub waits: CountByName,
    /// Sessions that this replica has fenced, by the names of their replicas.
    pub fences: CountByName,
    /// Records that this replica has deleted.
    pub deletions: Counter,
    /// Reads of all records.
    pub ranges: Counter,
}

/// A number for each replica.
#[derive(Debug, Default)]
pub struct CountByName(Mutex<BTreeMap<Name, u64>>);

impl CountByName {
    pub(super) fn inc(&self, name: &Name) {
        let mut counts = self.lock();
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                counts.insert(name.clone(), 1);
            }
        }
    }

    /// The present values.
    #[must_use]
    pub fn read(&self) -> BTreeMap<Name, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
