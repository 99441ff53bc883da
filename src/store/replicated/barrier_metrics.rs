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

/// The most names that are counted one by one. A replica whose name is random, such as that of a container,
/// has another one after each start.
const NAMES: usize = 64;
/// What is counted of all other names.
const OTHER: &str = "other";

/// A number for each replica, by its name. The names after the first 64 share the name `other`.
#[derive(Debug, Default)]
pub struct CountByName(Mutex<BTreeMap<String, u64>>);

impl CountByName {
    pub(super) fn inc(&self, name: &Name) {
        let mut counts = self.lock();
        let is_counted = counts.len() < NAMES || counts.contains_key(name.as_str());
        let name = if is_counted { name.as_str() } else { OTHER };
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                counts.insert(name.to_owned(), 1);
            }
        }
    }

    /// The present values.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn names_without_end_share_one_count() {
        let counts = CountByName::default();
        for _ in 0..2 {
            for number in 0..1000 {
                counts.inc(&Name::parse(format!("replica-{number}")).expect("a name"));
            }
        }
        let read = counts.read();
        assert_eq!(read.len(), NAMES + 1);
        assert_eq!(read.get("replica-0"), Some(&2), "the first names have their own");
        assert_eq!(read.get(OTHER), Some(&(2 * (1000 - 64))));
    }
}
