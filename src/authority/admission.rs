//! Admission: which facts may be relied on, and at which revision. The protocol that keeps
//! every answer right while facts are filled, changed and evicted at once.
//!
//! INVARIANT (newest wins): a fact is read from the store and put on the shelf inside one
//! computation under its key's lock, and so is its replacement after a commit. Hence a slow
//! reader can never put an old fact over a newer one.
//!
//! INVARIANT (one published revision): a reader loads the published revision P first, then its
//! facts. It decides at P only if no fact of its is younger than P; else it waits for that
//! younger revision to be published and starts over. A committed fact replaces the shelved one
//! before its revision is published, so a fact that is not younger than P is the one of P.
//!
//! INVARIANT (absence has a date): what does not exist has no record that could say since when.
//! A batch therefore announces its keys before it touches the store. An absence that is read
//! while its key is announced dates from that batch; any other dates from the latest
//! publication, which is no earlier than the deletion that may have caused it.
//!
//! Not here: what facts are, where they are kept, how one waits; and what a core keeps for
//! itself, which is in [`super::front`]. Both files, and [`super::marks`], are also compiled into
//! `tests/integration/interleavings.rs` over scheduled locks and atomics, by way of `super::sync`.

use std::collections::HashSet;
use std::hash::Hash;

use super::marks::Marks;
use super::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::policy::revision::Revision;

/// A fact, or its absence, as it has been since a revision.
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
    /// It is younger: wait for this revision, then start over (one published revision).
    pub fn at(self, published: Revision) -> Result<Option<F>, Revision> {
        if self.since > published { Err(self.since) } else { Ok(self.fact) }
    }
}

/// A bounded map that may drop entries at any time, with one lock per key.
pub trait Shelf {
    /// What facts are found by.
    type Key: Clone + Eq + Hash;
    /// A fact.
    type Fact: Clone;

    /// Runs `step` under the key's lock, with what is there; puts what it returns, if any.
    fn compute<R>(
        &self,
        key: &Self::Key,
        step: impl FnOnce(Option<Entry<Self::Fact>>) -> (Option<Entry<Self::Fact>>, R),
    ) -> R;
}

/// The batch that is being committed.
struct Announced<K> {
    last: Revision,
    keys: HashSet<K>,
}

/// The protocol's state, around a shelf.
pub struct Admission<S: Shelf> {
    published: AtomicU64,
    announced: Mutex<Option<Announced<S::Key>>>,
    /// The facts at hand.
    pub shelf: S,
    /// What was changed when, for those who keep facts of their own.
    pub marks: Marks,
}

impl<S: Shelf> Admission<S> {
    /// Nothing is younger than `published` yet.
    pub fn new(shelf: S, published: Revision, marks: usize) -> Self {
        let marks = Marks::new(marks);
        Self { published: AtomicU64::new(published.0), announced: Mutex::new(None), shelf, marks }
    }

    /// The revision to decide at. Load it before any fact.
    pub fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// The shelved fact, or, under the key's lock, the store's.
    ///
    /// # Errors
    /// Those of the read; then nothing is shelved.
    pub fn fill<E>(
        &self,
        key: &S::Key,
        read: impl FnOnce() -> Result<Option<(Revision, S::Fact)>, E>,
    ) -> Result<Entry<S::Fact>, E> {
        self.shelf.compute(key, |shelved| {
            if let Some(entry) = shelved {
                return (None, Ok(entry));
            }
            let entry = match read() {
                Ok(Some((since, fact))) => Entry { since, fact: Some(fact) },
                Ok(None) => Entry { since: self.absent_since(key), fact: None },
                Err(error) => return (None, Err(error)),
            };
            (Some(entry.clone()), Ok(entry))
        })
    }

    /// From when an absence dates that the store has just shown. Call it after that read.
    fn absent_since(&self, key: &S::Key) -> Revision {
        match &*lock(&self.announced) {
            Some(batch) if batch.keys.contains(key) => batch.last,
            // Under the lock: a batch that ends now publishes before it is withdrawn.
            _ => self.published(),
        }
    }

    /// The revision that covers everything which a read of the store may have seen. Call it
    /// after that read, and wait for its publication before relying on what was read.
    pub fn seen_up_to(&self) -> Revision {
        let announced = lock(&self.announced);
        announced.as_ref().map_or_else(|| self.published(), |batch| batch.last)
    }

    /// A batch is about to touch the store.
    pub fn applying(&self, last: Revision, keys: impl IntoIterator<Item = S::Key>) {
        let keys = keys.into_iter().collect();
        *lock(&self.announced) = Some(Announced { last, keys });
    }

    /// The batch is durable: marks what it changed, replaces the shelved facts, then publishes it.
    pub fn durable(
        &self,
        last: Revision,
        outcomes: impl IntoIterator<Item = (S::Key, Entry<S::Fact>)>,
    ) {
        for (key, entry) in outcomes {
            // By the batch's end: keys that share a mark come in no order of their revisions.
            self.marks.note(self.marks.hash(&key), last);
            // What nobody has asked for is not shelved: a flood of changes evicts nothing.
            self.shelf.compute(&key, |shelved| (shelved.map(|_| entry), ()));
        }
        let mut announced = lock(&self.announced);
        self.published.store(last.0, Ordering::Release);
        *announced = None;
    }
}
