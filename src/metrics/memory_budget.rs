//! Memory budget: bounds the bytes that the process holds on behalf of its callers: requests that are
//! being read, and replies and changes that are not sent yet.
//!
//! A request that would exceed the limit gets an error, so the process does not run out of memory for
//! it. A caller with an account holds at most the limit of the account.
//!
//! Not here: the caches, which have their own limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Counter;

/// The memory that all callers may hold together.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    held: AtomicU64,
    refused: Counter,
}

/// The request would exceed the limit of the process or of one caller. The value is that limit, in
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The limit of all callers together.
    All(u64),
    /// The limit of one caller.
    Account(u64),
}

/// The caller on whose behalf memory is held.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<MemoryBudget>,
    /// None for a caller without an own limit.
    own: Option<OwnLimit>,
}

/// The limit of one account.
#[derive(Clone, Debug)]
struct OwnLimit {
    held: Arc<AtomicU64>,
    limit: u64,
}

/// Bytes that are held until the reservation is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Account,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0), refused: Counter::default() })
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes that are held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How many reservations were rejected.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.read()
    }

    /// The account of callers without an own limit: probes, and callers of a server without keys.
    #[must_use]
    pub fn shared(self: &Arc<Self>) -> Account {
        Account { budget: Arc::clone(self), own: None }
    }

    /// The account of one caller, whose bytes are summed in `held`: at most half of the budget.
    #[must_use]
    pub fn account(self: &Arc<Self>, held: Arc<AtomicU64>) -> Account {
        Account { budget: Arc::clone(self), own: Some(OwnLimit { held, limit: self.limit / 2 }) }
    }

    /// A new account of all API clients together, which have proven nothing yet: at most a quarter of the
    /// budget (T37).
    #[must_use]
    pub fn unproven(self: &Arc<Self>) -> Account {
        let own = OwnLimit { held: Arc::default(), limit: self.limit / 4 };
        Account { budget: Arc::clone(self), own: Some(own) }
    }
}

impl Account {
    /// An empty reservation.
    #[must_use]
    pub fn empty(&self) -> Reservation {
        Reservation { account: self.clone(), bytes: 0 }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// A limit would be exceeded. Nothing is reserved.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Exhausted> {
        let mut reservation = self.empty();
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl Reservation {
    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// A limit would be exceeded. The reservation stays as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let Account { budget, own } = &self.account;
        if let Some(own) = own
            && !add(&own.held, bytes, own.limit)
        {
            budget.refused.inc();
            return Err(Exhausted::Account(own.limit));
        }
        if !add(&budget.held, bytes, budget.limit) {
            if let Some(own) = own {
                own.held.fetch_sub(bytes, Ordering::Relaxed);
            }
            budget.refused.inc();
            return Err(Exhausted::All(budget.limit));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Reserves `bytes` more, also above the limits. Other reservations are rejected until the sum is
    /// below the limit again.
    pub fn grow_anyway(&mut self, bytes: u64) {
        self.account.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if let Some(own) = &self.account.own {
            own.held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes += bytes;
    }

    /// Changes the reservation to `bytes`.
    ///
    /// # Errors
    /// A limit would be exceeded. The reservation stays as it was.
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
            own.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.bytes -= bytes;
    }

    /// The reserved bytes.
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

/// Adds, unless the sum would exceed the limit.
fn add(sum: &AtomicU64, bytes: u64, limit: u64) -> bool {
    let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= limit);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_the_limit_and_dropped_ones_are_free_again() {
        let budget = MemoryBudget::new(100);
        let all = budget.shared();
        let first = all.reserve(60).expect("within the limit");
        let mut second = all.reserve(30).expect("within the limit");
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
        let held = one.reserve(50).expect("within the limit");
        assert_eq!(one.reserve(1).map(drop), Err(Exhausted::Account(50)));
        let others = budget.shared().reserve(50).expect("within the limit");
        drop(held);
        let again = one.reserve(10).expect("within the limit");
        assert_eq!(one.reserve(50).map(drop), Err(Exhausted::Account(50)), "nothing leaks");
        drop((others, again));
        assert_eq!((budget.held(), own.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn unproven_clients_hold_at_most_a_quarter() {
        let budget = MemoryBudget::new(100);
        let clients = budget.unproven();
        let held = clients.reserve(25).expect("within the limit");
        assert_eq!(clients.reserve(1).map(drop), Err(Exhausted::Account(25)));
        let others = budget.shared().reserve(75).expect("within the limit");
        drop((held, others));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn rejected_reservation_does_not_count_for_its_caller() {
        let budget = MemoryBudget::new(100);
        let own = Arc::new(AtomicU64::new(0));
        let _others = budget.shared().reserve(80).expect("within the limit");
        let one = budget.account(Arc::clone(&own));
        assert_eq!(one.reserve(30).map(drop), Err(Exhausted::All(100)));
        assert_eq!(own.load(Ordering::Relaxed), 0);
    }
}
