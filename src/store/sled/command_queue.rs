//! CommandQueue: the bounded queue of commands for the writer.
//!
//! Not here: how the writer carries out a command.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::backup_feed::{BackupFeed, FeedId};
use crate::policy::revision::Revision;
use crate::store::{CommitError, Minute, Proposal, Receipt, StoreError, StoreMetrics};

/// How many changes may wait for the writer.
pub(super) const QUEUE: usize = 4096;
/// How many more of those that take away: they do not have to wait until others make room.
pub(super) const URGENT: usize = 256;
/// How many of these are only for changes that delete keys.
pub(super) const KEYS: usize = 64;

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
    EndBackup(FeedId),
}

impl WriterCommand {
    /// The time that it wants kept.
    pub(super) fn time(&self) -> Option<Timestamp> {
        match self {
            Self::MarkTime { time, .. } | Self::KeepTime(time, _) => Some(*time),
            _ => None,
        }
    }
}

pub(super) type Answer = oneshot::Sender<Result<Receipt, CommitError>>;

/// The way to the writer, until the engine is closed.
#[derive(Clone)]
pub(super) struct CommandQueue {
    sender: Arc<Mutex<Option<mpsc::SyncSender<WriterCommand>>>>,
    measures: Arc<StoreMetrics>,
}

impl CommandQueue {
    pub(super) fn new(
        sender: mpsc::SyncSender<WriterCommand>,
        measures: Arc<StoreMetrics>,
    ) -> Self {
        Self { sender: Arc::new(Mutex::new(Some(sender))), measures }
    }

    fn sender(&self) -> Result<mpsc::SyncSender<WriterCommand>, StoreError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.ok_or(StoreError::Unavailable)
    }

    /// Queues an order, if there is room for it.
    pub(super) fn queue(&self, order: WriterCommand) -> Result<(), StoreError> {
        let sender = self.sender()?;
        // Before the writer may count it down.
        self.measures.waiting.up();
        sender.try_send(order).map_err(|error| {
            self.measures.waiting.down();
            match error {
                mpsc::TrySendError::Full(_) => StoreError::Busy,
                mpsc::TrySendError::Disconnected(_) => StoreError::Unavailable,
            }
        })
    }

    /// Queues an order that must not take the places of what takes away.
    pub(super) fn queue_behind(&self, order: WriterCommand) -> Result<(), StoreError> {
        if self.measures.waiting.read() >= QUEUE as u64 {
            return Err(StoreError::Busy);
        }
        self.queue(order)
    }

    /// Queues an order as soon as there is room for it.
    pub(super) fn wait_for(&self, order: WriterCommand) -> Result<(), StoreError> {
        let sender = self.sender()?;
        self.measures.waiting.up();
        sender.send(order).map_err(|_| {
            self.measures.waiting.down();
            StoreError::Unavailable
        })
    }

    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
