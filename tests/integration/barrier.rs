//! The barrier, on the records of a real etcd that the tests write as other replicas would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::Timestamp;
use scopegate::policy::id::Name;
use scopegate::policy::revision::Revision;
use scopegate::store::replicated::ReplicaReport;
use scopegate::store::replicated::etcd::{Client, Compare, Operation, Range, Txn};
use scopegate::store::replicated::member_record::{MemberRecord, PeerToken};
use scopegate::store::replicated::members_task::{BarrierHandle, MembersInput, MembersTask};
use scopegate::store::replicated::members_view::MembersView;
use scopegate::store::replicated::{BarrierMetrics, Waited, keys};
use scopegate::store::{StoreError, boot_clock};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::proxy::Proxy;
use crate::harness::raw::WAIT_LIMIT;

/// The lapse time of the records of these tests.
const LAPSE_SECONDS: u64 = 5;
/// When a wait is given up.
const GIVEN_UP_SECONDS: u64 = 10;
/// More revisions than a replica publishes during a test.
const REVISION: Revision = Revision(1 << 40);

type Outcome = oneshot::Receiver<Result<Waited, StoreError>>;

/// The part of a replica that reads the records. Its clock can be set forward.
struct Replica {
    barrier: BarrierHandle,
    view: watch::Receiver<Arc<MembersView>>,
    own: watch::Sender<Option<Uuid>>,
    lost: watch::Receiver<Option<Uuid>>,
    metrics: Arc<BarrierMetrics>,
    ahead: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(client: Client) -> Self {
        let (own, own_receiver) = watch::channel(None);
        let (lost_sender, lost) = watch::channel(None);
        let metrics = Arc::new(BarrierMetrics::default());
        let ahead = Arc::new(AtomicU64::new(0));
        let of_clock = Arc::clone(&ahead);
        let input = MembersInput {
            own: own_receiver,
            lost: lost_sender,
            metrics: Arc::clone(&metrics),
            clock: Arc::new(move || boot_clock::now() + of_clock.load(Ordering::SeqCst)),
        };
        let (task, barrier, view) = MembersTask::new(input);
        let task = tokio::spawn(async move { task.run(&client).await });
        Self { barrier, view, own, lost, metrics, ahead, task }
    }

    fn wait(&self, listed: &[&MemberRecord]) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        let listed = listed.iter().map(|record| record.session).collect();
        self.barrier.wait(REVISION, listed, sender);
        outcome
    }

    /// Waits until a range that was sent after this call is answered and seen.
    async fn next_range(&self) {
        self.barrier.everywhere(Revision::ZERO).await.expect("all have published revision 0");
    }

    fn set_clock_forward(&self, seconds: u64) {
        self.ahead.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// Waits until the view satisfies a condition.
    async fn until(&self, condition: impl Fn(&MembersView) -> bool) {
        let mut view = self.view.clone();
        let seen = tokio::time::timeout(WAIT_LIMIT, view.wait_for(|view| condition(view))).await;
        seen.expect("in time").expect("the task runs");
    }

    fn fences(&self, record: &MemberRecord) -> u64 {
        self.metrics.fences.read().get(record.name.as_str()).copied().unwrap_or(0)
    }
}

fn record(name: &str) -> MemberRecord {
    MemberRecord {
        session: Uuid::new_v4(),
        name: Name::parse(name).expect("a name"),
        count: 0,
        random: *Uuid::new_v4().as_bytes(),
        published: Revision(1),
        fenced: false,
        ttl: Duration::from_secs(3),
        clock: Timestamp::UNIX_EPOCH,
        started: Timestamp::UNIX_EPOCH,
        report: ReplicaReport::default(),
        speaks: 1,
        version: "0.1.0".to_owned(),
        advertise: String::new(),
        peer_token: PeerToken([7; 32]),
    }
}

async fn put(client: &Client, record: &MemberRecord) {
    let value = Bytes::from(record.encode());
    let then = vec![Operation::Put(keys::member(record.session), value)];
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
}

/// Renews a record as its owner does. False: it was changed by another replica.
async fn renew(client: &Client, record: &mut MemberRecord, published: Revision) -> bool {
    let (key, old) = (keys::member(record.session), Bytes::from(record.encode()));
    let random = *Uuid::new_v4().as_bytes();
    *record = MemberRecord { count: record.count + 1, random, published, ..record.clone() };
    let txn = Txn {
        compares: vec![Compare::Is(key.clone(), old)],
        then: vec![Operation::Put(key, record.encode().into())],
        or_else: vec![],
    };
    client.txn(&txn, WITHIN).await.expect("an answer").succeeded
}

async fn delete(client: &Client, record: &MemberRecord) {
    let then = vec![Operation::Delete(Range::key(&keys::member(record.session)))];
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
}

/// The record in etcd.
async fn stored(client: &Client, record: &MemberRecord) -> Option<MemberRecord> {
    let range = Range::key(&keys::member(record.session));
    let answer = client.range(&range, WITHIN).await.expect("an answer");
    answer.pairs.first().map(|pair| MemberRecord::decode(&pair.value).expect("a record"))
}

async fn ended(outcome: Outcome) -> Result<Waited, StoreError> {
    tokio::time::timeout(WAIT_LIMIT, outcome).await.expect("in time").expect("a result")
}

fn is_open(outcome: &mut Outcome) -> bool {
    matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}

fn names(records: &[&MemberRecord]) -> Vec<Name> {
    records.iter().map(|record| record.name.clone()).collect()
}

#[tokio::test]
async fn change_is_acknowledged_when_each_listed_record_has_told_or_is_gone() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, replica) = (etcd.client(), Replica::start(etcd.client()));
    replica.next_range().await;
    // Both records are newer than the last view.
    let (mut b, c, mut unlisted) = (record("b"), record("c"), record("d"));
    for record in [&b, &c, &unlisted] {
        put(&client, record).await;
    }
    let mut outcome = replica.wait(&[&b, &c]);
    replica.next_range().await;
    assert!(is_open(&mut outcome), "absent in the view from before");
    assert!(renew(&client, &mut b, REVISION).await);
    replica.next_range().await;
    assert!(is_open(&mut outcome), "the other one has not told");
    delete(&client, &c).await;
    let waited = ended(outcome).await.expect("everywhere");
    assert_eq!(waited.waited_for, names(&[&b, &c]));

    // The last view has told it.
    let waited = ended(replica.wait(&[&b])).await.expect("everywhere");
    assert_eq!(waited.waited_for, []);
    // The record of the own session is not waited for, and the record of any other is.
    let again = async {
        // The first of two views may be of a range that was sent before the call.
        for _ in 0..2 {
            let seen = replica.view.borrow().at;
            replica.until(|view| view.at > seen).await;
        }
        assert!(renew(&client, &mut unlisted, REVISION).await);
    };
    let (waited, ()) = tokio::join!(replica.barrier.everywhere(REVISION), again);
    assert_eq!(waited.expect("everywhere").waited_for, names(&[&unlisted]));
    let own = record("a");
    put(&client, &own).await;
    replica.own.send_replace(Some(own.session));
    assert_eq!(replica.barrier.everywhere(REVISION).await.expect("own").waited_for, []);
}

#[tokio::test]
async fn silent_replica_is_fenced_and_waited_for_until_its_record_is_gone() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, replica) = (etcd.client(), Replica::start(etcd.client()));
    let (silent, mut busy) = (record("silent"), record("busy"));
    put(&client, &silent).await;
    put(&client, &busy).await;
    let mut outcome = replica.wait(&[&silent, &busy]);
    // The other one publishes revisions all the time, and is always behind.
    while replica.fences(&silent) == 0 {
        let published = busy.published.next();
        assert!(renew(&client, &mut busy, published).await, "it is given time");
    }
    assert!(is_open(&mut outcome));
    let fenced = stored(&client, &silent).await.expect("a record");
    assert_eq!(fenced, MemberRecord { fenced: true, ..silent.clone() });
    assert!(!renew(&client, &mut silent.clone(), REVISION).await, "its owner cannot renew it");
    assert!(renew(&client, &mut busy, REVISION).await);
    replica.next_range().await;
    assert!(is_open(&mut outcome), "the fenced one may still answer");
    delete(&client, &silent).await;
    assert_eq!(ended(outcome).await.expect("gone").waited_for, names(&[&busy, &silent]));
    assert_eq!((replica.fences(&silent), replica.fences(&busy)), (1, 0));
}

#[tokio::test]
async fn dead_replicas_record_is_deleted_after_its_lapse_time() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, replica) = (etcd.client(), Replica::start(etcd.client()));
    let (dead, mut slow) = (record("dead"), record("slow"));
    put(&client, &dead).await;
    put(&client, &slow).await;
    replica.until(|view| view.iter().count() == 2).await;
    replica.set_clock_forward(LAPSE_SECONDS - 1);
    assert!(renew(&client, &mut slow, Revision(2)).await);
    let is_new = |view: &MembersView| {
        view.get(slow.session).is_some_and(|member| member.has_published(Revision(2)))
    };
    replica.until(is_new).await;
    assert!(stored(&client, &dead).await.is_some());
    replica.set_clock_forward(1);
    // No call waits.
    replica.until(|view| view.get(dead.session).is_none()).await;
    assert!(stored(&client, &slow).await.is_some());
    assert_eq!(replica.metrics.deletions.read(), 1);
    let outcome = replica.wait(&[&dead, &slow]);
    replica.next_range().await;
    replica.set_clock_forward(LAPSE_SECONDS);
    assert_eq!(ended(outcome).await.expect("gone").waited_for, names(&[&slow]));
    assert!(stored(&client, &slow).await.is_none());
}

#[tokio::test]
async fn calls_at_once_share_few_ranges() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, replica) = (etcd.client(), Replica::start(etcd.client()));
    put(&client, &record("b")).await;
    replica.next_range().await;
    let before = replica.metrics.ranges.read();
    let calls = (0..200).map(|_| replica.barrier.everywhere(Revision(1)));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let ranges = replica.metrics.ranges.read() - before;
    assert!((1..10).contains(&ranges), "{ranges} ranges");
}

#[tokio::test]
async fn barrier_goes_on_when_etcd_answers_again() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    let client = etcd.client();
    let replica = Replica::start(Etcd::client_of(&[&proxy.address]));
    let mut other = record("b");
    put(&client, &other).await;
    replica.next_range().await;
    proxy.cut();
    let mut outcome = replica.wait(&[&other]);
    let again = tokio::spawn({
        let barrier = replica.barrier.clone();
        async move { barrier.everywhere(REVISION).await }
    });
    assert!(renew(&client, &mut other, REVISION).await);
    let (before, deadline) = (replica.metrics.ranges.read(), Instant::now() + WAIT_LIMIT);
    while replica.metrics.ranges.read() < before + 3 {
        assert!(Instant::now() < deadline, "no range is sent");
        tokio::task::yield_now().await;
    }
    assert!(is_open(&mut outcome) && !again.is_finished());
    proxy.mend();
    assert_eq!(ended(outcome).await.expect("told").waited_for, names(&[&other]));
    assert!(again.await.expect("ended").is_ok());

    // Without etcd the waits end in time, too.
    proxy.cut();
    renew(&client, &mut other, Revision(1)).await;
    let outcome = replica.wait(&[&record("c")]);
    let again = replica.barrier.everywhere(REVISION);
    replica.set_clock_forward(GIVEN_UP_SECONDS);
    let error = Err(StoreError::NotYetEverywhere(None));
    assert_eq!(ended(outcome).await, error);
    let forward = async { replica.set_clock_forward(GIVEN_UP_SECONDS) };
    assert_eq!(tokio::join!(again, forward).0, error);
    // And with the task.
    let outcome = replica.wait(&[&other]);
    replica.task.abort();
    assert_eq!(ended(outcome).await, error);
    assert_eq!(ended(replica.wait(&[&other])).await, error);
    assert_eq!(replica.barrier.everywhere(REVISION).await, error);
}

#[tokio::test]
async fn end_of_the_own_session_is_reported() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, mut replica) = (etcd.client(), Replica::start(etcd.client()));
    let [first, second] = ["a", "a"].map(record);
    for own in [&first, &second] {
        put(&client, own).await;
        replica.own.send_replace(Some(own.session));
        replica.next_range().await;
        let reported = async {
            match own.session == first.session {
                true => put(&client, &MemberRecord { fenced: true, ..own.clone() }).await,
                false => delete(&client, own).await,
            }
            let is_own = |lost: &Option<Uuid>| *lost == Some(own.session);
            replica.lost.wait_for(is_own).await.expect("the task runs");
        };
        tokio::time::timeout(WAIT_LIMIT, reported).await.expect("in time");
    }
}
