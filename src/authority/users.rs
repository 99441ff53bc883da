//! People: users and their consents, as they are changed and read.

use std::sync::Arc;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::queries::{Page, PageBuilder, Read, page};
use super::transaction::{
    Attempt, Subject, WriteOptions, WritePlan, Written, require_catalog, require_company, resolve,
};
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::edit::Edit;
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
struct ConsentContext {
    company: Arc<Company>,
    credential: Arc<Credential>,
    user: Arc<User>,
    consent: Option<Arc<Consent>>,
}

impl ConsentContext {
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
    pub async fn put_user<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        roles: &[Name],
        terms: &WriteOptions,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
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
    pub async fn delete_user<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        terms: &WriteOptions,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::DeleteUser, company_id) };
        let delete = |_: &Company, before: Option<&User>| {
            let user = before
                .ok_or_else(|| AuthorityError::UserNotFound(company_id.clone(), id.clone()))?;
            let roles = FieldChange::list("roles", Some(&user.roles), &[]);
            Ok(Edit { fields: roles.into_iter().collect(), ..Edit::none(user) })
        };
        self.change_user(id, subject, terms, delete, render).await
    }

    async fn change_user<R: StorableReply>(
        &self,
        id: &UserId,
        subject: Subject<'_>,
        terms: &WriteOptions,
        edit: impl Fn(&Company, Option<&User>) -> Result<Edit<User>, AuthorityError>,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let company_id = subject.company;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, subject.kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let found = self.facts.company(view.at, company_id).await;
            let Some(company) = self.or_retry(found).await? else { continue };
            let company =
                company.ok_or_else(|| AuthorityError::CompanyNotFound(company_id.clone()))?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(before) = self.or_retry(found).await? else { continue };
            let edit = edit(&company, before.as_deref())?;
            self.check_etag(terms, before.as_ref().map(|user| user.revision))?;
            let delete = subject.kind == ChangeKind::DeleteUser;
            let (preconditions, keep) =
                (vec![require_company(&company)], terms.keep(render.clone()));
            let plan = WritePlan { before, edit, delete, preconditions, beside: vec![], keep };
            let now = self.clock.now();
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(render(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// One user.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn user(
        &self,
        company_id: &CompanyId,
        id: &UserId,
    ) -> Result<Read<User>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let (view, company) = self.existing_company(company_id).await?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let user = found
                .ok_or_else(|| AuthorityError::UserNotFound(company_id.clone(), id.clone()))?;
            let (etag, revision) = (self.etag(user.revision), view.at);
            return Ok(Read { resource: Arc::unwrap_or_clone(user), etag, revision });
        }
        Err(AuthorityError::Conflict)
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
    ) -> Result<Page<User>, AuthorityError> {
        let (view, company) = self.existing_company(company_id).await?;
        let birth = company.created_at;
        let read = move |store: &dyn Store| {
            let (mut page, mut after) = (PageBuilder::new(limit), after);
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
    pub async fn put_consent<R: StorableReply>(
        &self,
        id: &ConsentId,
        asked: &[Scope],
        terms: &WriteOptions,
        render: impl Fn(Written<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::PutConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let asked = resolve(&view.catalog, "scopes", asked)?;
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let before = found.consent.as_ref();
            self.check_etag(terms, before.map(|consent| consent.revision))?;
            let (of, user) = (found.parties(), &found.user);
            let edit = Consent::put(before.map(|c| &**c), of, &view.catalog, user, &asked);
            let subject = consent_subject(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |done: Written<Consent>| {
                render(done.map(|consent| consent_view(consent, &catalog)))
            };
            let plan = plan(&view, &found, kind, edit, id, terms.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Withdraws a consent.
    ///
    /// # Errors
    /// There is none, or the etag is not current.
    pub async fn delete_consent<R: StorableReply>(
        &self,
        id: &ConsentId,
        terms: &WriteOptions,
        render: impl Fn(Written<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::DeleteConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let consent = existing(&found, id)?;
            self.check_etag(terms, Some(consent.revision))?;
            let removed = consent.scopes.iter().map(|(scope, ())| scope).collect();
            let edit = Edit { removed, ..Edit::none(&**consent) };
            let subject = consent_subject(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |done: Written<Consent>| {
                render(done.map(|consent| consent_view(consent, &catalog)))
            };
            let plan = plan(&view, &found, kind, edit, id, terms.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// One consent.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn consent(&self, id: &ConsentId) -> Result<Read<ConsentView>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let consent = existing(&found, id)?;
            let (etag, revision) = (self.etag(consent.revision), view.at);
            let resource = consent_view(Consent::clone(consent), &view.catalog);
            return Ok(Read { resource, etag, revision });
        }
        Err(AuthorityError::Conflict)
    }

    /// Those whom a consent is between, at a view's revision; none after waiting for what was
    /// missed.
    async fn consent_of(
        &self,
        view: &Snapshot,
        id: &ConsentId,
    ) -> Result<Option<ConsentContext>, AuthorityError> {
        let found = self.credential_of(view, &id.company, &id.credential).await;
        let Some((company, credential)) = self.or_retry(found).await? else { return Ok(None) };
        let company = company.ok_or_else(|| AuthorityError::CompanyNotFound(id.company.clone()))?;
        let credential = credential.ok_or_else(|| {
            AuthorityError::CredentialNotFound(id.company.clone(), id.credential.clone())
        })?;
        let found = self.facts.user(view.at, company.created_at, &id.user).await;
        let Some(user) = self.or_retry(found).await? else { return Ok(None) };
        let user =
            user.ok_or_else(|| AuthorityError::UserNotFound(id.company.clone(), id.user.clone()))?;
        let mut found = ConsentContext { company, credential, user, consent: None };
        let consent = self.facts.consent(view.at, found.parties()).await;
        let Some(consent) = self.or_retry(consent).await? else { return Ok(None) };
        found.consent = consent;
        Ok(Some(found))
    }
}

fn existing<'a>(
    found: &'a ConsentContext,
    id: &ConsentId,
) -> Result<&'a Arc<Consent>, AuthorityError> {
    let missing = || AuthorityError::ConsentNotFound(id.user.clone(), id.credential.clone());
    found.consent.as_ref().ok_or_else(missing)
}

fn consent_subject(kind: ChangeKind, id: &ConsentId) -> Subject<'_> {
    let (credential, user) = (Some(&id.credential), Some(&id.user));
    Subject { credential, user, ..Subject::of(kind, &id.company) }
}

/// A consent rests on all whom it is between, and on what the user could do.
fn plan(
    view: &Snapshot,
    found: &ConsentContext,
    kind: ChangeKind,
    edit: Edit<Consent>,
    id: &ConsentId,
    keep: Option<ReplyToStore<Written<Consent>>>,
) -> WritePlan<Consent> {
    let credential = FactKey::Credential(found.company.created_at, id.credential.clone());
    let user = FactKey::User(found.company.created_at, id.user.clone());
    let preconditions = vec![
        require_catalog(view),
        require_company(&found.company),
        (credential, Some(found.credential.revision)),
        (user, Some(found.user.revision)),
    ];
    let delete = kind == ChangeKind::DeleteConsent;
    WritePlan { before: found.consent.clone(), edit, delete, preconditions, beside: vec![], keep }
}

fn consent_view(consent: Consent, catalog: &Catalog) -> ConsentView {
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
