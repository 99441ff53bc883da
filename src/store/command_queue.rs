//! CommandQueue: the bounded queue of commands for the writer.
//!
//! Not here: how the writer carries out a command.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use blake3::Hash;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::backup::feed::{BackupFeed, FeedId};
use super::replicated::entry::Entry;
use super::replicated::{AppliedEntries, LogError, LogPosition};
use super::{CommitError, Minute, Proposal, Receipt, StoreError, StoreMetrics};
use crate::policy::revision::Revision;

/// The limit of changes that wait for the writer.
pub(super) const QUEUE: usize = 4096;
/// Additional places for changes that only remove access. They do not wait until the queue has a
/// free place for others.
pub(super) const URGENT: usize = 256;
/// How many of the additional places are only for changes that delete keys.
pub(super) const KEYS: usize = 64;

/// A command for the writer.
pub(super) enum WriterCommand {
    /// Commit a proposal.
    Commit(Box<Proposal>, CommandReply),
    /// Raise the time mark to `time`; and take `believed` as the believed time.
    MarkTime { time: Timestamp, believed: Timestamp },
    /// Raise the time mark, and reply when it is durable.
    PersistTime(Timestamp, oneshot::Sender<()>),
    /// Write last-seen minutes of credentials.
    Seen(Vec<(Revision, Minute)>),
    /// Apply entries of the replicas' log, each with its hash.
    Entries(Vec<(Entry, Hash)>, oneshot::Sender<Result<LogPosition, LogError>>),
    /// Register a backup feed.
    Backup(BackupFeed),
    /// End a backup feed.
    EndBackup(FeedId),
}

impl WriterCommand {
    /// The time to which the command raises the mark.
    pub(super) fn time(&self) -> Option<Timestamp> {
        match self {
            Self::MarkTime { time, .. } | Self::PersistTime(time, _) => Some(*time),
            _ => None,
        }
    }
}

pub(super) type CommandReply = oneshot::Sender<Result<Receipt, CommitError>>;

/// Sends commands to the writer, until the store is closed.
#[derive(Clone)]
pub(super) struct CommandQueue {
    sender: Arc<Mutex<Option<mpsc::SyncSender<WriterCommand>>>>,
    metrics: Arc<StoreMetrics>,
}

impl CommandQueue {
    pub(super) fn new(sender: mpsc::SyncSender<WriterCommand>, metrics: Arc<StoreMetrics>) -> Self {
        Self { sender: Arc::new(Mutex::new(Some(sender))), metrics }
    }

    fn sender(&self) -> Result<mpsc::SyncSender<WriterCommand>, StoreError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.ok_or(StoreError::Unavailable)
    }

    /// Queues a command, if the queue has a free place.
    pub(super) fn queue(&self, command: WriterCommand) -> Result<(), StoreError> {
        let sender = self.sender()?;
        // Counted before sending, so that the writer cannot count it down first.
        self.metrics.waiting.up();
        sender.try_send(command).map_err(|error| {
            self.metrics.waiting.down();
            match error {
                mpsc::TrySendError::Full(_) => StoreError::Busy,
                mpsc::TrySendError::Disconnected(_) => StoreError::Unavailable,
            }
        })
    }

    /// Queues entries of the replicas' log, each with its hash, which are applied as one batch.
    pub(super) fn apply(&self, entries: Vec<(Entry, Hash)>) -> Result<AppliedEntries, StoreError> {
        let (reply, applied) = oneshot::channel();
        self.queue(WriterCommand::Entries(entries, reply))?;
        Ok(applied)
    }

    /// Queues a command that must not use the places of changes that only remove access.
    pub(super) fn queue_behind(&self, command: WriterCommand) -> Result<(), StoreError> {
        if self.metrics.waiting.read() >= QUEUE as u64 {
            return Err(StoreError::Busy);
        }
        self.queue(command)
    }

    /// Queues a command, and waits for a free place.
    pub(super) fn wait_for(&self, command: WriterCommand) -> Result<(), StoreError> {
        let sender = self.sender()?;
        self.metrics.waiting.up();
        sender.send(command).map_err(|_| {
            self.metrics.waiting.down();
            StoreError::Unavailable
        })
    }

    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
