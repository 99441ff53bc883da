//! People: users and their consents, as they are changed and read.

use std::sync::Arc;

use super::fact_cache::View;
use super::transaction::{Attempt, Done, Plan, Subject, Terms, on_catalog, on_company, resolve};
use super::queries::{Filling, Page, Read, page};
use super::error::Refusal;
use super::idempotency::{Begun, Keep, Reply};
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, Edit, FieldChange};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::scope::Scope;
use crate::policy::user::User;
use crate::store::{Fact, FactKey, Store};

/// Whose consent, for which credential.
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
    /// What it allows, as far as the catalog still has it.
    pub scopes: Vec<Scope>,
}

/// Those whom a consent is between, and the consent.
struct Found {
    company: Arc<Company>,
    credential: Arc<Credential>,
    user: Arc<User>,
    consent: Option<Arc<Consent>>,
}

impl Found {
    fn parties(&self) -> Parties {
        Parties {
            company: self.company.created_at,
            user: self.user.created_at,
            credential: self.credential.created_at,
        }
    }
}

impl Authority {
    /// Creates a user, or replaces the user's roles.
    ///
    /// # Errors
    /// The company is unknown, or the etag is not current.
    pub async fn put_user<R: Reply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        roles: &[Name],
        terms: &Terms,
        render: impl Fn(Done<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::PutUser, company_id) };
        let put = |company: &Company, before: Option<&User>| {
            Ok(User::put(before, id, company.created_at, roles))
        };
        self.change_user(id, subject, terms, put, render).await
    }

    /// Deletes a user; the user's consents go along.
    ///
    /// # Errors
    /// The company or the user is unknown, or the etag is not current.
    pub async fn delete_user<R: Reply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        terms: &Terms,
        render: impl Fn(Done<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::DeleteUser, company_id) };
        let delete = |_: &Company, before: Option<&User>| {
            let user =
                before.ok_or_else(|| Refusal::UserNotFound(company_id.clone(), id.clone()))?;
            let roles = FieldChange::list("roles", Some(&user.roles), &[]);
            Ok(Edit { fields: roles.into_iter().collect(), ..Edit::none(user) })
        };
        self.change_user(id, subject, terms, delete, render).await
    }

    async fn change_user<R: Reply>(
        &self,
        id: &UserId,
        subject: Subject<'_>,
        terms: &Terms,
        edit: impl Fn(&Company, Option<&User>) -> Result<Edit<User>, Refusal>,
        render: impl Fn(Done<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let company_id = subject.company;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, subject.kind).await? {
                Begun::Now(view) => view,
                Begun::Before(reply) => return Ok(reply),
            };
            let found = self.facts.company(view.at, company_id).await;
            let Some(company) = self.told(found).await? else { continue };
            let company = company.ok_or_else(|| Refusal::CompanyNotFound(company_id.clone()))?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(before) = self.told(found).await? else { continue };
            let edit = edit(&company, before.as_deref())?;
            self.check_etag(terms, before.as_ref().map(|user| user.revision))?;
            let delete = subject.kind == ChangeKind::DeleteUser;
            let (rests_on, keep) = (vec![on_company(&company)], terms.keep(render.clone()));
            let plan = Plan { before, edit, delete, rests_on, beside: vec![], keep };
            let now = self.clock.now();
            if let Attempt::Done(done) = self.carry_out(&view, plan, subject, terms, now).await? {
                return Ok(render(done));
            }
        }
        Err(Refusal::Contended)
    }

    /// One user.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn user(&self, company_id: &CompanyId, id: &UserId) -> Result<Read<User>, Refusal> {
        for _ in 0..ATTEMPTS {
            let (view, company) = self.existing_company(company_id).await?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(found) = self.told(found).await? else { continue };
            let user =
                found.ok_or_else(|| Refusal::UserNotFound(company_id.clone(), id.clone()))?;
            let (etag, revision) = (self.etag(user.revision), view.at);
            return Ok(Read { resource: Arc::unwrap_or_clone(user), etag, revision });
        }
        Err(Refusal::Contended)
    }

    /// A company's users behind this id, by id.
    ///
    /// # Errors
    /// The company is unknown, or the store cannot answer.
    pub async fn users(
        &self,
        company_id: &CompanyId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Page<User>, Refusal> {
        let (view, company) = self.existing_company(company_id).await?;
        let birth = company.created_at;
        let read = move |store: &dyn Store| {
            let (mut page, mut after) = (Filling::new(limit), after);
            while page.wants_more() {
                let step = store.users(birth, after.as_ref(), page.step())?;
                after = step.last().map(|user| user.id.clone());
                page.add(step, |user| user.roles.len());
            }
            Ok(page.map(|user| user))
        };
        let (found, more) = self.facts.read(read).await?;
        Ok(page(found, more, view.at, |user| self.etag(user.revision)))
    }

    /// Replaces a consent by what is asked for, as far as the user could do it now (D21).
    ///
    /// # Errors
    /// A scope, the company, the credential or the user is unknown, or the etag is not current.
    pub async fn put_consent<R: Reply>(
        &self,
        id: &ConsentId,
        asked: &[Scope],
        terms: &Terms,
        render: impl Fn(Done<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let kind = ChangeKind::PutConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                Begun::Now(view) => view,
                Begun::Before(reply) => return Ok(reply),
            };
            let asked = resolve(&view.catalog, "scopes", asked)?;
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let before = found.consent.as_ref();
            self.check_etag(terms, before.map(|consent| consent.revision))?;
            let (of, user) = (found.parties(), &found.user);
            let edit = Consent::put(before.map(|c| &**c), of, &view.catalog, user, &asked);
            let subject = between(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer =
                move |done: Done<Consent>| render(done.map(|consent| shown(consent, &catalog)));
            let plan = plan(&view, &found, kind, edit, id, terms.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Done(done) = self.carry_out(&view, plan, subject, terms, now).await? {
                return Ok(answer(done));
            }
        }
        Err(Refusal::Contended)
    }

    /// Withdraws a consent.
    ///
    /// # Errors
    /// There is none, or the etag is not current.
    pub async fn delete_consent<R: Reply>(
        &self,
        id: &ConsentId,
        terms: &Terms,
        render: impl Fn(Done<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, Refusal> {
        let kind = ChangeKind::DeleteConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                Begun::Now(view) => view,
                Begun::Before(reply) => return Ok(reply),
            };
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let consent = existing(&found, id)?;
            self.check_etag(terms, Some(consent.revision))?;
            let removed = consent.scopes.iter().map(|(scope, ())| scope).collect();
            let edit = Edit { removed, ..Edit::none(&**consent) };
            let subject = between(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer =
                move |done: Done<Consent>| render(done.map(|consent| shown(consent, &catalog)));
            let plan = plan(&view, &found, kind, edit, id, terms.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Done(done) = self.carry_out(&view, plan, subject, terms, now).await? {
                return Ok(answer(done));
            }
        }
        Err(Refusal::Contended)
    }

    /// One consent.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn consent(&self, id: &ConsentId) -> Result<Read<ConsentView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let consent = existing(&found, id)?;
            let (etag, revision) = (self.etag(consent.revision), view.at);
            let resource = shown(Consent::clone(consent), &view.catalog);
            return Ok(Read { resource, etag, revision });
        }
        Err(Refusal::Contended)
    }

    /// Those whom a consent is between, at a view's revision; none after waiting for what was
    /// missed.
    async fn consent_of(&self, view: &View, id: &ConsentId) -> Result<Option<Found>, Refusal> {
        let found = self.credential_of(view, &id.company, &id.credential).await;
        let Some((company, credential)) = self.told(found).await? else { return Ok(None) };
        let company = company.ok_or_else(|| Refusal::CompanyNotFound(id.company.clone()))?;
        let credential = credential.ok_or_else(|| {
            Refusal::CredentialNotFound(id.company.clone(), id.credential.clone())
        })?;
        let found = self.facts.user(view.at, company.created_at, &id.user).await;
        let Some(user) = self.told(found).await? else { return Ok(None) };
        let user =
            user.ok_or_else(|| Refusal::UserNotFound(id.company.clone(), id.user.clone()))?;
        let mut found = Found { company, credential, user, consent: None };
        let consent = self.facts.consent(view.at, found.parties()).await;
        let Some(consent) = self.told(consent).await? else { return Ok(None) };
        found.consent = consent;
        Ok(Some(found))
    }
}

fn existing<'a>(found: &'a Found, id: &ConsentId) -> Result<&'a Arc<Consent>, Refusal> {
    let missing = || Refusal::ConsentNotFound(id.user.clone(), id.credential.clone());
    found.consent.as_ref().ok_or_else(missing)
}

fn between(kind: ChangeKind, id: &ConsentId) -> Subject<'_> {
    let (credential, user) = (Some(&id.credential), Some(&id.user));
    Subject { credential, user, ..Subject::of(kind, &id.company) }
}

/// A consent rests on all whom it is between, and on what the user could do.
fn plan(
    view: &View,
    found: &Found,
    kind: ChangeKind,
    edit: Edit<Consent>,
    id: &ConsentId,
    keep: Option<Keep<Done<Consent>>>,
) -> Plan<Consent> {
    let credential = FactKey::Credential(found.company.created_at, id.credential.clone());
    let user = FactKey::User(found.company.created_at, id.user.clone());
    let rests_on = vec![
        on_catalog(view),
        on_company(&found.company),
        (credential, Some(found.credential.revision)),
        (user, Some(found.user.revision)),
    ];
    let delete = kind == ChangeKind::DeleteConsent;
    Plan { before: found.consent.clone(), edit, delete, rests_on, beside: vec![], keep }
}

fn shown(consent: Consent, catalog: &Catalog) -> ConsentView {
    let scopes: Vec<_> = consent.scopes.iter().map(|(scope, ())| scope).collect();
    ConsentView { scopes: catalog.names(&scopes), consent }
}

impl super::transaction::Resource for User {
    fn key(&self) -> FactKey {
        FactKey::User(self.company, self.id.clone())
    }

    fn revision(&self) -> crate::policy::revision::Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::User(self)
    }
}

impl super::transaction::Resource for Consent {
    fn key(&self) -> FactKey {
        FactKey::Consent(self.of)
    }

    fn revision(&self) -> crate::policy::revision::Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::Consent(self)
    }
}
