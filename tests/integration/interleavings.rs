//! Interleavings: the cache protocol under the interleavings that shuttle explores. The test compiles
//! the same file that the server runs, with locks and atomics of the test scheduler.
//!
//! A writer changes a store of two facts: it applies, replaces and publishes as the storage engine
//! does. Readers read both facts meanwhile, and another thread evicts entries. No single revision has
//! both facts open. The test fails if a reader sees both open, or a revision older than the one that
//! was published before it began.
use std::collections::HashMap;
use std::sync::LazyLock;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::thread;

#[allow(dead_code, unused_imports, reason = "a file of the server")]
#[path = "../../src/authority/coherence.rs"]
mod coherence;

/// The module that `coherence` imports as `super::sync`.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no thread panicked")
    }
}

use coherence::{CacheCoherence, CoherentMap, Entry};
use jiff::Timestamp;
use scopegate::authority::token_cache::TokenCache;
use scopegate::policy::catalog::Catalog;
use scopegate::policy::catalog::issuer::Issuer;
use scopegate::policy::revision::Revision;
use scopegate::policy::token::key_set::KeySet;
use scopegate::policy::token::unverified_token::UnverifiedToken;
use serde_json::json;
use sync::{AtomicU64, Mutex, Ordering, lock};

use crate::harness::jwt::{Signer, key_set};

type Key = usize;
/// A fact: whether it is open, and the revision that changed it.
type Fact = (Revision, bool);

/// A cache map with one lock per key, which evicts on request.
struct TestMap {
    entries: Mutex<HashMap<Key, Entry<Fact>>>,
    locks: [Mutex<()>; 2],
}

impl TestMap {
    fn new() -> Self {
        Self { entries: Mutex::new(HashMap::new()), locks: [Mutex::new(()), Mutex::new(())] }
    }

    fn get(&self, key: Key) -> Option<Entry<Fact>> {
        lock(&self.entries).get(&key).cloned()
    }

    fn evict(&self, key: Key) {
        // Without the key's lock, as moka does.
        lock(&self.entries).remove(&key);
    }
}

impl CoherentMap for TestMap {
    type Key = Key;
    type Fact = Fact;

    fn compute<R>(
        &self,
        key: &Key,
        step: impl FnOnce(Option<Entry<Fact>>) -> (Option<Entry<Fact>>, R),
    ) -> R {
        let _held = lock(&self.locks[*key]);
        let cached = self.get(*key);
        let (put, output) = step(cached);
        if let Some(entry) = put {
            lock(&self.entries).insert(*key, entry);
        }
        output
    }

    fn takes_absences(&self) -> bool {
        // At random, so that schedules with both are explored.
        thread_rng().gen_bool(0.5)
    }
}

/// The cache and the store. A fact that is not in the store does not exist.
struct World {
    coherence: CacheCoherence<TestMap>,
    store: [Mutex<Option<Fact>>; 2],
}

impl World {
    fn new(first: [Option<bool>; 2]) -> Self {
        let fact = |open: Option<bool>| Mutex::new(open.map(|open| (Revision(1), open)));
        Self { coherence: CacheCoherence::new(TestMap::new(), Revision(1)), store: first.map(fact) }
    }

    /// Commits one batch, in the order of the storage engine's writer.
    fn commit(&self, last: u64, changes: &[(Key, u64, Option<bool>)]) {
        self.coherence.begin_batch(Revision(last), changes.iter().map(|(key, ..)| *key));
        for (key, revision, open) in changes {
            *lock(&self.store[*key]) = open.map(|open| (Revision(*revision), open));
        }
        let outcomes = changes.iter().map(|(key, revision, open)| {
            let since = Revision(*revision);
            (*key, Entry { since, fact: open.map(|open| (since, open)) })
        });
        self.coherence.publish(Revision(last), outcomes);
    }

    fn read(&self, key: Key) -> Entry<Fact> {
        let cached = self.coherence.map.get(key);
        cached.unwrap_or_else(|| {
            let read = || Ok::<_, ()>(lock(&self.store[key]).map(|fact| (fact.0, fact)));
            let fill = self.coherence.get_or_load(&key, read);
            fill.expect("the store answers")
        })
    }

    /// Reads both facts at one published revision, as a check does.
    fn check(&self) -> (Revision, [Option<bool>; 2]) {
        loop {
            let at = self.coherence.published();
            let facts = [self.read(0).at(at), self.read(1).at(at)];
            let youngest = match facts {
                [Ok(a), Ok(b)] => return (at, [a, b].map(|fact| fact.map(|(_, open)| open))),
                [Err(a), Err(b)] => a.max(b),
                [Err(younger), _] | [_, Err(younger)] => younger,
            };
            while self.coherence.published() < youngest {
                thread::yield_now();
            }
        }
    }
}

/// The state of the two facts at each revision.
type History = &'static [[Option<bool>; 2]];

const OPEN: Option<bool> = Some(true);
const SHUT: Option<bool> = Some(false);
const GONE: Option<bool> = None;

/// Batches by their last revision; a change is a key, its revision and the fact.
type Batches = &'static [(u64, &'static [(Key, u64, Option<bool>)])];

fn explore(history: History, batches: Batches, schedules: usize) {
    let scenario = move || {
        let world = Arc::new(World::new(history[1]));
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let world = Arc::clone(&world);
            move || batches.iter().for_each(|(last, changes)| world.commit(*last, changes))
        }));
        threads.push(thread::spawn({
            let world = Arc::clone(&world);
            move || [0, 1, 0, 1].into_iter().for_each(|key| world.coherence.map.evict(key))
        }));
        for _ in 0..2 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                let mut last = Revision::ZERO;
                for _ in 0..2 {
                    let before = world.coherence.published();
                    let (at, facts) = world.check();
                    let expected = history[usize::try_from(at.0).expect("small")];
                    assert_eq!(facts, expected, "the facts of revision {at}");
                    assert!(at >= before && at >= last, "every acknowledged change is seen");
                    last = at;
                }
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panicked"));
        let (_, facts) = world.check();
        assert_eq!(facts, *history.last().expect("an end"), "the last revision is seen");
    };
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, 3);
}

/// How many schedules of each kind to explore.
fn schedules() -> usize {
    std::env::var("SCOPEGATE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(8_000)
}

#[test]
fn no_check_pairs_facts_of_two_revisions() {
    const HISTORY: History =
        &[[GONE, GONE], [OPEN, SHUT], [SHUT, SHUT], [SHUT, OPEN], [SHUT, SHUT], [OPEN, SHUT]];
    explore(
        HISTORY,
        &[
            (2, &[(0, 2, SHUT)]),
            (3, &[(1, 3, OPEN)]),
            // Two changes in one batch: no reader sees one without the other.
            (5, &[(1, 4, SHUT), (0, 5, OPEN)]),
        ],
        schedules(),
    );
}

#[test]
fn absence_is_seen_at_the_revision_that_caused_it() {
    const HISTORY: History =
        &[[GONE, GONE], [OPEN, GONE], [GONE, GONE], [GONE, OPEN], [GONE, GONE], [OPEN, GONE]];
    explore(
        HISTORY,
        &[(2, &[(0, 2, GONE)]), (3, &[(1, 3, OPEN)]), (4, &[(1, 4, GONE)]), (5, &[(0, 5, OPEN)])],
        schedules(),
    );
}

/// The states of an issuer: which of two keys its set has, and whether it may speak for the company of
/// the token.
const ISSUER_STATES: [([bool; 2], bool); 5] = [
    ([true, false], true),
    ([true, true], true),
    ([true, true], false),
    ([false, true], true),
    ([true, false], true),
];

/// The facts of each of [`ISSUER_STATES`], and a token that the first key has signed.
struct Tokens {
    issuers: [std::sync::Arc<Issuer>; ISSUER_STATES.len()],
    sets: [KeySet; ISSUER_STATES.len()],
    text: String,
}

impl Tokens {
    fn new() -> Self {
        let signers = [Signer::new("EdDSA", "a"), Signer::new("EdDSA", "b")];
        let issuers = ISSUER_STATES.map(|(_, may_speak)| {
            let company = if may_speak { "acme" } else { "other" };
            let yaml = format!(
                "scopes: {{}}\nissuers: {{ idp: {{ algorithms: [EdDSA], audiences: [api], user: none, \
                 company: {{ claim: tid }}, companies: [{company}], jwks_file: keys.json }} }}\n"
            );
            let catalog = Catalog::empty().replaced_by(&yaml).expect("a catalog");
            std::sync::Arc::clone(catalog.issuer("idp").expect("an issuer"))
        });
        let sets = ISSUER_STATES.map(|(keys, _)| {
            let keys = signers.iter().zip(keys).filter(|(_, is_in)| *is_in);
            let set = key_set(keys.map(|(signer, _)| signer));
            KeySet::parse(set.as_bytes()).expect("a set").keys
        });
        let text = signers[0].token(&json!({
            "iss": "idp", "aud": "api", "client_id": "hr", "tid": "acme", "exp": 4_000_000_000_u64,
        }));
        Self { issuers, sets, text }
    }
}

/// The issuer in force, its keys, and the cache of the server. The entry and the keys change one after the
/// other, as those from a URL do.
struct TokenWorld {
    tokens: &'static Tokens,
    cache: TokenCache,
    entry: Mutex<usize>,
    keys: Mutex<usize>,
    /// The last state that was acknowledged, and the last that was begun.
    acknowledged: AtomicU64,
    begun: AtomicU64,
}

impl TokenWorld {
    fn change(&self) {
        for state in 1..ISSUER_STATES.len() {
            self.begun.store(state as u64, Ordering::SeqCst);
            *lock(&self.entry) = state;
            *lock(&self.keys) = state;
            self.acknowledged.store(state as u64, Ordering::SeqCst);
        }
    }

    fn keys(&self) -> &KeySet {
        &self.tokens.sets[*lock(&self.keys)]
    }

    /// Whether the token is valid, by the steps of `token_verifier`.
    fn verify(&self) -> bool {
        let Tokens { issuers, text, .. } = self.tokens;
        let (issuer, hash) = (&issuers[*lock(&self.entry)], blake3::hash(text.as_bytes()));
        if self.cache.get(&hash, |token| token.is_in_force(issuer, self.keys())).is_some() {
            return true;
        }
        let token = UnverifiedToken::parse(text).expect("a form");
        let verified = token.verify(issuer, self.keys());
        // Another thread can come between, as after each step above.
        thread::yield_now();
        let Ok(verified) = verified else { return false };
        self.cache.insert(hash, &std::sync::Arc::new(verified), Timestamp::UNIX_EPOCH);
        true
    }

    /// Verifies the token, and compares the result with the states meanwhile.
    fn check(&self) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        let is_valid = self.verify();
        let after = self.begun.load(Ordering::SeqCst);
        let states =
            || ISSUER_STATES.iter().skip(before as usize).take((after - before + 1) as usize);
        let (has_key, may_speak) =
            (|state: &&([bool; 2], bool)| state.0[0], |state: &&([bool; 2], bool)| state.1);
        if is_valid {
            assert!(
                states().any(|s| has_key(&s)),
                "a token outlived its key ({before} to {after})"
            );
            assert!(states().any(|s| may_speak(&s)), "a token outlived its issuer's entry");
        } else {
            assert!(!states().all(|s| has_key(&s) && may_speak(&s)), "a good token was refused");
        }
    }
}

/// T21, T22: no token outlives its key or its issuer's entry, whatever another thread puts into the cache
/// meanwhile: also a slow one that has verified the token before the change.
#[test]
fn t22_no_token_in_the_cache_outlives_its_key() {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(Tokens::new);
    let scenario = || {
        let world = Arc::new(TokenWorld {
            tokens: &TOKENS,
            cache: TokenCache::new(8),
            entry: Mutex::new(0),
            keys: Mutex::new(0),
            acknowledged: AtomicU64::new(0),
            begun: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for _ in 0..3 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || (0..3).for_each(|_| world.check())));
        }
        world.change();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panicked"));
        world.check();
    };
    LazyLock::force(&TOKENS);
    shuttle::check_random(scenario, schedules() / 8);
    shuttle::check_pct(scenario, schedules() / 8, 3);
}
