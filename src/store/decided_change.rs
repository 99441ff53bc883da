//! DecidedChange: a change that is to be committed, with the facts as they shall be and the bytes
//! that are stored.
//!
//! `decide` makes it of a proposal, and `replicated::entry` of a change of another replica. Both are
//! added to a batch by one function, [`BatchBuilder::add`](super::batch_builder::BatchBuilder::add),
//! which derives the rest. So the same changes make the same entries in every store.
//!
//! Not here: whether a proposal may be committed, and what follows from a change.

use jiff::Timestamp;

use super::checksum::StoreChecksum;
use super::quota::ByteAccount;
use super::{FactWrite, IdempotencyRecord, Receipt, RequestKey, record};
use crate::policy::change::Change;
use crate::policy::revision::Revision;

/// A change that is to be committed.
pub(super) struct DecidedChange {
    /// The facts that it writes.
    pub(super) writes: Vec<DecidedWrite>,
    /// The change, which has its revision and time.
    pub(super) change: Change,
    /// The record of the change, without its chain.
    pub(super) record: Vec<u8>,
    /// The result of its request, if it is stored.
    pub(super) result: Option<DecidedResult>,
}

/// The write of one fact, which has its revision and time.
pub(super) struct DecidedWrite {
    pub(super) write: FactWrite,
    /// The record of the fact; empty if the change removes the fact.
    pub(super) record: Vec<u8>,
    pub(super) replaced: ReplacedValue,
}

/// The value of a fact before a change; empty if there was none.
#[derive(Default)]
pub(super) struct ReplacedValue {
    /// The keys of its chunks.
    pub(super) chunks: Vec<Vec<u8>>,
    /// Its checksum. It is zero in a store that follows no log, and for a fact that garbage collection may
    /// have removed at another replica.
    pub(super) checksum: StoreChecksum,
}

/// The result of a request.
pub(super) struct DecidedResult {
    pub(super) key: RequestKey,
    pub(super) record: Vec<u8>,
    /// The keys of an earlier result of the same key, other than the key of the result itself.
    pub(super) replaced: Vec<Vec<u8>>,
}

impl DecidedChange {
    /// Its revision and time.
    pub(super) fn receipt(&self) -> Receipt {
        Receipt { revision: self.change.revision, time: self.change.time, waited: None }
    }

    /// The checksum of the values that it replaces.
    pub(super) fn replaced(&self) -> StoreChecksum {
        let replaced = self.writes.iter().map(|decided| decided.replaced.checksum);
        replaced.fold(StoreChecksum::default(), StoreChecksum::plus)
    }

    /// The account whose bytes of the day it uses.
    pub(super) fn account(&self) -> Option<ByteAccount> {
        ByteAccount::of(self.writes.iter().map(|decided| &decided.write), self.change.kind)
    }
}

impl DecidedWrite {
    /// The write at this revision and time.
    pub(super) fn new(
        mut write: FactWrite,
        replaced: ReplacedValue,
        revision: Revision,
        time: Timestamp,
    ) -> Self {
        if let Some(fact) = &mut write.after {
            fact.stamp(revision, time);
        }
        let record = write.after.as_ref().map(record::encode).unwrap_or_default();
        Self { write, record, replaced }
    }
}

impl From<IdempotencyRecord> for DecidedResult {
    /// The result of a request of which none is stored.
    fn from(IdempotencyRecord { key, body, result }: IdempotencyRecord) -> Self {
        Self { key, record: record::encode_result(body, result), replaced: Vec::new() }
    }
}
