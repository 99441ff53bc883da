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

mod proposals;

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use sled::Tree;

use super::backup_feed::{BackupFeeds, FeedEnd};
use super::batch_builder::BatchBuilder;
use super::checksum::StoreChecksum;
use super::chunked;
use super::command_queue::WriterCommand;
use super::disk_space::{DiskSpace, Kind, SCARCE};
use super::engine_error::{EngineError, unavailable};
use super::gc::GarbageCollector;
use super::group_commit::GroupCommit;
use super::high_water_mark::HighWaterMark;
use super::usage::SharedUsage;
use crate::policy::change::Change;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::store::{
    CommitError, CommitObserver, Fact, FactKey, Minute, Outcome, StoreError, StoreMetrics, key,
    record,
};

/// The most changes in one batch.
const BATCH: usize = 1000;
/// How many credentials a batch notes as seen. While sled applies a batch no read gets through, so
/// a minute's worth of a large platform must not be one.
const SEEN: usize = 1000;
/// After how many batches without a pause a step of the sweep is due all the same.
const GC_INTERVAL_BATCHES: u32 = 64;

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
        let state = FeedEnd { head: self.head, tally: self.tally, mark: self.mark };
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
