//! Replica: the parts of a process that is one of several, and the threads that run them.
//!
//! The thread `replica` has the connection to etcd by which the writer commits. It follows the log and the
//! records of the other replicas. The thread of the [`Membership`] has a connection of its own.
//!
//! Not here: what each part does; see `etcd_log`, `follower`, `members_task` and `membership`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::closing::closing;
use super::compaction::Compaction;
use super::entry::Entry;
use super::entry_parts::UnusedParts;
use super::etcd::{self, Client, Operation, Range, Txn, TxnAnswer};
use super::etcd_log::EtcdLog;
use super::follower::Follower;
use super::head::{Head, HeadState};
use super::listing::{Listing, ListingError};
use super::log_page::{LogPage, PageError};
use super::member_record::MemberRecord;
use super::members_task::{BarrierHandle, MembersInput, MembersTask};
use super::members_view::{Member, MembersView};
use super::membership::{Membership, MembershipMetrics, MembershipState, Setup};
use super::replica_list::{EtcdNode, ReplicaList, SeenRenewal};
use super::seen_task::{self, SeenTask, UntoldTimes};
use super::truncation::Truncation;
use super::turn::Turn;
use super::{
    BarrierMetrics, Clocks, EtcdSpace, Followed, LogError, LogMetrics, LogPosition, LogSpace,
    LogWriter, ReplicaReport, Settings, Waited, etcd_log, keys,
};
use crate::metrics::machine_time;
use crate::policy::revision::Revision;
use crate::store::command_queue::CommandQueue;
use crate::store::lease::Lease;
use crate::store::{DecidingTime, DiskState, Incarnation, Minute, Store, StoreError, boot_clock};

/// How long etcd may take to answer before a replica has started.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// The pause between two looks at the records before the replica has started.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often a replica tries to close a log that was set back.
const CLOSE_ATTEMPTS: usize = 5;

/// Why a process cannot be a replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
    /// etcd did not answer.
    #[error("etcd did not answer ({0}); check that it runs and that its address is right")]
    NoAnswer(String),
    /// The log is not one that this store can follow.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system has no thread left.
    #[error("the system has no thread for the replica")]
    NoThread,
}

/// One of several processes with the same facts.
pub struct Replica {
    client: Arc<Client>,
    settings: Settings,
    runtime: Handle,
    /// The own session, while there is one.
    session: watch::Sender<Option<Uuid>>,
    /// Why the log and the store have parted, if they have.
    parted: watch::Sender<Option<LogError>>,
    barrier: BarrierHandle,
    members: watch::Receiver<Arc<MembersView>>,
    log_metrics: Arc<LogMetrics>,
    barrier_metrics: Arc<BarrierMetrics>,
    membership_metrics: Arc<MembershipMetrics>,
    /// How full the database of etcd is.
    space: Arc<EtcdSpace>,
    /// The last own session that was seen fenced, or whose record was seen to be gone.
    lost: watch::Receiver<Option<Uuid>>,
    /// What the replica tells the others about itself.
    report: watch::Sender<ReplicaReport>,
    /// When credentials were last seen here, until the others are told.
    untold: UntoldTimes,
    /// How often they are told.
    tells_every: Duration,
    /// What starts with the writer.
    members_task: Mutex<Option<MembersTask>>,
    log: Mutex<Option<OwnLog>>,
    membership: Mutex<Option<Membership>>,
    /// Whether the replica may answer calls.
    state: watch::Sender<MembershipState>,
    /// Ends the thread when it is dropped.
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What etcd has of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// The end of the log.
    pub head: Head,
    /// Whether the log has all entries of a cluster that began empty, so that an empty store can follow
    /// it.
    pub is_whole: bool,
}

impl LogSummary {
    /// The summary in the answers of a range of the head and of a range of the first entry.
    fn of(answer: &TxnAnswer) -> Result<Self, LogError> {
        let mut firsts = answer.ranges.iter().map(|range| range.pairs.first());
        let head = firsts.next().flatten().ok_or(LogError::Missing)?;
        let head = Head::decode(&head.value)?;
        let first = firsts.next().flatten().map(|first| Entry::decode(&first.value)).transpose()?;
        let is_whole = match &first {
            None => head.revision == Revision::ZERO,
            Some(first) => first.seq == 1 && first.first_revision == Revision::ZERO.next(),
        };
        Ok(Self { head, is_whole })
    }
}

/// The log that the store of a replica follows.
struct OwnLog {
    cluster: Uuid,
    incarnation: Incarnation,
    lease: Arc<Lease>,
    followed: watch::Receiver<Followed>,
}

impl Replica {
    /// Starts the thread of a replica, which is not connected yet.
    ///
    /// # Errors
    /// A setting is wrong, or the system has no thread left.
    pub fn new(settings: Settings) -> Result<Self, ReplicaError> {
        let client = Client::new(settings.etcd.clone()).map_err(ReplicaError::Settings)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| ReplicaError::NoThread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(stopped).ok();
            // It does not wait for the resolver of names.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("replica".to_owned()).spawn(run);
        let thread = thread.map_err(|_| ReplicaError::NoThread)?;
        let session = watch::Sender::new(None);
        let (lost_sender, lost) = watch::channel(None);
        let barrier_metrics = Arc::<BarrierMetrics>::default();
        let (members, barrier, view) = MembersTask::new(MembersInput {
            own: session.subscribe(),
            lost: lost_sender,
            metrics: Arc::clone(&barrier_metrics),
            clock: Arc::new(boot_clock::now),
        });
        let waiting = "the store is being opened".to_owned();
        let space = Arc::new(EtcdSpace::new(settings.etcd.url.quota, boot_clock::now));
        Ok(Self {
            client: Arc::new(client),
            settings,
            runtime: handle,
            session,
            parted: watch::Sender::new(None),
            barrier,
            members: view,
            log_metrics: Arc::default(),
            barrier_metrics,
            membership_metrics: Arc::default(),
            space,
            lost,
            report: watch::Sender::default(),
            untold: UntoldTimes::default(),
            tells_every: seen_task::INTERVAL,
            members_task: Mutex::new(Some(members)),
            log: Mutex::default(),
            membership: Mutex::default(),
            state: watch::Sender::new(MembershipState::Joining(waiting)),
            stop: Mutex::new(Some(stop)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// As it is, but it tells the others at this interval when credentials were last seen. By default it
    /// does so every 10 minutes.
    #[must_use]
    pub fn telling_last_seen_every(mut self, interval: Duration) -> Self {
        self.tells_every = interval;
        self
    }

    /// Notes the minutes in which credentials were seen here. The other replicas are told of them later.
    pub(in crate::store) fn note_last_seen(&self, seen: &[(Revision, Minute)]) {
        self.untold.note(seen.iter().copied());
    }

    /// Reads what etcd has of the cluster.
    ///
    /// # Errors
    /// etcd does not answer, has a version that is not consistent, or has no log.
    pub async fn log(&self) -> Result<LogSummary, ReplicaError> {
        let client = Arc::clone(&self.client);
        // The connections of the client are driven by the runtime of this thread.
        let read = self.runtime.spawn(async move {
            let nodes = client.status(FIRST_ANSWER).await;
            let version = nodes.iter().flatten();
            let unsupported = version.filter_map(|node| etcd::unsupported_version(&node.version));
            if let Some(why) = unsupported.into_iter().next() {
                return Err(ReplicaError::Settings(why));
            }
            let (head, first) = (Range::key(keys::HEAD), Range::under(keys::LOG).limit(1));
            let ranges = vec![Operation::Range(head), Operation::Range(first)];
            let txn = Txn { then: ranges, ..Txn::default() };
            let answer = client.txn(&txn, FIRST_ANSWER).await?;
            Ok(LogSummary::of(&answer)?)
        });
        read.await.map_err(|_| ReplicaError::NoThread)?
    }

    /// The records of the replicas that may have a snapshot, those of later revisions first.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn peers(&self) -> Result<Vec<MemberRecord>, ReplicaError> {
        let client = Arc::clone(&self.client);
        let read = self.runtime.spawn(async move {
            let answer = client.range(&Range::under(keys::MEMBERS), FIRST_ANSWER).await?;
            let records = answer.pairs.iter();
            let records = records.filter_map(|pair| MemberRecord::decode(&pair.value).ok());
            let mut records: Vec<_> = records.filter(|record| !record.fenced).collect();
            records.sort_by_key(|record| Reverse(record.published));
            Ok(records)
        });
        read.await.map_err(|_| ReplicaError::NoThread)?
    }

    /// The log and all records, with the renewals that this replica has seen.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn list(&self) -> Result<ReplicaList, ReplicaError> {
        let client = Arc::clone(&self.client);
        let read = self.runtime.spawn(async move {
            tokio::join!(Listing::read(&client, FIRST_ANSWER), client.status(FIRST_ANSWER))
        });
        let (listing, status) = read.await.map_err(|_| ReplicaError::NoThread)?;
        let nodes = EtcdNode::all(&self.settings.etcd.url.nodes, &status);
        let (now, members) = (boot_clock::now(), self.members());
        let clocks = members.clocks_ahead(now, machine_time());
        let seen = |record: &MemberRecord| {
            let member = members.get(record.session)?;
            let age = Duration::from_nanos(now.saturating_sub(member.since));
            Some(SeenRenewal { age, clock_ahead: *clocks.get(&record.name)? })
        };
        Ok(ReplicaList::new(listing?, nodes, seen)?)
    }

    /// Whether the log goes on from this position of a store of its cluster.
    ///
    /// # Errors
    /// It has another history, or etcd does not answer.
    pub async fn check(&self, cluster: Uuid, position: LogPosition) -> Result<(), ReplicaError> {
        let client = Arc::clone(&self.client);
        let read = self.runtime.spawn(async move {
            match LogPage::read_whole(&client, cluster, position, FIRST_ANSWER).await {
                Ok(_) => Ok(()),
                Err(PageError::Log(error)) => Err(error.into()),
                Err(PageError::Etcd(error)) => Err(error.into()),
            }
        });
        read.await.map_err(|_| ReplicaError::NoThread)?
    }

    /// What the process was told about its cluster.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The etcd cluster that answered, if one did.
    #[must_use]
    pub fn etcd_cluster(&self) -> Option<u64> {
        self.client.cluster_id()
    }

    /// Becomes an error when the log and the store have parted. The process must then end.
    #[must_use]
    pub fn parted(&self) -> watch::Receiver<Option<LogError>> {
        self.parted.subscribe()
    }

    /// Whether the replica may answer calls.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<MembershipState> {
        self.state.subscribe()
    }

    /// The records of all replicas, as this one last saw them.
    #[must_use]
    pub fn members(&self) -> Arc<MembersView> {
        Arc::clone(&self.members.borrow())
    }

    /// Whether most other replicas say that the clock of this one is ahead.
    #[must_use]
    pub fn is_named_ahead(&self) -> bool {
        // Which clocks are ahead of the own one does not matter here.
        self.clocks(&self.members(), Timestamp::UNIX_EPOCH).is_named_ahead()
    }

    /// The clocks of the other replicas by these records, compared with this time.
    pub(in crate::store) fn clocks(&self, members: &MembersView, clock: Timestamp) -> Clocks {
        Clocks::of(members, &self.settings.name, boot_clock::now(), clock)
    }

    /// Reads the records of the other replicas until it has seen each of them renewed, or lapsed: about a
    /// second, or the lapse time of a replica that has died. Call it before the replica is started.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn live_members(&self) -> Result<MembersView, ReplicaError> {
        let (client, own) = (Arc::clone(&self.client), self.settings.name.clone());
        let read = self.runtime.spawn(async move {
            let mut view = MembersView::default();
            let mut first = None;
            loop {
                let answer = client.range(&Range::under(keys::MEMBERS), FIRST_ANSWER).await?;
                let now = boot_clock::now();
                let first = *first.get_or_insert(now);
                view = view.next(now, &answer);
                let is_settled = |member: &Member| {
                    let is_own = member.record.as_ref().is_some_and(|record| record.name == own);
                    let is_live = !is_own && !member.is_fenced() && !member.has_lapsed(now);
                    !is_live || member.since > first
                };
                if view.iter().all(is_settled) {
                    return Ok(view);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        read.await.map_err(|_| ReplicaError::NoThread)?
    }

    /// What the replica tells the others about itself. The next renewal of its record has it.
    #[must_use]
    pub fn report(&self) -> &watch::Sender<ReplicaReport> {
        &self.report
    }

    /// The metrics of the log and of the own commits.
    #[must_use]
    pub fn log_metrics(&self) -> &LogMetrics {
        &self.log_metrics
    }

    /// How full the database of etcd is.
    #[must_use]
    pub fn etcd_space(&self) -> &EtcdSpace {
        &self.space
    }

    /// The metrics of the barrier.
    #[must_use]
    pub fn barrier_metrics(&self) -> &BarrierMetrics {
        &self.barrier_metrics
    }

    /// The metrics of the sessions.
    #[must_use]
    pub fn membership_metrics(&self) -> &MembershipMetrics {
        &self.membership_metrics
    }

    /// Waits until every replica that may answer has published this revision.
    ///
    /// # Errors
    /// A replica has not confirmed it in time.
    pub async fn everywhere(&self, revision: Revision) -> Result<Waited, StoreError> {
        self.barrier.everywhere(revision).await
    }

    /// The log for the writer of a store that has come this far in it.
    fn log_writer(&self, head: &Head, lease: &Arc<Lease>, at: Followed) -> LogWriter {
        let Head { cluster, format, .. } = *head;
        let log = EtcdLog {
            client: Arc::clone(&self.client),
            runtime: self.runtime.clone(),
            cluster,
            format,
            head: None,
            session: self.session.subscribe(),
            parted: self.parted.clone(),
            barrier: self.barrier.clone(),
            metrics: Arc::clone(&self.log_metrics),
            report: self.report.clone(),
            space: Arc::clone(&self.space),
            truncation: Truncation::default(),
            turn: Turn::default(),
            parts_put: None,
            unused_parts: UnusedParts::default(),
            published: Vec::new(),
        };
        let (sender, followed) = watch::channel(at);
        let (incarnation, lease) = (at.position.incarnation, Arc::clone(lease));
        *lock(&self.log) = Some(OwnLog { cluster, incarnation, lease, followed });
        LogWriter::new(Box::new(log), sender)
    }

    /// Starts to follow the log, and to join it.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(in crate::store) fn start(
        &self,
        commands: CommandQueue,
        disk: watch::Receiver<DiskState>,
        time: &Arc<DecidingTime>,
    ) -> Result<(), String> {
        let (Some(log), Some(members)) = (lock(&self.log).take(), lock(&self.members_task).take())
        else {
            return Ok(());
        };
        let OwnLog { cluster, incarnation, lease, followed } = log;
        let client = Arc::clone(&self.client);
        let follower = Follower {
            client: Arc::clone(&client),
            cluster,
            commands,
            followed: followed.clone(),
            metrics: Arc::clone(&self.log_metrics),
        };
        let seen = SeenTask {
            client: Arc::clone(&client),
            cluster,
            name: self.settings.name.clone(),
            untold: self.untold.clone(),
            commands: follower.commands.clone(),
            every: self.tells_every,
            last: HashMap::new(),
        };
        self.runtime.spawn(seen.run());
        let parted = self.parted.clone();
        self.runtime.spawn(async move {
            let of_log = Arc::clone(&follower.client);
            if let Err(error) = follower.run().await {
                if matches!(error, LogError::History(_)) {
                    // Entries that this store has applied are lost: no replica goes on without them.
                    close_log(&of_log, cluster).await;
                }
                etcd_log::part(&parted, error);
            }
        });
        let (of_space, space) = (Arc::clone(&client), Arc::clone(&self.space));
        self.runtime.spawn(async move { space.measure(&of_space).await });
        if self.settings.etcd.url.compacts {
            let (name, space) = (self.settings.name.clone(), Arc::clone(&self.space));
            self.runtime.spawn(Compaction::new(Arc::clone(&client), name, space).run());
        }
        self.runtime.spawn(async move { members.run(&client).await });
        let mut settings = self.settings.clone();
        settings.etcd.cluster_id = self.client.cluster_id();
        let membership = Membership::start(Setup {
            settings,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster,
            incarnation,
            lease,
            followed,
            lost: self.lost.clone(),
            report: self.report.subscribe(),
            disk: disk.clone(),
            members: self.members.clone(),
            clock: {
                let time = Arc::clone(time);
                Box::new(move || time.told())
            },
            follow: {
                let time = Arc::clone(time);
                Box::new(move |told| time.follow(told))
            },
            metrics: Arc::clone(&self.membership_metrics),
        })?;
        let (mut from, state, session) =
            (membership.state(), self.state.clone(), self.session.clone());
        self.runtime.spawn(async move {
            loop {
                let now = from.borrow_and_update().clone();
                session.send_replace(match &now {
                    MembershipState::Joined { session, .. } => Some(*session),
                    _ => None,
                });
                state.send_replace(now);
                if from.changed().await.is_err() {
                    // A thread that ends by itself leaves, too.
                    state.send_if_modified(|state| {
                        let is_new = !matches!(state, MembershipState::Refused(_));
                        if is_new {
                            *state = MembershipState::Left;
                        }
                        is_new
                    });
                    return;
                }
            }
        });
        let (report, mut disk) = (self.report.clone(), disk);
        self.runtime.spawn(async move {
            loop {
                let free_bytes = disk.borrow_and_update().free_bytes;
                report.send_modify(|report| report.free_bytes = free_bytes);
                if disk.changed().await.is_err() {
                    return;
                }
            }
        });
        *lock(&self.membership) = Some(membership);
        Ok(())
    }

    /// The replica never joins.
    pub(in crate::store) fn fail(&self) {
        self.state.send_replace(MembershipState::Left);
    }

    /// Ends the session, and deletes its record. From then on no call is answered.
    pub fn leave(&self) {
        // The lock is not held while the replica leaves.
        let membership = lock(&self.membership).take();
        if let Some(membership) = membership {
            membership.leave();
        }
    }

    /// Ends the threads. The writer has ended before.
    pub(in crate::store) fn stop(&self) {
        self.leave();
        lock(&self.stop).take();
        let thread = lock(&self.thread).take();
        thread.map(JoinHandle::join);
    }
}

/// Closes the log of this cluster. It tries for a few seconds.
async fn close_log(client: &Client, cluster: Uuid) {
    for _ in 0..CLOSE_ATTEMPTS {
        let Ok(answer) = client.range(&Range::key(keys::HEAD), FIRST_ANSWER).await else {
            continue;
        };
        let Some(pair) = answer.pairs.first() else { return };
        let Ok(head) = Head::decode(&pair.value) else { return };
        if head.cluster != cluster || head.state != HeadState::Open {
            return;
        }
        let txn = closing(head, pair.value.clone());
        // Whatever came of it, the next look tells.
        client.txn(&txn, FIRST_ANSWER).await.ok();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<etcd::EtcdError> for ReplicaError {
    fn from(error: etcd::EtcdError) -> Self {
        match error.is_certain() {
            true => Self::Settings(format!("etcd refused to answer: {error}")),
            false => Self::NoAnswer(error.to_string()),
        }
    }
}

impl From<ListingError> for ReplicaError {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Etcd(error) => error.into(),
            ListingError::Log(error) => error.into(),
        }
    }
}

impl Store {
    /// Makes this store that of a replica. Call it before the writer is started. The head is one that was
    /// read after the store was opened.
    ///
    /// # Errors
    /// The store follows no log, or another one.
    pub fn replicated(mut self, replica: Replica, head: &Head) -> Result<Self, LogError> {
        let position = self.log_position()?.ok_or(LogError::NotFollowing)?;
        let cluster = self.cluster().ok_or(LogError::NotFollowing)?.id;
        if cluster != head.cluster {
            return Err(LogError::Cluster { log: head.cluster, store: cluster });
        }
        let at = Followed { position, revision: self.opened_at };
        // No call is answered before the replica has joined.
        self.lease = Arc::new(Lease::none());
        let log = replica.log_writer(head, &self.lease, at);
        self.write_to_log(log, head.time);
        self.replica = Some(replica);
        Ok(self)
    }

    /// Waits until every replica that may answer has published this revision, which this store has
    /// published. None: there are no replicas, so nothing is waited for.
    ///
    /// # Errors
    /// A replica has not confirmed it in time.
    pub async fn everywhere(&self, revision: Revision) -> Result<Option<Waited>, StoreError> {
        match &self.replica {
            Some(replica) => replica.everywhere(revision).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether imports wait, because the log of the replicas has little space.
    #[must_use]
    pub fn imports_wait(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.space.log_space() > LogSpace::Ample)
    }

    /// The replica that this process is, if it is one of several.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error,
            _ => Self::CutOff,
        }
    }
}
