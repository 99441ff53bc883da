//! Writer: the one thread that commits.
//!
//! It drains its queue and may briefly wait for more. It checks the preconditions of each proposal,
//! writes all of them as one atomic batch, and flushes and syncs once. Then it notifies the
//! observer, and only after that it replies to the callers. Each backup feed gets the batch, too.
//!
//! INVARIANT (kept is on the disk): the time mark is raised, and a reply that depends on it is
//! sent, only after the write that made it durable has succeeded.
//!
//! INVARIANT (one order): only the writer assigns revisions, one step each, in the order of the
//! batch. It checks a proposal against everything before it.

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
use super::disk_space::{ChangeEffect, DiskSpace, GC_MINIMUM};
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

/// The limit of commands in one batch.
const BATCH: usize = 1000;
/// The limit of last-seen times that one batch writes. sled blocks reads while it applies a batch,
/// so the times of a whole minute on a large platform must not be one batch.
const SEEN: usize = 1000;
/// After this many batches without an idle moment, a step of garbage collection is done all the
/// same.
const GC_INTERVAL_BATCHES: u32 = 64;

/// The state of the writer.
pub(super) struct Writer {
    tree: Tree,
    checksum: StoreChecksum,
    usage: SharedUsage,
    log: File,
    high_water_mark: HighWaterMark,
    disk_space: DiskSpace,
    metrics: Arc<StoreMetrics>,
    head: Revision,
    /// The time of the last change: none is earlier (D19).
    time: Timestamp,
    /// The time mark, which is ahead of the clock.
    mark: Timestamp,
    /// The latest believed time since the start. Retention follows it.
    believed: Timestamp,
    /// `mark` in milliseconds, for readers on other threads.
    durable_mark: Arc<AtomicI64>,
    /// Last-seen times that are not written yet, earlier minutes first.
    seen: VecDeque<(Revision, Minute)>,
    gc: GarbageCollector,
    group_commit: GroupCommit,
    /// The backup feeds.
    feeds: BackupFeeds,
    /// The number of batches since the last step of garbage collection.
    batches_since_gc: u32,
    /// The keyring as it was last committed.
    keyring: Option<Arc<Keyring>>,
}

impl Writer {
    pub(super) fn new(
        tree: Tree,
        (checksum, usage): (StoreChecksum, SharedUsage),
        log: File,
        high_water_mark: HighWaterMark,
        disk_space: DiskSpace,
        head: Revision,
        time: Option<Timestamp>,
    ) -> Result<Self, EngineError> {
        let gc = GarbageCollector::of(&tree)?;
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
        let metrics = disk_space.metrics();
        let (seen, feeds, group_commit, mark) =
            (VecDeque::new(), BackupFeeds::default(), GroupCommit::default(), time);
        Ok(Self {
            tree,
            checksum,
            usage,
            log,
            high_water_mark,
            disk_space,
            metrics,
            head,
            time,
            mark,
            believed: Timestamp::MIN,
            durable_mark: Arc::new(AtomicI64::new(mark.as_millisecond())),
            seen,
            gc,
            group_commit,
            feeds,
            batches_since_gc: 0,
            keyring,
        })
    }

    /// Lets every change use the space that is reserved for changes that remove access.
    pub(super) fn use_the_reserve(&mut self) {
        self.disk_space.use_the_reserve();
    }

    /// The durable time mark, in milliseconds.
    pub(super) fn durable_mark(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.durable_mark)
    }

    /// Sets the retention of changes.
    pub(super) fn set_audit_log_retention(&mut self, retention: SignedDuration) {
        self.gc.audit_log_retention = Some(retention);
    }

    /// Commits until the queue is closed or the disk fails.
    pub(super) fn run(
        mut self,
        commands: &Receiver<WriterCommand>,
        observer: Arc<dyn CommitObserver>,
    ) {
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            while let Some(batch) = self.next(commands) {
                if self.commit(batch, &*observer).is_err() {
                    return Err(());
                }
            }
            // Flushes what garbage collection removed since the last commit, so that a restart does
            // not bring it back.
            self.tree.flush().ok();
            Ok(())
        }));
        if !matches!(done, Ok(Ok(()))) {
            // After a failed sync the kernel may have dropped the pages, and another sync proves
            // nothing. No more changes are acknowledged, and the process must end.
            observer.failed();
        }
    }

    /// Waits for commands. While there are none, it writes last-seen times and collects garbage.
    fn next(&mut self, commands: &Receiver<WriterCommand>) -> Option<Vec<WriterCommand>> {
        self.batches_since_gc += 1;
        if self.batches_since_gc > GC_INTERVAL_BATCHES {
            self.collect_garbage();
        }
        let first = loop {
            match commands.try_recv() {
                Ok(command) => break command,
                // Last-seen times are written in a batch without commands.
                Err(_) if !self.seen.is_empty() => return Some(Vec::new()),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if !self.collect_garbage() {
                        break commands.recv().ok()?;
                    }
                }
            }
        };
        let mut batch = vec![first];
        batch.extend(commands.try_iter().take(BATCH - 1));
        if let Some(time) = self.group_commit.wait(batch.len()) {
            std::thread::sleep(time);
            batch.extend(commands.try_iter().take(BATCH - batch.len()));
        }
        Some(batch)
    }

    fn commit(
        &mut self,
        commands: Vec<WriterCommand>,
        observer: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        let mut replies = Vec::with_capacity(commands.len());
        let (mut ended_feeds, mut marked) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let space = self.disk_space.measure();
        if space.is_low() {
            // Once for the whole batch.
            self.note_time(commands.iter().filter_map(WriterCommand::time).max());
        }
        let mut builder = BatchBuilder {
            head: self.head,
            time: self.time,
            mark: self.mark,
            ..BatchBuilder::default()
        };
        for command in commands {
            self.metrics.waiting.down();
            match command {
                WriterCommand::MarkTime { time, believed } => {
                    self.believed = self.believed.max(believed);
                    if !space.is_low() {
                        builder.mark = builder.mark.max(time);
                    }
                }
                // The time cannot be stored, so the command gets no reply.
                WriterCommand::PersistTime(time, _) if space.is_low() && time > self.mark => {}
                WriterCommand::PersistTime(time, reply) => {
                    (builder.time, builder.mark) = (builder.time.max(time), builder.mark.max(time));
                    marked.push(reply);
                }
                // Last-seen times are not worth the remaining space.
                WriterCommand::Seen(_) if space.is_low() => {}
                WriterCommand::Seen(seen) => self.seen.extend(seen),
                WriterCommand::Backup(feed) => self.feeds.add(feed),
                WriterCommand::EndBackup(feed) => ended_feeds.push(feed),
                WriterCommand::Commit(proposal, reply) => {
                    let receipt = self.add_if_space(&mut builder, *proposal, space);
                    replies.push((reply, receipt));
                }
            }
        }
        if space.is_low() {
            // The same holds for those from earlier batches.
            self.seen.clear();
        }
        let step = self.seen.len().min(SEEN);
        builder.last_seen(self.seen.drain(..step));
        let written = builder.head > self.head || builder.mark > self.mark || builder.other;
        let time = builder.time;
        if written && let Err(error) = self.write(builder, observer) {
            for (reply, _) in replies {
                reply.send(Err(CommitError::Store(StoreError::Unavailable))).ok();
            }
            return Err(error);
        }
        if !written {
            // A time that is not later than the mark is durable already.
            self.time = time;
        }
        if !replies.is_empty() {
            let took = start.elapsed();
            self.metrics.batches.note(took);
            self.group_commit.committed(replies.len(), took);
        }
        let state = FeedEnd { head: self.head, checksum: self.checksum, mark: self.mark };
        // The caller may have gone; then the reply is dropped.
        marked.into_iter().for_each(|reply| reply.send(()).unwrap_or(()));
        ended_feeds.iter().for_each(|feed| self.feeds.end(feed, state));
        // A conflict is reported only now, when every reader can see the change that won.
        for (reply, receipt) in replies {
            match &receipt {
                Ok(_) => self.metrics.committed.inc(),
                Err(error) => {
                    self.metrics.refused.inc();
                    if let CommitError::Store(StoreError::AtBound(reached)) = error {
                        self.metrics.refused_at(reached.bound);
                    }
                }
            }
            reply.send(receipt).ok();
        }
        Ok(())
    }

    fn write(
        &mut self,
        mut builder: BatchBuilder,
        observer: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        builder.batch.insert(key::HEAD, builder.head.0.to_be_bytes());
        let mark = u64::try_from(builder.mark.as_millisecond()).unwrap_or(0);
        builder.batch.insert(key::TIME, mark.to_be_bytes());
        let changed = builder.head > self.head;
        if changed {
            let keys: Vec<_> = builder.outcomes.keys().cloned().collect();
            observer.before_apply(builder.head, &keys);
        }
        builder.batch.apply_counted(&self.tree, &mut self.checksum, &self.usage)?;
        self.usage.wrote(builder.usage);
        let applied = Instant::now();
        self.tree.flush().map_err(|error| unavailable(&error))?;
        self.log.sync_data().map_err(|error| unavailable(&sled::Error::Io(error)))?;
        self.high_water_mark
            .write(builder.head, builder.mark)
            .map_err(|error| unavailable(&sled::Error::Io(error)))?;
        self.metrics.syncs.note(applied.elapsed());
        if let Some(outcome) = builder.outcomes.get(&FactKey::Keyring) {
            self.keyring = match &outcome.fact {
                Some(Fact::Keyring(keyring)) => Some(Arc::clone(keyring)),
                _ => None,
            };
        }
        self.head = builder.head;
        (self.time, self.mark) = (builder.time, builder.mark);
        self.durable_mark.store(self.mark.as_millisecond(), Ordering::Release);
        self.gc.add(builder.tombstones);
        self.feeds.send(builder.batch);
        if changed {
            observer.durable(self.head, builder.outcomes.into_values().collect());
            observer.published(builder.changes);
        }
        Ok(())
    }

    /// Stores a time later than the mark when the disk has no space for a change: the log does not
    /// grow by it. `mark` is the durable value, so it stays if the write fails.
    fn note_time(&mut self, time: Option<Timestamp>) {
        let Some(time) = time.filter(|time| *time > self.mark) else { return };
        match self.high_water_mark.write(self.head, time).and_then(|()| self.high_water_mark.sync())
        {
            Ok(()) => {
                self.mark = time;
                self.durable_mark.store(time.as_millisecond(), Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "the time could not be stored"),
        }
    }

    /// Sets the time back, by an audited change. The change and the mark are one batch. A crash
    /// before the high-water mark has the new time is harmless: a high-water mark older than the
    /// change is ignored when the store is opened.
    pub(super) fn accept_clock(&mut self, mut change: Change) -> Result<(), StoreError> {
        // Until then no key may be valid, so this change is as urgent as the deletion of keys.
        if self.disk_space.measure().admits(0, || ChangeEffect::DeletesKeys).is_err() {
            return Err(StoreError::Full);
        }
        let mut builder = BatchBuilder { head: self.head.next(), ..BatchBuilder::default() };
        (builder.time, builder.mark) = (change.time, change.time);
        change.revision = builder.head;
        builder.value(key::change(builder.head), builder.head, &record::encode_change(&change));
        let time = change.time.as_millisecond().to_be_bytes();
        let accepted = [builder.head.0.to_be_bytes(), time].concat();
        builder.batch.insert(key::CLOCK_ACCEPTED, accepted);
        self.gc.clock_accepted = Some((builder.head, change.time));
        self.write(builder, &NoObserver)?;
        self.high_water_mark.sync().map_err(|error| unavailable(&sled::Error::Io(error)))
    }

    /// The last revision, and the time mark.
    pub(super) fn reached(&self) -> (Revision, Timestamp) {
        (self.head, self.mark)
    }

    /// Does a step of garbage collection, and returns whether there may be more to do at once.
    fn collect_garbage(&mut self) -> bool {
        self.batches_since_gc = 0;
        // Removing needs disk space, too.
        if self.disk_space.measure().free < GC_MINIMUM {
            return false;
        }
        // Data is kept for its full retention. The mark is ahead of the time, and may be an expiry
        // that was reported while the clock was doubted. A clock that went back counts, too.
        let now = self.believed.min(crate::metrics::machine_time());
        let counted = (&mut self.checksum, &self.usage);
        self.gc.step(&self.tree, counted, &mut self.feeds, (now, self.mark), self.head)
    }
}

/// Observes the writes before the store has readers.
struct NoObserver;

impl CommitObserver for NoObserver {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}
