//! StoreChecksum: one number over everything in the store.
//!
//! sled skips records that it cannot read in the middle of its log. One corrupt byte would
//! therefore leave some facts old and others new, under the right head revision. Every batch
//! therefore also writes the sum of the hashes of all keys with their values. If the entries of a
//! store do not match that sum, the store is corrupt. Opening a store reads all of it to verify the
//! sum.
//!
//! INVARIANT (nothing outside the checksum): only [`apply`] changes the entries of a store. A
//! directory that is being restored is not a store yet; it gets its checksum at the end.
//!
//! Last-seen times are not covered: a crash may lose them.

use super::engine::{Engine, EngineError, WriteBatch};
use super::error::Corrupt;
use super::fact_sums::FactSums;
use super::usage::Moves;
use super::{chunked, key};

/// The sum of the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreChecksum(u128);

impl StoreChecksum {
    /// The checksum of all entries, and what is counted of them.
    pub(super) fn of(engine: &dyn Engine) -> Result<(Self, Moves), EngineError> {
        let (mut checksum, mut moves) = (Self::default(), Moves::default());
        for entry in engine.all() {
            let (entry_key, value) = entry?;
            checksum.add(&entry_key, &value);
            moves.note(&entry_key, false, true);
            if FactSums::has(&entry_key) {
                let of_value = Self::of_value(&entry_key, &value, |chunk| engine.get(chunk))?;
                moves.facts.add(&entry_key, of_value);
            }
        }
        Ok((checksum, moves))
    }

    /// The checksum that is stored.
    pub(super) fn stored(engine: &dyn Engine) -> Result<Option<Self>, EngineError> {
        let Some(bytes) = engine.get(key::CHECKSUM)? else { return Ok(None) };
        Ok(Some(Self::from_bytes(&bytes)?))
    }

    /// The checksum with these bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Corrupt> {
        Ok(Self(u128::from_be_bytes(bytes.try_into().map_err(|_| Corrupt)?)))
    }

    /// The bytes that are stored.
    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The checksum of a backup's entries.
    pub(super) fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// As a number.
    pub(super) fn number(self) -> u128 {
        self.0
    }

    /// The checksum of a value: of its entry, and of those of its chunks, which `read` reads.
    pub(super) fn of_value(
        entry_key: &[u8],
        value: &[u8],
        read: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut checksum = Self::default();
        checksum.add(entry_key, value);
        for chunk_key in chunked::chunks(value)? {
            let chunk = read(&chunk_key)?.ok_or(EngineError::Damaged)?;
            checksum.add(&chunk_key, &chunk);
        }
        Ok(checksum)
    }

    /// The checksum of the entries of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The checksum without the entries of the other.
    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }

    fn add(&mut self, entry_key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(entry_key, value));
    }

    fn take(&mut self, entry_key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(entry_key, value));
    }
}

fn hash(entry_key: &[u8], value: &[u8]) -> u128 {
    if !key::is_in_checksum(entry_key) {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    // The length comes first, so that a key with its value never hashes like another split of the
    // same bytes.
    hasher.update(&(entry_key.len() as u64).to_be_bytes()).update(entry_key).update(value);
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

/// Applies a batch with the checksum of the store after it, and returns how that changes what is counted.
pub(super) fn apply(
    engine: &dyn Engine,
    checksum: &mut StoreChecksum,
    batch: &mut WriteBatch,
) -> Result<Moves, EngineError> {
    let (mut next, mut moves) = (*checksum, Moves::default());
    for (entry_key, value) in batch.iter() {
        let fresh = value.is_some() && key::is_written_once(entry_key);
        let mut was = false;
        if !fresh && let Some(old) = engine.get(entry_key)? {
            next.take(entry_key, &old);
            was = true;
            if FactSums::has(entry_key) {
                let of_value = StoreChecksum::of_value(entry_key, &old, |chunk| engine.get(chunk))?;
                moves.facts.take(entry_key, of_value);
            }
        }
        moves.note(entry_key, was, value.is_some());
        if let Some(value) = value {
            next.add(entry_key, value);
            if FactSums::has(entry_key) {
                let chunk = |chunk: &[u8]| Ok(batch.get(chunk).flatten().map(<[u8]>::to_vec));
                let of_value = StoreChecksum::of_value(entry_key, value, chunk)?;
                moves.facts.add(entry_key, of_value);
            }
        }
    }
    batch.insert(key::CHECKSUM, next.bytes());
    engine.apply(batch)?;
    *checksum = next;
    Ok(moves)
}
