//! Signature: whether a signature over a text is of a key (RFC 7518 section 3, RFC 8037 section 3.1).
//!
//! `ring` has the rules of T13: ECDSA signatures are `r` and `s` of exact length, each from 1 to n-1;
//! the `s` of EdDSA is below the order; an RSA signature is as long as the modulus and below it. The
//! tests of this file prove it. Both signatures of ECDSA's malleability are right, so a token is never
//! identified by its text.
//!
//! Not here: which key and which algorithm a token may use; see [`super::unverified_token`].

use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

use super::key::{Key, PublicKey};
use crate::policy::catalog::issuer::Algorithm;

impl Key {
    /// Whether this is the key's signature over the text, by this algorithm. It is not if the key is
    /// not for the algorithm.
    pub(super) fn has_signed(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let (algorithm, point): (&dyn VerificationAlgorithm, _) = match &self.public {
            PublicKey::Rsa { modulus: n, exponent: e } => {
                let key = RsaPublicKeyComponents { n, e };
                return rsa(algorithm)
                    .is_some_and(|padding| key.verify(padding, text, signature).is_ok());
            }
            PublicKey::P256(point) => (&signature::ECDSA_P256_SHA256_FIXED, point),
            PublicKey::P384(point) => (&signature::ECDSA_P384_SHA384_FIXED, point),
            PublicKey::Ed25519(point) => (&signature::ED25519, point),
        };
        let (point, text, signature) = (&**point, text, signature);
        algorithm.verify(point.into(), text.into(), signature.into()).is_ok()
    }
}

/// The padding and the hash of an algorithm of RSA.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}
