//! Apply: applies a batch that was decided, and what follows from it.
//!
//! It makes the batch durable and then known: to the high-water mark, to the backup feeds, and to
//! the observer, which replaces the cached facts and publishes the revision. It takes a batch as it
//! is, and asks nothing about who decided it.
//!
//! INVARIANT (kept is on the disk): the time mark is raised, and a reply that depends on it is
//! sent, only after the write that made it durable has succeeded.
//!
//! Not here: preconditions and quotas; see `decide`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

use super::backup::feed::{BackupFeeds, FeedEnd};
use super::batch_builder::BatchBuilder;
use super::chain::Chain;
use super::checksum::{self, StoreChecksum};
use super::engine::{Engine, EngineError, WriteBatch};
use super::fact_sums::FactSums;
use super::high_water_mark::HighWaterMark;
use super::key::Tombstone;
use super::replicated::LogPosition;
use super::usage::SharedUsage;
use super::{CommitObserver, Fact, FactKey, StoreMetrics, key};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;

/// The state that the applied batches make up.
pub(super) struct AppliedState {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) checksum: StoreChecksum,
    pub(super) facts: FactSums,
    pub(super) usage: SharedUsage,
    pub(super) high_water_mark: HighWaterMark,
    pub(super) metrics: Arc<StoreMetrics>,
    pub(super) head: Revision,
    /// The chain up to the head.
    pub(super) chain: Chain,
    /// The last entry of the replicas' log, if the store follows one.
    pub(super) position: Option<LogPosition>,
    /// The time of the last change: none is earlier (D19).
    pub(super) time: Timestamp,
    /// The time of the last entry of the log, which another clock may have shown. It moves neither the
    /// time nor the time mark.
    pub(super) entry_time: Timestamp,
    /// The time mark, which is ahead of the clock.
    pub(super) mark: Timestamp,
    /// `mark` in milliseconds, for readers on other threads.
    pub(super) durable_mark: Arc<AtomicI64>,
    /// The keyring as it was last committed.
    pub(super) keyring: Option<Arc<Keyring>>,
    /// The backup feeds.
    pub(super) feeds: BackupFeeds,
}

impl AppliedState {
    /// An empty batch after this state.
    pub(super) fn next_batch(&self) -> BatchBuilder {
        BatchBuilder {
            head: self.head,
            chain: self.chain,
            position: self.position,
            time: self.time,
            mark: self.mark,
            entry_time: self.entry_time,
            ..BatchBuilder::default()
        }
    }

    /// Applies a batch, makes it durable, and tells the observer. Returns the tombstones of the
    /// resources that it deleted.
    pub(super) fn apply(
        &mut self,
        mut builder: BatchBuilder,
        observer: &dyn CommitObserver,
    ) -> Result<Vec<Tombstone>, EngineError> {
        builder.batch.insert(key::HEAD, builder.head.0.to_be_bytes());
        builder.batch.insert(key::CHAIN, builder.chain.bytes());
        if let Some(position) = builder.position {
            builder.batch.insert(key::LOG_POSITION, position.bytes());
        }
        let mark = u64::try_from(builder.mark.as_millisecond()).unwrap_or(0);
        builder.batch.insert(key::TIME, mark.to_be_bytes());
        let changed = builder.head > self.head;
        if changed {
            let keys: Vec<_> = builder.outcomes.keys().cloned().collect();
            observer.before_apply(builder.head, &keys);
        }
        let moves = checksum::apply(&*self.engine, &mut self.checksum, &mut builder.batch)?;
        self.facts = self.facts.plus(moves.facts);
        self.usage.apply(moves);
        self.usage.wrote(builder.usage);
        let applied = Instant::now();
        self.engine.sync()?;
        self.high_water_mark.write(builder.head, builder.mark)?;
        self.metrics.syncs.note(applied.elapsed());
        if let Some(outcome) = builder.outcomes.get(&FactKey::Keyring) {
            self.keyring = match &outcome.fact {
                Some(Fact::Keyring(keyring)) => Some(Arc::clone(keyring)),
                _ => None,
            };
        }
        (self.head, self.chain) = (builder.head, builder.chain);
        (self.time, self.mark) = (builder.time, builder.mark);
        self.entry_time = builder.entry_time;
        self.position = builder.position;
        self.durable_mark.store(self.mark.as_millisecond(), Ordering::Release);
        self.feeds.send(builder.batch);
        if changed {
            observer.durable(self.head, builder.outcomes.into_values().collect());
            observer.published(builder.changes);
        }
        Ok(builder.tombstones)
    }

    /// Applies a batch that changes no fact, without making it durable.
    pub(super) fn apply_unsynced(&mut self, mut batch: WriteBatch) -> Result<(), EngineError> {
        let moves = checksum::apply(&*self.engine, &mut self.checksum, &mut batch)?;
        self.facts = self.facts.plus(moves.facts);
        self.usage.apply(moves);
        self.feeds.send(batch);
        Ok(())
    }

    /// Stores a time later than the mark when the disk has no space for a change: the engine's file
    /// does not grow by it. `mark` is the durable value, so it stays if the write fails.
    pub(super) fn note_time(&mut self, time: Option<Timestamp>) {
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

    /// The state at the end of a backup.
    pub(super) fn feed_end(&self) -> FeedEnd {
        FeedEnd { head: self.head, checksum: self.checksum, mark: self.mark }
    }
}
