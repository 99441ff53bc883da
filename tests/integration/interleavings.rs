//! The admission protocol under every interleaving that shuttle tries: the very file that the
//! server runs, compiled here over scheduled locks and atomics.
//!
//! A store of two facts is changed by a writer that applies, replaces and publishes as the
//! engine does, while readers take both facts and a chaos thread evicts. The changes are such
//! that no single revision has both facts open; a reader that ever sees both open, or that sees
//! less than what was published before it began, has found a hole.
use std::collections::HashMap;

use shuttle::sync::Arc;
use shuttle::thread;

#[allow(dead_code, unused_imports, reason = "the server's file")]
#[path = "../../src/authority/coherence.rs"]
mod coherence;

#[allow(dead_code, reason = "the server's file")]
#[path = "../../src/authority/l1_cache.rs"]
mod l1_cache;

#[allow(dead_code, reason = "the server's file")]
#[path = "../../src/authority/change_stamps.rs"]
mod change_stamps;

/// What `admission` finds under `super::sync`.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no thread panicked")
    }
}

use coherence::{CacheCoherence, CoherentMap, Entry};
use l1_cache::L1Cache;
use scopegate::policy::revision::Revision;
use sync::{Mutex, lock};

type Key = usize;
/// A fact: whether it is open, and the revision that changed it.
type Fact = (Revision, bool);

/// A shelf that evicts when told to, with one lock per key.
struct TestShelf {
    entries: Mutex<HashMap<Key, Entry<Fact>>>,
    locks: [Mutex<()>; 2],
}

impl TestShelf {
    fn new() -> Self {
        Self { entries: Mutex::new(HashMap::new()), locks: [Mutex::new(()), Mutex::new(())] }
    }

    fn get(&self, key: Key) -> Option<Entry<Fact>> {
        lock(&self.entries).get(&key).cloned()
    }

    fn evict(&self, key: Key) {
        // As moka does: without the key's lock.
        lock(&self.entries).remove(&key);
    }
}

impl CoherentMap for TestShelf {
    type Key = Key;
    type Fact = Fact;

    fn compute<R>(
        &self,
        key: &Key,
        step: impl FnOnce(Option<Entry<Fact>>) -> (Option<Entry<Fact>>, R),
    ) -> R {
        let _held = lock(&self.locks[*key]);
        let shelved = self.get(*key);
        let (put, told) = step(shelved);
        if let Some(entry) = put {
            lock(&self.entries).insert(*key, entry);
        }
        told
    }
}

/// The store: a fact that is not there does not exist.
struct World {
    admission: CacheCoherence<TestShelf>,
    store: [Mutex<Option<Fact>>; 2],
}

impl World {
    fn new(first: [Option<bool>; 2]) -> Self {
        let fact = |open: Option<bool>| Mutex::new(open.map(|open| (Revision(1), open)));
        Self {
            admission: CacheCoherence::new(TestShelf::new(), Revision(1), 2),
            store: first.map(fact),
        }
    }

    /// One batch, in the order of the engine's writer.
    fn commit(&self, last: u64, changes: &[(Key, u64, Option<bool>)]) {
        self.admission.begin_batch(Revision(last), changes.iter().map(|(key, ..)| *key));
        for (key, revision, open) in changes {
            *lock(&self.store[*key]) = open.map(|open| (Revision(*revision), open));
        }
        let outcomes = changes.iter().map(|(key, revision, open)| {
            let since = Revision(*revision);
            (*key, Entry { since, fact: open.map(|open| (since, open)) })
        });
        self.admission.publish(Revision(last), outcomes);
    }

    fn read(&self, key: Key) -> Entry<Fact> {
        let at_hand = self.admission.shelf.get(key);
        at_hand.unwrap_or_else(|| {
            let read = || Ok::<_, ()>(lock(&self.store[key]).map(|fact| (fact.0, fact)));
            let fill = self.admission.get_or_load(&key, read);
            fill.expect("the store answers")
        })
    }

    /// A fact at a published revision, by way of a front.
    fn near(
        &self,
        front: &L1Cache<Key, Fact>,
        at: Revision,
        key: Key,
    ) -> Result<Option<Fact>, Revision> {
        let marks = &self.admission.marks;
        let hash = marks.hash(&key);
        if let Some(fact) = front.get(marks, at, hash, &key) {
            return Ok(Some(fact));
        }
        let entry = self.read(key);
        let fact = entry.clone().at(at)?;
        front.insert(hash, || key, entry, at);
        Ok(fact)
    }

    /// Both facts at one published revision, as a check takes them.
    fn check(&self, front: &L1Cache<Key, Fact>) -> (Revision, [Option<bool>; 2]) {
        loop {
            let at = self.admission.published();
            let facts = [self.near(front, at, 0), self.near(front, at, 1)];
            let youngest = match facts {
                [Ok(a), Ok(b)] => return (at, [a, b].map(|fact| fact.map(|(_, open)| open))),
                [Err(a), Err(b)] => a.max(b),
                [Err(younger), _] | [_, Err(younger)] => younger,
            };
            while self.admission.published() < youngest {
                thread::yield_now();
            }
        }
    }
}

/// What each revision says of the two facts.
type History = &'static [[Option<bool>; 2]];

const OPEN: Option<bool> = Some(true);
const SHUT: Option<bool> = Some(false);
const GONE: Option<bool> = None;

/// Batches by their last revision; a change is a key, its revision and the fact.
type Batches = &'static [(u64, &'static [(Key, u64, Option<bool>)])];

fn explore(history: History, batches: Batches, schedules: usize) {
    let scenario = move || {
        let world = Arc::new(World::new(history[1]));
        // Both readers have one front, which is worse for it than one each.
        let front = Arc::new(L1Cache::new(2));
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let world = Arc::clone(&world);
            move || batches.iter().for_each(|(last, changes)| world.commit(*last, changes))
        }));
        threads.push(thread::spawn({
            let world = Arc::clone(&world);
            move || [0, 1, 0, 1].into_iter().for_each(|key| world.admission.shelf.evict(key))
        }));
        for _ in 0..2 {
            let (world, front) = (Arc::clone(&world), Arc::clone(&front));
            threads.push(thread::spawn(move || {
                let mut last = Revision::ZERO;
                for _ in 0..2 {
                    let before = world.admission.published();
                    let (at, facts) = world.check(&front);
                    let said = history[usize::try_from(at.0).expect("small")];
                    assert_eq!(facts, said, "the facts of revision {at}");
                    assert!(at >= before && at >= last, "nothing acknowledged is missed");
                    last = at;
                }
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no hole"));
        let (_, facts) = world.check(&front);
        assert_eq!(facts, *history.last().expect("an end"), "the end is seen");
    };
    shuttle::check_random(scenario, schedules);
    shuttle::check_pct(scenario, schedules, 3);
}

/// How many schedules of each kind to try.
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
            // Two changes in one batch: neither is seen without the other.
            (5, &[(1, 4, SHUT), (0, 5, OPEN)]),
        ],
        schedules(),
    );
}

#[test]
fn an_absence_is_seen_at_the_revision_that_made_it() {
    const HISTORY: History =
        &[[GONE, GONE], [OPEN, GONE], [GONE, GONE], [GONE, OPEN], [GONE, GONE], [OPEN, GONE]];
    explore(
        HISTORY,
        &[(2, &[(0, 2, GONE)]), (3, &[(1, 3, OPEN)]), (4, &[(1, 4, GONE)]), (5, &[(0, 5, OPEN)])],
        schedules(),
    );
}
