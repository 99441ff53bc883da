//! Secret: the secret by which an API client authenticates (D11). The store has only its hash.
//!
//! A secret has the form `sgs_<id>_<random>`, the key of a caller of scopegate itself (D8) the form
//! `sgk_<id>_<random>`, and an authorization code (T34) the form `sgc_<id>_<random>`. The id is public and identifies the owner. The rest is 256 random bits
//! from the operating system, which need no slow hash.

use std::fmt;

use jiff::Timestamp;

use super::edit::Stamped;
use super::id::{CompanyId, CredentialId, Name};
use super::revision::Revision;

/// The limit of live secrets of a credential: two, so that one can replace the other.
pub const MAX_LIVE: usize = 2;

const ID_BYTES: usize = 12;
const RANDOM_BYTES: usize = 32;

/// The kind of a secret, which its prefix shows: to people, and to tools that scan for leaked
/// secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// For an API client of a company.
    Credential,
    /// For a caller of scopegate itself.
    Key,
    /// An authorization code.
    Code,
}

impl SecretKind {
    /// What a secret of this kind begins with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Credential => "sgs_",
            Self::Key => "sgk_",
            Self::Code => "sgc_",
        }
    }
}

/// A secret as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its public id.
    pub id: Name,
    /// The creation revision of the company.
    pub company: Revision,
    /// The credential that it belongs to.
    pub credential: CredentialId,
    /// The creation revision of that credential: a later one of the same id is another (D3).
    pub credential_created_at: Revision,
    /// The hash of the whole secret. The comparison of two hashes takes constant time.
    pub hash: blake3::Hash,
    /// Its last change.
    pub revision: Revision,
}

/// The owner of a secret, found by its public id alone (D11). It is valid for one company and one
/// credential: later ones of the same ids are others (D3).
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

impl Stamped for Secret {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}

impl Stamped for SecretOwner {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}

/// A secret as its client has it. It never appears in a log: `Debug` does not print its text.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl SecretText {
    /// The secret from these random bytes.
    #[must_use]
    pub fn mint(kind: SecretKind, random: &[u8; ID_BYTES + RANDOM_BYTES]) -> Self {
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, rest) = hex.split_at(ID_BYTES * 2);
        Self(format!("{}{id}_{rest}", kind.prefix()))
    }

    /// Parses a secret that a client presents; `None` if it is not a secret of this kind.
    #[must_use]
    pub fn parse(kind: SecretKind, text: String) -> Option<Self> {
        Self::id_in(kind, &text)?;
        Some(Self(text))
    }

    /// The public id in a text, if the text is a secret of this kind.
    #[must_use]
    pub fn id_in(kind: SecretKind, text: &str) -> Option<&str> {
        let (id, rest) = text.strip_prefix(kind.prefix())?.split_once('_')?;
        (id.len() == ID_BYTES * 2 && rest.len() == RANDOM_BYTES * 2).then_some(id)
    }

    /// The public id.
    #[must_use]
    pub fn id(&self) -> Option<Name> {
        let known = [SecretKind::Credential, SecretKind::Key, SecretKind::Code];
        let id = known.into_iter().find_map(|kind| Self::id_in(kind, &self.0))?;
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
        for (kind, other) in
            [(SecretKind::Credential, SecretKind::Key), (SecretKind::Key, SecretKind::Credential)]
        {
            let secret = SecretText::mint(kind, &[0xab; 44]);
            assert_eq!(secret.id().map(|id| id.to_string()), Some("ab".repeat(12)));
            assert_eq!(SecretText::parse(kind, secret.clone().reveal()), Some(secret.clone()));
            assert_eq!(SecretText::parse(other, secret.clone().reveal()), None);
            assert!(!format!("{secret:?}").contains("abab"));
            let text = secret.clone().reveal();
            let short = &text[..text.len() - 1];
            let (id, rest) = (&text[4..28], &text[29..]);
            let (short_id, no_prefix) = (text.replacen(id, &id[1..], 1), format!("{id}_{rest}"));
            let long = format!("{text}0");
            for bad in ["", &text[..4], short, &long, &short_id, &no_prefix, "sgs_ab_cd", "hello"] {
                assert_eq!(SecretText::parse(kind, bad.to_owned()), None);
            }
        }
    }
}
