//! Fuzz: a door to what is read from disk, for `fuzz/` alone. No other build has it.

use super::{Fact, FactKey, StoredReply, key, record};
use crate::policy::change::Change;
use crate::policy::revision::Revision;

/// The fact that these bytes are; none if they are damage.
#[must_use]
pub fn fact(key: &FactKey, revision: Revision, bytes: &[u8]) -> Option<Fact> {
    record::decode(key, revision, bytes).ok()
}

/// A fact as bytes.
#[must_use]
pub fn fact_bytes(fact: &Fact) -> Vec<u8> {
    record::encode(fact)
}

/// The change that these bytes are.
#[must_use]
pub fn change(revision: Revision, bytes: &[u8]) -> Option<Change> {
    record::decode_change(revision, bytes).ok()
}

/// A change as bytes.
#[must_use]
pub fn change_bytes(change: &Change) -> Vec<u8> {
    record::encode_change(change)
}

/// What these bytes keep of a request.
#[must_use]
pub fn answered(bytes: &[u8]) -> Option<StoredReply> {
    record::decode_answered(bytes).ok()
}

/// What is kept of a request, as bytes.
#[must_use]
pub fn answered_bytes(answered: StoredReply) -> Vec<u8> {
    record::encode_answered(answered)
}

/// Whether a key that reads as one of the dead, or of the answered, is written the same way.
#[must_use]
pub fn keys_are_read_as_written(place: &[u8]) -> bool {
    let dead = key::dead_of(place).is_none_or(|dead| key::dead(dead) == place);
    let answered = key::answered_of(place);
    dead && answered.is_none_or(|(at, request)| key::answered_at(at, &request) == place)
}
