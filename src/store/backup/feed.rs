//! BackupFeed: the queue through which the writer passes every batch to a backup.
//!
//! INVARIANT (the writer never waits for a backup): a queue holds a bounded number of bytes. When
//! a client is so slow that the queue is full, its backup ends. The commit goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use jiff::Timestamp;

use crate::policy::revision::Revision;
use crate::store::StoreError;
use crate::store::checksum::StoreChecksum;
use crate::store::engine::WriteBatch;

/// The approximate overhead of an entry in memory, in bytes.
const ENTRY: usize = 100;

/// A message from the writer to a backup.
pub(in crate::store) enum FeedItem {
    /// The feed is registered: every later batch follows.
    Begun,
    /// One batch, and its size in bytes.
    Written(Arc<WriteBatch>, u64),
    /// No more batches follow. This is the state after the last one.
    Ended(FeedEnd),
}

/// The state of the store at the end of a feed.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct FeedEnd {
    pub(in crate::store) head: Revision,
    pub(in crate::store) checksum: StoreChecksum,
    pub(in crate::store) mark: Timestamp,
}

/// The state that both ends of the queue share.
#[derive(Default)]
pub(in crate::store) struct Queue {
    pub(in crate::store) batches: AtomicUsize,
    pub(in crate::store) bytes: AtomicU64,
    pub(in crate::store) overflowed: AtomicBool,
}

/// The writer's end of the queue to a backup.
pub(in crate::store) struct BackupFeed {
    sender: mpsc::Sender<FeedItem>,
    queue: Arc<Queue>,
    limit: u64,
}

/// Identifies the feed that is to end.
pub(in crate::store) struct FeedId(pub(in crate::store) Arc<Queue>);

impl BackupFeed {
    /// A queue of at most `limit` bytes.
    pub(in crate::store) fn new(limit: u64) -> (Self, Source) {
        let (sender, items) = mpsc::channel();
        let queue = Arc::<Queue>::default();
        (Self { sender, queue: Arc::clone(&queue), limit }, Source { items, queue })
    }

    /// Sends a batch. Returns false if the feed has ended.
    fn send(&self, entries: &Arc<WriteBatch>, bytes: u64) -> bool {
        if self.queue.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            self.queue.overflowed.store(true, Ordering::Release);
            return false;
        }
        self.queue.batches.fetch_add(1, Ordering::Release);
        self.sender.send(FeedItem::Written(Arc::clone(entries), bytes)).is_ok()
    }
}

/// All feeds that the writer sends batches to.
#[derive(Default)]
pub(in crate::store) struct BackupFeeds(pub(in crate::store) Vec<BackupFeed>);

impl BackupFeeds {
    /// Registers a feed.
    pub(in crate::store) fn add(&mut self, feed: BackupFeed) {
        if feed.sender.send(FeedItem::Begun).is_ok() {
            self.0.push(feed);
        }
    }

    /// Sends a batch that was applied.
    pub(in crate::store) fn send(&mut self, entries: WriteBatch) {
        if self.0.is_empty() {
            return;
        }
        let bytes = entries
            .iter()
            .map(|(entry_key, value)| ENTRY + entry_key.len() + value.map_or(0, <[u8]>::len));
        let (bytes, entries) = (bytes.sum::<usize>() as u64, Arc::new(entries));
        self.0.retain(|feed| feed.send(&entries, bytes));
    }

    /// Ends this feed.
    pub(in crate::store) fn end(&mut self, id: &FeedId, state: FeedEnd) {
        if let Some(index) = self.0.iter().position(|feed| Arc::ptr_eq(&feed.queue, &id.0)) {
            self.0.swap_remove(index).sender.send(FeedItem::Ended(state)).ok();
        }
    }
}

/// The backup's end of its queue.
pub(in crate::store) struct Source {
    items: mpsc::Receiver<FeedItem>,
    pub(in crate::store) queue: Arc<Queue>,
}

impl Source {
    pub(in crate::store) fn next(&self) -> Result<FeedItem, StoreError> {
        match self.items.recv() {
            Ok(item) => {
                if let FeedItem::Written(_, bytes) = &item {
                    self.queue.bytes.fetch_sub(*bytes, Ordering::Relaxed);
                    self.queue.batches.fetch_sub(1, Ordering::Relaxed);
                }
                Ok(item)
            }
            Err(_) if self.queue.overflowed.load(Ordering::Acquire) => {
                Err(StoreError::BackupTooSlow)
            }
            // The writer has stopped.
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}
