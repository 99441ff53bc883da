//! The sessions of a replica against real etcd processes, which are killed, stopped and cut off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use scopegate::metrics::{HistogramSnapshot, machine_time};
use scopegate::policy::id::Name;
use scopegate::policy::revision::Revision;
use scopegate::store::lease::Lease;
use scopegate::store::replicated::etcd::{self, Client, Operation, Range, Txn};
use scopegate::store::replicated::head::{Head, HeadState};
use scopegate::store::replicated::member_record::MemberRecord;
use scopegate::store::replicated::membership::{
    Membership, MembershipMetrics, MembershipState, Setup,
};
use scopegate::store::replicated::{Followed, LogPosition, ReplicaReport, Settings, keys};
use scopegate::store::{DiskState, boot_clock};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::proxy::Proxy;
use crate::harness::raw::WAIT_LIMIT;

const CLUSTER: Uuid = Uuid::from_u128(1);
const INCARNATION: Uuid = Uuid::from_u128(2);
const TTL: Duration = Duration::from_secs(3);

fn followed(seq: u64) -> Followed {
    let hash = blake3::hash(&seq.to_be_bytes());
    let position = LogPosition { incarnation: INCARNATION, seq, hash };
    Followed { position, revision: Revision(seq) }
}

fn head(seq: u64) -> Head {
    let first = Head::first(CLUSTER, INCARNATION, Revision(seq), Timestamp::UNIX_EPOCH);
    Head { seq, hash: followed(seq).position.hash, ..first }
}

async fn put(client: &Client, key: &str, value: Vec<u8>) {
    let put = Operation::Put(key.to_owned(), Bytes::from(value));
    client.txn(&Txn { then: vec![put], ..Txn::default() }, WITHIN).await.expect("an answer");
}

async fn records(client: &Client) -> Vec<MemberRecord> {
    let answer = client.range(&Range::under(keys::MEMBERS), WITHIN).await.expect("an answer");
    let record = |pair: &etcd::Pair| MemberRecord::decode(&pair.value).expect("a record");
    answer.pairs.iter().map(record).collect()
}

/// Waits until the records fulfil a condition.
async fn until_records(client: &Client, condition: impl Fn(&[MemberRecord]) -> bool) {
    let wait = async { while !condition(&records(client).await) {} };
    tokio::time::timeout(WAIT_LIMIT, wait).await.expect("in time");
}

/// A replica without a store: the test says what it has applied.
struct Replica {
    lease: Arc<Lease>,
    followed: watch::Sender<Followed>,
    lost: watch::Sender<Option<Uuid>>,
    metrics: Arc<MembershipMetrics>,
    errors: Arc<etcd::ErrorCounts>,
    membership: Membership,
    state: watch::Receiver<MembershipState>,
}

impl Replica {
    /// A replica that has applied two entries.
    fn start(addresses: &[&str], ttl: Duration) -> Self {
        let (lease, metrics) = (Arc::new(Lease::none()), Arc::default());
        let (followed, followed_receiver) = watch::channel(followed(2));
        let (lost, lost_receiver) = watch::channel(None);
        let etcd = Etcd::settings(addresses);
        let errors = Arc::clone(&etcd.errors);
        let membership = Membership::start(Setup {
            settings: Settings {
                etcd,
                name: Name::parse("replica-0".to_owned()).expect("a name"),
                advertise: "http://127.0.0.1:1".to_owned(),
                ttl,
            },
            version: "0.1.0".to_owned(),
            cluster: CLUSTER,
            incarnation: INCARNATION,
            lease: Arc::clone(&lease),
            followed: followed_receiver,
            lost: lost_receiver,
            report: watch::channel(ReplicaReport::default()).1,
            disk: watch::channel(DiskState::default()).1,
            members: watch::channel(Arc::default()).1,
            clock: Box::new(machine_time),
            follow: Box::new(|_| {}),
            metrics: Arc::clone(&metrics),
        });
        let membership = membership.expect("a thread");
        let state = membership.state();
        Self { lease, followed, lost, metrics, errors, membership, state }
    }

    async fn until_state(&mut self, condition: impl FnMut(&MembershipState) -> bool) {
        let wait = self.state.wait_for(condition);
        tokio::time::timeout(WAIT_LIMIT, wait).await.expect("in time").expect("a state");
    }

    /// Waits until it may answer, by another session than this one.
    async fn until_joined(&mut self, other_than: Uuid) -> Uuid {
        let is_new = |state: &MembershipState| matches!(state, MembershipState::Joined { session, .. } if *session != other_than);
        self.until_state(is_new).await;
        match &*self.state.borrow() {
            MembershipState::Joined { session, .. } => *session,
            state => panic!("{state:?}"),
        }
    }

    /// Waits until the sentence is why it does not answer.
    async fn until_why(&mut self, part: &str) {
        self.until_state(|state| match state {
            MembershipState::Joining(why) => why.contains(part),
            MembershipState::Refused(refusal) => refusal.to_string().contains(part),
            _ => false,
        })
        .await;
    }

    fn may_answer(&self) -> bool {
        self.lease.note().is_some_and(|noted| self.lease.holds(noted, boot_clock::now))
    }

    async fn leave(self) {
        tokio::task::spawn_blocking(|| self.membership.leave()).await.expect("it has left");
    }
}

#[tokio::test]
async fn replica_joins_when_it_has_applied_the_log_and_leaves_no_record() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    put(&client, keys::HEAD, head(3).encode()).await;
    let mut replica = Replica::start(&[etcd.address(0)], TTL);
    replica.until_why("it has applied entry 2 of 3").await;
    assert!(!replica.may_answer());
    assert!(records(&client).await.is_empty());

    replica.followed.send(followed(3)).expect("a receiver");
    let session = replica.until_joined(Uuid::nil()).await;
    assert!(replica.may_answer());
    let record = records(&client).await.pop().expect("a record");
    assert_eq!((record.session, record.published, record.fenced), (session, Revision(3), false));

    // The record tells what is published, without a wait for the next beat.
    put(&client, keys::HEAD, head(4).encode()).await;
    replica.followed.send(followed(4)).expect("a receiver");
    until_records(&client, |records| records.iter().any(|one| one.published == Revision(4))).await;

    let (lease, state) = (Arc::clone(&replica.lease), replica.state.clone());
    replica.leave().await;
    assert_eq!(lease.note(), None);
    assert!(records(&client).await.is_empty());
    assert_eq!(*state.borrow(), MembershipState::Left);
}

/// Fences the session of a replica, and tells it if it does not have to find out itself.
async fn fence(is_told: bool) {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    put(&client, keys::HEAD, head(2).encode()).await;
    let mut replica = Replica::start(&[etcd.address(0)], TTL);
    let session = replica.until_joined(Uuid::nil()).await;
    let noted = replica.lease.note().expect("a session");
    let record = records(&client).await.pop().expect("a record");
    let fenced = MemberRecord { fenced: true, ..record };
    put(&client, &keys::member(session), fenced.encode()).await;
    if is_told {
        replica.lost.send(Some(session)).expect("a receiver");
    }
    until_records(&client, |records| records.iter().all(|one| one.session != session)).await;
    assert!(!replica.lease.holds(noted, boot_clock::now));
    replica.until_joined(session).await;
    assert!(!replica.lease.holds(noted, boot_clock::now), "the ended session never goes on");
    assert!(replica.may_answer());
    assert_eq!((replica.metrics.fences.read(), replica.metrics.sessions.read()), (1, 2));
}

#[tokio::test]
async fn fenced_session_ends_before_its_record_is_gone_and_another_one_begins() {
    tokio::join!(fence(false), fence(true));
}

/// Cuts a replica off from etcd until its lease is over, and mends that.
async fn cut_off(cut: fn(&Proxy)) {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    put(&client, keys::HEAD, head(2).encode()).await;
    let proxy = Proxy::start(etcd.address(0));
    let mut replica = Replica::start(&[&proxy.address], TTL);
    let session = replica.until_joined(Uuid::nil()).await;
    let noted = replica.lease.note().expect("a session");
    cut(&proxy);
    let until = replica.lease.until();
    replica.until_state(|state| matches!(state, MembershipState::Joining(_))).await;
    assert!(boot_clock::now() >= until, "it answers for as long as it may");
    assert!(!replica.lease.holds(noted, boot_clock::now));
    assert_eq!(replica.lease.note(), None);
    let left: Vec<_> = records(&client).await.iter().map(|record| record.session).collect();
    assert_eq!(left, [session], "it could not delete its record");

    proxy.mend();
    let next = replica.until_joined(session).await;
    assert!(!replica.lease.holds(noted, boot_clock::now));
    until_records(&client, |records| records.iter().all(|one| one.session == next)).await;
    assert_eq!(replica.metrics.fences.read(), 0);
}

#[tokio::test]
async fn replica_without_connections_or_answers_stops_by_itself_and_joins_again() {
    tokio::join!(cut_off(Proxy::cut), cut_off(Proxy::hold_requests), cut_off(Proxy::hold_answers));
}

#[tokio::test]
async fn session_goes_on_when_the_leader_of_etcd_dies_or_a_node_hangs() {
    let Some(mut etcd) = Etcd::start(3, &[]).await else { return };
    put(&etcd.client(), keys::HEAD, head(2).encode()).await;
    // Longer than by default: a loaded machine may take longer to elect a leader.
    let ttl = Duration::from_secs(10);
    let addresses: Vec<_> = (0..3).map(|node| etcd.address(node).to_owned()).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut replica = Replica::start(&addresses, ttl);
    let session = replica.until_joined(Uuid::nil()).await;
    let noted = replica.lease.note().expect("a session");
    for (seq, is_killed) in [(3, true), (4, false)] {
        put(&etcd.client(), keys::HEAD, head(seq).encode()).await;
        let leader = etcd.leader().await;
        if is_killed {
            etcd.kill(leader);
        } else {
            etcd.pause(leader);
        }
        let until = replica.lease.until();
        // It has news to tell, so a beat begins at once.
        replica.followed.send(followed(seq)).expect("a receiver");
        let renewed = async {
            while replica.lease.until() == until && replica.may_answer() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT_LIMIT, renewed).await.expect("in time");
        assert!(replica.lease.holds(noted, boot_clock::now), "{:?}", replica.state.borrow());
        if is_killed {
            etcd.start_node(leader);
        } else {
            etcd.resume(leader);
        }
        // The next one is stopped when all three are there.
        while etcd.client().status(WITHIN).await.iter().any(Result::is_err) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let client = etcd.client();
    etcd.until_it_answers(&client).await;
    let sessions: Vec<_> = records(&client).await.iter().map(|one| one.session).collect();
    assert_eq!((sessions, replica.metrics.sessions.read()), (vec![session], 1));
    let mut beats = HistogramSnapshot::default();
    replica.metrics.beats.add_to(&mut beats);
    assert!(beats.seconds() > 0.0);
    assert!(replica.errors.read().iter().any(|(kind, count)| *kind == "no_answer" && *count > 0));
}

#[tokio::test]
async fn replica_that_may_not_join_says_why_and_has_no_record() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let (client, addresses) = (etcd.client(), [etcd.address(0)]);
    Replica::start(&addresses, TTL).until_why("etcd has no cluster below this prefix").await;

    let other = Uuid::from_u128(8);
    for (head, sentence) in [
        (Head { state: HeadState::Closed(other), ..head(2) }, "the log is closed"),
        (Head { incarnation: other, ..head(2) }, "the log has incarnation"),
        (Head { cluster: other, ..head(2) }, "the log belongs to the cluster"),
    ] {
        put(&client, keys::HEAD, head.encode()).await;
        let mut replica = Replica::start(&addresses, TTL);
        replica.until_why(sentence).await;
        assert_eq!(replica.lease.note(), None);
        assert!(records(&client).await.is_empty());
    }

    put(&client, keys::HEAD, head(2).encode()).await;
    let mut first = Replica::start(&addresses, TTL);
    first.until_joined(Uuid::nil()).await;

    // A session ends when the log is closed, or was set back.
    put(&client, keys::HEAD, head(1).encode()).await;
    first.until_why("the log was set back").await;
    assert_eq!(first.lease.note(), None);
    until_records(&client, <[_]>::is_empty).await;
    let head = client.range(&Range::key(keys::HEAD), WITHIN).await.expect("an answer");
    let head = Head::decode(&head.pairs[0].value).expect("a head");
    assert!(matches!(head.state, HeadState::Closed(_)));
}
