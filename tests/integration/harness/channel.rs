//! Channels of clients: their limits, and the threads that run them.
//!
//! The client of hyper loses a request that is sent while its connection ends, if two threads do that: it
//! is in a queue without a reader, and its call waits until the next one on the same channel
//! (hyper issue 4122, of HTTP/1 there). A program has a deadline for each call. A test has none, and
//! would hang, although the server did nothing wrong. So one thread runs all that belongs to a channel.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::rt::Executor;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Endpoint;

use super::hang::{CALL_LIMIT, END_LIMIT};

/// Where to connect. A call fails whose response does not begin in time: it does not hang.
pub fn endpoint(url: &str) -> Endpoint {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    endpoint.timeout(CALL_LIMIT).connect_timeout(END_LIMIT).executor(ChannelThread::next())
}

/// One of the threads that run channels.
#[derive(Clone, Copy)]
struct ChannelThread(&'static Runtime);

impl ChannelThread {
    /// The threads take turns.
    fn next() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        static THREADS: LazyLock<Vec<Runtime>> = LazyLock::new(|| {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).thread_name("channels").enable_all();
            (0..count).map(|_| builder.build().expect("a runtime")).collect()
        });
        Self(&THREADS[NEXT.fetch_add(1, Ordering::Relaxed) % THREADS.len()])
    }
}

impl Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for ChannelThread {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}
