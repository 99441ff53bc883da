//! Writer: the one thread that commits.
//!
//! It drains its queue and may briefly wait for more. It decides on each proposal (`decide`), and
//! applies all that hold as one atomic batch with one sync (`apply`). Only then it replies to the
//! callers.
//!
//! If the store follows the log of replicas, the batch is one entry of that log, and it is applied only
//! after the log has it. If another replica's entry came first, that entry is applied, and the batch is
//! decided again.
//!
//! Not here: the meaning of a proposal, and the entries that it makes.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use blake3::Hash;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::apply::AppliedState;
use super::backup::feed::FeedId;
use super::batch_builder::BatchBuilder;
use super::command_queue::{CommandReply, WriterCommand};
use super::decide::ReadView;
use super::disk_space::{ChangeEffect, DiskSpace, GC_MINIMUM, Space};
use super::engine::{EngineError, WriteBatch};
use super::fact_sums::RecentFactSums;
use super::gc::GarbageCollector;
use super::group_commit::GroupCommit;
use super::open::number;
use super::replicated::entry::Entry;
use super::replicated::{
    Cluster, EntryDraft, EntryOutcome, FORMAT, Followed, LogError, LogPosition, LogSpace,
    LogWriter, cluster,
};
use super::{
    CommitError, CommitObserver, FactKey, Minute, Outcome, Proposal, Receipt, StoreError, key,
    record,
};
use crate::policy::change::{Change, ChangeKind};
use crate::policy::revision::Revision;
use crate::policy::token::revoked;

/// The limit of commands in one batch.
pub(super) const BATCH: usize = 1000;
/// The limit of last-seen times that one batch writes. sled blocks reads while it applies a batch,
/// so the times of a whole minute on a large platform must not be one batch.
const SEEN: usize = 1000;
/// How long the callers of a batch wait for the log: longer than a replica that has died delays a change.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this many batches without an idle moment, a step of garbage collection is done all the
/// same.
const GC_INTERVAL_BATCHES: u32 = 64;

/// The state of the writer.
pub(super) struct Writer {
    state: AppliedState,
    disk_space: DiskSpace,
    /// The sums of the facts at the last revisions, which other replicas ask for.
    fact_sums: RecentFactSums,
    /// The latest believed time since the start. Retention follows it.
    believed: Timestamp,
    /// Last-seen times that are not written yet, earlier minutes first.
    seen: VecDeque<(Revision, Minute)>,
    gc: GarbageCollector,
    group_commit: GroupCommit,
    /// Where the entries of own changes are committed, if the store follows the log of replicas.
    log: Option<LogWriter>,
    /// Commands that came while the log was asked, and proposals for which an entry had no room.
    carried: VecDeque<WriterCommand>,
    /// The number of batches since the last step of garbage collection.
    batches_since_gc: u32,
}

impl Writer {
    pub(super) fn new(
        state: AppliedState,
        disk_space: DiskSpace,
        fact_sums: RecentFactSums,
    ) -> Result<Self, EngineError> {
        let gc = GarbageCollector::of(&*state.engine)?;
        let (seen, group_commit) = (VecDeque::new(), GroupCommit::default());
        let (believed, log, batches_since_gc) = (Timestamp::MIN, None, 0);
        let carried = VecDeque::new();
        let writer = Self {
            state,
            disk_space,
            fact_sums,
            believed,
            seen,
            gc,
            group_commit,
            log,
            carried,
            batches_since_gc,
        };
        writer.note_fact_sums();
        Ok(writer)
    }

    /// Commits each entry of own changes to this log, whose last entry has this time, before the changes
    /// are applied.
    pub(super) fn write_to_log(&mut self, log: LogWriter, last: Timestamp) {
        self.log = Some(log);
        self.state.entry_time = last;
    }

    /// Makes the store follow the log of this cluster after this position. None: it follows no log.
    pub(super) fn set_log(
        &mut self,
        log: Option<(Cluster, LogPosition)>,
    ) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        cluster::write(&mut batch, log);
        self.state.apply_unsynced(batch)?;
        self.state.engine.sync()?;
        self.state.position = log.map(|(_, position)| position);
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
                self.commit(batch, commands, &*observer)?;
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
        if !self.carried.is_empty() {
            let count = self.carried.len().min(BATCH);
            let mut batch: Vec<_> = self.carried.drain(..count).collect();
            batch.extend(commands.try_iter().take(BATCH - count));
            return Ok(Some(batch));
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
        queue: &Receiver<WriterCommand>,
        observer: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        let start = Instant::now();
        let space = self.disk_space.measure();
        if space.is_low() {
            // Once for the whole batch.
            self.state.note_time(commands.iter().filter_map(WriterCommand::time).max());
        }
        let mut batch = self.sort(commands, space);
        let mut proposals = std::mem::take(&mut batch.proposals);
        if self.log.is_some() && self.disk_space.is_exhausted() {
            // The session ends, so no call of this replica is answered.
            for (_, reply) in proposals.drain(..) {
                reply.send(Err(CommitError::Store(StoreError::CutOff))).ok();
            }
        }
        if space.is_low() {
            // The same holds for those from earlier batches.
            self.seen.clear();
        }
        let step = self.seen.len().min(SEEN);
        let seen: Vec<_> = self.seen.drain(..step).collect();
        loop {
            let mut builder = self.state.next_batch();
            (builder.time, builder.mark) =
                (builder.time.max(batch.time), builder.mark.max(batch.mark));
            builder.last_seen(&*self.state.engine, seen.iter().copied());
            let format = self.log.as_ref().map_or(FORMAT, |log| log.format());
            let mut draft = self.state.position.map(|at| EntryDraft::new(at, format));
            let mut decided = self.decide(&mut builder, &mut draft, &mut proposals, space);
            let mut listed = None;
            if let Some(entry) = draft.and_then(EntryDraft::finish) {
                let position = entry.after;
                builder.entry_time = entry.time;
                // A check that waits for its time to be durable does not wait for etcd.
                self.store_times(&mut batch);
                let asked_at = Instant::now();
                let committed = match self.log.take() {
                    Some(mut log) => {
                        let committed = log.commit(&entry, &mut || {
                            if asked_at.elapsed() >= PATIENCE {
                                self.give_up(&mut decided);
                            }
                            self.meanwhile(queue)
                        });
                        self.log = Some(log);
                        committed
                    }
                    // Without its entry, an own change must not be applied.
                    None => EntryOutcome::Rejected(StoreError::Unavailable),
                };
                match committed {
                    EntryOutcome::Committed(sessions) => listed = Some(sessions),
                    EntryOutcome::Behind(entries) => {
                        match self.follow_if_room(entries, observer)? {
                            Ok(_) => {
                                proposals =
                                    decided.into_iter().filter_map(Decided::again).collect();
                                continue;
                            }
                            Err(error) => {
                                if !matches!(error, LogError::Store(StoreError::Full))
                                    && let Some(log) = &self.log
                                {
                                    log.failed(error);
                                }
                                Self::reject(decided, &StoreError::CutOff);
                            }
                        }
                        return self.without_changes(batch, seen, observer);
                    }
                    EntryOutcome::Rejected(error) => {
                        Self::reject(decided, &error);
                        return self.without_changes(batch, seen, observer);
                    }
                }
                builder.position = Some(position);
                // Both may have been raised meanwhile.
                builder.mark = builder.mark.max(self.state.mark);
                builder.time = builder.time.max(self.state.time);
            } else if let Some(log) = &mut self.log {
                log.nothing_left();
            }
            let (head, state) = (builder.head, &mut self.state);
            if head > state.head || builder.mark > state.mark || builder.other {
                match state.apply(builder, observer) {
                    Ok(tombstones) => self.gc.add(tombstones),
                    Err(error) => {
                        let of_log = StoreError::NotYetEverywhere(Some(head));
                        Self::reject(decided, listed.map_or(&StoreError::Unavailable, |_| &of_log));
                        return Err(error.into());
                    }
                }
            } else {
                // A time that is not later than the mark is durable already.
                state.time = builder.time;
            }
            if !decided.is_empty() {
                let took = start.elapsed();
                self.state.metrics.batches.note(took);
                self.group_commit.committed(decided.len(), took);
            }
            self.tell_followed();
            self.acknowledge(decided, head, listed.unwrap_or_default());
            return self.finish(batch, observer);
        }
    }

    /// Sorts commands by what is done with them, and counts them as taken from the queue.
    fn sort(&mut self, commands: Vec<WriterCommand>, space: Space) -> Batch {
        let mut batch = Batch::default();
        for command in commands {
            self.state.metrics.waiting.down();
            match command {
                WriterCommand::MarkTime { time, believed } => {
                    self.believed = self.believed.max(believed);
                    if !space.is_low() {
                        batch.mark = batch.mark.max(time);
                    }
                }
                // The time cannot be stored, so the command gets no reply.
                WriterCommand::PersistTime(time, _) if space.is_low() && time > self.state.mark => {
                }
                WriterCommand::PersistTime(time, reply) => {
                    (batch.time, batch.mark) = (batch.time.max(time), batch.mark.max(time));
                    batch.marked.push(reply);
                }
                // Last-seen times are not worth the remaining space.
                WriterCommand::Seen(_) if space.is_low() => {}
                WriterCommand::Seen(seen) => self.seen.extend(seen),
                WriterCommand::Backup(feed) => self.state.feeds.add(feed),
                WriterCommand::EndBackup(feed) => batch.ended_feeds.push(feed),
                WriterCommand::Entries(entries, reply) => batch.followed.push((entries, reply)),
                WriterCommand::Commit(proposal, reply) => batch.proposals.push((proposal, reply)),
            }
        }
        batch
    }

    /// Decides on proposals, and adds those that hold to the batch and to its entry.
    fn decide(
        &mut self,
        builder: &mut BatchBuilder,
        draft: &mut Option<EntryDraft>,
        proposals: &mut Vec<(Box<Proposal>, CommandReply)>,
        space: Space,
    ) -> Vec<Decided> {
        let view = ReadView {
            engine: &*self.state.engine,
            usage: &self.state.usage,
            keyring: self.state.keyring.as_deref(),
            space,
            log_space: self.log.as_ref().map_or(LogSpace::Ample, |log| log.space()),
        };
        let mut all = Vec::with_capacity(proposals.len());
        let mut proposals = proposals.drain(..);
        while let Some((proposal, reply)) = proposals.next() {
            // A batch that another replica's entry precedes is decided again.
            let kept = draft.is_some().then(|| proposal.clone());
            let decided = match (view.decide(builder, *proposal), draft.as_mut()) {
                (Ok(decided), Some(draft)) => match draft.push(&decided) {
                    Ok(true) => Ok(decided),
                    Ok(false) => {
                        // The next entry has room for it and for those behind it.
                        let rest = kept.map(|kept| (kept, reply)).into_iter().chain(proposals);
                        for (proposal, reply) in rest {
                            self.state.metrics.waiting.up();
                            self.carried.push_back(WriterCommand::Commit(proposal, reply));
                        }
                        break;
                    }
                    Err(error) => Err(error.into()),
                },
                (decided, _) => decided,
            };
            let receipt = decided.map(|decided| {
                let receipt = decided.receipt();
                if decided.change.kind == ChangeKind::AcceptClock {
                    builder.batch.remove(key::UNTOLD_CLOCK);
                }
                builder.time = receipt.time;
                builder.mark = builder.mark.max(receipt.time);
                builder.add(decided);
                receipt
            });
            all.push(Decided { reply: Some(reply), kept, receipt });
        }
        all
    }

    /// Stores the times of a batch before its changes are committed, and replies to those who wait for them.
    fn store_times(&mut self, batch: &mut Batch) {
        self.state.note_time(Some(batch.mark));
        self.state.time = self.state.time.max(batch.time);
        if batch.mark <= self.state.mark {
            // The caller may have gone; then the reply is dropped.
            batch.marked.drain(..).for_each(|reply| reply.send(()).unwrap_or(()));
        }
    }

    /// Replies to the callers of a batch of which the log has not told the outcome in time. Changes that
    /// wait behind it were not sent to the log, and are rejected.
    fn give_up(&mut self, decided: &mut [Decided]) {
        for reply in decided.iter_mut().filter_map(|decided| decided.reply.take()) {
            reply.send(Err(CommitError::Store(StoreError::NotYetEverywhere(None)))).ok();
        }
        for command in std::mem::take(&mut self.carried) {
            match command {
                WriterCommand::Commit(_, reply) => {
                    self.state.metrics.waiting.down();
                    reply.send(Err(CommitError::Store(StoreError::CutOff))).ok();
                }
                other => self.carried.push_back(other),
            }
        }
    }

    /// Does what cannot wait while the log is asked: stores times. Other commands wait. False: the queue
    /// is closed.
    fn meanwhile(&mut self, queue: &Receiver<WriterCommand>) -> bool {
        loop {
            let command = match queue.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            match command {
                WriterCommand::MarkTime { time, believed } => {
                    self.state.metrics.waiting.down();
                    self.believed = self.believed.max(believed);
                    self.state.note_time(Some(time));
                }
                WriterCommand::PersistTime(time, reply) => {
                    self.state.metrics.waiting.down();
                    self.state.note_time(Some(time));
                    self.state.time = self.state.time.max(time);
                    if time <= self.state.mark {
                        reply.send(()).ok();
                    }
                }
                other => self.carried.push_back(other),
            }
        }
    }

    /// Replies that nothing was committed, or that it is not known.
    fn reject(decided: Vec<Decided>, error: &StoreError) {
        for reply in decided.into_iter().filter_map(|decided| decided.reply) {
            reply.send(Err(CommitError::Store(error.clone()))).ok();
        }
    }

    /// Replies to the callers of a batch: at once, or when every replica that may answer has published
    /// the batch.
    fn acknowledge(&mut self, decided: Vec<Decided>, head: Revision, listed: Vec<Uuid>) {
        let mut committed = Vec::new();
        for Decided { reply, receipt, .. } in decided {
            let Some(reply) = reply else { continue };
            match receipt {
                Ok(receipt) => {
                    self.state.metrics.committed.inc();
                    committed.push((reply, receipt));
                }
                // A conflict is reported only now, when every reader can see the change that won.
                Err(error) => {
                    self.state.metrics.refused.inc();
                    if let CommitError::Store(StoreError::AtBound(reached)) = &error {
                        self.state.metrics.refused_at(reached.bound);
                    }
                    reply.send(Err(error)).ok();
                }
            }
        }
        match &self.log {
            Some(log) => log.acknowledge(head, listed, committed),
            None => {
                for (reply, receipt) in committed {
                    reply.send(Ok(receipt)).ok();
                }
            }
        }
    }

    /// Ends a batch whose changes were not committed: stores its times, and keeps its last-seen times for
    /// the next one.
    fn without_changes(
        &mut self,
        mut batch: Batch,
        seen: Vec<(Revision, Minute)>,
        observer: &dyn CommitObserver,
    ) -> Result<(), StoreError> {
        seen.into_iter().rev().for_each(|seen| self.seen.push_front(seen));
        self.store_times(&mut batch);
        self.finish(batch, observer)
    }

    /// Replies to the other commands of a batch, and applies the entries that came with it.
    fn finish(&mut self, batch: Batch, observer: &dyn CommitObserver) -> Result<(), StoreError> {
        let end = self.state.feed_end();
        // The caller may have gone; then the reply is dropped. A time that could not be stored gets none.
        for reply in batch.marked.into_iter().filter(|_| batch.mark <= self.state.mark) {
            reply.send(()).ok();
        }
        batch.ended_feeds.iter().for_each(|feed| self.state.feeds.end(feed, end));
        for (entries, reply) in batch.followed {
            reply.send(self.follow_if_room(entries, observer)?).ok();
        }
        Ok(())
    }

    /// Applies entries of the log, if the disk has room for them. If not, it fails with
    /// [`StoreError::Full`], and the session of the replica ends. No change waits for a replica without a
    /// session. It applies the entries when there is space again.
    fn follow_if_room(
        &mut self,
        entries: Vec<(Entry, Hash)>,
        observer: &dyn CommitObserver,
    ) -> Result<Result<LogPosition, LogError>, StoreError> {
        // The log may have been asked for long since the last measurement.
        self.disk_space.measure();
        let bytes = || entries.iter().map(|(entry, _)| entry.encode().len() as u64).sum();
        match self.disk_space.admits_entries(bytes) {
            true => self.follow(entries, observer),
            false => Ok(Err(StoreError::Full.into())),
        }
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
        let (mut diverged, mut entry_time) = (Vec::new(), builder.entry_time);
        for (entry, hash) in entries {
            entry_time = entry.time;
            let added = position.after(&entry, hash).and_then(|next| {
                let seq = entry.seq;
                if !entry.add_to(&mut builder, engine)? {
                    diverged.push(seq);
                }
                Ok(next)
            });
            match added {
                Ok(next) => position = next,
                Err(error) => return Ok(Err(error)),
            }
        }
        if builder.head > self.state.head {
            (builder.position, builder.entry_time) = (Some(position), entry_time);
            let tombstones = self.state.apply(builder, observer)?;
            self.gc.add(tombstones);
            diverged.into_iter().for_each(|seq| self.diverged(seq));
            self.tell_followed();
        }
        Ok(Ok(position))
    }

    /// Notes that an entry, which was applied, replaced other facts here than at the replica that wrote it.
    fn diverged(&self, seq: u64) {
        self.state.metrics.diverged.inc();
        tracing::error!(
            entry = seq,
            "this replica had other facts than the replica that changed them; the change has made them \
             equal, but others may differ: run `scopegate replicas verify`"
        );
        if let Some(log) = &self.log {
            log.diverged(self.state.metrics.diverged.read());
        }
    }

    /// Notes the sums of the facts at the last revision, if the store follows a log and garbage collection
    /// has nothing to remove.
    fn note_fact_sums(&self) {
        if self.state.position.is_some() && self.gc.has_no_tombstone() {
            self.fact_sums.note(self.state.head, self.state.facts);
        }
    }

    /// Tells how far the store has come in the log.
    fn tell_followed(&self) {
        self.note_fact_sums();
        if let (Some(log), Some(position)) = (&self.log, self.state.position) {
            log.followed(Followed { position, revision: self.state.head });
        }
    }

    /// Sets the time back, by an audited change. The change and the mark are one batch. A crash
    /// before the high-water mark has the new time is harmless: a high-water mark older than the
    /// change is ignored when the store is opened.
    ///
    /// A store that follows a log gets each change by an entry. The change is kept in the batch, and is
    /// committed to the log when the replica has joined. The revision behind the present head stands for it.
    pub(super) fn accept_clock(&mut self, mut change: Change) -> Result<(), StoreError> {
        // Until then no key may be valid, so this change is as urgent as the deletion of keys.
        if self.disk_space.measure().admits(0, || ChangeEffect::DeletesKeys).is_err() {
            return Err(StoreError::Full);
        }
        let mut builder = self.state.next_batch();
        let revision = self.state.head.next();
        (builder.time, builder.mark) = (change.time, change.time);
        change.revision = revision;
        let record = record::encode_change(&change);
        self.gc.clock_accepted = Some((revision, change.time));
        let time = change.time.as_millisecond().to_be_bytes();
        let accepted = [revision.0.to_be_bytes(), time].concat();
        builder.batch.insert(key::CLOCK_ACCEPTED, accepted);
        // A restore by the wrong clock would refuse tokens until its time comes.
        if let Some(restored) = number(&*self.state.engine, key::RESTORED)? {
            let latest = u64::try_from(revoked::latest(change.time).as_millisecond()).unwrap_or(0);
            builder.batch.insert(key::RESTORED, restored.min(latest).to_be_bytes());
        }
        if builder.position.is_some() {
            builder.batch.insert(key::UNTOLD_CLOCK, record);
        } else {
            builder.head = revision;
            builder.change(change, record);
        }
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
        state.apply_unsynced(batch)?;
        self.note_fact_sums();
        Ok(true)
    }
}

/// The commands of a batch, by what is done with them.
#[derive(Default)]
struct Batch {
    proposals: Vec<(Box<Proposal>, CommandReply)>,
    /// The earliest time of its changes.
    time: Timestamp,
    /// The time mark that must be durable before `marked` get their replies.
    mark: Timestamp,
    marked: Vec<oneshot::Sender<()>>,
    ended_feeds: Vec<FeedId>,
    followed: Vec<Followers>,
}

/// Entries of the log, with the reply to the one that sent them.
type Followers = (Vec<(Entry, Hash)>, oneshot::Sender<Result<LogPosition, LogError>>);

/// A proposal on which the writer has decided.
struct Decided {
    /// The reply, until the caller has one.
    reply: Option<CommandReply>,
    /// The proposal, if it may have to be decided again.
    kept: Option<Box<Proposal>>,
    receipt: Result<Receipt, CommitError>,
}

impl Decided {
    /// The proposal, to be decided again.
    fn again(self) -> Option<(Box<Proposal>, CommandReply)> {
        Some((self.kept?, self.reply?))
    }
}

/// Observes the writes before the store has readers.
struct NoObserver;

impl CommitObserver for NoObserver {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}
