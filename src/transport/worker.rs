//! Worker: one thread that serves its own connections on a runtime of its own. What it does with a
//! connection is its [`Protocol`].
//!
//! A check stays on its worker: the thread that polls the connection also reads, decides and answers
//! the check, and the replies of many streams are written in one system call. Other calls (changes,
//! lists, streams) may be long, so the background runtime runs them: they must not delay a check.
//!
//! Not here: how connections are accepted; see [`super::listener`].

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use super::call_counters::CallCounters;
use super::connection::LINGER_TIMEOUT;
use super::phase::Phase;
use super::socket::{IdleSocket, Socket};
use crate::metrics::Counted;
use crate::metrics::supervise::Vital;

/// How many threads of a worker may wait for the disk.
const MAX_BLOCKING_THREADS: usize = 64;

/// What a worker does with its connections.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// The counters of the worker.
    fn calls(&self) -> &Arc<CallCounters>;

    /// Serves one connection to its end.
    fn accept(
        self: Arc<Self>,
        connection: Socket,
        phase: watch::Receiver<Phase>,
    ) -> impl Future<Output = ()> + Send;
}

/// A handle to a worker.
pub(crate) struct Worker {
    connections: mpsc::UnboundedSender<(IdleSocket, Counted)>,
    calls: Arc<CallCounters>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker. Its threads have this name.
    ///
    /// # Errors
    /// The system has no thread or file for it.
    pub(crate) fn start(
        name: &str,
        protocol: impl Protocol,
        phase: watch::Receiver<Phase>,
        vital: Vital,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name(format!("{name}-disk"))
            .build()?;
        let (sender, connections) = mpsc::unbounded_channel();
        let calls = Arc::clone(protocol.calls());
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            let _vital = vital;
            runtime.block_on(serve(connections, protocol, phase));
            // An abandoned read of the disk must not delay the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { connections: sender, calls, thread })
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.calls.connections.load(Ordering::Relaxed)
    }

    /// Hands a connection to the worker. It is closed if the worker has ended.
    pub(crate) fn take(&self, connection: IdleSocket) {
        let (counted, _) = Counted::one_more(&self.calls.connections);
        self.connections.send((connection, counted)).ok();
    }

    /// Waits for the end, which [`Phase::Draining`] begins and [`Phase::Terminate`] enforces.
    pub(crate) fn join(self) {
        drop(self.connections);
        self.thread.join().ok();
    }
}

/// Serves connections until the last has ended and no more can arrive, or until the phase
/// [`Phase::Terminate`] has passed.
async fn serve(
    mut connections: mpsc::UnboundedReceiver<(IdleSocket, Counted)>,
    protocol: impl Protocol,
    mut phase: watch::Receiver<Phase>,
) {
    let protocol = Arc::new(protocol);
    let (ended, mut all_ended) = mpsc::channel::<Infallible>(1);
    while let Some((connection, counted)) = connections.recv().await {
        let Ok(connection) = connection.attach() else { continue };
        let protocol = Arc::clone(&protocol);
        let (phase, ended) = (phase.clone(), ended.clone());
        tokio::spawn(async move {
            let _counted = (counted, ended);
            protocol.accept(connection, phase).await;
        });
    }
    drop(ended);
    let terminated = async {
        let _ = phase.wait_for(|phase| *phase == Phase::Terminate).await;
        // To interrupt the calls and to close the connections each takes this long at most.
        tokio::time::sleep(LINGER_TIMEOUT * 2).await;
    };
    tokio::select! {
        _ = all_ended.recv() => {}
        () = terminated => {}
    }
}
