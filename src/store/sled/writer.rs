//! Writer: the one thread that commits.
//!
//! It drains its queue, waits a moment for more where that pays, checks that what each change
//! rests on still stands, writes all of them as one atomic batch, flushes and syncs once, tells
//! the listener, and only then answers. A backup under way is handed what was written.
//!
//! INVARIANT (kept is on the disk): the mark, and whatever is answered because of it, is raised only
//! after the write that made it durable has succeeded.
//!
//! INVARIANT (one order): revisions are assigned here and nowhere else, one step up each, in
//! the order of the batch; a proposal is checked against everything before it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use sled::{IVec, Tree};
use tokio::sync::oneshot;

use crate::policy::change::Change;
use crate::policy::credential::Credential;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::store::key::Dead;
use crate::store::{
    CommitError, CommitObserver, Fact, FactKey, FactWrite, Minute, Outcome, Proposal, Receipt,
    RequestKey, StoreError, StoreMetrics, StoredReply, key, record,
};

use super::backup::{BackupFeed, BackupFeeds, State, Which};
use super::checksum::{StoreChecksum, WriteBatch};
use super::disk_space::{DiskSpace, Kind, Lack, SCARCE, Space};
use super::gc::GarbageCollector;
use super::group_commit::GroupCommit;
use super::high_water_mark::HighWaterMark;
use super::usage::{Pending, SharedUsage};
use super::{EngineError, chunked, unavailable};

/// The most changes in one batch.
const BATCH: usize = 1000;
/// How many credentials a batch notes as seen. While sled applies a batch no read gets through, so
/// a minute's worth of a large platform must not be one.
const SEEN: usize = 1000;
/// About how many bytes a key has with what sled adds to it.
const ENTRY: u64 = 100;
/// After how many batches without a pause a step of the sweep is due all the same.
const GC_INTERVAL_BATCHES: u32 = 64;

/// What the writer is asked to do.
pub(super) enum WriterCommand {
    /// Commit this.
    Commit(Box<Proposal>, Answer),
    /// Never rely on a time before this one again; and what is believed to be the time.
    MarkTime { time: Timestamp, believed: Timestamp },
    /// The same, and say when that is on the disk.
    KeepTime(Timestamp, oneshot::Sender<()>),
    /// Note when credentials were last seen.
    Seen(Vec<(Revision, Minute)>),
    /// Hand over to this backup what is written from here on.
    Backup(BackupFeed),
    /// Hand over no more to this one, and say where it ends.
    EndBackup(Which),
}

impl WriterCommand {
    /// The time that it wants kept.
    fn time(&self) -> Option<Timestamp> {
        match self {
            Self::MarkTime { time, .. } | Self::KeepTime(time, _) => Some(*time),
            _ => None,
        }
    }
}

type Answer = oneshot::Sender<Result<Receipt, CommitError>>;

/// The writer's own state.
pub(super) struct Writer {
    tree: Tree,
    tally: StoreChecksum,
    usage: SharedUsage,
    log: File,
    witness: HighWaterMark,
    room: DiskSpace,
    measures: Arc<StoreMetrics>,
    head: Revision,
    /// The time of the last change: none is earlier (D19).
    time: Timestamp,
    /// The time kept in the store, which is ahead of the clock.
    mark: Timestamp,
    /// The latest time that was believed since the start: what is kept for a time ends by it.
    believed: Timestamp,
    /// The same as `mark` in milliseconds, for readers of other threads.
    kept: Arc<AtomicI64>,
    /// Which credentials are still to be noted as seen, earlier minutes first.
    seen: VecDeque<(Revision, Minute)>,
    sweep: GarbageCollector,
    gather: GroupCommit,
    /// Who is handed what is written.
    taps: BackupFeeds,
    /// How many batches were committed since the last step of the sweep.
    unswept: u32,
    /// The keyring as it was last committed.
    keyring: Option<Arc<Keyring>>,
}

/// One batch in the making.
#[derive(Default)]
struct BatchBuilder {
    batch: WriteBatch,
    head: Revision,
    time: Timestamp,
    mark: Timestamp,
    values: u32,
    /// About how many bytes it has.
    bytes: u64,
    outcomes: HashMap<FactKey, Outcome>,
    /// The parts of the values that this batch wrote, by their place.
    written: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    dead: Vec<Dead>,
    /// How much it moves of what companies have, and writes of theirs.
    usage: Pending,
    /// The changes of this batch, in order.
    changes: Vec<Change>,
    /// The requests that this batch answers.
    answered: HashSet<RequestKey>,
    /// Whether there is something to write that moves neither head nor mark.
    other: bool,
}

impl Writer {
    pub(super) fn new(
        tree: Tree,
        (tally, usage): (StoreChecksum, SharedUsage),
        log: File,
        witness: HighWaterMark,
        room: DiskSpace,
        head: Revision,
        time: Option<Timestamp>,
    ) -> Result<Self, EngineError> {
        let sweep = GarbageCollector::of(&tree)?;
        let keyring = match tree.get(key::fact(&FactKey::Keyring))? {
            Some(stored) => {
                let (revision, bytes) = chunked::read(&stored, &tree)
                    .map_err(|_| EngineError::Damage)?
                    .ok_or(EngineError::Damage)?;
                match record::decode(&FactKey::Keyring, revision, &bytes)? {
                    Fact::Keyring(keyring) => Some(keyring),
                    _ => return Err(EngineError::Damage),
                }
            }
            None => None,
        };
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH);
        let measures = room.measures();
        let (seen, taps, gather, mark) =
            (VecDeque::new(), BackupFeeds::default(), GroupCommit::default(), time);
        Ok(Self {
            tree,
            tally,
            usage,
            log,
            witness,
            room,
            measures,
            head,
            time,
            mark,
            believed: Timestamp::MIN,
            kept: Arc::new(AtomicI64::new(mark.as_millisecond())),
            seen,
            sweep,
            gather,
            taps,
            unswept: 0,
            keyring,
        })
    }

    /// Lets every change use the space that is reserved for those that take away.
    pub(super) fn use_the_reserve(&mut self) {
        self.room.use_the_reserve();
    }

    /// The time mark that is on the disk, in milliseconds.
    pub(super) fn kept(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.kept)
    }

    /// Changes older than this are no longer kept.
    pub(super) fn audit_log_retention(&mut self, retention: SignedDuration) {
        self.sweep.audit_log_retention = Some(retention);
    }

    /// Commits until the queue is closed or the disk fails.
    pub(super) fn run(
        mut self,
        orders: &Receiver<WriterCommand>,
        listener: Arc<dyn CommitObserver>,
    ) {
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            while let Some(batch) = self.next(orders) {
                if self.commit(batch, &*listener).is_err() {
                    return Err(());
                }
            }
            // What was swept since the last commit is written too, so that a restart does not show
            // changes that were no longer kept.
            self.tree.flush().ok();
            Ok(())
        }));
        if !matches!(done, Ok(Ok(()))) {
            // What the kernel dropped after a failed sync cannot be synced again: nothing more
            // is acknowledged, and the process is to end.
            listener.failed();
        }
    }

    /// Waits for orders; notes who was seen, and sweeps, while there are none.
    fn next(&mut self, orders: &Receiver<WriterCommand>) -> Option<Vec<WriterCommand>> {
        self.unswept += 1;
        if self.unswept > GC_INTERVAL_BATCHES {
            self.sweep();
        }
        let first = loop {
            match orders.try_recv() {
                Ok(order) => break order,
                // A step of what is to be noted is a batch without orders.
                Err(_) if !self.seen.is_empty() => return Some(Vec::new()),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if !self.sweep() {
                        break orders.recv().ok()?;
                    }
                }
            }
        };
        let mut batch = vec![first];
        batch.extend(orders.try_iter().take(BATCH - 1));
        if let Some(time) = self.gather.wait(batch.len()) {
            std::thread::sleep(time);
            batch.extend(orders.try_iter().take(BATCH - batch.len()));
        }
        Some(batch)
    }

    fn commit(
        &mut self,
        orders: Vec<WriterCommand>,
        listener: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        let mut answers = Vec::with_capacity(orders.len());
        let (mut ended, mut kept) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let space = self.room.look();
        if space.is_little() {
            // Once for all of the batch.
            self.note_time(orders.iter().filter_map(WriterCommand::time).max());
        }
        let mut draft = BatchBuilder {
            head: self.head,
            time: self.time,
            mark: self.mark,
            ..BatchBuilder::default()
        };
        for order in orders {
            self.measures.waiting.down();
            match order {
                WriterCommand::MarkTime { time, believed } => {
                    self.believed = self.believed.max(believed);
                    if !space.is_little() {
                        draft.mark = draft.mark.max(time);
                    }
                }
                // It could not be noted, and is not answered: nothing may rest on it.
                WriterCommand::KeepTime(time, _) if space.is_little() && time > self.mark => {}
                WriterCommand::KeepTime(time, told) => {
                    (draft.time, draft.mark) = (draft.time.max(time), draft.mark.max(time));
                    kept.push(told);
                }
                // Not worth the room that is left.
                WriterCommand::Seen(_) if space.is_little() => {}
                WriterCommand::Seen(seen) => self.seen.extend(seen),
                WriterCommand::Backup(tap) => self.taps.add(tap),
                WriterCommand::EndBackup(which) => ended.push(which),
                WriterCommand::Commit(proposal, answer) => {
                    let receipt = self.add_if_room(&mut draft, *proposal, space);
                    answers.push((answer, receipt));
                }
            }
        }
        if space.is_little() {
            // Nor are those that waited from before.
            self.seen.clear();
        }
        let step = self.seen.len().min(SEEN);
        draft.seen(self.seen.drain(..step));
        let written = draft.head > self.head || draft.mark > self.mark || draft.other;
        let time = draft.time;
        if written && let Err(error) = self.write(draft, listener) {
            for (answer, _) in answers {
                answer.send(Err(CommitError::Store(StoreError::Unavailable))).ok();
            }
            return Err(error);
        }
        if !written {
            // A time that is no later than the mark is kept already.
            self.time = time;
        }
        if !answers.is_empty() {
            let took = start.elapsed();
            self.measures.batches.note(took);
            self.gather.committed(answers.len(), took);
        }
        let state = State { head: self.head, tally: self.tally, mark: self.mark };
        // One whose caller is gone needs no answer.
        kept.into_iter().for_each(|told| told.send(()).unwrap_or(()));
        ended.iter().for_each(|which| self.taps.end(which, state));
        // A conflict is answered only now, when what it lost against can be read by everybody.
        for (answer, receipt) in answers {
            match &receipt {
                Ok(_) => self.measures.committed.inc(),
                Err(error) => {
                    self.measures.refused.inc();
                    if let CommitError::Store(StoreError::AtBound(reached)) = error {
                        self.measures.refused_at(reached.bound);
                    }
                }
            }
            answer.send(receipt).ok();
        }
        Ok(())
    }

    fn write(
        &mut self,
        mut draft: BatchBuilder,
        listener: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        draft.batch.insert(key::HEAD, draft.head.0.to_be_bytes());
        let mark = u64::try_from(draft.mark.as_millisecond()).unwrap_or(0);
        draft.batch.insert(key::TIME, mark.to_be_bytes());
        let changed = draft.head > self.head;
        if changed {
            let keys: Vec<_> = draft.outcomes.keys().cloned().collect();
            listener.before_apply(draft.head, &keys);
        }
        draft.batch.apply_counted(&self.tree, &mut self.tally, &self.usage)?;
        self.usage.wrote(draft.usage);
        let applied = Instant::now();
        self.tree.flush().map_err(|error| unavailable(&error))?;
        self.log.sync_data().map_err(|error| unavailable(&sled::Error::Io(error)))?;
        self.witness
            .note(draft.head, draft.mark)
            .map_err(|error| unavailable(&sled::Error::Io(error)))?;
        self.measures.syncs.note(applied.elapsed());
        if let Some(outcome) = draft.outcomes.get(&FactKey::Keyring) {
            self.keyring = match &outcome.fact {
                Some(Fact::Keyring(keyring)) => Some(Arc::clone(keyring)),
                _ => None,
            };
        }
        self.head = draft.head;
        (self.time, self.mark) = (draft.time, draft.mark);
        self.kept.store(self.mark.as_millisecond(), Ordering::Release);
        self.sweep.add(draft.dead);
        self.taps.hand_over(draft.batch);
        if changed {
            listener.durable(self.head, draft.outcomes.into_values().collect());
            listener.published(draft.changes);
        }
        Ok(())
    }

    /// Keeps a time that is later than the mark where there is no room for a change: the log does
    /// not grow by it. The mark is what is on the disk: it stays if the write fails.
    fn note_time(&mut self, time: Option<Timestamp>) {
        let Some(time) = time.filter(|time| *time > self.mark) else { return };
        match self.witness.note(self.head, time).and_then(|()| self.witness.sync()) {
            Ok(()) => {
                self.mark = time;
                self.kept.store(time.as_millisecond(), Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "the time could not be kept"),
        }
    }

    /// Brings time back to this moment, by a change that says so. The change and the mark are one
    /// batch. A crash before the witness has the new time is no harm: what a witness says that is
    /// older than the change does not count when the store is opened.
    pub(super) fn accept_clock(&mut self, mut change: Change) -> Result<(), StoreError> {
        // Without it nobody's keys may be in force: it is as urgent as they are.
        if self.room.look().admits(0, || Kind::DeletesKeys).is_err() {
            return Err(StoreError::Full);
        }
        let mut draft = BatchBuilder { head: self.head.next(), ..BatchBuilder::default() };
        (draft.time, draft.mark) = (change.time, change.time);
        change.revision = draft.head;
        draft.value(key::change(draft.head), draft.head, &record::encode_change(&change));
        let time = change.time.as_millisecond().to_be_bytes();
        let accepted = [draft.head.0.to_be_bytes(), time].concat();
        draft.batch.insert(key::CLOCK_ACCEPTED, accepted);
        self.sweep.clock_accepted = Some((draft.head, change.time));
        self.write(draft, &Nobody)?;
        self.witness.sync().map_err(|error| unavailable(&sled::Error::Io(error)))
    }

    /// The last revision, and the time mark.
    pub(super) fn reached(&self) -> (Revision, Timestamp) {
        (self.head, self.mark)
    }

    /// Adds a proposal to the draft, if the disk has room for it and what it rests on stands.
    fn add_if_room(
        &self,
        draft: &mut BatchBuilder,
        proposal: Proposal,
        space: Space,
    ) -> Result<Receipt, CommitError> {
        match space.admits(draft.bytes, || Kind::of(&proposal)) {
            Ok(()) => self.add(draft, proposal),
            Err(Lack::ToGive) => Err(StoreError::NearlyFull.into()),
            Err(Lack::ButKeys) => Err(StoreError::KeysOnly.into()),
            Err(Lack::Any) => Err(StoreError::Full.into()),
        }
    }

    /// Refuses a proposal if something that it rests on has changed.
    fn stands(&self, draft: &BatchBuilder, proposal: &Proposal) -> Result<(), CommitError> {
        let Proposal { preconditions, caller, steps, remember, .. } = proposal;
        if let Some(remember) = remember {
            let place = key::answered(&remember.key);
            if draft.answered.contains(&remember.key) || self.stored(&place)?.is_some() {
                return Err(CommitError::Conflict);
            }
        }
        let steps_rest_on =
            steps.iter().map(|step| (&step.key, step.before.as_ref().map(Fact::revision)));
        for (key, revision) in preconditions.iter().map(|(key, at)| (key, *at)).chain(steps_rest_on)
        {
            if self.current(draft, key)? != revision {
                return Err(CommitError::Conflict);
            }
        }
        if let Some((id, created_at)) = caller {
            let key = self.keyring(draft).and_then(|keyring| keyring.get(id.as_str()));
            if key.is_none_or(|key| key.created_at != *created_at) {
                return Err(CommitError::Conflict);
            }
        }
        Ok(())
    }

    /// The keyring in front of the next proposal.
    fn keyring<'a>(&'a self, draft: &'a BatchBuilder) -> Option<&'a Keyring> {
        match draft.outcomes.get(&FactKey::Keyring) {
            Some(Outcome { fact: Some(Fact::Keyring(keyring)), .. }) => Some(keyring),
            Some(_) => None,
            None => self.keyring.as_deref(),
        }
    }

    /// Adds a proposal to the draft, if what it rests on stands and its company is below its
    /// bounds.
    fn add(&self, draft: &mut BatchBuilder, proposal: Proposal) -> Result<Receipt, CommitError> {
        // First: what exists already is said to exist, whatever the bounds are.
        self.stands(draft, &proposal)?;
        let time = draft.time.max(proposal.change.time);
        let admitted = self.usage.admits(&draft.usage, &proposal, time);
        admitted.map_err(StoreError::AtBound)?;
        // What can fail comes first: a proposal that is refused leaves nothing in the draft.
        let mut replaced = Vec::new();
        for step in &proposal.steps {
            replaced.extend(self.parts(draft, &step.key)?);
        }
        replaced.into_iter().for_each(|part| draft.batch.remove(part));
        let (company, before) = (proposal.company(), draft.bytes);
        draft.usage.add_steps(&proposal);
        let Proposal { steps, mut change, remember, .. } = proposal;
        let revision = draft.head.next();
        draft.head = revision;
        draft.time = time;
        draft.mark = draft.mark.max(draft.time);
        change.revision = revision;
        change.time = draft.time;
        for step in steps {
            draft.step(step, revision);
        }
        draft.value(key::change(revision), revision, &record::encode_change(&change));
        if let Some(company) = &change.company {
            draft.bytes += ENTRY;
            draft.batch.insert(key::change_of(company, revision), []);
        }
        let receipt = Receipt { revision, time: change.time };
        if let Some(remember) = remember {
            let answered = StoredReply { body: remember.body, reply: (remember.reply)(receipt) };
            let bytes = record::encode_answered(answered);
            draft.value(key::answered(&remember.key), revision, &bytes);
            let millisecond = u64::try_from(change.time.as_millisecond()).unwrap_or(0);
            draft.bytes += ENTRY;
            draft.batch.insert(key::answered_at(millisecond, &remember.key), []);
            draft.answered.insert(remember.key);
        }
        draft.changes.push(change);
        let bytes = draft.bytes.saturating_sub(before);
        draft.usage.add_bytes(company, time, bytes);
        Ok(receipt)
    }

    /// The revision that a fact has in front of the next proposal.
    fn current(&self, draft: &BatchBuilder, key: &FactKey) -> Result<Option<Revision>, StoreError> {
        if let Some(outcome) = draft.outcomes.get(key) {
            return Ok(outcome.fact.is_some().then_some(outcome.since));
        }
        Ok(match self.stored(&key::fact(key))? {
            Some(value) => Some(chunked::revision(&value)?),
            None => None,
        })
    }

    /// The parts of the value that a fact has in front of the next proposal.
    fn parts(&self, draft: &BatchBuilder, key: &FactKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let place = key::fact(key);
        if let Some(parts) = draft.written.get(&place) {
            return Ok(parts.clone());
        }
        Ok(match self.stored(&place)? {
            Some(value) => chunked::chunks(&value)?,
            None => vec![],
        })
    }

    fn stored(&self, place: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.tree.get(place).map_err(|error| unavailable(&error))
    }

    /// Does a step of the sweep, and says whether there may be more to do at once.
    fn sweep(&mut self) -> bool {
        self.unswept = 0;
        // To remove is to write, too.
        if self.room.look().free < SCARCE {
            return false;
        }
        // What is kept for a time is kept for all of it: the mark is ahead of the time, and may be
        // an end that was told in a doubtful time. A clock that went back counts, too.
        let now = self.believed.min(crate::metrics::machine_time());
        let counted = (&mut self.tally, &self.usage);
        self.sweep.step(&self.tree, counted, &mut self.taps, (now, self.mark), self.head)
    }
}

/// Listens to what is written before anybody can.
struct Nobody;

impl CommitObserver for Nobody {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}

impl BatchBuilder {
    fn seen(&mut self, seen: impl Iterator<Item = (Revision, Minute)>) {
        for (credential, minute) in seen {
            self.batch.insert(key::seen(credential), minute.to_be_bytes());
            self.other = true;
        }
    }

    fn value(&mut self, place: Vec<u8>, revision: Revision, bytes: &[u8]) {
        self.values += 1;
        self.bytes += ENTRY + bytes.len() as u64;
        chunked::put(&mut self.batch, place, revision, self.values, bytes);
    }

    fn step(&mut self, step: FactWrite, revision: Revision) {
        let FactWrite { key, before, mut after } = step;
        if let Some(fact) = &mut after {
            fact.stamp(revision, self.time);
        }
        self.index(before.as_ref(), after.as_ref());
        if let (Some(Fact::Company(company)), None) = (&before, &after) {
            self.bury(Dead::Company(company.created_at));
        }
        if let (Some(Fact::User(user)), None) = (&before, &after) {
            self.bury(Dead::User(user.company, user.created_at));
        }
        if let (Some(Fact::Credential(credential)), None) = (&before, &after) {
            self.batch.remove(key::seen(credential.created_at));
            for secret in &credential.secrets {
                // Small enough to have no parts.
                self.put(FactKey::Secret(credential.company, secret.clone()), None, revision);
                self.put(FactKey::SecretOwner(secret.clone()), None, revision);
            }
            self.bury(Dead::Credential(credential.company, credential.created_at));
        }
        if let (FactKey::Secret(_, id), None) = (&key, &after) {
            self.put(FactKey::SecretOwner(id.clone()), None, revision);
        }
        let company = match &key {
            FactKey::Credential(company, _) => Some(*company),
            _ => None,
        };
        self.put(key, after, revision);
        if let Some(company) = company {
            self.put(FactKey::Impact(company), Some(Fact::Impact(revision)), revision);
        }
    }

    fn bury(&mut self, dead: Dead) {
        self.batch.insert(key::dead(dead), []);
        self.dead.push(dead);
    }

    fn put(&mut self, key: FactKey, fact: Option<Fact>, revision: Revision) {
        let place = key::fact(&key);
        match &fact {
            Some(fact) => {
                let bytes = record::encode(fact);
                self.value(place.clone(), revision, &bytes);
                let parts = bytes.len().div_ceil(chunked::INLINE);
                if parts > 1 {
                    let parts = u32::try_from(parts).unwrap_or(u32::MAX);
                    let parts = (0..parts).map(|part| key::part(revision, self.values, part));
                    self.written.insert(place, parts.collect());
                } else {
                    self.written.insert(place, Vec::new());
                }
            }
            None => {
                self.batch.remove(place.clone());
                self.written.insert(place, Vec::new());
            }
        }
        self.outcomes.insert(key.clone(), Outcome { key, since: revision, fact });
    }

    /// Keeps the index of holders in step with a credential's grants.
    fn index(&mut self, before: Option<&Fact>, after: Option<&Fact>) {
        fn credential(fact: Option<&Fact>) -> Option<&Credential> {
            match fact {
                Some(Fact::Credential(credential)) => Some(credential),
                _ => None,
            }
        }
        let (before, after) = (credential(before), credential(after));
        if let Some(old) = before {
            for (scope, _) in old.grants.iter() {
                if !after.is_some_and(|new| new.grants.contains(scope)) {
                    self.bytes += ENTRY;
                    self.batch.remove(key::holder(old.company, scope, &old.id));
                }
            }
        }
        if let Some(new) = after {
            for (scope, _) in new.grants.iter() {
                if !before.is_some_and(|old| old.grants.contains(scope)) {
                    self.bytes += ENTRY;
                    self.batch.insert(key::holder(new.company, scope, &new.id), []);
                }
            }
        }
    }
}
