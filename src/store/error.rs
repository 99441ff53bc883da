//! Error: why the store did not commit a proposal or answer a read.

use super::quota::Reached;
use crate::policy::revision::Revision;

/// Why a proposal was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A fact that it rests on has changed: read again and propose again.
    #[error("a fact that the change rests on has changed")]
    Conflict,
    /// The engine cannot commit.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the engine cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// More changes wait than the engine's queue holds.
    #[error("too many changes wait to be committed")]
    Busy,
    /// There is too little space left for a change that gives something to somebody.
    #[error(
        "the disk is nearly full: until space is freed, only changes that take away are accepted \
         (revoke, restrict, disable, delete)"
    )]
    NearlyFull,
    /// There is too little space left for any change but the deletion of keys.
    #[error("the disk is nearly full: until space is freed, nothing but keys can be deleted")]
    KeysOnly,
    /// There is too little space left to change anything. What is kept can be read.
    #[error("the disk is full: nothing is changed until space is freed")]
    Full,
    /// The company has as much as it may have.
    #[error("`{name}` {0}", name = .0.bound.name())]
    AtBound(Reached),
    /// The disk failed, or the engine is closed. Nothing more will be acknowledged.
    #[error("the store cannot answer")]
    Unavailable,
    /// What is kept does not read as what was written.
    #[error("the store is damaged")]
    Damaged,
    /// As many backups are under way as there may be.
    #[error("two backups are under way: wait for the end of one")]
    TooManyBackups,
    /// More was changed while a backup was made than its client has taken in time.
    #[error(
        "changes have overtaken the backup: make it again, nearer to the server or to a faster disk"
    )]
    BackupTooSlow,
    /// Changes up to this revision were asked for and are no longer kept.
    #[error(
        "changes up to revision {0} are no longer kept: read the state anew, and go on after it"
    )]
    Compacted(Revision),
}

/// Bytes that are not what was written.
#[derive(Debug)]
pub(super) struct Corrupt;

impl From<prost::DecodeError> for Corrupt {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

impl From<Corrupt> for StoreError {
    fn from(_: Corrupt) -> Self {
        Self::Damaged
    }
}
