//! Settings: what the flags of a server mean for its listener.
//!
//! Not here: the flags; see [`super::args`]. And the fields; see [`crate::transport::settings`].

use std::time::Duration;

use super::args::{Retention, ServeArgs};
use super::memory_share::MemoryShare;
use crate::transport::jwks::JwksSettings;
use crate::transport::settings::{
    ConnectionLimits, DecisionLogSettings, OtlpSettings, Settings, TlsFiles,
};

/// The settings of the listener.
pub(super) fn settings(args: &ServeArgs) -> Settings {
    let call_memory = args.call_memory_mib.map(|mib| u64::from(mib) << 20);
    Settings {
        listen: args.listen.clone(),
        listen_mode: args.listen_mode,
        oauth: args.oauth,
        authorize_url: args.authorize_url.as_deref().map(Into::into),
        http: args.http,
        http_url: args.http_url.as_deref().map(Into::into),
        worker_threads: args.worker_threads,
        tls: tls_files(args),
        jwks: JwksSettings { ca: args.jwks_ca.clone(), dir: args.jwks_dir.clone() },
        max_connections: count(args.max_connections),
        connection: connection_limits(args),
        stall_timeout: seconds(args.stall_timeout),
        request_timeout: seconds(args.request_timeout),
        max_in_flight: count(args.max_in_flight),
        key_rate_limit: args.key_rate_limit,
        max_message_bytes: count(args.max_message_bytes),
        max_header_bytes: count(args.max_header_bytes),
        call_memory: call_memory.unwrap_or_else(|| MemoryShare::of_process(0).call_memory),
        watch_heartbeat: seconds(args.watch_heartbeat),
        metrics: args.metrics,
        decision_log: args.decision_log.clone().map(|path| DecisionLogSettings {
            path,
            allowed_one_in: args.decision_log_allowed_one_in,
            bytes_per_second: args.decision_log_bytes_per_second,
        }),
        otlp: args
            .otlp_endpoint
            .clone()
            .map(|endpoint| OtlpSettings { endpoint, one_in: args.traces_one_in }),
    }
}

/// The files for TLS, if both the certificate and its key are given.
fn tls_files(args: &ServeArgs) -> Option<TlsFiles> {
    let (cert, key) = (args.tls_cert.clone()?, args.tls_key.clone()?);
    Some(TlsFiles { cert, key, client_ca: args.tls_client_ca.clone() })
}

fn connection_limits(args: &ServeArgs) -> ConnectionLimits {
    let age = match args.max_connection_age {
        Retention::Forever => None,
        Retention::Seconds(age) => Some(seconds(age)),
    };
    ConnectionLimits {
        age,
        grace: seconds(args.max_connection_age_grace),
        first_call: seconds(args.first_call_timeout),
        idle: seconds(args.idle_timeout),
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
