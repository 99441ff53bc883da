//! Credentials: creates, changes and deletes credentials, and adds and removes their grants.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::transaction::{
    Attempt, Resource, Subject, WritePlan, Written, require_catalog, require_company, resolve,
};
use super::write_options::WriteOptions;
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
    /// The label.
    pub label: String,
    /// Its grants.
    pub scopes: Vec<Scope>,
    /// Its expiry.
    pub expires_at: Option<Timestamp>,
    /// False denies every check of the credential.
    pub enabled: bool,
}

impl NewCredential {
    /// The edit that creates the credential.
    ///
    /// # Errors
    /// A scope is unknown, or above the ceiling (D9).
    pub(super) fn edit(
        &self,
        context: GrantContext<'_>,
    ) -> Result<Edit<Credential>, AuthorityError> {
        let scopes = resolve(context.catalog, "scopes", &self.scopes)?;
        let (id, label, ends) = (self.id.clone(), self.label.clone(), self.expires_at);
        let mut edit = Credential::create(id, label, ends, &scopes, context)?;
        edit.fields.extend(FieldChange::new_text("label", &self.label));
        edit.fields.extend(FieldChange::time("expires_at", None, ends));
        if !self.enabled {
            edit.after.enabled = false;
            edit.fields.push(FieldChange::new_flag("enabled", false));
        }
        Ok(edit)
    }

    /// The plan that creates the credential, with the precondition that it does not exist.
    pub(super) fn plan(
        view: &Snapshot,
        company: &Company,
        edit: Edit<Credential>,
        keep: Option<ReplyToStore<Written<Credential>>>,
    ) -> WritePlan<Credential> {
        let preconditions = vec![require_catalog(view), require_company(company)];
        WritePlan { before: None, edit, delete: false, preconditions, other_writes: vec![], keep }
    }
}

/// A change of an existing credential (D10).
#[derive(Clone, Debug)]
pub enum CredentialChange {
    /// Add grants.
    Grant {
        /// The scopes.
        scopes: Vec<Scope>,
        /// The expiry of the grants.
        expires_at: Option<Timestamp>,
    },
    /// Revoke grants.
    Revoke(Vec<Scope>),
    /// Replace all grants by these scopes.
    Replace(Vec<Scope>),
    /// Replace all grants by the company's ceiling.
    Reset,
    /// Change the fields that are `Some`.
    Update {
        /// The label.
        label: Option<String>,
        /// False denies every check.
        enabled: Option<bool>,
        /// The expiry of the credential; `Some(None)` removes it.
        expires_at: Option<Option<Timestamp>>,
    },
    /// Delete the credential.
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
        options: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateCredential;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            // An unknown scope is reported before an unknown company.
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
            self.check_etag(options, None)?;
            let now = self.clock.now();
            let context = GrantContext { catalog: &view.catalog, company: &company, now };
            let edit = new.edit(context)?;
            let catalog = Arc::clone(&view.catalog);
            let view_context =
                ViewContext { catalog, company: Arc::clone(&company), now, last_seen: None };
            let answer = view_context.answer(render.clone());
            let plan = NewCredential::plan(&view, &company, edit, options.keep(answer.clone()));
            let subject = Subject { credential: Some(&new.id), ..Subject::of(kind, &new.company) };
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
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
        options: &WriteOptions,
        render: impl Fn(Written<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, change.kind()).await? {
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
            self.check_etag(options, Some(credential.revision))?;
            let now = self.clock.now();
            let context = GrantContext { catalog: &view.catalog, company: &company, now };
            let edit = edit_credential(&credential, change, &scopes, context)?;
            let delete = matches!(change, CredentialChange::Delete);
            let preconditions = vec![require_catalog(&view), require_company(&company)];
            let last_seen = self.last_seen(&credential);
            let view_context =
                ViewContext { catalog: Arc::clone(&view.catalog), company, now, last_seen };
            let answer = view_context.answer(render.clone());
            let keep = options.keep(answer.clone());
            let before = Some(credential);
            let plan =
                WritePlan { before, edit, delete, preconditions, other_writes: vec![], keep };
            let subject =
                Subject { credential: Some(id), ..Subject::of(change.kind(), company_id) };
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
            }
        }
        Err(AuthorityError::Conflict)
    }
}

/// The facts and the time that the view of a credential depends on.
#[derive(Clone)]
pub(super) struct ViewContext {
    pub(super) catalog: Arc<Catalog>,
    pub(super) company: Arc<Company>,
    pub(super) now: Timestamp,
    pub(super) last_seen: Option<Timestamp>,
}

impl ViewContext {
    fn view(&self, credential: Credential) -> CredentialView {
        let context =
            GrantContext { catalog: &self.catalog, company: &self.company, now: self.now };
        CredentialView { last_seen: self.last_seen, ..credential.view(context) }
    }

    /// The reply to a change of a credential.
    pub(super) fn answer<R>(
        self,
        render: impl Fn(Written<CredentialView>) -> R + Clone,
    ) -> impl Fn(Written<Credential>) -> R + Clone {
        move |written| render(written.map(|credential| self.view(credential)))
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
    context: GrantContext<'_>,
) -> Result<Edit<Credential>, AboveCeiling> {
    match change {
        CredentialChange::Grant { expires_at, .. } => {
            credential.grant(scopes, *expires_at, context)
        }
        CredentialChange::Revoke(_) => Ok(credential.revoke(scopes, context)),
        CredentialChange::Replace(_) => credential.replace(scopes, context),
        CredentialChange::Reset => Ok(credential.reset(context)),
        CredentialChange::Update { label, enabled, expires_at } => {
            Ok(credential.update(label.clone(), *enabled, *expires_at))
        }
        CredentialChange::Delete => Ok(credential.delete(context.catalog)),
    }
}
