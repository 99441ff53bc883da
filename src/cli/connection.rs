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
    let limit = args.limit();
    let profile = context::resolve_profile(args)?;
    let interceptor = BearerInterceptor(key(&profile)?);
    // A server sends nothing while it processes an upload. It still acknowledges pings, which shows
    // that it runs.
    let stall_limit =
        if purpose == Purpose::Upload { limit.saturating_mul(UPLOAD_FACTOR) } else { limit };
    let (mut servers, mut current, mut failures) = (Vec::new(), None, Vec::new());
    for endpoint in endpoints(&profile)? {
        let endpoint = for_purpose(endpoint.connect_timeout(limit), purpose, limit);
        let uri = endpoint.uri().clone();
        let channel = match current {
            Some(_) => endpoint.connect_lazy(),
            None => match open(&endpoint, limit).await {
                Ok(channel) => {
                    current = Some(servers.len());
                    channel
                }
                Err(failure) => {
                    failures.push(failure.0);
                    endpoint.connect_lazy()
                }
            },
        };
        servers.push(Timeout::new(channel, uri, stall_limit, purpose != Purpose::Events));
    }
    let current = current.ok_or_else(|| Unreachable(failures.join("; ")))?;
    let failover = Failover::new(servers, current, args.change_limit())?;
    Ok(InterceptedService::new(failover, interceptor))
}

/// Opens a connection.
async fn open(endpoint: &Endpoint, limit: Duration) -> Result<Channel, Unreachable> {
    let uri = endpoint.uri();
    // The connector's own timeout covers only TCP. A name server or a TLS server may be silent, too.
    match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(diagnosis::of_connect(uri, error).await),
        Err(_) => Err(Unreachable(format!(
            "no server answers at {uri} within {} s: is it running, and is --endpoint right?",
            limit.as_secs()
        ))),
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

fn endpoints(profile: &ServerProfile) -> anyhow::Result<Vec<Endpoint>> {
    let has_files = profile.ca.is_some() || profile.client_cert.is_some();
    let urls = address::urls(&profile.endpoint, has_files)?;
    let is_https = |url: &String| url.starts_with("https:");
    if has_files && !urls.iter().all(is_https) {
        bail!("--ca and --client-cert need TLS: use an --endpoint that begins with https://");
    }
    let tls = if urls.iter().any(is_https) { Some(tls(profile)?) } else { None };
    let endpoint = |url: String| {
        let tls = tls.clone().filter(|_| is_https(&url));
        let endpoint = Endpoint::from_shared(url).map_err(|_| {
            anyhow!("the endpoint `{}` is neither HOST:PORT nor a URL", profile.endpoint)
        })?;
        let Some(tls) = tls else { return Ok(endpoint) };
        endpoint.tls_config(tls).map_err(|error| match diagnosis::cause(&error) {
            text if text.contains("KeyMismatch") => {
                anyhow!(
                    "--client-key is not the key of --client-cert: use a certificate and its own key"
                )
            }
            text => anyhow!("cannot set up TLS: {text}"),
        })
    };
    urls.into_iter().map(endpoint).collect()
}

fn tls(profile: &ServerProfile) -> anyhow::Result<ClientTlsConfig> {
    let mut config = ClientTlsConfig::new();
    config = match &profile.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(certificates("--ca", path)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&profile.client_cert, &profile.client_key) {
        let chain = certificates("--client-cert", cert)?;
        let secret = read_secret("--client-key", key)?;
        pem::check_private_key(&secret)
            .map_err(|problem| anyhow!("--client-key {} {problem}", key.display()))?;
        config = config.identity(Identity::from_pem(chain, secret));
    }
    Ok(config)
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
