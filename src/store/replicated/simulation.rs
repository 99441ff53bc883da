//! Simulation: three replicas over a scripted etcd and clock, in random orders of events.
//!
//! Each replica has a real lease and a real barrier. The owner of a record and the store are scripted.
//! Messages to etcd are sent, carried out and answered in separate steps, or lost. A replica that takes
//! no step while time passes is one that is stopped.
//!
//! The property is the promise of the protocol: a call that begins after a change was acknowledged, to
//! any client, is decided at its revision or a later one, or it is not answered.

use super::ReplicaReport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::barrier::{Action, Barrier, Call};
use super::etcd::{Pair, RangeAnswer};
use super::keys;
use super::member_record::{MemberRecord, PeerToken};
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::lease::{Lease, NotedSession};

const MILLISECOND: u64 = 1_000_000;
const TTL: Duration = Duration::from_secs(3);
const TTL_NANOSECONDS: u64 = 3_000 * MILLISECOND;

/// What a replica, its client or time does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The store applies some entries.
    Apply,
    /// The owner of the record does its next step.
    Own,
    /// It does several.
    OwnMore,
    EndSession,
    /// The owner deletes the record of a session that is over.
    DeleteOwn,
    Commit,
    /// The wait of a commit is registered.
    Register,
    Everywhere,
    /// The range is sent, carried out, answered or lost.
    Range,
    CarryOut,
    GiveUp,
    /// A read begins, looks at the state, and is answered.
    BeginRead,
    Look,
    Answer,
    /// All three, one directly after the other.
    Read,
    /// A range is sent and answered, and its actions are carried out.
    Round,
    /// A second in which etcd answers all ranges of this replica.
    Second,
    Pause,
    LongPause,
}

use Step::*;

/// The steps, each as often as it is to come.
const STEPS: [Step; 33] = [
    Apply, Apply, Apply, Own, Own, OwnMore, OwnMore, OwnMore, EndSession, DeleteOwn, Commit,
    Commit, Register, Register, Everywhere, Range, Range, Range, Range, Range, CarryOut, CarryOut,
    GiveUp, BeginRead, Look, Answer, Read, Read, Round, Second, Pause, Pause, LongPause,
];

struct World {
    now: u64,
    head: u64,
    records: BTreeMap<Uuid, Bytes>,
    replicas: Vec<Replica>,
    /// The last revision that was acknowledged.
    acknowledged: Arc<AtomicU64>,
    renewals: u64,
}

struct Replica {
    name: Name,
    published: u64,
    lease: Lease,
    sessions: u64,
    session: Session,
    /// Sessions that are over, whose records are to be deleted.
    over: Vec<Uuid>,
    barrier: Barrier,
    range: Option<Option<RangeAnswer>>,
    actions: Vec<Action>,
    commits: Vec<(Revision, Vec<Uuid>)>,
    calls: Vec<ReadCall>,
}

enum Session {
    None,
    /// The transaction that makes the record.
    Creating(Renewal),
    /// The record exists, and the store must reach this head.
    Joining {
        record: MemberRecord,
        head: u64,
        until: u64,
    },
    Joined {
        record: MemberRecord,
        renewal: Option<Box<Renewal>>,
    },
}

/// A transaction on the own record.
struct Renewal {
    sent: u64,
    record: MemberRecord,
    /// Whether it succeeded, and the head, once etcd has carried it out.
    result: Option<(bool, u64)>,
}

/// A call that reads.
struct ReadCall {
    /// The last revision that was acknowledged when it began.
    acknowledged: u64,
    noted: NotedSession,
    revision: Option<u64>,
}

impl World {
    fn new() -> Self {
        let replica = |name: &str| Replica {
            name: Name::parse(name).expect("a name"),
            published: 0,
            lease: Lease::none(),
            sessions: 0,
            session: Session::None,
            over: Vec::new(),
            barrier: Barrier::new(Arc::default()),
            range: None,
            actions: Vec::new(),
            commits: Vec::new(),
            calls: Vec::new(),
        };
        Self {
            now: 1_000_000 * MILLISECOND,
            head: 0,
            records: BTreeMap::new(),
            replicas: ["a", "b", "c"].map(replica).into(),
            acknowledged: Arc::default(),
            renewals: 0,
        }
    }

    fn range_answer(&self) -> RangeAnswer {
        let pair = |(session, value): (&Uuid, &Bytes)| Pair {
            key: keys::member(*session),
            value: value.clone(),
        };
        let pairs = self.records.iter().map(pair).collect();
        RangeAnswer { revision: 0, pairs, has_more: false }
    }

    fn call(&self, revision: u64) -> Call {
        let acknowledged = Arc::clone(&self.acknowledged);
        Call::new(self.now, Revision(revision), move |result: Result<_, _>| {
            if result.is_ok() {
                acknowledged.fetch_max(revision, Ordering::SeqCst);
            }
        })
    }

    fn step(&mut self, which: usize, step: Step, argument: u8) {
        let Self { now, head, .. } = *self;
        let call = self.call(self.replicas[which].published);
        let (records, renewals) = (&mut self.records, &mut self.renewals);
        let replica = &mut self.replicas[which];
        match step {
            Apply => replica.published = head.min(replica.published + u64::from(argument % 3)),
            Own => replica.advance_session(now, head, records, renewals),
            OwnMore => {
                for _ in 0..4 {
                    replica.advance_session(now, head, records, renewals);
                }
            }
            EndSession if argument < 80 => replica.end_session(),
            DeleteOwn => {
                if let Some(session) = replica.over.pop() {
                    records.remove(&session);
                }
            }
            Commit if replica.published == head => {
                self.head += 1;
                replica.published = self.head;
                let own = replica.own();
                let listed = records.keys().copied().filter(|session| Some(*session) != own);
                replica.commits.push((Revision(self.head), listed.collect()));
            }
            Register => {
                if let Some((revision, listed)) = replica.commits.pop() {
                    let call = self.call(revision.0);
                    self.replicas[which].barrier.wait(now, call, listed);
                }
            }
            Everywhere => replica.barrier.wait_for_range(call),
            Range if replica.range.is_none() => {
                replica.barrier.set_own(replica.own());
                replica.barrier.range_sent(now);
                replica.range = Some(None);
            }
            Range => self.advance_range(which, argument),
            CarryOut => {
                if let Some(action) = replica.actions.pop() {
                    Self::carry_out(records, action);
                }
            }
            GiveUp => replica.barrier.give_up(now),
            BeginRead => {
                let acknowledged = self.acknowledged.load(Ordering::SeqCst);
                let call = |noted| ReadCall { acknowledged, noted, revision: None };
                replica.calls.extend(replica.lease.note().map(call));
            }
            Look => {
                for call in &mut replica.calls {
                    call.revision.get_or_insert(replica.published);
                }
            }
            Answer => {
                for call in std::mem::take(&mut replica.calls) {
                    if let Some(revision) = call.revision
                        && replica.lease.holds(call.noted, || now)
                    {
                        assert!(
                            revision >= call.acknowledged,
                            "{} answers at {revision} after {} was acknowledged",
                            replica.name,
                            call.acknowledged
                        );
                    }
                }
            }
            Read => {
                for step in [BeginRead, Look, Answer] {
                    self.step(which, step, argument);
                }
            }
            Round => self.round(which),
            Second => {
                for _ in 0..11 {
                    self.round(which);
                    self.now += 100 * MILLISECOND;
                }
            }
            Pause => self.now += u64::from(argument) * MILLISECOND,
            LongPause => {
                self.now += [1_000, 2_000, 2_900, 5_000][usize::from(argument % 4)] * MILLISECOND
            }
            EndSession | Commit => {}
        }
    }

    fn round(&mut self, which: usize) {
        self.replicas[which].range = None;
        for _ in 0..3 {
            self.step(which, Range, 0);
        }
        for action in std::mem::take(&mut self.replicas[which].actions) {
            Self::carry_out(&mut self.records, action);
        }
    }

    fn advance_range(&mut self, which: usize, argument: u8) {
        let answer = self.range_answer();
        let replica = &mut self.replicas[which];
        match replica.range.take() {
            Some(None) if argument < 230 => replica.range = Some(Some(answer)),
            Some(Some(answer)) if argument < 230 => {
                let actions = replica.barrier.answered(self.now, &answer);
                if actions.iter().any(|action| matches!(action, Action::ReportOwnEnd(_))) {
                    replica.end_session();
                }
                replica.actions.extend(actions);
            }
            Some(_) => replica.barrier.range_failed(),
            None => {}
        }
    }

    fn carry_out(records: &mut BTreeMap<Uuid, Bytes>, action: Action) {
        match action {
            Action::Fence { session, seen, fenced, .. } => {
                if records.get(&session) == Some(&seen) {
                    records.insert(session, fenced);
                }
            }
            Action::Delete { session, seen } => {
                if records.get(&session) == Some(&seen) {
                    records.remove(&session);
                }
            }
            Action::ReportOwnEnd(_) => {}
        }
    }
}

impl Replica {
    fn own(&self) -> Option<Uuid> {
        match &self.session {
            Session::Joined { record, .. } => Some(record.session),
            _ => None,
        }
    }

    fn record(&self, session: Uuid, renewals: &mut u64) -> MemberRecord {
        *renewals += 1;
        MemberRecord {
            session,
            name: self.name.clone(),
            count: *renewals,
            random: u128::from(*renewals).to_be_bytes(),
            published: Revision(self.published),
            fenced: false,
            ttl: TTL,
            clock: Timestamp::UNIX_EPOCH,
            started: Timestamp::UNIX_EPOCH,
            report: ReplicaReport::default(),
            speaks: 1,
            version: String::new(),
            advertise: String::new(),
            peer_token: PeerToken([0; 32]),
        }
    }

    fn end_session(&mut self) {
        self.lease.end();
        match std::mem::replace(&mut self.session, Session::None) {
            Session::None => {}
            Session::Creating(Renewal { record, .. })
            | Session::Joining { record, .. }
            | Session::Joined { record, .. } => self.over.push(record.session),
        }
    }

    /// The next step of the owner of the record.
    fn advance_session(
        &mut self,
        now: u64,
        head: u64,
        records: &mut BTreeMap<Uuid, Bytes>,
        renewals: &mut u64,
    ) {
        match &mut self.session {
            Session::None => {
                let session = Uuid::from_u128(u128::from(*renewals + 1));
                let record = self.record(session, renewals);
                self.session = Session::Creating(Renewal { sent: now, record, result: None });
            }
            Session::Creating(Renewal { record, result: result @ None, .. }) => {
                records.insert(record.session, record.encode().into());
                *result = Some((true, head));
            }
            Session::Creating(Renewal { sent, record, result: Some((_, head)) }) => {
                let (record, until) = (record.clone(), *sent + TTL_NANOSECONDS);
                self.session = Session::Joining { record, head: *head, until };
            }
            Session::Joining { head, .. } if self.published < *head => self.published += 1,
            Session::Joining { record, until, .. } => {
                self.sessions += 1;
                let record = record.clone();
                assert!(self.lease.begin(self.sessions, *until));
                self.session = Session::Joined { record, renewal: None };
            }
            Session::Joined { record, renewal: None } => {
                let session = record.session;
                let record = self.record(session, renewals);
                let sent = Renewal { sent: now, record, result: None };
                if let Session::Joined { renewal, .. } = &mut self.session {
                    *renewal = Some(Box::new(sent));
                }
            }
            Session::Joined { record, renewal: Some(renewal) } => match renewal.result {
                None => {
                    let seen = Bytes::from(record.encode());
                    let succeeded = records.get(&record.session) == Some(&seen);
                    if succeeded {
                        records.insert(record.session, renewal.record.encode().into());
                    }
                    renewal.result = Some((succeeded, head));
                }
                Some((true, _)) => {
                    let until = renewal.sent + TTL_NANOSECONDS;
                    let record = renewal.record.clone();
                    self.session = Session::Joined { record, renewal: None };
                    if !self.lease.extend(self.sessions, until, || now) {
                        self.end_session();
                    }
                }
                Some((false, _)) => self.end_session(),
            },
        }
    }
}

fn cases() -> u32 {
    std::env::var("SCOPEGATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_call_is_answered_from_before_an_acknowledged_change(
        steps in prop::collection::vec((0_usize..3, select(&STEPS), any::<u8>()), 50..400),
    ) {
        let mut world = World::new();
        for replica in 0..3 {
            for _ in 0..4 {
                world.step(replica, Own, 0);
            }
        }
        for (which, step, argument) in steps {
            world.step(which, step, argument);
        }
    }
}
