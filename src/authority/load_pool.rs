//! Load pool: the threads that read facts from the store for checks.
//!
//! A check whose fact is not cached must not block its worker thread. It sends the key to this pool
//! and awaits the result. A thread takes all keys that wait at once, so under load a miss costs no
//! thread switch of its own. One key always goes to the same thread, so concurrent loads of one key
//! cause one read.
//!
//! Not here: how a loaded fact enters the cache; see [`super::coherence`].

use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::panic::{self, AssertUnwindSafe};

use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// How many threads read. While one waits for a slow disk, the others go on.
const THREADS: usize = 8;
/// The most keys that a thread takes at once.
const MAX_BATCH: usize = 64;

/// A key, and the channel for its result.
type LoadRequest<K, T> = (K, oneshot::Sender<Result<T, StoreError>>);

/// Threads that load a `T` for each key `K`.
pub(super) struct LoadPool<K, T> {
    /// Has a random seed, so that no client can choose keys that share a thread.
    hasher: RandomState,
    queues: Vec<mpsc::UnboundedSender<LoadRequest<K, T>>>,
}

impl<K: Hash + Send + 'static, T: Send + 'static> LoadPool<K, T> {
    /// Starts the threads. They end when the pool is dropped.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(
        read: impl Fn(&K) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let start = |number: usize| {
            let (queue, mut requests) = mpsc::unbounded_channel::<LoadRequest<K, T>>();
            let read = read.clone();
            let thread = std::thread::Builder::new().name(format!("reader-{number}"));
            thread.spawn(move || {
                let mut batch = Vec::with_capacity(MAX_BATCH);
                while requests.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
                    for (key, reply) in batch.drain(..) {
                        // The call has ended, and no task awaits the result.
                        if reply.is_closed() {
                            continue;
                        }
                        // sled panics on a page that it cannot read.
                        let loaded = panic::catch_unwind(AssertUnwindSafe(|| read(&key)));
                        reply.send(loaded.unwrap_or(Err(StoreError::Damaged))).ok();
                    }
                }
            })?;
            Ok(queue)
        };
        let queues = (0..THREADS).map(start).collect::<io::Result<_>>()?;
        Ok(Self { hasher: RandomState::new(), queues })
    }

    /// Loads the value of a key.
    ///
    /// # Errors
    /// The read failed, or the pool has ended.
    pub(super) async fn read(&self, key: K) -> Result<T, StoreError> {
        let hash = self.hasher.hash_one(&key);
        let index = usize::try_from(hash).unwrap_or(0) % THREADS;
        let (reply, loaded) = oneshot::channel();
        let queue = self.queues.get(index).ok_or(StoreError::Unavailable)?;
        queue.send((key, reply)).map_err(|_| StoreError::Unavailable)?;
        loaded.await.map_err(|_| StoreError::Unavailable)?
    }
}
