//! Change stamps: the revision of the last change of each bucket of keys.
//!
//! Not here: how the L1 cache uses them; see [`super::l1_cache`]. [`super::coherence`] moves them.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;

use super::sync::{AtomicU64, Ordering};
use crate::policy::revision::Revision;

/// The revision of the last change of each bucket of keys, since this process started.
pub struct ChangeStamps {
    /// Has a random seed, so that no client can choose keys that share a bucket.
    hasher: RandomState,
    stamps: Vec<AtomicU64>,
}

impl ChangeStamps {
    /// A table of `count` stamps.
    pub fn new(count: usize) -> Self {
        let stamps = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::default(), stamps }
    }

    /// The hash of a key. It is the same for the owned and the borrowed form.
    pub fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Records that a revision, which is not published yet, changes a key of this hash.
    pub fn bump(&self, hash: u64, revision: Revision) {
        if let Some(stamp) = self.stamp(hash) {
            stamp.store(revision.0, Ordering::Release);
        }
    }

    /// The revision of the last change of any key of this bucket. Call this after the published
    /// revision was loaded.
    pub fn last_changed(&self, hash: u64) -> Revision {
        // Without a stamp, no entry counts as current.
        Revision(self.stamp(hash).map_or(u64::MAX, |stamp| stamp.load(Ordering::Acquire)))
    }

    fn stamp(&self, hash: u64) -> Option<&AtomicU64> {
        self.stamps.get(usize::try_from(hash).unwrap_or(0) % self.stamps.len().max(1))
    }
}
