//! Secrets: creates, deletes and verifies the secrets of credentials (D11).

use std::sync::Arc;

use super::credentials::ViewContext;
use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::transaction::{Attempt, Subject, WritePlan, Written, require_company};
use super::write_options::WriteOptions;
use super::{ATTEMPTS, Authority};
use crate::policy::caller::Caller;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::{Credential, CredentialView, is_expired};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::secret::{MAX_LIVE, Secret, SecretKind, SecretOwner, SecretText};
use crate::store::{Fact, FactKey, FactWrite, StoreError};

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

impl Authority {
    /// Creates a secret. Only the reply has its text. A dry run creates none.
    ///
    /// # Errors
    /// The company or the credential is unknown, the etag is not current, or the credential has
    /// two live secrets.
    pub async fn create_secret<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        options: &WriteOptions,
        render: impl Fn(NewSecret) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateSecret;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let found = self.credential_of(&view, company_id, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let (company, before) = existing(found, company_id, id)?;
            self.check_etag(options, Some(before.revision))?;
            if before.secrets.len() >= MAX_LIVE {
                return Err(AuthorityError::TooManySecrets(id.clone()));
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
            let mut secrets = before.secrets.clone();
            secrets.push(secret_id.clone());
            let owner = SecretOwner {
                secret: secret_id.clone(),
                company: company_id.clone(),
                company_created_at: company.created_at,
                credential_created_at: before.created_at,
                revision: Revision::NEXT,
            };
            // Both have the precondition that the key is new, so no two secrets have one public id.
            let indexed = FactWrite {
                key: FactKey::SecretOwner(secret_id.clone()),
                before: None,
                after: Some(Fact::SecretOwner(Arc::new(owner))),
            };
            let step = FactWrite {
                key: FactKey::Secret(secret.company, secret.id.clone()),
                before: None,
                after: Some(Fact::Secret(Arc::new(secret))),
            };
            // Only a hash of the secret is stored, so a repeated request gets the id alone.
            let (keep, kept_id) = (render.clone(), secret_id.clone());
            let keep = options.keep(move |written: Written<Credential>| {
                keep(NewSecret { id: Some(kept_id), secret: None, revision: written.revision })
            });
            let plan = with_secrets(&company, before, secrets, vec![step, indexed], keep);
            let subject = Subject { credential: Some(id), ..Subject::of(kind, company_id) };
            let now = self.clock.now();
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                let (id, revision) = (Some(secret_id), written.revision);
                let created = NewSecret { id, secret: Some(presented), revision };
                let dry = NewSecret { id: None, secret: None, revision };
                return Ok(render(if options.validate_only { dry } else { created }));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// The company, the credential or the secret is unknown, or the etag is not current.
    pub async fn delete_secret<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        secret_id: &Name,
        options: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::DeleteSecret;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let found = self.credential_of(&view, company_id, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let (company, before) = existing(found, company_id, id)?;
            let found = self.facts.secret(view.at, company.created_at, secret_id).await;
            let Some(secret) = self.or_retry(found).await? else { continue };
            let held = before.secrets.contains(secret_id);
            let unknown = || AuthorityError::SecretNotFound(id.clone(), secret_id.clone());
            let secret = secret.filter(|_| held).ok_or_else(unknown)?;
            self.check_etag(options, Some(before.revision))?;
            let secrets = before.secrets.iter().filter(|other| *other != secret_id).cloned();
            let step = FactWrite {
                key: FactKey::Secret(company.created_at, secret_id.clone()),
                before: Some(Fact::Secret(secret)),
                after: None,
            };
            let secrets = secrets.collect();
            let (now, last_seen) = (self.clock.now(), self.last_seen(&before));
            let (catalog, under) = (Arc::clone(&view.catalog), Arc::clone(&company));
            let under = ViewContext { catalog, company: under, now, last_seen };
            let answer = under.answer(render.clone());
            let keep = options.keep(answer.clone());
            let plan = with_secrets(&company, before, secrets, vec![step], keep);
            let subject = Subject { credential: Some(id), ..Subject::of(kind, company_id) };
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Finds the owner of a secret, and whether the secret is valid now, at one revision. Without a
    /// live secret, or with a key that is bound to other companies, a caller learns nothing.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn verify_secret(
        &self,
        caller: &Caller,
        named: &SecretOf,
        presented: &SecretText,
    ) -> Result<Verification, AuthorityError> {
        let Some(secret_id) = presented.id() else { return Ok(Verification::Wrong) };
        let hash = presented.hash();
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let found = self.find_secret(&view, named, &secret_id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let is_visible = |found: &FoundSecret| {
                found.secret.hash == hash && caller.reaches(found.company.id.as_str())
            };
            let Some(found) = found.filter(is_visible) else { return Ok(Verification::Wrong) };
            let FoundSecret { company, credential, .. } = found;
            let now = self.clock.now();
            let against = if !company.enabled {
                Some(Reason::CompanyDisabled)
            } else if !credential.enabled {
                Some(Reason::CredentialDisabled)
            } else if is_expired(credential.expires_at, now) {
                self.persist_reported(now, |_| credential.expires_at).await?;
                Some(Reason::CredentialExpired)
            } else {
                None
            };
            return Ok(Verification::Right {
                company: company.id.clone(),
                credential: credential.id.clone(),
                secret: secret_id,
                against,
            });
        }
        Err(AuthorityError::Conflict)
    }

    /// The secret with this public id, its company and its credential, at the snapshot's revision.
    /// None if one of them does not exist, or if the secret belongs to an earlier incarnation of the
    /// company or the credential (D3).
    async fn find_secret(
        &self,
        view: &Snapshot,
        named: &SecretOf,
        id: &Name,
    ) -> Result<Option<FoundSecret>, ReadError> {
        let owner = match &named.company {
            Some(_) => None,
            None => match self.facts.secret_owner(view.at, id).await? {
                Some(owner) => Some(owner),
                None => return Ok(None),
            },
        };
        let company = named.company.as_ref().or(owner.as_ref().map(|owner| &owner.company));
        let Some(company) = company else { return Ok(None) };
        let Some(company) = self.facts.company(view.at, company).await? else { return Ok(None) };
        let Some(secret) = self.facts.secret(view.at, company.created_at, id).await? else {
            return Ok(None);
        };
        let credential = &secret.credential;
        let credential = self.facts.credential(view.at, company.created_at, credential).await?;
        let Some(credential) = credential else { return Ok(None) };
        let is_present = owner.is_none_or(|owner| {
            owner.company_created_at == company.created_at
                && owner.credential_created_at == credential.created_at
        });
        let is_same_credential = credential.created_at == secret.credential_created_at
            && credential.secrets.contains(id)
            && named.credential.as_ref().is_none_or(|named| *named == credential.id);
        Ok((is_present && is_same_credential).then_some(FoundSecret {
            company,
            credential,
            secret,
        }))
    }
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
struct FoundSecret {
    company: Arc<Company>,
    credential: Arc<Credential>,
    secret: Arc<Secret>,
}

/// A new secret, and its public id.
pub(super) fn generate(kind: SecretKind) -> Result<(SecretText, Name), StoreError> {
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
    let presented = SecretText::mint(kind, &random);
    let id = presented.id().ok_or(StoreError::Unavailable)?;
    Ok((presented, id))
}

fn existing(
    (company, credential): (Option<Arc<Company>>, Option<Arc<Credential>>),
    company_id: &CompanyId,
    id: &CredentialId,
) -> Result<(Arc<Company>, Arc<Credential>), AuthorityError> {
    let company = company.ok_or_else(|| AuthorityError::CompanyNotFound(company_id.clone()))?;
    let missing = || AuthorityError::CredentialNotFound(company_id.clone(), id.clone());
    Ok((company, credential.ok_or_else(missing)?))
}

/// The plan that gives a credential these secrets, and writes the secret itself.
fn with_secrets(
    company: &Company,
    before: Arc<Credential>,
    secrets: Vec<Name>,
    other_writes: Vec<FactWrite>,
    keep: Option<ReplyToStore<Written<Credential>>>,
) -> WritePlan<Credential> {
    let moved = FieldChange::list("secret_ids", Some(&before.secrets), &secrets);
    let mut edit = Edit::none(&*before);
    edit.fields.extend(moved);
    edit.after.secrets = secrets;
    let preconditions = vec![require_company(company)];
    WritePlan { before: Some(before), edit, delete: false, preconditions, other_writes, keep }
}
