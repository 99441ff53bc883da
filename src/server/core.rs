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
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use super::calls::Calls;
use super::follow::{Follow, Followed, Line};
use super::pace::{Pace, Paced};
use super::quota::Quota;
use super::tls::Tls;
use super::traces::{Asked, Trace};
use super::turn::{self, Turn};
use crate::grpc::access;
use crate::grpc::express::{self, Reply};
use crate::grpc::origin::Origin;
use crate::grpc::peer::Peer;
use crate::grpc::timely::Timely;
use crate::grpc::{Doors, status};
use crate::measure::steps;
use crate::policy::caller::{Caller, Role};
use crate::proto::CheckRequest;

/// The paths that go by the shortest way.
pub(super) const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
pub(super) const BATCH_CHECK: &str = "/scopegate.v1.AuthorizationService/BatchCheck";

/// The calls that anybody may make.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";
/// How many of them may be under way on each core.
const PROBES: usize = 1_000;

/// The calls whose messages come one after another, for as long as the caller likes.
const STREAMS: [&str; 2] =
    ["/scopegate.v1.DirectoryService/ImportCredentials", "/grpc.reflection."];

/// How many calls of a connection may wait to be begun although their caller took them back.
/// Above it a caller does nothing but begin and take back (CVE-2023-44487), and is cut off.
const RESETS: usize = 20;
/// How many calls of a connection may be ended for its own faults before it is cut off.
const RESETS_FOR_ERRORS: usize = 1024;

/// How long a connection may still have calls under way after it was asked to end. A drain may
/// be shorter.
const GRACE: Duration = Duration::from_secs(60);

/// How long a peer may take to hear that its connection has ended.
const PARTING: Duration = Duration::from_secs(1);

/// How many threads of a core may wait for the disk.
const WAITING: usize = 64;

/// What every core answers with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) doors: Doors,
    /// Every call, by the generated services.
    pub(super) routes: Routes,
    /// What connections begin with, if it is not plain text.
    pub(super) tls: Option<Tls>,
    /// Where calls run that are no checks.
    pub(super) elsewhere: Handle,
    /// The most bytes of a message.
    pub(super) limit: usize,
    /// The most calls under way on a core.
    pub(super) in_flight: usize,
    /// How long a connection lives.
    pub(super) age: Option<Duration>,
    /// How long a peer may take for a handshake, or for a frame that it has begun.
    pub(super) handshake: Duration,
    /// How long a request may take to come as a whole.
    pub(super) request: Duration,
    /// How many calls a second that are no checks one key may make.
    pub(super) quota: Arc<Quota>,
    /// What is counted on this core.
    pub(super) calls: Arc<Calls>,
    /// Who wants to know of single calls, if anybody does.
    pub(super) follow: Option<Arc<Follow>>,
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
            welcome(connection, service, phase).await;
        });
    }
    drop(ended);
    tokio::select! {
        _ = all_ended.recv() => {}
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
    }
}

/// Shakes hands with who connects, if that is asked for, and serves the connection to its end.
async fn welcome(
    connection: tokio::net::TcpStream,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    let Some(tls) = &service.tls else {
        return attend(connection, Arc::default(), service, phase).await;
    };
    let handshake = tokio::time::timeout(service.handshake, tls.accept(connection));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
    };
    match shaken {
        Ok(Ok((connection, peer))) => {
            attend(connection, Arc::new(peer), service, phase).await;
        }
        // Anybody can cause these, so they are no warnings.
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Serves one connection to its end.
async fn attend<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: I,
    peer: Arc<Peer>,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    let age = service.age.map(give_or_take);
    let mut patience = Patience { time: service.handshake, waiting: None };
    let service = service_fn(move |request| answer(Arc::clone(&service), &peer, request));
    let (connection, pace) = Paced::new(connection);
    let calls = turn::Calls::default();
    let turn = Turn::of(calls.clone());
    let mut connection = Box::pin(
        http2::Builder::new(calls)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(1024)
            .max_header_list_size(16 << 10)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS_FOR_ERRORS)
            .serve_connection(TokioIo::new(connection), service),
    );
    // A task of its own: to look whether it is over costs each turn next to nothing.
    let mut draining = Running(tokio::spawn(async move {
        let draining = phase.wait_for(|phase| *phase >= Phase::Draining);
        match age {
            None => draining.await.is_ok(),
            Some(age) => tokio::time::timeout(age, draining).await.is_ok(),
        }
    }));
    let mut last = None;
    poll_fn(|context| {
        if last.is_none() && Pin::new(&mut draining.0).poll(context).is_ready() {
            connection.as_mut().graceful_shutdown();
            last = Some(Box::pin(tokio::time::sleep(GRACE)));
        }
        if let Some(last) = &mut last
            && last.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        // Whoever is gone is gone: its error concerns nobody here.
        match turn.take(context, |context| connection.as_mut().poll(context).map(drop)) {
            Poll::Ready(()) => Poll::Ready(()),
            // All that has come was read.
            Poll::Pending => patience.poll(&pace, context),
        }
    })
    .await;
    drop(connection);
    if last.is_some()
        && let Some(connection) = pace.into_connection()
    {
        part(connection).await;
    }
}

/// Reads what is still on its way from a peer that was told that this is the end, until it has
/// heard that. To close before would reset the connection, and what it was told would be lost:
/// which of its calls were never begun, and can be made again.
async fn part(mut connection: impl AsyncRead + Unpin) {
    let mut unread = [0; 4096];
    let read = async { while connection.read(&mut unread).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(PARTING, read).await.ok();
}

/// Waits for what a peer has begun and not ended.
struct Patience {
    time: Duration,
    /// Which frame is waited for, and until when.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Patience {
    /// Ready when it took too long.
    fn poll<I>(&mut self, pace: &Pace<I>, context: &mut Context<'_>) -> Poll<()> {
        let Some(begun) = pace.begun() else {
            self.waiting = None;
            return Poll::Pending;
        };
        match &mut self.waiting {
            Some((frame, end)) if *frame == begun => end.as_mut().poll(context),
            waiting => {
                let (_, end) = waiting.insert((begun, Box::pin(tokio::time::sleep(self.time))));
                end.as_mut().poll(context)
            }
        }
    }
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
        TooMany(usize),
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
    // Probes have a count of their own: they take no place from calls, nor calls from them.
    let (all, most) = match is_health {
        true => (&service.calls.probes, PROBES),
        false => (&service.calls.under_way, service.in_flight),
    };
    let (counted, under_way) = Counted::one_more(all);
    let call = if under_way > most {
        Call::TooMany(most)
    } else if is_health {
        // Asked for by anybody.
        let caller = Caller::Anonymous;
        Call::Other(Box::pin(call(Arc::clone(&service), request, deadline, caller, None)))
    } else {
        let followed = service.follow.as_ref().and_then(|follow| follow.look(request.headers()));
        match (service.admit(&request, peer), deadline) {
            (Err(status), _) => Call::Refused(Box::new(status)),
            (Ok(caller), Ok(deadline))
                if path == CHECK && followed.is_none() && express::takes(&request) =>
            {
                Call::Check(deadline, caller, request.into_body())
            }
            (Ok(caller), deadline) => {
                let service = Arc::clone(&service);
                Call::Other(Box::pin(call(service, request, deadline, caller, followed)))
            }
        }
    };
    async move {
        let _counted = counted;
        let response = match call {
            Call::Check(deadline, caller, body) => {
                let decide = async |check| {
                    service.doors.decide(service.doors.asked_by(caller, check)?, None).await
                };
                let body = Timely::new(body, service.request);
                express::unary(deadline, body, service.limit, decide).await
            }
            Call::Other(call) => call.await,
            Call::TooMany(most) => status::too_much(most).into_http(),
            Call::Refused(status) => status.into_http(),
        };
        service.calls.answered(place, &response);
        Ok(response)
    }
}

/// Answers a call that is no check of one thing, or one that is followed.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    caller: Caller,
    followed: Option<Followed>,
) -> Response<Reply> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    let line = Line::begin(&request, &caller, followed.as_ref());
    let trace =
        followed.as_ref().and_then(|followed| followed.trace(request.uri().path(), &caller));
    let origin = followed.map(|followed| followed.origin);
    let steps = trace.as_ref().map(Trace::steps);
    let answered = run(&service, request, deadline, caller, origin, trace.as_ref());
    let response = steps::noted(steps, answered).await;
    if let Some(trace) = trace {
        trace.answered(&response);
    }
    if let Some(line) = line {
        line.write(&response);
    }
    response
}

/// Answers a call, here or elsewhere.
async fn run(
    service: &Service,
    mut request: Request<Incoming>,
    deadline: Option<Duration>,
    caller: Caller,
    origin: Option<Arc<Origin>>,
    trace: Option<&Trace>,
) -> Response<Reply> {
    let doors = &service.doors;
    let path = request.uri().path();
    if path == CHECK && express::takes(&request) {
        let decide = async |check: CheckRequest| {
            let asked = trace.map(|_| Asked::of(&check));
            let answer = doors.decide(doors.asked_by(caller, check)?, origin.as_ref()).await?;
            if let (Some(trace), Some(asked)) = (trace, asked) {
                trace.decided(asked, &answer);
            }
            Ok(answer)
        };
        let body = Timely::new(request.into_body(), service.request);
        return express::unary(deadline, body, service.limit, decide).await;
    }
    if path == BATCH_CHECK && express::takes(&request) {
        let decide = async |batch| {
            let answer = doors.decide_all(doors.asked_by(caller, batch)?, origin.as_ref()).await?;
            if let Some(trace) = trace {
                trace.decided_all(&answer);
            }
            Ok(answer)
        };
        let body = Timely::new(request.into_body(), service.request);
        return express::unary(deadline, body, service.limit, decide).await;
    }
    request.extensions_mut().insert(caller);
    if let Some(origin) = origin {
        request.extensions_mut().insert(origin);
    }
    run_elsewhere(service, request, deadline).await
}

/// Has the generated services answer.
async fn run_elsewhere(
    service: &Service,
    request: Request<Incoming>,
    deadline: Option<Duration>,
) -> Response<Reply> {
    let (routes, time) = (service.routes.clone(), service.request);
    let mut running = Running(service.elsewhere.spawn(steps::carried(async move {
        let request = if STREAMS.iter().any(|path| request.uri().path().starts_with(path)) {
            request.map(tonic::body::Body::new)
        } else {
            request.map(|body| tonic::body::Body::new(Timely::new(body, time)))
        };
        let answered = routes.oneshot(request);
        match deadline {
            None => answered.await,
            Some(time) => match tokio::time::timeout(time, answered).await {
                Ok(answered) => answered,
                Err(_) => Ok(status::too_late().into_http()),
            },
        }
    })));
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
