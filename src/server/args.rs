//! Serve arguments: the flags of `scopegate serve`, each with its environment variable and its help.
//!
//! Not here: what the server does with them; see [`crate::server`].

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::listen_address;
use crate::observe::log::LogFormat;
use crate::policy::catalog::file::duration;
use crate::policy::catalog::file::duration_or_zero;
use crate::store::quota::Quotas;

/// The number of threads that this process can run in parallel.
fn default_workers() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A retention period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// For ever.
    Forever,
    /// A number of seconds.
    Seconds(u32),
}

fn retention(text: &str) -> Result<Retention, &'static str> {
    match text {
        "forever" => Ok(Retention::Forever),
        text => duration(text).map(Retention::Seconds),
    }
}

/// The flags of a server.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on: HOST:PORT. On any but a loopback address callers need API keys;
    /// `scopegate keys bootstrap` creates the first one. A name is resolved once, at the start. If it
    /// has loopback and other addresses, the server listens on one of the others.
    #[arg(
        long,
        env = "SCOPEGATE_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS",
        value_parser = listen_address::address
    )]
    pub listen: SocketAddr,

    /// The directory of the store. Created if it does not exist.
    #[arg(
        long,
        env = "SCOPEGATE_DATA_DIR",
        default_value = "./scopegate-data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// The catalog file. It is applied to an empty store, and again only when the file has changed.
    #[arg(long, env = "SCOPEGATE_CATALOG", value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Allow the catalog file to remove scopes and audiences.
    #[arg(long, env = "SCOPEGATE_ALLOW_CATALOG_REMOVALS")]
    pub allow_catalog_removals: bool,

    /// Exit if the catalog file cannot be applied. By default a server whose store has a catalog
    /// starts with that catalog and logs a warning.
    #[arg(long, env = "SCOPEGATE_STRICT_CATALOG")]
    pub strict_catalog: bool,

    /// Set the time of the store back to the clock of the machine, if the store is ahead. Use it for
    /// one start, after the clock has been corrected. Grants and secrets that the store held for
    /// expired may be valid again until they expire by the clock. The audit log records the change
    /// (`AcceptClock`).
    #[arg(long, env = "SCOPEGATE_ACCEPT_CLOCK")]
    pub accept_clock: bool,

    /// Allow every client that can connect to read and change everything without an API key.
    #[arg(long, env = "SCOPEGATE_ALLOW_UNAUTHENTICATED")]
    pub allow_unauthenticated: bool,

    /// The certificate of the server and its intermediate certificates, in PEM. It enables TLS, which
    /// callers then must use. The certificate, its key and the client CA are reloaded when their files
    /// change.
    #[arg(long, env = "SCOPEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The CA certificates for client certificates, in PEM. Every caller then needs a client
    /// certificate of one of these CAs.
    #[arg(long, env = "SCOPEGATE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// The number of facts (companies, credentials) in the shared (L2) cache, of about 1 KiB each. The
    /// L1 cache of each core has up to half as many. By default all caches together fit in a quarter
    /// of the memory that the process may use: at least 50 000, at most 4 000 000.
    #[arg(
        long, env = "SCOPEGATE_CACHE_ENTRIES", value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub cache_entries: Option<u64>,

    /// The address for Prometheus metrics, at http://ADDRESS/metrics. By default none.
    #[arg(
        long, env = "SCOPEGATE_METRICS", value_name = "ADDRESS", value_parser = listen_address::address
    )]
    pub metrics: Option<SocketAddr>,

    /// The file for the decision log, one JSON object a line; `-` for standard output. It has every
    /// denial and a sample of the allowed decisions. Entries that cannot be written in time are
    /// dropped. SIGHUP reopens the file, for log rotation.
    #[arg(long, env = "SCOPEGATE_DECISION_LOG", value_name = "FILE")]
    pub decision_log: Option<PathBuf>,

    /// Log one of N allowed decisions.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_ALLOWED_ONE_IN", default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub decision_log_allowed_one_in: u64,

    /// The maximum rate of the decision log in bytes per second, and the maximum burst in bytes.
    /// Entries above it are dropped and counted, allowed decisions before denials.
    #[arg(
        long, env = "SCOPEGATE_DECISION_LOG_BYTES_PER_SECOND", default_value_t = 16 << 20,
        value_name = "N", value_parser = clap::value_parser!(u32).range(65536..)
    )]
    pub decision_log_bytes_per_second: u32,

    /// Send traces by OTLP over gRPC to this http:// or https:// address. A call is traced if its
    /// `traceparent` header has the sampled flag. Spans that cannot be sent in time are dropped.
    #[arg(long, env = "SCOPEGATE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Trace one of N calls without a `traceparent` header; 0 for none.
    #[arg(
        long,
        env = "SCOPEGATE_TRACES_ONE_IN",
        default_value_t = 0,
        value_name = "N",
        requires = "otlp_endpoint"
    )]
    pub traces_one_in: u64,

    /// The size of the page cache of the store, in MiB. Facts that are not in the fact cache
    /// (--cache-entries) are read from these pages, and other pages from disk. By default 1/32 of the
    /// memory that the process may use: at least 64, at most 512.
    #[arg(
        long, env = "SCOPEGATE_PAGE_CACHE_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub page_cache_mib: Option<u32>,

    /// The number of worker threads. Each has its own connections.
    #[arg(long, env = "SCOPEGATE_WORKER_THREADS", default_value_t = default_workers(), value_name = "N")]
    pub worker_threads: NonZeroUsize,

    /// The maximum number of open connections. Further ones are closed at once, except up to eight from
    /// loopback addresses, for probes and for commands on this machine. Lowered if the limit of open
    /// files (`ulimit -Hn`) is too low.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTIONS", default_value_t = 20_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connections: u32,

    /// The maximum number of calls in flight on each worker; one API key may have half of them. Further
    /// calls are rejected at once, so that the calls in flight can finish.
    #[arg(
        long, env = "SCOPEGATE_MAX_IN_FLIGHT", default_value_t = 10_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_in_flight: u32,

    /// The maximum number of calls per second of one API key, and the maximum burst. Check, BatchCheck
    /// and VerifySecret do not count.
    #[arg(
        long, env = "SCOPEGATE_KEY_RATE_LIMIT", default_value_t = 1_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub key_rate_limit: u32,

    /// The age after which the server asks a client to reconnect (GOAWAY), so that clients spread over
    /// new servers: a number with `s`, `m`, `h` or `d`, or `forever`. Varied by up to a tenth.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE", default_value = "forever",
        value_name = "DURATION", value_parser = retention
    )]
    pub max_connection_age: Retention,

    /// How long calls may continue after the server has sent GOAWAY. Then they end with UNAVAILABLE,
    /// and the connection is closed.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONNECTION_AGE_GRACE", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub max_connection_age_grace: u32,

    /// The time without an open call after which a connection is closed (GOAWAY). Clients reconnect for
    /// their next call. A connection with only health checks is closed after this time, too.
    #[arg(
        long, env = "SCOPEGATE_IDLE_TIMEOUT", default_value = "5m", value_name = "DURATION",
        value_parser = duration
    )]
    pub idle_timeout: u32,

    /// The time within which a connection must make its first accepted call, with a valid API key that
    /// permits the call.
    #[arg(
        long, env = "SCOPEGATE_FIRST_CALL_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub first_call_timeout: u32,

    /// The time within which a peer must complete the TLS handshake, the first bytes of HTTP/2, and any
    /// frame that it has begun.
    #[arg(
        long, env = "SCOPEGATE_STALL_TIMEOUT", default_value = "10s",
        value_name = "DURATION", value_parser = duration
    )]
    pub stall_timeout: u32,

    /// The time within which a request must arrive completely, after its call has begun. An import,
    /// which is a stream of messages, may take any time.
    #[arg(
        long, env = "SCOPEGATE_REQUEST_TIMEOUT", default_value = "30s",
        value_name = "DURATION", value_parser = duration
    )]
    pub request_timeout: u32,

    /// The time without a change after which a stream of changes sends its cursor, so that clients and
    /// proxies see that the stream is open.
    #[arg(
        long, env = "SCOPEGATE_WATCH_HEARTBEAT", default_value = "30s", value_name = "DURATION",
        value_parser = duration
    )]
    pub watch_heartbeat: u32,

    /// The maximum size of a request message in bytes. A catalog may always have 16 MiB.
    #[arg(
        long, env = "SCOPEGATE_MAX_MESSAGE_BYTES", default_value_t = 4 << 20, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..)
    )]
    pub max_message_bytes: u32,

    /// The maximum memory for requests that are read and responses that are sent, in MiB. Calls that
    /// need more are rejected. One API key may use half of it. By default 1/16 of the memory that the
    /// process may use: at least 32.
    #[arg(
        long, env = "SCOPEGATE_CALL_MEMORY_MIB", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub call_memory_mib: Option<u32>,

    /// The maximum size of the headers of a call in bytes. Each header counts its name, its value and
    /// 32 bytes (RFC 9113, section 6.5.2). A larger call is rejected (RESOURCE_EXHAUSTED).
    #[arg(
        long, env = "SCOPEGATE_MAX_HEADER_BYTES", default_value_t = 16 << 10, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1024..=256 << 10)
    )]
    pub max_header_bytes: u32,

    /// The maximum number of credentials of one company.
    #[arg(
        long, env = "SCOPEGATE_MAX_CREDENTIALS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_credentials_per_company: u32,

    /// The maximum number of users of one company.
    #[arg(
        long, env = "SCOPEGATE_MAX_USERS_PER_COMPANY", default_value_t = 1_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_users_per_company: u32,

    /// The maximum number of consents of the users of one company.
    #[arg(
        long, env = "SCOPEGATE_MAX_CONSENTS_PER_COMPANY", default_value_t = 2_000_000,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_consents_per_company: u32,

    /// The maximum that changes of one company may write to the store in a day (UTC), in MiB. Above it,
    /// only changes that remove access are accepted until the next day. The count starts at zero when
    /// the server starts.
    #[arg(
        long, env = "SCOPEGATE_MAX_COMPANY_MIB_PER_DAY", default_value_t = 4096,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_company_mib_per_day: u32,

    /// The retention of changes in the audit log: a number with `s`, `m`, `h` or `d`, such as `400d`, or
    /// `forever`. RestoreGrants can undo a restriction only while its change is retained.
    #[arg(
        long, env = "SCOPEGATE_AUDIT_LOG_RETENTION", default_value = "forever", value_name = "DURATION",
        value_parser = retention
    )]
    pub audit_log_retention: Retention,

    /// How long open calls may continue after SIGTERM.
    #[arg(
        long, env = "SCOPEGATE_DRAIN_TIMEOUT", default_value = "10s", value_name = "DURATION",
        value_parser = duration_or_zero
    )]
    pub drain_timeout: u32,

    /// Start with the 360Learning catalog, a company `demo` and two credentials, for a trial.
    #[arg(long, env = "SCOPEGATE_DEMO", conflicts_with = "catalog")]
    pub demo: bool,

    /// The format of the log, which is written to standard error.
    #[arg(long, env = "SCOPEGATE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// The log filter: a level, or directives such as `warn,scopegate=debug`.
    #[arg(long, env = "SCOPEGATE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

impl ServeArgs {
    /// The quotas of one company.
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
