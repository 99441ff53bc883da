//! The operator's commands. They speak gRPC like any other client, and know no floor below it,
//! but for backups: their form is the store's, and a restore has no server to ask.

mod backup;
mod check;
mod export;
mod health;
mod import;
mod output;
mod restore;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub use self::backup::backup;
pub use self::check::check;
pub use self::export::export;
pub use self::health::health;
pub use self::import::import;
pub use self::restore::restore;
use crate::config::{EndpointArgs, TlsArgs};

/// How long to wait for a connection, where what is asked for takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The exit code of a command that could not ask.
pub const COULD_NOT_ASK: u8 = 2;

async fn connect(args: &EndpointArgs) -> anyhow::Result<Channel> {
    let timeout = Duration::from_secs(args.timeout_seconds);
    reach(endpoint(&args.endpoint, &args.tls)?.connect_timeout(timeout).timeout(timeout)).await
}

fn endpoint(url: &str, tls: &TlsArgs) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|_| anyhow::anyhow!("--endpoint `{url}` is not a URL"))?;
    if endpoint.uri().scheme_str() != Some("https") {
        if tls.ca.is_some() || tls.client_cert.is_some() {
            bail!(
                "--ca and --client-cert are for TLS: give an --endpoint that begins with https://"
            );
        }
        return Ok(endpoint);
    }
    let mut config = ClientTlsConfig::new();
    config = match &tls.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(read("--ca", path)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) {
        let (cert, key) = (read("--client-cert", cert)?, read("--client-key", key)?);
        config = config.identity(Identity::from_pem(cert, key));
    }
    endpoint
        .tls_config(config)
        .map_err(|error| anyhow::anyhow!("cannot begin TLS: {}", cause(&error)))
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag} {}", path.display()))
}

/// The first cause of an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

async fn reach(endpoint: Endpoint) -> anyhow::Result<Channel> {
    let uri = endpoint.uri();
    endpoint.connect().await.map_err(|error| match uri.scheme_str() {
        Some("https") => anyhow::anyhow!(
            "cannot reach {uri} ({}): is it running, and are --endpoint and --ca right?",
            cause(&error)
        ),
        _ => {
            anyhow::anyhow!("no server answers at {uri}: is it running, and is --endpoint right?",)
        }
    })
}

/// What a server said, in a sentence.
fn said(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", status.code().description(), status.message())
}
