//! Credentials: created, given and deprived of scopes, changed, deleted.

use std::sync::Arc;

use jiff::Timestamp;

use super::fact_cache::View;
use super::transaction::{Attempt, Done, Plan, Resource, Subject, Terms, on_catalog, on_company, resolve};
use super::error::Refusal;
use super::idempotency::{Begun, Keep, Reply};
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, Edit, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::{AboveCeiling, Credential, CredentialView, Ground};
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
    pub(super) fn edit(&self, ground: Ground<'_>) -> Result<Edit<Credential>, Refusal> {
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
        view: &View,
        company: &Company,
        edit: Edit<Credential>,
        keep: Option<Keep<Done<Credential>>>,
    ) -> Plan<Credential> {
        let rests_on = vec![on_catalog(view), on_company(company)];
        Plan { before: None, edit, delete: false, rests_on, beside: vec![], keep }
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
    pub async fn create_credential<R: Reply>(
        &self,
        new: &NewCredential,
        terms: &Terms,
        render: impl Fn(Done<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let kind = ChangeKind::CreateCredential;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                Begun::Now(view) => view,
                Begun::Before(reply) => return Ok(reply),
            };
            // A scope that does not exist is said before a company that does not.
            resolve(&view.catalog, "scopes", &new.scopes)?;
            let found = self.credential_of(&view, &new.company, &new.id).await;
            let Some((company, found)) = self.told(found).await? else {
                continue;
            };
            let company = company.ok_or_else(|| Refusal::CompanyNotFound(new.company.clone()))?;
            if found.is_some() {
                return Err(Refusal::CredentialExists(new.company.clone(), new.id.clone()));
            }
            self.check_etag(terms, None)?;
            let now = self.clock.now();
            let ground = Ground { catalog: &view.catalog, company: &company, now };
            let edit = new.edit(ground)?;
            let catalog = Arc::clone(&view.catalog);
            let under = Under { catalog, company: Arc::clone(&company), now, last_seen: None };
            let answer = under.answer(render.clone());
            let plan = NewCredential::plan(&view, &company, edit, terms.keep(answer.clone()));
            let subject = Subject { credential: Some(&new.id), ..Subject::of(kind, &new.company) };
            if let Attempt::Done(done) = self.carry_out(&view, plan, subject, terms, now).await? {
                return Ok(answer(done));
            }
        }
        Err(Refusal::Contended)
    }

    /// Changes a credential.
    ///
    /// # Errors
    /// A scope, the company or the credential is unknown, the etag is not current, or a scope is
    /// above the ceiling (D9).
    pub async fn change_credential<R: Reply>(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        change: &CredentialChange,
        terms: &Terms,
        render: impl Fn(Done<CredentialView>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, change.kind()).await? {
                Begun::Now(view) => view,
                Begun::Before(reply) => return Ok(reply),
            };
            let scopes = resolve(&view.catalog, "scopes", change.scopes())?;
            let found = self.credential_of(&view, company_id, id).await;
            let Some((company, found)) = self.told(found).await? else {
                continue;
            };
            let company = company.ok_or_else(|| Refusal::CompanyNotFound(company_id.clone()))?;
            let credential =
                found.ok_or_else(|| Refusal::CredentialNotFound(company_id.clone(), id.clone()))?;
            self.check_etag(terms, Some(credential.revision))?;
            let now = self.clock.now();
            let ground = Ground { catalog: &view.catalog, company: &company, now };
            let edit = edit_credential(&credential, change, &scopes, ground)?;
            let delete = matches!(change, CredentialChange::Delete);
            let rests_on = vec![on_catalog(&view), on_company(&company)];
            let last_seen = self.last_seen(&credential);
            let under = Under { catalog: Arc::clone(&view.catalog), company, now, last_seen };
            let answer = under.answer(render.clone());
            let keep = terms.keep(answer.clone());
            let before = Some(credential);
            let plan = Plan { before, edit, delete, rests_on, beside: vec![], keep };
            let subject =
                Subject { credential: Some(id), ..Subject::of(change.kind(), company_id) };
            if let Attempt::Done(done) = self.carry_out(&view, plan, subject, terms, now).await? {
                return Ok(answer(done));
            }
        }
        Err(Refusal::Contended)
    }
}

/// What a credential is shown under.
#[derive(Clone)]
pub(super) struct Under {
    pub(super) catalog: Arc<Catalog>,
    pub(super) company: Arc<Company>,
    pub(super) now: Timestamp,
    pub(super) last_seen: Option<Timestamp>,
}

impl Under {
    fn view(&self, credential: Credential) -> CredentialView {
        let ground = Ground { catalog: &self.catalog, company: &self.company, now: self.now };
        CredentialView { last_seen: self.last_seen, ..credential.view(ground) }
    }

    /// How a change of a credential is answered.
    pub(super) fn answer<R>(
        self,
        render: impl Fn(Done<CredentialView>) -> R + Clone,
    ) -> impl Fn(Done<Credential>) -> R + Clone {
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
    ground: Ground<'_>,
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
