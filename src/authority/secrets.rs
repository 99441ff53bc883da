//! Secrets: made, ended and verified (D11).

use std::sync::Arc;

use super::credentials::ViewContext;
use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::transaction::{Attempt, Subject, WriteOptions, WritePlan, Written, require_company};
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

/// A secret that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    /// Its public id; none in a dry run.
    pub id: Option<Name>,
    /// Its text, once.
    pub secret: Option<SecretText>,
    /// The revision of the change, or the current one in a dry run.
    pub revision: Revision,
}

/// What verifying a secret found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is no live secret, or not of the company or the credential named.
    Wrong,
    /// It is a right one; it is good only if there is no reason against it.
    Right {
        /// The company.
        company: CompanyId,
        /// The credential.
        credential: CredentialId,
        /// The secret.
        secret: Name,
        /// Why it is not good now, if it is not.
        against: Option<Reason>,
    },
}

impl Authority {
    /// Makes a secret. The text is in the answer and nowhere else; a dry run makes none.
    ///
    /// # Errors
    /// The company or the credential is unknown, the etag is not current, or the credential has
    /// two live secrets.
    pub async fn create_secret<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        terms: &WriteOptions,
        render: impl Fn(NewSecret) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateSecret;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let found = self.credential_of(&view, company_id, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let (company, before) = existing(found, company_id, id)?;
            self.check_etag(terms, Some(before.revision))?;
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
            // Both rest on there being none: no two secrets have one public id.
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
            // Of the secret itself only a hash is kept, so a repeat tells the id alone.
            let (keep, kept_id) = (render.clone(), secret_id.clone());
            let keep = terms.keep(move |done: Written<Credential>| {
                keep(NewSecret { id: Some(kept_id), secret: None, revision: done.revision })
            });
            let plan = with_secrets(&company, before, secrets, vec![step, indexed], keep);
            let subject = Subject { credential: Some(id), ..Subject::of(kind, company_id) };
            let now = self.clock.now();
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                let (id, revision) = (Some(secret_id), done.revision);
                let made = NewSecret { id, secret: Some(presented), revision };
                let dry = NewSecret { id: None, secret: None, revision };
                return Ok(render(if terms.validate_only { dry } else { made }));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Ends a secret.
    ///
    /// # Errors
    /// The company, the credential or the secret is unknown, or the etag is not current.
    pub async fn delete_secret<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        secret_id: &Name,
        terms: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::DeleteSecret;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
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
            self.check_etag(terms, Some(before.revision))?;
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
            let keep = terms.keep(answer.clone());
            let plan = with_secrets(&company, before, secrets, vec![step], keep);
            let subject = Subject { credential: Some(id), ..Subject::of(kind, company_id) };
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Says whose secret this is, and whether it is good now, at one revision. A client without a
    /// right secret learns nothing, and neither does a caller that is bound to other companies.
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
            let reached = |found: &FoundSecret| {
                found.secret.hash == hash && caller.reaches(found.company.id.as_str())
            };
            let Some(found) = found.filter(reached) else { return Ok(Verification::Wrong) };
            let FoundSecret { company, credential, .. } = found;
            let now = self.clock.now();
            let against = if !company.enabled {
                Some(Reason::CompanyDisabled)
            } else if !credential.enabled {
                Some(Reason::CredentialDisabled)
            } else if is_expired(credential.expires_at, now) {
                self.keep_told(now, |_| credential.expires_at).await?;
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

    /// The secret of this public id with its company and credential, all as they are at a view's
    /// revision; none if one of them does not exist, or is of an earlier one of the same id (D3).
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
        let is_its = credential.created_at == secret.credential_created_at
            && credential.secrets.contains(id)
            && named.credential.as_ref().is_none_or(|named| *named == credential.id);
        Ok((is_present && is_its).then_some(FoundSecret { company, credential, secret }))
    }
}

/// Whose a secret is said to be. What is not said is found by the secret's public id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretOf {
    /// The company.
    pub company: Option<CompanyId>,
    /// The credential.
    pub credential: Option<CredentialId>,
}

/// A secret, and whose it is.
struct FoundSecret {
    company: Arc<Company>,
    credential: Arc<Credential>,
    secret: Arc<Secret>,
}

/// A new secret, and its public id.
pub(super) fn generate(mark: SecretKind) -> Result<(SecretText, Name), StoreError> {
    let mut random = [0; 44];
    getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
    let presented = SecretText::mint(mark, &random);
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

/// A credential's change to these secrets, and the secret's own.
fn with_secrets(
    company: &Company,
    before: Arc<Credential>,
    secrets: Vec<Name>,
    beside: Vec<FactWrite>,
    keep: Option<ReplyToStore<Written<Credential>>>,
) -> WritePlan<Credential> {
    let moved = FieldChange::list("secret_ids", Some(&before.secrets), &secrets);
    let mut edit = Edit::none(&*before);
    edit.fields.extend(moved);
    edit.after.secrets = secrets;
    let preconditions = vec![require_company(company)];
    WritePlan { before: Some(before), edit, delete: false, preconditions, beside, keep }
}
