//! Steps of a member against a scripted etcd and scripted clocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::super::super::etcd::{Pair, Settings as EtcdSettings, TlsFiles};
use super::super::super::member_record::{MemberRecord, PeerToken};
use super::super::super::{FORMAT, LogError};
use super::*;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::replicated::etcd::Compare;
use crate::store::replicated::head::HeadState;

/// The time to live of the tested member, in milliseconds.
const TTL: u64 = 4000;
const CLUSTER: Uuid = Uuid::from_u128(1);
const INCARNATION: Uuid = Uuid::from_u128(2);

struct World {
    etcd: BTreeMap<String, Bytes>,
    lease: Arc<Lease>,
    /// The boot clock, in milliseconds.
    now: Arc<AtomicU64>,
    /// The clock of the replica, in seconds.
    clock: Arc<AtomicI64>,
    /// The latest time that it followed, in seconds.
    followed_clock: Arc<AtomicI64>,
    /// The records, as another thread saw them.
    seen: watch::Sender<Arc<MembersView>>,
    metrics: Arc<MembershipMetrics>,
    disk: watch::Sender<DiskState>,
    member: Member,
    /// The transaction without an answer.
    txn: Option<Txn>,
}

fn position(seq: u64) -> LogPosition {
    let hash = blake3::hash(&seq.to_be_bytes());
    LogPosition { incarnation: INCARNATION, seq, hash }
}

fn followed(seq: u64) -> Followed {
    Followed { position: position(seq), revision: Revision(seq) }
}

fn head(seq: u64) -> Head {
    let first = Head::first(CLUSTER, INCARNATION, Revision(seq), Timestamp::UNIX_EPOCH);
    Head { seq, hash: position(seq).hash, ..first }
}

fn closed() -> Head {
    Head { state: HeadState::Closed(Uuid::from_u128(9)), ..head(5) }
}

fn name(text: &str) -> Name {
    Name::parse(text.to_owned()).expect("a name")
}

impl World {
    /// A log of five entries, and a member that has applied some of them.
    fn new(applied: u64) -> Self {
        let (lease, metrics) = (Arc::new(Lease::none()), Arc::default());
        let (now, clock) = (Arc::new(AtomicU64::new(1000)), Arc::new(AtomicI64::new(1000)));
        let (of_now, of_clock) = (Arc::clone(&now), Arc::clone(&clock));
        let followed_clock = Arc::new(AtomicI64::new(0));
        let (of_followed, seen) = (Arc::clone(&followed_clock), watch::Sender::default());
        let url = "etcd://127.0.0.1:1/test".parse().expect("a URL");
        let tls = TlsFiles::default();
        let disk = watch::Sender::<DiskState>::default();
        let member = Member::new(
            Parts {
                settings: Settings {
                    etcd: EtcdSettings {
                        url,
                        tls,
                        login: None,
                        cluster_id: None,
                        errors: Arc::default(),
                    },
                    name: name("a"),
                    advertise: "http://a".to_owned(),
                    ttl: Duration::from_millis(TTL),
                },
                version: "0".to_owned(),
                report: watch::channel(ReplicaReport::default()).1,
                disk: disk.subscribe(),
                seen: seen.subscribe(),
                follow: Box::new(move |told| {
                    of_followed.fetch_max(told.as_second(), Ordering::Relaxed);
                }),
                log: OwnLog { cluster: CLUSTER, incarnation: INCARNATION },
                lease: Arc::clone(&lease),
                now: Box::new(move || of_now.load(Ordering::Relaxed) * 1_000_000),
                clock: Box::new(move || {
                    Timestamp::from_second(of_clock.load(Ordering::Relaxed)).expect("a time")
                }),
                metrics: Arc::clone(&metrics),
            },
            followed(applied),
        );
        let mut world = Self {
            etcd: BTreeMap::new(),
            lease,
            now,
            clock,
            followed_clock,
            seen,
            metrics,
            disk,
            member,
            txn: None,
        };
        world.set_head(&head(5));
        world.step(Event::Woken);
        world
    }

    /// A member whose session answers calls, and no transaction is without an answer. It began at the
    /// returned time.
    fn answering() -> (Self, u64) {
        let mut world = Self::new(5);
        world.answer();
        let created = world.time();
        world.answer();
        assert!(world.may_answer());
        assert!(world.txn.is_none());
        (world, created)
    }

    fn time(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Lets milliseconds pass.
    fn pass(&mut self, milliseconds: u64) {
        self.now.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Lets milliseconds pass, and wakes the member if it is time.
    fn wake_after(&mut self, milliseconds: u64) {
        self.pass(milliseconds);
        if self.member.wake_at() <= self.time() * 1_000_000 {
            self.step(Event::Woken);
        }
    }

    fn step(&mut self, event: Event) {
        if let Some(txn) = self.member.step(event) {
            assert_eq!(self.txn.replace(txn), None, "one transaction at a time");
        }
    }

    fn set_head(&mut self, head: &Head) {
        self.etcd.insert(keys::HEAD.to_owned(), head.encode().into());
    }

    fn read(&self, range: &Range) -> Vec<Pair> {
        let is_in = |key: &str| {
            let members = key.starts_with(keys::MEMBERS) && *range == Range::under(keys::MEMBERS);
            members || *range == Range::key(key)
        };
        let found = self.etcd.iter().filter(|(key, _)| is_in(key));
        found.map(|(key, value)| Pair { key: key.clone(), value: value.clone() }).collect()
    }

    /// etcd carries a transaction out.
    fn carry_out(&mut self, txn: &Txn) -> TxnAnswer {
        let succeeded = txn.compares.iter().all(|compare| match compare {
            Compare::Is(key, value) => self.etcd.get(key) == Some(value),
            Compare::Absent(key) => !self.etcd.contains_key(key),
            Compare::Exists(key) => self.etcd.contains_key(key),
        });
        let mut ranges = Vec::new();
        for operation in if succeeded { &txn.then } else { &txn.or_else } {
            match operation {
                Operation::Put(key, value) => {
                    self.etcd.insert(key.clone(), value.clone());
                }
                Operation::Delete(range) => {
                    for pair in self.read(range) {
                        self.etcd.remove(&pair.key);
                    }
                }
                Operation::Range(range) => {
                    let pairs = self.read(range);
                    ranges.push(RangeAnswer { revision: 1, pairs, has_more: false });
                }
            }
        }
        TxnAnswer { succeeded, revision: 1, ranges }
    }

    /// etcd carries the transaction out, and its answer comes.
    fn answer(&mut self) {
        let txn = self.txn.take().expect("a transaction");
        let answer = self.carry_out(&txn);
        self.step(Event::Answered(Ok(answer)));
    }

    /// No answer comes. Returns the transaction, which etcd may carry out now or later.
    fn no_answer(&mut self) -> Txn {
        let txn = self.txn.take().expect("a transaction");
        self.step(Event::Answered(Err(EtcdError::NoAnswer("none".to_owned()))));
        txn
    }

    fn may_answer(&self) -> bool {
        let holds = |noted| self.lease.holds(noted, || self.time() * 1_000_000);
        self.lease.note().is_some_and(holds)
    }

    /// Until when it may answer, in milliseconds.
    fn until(&self) -> u64 {
        self.lease.until() / 1_000_000
    }

    fn records(&self) -> Vec<MemberRecord> {
        let all = self.read(&Range::under(keys::MEMBERS));
        all.iter().map(|pair| MemberRecord::decode(&pair.value).expect("a record")).collect()
    }

    fn record(&self) -> MemberRecord {
        match self.records().as_slice() {
            [record] => record.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Another process puts a record.
    fn put(&mut self, record: &MemberRecord) {
        self.etcd.insert(keys::member(record.session), record.encode().into());
    }

    /// Another thread reads all records, and the member is woken.
    fn look(&mut self) {
        self.pass(1);
        let pairs = self.read(&Range::under(keys::MEMBERS));
        let answer = RangeAnswer { revision: 1, pairs, has_more: false };
        let next = self.seen.borrow().next(self.time() * 1_000_000, &answer);
        self.seen.send_replace(Arc::new(next));
        self.step(Event::Woken);
    }

    fn fence(&mut self) {
        let record = self.record();
        self.put(&MemberRecord { fenced: true, ..record });
    }

    /// Why it does not answer.
    fn why(&self) -> String {
        match self.member.state() {
            MembershipState::Joining(why) => why.clone(),
            MembershipState::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// A record of another replica, whose clock is so many seconds ahead.
fn other_record(ahead: i64) -> MemberRecord {
    MemberRecord {
        session: Uuid::from_u128(7),
        name: name("b"),
        count: 1,
        random: [1; 16],
        published: Revision(5),
        fenced: false,
        ttl: Duration::from_millis(TTL),
        clock: Timestamp::from_second(1000 + ahead).expect("a time"),
        started: Timestamp::UNIX_EPOCH,
        report: ReplicaReport::default(),
        speaks: FORMAT,
        version: "0".to_owned(),
        advertise: "http://b".to_owned(),
        peer_token: PeerToken([0; 32]),
    }
}

#[test]
fn joins_only_after_the_head_of_its_creation_is_applied() {
    let mut world = World::new(3);
    world.answer();
    assert!(world.txn.is_none(), "it has not applied what it read");
    assert_eq!(world.why(), "it has applied entry 3 of 5");
    world.step(Event::Followed(followed(5)));
    assert!(world.records().is_empty());
    // Another replica commits before the record exists, and waits for no record.
    world.set_head(&head(6));
    let created = world.time();
    world.answer();
    let record = world.record();
    assert_eq!((record.count, record.published, record.fenced), (0, Revision(5), false));
    assert!(!world.may_answer(), "entry 6 is acknowledged");
    world.wake_after(TTL / 4);
    world.answer();
    assert_eq!(world.record().count, 1, "beats keep the record meanwhile");
    assert!(!world.may_answer());
    world.step(Event::Followed(followed(6)));
    assert!(world.may_answer());
    assert_eq!(world.until(), created + TTL / 4 + TTL);
    let MembershipState::Joined { session, peer_token } = world.member.state().clone() else {
        panic!("{:?}", world.member.state());
    };
    assert_eq!((session, peer_token), (record.session, record.peer_token));
}

#[test]
fn joins_a_busy_log_and_reads_an_old_head_again() {
    let mut world = World::new(3);
    world.answer();
    // It comes near, but another entry is committed meanwhile: it need not be at the very end.
    world.set_head(&head(6));
    world.step(Event::Followed(followed(5)));
    assert!(world.txn.as_ref().is_some_and(|txn| !txn.compares.is_empty()), "a creation");

    // After a second the head that it read says little.
    let mut world = World::new(3);
    world.answer();
    world.pass(1000);
    world.step(Event::Followed(followed(5)));
    assert!(world.txn.as_ref().is_some_and(|txn| txn.compares.is_empty()), "the head");
    world.set_head(&head(60));
    world.answer();
    assert_eq!((world.txn.clone(), world.why().as_str()), (None, "it has applied entry 5 of 60"));
}

#[test]
fn without_disk_space_its_session_ends_and_none_begins() {
    let (mut world, _) = World::answering();
    world.disk.send_modify(|disk| disk.is_exhausted = true);
    world.step(Event::Woken);
    assert!(!world.may_answer(), "before its record is gone");
    assert!(world.why().contains("free space"));
    world.answer();
    assert!(world.records().is_empty(), "no change waits for it");
    world.wake_after(1000);
    world.answer();
    assert_eq!((world.txn.clone(), world.may_answer()), (None, false));
    assert!(world.why().contains("free space"));
    world.disk.send_modify(|disk| disk.is_exhausted = false);
    world.step(Event::Woken);
    world.answer();
    assert!(world.may_answer());
}

#[test]
fn time_counts_from_the_sending_and_not_from_the_answer() {
    let mut world = World::new(5);
    world.answer();
    let created = world.time();
    world.pass(600);
    world.answer();
    assert_eq!(world.until(), created + TTL);
    world.wake_after(400);
    let sent = world.time();
    assert_eq!(sent, created + TTL / 4);
    world.pass(600);
    world.answer();
    assert_eq!(world.until(), sent + TTL);
}

#[test]
fn beats_tell_what_was_published_and_differ_each_time() {
    let (mut world, _) = World::answering();
    world.set_head(&head(7));
    let first = world.record();
    world.pass(1);
    world.step(Event::Followed(followed(6)));
    world.step(Event::Followed(followed(7)));
    world.answer();
    let second = world.record();
    assert_eq!((second.count, second.published), (1, Revision(6)), "as it was at the sending");
    world.answer();
    let third = world.record();
    assert_eq!((third.count, third.published), (2, Revision(7)));
    assert!(first.random != second.random && second.random != third.random);
    assert!(world.txn.is_none(), "until a quarter of its time is over");
    world.wake_after(999);
    assert!(world.txn.is_none());
    world.wake_after(1);
    assert!(world.txn.is_some());
}

#[test]
fn lease_is_over_before_the_record_is_deleted() {
    for is_told in [false, true] {
        let (mut world, _) = World::answering();
        let session = world.record().session;
        world.fence();
        if is_told {
            world.step(Event::Lost(Uuid::from_u128(3)));
            assert!(world.may_answer(), "another session");
            world.step(Event::Lost(session));
        } else {
            world.wake_after(1000);
            assert!(world.may_answer());
            world.answer();
        }
        assert!(!world.may_answer());
        assert_eq!(world.record().session, session, "not deleted yet");
        world.answer();
        assert!(world.records().is_empty());
        assert_eq!(world.metrics.fences.read(), 1);
    }
}

#[test]
fn record_that_is_gone_or_has_other_bytes_ends_the_session() {
    for is_gone in [true, false] {
        let (mut world, _) = World::answering();
        let before = world.record();
        world.wake_after(1000);
        world.answer();
        if is_gone {
            world.etcd.remove(&keys::member(before.session));
        } else {
            // As it was: etcd was restored from a backup.
            world.put(&before);
        }
        world.wake_after(1000);
        world.answer();
        assert!(!world.may_answer());
    }
}

#[test]
fn beat_that_was_carried_out_before_its_repeat_counts_from_its_first_sending() {
    let (mut world, _) = World::answering();
    world.wake_after(1000);
    let first_sent = world.time();
    world.pass(700);
    let lost = world.no_answer();
    world.carry_out(&lost);
    assert_eq!(world.txn.as_ref(), Some(&lost), "the same bytes");
    world.pass(50);
    world.answer();
    assert_eq!(world.until(), first_sent + TTL);
    assert_eq!(world.metrics.fences.read(), 0);
    // The session goes on from these bytes.
    world.wake_after(250);
    world.answer();
    assert_eq!(world.until(), first_sent + 1000 + TTL);
    // A late copy of the first changes nothing.
    let record = world.record();
    assert!(!world.carry_out(&lost).succeeded);
    assert_eq!(world.record(), record);
}

#[test]
fn beat_that_only_its_repeat_carried_out_counts_from_the_repeat() {
    let (mut world, _) = World::answering();
    world.wake_after(1000);
    let first_sent = world.time();
    world.pass(10);
    world.no_answer();
    assert!(world.txn.is_none(), "an error that comes at once is not repeated at once");
    world.wake_after(190);
    world.answer();
    assert_eq!(world.until(), first_sent + 200 + TTL);
}

#[test]
fn answer_after_the_end_of_the_time_renews_nothing() {
    let (mut world, created) = World::answering();
    world.wake_after(1000);
    world.pass(TTL);
    assert!(world.time() > created + TTL);
    let session = world.record().session;
    world.answer();
    assert!(!world.may_answer());
    assert_eq!(world.until(), 0);
    // What is sent next deletes the record, and it joins by another one.
    world.answer();
    assert!(world.records().is_empty());
    world.answer();
    assert_ne!(world.record().session, session);
    assert!(world.may_answer());

    // The same without an answer.
    let (mut world, created) = World::answering();
    world.wake_after(1000);
    world.wake_after(created + TTL - world.time() - 1);
    assert!(world.may_answer());
    world.wake_after(1);
    assert!(world.lease.note().is_none());

    // And for the creation.
    let mut world = World::new(5);
    world.answer();
    world.pass(TTL);
    world.answer();
    assert!(!world.may_answer());
}

#[test]
fn answer_for_a_session_that_is_over_changes_nothing() {
    let (mut world, _) = World::answering();
    let session = world.record().session;
    world.wake_after(1000);
    world.step(Event::Lost(session));
    assert!(!world.may_answer());
    // It succeeds: the other replica was wrong.
    world.answer();
    assert!(!world.may_answer());
    world.answer();
    assert!(world.records().is_empty());
}

#[test]
fn record_whose_creation_had_no_answer_is_deleted_for_a_minute() {
    let mut world = World::new(5);
    world.answer();
    world.pass(700);
    let late = world.no_answer();
    world.answer();
    world.answer();
    assert!(world.may_answer());
    let session = world.record().session;
    // etcd carries the creation out while the next session answers.
    world.carry_out(&late);
    assert_eq!(world.records().len(), 2);
    world.wake_after(1000);
    world.answer();
    assert_eq!(world.record().session, session);
    for _ in 0..60 {
        world.wake_after(1000);
        world.answer();
    }
    world.wake_after(1000);
    let beat = world.txn.as_ref().expect("a beat");
    assert!(!beat.then.iter().any(|one| matches!(one, Operation::Delete(_))), "{beat:?}");
}

#[test]
fn log_that_it_may_not_join_is_refused_at_each_step_and_no_record_remains() {
    let other = Uuid::from_u128(8);
    let heads = [
        (closed(), "the log is closed"),
        (Head { cluster: other, ..head(5) }, "the log belongs to the cluster"),
        (Head { incarnation: other, ..head(5) }, "the log has incarnation"),
        (Head { format: FORMAT + 1, ..head(5) }, "an entry of format 3 cannot be read"),
    ];
    for (head, sentence) in heads {
        // It reads the head; it creates its record; a beat.
        for answers in 0..3 {
            let mut world = World::new(5);
            for _ in 0..answers {
                world.answer();
            }
            world.set_head(&head);
            world.wake_after(1000);
            while world.txn.is_some() {
                world.answer();
                assert!(!world.may_answer());
            }
            assert!(world.member.is_gone());
            assert!(world.records().is_empty());
            assert!(world.why().starts_with(sentence), "{}", world.why());
        }
    }
    let mut world = World::new(5);
    world.etcd.clear();
    world.answer();
    assert!(world.member.is_gone());
    assert_eq!(*world.member.state(), MembershipState::Refused(Refusal::NoCluster));
    let mut world = World::new(5);
    world.etcd.insert(keys::HEAD.to_owned(), Bytes::from_static(b"?"));
    world.answer();
    let damaged = Refusal::Log(LogError::Damaged("head"));
    assert_eq!(*world.member.state(), MembershipState::Refused(damaged));
}

#[test]
fn log_that_was_set_back_is_closed() {
    let contradicting = Head { hash: blake3::hash(b"another"), ..head(5) };
    for head in [head(4), contradicting] {
        for answers in 0..3 {
            let mut world = World::new(5);
            for _ in 0..answers {
                world.answer();
            }
            world.set_head(&head);
            world.wake_after(1000);
            world.answer();
            assert!(!world.may_answer());
            assert!(matches!(world.member.state(), MembershipState::Joining(_)), "not closed yet");
            // The transaction that closes the log is repeated until it has an answer.
            world.no_answer();
            world.wake_after(500);
            while world.txn.is_some() {
                world.answer();
            }
            assert!(world.member.is_gone());
            assert!(world.why().starts_with("the log was set back"), "{}", world.why());
            assert!(world.records().is_empty());
            let bytes = world.etcd.get(keys::HEAD).expect("a head");
            let closed = Head::decode(bytes).expect("a head");
            assert!(matches!(closed.state, HeadState::Closed(_)));
            assert_eq!(Head { state: HeadState::Open, ..closed }, head);
        }
    }
    // The head of its creation contradicts what it applies later.
    let mut world = World::new(5);
    world.answer();
    world.set_head(&head(6));
    world.answer();
    let other = LogPosition { hash: blake3::hash(b"another"), ..position(6) };
    world.step(Event::Followed(Followed { position: other, revision: Revision(6) }));
    assert!(!world.may_answer());
    world.answer();
    assert!(world.why().starts_with("the log was set back"), "{}", world.why());
}

#[test]
fn entries_applied_after_the_head_was_read_do_not_contradict_it() {
    let mut world = World::new(5);
    let txn = world.txn.take().expect("the head is read");
    let answer = world.carry_out(&txn);
    world.step(Event::Followed(followed(6)));
    world.step(Event::Answered(Ok(answer)));
    world.set_head(&head(6));
    world.answer();
    assert!(world.may_answer());
}

#[test]
fn replica_whose_clock_is_behind_that_of_most_others_has_a_record_and_does_not_answer() {
    let mut world = World::new(5);
    world.put(&other_record(6));
    world.answer();
    world.answer();
    assert_eq!(world.why(), CLOCK_BEHIND);
    assert!(!world.may_answer() && world.lease.is_clock_behind());
    let own = |world: &World| world.records().into_iter().find(|record| record.name == name("a"));
    // The record says whose clock is ahead, and is renewed.
    for count in 1..4 {
        world.wake_after(1000);
        world.answer();
        world.put(&MemberRecord { count: count + 1, ..other_record(6 + count.cast_signed()) });
        world.clock.fetch_add(1, Ordering::Relaxed);
        world.look();
        let own = own(&world).expect("a record");
        assert_eq!((own.count, own.report.ahead), (count, vec![name("b")]));
        assert!(!world.may_answer());
    }
    // Its clock is set.
    world.clock.fetch_add(1, Ordering::Relaxed);
    world.step(Event::Woken);
    assert!(world.may_answer() && !world.lease.is_clock_behind());
    world.clock.fetch_add(1, Ordering::Relaxed);
    world.wake_after(1000);
    world.answer();
    assert_eq!(own(&world).expect("a record").report.ahead, []);

    // It is near enough; the record is fenced; another one is not ahead.
    for (ahead, fenced, others) in [(5, false, 1), (60, true, 1), (60, false, 2)] {
        let mut world = World::new(5);
        world.put(&MemberRecord { fenced, ..other_record(ahead) });
        if others == 2 {
            let session = Uuid::from_u128(8);
            world.put(&MemberRecord { session, name: name("c"), ..other_record(0) });
        }
        world.answer();
        world.answer();
        assert!(world.may_answer(), "{ahead} {fenced} {others}");
    }
}

#[test]
fn replica_whose_clock_falls_behind_ends_its_session() {
    let (mut world, _) = World::answering();
    let session = world.record().session;
    world.put(&other_record(6));
    assert!(world.may_answer(), "it has not seen it");
    world.look();
    assert!(!world.may_answer() && world.lease.is_clock_behind());
    assert_eq!(world.why(), CLOCK_BEHIND);
    // The next session waits.
    world.answer();
    world.answer();
    assert!(world.records().iter().all(|record| record.session != session));
    assert_eq!((world.records().len(), world.why().as_str()), (2, CLOCK_BEHIND));
    assert!(!world.may_answer());
    world.clock.fetch_add(1, Ordering::Relaxed);
    world.step(Event::Woken);
    assert!(world.may_answer());
}

#[test]
fn replica_follows_the_clocks_that_it_sees() {
    let (mut world, _) = World::answering();
    world.put(&other_record(2));
    world.look();
    assert_eq!(world.followed_clock.load(Ordering::Relaxed), 1002);
    assert!(world.may_answer());
}

#[test]
fn fenced_replica_waits_longer_each_time() {
    let (mut world, _) = World::answering();
    for wait in [2, 4, 8, 16] {
        world.fence();
        world.wake_after(1000);
        let ended = world.time();
        world.answer();
        assert_eq!(world.why(), "another replica ended its session");
        world.answer();
        assert!(world.records().is_empty(), "deleted at once");
        assert!(world.why().contains(&format!("so it joins in {wait} s")), "{}", world.why());
        while !world.may_answer() {
            assert!(world.records().is_empty());
            world.wake_after(500);
            while world.txn.is_some() && !world.may_answer() {
                world.answer();
            }
        }
        assert_eq!(world.time(), ended + wait * 1000);
    }
    // A fence counts for a minute.
    for _ in 0..60 {
        world.wake_after(1000);
        world.answer();
    }
    world.fence();
    world.wake_after(1000);
    world.answer();
    world.answer();
    assert!(world.why().contains("once within a minute, so it joins in 2 s"), "{}", world.why());
}

#[test]
fn leaving_ends_the_lease_then_deletes_the_record_and_gives_up_in_time() {
    let (mut world, _) = World::answering();
    world.wake_after(1000);
    world.step(Event::Leave);
    assert!(!world.may_answer());
    assert_eq!(world.records().len(), 1);
    // The answer to a beat, then the deletion.
    world.answer();
    world.no_answer();
    world.wake_after(500);
    world.answer();
    assert!(world.records().is_empty());
    assert!(world.member.is_gone());
    assert_eq!(*world.member.state(), MembershipState::Left);

    let (mut world, _) = World::answering();
    world.step(Event::Leave);
    world.wake_after(2999);
    assert!(!world.member.is_gone());
    world.wake_after(1);
    assert!(world.member.is_gone());

    let mut world = World::new(5);
    world.step(Event::Leave);
    assert!(world.member.is_gone(), "there is nothing to delete");
}

#[test]
fn closed_lease_begins_no_session() {
    let mut world = World::new(5);
    world.lease.close();
    world.answer();
    world.answer();
    world.answer();
    assert!(world.records().is_empty());
    assert!(world.member.is_gone());
}
