//! Secrets: creates, deletes and verifies the secrets of credentials (D11).

use std::sync::Arc;

use super::credentials::ViewContext;
use super::error::AuthorityError;
use super::fact_cache::ReadError;
use super::reader::Reader;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::{Credential, CredentialView, is_expired};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::secret::{MAX_LIVE, Secret, SecretKind, SecretOwner, SecretText};
use crate::store::{FactWrite, ResultDetail, StoreError};

/// A new secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    /// Its public id; none in a dry run.
    pub id: Option<Name>,
    /// Its text, which is shown once.
    pub secret: Option<SecretText>,
    /// The revision of the change, or the current one in a dry run.
    pub revision: Revision,
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is not a live secret of the named company or credential.
    Wrong,
    /// It is a live secret. It is valid only if `against` has no reason.
    Right {
        /// The company.
        company: CompanyId,
        /// The credential.
        credential: CredentialId,
        /// The secret.
        secret: Name,
        /// The reason why it is not valid now, if there is one.
        against: Option<Reason>,
    },
}

impl Session<'_> {
    /// Creates a secret. Only the first response has its text. A dry run creates none.
    ///
    /// # Errors
    /// The company or the credential is unknown, the etag is not current, or the credential has
    /// two live secrets.
    pub async fn create_secret(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        options: &WriteOptions,
    ) -> Result<NewSecret, AuthorityError> {
        let subject = Subject::of(ChangeKind::CreateSecret, company_id);
        let subject = Subject { credential: Some(id), ..subject };
        let plan = async |mut tx: Transaction<'_>| {
            let (company, before) = tx.credential(company_id, id).await?;
            tx.check_etag(Some(before.revision))?;
            if before.secrets.len() >= MAX_LIVE {
                return Err(AuthorityError::TooManySecrets(id.clone()).into());
            }
            let (presented, secret_id) = generate(SecretKind::Credential)?;
            let secret = Secret {
                id: secret_id.clone(),
                company: company.created_at,
                credential: id.clone(),
                credential_created_at: before.created_at,
                hash: presented.hash(),
                revision: Revision::NEXT,
            };
            let owner = SecretOwner {
                secret: secret_id.clone(),
                company: company_id.clone(),
                company_created_at: company.created_at,
                credential_created_at: before.created_at,
                revision: Revision::NEXT,
            };
            // Both have the precondition that the key is new, so no two secrets have one public id.
            let (secret, owner) = (FactWrite::create(secret), FactWrite::create(owner));
            let secrets = before.secrets.iter().chain([&secret_id]).cloned().collect();
            let edit = with_secrets(&before, secrets);
            Ok::<_, TransactionError>(
                tx.put(Some(before), edit)
                    .with_write(secret)
                    .with_write(owner)
                    .with_detail(ResultDetail::Id(secret_id.clone()))
                    .with_context((secret_id, presented)),
            )
        };
        Ok(match self.write(subject, options, plan).await? {
            Outcome::Written(Written { revision, .. }, _) if options.validate_only => {
                NewSecret { id: None, secret: None, revision }
            }
            Outcome::Written(Written { revision, .. }, (id, secret)) => {
                NewSecret { id: Some(id), secret: Some(secret), revision }
            }
            // Only a hash of the secret is stored.
            Outcome::Repeated(stored) => {
                let (Written { revision, .. }, detail) =
                    self.repeated_without::<Credential>(stored).await?;
                NewSecret { id: detail.into_id(), secret: None, revision }
            }
        })
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// The company, the credential or the secret is unknown, or the etag is not current.
    pub async fn delete_secret(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        secret_id: &Name,
        options: &WriteOptions,
    ) -> Result<Written<CredentialView>, AuthorityError> {
        let subject = Subject::of(ChangeKind::DeleteSecret, company_id);
        let subject = Subject { credential: Some(id), ..subject };
        let plan = async |mut tx: Transaction<'_>| {
            let (company, before) = tx.credential(company_id, id).await?;
            let secret = tx.find::<Secret>((&company.created_at, secret_id)).await?;
            let unknown = || AuthorityError::SecretNotFound(id.clone(), secret_id.clone());
            let is_held = before.secrets.contains(secret_id);
            let secret = secret.filter(|_| is_held).ok_or_else(unknown)?;
            tx.check_etag(Some(before.revision))?;
            let secrets = before.secrets.iter().filter(|other| *other != secret_id);
            let edit = with_secrets(&before, secrets.cloned().collect());
            let last_seen = self.authority.last_seen(&before);
            let context = ViewContext { catalog: tx.catalog(), company, now: tx.now(), last_seen };
            Ok::<_, TransactionError>(
                tx.put(Some(before), edit)
                    .with_write(FactWrite::delete(secret))
                    .with_context(context),
            )
        };
        let outcome = self.write(subject, options, plan).await?;
        self.credential_written(company_id, id, outcome).await
    }

    /// Finds the owner of a secret, and whether the secret is valid now, at one revision. Without a
    /// live secret, or with a key that is bound to other companies, a caller learns nothing.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn verify_secret(
        &self,
        named: &SecretOf,
        presented: &SecretText,
    ) -> Result<Verification, AuthorityError> {
        let Some(secret_id) = presented.id() else { return Ok(Verification::Wrong) };
        let (authority, hash) = (self.authority, presented.hash());
        let read = async |mut reader: Reader<'_>| {
            let found = find_secret(&mut reader, named, &secret_id).await?;
            let is_visible = |found: &FoundSecret| {
                found.secret.hash == hash && self.caller.reaches(found.company.id.as_str())
            };
            let Some(found) = found.filter(is_visible) else { return Ok(Verification::Wrong) };
            let FoundSecret { company, credential, .. } = found;
            let now = reader.now();
            let against = if !company.enabled {
                Some(Reason::CompanyDisabled)
            } else if !credential.enabled {
                Some(Reason::CredentialDisabled)
            } else if is_expired(credential.expires_at, now) {
                authority.persist_reported(now, |_| credential.expires_at).await?;
                Some(Reason::CredentialExpired)
            } else {
                None
            };
            Ok(Verification::Right {
                company: company.id.clone(),
                credential: credential.id.clone(),
                secret: secret_id.clone(),
                against,
            })
        };
        self.read(read).await
    }
}

/// The secret with this public id, its company and its credential. None if one of them does not exist, or
/// if the secret belongs to an earlier incarnation of the company or the credential (D3).
pub(super) async fn find_secret(
    reader: &mut Reader<'_>,
    named: &SecretOf,
    id: &Name,
) -> Result<Option<FoundSecret>, ReadError> {
    let owner = match &named.company {
        Some(_) => None,
        None => match reader.find::<SecretOwner>(id).await? {
            Some(owner) => Some(owner),
            None => return Ok(None),
        },
    };
    let company = named.company.as_ref().or(owner.as_ref().map(|owner| &owner.company));
    let Some(company) = company else { return Ok(None) };
    let Some(company) = reader.find::<Company>(company).await? else { return Ok(None) };
    let Some(secret) = reader.find::<Secret>((&company.created_at, id)).await? else {
        return Ok(None);
    };
    let credential = reader.find::<Credential>((&company.created_at, &secret.credential)).await?;
    let Some(credential) = credential else { return Ok(None) };
    let is_present = owner.is_none_or(|owner| {
        owner.company_created_at == company.created_at
            && owner.credential_created_at == credential.created_at
    });
    let is_same_credential = credential.created_at == secret.credential_created_at
        && credential.secrets.contains(id)
        && named.credential.as_ref().is_none_or(|named| *named == credential.id);
    let found = FoundSecret { company, credential, secret };
    Ok((is_present && is_same_credential).then_some(found))
}

/// The owner that a request names. A missing part is found by the secret's public id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretOf {
    /// The company.
    pub company: Option<CompanyId>,
    /// The credential.
    pub credential: Option<CredentialId>,
}

/// A secret and its owner.
pub(super) struct FoundSecret {
    pub(super) company: Arc<Company>,
    pub(super) credential: Arc<Credential>,
    pub(super) secret: Arc<Secret>,
}

/// A new secret, and its public id.
pub(super) fn generate(kind: SecretKind) -> Result<(SecretText, Name), StoreError> {
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
    let presented = SecretText::mint(kind, &random);
    let id = presented.id().ok_or(StoreError::Unavailable)?;
    Ok((presented, id))
}

/// The edit that gives a credential these secrets.
fn with_secrets(before: &Credential, secrets: Vec<Name>) -> Edit<Credential> {
    let mut edit = Edit::none(before);
    edit.fields.extend(FieldChange::list("secret_ids", Some(&before.secrets), &secrets));
    edit.after.secrets = secrets;
    edit
}
