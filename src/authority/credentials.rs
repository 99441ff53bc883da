//! Credentials: created, given and deprived of scopes, changed, deleted.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::transaction::{
    Attempt, Resource, Subject, WriteOptions, WritePlan, Written, require_catalog, require_company,
    resolve,
};
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::{AboveCeiling, Credential, CredentialView, GrantContext};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey};

/// A credential to create.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// Its company.
    pub company: CompanyId,
    /// Its id.
    pub id: CredentialId,
    /// For people.
    pub label: String,
    /// What it is given.
    pub scopes: Vec<Scope>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// False denies every check of it.
    pub enabled: bool,
}

impl NewCredential {
    /// What creating it does, on this ground.
    ///
    /// # Errors
    /// A scope is unknown, or above the ceiling (D9).
    pub(super) fn edit(
        &self,
        ground: GrantContext<'_>,
    ) -> Result<Edit<Credential>, AuthorityError> {
        let scopes = resolve(ground.catalog, "scopes", &self.scopes)?;
        let (id, label, ends) = (self.id.clone(), self.label.clone(), self.expires_at);
        let mut edit = Credential::create(id, label, ends, &scopes, ground)?;
        edit.fields.extend(FieldChange::new_text("label", &self.label));
        edit.fields.extend(FieldChange::time("expires_at", None, ends));
        if !self.enabled {
            edit.after.enabled = false;
            edit.fields.push(FieldChange::new_flag("enabled", false));
        }
        Ok(edit)
    }

    /// The change that creates it, and that rests on there being none.
    pub(super) fn plan(
        view: &Snapshot,
        company: &Company,
        edit: Edit<Credential>,
        keep: Option<ReplyToStore<Written<Credential>>>,
    ) -> WritePlan<Credential> {
        let preconditions = vec![require_catalog(view), require_company(company)];
        WritePlan { before: None, edit, delete: false, preconditions, beside: vec![], keep }
    }
}

/// A change of an existing credential (D10).
#[derive(Clone, Debug)]
pub enum CredentialChange {
    /// Give scopes.
    Grant {
        /// The scopes.
        scopes: Vec<Scope>,
        /// When the grants end.
        expires_at: Option<Timestamp>,
    },
    /// Take scopes.
    Revoke(Vec<Scope>),
    /// Make it exactly these scopes.
    Replace(Vec<Scope>),
    /// Make it the company's ceiling.
    Reset,
    /// Change the fields that are `Some`.
    Update {
        /// For people.
        label: Option<String>,
        /// False denies every check.
        enabled: Option<bool>,
        /// When the credential ends; `Some(None)`: never.
        expires_at: Option<Option<Timestamp>>,
    },
    /// Delete it.
    Delete,
}

impl CredentialChange {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Grant { .. } => ChangeKind::GrantScopes,
            Self::Revoke(_) => ChangeKind::RevokeScopes,
            Self::Replace(_) => ChangeKind::ReplaceScopes,
            Self::Reset => ChangeKind::ResetScopes,
            Self::Update { .. } => ChangeKind::UpdateCredential,
            Self::Delete => ChangeKind::DeleteCredential,
        }
    }

    fn scopes(&self) -> &[Scope] {
        match self {
            Self::Grant { scopes, .. } | Self::Revoke(scopes) | Self::Replace(scopes) => scopes,
            Self::Reset | Self::Update { .. } | Self::Delete => &[],
        }
    }
}

impl Authority {
    /// Creates a credential, with grants if scopes are named (D9).
    ///
    /// # Errors
    /// A scope or the company is unknown, the id is taken, or a scope is above the ceiling.
    pub async fn create_credential<R: StorableReply>(
        &self,
        new: &NewCredential,
        terms: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateCredential;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            // A scope that does not exist is said before a company that does not.
            resolve(&view.catalog, "scopes", &new.scopes)?;
            let found = self.credential_of(&view, &new.company, &new.id).await;
            let Some((company, found)) = self.or_retry(found).await? else {
                continue;
            };
            let company =
                company.ok_or_else(|| AuthorityError::CompanyNotFound(new.company.clone()))?;
            if found.is_some() {
                return Err(AuthorityError::CredentialExists(new.company.clone(), new.id.clone()));
            }
            self.check_etag(terms, None)?;
            let now = self.clock.now();
            let ground = GrantContext { catalog: &view.catalog, company: &company, now };
            let edit = new.edit(ground)?;
            let catalog = Arc::clone(&view.catalog);
            let under =
                ViewContext { catalog, company: Arc::clone(&company), now, last_seen: None };
            let answer = under.answer(render.clone());
            let plan = NewCredential::plan(&view, &company, edit, terms.keep(answer.clone()));
            let subject = Subject { credential: Some(&new.id), ..Subject::of(kind, &new.company) };
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Changes a credential.
    ///
    /// # Errors
    /// A scope, the company or the credential is unknown, the etag is not current, or a scope is
    /// above the ceiling (D9).
    pub async fn change_credential<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        change: &CredentialChange,
        terms: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, change.kind()).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let scopes = resolve(&view.catalog, "scopes", change.scopes())?;
            let found = self.credential_of(&view, company_id, id).await;
            let Some((company, found)) = self.or_retry(found).await? else {
                continue;
            };
            let company =
                company.ok_or_else(|| AuthorityError::CompanyNotFound(company_id.clone()))?;
            let credential = found.ok_or_else(|| {
                AuthorityError::CredentialNotFound(company_id.clone(), id.clone())
            })?;
            self.check_etag(terms, Some(credential.revision))?;
            let now = self.clock.now();
            let ground = GrantContext { catalog: &view.catalog, company: &company, now };
            let edit = edit_credential(&credential, change, &scopes, ground)?;
            let delete = matches!(change, CredentialChange::Delete);
            let preconditions = vec![require_catalog(&view), require_company(&company)];
            let last_seen = self.last_seen(&credential);
            let under = ViewContext { catalog: Arc::clone(&view.catalog), company, now, last_seen };
            let answer = under.answer(render.clone());
            let keep = terms.keep(answer.clone());
            let before = Some(credential);
            let plan = WritePlan { before, edit, delete, preconditions, beside: vec![], keep };
            let subject =
                Subject { credential: Some(id), ..Subject::of(change.kind(), company_id) };
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }
}

/// What a credential is shown under.
#[derive(Clone)]
pub(super) struct ViewContext {
    pub(super) catalog: Arc<Catalog>,
    pub(super) company: Arc<Company>,
    pub(super) now: Timestamp,
    pub(super) last_seen: Option<Timestamp>,
}

impl ViewContext {
    fn view(&self, credential: Credential) -> CredentialView {
        let ground = GrantContext { catalog: &self.catalog, company: &self.company, now: self.now };
        CredentialView { last_seen: self.last_seen, ..credential.view(ground) }
    }

    /// How a change of a credential is answered.
    pub(super) fn answer<R>(
        self,
        render: impl Fn(Written<CredentialView>) -> R + Clone,
    ) -> impl Fn(Written<Credential>) -> R + Clone {
        move |done| render(done.map(|credential| self.view(credential)))
    }
}

impl Resource for Credential {
    fn key(&self) -> FactKey {
        FactKey::Credential(self.company, self.id.clone())
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::Credential(self)
    }
}

fn edit_credential(
    credential: &Credential,
    change: &CredentialChange,
    scopes: &[ScopeId],
    ground: GrantContext<'_>,
) -> Result<Edit<Credential>, AboveCeiling> {
    match change {
        CredentialChange::Grant { expires_at, .. } => credential.grant(scopes, *expires_at, ground),
        CredentialChange::Revoke(_) => Ok(credential.revoke(scopes, ground)),
        CredentialChange::Replace(_) => credential.replace(scopes, ground),
        CredentialChange::Reset => Ok(credential.reset(ground)),
        CredentialChange::Update { label, enabled, expires_at } => {
            Ok(credential.update(label.clone(), *enabled, *expires_at))
        }
        CredentialChange::Delete => Ok(credential.delete(ground.catalog)),
    }
}
