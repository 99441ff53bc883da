//! Waiters: the calls of one core that wait for keys, and their limits (T19).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many calls of a core may wait.
const MAX_WAITING: usize = 256;
/// How many calls of a core may wait for the keys of one issuer.
const MAX_WAITING_OF_ISSUER: usize = 32;

/// The waiting calls of one core, by the name of the issuer.
#[derive(Debug, Default)]
pub struct Waiters(Mutex<BTreeMap<Box<str>, usize>>);

impl Waiters {
    /// A place to wait for the keys of an issuer, until it is dropped. None: too many calls wait.
    pub(super) fn enter(&self, issuer: &str) -> Option<Place<'_>> {
        let mut waiting = self.lock();
        let own = waiting.get(issuer).copied().unwrap_or(0);
        if own >= MAX_WAITING_OF_ISSUER || waiting.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        waiting.insert(issuer.into(), own + 1);
        Some(Place { waiters: self, issuer: issuer.into() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a waiting call.
pub(super) struct Place<'a> {
    waiters: &'a Waiters,
    issuer: Box<str>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        match waiting.get_mut(&self.issuer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                waiting.remove(&self.issuer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_calls_are_limited_for_each_issuer_and_in_all() {
        let waiters = Waiters::default();
        let mut places: Vec<_> = (0..32).map(|_| waiters.enter("a").expect("a place")).collect();
        assert!(waiters.enter("a").is_none(), "32 of one issuer");
        for n in 0..224 {
            places.push(waiters.enter(&format!("b{}", n / 32)).expect("a place"));
        }
        assert!(waiters.enter("c").is_none(), "256 in all");
        places.remove(0);
        let place = waiters.enter("a").expect("a place was left");
        drop((place, places));
        assert!(waiters.lock().is_empty(), "no issuer is kept");
    }
}
