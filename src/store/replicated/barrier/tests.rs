//! The barrier over a scripted etcd and clock, in random and in chosen orders of events.

use super::super::ReplicaReport;
use std::collections::BTreeMap;
use std::sync::Mutex;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::store::replicated::etcd::Pair;
use crate::store::replicated::keys;
use crate::store::replicated::member_record::PeerToken;

const TTL: Duration = Duration::from_secs(3);
/// The lapse time of a record with this `ttl`.
const LAPSE: u64 = 5_000 * MILLISECOND;

type Outcome = Arc<Mutex<Option<Result<Waited, StoreError>>>>;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Renew,
    /// A session tells that it has published the head, or a little less.
    Tell,
    Leave,
    SendRange,
    CarryOutRange,
    AnswerRange,
    LoseRange,
    Commit,
    /// The wait of a commit is registered.
    Register,
    Everywhere,
    SetOwn,
    Pause,
    LongPause,
    CarryOut,
    GiveUp,
    /// A range is sent and answered, and its actions are carried out.
    Round,
}

use Step::*;

/// The steps, each as often as it is to come.
const STEPS: [Step; 23] = [
    Join,
    Renew,
    Tell,
    Tell,
    Tell,
    Leave,
    SendRange,
    CarryOutRange,
    AnswerRange,
    AnswerRange,
    LoseRange,
    Commit,
    Commit,
    Register,
    Register,
    Everywhere,
    SetOwn,
    Pause,
    Pause,
    LongPause,
    CarryOut,
    GiveUp,
    Round,
];

/// An etcd that has only records, the barrier of one replica, and what is known of both.
struct World {
    now: u64,
    barrier: Barrier,
    own: Option<Uuid>,
    /// All sessions that were own ones.
    owned: BTreeSet<Uuid>,
    records: BTreeMap<Uuid, Bytes>,
    /// When the last renewal of a session was stored.
    renewed: BTreeMap<Uuid, u64>,
    /// The highest revision that a session has told.
    told: BTreeMap<Uuid, Revision>,
    head: u64,
    /// Whether a range is in flight, with its answer once etcd has carried it out.
    range: Option<Option<RangeAnswer>>,
    /// Commits whose waits are not registered yet.
    commits: Vec<(Revision, Vec<Uuid>)>,
    /// Actions that etcd has not carried out yet.
    actions: Vec<Action>,
    expected: Vec<Expected>,
    joined: u128,
}

struct Expected {
    revision: Revision,
    /// The sessions that existed at the commit, or when the call began.
    listed: Vec<Uuid>,
    outcome: Outcome,
}

impl World {
    fn new() -> Self {
        Self {
            now: 1_000_000 * MILLISECOND,
            barrier: Barrier::new(Arc::default()),
            own: None,
            owned: BTreeSet::new(),
            records: BTreeMap::new(),
            renewed: BTreeMap::new(),
            told: BTreeMap::new(),
            head: 0,
            range: None,
            commits: Vec::new(),
            actions: Vec::new(),
            expected: Vec::new(),
            joined: 0,
        }
    }

    fn join(&mut self) -> Uuid {
        self.joined += 1;
        let session = Uuid::from_u128(self.joined);
        let record = MemberRecord {
            session,
            name: Name::parse(format!("replica-{}", self.joined)).expect("a name"),
            count: 0,
            random: [0; 16],
            published: Revision(self.head),
            fenced: false,
            ttl: TTL,
            clock: Timestamp::UNIX_EPOCH,
            started: Timestamp::UNIX_EPOCH,
            report: ReplicaReport::default(),
            speaks: 1,
            version: String::new(),
            advertise: String::new(),
            peer_token: PeerToken([0; 32]),
        };
        self.put(&record);
        session
    }

    fn put(&mut self, record: &MemberRecord) {
        self.records.insert(record.session, record.encode().into());
        self.renewed.insert(record.session, self.now);
        self.told.insert(record.session, record.published);
    }

    fn record(&self, session: Uuid) -> Option<MemberRecord> {
        Some(MemberRecord::decode(self.records.get(&session)?).expect("a record"))
    }

    /// A session renews its record, and tells that it has published this revision. Its compare fails if
    /// the record was fenced.
    fn renew(&mut self, session: Uuid, published: Revision) {
        if let Some(record) = self.record(session).filter(|record| !record.fenced) {
            let (count, published) = (record.count + 1, published.max(record.published));
            self.put(&MemberRecord { count, published, ..record });
        }
    }

    fn commit(&mut self) -> (Revision, Vec<Uuid>) {
        self.head += 1;
        let own = self.own;
        let others = self.records.keys().copied().filter(|session| Some(*session) != own);
        (Revision(self.head), others.collect())
    }

    fn register(&mut self, (revision, listed): (Revision, Vec<Uuid>)) -> Outcome {
        let (call, outcome) = self.call(revision, listed.clone());
        self.barrier.wait(self.now, call, listed);
        outcome
    }

    fn everywhere(&mut self) -> Outcome {
        let listed = self.records.keys().copied().collect();
        let (call, outcome) = self.call(Revision(self.head), listed);
        self.barrier.wait_for_range(call);
        outcome
    }

    fn call(&mut self, revision: Revision, listed: Vec<Uuid>) -> (Call, Outcome) {
        let outcome = Outcome::default();
        let of_waiter = Arc::clone(&outcome);
        let end = move |result| {
            let before = of_waiter.lock().expect("a lock").replace(result);
            assert_eq!(before, None, "a second result");
        };
        let call = Call::new(self.now, revision, end);
        self.expected.push(Expected { revision, listed, outcome: Arc::clone(&outcome) });
        (call, outcome)
    }

    fn set_own(&mut self, own: Option<Uuid>) {
        self.own = own;
        self.owned.extend(own);
    }

    fn send_range(&mut self) {
        if self.range.is_none() {
            self.barrier.set_own(self.own);
            self.barrier.range_sent(self.now);
            self.range = Some(None);
        }
    }

    fn carry_out_range(&mut self) {
        let pair = |(session, value): (&Uuid, &Bytes)| Pair {
            key: keys::member(*session),
            value: value.clone(),
        };
        let pairs = self.records.iter().map(pair).collect();
        if let Some(answer @ None) = &mut self.range {
            *answer = Some(RangeAnswer { revision: 0, pairs, has_more: false });
        }
    }

    fn answer_range(&mut self) {
        match self.range.take() {
            Some(Some(answer)) => {
                let actions = self.barrier.answered(self.now, &answer);
                self.actions.extend(actions);
            }
            other => self.range = other,
        }
    }

    fn lose_range(&mut self) {
        if self.range.take().is_some() {
            self.barrier.range_failed();
        }
    }

    /// A range that is carried out and answered at once.
    fn range(&mut self) {
        self.lose_range();
        self.send_range();
        self.carry_out_range();
        self.answer_range();
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Fence { session, seen, fenced, .. } => {
                if self.records.get(&session) == Some(&seen) {
                    self.records.insert(session, fenced);
                    assert!(self.record(session).expect("a record").fenced);
                }
            }
            Action::Delete { session, seen } => {
                if self.records.get(&session) == Some(&seen) {
                    let age = self.now - self.renewed[&session];
                    assert!(age >= LAPSE, "deleted {age} ns after its renewal");
                    self.records.remove(&session);
                }
            }
            Action::ReportOwnEnd(_) => {}
        }
    }

    /// A range, and all actions.
    fn round(&mut self) {
        self.range();
        for action in mem::take(&mut self.actions) {
            self.carry_out(action);
        }
    }

    fn advance(&mut self, milliseconds: u64) {
        self.now += milliseconds * MILLISECOND;
    }

    /// The invariant, by what etcd knows.
    fn check(&self) {
        for Expected { revision, listed, outcome } in &self.expected {
            if matches!(&*outcome.lock().expect("a lock"), Some(Ok(_))) {
                for session in listed {
                    let holds = self.told[session] >= *revision
                        || !self.records.contains_key(session)
                        || self.owned.contains(session);
                    assert!(holds, "{session} exists and has not told {revision}");
                }
            }
        }
    }

    fn step(&mut self, step: Step, which: u8) {
        let session = self.records.keys().nth(usize::from(which) % self.records.len().max(1));
        let session = session.copied();
        match (step, session) {
            (Join, _) if self.records.len() < 5 => {
                self.join();
            }
            (Renew, Some(session)) => self.renew(session, Revision::ZERO),
            (Tell, Some(session)) => {
                let behind = u64::from(which / 8 % 3);
                self.renew(session, Revision(self.head.saturating_sub(behind)));
            }
            (Leave, Some(session)) => {
                self.records.remove(&session);
            }
            (SendRange, _) => self.send_range(),
            (CarryOutRange, _) => self.carry_out_range(),
            (AnswerRange, _) => self.answer_range(),
            (LoseRange, _) if which < 64 => self.lose_range(),
            (Commit, _) => {
                let commit = self.commit();
                self.commits.push(commit);
            }
            (Register, _) if !self.commits.is_empty() => {
                let commit = self.commits.remove(usize::from(which) % self.commits.len());
                self.register(commit);
            }
            (Everywhere, _) => {
                self.everywhere();
            }
            (SetOwn, Some(session)) if which < 32 => {
                let fenced = self.record(session).expect("a record").fenced;
                self.set_own(Some(session).filter(|_| !fenced));
            }
            (Pause, _) => self.advance(u64::from(which)),
            (LongPause, _) if which < 64 => self.advance(u64::from(which) * 100),
            (CarryOut, _) if !self.actions.is_empty() => {
                let action = self.actions.remove(usize::from(which) % self.actions.len());
                self.carry_out(action);
            }
            (GiveUp, _) => self.barrier.give_up(self.now),
            (Round, _) => self.round(),
            _ => {}
        }
        self.check();
    }
}

fn result(outcome: &Outcome) -> Option<Result<Waited, StoreError>> {
    outcome.lock().expect("a lock").clone()
}

fn is_well(outcome: &Outcome) -> bool {
    matches!(result(outcome), Some(Ok(_)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wait_ends_well_only_if_each_session_has_told_or_is_gone(
        steps in prop::collection::vec((select(&STEPS), any::<u8>()), 0..120),
    ) {
        let mut world = World::new();
        for (step, which) in steps {
            world.step(step, which);
        }
        // From now on no session renews its record, and etcd answers.
        let last = world.commit();
        let last = [world.register(last), world.everywhere()];
        for _ in 0..95 {
            world.advance(100);
            world.round();
            world.barrier.give_up(world.now);
            world.check();
        }
        prop_assert!(last.iter().all(is_well), "{last:?}");
        for Expected { outcome, .. } in &world.expected {
            prop_assert!(result(outcome).is_some());
        }
    }
}

#[test]
fn wait_ends_at_once_when_a_view_has_told() {
    let mut world = World::new();
    let other = world.join();
    let commit = world.commit();
    world.renew(other, commit.0);
    world.range();
    let outcome = world.register(commit);
    assert_eq!(result(&outcome), Some(Ok(Waited::default())));
}

#[test]
fn view_from_before_a_record_does_not_count_as_gone() {
    let mut world = World::new();
    world.range();
    // In flight since before the record was made.
    world.send_range();
    world.carry_out_range();
    let other = world.join();
    let commit = world.commit();
    let outcome = world.register(commit);
    world.answer_range();
    assert_eq!(result(&outcome), None);
    world.range();
    assert_eq!(result(&outcome), None);
    world.renew(other, Revision(world.head));
    world.advance(5);
    world.range();
    let waited_for = vec![Name::parse("replica-1").expect("a name")];
    let expected = Waited { time: Duration::from_millis(5), waited_for };
    assert_eq!(result(&outcome), Some(Ok(expected)));
}

#[test]
fn call_that_comes_during_a_range_waits_for_the_next_one() {
    let mut world = World::new();
    world.send_range();
    world.carry_out_range();
    let other = world.join();
    world.head += 1;
    let outcomes: Vec<_> = (0..100).map(|_| world.everywhere()).collect();
    world.answer_range();
    assert_eq!(world.barrier.next_range(false), 0, "at once");
    world.renew(other, Revision(world.head));
    assert!(outcomes.iter().all(|outcome| result(outcome).is_none()));
    world.range();
    assert!(outcomes.iter().all(is_well));
    assert_eq!(world.barrier.metrics.ranges.read(), 2);
}

#[test]
fn range_without_an_answer_is_repeated_later() {
    let mut world = World::new();
    let outcome = world.everywhere();
    world.send_range();
    world.lose_range();
    assert_eq!(world.barrier.next_range(false), world.now + WAITING_INTERVAL);
    world.range();
    assert!(is_well(&outcome));
}

/// The times after the registration, in steps of 100 ms, at which a round fences the session.
fn fenced_at(rounds: impl Fn(u64, &mut World, Uuid) -> bool) -> Option<u64> {
    let mut world = World::new();
    let other = world.join();
    world.range();
    let commit = world.commit();
    world.head += 10;
    world.register(commit);
    (1..60).find(|time| {
        world.advance(100);
        if rounds(*time, &mut world, other) {
            world.range();
        }
        world.actions.iter().any(|action| matches!(action, Action::Fence { .. }))
    })
}

#[test]
fn silent_session_is_fenced_after_a_second_of_answers() {
    assert_eq!(fenced_at(|_, _, _| true), Some(10));
    // Renewals that do not tell more are silence, too.
    let renewed = fenced_at(|_, world, other| {
        world.renew(other, Revision::ZERO);
        true
    });
    assert_eq!(renewed, Some(10));
}

#[test]
fn time_without_answers_is_not_counted() {
    // No answer from 0.5 s to 0.9 s.
    assert_eq!(fenced_at(|time, _, _| !(6..9).contains(&time)), Some(19));
    // Gaps of 0.3 s are allowed.
    assert_eq!(fenced_at(|time, _, _| time % 3 == 0), Some(12));
    assert_eq!(fenced_at(|time, _, _| time % 4 == 0), None);
}

#[test]
fn no_session_is_fenced_for_two_seconds_after_a_range_without_an_answer() {
    let lost_at = |lost: u64| {
        fenced_at(move |time, world, _| {
            if time == lost {
                world.send_range();
            }
            true
        })
    };
    assert_eq!(lost_at(3), Some(23));
    assert_eq!(lost_at(9), Some(29));
}

#[test]
fn session_that_publishes_gets_three_seconds_in_all() {
    let mut published = 0;
    let commit = 50;
    let mut world = World::new();
    let other = world.join();
    world.range();
    world.head = commit - 1;
    let at = world.commit();
    let outcome = world.register(at);
    let mut fenced = None;
    for time in 1..60 {
        world.advance(100);
        if time % 5 == 0 {
            published += 1;
            world.renew(other, Revision(published));
        }
        world.range();
        if !world.actions.is_empty() {
            fenced = Some(time);
            break;
        }
    }
    // The first answer shows nothing new, so the three seconds begin at the registration.
    assert_eq!(fenced, Some(30));
    assert_eq!(result(&outcome), None, "a fenced record is waited for");
    for action in mem::take(&mut world.actions) {
        world.carry_out(action);
    }
    world.range();
    assert_eq!((result(&outcome), world.actions.len()), (None, 0), "it is fenced once");
    world.records.clear();
    world.range();
    assert!(is_well(&outcome));
}

#[test]
fn fence_does_not_start_the_lapse_time_anew() {
    let mut world = World::new();
    let other = world.join();
    world.range();
    let since = world.now;
    let commit = world.commit();
    let outcome = world.register(commit);
    while world.records.contains_key(&other) {
        world.advance(100);
        world.round();
    }
    assert_eq!(world.now, since + LAPSE);
    world.round();
    assert!(is_well(&outcome));
    // A renewal does.
    let other = world.join();
    world.range();
    world.advance(4_900);
    world.renew(other, Revision::ZERO);
    world.range();
    world.advance(4_900);
    world.range();
    assert_eq!(world.actions, []);
    world.advance(100);
    world.range();
    assert!(matches!(&*world.actions, [Action::Delete { session, .. }] if *session == other));
}

#[test]
fn damaged_record_is_waited_for_until_it_is_deleted() {
    let mut world = World::new();
    let damaged = Uuid::from_u128(77);
    world.records.insert(damaged, Bytes::from_static(b"damaged"));
    world.renewed.insert(damaged, world.now);
    world.told.insert(damaged, Revision::ZERO);
    world.range();
    let start = world.now;
    let outcomes = [world.commit()].map(|commit| world.register(commit));
    let again = world.everywhere();
    while world.records.contains_key(&damaged) {
        assert!(outcomes.iter().chain([&again]).all(|outcome| result(outcome).is_none()));
        world.advance(100);
        world.round();
    }
    assert_eq!(world.now, start + 75_000 * MILLISECOND);
    world.round();
    assert!(outcomes.iter().chain([&again]).all(is_well));
}

#[test]
fn wait_is_given_up_after_ten_seconds() {
    let mut world = World::new();
    world.join();
    world.range();
    let commit = world.commit();
    let outcomes = [world.register(commit), world.everywhere()];
    world.advance(9_999);
    world.barrier.give_up(world.now);
    assert!(outcomes.iter().all(|outcome| result(outcome).is_none()));
    world.advance(1);
    world.barrier.give_up(world.now);
    let error = Some(Err(StoreError::NotYetEverywhere(None)));
    assert_eq!(outcomes.map(|outcome| result(&outcome)), [error.clone(), error]);
    assert_eq!(world.barrier.metrics.given_up.read(), 2);
}

#[test]
fn waits_end_with_the_barrier() {
    let mut world = World::new();
    world.join();
    let commit = world.commit();
    let outcomes = [world.register(commit), world.everywhere()];
    drop(world);
    let error = Some(Err(StoreError::NotYetEverywhere(None)));
    assert_eq!(outcomes.map(|outcome| result(&outcome)), [error.clone(), error]);
}

#[test]
fn caller_that_has_gone_is_not_waited_for() {
    let mut world = World::new();
    world.join();
    world.range();
    world.head += 1;
    let (waiter, ended) = oneshot::channel();
    world.barrier.wait_for_range(Call::new(world.now, Revision(1), waiter));
    world.range();
    assert_eq!(world.barrier.waits.len(), 1);
    drop(ended);
    world.range();
    assert_eq!(world.barrier.waits.len(), 0);
}

#[test]
fn own_end_is_reported_and_only_by_a_range_after_the_beginning() {
    let mut world = World::new();
    world.send_range();
    world.carry_out_range();
    let own = world.join();
    world.set_own(Some(own));
    world.barrier.set_own(Some(own));
    world.answer_range();
    world.range();
    assert_eq!(world.actions, [], "the range in flight is from before");
    let mut record = world.record(own).expect("a record");
    record.fenced = true;
    world.put(&record);
    world.range();
    assert_eq!(mem::take(&mut world.actions), [Action::ReportOwnEnd(own)]);
    world.records.clear();
    world.range();
    assert_eq!(world.actions, [Action::ReportOwnEnd(own)]);
}

#[test]
fn own_session_is_not_waited_for_and_an_earlier_one_is() {
    let mut world = World::new();
    let earlier = world.join();
    let own = world.join();
    world.set_own(Some(own));
    world.range();
    world.head += 1;
    let outcome = world.everywhere();
    world.range();
    assert_eq!(result(&outcome), None);
    world.records.remove(&earlier);
    world.range();
    assert!(is_well(&outcome));
}
