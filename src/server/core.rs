//! Core: one thread that answers, with a runtime of its own and the connections handed to it.
//!
//! A check never leaves its core: it is read, decided and written by the thread that polls its
//! connection, and what is written for many streams goes out in one system call. Everything
//! else (changes, lists, streams) may be long, and is run elsewhere: it must not stall a check.
//!
//! Not here: who accepts connections; see [`super::frame`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::grpc::express::{self, Reply};
use crate::grpc::{Doors, status};

/// The paths that go by the shortest way.
const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
const BATCH_CHECK: &str = "/scopegate.v1.AuthorizationService/BatchCheck";

/// How many threads of a core may wait for the disk.
const WAITING: usize = 64;

/// What every core answers with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) doors: Doors,
    /// Every call, by the generated services.
    pub(super) routes: Routes,
    /// Where calls run that are no checks.
    pub(super) elsewhere: Handle,
    /// The most bytes of a message.
    pub(super) limit: usize,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Calls are answered.
    Serving,
    /// Open calls may end, and no new one begins.
    Draining,
    /// What is still open is cut off.
    Over,
}

/// A core, as the one who hands it connections sees it.
pub(super) struct Core {
    hand_over: mpsc::UnboundedSender<TcpStream>,
    /// How many connections it has.
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Core {
    /// Starts a core.
    pub(super) fn start(
        number: usize,
        service: Service,
        phase: watch::Receiver<Phase>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WAITING)
            .thread_name(format!("core-{number}-disk"))
            .build()?;
        let (hand_over, connections) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
        let thread = std::thread::Builder::new().name(format!("core-{number}"));
        let thread = thread.spawn(move || {
            runtime.block_on(serve(connections, service, phase, &counted));
            // A read that nobody waits for any more must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { hand_over, open, thread })
    }

    /// How many connections it has.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands a connection over. It is closed if the core has ended.
    pub(super) fn take(&self, connection: TcpStream) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.hand_over.send(connection).is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits for the end, which [`Phase::Draining`] begins and [`Phase::Over`] enforces.
    pub(super) fn join(self) {
        drop(self.hand_over);
        self.thread.join().ok();
    }
}

/// Counts a connection as open, until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves connections until there are none and none will come, or the end is over.
async fn serve(
    mut connections: mpsc::UnboundedReceiver<TcpStream>,
    service: Service,
    mut phase: watch::Receiver<Phase>,
    open: &Arc<AtomicUsize>,
) {
    let service = Arc::new(service);
    let (ended, mut all_ended) = mpsc::channel::<Infallible>(1);
    while let Some(connection) = connections.recv().await {
        let open = Open(Arc::clone(open));
        let Ok(connection) = tokio::net::TcpStream::from_std(connection) else { continue };
        let (service, phase, ended) = (Arc::clone(&service), phase.clone(), ended.clone());
        tokio::spawn(async move {
            let _counted = (open, ended);
            attend(connection, service, phase).await;
        });
    }
    drop(ended);
    tokio::select! {
        _ = all_ended.recv() => {}
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
    }
}

/// Serves one connection to its end.
async fn attend(
    connection: tokio::net::TcpStream,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    let service = service_fn(move |request| answer(Arc::clone(&service), request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(1024)
            .max_header_list_size(16 << 10)
            .serve_connection(TokioIo::new(connection), service)
    );
    let mut draining = pin!(phase.wait_for(|phase| *phase >= Phase::Draining));
    let mut told = false;
    poll_fn(|context| {
        if !told && draining.as_mut().poll(context).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(context) {
            // Whoever is gone is gone: its error concerns nobody here.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

/// Answers one call: a check here, anything else elsewhere.
///
/// The future of a check is moved about by whoever runs it, so it holds no more of the request
/// than its body; what is not a check is boxed.
fn answer(
    service: Arc<Service>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Reply>, Infallible>> {
    enum Call<F> {
        Check(Option<Duration>, Incoming),
        Other(Pin<Box<F>>),
    }
    let path = request.uri().path();
    let deadline = express::deadline(request.headers());
    let call = match deadline {
        Ok(deadline) if path == CHECK && express::takes(&request) => {
            Call::Check(deadline, request.into_body())
        }
        deadline => Call::Other(Box::pin(call(Arc::clone(&service), request, deadline))),
    };
    async move {
        Ok(match call {
            Call::Check(deadline, body) => {
                let decide = |check| service.doors.decide(check);
                express::unary(deadline, body, service.limit, decide).await
            }
            Call::Other(call) => call.await,
        })
    }
}

/// Answers a call that is no check of one thing.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
) -> Response<Reply> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    if request.uri().path() == BATCH_CHECK && express::takes(&request) {
        let decide = |batch| service.doors.decide_all(batch);
        return express::unary(deadline, request.into_body(), service.limit, decide).await;
    }
    run_elsewhere(&service, request, deadline).await
}

/// Has the generated services answer.
async fn run_elsewhere(
    service: &Service,
    request: Request<Incoming>,
    deadline: Option<Duration>,
) -> Response<Reply> {
    let routes = service.routes.clone();
    let mut running = Running(service.elsewhere.spawn(async move {
        let answered = routes.oneshot(request.map(tonic::body::Body::new));
        match deadline {
            None => answered.await,
            Some(time) => match tokio::time::timeout(time, answered).await {
                Ok(answered) => answered,
                Err(_) => Ok(status::too_late().into_http()),
            },
        }
    }));
    match (&mut running.0).await {
        Ok(Ok(response)) => status::name_limits(response).map(Reply::Other),
        Ok(Err(never)) => match never {},
        // The call panicked, or the runtime ends.
        Err(_) => status::broken().into_http(),
    }
}

/// A call that ends when nobody waits for it any more.
struct Running<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
