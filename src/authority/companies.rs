//! Companies: created, changed, restricted.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::impact::{self, Impact};
use super::transaction::{
    Attempt, Resource, Subject, WriteOptions, WritePlan, Written, require_catalog, resolve,
};
use super::{ATTEMPTS, Authority, etag};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::{Company, CompanyView};
use crate::policy::edit::Edit;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey, StoreError};

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

impl NewCompany {
    /// What creating it does.
    ///
    /// # Errors
    /// A scope is unknown.
    pub(super) fn edit(
        &self,
        catalog: &Catalog,
        now: Timestamp,
    ) -> Result<Edit<Company>, AuthorityError> {
        let scopes = self.scopes.as_deref().map(|s| resolve(catalog, "scopes.names", s));
        let scopes = scopes.transpose()?;
        let (id, name) = (self.id.clone(), self.display_name.clone());
        let mut edit = Company::create(id, name, catalog, scopes.as_deref(), now);
        edit.fields.extend(FieldChange::new_text("display_name", &self.display_name));
        Ok(edit)
    }

    /// The change that creates it, and that rests on there being none.
    pub(super) fn plan(
        view: &Snapshot,
        edit: Edit<Company>,
        keep: Option<ReplyToStore<Written<Company>>>,
    ) -> WritePlan<Company> {
        let preconditions = vec![require_catalog(view)];
        WritePlan { before: None, edit, delete: false, preconditions, beside: vec![], keep }
    }
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

impl CompanyChange {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Update { .. } => ChangeKind::UpdateCompany,
            Self::AddScopes(_) => ChangeKind::AddCompanyScopes,
            Self::Delete => ChangeKind::DeleteCompany,
        }
    }
}

impl Authority {
    /// Creates a company (D4).
    ///
    /// # Errors
    /// A scope is unknown, or the id is taken.
    pub async fn create_company<R: StorableReply>(
        &self,
        new: &NewCompany,
        terms: &WriteOptions,
        render: impl Fn(Written<CompanyView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateCompany;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            // A scope that does not exist is said before a company that does.
            new.edit(&view.catalog, self.clock.now())?;
            let found = self.facts.company(view.at, &new.id).await;
            match self.or_retry(found).await? {
                Some(Some(_)) => return Err(AuthorityError::CompanyExists(new.id.clone())),
                Some(None) => {}
                None => continue,
            }
            self.check_etag(terms, None)?;
            let now = self.clock.now();
            let edit = new.edit(&view.catalog, now)?;
            let answer = answer(&view.catalog, render.clone());
            let plan = NewCompany::plan(&view, edit, terms.keep(answer.clone()));
            let subject = Subject::of(kind, &new.id);
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Changes a company.
    ///
    /// # Errors
    /// A scope or the company is unknown, or the etag is not current.
    pub async fn change_company<R: StorableReply>(
        &self,
        id: &CompanyId,
        change: &CompanyChange,
        terms: &WriteOptions,
        render: impl Fn(Written<CompanyView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, change.kind()).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let scopes = match change {
                CompanyChange::AddScopes(scopes) => resolve(&view.catalog, "scopes", scopes)?,
                CompanyChange::Update { .. } | CompanyChange::Delete => vec![],
            };
            let found = self.facts.company(view.at, id).await;
            let Some(found) = self.or_retry(found).await? else {
                continue;
            };
            let company = found.ok_or_else(|| AuthorityError::CompanyNotFound(id.clone()))?;
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
            let preconditions = vec![require_catalog(&view)];
            let answer = answer(&view.catalog, render.clone());
            let keep = terms.keep(answer.clone());
            let plan = WritePlan {
                before: Some(company),
                edit,
                delete,
                preconditions,
                beside: vec![],
                keep,
            };
            let subject = Subject::of(change.kind(), id);
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Takes scopes from a company's ceiling, or reports what that would do (D6, D7).
    ///
    /// # Errors
    /// A scope or the company is unknown, the audit's etag is not current, or an enabled
    /// credential is affected and nobody has acknowledged it.
    pub async fn restrict_company<R: StorableReply>(
        &self,
        restriction: &Restriction,
        terms: &WriteOptions,
        render: impl Fn(Written<CompanyView>, Impact) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::RestrictCompanyScopes;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let scopes = resolve(&view.catalog, "scopes", &restriction.scopes)?;
            let found = self.facts.company(view.at, &restriction.company).await;
            let Some(found) = self.or_retry(found).await? else {
                continue;
            };
            let company = found
                .ok_or_else(|| AuthorityError::CompanyNotFound(restriction.company.clone()))?;
            let found = self.facts.impact(view.at, company.created_at).await;
            let Some(impact_at) = self.or_retry(found).await? else {
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
                return Err(AuthorityError::EtagStale);
            }
            let now = self.clock.now();
            let edit = company.restrict(&view.catalog, &scopes);
            let gone = edit.removed.clone();
            let agreed = terms.etag.is_some() || restriction.acknowledge_impact;
            let mut preconditions = vec![require_catalog(&view)];
            if terms.etag.is_some() || !restriction.acknowledge_impact {
                // What the audit said of the credentials must still be so at the commit (D7).
                preconditions.push((FactKey::Impact(company.created_at), impact_at));
            }
            // Whoever acknowledged without an audit is not made to wait for the count: the
            // restriction comes first. An audit's count stands with the commit, and so does one
            // that is kept with its request.
            let kept = terms.to_remember().is_some();
            let counted_first = terms.validate_only || kept || !restriction.acknowledge_impact;
            let mut impact = Impact::default();
            if counted_first {
                impact = self.impact(&view, &company, &gone, now).await?;
                if !terms.validate_only && !agreed && impact.any_enabled {
                    let refused = Impact { etag: audited, ..impact };
                    return Err(AuthorityError::ImpactNotAcknowledged(Box::new(refused)));
                }
            }
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |done: Written<Company>, impact: Impact| {
                render(done.map(|company| company.view(&catalog)), impact)
            };
            let (keep, counted) =
                (answer.clone(), Impact { etag: audited.clone(), ..impact.clone() });
            let plan = WritePlan {
                before: Some(Arc::clone(&company)),
                edit,
                delete: false,
                preconditions,
                beside: vec![],
                keep: terms.keep(move |done| keep(done, counted)),
            };
            let subject = Subject::of(kind, &restriction.company);
            let done = match self.commit_plan(&view, plan, subject, terms, now).await? {
                Attempt::Written(done) => done,
                Attempt::Again => continue,
            };
            if !counted_first {
                match self.impact(&view, &company, &gone, now).await {
                    Ok(counted) => impact = counted,
                    // The restriction is in force: that is the answer, with or without a count.
                    Err(error) => tracing::warn!(%error, "who a restriction affected is not known"),
                }
            }
            return Ok(answer(done, Impact { etag: audited, ..impact }));
        }
        Err(AuthorityError::Conflict)
    }

    async fn impact(
        &self,
        view: &Snapshot,
        company: &Arc<Company>,
        scopes: &[ScopeId],
        now: Timestamp,
    ) -> Result<Impact, StoreError> {
        let (catalog, company) = (Arc::clone(&view.catalog), Arc::clone(company));
        let (scopes, seen) = (scopes.to_vec(), Arc::clone(&self.seen));
        let impact = self
            .facts
            .read_for_change(move |store| {
                impact::impact(store, &catalog, &company, &scopes, &seen, now)
            })
            .await?;
        let ended = |_| impact.affected.iter().filter_map(|affected| affected.ended).max();
        self.keep_told(now, ended).await?;
        Ok(impact)
    }
}

/// How a change of a company is answered.
fn answer<R, F: Fn(Written<CompanyView>) -> R + Clone>(
    catalog: &Arc<Catalog>,
    render: F,
) -> impl Fn(Written<Company>) -> R + Clone + use<R, F> {
    let catalog = Arc::clone(catalog);
    move |done| render(done.map(|company| company.view(&catalog)))
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
