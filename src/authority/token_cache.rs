//! Token cache: access tokens whose signature and claims were right.
//!
//! INVARIANT (a fact, never a verdict): an entry holds what a token says. It is found by the hash of the
//! whole text. Each decision compares the times, the audience, the company, the user and the scopes anew
//! (T21).
//!
//! INVARIANT (no token outlives its key): an entry is used only with the issuer entry and with a key of
//! the issuer's usable set, both as they are at the decision; see [`super::token_verifier`] (T22).
//!
//! Only tokens that were right are kept, so forged tokens displace nothing.
//!
//! Not here: the verification.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use jiff::Timestamp;
use moka::Expiry;
use moka::sync::Cache;

use crate::policy::token::VerifiedToken;

/// The most tokens that are kept unless the operator says otherwise.
pub const DEFAULT_TOKEN_CACHE_ENTRIES: u64 = 100_000;
/// The bytes of memory for each entry. An entry with fewer bytes counts as this many, so the number of
/// entries bounds their memory, too.
const ENTRY_BYTES: u64 = 1 << 10;
/// The most bytes of an entry.
const MAX_ENTRY_BYTES: usize = 4 << 10;
/// The share of the cache that the tokens of one credential may take: one of this many.
const SHARE_OF_CREDENTIAL: u64 = 8;
/// How often expired entries are removed for a credential whose share is full.
const CLEAN_INTERVAL: Duration = Duration::from_secs(1);

/// A verified token in the cache.
#[derive(Clone)]
struct CachedToken {
    token: Arc<VerifiedToken>,
    /// The time until it expires, from its insertion.
    remaining: Duration,
    /// A hash of its credential.
    credential: u64,
}

/// Removes entries when their tokens expire. Decisions do not depend on it: they compare the time.
struct AtExpiry;

impl Expiry<blake3::Hash, CachedToken> for AtExpiry {
    fn expire_after_create(
        &self,
        _: &blake3::Hash,
        cached: &CachedToken,
        _: Instant,
    ) -> Option<Duration> {
        Some(cached.remaining)
    }
}

/// The numbers of entries of each credential, by a hash of the credential.
type Counts = Arc<Mutex<HashMap<u64, u64>>>;

/// The access tokens that were verified.
pub struct TokenCache {
    entries: Cache<blake3::Hash, CachedToken>,
    counts: Counts,
    /// Has a random seed, so that no client can choose ids that share a count.
    hasher: RandomState,
    limit_of_credential: u64,
    started: Instant,
    /// When expired entries were last removed for a full share, in milliseconds from the start.
    cleaned_at: AtomicU64,
}

impl TokenCache {
    /// A cache of at most `entries` tokens and `entries` KiB.
    #[must_use]
    pub fn new(entries: u64) -> Self {
        let counts: Counts = Arc::default();
        let left = Arc::clone(&counts);
        let builder = Cache::builder()
            .max_capacity(entries.saturating_mul(ENTRY_BYTES))
            .weigher(|_, cached: &CachedToken| {
                u32::try_from(cached.token.bytes() as u64)
                    .unwrap_or(u32::MAX)
                    .max(ENTRY_BYTES as u32)
            })
            .expire_after(AtExpiry)
            .eviction_listener(move |_, cached: CachedToken, _| {
                let mut counts = left.lock().unwrap_or_else(PoisonError::into_inner);
                match counts.get_mut(&cached.credential) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => {
                        counts.remove(&cached.credential);
                    }
                }
            });
        Self {
            entries: builder.build(),
            counts,
            hasher: RandomState::default(),
            limit_of_credential: entries / SHARE_OF_CREDENTIAL,
            started: Instant::now(),
            cleaned_at: AtomicU64::new(0),
        }
    }

    /// The approximate number of entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token whose text has this hash.
    #[must_use]
    pub fn get(&self, text: &blake3::Hash) -> Option<Arc<VerifiedToken>> {
        self.entries.get(text).map(|cached| cached.token)
    }

    /// Keeps a token, unless it is too large, expired, or its credential's share is full.
    pub fn insert(&self, text: blake3::Hash, token: &Arc<VerifiedToken>, now: Timestamp) {
        let end = token.facts.expires_at.unwrap_or(now);
        let Ok(remaining) = Duration::try_from(end.duration_since(now)) else { return };
        if remaining.is_zero() || token.bytes() > MAX_ENTRY_BYTES {
            return;
        }
        let owner = (&token.issuer.name, &token.company, &token.credential);
        let credential = self.hasher.hash_one(owner);
        if !self.count(credential) && !(self.clean() && self.count(credential)) {
            return;
        }
        self.entries.insert(text, CachedToken { token: Arc::clone(token), remaining, credential });
    }

    /// Counts one more entry of a credential, if its share has room.
    fn count(&self, credential: u64) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(credential).or_default();
        let has_room = *count < self.limit_of_credential;
        if has_room {
            *count += 1;
        } else if *count == 0 {
            counts.remove(&credential);
        }
        has_room
    }

    /// Removes the expired entries, unless that was done a moment ago.
    fn clean(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.cleaned_at.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(last) >= CLEAN_INTERVAL.as_millis() as u64;
        let is_first = is_due
            && self
                .cleaned_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_first {
            self.entries.run_pending_tasks();
        }
        is_first
    }
}
