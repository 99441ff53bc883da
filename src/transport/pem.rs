//! PEM: checks that a file holds certificates or a private key (RFC 7468), and explains what it holds
//! instead.
//!
//! Not here: how the server uses them; see [`super::tls`].

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Checks that a file holds at least one certificate.
///
/// # Errors
/// A description of the problem.
pub fn check_certificates(contents: &[u8]) -> Result<(), &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    match certificates {
        Ok(all) if all.is_empty() => Err(no_certificate(contents)),
        Ok(_) => Ok(()),
        Err(_) => Err("is not PEM from its beginning to its end"),
    }
}

/// Checks that a file holds a private key.
///
/// # Errors
/// A description of the problem.
pub fn check_private_key(contents: &[u8]) -> Result<(), &'static str> {
    match PrivateKeyDer::from_pem_slice(contents) {
        Ok(_) => Ok(()),
        Err(_) => Err(no_private_key(contents)),
    }
}

/// The problem of a file without a certificate.
#[must_use]
pub fn no_certificate(contents: &[u8]) -> &'static str {
    if contents.trim_ascii().is_empty() {
        return "is empty: it should hold a certificate in PEM";
    }
    if has_block(contents, "PRIVATE KEY") {
        return "holds no certificate but a private key: are the two files exchanged?";
    }
    "holds no certificate in PEM"
}

/// The problem of a file without a private key.
#[must_use]
pub fn no_private_key(contents: &[u8]) -> &'static str {
    if contents.trim_ascii().is_empty() {
        return "is empty: it should hold a private key in PEM";
    }
    if has_block(contents, "ENCRYPTED") {
        return "holds no private key in PEM that is not encrypted: store it without a passphrase";
    }
    if has_block(contents, "CERTIFICATE") {
        return "holds no private key but a certificate: are the two files exchanged?";
    }
    "holds no private key in PEM that is not encrypted"
}

/// Whether the file has a PEM block of this kind.
fn has_block(contents: &[u8], kind: &str) -> bool {
    let text = String::from_utf8_lossy(contents);
    text.lines().any(|line| {
        let line = line.trim();
        line.contains(kind) && (line.starts_with("-----BEGIN") || line.starts_with("Proc-Type"))
    })
}
