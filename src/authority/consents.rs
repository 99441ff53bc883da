//! Consents: creates, withdraws and reads what a user allows a credential to do (D21).

use std::sync::Arc;

use super::error::AuthorityError;
use super::queries::Read;
use super::reader::Reader;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::catalog::Catalog;
use crate::policy::change::ChangeKind;
use crate::policy::consent::{Consent, Parties};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::scope::Scope;
use crate::policy::user::User;

/// Identifies a consent: its user and its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentId {
    /// The company.
    pub company: CompanyId,
    /// Its credential.
    pub credential: CredentialId,
    /// Its user.
    pub user: UserId,
}

/// A consent with the names of its scopes, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentView {
    /// The consent.
    pub consent: Consent,
    /// The scopes that it allows, if the catalog still has them.
    pub scopes: Vec<Scope>,
}

impl Session<'_> {
    /// Replaces a consent by the requested scopes, limited to those that the user's roles permit now
    /// (D21).
    ///
    /// # Errors
    /// A scope, the company, the credential or the user is unknown, or the etag is not current.
    pub async fn put_consent(
        &self,
        id: &ConsentId,
        requested: &[Scope],
        options: &WriteOptions,
    ) -> Result<Written<ConsentView>, AuthorityError> {
        let plan = async |mut tx: Transaction<'_>| {
            let requested = tx.resolve("scopes", requested)?;
            let (parties, user) = parties(&mut tx, id).await?;
            let before = tx.find::<Consent>(&parties).await?;
            tx.check_etag(before.as_ref().map(|consent| consent.revision))?;
            let catalog = tx.catalog();
            let edit = Consent::put(before.as_deref(), parties, &catalog, &user, &requested);
            Ok::<_, TransactionError>(tx.put(before, edit).with_context(catalog))
        };
        match self.write(id.subject(ChangeKind::PutConsent), options, plan).await? {
            Outcome::Written(written, catalog) => {
                Ok(written.map(|consent| consent_view(consent, &catalog)))
            }
            Outcome::Repeated(stored) => Ok(self.repeated(stored, self.consent(id)).await?.0),
        }
    }

    /// Withdraws a consent.
    ///
    /// # Errors
    /// There is none, or the etag is not current.
    pub async fn delete_consent(
        &self,
        id: &ConsentId,
        options: &WriteOptions,
    ) -> Result<Written<ConsentView>, AuthorityError> {
        let plan = async |mut tx: Transaction<'_>| {
            let (parties, _) = parties(&mut tx, id).await?;
            let consent = existing(tx.find::<Consent>(&parties).await?, id)?;
            tx.check_etag(Some(consent.revision))?;
            let catalog = tx.catalog();
            let removed = consent.scopes.iter().map(|(scope, ())| scope).collect();
            let edit = Edit { removed, ..Edit::none(&*consent) };
            Ok::<_, TransactionError>(tx.delete(consent, edit).with_context(catalog))
        };
        match self.write(id.subject(ChangeKind::DeleteConsent), options, plan).await? {
            Outcome::Written(written, catalog) => {
                Ok(written.map(|consent| consent_view(consent, &catalog)))
            }
            Outcome::Repeated(stored) => Ok(self.repeated_without(stored).await?.0),
        }
    }

    /// One consent.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn consent(&self, id: &ConsentId) -> Result<Read<ConsentView>, AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let (parties, _) = parties(&mut reader, id).await?;
            let consent = existing(reader.find::<Consent>(&parties).await?, id)?;
            let (etag, revision) = (self.authority.etag(consent.revision), reader.revision());
            let resource = consent_view(Arc::unwrap_or_clone(consent), &reader.catalog());
            Ok(Read { resource, etag, revision })
        };
        self.read(read).await
    }
}

impl ConsentId {
    pub(super) fn subject(&self, kind: ChangeKind) -> Subject<'_> {
        let (credential, user) = (Some(&self.credential), Some(&self.user));
        Subject { credential, user, ..Subject::of(kind, &self.company) }
    }
}

/// The parties of a consent, and its user. They are preconditions.
pub(super) async fn parties(
    reader: &mut Reader<'_>,
    id: &ConsentId,
) -> Result<(Parties, Arc<User>), TransactionError> {
    let (company, credential) = reader.credential(&id.company, &id.credential).await?;
    let missing = || AuthorityError::UserNotFound(id.company.clone(), id.user.clone());
    let user = reader.find::<User>((&company.created_at, &id.user)).await?.ok_or_else(missing)?;
    let parties = Parties {
        company: company.created_at,
        user: user.created_at,
        credential: credential.created_at,
    };
    Ok((parties, user))
}

fn existing(consent: Option<Arc<Consent>>, id: &ConsentId) -> Result<Arc<Consent>, AuthorityError> {
    let missing = || AuthorityError::ConsentNotFound(id.user.clone(), id.credential.clone());
    consent.ok_or_else(missing)
}

fn consent_view(consent: Consent, catalog: &Catalog) -> ConsentView {
    let scopes: Vec<_> = consent.scopes.iter().map(|(scope, ())| scope).collect();
    ConsentView { scopes: catalog.names(&scopes), consent }
}
