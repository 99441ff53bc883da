//! Endpoint arguments: the flags for the address, the key and the TLS files of a server.
//!
//! Not here: the connection; see [`super::connection`].

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::policy::catalog::file::duration;

/// The default timeout, and that of the response to a change. A server waits up to 10 seconds until
/// every replica has a change.
const TIMEOUT: Duration = Duration::from_secs(5);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Parses a timeout into seconds.
pub(super) fn timeout(text: &str) -> Result<u32, &'static str> {
    match duration(text)? {
        seconds @ ..=86_400 => Ok(seconds),
        _ => Err("is longer than `1d`"),
    }
}

/// The TLS files of a client.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// The CA certificates to trust for an https:// server, in PEM. By default those of this machine.
    #[arg(long, env = "SCOPEGATE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The client certificate, in PEM.
    #[arg(long, env = "SCOPEGATE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// The private key of --client-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// The server to connect to.
#[derive(Debug, Args)]
pub struct EndpointArgs {
    /// Server to connect to: HOST:PORT, a URL that begins with http:// or https://, or unix:PATH.
    /// HOST:PORT uses TLS if --ca or --client-cert is given. Several replicas are separated by commas: the command
    /// uses the first that is available. By default the endpoint of the context, else
    /// http://127.0.0.1:50051.
    #[arg(long, env = "SCOPEGATE_ENDPOINT", value_name = "ADDRESS")]
    pub endpoint: Option<String>,

    /// The context of the config file to use. By default the current context, unless --endpoint is
    /// given. --context takes precedence over the variable SCOPEGATE_ENDPOINT. Together with
    /// --endpoint, the context supplies everything but the address.
    #[arg(long, env = "SCOPEGATE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// The maximum wait for a connection, for each response, and for each part of a long response: an
    /// integer with `s`, `m`, `h` or `d`, at most `1d`. By default 5s, and 15s for the response to a
    /// change, which waits for every replica.
    #[arg(long, env = "SCOPEGATE_TIMEOUT", value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<u32>,

    /// The file with the API key. The variable SCOPEGATE_KEY has the key itself and takes precedence.
    #[arg(long, env = "SCOPEGATE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// The TLS files.
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl EndpointArgs {
    /// The maximum wait for a connection, and for each response that is not of a change.
    pub(super) fn limit(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, seconds)
    }

    /// The maximum wait for the response to a change.
    pub(super) fn change_limit(&self) -> Duration {
        self.timeout.map_or(CHANGE_TIMEOUT, seconds)
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}
