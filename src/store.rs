//! Store: the facts, their indexes and the change log, committed together.
//!
//! A change reaches a [`Store`] as a [`Proposal`]: the facts that it read (its preconditions) and
//! the facts that it writes. The store commits a proposal only if its preconditions hold after all
//! earlier changes, those of the same batch included. Reads go to the engine directly (`reads`). All
//! writes go through one thread (`writer`), which decides on many proposals (`decide`) and applies
//! them with one sync (`apply`). A store may also follow the log of several replicas
//! ([`replicated`]). Below is the [`engine`]: ordered bytes, and what makes them durable.
//!
//! INVARIANT (durable before known): the store reports a revision to the [`CommitObserver`] and
//! to the caller of [`Store::commit`] only when a crash can no longer erase it.
//!
//! Not here: caches and decisions (`authority`, `policy`), and the meaning of a change.

mod apply;
pub mod backup;
mod batch_builder;
pub mod boot_clock;
mod chain;
mod checksum;
mod chunked;
mod command_queue;
pub(crate) mod data_dir;
mod decide;
mod decided_change;
mod deciding_time;
pub mod disk_space;
pub mod engine;
mod error;
mod fact;
mod fact_sums;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod group_commit;
mod high_water_mark;
mod idempotency;
pub mod installation;
mod key;
pub mod lease;
mod metrics;
mod observer;
mod open;
mod open_error;
mod permissions;
mod proposal;
pub mod quota;
mod reads;
mod receipt;
mod record;
pub mod replicated;
mod restore;
mod sync;
mod upgrade;
mod usage;
mod writer;

use std::fs::File;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

pub use self::deciding_time::{DecidingTime, machine_milliseconds};
pub use self::disk_space::DiskState;
pub use self::error::{CommitError, StoreError};
pub use self::fact::{Fact, FactKey, FactKind, FactRef};
pub use self::fact_sums::{FactSums, SumOfKind};
pub use self::idempotency::{
    IDEMPOTENCY_TTL, IdempotencyRecord, RequestKey, ResultDetail, StoredResult, WriteResult,
};
pub use self::installation::{
    InstallError, Installed, discard_replaced, install_snapshot, install_snapshot_on,
    put_back_replaced, resume_installation,
};
pub use self::metrics::StoreMetrics;
pub use self::observer::{CommitObserver, Outcome};
pub use self::open_error::OpenError;
pub use self::proposal::{FactWrite, Proposal};
pub use self::receipt::Receipt;
pub use self::restore::{RestoreError, Restored, begin_again, begin_alone, restore, restore_on};
use crate::policy::change::ChangeKind;
use crate::policy::revision::Revision;
use backup::{ActiveBackups, Backup};
use command_queue::{CommandQueue, KEYS, QUEUE, URGENT, WriterCommand};
use engine::Engine;
use fact_sums::RecentFactSums;
use lease::Lease;
use quota::Quota;
use replicated::{Cluster, Replica};
use usage::{Pending, SharedUsage};
use writer::Writer;

/// The schema version that this program writes.
const SCHEMA_VERSION: u64 = 3;

/// The schema version of a store of a cluster: that of other stores, with the cluster and the position
/// in its log. This program does not open a store of a later version.
const REPLICATED_SCHEMA_VERSION: u64 = SCHEMA_VERSION + 1;

/// The incarnation of a store; a restored backup has a new one. Etags and page tokens carry it, so
/// that those of another incarnation are rejected.
pub type Incarnation = uuid::Uuid;

/// A minute, counted from 1970.
pub type Minute = u32;

/// How far the durable time mark is ahead of the time. After a crash the clock starts at the mark:
/// an expiry within this lead may come that much early, and never late (D19).
pub const CLOCK_LEAD: Duration = Duration::from_secs(2);

/// Resolves to the result of a proposal.
pub type CommitHandle = oneshot::Receiver<Result<Receipt, CommitError>>;

/// A store, open.
pub struct Store {
    engine: Arc<dyn Engine>,
    incarnation: Incarnation,
    /// The cluster whose log the store follows.
    cluster: Option<Cluster>,
    opened_at: Revision,
    time_mark: Option<Timestamp>,
    deciding_time: Arc<DecidingTime>,
    /// The change by which an operator last set the time back, and the time from which the store continued.
    clock_accepted: Option<(Revision, Timestamp)>,
    upgraded_from: Option<u64>,
    /// The durable time mark, in milliseconds.
    durable_time: Arc<AtomicI64>,
    metrics: Arc<StoreMetrics>,
    usage: SharedUsage,
    fact_sums: RecentFactSums,
    /// Until when calls may be answered from this store.
    lease: Arc<Lease>,
    /// The parts of the writer, until it is started.
    setup: Mutex<Option<Setup>>,
    commands: CommandQueue,
    backups: ActiveBackups,
    /// Backups for other replicas, which have slots of their own.
    snapshots: ActiveBackups,
    /// What makes this process one of several, if it is.
    replica: Option<Replica>,
    /// What the writer last found out about the disk.
    disk: watch::Receiver<DiskState>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Locks the directory for this process. It is the last field, so it is dropped last.
    _lock: File,
}

/// The writer, the receiver of its commands, and the sender that starts its thread.
type Setup = (Writer, mpsc::Receiver<WriterCommand>, mpsc::Sender<Start>);

/// The message that starts the writer's thread.
type Start = (Writer, mpsc::Receiver<WriterCommand>, Arc<dyn CommitObserver>);

impl Store {
    /// The incarnation of the store.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The last revision that was committed before the store was opened.
    #[must_use]
    pub fn opened_at(&self) -> Revision {
        self.opened_at
    }

    /// The durable time mark when the store was opened (D19).
    #[must_use]
    pub fn time_mark(&self) -> Option<Timestamp> {
        self.time_mark
    }

    /// The time by which this process decides. It starts at the time mark.
    #[must_use]
    pub fn deciding_time(&self) -> &Arc<DecidingTime> {
        &self.deciding_time
    }

    /// The metrics of the store.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// The sums of the facts at each of the last revisions, in order, if the store follows a log. A revision
    /// is left out if garbage collection had something to remove at it, or if its batch had later ones.
    #[must_use]
    pub fn fact_sums(&self) -> Vec<(Revision, FactSums)> {
        self.fact_sums.all()
    }

    /// Until when calls may be answered from this store. By default it never ends.
    #[must_use]
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// The same store, with this lease. Call it before the writer is started.
    #[must_use]
    pub fn with_lease(mut self, lease: Arc<Lease>) -> Self {
        self.lease = lease;
        self
    }

    /// Starts the writer. Before that, nothing can be committed.
    pub fn start(&self, observer: Arc<dyn CommitObserver>) {
        let setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((writer, commands, start_sender)) = setup
            && let Err(mpsc::SendError((.., observer))) =
                start_sender.send((writer, commands, observer))
        {
            // The writer thread is gone, so nothing can be committed.
            observer.failed();
        }
        if let Some(replica) = &self.replica
            && let Err(error) =
                replica.start(self.commands.clone(), self.disk.clone(), &self.deciding_time)
        {
            tracing::error!(%error, "the replica cannot be started");
            self.lease.close();
            replica.fail();
        }
    }

    /// Queues a change. The handle resolves when the change is durable, or rejected.
    ///
    /// # Errors
    /// The queue is full, or the store has stopped.
    pub fn commit(&self, proposal: Proposal) -> Result<CommitHandle, StoreError> {
        // This change tells that the clock was set right.
        if proposal.change.kind != ChangeKind::AcceptClock {
            self.check_clock()?;
        }
        let (reply, handle) = oneshot::channel();
        // Concurrent callers may exceed this limit by a few; the bound of the channel is exact.
        let waiting = self.metrics.waiting.read();
        let is_full = waiting >= QUEUE as u64 && !proposal.takes_away();
        let is_full_for_urgent = waiting >= (QUEUE + URGENT - KEYS) as u64;
        // The writer may have taken commands from the channel that still wait.
        let is_full_for_all = waiting >= (QUEUE + URGENT) as u64;
        if is_full || is_full_for_all || (is_full_for_urgent && !proposal.deletes_keys()) {
            return Err(StoreError::Busy);
        }
        self.commands.queue(WriterCommand::Commit(Box::new(proposal), reply))?;
        Ok(handle)
    }

    /// Rejects what must not have the time of this replica, if most other replicas say that its clock
    /// is ahead of theirs: changes and tokens.
    ///
    /// # Errors
    /// They say so.
    pub fn check_clock(&self) -> Result<(), StoreError> {
        match &self.replica {
            Some(replica) if replica.is_named_ahead() => Err(StoreError::ClockAhead),
            _ => Ok(()),
        }
    }

    /// Rejects a change that [`Self::commit`] would reject by the clock of this replica, or by a quota of
    /// its company ([`quota`]), if nothing else was committed before it.
    ///
    /// # Errors
    /// The company has reached a quota, or the clock is ahead.
    pub fn admits(&self, proposal: &Proposal) -> Result<(), StoreError> {
        self.check_clock()?;
        let time = proposal.change.time;
        self.usage.check(&Pending::default(), proposal, time).map_err(StoreError::AtBound)
    }

    /// Rejects `more` of a quota for the company of this creation revision; [`Revision::NEXT`]
    /// stands for a company that does not exist yet.
    ///
    /// # Errors
    /// The company would exceed the quota.
    pub fn check_quota(
        &self,
        company: Revision,
        bound: Quota,
        more: u64,
    ) -> Result<(), StoreError> {
        self.usage.check_more(company, bound, more).map_err(StoreError::AtBound)
    }

    /// Stores in which minute credentials were last used, by their creation revisions. Returns at
    /// once; a crash may lose it.
    pub fn note_last_seen(&self, seen: Vec<(Revision, Minute)>) {
        if !seen.is_empty() {
            if let Some(replica) = &self.replica {
                replica.note_last_seen(&seen);
            }
            self.commands.queue_behind(WriterCommand::Seen(seen)).ok();
        }
    }

    /// Raises the time mark: no time before `time` may be relied on again (D19). Also sets the
    /// believed time. Retention follows the believed time alone, because the mark may be an expiry
    /// that was reported while the machine's clock was wrong. Returns at once.
    pub fn mark_time(&self, time: Timestamp, believed: Timestamp) {
        // If the queue is full, the commits in it carry the time.
        self.commands.queue_behind(WriterCommand::MarkTime { time, believed }).ok();
    }

    /// The durable time mark: after a crash the time is no earlier (D19).
    #[must_use]
    pub fn durable_time(&self) -> Timestamp {
        let millisecond = self.durable_time.load(Ordering::Acquire);
        Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
    }

    /// As [`Self::mark_time`], for a time that may not be believed. The receiver resolves when the
    /// mark is durable. No later change has an earlier time.
    ///
    /// # Errors
    /// The queue is full, or the store has stopped.
    pub fn persist_time(&self, time: Timestamp) -> Result<oneshot::Receiver<()>, StoreError> {
        let (reply, durable) = oneshot::channel();
        self.commands.queue_behind(WriterCommand::PersistTime(time, reply))?;
        Ok(durable)
    }

    /// Begins a backup, while changes continue. It may wait for the disk.
    ///
    /// # Errors
    /// The engine cannot answer, or too many backups are in progress.
    pub fn backup(&self) -> Result<Backup, StoreError> {
        self.begin_backup(&self.backups)
    }

    fn begin_backup(&self, active: &ActiveBackups) -> Result<Backup, StoreError> {
        if self.setup.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // The writer is not started, so no feed can be registered.
            return Err(StoreError::Unavailable);
        }
        let (engine, commands) = (Arc::clone(&self.engine), self.commands.clone());
        Backup::begin(engine, self.incarnation, commands, active)
    }

    /// Commits the queued changes, stops the writer, and closes the files.
    pub fn close(&self) {
        self.commands.close();
        self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // If the writer panicked, it has reported that to its observer.
        thread.map(JoinHandle::join);
        if let Some(replica) = &self.replica {
            replica.stop();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
