//! Replicated: the log of entries that several replicas share, and how a store follows it.
//!
//! A replica writes each batch of its own changes as an [`Entry`], and applies the entries of all
//! replicas in the order of the log. An entry has the facts after its changes, not the calls that made
//! them. A replica stores the same bytes and decides nothing again. The store keeps its
//! [`LogPosition`] in the batch that applies an entry.
//!
//! INVARIANT (one log): an entry is applied only directly after the entry whose hash it has, to a
//! store of its incarnation, and whole or not at all.
//!
//! Not here: who orders the entries, who may write them, and when a change is acknowledged.

mod barrier;
mod barrier_metrics;
mod clocks;
pub mod closing;
pub mod cluster;
pub mod compaction;
pub mod entry;
mod entry_draft;
mod entry_log;
pub mod entry_parts;
pub mod etcd;
mod etcd_log;
mod etcd_space;
pub mod fact_comparison;
pub mod finalisation;
mod followed;
mod follower;
pub mod head;
pub mod initialisation;
pub mod keys;
pub mod listing;
mod log_error;
mod log_metrics;
mod log_page;
mod log_position;
pub mod member_record;
pub mod members_task;
pub mod members_view;
pub mod membership;
pub mod peer_client;
mod replica;
pub mod replica_list;
mod replica_report;
mod seen_task;
mod seen_times;
mod settings;
#[cfg(test)]
mod simulation;
pub mod truncation;
mod turn;

use std::sync::mpsc;

use blake3::Hash;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

pub use self::barrier::{Waited, Waiter};
pub use self::barrier_metrics::{BarrierMetrics, CountByName};
pub(in crate::store) use self::clocks::{Clocks, MAX_APART};
pub use self::cluster::Cluster;
pub(in crate::store) use self::entry_draft::{EntryDraft, NewEntry};
pub(in crate::store) use self::entry_log::{EntryLog, EntryOutcome, LogWriter};
pub use self::etcd_space::EtcdSpace;
pub(in crate::store) use self::etcd_space::LogSpace;
pub use self::followed::Followed;
pub use self::log_error::LogError;
pub use self::log_metrics::LogMetrics;
pub use self::log_position::LogPosition;
pub use self::replica::{LogSummary, Replica, ReplicaError};
pub use self::replica_report::ReplicaReport;
pub use self::settings::Settings;
use super::backup::Backup;
use super::engine::EngineError;
use super::error::Corrupt;
use super::{Store, StoreError};
use entry::Entry;
use head::{Head, HeadState};

/// The latest format of entries that this program reads and writes.
pub const FORMAT: u32 = 2;
/// The earliest format that it writes. Two formats let two versions of the program serve one cluster.
pub const OLDEST_FORMAT: u32 = FORMAT - 1;

/// The position of a store after it has applied entries.
pub type AppliedEntries = oneshot::Receiver<Result<LogPosition, LogError>>;

/// The messages of the service of a replica beside the API of the platform.
pub mod peer {
    pub use super::proto::peer_service_client::PeerServiceClient;
    pub use super::proto::{
        EtcdNode, FactSumsAt, FactSumsRequest, FactSumsResponse, KindSum, ListedReplica,
        ReplicasRequest, ReplicasResponse, SnapshotRequest, SnapshotResponse,
    };
    /// The method of a snapshot.
    pub const SNAPSHOT: &str = "/scopegate.replica.v1.PeerService/Snapshot";
    /// The method that lists the replicas.
    pub const REPLICAS: &str = "/scopegate.replica.v1.PeerService/Replicas";
    /// The method of the sums of facts.
    pub const FACT_SUMS: &str = "/scopegate.replica.v1.PeerService/FactSums";
}

mod proto {
    #![allow(missing_docs, reason = "the comments of the .proto files describe the messages")]
    include!(concat!(env!("OUT_DIR"), "/scopegate.replica.v1.rs"));
}

impl Store {
    /// The last entry that was applied; `None` if the store follows no log. It may not be durable
    /// yet; see [`before_apply`](super::CommitObserver::before_apply).
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn log_position(&self) -> Result<Option<LogPosition>, StoreError> {
        Ok(LogPosition::stored(&*self.engine, self.incarnation)?)
    }

    /// The cluster that the store belongs to; `None` if it follows no log.
    #[must_use]
    pub fn cluster(&self) -> Option<Cluster> {
        self.cluster
    }

    /// Makes the store follow a log from this head on, in this etcd. None: the head is not in etcd yet.
    /// Call it before the writer is started.
    ///
    /// # Errors
    /// The head is not the state of this store, its log is closed, or the store follows a log
    /// already.
    pub fn follow_log(
        &mut self,
        head: &Head,
        etcd_cluster_id: Option<u64>,
    ) -> Result<(), LogError> {
        head.check_format()?;
        if head.state != HeadState::Open {
            return Err(LogError::Closed);
        }
        if head.incarnation != self.incarnation {
            let (log, store) = (head.incarnation, self.incarnation);
            return Err(LogError::Incarnation { log, store });
        }
        if self.log_position()?.is_some() {
            return Err(LogError::Following);
        }
        let writer = self.writer().ok_or(StoreError::Unavailable)?;
        let (store, _) = writer.reached();
        if head.revision != store {
            return Err(LogError::Revision { log: head.revision, store });
        }
        let cluster = Cluster { id: head.cluster, etcd_cluster_id };
        self.set_log(Some((cluster, LogPosition::of(head))))
    }

    /// Notes the etcd that has the log, which ends the initialisation of the cluster from this store.
    /// Call it before the writer is started.
    ///
    /// # Errors
    /// The store follows no log, or the disk failed.
    pub fn note_etcd_cluster(&mut self, etcd_cluster_id: Option<u64>) -> Result<(), LogError> {
        let position = self.log_position()?.ok_or(LogError::NotFollowing)?;
        let cluster = self.cluster.ok_or(LogError::NotFollowing)?;
        self.set_log(Some((Cluster { etcd_cluster_id, ..cluster }, position)))
    }

    /// Makes the store one of no cluster again. Call it before the writer is started, and only if the
    /// cluster that it follows was certainly never initialised.
    ///
    /// # Errors
    /// The disk failed.
    pub fn leave_log(&mut self) -> Result<(), LogError> {
        self.set_log(None)
    }

    fn set_log(&mut self, log: Option<(Cluster, LogPosition)>) -> Result<(), LogError> {
        let writer = self.writer().ok_or(StoreError::Unavailable)?;
        writer.set_log(log)?;
        self.cluster = log.map(|(cluster, _)| cluster);
        Ok(())
    }

    /// Begins a backup for another replica, which installs it as its store. It has the position of
    /// its revision. Changes continue meanwhile. It may wait for the disk.
    ///
    /// # Errors
    /// The store follows no log, the engine cannot answer, or two snapshots are in progress.
    pub fn snapshot(&self) -> Result<Backup, LogError> {
        self.log_position()?.ok_or(LogError::NotFollowing)?;
        Ok(self.begin_backup(&self.snapshots)?)
    }

    /// Sends each entry of own changes to `entries`, before the changes are applied. Call it before
    /// the writer is started. Without it, a store that follows a log makes no changes of its own.
    #[must_use]
    pub fn sending_entries(mut self, entries: mpsc::Sender<Vec<u8>>) -> Self {
        if let Ok(Some(position)) = self.log_position() {
            let (followed, _) = watch::channel(Followed { position, revision: self.opened_at });
            self.write_to_log(LogWriter::new(Box::new(entries), followed), Timestamp::UNIX_EPOCH);
        }
        self
    }

    /// Commits each entry of own changes to a log, whose last entry has this time. Call it before the
    /// writer is started.
    pub(in crate::store) fn write_to_log(&mut self, log: LogWriter, last: Timestamp) {
        if let Some(writer) = self.writer() {
            writer.write_to_log(log, last);
        }
    }

    /// Applies these entries, which follow the last one, as one batch. `last` is the hash of the last
    /// of them, by the head of the log or by the entry behind it. The receiver resolves when they are
    /// durable and published; on an error none was applied.
    ///
    /// # Errors
    /// An entry cannot be read, or is not the one of that hash; or the queue is full, or the store
    /// has stopped.
    pub fn apply_entries(
        &self,
        entries: &[impl AsRef<[u8]>],
        last: Hash,
    ) -> Result<AppliedEntries, LogError> {
        let decode = |bytes: &[u8]| Ok((Entry::decode(bytes)?, blake3::hash(bytes)));
        let entries = entries.iter().map(|entry| decode(entry.as_ref()));
        let entries = entries.collect::<Result<Vec<_>, LogError>>()?;
        if let Some((entry, hash)) = entries.last()
            && *hash != last
        {
            return Err(LogError::History(entry.seq));
        }
        Ok(self.commands.apply(entries)?)
    }
}

impl From<EngineError> for LogError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// The random id of these bytes.
fn uuid(bytes: &[u8]) -> Result<Uuid, Corrupt> {
    Uuid::from_slice(bytes).map_err(|_| Corrupt)
}

/// The hash of these bytes.
fn hash(bytes: &[u8]) -> Result<Hash, Corrupt> {
    Hash::from_slice(bytes).map_err(|_| Corrupt)
}
