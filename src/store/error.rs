//! Error: why the store did not commit a proposal or answer a read.

use super::engine::EngineError;
use super::quota::Reached;
use crate::policy::revision::Revision;

/// Why a proposal was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A precondition no longer holds: read again and propose again.
    #[error("a precondition of the change no longer holds")]
    Conflict,
    /// The store cannot commit.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The command queue is full.
    #[error("too many changes wait to be committed")]
    Busy,
    /// The disk has too little space for a change that grants anything.
    #[error(
        "the disk is nearly full: until space is freed, only changes that remove access are accepted \
         (revoke, restrict, disable, delete)"
    )]
    NearlyFull,
    /// The disk has too little space for any change except the deletion of keys.
    #[error("the disk is nearly full: until space is freed, only API keys can be deleted")]
    KeysOnly,
    /// The disk has too little space for any change. Reads work.
    #[error("the disk is full: no change is accepted until space is freed")]
    Full,
    /// The database of etcd, which has the log of the replicas, has too little space for an import or for a
    /// change that grants anything.
    #[error(
        "the database of etcd is nearly full: until it has space again, only changes that remove access are \
         accepted (revoke, restrict, disable, delete), and imports wait; compact its history, or raise its \
         quota and `quota` in --replicate"
    )]
    LogNearlyFull,
    /// The company has reached a quota.
    #[error("`{name}` {0}", name = .0.bound.name())]
    AtBound(Reached),
    /// An entry of the replicas' log has no room for the change. A later format of the log may have it.
    #[error(
        "the change has {bytes} bytes, and one entry of the log of the replicas has at most {limit}: make \
         several smaller changes{}",
        match *limit < super::replicated::entry_parts::MAX_PARTS_BYTES {
            true => ", or let the log have larger ones with `scopegate replicas finalize`",
            false => "",
        }
    )]
    EntryTooLarge {
        /// The bytes of the change.
        bytes: usize,
        /// The limit of an entry in the format of the log.
        limit: usize,
    },
    /// This replica cannot prove that it has every acknowledged change, so it answers nothing.
    #[error(
        "this replica has no lease, so it cannot prove that it has every change: ask another replica, or \
         ask again"
    )]
    CutOff,
    /// The clock of this replica is behind those of most others, so it answers nothing.
    #[error(
        "the clock of this replica is more than 5 s behind those of most other replicas, so it answers \
         nothing: ask another replica, and set the clock of this machine"
    )]
    ClockBehind,
    /// Most other replicas say that the clock of this one is ahead, so it makes no changes and no tokens.
    #[error(
        "the clock of this replica is more than 5 s ahead of those of most other replicas, so it makes no \
         changes and issues no tokens: ask another replica, and set the clock of this machine"
    )]
    ClockAhead,
    /// The change is committed at this revision, and not every replica that may answer has confirmed it in
    /// time. None: it is not known whether the change is committed.
    #[error(
        "{}: send the same request again, with its `request_id` if it had one",
        match .0 {
            Some(at) => format!(
                "the change is committed at revision {at}, and not every replica has confirmed it yet"
            ),
            None => "it is not known whether a change is committed and every replica shows it".to_owned(),
        }
    )]
    NotYetEverywhere(Option<Revision>),
    /// The disk failed, or the store is closed. No more changes are acknowledged.
    #[error("the store cannot answer")]
    Unavailable,
    /// The stored data is corrupt.
    #[error("the store is damaged")]
    Damaged,
    /// The limit of concurrent backups is reached.
    #[error("two backups are in progress: wait until one of them has ended")]
    TooManyBackups,
    /// The client of a backup was too slow: the queue of batches for it is full.
    #[error(
        "the backup client was too slow for the rate of changes: run the backup again, nearer to the server or to a faster disk"
    )]
    BackupTooSlow,
    /// The caller requested changes up to this revision, and garbage collection has removed them.
    #[error(
        "changes up to revision {0} are no longer stored: read the current state, and continue after it"
    )]
    Compacted(Revision),
}

/// Bytes that do not decode.
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

impl From<Corrupt> for EngineError {
    fn from(_: Corrupt) -> Self {
        Self::Damaged
    }
}

impl From<EngineError> for CommitError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

impl From<EngineError> for StoreError {
    /// Logs the error of the engine, and returns one without its text, so that no driver message
    /// reaches a client.
    fn from(error: EngineError) -> Self {
        if let EngineError::Panicked(error) = error {
            return (*error).into();
        }
        tracing::error!(%error, "the engine of the store failed");
        match error {
            EngineError::Damaged => Self::Damaged,
            EngineError::Locked | EngineError::Panicked(_) | EngineError::Io(_) => {
                Self::Unavailable
            }
        }
    }
}
