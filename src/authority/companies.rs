//! Companies: creates, changes, restricts and deletes companies.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::etag;
use super::impact::{self, Impact};
use super::reader::resolve;
use super::session::Session;
use super::transaction::{Outcome, Planned, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::{Company, CompanyView};
use crate::policy::edit::Edit;
use crate::policy::id::CompanyId;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{ResultDetail, Store, StoreError};

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

    /// Plans the creation, with the precondition that the company does not exist.
    ///
    /// # Errors
    /// A scope is unknown.
    pub(super) fn plan(
        &self,
        mut tx: Transaction<'_>,
    ) -> Result<Planned<Company, Arc<Catalog>>, TransactionError> {
        let (catalog, now) = (tx.catalog(), tx.now());
        Ok(tx.create(self.edit(&catalog, now)?).with_context(catalog))
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

impl Session<'_> {
    /// Creates a company (D4).
    ///
    /// # Errors
    /// A scope is unknown, or the id is taken.
    pub async fn create_company(
        &self,
        new: &NewCompany,
        options: &WriteOptions,
    ) -> Result<Written<CompanyView>, AuthorityError> {
        let subject = Subject::of(ChangeKind::CreateCompany, &new.id);
        let plan = async |mut tx: Transaction<'_>| {
            // An unknown scope is reported before a company that exists.
            tx.resolve("scopes.names", new.scopes.as_deref().unwrap_or_default())?;
            if tx.find::<Company>(&new.id).await?.is_some() {
                return Err(AuthorityError::CompanyExists(new.id.clone()).into());
            }
            tx.check_etag(None)?;
            new.plan(tx)
        };
        let outcome = self.write(subject, options, plan).await?;
        self.company_written(&new.id, outcome).await
    }

    /// Changes a company.
    ///
    /// # Errors
    /// A scope or the company is unknown, or the etag is not current.
    pub async fn change_company(
        &self,
        id: &CompanyId,
        change: &CompanyChange,
        options: &WriteOptions,
    ) -> Result<Written<CompanyView>, AuthorityError> {
        let subject = Subject::of(change.kind(), id);
        let plan = async |mut tx: Transaction<'_>| {
            let scopes = match change {
                CompanyChange::AddScopes(scopes) => tx.resolve("scopes", scopes)?,
                CompanyChange::Update { .. } | CompanyChange::Delete => vec![],
            };
            let company = tx.company(id).await?;
            tx.check_etag(Some(company.revision))?;
            let catalog = tx.catalog();
            let planned = match change {
                CompanyChange::Update { display_name, enabled } => {
                    let edit = company.update(display_name.clone(), *enabled);
                    tx.put(Some(company), edit)
                }
                CompanyChange::AddScopes(_) => {
                    let edit = company.add_scopes(&catalog, &scopes);
                    tx.put(Some(company), edit)
                }
                CompanyChange::Delete => {
                    let edit = company.delete(&catalog);
                    tx.delete(company, edit)
                }
            };
            Ok::<_, TransactionError>(planned.with_context(catalog))
        };
        match self.write(subject, options, plan).await? {
            Outcome::Repeated(stored) if matches!(change, CompanyChange::Delete) => {
                Ok(self.repeated_without(stored).await?.0)
            }
            outcome => self.company_written(id, outcome).await,
        }
    }

    async fn company_written(
        &self,
        id: &CompanyId,
        outcome: Outcome<Company, Arc<Catalog>>,
    ) -> Result<Written<CompanyView>, AuthorityError> {
        match outcome {
            Outcome::Written(written, catalog) => Ok(written.map(|company| company.view(&catalog))),
            Outcome::Repeated(stored) => Ok(self.repeated(stored, self.company(id)).await?.0),
        }
    }

    /// Removes scopes from a company's ceiling, or reports the impact of that (D6, D7). The impact of a
    /// repeated request has no list of credentials.
    ///
    /// # Errors
    /// A scope or the company is unknown, the etag of the impact preview is not current, or an
    /// enabled credential is affected and the impact was not acknowledged.
    pub async fn restrict_company(
        &self,
        restriction: &Restriction,
        options: &WriteOptions,
    ) -> Result<(Written<CompanyView>, Impact), AuthorityError> {
        let Restriction { company: id, acknowledge_impact, .. } = restriction;
        let subject = Subject::of(ChangeKind::RestrictCompanyScopes, id);
        // A caller that acknowledged without a preview does not wait for the count: the
        // restriction comes first. With an etag, the count is valid at the commit. A count that
        // is stored for an idempotent request must exist before the commit.
        let is_stored = options.to_remember().is_some();
        let counted_first = options.validate_only || is_stored || !acknowledge_impact;
        let plan = async |mut tx: Transaction<'_>| {
            let scopes = tx.resolve("scopes", &restriction.scopes)?;
            let company = tx.company(id).await?;
            // The impact preview must still be correct at the commit (D7).
            let impact_at = match options.etag.is_some() || !acknowledge_impact {
                true => tx.impact_revision(&company).await?,
                false => tx.reported_impact_revision(&company).await?,
            };
            let catalog = tx.catalog();
            let etag = etag::of_impact(
                self.authority.incarnation(),
                &company,
                impact_at,
                catalog.revision,
                &restriction.scopes,
            );
            if options.etag.as_ref().is_some_and(|expected| *expected != etag) {
                return Err(AuthorityError::EtagStale.into());
            }
            let now = tx.now();
            let edit = company.restrict(&catalog, &scopes);
            let gone = edit.removed.clone();
            let mut impact = Impact::default();
            if counted_first {
                impact = self.impact(&catalog, &company, &gone, now).await?;
            }
            impact.etag = etag;
            let is_acknowledged = options.etag.is_some() || *acknowledge_impact;
            if !options.validate_only && !is_acknowledged && impact.any_enabled {
                return Err(AuthorityError::ImpactNotAcknowledged(Box::new(impact)).into());
            }
            let before = Arc::clone(&company);
            Ok::<_, TransactionError>(
                tx.put(Some(company), edit)
                    .with_detail(ResultDetail::Impact(impact.count, impact.etag.clone()))
                    .with_context(Restricted { catalog, before, gone, now, impact }),
            )
        };
        match self.write(subject, options, plan).await? {
            Outcome::Written(written, restricted) => {
                let Restricted { catalog, before, gone, now, mut impact } = restricted;
                if !counted_first {
                    match self.impact(&catalog, &before, &gone, now).await {
                        Ok(counted) => impact = Impact { etag: impact.etag, ..counted },
                        // The restriction is in force, so the call succeeds without a count.
                        Err(error) => {
                            tracing::warn!(%error, "the number of credentials that a restriction affected is unknown")
                        }
                    }
                }
                Ok((written.map(|company| company.view(&catalog)), impact))
            }
            Outcome::Repeated(stored) => {
                let (written, detail) = self.repeated(stored, self.company(id)).await?;
                let (count, etag) = match detail {
                    ResultDetail::Impact(count, etag) => (count, etag),
                    _ => Default::default(),
                };
                Ok((written, Impact { count, etag, ..Impact::default() }))
            }
        }
    }

    async fn impact(
        &self,
        catalog: &Arc<Catalog>,
        company: &Arc<Company>,
        scopes: &[ScopeId],
        now: Timestamp,
    ) -> Result<Impact, StoreError> {
        let authority = self.authority;
        let (catalog, company) = (Arc::clone(catalog), Arc::clone(company));
        let (scopes, seen) = (scopes.to_vec(), Arc::clone(&authority.last_used));
        let count =
            move |store: &Store| impact::impact(store, &catalog, &company, &scopes, &seen, now);
        let impact = authority.facts.read_for_change(count).await?;
        let ended = |_| impact.affected.iter().filter_map(|affected| affected.ended).max();
        authority.persist_reported(now, ended).await?;
        Ok(impact)
    }
}

/// The data of a planned restriction that the response needs.
struct Restricted {
    catalog: Arc<Catalog>,
    before: Arc<Company>,
    gone: Vec<ScopeId>,
    now: Timestamp,
    impact: Impact,
}
