//! LogPosition: the log that a store follows, and the last entry that it has applied.

use blake3::Hash;

use super::entry::Entry;
use super::head::Head;
use super::{LogError, hash};
use crate::store::engine::{Engine, EngineError};
use crate::store::error::Corrupt;
use crate::store::{Incarnation, key};

/// The last entry that a store has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The incarnation of the log and of the store.
    pub incarnation: Incarnation,
    /// The number of the entry; that of the head if the store has applied none.
    pub seq: u64,
    /// The hash of the entry. The next one has it as `prev`.
    pub hash: Hash,
}

impl LogPosition {
    /// The position of a store at this head.
    pub(in crate::store) fn of(head: &Head) -> Self {
        Self { incarnation: head.incarnation, seq: head.seq, hash: head.hash }
    }

    /// The position after this entry with this hash, if the entry is the next one.
    pub(in crate::store) fn after(self, entry: &Entry, hash: Hash) -> Result<Self, LogError> {
        if entry.incarnation != self.incarnation {
            let (log, store) = (entry.incarnation, self.incarnation);
            return Err(LogError::Incarnation { log, store });
        }
        if Some(entry.seq) != self.seq.checked_add(1) {
            return Err(LogError::Sequence { last: self.seq, found: entry.seq });
        }
        if entry.prev != self.hash {
            return Err(LogError::History(entry.seq));
        }
        Ok(Self { seq: entry.seq, hash, ..self })
    }

    /// The position that the store of this incarnation has stored.
    pub(in crate::store) fn stored(
        engine: &dyn Engine,
        incarnation: Incarnation,
    ) -> Result<Option<Self>, EngineError> {
        let Some(bytes) = engine.get(key::LOG_POSITION)? else { return Ok(None) };
        let (seq, last) = bytes.split_first_chunk::<8>().ok_or(Corrupt)?;
        Ok(Some(Self { incarnation, seq: u64::from_be_bytes(*seq), hash: hash(last)? }))
    }

    /// Its bytes in the store, whose incarnation is stored next to it.
    pub(in crate::store) fn bytes(&self) -> Vec<u8> {
        [&self.seq.to_be_bytes(), self.hash.as_bytes().as_slice()].concat()
    }
}
