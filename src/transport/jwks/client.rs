//! Client: fetches a document by HTTP/1.1, once, on a connection of its own (T9).
//!
//! It follows no redirect, uses no proxy, sends no cookie, decodes nothing and keeps no connection.
//! Errors are short causes and contain nothing of a response but its status.

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;
use tower::{Service, ServiceExt};

use crate::policy::token::key_set::MAX_BYTES;
use crate::transport::tls;

/// How long a fetch may take, from the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How many fetches may be under way, so that the issuers of a large catalog do not take the file
/// handles that connections need.
const MAX_FETCHES: usize = 64;
/// The limit of the head of a response, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The limit of a cause, in characters.
const MAX_CAUSE_CHARS: usize = 300;
/// How long the CAs that were read stay in use. A file that changes is used after this time.
const CA_LIFETIME: Duration = Duration::from_secs(60);

/// Fetches documents.
pub(super) struct Client {
    /// Resolves names, and tries the addresses of both families (RFC 8305).
    connector: HttpConnector,
    /// The file of the CAs. None: the CAs of this machine.
    ca: Option<PathBuf>,
    /// The TLS configuration with the CAs, and when they were read.
    tls: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
    slots: Semaphore,
}

impl Client {
    /// A client that trusts the CAs of this file, or those of this machine.
    ///
    /// # Errors
    /// The file cannot be read, or holds no CA: a sentence.
    pub(super) fn new(ca: Option<PathBuf>) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // It is divided between the addresses of a name, so that one that does not answer leaves time
        // for the others.
        connector.set_connect_timeout(Some(FETCH_TIMEOUT));
        let tls = match &ca {
            Some(path) => Some((Instant::now(), config(Some(path))?)),
            None => None,
        };
        Ok(Self { connector, ca, tls: Mutex::new(tls), slots: Semaphore::new(MAX_FETCHES) })
    }

    /// The body of a response with status 200. The error is a short cause.
    pub(super) async fn fetch(&self, url: &str) -> Result<Bytes, String> {
        // It is never closed.
        let _slot = self.slots.acquire().await.ok();
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.get(url));
        let too_late = || format!("not fetched within {} seconds", FETCH_TIMEOUT.as_secs());
        fetched.await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        let uri: Uri = url.parse().map_err(|_| "`jwks_url` is not a URL".to_owned())?;
        // A password would be sent, and is not meant to be.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("`jwks_url` has a user name".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_loopback = || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| "`jwks_url` has no valid host".to_owned())?;
                let config = self.tls().await?;
                let connection = self.connect(&uri).await?.into_inner();
                let connected = TlsConnector::from(config).connect(name, connection).await;
                let connection = connected.map_err(|error| cause("no TLS", &error))?;
                request(TokioIo::new(connection), &uri).await
            }
            Some("http") if is_loopback() => request(self.connect(&uri).await?, &uri).await,
            _ => Err("`jwks_url` is neither https nor http on a loopback address".to_owned()),
        }
    }

    async fn connect(&self, uri: &Uri) -> Result<TokioIo<tokio::net::TcpStream>, String> {
        let mut connector = self.connector.clone();
        let connected = match connector.ready().await {
            Ok(connector) => connector.call(uri.clone()).await,
            Err(error) => Err(error),
        };
        connected.map_err(|error| cause("no connection", &error))
    }

    /// The TLS configuration, with the CAs as they were within the last minute.
    async fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let read = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, config)) = read
            && at.elapsed() < CA_LIFETIME
        {
            return Ok(config);
        }
        let ca = self.ca.clone();
        let read = tokio::task::spawn_blocking(move || config(ca.as_deref())).await;
        let config = read.map_err(|_| "the CAs could not be read".to_owned())??;
        let kept = Some((Instant::now(), Arc::clone(&config)));
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(config)
    }
}

/// The TLS configuration with the CAs of a file, or with those of this machine. It blocks.
fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    const FLAG: &str = "--jwks-ca";
    let roots = match ca {
        Some(path) => tls::roots(&tls::read(FLAG, path, tls::MAX_FILE_BYTES)?)
            .map_err(|what| format!("{FLAG} {}: {what}", path.display()))?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(format!("this machine has no CA certificates: give {FLAG}"));
            }
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not verify the certificate again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Asks for a document on a new connection.
async fn request<S>(connection: S, uri: &Uri) -> Result<Bytes, String>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let no_response = |error: hyper::Error| cause("no valid response", &error);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(connection).await.map_err(no_response)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("scopegate/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "`jwks_url` is not a URL that can be requested".to_owned())?;
    let response = sender.send_request(request).await.map_err(no_response)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(format!("status {}: a redirect is not followed", status.as_u16()));
    }
    if status != StatusCode::OK {
        return Err(format!("status {}", status.as_u16()));
    }
    if response.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Err("the response has a content encoding".to_owned());
    }
    match Limited::new(response.into_body(), MAX_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("the document has more than {MAX_BYTES} bytes"))
        }
        Err(error) => Err(cause("the response is cut", &*error)),
    }
}

/// A cause with those below it, cut where it gets long: a certificate may have many names.
fn cause(what: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(error) = next {
        let more = error.to_string();
        // Some errors repeat the one below.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text.chars().take(MAX_CAUSE_CHARS).collect()
}
