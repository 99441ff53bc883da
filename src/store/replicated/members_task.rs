//! MembersTask: reads the records of all sessions, and does in etcd what the barrier asks for.
//!
//! One range of the records is in flight at a time, whatever number of calls waits. A watch only makes
//! the next range come sooner. A fence and a deletion compare the whole bytes that were seen; so an old
//! one that etcd carries out late changes nothing that was renewed since, and an answer that is lost
//! needs no repeat: the next range shows what is left to do.
//!
//! Not here: what is waited for, and for how long; see `barrier`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use uuid::Uuid;

use super::barrier::{Action, Barrier, Call, Waited, Waiter};
use super::barrier_metrics::BarrierMetrics;
use super::etcd::{Client, Compare, EtcdError, Operation, Range, Txn};
use super::keys;
use super::members_view::MembersView;
use crate::policy::revision::Revision;
use crate::store::StoreError;

/// The time limit of a call to etcd.
const CALL_TIMEOUT: Duration = Duration::from_millis(700);
/// The pause before a watch that has ended is begun anew.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// The boot clock: nanoseconds, see [`boot_clock`](crate::store::boot_clock).
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a [`MembersTask`] needs.
pub struct MembersInput {
    /// The own session, while there is one.
    pub own: watch::Receiver<Option<Uuid>>,
    /// Where it is told that the own session was seen fenced, or that its record was seen to be gone.
    pub lost: watch::Sender<Option<Uuid>>,
    /// Counts what the barrier does.
    pub metrics: Arc<BarrierMetrics>,
    /// The boot clock.
    pub clock: Clock,
}

/// Reads the records of all sessions, and does in etcd what the barrier asks for.
pub struct MembersTask {
    barrier: Barrier,
    requests: mpsc::UnboundedReceiver<Request>,
    view: watch::Sender<Arc<MembersView>>,
    input: MembersInput,
}

/// Waits until every replica that may answer has published a revision. All waits end with an error when
/// the [`MembersTask`] ends.
#[derive(Clone)]
pub struct BarrierHandle {
    requests: mpsc::UnboundedSender<Request>,
    clock: Clock,
}

/// A call, with the sessions to wait for. Without them it waits for those of the next range.
struct Request {
    call: Call,
    listed: Option<Vec<Uuid>>,
}

impl BarrierHandle {
    /// Waits until each of these sessions has told that it has published a revision, or its record is
    /// gone. `listed` are the sessions, without the own one, whose records a range in the transaction
    /// of the commit returned. Call it after the own store has published the revision.
    ///
    /// The waiter gets [`StoreError::NotYetEverywhere`] if this takes longer than 10 s.
    pub fn wait(&self, revision: Revision, listed: Vec<Uuid>, waiter: impl Waiter) {
        let call = Call::new((self.clock)(), revision, waiter);
        if listed.is_empty() {
            return call.end(Waited::default());
        }
        // If the task has ended, the call is dropped, which gives its waiter the error.
        self.requests.send(Request { call, listed: Some(listed) }).ok();
    }

    /// Waits until every replica that may answer has published a revision, which the own store has
    /// published. It is for a call that commits nothing and tells of the state at this revision.
    ///
    /// # Errors
    /// [`StoreError::NotYetEverywhere`], as for [`Self::wait`].
    pub async fn everywhere(&self, revision: Revision) -> Result<Waited, StoreError> {
        let (waiter, ended) = oneshot::channel();
        let call = Call::new((self.clock)(), revision, waiter);
        self.requests.send(Request { call, listed: None }).ok();
        ended.await.unwrap_or(Err(StoreError::NotYetEverywhere(None)))
    }
}

impl MembersTask {
    /// A task that does nothing before it [runs](Self::run), its handle, and the view that it updates.
    #[must_use]
    pub fn new(input: MembersInput) -> (Self, BarrierHandle, watch::Receiver<Arc<MembersView>>) {
        let (requests_sender, requests) = mpsc::unbounded_channel();
        let (view, view_receiver) = watch::channel(Arc::default());
        let handle = BarrierHandle { requests: requests_sender, clock: Arc::clone(&input.clock) };
        let barrier = Barrier::new(Arc::clone(&input.metrics));
        (Self { barrier, requests, view, input }, handle, view_receiver)
    }

    /// Runs until all handles are dropped. It may be dropped at any time.
    pub async fn run(mut self, client: &Client) {
        let changed = Notify::new();
        tokio::select! {
            () = self.serve(client, &changed) => {}
            never = watch_records(client, &changed) => match never {}
        }
    }

    async fn serve(&mut self, client: &Client, changed: &Notify) {
        let mut has_changed = true;
        loop {
            while let Ok(request) = self.requests.try_recv() {
                self.register(request);
            }
            let now = (self.input.clock)();
            self.barrier.give_up(now);
            let at = self.barrier.next_range(has_changed);
            if at <= now {
                has_changed = self.range(client).await;
                continue;
            }
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.register(request),
                    None => return,
                },
                () = changed.notified() => has_changed = true,
                () = tokio::time::sleep(Duration::from_nanos(at - now)) => {}
            }
        }
    }

    fn register(&mut self, Request { call, listed }: Request) {
        match listed {
            Some(listed) => self.barrier.wait((self.input.clock)(), call, listed),
            None => self.barrier.wait_for_range(call),
        }
    }

    /// Reads all records, and does what the barrier asks for. True: this has changed a record.
    async fn range(&mut self, client: &Client) -> bool {
        self.barrier.set_own(*self.input.own.borrow_and_update());
        self.barrier.range_sent((self.input.clock)());
        let answer = match client.range(&Range::under(keys::MEMBERS), CALL_TIMEOUT).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "the records of the replicas could not be read");
                self.barrier.range_failed();
                return false;
            }
        };
        let actions = self.barrier.answered((self.input.clock)(), &answer);
        self.view.send_replace(Arc::clone(self.barrier.view()));
        let done = actions.iter().map(|action| self.input.carry_out(client, action));
        join_all(done).await.contains(&true)
    }
}

impl MembersInput {
    /// Does this in etcd. True: it has changed a record.
    async fn carry_out(&self, client: &Client, action: &Action) -> bool {
        let (session, seen, operation) = match action {
            Action::ReportOwnEnd(session) => {
                self.lost.send_if_modified(|lost| lost.replace(*session) != Some(*session));
                return false;
            }
            Action::Fence { session, seen, fenced, .. } => {
                (*session, seen, Operation::Put(keys::member(*session), fenced.clone()))
            }
            Action::Delete { session, seen } => {
                (*session, seen, Operation::Delete(Range::key(&keys::member(*session))))
            }
        };
        let txn = Txn {
            compares: vec![Compare::Is(keys::member(session), seen.clone())],
            then: vec![operation],
            or_else: vec![],
        };
        let is_done = client.txn(&txn, CALL_TIMEOUT).await.map(|answer| answer.succeeded);
        match (&is_done, action) {
            (Ok(true), Action::Fence { name, .. }) => {
                self.metrics.fences.inc(name);
                tracing::warn!(replica = %name, %session, "a replica that is too slow was fenced");
            }
            (Ok(true), _) => {
                self.metrics.deletions.inc();
                tracing::info!(%session, "the record of a replica that has died was deleted");
            }
            (Ok(false), _) => {}
            (Err(error), _) => {
                tracing::debug!(%error, %session, "the record of a replica could not be changed");
            }
        }
        is_done.unwrap_or(false)
    }
}

/// Notifies when records change, and when changes may have been missed.
async fn watch_records(client: &Client, changed: &Notify) -> Infallible {
    let records = Range::under(keys::MEMBERS);
    loop {
        let Err(error) = watch_once(client, &records, changed).await;
        tracing::debug!(%error, "the watch of the records has ended");
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn watch_once(
    client: &Client,
    records: &Range,
    changed: &Notify,
) -> Result<Infallible, EtcdError> {
    let mut watch = client.watch(records, 0, CALL_TIMEOUT).await?;
    loop {
        changed.notify_one();
        watch.woken().await?;
    }
}
