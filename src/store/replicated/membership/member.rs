//! Member: how a replica joins, stays and leaves, as steps without I/O.
//!
//! A step takes an event, and returns the transaction to send next, if any. At most one transaction is
//! without an answer. The time of the boot clock at which a step returns a transaction counts as the time
//! of its sending, which is later.
//!
//! The order of a join: the replica applies all entries without a record; it creates its record and reads
//! the head in one transaction; it applies the entries up to that head; only then its lease begins. A
//! change that was acknowledged before the record existed is in that head. A change that is committed
//! later waits for the record.
//!
//! A replica whose clock is behind those of most others joins as far as its record, and does not begin its
//! lease. If it finds that later, the session ends, and the next one waits in the same way.
//!
//! The order of an end: first the lease, then the record. Nothing renews a session that is over. The
//! transactions of the next minute also delete its record again, because etcd may create it late.
//!
//! INVARIANT (record while it answers): the record of a session is in etcd for as long as the lease of
//! the session may hold.
//!
//! Not here: the bytes of a record, and what a beat proves; see [`Session`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::closing::closing;
use super::super::etcd::{EtcdError, Operation, Range, RangeAnswer, Txn, TxnAnswer};
use super::super::head::Head;
use super::super::members_view::MembersView;
use super::super::{Clocks, Followed, LogPosition, ReplicaReport, Settings, keys};
use super::refusal::{OwnLog, Refusal, is_contradicted};
use super::session::{Session, Stage, Told};
use super::{LEAVE_WITHIN, MembershipMetrics, MembershipState, nanoseconds};
use crate::store::DiskState;
use crate::store::lease::Lease;

/// How soon a transaction is sent again after an error, and how soon a replica looks again at what kept
/// it from joining.
const RETRY_AFTER: u64 = 500_000_000;
/// A replica joins if it has applied all entries up to a head that it read within this time.
const LOOK_EVERY: u64 = 1_000_000_000;
/// Why a replica with a wrong clock does not answer.
const CLOCK_BEHIND: &str = "its clock is more than 5 s behind those of most other replicas: set the clock of \
                            this machine";
/// For how long transactions delete the record of a session that is over, and for how long a fence
/// counts.
const MINUTE: u64 = 60_000_000_000;
/// How many records a transaction deletes at most. etcd has a limit of operations.
const MAX_DELETIONS: usize = 64;
/// Why a replica without disk space does not answer.
const DISK_EXHAUSTED: &str =
    "its disk has too little space for the next changes: free space, and it joins again";

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The time of [`Member::wake_at`] has come.
    Woken,
    /// The outcome of the last transaction.
    Answered(Result<TxnAnswer, EtcdError>),
    /// The store has applied and published more entries.
    Followed(Followed),
    /// The record of this session was seen fenced, or was seen and does not exist any more.
    Lost(Uuid),
    /// The process ends.
    Leave,
}

/// What a member is made of.
pub(super) struct Parts {
    pub settings: Settings,
    pub version: String,
    pub log: OwnLog,
    pub lease: Arc<Lease>,
    /// The boot clock, in nanoseconds.
    pub now: Box<dyn Fn() -> u64 + Send>,
    /// The time that other replicas are told, which the record has.
    pub clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Follows the time that another replica told, if it is a little ahead.
    pub follow: Box<dyn Fn(Timestamp) + Send>,
    /// What the record tells besides the session.
    pub report: watch::Receiver<ReplicaReport>,
    pub disk: watch::Receiver<DiskState>,
    /// The records of all replicas, as another thread last saw them.
    pub seen: watch::Receiver<Arc<MembersView>>,
    pub metrics: Arc<MembershipMetrics>,
}

/// A replica that joins, stays and leaves.
pub(super) struct Member {
    parts: Parts,
    followed: Followed,
    phase: Phase,
    sent: Option<Sent>,
    state: MembershipState,
    /// The records of all replicas, as they were last seen.
    members: Arc<MembersView>,
    /// The clocks of the others by these records.
    clocks: Clocks,
    /// The sessions that are over and whose records may exist, and since when they are over.
    over: Vec<(Uuid, u64)>,
    /// When sessions were ended by others, within the last minute.
    fences: VecDeque<u64>,
    /// No join before this time, because of the fences.
    join_from: u64,
    /// The number of the last session that began to answer.
    number: u64,
}

enum Phase {
    /// There is no record. The head is read at this time.
    Looking(u64),
    /// There is no record. This head was read at this time.
    CatchingUp(Box<Head>, u64),
    /// There is a record, or will be one.
    InSession(Box<Session>),
    /// The log was set back. It is closed at this time, so that no replica goes on with it.
    ClosingLog { head: Bytes, at: u64, refusal: Refusal },
    /// No session follows. The records of the ended ones are deleted at one time, or never after the
    /// other.
    Leaving { at: u64, until: u64 },
    /// Nothing follows.
    Gone,
}

/// A transaction without an answer.
struct Sent {
    what: What,
    at: u64,
    /// The last entry that was applied before it was sent.
    applied: LogPosition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Look,
    Create,
    Beat,
    CloseLog,
    Delete,
    /// A transaction that was sent before the replica began to leave.
    Obsolete,
}

impl Member {
    pub(super) fn new(parts: Parts, followed: Followed) -> Self {
        Self {
            parts,
            followed,
            phase: Phase::Looking(0),
            sent: None,
            state: MembershipState::Joining("the head of the log is not read yet".to_owned()),
            members: Arc::default(),
            clocks: Clocks::default(),
            over: Vec::new(),
            fences: VecDeque::new(),
            join_from: 0,
            number: 0,
        }
    }

    pub(super) fn state(&self) -> &MembershipState {
        &self.state
    }

    /// Whether nothing follows, whatever happens.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// The time of the boot clock at which the next step must follow, if nothing happens before.
    pub(super) fn wake_at(&self) -> u64 {
        let if_idle = |at| if self.sent.is_none() { at } else { u64::MAX };
        match &self.phase {
            Phase::Looking(at) | Phase::ClosingLog { at, .. } => if_idle(*at),
            Phase::CatchingUp(_, read) => if_idle(read.saturating_add(LOOK_EVERY)),
            Phase::InSession(session) => {
                session.until().min(if_idle(session.beat_at(self.followed.revision)))
            }
            Phase::Leaving { at, until } => if_idle(*at).min(*until),
            Phase::Gone => u64::MAX,
        }
    }

    /// Takes an event, and returns the transaction to send now.
    pub(super) fn step(&mut self, event: Event) -> Option<Txn> {
        // First of all: the answer of a beat renews no session whose time is over.
        self.end_in_time();
        if self.is_disk_exhausted() && self.session().is_some() {
            self.end(DISK_EXHAUSTED);
        }
        match event {
            Event::Woken => {}
            Event::Answered(answer) => {
                if let Some(sent) = self.sent.take() {
                    self.answered(&sent, answer);
                }
            }
            Event::Followed(followed) => self.followed = followed,
            Event::Lost(session) => {
                if self.session().is_some_and(|own| own.id() == session) {
                    self.fenced();
                }
            }
            Event::Leave => self.leave(MembershipState::Left),
        }
        self.compare_clocks();
        self.begin_answering();
        if self.sent.is_some() { None } else { self.send() }
    }

    fn session(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::InSession(session) => Some(session),
            _ => None,
        }
    }

    fn is_disk_exhausted(&self) -> bool {
        self.parts.disk.borrow().is_exhausted
    }

    fn now(&self) -> u64 {
        (self.parts.now)()
    }

    /// The transaction that is due, if any.
    fn send(&mut self) -> Option<Txn> {
        let (now, clock) = (self.now(), (self.parts.clock)());
        let may_join = now >= self.join_from && !self.is_disk_exhausted();
        let report =
            ReplicaReport { ahead: self.clocks.ahead(), ..self.parts.report.borrow().clone() };
        let Followed { position: applied, revision } = self.followed;
        let (what, mut txn) = match &mut self.phase {
            Phase::Looking(at) if now >= *at => (What::Look, look()),
            Phase::CatchingUp(_, read) if now >= read.saturating_add(LOOK_EVERY) => {
                (What::Look, look())
            }
            Phase::CatchingUp(head, _) if applied.seq >= head.seq && may_join => {
                let Parts { settings, version, .. } = &self.parts;
                let session = Session::new(
                    settings,
                    version,
                    Told { published: revision, clock, report },
                    now,
                );
                let creation = session.creation();
                self.state = MembershipState::Joining("its record is not created yet".to_owned());
                self.phase = Phase::InSession(Box::new(session));
                (What::Create, creation)
            }
            Phase::InSession(session)
                if session.stage != Stage::Creating && now >= session.beat_at(revision) =>
            {
                (What::Beat, session.beat(Told { published: revision, clock, report }, now))
            }
            Phase::ClosingLog { head, at, .. } if now >= *at => {
                (What::CloseLog, closing(Head::decode(head).ok()?, head.clone()))
            }
            Phase::Leaving { at, .. } if now >= *at => (What::Delete, Txn::default()),
            _ => return None,
        };
        self.sent = Some(Sent { what, at: now, applied });
        let records = self.over.iter().take(MAX_DELETIONS);
        let deletions =
            records.map(|(session, _)| Operation::Delete(Range::key(&keys::member(*session))));
        txn.then.splice(0..0, deletions);
        Some(txn)
    }

    fn answered(&mut self, sent: &Sent, answer: Result<TxnAnswer, EtcdError>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.failed(sent, &error),
        };
        if answer.succeeded {
            // Records of sessions that were over for a minute are deleted now for the last time.
            let mut place = 0;
            self.over.retain(|(_, since)| {
                place += 1;
                place > MAX_DELETIONS || sent.at < since.saturating_add(MINUTE)
            });
        }
        match sent.what {
            What::Look => self.looked(sent, &answer),
            What::Create if answer.succeeded => self.created(sent, &answer),
            // Another record has this random id.
            What::Create => self.end("its record was not created"),
            What::Beat => self.beat_answered(sent, &answer),
            What::CloseLog => match std::mem::replace(&mut self.phase, Phase::Looking(0)) {
                Phase::ClosingLog { refusal, .. } if answer.succeeded => {
                    self.leave(MembershipState::Refused(refusal));
                }
                // Another replica has replaced the head.
                Phase::ClosingLog { .. } => {}
                other => self.phase = other,
            },
            What::Delete => self.phase = Phase::Gone,
            What::Obsolete => {}
        }
    }

    /// No answer, or an error: the transaction may have been carried out, or may still be.
    fn failed(&mut self, sent: &Sent, error: &EtcdError) {
        let again = sent.at.saturating_add(RETRY_AFTER);
        match sent.what {
            What::Look => {
                self.phase = Phase::Looking(again);
                self.state = MembershipState::Joining(error.to_string());
            }
            What::Create => {
                self.end(&error.to_string());
                self.phase = Phase::Looking(again);
            }
            What::CloseLog | What::Delete => match &mut self.phase {
                Phase::ClosingLog { at, .. } | Phase::Leaving { at, .. } => *at = again,
                _ => {}
            },
            // The session sends it again.
            What::Beat | What::Obsolete => {}
        }
    }

    fn looked(&mut self, sent: &Sent, answer: &TxnAnswer) {
        let now = self.now();
        let [head, records] = answer.ranges.as_slice() else { return };
        let Some(head) = self.checked_head(Some(head), sent) else { return };
        self.see(records);
        let why = if self.is_disk_exhausted() {
            DISK_EXHAUSTED.to_owned()
        } else if now < self.join_from {
            let (count, wait) = (self.fences.len(), (self.join_from - now).div_ceil(1_000_000_000));
            let times = if count == 1 { "once" } else { &format!("{count} times") };
            format!(
                "other replicas ended its session {times} within a minute, so it joins in {wait} s"
            )
        } else {
            format!("it has applied entry {} of {}", self.followed.position.seq, head.seq)
        };
        self.state = MembershipState::Joining(why);
        // The answer is later than the head, so the time of the sending counts.
        self.phase = Phase::CatchingUp(Box::new(head), sent.at);
    }

    fn created(&mut self, sent: &Sent, answer: &TxnAnswer) {
        let [head, records] = answer.ranges.as_slice() else { return };
        let Some(head) = self.checked_head(Some(head), sent) else { return };
        self.see(records);
        let why = format!("it has applied entry {} of {}", self.followed.position.seq, head.seq);
        self.state = MembershipState::Joining(why);
        if let Some(session) = self.session() {
            session.stage = Stage::CatchingUp(Box::new(head));
        }
    }

    fn beat_answered(&mut self, sent: &Sent, answer: &TxnAnswer) {
        let Some(session) = self.session() else { return };
        let renewed = session.renew(answer);
        let (until, number) = match session.stage {
            Stage::Answering(number) => (session.until(), Some(number)),
            _ => (session.until(), None),
        };
        let Some(first_sent) = renewed else { return self.fenced() };
        let time = Duration::from_nanos(self.now().saturating_sub(first_sent));
        self.parts.metrics.beats.note(time);
        if self.checked_head(answer.ranges.last(), sent).is_none() {
            return;
        }
        if let Some(number) = number
            && !self.parts.lease.extend(number, until, &self.parts.now)
        {
            self.end("its session was over before a beat was answered");
        }
    }

    /// The head of an answer, if the replica may join its log. None: it leaves.
    fn checked_head(&mut self, range: Option<&RangeAnswer>, sent: &Sent) -> Option<Head> {
        let bytes = range.and_then(|range| range.pairs.first()).map(|pair| &pair.value);
        let checked = bytes.ok_or(Refusal::NoCluster);
        let checked = checked.and_then(|bytes| self.parts.log.check(bytes, sent.applied));
        checked.map_err(|refusal| self.refuse(refusal, bytes.cloned())).ok()
    }

    /// Notes all records, which an answer has that came now.
    fn see(&mut self, records: &RangeAnswer) {
        self.members = Arc::new(self.members.next(self.now(), records));
    }

    /// Compares the clocks of the others with the own one, and follows those that are a little ahead.
    /// A replica whose clock is behind those of most others keeps a record, by which the others hear of
    /// the difference, and answers nothing.
    fn compare_clocks(&mut self) {
        {
            let seen = self.parts.seen.borrow();
            if seen.at > self.members.at {
                self.members = Arc::clone(&seen);
            }
        }
        let (now, clock) = (self.now(), (self.parts.clock)());
        self.clocks = Clocks::of(&self.members, &self.parts.settings.name, now, clock);
        self.clocks.told().for_each(|told| (self.parts.follow)(told));
        let is_behind = self.clocks.is_behind();
        self.parts.lease.set_clock_behind(is_behind);
        if is_behind
            && self.session().is_some_and(|session| matches!(session.stage, Stage::Answering(_)))
        {
            self.end(CLOCK_BEHIND);
        }
    }

    /// Begins to answer calls, if the store has applied the entries up to the head of the join.
    fn begin_answering(&mut self) {
        let (applied, revision) = (self.followed.position, self.followed.revision);
        let is_behind = self.clocks.is_behind();
        let Some(session) = self.session() else { return };
        let Stage::CatchingUp(head) = &session.stage else { return };
        if applied.seq < head.seq {
            return;
        }
        let is_other_revision = head.seq == applied.seq && head.revision != revision;
        if is_contradicted(head, applied) || is_other_revision {
            let refusal = Refusal::SetBack { log: head.seq, store: applied.seq };
            let bytes = head.encode().into();
            return self.refuse(refusal, Some(bytes));
        }
        if is_behind {
            self.state = MembershipState::Joining(CLOCK_BEHIND.to_owned());
            return;
        }
        let (id, until, peer_token) = (session.id(), session.until(), session.peer_token());
        // The time may have passed during this step.
        if self.now() >= until {
            return self.end_in_time();
        }
        self.number += 1;
        let number = self.number;
        if let Some(session) = self.session() {
            session.stage = Stage::Answering(number);
        }
        if !self.parts.lease.begin(number, until) {
            // The store has failed, and closed the lease.
            return self.leave(MembershipState::Left);
        }
        self.parts.metrics.sessions.inc();
        self.state = MembershipState::Joined { session: id, peer_token };
    }

    /// Ends what has a time, if its time is over.
    fn end_in_time(&mut self) {
        let now = self.now();
        match &self.phase {
            Phase::InSession(session) if now >= session.until() => {
                self.end("etcd did not answer in time");
            }
            Phase::Leaving { until, .. } if now >= *until => self.phase = Phase::Gone,
            _ => {}
        }
    }

    /// Another replica has ended the session, or has deleted its record.
    fn fenced(&mut self) {
        let now = self.now();
        self.parts.metrics.fences.inc();
        self.fences.push_back(now);
        self.fences.retain(|at| now < at.saturating_add(MINUTE));
        let exponent = u32::try_from(self.fences.len()).unwrap_or(u32::MAX);
        let seconds = 2_u64.saturating_pow(exponent).min(60);
        self.join_from = now.saturating_add(nanoseconds(Duration::from_secs(seconds)));
        self.end("another replica ended its session");
    }

    /// Ends the session: the lease now, and the record with the next transaction.
    /// No session begins before the last transaction is answered, so its answer finds no session.
    fn end(&mut self, why: &str) {
        self.parts.lease.end();
        if let Some(session) = self.session().map(|session| session.id()) {
            self.over.push((session, self.now()));
        }
        self.phase = Phase::Looking(0);
        self.state = MembershipState::Joining(why.to_owned());
    }

    /// Ends the session, and no other follows. The log is closed before if it was set back, so that no
    /// replica goes on with it. `head` are its bytes.
    fn refuse(&mut self, refusal: Refusal, head: Option<Bytes>) {
        match (&refusal, head) {
            (Refusal::SetBack { .. }, Some(head)) => {
                self.end(&refusal.to_string());
                self.phase = Phase::ClosingLog { head, at: 0, refusal };
            }
            _ => self.leave(MembershipState::Refused(refusal)),
        }
    }

    fn leave(&mut self, state: MembershipState) {
        if matches!(self.phase, Phase::Leaving { .. } | Phase::Gone) {
            return;
        }
        self.end("");
        if let Some(sent) = &mut self.sent {
            sent.what = What::Obsolete;
        }
        self.state = state;
        let until = self.now().saturating_add(nanoseconds(LEAVE_WITHIN));
        let is_empty = self.over.is_empty();
        self.phase = if is_empty { Phase::Gone } else { Phase::Leaving { at: 0, until } };
    }
}

impl Drop for Member {
    /// Without a member there is no beat.
    fn drop(&mut self) {
        self.parts.lease.end();
    }
}

/// The transaction that reads the head and all records.
fn look() -> Txn {
    let ranges = [Range::key(keys::HEAD), Range::under(keys::MEMBERS)].map(Operation::Range);
    Txn { then: ranges.to_vec(), ..Txn::default() }
}

#[cfg(test)]
mod tests;
