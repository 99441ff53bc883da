//! Marks: when anything of a hash was last changed, for those who keep facts of their own.
//!
//! Not here: how they are relied on; see [`super::l1_cache`]. And when they are moved; see
//! [`super::coherence`].

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use super::sync::{AtomicU64, Ordering};
use crate::policy::revision::Revision;

/// When anything of a hash was last changed, as far as this process knows.
pub struct ChangeStamps {
    /// Seeded for this process: nobody outside can choose what meets in a place.
    hasher: RandomState,
    places: Vec<AtomicU64>,
}

impl ChangeStamps {
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
    pub fn bump(&self, hash: u64, revision: Revision) {
        if let Some(place) = self.places.get(place(hash, self.places.len())) {
            place.store(revision.0, Ordering::Release);
        }
    }

    /// The last change of any key of this hash. Ask after loading the published revision.
    pub fn last_changed(&self, hash: u64) -> Revision {
        let place = self.places.get(place(hash, self.places.len()));
        // Without a mark nothing can be known to be still so.
        Revision(place.map_or(u64::MAX, |place| place.load(Ordering::Acquire)))
    }
}

fn place(hash: u64, places: usize) -> usize {
    usize::try_from(hash).unwrap_or(0) % places.max(1)
}
