//! Consents: creates, withdraws and reads what a user allows a credential to do (D21).

use std::sync::Arc;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::queries::Read;
use super::transaction::{
    Attempt, Resource, Subject, WritePlan, Written, require_catalog, require_company, resolve,
};
use super::write_options::WriteOptions;
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::ChangeKind;
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::user::User;
use crate::store::{Fact, FactKey};

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

/// The parties of a consent, and the consent.
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
    /// Replaces a consent by the requested scopes, limited to those that the user's roles permit now
    /// (D21).
    ///
    /// # Errors
    /// A scope, the company, the credential or the user is unknown, or the etag is not current.
    pub async fn put_consent<R: StorableReply>(
        &self,
        id: &ConsentId,
        requested: &[Scope],
        options: &WriteOptions,
        render: impl Fn(Written<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::PutConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let requested = resolve(&view.catalog, "scopes", requested)?;
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let before = found.consent.as_ref();
            self.check_etag(options, before.map(|consent| consent.revision))?;
            let (of, user) = (found.parties(), &found.user);
            let edit = Consent::put(before.map(|c| &**c), of, &view.catalog, user, &requested);
            let subject = consent_subject(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |written: Written<Consent>| {
                render(written.map(|consent| consent_view(consent, &catalog)))
            };
            let plan = plan(&view, &found, kind, edit, id, options.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
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
        options: &WriteOptions,
        render: impl Fn(Written<ConsentView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::DeleteConsent;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let Some(found) = self.consent_of(&view, id).await? else { continue };
            let consent = existing(&found, id)?;
            self.check_etag(options, Some(consent.revision))?;
            let removed = consent.scopes.iter().map(|(scope, ())| scope).collect();
            let edit = Edit { removed, ..Edit::none(&**consent) };
            let subject = consent_subject(kind, id);
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |written: Written<Consent>| {
                render(written.map(|consent| consent_view(consent, &catalog)))
            };
            let plan = plan(&view, &found, kind, edit, id, options.keep(answer.clone()));
            let now = self.clock.now();
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
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

    /// The parties of a consent at the snapshot's revision. None after a wait for a newer revision:
    /// then start over.
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

/// The plan of a consent. Its preconditions are its parties and the catalog.
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
    WritePlan {
        before: found.consent.clone(),
        edit,
        delete,
        preconditions,
        other_writes: vec![],
        keep,
    }
}

fn consent_view(consent: Consent, catalog: &Catalog) -> ConsentView {
    let scopes: Vec<_> = consent.scopes.iter().map(|(scope, ())| scope).collect();
    ConsentView { scopes: catalog.names(&scopes), consent }
}

impl Resource for Consent {
    fn key(&self) -> FactKey {
        FactKey::Consent(self.of)
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::Consent(self)
    }
}
