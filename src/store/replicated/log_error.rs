//! LogError: why a store does not follow the log of the replicas, or does not apply its entries.

use super::FORMAT;
use crate::policy::revision::Revision;
use crate::store::{Incarnation, StoreError};

/// Why a store does not follow a log, or does not apply entries. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A later version of the program wrote the entry.
    #[error(
        "an entry of format {needs} cannot be read by this version, which reads formats up to \
         {FORMAT}: upgrade this replica"
    )]
    Format {
        /// The format that the program must know.
        needs: u32,
    },
    /// The content of an entry cannot be read.
    #[error(
        "an entry of format {format} cannot be read: it is damaged, or this replica needs the \
         version that wrote it"
    )]
    Unreadable {
        /// The format of the entry.
        format: u32,
    },
    /// Bytes of the log that do not decode.
    #[error("the {0} in the log is damaged")]
    Damaged(&'static str),
    /// The log is closed.
    #[error("the log is closed: no replica may join it")]
    Closed,
    /// The log belongs to other stores.
    #[error(
        "the log has incarnation `{log}`, and this store has `{store}`: start with --resync to replace \
         this store by that of another replica"
    )]
    Incarnation {
        /// The incarnation of the log.
        log: Incarnation,
        /// That of the store.
        store: Incarnation,
    },
    /// An entry is missing, or was applied before.
    #[error("entry {found} of the log does not follow entry {last}, the last one of this store")]
    Sequence {
        /// The last entry that was applied.
        last: u64,
        /// The entry that was to be applied.
        found: u64,
    },
    /// The entry, or the one before it, is not the one of the log that this store follows.
    #[error("entry {0} of the log has another history than this store")]
    History(u64),
    /// The revisions of the log and of the store differ.
    #[error("the log is at revision {log}, and this store at {store}")]
    Revision {
        /// The revision of the log.
        log: Revision,
        /// That of the store.
        store: Revision,
    },
    /// The store follows a log already.
    #[error("this store follows a log already")]
    Following,
    /// The store follows no log.
    #[error("this store follows no log")]
    NotFollowing,
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
