//! Catalogs: applies a catalog, from a file at startup or by an operator, and reports which companies
//! and credentials lose scopes.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::impact::{self, Affected, Impact, MAX_LISTED};
use super::session::Session;
use super::transaction::{Outcome, Planned, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::catalog::Catalog;
use crate::policy::catalog::difference::CatalogDifference;
use crate::policy::catalog::file::CatalogErrors;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::edit::Edit;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::{ResultDetail, Store, StoreError};

/// The result of applying a catalog, or of its dry run.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The difference from the catalog before.
    pub difference: CatalogDifference,
    /// The companies and credentials that lose scopes.
    pub losers: Losers,
    /// The etag of the catalog in force.
    pub etag: String,
    /// The revision of the change, or the current one if nothing changed.
    pub revision: Revision,
    /// Sentences about issuers of the new catalog. A repeated request has none.
    pub warnings: Vec<String>,
}

/// The companies and credentials that lose scopes by a catalog. All are counted. The first
/// [`MAX_LISTED`] are listed, each with at most that many scopes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losers {
    /// How many companies lose a scope of their ceiling.
    pub company_count: u64,
    /// How many credentials lose a scope that they hold.
    pub credential_count: u64,
    /// The first companies, by id.
    pub companies: Vec<LosingCompany>,
    /// The first credentials, by company and id.
    pub credentials: Vec<(CompanyId, Affected)>,
    /// The latest expiry that has passed, of the listed credentials.
    ended: Option<Timestamp>,
}

/// A company whose ceiling loses scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct LosingCompany {
    /// Its id.
    pub id: CompanyId,
    /// Its display name.
    pub display_name: String,
    /// The scopes that it loses, sorted.
    pub scopes: Vec<Scope>,
    /// How many of its credentials lose a scope that they hold.
    pub credential_count: u64,
}

/// Why a catalog is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text is not a valid catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogErrors),
    /// The change is rejected.
    #[error(transparent)]
    Refused(#[from] AuthorityError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<CatalogErrors> for TransactionError<ApplyError> {
    fn from(errors: CatalogErrors) -> Self {
        Self::Rejected(errors.into())
    }
}

impl Session<'_> {
    /// Replaces the catalog as a whole (D2). The result of a repeated request lists no companies and no
    /// credentials.
    ///
    /// # Errors
    /// The text is not a valid catalog, or the etag is not current.
    pub async fn apply_catalog(
        &self,
        yaml: &str,
        options: &WriteOptions,
    ) -> Result<Applied, ApplyError> {
        let subject = Subject::store(ChangeKind::ApplyCatalog);
        let plan = async |mut tx: Transaction<'_>| {
            let current = tx.catalog();
            let (before, text) = (Arc::clone(&current), yaml.to_owned());
            // Parsing a large file takes long, so it runs on a thread of its own.
            let parsed = self.authority.facts.parse(move || {
                let next = before.replaced_by(&text)?;
                let difference = next.difference(&before);
                let refetch = next.refetch_warning(&before).into_iter();
                let warnings = refetch.chain(next.issuer_warnings()).collect();
                Ok::<_, CatalogErrors>((next, difference, warnings))
            });
            let (next, difference, warnings) = parsed.await??;
            self.authority.check_issuers(&next)?;
            let exists = current.revision > Revision::ZERO;
            tx.check_etag(exists.then_some(current.revision))?;
            let losers = self.losers(&tx, &current, &difference).await?;
            let detail = ResultDetail::Catalog(
                Box::new(difference.bounded()),
                losers.company_count,
                losers.credential_count,
            );
            let planned = put_catalog(tx, &current, next, &difference);
            Ok::<_, TransactionError<ApplyError>>(
                planned.with_detail(detail).with_context((difference, losers, warnings)),
            )
        };
        Ok(match self.write(subject, options, plan).await? {
            Outcome::Written(Written { etag, revision, .. }, (difference, losers, warnings)) => {
                Applied { difference, losers, etag, revision, warnings }
            }
            Outcome::Repeated(stored) => {
                let (Written { added, removed, revision, .. }, detail) =
                    self.repeated_without::<Catalog>(stored).await?;
                let (difference, company_count, credential_count) = match detail {
                    ResultDetail::Catalog(difference, companies, credentials) => {
                        (*difference, companies, credentials)
                    }
                    _ => {
                        let removed_names = removed;
                        let names =
                            CatalogDifference { added, removed_names, ..Default::default() };
                        (names, 0, 0)
                    }
                };
                let losers = Losers { company_count, credential_count, ..Losers::default() };
                let etag = self.authority.etag(revision);
                Applied { difference, losers, etag, revision, warnings: vec![] }
            }
        })
    }

    /// Applies a catalog file at startup. The first file seeds the store. A later file is applied if
    /// its digest differs from that of the last applied file, so that a catalog which an operator
    /// applied meanwhile stays. One of several replicas applies no later file: while an upgrade replaces
    /// replicas, two files are in use, and the replica that starts last must not decide. None if there
    /// was nothing to apply.
    ///
    /// # Errors
    /// The file is not a valid catalog, or it removes scopes and removals are not allowed.
    pub async fn apply_catalog_file(
        &self,
        yaml: &str,
        allow_removals: bool,
        reason: &str,
    ) -> Result<Option<Revision>, ApplyError> {
        let digest = *Catalog::digest(yaml).as_bytes();
        // Earlier versions took the digest of a file with its byte order mark.
        let with_bom =
            blake3::Hasher::new().update("\u{feff}".as_bytes()).update(yaml.as_bytes()).finalize();
        let is_replica = self.authority.replica().is_some();
        let stays = |catalog: &Catalog| {
            let is_applied = |last| last == digest || with_bom == last;
            is_replica && catalog.revision > Revision::ZERO
                || catalog.file_digest.is_some_and(is_applied)
        };
        if stays(&self.authority.facts.view().await?.catalog) {
            return Ok(None);
        }
        let options = WriteOptions { reason: reason.to_owned(), ..WriteOptions::default() };
        let plan = async |mut tx: Transaction<'_>| {
            let current = tx.catalog();
            // Another replica has applied one meanwhile.
            if stays(&current) {
                let unchanged = Edit::none(&*current);
                return Ok(tx.put(Some(current), unchanged).with_context(false));
            }
            let mut next = current.replaced_by(yaml)?;
            self.authority.check_issuers(&next)?;
            next.file_digest = Some(digest);
            let difference = next.difference(&current);
            // Without an audience a call may require less, and without an issuer its clients are
            // denied, so these removals count too.
            let audiences = difference.removed_audiences.iter();
            let issuers = difference.removed_issuers.iter();
            let removed: Vec<_> = difference
                .removed_names
                .iter()
                .map(ToString::to_string)
                .chain(audiences.map(|name| format!("audience {name}")))
                .chain(issuers.map(|name| format!("issuer {name}")))
                .collect();
            if !removed.is_empty() && !allow_removals {
                return Err(AuthorityError::RemovesScopes(removed).into());
            }
            // The digest of the file is stored, also if the catalog is the same.
            Ok::<_, TransactionError<ApplyError>>(
                put_catalog(tx, &current, next, &difference).even_if_unchanged().with_context(true),
            )
        };
        let subject = Subject::store(ChangeKind::ApplyCatalog);
        Ok(match self.write(subject, &options, plan).await? {
            Outcome::Written(Written { revision, .. }, true) => Some(revision),
            Outcome::Written(_, false) | Outcome::Repeated(_) => None,
        })
    }

    /// The companies and credentials that lose scopes. The cost grows with the number of companies and
    /// of credentials that hold the scopes.
    async fn losers(
        &self,
        tx: &Transaction<'_>,
        catalog: &Arc<Catalog>,
        difference: &CatalogDifference,
    ) -> Result<Losers, StoreError> {
        const STEP: usize = 100;
        if difference.removed.is_empty() {
            return Ok(Losers::default());
        }
        let (catalog, removed) = (Arc::clone(catalog), difference.removed.clone());
        let authority = self.authority;
        let (now, last_used) = (authority.clock.now(), Arc::clone(&authority.last_used));
        let count = move |store: &Store| {
            let mut losers = Losers::default();
            let mut after = None;
            loop {
                let step = store.companies(after.as_ref(), STEP)?;
                after = step.last().map(|company| company.id.clone());
                let ended = step.len() < STEP;
                for company in step {
                    let lost = removed.iter().copied();
                    let lost: Vec<_> = lost.filter(|s| company.ceiling.contains(*s)).collect();
                    if !lost.is_empty() {
                        let impact =
                            impact::impact(store, &catalog, &company, &removed, &last_used, now)?;
                        losers.take(&company, catalog.names(&lost), impact);
                    }
                }
                if ended {
                    return Ok(losers);
                }
            }
        };
        let losers = tx.report(count).await?;
        authority.persist_reported(now, |_| losers.ended).await?;
        Ok(losers)
    }
}

/// Plans the replacement of the catalog.
fn put_catalog(
    tx: Transaction<'_>,
    current: &Arc<Catalog>,
    next: Catalog,
    difference: &CatalogDifference,
) -> Planned<Catalog, ()> {
    let name = FieldChange::text("name", current.platform(), next.platform());
    // The texts may have megabytes, so the log has only their digests.
    let exists = current.revision > Revision::ZERO;
    let yaml = match exists {
        true => FieldChange::text("yaml_digest", &digest(current), &digest(&next)),
        false => FieldChange::new_text("yaml_digest", &digest(&next)),
    };
    let fields = name.into_iter().chain(yaml).chain(difference.fields()).collect();
    let edit = Edit { fields, ..Edit::to(next) };
    let (added, removed) = (difference.added.clone(), difference.removed_names.clone());
    tx.put(exists.then(|| Arc::clone(current)), edit).with_scopes(added, removed)
}

impl Losers {
    fn take(&mut self, company: &Company, mut scopes: Vec<Scope>, impact: Impact) {
        let id = &company.id;
        self.company_count += 1;
        self.credential_count += impact.count;
        self.ended = impact.affected.iter().filter_map(|one| one.ended).chain(self.ended).max();
        if self.companies.len() < MAX_LISTED {
            scopes.truncate(MAX_LISTED);
            self.companies.push(LosingCompany {
                id: id.clone(),
                display_name: company.display_name.clone(),
                scopes,
                credential_count: impact.count,
            });
        }
        let remaining = MAX_LISTED.saturating_sub(self.credentials.len());
        for mut affected in impact.affected.into_iter().take(remaining) {
            affected.scopes.truncate(MAX_LISTED);
            self.credentials.push((id.clone(), affected));
        }
    }
}

/// The digest of a catalog's text.
fn digest(catalog: &Catalog) -> String {
    format!("blake3:{}", Catalog::digest(&catalog.yaml).to_hex())
}
