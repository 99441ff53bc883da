//! BackupFeed: the queue through which the writer passes every batch to a backup.
//!
//! INVARIANT (the writer never waits for a backup): a queue holds a bounded number of bytes. When
//! a client is so slow that the queue is full, its backup ends. The commit goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use jiff::Timestamp;

use super::checksum::{StoreChecksum, WriteBatch};
use crate::policy::revision::Revision;
use crate::store::StoreError;

/// About how many bytes an entry takes in memory beside its own.
const ENTRY: usize = 100;

/// What the writer hands over.
pub(super) enum FeedItem {
    /// From here on everything.
    Begun,
    /// What was written as one.
    Written(Arc<WriteBatch>, u64),
    /// There is no more: this is the state behind it.
    Ended(FeedEnd),
}

/// Where the writer stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeedEnd {
    pub(super) head: Revision,
    pub(super) tally: StoreChecksum,
    pub(super) mark: Timestamp,
}

/// What both ends of the queue see.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) batches: AtomicUsize,
    pub(super) bytes: AtomicU64,
    pub(super) overtaken: AtomicBool,
}

/// The writer's end of a backup's queue.
pub(super) struct BackupFeed {
    send: mpsc::Sender<FeedItem>,
    queue: Arc<Queue>,
    most: u64,
}

/// FeedId backup is to end.
pub(super) struct FeedId(pub(super) Arc<Queue>);

impl BackupFeed {
    /// A queue of at most so many bytes.
    pub(super) fn new(most: u64) -> (Self, Source) {
        let (send, handed) = mpsc::channel();
        let queue = Arc::<Queue>::default();
        (Self { send, queue: Arc::clone(&queue), most }, Source { handed, queue })
    }

    /// Hands over, and says whether there is still a use in it.
    fn hand_over(&self, entries: &Arc<WriteBatch>, bytes: u64) -> bool {
        if self.queue.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.most {
            self.queue.overtaken.store(true, Ordering::Release);
            return false;
        }
        self.queue.batches.fetch_add(1, Ordering::Release);
        self.send.send(FeedItem::Written(Arc::clone(entries), bytes)).is_ok()
    }
}

/// Those to whom the writer hands over what it writes.
#[derive(Default)]
pub(super) struct BackupFeeds(pub(super) Vec<BackupFeed>);

impl BackupFeeds {
    /// From here on this one, too.
    pub(super) fn add(&mut self, tap: BackupFeed) {
        if tap.send.send(FeedItem::Begun).is_ok() {
            self.0.push(tap);
        }
    }

    /// These were applied to the tree.
    pub(super) fn hand_over(&mut self, entries: WriteBatch) {
        if self.0.is_empty() {
            return;
        }
        let bytes =
            entries.iter().map(|(place, value)| ENTRY + place.len() + value.map_or(0, <[u8]>::len));
        let (bytes, entries) = (bytes.sum::<usize>() as u64, Arc::new(entries));
        self.0.retain(|tap| tap.hand_over(&entries, bytes));
    }

    /// This one has what it needs.
    pub(super) fn end(&mut self, which: &FeedId, state: FeedEnd) {
        if let Some(place) = self.0.iter().position(|tap| Arc::ptr_eq(&tap.queue, &which.0)) {
            self.0.swap_remove(place).send.send(FeedItem::Ended(state)).ok();
        }
    }
}

/// The backup's end of its queue.
pub(super) struct Source {
    handed: mpsc::Receiver<FeedItem>,
    pub(super) queue: Arc<Queue>,
}

impl Source {
    pub(super) fn next(&self) -> Result<FeedItem, StoreError> {
        match self.handed.recv() {
            Ok(handed) => {
                if let FeedItem::Written(_, bytes) = &handed {
                    self.queue.bytes.fetch_sub(*bytes, Ordering::Relaxed);
                    self.queue.batches.fetch_sub(1, Ordering::Relaxed);
                }
                Ok(handed)
            }
            Err(_) if self.queue.overtaken.load(Ordering::Acquire) => {
                Err(StoreError::BackupTooSlow)
            }
            // The writer has ended.
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}
