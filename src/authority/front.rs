//! Front: the facts that one core was just asked for, before the cache that all cores share.
//!
//! Nobody else writes to a front, so it can only be told that it is out of date. For that there
//! is one table of marks: when anything of a hash was last changed. A fact in a front is relied
//! on only if its mark has not moved since.
//!
//! INVARIANT (still so): a fact is kept here with a published revision at which it was right. A
//! batch moves the marks of the keys it changed before it is published. So a reader that has
//! loaded the published revision P and then finds a mark that is not younger than the kept
//! revision knows that nothing changed the fact up to P. A fact that is younger than P itself, as
//! when a reader was held up between the two, is not relied on either.
//!
//! Not here: absences, so that asking for what does not exist displaces nothing.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;
use foldhash::quality::RandomState;

use super::admission::Entry;
use super::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::policy::revision::Revision;

/// When anything of a hash was last changed, as far as this process knows.
pub struct Marks {
    /// Seeded for this process: nobody outside can choose what meets in a place.
    hasher: RandomState,
    places: Vec<AtomicU64>,
}

impl Marks {
    /// So many marks.
    pub fn new(places: usize) -> Self {
        let places = (0..places).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::default(), places }
    }

    /// The hash of a key, which is that of every way to write it.
    pub fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// A key of this hash is changed in this revision, which is not published yet.
    pub fn note(&self, hash: u64, revision: Revision) {
        if let Some(place) = self.places.get(place(hash, self.places.len())) {
            place.store(revision.0, Ordering::Release);
        }
    }

    /// The last change of any key of this hash. Ask after loading the published revision.
    fn changed(&self, hash: u64) -> Revision {
        let place = self.places.get(place(hash, self.places.len()));
        // Without a mark nothing can be known to be still so.
        Revision(place.map_or(u64::MAX, |place| place.load(Ordering::Acquire)))
    }
}

fn place(hash: u64, places: usize) -> usize {
    usize::try_from(hash).unwrap_or(0) % places.max(1)
}

/// A fact that was right at a published revision.
struct Kept<K, F> {
    key: K,
    entry: Entry<F>,
    at: Revision,
}

/// One core's facts, each in the place of its hash.
pub struct Front<K, F> {
    /// Locked by its own core alone, so never waited for.
    slots: Mutex<Vec<Option<Kept<K, F>>>>,
}

impl<K, F: Clone> Front<K, F> {
    /// An empty front of so many places.
    pub fn new(places: usize) -> Self {
        Self { slots: Mutex::new((0..places).map(|_| None).collect()) }
    }

    /// The fact at a published revision that was loaded before, if it is here and still so.
    pub fn find(
        &self,
        marks: &Marks,
        at: Revision,
        hash: u64,
        key: &impl Equivalent<K>,
    ) -> Option<F> {
        let slots = lock(&self.slots);
        let kept = slots.get(place(hash, slots.len()))?.as_ref()?;
        let still_so = kept.entry.since <= at && marks.changed(hash) <= kept.at;
        if still_so && key.equivalent(&kept.key) { kept.entry.fact.clone() } else { None }
    }

    /// Keeps a fact that is right at this published revision.
    pub fn keep(&self, hash: u64, key: impl FnOnce() -> K, entry: Entry<F>, at: Revision) {
        if entry.fact.is_none() || entry.since > at {
            return;
        }
        let mut slots = lock(&self.slots);
        let places = slots.len();
        if let Some(slot) = slots.get_mut(place(hash, places)) {
            *slot = Some(Kept { key: key(), entry, at });
        }
    }
}
