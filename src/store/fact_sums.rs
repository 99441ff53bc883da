//! FactSums: how many facts of each kind a store has, and the checksum of each kind. Replicas compare them
//! to find out which of them has other facts.
//!
//! They are computed from all facts when a store is opened, and each batch changes them by the values that
//! it replaces and writes. So they are exact at every revision, and cost no scan. Damage of the disk that
//! comes later does not change them; it is found when the store is opened again (`checksum`).
//!
//! Authorization codes are left out: each replica removes them at a time of its own.
//!
//! Not here: what a replica does with the sums of others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::FactKind;
use super::checksum::StoreChecksum;
use super::fact::KINDS;
use crate::policy::revision::Revision;
use crate::policy::token::authorization_code::AuthorizationCode;

/// At how many revisions the sums are kept. Replicas that are compared need one in common.
const REVISIONS: usize = 128;

/// The number and the checksum of the facts of each kind, in the order of `KINDS`; or how a batch changes
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactSums([KindSum; KINDS.len()]);

/// The number and the checksum of the facts of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct KindSum {
    count: u64,
    checksum: StoreChecksum,
}

/// The number and the checksum of the facts of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SumOfKind {
    /// The name of the kind.
    pub kind: String,
    /// The number of its facts.
    pub count: u64,
    /// The sum of the hashes of their keys and values.
    pub checksum: u128,
}

impl FactSums {
    /// Whether a value with this key counts.
    pub(super) fn has(entry_key: &[u8]) -> bool {
        Self::index(entry_key).is_some()
    }

    fn index(entry_key: &[u8]) -> Option<usize> {
        let table = entry_key.first().filter(|table| **table != AuthorizationCode::TABLE)?;
        KINDS.iter().position(|(of, _)| of == table)
    }

    fn kind(&mut self, entry_key: &[u8]) -> Option<&mut KindSum> {
        self.0.get_mut(Self::index(entry_key)?)
    }

    /// Adds the fact with this key and the checksum of its value.
    pub(super) fn add(&mut self, entry_key: &[u8], checksum: StoreChecksum) {
        if let Some(kind) = self.kind(entry_key) {
            kind.count = kind.count.wrapping_add(1);
            kind.checksum = kind.checksum.plus(checksum);
        }
    }

    /// Takes the fact with this key and the checksum of its value.
    pub(super) fn take(&mut self, entry_key: &[u8], checksum: StoreChecksum) {
        if let Some(kind) = self.kind(entry_key) {
            kind.count = kind.count.wrapping_sub(1);
            kind.checksum = kind.checksum.minus(checksum);
        }
    }

    /// The sums after these changes.
    pub(super) fn plus(mut self, changes: Self) -> Self {
        for (kind, by) in self.0.iter_mut().zip(changes.0) {
            kind.count = kind.count.wrapping_add(by.count);
            kind.checksum = kind.checksum.plus(by.checksum);
        }
        self
    }

    /// The sum of each kind.
    pub fn kinds(&self) -> impl Iterator<Item = SumOfKind> {
        let kinds = KINDS.iter().filter(|(table, _)| Self::has(&[*table]));
        let of = |(table, name): &(u8, &str)| (Self::index(&[*table]), (*name).to_owned());
        kinds.map(of).map(|(index, kind)| {
            let KindSum { count, checksum } =
                index.and_then(|index| self.0.get(index).copied()).unwrap_or_default();
            SumOfKind { kind, count, checksum: checksum.number() }
        })
    }
}

/// The sums of a store at its last revisions at which garbage collection had nothing to remove. Facts of a
/// deleted company count until they are removed, which each replica does at a time of its own.
#[derive(Clone, Debug, Default)]
pub struct RecentFactSums(Arc<Mutex<VecDeque<(Revision, FactSums)>>>);

impl RecentFactSums {
    /// Notes the sums at this revision, which is not before the last one.
    pub(super) fn note(&self, revision: Revision, sums: FactSums) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.back().is_some_and(|(last, _)| *last == revision) {
            all.pop_back();
        }
        if all.len() == REVISIONS {
            all.pop_front();
        }
        all.push_back((revision, sums));
    }

    /// The sums at each of these revisions, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(Revision, FactSums)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sums_of_a_revision_count_and_the_first_revisions_are_forgotten() {
        let recent = RecentFactSums::default();
        let mut sums = FactSums::default();
        for revision in 0..REVISIONS as u64 + 3 {
            recent.note(Revision(revision), sums);
            sums.add(b"Cacme", StoreChecksum::from_number(7));
            recent.note(Revision(revision), sums);
        }
        let all = recent.all();
        assert_eq!(all.len(), REVISIONS);
        assert_eq!(all[0].0, Revision(3));
        let last = all[REVISIONS - 1].1.kinds().find(|sum| sum.count > 0).expect("companies");
        assert_eq!((last.kind.as_str(), last.count), ("Company", REVISIONS as u64 + 3));
        sums.take(b"Cacme", StoreChecksum::from_number(7));
        sums.add(b"W123", StoreChecksum::from_number(7));
        sums.add(b"Lchange", StoreChecksum::from_number(7));
        let count: u64 = sums.kinds().map(|sum| sum.count).sum();
        assert_eq!(count, REVISIONS as u64 + 2, "neither codes nor changes count");
        assert!(sums.kinds().all(|sum| sum.kind != "AuthorizationCode"));
    }
}
