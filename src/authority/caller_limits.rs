//! Caller limits: bounds how much of the server one API key may use: calls a second, lists and memory.
//!
//! An urgent call, by which an operator removes access ([`Operation::is_urgent`]), has separate limits,
//! so that other calls never block it. An API client that revokes its own tokens has a third limit, because
//! each revocation is a change, and it can get tokens to revoke without end.
//!
//! Not here: how many calls may be in flight; see [`super::admission`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::operation::Operation;
use crate::metrics::Counted;
use crate::metrics::memory_budget::{Account, MemoryBudget};
use crate::policy::keyring::MAX_KEYS;
use crate::policy::revision::Revision;

/// How many lists of one key are read at once.
const MAX_LISTS: usize = 2;
/// How many more lists of one key may wait. A waiting call has read its request.
const MAX_WAITING_LISTS: usize = 256;

/// How many tokens a second one API client may revoke, and how many at once.
const REVOCATIONS: Rate = Rate { per_second: 1.0, burst: 60.0 };

/// The limits, and the usage of each key.
pub struct CallerLimits {
    calls_per_second: u32,
    memory: Arc<MemoryBudget>,
    /// By the creation revision of a key or of a credential, which no two of them share.
    usage: Mutex<HashMap<Revision, KeyUsage>>,
}

/// The usage of one key.
struct KeyUsage {
    calls: TokenBucket,
    /// For urgent calls.
    urgent: TokenBucket,
    /// For the revocation of tokens by their client.
    revocations: TokenBucket,
    memory: Arc<AtomicU64>,
    lists: Arc<Semaphore>,
    /// The lists that are read and those that wait.
    all_lists: Arc<Semaphore>,
}

/// The permit to read a list. It is free again when this is dropped.
pub struct ListPermit {
    _running: OwnedSemaphorePermit,
    _queued: OwnedSemaphorePermit,
}

impl KeyUsage {
    fn new(now: Instant, rate: Rate) -> Self {
        let full = TokenBucket::full(rate, now);
        let lists = Arc::new(Semaphore::new(MAX_LISTS));
        let all_lists = Arc::new(Semaphore::new(MAX_LISTS + MAX_WAITING_LISTS));
        let revocations = TokenBucket::full(REVOCATIONS, now);
        Self { calls: full, urgent: full, revocations, memory: Arc::default(), lists, all_lists }
    }

    /// Whether the usage equals that of a new key, so that it can be dropped.
    fn is_unused(&self, now: Instant, rate: Rate) -> bool {
        let full = |bucket: &TokenBucket, rate: Rate| bucket.tokens_at(now, rate) >= rate.burst;
        let is_held = self.memory.load(Ordering::Relaxed) > 0
            || Arc::strong_count(&self.memory) > 1
            || Arc::strong_count(&self.lists) > 1
            || Arc::strong_count(&self.all_lists) > 1;
        let is_full = full(&self.calls, rate) && full(&self.urgent, rate);
        is_full && full(&self.revocations, REVOCATIONS) && !is_held
    }
}

impl CallerLimits {
    /// Limits each key to this many calls a second, with a burst of the same size, and to half of this
    /// memory.
    #[must_use]
    pub fn new(calls_per_second: u32, memory: Arc<MemoryBudget>) -> Self {
        Self { calls_per_second, memory, usage: Mutex::default() }
    }

    /// Counts a call in the rate of a key, or of a credential, by its creation revision.
    ///
    /// # Errors
    /// The rate is exceeded. The error is the limit, in calls a second.
    pub fn count(&self, key: Revision, urgent: bool, now: Instant) -> Result<(), u32> {
        let rate = self.rate();
        let taken = self.with(key, now, |usage| {
            let bucket = if urgent { &mut usage.urgent } else { &mut usage.calls };
            bucket.take(now, rate)
        });
        if taken { Ok(()) } else { Err(self.calls_per_second) }
    }

    /// Counts a token that the client of this credential revokes. False: it revokes too many.
    #[must_use]
    pub fn count_revocation(&self, credential: Revision, now: Instant) -> bool {
        self.with(credential, now, |usage| usage.revocations.take(now, REVOCATIONS))
    }

    /// Takes back what [`Self::count_revocation`] counted, because nothing was committed.
    pub fn uncount_revocation(&self, credential: Revision, now: Instant) {
        self.with(credential, now, |usage| usage.revocations.give_back(now, REVOCATIONS));
    }

    /// The rate of calls.
    fn rate(&self) -> Rate {
        let calls = f64::from(self.calls_per_second);
        Rate { per_second: calls, burst: calls }
    }

    /// The memory account of this key. Callers without a key share one account.
    #[must_use]
    pub fn account(&self, key: Option<Revision>) -> Account {
        let Some(key) = key else { return self.memory.shared() };
        let own = self.with(key, Instant::now(), |usage| Arc::clone(&usage.memory));
        self.memory.account(own)
    }

    /// Waits for the permit to read a list, if this call reads one. Each key has its own permits, so
    /// that a key that always lists delays no other.
    ///
    /// # Errors
    /// Too many lists of the key wait. The error is the limit.
    pub async fn acquire_list(
        &self,
        key: Option<Revision>,
        operation: &Operation,
    ) -> Result<Option<ListPermit>, usize> {
        let Some(key) = key.filter(|_| operation.reads_page) else { return Ok(None) };
        let of = |usage: &mut KeyUsage| (Arc::clone(&usage.lists), Arc::clone(&usage.all_lists));
        let (running, queued) = self.with(key, Instant::now(), of);
        let queued = queued.try_acquire_owned().map_err(|_| MAX_LISTS + MAX_WAITING_LISTS)?;
        // The semaphore is never closed.
        let running = running.acquire_owned().await.map_err(|_| MAX_LISTS)?;
        Ok(Some(ListPermit { _running: running, _queued: queued }))
    }

    fn with<T>(&self, key: Revision, now: Instant, work: impl FnOnce(&mut KeyUsage) -> T) -> T {
        let rate = self.rate();
        let mut all = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEYS * 2 {
            // Most entries are of deleted keys.
            all.retain(|_, usage| !usage.is_unused(now, rate));
        }
        work(all.entry(key).or_insert_with(|| KeyUsage::new(now, rate)))
    }
}

/// The calls in flight of each key on one worker.
#[derive(Default)]
pub struct CallsByKey(
    /// By a key's creation revision.
    Mutex<HashMap<Revision, Arc<AtomicUsize>, foldhash::fast::RandomState>>,
);

impl CallsByKey {
    /// Counts a call of this key as in flight until the returned value is dropped. Also returns the
    /// number of such calls with it.
    pub(super) fn acquire(&self, key: Revision) -> (Counted, usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEYS * 2 {
            // Most of them are of keys that were deleted.
            all.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Counted::one_more(all.entry(key).or_default())
    }
}

/// How many calls a second there may be, and how many at once.
#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// A token bucket. It holds the tokens of one burst at most. A call takes one token.
#[derive(Clone, Copy)]
struct TokenBucket {
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, updated: now }
    }

    /// Takes a token if there is one.
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let tokens = self.tokens_at(now, rate);
        let has_token = tokens >= 1.0;
        *self = Self { tokens: if has_token { tokens - 1.0 } else { tokens }, updated: now };
        has_token
    }

    /// Gives a token back that was not used.
    fn give_back(&mut self, now: Instant, rate: Rate) {
        let tokens = (self.tokens_at(now, rate) + 1.0).min(rate.burst);
        *self = Self { tokens, updated: now };
    }

    fn tokens_at(&self, now: Instant, rate: Rate) -> f64 {
        let passed = now.saturating_duration_since(self.updated);
        (self.tokens + passed.as_secs_f64() * rate.per_second).min(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::operation::Effect;
    use crate::policy::role::Roles;

    #[test]
    fn each_key_has_its_own_rate() {
        let limits = CallerLimits::new(2, MemoryBudget::new(100));
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let count = |n, at| limits.count(Revision(n), false, at).is_ok();
        assert!(count(1, start) && count(1, start) && !count(1, start));
        assert!(count(2, start), "another key's");
        assert!(!count(1, after(400)), "not yet");
        assert!(count(1, after(500)) && !count(1, after(500)), "half a second gives one");
        let late = after(60_000);
        assert!(count(1, late) && count(1, late) && !count(1, late), "no more are saved up");
        assert!(!count(1, start), "a clock that steps back gives none");
    }

    #[test]
    fn urgent_calls_have_a_separate_rate() {
        let (limits, now) = (CallerLimits::new(1, MemoryBudget::new(100)), Instant::now());
        let count = |urgent| limits.count(Revision(1), urgent, now).is_ok();
        assert!(count(false) && !count(false));
        assert!(count(true) && !count(true));
    }

    #[test]
    fn t37_a_client_revokes_one_token_a_second_and_no_more_than_sixty_at_once() {
        let (limits, start) = (CallerLimits::new(1_000, MemoryBudget::new(100)), Instant::now());
        let count = |n, at| limits.count_revocation(Revision(n), at);
        assert!((0..60).all(|_| count(1, start)) && !count(1, start));
        assert!(count(2, start), "another client's");
        let next = start + Duration::from_secs(1);
        assert!(count(1, next) && !count(1, next));
        assert!(limits.count(Revision(1), false, start).is_ok(), "other requests go on");
    }

    fn operation(reads_page: bool) -> Operation {
        Operation {
            path: "/list",
            index: 0,
            roles: Roles::ALL,
            effect: Effect::Read,
            reads_page,
            is_stream: false,
            is_rated: true,
            is_logged: true,
        }
    }

    #[tokio::test]
    async fn key_that_always_lists_delays_no_other_key() {
        let limits = CallerLimits::new(1, MemoryBudget::new(100));
        let (list, check) = (&operation(true), &operation(false));
        let turn = async |key| {
            let turn = limits.acquire_list(Some(Revision(key)), list);
            tokio::time::timeout(Duration::ZERO, turn)
                .await
                .ok()
                .and_then(|turn| turn.ok().flatten())
        };
        let mut held = Vec::new();
        for _ in 0..MAX_LISTS {
            held.push(turn(1).await.expect("a turn"));
        }
        assert!(turn(1).await.is_none(), "it waits");
        assert!(turn(2).await.is_some(), "another key does not");
        held.pop();
        held.push(turn(1).await.expect("a turn"));
        let none = limits.acquire_list(None, list).await.expect("not refused");
        assert!(none.is_none(), "without a key there is no turn");
        assert!(limits.acquire_list(Some(Revision(1)), check).await.expect("it is").is_none());
        // The number of waiting calls is bounded.
        let mut waiting: Vec<_> = (0..MAX_WAITING_LISTS)
            .map(|_| Box::pin(limits.acquire_list(Some(Revision(1)), list)))
            .collect();
        for one in &mut waiting {
            assert!(tokio::time::timeout(Duration::ZERO, one).await.is_err(), "it waits");
        }
        assert!(limits.acquire_list(Some(Revision(1)), list).await.is_err());
        assert!(turn(2).await.is_some());
        drop((held, waiting));
        assert!(turn(1).await.is_some());
    }

    #[test]
    fn each_key_holds_half_of_the_memory_at_most() {
        let limits = CallerLimits::new(1, MemoryBudget::new(100));
        let held = limits.account(Some(Revision(1))).reserve(50).expect("room");
        // More keys than can exist at once.
        for other in 2..10_000 {
            drop(limits.account(Some(Revision(other))));
        }
        assert!(limits.account(Some(Revision(1))).reserve(1).is_err());
        drop(held);
        assert!(limits.account(Some(Revision(1))).reserve(1).is_ok());
        let entries = limits.usage.lock().expect("kept").len();
        assert!(entries <= MAX_KEYS * 2, "{entries}");
    }
}
