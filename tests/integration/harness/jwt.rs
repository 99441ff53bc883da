//! An issuer of tokens for the tests: keys of each algorithm, key sets of them, and signed tokens with
//! any header and any claims, well-formed or not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// Every algorithm of a signature.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// The published keys: `ring` makes no RSA keys.
const RSA_KEYS: [&[u8]; 2] =
    [include_bytes!("keys/published-rsa-1.pem"), include_bytes!("keys/published-rsa-2.pem")];

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

/// A key pair of an issuer.
pub struct Signer {
    pub algorithm: String,
    /// Its `kid`; empty: it has none.
    pub id: String,
    pair: Pair,
}

/// Bytes as a token has them.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

/// The set of these keys.
pub fn key_set<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> String {
    let keys: Vec<_> = signers.into_iter().map(Signer::public_key).collect();
    json!({ "keys": keys }).to_string()
}

impl Signer {
    /// A new key. For RSA it is the first of the two published keys.
    pub fn new(algorithm: &str, id: &str) -> Self {
        Self::numbered(algorithm, id, 0)
    }

    /// A new key, which is another one than [`Signer::new`] makes, also for RSA.
    pub fn other(algorithm: &str, id: &str) -> Self {
        Self::numbered(algorithm, id, 1)
    }

    fn numbered(algorithm: &str, id: &str, rsa_key: usize) -> Self {
        let random = SystemRandom::new();
        let rsa = |encoding| {
            let key = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEYS[rsa_key]).expect("a PEM key");
            Pair::Rsa(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("a key"), encoding)
        };
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm, curve| {
            let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random);
            Pair::Ecdsa(pair.expect("a key"), curve)
        };
        let pair = match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "EdDSA" => {
                let key = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
                Pair::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
            }
            _ => panic!("no algorithm {algorithm}"),
        };
        Self { algorithm: algorithm.to_owned(), id: id.to_owned(), pair }
    }

    /// The public key, as a key set has it. It has no `alg`.
    pub fn public_key(&self) -> Value {
        let mut key = match &self.pair {
            Pair::Rsa(pair, _) => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            Pair::Ecdsa(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) })
            }
        };
        if !self.id.is_empty() {
            key["kid"] = json!(self.id);
        }
        key
    }

    /// The header of an access token of this key.
    pub fn header(&self) -> Value {
        let mut header = json!({ "alg": self.algorithm, "typ": "at+jwt" });
        if !self.id.is_empty() {
            header["kid"] = json!(self.id);
        }
        header
    }

    /// An access token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(self.header().to_string(), claims.to_string())
    }

    /// A token of any two texts, with a right signature.
    pub fn sign(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    /// The signature over a text.
    pub fn signature(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, text, &mut signature).expect("a signature");
                signature
            }
            Pair::Ecdsa(pair, _) => pair.sign(&random, text).expect("a signature").as_ref().into(),
            Pair::Ed25519(pair) => pair.sign(text).as_ref().into(),
        }
    }
}
