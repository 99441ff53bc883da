//! Fuzz: access to the decoders of stored data, for the targets in `fuzz/`. No other build includes
//! it.

use super::{Fact, FactKey, StoredReply, key, record};
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

/// Decodes a stored reply.
#[must_use]
pub fn reply(bytes: &[u8]) -> Option<StoredReply> {
    record::decode_reply(bytes).ok()
}

/// Encodes a stored reply.
#[must_use]
pub fn reply_bytes(reply: StoredReply) -> Vec<u8> {
    record::encode_reply(reply)
}

/// Whether a key that decodes as a tombstone or as the time of a reply is encoded to the same
/// bytes.
#[must_use]
pub fn keys_are_read_as_written(entry_key: &[u8]) -> bool {
    let tombstone = key::tombstone_of(entry_key).is_none_or(|of| key::tombstone(of) == entry_key);
    let reply_time = key::reply_time_of(entry_key);
    tombstone && reply_time.is_none_or(|(at, request)| key::reply_time(at, &request) == entry_key)
}
