//! Companies: creates, changes, restricts and deletes companies.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, ReplyToStore, StorableReply};
use super::impact::{self, Impact};
use super::transaction::{
    Attempt, Resource, Subject, WritePlan, Written, require_catalog, resolve,
};
use super::write_options::WriteOptions;
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
    /// The display name.
    pub display_name: String,
    /// Its ceiling; without scopes, the whole catalog (D4).
    pub scopes: Option<Vec<Scope>>,
}

impl NewCompany {
    /// The edit that creates the company.
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

    /// The plan that creates the company, with the precondition that it does not exist.
    pub(super) fn plan(
        view: &Snapshot,
        edit: Edit<Company>,
        keep: Option<ReplyToStore<Written<Company>>>,
    ) -> WritePlan<Company> {
        let preconditions = vec![require_catalog(view)];
        WritePlan { before: None, edit, delete: false, preconditions, other_writes: vec![], keep }
    }
}

/// A change of an existing company.
#[derive(Clone, Debug)]
pub enum CompanyChange {
    /// Change the fields that are `Some`.
    Update {
        /// The display name.
        display_name: Option<String>,
        /// False denies every check.
        enabled: Option<bool>,
    },
    /// Add scopes to the ceiling (D5).
    AddScopes(Vec<Scope>),
    /// Delete the company and everything in it (D3).
    Delete,
}

/// A restriction of a company's ceiling (D6, D7).
#[derive(Clone, Debug)]
pub struct Restriction {
    /// The company.
    pub company: CompanyId,
    /// The scopes to remove.
    pub scopes: Vec<Scope>,
    /// Restrict without an impact preview, whatever credentials are affected.
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
        options: &WriteOptions,
        render: impl Fn(Written<CompanyView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateCompany;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            // An unknown scope is reported before a company that exists.
            new.edit(&view.catalog, self.clock.now())?;
            let found = self.facts.company(view.at, &new.id).await;
            match self.or_retry(found).await? {
                Some(Some(_)) => return Err(AuthorityError::CompanyExists(new.id.clone())),
                Some(None) => {}
                None => continue,
            }
            self.check_etag(options, None)?;
            let now = self.clock.now();
            let edit = new.edit(&view.catalog, now)?;
            let answer = answer(&view.catalog, render.clone());
            let plan = NewCompany::plan(&view, edit, options.keep(answer.clone()));
            let subject = Subject::of(kind, &new.id);
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
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
        options: &WriteOptions,
        render: impl Fn(Written<CompanyView>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, change.kind()).await? {
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
            self.check_etag(options, Some(company.revision))?;
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
            let keep = options.keep(answer.clone());
            let plan = WritePlan {
                before: Some(company),
                edit,
                delete,
                preconditions,
                other_writes: vec![],
                keep,
            };
            let subject = Subject::of(change.kind(), id);
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Removes scopes from a company's ceiling, or reports the impact of that (D6, D7).
    ///
    /// # Errors
    /// A scope or the company is unknown, the etag of the impact preview is not current, or an
    /// enabled credential is affected and the impact was not acknowledged.
    pub async fn restrict_company<R: StorableReply>(
        &self,
        restriction: &Restriction,
        options: &WriteOptions,
        render: impl Fn(Written<CompanyView>, Impact) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::RestrictCompanyScopes;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
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
            let preview_etag = etag::of_impact(
                self.incarnation(),
                &company,
                impact_at,
                view.catalog.revision,
                &restriction.scopes,
            );
            if options.etag.as_ref().is_some_and(|etag| *etag != preview_etag) {
                return Err(AuthorityError::EtagStale);
            }
            let now = self.clock.now();
            let edit = company.restrict(&view.catalog, &scopes);
            let gone = edit.removed.clone();
            let is_acknowledged = options.etag.is_some() || restriction.acknowledge_impact;
            let mut preconditions = vec![require_catalog(&view)];
            if options.etag.is_some() || !restriction.acknowledge_impact {
                // The impact preview must still be correct at the commit (D7).
                preconditions.push((FactKey::Impact(company.created_at), impact_at));
            }
            // A caller that acknowledged without a preview does not wait for the count: the
            // restriction comes first. With an etag, the count is valid at the commit. A count that
            // is stored for an idempotent request must exist before the commit.
            let is_stored = options.to_remember().is_some();
            let counted_first =
                options.validate_only || is_stored || !restriction.acknowledge_impact;
            let mut impact = Impact::default();
            if counted_first {
                impact = self.impact(&view, &company, &gone, now).await?;
                if !options.validate_only && !is_acknowledged && impact.any_enabled {
                    let report = Impact { etag: preview_etag, ..impact };
                    return Err(AuthorityError::ImpactNotAcknowledged(Box::new(report)));
                }
            }
            let catalog = Arc::clone(&view.catalog);
            let render = render.clone();
            let answer = move |written: Written<Company>, impact: Impact| {
                render(written.map(|company| company.view(&catalog)), impact)
            };
            let (keep, counted) =
                (answer.clone(), Impact { etag: preview_etag.clone(), ..impact.clone() });
            let plan = WritePlan {
                before: Some(Arc::clone(&company)),
                edit,
                delete: false,
                preconditions,
                other_writes: vec![],
                keep: options.keep(move |written| keep(written, counted)),
            };
            let subject = Subject::of(kind, &restriction.company);
            let written = match self.commit_plan(&view, plan, subject, options, now).await? {
                Attempt::Written(written) => written,
                Attempt::Again => continue,
            };
            if !counted_first {
                match self.impact(&view, &company, &gone, now).await {
                    Ok(counted) => impact = counted,
                    // The restriction is in force, so the call succeeds without a count.
                    Err(error) => {
                        tracing::warn!(%error, "the number of credentials that a restriction affected is unknown")
                    }
                }
            }
            return Ok(answer(written, Impact { etag: preview_etag, ..impact }));
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
        let (scopes, seen) = (scopes.to_vec(), Arc::clone(&self.last_used));
        let impact = self
            .facts
            .read_for_change(move |store| {
                impact::impact(store, &catalog, &company, &scopes, &seen, now)
            })
            .await?;
        let ended = |_| impact.affected.iter().filter_map(|affected| affected.ended).max();
        self.persist_reported(now, ended).await?;
        Ok(impact)
    }
}

/// The reply to a change of a company.
fn answer<R, F: Fn(Written<CompanyView>) -> R + Clone>(
    catalog: &Arc<Catalog>,
    render: F,
) -> impl Fn(Written<Company>) -> R + Clone + use<R, F> {
    let catalog = Arc::clone(catalog);
    move |written| render(written.map(|company| company.view(&catalog)))
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
