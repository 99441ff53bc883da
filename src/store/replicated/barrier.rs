//! Barrier: when every replica that may answer has published a revision.
//!
//! A replica answers only while the record of its session exists, and the record tells the last
//! revision that the replica has published. A change waits for the records that existed at its commit.
//! A later session has joined behind the commit, so it has published the change before it answers. A
//! read that tells of the present state waits for the records of a range that was sent after it
//! began. All such reads that arrive during one range share the next one.
//!
//! INVARIANT (everywhere): a wait ends well only when each of its records has told the revision in any
//! view, or was absent in a range that was sent after the wait was registered. An older range may be
//! from before the record. Both stay true once they are: a session publishes no less later, and a
//! deleted record is never put again. So a late view only delays.
//!
//! A record that does not tell the revision is fenced after a second in which etcd answered, and not
//! within two seconds after a range had no answer: its session's next renewal fails, and the replica
//! answers no more. Any record is deleted after its
//! [lapse time](super::members_view::lapse_time).
//!
//! Memory: a wait costs a few hundred bytes and exists only while a call waits for it. The limits of
//! calls in flight are the limits of waits.
//!
//! Not here: the calls to etcd; see [`MembersTask`](super::MembersTask). There is no clock here:
//! times are nanoseconds of the boot clock, given by the caller.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::barrier_metrics::BarrierMetrics;
use super::etcd::RangeAnswer;
use super::member_record::MemberRecord;
use super::members_view::MembersView;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::StoreError;

const MILLISECOND: u64 = 1_000_000;
/// For how long etcd must have answered, without news of a session, before the session is fenced.
const PATIENCE: u64 = 1_000 * MILLISECOND;
/// The same for a session that does publish revisions, but not yet the one that is waited for.
const MAX_PATIENCE: u64 = 3_000 * MILLISECOND;
/// After a longer time without an answer of etcd, both begin again: the session was perhaps unable to
/// renew its record.
const MAX_GAP: u64 = 300 * MILLISECOND;
/// For how long no session is fenced after a range had no answer. The node that gave none, or the leader that
/// was elected meanwhile, may cost other replicas two time limits of their renewals.
const AFTER_FAILURE: u64 = 2_000 * MILLISECOND;
/// A wait is given up after this time, so that callers need no deadline that depends on the leases of
/// replicas. A record with the default lease lapses in less. A caller that repeats its change goes on
/// waiting.
const MAX_WAIT: u64 = 10_000 * MILLISECOND;
/// The interval of ranges while there is a wait: a fraction of [`MAX_GAP`].
const WAITING_INTERVAL: u64 = 100 * MILLISECOND;
/// The interval of ranges while there is none and records change.
const CHANGING_INTERVAL: u64 = 250 * MILLISECOND;
/// The interval of ranges otherwise. It finds the records of replicas that have died.
const IDLE_INTERVAL: u64 = 1_000 * MILLISECOND;

/// How a wait ended well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// How long it took.
    pub time: Duration,
    /// The replicas that had not told the revision at the beginning, sorted.
    pub waited_for: Vec<Name>,
}

/// Who waits. Any closure is one.
pub trait Waiter: Send + 'static {
    /// Whether the result is of no use any more. Such a wait ends without a call of [`Self::end`].
    fn is_closed(&self) -> bool {
        false
    }

    /// Takes the result. It must not block.
    fn end(self: Box<Self>, result: Result<Waited, StoreError>);
}

impl<F: FnOnce(Result<Waited, StoreError>) + Send + 'static> Waiter for F {
    fn end(self: Box<Self>, result: Result<Waited, StoreError>) {
        self(result);
    }
}

impl Waiter for oneshot::Sender<Result<Waited, StoreError>> {
    fn is_closed(&self) -> bool {
        oneshot::Sender::is_closed(self)
    }

    fn end(self: Box<Self>, result: Result<Waited, StoreError>) {
        self.send(result).ok();
    }
}

/// A waiter and its revision. A waiter that is dropped without a result gets an error.
pub(super) struct Call {
    revision: Revision,
    /// When it began.
    since: u64,
    waiter: Option<Box<dyn Waiter>>,
}

impl Call {
    pub(super) fn new(now: u64, revision: Revision, waiter: impl Waiter) -> Self {
        Self { revision, since: now, waiter: Some(Box::new(waiter)) }
    }

    fn is_closed(&self) -> bool {
        self.waiter.as_ref().is_none_or(|waiter| waiter.is_closed())
    }

    pub(super) fn end(mut self, waited: Waited) {
        if let Some(waiter) = self.waiter.take() {
            waiter.end(Ok(waited));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take()
            && !waiter.is_closed()
        {
            // Whether the call has committed a change is known to the waiter alone.
            waiter.end(Err(StoreError::NotYetEverywhere(None)));
        }
    }
}

/// What is to be done in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Replaces exactly these bytes of a record by those with `fenced`.
    Fence { session: Uuid, name: Name, seen: Bytes, fenced: Bytes },
    /// Deletes a record that has exactly these bytes.
    Delete { session: Uuid, seen: Bytes },
    /// Reports that this session, which is the own one, was fenced, or that its record is gone.
    ReportOwnEnd(Uuid),
}

/// The waits of a replica, and its view of the records.
pub(super) struct Barrier {
    view: Arc<MembersView>,
    /// The own session. Its store has published what is waited for, so it is not waited for.
    own: Option<Uuid>,
    /// The last range that was sent before the own session was known. It may be from before its record.
    own_after: u64,
    /// How many ranges were sent. Their numbers begin at 1, and one is sent after the other has ended.
    sent: u64,
    sent_at: u64,
    /// Whether the last range had no answer.
    has_failed: bool,
    /// Until when no session is fenced.
    patient_until: u64,
    /// When the last answer came.
    answered_at: Option<u64>,
    /// The calls that wait for a range.
    queued: Vec<Call>,
    /// The calls that came before the last range was sent, and wait for its answer.
    asked: Vec<Call>,
    waits: Vec<Wait>,
    metrics: Arc<BarrierMetrics>,
}

/// Calls that wait for the same records.
struct Wait {
    calls: Vec<Call>,
    /// The highest revision of the calls. The others could end a little sooner, but the calls of one
    /// range then cost as much as one call.
    revision: Revision,
    /// A record is gone if it is absent in a range after this one.
    after: u64,
    pending: Vec<Pending>,
    waited_for: BTreeSet<Name>,
}

/// A record that has not told the revision.
struct Pending {
    session: Uuid,
    /// The last revision that it told.
    published: Revision,
    /// Since when etcd answers.
    answered_since: u64,
    /// Since when etcd answers and the record tells no other revision.
    quiet_since: u64,
}

impl Barrier {
    pub(super) fn new(metrics: Arc<BarrierMetrics>) -> Self {
        Self {
            view: Arc::default(),
            own: None,
            own_after: 0,
            sent: 0,
            sent_at: 0,
            has_failed: false,
            patient_until: 0,
            answered_at: None,
            queued: Vec::new(),
            asked: Vec::new(),
            waits: Vec::new(),
            metrics,
        }
    }

    pub(super) fn view(&self) -> &Arc<MembersView> {
        &self.view
    }

    pub(super) fn set_own(&mut self, own: Option<Uuid>) {
        if self.own != own {
            (self.own, self.own_after) = (own, self.sent);
        }
    }

    /// Registers a committed change. `listed` are the sessions whose records existed at its commit.
    pub(super) fn wait(&mut self, now: u64, call: Call, listed: Vec<Uuid>) {
        let mut wait = Wait::new(now, vec![call], self.sent, listed);
        wait.see(now, &self.view, self.own, false, false);
        self.waits.extend(wait.go_on(now, &self.metrics));
    }

    /// Registers a call that waits for the records of a range that is sent from now on.
    pub(super) fn wait_for_range(&mut self, call: Call) {
        self.queued.push(call);
    }

    /// Notes that a range of all records is sent now.
    pub(super) fn range_sent(&mut self, now: u64) {
        self.metrics.ranges.inc();
        (self.sent, self.sent_at) = (self.sent + 1, now);
        self.asked.append(&mut self.queued);
    }

    /// Notes that the range has no answer. Its calls wait for that of the next one.
    pub(super) fn range_failed(&mut self) {
        self.has_failed = true;
    }

    /// Takes the answer of the range that was sent last, which came at `now`.
    pub(super) fn answered(&mut self, now: u64, answer: &RangeAnswer) -> Vec<Action> {
        if mem::take(&mut self.has_failed) {
            self.patient_until = now.saturating_add(AFTER_FAILURE);
        }
        let last = self.answered_at.replace(now);
        let had_gap = last.is_none_or(|last| now.saturating_sub(last) > MAX_GAP);
        self.view = Arc::new(self.view.next(now, answer));
        let asked = mem::take(&mut self.asked);
        if !asked.is_empty() {
            let listed = self.view.iter().map(|member| member.session).collect();
            self.waits.push(Wait::new(now, asked, self.sent, listed));
        }
        let mut fences = BTreeSet::new();
        for mut wait in mem::take(&mut self.waits) {
            let counts_gone = self.sent > wait.after;
            wait.see(now, &self.view, self.own, counts_gone, had_gap);
            if let Some(wait) = wait.go_on(now, &self.metrics) {
                if now >= self.patient_until {
                    fences.extend(wait.impatient(now));
                }
                self.waits.push(wait);
            }
        }
        self.actions(now, &fences)
    }

    /// Fences these sessions, and deletes each record that has lapsed.
    fn actions(&self, now: u64, fences: &BTreeSet<Uuid>) -> Vec<Action> {
        let mut actions = Vec::new();
        for member in self.view.iter().filter(|member| Some(member.session) != self.own) {
            let (session, seen) = (member.session, member.bytes().clone());
            if member.has_lapsed(now) {
                actions.push(Action::Delete { session, seen });
            } else if let Some(MemberRecord { name, fenced: false, .. }) = &member.record
                && fences.contains(&session)
            {
                let (name, fenced) = (name.clone(), member.fenced_bytes());
                actions.push(Action::Fence { session, name, seen, fenced });
            }
        }
        if let Some(own) = self.own
            && self.sent > self.own_after
            && self.view.get(own).is_none_or(|member| member.is_fenced())
        {
            actions.push(Action::ReportOwnEnd(own));
        }
        actions
    }

    /// Ends the waits that have taken too long, and those whose callers have gone.
    pub(super) fn give_up(&mut self, now: u64) {
        let metrics = &self.metrics;
        let is_in_time = |call: &Call| {
            let is_late = now >= call.since.saturating_add(MAX_WAIT);
            if is_late && !call.is_closed() {
                metrics.given_up.inc();
            }
            !is_late && !call.is_closed()
        };
        for calls in [&mut self.queued, &mut self.asked] {
            calls.retain(is_in_time);
        }
        self.waits.retain_mut(|wait| {
            wait.calls.retain(is_in_time);
            !wait.calls.is_empty()
        });
    }

    /// When the next range is to be sent, at the latest. `has_changed`: a record has changed since the last
    /// range was sent.
    pub(super) fn next_range(&self, has_changed: bool) -> u64 {
        let has_waits = !self.waits.is_empty();
        let has_calls = !self.queued.is_empty() || !self.asked.is_empty();
        if has_calls || has_waits && has_changed {
            // An etcd that refuses connections is not asked all the time.
            return if self.has_failed { self.sent_at + WAITING_INTERVAL } else { 0 };
        }
        let interval = match (has_waits, has_changed) {
            (true, _) => WAITING_INTERVAL,
            (false, true) => CHANGING_INTERVAL,
            (false, false) => IDLE_INTERVAL,
        };
        self.sent_at + interval
    }
}

impl Wait {
    fn new(now: u64, calls: Vec<Call>, after: u64, listed: Vec<Uuid>) -> Self {
        let pending = |session| Pending {
            session,
            published: Revision::ZERO,
            answered_since: now,
            quiet_since: now,
        };
        Self {
            revision: calls.iter().map(|call| call.revision).max().unwrap_or_default(),
            calls,
            after,
            pending: listed.into_iter().map(pending).collect(),
            waited_for: BTreeSet::new(),
        }
    }

    /// Removes the records that have told the revision and, if the view is from a range that was sent
    /// after the registration, those that are gone.
    fn see(
        &mut self,
        now: u64,
        view: &MembersView,
        own: Option<Uuid>,
        counts_gone: bool,
        had_gap: bool,
    ) {
        let Self { revision, pending, waited_for, .. } = self;
        pending.retain_mut(|pending| {
            if Some(pending.session) == own {
                return false;
            }
            let Some(member) = view.get(pending.session) else { return !counts_gone };
            if member.has_published(*revision) {
                return false;
            }
            if let Some(record) = &member.record {
                waited_for.insert(record.name.clone());
                pending.see(now, record.published, had_gap);
            }
            true
        });
    }

    /// Ends the wait if no record is left, or if its callers have gone.
    fn go_on(mut self, now: u64, metrics: &BarrierMetrics) -> Option<Self> {
        self.calls.retain(|call| !call.is_closed());
        if self.calls.is_empty() {
            return None;
        }
        if !self.pending.is_empty() {
            return Some(self);
        }
        let waited_for: Vec<_> = self.waited_for.into_iter().collect();
        for call in self.calls {
            waited_for.iter().for_each(|name| metrics.waits.inc(name));
            let time = Duration::from_nanos(now.saturating_sub(call.since));
            metrics.seconds.note(time);
            call.end(Waited { time, waited_for: waited_for.clone() });
        }
        None
    }

    /// The sessions that have had enough time.
    fn impatient(&self, now: u64) -> impl Iterator<Item = Uuid> {
        let impatient = self.pending.iter().filter(move |pending| {
            now.saturating_sub(pending.quiet_since) >= PATIENCE
                || now.saturating_sub(pending.answered_since) >= MAX_PATIENCE
        });
        impatient.map(|pending| pending.session)
    }
}

impl Pending {
    fn see(&mut self, now: u64, published: Revision, had_gap: bool) {
        if had_gap {
            self.answered_since = now;
        }
        if had_gap || published > self.published {
            (self.quiet_since, self.published) = (now, published);
        }
    }
}

#[cfg(test)]
mod tests;
