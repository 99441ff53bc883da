//! StoreChecksum: one number over everything in the tree.
//!
//! sled skips records that it cannot read in the middle of its log. One corrupt byte would
//! therefore leave some facts old and others new, under the right head revision. Every batch
//! therefore also writes the sum of the hashes of all keys with their values. If the entries of a
//! store do not match that sum, the store is corrupt. Opening a store reads all of it to verify the
//! sum.
//!
//! INVARIANT (nothing outside the checksum): only [`WriteBatch::apply`] changes the tree. A tree
//! that is being restored is not a store yet; it gets its checksum at the end.
//!
//! Last-seen times are not covered: a crash may lose them.

use std::collections::HashMap;

use sled::{Batch, Tree};

use super::engine_error::{EngineError, unavailable};
use super::usage::{Moves, SharedUsage};
use crate::store::{StoreError, key};

/// The sum of the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreChecksum(u128);

impl StoreChecksum {
    /// The checksum of the tree, and how much each company has in it.
    pub(super) fn of(tree: &Tree) -> Result<(Self, SharedUsage), EngineError> {
        let (mut checksum, mut moves) = (Self::default(), Moves::default());
        for entry in tree.iter() {
            let (tree_key, value) = entry?;
            checksum.add(&tree_key, &value);
            moves.note(&tree_key, false, true);
        }
        Ok((checksum, SharedUsage::of(moves)))
    }

    /// The checksum that is stored in the tree.
    pub(super) fn stored(tree: &Tree) -> Result<Option<Self>, EngineError> {
        let Some(bytes) = tree.get(key::CHECKSUM)? else { return Ok(None) };
        let bytes = <[u8; 16]>::try_from(&*bytes).map_err(|_| EngineError::Damage)?;
        Ok(Some(Self(u128::from_be_bytes(bytes))))
    }

    /// The checksum of a backup's entries.
    pub(super) fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// As a number.
    pub(super) fn number(self) -> u128 {
        self.0
    }

    fn add(&mut self, tree_key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(tree_key, value));
    }

    fn take(&mut self, tree_key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(tree_key, value));
    }
}

fn hash(tree_key: &[u8], value: &[u8]) -> u128 {
    if !key::is_in_checksum(tree_key) {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    // The length comes first, so that a key with its value never hashes like another split of the
    // same bytes.
    hasher.update(&(tree_key.len() as u64).to_be_bytes()).update(tree_key).update(value);
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

/// A batch of writes that is applied atomically.
#[derive(Default)]
pub(super) struct WriteBatch(HashMap<Vec<u8>, Option<Vec<u8>>>);

impl WriteBatch {
    pub(super) fn insert(&mut self, tree_key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(tree_key.into(), Some(value.into()));
    }

    pub(super) fn remove(&mut self, tree_key: impl Into<Vec<u8>>) {
        self.0.insert(tree_key.into(), None);
    }

    /// The keys, each with its new value or `None`.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(tree_key, value)| (tree_key.as_slice(), value.as_deref()))
    }

    /// Applies the batch and updates the checksum. It does not update the counts of companies.
    pub(super) fn apply(
        &self,
        tree: &Tree,
        checksum: &mut StoreChecksum,
    ) -> Result<(), StoreError> {
        self.write(tree, checksum).map(drop)
    }

    /// Applies the batch, and updates the checksum and the counts of companies.
    pub(super) fn apply_counted(
        &self,
        tree: &Tree,
        checksum: &mut StoreChecksum,
        usage: &SharedUsage,
    ) -> Result<(), StoreError> {
        usage.apply(self.write(tree, checksum)?);
        Ok(())
    }

    fn write(&self, tree: &Tree, checksum: &mut StoreChecksum) -> Result<Moves, StoreError> {
        let (mut batch, mut next) = (Batch::default(), *checksum);
        let mut moves = Moves::default();
        for (tree_key, value) in self.iter() {
            let fresh = value.is_some() && key::is_written_once(tree_key);
            let mut was = false;
            if !fresh && let Some(old) = tree.get(tree_key).map_err(|error| unavailable(&error))? {
                next.take(tree_key, &old);
                was = true;
            }
            moves.note(tree_key, was, value.is_some());
            match value {
                Some(value) => {
                    next.add(tree_key, value);
                    batch.insert(tree_key, value);
                }
                None => batch.remove(tree_key),
            }
        }
        batch.insert(key::CHECKSUM, &next.0.to_be_bytes());
        tree.apply_batch(batch).map_err(|error| unavailable(&error))?;
        *checksum = next;
        Ok(moves)
    }
}
