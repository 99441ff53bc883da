//! L1 cache: the facts that one core used recently, in front of the L2 cache that all cores share.
//!
//! Only its own core inserts entries, so no other core can replace an entry that a commit has made
//! stale. The change stamps tell when a key was last changed. A cached fact is used only if the stamp
//! of its key has not moved since.
//!
//! INVARIANT (is current): an entry is stored with a published revision at which its fact was right.
//! The writer moves the stamps of the keys that a batch changes before it publishes the batch. A
//! reader first loads the published revision P, then the stamp. If the stamp is not younger than the
//! stored revision, no change up to P touched the fact. A fact that is younger than P itself is not
//! used either; that can happen when the reader was delayed between the two loads.
//!
//! A bucket holds up to four facts. A fact moves one way forward in its bucket each time it is used,
//! so a fact that was used once displaces another fact that was used once.
//!
//! Not here: absences. Requests for facts that do not exist displace nothing.

use equivalent::Equivalent;

use super::change_stamps::ChangeStamps;
use super::coherence::Entry;
use super::sync::{Mutex, lock};
use crate::policy::revision::Revision;

/// How many facts a bucket holds.
const WAYS: usize = 4;
/// How many buckets there are at first.
const INITIAL_BUCKETS: usize = 1 << 10;
/// How many buckets are added when one overflows.
const GROWTH: usize = 2;
/// How many buckets are allocated at once.
const BLOCK: usize = 1 << 8;

/// A fact that was right at a published revision.
struct CachedAt<K, F> {
    key: K,
    entry: Entry<F>,
    at: Revision,
}

/// Facts of one bucket, those that are used more often first.
struct Bucket<K, F> {
    hashes: [u64; WAYS],
    entries: [Option<CachedAt<K, F>>; WAYS],
}

impl<K, F> Bucket<K, F> {
    fn empty() -> Self {
        Self { hashes: [0; WAYS], entries: [const { None }; WAYS] }
    }

    /// Inserts a fact: replaces an older fact of the same key, else takes a free way, else
    /// replaces the last way. Returns the fact of another key that it displaced, if any.
    fn insert(&mut self, hash: u64, cached: CachedAt<K, F>) -> Option<CachedAt<K, F>>
    where
        K: Eq,
    {
        let mut ways = self.hashes.iter_mut().zip(&mut self.entries);
        let is_same_key = |(of, entry): &(&mut u64, &mut Option<CachedAt<K, F>>)| match entry {
            Some(entry) => **of == hash && entry.key == cached.key,
            None => true,
        };
        match ways.find(is_same_key) {
            Some((of, entry)) => {
                *of = hash;
                *entry = Some(cached);
                None
            }
            None => {
                let (of, entry) = (self.hashes.last_mut()?, self.entries.last_mut()?);
                *of = hash;
                entry.replace(cached)
            }
        }
    }
}

/// Buckets that grow one by one (linear hashing), so that no lookup waits for a full rehash.
struct Buckets<K, F> {
    /// Each but the last is full.
    blocks: Vec<Vec<Bucket<K, F>>>,
    count: usize,
    limit: usize,
}

impl<K: Eq, F> Buckets<K, F> {
    fn new(limit: usize) -> Self {
        let mut buckets = Self { blocks: Vec::new(), count: 0, limit };
        for _ in 0..INITIAL_BUCKETS.min(limit) {
            buckets.push();
        }
        buckets
    }

    fn push(&mut self) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(Bucket::empty()),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(Bucket::empty());
                self.blocks.push(block);
            }
        }
        self.count += 1;
    }

    /// The bucket of a hash: the low bits of the hash, as many as the number of buckets needs. It
    /// uses one bit less while the bucket of all of the bits does not exist yet.
    fn bucket_index(&self, hash: u64) -> usize {
        let mask_end = self.count.next_power_of_two();
        let index = usize::try_from(hash).unwrap_or(0) & (mask_end - 1);
        if index < self.count { index } else { index - mask_end / 2 }
    }

    fn get_mut(&mut self, index: usize) -> Option<&mut Bucket<K, F>> {
        self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)
    }

    /// Adds a bucket, and moves the facts that belong to it from the bucket that held them.
    fn grow(&mut self) {
        if self.count == self.limit {
            return;
        }
        let new = self.count;
        self.push();
        let old = new - self.count.next_power_of_two() / 2;
        let Some(bucket) = self.get_mut(old) else { return };
        let all = std::mem::replace(bucket, Bucket::empty());
        for (hash, entry) in all.hashes.into_iter().zip(all.entries) {
            let index = self.bucket_index(hash);
            if let (Some(cached), Some(bucket)) = (entry, self.get_mut(index)) {
                bucket.insert(hash, cached);
            }
        }
    }
}

/// The cached facts of one core, each in the bucket of its hash. It grows as it is filled.
pub struct L1Cache<K, F> {
    /// Only its own core takes the lock, so a wait is rare.
    buckets: Mutex<Buckets<K, F>>,
}

impl<K: Eq, F: Clone> L1Cache<K, F> {
    /// An empty cache of at limit about `capacity` facts.
    pub fn new(capacity: usize) -> Self {
        Self { buckets: Mutex::new(Buckets::new(capacity.div_ceil(WAYS).max(1))) }
    }

    /// The fact at the published revision `at`, if it is cached and is current. Load `at` before
    /// this call.
    pub fn get(
        &self,
        stamps: &ChangeStamps,
        at: Revision,
        hash: u64,
        key: &impl Equivalent<K>,
    ) -> Option<F> {
        let mut buckets = lock(&self.buckets);
        let index = buckets.bucket_index(hash);
        let bucket = buckets.get_mut(index)?;
        let is_same_key = |(of, entry): (&u64, &Option<CachedAt<K, F>>)| {
            *of == hash && entry.as_ref().is_some_and(|cached| key.equivalent(&cached.key))
        };
        let way = bucket.hashes.iter().zip(&bucket.entries).position(is_same_key)?;
        let cached = bucket.entries.get(way)?.as_ref()?;
        let is_current = cached.entry.since <= at && stamps.last_changed(hash) <= cached.at;
        let fact = if is_current { cached.entry.fact.clone() } else { None };
        if let Some(before) = way.checked_sub(1) {
            bucket.hashes.swap(before, way);
            bucket.entries.swap(before, way);
        }
        fact
    }

    /// Inserts a fact that is right at the published revision `at`.
    pub fn insert(&self, hash: u64, key: impl FnOnce() -> K, entry: Entry<F>, at: Revision) {
        if entry.fact.is_none() || entry.since > at {
            return;
        }
        let mut buckets = lock(&self.buckets);
        let index = buckets.bucket_index(hash);
        let Some(bucket) = buckets.get_mut(index) else { return };
        if bucket.insert(hash, CachedAt { key: key(), entry, at }).is_some() {
            for _ in 0..GROWTH {
                buckets.grow();
            }
        }
    }
}
