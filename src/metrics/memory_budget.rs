//! Memory: the bytes that the process holds on behalf of its callers (requests that are being
//! read, replies and changes that are still to be sent), counted in one place and bounded.
//!
//! A caller that would take the process above the limit gets an error: the process never runs out
//! of memory for it. A caller that has an account holds at most half of all.
//!
//! Not here: the caches, which have bounds of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Counter;

/// How much memory callers may hold together.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    held: AtomicU64,
    refused: Counter,
}

/// What was asked for would take the process, or one caller, above a limit. It says which limit,
/// in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// That of all callers together.
    All(u64),
    /// That of one caller.
    Account(u64),
}

/// On whose behalf memory is held.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<MemoryBudget>,
    /// What this caller holds; none for a caller without a share of its own.
    own: Option<Arc<AtomicU64>>,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Account,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0), refused: Counter::default() })
    }

    /// The most bytes that are held at once.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How often a caller asked for more than there was.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.read()
    }

    /// For callers without a share of their own: probes, and those of a server without keys.
    #[must_use]
    pub fn shared(self: &Arc<Self>) -> Account {
        Account { budget: Arc::clone(self), own: None }
    }

    /// For one caller, whose reservations are summed in `own`: at most half of all.
    #[must_use]
    pub fn account(self: &Arc<Self>, own: Arc<AtomicU64>) -> Account {
        Account { budget: Arc::clone(self), own: Some(own) }
    }
}

impl Account {
    /// Nothing yet, to grow.
    #[must_use]
    pub fn empty(&self) -> Reservation {
        Reservation { account: self.clone(), bytes: 0 }
    }

    /// Holds so many bytes.
    ///
    /// # Errors
    /// There is no room for them. Nothing is held.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Exhausted> {
        let mut reservation = self.empty();
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl Reservation {
    /// Holds so many bytes more.
    ///
    /// # Errors
    /// There is no room for them. What was held before is still held.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let Account { budget, own } = &self.account;
        if let Some(own) = own
            && !add(own, bytes, budget.limit / 2)
        {
            budget.refused.inc();
            return Err(Exhausted::Account(budget.limit / 2));
        }
        if !add(&budget.held, bytes, budget.limit) {
            if let Some(own) = own {
                own.fetch_sub(bytes, Ordering::Relaxed);
            }
            budget.refused.inc();
            return Err(Exhausted::All(budget.limit));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Holds so many bytes more, also above the limits: what others ask for is refused until there
    /// is room again.
    pub fn grow_anyway(&mut self, bytes: u64) {
        self.account.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if let Some(own) = &self.account.own {
            own.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes += bytes;
    }

    /// Holds so many bytes from now on.
    ///
    /// # Errors
    /// There is no room for so many. What was held before is still held.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Exhausted> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.release(self.bytes - bytes);
                Ok(())
            }
        }
    }

    fn release(&mut self, bytes: u64) {
        self.account.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(own) = &self.account.own {
            own.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.bytes -= bytes;
    }

    /// How many bytes are held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

/// Adds, unless the sum would be above the limit.
fn add(sum: &AtomicU64, bytes: u64, limit: u64) -> bool {
    let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= limit);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_the_limit_and_what_is_dropped_is_free_again() {
        let budget = MemoryBudget::new(100);
        let all = budget.shared();
        let first = all.reserve(60).expect("room");
        let mut second = all.reserve(30).expect("room");
        assert_eq!(all.reserve(11).map(drop), Err(Exhausted::All(100)));
        assert_eq!(second.grow(11), Err(Exhausted::All(100)));
        assert_eq!(second.grow(10), Ok(()));
        assert_eq!((budget.held(), budget.refused()), (100, 2));
        drop(first);
        assert_eq!((budget.held(), second.bytes()), (40, 40));
        assert_eq!((second.resize(5), budget.held()), (Ok(()), 5));
        assert_eq!(second.resize(101), Err(Exhausted::All(100)));
        assert_eq!((second.resize(70), budget.held()), (Ok(()), 70));
        second.grow_anyway(50);
        assert_eq!((budget.held(), all.reserve(1).map(drop)), (120, Err(Exhausted::All(100))));
        drop(second);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn one_caller_holds_at_most_half() {
        let budget = MemoryBudget::new(100);
        let own = Arc::new(AtomicU64::new(0));
        let one = budget.account(Arc::clone(&own));
        let held = one.reserve(50).expect("room");
        assert_eq!(one.reserve(1).map(drop), Err(Exhausted::Account(50)));
        let others = budget.shared().reserve(50).expect("room");
        drop(held);
        let again = one.reserve(10).expect("room");
        assert_eq!(one.reserve(50).map(drop), Err(Exhausted::Account(50)), "nothing leaks");
        drop((others, again));
        assert_eq!((budget.held(), own.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_all_have_no_room_for_is_not_held_by_one() {
        let budget = MemoryBudget::new(100);
        let own = Arc::new(AtomicU64::new(0));
        let _others = budget.shared().reserve(80).expect("room");
        let one = budget.account(Arc::clone(&own));
        assert_eq!(one.reserve(30).map(drop), Err(Exhausted::All(100)));
        assert_eq!(own.load(Ordering::Relaxed), 0);
    }
}
