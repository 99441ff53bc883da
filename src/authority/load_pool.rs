//! Readers: the threads that wait for the disk on behalf of checks.
//!
//! A check whose fact is not at hand leaves its core's thread alone: it hands the key over and
//! waits. A reader takes all keys that wait at once, so under load a miss costs no switch of
//! threads of its own. One key always goes to the same reader: of many who ask for it one reads.
//!
//! Not here: what a read means for the cache; see [`super::coherence`].

use std::io;
use std::panic::{self, AssertUnwindSafe};

use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// How many threads read. A slow disk is waited for by one of them, and the others go on.
const READERS: usize = 8;
/// The most keys that a reader takes at once.
const AT_ONCE: usize = 64;

/// A key, and where what is read goes.
type LoadRequest<K, T> = (K, oneshot::Sender<Result<T, StoreError>>);

/// The readers of keys `K`, who find `T`.
pub(super) struct LoadPool<K, T> {
    queues: Vec<mpsc::UnboundedSender<LoadRequest<K, T>>>,
}

impl<K: Send + 'static, T: Send + 'static> LoadPool<K, T> {
    /// Starts readers. They end when this is dropped.
    pub(super) fn start(
        read: impl Fn(&K) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let start = |number: usize| {
            let (queue, mut wanted) = mpsc::unbounded_channel::<LoadRequest<K, T>>();
            let read = read.clone();
            let thread = std::thread::Builder::new().name(format!("reader-{number}"));
            thread.spawn(move || {
                let mut taken = Vec::with_capacity(AT_ONCE);
                while wanted.blocking_recv_many(&mut taken, AT_ONCE) > 0 {
                    for (key, answer) in taken.drain(..) {
                        // Nobody waits any more: the call has ended.
                        if answer.is_closed() {
                            continue;
                        }
                        // sled panics on a page that it cannot read.
                        let found = panic::catch_unwind(AssertUnwindSafe(|| read(&key)));
                        answer.send(found.unwrap_or(Err(StoreError::Damaged))).ok();
                    }
                }
            })?;
            Ok(queue)
        };
        Ok(Self { queues: (0..READERS).map(start).collect::<io::Result<_>>()? })
    }

    /// Has a key of this hash read.
    pub(super) async fn read(&self, hash: u64, key: K) -> Result<T, StoreError> {
        let place = usize::try_from(hash).unwrap_or(0) % READERS;
        let (answer, found) = oneshot::channel();
        let queue = self.queues.get(place).ok_or(StoreError::Unavailable)?;
        queue.send((key, answer)).map_err(|_| StoreError::Unavailable)?;
        found.await.map_err(|_| StoreError::Unavailable)?
    }
}
