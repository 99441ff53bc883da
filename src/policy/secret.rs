//! Secret: what an API client proves itself with (D11). Only its hash is kept.
//!
//! A secret reads `sgs_<id>_<random>`, and the key of a caller of scopegate itself (D8)
//! `sgk_<id>_<random>`: the id is public and finds whose it is; the rest is 256 bits from the
//! system, which need no slow hash.

use std::fmt;

use super::id::{CompanyId, CredentialId, Name};
use super::revision::Revision;

/// The most live secrets of a credential: two, so that one can follow the other.
pub const MAX_LIVE: usize = 2;

const ID_BYTES: usize = 12;
const RANDOM_BYTES: usize = 32;

/// What a secret is good for, which its first letters say: to people, and to those who look for
/// secrets where none should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// For an API client of a company.
    Credential,
    /// For a caller of scopegate itself.
    Key,
}

impl SecretKind {
    fn text(self) -> &'static str {
        match self {
            Self::Credential => "sgs_",
            Self::Key => "sgk_",
        }
    }
}

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

/// Whose a secret is, found by its public id alone (D11). It holds for one company and one
/// credential: a later one of the same id is another (D3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretOwner {
    /// The public id of the secret.
    pub secret: Name,
    /// The company.
    pub company: CompanyId,
    /// The revision that created the company.
    pub company_created_at: Revision,
    /// The revision that created the credential.
    pub credential_created_at: Revision,
    /// The revision that created the secret.
    pub revision: Revision,
}

/// A secret as its client has it. It is never written to a log: it has no `Debug` of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

impl SecretText {
    /// The secret that these random bytes make.
    #[must_use]
    pub fn mint(mark: SecretKind, random: &[u8; ID_BYTES + RANDOM_BYTES]) -> Self {
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, rest) = hex.split_at(ID_BYTES * 2);
        Self(format!("{}{id}_{rest}", mark.text()))
    }

    /// Reads what a client presented; none if it is no secret of this kind at all.
    #[must_use]
    pub fn parse(mark: SecretKind, text: String) -> Option<Self> {
        Self::id_in(mark, &text)?;
        Some(Self(text))
    }

    /// The public id in a text, if that is a secret of this kind.
    #[must_use]
    pub fn id_in(mark: SecretKind, text: &str) -> Option<&str> {
        let (id, rest) = text.strip_prefix(mark.text())?.split_once('_')?;
        (id.len() == ID_BYTES * 2 && rest.len() == RANDOM_BYTES * 2).then_some(id)
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> Option<Name> {
        let known = [SecretKind::Credential, SecretKind::Key];
        let id = known.into_iter().find_map(|mark| Self::id_in(mark, &self.0))?;
        Name::parse(id).ok()
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
        for (mark, other) in
            [(SecretKind::Credential, SecretKind::Key), (SecretKind::Key, SecretKind::Credential)]
        {
            let secret = SecretText::mint(mark, &[0xab; 44]);
            assert_eq!(secret.id().map(|id| id.to_string()), Some("ab".repeat(12)));
            assert_eq!(SecretText::parse(mark, secret.clone().reveal()), Some(secret.clone()));
            assert_eq!(SecretText::parse(other, secret.clone().reveal()), None);
            assert!(!format!("{secret:?}").contains("abab"));
            let text = secret.clone().reveal();
            let short = &text[..text.len() - 1];
            let (id, rest) = (&text[4..28], &text[29..]);
            let (short_id, no_mark) = (text.replacen(id, &id[1..], 1), format!("{id}_{rest}"));
            let long = format!("{text}0");
            for bad in ["", &text[..4], short, &long, &short_id, &no_mark, "sgs_ab_cd", "hello"] {
                assert_eq!(SecretText::parse(mark, bad.to_owned()), None);
            }
        }
    }
}
