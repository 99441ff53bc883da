//! `scopegate health`: the health of a server, for probes and for people.

use super::endpoint_args::EndpointArgs;
use clap::Args;
use std::io::{self, Write};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::{Purpose, connect, connect_to};
use super::failure::server_error;
use super::own_server;

/// The arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The full name of a gRPC service, or `live`, which serves as soon as the process listens. By
    /// default the server as a whole, which serves while it answers calls.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub service: String,

    /// The server to connect to.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// Prints the health status. True if the server is serving.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn health(args: HealthArgs) -> anyhow::Result<bool> {
    let connection = match own_server::profile(&args.server)? {
        Some(profile) => connect_to(Purpose::Calls, &args.server, profile).await?,
        None => connect(&args.server).await?,
    };
    let mut client = HealthClient::new(connection);
    let request = HealthCheckRequest { service: args.service };
    let response =
        client.check(request).await.map_err(|status| server_error(&status))?.into_inner();
    writeln!(io::stdout(), "{}", response.status().as_str_name())?;
    Ok(response.status() == ServingStatus::Serving)
}
