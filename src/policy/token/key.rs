//! Key: a public key that verifies signatures (RFC 7517, RFC 7518 section 6, RFC 8037).
//!
//! Not here: the verification itself, which is in [`super::signature`], and private keys: a key with
//! private members is not usable, because every reader of the set could sign with it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::{agreement, digest, rand};

use super::json::{Object, Value};
use crate::policy::catalog::issuer::Algorithm;

/// The most bytes of a `kid` (T12).
pub const MAX_ID_LEN: usize = 256;

/// The members that hold private or symmetric key material (RFC 7518 section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The y coordinates, little-endian and without the sign, of the Ed25519 points of small order. With
/// such a key anyone can make signatures. A key of zeros is one of them.
const SMALL_ORDER: [[u8; 32]; 7] = [
    y([0x00; 2], 0x00, 0x00),
    y([0x01, 0x00], 0x00, 0x00),
    y([0xec, 0xff], 0xff, 0x7f),
    y([0xed, 0xff], 0xff, 0x7f),
    y([0xee, 0xff], 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

/// A coordinate whose middle bytes are all the same.
const fn y(first: [u8; 2], middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    [bytes[0], bytes[1]] = first;
    bytes[31] = last;
    bytes
}

/// The SHA-256 thumbprint of a key (RFC 7638). It depends on the key alone, not on its `kid` or `alg`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub [u8; 32]);

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a key of a set is not usable (T10). The text names no key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// A member is there twice.
    #[error("repeats a member")]
    RepeatedMember,
    /// It is symmetric, or has private members.
    #[error("is symmetric or has private members: publish public keys only")]
    Private,
    /// Its `kty` is none of those.
    #[error("has another `kty` than `RSA`, `EC` and `OKP`")]
    KeyType,
    /// Its `crv` is none of those, or not of its `kty`.
    #[error("has another `crv` than `P-256` and `P-384` for `EC`, `Ed25519` for `OKP`")]
    Curve,
    /// Its `use` or `key_ops` is for something else.
    #[error("is not for the verification of signatures, as its `use` or `key_ops` says")]
    Use,
    /// Its `alg` is not known, or not of its type.
    #[error("has an `alg` that is not supported, or that is not for a key of its type")]
    Algorithm,
    /// Its `kid` is no string, or too long.
    #[error("has a `kid` that is not a string of at most {MAX_ID_LEN} bytes")]
    Id,
    /// A number of it is missing or has another form.
    #[error("has a member `{0}` that is missing, or that is not base64url of the right length")]
    Number(&'static str),
    /// Its modulus is too short or too long, or even.
    #[error("has a modulus of {0} bits: an odd modulus of 2048 to 8192 bits is supported")]
    Modulus(usize),
    /// Its exponent is too small, too large or even.
    #[error("has an exponent that is not odd, below 65537, or longer than 33 bits")]
    Exponent,
    /// Its coordinates are not those of a point, or of one that protects nothing.
    #[error("is not a point of its curve, or one of small order")]
    Point,
}

/// What a key is made of.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
    /// An uncompressed point of P-256.
    P256(Box<[u8]>),
    /// An uncompressed point of P-384.
    P384(Box<[u8]>),
    /// An encoded point of Ed25519.
    Ed25519(Box<[u8]>),
}

/// A usable key of an issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Its `kid`. Several keys of a set may have the same.
    pub id: Option<Box<str>>,
    /// Its `alg`: it verifies signatures of this algorithm only.
    pub algorithm: Option<Algorithm>,
    /// Its thumbprint.
    pub thumbprint: Thumbprint,
    /// What it is made of.
    pub(super) public: PublicKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.thumbprint)
    }
}

impl Key {
    /// Reads a key of a set.
    ///
    /// # Errors
    /// Why the key is not usable.
    pub(super) fn parse(members: &Object) -> Result<Self, KeyFault> {
        if members.has_repeats {
            return Err(KeyFault::RepeatedMember);
        }
        let key_type = members.get("kty").and_then(Value::as_str);
        if key_type == Some("oct") || members.has_any(&PRIVATE_MEMBERS) {
            return Err(KeyFault::Private);
        }
        let is_sig = members.get("use").is_none_or(|usage| usage.as_str() == Some("sig"));
        let verifies = members.get("key_ops").is_none_or(|operations| {
            operations.as_strings().is_some_and(|operations| operations.contains(&"verify"))
        });
        if !(is_sig && verifies) {
            return Err(KeyFault::Use);
        }
        let id = match members.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_ID_LEN => Some(id.clone()),
            Some(_) => return Err(KeyFault::Id),
        };
        let (public, thumbprint) = match key_type {
            Some("RSA") => rsa(members)?,
            Some("EC") => elliptic(members)?,
            Some("OKP") => edwards(members)?,
            _ => return Err(KeyFault::KeyType),
        };
        let algorithm = match members.get("alg") {
            None => None,
            Some(name) => {
                let algorithm = name.as_str().and_then(Algorithm::parse);
                let algorithm = algorithm.filter(|algorithm| public.is_for(*algorithm));
                Some(algorithm.ok_or(KeyFault::Algorithm)?)
            }
        };
        Ok(Self { id, algorithm, thumbprint, public })
    }

    /// Whether it verifies signatures of this algorithm.
    #[must_use]
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.public.is_for(algorithm) && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

impl PublicKey {
    /// Whether a key of this type has signatures of this algorithm.
    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Self::P256(_) => algorithm == Es256,
            Self::P384(_) => algorithm == Es384,
            Self::Ed25519(_) => algorithm == EdDsa,
        }
    }
}

/// The bytes of a member, which is canonical base64url without padding.
fn bytes(members: &Object, name: &'static str) -> Result<Vec<u8>, KeyFault> {
    let text = members.get(name).and_then(Value::as_str).ok_or(KeyFault::Number(name))?;
    BASE64.decode(text).map_err(|_| KeyFault::Number(name))
}

/// The bytes of a member that has exactly this length.
fn coordinate(members: &Object, name: &'static str, len: usize) -> Result<Vec<u8>, KeyFault> {
    Some(bytes(members, name)?).filter(|bytes| bytes.len() == len).ok_or(KeyFault::Number(name))
}

/// The thumbprint of the required members in this order, which must be that of their names
/// (RFC 7638 section 3.3). No value has a character that JSON escapes.
fn thumbprint(members: &[(&str, &str)]) -> Thumbprint {
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
    let text = format!("{{{}}}", members.join(","));
    let mut hash = [0; 32];
    for (byte, hashed) in
        hash.iter_mut().zip(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
    {
        *byte = *hashed;
    }
    Thumbprint(hash)
}

fn rsa(members: &Object) -> Result<(PublicKey, Thumbprint), KeyFault> {
    // A leading zero is a common mistake (RFC 7518 section 6.3.1.1), and means the same number.
    let number = |name| -> Result<Box<[u8]>, KeyFault> {
        let bytes = bytes(members, name)?;
        Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    let bits = |number: &[u8]| {
        number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
    };
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let (modulus, exponent) = (number("n")?, number("e")?);
    if !(2048..=8192).contains(&bits(&modulus)) || !is_odd(&modulus) {
        return Err(KeyFault::Modulus(bits(&modulus)));
    }
    // An odd number of 17 bits is at least 65537. `ring` supports exponents of at most 33 bits.
    if !(17..=33).contains(&bits(&exponent)) || !is_odd(&exponent) {
        return Err(KeyFault::Exponent);
    }
    let (n, e) = (BASE64.encode(&modulus), BASE64.encode(&exponent));
    let thumbprint = thumbprint(&[("e", &e), ("kty", "RSA"), ("n", &n)]);
    Ok((PublicKey::Rsa { modulus, exponent }, thumbprint))
}

fn elliptic(members: &Object) -> Result<(PublicKey, Thumbprint), KeyFault> {
    let curve = members.get("crv").and_then(Value::as_str);
    let (curve, len, agreement): (_, _, &agreement::Algorithm) = match curve {
        Some("P-256") => ("P-256", 32, &agreement::ECDH_P256),
        Some("P-384") => ("P-384", 48, &agreement::ECDH_P384),
        _ => return Err(KeyFault::Curve),
    };
    let (x, y) = (coordinate(members, "x", len)?, coordinate(members, "y", len)?);
    let point: Box<[u8]> = [&[0x04], &*x, &*y].concat().into();
    // `ring` tells that a point is on its curve only in an agreement. The random key has no influence on
    // that, and the secret is dropped.
    let own = agreement::EphemeralPrivateKey::generate(agreement, &rand::SystemRandom::new());
    let peer = agreement::UnparsedPublicKey::new(agreement, &point);
    own.and_then(|own| agreement::agree_ephemeral(own, &peer, |_| ()))
        .map_err(|_| KeyFault::Point)?;
    let (x, y) = (BASE64.encode(x), BASE64.encode(y));
    let thumbprint = thumbprint(&[("crv", curve), ("kty", "EC"), ("x", &x), ("y", &y)]);
    let public = if len == 32 { PublicKey::P256(point) } else { PublicKey::P384(point) };
    Ok((public, thumbprint))
}

fn edwards(members: &Object) -> Result<(PublicKey, Thumbprint), KeyFault> {
    if members.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err(KeyFault::Curve);
    }
    let point = coordinate(members, "x", 32)?;
    let mut y = point.clone();
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    if SMALL_ORDER.iter().any(|small| small[..] == *y) {
        return Err(KeyFault::Point);
    }
    let x = BASE64.encode(&point);
    let thumbprint = thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", &x)]);
    Ok((PublicKey::Ed25519(point.into()), thumbprint))
}
