//! Core: one thread that answers, with a runtime of its own and the connections handed to it.
//!
//! A check never leaves its core: it is read, decided and written by the thread that polls its
//! connection, and what is written for many streams goes out in one system call. Everything
//! else (changes, lists, streams) may be long, and is run elsewhere: it must not stall a check.
//!
//! Not here: who accepts connections; see [`super::listener`].

use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use super::call_counters::CallCounters;
use super::connection::{self, LINGER_TIMEOUT};
use super::phase::Phase;
use super::service::Service;
use crate::metrics::Counted;
use crate::metrics::supervise::Vital;

/// How many threads of a core may wait for the disk.
const MAX_BLOCKING_THREADS: usize = 64;

/// A core, as the one who hands it connections sees it.
pub(crate) struct Worker {
    hand_over: mpsc::UnboundedSender<(TcpStream, Counted)>,
    calls: Arc<CallCounters>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a core.
    pub(crate) fn start(
        number: usize,
        service: Service,
        phase: watch::Receiver<Phase>,
        vital: Vital,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name(format!("core-{number}-disk"))
            .build()?;
        let (hand_over, connections) = mpsc::unbounded_channel();
        let calls = Arc::clone(&service.calls);
        let thread = std::thread::Builder::new().name(format!("core-{number}"));
        let thread = thread.spawn(move || {
            let _vital = vital;
            runtime.block_on(serve(connections, service, phase));
            // A read that nobody waits for any more must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { hand_over, calls, thread })
    }

    /// How many connections it has.
    pub(crate) fn open(&self) -> usize {
        self.calls.open.load(Ordering::Relaxed)
    }

    /// Hands a connection over. It is closed if the core has ended.
    pub(crate) fn take(&self, connection: TcpStream) {
        let (counted, _) = Counted::one_more(&self.calls.open);
        self.hand_over.send((connection, counted)).ok();
    }

    /// Waits for the end, which [`Phase::Draining`] begins and [`Phase::Terminate`] enforces.
    pub(crate) fn join(self) {
        drop(self.hand_over);
        self.thread.join().ok();
    }
}

/// Serves connections until there are none and none will come, or the end is over.
async fn serve(
    mut connections: mpsc::UnboundedReceiver<(TcpStream, Counted)>,
    service: Service,
    mut phase: watch::Receiver<Phase>,
) {
    let service = Arc::new(service);
    let (ended, mut all_ended) = mpsc::channel::<Infallible>(1);
    while let Some((connection, counted)) = connections.recv().await {
        let Ok(connection) = tokio::net::TcpStream::from_std(connection) else { continue };
        let service = Arc::clone(&service);
        let (phase, ended) = (phase.clone(), ended.clone());
        tokio::spawn(async move {
            let _counted = (counted, ended);
            connection::accept(connection, service, phase).await;
        });
    }
    drop(ended);
    let over = async {
        let _ = phase.wait_for(|phase| *phase == Phase::Terminate).await;
        // Calls are told so, and connections closed: each takes no longer than this.
        tokio::time::sleep(LINGER_TIMEOUT * 2).await;
    };
    tokio::select! {
        _ = all_ended.recv() => {}
        () = over => {}
    }
}
