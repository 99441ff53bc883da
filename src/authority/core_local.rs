//! Desk: what one core has for itself: the facts that it was just asked for, and its own counts,
//! so that no two cores write to one place.

use std::sync::{Arc, Mutex, PoisonError};

use super::l1_cache;
use crate::metrics::{Count, Times, TimesRead};
use crate::policy::decision::Verdict;
use crate::policy::reason::Reason;
use crate::store::{Fact, FactKey};

/// What one core was just asked for.
pub(super) type Front = l1_cache::Front<FactKey, Fact>;

/// One core's desk.
pub(super) struct Desk {
    pub(super) front: Front,
    pub(super) measures: Measures,
}

/// What is counted at a desk.
#[derive(Debug, Default)]
pub struct Measures {
    allowed: Count,
    /// By reason, in the order of [`Reason::ALL`].
    denied: [Count; Reason::ALL.len()],
    /// How long checks took, from the message to the answer.
    pub checks: Times,
    /// How long batches took.
    pub batches: Times,
    /// Facts that were on the desk.
    pub(super) near: Count,
    /// Facts that were in the cache of all.
    pub(super) cached: Count,
    /// Facts that had to be read from the store.
    pub(super) read: Count,
}

impl Measures {
    pub(super) fn decided(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Allowed { .. } => self.allowed.one(),
            Verdict::Denied { reason, .. } => {
                if let Some(count) = self.denied.get(*reason as usize) {
                    count.one();
                }
            }
        }
    }
}

/// The sum of all desks.
#[derive(Clone, Debug)]
pub struct Sum {
    /// Checks that were allowed, those of batches included.
    pub allowed: u64,
    /// Checks that were denied, by reason.
    pub denied: Vec<(Reason, u64)>,
    /// How long checks took.
    pub checks: TimesRead,
    /// How long batches took.
    pub batches: TimesRead,
    /// Facts that were on a desk.
    pub near: u64,
    /// Facts that were in the cache of all.
    pub cached: u64,
    /// Facts that had to be read from the store.
    pub read: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            allowed: 0,
            denied: Reason::ALL.iter().map(|reason| (*reason, 0)).collect(),
            checks: TimesRead::default(),
            batches: TimesRead::default(),
            near: 0,
            cached: 0,
            read: 0,
        }
    }
}

impl Sum {
    fn add(&mut self, measures: &Measures) {
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
pub(super) struct Desks(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    desks: Vec<Arc<Desk>>,
    /// What was counted at those that nobody sits at any more: a count never goes back.
    left: Sum,
}

impl Desks {
    /// Sets up a desk with this front, and clears those that were left.
    pub(super) fn set_up(&self, front: Front) -> Arc<Desk> {
        let desk = Arc::new(Desk { front, measures: Measures::default() });
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
    pub(super) fn sum(&self) -> Sum {
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
        let desks = Desks::default();
        for _ in 0..3 {
            let desk = desks.set_up(Front::new(1));
            desk.measures.near.one();
            desk.measures.decided(&Verdict::Denied {
                reason: Reason::ALL[0],
                fault: None,
                missing: Vec::new(),
            });
        }
        let last = desks.set_up(Front::new(1));
        last.measures.near.one();
        assert_eq!(desks.0.lock().expect("whole").desks.len(), 1);
        let sum = desks.sum();
        assert_eq!((sum.near, sum.denied[0]), (4, (Reason::ALL[0], 3)));
    }
}
