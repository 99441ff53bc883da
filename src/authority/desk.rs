//! Desk: what one core has for itself: the facts that it was just asked for, and its own counts,
//! so that no two cores write to one place.

use std::sync::{Arc, Mutex, PoisonError};

use super::facts::Front;
use crate::measure::{Count, Times, TimesRead};
use crate::policy::decision::Verdict;
use crate::policy::reason::Reason;

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
#[derive(Clone, Debug, Default)]
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

/// All desks, to be read from. Those that are gone are kept: a count never goes back.
#[derive(Default)]
pub(super) struct Desks(Mutex<Vec<Arc<Desk>>>);

impl Desks {
    /// Sets up a desk with this front.
    pub(super) fn set_up(&self, front: Front) -> Arc<Desk> {
        let desk = Arc::new(Desk { front, measures: Measures::default() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&desk));
        desk
    }

    /// The sum of all.
    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        sum.denied.extend(Reason::ALL.iter().map(|reason| (*reason, 0)));
        for desk in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let measures = &desk.measures;
            sum.allowed += measures.allowed.read();
            for ((_, all), count) in sum.denied.iter_mut().zip(&measures.denied) {
                *all += count.read();
            }
            measures.checks.add_to(&mut sum.checks);
            measures.batches.add_to(&mut sum.batches);
            sum.near += measures.near.read();
            sum.cached += measures.cached.read();
            sum.read += measures.read.read();
        }
        sum
    }
}
