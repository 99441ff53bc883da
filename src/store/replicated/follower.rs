//! Follower: reads the entries of the log that this store has not applied, and hands them to the writer.
//!
//! A watch of the head only wakes it. It may come late, or never, so the head is also read now and then.
//!
//! Not here: the own entries, which the writer applies when it has committed them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::etcd::{Client, EtcdError, Range, Watch};
use super::log_page::{LogPage, PageError};
use super::{Followed, LogError, LogMetrics, keys};
use crate::store::StoreError;
use crate::store::command_queue::CommandQueue;

/// How long a read waits for an answer.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause before etcd is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before the writer is asked again whether the disk has space.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How often the head is read while nothing wakes the follower.
const POLL: Duration = Duration::from_millis(500);

/// Follows the log of a cluster for one store.
pub(super) struct Follower {
    pub(super) client: Arc<Client>,
    pub(super) cluster: Uuid,
    pub(super) commands: CommandQueue,
    pub(super) followed: watch::Receiver<Followed>,
    pub(super) metrics: Arc<LogMetrics>,
}

impl Follower {
    /// Follows the log until the store is closed.
    ///
    /// # Errors
    /// The log is not the one that the store follows.
    pub(super) async fn run(self) -> Result<(), LogError> {
        let client = Arc::clone(&self.client);
        let mut watch: Option<Watch<'_>> = None;
        loop {
            let position = self.followed.borrow().position;
            let page = LogPage::read_whole(&client, self.cluster, position, ANSWER).await;
            let page = match page {
                Ok(page) => page,
                Err(PageError::Log(error)) => {
                    // The own writer may have gone on since the position was read.
                    if self.followed.borrow().position != position {
                        continue;
                    }
                    return Err(error);
                }
                Err(PageError::Etcd(error)) => {
                    tracing::debug!(%error, "etcd gave no answer to a read of the log");
                    watch = None;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            self.metrics.set_head(&page.head);
            if !page.entries.is_empty() {
                if !self.apply(page).await? {
                    return Ok(());
                }
                continue;
            }
            if watch.is_none() {
                let from = page.etcd_revision + 1;
                let begun = client.watch(&Range::key(keys::HEAD), from, ANSWER).await;
                watch = begun.map_err(|error| debug(&error)).ok();
            }
            let woken = async {
                match &mut watch {
                    Some(watch) => watch.woken().await,
                    None => std::future::pending().await,
                }
            };
            if let Ok(Err(error)) = tokio::time::timeout(POLL, woken).await {
                debug(&error);
                watch = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Applies the entries of a page. False: the store is closed.
    async fn apply(&self, page: LogPage) -> Result<bool, LogError> {
        let applied = match self.commands.apply(page.entries) {
            Ok(applied) => applied.await,
            Err(StoreError::Busy) => {
                tokio::time::sleep(PAUSE).await;
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        match applied {
            Ok(Err(LogError::Store(StoreError::Full))) => {
                tokio::time::sleep(DISK_PAUSE).await;
                Ok(true)
            }
            // The own writer has applied the first of them meanwhile.
            Ok(Ok(_) | Err(LogError::Sequence { .. })) => Ok(true),
            Ok(Err(error)) => Err(error),
            // The writer has ended.
            Err(_) => Ok(false),
        }
    }
}

fn debug(error: &EtcdError) {
    tracing::debug!(%error, "the watch of the log ended");
}
