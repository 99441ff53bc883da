//! Token cache: access tokens whose signature and claims were right.
//!
//! INVARIANT (a fact, never a verdict): an entry holds what a token says. It is found by the hash of the
//! whole text. Each decision compares the times, the audience, the company, the user and the scopes anew
//! (T21).
//!
//! INVARIANT (no token outlives its key): an entry is used only with the issuer entry and with a key of
//! the issuer's usable set, both as they are at the decision; see `token_verifier` (T22).
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

    /// The token whose text has this hash, if it is in force: see [`VerifiedToken::is_in_force`].
    #[must_use]
    pub fn get(
        &self,
        text: &blake3::Hash,
        is_in_force: impl FnOnce(&VerifiedToken) -> bool,
    ) -> Option<Arc<VerifiedToken>> {
        let cached = self.entries.get(text)?;
        is_in_force(&cached.token).then_some(cached.token)
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
        let has_room = self.count(credential) || (self.clean() && self.count(credential));
        if !has_room {
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

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use jiff::SignedDuration;

    use super::*;
    use crate::policy::catalog::Catalog;
    use crate::policy::id::{CompanyId, CredentialId};
    use crate::policy::scope::Scope;
    use crate::policy::token::Token;
    use crate::policy::token::key_set::Thumbprint;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    pub(in super::super) fn token(
        credential: &str,
        lives: i64,
        scopes: usize,
    ) -> Arc<VerifiedToken> {
        let yaml = "
scopes: { a: }
issuers:
  https://id.example.org/:
    algorithms: [ES256]
    audiences: [api]
    company: { is: acme }
    jwks_file: keys.json
";
        let catalog = Catalog::empty().replaced_by(yaml).expect("a catalog");
        let issuer = catalog.issuer("https://id.example.org/").expect("an issuer");
        let scope = |n| Scope::parse(format!("scope:{n}")).expect("a scope");
        Arc::new(VerifiedToken {
            issuer: Arc::clone(issuer),
            key: Thumbprint([0; 32]),
            id: None,
            company: CompanyId::parse("acme").ok(),
            credential: CredentialId::parse(credential).ok(),
            client_subject: None,
            facts: Token {
                expires_at: NOW.checked_add(SignedDuration::from_millis(lives)).ok(),
                scopes: (0..scopes).map(scope).collect(),
                ..Token::default()
            },
            own: None,
        })
    }

    fn text(n: usize) -> blake3::Hash {
        blake3::hash(&n.to_le_bytes())
    }

    fn has(cache: &TokenCache, n: usize) -> bool {
        cache.get(&text(n), |_| true).is_some()
    }

    fn count(cache: &TokenCache) -> u64 {
        cache.entries.run_pending_tasks();
        cache.len()
    }

    #[test]
    fn tokens_of_one_credential_take_an_eighth_at_most() {
        let cache = TokenCache::new(80);
        for n in 0..40 {
            cache.insert(text(n), &token("hr", 60_000, 1), NOW);
        }
        assert_eq!(count(&cache), 10);
        cache.insert(text(100), &token("bi", 60_000, 1), NOW);
        assert!(has(&cache, 100), "another credential has its own share");
        // What leaves makes room.
        cache.entries.invalidate(&text(0));
        cache.entries.run_pending_tasks();
        cache.insert(text(50), &token("hr", 60_000, 1), NOW);
        assert!(has(&cache, 50));
        // A token that is replaced counts once.
        for _ in 0..20 {
            cache.insert(text(100), &token("bi", 60_000, 1), NOW);
        }
        cache.entries.run_pending_tasks();
        assert!(cache.counts.lock().expect("counts").values().all(|count| *count <= 10));
        cache.entries.invalidate_all();
        cache.entries.run_pending_tasks();
        assert!(cache.counts.lock().expect("counts").is_empty(), "no credential is kept");
    }

    #[test]
    fn expired_tokens_leave_the_cache() {
        let cache = TokenCache::new(8);
        cache.insert(text(0), &token("hr", 0, 1), NOW);
        assert_eq!(count(&cache), 0, "it is over");
        cache.insert(text(1), &token("hr", 1, 1), NOW);
        while count(&cache) > 0 {
            thread::yield_now();
        }
        assert!(!has(&cache, 1));
        cache.insert(text(2), &token("hr", 60_000, 1), NOW);
        assert!(has(&cache, 2), "its credential's share is free again");
    }

    #[test]
    fn memory_and_number_are_limited() {
        let cache = TokenCache::new(100);
        for n in 0..400 {
            cache.insert(text(n), &token(&format!("c{n}"), 60_000, 20), NOW);
        }
        assert!(count(&cache) <= 100);
        assert!(cache.entries.weighted_size() <= 100 << 10);
        let large = token("large", 60_000, 200);
        assert!(large.bytes() > MAX_ENTRY_BYTES);
        let cache = TokenCache::new(100);
        cache.insert(text(0), &large, NOW);
        assert!(!has(&cache, 0));
        let none = TokenCache::new(0);
        none.insert(text(0), &token("hr", 60_000, 1), NOW);
        assert!(!has(&none, 0));
    }
}
