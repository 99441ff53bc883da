//! PEM: what a file has that should have certificates, or a private key (RFC 7468).

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Checks that a file has certificates, at least one.
///
/// # Errors
/// What is wrong with it.
pub fn check_certificates(contents: &[u8]) -> Result<(), &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    match found {
        Ok(found) if found.is_empty() => Err(no_certificate(contents)),
        Ok(_) => Ok(()),
        Err(_) => Err("is not PEM from its beginning to its end"),
    }
}

/// Checks that a file has a private key.
///
/// # Errors
/// What is wrong with it.
pub fn check_private_key(contents: &[u8]) -> Result<(), &'static str> {
    match PrivateKeyDer::from_pem_slice(contents) {
        Ok(_) => Ok(()),
        Err(_) => Err(no_private_key(contents)),
    }
}

/// What is wrong with a file in which no certificate was found.
#[must_use]
pub fn no_certificate(contents: &[u8]) -> &'static str {
    if contents.trim_ascii().is_empty() {
        return "is empty: it should hold a certificate in PEM";
    }
    if has(contents, "PRIVATE KEY") {
        return "holds no certificate but a private key: are the two files exchanged?";
    }
    "holds no certificate in PEM"
}

/// What is wrong with a file in which no private key was found.
#[must_use]
pub fn no_private_key(contents: &[u8]) -> &'static str {
    if contents.trim_ascii().is_empty() {
        return "is empty: it should hold a private key in PEM";
    }
    if has(contents, "ENCRYPTED") {
        return "holds no private key in PEM that is not encrypted: store it without a passphrase";
    }
    if has(contents, "CERTIFICATE") {
        return "holds no private key but a certificate: are the two files exchanged?";
    }
    "holds no private key in PEM that is not encrypted"
}

/// Whether a line begins a part of this kind.
fn has(contents: &[u8], kind: &str) -> bool {
    let text = String::from_utf8_lossy(contents);
    text.lines().any(|line| {
        let line = line.trim();
        line.contains(kind) && (line.starts_with("-----BEGIN") || line.starts_with("Proc-Type"))
    })
}
