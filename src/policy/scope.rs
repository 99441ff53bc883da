//! Scope: the name of a permission, and the number that stands for it in every set.

use std::borrow::Borrow;
use std::fmt;

/// The limit of bytes of a scope's name.
pub const MAX_LEN: usize = 128;

/// A permission's name: an RFC 6749 `scope-token` of 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Box<str>);

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// It has no bytes.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`MAX_LEN`] bytes.
    #[error("has {0} bytes, the limit is {MAX_LEN}")]
    TooLong(usize),
    /// It has a character that RFC 6749 keeps out of a `scope-token`.
    #[error(
        "has the character {0:?}; a scope is printable ASCII without space, quote and backslash"
    )]
    Character(char),
}

impl Scope {
    /// Reads a scope's name: `1*( %x21 / %x23-5B / %x5D-7E )`, RFC 6749 section 3.3.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: impl Into<Box<str>>) -> Result<Self, ScopeError> {
        let text = text.into();
        if text.is_empty() {
            return Err(ScopeError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(ScopeError::TooLong(text.len()));
        }
        let own = |b: u8| matches!(b, b'\x21' | b'\x23'..=b'\x5b' | b'\x5d'..=b'\x7e');
        if text.bytes().all(own) {
            return Ok(Self(text));
        }
        let foreign = text.chars().find(|c| !u8::try_from(*c).is_ok_and(own));
        Err(foreign.map_or(ScopeError::Empty, ScopeError::Character))
    }

    /// The scope's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Scope {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a scope in this store. It is never assigned again after its scope has left the
/// catalog (D2), so a leftover number means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u32);

/// A map from scopes to values, ordered by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeMap<V>(Vec<(ScopeId, V)>);

impl<V> Default for ScopeMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> ScopeMap<V> {
    /// The value of this scope.
    #[must_use]
    pub fn get(&self, scope: ScopeId) -> Option<&V> {
        let at = self.0.binary_search_by_key(&scope, |(id, _)| *id).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether the scope is in the set.
    #[must_use]
    pub fn contains(&self, scope: ScopeId) -> bool {
        self.get(scope).is_some()
    }

    /// All scopes of the set, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ScopeId, &V)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    /// All values, mutable.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// How many scopes the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no scope.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V> FromIterator<(ScopeId, V)> for ScopeMap<V> {
    /// Of two entries for one scope the first wins.
    fn from_iter<I: IntoIterator<Item = (ScopeId, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(id, _)| *id);
        entries.dedup_by_key(|(id, _)| *id);
        Self(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_an_rfc_6749_scope_token() {
        for good in ["users:read", "api/all", "read_organization", "!", "~", "a#[]b"] {
            assert!(Scope::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\\b", "é", "a\tb", "\x7f"] {
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Scope::parse("x".repeat(128)).is_ok());
        assert_eq!(Scope::parse("x".repeat(129)), Err(ScopeError::TooLong(129)));
    }
}
