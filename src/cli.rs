//! The operator's commands. They speak gRPC like any other client, and know no floor below it.

mod check;
mod health;
mod import;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use self::check::check;
pub use self::health::health;
pub use self::import::import;
use crate::config::EndpointArgs;

/// The exit code of a command that could not ask.
pub const COULD_NOT_ASK: u8 = 2;

async fn connect(args: &EndpointArgs) -> anyhow::Result<Channel> {
    let timeout = Duration::from_secs(args.timeout_seconds);
    reach(endpoint(&args.endpoint)?.connect_timeout(timeout).timeout(timeout)).await
}

fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    Endpoint::from_shared(url.to_owned())
        .map_err(|_| anyhow::anyhow!("--endpoint `{url}` is not a URL"))
}

async fn reach(endpoint: Endpoint) -> anyhow::Result<Channel> {
    endpoint.connect().await.map_err(|_| {
        anyhow::anyhow!(
            "no server answers at {}: is it running, and is --endpoint right?",
            endpoint.uri()
        )
    })
}

/// What a server said, in a sentence.
fn said(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", status.code().description(), status.message())
}
