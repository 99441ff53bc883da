//! Cache coherence: the protocol that decides which cached facts a check may use, and at which
//! revision. It stays correct while facts are loaded, changed and evicted concurrently.
//!
//! INVARIANT (newest wins): a fact is read from the store and inserted into the cache map inside one
//! computation under its key's lock. Its replacement after a commit takes the same lock. A slow
//! reader therefore cannot overwrite a newer fact with an older one.
//!
//! INVARIANT (one published revision): a check loads the published revision P first, then its facts.
//! It decides at P only if none of its facts is younger than P. Otherwise it waits until the younger
//! revision is published, and starts over. The writer replaces a cached fact before it publishes the
//! fact's revision. A fact that is not younger than P is therefore the fact at P.
//!
//! INVARIANT (absence has a revision): a missing record carries no revision. The writer therefore
//! announces the keys of a batch before it changes the store. An absence that is read while its key
//! is announced dates from that batch. Any other absence dates from the latest published revision,
//! which is not older than the deletion that may have caused the absence.
//!
//! Not here: the types of the facts, where they are stored, and how a check waits.
//! `tests/integration/interleavings.rs` also compiles this file, with locks and atomics of a test
//! scheduler, by way of `super::sync`.

use std::collections::HashSet;
use std::hash::Hash;

use super::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::policy::revision::Revision;

/// A fact or its absence, and the revision since which it has been so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<F> {
    /// The revision that last changed it.
    pub since: Revision,
    /// The fact; none if it does not exist.
    pub fact: Option<F>,
}

impl<F> Entry<F> {
    /// The fact at a published revision that was loaded before the fact was read.
    ///
    /// # Errors
    /// The fact is younger: wait for the returned revision, then start over (one published
    /// revision).
    pub fn at(self, published: Revision) -> Result<Option<F>, Revision> {
        if self.since > published { Err(self.since) } else { Ok(self.fact) }
    }
}

/// A bounded map that may drop entries at any time, with one lock per key.
pub trait CoherentMap {
    /// The key of a fact.
    type Key: Clone + Eq + Hash;
    /// A fact.
    type Fact: Clone;

    /// Runs `step` with the present entry, under the key's lock. Inserts the entry that `step`
    /// returns, if it returns one.
    fn compute<R>(
        &self,
        key: &Self::Key,
        step: impl FnOnce(Option<Entry<Self::Fact>>) -> (Option<Entry<Self::Fact>>, R),
    ) -> R;

    /// Whether an absence that was loaded is inserted.
    fn takes_absences(&self) -> bool;
}

/// The batch that is being committed.
struct InFlightBatch<K> {
    last: Revision,
    keys: HashSet<K>,
}

/// The state of the protocol, around a cache map.
pub struct CacheCoherence<M: CoherentMap> {
    published: AtomicU64,
    announced: Mutex<Option<InFlightBatch<M::Key>>>,
    /// The cached facts.
    pub map: M,
}

impl<M: CoherentMap> CacheCoherence<M> {
    /// The state at the start: no fact is younger than `published`.
    pub fn new(map: M, published: Revision) -> Self {
        Self { published: AtomicU64::new(published.0), announced: Mutex::new(None), map }
    }

    /// The revision to decide at. Load it before the first fact.
    pub fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// The cached fact. If there is none, loads it from the store under the key's lock.
    ///
    /// # Errors
    /// The errors of `read`. Then nothing is inserted.
    pub fn get_or_load<E>(
        &self,
        key: &M::Key,
        read: impl FnOnce() -> Result<Option<(Revision, M::Fact)>, E>,
    ) -> Result<Entry<M::Fact>, E> {
        self.map.compute(key, |cached| {
            if let Some(entry) = cached {
                return (None, Ok(entry));
            }
            let entry = match read() {
                Ok(Some((since, fact))) => Entry { since, fact: Some(fact) },
                Ok(None) => Entry { since: self.absence_revision(key), fact: None },
                Err(error) => return (None, Err(error)),
            };
            let inserted = entry.fact.is_some() || self.map.takes_absences();
            (inserted.then(|| entry.clone()), Ok(entry))
        })
    }

    /// The revision from which an absence dates. Call this after the read that found nothing.
    fn absence_revision(&self, key: &M::Key) -> Revision {
        match &*lock(&self.announced) {
            Some(batch) if batch.keys.contains(key) => batch.last,
            // Under the lock: a batch that ends now is published before it is withdrawn.
            _ => self.published(),
        }
    }

    /// The newest revision that a read of the store may have seen. Call this after the read, and
    /// wait until the revision is published before the result is used.
    pub fn read_horizon(&self) -> Revision {
        let announced = lock(&self.announced);
        announced.as_ref().map_or_else(|| self.published(), |batch| batch.last)
    }

    /// Announces a batch. The writer calls this before it changes the store.
    pub fn begin_batch(&self, last: Revision, keys: impl IntoIterator<Item = M::Key>) {
        let keys = keys.into_iter().collect();
        *lock(&self.announced) = Some(InFlightBatch { last, keys });
    }

    /// Publishes a durable batch: replaces the cached facts, then publishes the revision.
    pub fn publish(
        &self,
        last: Revision,
        outcomes: impl IntoIterator<Item = (M::Key, Entry<M::Fact>)>,
    ) {
        for (key, entry) in outcomes {
            // A fact that is not cached is not inserted, so a flood of changes evicts nothing.
            self.map.compute(&key, |cached| (cached.map(|_| entry), ()));
        }
        let mut announced = lock(&self.announced);
        self.published.store(last.0, Ordering::Release);
        *announced = None;
    }
}
