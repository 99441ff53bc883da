//! TLS: the server's certificate, whose clients may connect, and both anew when their files
//! change.
//!
//! The files are read twice a second and compared: that sees a file written in place, a renamed
//! one, and the symbolic link by which Kubernetes changes all files of a volume at once. A set
//! that cannot be used keeps the old one in force. A connection keeps what it began with.
//!
//! Not here: what a client may do; the peer is handed on ([`crate::grpc::peer`]). And no
//! revocation lists: a client CA should sign for hours or days.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::TransportError;
use super::settings::TlsFiles;
use crate::grpc::peer::Peer;
use crate::metrics::supervise::Supervisor;
use crate::observe::rejection::RejectionReason;
use crate::transport::{key_file, pem};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The name of the task that looks at them.
const WATCH: &str = "tls_watch";
/// The most bytes of a file.
const MOST: u64 = 1 << 20;
/// The only protocol that is spoken.
const HTTP_2: &[u8] = b"h2";

/// What connections begin with.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Arc<TlsFiles>,
    in_force: Arc<ArcSwap<Identity>>,
    /// A request to look at the files now.
    reload_now: Arc<Notify>,
}

/// A set of files that can be used.
struct Identity {
    config: Arc<ServerConfig>,
    /// Of what it was made.
    mark: blake3::Hash,
    /// Until when the server's certificate is valid, if it says so in a way that is understood.
    not_after: Option<Timestamp>,
}

/// What the files hold.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TransportError> {
        let contents = files.read().map_err(TransportError::Config)?;
        let identity = files.parse(&contents).map_err(TransportError::Config)?;
        let client_certificates = if files.client_ca.is_some() { "required" } else { "not asked" };
        tracing::info!(not_after = until(&identity), client_certificates, "TLS is on");
        warn_if_over(&identity);
        files.warn_if_exposed();
        let in_force = Arc::new(ArcSwap::from_pointee(identity));
        Ok(Self { files: Arc::new(files), in_force, reload_now: Arc::default() })
    }

    /// Shakes hands, and says who it was with.
    pub(crate) async fn accept(
        &self,
        connection: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let config = Arc::clone(&self.in_force.load().config);
        let stream = TlsAcceptor::from(config).accept(connection).await?;
        let (_, session) = stream.get_ref();
        // Whoever names other protocols was refused already, but not who names none.
        if session.alpn_protocol() != Some(HTTP_2) {
            return Err(io::Error::other("the client did not ask for h2 by ALPN"));
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(names).transpose()?;
        Ok((stream, Peer { certificate, ..Peer::default() }))
    }

    /// Until when the certificate that is in force is valid, if that is known.
    pub(crate) fn not_after(&self) -> Option<Timestamp> {
        self.in_force.load().not_after
    }

    /// Looks at the files now, and says at once what is wrong with them.
    pub(crate) fn reload(&self) {
        self.reload_now.notify_one();
    }

    /// Looks at the files for as long as what is returned is kept.
    pub(crate) fn watch(&self, supervisor: &Arc<Supervisor>) -> TlsWatch {
        let (tls, own) = (self.clone(), Arc::clone(supervisor));
        supervisor.task(WATCH, move || tls.clone().watch_files(Arc::clone(&own)))
    }

    async fn watch_files(self, supervisor: Arc<Supervisor>) {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was wrong when the files were last looked at, and what of it was said.
        let (mut wrong, mut said) = (None, None);
        loop {
            let is_asked = tokio::select! {
                _ = tick.tick() => false,
                () = self.reload_now.notified() => true,
            };
            if is_asked {
                said = None;
            }
            let tls = self.clone();
            let Ok(looked) = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await
            else {
                supervisor.restarted(WATCH);
                continue;
            };
            match looked {
                Ok(new) => {
                    if let Some(identity) = new {
                        tracing::info!(not_after = until(&identity), "the TLS files were reloaded");
                        warn_if_over(&identity);
                        self.files.warn_if_exposed();
                        self.in_force.store(Arc::new(identity));
                    }
                    (wrong, said) = (None, None);
                }
                Err(fault) => {
                    // Files that are being written are wrong for a moment: nothing to be told of.
                    let still = is_asked || wrong.as_ref() == Some(&fault);
                    if still && said.as_ref() != Some(&fault) {
                        tracing::warn!(
                            "{fault}; the previous TLS files stay in use until this is fixed"
                        );
                        said = Some(fault.clone());
                    }
                    wrong = Some(fault);
                }
            }
        }
    }

    /// What the files hold now, if it is not what is in force.
    fn reload_if_changed(&self) -> Result<Option<Identity>, String> {
        let contents = self.files.read()?;
        if contents.mark() == self.in_force.load().mark {
            return Ok(None);
        }
        self.files.parse(&contents).map(Some)
    }
}

/// Looks at the files until it is dropped.
pub(crate) type TlsWatch = AbortOnDropHandle<()>;

impl Contents {
    fn mark(&self) -> blake3::Hash {
        let mut all = blake3::Hasher::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map(|part| blake3::hash(part));
            all.update(part.as_ref().map_or(&[], |hash| hash.as_bytes()));
        }
        all.finalize()
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, String> {
        let client_ca = self.client_ca.as_ref();
        Ok(Contents {
            cert: read("--tls-cert", &self.cert)?,
            key: read("--tls-key", &self.key)?,
            client_ca: client_ca.map(|path| read("--tls-client-ca", path)).transpose()?,
        })
    }

    fn warn_if_exposed(&self) {
        if let Some(exposure) = key_file::exposure("--tls-key", &self.key) {
            tracing::warn!("{exposure}");
        }
    }

    /// Makes of the contents what connections begin with, or says in a sentence what is wrong.
    fn parse(&self, contents: &Contents) -> Result<Identity, String> {
        let provider = Arc::new(ring::default_provider());
        let wrong = |flag, path: &Path, what: &str| format!("{flag} {}: {what}", path.display());
        let wrong_cert = |what: &str| wrong("--tls-cert", &self.cert, what);
        let wrong_key = |what: &str| wrong("--tls-key", &self.key, what);
        let chain = certificates(&contents.cert).map_err(wrong_cert)?;
        let not_after = chain.first().and_then(end);
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| wrong_key(pem::no_private_key(&contents.key)))?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            wrong_key("holds a key of a kind that is not known: give one of ECDSA, Ed25519 or RSA")
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
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong_cert(&error.to_string()))?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let wrong = |what: &str| wrong("--tls-client-ca", path, what);
                let roots = roots(pem).map_err(wrong)?;
                let verifier = verifier(roots, provider).map_err(|what| wrong(&what))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        if self.client_ca.is_some() {
            // A session that is resumed is not verified again: a client's certificate would
            // outlive its end.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Identity { config: Arc::new(config), mark: contents.mark(), not_after })
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |what: &str| format!("{flag} {}: {what}", path.display());
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut contents));
    read.map_err(|error| wrong(&error.kind().to_string()))?;
    if contents.len() as u64 > MOST {
        return Err(wrong(&format!("has more than {MOST} bytes")));
    }
    Ok(contents)
}

/// The certificates of a file, at least one.
fn certificates(contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    let certificates = certificates.map_err(|_| "is not PEM from its beginning to its end")?;
    if certificates.is_empty() {
        return Err(pem::no_certificate(contents));
    }
    Ok(certificates)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, &'static str> {
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

/// Why a handshake failed, if it did for the certificate that a client shows or does not show.
pub(crate) fn refusal(error: &io::Error) -> Option<RejectionReason> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::NoCertificatesPresented => Some(RejectionReason::NoClientCertificate),
        Error::InvalidCertificate(_) => Some(RejectionReason::ClientCertificate),
        _ => None,
    }
}

/// The names of a certificate that was verified.
fn names(certificate: &CertificateDer<'_>) -> io::Result<Arc<[String]>> {
    // What cannot be read could name anybody: it is refused, and not taken for nobody.
    let unread = |_| io::Error::other(Error::InvalidCertificate(CertificateError::BadEncoding));
    let certificate = Certificate::from_der(certificate).map_err(unread)?;
    let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(unread)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let name = |name: GeneralName| match name {
        // Only what looks like its kind: a URI that reads as a DNS name is no such name, and a CA
        // may be bound in which of the two it can give.
        GeneralName::UniformResourceIdentifier(name) => {
            Some(name.to_string()).filter(|name| name.contains(':'))
        }
        GeneralName::DnsName(name) => Some(name.to_string()).filter(|name| !name.contains(':')),
        _ => None,
    };
    Ok(names.into_iter().filter_map(name).collect())
}

/// Until when a certificate is valid.
fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()
}

fn until(identity: &Identity) -> String {
    identity.not_after.map_or_else(|| "unknown".to_owned(), |end| end.to_string())
}

fn warn_if_over(identity: &Identity) {
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
    fn the_names_of_a_certificate_are_its_uris_and_dns_names_in_order() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("ascii"));
        let uri = |name: &str| SanType::URI(name.try_into().expect("ascii"));
        let mail = SanType::Rfc822Name("a@example.org".try_into().expect("ascii"));
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let all = vec![dns("b.example"), mail, uri("spiffe://example.org/a"), address, dns("a")];
        assert_eq!(named(all), ["b.example", "spiffe://example.org/a", "a"]);
        assert_eq!(named(vec![]), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_names_nobody_and_is_refused() {
        let error = names(&CertificateDer::from_slice(b"no certificate")).expect_err("unread");
        assert_eq!(refusal(&error), Some(RejectionReason::ClientCertificate), "and it is told of");
    }
}
