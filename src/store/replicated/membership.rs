//! Membership: the sessions by which this replica may answer calls.
//!
//! A thread of its own creates the record of a session in etcd, renews it by beats, and extends the
//! [`Lease`] with each beat that etcd confirms. Nothing else runs on the thread, so nothing delays a beat.
//! What it does, and in which order, is decided by `Member`, which has no I/O. Here is
//! the I/O: one client of etcd, a timer, and the events of other threads.
//!
//! The timer may be late, and does not count the time for which the machine was suspended. Nothing rests
//! on it: each call and each step reads the [boot clock](super::super::boot_clock).
//!
//! Not here: the records of other replicas, except for their clocks (see `clocks`); how entries are applied; and who
//! tests the lease.

mod member;
mod metrics;
mod refusal;
mod session;

use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use jiff::Timestamp;
use tokio::runtime::{self, Runtime};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

pub use self::metrics::MembershipMetrics;
pub use self::refusal::Refusal;
use super::etcd::{Client, EtcdError, Txn, TxnAnswer};
use super::member_record::PeerToken;
use super::members_view::MembersView;
use super::{Followed, ReplicaReport, Settings};
use crate::store::lease::Lease;
use crate::store::{DiskState, Incarnation, boot_clock};
use member::{Event, Member, Parts};
use refusal::OwnLog;

/// How long the thread waits for the answer to a transaction. A node may hang, and the next one gets
/// the same transaction.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// How long a replica that leaves tries to delete its record. Others may delete it later.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How long [`Membership::leave`] waits for the thread: longer than the thread tries.
const THREAD_WITHIN: Duration = Duration::from_secs(5);

/// What the membership of a replica needs.
pub struct Setup {
    /// The cluster of etcd, this replica, and its time to live.
    pub settings: Settings,
    /// The version of this program.
    pub version: String,
    /// The cluster of the store.
    pub cluster: Uuid,
    /// The incarnation of the store.
    pub incarnation: Incarnation,
    /// The lease that begins and ends with each session.
    pub lease: Arc<Lease>,
    /// The last entry that the store has applied and published. The session ends with its sender.
    pub followed: watch::Receiver<Followed>,
    /// The last session whose record was seen fenced, or was seen and does not exist any more. It ends
    /// the session sooner than the next beat does.
    pub lost: watch::Receiver<Option<Uuid>>,
    /// What the replica tells about itself. Each renewal has the present value.
    pub report: watch::Receiver<ReplicaReport>,
    /// Whether the disk has space for the next entries. The replica answers no call while it has none.
    pub disk: watch::Receiver<DiskState>,
    /// The records of all replicas, as they were last seen.
    pub members: watch::Receiver<Arc<MembersView>>,
    /// The time that other replicas are told.
    pub clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Follows the time that another replica told, if it is a little ahead.
    pub follow: Box<dyn Fn(Timestamp) + Send>,
    /// The metrics to update.
    pub metrics: Arc<MembershipMetrics>,
}

/// Whether a replica may answer calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipState {
    /// Not yet, or not at present: why, as one sentence without its end.
    Joining(String),
    /// It may, by this session, while its lease holds.
    Joined {
        /// The session.
        session: Uuid,
        /// The secret that other replicas present during this session.
        peer_token: PeerToken,
    },
    /// It may not, and does not try again.
    Refused(Refusal),
    /// It has left.
    Left,
}

/// The sessions of a replica. Dropped, it leaves without waiting for it.
#[derive(Debug)]
pub struct Membership {
    lease: Arc<Lease>,
    state: watch::Receiver<MembershipState>,
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl Membership {
    /// Starts the thread that joins the log.
    ///
    /// # Errors
    /// A TLS file cannot be used, or the thread cannot be started: a sentence.
    pub fn start(setup: Setup) -> Result<Self, String> {
        let Setup { settings, version, cluster, incarnation, lease, .. } = setup;
        let Setup { mut followed, lost, report, disk, members, clock, follow, metrics, .. } = setup;
        let client = Client::new(settings.etcd.clone())?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the thread of the lease cannot be started: {error}"))?;
        let log = OwnLog { cluster, incarnation };
        let own_lease = Arc::clone(&lease);
        let now = Box::new(boot_clock::now);
        let of_member = disk.clone();
        let (mut of_members, seen) = (members.clone(), members);
        of_members.mark_unchanged();
        let parts = Parts {
            settings,
            version,
            log,
            lease,
            now,
            clock,
            follow,
            report,
            disk: of_member,
            seen,
            metrics,
        };
        let member = Member::new(parts, *followed.borrow_and_update());
        let (state, state_receiver) = watch::channel(member.state().clone());
        let (stop, stopped) = oneshot::channel();
        let (ends, ended) = mpsc::channel();
        let run = move || {
            let inputs = Inputs { followed, lost, disk, members: of_members, stopped };
            run(&runtime, &client, member, inputs, &state);
            drop(ends);
        };
        thread::Builder::new()
            .name("replica-lease".to_owned())
            .spawn(run)
            .map_err(|error| format!("the thread of the lease cannot be started: {error}"))?;
        Ok(Self { lease: own_lease, state: state_receiver, stop: Some(stop), ended })
    }

    /// Whether the replica may answer calls. The sender is dropped when the thread ends.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<MembershipState> {
        self.state.clone()
    }

    /// Closes the lease, then deletes the record of the session. Blocks until that is done, at most 5
    /// seconds.
    pub fn leave(mut self) {
        self.lease.close();
        drop(self.stop.take());
        // The thread sends nothing; its sender is dropped at its end.
        self.ended.recv_timeout(THREAD_WITHIN).ok();
    }
}

/// The events of other threads.
struct Inputs {
    followed: watch::Receiver<Followed>,
    lost: watch::Receiver<Option<Uuid>>,
    disk: watch::Receiver<DiskState>,
    members: watch::Receiver<Arc<MembersView>>,
    stopped: oneshot::Receiver<()>,
}

fn run(
    runtime: &Runtime,
    client: &Client,
    mut member: Member,
    inputs: Inputs,
    state: &watch::Sender<MembershipState>,
) {
    let Inputs { mut followed, mut lost, mut disk, mut members, mut stopped } = inputs;
    runtime.block_on(async {
        let mut answer = pin!(Fuse::terminated());
        let mut is_leaving = false;
        let mut event = Event::Woken;
        loop {
            if let Some(txn) = member.step(event) {
                answer.set(ask(client, txn).fuse());
            }
            state.send_if_modified(|state| {
                let is_new = state != member.state();
                if is_new {
                    log_change(state, member.state());
                    member.state().clone_into(state);
                }
                is_new
            });
            if member.is_gone() {
                return;
            }
            let wait = Duration::from_nanos(member.wake_at().saturating_sub(boot_clock::now()));
            event = tokio::select! {
                // A session ends before anything renews it.
                biased;
                _ = &mut stopped, if !is_leaving => {
                    is_leaving = true;
                    Event::Leave
                }
                session = next_lost(&mut lost) => Event::Lost(session),
                Ok(()) = disk.changed() => Event::Woken,
                answer = &mut answer => Event::Answered(answer),
                changed = followed.changed(), if !is_leaving => match changed {
                    Ok(()) => Event::Followed(*followed.borrow_and_update()),
                    // The writer has ended.
                    Err(_) => {
                        is_leaving = true;
                        Event::Leave
                    }
                },
                () = next_change(&mut members) => Event::Woken,
                () = tokio::time::sleep(wait) => Event::Woken,
            };
        }
    });
}

/// Logs when the replica begins to answer calls, and when it ceases to.
fn log_change(before: &MembershipState, now: &MembershipState) {
    match (before, now) {
        (MembershipState::Joined { .. }, MembershipState::Joining(why)) => {
            tracing::warn!(%why, "the replica answers no call until it has joined its cluster again");
        }
        (_, MembershipState::Joined { session, .. }) => {
            tracing::info!(%session, "the replica has joined its cluster");
        }
        _ => {}
    }
}

async fn ask(client: &Client, txn: Txn) -> Result<TxnAnswer, EtcdError> {
    client.txn(&txn, ANSWER_WITHIN).await
}

/// The next session that is told to be lost. It waits for ever without a sender.
async fn next_lost(lost: &mut watch::Receiver<Option<Uuid>>) -> Uuid {
    loop {
        if lost.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(session) = *lost.borrow_and_update() {
            return session;
        }
    }
}

/// Waits until the records have changed. It waits for ever without a sender.
async fn next_change(members: &mut watch::Receiver<Arc<MembersView>>) {
    if members.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A duration in the unit of the boot clock.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
