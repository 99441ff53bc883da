//! Writer: the one thread that commits.
//!
//! It drains its queue and may briefly wait for more. It decides on each proposal (`decide`), and
//! applies all that hold as one atomic batch with one sync (`apply`). Only then it replies to the
//! callers.
//!
//! Not here: the meaning of a proposal, and the entries that it makes.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Instant;

use blake3::Hash;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::apply::AppliedState;
use super::command_queue::WriterCommand;
use super::decide::ReadView;
use super::disk_space::{ChangeEffect, DiskSpace, GC_MINIMUM};
use super::engine::{EngineError, WriteBatch};
use super::gc::GarbageCollector;
use super::group_commit::GroupCommit;
use super::open::number;
use super::replicated::entry::Entry;
use super::replicated::{EntryDraft, LogError, LogPosition};
use super::{CommitError, CommitObserver, FactKey, Minute, Outcome, StoreError, key, record};
use crate::policy::change::Change;
use crate::policy::revision::Revision;
use crate::policy::token::revoked;

/// The limit of commands in one batch.
pub(super) const BATCH: usize = 1000;
/// The limit of last-seen times that one batch writes. sled blocks reads while it applies a batch,
/// so the times of a whole minute on a large platform must not be one batch.
const SEEN: usize = 1000;
/// After this many batches without an idle moment, a step of garbage collection is done all the
/// same.
const GC_INTERVAL_BATCHES: u32 = 64;

/// The state of the writer.
pub(super) struct Writer {
    state: AppliedState,
    disk_space: DiskSpace,
    /// The latest believed time since the start. Retention follows it.
    believed: Timestamp,
    /// Last-seen times that are not written yet, earlier minutes first.
    seen: VecDeque<(Revision, Minute)>,
    gc: GarbageCollector,
    group_commit: GroupCommit,
    /// Where the entries of own changes go, if the store follows the log of replicas.
    entries: Option<mpsc::Sender<Vec<u8>>>,
    /// The number of batches since the last step of garbage collection.
    batches_since_gc: u32,
}

impl Writer {
    pub(super) fn new(state: AppliedState, disk_space: DiskSpace) -> Result<Self, EngineError> {
        let gc = GarbageCollector::of(&*state.engine)?;
        let (seen, group_commit) = (VecDeque::new(), GroupCommit::default());
        let (believed, entries, batches_since_gc) = (Timestamp::MIN, None, 0);
        Ok(Self { state, disk_space, believed, seen, gc, group_commit, entries, batches_since_gc })
    }

    /// Sends each entry of own changes before the changes are applied.
    pub(super) fn send_entries(&mut self, entries: mpsc::Sender<Vec<u8>>) {
        self.entries = Some(entries);
    }

    /// Makes the store follow the log of this cluster after this position.
    pub(super) fn set_log_position(
        &mut self,
        cluster: Uuid,
        position: LogPosition,
    ) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        batch.insert(key::CLUSTER, *cluster.as_bytes());
        batch.insert(key::LOG_POSITION, position.bytes());
        self.state.apply_unsynced(batch)?;
        self.state.engine.sync()?;
        self.state.position = Some(position);
        Ok(())
    }

    /// Lets every change use the space that is reserved for changes that remove access.
    pub(super) fn use_the_reserve(&mut self) {
        self.disk_space.use_the_reserve();
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
            while let Some(batch) = self.next(commands)? {
                self.commit(batch, &*observer)?;
            }
            // Syncs what garbage collection removed since the last commit, so that a restart does
            // not bring it back.
            self.state.engine.sync().ok();
            Ok::<_, StoreError>(())
        }));
        if !matches!(done, Ok(Ok(()))) {
            // After a failed sync the kernel may have dropped the pages, and another sync proves
            // nothing. No more changes are acknowledged, and the process must end.
            observer.failed();
        }
    }

    /// Waits for commands. While there are none, it writes last-seen times and collects garbage.
    /// `None` if the queue is closed.
    fn next(
        &mut self,
        commands: &Receiver<WriterCommand>,
    ) -> Result<Option<Vec<WriterCommand>>, EngineError> {
        self.batches_since_gc += 1;
        if self.batches_since_gc > GC_INTERVAL_BATCHES {
            self.collect_garbage()?;
        }
        let first = loop {
            match commands.try_recv() {
                Ok(command) => break command,
                // Last-seen times are written in a batch without commands.
                Err(_) if !self.seen.is_empty() => return Ok(Some(Vec::new())),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {
                    if !self.collect_garbage()? {
                        match commands.recv() {
                            Ok(command) => break command,
                            Err(_) => return Ok(None),
                        }
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
        Ok(Some(batch))
    }

    fn commit(
        &mut self,
        commands: Vec<WriterCommand>,
        observer: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        let mut replies = Vec::with_capacity(commands.len());
        let (mut ended_feeds, mut marked, mut followed) = (Vec::new(), Vec::new(), Vec::new());
        let start = Instant::now();
        let space = self.disk_space.measure();
        if space.is_low() {
            // Once for the whole batch.
            self.state.note_time(commands.iter().filter_map(WriterCommand::time).max());
        }
        let mut builder = self.state.next_batch();
        let mut draft = self.state.position.map(EntryDraft::new);
        let view = ReadView {
            engine: &*self.state.engine,
            usage: &self.state.usage,
            keyring: self.state.keyring.as_deref(),
            space,
        };
        for command in commands {
            self.state.metrics.waiting.down();
            match command {
                WriterCommand::MarkTime { time, believed } => {
                    self.believed = self.believed.max(believed);
                    if !space.is_low() {
                        builder.mark = builder.mark.max(time);
                    }
                }
                // The time cannot be stored, so the command gets no reply.
                WriterCommand::PersistTime(time, _) if space.is_low() && time > self.state.mark => {
                }
                WriterCommand::PersistTime(time, reply) => {
                    (builder.time, builder.mark) = (builder.time.max(time), builder.mark.max(time));
                    marked.push(reply);
                }
                // Last-seen times are not worth the remaining space.
                WriterCommand::Seen(_) if space.is_low() => {}
                WriterCommand::Seen(seen) => self.seen.extend(seen),
                WriterCommand::Backup(feed) => self.state.feeds.add(feed),
                WriterCommand::EndBackup(feed) => ended_feeds.push(feed),
                WriterCommand::Entries(entries, reply) => followed.push((entries, reply)),
                WriterCommand::Commit(proposal, reply) => {
                    let receipt = view.decide(&builder, *proposal).and_then(|decided| {
                        if let Some(draft) = &mut draft {
                            // Without its entry, an own change must not be applied.
                            self.entries.as_ref().ok_or(StoreError::Unavailable)?;
                            draft.push(&decided)?;
                        }
                        let receipt = decided.receipt();
                        builder.time = receipt.time;
                        builder.mark = builder.mark.max(receipt.time);
                        builder.add(decided);
                        Ok(receipt)
                    });
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
        let state = &mut self.state;
        if builder.head > state.head || builder.mark > state.mark || builder.other {
            let (entries, position) = draft.map(EntryDraft::finish).unzip();
            builder.position = position;
            let mut entries = entries.into_iter().flatten();
            let sent = entries.try_for_each(|entry| self.entries.as_ref()?.send(entry).ok());
            let applied = sent.ok_or(StoreError::Unavailable);
            match applied.and_then(|()| Ok(state.apply(builder, observer)?)) {
                Ok(tombstones) => self.gc.add(tombstones),
                Err(error) => {
                    for (reply, _) in replies {
                        reply.send(Err(CommitError::Store(StoreError::Unavailable))).ok();
                    }
                    return Err(error);
                }
            }
        } else {
            // A time that is not later than the mark is durable already.
            state.time = builder.time;
        }
        if !replies.is_empty() {
            let took = start.elapsed();
            self.state.metrics.batches.note(took);
            self.group_commit.committed(replies.len(), took);
        }
        let end = self.state.feed_end();
        // The caller may have gone; then the reply is dropped.
        marked.into_iter().for_each(|reply| reply.send(()).unwrap_or(()));
        ended_feeds.iter().for_each(|feed| self.state.feeds.end(feed, end));
        // A conflict is reported only now, when every reader can see the change that won.
        for (reply, receipt) in replies {
            match &receipt {
                Ok(_) => self.state.metrics.committed.inc(),
                Err(error) => {
                    self.state.metrics.refused.inc();
                    if let CommitError::Store(StoreError::AtBound(reached)) = error {
                        self.state.metrics.refused_at(reached.bound);
                    }
                }
            }
            reply.send(receipt).ok();
        }
        for (entries, reply) in followed {
            reply.send(self.follow(entries, observer)?).ok();
        }
        Ok(())
    }

    /// Applies entries of the log as one batch, if they follow the last one. They raise neither the
    /// time nor the time mark of this store: the clock of another replica may be wrong.
    fn follow(
        &mut self,
        entries: Vec<(Entry, Hash)>,
        observer: &dyn CommitObserver,
    ) -> Result<Result<LogPosition, LogError>, StoreError> {
        let mut builder = self.state.next_batch();
        let engine = &*self.state.engine;
        let Some(mut position) = builder.position else { return Ok(Err(LogError::NotFollowing)) };
        for (entry, hash) in entries {
            let added = position.after(&entry, hash).and_then(|next| {
                entry.add_to(&mut builder, engine)?;
                Ok(next)
            });
            match added {
                Ok(next) => position = next,
                Err(error) => return Ok(Err(error)),
            }
        }
        if builder.head > self.state.head {
            builder.position = Some(position);
            let tombstones = self.state.apply(builder, observer)?;
            self.gc.add(tombstones);
        }
        Ok(Ok(position))
    }

    /// Sets the time back, by an audited change. The change and the mark are one batch. A crash
    /// before the high-water mark has the new time is harmless: a high-water mark older than the
    /// change is ignored when the store is opened.
    pub(super) fn accept_clock(&mut self, mut change: Change) -> Result<(), StoreError> {
        // Until then no key may be valid, so this change is as urgent as the deletion of keys.
        if self.disk_space.measure().admits(0, || ChangeEffect::DeletesKeys).is_err() {
            return Err(StoreError::Full);
        }
        let mut builder = self.state.next_batch();
        builder.head = self.state.head.next();
        (builder.time, builder.mark) = (change.time, change.time);
        change.revision = builder.head;
        let record = record::encode_change(&change);
        self.gc.clock_accepted = Some((builder.head, change.time));
        let time = change.time.as_millisecond().to_be_bytes();
        let accepted = [builder.head.0.to_be_bytes(), time].concat();
        builder.batch.insert(key::CLOCK_ACCEPTED, accepted);
        // A restore by the wrong clock would refuse tokens until its time comes.
        if let Some(restored) = number(&*self.state.engine, key::RESTORED)? {
            let latest = u64::try_from(revoked::latest(change.time).as_millisecond()).unwrap_or(0);
            builder.batch.insert(key::RESTORED, restored.min(latest).to_be_bytes());
        }
        builder.change(change, record);
        self.state.apply(builder, &NoObserver)?;
        Ok(self.state.high_water_mark.sync().map_err(EngineError::Io)?)
    }

    /// The last revision, and the time mark.
    pub(super) fn reached(&self) -> (Revision, Timestamp) {
        (self.state.head, self.state.mark)
    }

    /// Does a step of garbage collection, and returns whether there may be more to do at once.
    fn collect_garbage(&mut self) -> Result<bool, EngineError> {
        self.batches_since_gc = 0;
        // Removing needs disk space, too.
        if self.disk_space.measure().free < GC_MINIMUM {
            return Ok(false);
        }
        // Data is kept for its full retention. The mark is ahead of the time, and may be an expiry
        // that was reported while the clock was doubted. A clock that went back counts, too.
        let now = self.believed.min(crate::metrics::machine_time());
        let state = &mut self.state;
        let Some(batch) = self.gc.step(&*state.engine, (now, state.mark), state.head)? else {
            return Ok(false);
        };
        state.apply_unsynced(batch).map(|()| true)
    }
}

/// Observes the writes before the store has readers.
struct NoObserver;

impl CommitObserver for NoObserver {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}
