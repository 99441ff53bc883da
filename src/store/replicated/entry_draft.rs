//! EntryDraft: the entries that a batch of own changes makes.
//!
//! Not here: the commit of the entries to the log.

use prost::Message;
use uuid::Uuid;

use super::LogPosition;
use super::entry::{Entry, EntryChange, MAX_BYTES};
use crate::store::StoreError;
use crate::store::decided_change::DecidedChange;

/// More than the bytes of an entry without changes.
const HEADER: usize = 256;
/// More than the bytes by which an entry names one change and its length.
const FIELD: usize = 8;

/// The entries of a batch that is being decided.
pub(in crate::store) struct EntryDraft {
    /// After the complete entries.
    position: LogPosition,
    /// The complete entries, as the log has them.
    complete: Vec<Vec<u8>>,
    /// The entry that takes the next change, and about how many bytes it has.
    open: Option<(Entry, usize)>,
}

impl EntryDraft {
    /// No entries, after this position.
    pub(in crate::store) fn new(position: LogPosition) -> Self {
        Self { position, complete: Vec::new(), open: None }
    }

    /// Adds a change. A change for which the last entry has no room begins another one.
    pub(in crate::store) fn push(&mut self, decided: &DecidedChange) -> Result<(), StoreError> {
        let change = EntryChange::of(decided);
        let bytes = FIELD + change.message().encoded_len();
        if HEADER + bytes > MAX_BYTES {
            return Err(StoreError::EntryTooLarge(bytes));
        }
        if self.open.as_ref().is_some_and(|(_, size)| size + bytes > MAX_BYTES) {
            self.complete();
        }
        let receipt = decided.receipt();
        let (entry, size) = self.open.get_or_insert_with(|| {
            let entry = Entry {
                seq: self.position.seq + 1,
                first_revision: receipt.revision,
                incarnation: self.position.incarnation,
                prev: self.position.hash,
                id: Uuid::new_v4(),
                time: receipt.time,
                changes: Vec::new(),
            };
            (entry, HEADER)
        });
        entry.time = receipt.time;
        entry.changes.push(change);
        *size += bytes;
        Ok(())
    }

    /// The entries, as the log has them, and the position after them.
    pub(in crate::store) fn finish(mut self) -> (Vec<Vec<u8>>, LogPosition) {
        self.complete();
        (self.complete, self.position)
    }

    fn complete(&mut self) {
        if let Some((entry, _)) = self.open.take() {
            let bytes = entry.encode();
            let hash = blake3::hash(&bytes);
            self.position = LogPosition { seq: entry.seq, hash, ..self.position };
            self.complete.push(bytes);
        }
    }
}
