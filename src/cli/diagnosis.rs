//! Diagnosis: why a server could not be reached, in a sentence that says what to do.
//!
//! It runs only after a failure. An error of TLS names its reason. For other errors the diagnosis
//! opens a connection of its own and sends only the first bytes of HTTP/2 or TLS. It never repeats a
//! call.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::server_address::{ServerAddress, host_and_port};

/// A connection to a server.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The connection preface of HTTP/2 and an empty SETTINGS frame (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The timeout of each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a server could not be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(pub String);

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http2,
    /// Text, such as an HTTP/1.1 response.
    Text,
    Tls,
    /// The server closed the connection without data.
    Nothing,
    /// The server sent nothing in time, or something else.
    Unknown,
}

/// The reason why connecting failed.
pub(super) async fn of_connect(
    server: &ServerAddress,
    error: tonic::transport::Error,
) -> Unreachable {
    if let Some(found) = of_tls(server, &error) {
        return found;
    }
    let found = match reach(server).await {
        Err(found) => return found,
        Ok(stream) => of_protocol(server, detect_protocol(server, stream).await, false),
    };
    found.unwrap_or_else(|| {
        let cause = cause(&error);
        Unreachable(format!("cannot reach {server} ({cause}): is --endpoint right?"))
    })
}

/// The reason why the first call of a connection failed without a response; None if the next call may
/// succeed.
pub(super) async fn of_call(
    server: &ServerAddress,
    error: &tonic::transport::Error,
) -> Option<Unreachable> {
    if let Some(found) = of_tls(server, error) {
        return Some(found);
    }
    let stream = reach(server).await.ok()?;
    of_protocol(server, detect_protocol(server, stream).await, true)
}

/// The meaning of an HTTP response that is not a gRPC response.
pub(super) fn of_http_status(server: &ServerAddress, status: http::StatusCode) -> Unreachable {
    let at = server.place();
    Unreachable(match status.as_u16() {
        502..=504 => format!(
            "a proxy at {at} answered with HTTP status {status}: it cannot reach its \
             server; check that the server runs, and that the proxy uses HTTP/2 to it"
        ),
        _ => format!(
            "the server at {at} is not a gRPC server: it answered with HTTP status {status}; \
             set --endpoint to the address of `scopegate serve --listen`"
        ),
    })
}

fn of_tls(server: &ServerAddress, error: &(dyn Error + 'static)) -> Option<Unreachable> {
    let at = server.place();
    let sentence = |text: String| Some(Unreachable(text));
    let certificate = |error: &CertificateError| match error {
        // A CA of the same name with another key gives a wrong signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "cannot reach {server}: its certificate is of a CA that is not trusted here; give the \
             right one by --ca"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "cannot reach {server}: its certificate has expired; have it renewed, or see whether the \
             clock of this machine is right"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "cannot reach {server}: its certificate is not valid yet; see whether the clock of this \
             machine is right"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let host = server.host();
            format!(
                "cannot reach {server}: its certificate does not name `{host}`; give --endpoint a \
                 name that it has"
            )
        }
        CertificateError::ApplicationVerificationFailure => format!(
            "cannot reach {server}: its certificate is not the one of SCOPEGATE_TLS_CERT; if the file was \
             renewed, the server will read it soon"
        ),
        other => format!("cannot reach {server}: its certificate is refused ({other}); see --ca"),
    };
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(error)) => return sentence(certificate(error)),
        Some(rustls::Error::AlertReceived(alert)) => return sentence(of_alert(&at, *alert)),
        _ => {}
    }
    // The HTTP/2 client keeps the text of the error that ended the connection, but not the error.
    let text = cause(error);
    let name = text.strip_prefix("received fatal alert: ")?;
    let alerts = [
        AlertDescription::CertificateRequired,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::BadCertificate,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
    ];
    let alert = alerts.into_iter().find(|alert| name == format!("{alert:?}"))?;
    sentence(of_alert(&at, alert))
}

fn of_alert(at: &str, alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => format!(
            "the server at {at} asks for a client certificate: give one by --client-cert and \
             --client-key"
        ),
        AlertDescription::NoApplicationProtocol => {
            format!(
                "the server at {at} speaks TLS without HTTP/2, so it is not a gRPC server: see --endpoint"
            )
        }
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            format!("the server at {at} has no version or cipher of TLS in common with this client")
        }
        AlertDescription::UnrecognisedName => {
            format!("the server at {at} does not serve this name: see --endpoint")
        }
        alert => format!(
            "the server at {at} refuses the client certificate ({alert:?}): give by --client-cert \
             and --client-key one of a CA that it accepts, and still valid"
        ),
    }
}

/// The TLS error among the causes of an error.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    // The inner error of an I/O error is not among its sources.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(carried) => tls_error(carried),
        None => tls_error(error.source()?),
    }
}

/// The text of the innermost cause of an error.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// Opens a connection.
async fn reach(server: &ServerAddress) -> Result<Box<dyn Stream>, Unreachable> {
    let uri = match server {
        ServerAddress::Url(uri) => uri,
        ServerAddress::Unix(path) => {
            let connected = timeout(STEP_TIMEOUT, UnixStream::connect(path)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            return match connected {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(of_path(server, &error)),
            };
        }
    };
    let (host, port) = host_and_port(uri);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let resolved = timeout(STEP_TIMEOUT, lookup_host((bare, port))).await;
    let addresses = match resolved {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        _ => {
            return Err(Unreachable(format!(
                "no server answers at {server}: the name `{bare}` cannot be resolved; is --endpoint \
                 written right, and does this machine know the name?"
            )));
        }
    };
    let connected = timeout(STEP_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(Unreachable(format!(
            "no server answers at {server} ({}): is it running, and is --endpoint right?",
            error.kind()
        ))),
    }
}

/// Why the path of a Unix socket cannot be connected to.
fn of_path(server: &ServerAddress, error: &io::Error) -> Unreachable {
    Unreachable(match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "cannot reach {server}: this user may not write to the socket; see its owner and mode with \
             `ls -l`, and `scopegate serve --listen-mode`"
        ),
        kind => format!(
            "no server answers at {server} ({kind}): is it running, and does it `--listen` there?"
        ),
    })
}

fn of_protocol(server: &ServerAddress, protocol: Protocol, is_call: bool) -> Option<Unreachable> {
    let (at, is_https) = (server.place(), server.is_https());
    let sentence = match protocol {
        Protocol::Tls if !is_https => format!(
            "the server at {at} speaks TLS: give --endpoint https://{at}, and its CA by --ca if \
             this machine does not trust it"
        ),
        Protocol::Http2 if is_https => format!(
            "the server at {at} speaks no TLS: give --endpoint http://{at}; what is sent, a key \
             too, can then be read on the way"
        ),
        Protocol::Text => format!(
            "the server at {at} does not speak HTTP/2, so it is not a gRPC server: set \
             --endpoint to the address of `scopegate serve --listen`, not of --metrics or of a \
             web server"
        ),
        Protocol::Nothing => format!(
            "the server at {at} closed the connection and sent nothing: is that the address of \
             `scopegate serve --listen`, and not of --metrics? A server that has as many \
             connections as --max-connections allows closes more, too"
        ),
        // A TLS 1.3 server that requires a client certificate completes the handshake without one and
        // then closes the connection.
        Protocol::Tls if is_call => format!(
            "the server at {at} ended the connection after the TLS handshake: if it asks for a \
             client certificate, give one that it accepts by --client-cert and --client-key"
        ),
        Protocol::Http2 | Protocol::Tls | Protocol::Unknown => return None,
    };
    Some(Unreachable(sentence))
}

/// The protocol of the server of this connection.
async fn detect_protocol(server: &ServerAddress, stream: Box<dyn Stream>) -> Protocol {
    let plain =
        timeout(STEP_TIMEOUT, first_bytes(stream)).await.ok().map(|bytes| plain_protocol(&bytes));
    if plain == Some(Protocol::Http2) {
        return Protocol::Http2;
    }
    // A TLS server may answer plain HTTP/2 in plain text, or not at all.
    let is_tls = match reach(server).await {
        Ok(stream) => has_tls(server, stream).await,
        Err(_) => false,
    };
    if is_tls { Protocol::Tls } else { plain.unwrap_or(Protocol::Unknown) }
}

/// The first bytes that a server sends in response to an HTTP/2 preface: at most a frame header.
async fn first_bytes(mut stream: Box<dyn Stream>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9);
    if stream.write_all(PREFACE).await.is_ok() {
        // Bytes before an error count.
        (&mut stream).take(9).read_to_end(&mut bytes).await.ok();
    }
    bytes
}

fn plain_protocol(bytes: &[u8]) -> Protocol {
    match bytes {
        // A SETTINGS frame on stream 0.
        [_, _, _, 4, _, 0, 0, 0, 0] => Protocol::Http2,
        // A TLS alert.
        [0x15, 3, ..] => Protocol::Tls,
        [] => Protocol::Nothing,
        bytes if bytes.iter().all(|byte| byte.is_ascii_graphic() || b" \r\n\t".contains(byte)) => {
            Protocol::Text
        }
        _ => Protocol::Unknown,
    }
}

/// Whether a server speaks TLS. It trusts no certificate and sends no data.
async fn has_tls(server: &ServerAddress, stream: Box<dyn Stream>) -> bool {
    let host = server.host().trim_matches(['[', ']']).to_owned();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let (Ok(builder), Ok(name)) =
        (builder.with_safe_default_protocol_versions(), ServerName::try_from(host))
    else {
        return false;
    };
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let handshake =
        timeout(STEP_TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    match handshake {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => matches!(
            tls_error(&error),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
        ),
        Err(_) => false,
    }
}
