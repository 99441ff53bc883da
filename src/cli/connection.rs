//! Connection: the one place where it is settled which server is asked, how it is reached, and as
//! whom.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::context::{self, ServerProfile};
use super::diagnosis::{self, Unreachable};
use super::endpoint_args::EndpointArgs;
use super::text_file;
use super::timeout::Timeout;
use super::{address, api_key, failure};
use crate::transport::{key_file, pem};

/// How much of a stream may be on its way. The usual window would be waited for all the time.
const STREAM_WINDOW: u32 = 4 << 20;
/// How long a connection may be silent before a ping is sent, and how long the ping's answer may
/// take: a stopped server is noticed within 15 seconds.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of a key's file, and of one of certificates.
const MAX_FILE: u64 = 1 << 20;

/// How many times as long as any other call an upload may make no progress while pings are answered.
const UPLOAD: u32 = 10;

/// A connection on which every call presents the caller's key, if there is one, and ends when the
/// server makes no progress.
pub(super) type Connection = InterceptedService<Timeout, BearerInterceptor>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For calls that are answered.
    Calls,
    /// For a stream of the server's that goes on to its end.
    Download,
    /// For a stream of the client's, whose input may be slow.
    Upload,
    /// For a stream of events, which may be far apart.
    Events,
}

/// What a call presents.
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
    let limit = Duration::from_secs(args.timeout.into());
    let way = context::resolve_profile(args)?;
    let presents = BearerInterceptor(key(&way)?);
    let endpoint = endpoint(&way)?.connect_timeout(limit);
    let endpoint = match purpose {
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
    };
    let uri = endpoint.uri().clone();
    // The connector's own limit is that of TCP: names and TLS have silent servers, too.
    let reached = tokio::time::timeout(limit, endpoint.connect()).await.map_err(|_| {
        Unreachable(format!(
            "no server answers at {uri} within {} s: is it running, and is --endpoint right?",
            limit.as_secs()
        ))
    })?;
    let channel = match reached {
        Ok(channel) => channel,
        Err(error) => return Err(diagnosis::of_connect(&uri, error).await.into()),
    };
    // What a server has taken of an upload it works through, and says nothing meanwhile: that it is
    // there, its answers to pings say.
    let silence = if purpose == Purpose::Upload { limit.saturating_mul(UPLOAD) } else { limit };
    let timed = Timeout::new(channel, uri, silence, purpose != Purpose::Events);
    Ok(InterceptedService::new(timed, presents))
}

fn endpoint(way: &ServerProfile) -> anyhow::Result<Endpoint> {
    let url = address::url(&way.endpoint, way.ca.is_some() || way.client_cert.is_some())?;
    let endpoint = Endpoint::from_shared(url)
        .map_err(|_| anyhow!("the endpoint `{}` is no HOST:PORT and no URL", way.endpoint))?;
    if endpoint.uri().scheme_str() != Some("https") {
        if way.ca.is_some() || way.client_cert.is_some() {
            bail!(
                "--ca and --client-cert are for TLS: give an --endpoint that begins with https://"
            );
        }
        return Ok(endpoint);
    }
    let mut config = ClientTlsConfig::new();
    config = match &way.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(certificates("--ca", path)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&way.client_cert, &way.client_key) {
        let chain = certificates("--client-cert", cert)?;
        let secret = read_secret("--client-key", key)?;
        pem::check_private_key(&secret)
            .map_err(|what| anyhow!("--client-key {} {what}", key.display()))?;
        config = config.identity(Identity::from_pem(chain, secret));
    }
    endpoint.tls_config(config).map_err(|error| match diagnosis::cause(&error) {
        text if text.contains("KeyMismatch") => {
            anyhow!("--client-key is not the key of --client-cert: give the two of one pair")
        }
        text => anyhow!("cannot begin TLS: {text}"),
    })
}

/// The key to present: of the environment, else of a file. It is no flag: those are shown to
/// everybody on the machine.
fn key(way: &ServerProfile) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let set = std::env::var("SCOPEGATE_KEY").ok().filter(|key| !key.is_empty());
    let (from, key) = match (set, &way.key_file) {
        (Some(key), _) => ("SCOPEGATE_KEY".to_owned(), key),
        (None, Some(path)) => {
            let bytes = read_secret("--key-file", path)?;
            let from = format!("--key-file {}", path.display());
            let text = text_file::text(&bytes).map_err(|error| anyhow!("{from} {error}"))?;
            (from, text)
        }
        (None, None) => return Ok(None),
    };
    api_key::header(&key).map(Some).map_err(|what| anyhow!("{from} {what}"))
}

/// A file of certificates, at least one.
fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let contents = read(flag, path)?;
    pem::check_certificates(&contents)
        .map_err(|what| anyhow!("{flag} {} {what}", path.display()))?;
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
            "{flag} {shown} may not be read by this user: see its owner and its mode by `ls -l`"
        ),
        kind => anyhow!("{flag} {shown} cannot be read: {kind}"),
    })?;
    if contents.len() as u64 > MAX_FILE {
        bail!("{flag} {shown} has more than {MAX_FILE} bytes: is it the right file?");
    }
    let text = text_file::begin(&contents).map_err(|error| anyhow!("{flag} {shown} {error}"))?;
    Ok(text.to_vec())
}

/// Reads a file that only its owner should be able to read, and warns if others are.
fn read_secret(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(flag, path)?;
    if let Some(exposure) = key_file::exposure(flag, path) {
        failure::warn(&exposure);
    }
    Ok(bytes)
}
