//! EntryDraft: the entry that a batch of own changes makes.
//!
//! Not here: the commit of the entry to the log.

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::LogPosition;
use super::entry::{Entry, EntryChange, FORMAT_OF_PARTS, MAX_BYTES, REPLACED_FORMAT};
use super::entry_parts::{EntryParts, MAX_PARTS_BYTES};
use crate::policy::revision::Revision;
use crate::store::StoreError;
use crate::store::decided_change::DecidedChange;

/// More than the bytes of an entry without changes.
const HEADER: usize = 256;
/// More than the bytes by which an entry names one change and its length.
const FIELD: usize = 8;

/// The entry of a batch that is being decided.
pub(in crate::store) struct EntryDraft {
    before: LogPosition,
    /// The format of the entry.
    format: u32,
    /// The entry, its last revision, and about how many bytes it has.
    open: Option<(Entry, Revision, usize)>,
}

/// An entry of own changes that is to be committed to the log.
#[derive(Clone, Debug)]
pub(in crate::store) struct NewEntry {
    /// The entry before it.
    pub(in crate::store) before: LogPosition,
    /// The position behind it.
    pub(in crate::store) after: LogPosition,
    /// Its last revision.
    pub(in crate::store) revision: Revision,
    /// Its time.
    pub(in crate::store) time: Timestamp,
    /// The entry, as the log has it.
    pub(in crate::store) bytes: Vec<u8>,
    /// The parts that the entry names, and their content.
    pub(in crate::store) parts: Option<(EntryParts, Bytes)>,
}

impl NewEntry {
    /// The bytes of the entry and of its parts.
    pub(super) fn size(&self) -> u64 {
        let parts = self.parts.as_ref().map_or(0, |(parts, _)| parts.bytes);
        (self.bytes.len() + parts) as u64
    }
}

impl EntryDraft {
    /// No entry, after this position and in this format.
    pub(in crate::store) fn new(before: LogPosition, format: u32) -> Self {
        Self { before, format, open: None }
    }

    /// Adds a change. False: the entry has no room for it, but the next one has.
    pub(in crate::store) fn push(&mut self, decided: &DecidedChange) -> Result<bool, StoreError> {
        let change = EntryChange::of(decided);
        let bytes = FIELD + change.message().encoded_len();
        let limit = match self.format {
            FORMAT_OF_PARTS.. => MAX_PARTS_BYTES,
            _ => MAX_BYTES,
        };
        if HEADER + bytes > limit {
            return Err(StoreError::EntryTooLarge { bytes, limit });
        }
        if self.open.as_ref().is_some_and(|(.., size)| size + bytes > MAX_BYTES) {
            return Ok(false);
        }
        let receipt = decided.receipt();
        let (entry, last, size) = self.open.get_or_insert_with(|| {
            let entry = Entry {
                seq: self.before.seq + 1,
                first_revision: receipt.revision,
                incarnation: self.before.incarnation,
                prev: self.before.hash,
                id: Uuid::new_v4(),
                time: receipt.time,
                format: self.format,
                replaced: (self.format >= REPLACED_FORMAT).then(Default::default),
                changes: Vec::new(),
                parts: None,
            };
            (entry, receipt.revision, HEADER)
        });
        (entry.time, *last) = (receipt.time, receipt.revision);
        entry.replaced = entry.replaced.map(|sum| sum.plus(decided.replaced()));
        entry.changes.push(change);
        *size += bytes;
        Ok(true)
    }

    /// The entry; none without changes.
    pub(in crate::store) fn finish(self) -> Option<NewEntry> {
        let (mut entry, revision, size) = self.open?;
        // Nothing else has a place in an entry with a change of that size.
        let content = if size > MAX_BYTES { entry.move_to_parts() } else { None };
        let parts = entry.parts.zip(content.map(Bytes::from));
        let bytes = entry.encode();
        let after = LogPosition { seq: entry.seq, hash: blake3::hash(&bytes), ..self.before };
        Some(NewEntry { before: self.before, after, revision, time: entry.time, bytes, parts })
    }
}
