//! `scopegate health`: for probes and for people.

use super::endpoint_args::EndpointArgs;
use clap::Args;
use std::io::{self, Write};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::connect;
use super::failure::server_error;

/// Whose health to ask for.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The service's full name; empty for the server as a whole.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub service: String,

    /// Which server to ask.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// Asks, and prints the status. True if serving.
///
/// # Errors
/// Could not ask.
pub async fn health(args: HealthArgs) -> anyhow::Result<bool> {
    let mut client = HealthClient::new(connect(&args.server).await?);
    let request = HealthCheckRequest { service: args.service };
    let answer = client.check(request).await.map_err(|status| server_error(&status))?.into_inner();
    writeln!(io::stdout(), "{}", answer.status().as_str_name())?;
    Ok(answer.status() == ServingStatus::Serving)
}
