//! Secret: what an API client proves itself with (D11). Only its hash is kept.
//!
//! A secret reads `sgs_<id>_<random>`: the id is public and finds the credential; the rest is
//! 256 bits from the system, which need no slow hash.

use std::fmt;

use super::id::{CredentialId, Name};
use super::revision::Revision;

/// The most live secrets of a credential: two, so that one can follow the other.
pub const MAX_LIVE: usize = 2;

const MARK: &str = "sgs_";
const ID_BYTES: usize = 12;

/// A secret as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its public id.
    pub id: Name,
    /// The birth of the company.
    pub company: Revision,
    /// The credential that it belongs to.
    pub credential: CredentialId,
    /// The birth of that credential: a later one of the same id is another (D3).
    pub credential_birth: Revision,
    /// The hash of the whole secret. Comparing two takes the same time wherever they differ.
    pub hash: blake3::Hash,
    /// Its last change.
    pub revision: Revision,
}

/// A secret as its client has it. It is never written to a log: it has no `Debug` of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented(String);

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

impl Presented {
    /// The secret that these random bytes make.
    #[must_use]
    pub fn mint(random: &[u8; 44]) -> Self {
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, rest) = hex.split_at(ID_BYTES * 2);
        Self(format!("{MARK}{id}_{rest}"))
    }

    /// Reads what a client presented; none if it is no secret at all.
    #[must_use]
    pub fn parse(text: String) -> Option<Self> {
        let presented = Self(text);
        presented.id().is_some().then_some(presented)
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> Option<Name> {
        let (id, rest) = self.0.strip_prefix(MARK)?.split_once('_')?;
        let whole = id.len() == ID_BYTES * 2 && rest.len() == 64;
        if whole { Name::parse(id).ok() } else { None }
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> blake3::Hash {
        blake3::hash(self.0.as_bytes())
    }

    /// The text, to be shown once.
    #[must_use]
    pub fn reveal(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_minted_and_never_printed() {
        let secret = Presented::mint(&[0xab; 44]);
        assert_eq!(secret.id().map(|id| id.to_string()), Some("ab".repeat(12)));
        assert_eq!(Presented::parse(secret.clone().reveal()), Some(secret.clone()));
        assert!(!format!("{secret:?}").contains("abab"));
        for bad in ["", "sgs_", "sgs_ab_cd", "hello", &"x".repeat(10_000)] {
            assert_eq!(Presented::parse(bad.to_owned()), None);
        }
    }
}
