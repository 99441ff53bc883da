//! Connection: the one place where it is settled which server is asked, how it is reached, and as
//! whom.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::context::{self, Way};
use crate::config::{EndpointArgs, key_file};
use crate::telemetry;

/// A connection on which every call presents the caller's key, if there is one.
pub(super) type Connection = InterceptedService<Channel, Presents>;

/// What a call presents.
#[derive(Clone)]
pub(super) struct Presents(Option<MetadataValue<Ascii>>);

impl Interceptor for Presents {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// A connection on which each call is answered in time.
pub(super) async fn connect(args: &EndpointArgs) -> anyhow::Result<Connection> {
    let time = Duration::from_secs(args.timeout_seconds);
    reach(args, |endpoint| endpoint.timeout(time)).await
}

/// A connection for a call that takes as long as it takes.
pub(super) async fn connect_for_long(args: &EndpointArgs) -> anyhow::Result<Connection> {
    reach(args, |endpoint| endpoint).await
}

/// A connection that is tuned to what it is for.
pub(super) async fn reach(
    args: &EndpointArgs,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> anyhow::Result<Connection> {
    let way = context::way(args)?;
    let presents = Presents(key(&way)?);
    let endpoint = endpoint(&way)?.connect_timeout(Duration::from_secs(args.timeout_seconds));
    let endpoint = tune(endpoint);
    let uri = endpoint.uri();
    let reached = endpoint.connect().await.map_err(|error| match uri.scheme_str() {
        Some("https") => anyhow!(
            "cannot reach {uri} ({}): is it running, and are --endpoint and --ca right?",
            cause(&error)
        ),
        _ => anyhow!("no server answers at {uri}: is it running, and is --endpoint right?"),
    });
    Ok(InterceptedService::new(reached?, presents))
}

fn endpoint(way: &Way) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(way.endpoint.clone())
        .map_err(|_| anyhow!("--endpoint `{}` is not a URL", way.endpoint))?;
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
        Some(path) => config.ca_certificate(Certificate::from_pem(read("--ca", path)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&way.client_cert, &way.client_key) {
        let (cert, key) = (read("--client-cert", cert)?, read_secret("--client-key", key)?);
        config = config.identity(Identity::from_pem(cert, key));
    }
    endpoint.tls_config(config).map_err(|error| anyhow!("cannot begin TLS: {}", cause(&error)))
}

/// The key to present (RFC 6750 section 2.1): of the environment, else of a file. It is no flag:
/// those are shown to everybody on the machine.
fn key(way: &Way) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let set = std::env::var("SCOPEGATE_KEY").ok().filter(|key| !key.is_empty());
    let (from, key) = match (set, &way.key_file) {
        (Some(key), _) => ("SCOPEGATE_KEY", key),
        (None, Some(path)) => {
            let bytes = read_secret("--key-file", path)?;
            let text = String::from_utf8(bytes).map_err(|_| anyhow!("--key-file has no text"))?;
            ("--key-file", text)
        }
        (None, None) => return Ok(None),
    };
    let header = format!("Bearer {}", key.trim()).parse();
    let mut header: MetadataValue<Ascii> = header.map_err(|_| anyhow!("{from} has no key"))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag} {}", path.display()))
}

/// Reads a file that nobody else should be able to read, and tells if somebody is.
fn read_secret(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(flag, path)?;
    if let Some(exposure) = key_file::exposure(flag, path) {
        telemetry::tell(&format!("scopegate: warning: {exposure}"));
    }
    Ok(bytes)
}

/// The first cause of an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
