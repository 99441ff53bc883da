//! Args: the flags of a server. A flag, its environment variable and its documentation are one thing.
//!
//! Not here: any use of them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::listen_address;
use crate::observe::log::LogFormat;
use crate::policy::catalog::file::duration;
use crate::policy::catalog::file::duration_or_zero;
use crate::store::quota::Quotas;

/// As many threads as this process may run at once.
fn every_core() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// For ever.
    Forever,
    /// For so many seconds.
    Seconds(u32),
}

fn retention(text: &str) -> Result<Retention, &'static str> {
    match text {
        "forever" => Ok(Retention::Forever),
        text => duration(text).map(Retention::Seconds),
    }
}

/// The knobs of a server.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to serve on: HOST:PORT. On any but a loopback address callers need keys, the
    /// first of which `scopegate keys bootstrap` makes. A name is resolved once, at the start; of
    /// one that has other addresses than those of loopback, one of these is served on.
    #[arg(
        long,
        env = "SCOPEGATE_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS",
        value_parser = listen_address::address
    )]
    pub listen: SocketAddr,

    /// The directory of the store. Made if it does not exist.
    #[arg(
        long,
        env = "SCOPEGATE_DATA_DIR",
        default_value = "./scopegate-data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// The catalog file. It seeds an empty store, and is applied again only when it has changed.
    #[arg(long, env = "SCOPEGATE_CATALOG", value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Let the catalog file take scopes and audiences away from the platform.
    #[arg(long, env = "SCOPEGATE_ALLOW_CATALOG_REMOVALS")]
    pub allow_catalog_removals: bool,

    /// Do not start with a catalog file that cannot be used. Without this a server whose store has
    /// a catalog starts with that one, and warns.
    #[arg(long, env = "SCOPEGATE_STRICT_CATALOG")]
    pub strict_catalog: bool,

    /// Bring the store's time back to the machine's clock, if it is ahead of it; for one start,
    /// once the clock is right. What the store held for ended may then be in force again, until it
    /// ends by the clock. The change is in the audit log (`AcceptClock`).
    #[arg(long, env = "SCOPEGATE_ACCEPT_CLOCK")]
    pub accept_clock: bool,

    /// Let anybody who reaches the address read and change everything without a key.
    #[arg(long, env = "SCOPEGATE_ALLOW_UNAUTHENTICATED")]
    pub allow_unauthenticated: bool,

    /// The server's certificate and those between it and its CA, in PEM. With it callers need
    /// TLS. Read again when it changes, as are the key and the client CA.
    #[arg(long, env = "SCOPEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The CA, or several, whose clients may connect, in PEM. Every caller then needs a
    /// certificate of it.
    #[arg(long, env = "SCOPEGATE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// How many facts (companies, credentials) to keep in memory, of about 1 KiB each. Each
    /// core keeps up to half as many besides. By default what fits in a quarter of the memory that
    /// the process may use, with those of the cores: 50 000 at least, 4 000 000 at most.
    #[arg(
        long, env = "SCOPEGATE_CACHE_ENTRIES", value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub cache_entries: Option<u64>,

    /// Also serve metrics for Prometheus, at http://ADDRESS/metrics.
    #[arg(
        long, env = "SCOPEGATE_METRICS", value_name = "ADDRESS", value_parser = listen_address::address
    )]
    pub metrics: Option<SocketAddr>,

    /// Log decisions to this file, one JSON object a line; `-` is standard output. Every denial,
    /// and of allowed decisions a sample. What comes faster than it can be written is dropped.
    /// A SIGHUP opens the file again, as after a rotation.
    #[arg(long, env = "SCOPEGATE_DECISION_LOG", value_name = "FILE")]
    pub decision_log: Option<PathBuf>,

    /// Of so many allowed decisions, log one.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_ALLOWED_ONE_IN", default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub decision_log_allowed_one_in: u64,

    /// How many bytes a second the decision log may have; as many at once. What is above is
    /// dropped and counted, allowed decisions before denials.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_BYTES_PER_SECOND", default_value_t = 16 << 20,
        value_name = "N", value_parser = clap::value_parser!(u32).range(65536..)
    )]
    pub decision_log_bytes_per_second: u32,

    /// Send traces by OTLP over gRPC to this http:// or https:// address. A call is traced if its
    /// caller records a trace and says so (`traceparent`). Spans that come faster than they can be
    /// sent are dropped.
    #[arg(long, env = "SCOPEGATE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Of so many calls whose callers say nothing of a trace, trace one; 0 for none.
    #[arg(
        long,
        env = "SCOPEGATE_TRACES_ONE_IN",
        default_value_t = 0,
        value_name = "N",
        requires = "otlp_endpoint"
    )]
    pub traces_one_in: u64,

    /// How much of the store's pages to keep in memory, in MiB. What is not among the
    /// --cache-entries is read from these pages, and what is not among these from the disk. By
    /// default a thirty-second of the memory that the process may use: 64 at least, 512 at most.
    #[arg(
        long, env = "SCOPEGATE_PAGE_CACHE_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub page_cache_mib: Option<u32>,

    /// How many threads answer. Each has its own connections.
    #[arg(long, env = "SCOPEGATE_WORKER_THREADS", default_value_t = every_core(), value_name = "N")]
    pub worker_threads: NonZeroUsize,

    /// How many connections may be open; more are closed at once, but for a few (up to eight)
    /// from loopback addresses: probes and the commands on this machine. Lowered to what the limit of open files
    /// allows (`ulimit -Hn`).
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTIONS", default_value_t = 20_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connections: u32,

    /// How many calls may be in flight on each core, and half as many of one API key; more are
    /// refused at once, so that those in flight end in time.
    #[arg(
        long, env = "SCOPEGATE_MAX_IN_FLIGHT", default_value_t = 10_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_in_flight: u32,

    /// How many calls a second one API key may make, and as many at once. Check, BatchCheck and
    /// VerifySecret do not count.
    #[arg(
        long, env = "SCOPEGATE_KEY_RATE_LIMIT", default_value_t = 1_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub key_rate_limit: u32,

    /// After how long a connection is asked to end and be made anew, so that clients spread over
    /// new servers: a number with `s`, `m`, `h` or `d`, or `forever`. Give or take a tenth.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE", default_value = "forever",
        value_name = "DURATION", value_parser = retention
    )]
    pub max_connection_age: Retention,

    /// How long calls may stay open after their connection was asked to end. Then they end with
    /// UNAVAILABLE, and the connection is closed.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE_GRACE", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub max_connection_age_grace: u32,

    /// After how long without an open call a connection is asked to end. Clients connect again at
    /// their next call. One on which only health is asked for lives no longer than this.
    #[arg(
        long, env = "SCOPEGATE_IDLE_TIMEOUT", default_value = "5m", value_name = "DURATION",
        value_parser = duration
    )]
    pub idle_timeout: u32,

    /// How long a connection may take until its first call that is accepted: with a key that is
    /// known and permits it.
    #[arg(
        long, env = "SCOPEGATE_FIRST_CALL_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub first_call_timeout: u32,

    /// How long a peer may take for what holds up a connection: the TLS handshake, the first
    /// bytes of HTTP/2, and any frame that it has begun.
    #[arg(
        long, env = "SCOPEGATE_STALL_TIMEOUT", default_value = "10s",
        value_name = "DURATION", value_parser = duration
    )]
    pub stall_timeout: u32,

    /// How long a request may take to come as a whole, once its call has begun. Imports, whose
    /// messages come one after another, may take as long as they like.
    #[arg(
        long, env = "SCOPEGATE_REQUEST_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub request_timeout: u32,

    /// After how long without a change a stream of changes sends its cursor, so that clients and
    /// proxies know that it lives.
    #[arg(
        long, env = "SCOPEGATE_WATCH_HEARTBEAT", default_value = "30s", value_name = "DURATION",
        value_parser = duration
    )]
    pub watch_heartbeat: u32,

    /// The largest message to read, in bytes. A catalog may have 16 MiB, whatever this says.
    #[arg(
        long, env = "SCOPEGATE_MAX_MESSAGE_BYTES", default_value_t = 4 << 20, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..)
    )]
    pub max_message_bytes: u32,

    /// How much memory requests that are read and replies that are sent may hold together, in
    /// MiB; calls that need more are refused. One API key may hold half of it. By default a
    /// sixteenth of the memory that the process may use: 32 at least.
    #[arg(
        long, env = "SCOPEGATE_CALL_MEMORY_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub call_memory_mib: Option<u32>,

    /// The most bytes that the headers of a call may have: of each its name, its value and 32 more
    /// (RFC 9113, section 6.5.2). A call with more is refused (RESOURCE_EXHAUSTED).
    #[arg(
        long, env = "SCOPEGATE_MAX_HEADER_BYTES", default_value_t = 16 << 10, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..=256 << 10)
    )]
    pub max_header_bytes: u32,

    /// How many credentials one company may have. With as many, no more can be created in it.
    #[arg(
        long, env = "SCOPEGATE_MAX_CREDENTIALS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_credentials_per_company: u32,

    /// How many users one company may have. With as many, no more can be created in it.
    #[arg(
        long, env = "SCOPEGATE_MAX_USERS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_users_per_company: u32,

    /// How many consents the users of one company may have given. With as many, no more can be
    /// given.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONSENTS_PER_COMPANY", default_value_t = 2_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_consents_per_company: u32,

    /// How much the changes of one company may write to the store in a day (UTC), in MiB. After
    /// that, only changes that take away are accepted in it until the next day. Counted from the
    /// start of the server.
    #[arg(
        long, env = "SCOPEGATE_MAX_COMPANY_MIB_PER_DAY", default_value_t = 4096,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_company_mib_per_day: u32,

    /// How long to keep changes in the audit log: a number with `s`, `m`, `h` or `d`, such as
    /// `400d`, or `forever`. A restriction can be undone by RestoreGrants only while its change is
    /// kept.
    #[arg(
        long, env = "SCOPEGATE_AUDIT_LOG_RETENTION", default_value = "forever", value_name = "DURATION",
        value_parser = retention
    )]
    pub audit_log_retention: Retention,

    /// How long open calls may continue after a SIGTERM.
    #[arg(
        long, env = "SCOPEGATE_DRAIN_TIMEOUT", default_value = "10s", value_name = "DURATION",
        value_parser = duration_or_zero
    )]
    pub drain_timeout: u32,

    /// Start with the 360Learning catalog, a company `demo` and two credentials to try.
    #[arg(long, env = "SCOPEGATE_DEMO", conflicts_with = "catalog")]
    pub demo: bool,

    /// How to write the log, which goes to standard error.
    #[arg(long, env = "SCOPEGATE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What to log: a level, or directives such as `warn,scopegate=debug`.
    #[arg(long, env = "SCOPEGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

impl ServeArgs {
    /// How much one company may have in the store.
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
