//! Frame: the port, who accepts there, and the cores that answer.
//!
//! One task accepts and hands each connection to the core that has the fewest: a few connections
//! spread as well as many do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tonic::server::NamedService;
use tonic::service::Routes;

use super::activity::Limits;
use super::call_counters::CallCounters;
use super::caller_limits::CallerLimits;
use super::connection::Phase;
use super::file_descriptors;
use super::health::Health;
use super::service::Service;
use super::tls::{Tls, Watch};
use super::worker::Worker;
use crate::grpc::Api;
use crate::metrics::memory_budget::MemoryBudget;
use crate::metrics::supervise::Supervisor;
use crate::observe::decision_log::{DecisionLog, Output};
use crate::observe::incidents::Incidents;
use crate::observe::otlp::Traces;
use crate::observe::prometheus::{self, Metrics};
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::request_log::RequestObserver;
use crate::policy::catalog::file;
use crate::proto;
use crate::proto::authorization_service_server::AuthorizationServiceServer;
use crate::proto::backup_service_server::BackupServiceServer;
use crate::proto::catalog_service_server::CatalogServiceServer;
use crate::proto::change_service_server::ChangeServiceServer;
use crate::proto::directory_service_server::DirectoryServiceServer;
use crate::proto::key_service_server::KeyServiceServer;
use crate::server::StartupError;
use crate::server::args::{Retention, ServeArgs};
use crate::transport::memory_share::MemoryShare;

/// How long to wait when no connection can be accepted, as when all file handles are taken.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// After how long a silent peer is looked for. One that is gone is given up after twice as long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How many connections from loopback addresses may be open beyond the others, so that probes and
/// the commands on this machine reach a server that other peers have filled.
const FOR_LOOPBACK: usize = 8;

/// The most bytes of a question to the reflection: a name.
const MAX_REFLECTION: usize = 4 << 10;

/// The port and what answers there.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) doors: Api,
    health: Arc<Health>,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<Vec<Worker>>,
    calls: Vec<Arc<CallCounters>>,
    traces: Option<Arc<Traces>>,
    tls: Option<Tls>,
    refused: Arc<RejectedCallers>,
    /// Starts what runs for as long as the process.
    pub(crate) supervisor: Arc<Supervisor>,
    _watch: Option<Watch>,
    _metrics: Option<AbortOnDropHandle<()>>,
    /// Of connections that were refused.
    _log: AbortOnDropHandle<()>,
}

impl Listener {
    /// Takes the port and starts the cores. Until the doors are opened every call but those of
    /// health is UNAVAILABLE.
    pub(crate) async fn listen(args: &ServeArgs) -> Result<Self, StartupError> {
        let supervisor: Arc<Supervisor> = Arc::default();
        let tls = Tls::load(args)?;
        let traces = match &args.otlp_endpoint {
            Some(endpoint) => {
                Some(Arc::new(Traces::start(endpoint, args.traces_one_in, &supervisor)?))
            }
            None => None,
        };
        let cannot = |error: io::Error| {
            StartupError::of_system(&format!("cannot listen on {}", args.listen), &error)
        };
        let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let memory = args.call_memory_mib.map(|mib| u64::from(mib) << 20);
        let memory =
            memory.unwrap_or_else(|| MemoryShare::for_cores(args.worker_threads).call_memory);
        let memory = MemoryBudget::new(memory);
        let heartbeat = Duration::from_secs(args.watch_heartbeat.into());
        let doors = Api::new(decision_log(args, &supervisor)?, memory, heartbeat);
        let health = Health::of(services(), Arc::clone(&doors.memory));
        let limit = usize::try_from(args.max_message_bytes).unwrap_or(usize::MAX);
        let mut routes = Routes::new(
            AuthorizationServiceServer::new(doors.clone()).max_decoding_message_size(limit),
        );
        routes = routes
            .add_service(
                DirectoryServiceServer::new(doors.clone()).max_decoding_message_size(limit),
            )
            .add_service(
                // A catalog may be larger than any other message.
                CatalogServiceServer::new(doors.clone())
                    .max_decoding_message_size(limit.max(file::MAX_LEN + 4096)),
            )
            .add_service(ChangeServiceServer::new(doors.clone()).max_decoding_message_size(limit))
            .add_service(KeyServiceServer::new(doors.clone()).max_decoding_message_size(limit))
            .add_service(BackupServiceServer::new(doors.clone()).max_decoding_message_size(limit));
        if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
            routes = routes
                .add_service(v1.max_decoding_message_size(MAX_REFLECTION))
                .add_service(v1alpha.max_decoding_message_size(MAX_REFLECTION));
        }
        let routes = routes.prepare();
        let elsewhere = Handle::current();
        let in_flight = usize::try_from(args.max_in_flight).unwrap_or(usize::MAX);
        let limits = limits(args);
        let incidents = Arc::new(Incidents::default());
        let most = most_connections(args);
        let watch = tls.as_ref().map(|tls| tls.watch(&supervisor));
        let rate = args.key_rate_limit;
        let caller_limits = Arc::new(CallerLimits::new(rate, Arc::clone(&doors.memory)));
        let refused: Arc<RejectedCallers> = Arc::default();
        let service = Service {
            doors: doors.clone(),
            routes,
            tls: tls.clone(),
            elsewhere,
            limit,
            max_header_bytes: usize::try_from(args.max_header_bytes).unwrap_or(usize::MAX),
            health: Arc::clone(&health),
            places: Arc::default(),
            in_flight,
            limits,
            incidents: Arc::clone(&incidents),
            handshake: Duration::from_secs(args.stall_timeout.into()),
            request: Duration::from_secs(args.request_timeout.into()),
            caller_limits,
            refused: Arc::clone(&refused),
            calls: Arc::default(),
            follow: RequestObserver::new(traces.clone(), doors.decisions.is_some()).map(Arc::new),
        };
        let phase = watch::Sender::new(Phase::Serving);
        let calls: Vec<Arc<CallCounters>> =
            (0..args.worker_threads.get()).map(|_| Arc::default()).collect();
        let (own, mut serving_metrics) = (Arc::clone(&supervisor), None);
        if let Some(address) = args.metrics {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                StartupError::of_system(&format!("cannot serve metrics on {address}"), &error)
            })?;
            let started = SystemTime::now();
            let tls = service.tls.clone();
            let (doors, cores, traces) = (doors.clone(), calls.clone(), traces.clone());
            let (incidents, places) = (Arc::clone(&incidents), Arc::clone(&service.places));
            let (supervisor, refused) = (Arc::clone(&supervisor), Arc::clone(&refused));
            let metrics = Metrics {
                doors,
                cores,
                started,
                tls,
                traces,
                incidents: Arc::clone(&incidents),
                places,
                refused,
                supervisor,
            };
            let (listener, registry) = (Arc::new(listener), prometheus::registry(metrics));
            serving_metrics = Some(own.task("metrics", move || {
                let (listener, registry) = (Arc::clone(&listener), Arc::clone(&registry));
                prometheus::serve(listener, registry, Arc::clone(&incidents))
            }));
        }
        let all_calls = calls.clone();
        let cores = calls
            .iter()
            .enumerate()
            .map(|(number, calls)| {
                let calls = Arc::clone(calls);
                let service = Service { doors: doors.for_core(), calls, ..service.clone() };
                Worker::start(number, service, phase.subscribe(), supervisor.vital("core"))
            })
            .collect::<io::Result<Vec<_>>>();
        let cores = cores.map_err(|error| {
            StartupError::of_system(&format!("cannot start {} cores", args.worker_threads), &error)
        })?;
        let logged = Arc::clone(&incidents);
        let log = supervisor.task("connection_log", move || {
            let logged = Arc::clone(&logged);
            async move { logged.log(most).await }
        });
        let vital = supervisor.vital("accept");
        let accepting = accept(listener, cores, most, incidents, phase.subscribe());
        let accepting = tokio::spawn(async move {
            let _vital = vital;
            accepting.await
        });
        let refused = service.refused;
        Ok(Self {
            address,
            doors,
            health,
            phase,
            accepting,
            calls: all_calls,
            traces,
            tls,
            refused,
            supervisor,
            _watch: watch,
            _metrics: serving_metrics,
            _log: log,
        })
    }

    /// Says that every service does its work.
    pub(crate) fn say_serving(&self) {
        self.health.say_serving();
    }

    /// Looks again at the files that change while the server runs: a SIGHUP asks for it.
    pub(crate) fn reload(&self) {
        tracing::info!("SIGHUP: the files are looked at again");
        if let Some(tls) = &self.tls {
            tls.look_now();
        }
        if let Some(log) = &self.doors.decisions {
            log.reopen();
        }
    }

    /// Turns new calls away, lets open ones end, and closes the store. Returns how many calls were
    /// still open when the time was over.
    pub(crate) async fn drain(self, grace: Duration) -> u64 {
        self.health.end();
        self.doors.close();
        self.phase.send_replace(Phase::Draining);
        let cores = self.accepting.await.unwrap_or_default();
        let mut ended = tokio::task::spawn_blocking(|| cores.into_iter().for_each(Worker::join));
        if tokio::time::timeout(grace, &mut ended).await.is_err() {
            tracing::warn!("calls were still open after the time to drain: they are cut off");
            self.phase.send_replace(Phase::Terminate);
            ended.await.ok();
        }
        self.refused.summarize();
        if let Some(log) = &self.doors.decisions {
            tokio::task::block_in_place(|| log.flush());
        }
        if let Some(traces) = &self.traces {
            tokio::task::block_in_place(|| traces.flush());
        }
        if let Some(authority) = self.doors.authority() {
            // Joins the writer, which may wait for the disk.
            tokio::task::block_in_place(|| authority.close());
        }
        CallCounters::cut(&self.calls)
    }
}

/// Where decisions are logged, if they are to be.
fn decision_log(
    args: &ServeArgs,
    supervisor: &Arc<Supervisor>,
) -> Result<Option<Arc<DecisionLog>>, StartupError> {
    let Some(path) = &args.decision_log else { return Ok(None) };
    let cannot = |error: io::Error| {
        StartupError::of_system(&format!("--decision-log {}", path.display()), &error)
    };
    let (output, sample) = (Output::open(path).map_err(cannot)?, args.decision_log_allowed_one_in);
    let rate = args.decision_log_bytes_per_second;
    let log = DecisionLog::start(output, sample, rate, supervisor).map_err(cannot)?;
    Ok(Some(Arc::new(log)))
}

/// How long connections live.
fn limits(args: &ServeArgs) -> Limits {
    let seconds = |count: u32| Duration::from_secs(count.into());
    let age = match args.max_connection_age {
        Retention::Forever => None,
        Retention::Seconds(age) => Some(seconds(age)),
    };
    Limits {
        age,
        grace: seconds(args.max_connection_age_grace),
        first_call: seconds(args.first_call_timeout),
        idle: seconds(args.idle_timeout),
    }
}

/// How many connections may be open, after the limit of open files was raised.
fn most_connections(args: &ServeArgs) -> usize {
    let asked = usize::try_from(args.max_connections).unwrap_or(usize::MAX);
    let limit = file_descriptors::raise();
    let most = file_descriptors::connections(asked, limit, args.worker_threads.get());
    if most < asked {
        tracing::warn!(
            max_connections = most,
            asked,
            open_files = limit,
            "--max-connections was lowered to fit below the limit of open files: raise that limit \
             (`ulimit -Hn`, LimitNOFILE) or give a lower --max-connections"
        );
    }
    most
}

/// Hands connections to the cores until the end begins.
async fn accept(
    listener: TcpListener,
    cores: Vec<Worker>,
    most: usize,
    incidents: Arc<Incidents>,
    mut phase: watch::Receiver<Phase>,
) -> Vec<Worker> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return cores,
        };
        let open: usize = cores.iter().map(Worker::open).sum();
        let connection = accepted.and_then(|(connection, peer)| {
            // Of a small limit, a third: it is meant to be one.
            let kept = if is_local(peer) { FOR_LOOPBACK.min(most / 3) } else { 0 };
            let most = most.saturating_add(kept);
            if open >= most {
                return Ok(None);
            }
            set_socket_options(&connection)?;
            connection.into_std().map(Some)
        });
        match (connection, cores.iter().min_by_key(|core| core.open())) {
            // Closed by being dropped.
            (Ok(None), _) => incidents.at_limit(),
            (Ok(Some(connection)), Some(core)) => core.take(connection),
            (Err(error), _) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            (Err(error), _) => {
                tracing::debug!(%error, "a connection could not be accepted");
                incidents.not_accepted();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// Whether a peer is on this machine.
fn is_local(peer: SocketAddr) -> bool {
    // As IPv6 an IPv4 address is mapped into it.
    peer.ip().to_canonical().is_loopback()
}

/// Finds out by the kernel whether a silent peer is still there: pings of HTTP/2 would have a
/// clock read for every frame.
///
/// The user timeout ends a connection, too, whose peer is there and reads nothing: Linux counts
/// the time for which the peer's window stays shut as it does that of what is not acknowledged.
fn set_socket_options(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let socket = SockRef::from(connection);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_IDLE / 3);
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(KEEPALIVE_IDLE * 2))?;
    Ok(())
}

/// The services whose health is told; the first stands for all.
fn services() -> Vec<&'static str> {
    vec![
        "",
        <AuthorizationServiceServer<Api> as NamedService>::NAME,
        <DirectoryServiceServer<Api> as NamedService>::NAME,
        <CatalogServiceServer<Api> as NamedService>::NAME,
        <ChangeServiceServer<Api> as NamedService>::NAME,
        <KeyServiceServer<Api> as NamedService>::NAME,
        <BackupServiceServer<Api> as NamedService>::NAME,
    ]
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
