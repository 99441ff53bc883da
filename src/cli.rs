//! The operator's commands. They speak gRPC like any other client, and know no floor below it,
//! but for backups: their form is the store's, and a restore has no server to ask.

mod backup;
mod check;
mod export;
mod health;
mod import;
mod output;
mod restore;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use self::backup::backup;
pub use self::check::check;
pub use self::export::export;
pub use self::health::health;
pub use self::import::import;
pub use self::restore::restore;
use crate::config::EndpointArgs;

/// How long to wait for a connection, where what is asked for takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(5);
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
