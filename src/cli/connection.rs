//! Connection: connects a command to its servers, with the TLS files and the API key of its profile.
//!
//! It connects to the first address that answers. Another address is connected when a call needs it.
//!
//! Not here: which servers these are, see [`super::context`]; which calls are sent to another address,
//! see [`super::failover`]; why a connection failed, see [`super::diagnosis`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::context::{self, ServerProfile};
use super::diagnosis::{self, Unreachable};
use super::endpoint_args::EndpointArgs;
use super::failover::Failover;
use super::pinned_certificate::PinnedConnector;
use super::server_address::{ServerAddress, host_and_port};
use super::text_file;
use super::timeout::Timeout;
use super::{address, api_key, failure};
use crate::transport::{key_file, pem};

/// The HTTP/2 window of a download in bytes. With the default window the server waits for every
/// window update.
const STREAM_WINDOW: u32 = 4 << 20;
/// The interval of keepalive pings, and the time to wait for their acknowledgement: a stopped server
/// is detected within 15 seconds.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The variable of the server's certificate, in errors.
const SERVER_CERT: &str = "SCOPEGATE_TLS_CERT";

/// The maximum size in bytes of a key file and of a file of certificates.
const MAX_FILE: u64 = 1 << 20;

/// The factor by which an upload may make no progress for longer than another call, while the server
/// acknowledges pings.
const UPLOAD_FACTOR: u32 = 10;

/// A connection whose calls carry the API key, if there is one, and end with an error when the server
/// makes no progress.
pub(super) type Connection = InterceptedService<Failover, BearerInterceptor>;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Unary calls.
    Calls,
    /// A server stream that is read to its end.
    Download,
    /// A client stream, whose input may be slow.
    Upload,
    /// A stream of events, between which much time may pass.
    Events,
}

/// Adds the API key to every call.
#[derive(Clone)]
pub(super) struct BearerInterceptor(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// A connection for calls.
pub(super) async fn connect(args: &EndpointArgs) -> anyhow::Result<Connection> {
    connect_for(Purpose::Calls, args).await
}

/// A connection for a purpose.
pub(super) async fn connect_for(
    purpose: Purpose,
    args: &EndpointArgs,
) -> anyhow::Result<Connection> {
    connect_to(purpose, args, context::resolve_profile(args)?).await
}

/// A connection for a purpose to the servers of a profile.
pub(super) async fn connect_to(
    purpose: Purpose,
    args: &EndpointArgs,
    profile: ServerProfile,
) -> anyhow::Result<Connection> {
    let limit = args.limit();
    let interceptor = BearerInterceptor(key(&profile)?);
    // A server sends nothing while it processes an upload. It still acknowledges pings, which shows
    // that it runs.
    let stall_limit =
        if purpose == Purpose::Upload { limit.saturating_mul(UPLOAD_FACTOR) } else { limit };
    let (mut servers, mut current, mut failures) = (Vec::new(), None, Vec::new());
    for Target { address, endpoint, pinned } in targets(&profile)? {
        let endpoint = for_purpose(endpoint.connect_timeout(limit), purpose, limit);
        let target = Target { address, endpoint, pinned };
        let channel = match current {
            Some(_) => target.connect_lazy(),
            None => match target.open(limit).await {
                Ok(channel) => {
                    current = Some(servers.len());
                    channel
                }
                Err(failure) => {
                    failures.push(failure.0);
                    target.connect_lazy()
                }
            },
        };
        let (address, is_bounded) = (target.address, purpose != Purpose::Events);
        servers.push(Timeout::new(channel, address, stall_limit, is_bounded));
    }
    let current = current.ok_or_else(|| Unreachable(failures.join("; ")))?;
    let failover = Failover::new(servers, current, args.change_limit())?;
    Ok(InterceptedService::new(failover, interceptor))
}

/// A server, and how it is connected to.
struct Target {
    address: ServerAddress,
    endpoint: Endpoint,
    /// TLS to a server of which one certificate is accepted.
    pinned: Option<PinnedConnector>,
}

impl Target {
    /// Opens a connection.
    async fn open(&self, limit: Duration) -> Result<Channel, Unreachable> {
        let address = &self.address;
        let connecting = async {
            match self.pinned.clone() {
                Some(connector) => self.endpoint.connect_with_connector(connector).await,
                None => self.endpoint.connect().await,
            }
        };
        // The connector's own timeout covers only TCP. A name server or a TLS server may be silent, too.
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(diagnosis::of_connect(address, error).await),
            Err(_) => Err(Unreachable(format!(
                "no server answers at {address} within {} s: is it running, and is --endpoint right?",
                limit.as_secs()
            ))),
        }
    }

    /// A connection that the first call opens.
    fn connect_lazy(&self) -> Channel {
        match self.pinned.clone() {
            Some(connector) => self.endpoint.connect_with_connector_lazy(connector),
            None => self.endpoint.connect_lazy(),
        }
    }
}

fn for_purpose(endpoint: Endpoint, purpose: Purpose, limit: Duration) -> Endpoint {
    match purpose {
        Purpose::Calls => endpoint,
        Purpose::Download => endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW),
        Purpose::Upload => {
            endpoint.http2_keep_alive_interval(limit).keep_alive_timeout(limit.saturating_mul(2))
        }
        Purpose::Events => endpoint
            .http2_keep_alive_interval(PING_INTERVAL.min(limit))
            .keep_alive_timeout(PING_TIMEOUT.min(limit)),
    }
}

fn targets(profile: &ServerProfile) -> anyhow::Result<Vec<Target>> {
    let has_files = profile.ca.is_some() || profile.client_cert.is_some();
    let addresses = address::addresses(&profile.endpoint, has_files)?;
    if has_files && !addresses.iter().all(ServerAddress::is_https) {
        bail!("--ca and --client-cert need TLS: use an --endpoint that begins with https://");
    }
    if profile.pinned.is_some() {
        return addresses.into_iter().map(|address| pinned(profile, address)).collect();
    }
    let is_tls = addresses.iter().any(ServerAddress::is_https);
    let tls = if is_tls { Some(tls(profile)?) } else { None };
    let target = |address: ServerAddress| {
        let tls = tls.clone().filter(|_| address.is_https());
        let endpoint = endpoint(&address)?;
        let Some(tls) = tls else { return Ok(Target { address, endpoint, pinned: None }) };
        let endpoint = endpoint.tls_config(tls);
        let endpoint = endpoint.map_err(|error| match diagnosis::cause(&error) {
            text if text.contains("KeyMismatch") => {
                anyhow!(
                    "--client-key is not the key of --client-cert: use a certificate and its own key"
                )
            }
            text => anyhow!("cannot set up TLS: {text}"),
        })?;
        Ok(Target { address, endpoint, pinned: None })
    };
    addresses.into_iter().map(target).collect()
}

fn endpoint(address: &ServerAddress) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_string());
    endpoint.map_err(|_| anyhow!("the endpoint `{address}` is neither HOST:PORT nor a URL"))
}

/// A server of which one certificate is accepted.
fn pinned(profile: &ServerProfile, address: ServerAddress) -> anyhow::Result<Target> {
    let (Some(file), ServerAddress::Url(uri)) = (&profile.pinned, &address) else {
        bail!("the endpoint `{address}` has no TLS");
    };
    let server = certificates(SERVER_CERT, file)?;
    let identity = identity(profile)?;
    let identity = identity.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()));
    let pinned = Some(PinnedConnector::new(&server, identity)?);
    // The connector does the TLS, so the endpoint has none.
    let (host, port) = host_and_port(uri);
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}"))?;
    Ok(Target { address, endpoint, pinned })
}

fn tls(profile: &ServerProfile) -> anyhow::Result<ClientTlsConfig> {
    let mut config = ClientTlsConfig::new();
    config = match &profile.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(certificates("--ca", path)?)),
        None => config.with_native_roots(),
    };
    if let Some((chain, key)) = identity(profile)? {
        config = config.identity(Identity::from_pem(chain, key));
    }
    Ok(config)
}

/// The certificate chain and the key of the client, if the profile has them.
fn identity(profile: &ServerProfile) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let (Some(cert), Some(key)) = (&profile.client_cert, &profile.client_key) else {
        return Ok(None);
    };
    let chain = certificates("--client-cert", cert)?;
    let secret = read_secret("--client-key", key)?;
    pem::check_private_key(&secret)
        .map_err(|problem| anyhow!("--client-key {} {problem}", key.display()))?;
    Ok(Some((chain, secret)))
}

/// The API key: from the environment, else from a file. There is no flag for the key itself, because
/// every user of the machine can see flags.
fn key(profile: &ServerProfile) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let set = std::env::var("SCOPEGATE_KEY").ok().filter(|key| !key.is_empty());
    let (from, key) = match (set, &profile.key_file) {
        (Some(key), _) => ("SCOPEGATE_KEY".to_owned(), key),
        (None, Some(path)) => {
            let bytes = read_secret("--key-file", path)?;
            let from = format!("--key-file {}", path.display());
            let text = text_file::text(&bytes).map_err(|error| anyhow!("{from} {error}"))?;
            (from, text)
        }
        (None, None) => return Ok(None),
    };
    api_key::header(&key).map(Some).map_err(|problem| anyhow!("{from} {problem}"))
}

/// Reads a file with at least one certificate.
fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let contents = read(flag, path)?;
    pem::check_certificates(&contents)
        .map_err(|problem| anyhow!("{flag} {} {problem}", path.display()))?;
    Ok(contents)
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    if fs::metadata(path).is_ok_and(|about| about.is_dir()) {
        bail!("{flag} {shown} is a directory: name a file in it");
    }
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut contents));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!("{flag} {shown} does not exist"),
        io::ErrorKind::PermissionDenied => anyhow!(
            "{flag} {shown} cannot be read by this user: see its owner and mode with `ls -l`"
        ),
        kind => anyhow!("{flag} {shown} cannot be read: {kind}"),
    })?;
    if contents.len() as u64 > MAX_FILE {
        bail!("{flag} {shown} has more than {MAX_FILE} bytes: is it the right file?");
    }
    let text =
        text_file::strip_mark(&contents).map_err(|error| anyhow!("{flag} {shown} {error}"))?;
    Ok(text.to_vec())
}

/// Reads a file that only its owner should be able to read. Warns if others can read it, too.
fn read_secret(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(flag, path)?;
    if let Some(exposure) = key_file::exposure(flag, path) {
        failure::warn(&exposure);
    }
    Ok(bytes)
}
