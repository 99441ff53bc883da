//! Key set: the public keys of an issuer (RFC 7517 section 5).
//!
//! Not here: where a set comes from, how old it may be (T18 to T20), and what makes a key usable, which
//! is in [`super::key`].

use std::fmt;
use std::sync::Arc;

use super::json::{self, Value};
use super::key::MAX_ID_LEN;
pub use super::key::{Key, KeyFault, Thumbprint};

/// The most bytes of the text of a set (T9).
pub const MAX_BYTES: usize = 256 * 1024;
/// The most keys of a set, those that are skipped included (T9).
pub const MAX_KEYS: usize = 64;

/// The usable keys of a set (T10), in its order. A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Arc<[Key]>);

/// What the text of a set says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedKeySet {
    /// The usable keys.
    pub keys: KeySet,
    /// The keys that are not usable, for a warning.
    pub skipped: Vec<SkippedKey>,
}

/// A key that is not usable, and why. Neither has key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Its `kid`, unless that is malformed.
    pub id: Option<Box<str>>,
    /// Why it is not usable.
    pub fault: KeyFault,
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, id, fault } = self;
        match id {
            Some(id) => write!(f, "`keys[{index}]` with the `kid` {id:?} {fault}"),
            None => write!(f, "`keys[{index}]` {fault}"),
        }
    }
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is longer than [`MAX_BYTES`].
    #[error("has {0} bytes, the limit is {MAX_BYTES}")]
    TooLong(usize),
    /// It is not JSON.
    #[error("is not a JSON object of at most 32 levels: see line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 if the line is not begun.
        column: usize,
    },
    /// It has no array of keys.
    #[error("must have exactly one member `keys`, an array of objects (RFC 7517 section 5)")]
    Keys,
    /// It has more than [`MAX_KEYS`] keys.
    #[error("has {0} keys, the limit is {MAX_KEYS}")]
    TooManyKeys(usize),
}

impl KeySet {
    /// Reads a key set. A set without keys is a set. A key that is not usable is skipped, also one that
    /// repeats a member.
    ///
    /// # Errors
    /// The text is not a key set.
    pub fn parse(text: &[u8]) -> Result<ParsedKeySet, KeySetError> {
        if text.len() > MAX_BYTES {
            return Err(KeySetError::TooLong(text.len()));
        }
        let set = json::parse(text)
            .map_err(|error| KeySetError::Json { line: error.line(), column: error.column() })?;
        let Some(Value::Array(members)) = set.get("keys").filter(|_| !set.has_repeats) else {
            return Err(KeySetError::Keys);
        };
        if members.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys(members.len()));
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, value) in members.iter().enumerate() {
            let Value::Object(members) = value else { return Err(KeySetError::Keys) };
            match Key::parse(members) {
                Ok(key) => keys.push(key),
                Err(fault) => {
                    let id = members.get("kid").and_then(Value::as_str);
                    let id = id.filter(|id| id.len() <= MAX_ID_LEN).map(Into::into);
                    skipped.push(SkippedKey { index, id, fault });
                }
            }
        }
        Ok(ParsedKeySet { keys: Self(keys.into()), skipped })
    }

    /// Whether the set has the key with this thumbprint.
    #[must_use]
    pub fn has(&self, key: &Thumbprint) -> bool {
        self.0.iter().any(|own| own.thumbprint == *key)
    }

    /// The keys, in the order of the set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.0.iter()
    }

    /// Whether the set has no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys with this `kid`; all keys if it is none (T12).
    pub fn with_id(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}
