//! Args: the flags of a server, their environment variables and their help.
//!
//! Not here: how they are used; see `server::settings` and [`super::run`].

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::replica_args::ReplicaArgs;
use super::{http_url, own_issuer};
use crate::authority::token_cache::DEFAULT_TOKEN_CACHE_ENTRIES;
use crate::observe::log::LogFormat;
use crate::policy::catalog::file::duration;
use crate::policy::catalog::file::duration_or_zero;
use crate::store::quota::Quotas;
use crate::transport::listen_address::{self, ListenAddress};

/// The number of threads that this process may run at once.
fn available_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A time, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// No limit.
    Forever,
    /// This many seconds.
    Seconds(u32),
}

/// Parses a duration, or `forever`.
fn retention(text: &str) -> Result<Retention, &'static str> {
    match text {
        "forever" => Ok(Retention::Forever),
        text => duration(text).map(Retention::Seconds),
    }
}

/// The shortest time that a key signs, in seconds.
const MIN_ROTATION: u32 = 2 * 24 * 60 * 60;

/// Parses how long a key signs, or `never` for no limit.
fn rotation(text: &str) -> Result<Retention, &'static str> {
    match text {
        "never" => Ok(Retention::Forever),
        "forever" => Err("write `never`, or a number with `s`, `m`, `h` or `d`"),
        text => match duration(text)? {
            seconds if seconds >= MIN_ROTATION => Ok(Retention::Seconds(seconds)),
            _ => Err(
                "is too short: the least is `2d`, because the next key is published a day before",
            ),
        },
    }
}

/// The flags of a server.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to serve on: HOST:PORT, or unix:PATH for a Unix socket. Give it several times, or
    /// several addresses with commas between them, to serve on all of them. On any address except
    /// loopback addresses and Unix sockets callers need keys; `scopegate keys bootstrap` creates the
    /// first one. `[::]:PORT` is every address of IPv6 and IPv4. A name is resolved once, at the
    /// start. If it has an address that is not a loopback address, such an address is used.
    #[arg(
        long,
        env = "SCOPEGATE_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS",
        value_delimiter = ',',
        value_parser = listen_address::listen_address
    )]
    pub listen: Vec<ListenAddress>,

    /// The mode of the files of Unix sockets, in octal. Who may write to the file may connect: Unix
    /// sockets have no TLS.
    #[arg(
        long, env = "SCOPEGATE_LISTEN_MODE", default_value = "0660", value_name = "MODE",
        value_parser = listen_address::mode
    )]
    pub listen_mode: u32,

    /// The directory of the store. It is created if it does not exist.
    #[arg(
        long,
        env = "SCOPEGATE_DATA_DIR",
        default_value = "./scopegate-data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// The catalog file. It is applied to an empty store, and again only when the file has changed. With
    /// --replicate it is applied only if the cluster has no catalog.
    #[arg(long, env = "SCOPEGATE_CATALOG", value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Let the catalog file remove scopes, audiences and issuers from the platform.
    #[arg(long, env = "SCOPEGATE_ALLOW_CATALOG_REMOVALS")]
    pub allow_catalog_removals: bool,

    /// Do not start with a catalog file that cannot be used. Without this flag, a server whose store
    /// has a catalog starts with that catalog and logs a warning.
    #[arg(long, env = "SCOPEGATE_STRICT_CATALOG")]
    pub strict_catalog: bool,

    /// Set the store's time back to the machine's clock, if the store's time is ahead. Use it for one
    /// start, when the clock is right. Grants, credentials and keys that had expired by the store's
    /// time may be valid again until they expire by the clock. The audit log has the change
    /// (`AcceptClock`).
    #[arg(long, env = "SCOPEGATE_ACCEPT_CLOCK")]
    pub accept_clock: bool,

    /// Let every client that reaches the address read and change everything without a key.
    #[arg(long, env = "SCOPEGATE_ALLOW_UNAUTHENTICATED")]
    pub allow_unauthenticated: bool,

    /// The server's certificate and the intermediate certificates, in PEM. With it callers must use
    /// TLS. The file is read again when it changes, like those of the key and the client CA.
    #[arg(long, env = "SCOPEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The CAs of client certificates, in PEM. With it every caller needs a certificate of one of
    /// these CAs.
    #[arg(long, env = "SCOPEGATE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// The directory of the key sets (JWKS) that issuers of the catalog name by `jwks_file`. Its files
    /// are read again when they change.
    #[arg(long, env = "SCOPEGATE_JWKS_DIR", value_name = "DIR")]
    pub jwks_dir: Option<PathBuf>,

    /// The CAs that the `jwks_url` of issuers is verified by, in PEM. The file is read again within a
    /// minute. Default: the CAs of this machine, or those of `SSL_CERT_FILE`.
    #[arg(long, env = "SCOPEGATE_JWKS_CA", value_name = "FILE")]
    pub jwks_ca: Option<PathBuf>,

    /// How many facts (companies, credentials) to keep in memory, of about 1 KiB each.
    /// Default: a quarter of the memory that the process may use holds all of them; 50 000 at
    /// least, 4 000 000 at most.
    #[arg(
        long, env = "SCOPEGATE_CACHE_ENTRIES", value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub cache_entries: Option<u64>,

    /// How many verified access tokens to keep in memory, of about 1 KiB each. 0 keeps none: then the
    /// signature of a token is verified in each check.
    #[arg(
        long, env = "SCOPEGATE_TOKEN_CACHE_ENTRIES", value_name = "N",
        default_value_t = DEFAULT_TOKEN_CACHE_ENTRIES
    )]
    pub token_cache_entries: u64,

    /// Also issue access tokens to API clients, over HTTP at this address: HOST:PORT. Without
    /// --tls-cert the address must be a loopback address, or --issuer an https URL: then a proxy
    /// ends TLS there.
    #[arg(
        long, env = "SCOPEGATE_OAUTH", value_name = "ADDRESS", value_parser = listen_address::address
    )]
    pub oauth: Option<SocketAddr>,

    /// The issuer of the access tokens that this server issues, and accepts: an https URL without a
    /// path, or an http URL of a loopback address. Default: the address of --oauth, if that is a
    /// loopback address.
    #[arg(long, env = "SCOPEGATE_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,

    /// The URL of the platform's own page that authenticates a user and shows the scopes of an
    /// application, for the metadata of --oauth. The page calls CreateAuthorizationCode. Without it the
    /// metadata does not list authorization codes.
    #[arg(
        long, env = "SCOPEGATE_AUTHORIZE_URL", value_name = "URL", requires = "oauth",
        value_parser = own_issuer::authorize_url
    )]
    pub authorize_url: Option<String>,

    /// Also serve the OpenID AuthZEN API over HTTP at this address: HOST:PORT. Callers present the same
    /// keys and certificates as at --listen. On any address except loopback addresses they need keys.
    #[arg(
        long, env = "SCOPEGATE_HTTP", value_name = "ADDRESS", value_parser = listen_address::address
    )]
    pub http: Option<SocketAddr>,

    /// The URL by which others reach --http, for its metadata: scheme and host, without a path.
    /// Default: the address of --http.
    #[arg(
        long, env = "SCOPEGATE_HTTP_URL", value_name = "URL", requires = "http",
        value_parser = http_url::http_url
    )]
    pub http_url: Option<String>,

    /// The directory of the private keys that sign access tokens. It is created if it does not
    /// exist. Default: `signing-keys` in --data-dir.
    #[arg(long, env = "SCOPEGATE_SIGNING_KEYS", value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,

    /// How long a key signs access tokens: a number with `s`, `m`, `h` or `d`, `2d` at least, or `never`. The next key
    /// is published a day before it signs, and the previous key verifies for a day after.
    #[arg(
        long, env = "SCOPEGATE_ROTATE_SIGNING_KEY", default_value = "90d", value_name = "DURATION",
        value_parser = rotation
    )]
    pub rotate_signing_key: Retention,

    /// Also serve metrics for Prometheus at http://ADDRESS/metrics.
    #[arg(
        long, env = "SCOPEGATE_METRICS", value_name = "ADDRESS", value_parser = listen_address::address
    )]
    pub metrics: Option<SocketAddr>,

    /// Log decisions to this file, one JSON object a line; `-` is standard output. Every denial is
    /// logged, and a sample of the allowed decisions. Decisions that come faster than they can be
    /// written are dropped. SIGHUP opens the file again, for example after a rotation.
    #[arg(long, env = "SCOPEGATE_DECISION_LOG", value_name = "FILE")]
    pub decision_log: Option<PathBuf>,

    /// Log one of this many allowed decisions.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_ALLOWED_ONE_IN", default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub decision_log_allowed_one_in: u64,

    /// The limit of the decision log in bytes a second, and the size of a burst. Decisions above the
    /// limit are dropped and counted, allowed decisions before denials.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_BYTES_PER_SECOND", default_value_t = 16 << 20,
        value_name = "N", value_parser = clap::value_parser!(u32).range(65536..)
    )]
    pub decision_log_bytes_per_second: u32,

    /// Send traces by OTLP over gRPC to this http:// or https:// address. A call is traced if its
    /// `traceparent` header has the sampled flag. Spans that come faster than they can be sent are
    /// dropped.
    #[arg(long, env = "SCOPEGATE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Trace one of this many calls without a `traceparent` header; 0 for none.
    #[arg(
        long,
        env = "SCOPEGATE_TRACES_ONE_IN",
        default_value_t = 0,
        value_name = "N",
        requires = "otlp_endpoint"
    )]
    pub traces_one_in: u64,

    /// How much of the store's pages to keep in memory, in MiB. A fact that is not in the cache of
    /// --cache-entries is read from these pages, or else from the disk. Default: a thirty-second of
    /// the memory that the process may use; 64 at least, 512 at most.
    #[arg(
        long, env = "SCOPEGATE_PAGE_CACHE_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub page_cache_mib: Option<u32>,

    /// How many worker threads answer calls. Each has its own connections. Default: the number of
    /// cores.
    #[arg(long, env = "SCOPEGATE_WORKER_THREADS", default_value_t = available_cores(), value_name = "N")]
    pub worker_threads: NonZeroUsize,

    /// How many connections may be open. More are closed at once, except up to eight from loopback
    /// addresses, for probes and the commands on this machine. The number is lowered to fit the
    /// limit of open files (`ulimit -Hn`).
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTIONS", default_value_t = 20_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connections: u32,

    /// How many calls may be in flight on each worker, and half as many of one API key. More are
    /// rejected at once, so that the calls in flight end in time.
    #[arg(
        long, env = "SCOPEGATE_MAX_IN_FLIGHT", default_value_t = 10_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_in_flight: u32,

    /// How many calls a second one API key may make, and the size of a burst. Check, BatchCheck and
    /// VerifySecret do not count.
    #[arg(
        long, env = "SCOPEGATE_KEY_RATE_LIMIT", default_value_t = 1_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub key_rate_limit: u32,

    /// The maximum age of a connection: a number with `s`, `m`, `h` or `d`, or `forever`. The client
    /// is then asked to connect again, so that clients spread over new servers. The age varies by a
    /// tenth.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE", default_value = "forever",
        value_name = "DURATION", value_parser = retention
    )]
    pub max_connection_age: Retention,

    /// How long calls may stay open after their connection was asked to end. After that they end
    /// with UNAVAILABLE, and the connection is closed.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE_GRACE", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub max_connection_age_grace: u32,

    /// How long a connection may be open without an open call. Clients connect again at their next
    /// call. A connection with health calls only is open for this time at most.
    #[arg(
        long, env = "SCOPEGATE_IDLE_TIMEOUT", default_value = "5m", value_name = "DURATION",
        value_parser = duration
    )]
    pub idle_timeout: u32,

    /// How long a connection may take until its first accepted call, that is, a call with a known key
    /// that permits it.
    #[arg(
        long, env = "SCOPEGATE_FIRST_CALL_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub first_call_timeout: u32,

    /// How long a peer may take for a TLS handshake, for the HTTP/2 preface, and for each frame that
    /// it has begun. And how long the peer of a Unix socket may read nothing of what it is sent.
    #[arg(
        long, env = "SCOPEGATE_STALL_TIMEOUT", default_value = "10s",
        value_name = "DURATION", value_parser = duration
    )]
    pub stall_timeout: u32,

    /// How long a request may take to arrive completely, after its call has begun. Imports have no
    /// such limit: their messages come one after another.
    #[arg(
        long, env = "SCOPEGATE_REQUEST_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub request_timeout: u32,

    /// How long a stream of changes is silent before it sends its cursor, so that clients and proxies
    /// see that it is alive.
    #[arg(
        long, env = "SCOPEGATE_WATCH_HEARTBEAT", default_value = "30s", value_name = "DURATION",
        value_parser = duration
    )]
    pub watch_heartbeat: u32,

    /// The limit of a message, in bytes. A catalog may always have 16 MiB.
    #[arg(
        long, env = "SCOPEGATE_MAX_MESSAGE_BYTES", default_value_t = 4 << 20, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..)
    )]
    pub max_message_bytes: u32,

    /// How much memory the requests and replies of all calls may hold, in MiB. Calls that need more
    /// are rejected. One API key may hold half of it. Default: a sixteenth of the memory that the
    /// process may use; 32 at least.
    #[arg(
        long, env = "SCOPEGATE_CALL_MEMORY_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub call_memory_mib: Option<u32>,

    /// The limit of the headers of a call, in bytes. Each header counts as its name, its value and 32
    /// more (RFC 9113, section 6.5.2). A call with more is rejected (RESOURCE_EXHAUSTED).
    #[arg(
        long, env = "SCOPEGATE_MAX_HEADER_BYTES", default_value_t = 16 << 10, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..=256 << 10)
    )]
    pub max_header_bytes: u32,

    /// How many credentials one company may have. At the limit no more can be created.
    #[arg(
        long, env = "SCOPEGATE_MAX_CREDENTIALS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_credentials_per_company: u32,

    /// How many users one company may have. At the limit no more can be created.
    #[arg(
        long, env = "SCOPEGATE_MAX_USERS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_users_per_company: u32,

    /// How many consents the users of one company may have given. At the limit no more can be
    /// given.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONSENTS_PER_COMPANY", default_value_t = 2_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_consents_per_company: u32,

    /// How much the changes of one company may write to the store in a day (UTC), in MiB. Above it
    /// only changes that remove rights are accepted in the company until the next day. The count
    /// starts with the server.
    #[arg(
        long, env = "SCOPEGATE_MAX_COMPANY_MIB_PER_DAY", default_value_t = 4096,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_company_mib_per_day: u32,

    /// How long to keep changes in the audit log: a number with `s`, `m`, `h` or `d`, such as
    /// `400d`, or `forever`. RestoreGrants can undo a restriction only while the log has its
    /// change.
    #[arg(
        long, env = "SCOPEGATE_AUDIT_LOG_RETENTION", default_value = "forever", value_name = "DURATION",
        value_parser = retention
    )]
    pub audit_log_retention: Retention,

    /// How long open calls may continue after SIGTERM or SIGINT.
    #[arg(
        long, env = "SCOPEGATE_DRAIN_TIMEOUT", default_value = "10s", value_name = "DURATION",
        value_parser = duration_or_zero
    )]
    pub drain_timeout: u32,

    /// Start with the 360Learning catalog, a company `demo` and two credentials, for a trial.
    #[arg(long, env = "SCOPEGATE_DEMO", conflicts_with = "catalog")]
    pub demo: bool,

    /// The flags of a replica.
    #[command(flatten)]
    pub replica: ReplicaArgs,

    /// The format of the log, which goes to standard error.
    #[arg(long, env = "SCOPEGATE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// The log filter: a level, or directives such as `warn,scopegate=debug`.
    #[arg(long, env = "SCOPEGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

impl ServeArgs {
    /// The limits of one company in the store.
    #[must_use]
    pub fn company_bounds(&self) -> Quotas {
        Quotas {
            credentials: self.max_credentials_per_company,
            users: self.max_users_per_company,
            consents: self.max_consents_per_company,
            bytes_per_day: u64::from(self.max_company_mib_per_day) << 20,
        }
    }
}
