//! Pinned certificate: TLS to a server of this machine, whose certificate is in a file here. No CA and no
//! name matter, because no other certificate is accepted. Nor does its time: that a certificate has
//! expired is no reason to restart the server.
//!
//! Not here: TLS to other servers; see [`super::connection`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::anyhow;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};
use tonic::codegen::{Service, StdError};

use super::server_address::host_and_port;

/// Connects to the server that has a certificate and its key.
#[derive(Clone)]
pub(super) struct PinnedConnector(TlsConnector);

impl PinnedConnector {
    /// A connector for the first certificate of a file, which is the server's own. `identity` is the
    /// certificate chain and the key of the client. All are PEM.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) fn new(server: &[u8], identity: Option<(&[u8], &[u8])>) -> anyhow::Result<Self> {
        let cannot = |error: &dyn std::fmt::Display| anyhow!("cannot set up TLS: {error}");
        let provider = Arc::new(ring::default_provider());
        let certificate = CertificateDer::from_pem_slice(server).map_err(|error| cannot(&error))?;
        let verifier = PinnedCertificate { certificate, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| cannot(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| cannot(&error))?;
                config
                    .with_client_auth_cert(chain.map_err(|error| cannot(&error))?, key)
                    .map_err(|error| cannot(&error))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl Service<Uri> for PinnedConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let (host, port) = host_and_port(&uri);
            let host = host.trim_matches(['[', ']']).to_owned();
            let connection = TcpStream::connect((host.as_str(), port)).await?;
            let name = ServerName::try_from(host)?;
            Ok(TokioIo::new(connector.connect(name, connection).await?))
        })
    }
}

/// Accepts one certificate. That the server has its key is still proven by the handshake.
#[derive(Debug)]
struct PinnedCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
