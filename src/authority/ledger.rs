//! Ledger: every change. Read the facts at one revision, plan, commit if they still stand.
//!
//! A plan is pure; a commit is optimistic. When the facts that a plan rests on have changed,
//! it is made again from the newer ones, until it stands or is refused.

use std::sync::Arc;

use jiff::Timestamp;

use super::audit::{self, Impact};
use super::facts::{Missed, View};
use super::refusal::Refusal;
use super::{Authority, etag};
use crate::policy::catalog::Catalog;
use crate::policy::change::{Author, Change, ChangeKind, Edit, FieldChange, Stamped};
use crate::policy::company::{Company, CompanyView};
use crate::policy::credential::{AboveCeiling, Credential, CredentialView, Ground};
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{CommitError, Fact, FactKey, Proposal, Receipt, Step, StoreError};

/// How often a change is planned again before it is given up.
const ATTEMPTS: usize = 100;

/// The terms of a change: what its request says beside what to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who makes it, and why.
    pub author: Author,
    /// The state that the caller has seen, if it says so.
    pub etag: Option<String>,
    /// Only answer as the change would.
    pub validate_only: bool,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct Done<T> {
    /// The resource as it is after the change, or as it was last.
    pub resource: T,
    /// Its etag.
    pub etag: String,
    /// Scopes that entered the set, sorted.
    pub added: Vec<Scope>,
    /// Scopes that left the set, sorted.
    pub removed: Vec<Scope>,
    /// The change's revision, or the current one if nothing changed.
    pub revision: Revision,
}

/// A company to create.
#[derive(Clone, Debug)]
pub struct NewCompany {
    /// Its id.
    pub id: CompanyId,
    /// For people.
    pub display_name: String,
    /// Its ceiling; none named, the whole catalog (D4).
    pub scopes: Option<Vec<Scope>>,
}

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
}

/// A change of an existing company.
#[derive(Clone, Debug)]
pub enum CompanyChange {
    /// Change the fields that are `Some`.
    Update {
        /// For people.
        display_name: Option<String>,
        /// False denies every check.
        enabled: Option<bool>,
    },
    /// Add scopes to the ceiling (D5).
    AddScopes(Vec<Scope>),
    /// Delete it, with all that is in it (D3).
    Delete,
}

/// A restriction of a company's ceiling (D6, D7).
#[derive(Clone, Debug)]
pub struct Restriction {
    /// The company.
    pub company: CompanyId,
    /// The scopes to take.
    pub scopes: Vec<Scope>,
    /// Restrict whoever is affected, without an audit.
    pub acknowledge_impact: bool,
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

impl CompanyChange {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Update { .. } => ChangeKind::UpdateCompany,
            Self::AddScopes(_) => ChangeKind::AddCompanyScopes,
            Self::Delete => ChangeKind::DeleteCompany,
        }
    }
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

/// One fact's change, planned.
pub(super) struct Plan<T> {
    pub(super) before: Option<Arc<T>>,
    pub(super) edit: Edit<T>,
    pub(super) delete: bool,
    pub(super) rests_on: Vec<(FactKey, Option<Revision>)>,
    /// Other facts that change with it.
    pub(super) beside: Vec<Step>,
}

/// What a change is about: the subject of its audit record.
pub(super) struct Subject<'a> {
    pub(super) kind: ChangeKind,
    pub(super) company: &'a CompanyId,
    pub(super) credential: Option<&'a CredentialId>,
    pub(super) user: Option<&'a UserId>,
}

impl<'a> Subject<'a> {
    /// A company as a whole.
    pub(super) fn of(kind: ChangeKind, company: &'a CompanyId) -> Self {
        Self { kind, company, credential: None, user: None }
    }
}

impl<T> Done<T> {
    pub(super) fn map<U>(self, view: impl FnOnce(T) -> U) -> Done<U> {
        let Self { resource, etag, added, removed, revision } = self;
        Done { resource: view(resource), etag, added, removed, revision }
    }
}

/// A fact that a change is made of.
pub(super) trait Resource: Stamped + Clone {
    fn key(&self) -> FactKey;
    fn revision(&self) -> Revision;
    fn fact(self: Arc<Self>) -> Fact;
}

impl Resource for Company {
    fn key(&self) -> FactKey {
        FactKey::Company(self.id.clone())
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::Company(self)
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

/// The end of one attempt.
pub(super) enum Attempt<T> {
    Done(T),
    Again,
}

impl Authority {
    /// Creates a company (D4).
    ///
    /// # Errors
    /// A scope is unknown, or the id is taken.
    pub async fn create_company(
        &self,
        new: &NewCompany,
        terms: &Terms,
    ) -> Result<Done<CompanyView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let scopes = new.scopes.as_deref().map(|s| resolve(&view.catalog, "scopes.names", s));
            let scopes = scopes.transpose()?;
            let found = self.facts.company(view.at, &new.id).await;
            match self.told(found).await? {
                Some(Some(_)) => return Err(Refusal::CompanyExists(new.id.clone())),
                Some(None) => {}
                None => continue,
            }
            self.check_etag(terms, None)?;
            let now = self.clock.now();
            let name = new.display_name.clone();
            let mut edit =
                Company::create(new.id.clone(), name, &view.catalog, scopes.as_deref(), now);
            edit.fields.extend(FieldChange::new_text("display_name", &new.display_name));
            let plan = Plan {
                before: None,
                edit,
                delete: false,
                rests_on: vec![on_catalog(&view)],
                beside: vec![],
            };
            let subject = Subject::of(ChangeKind::CreateCompany, &new.id);
            match self.carry_out(&view, plan, subject, terms, now).await? {
                Attempt::Done(done) => return Ok(done.map(|company| company.view(&view.catalog))),
                Attempt::Again => {}
            }
        }
        Err(Refusal::Contended)
    }

    /// Changes a company.
    ///
    /// # Errors
    /// A scope or the company is unknown, or the etag is not current.
    pub async fn change_company(
        &self,
        id: &CompanyId,
        change: &CompanyChange,
        terms: &Terms,
    ) -> Result<Done<CompanyView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let scopes = match change {
                CompanyChange::AddScopes(scopes) => resolve(&view.catalog, "scopes", scopes)?,
                CompanyChange::Update { .. } | CompanyChange::Delete => vec![],
            };
            let found = self.facts.company(view.at, id).await;
            let Some(found) = self.told(found).await? else {
                continue;
            };
            let company = found.ok_or_else(|| Refusal::CompanyNotFound(id.clone()))?;
            self.check_etag(terms, Some(company.revision))?;
            let now = self.clock.now();
            let edit = match change {
                CompanyChange::Update { display_name, enabled } => {
                    company.update(display_name.clone(), *enabled)
                }
                CompanyChange::AddScopes(_) => company.add_scopes(&view.catalog, &scopes),
                CompanyChange::Delete => company.delete(&view.catalog),
            };
            let delete = matches!(change, CompanyChange::Delete);
            let rests_on = vec![on_catalog(&view)];
            let plan = Plan { before: Some(company), edit, delete, rests_on, beside: vec![] };
            let subject = Subject::of(change.kind(), id);
            match self.carry_out(&view, plan, subject, terms, now).await? {
                Attempt::Done(done) => return Ok(done.map(|company| company.view(&view.catalog))),
                Attempt::Again => {}
            }
        }
        Err(Refusal::Contended)
    }

    /// Takes scopes from a company's ceiling, or reports what that would do (D6, D7).
    ///
    /// # Errors
    /// A scope or the company is unknown, the audit's etag is not current, or an enabled
    /// credential is affected and nobody has acknowledged it.
    pub async fn restrict_company(
        &self,
        restriction: &Restriction,
        terms: &Terms,
    ) -> Result<(Done<CompanyView>, Impact), Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let scopes = resolve(&view.catalog, "scopes", &restriction.scopes)?;
            let found = self.facts.company(view.at, &restriction.company).await;
            let Some(found) = self.told(found).await? else {
                continue;
            };
            let company =
                found.ok_or_else(|| Refusal::CompanyNotFound(restriction.company.clone()))?;
            let found = self.facts.impact(view.at, company.created_at).await;
            let Some(impact_at) = self.told(found).await? else {
                continue;
            };
            let audited = etag::of_audit(
                self.incarnation(),
                &company,
                impact_at,
                view.catalog.revision,
                &restriction.scopes,
            );
            if terms.etag.as_ref().is_some_and(|etag| *etag != audited) {
                return Err(Refusal::EtagStale);
            }
            let now = self.clock.now();
            let edit = company.restrict(&view.catalog, &scopes);
            let gone = edit.removed.clone();
            let agreed = terms.etag.is_some() || restriction.acknowledge_impact;
            let mut rests_on = vec![on_catalog(&view)];
            if terms.etag.is_some() || !restriction.acknowledge_impact {
                // What the audit said of the credentials must still be so at the commit (D7).
                rests_on.push((FactKey::Impact(company.created_at), impact_at));
            }
            // Whoever acknowledged without an audit is not made to wait for the count: the
            // restriction comes first. An audit's count stands with the commit.
            let counted_first = terms.validate_only || !restriction.acknowledge_impact;
            let mut impact = Impact::default();
            if counted_first {
                impact = self.impact(&view, &company, &gone, now).await?;
                if !terms.validate_only && !agreed && impact.any_enabled {
                    let refused = Impact { etag: audited, ..impact };
                    return Err(Refusal::ImpactNotAcknowledged(Box::new(refused)));
                }
            }
            let plan = Plan {
                before: Some(Arc::clone(&company)),
                edit,
                delete: false,
                rests_on,
                beside: vec![],
            };
            let kind = ChangeKind::RestrictCompanyScopes;
            let subject = Subject::of(kind, &restriction.company);
            let done = match self.carry_out(&view, plan, subject, terms, now).await? {
                Attempt::Done(done) => done,
                Attempt::Again => continue,
            };
            if !counted_first {
                match self.impact(&view, &company, &gone, now).await {
                    Ok(counted) => impact = counted,
                    // The restriction is in force: that is the answer, with or without a count.
                    Err(error) => tracing::warn!(%error, "who a restriction affected is not known"),
                }
            }
            let done = done.map(|company| company.view(&view.catalog));
            return Ok((done, Impact { etag: audited, ..impact }));
        }
        Err(Refusal::Contended)
    }

    async fn impact(
        &self,
        view: &View,
        company: &Arc<Company>,
        scopes: &[ScopeId],
        now: Timestamp,
    ) -> Result<Impact, StoreError> {
        let (catalog, company) = (Arc::clone(&view.catalog), Arc::clone(company));
        let scopes = scopes.to_vec();
        self.facts.read(move |store| audit::impact(store, &catalog, &company, &scopes, now)).await
    }

    /// Creates a credential, with grants if scopes are named (D9).
    ///
    /// # Errors
    /// A scope or the company is unknown, the id is taken, or a scope is above the ceiling.
    pub async fn create_credential(
        &self,
        new: &NewCredential,
        terms: &Terms,
    ) -> Result<Done<CredentialView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let scopes = resolve(&view.catalog, "scopes", &new.scopes)?;
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
            let label = new.label.clone();
            let mut edit =
                Credential::create(new.id.clone(), label, new.expires_at, &scopes, ground)?;
            edit.fields.extend(FieldChange::new_text("label", &new.label));
            edit.fields.extend(FieldChange::time("expires_at", None, new.expires_at));
            let rests_on = vec![on_catalog(&view), on_company(&company)];
            let plan = Plan { before: None, edit, delete: false, rests_on, beside: vec![] };
            let kind = ChangeKind::CreateCredential;
            let subject = Subject { credential: Some(&new.id), ..Subject::of(kind, &new.company) };
            match self.carry_out(&view, plan, subject, terms, now).await? {
                Attempt::Done(done) => return Ok(done.map(|credential| credential.view(ground))),
                Attempt::Again => {}
            }
        }
        Err(Refusal::Contended)
    }

    /// Changes a credential.
    ///
    /// # Errors
    /// A scope, the company or the credential is unknown, the etag is not current, or a scope is
    /// above the ceiling (D9).
    pub async fn change_credential(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        change: &CredentialChange,
        terms: &Terms,
    ) -> Result<Done<CredentialView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
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
            let plan = Plan { before: Some(credential), edit, delete, rests_on, beside: vec![] };
            let subject =
                Subject { credential: Some(id), ..Subject::of(change.kind(), company_id) };
            match self.carry_out(&view, plan, subject, terms, now).await? {
                Attempt::Done(done) => return Ok(done.map(|credential| credential.view(ground))),
                Attempt::Again => {}
            }
        }
        Err(Refusal::Contended)
    }

    /// A company and its credential at a view's revision.
    pub(super) async fn credential_of(
        &self,
        view: &View,
        company: &CompanyId,
        id: &CredentialId,
    ) -> Result<(Option<Arc<Company>>, Option<Arc<Credential>>), Missed> {
        let Some(company) = self.facts.company(view.at, company).await? else {
            return Ok((None, None));
        };
        let credential = self.facts.credential(view.at, company.created_at, id).await?;
        Ok((Some(company), credential))
    }

    /// What was told, or none after waiting for what was missed.
    pub(super) async fn told<T>(&self, told: Result<T, Missed>) -> Result<Option<T>, Refusal> {
        match told {
            Ok(told) => Ok(Some(told)),
            Err(missed) => self.again(missed).await.map(|()| None),
        }
    }

    /// Refuses an etag that is not the resource's; what does not exist has none.
    pub(super) fn check_etag(&self, terms: &Terms, at: Option<Revision>) -> Result<(), Refusal> {
        match &terms.etag {
            Some(etag) if at.is_none_or(|at| *etag != self.etag(at)) => Err(Refusal::EtagStale),
            _ => Ok(()),
        }
    }

    /// Commits a plan, unless it is only to be validated or changes nothing.
    pub(super) async fn carry_out<T: Resource>(
        &self,
        view: &View,
        plan: Plan<T>,
        subject: Subject<'_>,
        terms: &Terms,
        now: Timestamp,
    ) -> Result<Attempt<Done<T>>, Refusal> {
        let Plan { before, edit, delete, rests_on, beside } = plan;
        let nothing = before.is_some() && !delete && edit.is_none();
        let seen_at = before.as_ref().map(|before| before.revision());
        let Edit { mut after, added, removed, displaced, fields } = edit;
        let (added, removed) = (view.catalog.names(&added), view.catalog.names(&removed));
        let mut receipt = Receipt { revision: view.at, time: now };
        if !nothing && !terms.validate_only {
            let change = Change {
                revision: Revision::NEXT,
                time: now,
                author: terms.author.clone(),
                kind: subject.kind,
                company: Some(subject.company.clone()),
                credential: subject.credential.cloned(),
                user: subject.user.cloned(),
                added: added.clone(),
                removed: removed.clone(),
                displaced,
                fields,
            };
            let step = Step {
                key: after.key(),
                before: before.map(Resource::fact),
                after: (!delete).then(|| Arc::new(after.clone()).fact()),
            };
            let steps = [step].into_iter().chain(beside).collect();
            match self.commit(Proposal { rests_on, steps, change }).await? {
                Some(committed) => receipt = committed,
                None => return Ok(Attempt::Again),
            }
        }
        if !nothing && !delete {
            // A dry run has no revision of its own: it shows the one that would come next.
            let stamp = if terms.validate_only { view.at.next() } else { receipt.revision };
            after.stamp(stamp, receipt.time);
        }
        // What a dry run shows does not exist: its etag is that of what does.
        let etag = match (terms.validate_only, seen_at) {
            (true, None) => String::new(),
            (true, Some(seen)) => self.etag(seen),
            (false, _) => self.etag(after.revision()),
        };
        let revision = receipt.revision;
        Ok(Attempt::Done(Done { resource: after, etag, added, removed, revision }))
    }

    /// Commits a proposal; none if what it rests on has changed.
    pub(super) async fn commit(&self, proposal: Proposal) -> Result<Option<Receipt>, Refusal> {
        let ticket = self.facts.store().commit(proposal)?;
        match ticket.await {
            Ok(Ok(receipt)) => Ok(Some(receipt)),
            Ok(Err(CommitError::Conflict)) => Ok(None),
            Ok(Err(CommitError::Store(error))) => Err(error.into()),
            Err(_) => Err(StoreError::Unavailable.into()),
        }
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

/// A change means the scopes of this catalog.
pub(super) fn on_catalog(view: &View) -> (FactKey, Option<Revision>) {
    let revision = view.catalog.revision;
    (FactKey::Catalog, (revision > Revision::ZERO).then_some(revision))
}

/// A change of a credential stands only under the ceiling that it was planned under.
pub(super) fn on_company(company: &Company) -> (FactKey, Option<Revision>) {
    (FactKey::Company(company.id.clone()), Some(company.revision))
}

/// The numbers of these scopes.
pub(super) fn resolve(
    catalog: &Catalog,
    field: &'static str,
    scopes: &[Scope],
) -> Result<Vec<ScopeId>, Refusal> {
    let mut found = Vec::with_capacity(scopes.len());
    let mut unknown = Vec::new();
    for (place, scope) in scopes.iter().enumerate() {
        match catalog.id(scope) {
            Some(id) => found.push(id),
            None => unknown.push((place, scope.clone())),
        }
    }
    if unknown.is_empty() { Ok(found) } else { Err(Refusal::ScopesUnknown { field, unknown }) }
}
