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
//! Facts that meet are up to four to a set, and one that is asked for again moves a place forward
//! in it: what is asked for once displaces what was asked for once.
//!
//! Not here: absences, so that asking for what does not exist displaces nothing.

use equivalent::Equivalent;

use super::change_stamps::ChangeStamps;
use super::coherence::Entry;
use super::sync::{Mutex, lock};
use crate::policy::revision::Revision;

/// How many facts may meet in one set.
const WAYS: usize = 4;
/// How many sets there are at first.
const FIRST: usize = 1 << 10;
/// How many sets are added for one that overflows.
const GROWTH: usize = 2;
/// How many sets are allocated at once.
const BLOCK: usize = 1 << 8;

/// A fact that was right at a published revision.
struct CachedAt<K, F> {
    key: K,
    entry: Entry<F>,
    at: Revision,
}

/// The facts whose hashes meet, those that are asked for more often in front.
struct Set<K, F> {
    hashes: [u64; WAYS],
    kept: [Option<CachedAt<K, F>>; WAYS],
}

impl<K, F> Set<K, F> {
    fn empty() -> Self {
        Self { hashes: [0; WAYS], kept: [const { None }; WAYS] }
    }

    /// Puts a fact in the place of an older one of its key, in a free place, or in the last.
    /// What it displaces, if anything.
    fn put(&mut self, hash: u64, kept: CachedAt<K, F>) -> Option<CachedAt<K, F>>
    where
        K: Eq,
    {
        let mut places = self.hashes.iter_mut().zip(&mut self.kept);
        let is_its = |(of, there): &(&mut u64, &mut Option<CachedAt<K, F>>)| match there {
            Some(there) => **of == hash && there.key == kept.key,
            None => true,
        };
        match places.find(is_its) {
            Some((of, place)) => {
                *of = hash;
                *place = Some(kept);
                None
            }
            None => {
                let (of, place) = (self.hashes.last_mut()?, self.kept.last_mut()?);
                *of = hash;
                place.replace(kept)
            }
        }
    }
}

/// Sets, added one by one: whoever asks never waits for all to be moved (linear hashing).
struct Buckets<K, F> {
    /// Each but the last is full.
    blocks: Vec<Vec<Set<K, F>>>,
    count: usize,
    most: usize,
}

impl<K: Eq, F> Buckets<K, F> {
    fn new(most: usize) -> Self {
        let mut sets = Self { blocks: Vec::new(), count: 0, most };
        for _ in 0..FIRST.min(most) {
            sets.push();
        }
        sets
    }

    fn push(&mut self) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(Set::empty()),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(Set::empty());
                self.blocks.push(block);
            }
        }
        self.count += 1;
    }

    /// Where a hash belongs: by as many of its bits as the sets need, or one less while the set
    /// of all of them is not there yet.
    fn bucket_index(&self, hash: u64) -> usize {
        let above = self.count.next_power_of_two();
        let place = usize::try_from(hash).unwrap_or(0) & (above - 1);
        if place < self.count { place } else { place - above / 2 }
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut Set<K, F>> {
        self.blocks.get_mut(place / BLOCK)?.get_mut(place % BLOCK)
    }

    /// Adds a set, and moves there what belongs there from the one that had its place.
    fn grow(&mut self) {
        if self.count == self.most {
            return;
        }
        let new = self.count;
        self.push();
        let old = new - self.count.next_power_of_two() / 2;
        let Some(set) = self.get_mut(old) else { return };
        let all = std::mem::replace(set, Set::empty());
        for (hash, kept) in all.hashes.into_iter().zip(all.kept) {
            let place = self.bucket_index(hash);
            if let (Some(kept), Some(set)) = (kept, self.get_mut(place)) {
                set.put(hash, kept);
            }
        }
    }
}

/// One core's facts, each in the set of its hash. It grows as it is filled.
pub struct L1Cache<K, F> {
    /// Locked by its own core, so hardly ever waited for.
    sets: Mutex<Buckets<K, F>>,
}

impl<K: Eq, F: Clone> L1Cache<K, F> {
    /// An empty front of at most so many places.
    pub fn new(places: usize) -> Self {
        Self { sets: Mutex::new(Buckets::new(places.div_ceil(WAYS).max(1))) }
    }

    /// The fact at a published revision that was loaded before, if it is here and still so.
    pub fn get(
        &self,
        marks: &ChangeStamps,
        at: Revision,
        hash: u64,
        key: &impl Equivalent<K>,
    ) -> Option<F> {
        let mut sets = lock(&self.sets);
        let place = sets.bucket_index(hash);
        let set = sets.get_mut(place)?;
        let is_its = |(of, kept): (&u64, &Option<CachedAt<K, F>>)| {
            *of == hash && kept.as_ref().is_some_and(|kept| key.equivalent(&kept.key))
        };
        let way = set.hashes.iter().zip(&set.kept).position(is_its)?;
        let kept = set.kept.get(way)?.as_ref()?;
        let still_so = kept.entry.since <= at && marks.last_changed(hash) <= kept.at;
        let fact = if still_so { kept.entry.fact.clone() } else { None };
        if let Some(before) = way.checked_sub(1) {
            set.hashes.swap(before, way);
            set.kept.swap(before, way);
        }
        fact
    }

    /// Keeps a fact that is right at this published revision.
    pub fn insert(&self, hash: u64, key: impl FnOnce() -> K, entry: Entry<F>, at: Revision) {
        if entry.fact.is_none() || entry.since > at {
            return;
        }
        let mut sets = lock(&self.sets);
        let place = sets.bucket_index(hash);
        let Some(set) = sets.get_mut(place) else { return };
        if set.put(hash, CachedAt { key: key(), entry, at }).is_some() {
            for _ in 0..GROWTH {
                sets.grow();
            }
        }
    }
}
