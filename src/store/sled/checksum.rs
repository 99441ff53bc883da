//! Tally: one number that stands for everything in the tree.
//!
//! sled passes over what it cannot read in the middle of its log, and goes on behind it: one
//! damaged byte would leave some facts as they were before, beside others as they are, under the
//! right head. So every batch also writes the sum of the hashes of all keys with their values,
//! and a store whose entries do not add up to it is damaged. Whoever opens a store reads all of
//! it for that.
//!
//! INVARIANT (nothing beside the tally): the tree is changed by [`WriteBatch::apply`] only. A tree
//! that is still being restored is no store yet; it is told its tally at the end.
//!
//! When credentials were last seen is not in it: a crash may forget that.

use std::collections::HashMap;

use sled::{Batch, Tree};

use super::engine_error::{EngineError, unavailable};
use super::usage::{Moves, SharedUsage};
use crate::store::{StoreError, key};

/// The sum of the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreChecksum(u128);

impl StoreChecksum {
    /// The tally of what is in the tree, and how much of it each company has.
    pub(super) fn of(tree: &Tree) -> Result<(Self, SharedUsage), EngineError> {
        let (mut tally, mut moves) = (Self::default(), Moves::default());
        for entry in tree.iter() {
            let (place, value) = entry?;
            tally.add(&place, &value);
            moves.note(&place, false, true);
        }
        Ok((tally, SharedUsage::of(moves)))
    }

    /// What the tree says that its tally is.
    pub(super) fn kept(tree: &Tree) -> Result<Option<Self>, EngineError> {
        let Some(bytes) = tree.get(key::TALLY)? else { return Ok(None) };
        let bytes = <[u8; 16]>::try_from(&*bytes).map_err(|_| EngineError::Damage)?;
        Ok(Some(Self(u128::from_be_bytes(bytes))))
    }

    /// The tally that a backup says its entries add up to.
    pub(super) fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// As a number.
    pub(super) fn number(self) -> u128 {
        self.0
    }

    fn add(&mut self, place: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(place, value));
    }

    fn take(&mut self, place: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(place, value));
    }
}

fn hash(place: &[u8], value: &[u8]) -> u128 {
    if !key::is_tallied(place) {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    // The length first, so that no key can pass for another with the start of its value.
    hasher.update(&(place.len() as u64).to_be_bytes()).update(place).update(value);
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

/// What is written as one.
#[derive(Default)]
pub(super) struct WriteBatch(HashMap<Vec<u8>, Option<Vec<u8>>>);

impl WriteBatch {
    pub(super) fn insert(&mut self, place: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(place.into(), Some(value.into()));
    }

    pub(super) fn remove(&mut self, place: impl Into<Vec<u8>>) {
        self.0.insert(place.into(), None);
    }

    /// The places, with what shall lie there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(place, value)| (place.as_slice(), value.as_deref()))
    }

    /// Writes them with the tally that comes of it. What companies have is not counted.
    pub(super) fn apply(&self, tree: &Tree, tally: &mut StoreChecksum) -> Result<(), StoreError> {
        self.write(tree, tally).map(drop)
    }

    /// Writes them with the tally that comes of it, and counts what companies have then.
    pub(super) fn apply_counted(
        &self,
        tree: &Tree,
        tally: &mut StoreChecksum,
        usage: &SharedUsage,
    ) -> Result<(), StoreError> {
        usage.apply(self.write(tree, tally)?);
        Ok(())
    }

    fn write(&self, tree: &Tree, tally: &mut StoreChecksum) -> Result<Moves, StoreError> {
        let (mut batch, mut next) = (Batch::default(), *tally);
        let mut moves = Moves::default();
        for (place, value) in self.iter() {
            let fresh = value.is_some() && key::is_written_once(place);
            let mut was = false;
            if !fresh && let Some(old) = tree.get(place).map_err(|error| unavailable(&error))? {
                next.take(place, &old);
                was = true;
            }
            moves.note(place, was, value.is_some());
            match value {
                Some(value) => {
                    next.add(place, value);
                    batch.insert(place, value);
                }
                None => batch.remove(place),
            }
        }
        batch.insert(key::TALLY, &next.0.to_be_bytes());
        tree.apply_batch(batch).map_err(|error| unavailable(&error))?;
        *tally = next;
        Ok(moves)
    }
}
