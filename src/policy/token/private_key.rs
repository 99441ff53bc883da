//! Private key: the private half of a key that signs own tokens, by ES256 (RFC 7518 section 3.4).
//!
//! Not here: where it is kept; see `authority::signing_key_files`.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::key::{Key, Thumbprint};
use super::signing_keys::POINT_LEN;

/// Why there is no key, or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// The bytes are not a private key of P-256 as PKCS#8.
    #[error("is not a private key of P-256 as PKCS#8")]
    Malformed,
    /// The operating system has no random numbers.
    #[error("the operating system has no random numbers")]
    NoRandom,
}

/// A private key. `Debug` does not print it.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    /// The uncompressed point of its public half.
    pub point: [u8; POINT_LEN],
    /// The thumbprint of its public half.
    pub id: Thumbprint,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.id)
    }
}

impl PrivateKey {
    /// A new key, and its text as PKCS#8.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<(Self, Box<[u8]>), PrivateKeyError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| PrivateKeyError::NoRandom)?;
        Ok((Self::from_pkcs8(pkcs8.as_ref())?, pkcs8.as_ref().into()))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// The bytes are no such key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, PrivateKeyError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, bytes, &SystemRandom::new());
        let pair = pair.map_err(|_| PrivateKeyError::Malformed)?;
        let point = pair.public_key().as_ref().try_into();
        let point = point.map_err(|_| PrivateKeyError::Malformed)?;
        let id = Key::p256(&point).thumbprint;
        Ok(Self { pair, point, id })
    }

    /// The signature over a text, as `r` and `s`.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, PrivateKeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), text);
        let signature = signature.map_err(|_| PrivateKeyError::NoRandom)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::catalog::issuer::Algorithm;

    #[test]
    fn a_signature_is_of_the_key_and_the_text() {
        let (key, pkcs8) = PrivateKey::generate().expect("made");
        let (other, _) = PrivateKey::generate().expect("made");
        let read = PrivateKey::from_pkcs8(&pkcs8).expect("the same key");
        assert_eq!((read.id, read.point), (key.id, key.point));
        let signature = key.sign(b"text").expect("signed");
        let has_signed = |key: &PrivateKey, text: &[u8]| {
            Key::p256(&key.point).has_signed(Algorithm::Es256, text, &signature)
        };
        assert!(has_signed(&key, b"text"));
        assert!(!has_signed(&key, b"texts") && !has_signed(&other, b"text"));
        assert!(PrivateKey::from_pkcs8(&pkcs8[1..]).is_err());
        assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.id));
    }
}
