//! EntryParts: the parts of a change that is too large for an entry, which lie in etcd under keys of their
//! own.
//!
//! The parts are put before the commit of the entry that names them. They are named by the hash of their
//! content, and the content has neither the revision nor the time of its entry. So a commit of a catalog
//! that is lost to another replica's entry is tried again with the same parts, however long they took. A
//! company has the time of its last change, so its parts are put again.
//!
//! INVARIANT (parts with their entry): the commit compares that every part exists, and puts the key that
//! says which entry has them. Parts are deleted only by a commit, which so sees every earlier one, and only
//! with the last entry that has them, or if no entry has.
//!
//! Not here: which entries are deleted; see [`Truncation`](super::truncation).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use blake3::Hash;
use bytes::Bytes;

use super::etcd::{Client, Compare, EtcdError, Operation, Pair, Range, Txn};
use super::log_page::PageError;
use super::{LogError, hash, keys, proto};
use crate::store::error::Corrupt;

/// The bytes of each part but the last one. etcd takes 1.5 MiB in a request.
pub const PART_BYTES: usize = 1 << 20;
/// The limit of the bytes of all parts of an entry: a transaction has 128 comparisons, one for each part.
pub const MAX_PARTS_BYTES: usize = 64 * PART_BYTES;
/// How many parts one call reads: at most 4 MiB.
const PARTS_PER_CALL: usize = 4;
/// Parts that no entry has are deleted after this time. Their commit may be in progress.
const UNUSED: Duration = Duration::from_secs(3600);
/// How many contents one commit deletes: a transaction has 128 operations.
const MAX_DELETED: usize = 64;

/// Names the parts of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryParts {
    /// The hash of their content.
    pub hash: Hash,
    /// The bytes of all of them.
    pub bytes: usize,
}

impl EntryParts {
    /// The name of this content.
    pub(super) fn of(content: &[u8]) -> Self {
        Self { hash: blake3::hash(content), bytes: content.len() }
    }

    pub(super) fn read(parts: &proto::EntryParts) -> Result<Self, Corrupt> {
        match usize::try_from(parts.bytes) {
            Ok(bytes @ 1..=MAX_PARTS_BYTES) => Ok(Self { hash: hash(&parts.hash)?, bytes }),
            _ => Err(Corrupt),
        }
    }

    pub(super) fn message(&self) -> proto::EntryParts {
        proto::EntryParts { hash: self.hash.as_bytes().to_vec(), bytes: self.bytes as u64 }
    }

    /// The keys of the parts, in order.
    fn keys(&self) -> impl Iterator<Item = String> {
        let hash = self.hash;
        (0..self.bytes.div_ceil(PART_BYTES)).map(move |number| keys::part(hash, number))
    }

    /// That every part exists.
    pub(super) fn compares(&self) -> impl Iterator<Item = Compare> {
        self.keys().map(Compare::Exists)
    }

    /// Puts the parts of this content.
    pub(super) async fn put(
        &self,
        client: &Client,
        content: &Bytes,
        within: Duration,
    ) -> Result<(), EtcdError> {
        for (number, key) in self.keys().enumerate() {
            let first = number * PART_BYTES;
            let part = content.slice(first..self.bytes.min(first + PART_BYTES));
            // A part that exists has the same value.
            let txn = Txn {
                compares: vec![Compare::Absent(key.clone())],
                then: vec![Operation::Put(key, part)],
                ..Txn::default()
            };
            client.txn(&txn, within).await?;
        }
        Ok(())
    }

    /// Reads the content of the parts of the entry of this number.
    pub(super) async fn content(
        &self,
        client: &Client,
        seq: u64,
        within: Duration,
    ) -> Result<Vec<u8>, PageError> {
        let mut content = Vec::with_capacity(self.bytes);
        let keys: Vec<_> = self.keys().collect();
        for keys in keys.chunks(PARTS_PER_CALL) {
            let ranges = keys.iter().map(|key| Operation::Range(Range::key(key)));
            let txn = Txn { then: ranges.collect(), ..Txn::default() };
            let answer = client.txn(&txn, within).await.map_err(PageError::Etcd)?;
            for part in answer.ranges {
                let Some(part) = part.pairs.first() else {
                    // They were deleted with their entry.
                    return Err(LogError::Truncated(seq).into());
                };
                content.extend_from_slice(&part.value);
            }
        }
        match Self::of(&content) == *self {
            true => Ok(content),
            false => Err(LogError::Damaged("part of an entry").into()),
        }
    }
}

/// The parts that no entry has, and when this replica first saw each of them so.
#[derive(Debug, Default)]
pub(super) struct UnusedParts(HashMap<Hash, Instant>);

impl UnusedParts {
    /// What the commit that deletes the entries up to this one deletes of the parts. `pairs` are all keys of
    /// parts, at the head before that commit or later, and `own` is the content that the commit itself has.
    pub(super) fn deletions(
        &mut self,
        pairs: &[Pair],
        own: Option<Hash>,
        truncated_to: Option<u64>,
        now: Instant,
    ) -> Vec<Operation> {
        // The last entry that has each content.
        let mut all: HashMap<Hash, Option<u64>> = HashMap::new();
        for (content, seq) in pairs.iter().filter_map(|pair| keys::content_of_part(&pair.key)) {
            let last = all.entry(content).or_default();
            *last = seq.max(*last);
        }
        own.map(|own| all.remove(&own));
        self.0.retain(|content, _| all.get(content) == Some(&None));
        let is_deleted = |(content, last): &(Hash, Option<u64>)| match last {
            Some(last) => truncated_to.is_some_and(|seq| *last <= seq),
            None => now.duration_since(*self.0.entry(*content).or_insert(now)) >= UNUSED,
        };
        let deleted = all.into_iter().filter(is_deleted).take(MAX_DELETED);
        deleted.map(|(content, _)| Operation::Delete(keys::parts(content))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: String) -> Pair {
        Pair { key, value: Bytes::new() }
    }

    #[test]
    fn parts_are_deleted_with_the_last_entry_that_has_them_or_unused_after_an_hour() {
        let [early, both, late, unused] = [b"a", b"b", b"c", b"d"].map(|text| blake3::hash(text));
        let mut pairs = vec![
            pair(keys::part_of_entry(early, 5)),
            pair(keys::part_of_entry(both, 5)),
            pair(keys::part_of_entry(both, 9)),
            pair(keys::part_of_entry(late, 9)),
        ];
        pairs.extend([early, both, late, unused].map(|content| pair(keys::part(content, 0))));
        let of = |contents: &[Hash]| {
            let all = contents.iter().map(|content| Operation::Delete(keys::parts(*content)));
            all.collect::<Vec<_>>()
        };
        let (mut parts, now) = (UnusedParts::default(), Instant::now());
        assert_eq!(parts.deletions(&pairs, None, None, now), []);
        assert_eq!(parts.deletions(&pairs, None, Some(4), now), []);
        assert_eq!(parts.deletions(&pairs, None, Some(8), now), of(&[early]));
        assert_eq!(parts.deletions(&pairs, None, None, now + UNUSED), of(&[unused]));
        // Parts that got an entry meanwhile begin anew.
        pairs.push(pair(keys::part_of_entry(unused, 10)));
        assert_eq!(parts.deletions(&pairs, None, None, now + UNUSED), []);
        pairs.pop();
        assert_eq!(parts.deletions(&pairs, None, None, now + UNUSED), []);
        assert_eq!(parts.deletions(&pairs, None, Some(9), now).len(), 3);
    }
}
