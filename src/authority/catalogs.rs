//! Catalogs: applies a catalog, from a file at startup or by an operator, and reports which companies
//! and credentials lose scopes.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::idempotency::{IdempotencyStart, StorableReply};
use super::impact::{self, Affected, Impact, MAX_LISTED};
use super::transaction::{key_of, require_keyring};
use super::write_options::WriteOptions;
use super::{ATTEMPTS, Authority, etag};
use crate::policy::caller::Caller;
use crate::policy::catalog::Catalog;
use crate::policy::catalog::difference::CatalogDifference;
use crate::policy::catalog::file::CatalogErrors;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::{Fact, FactKey, FactWrite, IdempotencyRecord, Proposal, Store, StoreError};

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

impl Authority {
    /// Replaces the catalog as a whole (D2).
    ///
    /// # Errors
    /// The text is not a valid catalog, or the etag is not current.
    pub async fn apply_catalog<R: StorableReply>(
        &self,
        yaml: &str,
        options: &WriteOptions,
        render: impl Fn(Applied) -> R + Clone + Send + 'static,
    ) -> Result<R, ApplyError> {
        let kind = ChangeKind::ApplyCatalog;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let (current, text) = (Arc::clone(&view.catalog), yaml.to_owned());
            // Parsing a large file takes long, so it runs on a thread of its own.
            let parsed = self.facts.parse(move || {
                let next = current.replaced_by(&text)?;
                let difference = next.difference(&current);
                Ok::<_, CatalogErrors>((next, difference))
            });
            let (next, difference) = parsed.await??;
            let exists = view.catalog.revision > Revision::ZERO;
            self.check_etag(options, exists.then_some(view.catalog.revision))?;
            let losers = self.losers(&view, &difference).await?;
            let (etag, revision) = match exists {
                true => (self.etag(view.catalog.revision), view.at),
                false => (String::new(), view.at),
            };
            let applied = Applied { difference, losers, etag, revision };
            if view.catalog.yaml == yaml || options.validate_only {
                return Ok(render(applied));
            }
            let (incarnation, render) = (self.incarnation(), render.clone());
            let difference = applied.difference.clone();
            let answer = move |revision: Revision| {
                let etag = etag::of(incarnation, revision);
                render(Applied { etag, revision, ..applied.clone() })
            };
            let remember = options
                .keep(answer.clone())
                .map(|keep| keep.remember(options, kind, |receipt| receipt.revision));
            let by = (&options.caller, &options.author);
            let put = self.put_catalog(&view, next, &difference, by, remember);
            if let Some(revision) = put.await? {
                return Ok(answer(revision));
            }
        }
        Err(AuthorityError::Conflict.into())
    }

    /// Applies a catalog file at startup. The first file seeds the store. A later file is applied if
    /// its digest differs from that of the last applied file, so that a catalog which an operator
    /// applied meanwhile stays. None if there was nothing to apply.
    ///
    /// # Errors
    /// The file is not a valid catalog, or it removes scopes and removals are not allowed.
    pub async fn apply_catalog_file(
        &self,
        yaml: &str,
        allow_removals: bool,
        author: &Author,
    ) -> Result<Option<Revision>, ApplyError> {
        let digest = *blake3::hash(yaml.as_bytes()).as_bytes();
        // Earlier versions took the digest of a file with its byte order mark.
        let with_bom =
            blake3::Hasher::new().update("\u{feff}".as_bytes()).update(yaml.as_bytes()).finalize();
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            if view.catalog.file_digest.is_some_and(|last| last == digest || with_bom == last) {
                return Ok(None);
            }
            let mut next = view.catalog.replaced_by(yaml)?;
            next.file_digest = Some(digest);
            let difference = next.difference(&view.catalog);
            // Without an audience a call may require less, so its removal counts as a removal too.
            let removed: Vec<_> = difference
                .removed_names
                .iter()
                .map(ToString::to_string)
                .chain(difference.removed_audiences.iter().map(|name| format!("audience {name}")))
                .collect();
            if !removed.is_empty() && !allow_removals {
                return Err(AuthorityError::RemovesScopes(removed).into());
            }
            let put = self
                .put_catalog(&view, next, &difference, (&Caller::Internal, author), None)
                .await?;
            if let Some(revision) = put {
                return Ok(Some(revision));
            }
        }
        Err(AuthorityError::Conflict.into())
    }

    /// Commits a catalog; none if another change came first.
    async fn put_catalog(
        &self,
        view: &Snapshot,
        next: Catalog,
        difference: &CatalogDifference,
        (caller, author): (&Caller, &Author),
        remember: Option<IdempotencyRecord>,
    ) -> Result<Option<Revision>, AuthorityError> {
        let name = FieldChange::text("name", view.catalog.platform(), next.platform());
        // The texts may have megabytes, so the log has only their digests.
        let exists = view.catalog.revision > Revision::ZERO;
        let yaml = match exists {
            true => FieldChange::text("yaml_digest", &digest(&view.catalog), &digest(&next)),
            false => FieldChange::new_text("yaml_digest", &digest(&next)),
        };
        let change = Change {
            revision: Revision::NEXT,
            time: self.clock.now(),
            author: author.clone(),
            kind: ChangeKind::ApplyCatalog,
            company: None,
            credential: None,
            user: None,
            added: difference.added.clone(),
            removed: difference.removed_names.clone(),
            displaced: vec![],
            fields: name.into_iter().chain(yaml).chain(difference.fields()).collect(),
        };
        let step = FactWrite {
            key: FactKey::Catalog,
            before: exists.then(|| Fact::Catalog(Arc::clone(&view.catalog))),
            after: Some(Fact::Catalog(Arc::new(next))),
        };
        let preconditions = require_keyring(view, caller).into_iter().collect();
        let (caller, steps) = (key_of(caller), vec![step]);
        let proposal =
            Proposal { preconditions, caller, writes: steps, change, idempotency: remember };
        let committed = self.commit(proposal).await?;
        Ok(committed.map(|receipt| receipt.revision))
    }

    /// The companies and credentials that lose scopes. The cost grows with the number of companies and
    /// of credentials that hold the scopes.
    async fn losers(
        &self,
        view: &Snapshot,
        difference: &CatalogDifference,
    ) -> Result<Losers, StoreError> {
        const STEP: usize = 100;
        if difference.removed.is_empty() {
            return Ok(Losers::default());
        }
        let (catalog, removed) = (Arc::clone(&view.catalog), difference.removed.clone());
        let (now, last_used) = (self.clock.now(), Arc::clone(&self.last_used));
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
        let losers = self.facts.read_for_change(count).await?;
        self.persist_reported(now, |_| losers.ended).await?;
        Ok(losers)
    }
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
    format!("blake3:{}", blake3::hash(catalog.yaml.as_bytes()).to_hex())
}
