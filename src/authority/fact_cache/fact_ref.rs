//! Fact reference: a borrowed form of [`FactKey`], for lookups without allocation.

use equivalent::Equivalent;

use crate::policy::consent::Parties;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::store::FactKey;

/// A borrowed key.
#[derive(Clone, Copy, Debug, Hash)]
pub(in crate::authority) enum FactRef<'a> {
    // In the order of `FactKey`, so that both have the same hash.
    #[cfg_attr(not(test), expect(dead_code, reason = "the catalog is always in memory"))]
    Catalog,
    #[cfg_attr(not(test), expect(dead_code, reason = "the keyring is always in memory"))]
    Keyring,
    Company(&'a CompanyId),
    Credential(Revision, &'a CredentialId),
    Impact(Revision),
    User(Revision, &'a UserId),
    Consent(Parties),
    Secret(Revision, &'a Name),
    SecretOwner(&'a Name),
}

impl Equivalent<FactKey> for FactRef<'_> {
    fn equivalent(&self, key: &FactKey) -> bool {
        match (self, key) {
            (Self::Catalog, FactKey::Catalog) | (Self::Keyring, FactKey::Keyring) => true,
            (Self::Company(a), FactKey::Company(b)) => *a == b,
            (Self::Credential(a, x), FactKey::Credential(b, y)) => a == b && *x == y,
            (Self::Impact(a), FactKey::Impact(b)) => a == b,
            (Self::User(a, x), FactKey::User(b, y)) => a == b && *x == y,
            (Self::Consent(a), FactKey::Consent(b)) => a == b,
            (Self::Secret(a, x), FactKey::Secret(b, y)) => a == b && *x == y,
            (Self::SecretOwner(a), FactKey::SecretOwner(b)) => *a == b,
            _ => false,
        }
    }
}

impl FactRef<'_> {
    pub(super) fn to_key(self) -> FactKey {
        match self {
            Self::Catalog => FactKey::Catalog,
            Self::Keyring => FactKey::Keyring,
            Self::Company(id) => FactKey::Company(id.clone()),
            Self::Credential(company, id) => FactKey::Credential(company, id.clone()),
            Self::Impact(company) => FactKey::Impact(company),
            Self::User(company, id) => FactKey::User(company, id.clone()),
            Self::Consent(of) => FactKey::Consent(of),
            Self::Secret(company, id) => FactKey::Secret(company, id.clone()),
            Self::SecretOwner(id) => FactKey::SecretOwner(id.clone()),
        }
    }
}
