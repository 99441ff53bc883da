//! TLS: the server's certificate, the CAs of client certificates, and their reload when the files
//! change.
//!
//! The files are read and compared twice a second. This detects a file that is written in place, a
//! renamed file, and the symbolic link by which Kubernetes changes all files of a volume at once. If
//! the new files cannot be used, the old ones stay in use. A connection keeps the files that it began
//! with.
//!
//! Not here: the permissions of a client; see [`crate::authority::admission`].
//! Revocation lists are not supported: a client CA should issue certificates for hours or days.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig, ServerConnection,
};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::TransportError;
use super::http::ClientCertificates;
use super::phase::Phase;
use super::settings::TlsFiles;
use crate::grpc::peer::Peer;
use crate::metrics::supervise::Supervisor;
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::rejection::RejectionReason;
use crate::transport::{key_file, pem};

/// How often the files are read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The name of the task that reads them.
const WATCH_TASK: &str = "tls_watch";
/// The limit of a file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The ALPN protocol of gRPC.
const HTTP_2: &[u8] = b"h2";
/// The ALPN protocol of HTTP/1.1.
const HTTP_1: &[u8] = b"http/1.1";

/// The TLS of the server.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Arc<TlsFiles>,
    current: Arc<ArcSwap<TlsIdentity>>,
    /// Wakes the task to read the files now.
    reload_now: Arc<Notify>,
}

/// A valid set of files.
struct TlsIdentity {
    /// For callers, which speak gRPC.
    config: Arc<ServerConfig>,
    /// For callers that speak HTTP/1.1 or HTTP/2.
    http_config: Arc<ServerConfig>,
    /// For API clients, which are never asked for a certificate.
    client_config: Arc<ServerConfig>,
    /// The hash of the files.
    hash: blake3::Hash,
    /// The expiry of the server's certificate, if it can be parsed.
    not_after: Option<Timestamp>,
}

/// The contents of the files.
struct TlsContents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or is not valid.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TransportError> {
        let contents = files.read().map_err(TransportError::Config)?;
        let identity = files.parse(&contents).map_err(TransportError::Config)?;
        let client_certificates = if files.client_ca.is_some() { "required" } else { "not asked" };
        tracing::info!(not_after = not_after_text(&identity), client_certificates, "TLS is on");
        warn_if_expired(&identity);
        files.warn_if_exposed();
        let current = Arc::new(ArcSwap::from_pointee(identity));
        Ok(Self { files: Arc::new(files), current, reload_now: Arc::default() })
    }

    /// Does the handshake, and returns the peer's certificate names.
    pub(crate) async fn accept(
        &self,
        connection: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let config = Arc::clone(&self.current.load().config);
        let stream = TlsAcceptor::from(config).accept(connection).await?;
        let (_, session) = stream.get_ref();
        // rustls has rejected a client that names only other protocols, but not one that names none.
        if session.alpn_protocol() != Some(HTTP_2) {
            return Err(io::Error::other("the client did not ask for h2 by ALPN"));
        }
        let peer = peer(session)?;
        Ok((stream, peer))
    }

    /// Does the handshake with a peer that speaks HTTP/1.1 or HTTP/2, and returns the names of its
    /// certificate if it is asked for one.
    pub(crate) async fn accept_http(
        &self,
        connection: TcpStream,
        certificates: ClientCertificates,
    ) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let current = self.current.load();
        let config = match certificates {
            ClientCertificates::Never => &current.client_config,
            ClientCertificates::AsCallers => &current.http_config,
        };
        let config = Arc::clone(config);
        // A client that names no protocol speaks HTTP/1.1.
        let stream = TlsAcceptor::from(config).accept(connection).await?;
        let peer = peer(stream.get_ref().1)?;
        Ok((stream, peer))
    }

    /// The expiry of the current certificate, if it is known.
    pub(crate) fn not_after(&self) -> Option<Timestamp> {
        self.current.load().not_after
    }

    /// Reads the files now, and logs at once what is wrong with them.
    pub(crate) fn reload(&self) {
        self.reload_now.notify_one();
    }

    /// Reads the files regularly until the returned handle is dropped.
    pub(crate) fn watch(&self, supervisor: &Arc<Supervisor>) -> TlsWatch {
        let (tls, own) = (self.clone(), Arc::clone(supervisor));
        supervisor.task(WATCH_TASK, move || tls.clone().watch_files(Arc::clone(&own)))
    }

    async fn watch_files(self, supervisor: Arc<Supervisor>) {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The error of the last read, and the error that was logged last.
        let (mut last_error, mut logged_error) = (None, None);
        loop {
            let is_requested = tokio::select! {
                _ = tick.tick() => false,
                () = self.reload_now.notified() => true,
            };
            if is_requested {
                logged_error = None;
            }
            let tls = self.clone();
            let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await
            else {
                supervisor.restarted(WATCH_TASK);
                continue;
            };
            match outcome {
                Ok(new) => {
                    if let Some(identity) = new {
                        tracing::info!(
                            not_after = not_after_text(&identity),
                            "the TLS files were reloaded"
                        );
                        warn_if_expired(&identity);
                        self.files.warn_if_exposed();
                        self.current.store(Arc::new(identity));
                    }
                    (last_error, logged_error) = (None, None);
                }
                Err(error) => {
                    // Files that are being written are invalid for a moment. Only an error that persists
                    // is logged.
                    let persists = is_requested || last_error.as_ref() == Some(&error);
                    if persists && logged_error.as_ref() != Some(&error) {
                        tracing::warn!(
                            "{error}; the previous TLS files stay in use until this is fixed"
                        );
                        logged_error = Some(error.clone());
                    }
                    last_error = Some(error);
                }
            }
        }
    }

    /// The identity of the files, if they have changed.
    fn reload_if_changed(&self) -> Result<Option<TlsIdentity>, String> {
        let contents = self.files.read()?;
        if contents.hash() == self.current.load().hash {
            return Ok(None);
        }
        self.files.parse(&contents).map(Some)
    }
}

/// Reads the files until it is dropped.
pub(crate) type TlsWatch = AbortOnDropHandle<()>;

impl TlsContents {
    /// The hash of all files.
    fn hash(&self) -> blake3::Hash {
        let mut all = blake3::Hasher::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map(|part| blake3::hash(part));
            all.update(part.as_ref().map_or(&[], |hash| hash.as_bytes()));
        }
        all.finalize()
    }
}

impl TlsFiles {
    fn read(&self) -> Result<TlsContents, String> {
        let client_ca = self.client_ca.as_ref();
        Ok(TlsContents {
            cert: read("--tls-cert", &self.cert, MAX_FILE_BYTES)?,
            key: read("--tls-key", &self.key, MAX_FILE_BYTES)?,
            client_ca: client_ca
                .map(|path| read("--tls-client-ca", path, MAX_FILE_BYTES))
                .transpose()?,
        })
    }

    fn warn_if_exposed(&self) {
        if let Some(exposure) = key_file::exposure("--tls-key", &self.key) {
            tracing::warn!("{exposure}");
        }
    }

    /// Builds the TLS configuration from the files. The error is a sentence.
    fn parse(&self, contents: &TlsContents) -> Result<TlsIdentity, String> {
        let provider = Arc::new(ring::default_provider());
        let wrong = |flag, path: &Path, what: &str| format!("{flag} {}: {what}", path.display());
        let wrong_cert = |what: &str| wrong("--tls-cert", &self.cert, what);
        let wrong_key = |what: &str| wrong("--tls-key", &self.key, what);
        let chain = certificates(&contents.cert).map_err(wrong_cert)?;
        let not_after = chain.first().and_then(not_after);
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| wrong_key(pem::no_private_key(&contents.key)))?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            wrong_key("holds a key of an unsupported kind: give an ECDSA, Ed25519 or RSA key")
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let cert = self.cert.display();
                let what = format!("is not the key of --tls-cert {cert}: give the two of one pair");
                return Err(wrong_key(&what));
            }
            Err(_) => return Err(wrong_cert("its first certificate cannot be read")),
        }
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong_cert(&error.to_string()))?;
        let anonymous = builder.clone().with_no_client_auth();
        let mut client_config = anonymous.with_cert_resolver(Arc::clone(&resolver) as _);
        client_config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let wrong = |what: &str| wrong("--tls-client-ca", path, what);
                let roots = roots(pem).map_err(wrong)?;
                let verifier = verifier(roots, provider).map_err(|what| wrong(&what))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        if self.client_ca.is_some() {
            // A resumed session is not verified again, so a client's certificate would stay valid
            // after its expiry.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let mut http_config = config.clone();
        http_config.alpn_protocols.clone_from(&client_config.alpn_protocols);
        Ok(TlsIdentity {
            config: Arc::new(config),
            http_config: Arc::new(http_config),
            client_config: Arc::new(client_config),
            hash: contents.hash(),
            not_after,
        })
    }
}

/// Reads a file of at most `limit` bytes. The error is a sentence.
pub(super) fn read(flag: &str, path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let wrong = |what: &str| format!("{flag} {}: {what}", path.display());
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut contents));
    read.map_err(|error| wrong(&error.kind().to_string()))?;
    if contents.len() as u64 > limit {
        return Err(wrong(&format!("has more than {limit} bytes")));
    }
    Ok(contents)
}

/// The certificates of a file.
fn certificates(contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    let certificates = certificates.map_err(|_| "is not PEM from its beginning to its end")?;
    if certificates.is_empty() {
        return Err(pem::no_certificate(contents));
    }
    Ok(certificates)
}

/// The CAs of a file. The error is the predicate of a sentence.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| "holds a certificate that cannot be read")?;
    }
    Ok(roots)
}

fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, String> {
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error| error.to_string())
}

/// The result of a handshake that ends within this time. None: it took too long, or the server drains.
/// Any peer can cause a failure, so none is logged as a warning.
pub(crate) async fn finish<T>(
    handshake: impl Future<Output = io::Result<T>>,
    time: Duration,
    events: &ConnectionEvents,
    phase: &mut watch::Receiver<Phase>,
) -> Option<io::Result<T>> {
    let done = tokio::select! {
        done = tokio::time::timeout(time, handshake) => done.ok(),
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return None,
    };
    match &done {
        Some(Ok(_)) => return done,
        Some(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        None => tracing::debug!("a TLS handshake took too long"),
    }
    events.handshakes.inc();
    done
}

/// The reason of a failed handshake, if the client's certificate caused the failure.
pub(crate) fn rejection(error: &io::Error) -> Option<RejectionReason> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::NoCertificatesPresented => Some(RejectionReason::NoClientCertificate),
        Error::InvalidCertificate(_) => Some(RejectionReason::ClientCertificate),
        _ => None,
    }
}

/// The peer of a session, with the names of its certificate if it presented one.
fn peer(session: &ServerConnection) -> io::Result<Peer> {
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(names).transpose()?;
    Ok(Peer { certificate, ..Peer::default() })
}

/// The names of a verified certificate: its URIs and DNS names.
fn names(certificate: &CertificateDer<'_>) -> io::Result<Arc<[String]>> {
    // A certificate that cannot be parsed is rejected, and not treated as one without names.
    let unread = |_| io::Error::other(Error::InvalidCertificate(CertificateError::BadEncoding));
    let certificate = Certificate::from_der(certificate).map_err(unread)?;
    let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(unread)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let name = |name: GeneralName| match name {
        // A name must look like its kind, because a CA may be restricted to one of the two kinds: a
        // URI that reads as a DNS name is dropped.
        GeneralName::UniformResourceIdentifier(name) => {
            Some(name.to_string()).filter(|name| name.contains(':'))
        }
        GeneralName::DnsName(name) => Some(name.to_string()).filter(|name| !name.contains(':')),
        _ => None,
    };
    Ok(names.into_iter().filter_map(name).collect())
}

/// The expiry of a certificate.
fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()
}

fn not_after_text(identity: &TlsIdentity) -> String {
    identity.not_after.map_or_else(|| "unknown".to_owned(), |end| end.to_string())
}

fn warn_if_expired(identity: &TlsIdentity) {
    if identity.not_after.is_some_and(|end| end < crate::metrics::machine_time()) {
        tracing::warn!("the certificate of --tls-cert is no longer valid: clients will refuse it");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn named(names: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        names_of(certificate.der())
    }

    fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
        names(certificate).expect("read").to_vec()
    }

    #[test]
    fn names_are_the_uris_and_dns_names_in_order() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("ascii"));
        let uri = |name: &str| SanType::URI(name.try_into().expect("ascii"));
        let mail = SanType::Rfc822Name("a@example.org".try_into().expect("ascii"));
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let all = vec![dns("b.example"), mail, uri("spiffe://example.org/a"), address, dns("a")];
        assert_eq!(named(all), ["b.example", "spiffe://example.org/a", "a"]);
        assert_eq!(named(vec![]), [""; 0]);
    }

    #[test]
    fn certificate_that_cannot_be_parsed_is_rejected() {
        let error = names(&CertificateDer::from_slice(b"no certificate")).expect_err("unread");
        assert_eq!(rejection(&error), Some(RejectionReason::ClientCertificate), "and it is logged");
    }
}
