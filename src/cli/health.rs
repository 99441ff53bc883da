//! `scopegate health`: for probes and for people.

use std::io::{self, Write};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{connect, said};
use crate::config::HealthArgs;

/// Asks, and prints the status. True if serving.
///
/// # Errors
/// Could not ask.
pub async fn health(args: HealthArgs) -> anyhow::Result<bool> {
    let mut client = HealthClient::new(connect(&args.server).await?);
    let request = HealthCheckRequest { service: args.service };
    let answer = client.check(request).await.map_err(|status| said(&status))?.into_inner();
    writeln!(io::stdout(), "{}", answer.status().as_str_name())?;
    Ok(answer.status() == ServingStatus::Serving)
}
