//! Chain: one hash over the history of a store, so that two copies can prove that theirs is the
//! same.
//!
//! Each record of the change log has the chain up to itself: the BLAKE3 hash of the chain before
//! and of the record's bytes without its chain. The store keeps the chain at the head.
//!
//! - The chain of a new store begins with its incarnation ([`Chain::root`]).
//! - A restored store has a new incarnation. Its chain begins anew, with that incarnation and the
//!   chain of the backup ([`Chain::restored`]): the first record of the new chain is that of the
//!   restore. Earlier records keep the chain of their incarnation. Two stores that were restored
//!   from one backup therefore differ from their first record on.
//! - A store of a schema without chains begins with its incarnation, at the head of its upgrade.
//!   Earlier records have no chain.
//!
//! Not here: a check of a whole log; nothing needs it yet. The store checksum detects damage.

use super::Incarnation;

/// The context of the hash that begins a chain, so that no record hashes like a beginning.
const ROOT: &str = "scopegate 2026-11 root of the change chain";

/// The chain up to a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain([u8; blake3::OUT_LEN]);

impl Chain {
    /// The chain before the first record of a new store.
    pub(super) fn root(incarnation: Incarnation) -> Self {
        Self(blake3::derive_key(ROOT, incarnation.as_bytes()))
    }

    /// The chain before the first record of a restored store.
    pub(super) fn restored(self, incarnation: Incarnation) -> Self {
        Self(blake3::derive_key(ROOT, &[incarnation.as_bytes().as_slice(), &self.0].concat()))
    }

    /// The chain up to the next record, whose bytes are without its chain.
    pub(super) fn next(self, record: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        Self(*hasher.update(&self.0).update(record).finalize().as_bytes())
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The chain of these bytes, if they are one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}
