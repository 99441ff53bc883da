//! Settings: the values that the listener and the observers of its calls are started with.
//!
//! Not here: the flags and their defaults; see `server::args`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::jwks::JwksSettings;
use super::listen_address::ListenAddress;

/// The settings of a [`super::listener::Listener`].
pub(crate) struct Settings {
    /// The addresses to serve on.
    pub(crate) listen: Vec<ListenAddress>,
    /// The mode of the files of Unix sockets.
    pub(crate) listen_mode: u32,
    /// The address for API clients, if the authorization server is on.
    pub(crate) oauth: Option<SocketAddr>,
    /// The page of the platform on which a user gives scopes to an application.
    pub(crate) authorize_url: Option<Box<str>>,
    /// The address of the HTTP API, if it is on.
    pub(crate) http: Option<SocketAddr>,
    /// The public URL of the HTTP API, if it is another than its address.
    pub(crate) http_url: Option<Box<str>>,
    /// How many workers there are.
    pub(crate) worker_threads: NonZeroUsize,
    /// The files for TLS. None: connections are plain text.
    pub(crate) tls: Option<TlsFiles>,
    /// Where the key sets of issuers may be read.
    pub(crate) jwks: JwksSettings,
    /// How many connections may be open, before the limit of open files is applied.
    pub(crate) max_connections: usize,
    /// How long a connection may be open.
    pub(crate) connection: ConnectionLimits,
    /// How long a peer may take for a TLS handshake, or for a frame that it has begun.
    pub(crate) stall_timeout: Duration,
    /// How long a request may take to arrive completely.
    pub(crate) request_timeout: Duration,
    /// How many calls may be in flight on one worker.
    pub(crate) max_in_flight: usize,
    /// How many calls a second one API key may make.
    pub(crate) key_rate_limit: u32,
    /// The limit of one message, in bytes.
    pub(crate) max_message_bytes: usize,
    /// The limit of the headers of one call, in bytes.
    pub(crate) max_header_bytes: usize,
    /// How many bytes may be held for the requests and replies of all callers.
    pub(crate) call_memory: u64,
    /// How long a stream of changes is silent before it sends its cursor.
    pub(crate) watch_heartbeat: Duration,
    /// The address of the metrics endpoint, if metrics are served.
    pub(crate) metrics: Option<SocketAddr>,
    /// The decision log, if there is one.
    pub(crate) decision_log: Option<DecisionLogSettings>,
    /// The OTLP collector, if traces are sent.
    pub(crate) otlp: Option<OtlpSettings>,
}

/// The files for TLS.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    /// The certificate chain of the server.
    pub(crate) cert: PathBuf,
    /// The private key of the certificate.
    pub(crate) key: PathBuf,
    /// The CAs of client certificates. None: clients need no certificate.
    pub(crate) client_ca: Option<PathBuf>,
}

/// How long a connection may be open.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The maximum age of a connection, if it is bounded.
    pub(crate) age: Option<Duration>,
    /// How long calls may stay open after their connection was asked to end.
    pub(crate) grace: Duration,
    /// How long a connection may be open before its first accepted call.
    pub(crate) first_call: Duration,
    /// How long a connection may be open without an open call.
    pub(crate) idle: Duration,
}

/// The settings of the decision log.
pub(crate) struct DecisionLogSettings {
    /// The file, or `-` for standard output.
    pub(crate) path: PathBuf,
    /// One of this many allowed decisions is logged.
    pub(crate) allowed_one_in: u64,
    /// The limit of the log, in bytes a second.
    pub(crate) bytes_per_second: u32,
}

/// The settings of the trace exporter.
pub(crate) struct OtlpSettings {
    /// The address of the collector.
    pub(crate) endpoint: String,
    /// One of this many calls without a trace of their own is traced. 0: none of them.
    pub(crate) one_in: u64,
}
