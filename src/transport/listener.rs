//! Listener: the addresses, the tasks that accept their connections, and the workers that serve them.
//!
//! One task accepts on all addresses of callers and hands each connection to the worker that has the
//! fewest, so a few connections spread as well as many. The port of API clients has a worker of its own, so that no
//! client delays a check, and a quarter of the connections and of the calls in flight at most. The HTTP
//! API has as many workers as gRPC.
//!
//! Not here: how a worker serves a connection; see `transport::worker`.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use super::call_counters::CallCounters;
use super::collector::{self, ServerCollector};
use super::error::TransportError;
use super::file_descriptors;
use super::health::{self, Health};
use super::http::{ClientCertificates, HttpConnections, StreamLimits};
use super::jwks::JwksReader;
use super::listen_address::ListenAddress;
use super::listen_socket::{self, Bound, ListenSocket};
use super::phase::Phase;
use super::service::Service;
use super::settings::{DecisionLogSettings, OtlpSettings, Settings};
use super::socket::Socket;
use super::socket_file::SocketFile;
use super::tls::{Tls, TlsWatch};
use super::worker::Worker;
use crate::authority::Authority;
use crate::authority::caller_limits::CallerLimits;
use crate::authority::issuer_keys::KeyReader;
use crate::authzen::counters::AuthzenCounters;
use crate::authzen::decision_point::DecisionPoint;
use crate::grpc::Api;
use crate::metrics::memory_budget::MemoryBudget;
use crate::metrics::supervise::Supervisor;
use crate::oauth::authorization_server::{AuthorizationServer, ServerSettings};
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::decision_log::{DecisionLog, DecisionLogOutput};
use crate::observe::otlp::Traces;
use crate::observe::peer_address::PeerAddress;
use crate::observe::prometheus;
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::request_log::RequestObserver;
use crate::proto;
use crate::wire::access;

/// How long to wait when no connection can be accepted, for example when all file handles are
/// taken.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// How many connections from loopback addresses and by Unix sockets may be open above the limit, so that
/// probes and the commands on this machine reach a server that other peers have filled.
const LOOPBACK_RESERVE: usize = 8;

/// The limit of a request to the reflection service, in bytes. Such a request contains only a name.
const MAX_REFLECTION_BYTES: usize = 4 << 10;

/// The part of the connections and of the calls in flight that API clients may have: one of this many.
const OAUTH_SHARE: usize = 4;

/// The addresses and the workers that serve them.
pub(crate) struct Listener {
    /// The addresses of callers.
    pub(crate) addresses: Vec<ListenAddress>,
    /// The address for API clients.
    pub(crate) oauth_address: Option<SocketAddr>,
    /// The address of the HTTP API.
    pub(crate) http_address: Option<SocketAddr>,
    pub(crate) api: Api,
    health: Arc<Health>,
    phase: watch::Sender<Phase>,
    /// The files of Unix sockets.
    files: Vec<SocketFile>,
    /// One for callers, and one for API clients.
    accepting: Vec<JoinHandle<Vec<Worker>>>,
    /// The counters of each worker.
    calls: Vec<Arc<CallCounters>>,
    /// Those of each worker of the HTTP API.
    http_calls: Vec<Arc<CallCounters>>,
    /// The authorization server, if it is on, and the counters of its worker.
    server: Option<Arc<AuthorizationServer>>,
    oauth_calls: Arc<CallCounters>,
    traces: Option<Arc<Traces>>,
    tls: Option<Tls>,
    /// Reads the keys of the catalog's issuers.
    pub(crate) jwks: Arc<dyn KeyReader>,
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    /// Runs the threads and tasks that live as long as the process.
    pub(crate) supervisor: Arc<Supervisor>,
    _tls_watch: Option<TlsWatch>,
    _metrics: Option<AbortOnDropHandle<()>>,
    /// Logs the connections that were rejected.
    _connection_log: AbortOnDropHandle<()>,
}

impl Listener {
    /// Binds the addresses and starts the workers. Until the API is opened, every call except a health
    /// check fails with UNAVAILABLE.
    ///
    /// # Errors
    /// A setting is wrong, or the system has no thread, file or memory for the server.
    pub(crate) async fn listen(settings: Settings) -> Result<Self, TransportError> {
        let supervisor: Arc<Supervisor> = Arc::default();
        let tls = settings.tls.clone().map(Tls::load).transpose()?;
        let jwks = JwksReader::new(settings.jwks.clone()).map_err(TransportError::Config)?;
        let traces = settings.otlp.as_ref().map(|otlp| traces(otlp, &supervisor)).transpose()?;
        let (mut sockets, mut addresses, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for Bound { socket, address, file } in bind(&settings.listen, settings.listen_mode)? {
            sockets.push(socket);
            addresses.push(address);
            files.extend(file);
        }
        let bind_tcp = |address: SocketAddr| Bound::bind(&ListenAddress::Tcp(address), 0);
        let oauth = settings.oauth.map(bind_tcp).transpose()?;
        let oauth_address = oauth.as_ref().and_then(|bound| bound.address.tcp());
        let http = settings.http.map(bind_tcp).transpose()?;
        let http_address = http.as_ref().and_then(|bound| bound.address.tcp());
        let decisions = settings.decision_log.as_ref();
        let decisions = decisions.map(|log| decision_log(log, &supervisor)).transpose()?;
        let memory = MemoryBudget::new(settings.call_memory);
        let api = Api::new(decisions, memory, settings.watch_heartbeat);
        let health = Health::of(services(), Arc::clone(&api.memory));
        let max_connections = max_connections(&settings);
        let tls_watch = tls.as_ref().map(|tls| tls.watch(&supervisor));
        let service = Service {
            api: api.clone(),
            reflection: reflection_routes(),
            tls: tls.clone(),
            background: Handle::current(),
            max_message_bytes: settings.max_message_bytes,
            max_header_bytes: settings.max_header_bytes,
            health: Arc::clone(&health),
            call_slots: Arc::default(),
            max_in_flight: settings.max_in_flight,
            connection_limits: settings.connection,
            connection_events: Arc::default(),
            stall_timeout: settings.stall_timeout,
            request_timeout: settings.request_timeout,
            caller_limits: Arc::new(CallerLimits::new(
                settings.key_rate_limit,
                Arc::clone(&api.memory),
            )),
            rejected_callers: Arc::default(),
            calls: Arc::default(),
            observer: RequestObserver::new(traces.clone(), api.decisions.is_some()).map(Arc::new),
        };
        let oauth_calls = Arc::<CallCounters>::default();
        let server = oauth.is_some().then(|| authorization_server(&settings, &service));
        let phase = watch::Sender::new(Phase::Serving);
        let calls: Vec<Arc<CallCounters>> =
            (0..settings.worker_threads.get()).map(|_| Arc::default()).collect();
        let http_workers = if http.is_some() { settings.worker_threads.get() } else { 0 };
        let http_calls: Vec<Arc<CallCounters>> =
            (0..http_workers).map(|_| Arc::default()).collect();
        let authzen_counters = Arc::<AuthzenCounters>::default();
        let metrics = match settings.metrics {
            Some(address) => {
                let collector = ServerCollector {
                    api: api.clone(),
                    workers: calls.clone(),
                    oauth: server.clone().map(|server| (server, Arc::clone(&oauth_calls))),
                    http: http_address.map(|_| (Arc::clone(&authzen_counters), http_calls.clone())),
                    started: SystemTime::now(),
                    tls: tls.clone(),
                    traces: traces.clone(),
                    events: Arc::clone(&service.connection_events),
                    call_slots: Arc::clone(&service.call_slots),
                    rejected_callers: Arc::clone(&service.rejected_callers),
                    supervisor: Arc::clone(&supervisor),
                };
                Some(serve_metrics(address, collector)?)
            }
            None => None,
        };
        let workers = calls
            .iter()
            .enumerate()
            .map(|(number, calls)| {
                let calls = Arc::clone(calls);
                let service = Service { api: api.for_core(), calls, ..service.clone() };
                let (name, vital) = (format!("core-{number}"), supervisor.vital("core"));
                Worker::start(&name, service, phase.subscribe(), vital)
            })
            .collect::<io::Result<Vec<_>>>();
        let cannot = |error: io::Error| {
            let what = format!("cannot start {} worker threads", settings.worker_threads);
            TransportError::of_system(&what, &error)
        };
        let workers = workers.map_err(cannot)?;
        let events = Arc::clone(&service.connection_events);
        let connection_log = supervisor.task("connection_log", move || {
            let events = Arc::clone(&events);
            async move { events.log(max_connections).await }
        });
        let events = Arc::clone(&service.connection_events);
        let all_calls = calls.iter().chain([&oauth_calls]).chain(&http_calls).cloned().collect();
        let limit = ConnectionLimit { all_calls, max_connections, of_port: usize::MAX };
        let accept_on = |sockets, workers, limit| {
            let (vital, events) = (supervisor.vital("accept"), Arc::clone(&events));
            let accepting = accept(sockets, workers, limit, events, phase.subscribe());
            tokio::spawn(async move {
                let _vital = vital;
                accepting.await
            })
        };
        let mut accepting = Vec::new();
        if let (Some(Bound { socket, .. }), Some(server)) = (oauth, &server) {
            let connections = HttpConnections {
                responder: Arc::clone(server),
                streams: StreamLimits::CLIENTS,
                client_certificates: ClientCertificates::Never,
                tls: tls.clone(),
                calls: Arc::clone(&oauth_calls),
                connection_limits: settings.connection,
                connection_events: Arc::clone(&events),
                stall_timeout: settings.stall_timeout,
                max_header_bytes: settings.max_header_bytes,
                rejected_callers: Arc::clone(&service.rejected_callers),
            };
            let vital = supervisor.vital("oauth");
            let worker = Worker::start("oauth", connections, phase.subscribe(), vital);
            let of_port = share(max_connections);
            let limit = ConnectionLimit { of_port, ..limit.clone() };
            accepting.push(accept_on(vec![socket], vec![worker.map_err(cannot)?], limit));
        }
        if let (Some(Bound { socket, .. }), Some(address)) = (http, http_address) {
            let point = decision_point(&settings, &service, address, authzen_counters);
            let workers = http_calls.iter().enumerate().map(|(number, calls)| {
                let connections = HttpConnections {
                    responder: Arc::new(point.for_core()),
                    streams: StreamLimits::CALLERS,
                    client_certificates: ClientCertificates::AsCallers,
                    tls: tls.clone(),
                    calls: Arc::clone(calls),
                    connection_limits: settings.connection,
                    connection_events: Arc::clone(&events),
                    stall_timeout: settings.stall_timeout,
                    max_header_bytes: settings.max_header_bytes,
                    rejected_callers: Arc::clone(&service.rejected_callers),
                };
                let (name, vital) = (format!("http-{number}"), supervisor.vital("http"));
                Worker::start(&name, connections, phase.subscribe(), vital)
            });
            let workers = workers.collect::<io::Result<Vec<_>>>().map_err(cannot)?;
            accepting.push(accept_on(vec![socket], workers, limit.clone()));
        }
        accepting.push(accept_on(sockets, workers, limit));
        Ok(Self {
            addresses,
            files,
            oauth_address,
            http_address,
            server,
            oauth_calls,
            api,
            health,
            phase,
            accepting,
            calls,
            http_calls,
            traces,
            tls,
            jwks: Arc::new(jwks),
            rejected_callers: service.rejected_callers,
            supervisor,
            _tls_watch: tls_watch,
            _metrics: metrics,
            _connection_log: connection_log,
        })
    }

    /// Reports every service as SERVING while the lease of this authority holds, until the returned
    /// handle is dropped.
    pub(crate) fn set_serving(&self, authority: &Authority) -> Option<AbortOnDropHandle<()>> {
        let lease = authority.lease();
        self.health.serve_under(Arc::clone(lease));
        let health = Arc::clone(&self.health);
        let follow = move || Arc::clone(&health).follow_lease();
        (!lease.is_unlimited()).then(|| self.supervisor.task("health", follow))
    }

    /// Reloads the TLS files and reopens the decision log. SIGHUP triggers it.
    pub(crate) fn reload(&self) {
        tracing::info!("SIGHUP: the files are read again");
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        if let Some(log) = &self.api.decisions {
            log.reopen();
        }
    }

    /// Rejects new calls, lets open calls end, and closes the store. Returns how many calls were
    /// still open at the drain timeout.
    pub(crate) async fn drain(self, timeout: Duration) -> u64 {
        self.health.end();
        self.api.close();
        self.phase.send_replace(Phase::Draining);
        let mut workers = Vec::new();
        for accepting in self.accepting {
            workers.extend(accepting.await.unwrap_or_default());
        }
        let mut ended = tokio::task::spawn_blocking(|| workers.into_iter().for_each(Worker::join));
        if tokio::time::timeout(timeout, &mut ended).await.is_err() {
            tracing::warn!("calls were still open at the drain timeout: they are interrupted");
            self.phase.send_replace(Phase::Terminate);
            ended.await.ok();
        }
        self.rejected_callers.summarize();
        if let Some(server) = &self.server {
            server.summarize();
        }
        if let Some(log) = &self.api.decisions {
            tokio::task::block_in_place(|| log.flush());
        }
        if let Some(traces) = &self.traces {
            tokio::task::block_in_place(|| traces.shutdown());
        }
        if let Some(authority) = self.api.authority() {
            // This joins the writer, which may wait for the disk.
            tokio::task::block_in_place(|| authority.close());
        }
        // The next server gets the paths when this one has closed the store.
        drop(self.files);
        CallCounters::cut(&self.calls)
            + CallCounters::cut(&self.http_calls)
            + self.oauth_calls.cut.read()
    }
}

/// Binds every address, or none.
///
/// # Errors
/// There is none, one is named twice, or one cannot be bound.
fn bind(addresses: &[ListenAddress], mode: u32) -> Result<Vec<Bound>, TransportError> {
    if addresses.is_empty() {
        return Err(TransportError::Config("there is no address to listen on".to_owned()));
    }
    for (number, address) in addresses.iter().enumerate() {
        let chosen_by_system = address.tcp().is_some_and(|address| address.port() == 0);
        if !chosen_by_system && addresses.iter().take(number).any(|before| before == address) {
            return Err(TransportError::Config(format!("--listen names {address} twice")));
        }
    }
    addresses.iter().map(|address| Bound::bind(address, mode)).collect()
}

/// The part of a limit that API clients may have.
fn share(limit: usize) -> usize {
    (limit / OAUTH_SHARE).max(1)
}

/// The authorization server, with its part of the limits.
fn authorization_server(settings: &Settings, service: &Service) -> Arc<AuthorizationServer> {
    Arc::new(AuthorizationServer::new(ServerSettings {
        api: service.api.for_core(),
        authorize_url: settings.authorize_url.clone(),
        observer: service.observer.clone(),
        max_in_flight: share(settings.max_in_flight),
        requests_per_second: settings.key_rate_limit,
        request_timeout: settings.request_timeout,
        rejected_callers: Arc::clone(&service.rejected_callers),
        needs_certificates: settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
    }))
}

/// The answers of the HTTP API at this address.
fn decision_point(
    settings: &Settings,
    service: &Service,
    address: SocketAddr,
    counters: Arc<AuthzenCounters>,
) -> DecisionPoint {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let url = match &settings.http_url {
        Some(url) => Arc::from(&**url),
        None => Arc::from(format!("{scheme}://{address}")),
    };
    DecisionPoint {
        api: service.api.clone(),
        url,
        background: service.background.clone(),
        caller_limits: Arc::clone(&service.caller_limits),
        max_in_flight: service.max_in_flight,
        max_message_bytes: service.max_message_bytes,
        request_timeout: service.request_timeout,
        rejected_callers: Arc::clone(&service.rejected_callers),
        observer: service.observer.clone(),
        counters,
        in_flight: Arc::default(),
        by_key: Arc::default(),
    }
}

/// Starts the exporter of traces.
fn traces(
    settings: &OtlpSettings,
    supervisor: &Arc<Supervisor>,
) -> Result<Arc<Traces>, TransportError> {
    let traces = Traces::start(&settings.endpoint, settings.one_in, supervisor);
    traces.map(Arc::new).map_err(|error| TransportError::Config(error.to_string()))
}

/// Starts the decision log.
fn decision_log(
    settings: &DecisionLogSettings,
    supervisor: &Arc<Supervisor>,
) -> Result<Arc<DecisionLog>, TransportError> {
    let DecisionLogSettings { path, allowed_one_in, bytes_per_second } = settings;
    let cannot = |error: io::Error| {
        TransportError::of_system(&format!("--decision-log {}", path.display()), &error)
    };
    let output = DecisionLogOutput::open(path).map_err(cannot)?;
    let log = DecisionLog::start(output, *allowed_one_in, *bytes_per_second, supervisor);
    log.map(Arc::new).map_err(cannot)
}

/// Serves the collector's metrics until the returned handle is dropped.
fn serve_metrics(
    address: SocketAddr,
    collector: ServerCollector,
) -> Result<AbortOnDropHandle<()>, TransportError> {
    let (listener, _) = listen_socket::bind_tcp(address).map_err(|error| {
        TransportError::of_system(&format!("cannot serve metrics on {address}"), &error)
    })?;
    let (supervisor, events) = (Arc::clone(&collector.supervisor), Arc::clone(&collector.events));
    let (listener, registry) = (Arc::new(listener), collector::registry(collector));
    Ok(supervisor.task("metrics", move || {
        let (listener, registry) = (Arc::clone(&listener), Arc::clone(&registry));
        prometheus::serve(listener, registry, Arc::clone(&events))
    }))
}

/// The services of server reflection, by path.
fn reflection_routes() -> Routes {
    let mut routes = Routes::default();
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes = routes
            .add_service(v1.max_decoding_message_size(MAX_REFLECTION_BYTES))
            .add_service(v1alpha.max_decoding_message_size(MAX_REFLECTION_BYTES));
    }
    routes.prepare()
}

/// How many connections may be open, after the limit of open files was raised.
fn max_connections(settings: &Settings) -> usize {
    let requested = settings.max_connections;
    let limit = file_descriptors::raise();
    let workers = settings.worker_threads.get();
    let allowed = file_descriptors::connections(requested, limit, workers);
    if allowed < requested {
        tracing::warn!(
            max_connections = allowed,
            asked = requested,
            open_files = limit,
            "--max-connections was lowered to fit below the limit of open files: raise that limit \
             (`ulimit -Hn`, LimitNOFILE) or give a lower --max-connections"
        );
    }
    allowed
}

/// How many connections may be open.
#[derive(Clone)]
struct ConnectionLimit {
    /// The counters of all ports.
    all_calls: Vec<Arc<CallCounters>>,
    /// The limit of all ports.
    max_connections: usize,
    /// The limit of this port.
    of_port: usize,
}

/// Hands connections to the workers until the server drains.
async fn accept(
    sockets: Vec<ListenSocket>,
    workers: Vec<Worker>,
    ConnectionLimit { all_calls, max_connections, of_port }: ConnectionLimit,
    events: Arc<ConnectionEvents>,
    mut phase: watch::Receiver<Phase>,
) -> Vec<Worker> {
    let mut turn = 0_usize;
    loop {
        turn = turn.wrapping_add(1);
        let accepted = tokio::select! {
            accepted = accept_any(&sockets, turn) => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return workers,
        };
        let (_, open) = CallCounters::in_flight(&all_calls);
        let of_this_port: usize = workers.iter().map(Worker::open).sum();
        let connection = accepted.and_then(|(connection, peer)| {
            // A small limit is raised by a third at most: it is meant to be small.
            let reserve = match peer.is_local() {
                true => LOOPBACK_RESERVE.min(max_connections / 3),
                false => 0,
            };
            if open >= max_connections.saturating_add(reserve) || of_this_port >= of_port {
                // It is counted before it is closed, which the return does.
                events.at_limit();
                return Ok(None);
            }
            connection.detach().map(Some)
        });
        match (connection, workers.iter().min_by_key(|worker| worker.open())) {
            (Ok(None), _) => {}
            (Ok(Some(connection)), Some(worker)) => worker.take(connection),
            (Err(error), _) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            (Err(error), _) => {
                tracing::debug!(%error, "a connection could not be accepted");
                events.not_accepted();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// The next connection of any of these sockets. The turn is another one each time, so that no socket waits
/// for a flood on another one.
async fn accept_any(sockets: &[ListenSocket], turn: usize) -> io::Result<(Socket, PeerAddress)> {
    poll_fn(|context| {
        let from = turn.checked_rem(sockets.len()).unwrap_or(0);
        let (before, after) = sockets.split_at(from);
        for socket in after.iter().chain(before) {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// The services that health reports. The empty name stands for the whole server.
fn services() -> Vec<&'static str> {
    ["", health::LIVE].into_iter().chain(access::services()).collect()
}

/// The server reflection service, which describes all services.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(proto::envoy::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
