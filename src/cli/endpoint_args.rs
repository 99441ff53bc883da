//! Endpoint arguments: the flags that name a server, and say how it is reached.
//!
//! Not here: the connection; see [`super::connection`].

use std::path::PathBuf;

use clap::Args;

use crate::policy::catalog::file::duration;

/// The seconds of a timeout of the command line.
pub(super) fn timeout(text: &str) -> Result<u32, &'static str> {
    match duration(text)? {
        seconds @ ..=86_400 => Ok(seconds),
        _ => Err("is longer than `1d`"),
    }
}

/// How to reach a server that speaks TLS.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// The CA of a server with an https:// address, in PEM. Without it, those of this machine.
    #[arg(long, env = "SCOPEGATE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The certificate to show to the server, in PEM.
    #[arg(long, env = "SCOPEGATE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// The private key of --client-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// Which server to ask.
#[derive(Debug, Args)]
pub struct EndpointArgs {
    /// The server's address: HOST:PORT, or a URL that begins with http:// or https://. HOST:PORT is
    /// asked by TLS if --ca or --client-cert is given. By default that of the context, else
    /// http://127.0.0.1:50051.
    #[arg(long, env = "SCOPEGATE_ENDPOINT", value_name = "ADDRESS")]
    pub endpoint: Option<String>,

    /// The name of a context of the config file; if neither this nor --endpoint is given, the
    /// current one. --context wins over the variable SCOPEGATE_ENDPOINT; beside --endpoint it gives
    /// all but the address.
    #[arg(long, env = "SCOPEGATE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// How long to wait for a connection, for each reply, and for each part of a long reply: an
    /// integer with `s`, `m`, `h` or `d`, at most `1d`.
    #[arg(
        long,
        env = "SCOPEGATE_TIMEOUT",
        default_value = "5s",
        value_name = "DURATION",
        value_parser = timeout
    )]
    pub timeout: u32,

    /// The file of the API key to present. SCOPEGATE_KEY, if it is set, is the key itself.
    #[arg(long, env = "SCOPEGATE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// How to reach it by TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}
