//! Caller limits: how much of the server one API key may take, so that the others still get
//! theirs: calls per second, calls in flight, memory.
//!
//! A call by which an operator takes rights away ([`access::takes_away`]) has allowances of its
//! own: whatever other keys do, it gets through.
//!
//! Not here: how many calls may be in flight at all; see [`super::service`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::memory_budget::{Account, MemoryBudget};
use crate::policy::caller::{Caller, Role};
use crate::policy::keyring::{ApiKey, MAX_KEYS};
use crate::policy::revision::Revision;
use crate::wire::access;

/// How many lists of one key are read at once.
const LISTS: usize = 2;
/// How many more may wait for that. One that waits does not read its request.
const LISTS_WAITING: usize = 256;

/// The limits, and what each key uses of them.
pub(crate) struct CallerLimits {
    calls_per_second: u32,
    memory: Arc<MemoryBudget>,
    /// By a key's creation revision, which no two keys share.
    usage: Mutex<HashMap<Revision, Usage>>,
}

/// What one key uses.
struct Usage {
    calls: TokenBucket,
    /// For the calls that take rights away.
    urgent: TokenBucket,
    memory: Arc<AtomicU64>,
    lists: Arc<Semaphore>,
    /// Those that are read and those that wait.
    all_lists: Arc<Semaphore>,
}

/// A turn to read a list, until it is dropped.
pub(crate) struct ListTurn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Usage {
    fn new(now: Instant, calls_per_second: f64) -> Self {
        let full = TokenBucket { tokens: calls_per_second, at: now };
        let lists = Arc::new(Semaphore::new(LISTS));
        let all_lists = Arc::new(Semaphore::new(LISTS + LISTS_WAITING));
        Self { calls: full, urgent: full, memory: Arc::default(), lists, all_lists }
    }

    /// Whether it says nothing that a new one does not say.
    fn is_unused(&self, now: Instant, most: f64) -> bool {
        let full = |bucket: &TokenBucket| bucket.tokens_at(now, most) >= most;
        let holds = self.memory.load(Ordering::Relaxed) > 0
            || Arc::strong_count(&self.memory) > 1
            || Arc::strong_count(&self.lists) > 1
            || Arc::strong_count(&self.all_lists) > 1;
        full(&self.calls) && full(&self.urgent) && !holds
    }
}

/// Whether an operator takes rights away by this call: it must get through.
pub(crate) fn is_urgent(caller: &Caller, path: &str) -> bool {
    access::takes_away(path) && caller.roles().has(Role::Operator)
}

impl CallerLimits {
    /// Limits of so many calls a second (and as many at once) and half of this memory for each
    /// key.
    pub(crate) fn new(calls_per_second: u32, memory: Arc<MemoryBudget>) -> Self {
        Self { calls_per_second, memory, usage: Mutex::default() }
    }

    /// Counts a call in the rate of its key.
    ///
    /// # Errors
    /// The key has made as many calls as it may; the limit, in calls a second.
    pub(crate) fn count(&self, key: &ApiKey, urgent: bool, now: Instant) -> Result<(), u32> {
        let most = f64::from(self.calls_per_second);
        let taken = self.with(key.created_at, now, |usage| {
            let bucket = if urgent { &mut usage.urgent } else { &mut usage.calls };
            bucket.take(now, most)
        });
        if taken { Ok(()) } else { Err(self.calls_per_second) }
    }

    /// The account in which memory is held for a caller of this key; none for a caller without
    /// a key.
    pub(crate) fn account(&self, key: Option<Revision>) -> Account {
        let Some(key) = key else { return self.memory.shared() };
        let own = self.with(key, Instant::now(), |usage| Arc::clone(&usage.memory));
        self.memory.account(own)
    }

    /// Waits for a turn to read a list, if this call does: each key has its own turns, so that one
    /// that lists all the time takes none from the others.
    ///
    /// # Errors
    /// As many lists of the key wait as may.
    pub(crate) async fn turn_to_list(
        &self,
        key: Option<Revision>,
        path: &str,
    ) -> Result<Option<ListTurn>, usize> {
        let Some(key) = key.filter(|_| access::is_list(path)) else { return Ok(None) };
        let of = |usage: &mut Usage| (Arc::clone(&usage.lists), Arc::clone(&usage.all_lists));
        let (turns, places) = self.with(key, Instant::now(), of);
        let place = places.try_acquire_owned().map_err(|_| LISTS + LISTS_WAITING)?;
        // The semaphore is never closed.
        let turn = turns.acquire_owned().await.map_err(|_| LISTS)?;
        Ok(Some(ListTurn { _turn: turn, _place: place }))
    }

    fn with<T>(&self, key: Revision, now: Instant, work: impl FnOnce(&mut Usage) -> T) -> T {
        let most = f64::from(self.calls_per_second);
        let mut all = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEYS * 2 {
            // Most of them are of keys that were deleted.
            all.retain(|_, usage| !usage.is_unused(now, most));
        }
        work(all.entry(key).or_insert_with(|| Usage::new(now, most)))
    }
}

/// A token bucket: it fills at a rate up to one second's worth, and a call takes one token.
#[derive(Clone, Copy)]
struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// Takes a token, if there is one.
    fn take(&mut self, now: Instant, per_second: f64) -> bool {
        let tokens = self.tokens_at(now, per_second);
        let enough = tokens >= 1.0;
        *self = Self { tokens: if enough { tokens - 1.0 } else { tokens }, at: now };
        enough
    }

    fn tokens_at(&self, now: Instant, per_second: f64) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        (self.tokens + passed.as_secs_f64() * per_second).min(per_second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::policy::caller::Roles;
    use crate::policy::id::Name;

    fn key(created_at: u64, role: Role) -> Arc<ApiKey> {
        Arc::new(ApiKey {
            id: Name::parse(created_at.to_string()).expect("an id"),
            name: Name::parse("someone").expect("a name"),
            roles: Roles::NONE.with(role),
            companies: vec![],
            certificate: None,
            hash: None,
            expires_at: None,
            created_at: Revision(created_at),
            create_time: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn each_key_has_its_own_calls_per_second() {
        let limits = CallerLimits::new(2, MemoryBudget::new(100));
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let count = |n, at| limits.count(&key(n, Role::CompanyAdmin), false, at).is_ok();
        assert!(count(1, start) && count(1, start) && !count(1, start));
        assert!(count(2, start), "another key's");
        assert!(!count(1, after(400)), "not yet");
        assert!(count(1, after(500)) && !count(1, after(500)), "half a second gives one");
        let late = after(60_000);
        assert!(count(1, late) && count(1, late) && !count(1, late), "no more are saved up");
        assert!(!count(1, start), "a clock that steps back gives none");
    }

    #[test]
    fn what_takes_rights_away_has_a_rate_of_its_own() {
        let (limits, now) = (CallerLimits::new(1, MemoryBudget::new(100)), Instant::now());
        let key = key(1, Role::Operator);
        let count = |urgent| limits.count(&key, urgent, now).is_ok();
        assert!(count(false) && !count(false));
        assert!(count(true) && !count(true));
    }

    #[test]
    fn only_an_operators_calls_that_take_away_are_urgent() {
        let delete = "/scopegate.v1.KeyService/DeleteKey";
        let grant = "/scopegate.v1.AuthorizationService/GrantScopes";
        let (operator, admin) = (key(1, Role::Operator), key(2, Role::CompanyAdmin));
        assert!(is_urgent(&Caller::Key(Arc::clone(&operator)), delete));
        assert!(!is_urgent(&Caller::Key(operator), grant));
        assert!(!is_urgent(&Caller::Key(admin), delete));
    }

    #[tokio::test]
    async fn a_key_that_lists_all_the_time_keeps_no_other_from_listing() {
        let limits = CallerLimits::new(1, MemoryBudget::new(100));
        let list = "/scopegate.v1.DirectoryService/ListCredentials";
        let turn = async |key| {
            let turn = limits.turn_to_list(Some(Revision(key)), list);
            tokio::time::timeout(Duration::ZERO, turn)
                .await
                .ok()
                .and_then(|turn| turn.ok().flatten())
        };
        let mut held = Vec::new();
        for _ in 0..LISTS {
            held.push(turn(1).await.expect("a turn"));
        }
        assert!(turn(1).await.is_none(), "it waits");
        assert!(turn(2).await.is_some(), "another key does not");
        held.pop();
        held.push(turn(1).await.expect("a turn"));
        let none = limits.turn_to_list(None, list).await.expect("not refused");
        assert!(none.is_none(), "without a key there is no turn");
        let check = "/scopegate.v1.AuthorizationService/Check";
        assert!(limits.turn_to_list(Some(Revision(1)), check).await.expect("it is").is_none());
        // Those that wait are not without number.
        let mut waiting: Vec<_> = (0..LISTS_WAITING)
            .map(|_| Box::pin(limits.turn_to_list(Some(Revision(1)), list)))
            .collect();
        for one in &mut waiting {
            assert!(tokio::time::timeout(Duration::ZERO, one).await.is_err(), "it waits");
        }
        assert!(limits.turn_to_list(Some(Revision(1)), list).await.is_err());
        assert!(turn(2).await.is_some());
        drop((held, waiting));
        assert!(turn(1).await.is_some());
    }

    #[test]
    fn each_key_holds_at_most_half_of_the_memory_and_what_it_holds_is_not_forgotten() {
        let limits = CallerLimits::new(1, MemoryBudget::new(100));
        let held = limits.account(Some(Revision(1))).reserve(50).expect("room");
        // More keys than there can be at once.
        for other in 2..10_000 {
            limits.account(Some(Revision(other)));
        }
        assert!(limits.account(Some(Revision(1))).reserve(1).is_err());
        drop(held);
        assert!(limits.account(Some(Revision(1))).reserve(1).is_ok());
        let entries = limits.usage.lock().expect("kept").len();
        assert!(entries <= MAX_KEYS * 2, "{entries}");
    }
}
