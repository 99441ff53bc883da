//! Refusal: why a replica may not join the log, however often it tries.
//!
//! Not here: what makes a replica wait; see [`MembershipState::Joining`](super::MembershipState::Joining).

use bytes::Bytes;
use uuid::Uuid;

use super::super::head::{Head, HeadState};
use super::super::{LogError, LogPosition};
use crate::store::Incarnation;

/// Why a replica may not join. Its text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The prefix has no head.
    #[error(
        "etcd has no cluster below this prefix any more: stop all replicas, and begin the cluster again with \
         `scopegate replicas init --again` from the store with the highest revision"
    )]
    NoCluster,
    /// The log belongs to another cluster than the store.
    #[error(
        "the log belongs to the cluster `{log}`, and this store to the cluster `{store}`: correct \
         the URL, or start with --resync if the cluster was replaced"
    )]
    Cluster {
        /// The cluster of the log.
        log: Uuid,
        /// That of the store.
        store: Uuid,
    },
    /// The log has lost entries that this store has applied: etcd was restored from a backup.
    #[error(
        "the log was set back: it ends with entry {log}, and this store has entry {store} of \
         another history; stop all replicas, and initialise the cluster again from the store with \
         the highest revision"
    )]
    SetBack {
        /// The last entry of the log.
        log: u64,
        /// The last entry that the store has applied.
        store: u64,
    },
    /// The log is closed, has another incarnation, or cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The log that a replica may join.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnLog {
    /// The cluster of the store.
    pub cluster: Uuid,
    /// The incarnation of the store.
    pub incarnation: Incarnation,
}

impl OwnLog {
    /// The head of these bytes, if the replica may join its log. `applied` is the last entry that the
    /// store had applied before the head was read. etcd confirms an entry before any store applies it,
    /// so a head cannot be behind it.
    pub(super) fn check(&self, head: &Bytes, applied: LogPosition) -> Result<Head, Refusal> {
        let head = Head::decode(head)?;
        if head.cluster != self.cluster {
            return Err(Refusal::Cluster { log: head.cluster, store: self.cluster });
        }
        if head.incarnation != self.incarnation {
            let (log, store) = (head.incarnation, self.incarnation);
            return Err(LogError::Incarnation { log, store }.into());
        }
        if head.state != HeadState::Open {
            return Err(LogError::Closed.into());
        }
        head.check_format()?;
        if head.seq < applied.seq || is_contradicted(&head, applied) {
            return Err(Refusal::SetBack { log: head.seq, store: applied.seq });
        }
        Ok(head)
    }
}

/// Whether a store has another entry at the place of the log's last one.
pub(super) fn is_contradicted(head: &Head, applied: LogPosition) -> bool {
    head.seq == applied.seq && head.hash != applied.hash
}
