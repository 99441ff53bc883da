//! Core: one thread that answers, with a runtime of its own and the connections handed to it.
//!
//! A check never leaves its core: it is read, decided and written by the thread that polls its
//! connection, and what is written for many streams goes out in one system call. Everything
//! else (changes, lists, streams) may be long, and is run elsewhere: it must not stall a check.
//!
//! Not here: who accepts connections; see [`super::frame`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

use super::calls::Calls;
use super::quota::Quota;
use crate::grpc::access::{self, Asked};
use crate::grpc::express::{self, Reply};
use crate::grpc::peer::Peer;
use crate::grpc::{Doors, status};
use crate::policy::caller::{Caller, Role};

/// The paths that go by the shortest way.
const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
const BATCH_CHECK: &str = "/scopegate.v1.AuthorizationService/BatchCheck";

/// The calls that are answered however many there are.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// How long a connection may still have calls under way after it was asked to end. A drain may
/// be shorter.
const GRACE: Duration = Duration::from_secs(60);

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
    /// The most calls under way on a core.
    pub(super) in_flight: usize,
    /// How long a connection lives.
    pub(super) age: Option<Duration>,
    /// How many calls a second that are no checks one key may make.
    pub(super) quota: Arc<Quota>,
    /// What is counted on this core.
    pub(super) calls: Arc<Calls>,
}

impl Service {
    /// Who makes a call, if it may make it at all: before anything of its message is read.
    fn admit<B>(&self, request: &Request<B>, peer: &Peer) -> Result<Caller, Status> {
        let caller = self.doors.caller(request.headers(), peer)?;
        let roles = access::roles(request.uri().path()).ok_or_else(status::no_such_call)?;
        if !caller.roles().meets(roles) {
            return Err(status::not_permitted());
        }
        if let Caller::Key(key) = &caller
            && !roles.has(Role::Service)
        {
            self.quota.count(key, Instant::now()).map_err(status::too_often)?;
        }
        Ok(caller)
    }
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
    hand_over: mpsc::UnboundedSender<(TcpStream, Counted)>,
    calls: Arc<Calls>,
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
        let calls = Arc::clone(&service.calls);
        let thread = std::thread::Builder::new().name(format!("core-{number}"));
        let thread = thread.spawn(move || {
            runtime.block_on(serve(connections, service, phase));
            // A read that nobody waits for any more must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { hand_over, calls, thread })
    }

    /// How many connections it has.
    pub(super) fn open(&self) -> usize {
        self.calls.open.load(Ordering::Relaxed)
    }

    /// Hands a connection over. It is closed if the core has ended.
    pub(super) fn take(&self, connection: TcpStream) {
        let (counted, _) = Counted::one_more(&self.calls.open);
        self.hand_over.send((connection, counted)).ok();
    }

    /// Waits for the end, which [`Phase::Draining`] begins and [`Phase::Over`] enforces.
    pub(super) fn join(self) {
        drop(self.hand_over);
        self.thread.join().ok();
    }
}

/// One of those that are counted, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, and how many there are with it.
    fn one_more(all: &Arc<AtomicUsize>) -> (Self, usize) {
        let number = all.fetch_add(1, Ordering::Relaxed) + 1;
        (Self(Arc::clone(all)), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    let age = service.age.map(give_or_take);
    let peer = Peer::default();
    let service = service_fn(move |request| answer(Arc::clone(&service), &peer, request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(1024)
            .max_header_list_size(16 << 10)
            .serve_connection(TokioIo::new(connection), service)
    );
    let mut draining = pin!(async {
        let draining = phase.wait_for(|phase| *phase >= Phase::Draining);
        match age {
            None => draining.await.is_ok(),
            Some(age) => tokio::time::timeout(age, draining).await.is_ok(),
        }
    });
    let mut last = None;
    poll_fn(|context| {
        if last.is_none() && draining.as_mut().poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
            last = Some(Box::pin(tokio::time::sleep(GRACE)));
        }
        if let Some(last) = &mut last
            && last.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        match connection.as_mut().poll(context) {
            // Whoever is gone is gone: its error concerns nobody here.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

/// A time, give or take a tenth: connections made together do not all end together.
fn give_or_take(time: Duration) -> Duration {
    let dice = foldhash::quality::RandomState::default().hash_one(());
    time.mul_f64(0.9 + (dice % 1_000) as f64 / 5_000.0)
}

/// Answers one call: a check here, anything else elsewhere.
///
/// The future of a check is moved about by whoever runs it, so it holds no more of the request
/// than its body; what is not a check is boxed.
fn answer(
    service: Arc<Service>,
    peer: &Peer,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Reply>, Infallible>> + use<> {
    enum Call<F> {
        TooMany,
        Refused(Box<Status>),
        Check(Option<Duration>, Caller, Incoming),
        Other(Pin<Box<F>>),
    }
    let path = request.uri().path();
    let deadline = express::deadline(request.headers());
    let is_health = path.starts_with(HEALTH);
    // Checks come first there.
    let place = access::PATHS.iter().position(|known| *known == path);
    let place = place.unwrap_or(access::PATHS.len());
    let (counted, under_way) = Counted::one_more(&service.calls.under_way);
    let call = if is_health {
        // Asked for by anybody, and also when there is too much to do.
        Call::Other(Box::pin(call(Arc::clone(&service), request, deadline, Caller::Anonymous)))
    } else if under_way > service.in_flight {
        Call::TooMany
    } else {
        match (service.admit(&request, peer), deadline) {
            (Err(status), _) => Call::Refused(Box::new(status)),
            (Ok(caller), Ok(deadline)) if path == CHECK && express::takes(&request) => {
                Call::Check(deadline, caller, request.into_body())
            }
            (Ok(caller), deadline) => {
                Call::Other(Box::pin(call(Arc::clone(&service), request, deadline, caller)))
            }
        }
    };
    async move {
        let _counted = counted;
        let response = match call {
            Call::Check(deadline, caller, body) => {
                let decide = async |check| service.doors.decide(Asked::by(caller, check)?).await;
                express::unary(deadline, body, service.limit, decide).await
            }
            Call::Other(call) => call.await,
            Call::TooMany => status::too_much(service.in_flight).into_http(),
            Call::Refused(status) => status.into_http(),
        };
        service.calls.answered(place, &response);
        Ok(response)
    }
}

/// Answers a call that is no check of one thing.
async fn call(
    service: Arc<Service>,
    mut request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    caller: Caller,
) -> Response<Reply> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    if request.uri().path() == BATCH_CHECK && express::takes(&request) {
        let decide = async |batch| service.doors.decide_all(Asked::by(caller, batch)?).await;
        return express::unary(deadline, request.into_body(), service.limit, decide).await;
    }
    request.extensions_mut().insert(caller);
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
