//! Typed reads: one function for each kind of fact.

use std::sync::Arc;

use super::{FactCache, FactRef, ReadError};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::user::User;
use crate::store::Fact;

impl FactCache {
    /// A company at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn company(
        self: &Arc<Self>,
        at: Revision,
        id: &CompanyId,
    ) -> Result<Option<Arc<Company>>, ReadError> {
        match self.fact(at, FactRef::Company(id)).await? {
            Some(Fact::Company(company)) => Ok(Some(company)),
            _ => Ok(None),
        }
    }

    /// A credential of the company that was created at this revision, at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn credential(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &CredentialId,
    ) -> Result<Option<Arc<Credential>>, ReadError> {
        match self.fact(at, FactRef::Credential(company, id)).await? {
            Some(Fact::Credential(credential)) => Ok(Some(credential)),
            _ => Ok(None),
        }
    }

    /// A company's impact revision at revision `at`; none if it never had a credential (D7).
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn impact(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
    ) -> Result<Option<Revision>, ReadError> {
        Ok(self.fact(at, FactRef::Impact(company)).await?.map(|fact| fact.revision()))
    }

    /// A user of the company that was created at this revision, at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn user(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &UserId,
    ) -> Result<Option<Arc<User>>, ReadError> {
        match self.fact(at, FactRef::User(company, id)).await? {
            Some(Fact::User(user)) => Ok(Some(user)),
            _ => Ok(None),
        }
    }

    /// A consent at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn consent(
        self: &Arc<Self>,
        at: Revision,
        of: Parties,
    ) -> Result<Option<Arc<Consent>>, ReadError> {
        match self.fact(at, FactRef::Consent(of)).await? {
            Some(Fact::Consent(consent)) => Ok(Some(consent)),
            _ => Ok(None),
        }
    }

    /// A secret of the company that was created at this revision, at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn secret(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &Name,
    ) -> Result<Option<Arc<Secret>>, ReadError> {
        match self.fact(at, FactRef::Secret(company, id)).await? {
            Some(Fact::Secret(secret)) => Ok(Some(secret)),
            _ => Ok(None),
        }
    }

    /// The owner of the secret with this public id, at revision `at`.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub async fn secret_owner(
        self: &Arc<Self>,
        at: Revision,
        id: &Name,
    ) -> Result<Option<Arc<SecretOwner>>, ReadError> {
        match self.fact(at, FactRef::SecretOwner(id)).await? {
            Some(Fact::SecretOwner(owner)) => Ok(Some(owner)),
            _ => Ok(None),
        }
    }
}
