//! The operator's commands. They speak gRPC like any other client, and know no floor below it.

mod check;
mod health;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use self::check::check;
pub use self::health::health;
use crate::config::EndpointArgs;

/// The exit code of a command that could not ask.
pub const COULD_NOT_ASK: u8 = 2;

async fn connect(args: &EndpointArgs) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(args.endpoint.clone())
        .map_err(|_| anyhow::anyhow!("--endpoint `{}` is not a URL", args.endpoint))?;
    let timeout = Duration::from_secs(args.timeout_seconds);
    let endpoint = endpoint.connect_timeout(timeout).timeout(timeout);
    endpoint.connect().await.map_err(|_| {
        anyhow::anyhow!(
            "no server answers at {}: is it running, and is --endpoint right?",
            args.endpoint
        )
    })
}

/// What a server said, in a sentence.
fn said(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", status.code().description(), status.message())
}
