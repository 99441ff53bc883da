//! Fuzz: access to the decoders of stored data, for the targets in `fuzz/`. No other build includes
//! it.

use super::{Fact, FactKey, StoredResult, WriteResult, key, record};
use crate::policy::change::Change;
use crate::policy::revision::Revision;

/// Decodes a fact; `None` if the bytes are corrupt.
#[must_use]
pub fn fact(key: &FactKey, revision: Revision, bytes: &[u8]) -> Option<Fact> {
    record::decode(key, revision, bytes).ok()
}

/// Encodes a fact.
#[must_use]
pub fn fact_bytes(fact: &Fact) -> Vec<u8> {
    record::encode(fact)
}

/// Decodes a change.
#[must_use]
pub fn change(revision: Revision, bytes: &[u8]) -> Option<Change> {
    record::decode_change(revision, bytes).ok()
}

/// Encodes a change.
#[must_use]
pub fn change_bytes(change: &Change) -> Vec<u8> {
    record::encode_change(change)
}

/// Decodes the stored result of a request.
#[must_use]
pub fn result(bytes: &[u8]) -> Option<StoredResult> {
    record::decode_result(Revision::ZERO, bytes).ok()
}

/// Encodes the result of a request with this digest.
#[must_use]
pub fn result_bytes(body: [u8; 32], result: WriteResult) -> Vec<u8> {
    record::encode_result(body, result)
}

/// Whether a key that decodes as a tombstone or as the time of a reply is encoded to the same
/// bytes.
#[must_use]
pub fn keys_are_read_as_written(entry_key: &[u8]) -> bool {
    let tombstone = key::tombstone_of(entry_key).is_none_or(|of| key::tombstone(of) == entry_key);
    let reply_time = key::reply_time_of(entry_key);
    tombstone && reply_time.is_none_or(|(at, request)| key::reply_time(at, &request) == entry_key)
}
