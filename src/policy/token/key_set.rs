//! Key set: the public keys of an issuer (RFC 7517).

/// The SHA-256 thumbprint of a key (RFC 7638).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint(pub [u8; 32]);

/// The usable keys of a set (T10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {}

impl KeySet {
    /// Whether the set has the key with this thumbprint.
    #[must_use]
    pub fn has(&self, _key: &Thumbprint) -> bool {
        false
    }
}
