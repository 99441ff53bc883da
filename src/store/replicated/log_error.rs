//! LogError: why a store does not follow the log of the replicas, or does not apply its entries.

use uuid::Uuid;

use super::{FORMAT, OLDEST_FORMAT};
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
    /// A version of the program that is too old writes the entries.
    #[error(
        "the log has entries of format {has}, and this version writes formats from {OLDEST_FORMAT} on: run \
         the version before this one, and `scopegate replicas finalize` with it"
    )]
    OldFormat {
        /// The format of the log.
        has: u32,
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
    /// There is no log under the prefix.
    #[error(
        "etcd has no log under this prefix: correct the prefix, or begin the cluster: a new one with \
         `scopegate replicas init`, and one whose etcd has lost its data with `--again`"
    )]
    Missing,
    /// The log is closed.
    #[error(
        "the log is closed, so no replica joins it: its store was made that of a single server, or the \
         cluster is being replaced, or etcd was set back; begin a cluster again with `scopegate replicas \
         init --again` or `--replace`"
    )]
    Closed,
    /// The log belongs to another cluster.
    #[error("the log is that of the cluster `{log}`, and this store follows that of `{store}`")]
    Cluster {
        /// The cluster of the log.
        log: Uuid,
        /// That of the store.
        store: Uuid,
    },
    /// The log ends before the last entry of this store, or has another one there.
    #[error(
        "the log ends at entry {log}, and this store has applied other entries up to {store}: etcd was set \
         back; initialise the cluster again with `scopegate replicas init --again`"
    )]
    SetBack {
        /// The last entry of the log.
        log: u64,
        /// That of the store.
        store: u64,
    },
    /// The next entry is no longer in the log.
    #[error(
        "entry {0}, the next one of this store, is no longer in the log, so this replica needs the store of another one"
    )]
    Truncated(u64),
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
    #[error(
        "entry {0} of the log has another history than this store: etcd was set back, or the store is of \
         another cluster; stop all replicas, and initialise the cluster again with `scopegate replicas \
         init --again` from the store with the highest revision, or start this one with --resync"
    )]
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
