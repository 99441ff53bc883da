//! Builder: the addresses of the servers, TLS, the API key and the deadlines.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tokio::runtime::Handle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::client::Client;
use crate::connection::BearerInterceptor;
use crate::server::Server;
use crate::servers::Servers;

/// What the address of a Unix socket begins with.
const UNIX: &str = "unix:";

/// Configures a [`Client`]. [`connect`](Self::connect) validates the values.
pub struct Builder {
    endpoint: String,
    key: Option<String>,
    ca: Option<Pem>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    deadline: Duration,
    connect_timeout: Duration,
    keepalive: (Duration, Duration),
    connections: usize,
    retry_budget: u32,
}

enum Pem {
    Text(Vec<u8>),
    File(PathBuf),
}

impl Client {
    /// Starts to configure a client of the server at this URL: `https://…`, or `http://…` without
    /// TLS, or `unix:PATH` for a Unix socket. Several replicas are separated by commas: the client prefers the nearest that is serving,
    /// and until it has measured them the first.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into())
    }
}

impl Builder {
    fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            key: None,
            ca: None,
            identity: None,
            deadline: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(1),
            keepalive: (Duration::from_secs(5), Duration::from_secs(2)),
            connections: 1,
            retry_budget: 100,
        }
    }

    /// Sets the API key (`sgk_…`). It needs the role `service`. Over `http://` the client sends it
    /// in plain text: use that only on loopback, or in a mesh that encrypts.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the only trusted CAs, in PEM. By default, the client trusts the CAs of the system.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem::Text(pem.into()));
        self
    }

    /// Sets the only trusted CAs, from a PEM file that is read once.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(path.into()));
        self
    }

    /// Sets the client certificate and its key, in PEM.
    #[must_use]
    pub fn identity_pem(mut self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Sets the deadline of a check. It includes connecting, the retry and the response. The
    /// default is 250 ms: many times the duration of a check, and too short for the user of an API
    /// to notice.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the timeout for connecting, TLS included. After it, the client connects again. The
    /// default is 1 s. A check that ends does not end the attempt to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the interval of HTTP/2 pings, which the client also sends on idle connections, and the
    /// timeout for their acknowledgement. The defaults are 5 s and 2 s: the client detects a lost
    /// server within their sum.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = (interval, timeout);
        self
    }

    /// Sets the number of connections to each server; checks use them in turn. The default is 1. The server serves
    /// a connection on one core: use several if one core cannot serve all checks of the client.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the number of tokens in the retry budget. A retry takes one token, and ten responses
    /// return one. The default is 100, about the number of concurrent checks that fail when a
    /// connection is lost. 0 disables retries.
    #[must_use]
    pub fn retry_budget(mut self, retries: u32) -> Self {
        self.retry_budget = retries;
        self
    }

    /// Creates the client. It connects on the first call, and reconnects when a connection is
    /// lost. Requires a tokio runtime with time and I/O enabled.
    pub fn connect(self) -> Result<Client, ConfigError> {
        if Handle::try_current().is_err() {
            return Err(ConfigError::NoRuntime);
        }
        if self.connections == 0 {
            return Err(ConfigError::NoConnections);
        }
        let bearer = BearerInterceptor::new(self.key.as_deref()).ok_or(ConfigError::Key)?;
        let server = |url: &str| {
            let endpoint = self.endpoint(url.trim())?;
            let connections = (0..self.connections).map(|_| {
                if url.trim().starts_with(UNIX) {
                    return InterceptedService::new(endpoint.connect_lazy(), bearer.clone());
                }
                // A connector of our own: the timeout of tonic's connector does not include TLS.
                let mut tcp = HttpConnector::new();
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                let channel = endpoint.connect_with_connector_lazy(tcp);
                InterceptedService::new(channel, bearer.clone())
            });
            Ok(Server::new(connections.collect()))
        };
        let (first, others) = match self.endpoint.split_once(',') {
            Some((first, others)) => (first, others.split(',').map(server).collect()),
            None => (&*self.endpoint, Ok(Vec::new())),
        };
        let servers = Servers::start(server(first)?, others?);
        Ok(Client::new(servers, self.deadline, self.retry_budget))
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, ConfigError> {
        let error = || ConfigError::Endpoint(url.to_owned());
        // gRPC names the path of a Unix socket so, and without a host.
        if url.strip_prefix(UNIX).is_some_and(|path| {
            path.is_empty() || path.starts_with("//") && !path.starts_with("///")
        }) {
            return Err(error());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| error())?;
        let (interval, timeout) = self.keepalive;
        let endpoint = endpoint
            .user_agent(concat!("scopegate-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| error())?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
        match endpoint.uri().scheme_str() {
            Some("https") => {}
            Some("http") if self.ca.is_none() && self.identity.is_none() => return Ok(endpoint),
            Some("http") => return Err(ConfigError::TlsWithoutHttps),
            _ => return Err(error()),
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(Pem::Text(pem)) => tls.ca_certificate(Certificate::from_pem(pem)),
            Some(Pem::File(path)) => {
                let pem = fs::read(path).map_err(|error| ConfigError::Ca(path.clone(), error))?;
                tls.ca_certificate(Certificate::from_pem(pem))
            }
            None => tls.with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        endpoint.tls_config(tls).map_err(ConfigError::Tls)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without keys and certificates.
        f.debug_struct("Builder")
            .field("endpoint", &self.endpoint)
            .field("deadline", &self.deadline)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A configuration error.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The endpoint is neither a URL that begins with `http://` or `https://`, nor `unix:PATH`.
    Endpoint(String),
    /// The key is empty, or not printable.
    Key,
    /// A CA or a client certificate requires `https://`.
    TlsWithoutHttps,
    /// The client cannot read the CA file.
    Ca(PathBuf, std::io::Error),
    /// TLS cannot use the certificates or keys.
    Tls(tonic::transport::Error),
    /// At least one connection is needed.
    NoConnections,
    /// There is no current tokio runtime.
    NoRuntime,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => {
                write!(
                    f,
                    "the endpoint `{endpoint}` is neither a URL with http:// or https:// nor unix:PATH"
                )
            }
            Self::Key => f.write_str("the key is empty or has characters that no key has"),
            Self::TlsWithoutHttps => {
                f.write_str("a CA or a certificate is for an endpoint that begins with https://")
            }
            Self::Ca(path, error) => write!(f, "cannot read the CA {}: {error}", path.display()),
            Self::Tls(_) => f.write_str("TLS cannot use the certificates or the key"),
            Self::NoConnections => f.write_str("a client needs at least one connection"),
            Self::NoRuntime => f.write_str("a client is opened within a tokio runtime"),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ca(_, error) => Some(error),
            Self::Tls(error) => Some(error),
            _ => None,
        }
    }
}
