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
use tonic_health::ServingStatus;

use super::Failure;
use super::calls::Calls;
use super::connection::Phase;
use super::core::Core;
use super::follow::Follow;
use super::health::Health;
use super::metrics::{self, Metrics};
use super::quota::Quota;
use super::refused_callers::RefusedCallers;
use super::service::Service;
use super::tls::{Tls, Watch};
use super::traces::Traces;
use crate::config::memory::Share;
use crate::config::{Retention, ServeArgs};
use crate::grpc::Doors;
use crate::grpc::decisions::{Decisions, Output};
use crate::measure::memory::MemoryBudget;
use crate::measure::supervise::Supervisor;
use crate::policy::catalog::file;
use crate::proto;
use crate::proto::authorization_service_server::AuthorizationServiceServer;
use crate::proto::backup_service_server::BackupServiceServer;
use crate::proto::catalog_service_server::CatalogServiceServer;
use crate::proto::change_service_server::ChangeServiceServer;
use crate::proto::directory_service_server::DirectoryServiceServer;
use crate::proto::key_service_server::KeyServiceServer;

/// How long to wait when no connection can be accepted, as when all file handles are taken.
const BREATH: Duration = Duration::from_millis(20);

/// After how long a silent peer is looked for. One that is gone is given up after twice as long.
const SILENCE: Duration = Duration::from_secs(30);

/// The port and what answers there.
pub(super) struct Frame {
    pub(super) address: SocketAddr,
    pub(super) doors: Doors,
    health: Health,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<Vec<Core>>,
    traces: Option<Arc<Traces>>,
    refused: Arc<RefusedCallers>,
    /// Who starts what runs for as long as the process.
    pub(super) supervisor: Arc<Supervisor>,
    _watch: Option<Watch>,
    _metrics: Option<AbortOnDropHandle<()>>,
}

impl Frame {
    /// Takes the port and starts the cores. Until the doors are opened every call but those of
    /// health is UNAVAILABLE.
    pub(super) async fn listen(args: &ServeArgs) -> Result<Self, Failure> {
        let supervisor: Arc<Supervisor> = Arc::default();
        let tls = Tls::load(args)?;
        let traces = match &args.traces_endpoint {
            Some(endpoint) => {
                Some(Arc::new(Traces::start(endpoint, args.traces_sample, &supervisor)?))
            }
            None => None,
        };
        let cannot = |error: io::Error| {
            Failure::Config(format!("cannot listen on {}: {}", args.listen, error.kind()))
        };
        let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let memory = MemoryBudget::new(Share::fitting(args.cores).call_memory);
        let doors = Doors::new(decision_log(args, &supervisor)?, memory);
        let (health, health_service) = Health::of(services()).await;
        let limit = usize::try_from(args.max_message_bytes).unwrap_or(usize::MAX);
        let mut routes = Routes::new(health_service)
            .add_service(
                AuthorizationServiceServer::new(doors.clone()).max_decoding_message_size(limit),
            )
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
            routes = routes.add_service(v1).add_service(v1alpha);
        }
        let routes = routes.prepare();
        let elsewhere = Handle::current();
        let in_flight = usize::try_from(args.max_in_flight).unwrap_or(usize::MAX);
        let age = match args.max_connection_age {
            Retention::Forever => None,
            Retention::Seconds(age) => Some(Duration::from_secs(age.into())),
        };
        let watch = tls.as_ref().map(|tls| tls.watch(&supervisor));
        let quota = Arc::new(Quota::new(args.max_admin_calls_per_second));
        let refused: Arc<RefusedCallers> = Arc::default();
        let service = Service {
            doors: doors.clone(),
            routes,
            tls,
            elsewhere,
            limit,
            in_flight,
            age,
            handshake: Duration::from_secs(args.handshake_timeout.into()),
            request: Duration::from_secs(args.request_timeout.into()),
            quota,
            refused: Arc::clone(&refused),
            calls: Arc::default(),
            follow: Follow::new(traces.clone(), doors.decisions.is_some()).map(Arc::new),
        };
        let phase = watch::Sender::new(Phase::Serving);
        let calls: Vec<Arc<Calls>> = (0..args.cores.get()).map(|_| Arc::default()).collect();
        let (own, mut serving_metrics) = (Arc::clone(&supervisor), None);
        if let Some(address) = args.metrics {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                Failure::Config(format!("cannot serve metrics on {address}: {}", error.kind()))
            })?;
            let started = SystemTime::now();
            let tls = service.tls.clone();
            let (doors, cores, traces) = (doors.clone(), calls.clone(), traces.clone());
            let supervisor = Arc::clone(&supervisor);
            let refused = Arc::clone(&refused);
            let metrics = Metrics { doors, cores, started, tls, traces, refused, supervisor };
            let (listener, registry) = (Arc::new(listener), metrics::registry(metrics));
            serving_metrics = Some(own.task("metrics", move || {
                metrics::serve(Arc::clone(&listener), Arc::clone(&registry))
            }));
        }
        let cores = calls
            .iter()
            .enumerate()
            .map(|(number, calls)| {
                let calls = Arc::clone(calls);
                let service = Service { doors: doors.elsewhere(), calls, ..service.clone() };
                Core::start(number, service, phase.subscribe(), supervisor.vital("core"))
            })
            .collect::<io::Result<Vec<_>>>();
        let cores = cores.map_err(|error| {
            Failure::Config(format!("cannot start {} cores: {}", args.cores, error.kind()))
        })?;
        let most = usize::try_from(args.max_connections).unwrap_or(usize::MAX);
        let vital = supervisor.vital("accept");
        let accepting = accept(listener, cores, most, phase.subscribe());
        let accepting = tokio::spawn(async move {
            let _vital = vital;
            accepting.await
        });
        let (_watch, _metrics) = (watch, serving_metrics);
        let refused = service.refused;
        Ok(Self {
            address,
            doors,
            health,
            phase,
            accepting,
            traces,
            refused,
            supervisor,
            _watch,
            _metrics,
        })
    }

    /// Says that every service does its work.
    pub(super) async fn say_serving(&self) {
        self.health.say(ServingStatus::Serving).await;
    }

    /// Turns new calls away, lets open ones end, and closes the store.
    pub(super) async fn drain(mut self, grace: Duration) {
        self.health.end().await;
        self.doors.close();
        self.phase.send_replace(Phase::Draining);
        let cores = self.accepting.await.unwrap_or_default();
        let mut ended = tokio::task::spawn_blocking(|| cores.into_iter().for_each(Core::join));
        if tokio::time::timeout(grace, &mut ended).await.is_err() {
            tracing::warn!("calls were still open after the time to drain: they are cut off");
            self.phase.send_replace(Phase::Over);
            ended.await.ok();
        }
        self.refused.summarize();
        if let Some(log) = &self.doors.decisions {
            tokio::task::block_in_place(|| log.settle());
        }
        if let Some(traces) = &self.traces {
            tokio::task::block_in_place(|| traces.settle());
        }
        if let Some(authority) = self.doors.authority() {
            // Joins the writer, which may wait for the disk.
            tokio::task::block_in_place(|| authority.close());
        }
    }
}

/// Where decisions are logged, if they are to be.
fn decision_log(
    args: &ServeArgs,
    supervisor: &Arc<Supervisor>,
) -> Result<Option<Arc<Decisions>>, Failure> {
    let Some(path) = &args.decision_log else { return Ok(None) };
    let cannot = |error: io::Error| {
        Failure::Config(format!("--decision-log {}: {}", path.display(), error.kind()))
    };
    let (output, sample) = (Output::open(path).map_err(cannot)?, args.decision_log_sample);
    let rate = args.decision_log_bytes_per_second;
    let log = Decisions::start(output, sample, rate, supervisor).map_err(cannot)?;
    Ok(Some(Arc::new(log)))
}

/// Hands connections to the cores until the end begins.
async fn accept(
    listener: TcpListener,
    cores: Vec<Core>,
    most: usize,
    mut phase: watch::Receiver<Phase>,
) -> Vec<Core> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return cores,
        };
        let connection = accepted.and_then(|(connection, _)| {
            tune(&connection)?;
            connection.into_std()
        });
        let open: usize = cores.iter().map(Core::open).sum();
        match (connection, cores.iter().min_by_key(|core| core.open())) {
            // Closed by being dropped.
            (Ok(_), _) if open >= most => {}
            (Ok(connection), Some(core)) => core.take(connection),
            (Err(error), _) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// Finds out by the kernel whether a silent peer is still there: pings of HTTP/2 would have a
/// clock read for every frame.
///
/// The user timeout ends a connection, too, whose peer is there and reads nothing: Linux counts
/// the time for which the peer's window stays shut as it does that of what is not acknowledged.
fn tune(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let socket = SockRef::from(connection);
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3);
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE * 2))?;
    Ok(())
}

/// The services whose health is told; the first stands for all.
fn services() -> Vec<&'static str> {
    vec![
        "",
        <AuthorizationServiceServer<Doors> as NamedService>::NAME,
        <DirectoryServiceServer<Doors> as NamedService>::NAME,
        <CatalogServiceServer<Doors> as NamedService>::NAME,
        <ChangeServiceServer<Doors> as NamedService>::NAME,
        <KeyServiceServer<Doors> as NamedService>::NAME,
        <BackupServiceServer<Doors> as NamedService>::NAME,
    ]
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
