//! ReplicaArgs: the flags of a server that is one of several replicas.
//!
//! Not here: the flags that name etcd; see [`EtcdArgs`]. And what a replica does; see
//! [`crate::store::replicated`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::StartupError;
use super::args::ServeArgs;
use super::etcd_args::EtcdArgs;
use crate::policy::catalog::file::duration;
use crate::policy::id::Name;
use crate::store::replicated::Settings;
use crate::transport::listen_address::ListenAddress;

/// The flags of a replica.
#[derive(Debug, Args)]
pub struct ReplicaArgs {
    /// The etcd of the cluster. With it this server is one of several replicas.
    #[command(flatten)]
    pub etcd: EtcdArgs,

    /// The name of this replica, for lists and logs. Default: the host name.
    #[arg(long, env = "SCOPEGATE_REPLICA_NAME", value_name = "NAME", requires = "replicate")]
    pub replica_name: Option<String>,

    /// The URL at which other replicas fetch a snapshot from this one: http://HOST:PORT or
    /// https://HOST:PORT. Default: the address of --listen, or the host name if that is every address.
    #[arg(long, env = "SCOPEGATE_ADVERTISE", value_name = "URL", requires = "replicate")]
    pub advertise: Option<String>,

    /// The CAs that may have signed the certificates of the other replicas, in PEM. By default those of
    /// this machine.
    #[arg(long, env = "SCOPEGATE_PEER_CA", value_name = "FILE", requires = "replicate")]
    pub peer_ca: Option<PathBuf>,

    /// Replace the store of --data-dir by that of another replica. Use it for one start, for a store of an
    /// earlier cluster, or one that is damaged.
    #[arg(long, env = "SCOPEGATE_RESYNC", requires = "replicate")]
    pub resync: bool,

    /// How long this replica may answer without an answer of etcd: `3s` to `60s`. A change waits as long,
    /// and half as long again, for a replica that has died.
    #[arg(
        long, env = "SCOPEGATE_REPLICA_LEASE", default_value = "4s", value_name = "DURATION",
        value_parser = lease
    )]
    pub replica_lease: u32,
}

/// Parses the length of a lease, in seconds.
fn lease(text: &str) -> Result<u32, &'static str> {
    match duration(text)? {
        seconds @ 3..=60 => Ok(seconds),
        _ => Err("a lease has at least `3s` and at most `60s`"),
    }
}

impl ReplicaArgs {
    /// Whether the server is one of several replicas.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.etcd.replicate.is_some()
    }
}

/// The settings of the replica; none without --replicate.
///
/// # Errors
/// A flag is wrong, or does not go with --replicate.
pub(super) fn replica_settings(args: &ServeArgs) -> Result<Option<Settings>, StartupError> {
    let ReplicaArgs { etcd, replica_name, advertise, replica_lease, .. } = &args.replica;
    let Some(etcd) = etcd.settings() else { return Ok(None) };
    let refused = [
        (args.demo, "--demo: it is for a server of its own"),
        (
            args.oauth.is_some() && args.signing_keys.is_none(),
            "--oauth without --signing-keys: give the directory that all replicas share",
        ),
    ];
    if let Some((_, why)) = refused.iter().find(|(is_given, _)| *is_given) {
        return Err(StartupError::Config(format!("--replicate does not go with {why}")));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = replica_name.clone().unwrap_or_else(|| host.clone());
    let name = Name::parse(name.as_str()).map_err(|error| {
        StartupError::Config(format!(
            "the name of the replica {error}; give another --replica-name"
        ))
    })?;
    // Other replicas are on other machines.
    let mut addresses = args.listen.iter().filter_map(ListenAddress::tcp);
    let outer = addresses.clone().find(|address| !address.ip().is_loopback());
    let listen = outer.or_else(|| addresses.next()).ok_or_else(|| {
        StartupError::Config(
            "--replicate needs a --listen HOST:PORT: other replicas do not reach a Unix socket"
                .to_owned(),
        )
    })?;
    let advertise = match advertise {
        Some(url) => checked(url, args)?,
        None => default_advertise(listen, &host, args.tls_cert.is_some()),
    };
    let ttl = Duration::from_secs((*replica_lease).into());
    Ok(Some(Settings { etcd, name, advertise, ttl }))
}

/// The URL of an address.
fn default_advertise(listen: SocketAddr, host: &str, is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    match listen.ip().is_unspecified() {
        true => format!("{scheme}://{host}:{}", listen.port()),
        false => format!("{scheme}://{listen}"),
    }
}

/// The URL that was given, if the server answers there.
fn checked(url: &str, args: &ServeArgs) -> Result<String, StartupError> {
    let wrong = |why: &str| StartupError::Config(format!("--advertise `{url}` {why}"));
    let uri: http::Uri = url.parse().map_err(|_| wrong("is no URL"))?;
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong("begins neither with http:// nor with https://")),
    };
    if is_tls != args.tls_cert.is_some() {
        return Err(wrong("and --tls-cert do not fit: with it the URL begins with https://"));
    }
    if uri.host().is_none_or(str::is_empty) || !matches!(uri.path(), "" | "/") {
        return Err(wrong("is not of the form http://HOST:PORT"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}
