//! Fact: a record that the store keeps and the caches hold, and its key.
//!
//! Not here: the encoding; see `record` and `key`.

use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::catalog::Catalog;
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::edit::Stamped;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::user::User;

/// The key of a fact, in the store and in the caches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FactKey {
    /// The catalog.
    Catalog,
    /// The keyring.
    Keyring,
    /// A company, by id.
    Company(CompanyId),
    /// A credential, by the creation revision of its company and by its id. A fact of an earlier
    /// company with the same id has another key (D3).
    Credential(Revision, CredentialId),
    /// A company's impact revision, by the creation revision of the company: the last change of any
    /// of its credentials (D7).
    Impact(Revision),
    /// A user, by the creation revision of the company and by the user's id.
    User(Revision, UserId),
    /// A user's consent to a credential, by the creation revisions of company, user and credential.
    Consent(Parties),
    /// A secret, by the creation revision of the company and by its public id.
    Secret(Revision, Name),
    /// The owner of a secret, by the secret's public id.
    SecretOwner(Name),
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The catalog.
    Catalog(Arc<Catalog>),
    /// The keyring.
    Keyring(Arc<Keyring>),
    /// A company.
    Company(Arc<Company>),
    /// A credential.
    Credential(Arc<Credential>),
    /// A company's impact revision.
    Impact(Revision),
    /// A user.
    User(Arc<User>),
    /// A user's consent to a credential.
    Consent(Arc<Consent>),
    /// A secret.
    Secret(Arc<Secret>),
    /// The owner of a secret, by the secret's public id.
    SecretOwner(Arc<SecretOwner>),
}

impl Fact {
    /// The revision that last changed it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Catalog(catalog) => catalog.revision,
            Self::Keyring(keyring) => keyring.revision,
            Self::Company(company) => company.revision,
            Self::Credential(credential) => credential.revision,
            Self::Impact(revision) => *revision,
            Self::User(user) => user.revision,
            Self::Consent(consent) => consent.revision,
            Self::Secret(secret) => secret.revision,
            Self::SecretOwner(owner) => owner.revision,
        }
    }

    /// Sets the revision and the time of its commit.
    pub(super) fn stamp(&mut self, revision: Revision, time: Timestamp) {
        match self {
            Self::Catalog(catalog) => Arc::make_mut(catalog).revision = revision,
            Self::Keyring(keyring) => Arc::make_mut(keyring).stamp(revision, time),
            Self::Company(company) => Arc::make_mut(company).stamp(revision, time),
            Self::Credential(credential) => Arc::make_mut(credential).stamp(revision, time),
            Self::Impact(at) => *at = revision,
            Self::User(user) => Arc::make_mut(user).stamp(revision, time),
            Self::Consent(consent) => Arc::make_mut(consent).stamp(revision, time),
            Self::Secret(secret) => Arc::make_mut(secret).revision = revision,
            Self::SecretOwner(owner) => Arc::make_mut(owner).revision = revision,
        }
    }
}
