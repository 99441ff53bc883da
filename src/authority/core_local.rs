//! Desk: what one core has for itself: the facts that it was just asked for, and its own counts,
//! so that no two cores write to one place.

use std::sync::{Arc, Mutex, PoisonError};

use super::l1_cache;
use crate::metrics::{Counter, Histogram, HistogramSnapshot};
use crate::policy::decision::Verdict;
use crate::policy::reason::Reason;
use crate::store::{Fact, FactKey};

/// What one core was just asked for.
pub(super) type L1 = l1_cache::L1Cache<FactKey, Fact>;

/// One core's desk.
pub(super) struct CoreLocal {
    pub(super) front: L1,
    pub(super) measures: CheckMetrics,
}

/// What is counted at a desk.
#[derive(Debug, Default)]
pub struct CheckMetrics {
    allowed: Counter,
    /// By reason, in the order of [`Reason::ALL`].
    denied: [Counter; Reason::ALL.len()],
    /// How long checks took, from the message to the answer.
    pub checks: Histogram,
    /// How long batches took.
    pub batches: Histogram,
    /// Facts that were on the desk.
    pub(super) near: Counter,
    /// Facts that were in the cache of all.
    pub(super) cached: Counter,
    /// Facts that had to be read from the store.
    pub(super) read: Counter,
}

impl CheckMetrics {
    pub(super) fn decided(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Allowed { .. } => self.allowed.inc(),
            Verdict::Denied { reason, .. } => {
                if let Some(count) = self.denied.get(*reason as usize) {
                    count.inc();
                }
            }
        }
    }
}

/// The sum of all desks.
#[derive(Clone, Debug)]
pub struct MetricsTotals {
    /// Checks that were allowed, those of batches included.
    pub allowed: u64,
    /// Checks that were denied, by reason.
    pub denied: Vec<(Reason, u64)>,
    /// How long checks took.
    pub checks: HistogramSnapshot,
    /// How long batches took.
    pub batches: HistogramSnapshot,
    /// Facts that were on a desk.
    pub near: u64,
    /// Facts that were in the cache of all.
    pub cached: u64,
    /// Facts that had to be read from the store.
    pub read: u64,
}

impl Default for MetricsTotals {
    fn default() -> Self {
        Self {
            allowed: 0,
            denied: Reason::ALL.iter().map(|reason| (*reason, 0)).collect(),
            checks: HistogramSnapshot::default(),
            batches: HistogramSnapshot::default(),
            near: 0,
            cached: 0,
            read: 0,
        }
    }
}

impl MetricsTotals {
    fn add(&mut self, measures: &CheckMetrics) {
        self.allowed += measures.allowed.read();
        for ((_, all), count) in self.denied.iter_mut().zip(&measures.denied) {
            *all += count.read();
        }
        measures.checks.add_to(&mut self.checks);
        measures.batches.add_to(&mut self.batches);
        self.near += measures.near.read();
        self.cached += measures.cached.read();
        self.read += measures.read.read();
    }
}

/// All desks, to be read from.
#[derive(Default)]
pub(super) struct CoreLocals(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    desks: Vec<Arc<CoreLocal>>,
    /// What was counted at those that nobody sits at any more: a count never goes back.
    left: MetricsTotals,
}

impl CoreLocals {
    /// Sets up a desk with this front, and clears those that were left.
    pub(super) fn register(&self, front: L1) -> Arc<CoreLocal> {
        let desk = Arc::new(CoreLocal { front, measures: CheckMetrics::default() });
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { desks, left } = &mut *kept;
        desks.retain_mut(|desk| match Arc::get_mut(desk) {
            Some(desk) => {
                left.add(&desk.measures);
                false
            }
            None => true,
        });
        desks.push(Arc::clone(&desk));
        desk
    }

    /// The sum of all.
    pub(super) fn sum(&self) -> MetricsTotals {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = kept.left.clone();
        for desk in &kept.desks {
            sum.add(&desk.measures);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_that_was_left_is_cleared_and_what_it_counted_stays() {
        let desks = CoreLocals::default();
        for _ in 0..3 {
            let desk = desks.register(L1::new(1));
            desk.measures.near.inc();
            desk.measures.decided(&Verdict::Denied {
                reason: Reason::ALL[0],
                fault: None,
                missing: Vec::new(),
            });
        }
        let last = desks.register(L1::new(1));
        last.measures.near.inc();
        assert_eq!(desks.0.lock().expect("whole").desks.len(), 1);
        let sum = desks.sum();
        assert_eq!((sum.near, sum.denied[0]), (4, (Reason::ALL[0], 3)));
    }
}
