//! Queries: reads of the catalog, companies and credentials, as one resource or a page of them.
//!
//! A page is read from the store, and returned once every revision that the read may have seen is
//! published. No caller reads a change that a crash could still erase.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::reader::{Reader, resolve};
use super::session::Session;
use super::{ATTEMPTS, Authority, etag};
use crate::policy::catalog::Catalog;
use crate::policy::company::{Company, CompanyView};
use crate::policy::credential::{Credential, CredentialView, GrantContext, GrantState};
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey, Store, StoreError};

/// One resource as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// The resource.
    pub resource: T,
    /// Its etag.
    pub etag: String,
    /// The revision at which it was read.
    pub revision: Revision,
}

/// A page of resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The resources, each with its etag.
    pub items: Vec<(T, String)>,
    /// Whether there are more after the last one.
    pub more: bool,
    /// The revision that the page is at least as new as.
    pub revision: Revision,
}

/// Selects the credentials of a company that have a grant of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeFilter {
    /// The scope.
    pub scope: Scope,
    /// Include credentials whose grant is dormant.
    pub include_dormant: bool,
}

impl Session<'_> {
    /// The catalog in force.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn catalog(&self) -> Result<Read<Arc<Catalog>>, AuthorityError> {
        let Snapshot { at, catalog, .. } = self.authority.facts.view().await?;
        // Before the first catalog is applied, there is no etag.
        let exists = catalog.revision > Revision::ZERO;
        let etag = if exists { self.authority.etag(catalog.revision) } else { String::new() };
        Ok(Read { resource: catalog, etag, revision: at })
    }

    /// One company.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn company(&self, id: &CompanyId) -> Result<Read<CompanyView>, AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let (catalog, company) = (reader.catalog(), reader.company(id).await?);
            let (etag, revision) = (self.authority.etag(company.revision), reader.revision());
            Ok(Read { resource: company.view(&catalog), etag, revision })
        };
        self.read(read).await
    }

    /// One credential.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn credential(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
    ) -> Result<Read<CredentialView>, AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let (company, credential) = reader.credential(company_id, id).await?;
            let (catalog, now) = (reader.catalog(), reader.now());
            let context = GrantContext { catalog: &catalog, company: &company, now };
            let ended = |_| credential.ends().filter(|end| *end <= now).max();
            self.authority.persist_reported(now, ended).await?;
            let (etag, revision) = (self.authority.etag(credential.revision), reader.revision());
            let last_seen = self.authority.last_seen(&credential);
            let resource = CredentialView { last_seen, ..credential.view(context) };
            Ok(Read { resource, etag, revision })
        };
        self.read(read).await
    }

    /// The companies after this id, by id.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn companies(
        &self,
        after: Option<CompanyId>,
        limit: usize,
    ) -> Result<Page<CompanyView>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let Snapshot { at, catalog, .. } = self.authority.facts.view().await?;
            let (of, after) = (Arc::clone(&catalog), after.clone());
            let read = move |store: &Store| {
                let mut page = PageBuilder::new(limit);
                let mut after = after;
                while page.wants_more() {
                    let step = store.companies(after.as_ref(), page.step())?;
                    after = step.last().map(|company| company.id.clone());
                    page.add(step, |company| company.ceiling.len());
                }
                Ok(page.map(|company: Company| company.view(&of)))
            };
            let (found, more) = self.authority.facts.read(read).await?;
            // Scope names of another catalog would belong to no revision.
            if self.authority.facts.view().await?.catalog.revision == catalog.revision {
                let etag = |view: &CompanyView| self.authority.etag(view.company.revision);
                return Ok(page(found, more, at, etag));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// A company's credentials after this id, by id: all, or those that hold a scope.
    ///
    /// # Errors
    /// The scope or the company is unknown, or the store cannot answer.
    pub async fn credentials(
        &self,
        company_id: &CompanyId,
        filter: Option<&ScopeFilter>,
        after: Option<CredentialId>,
        limit: usize,
    ) -> Result<Page<CredentialView>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = self.authority.facts.view().await?;
            let filter = match filter {
                Some(filter) => {
                    let named = std::slice::from_ref(&filter.scope);
                    let scope = resolve(&view.catalog, "scope", named)?;
                    scope.first().map(|scope| (*scope, filter.include_dormant))
                }
                None => None,
            };
            let (at, current, company) = self.existing_company(company_id).await?;
            let (catalog, of) = (Arc::clone(&current), Arc::clone(&company));
            let (now, after) = (self.authority.clock.now(), after.clone());
            let reported_at = now;
            let last_used = Arc::clone(&self.authority.last_used);
            let read = move |store: &Store| {
                let context = GrantContext { catalog: &catalog, company: &of, now };
                let found = credentials(store, context, filter, after, limit)?;
                let (mut views, more) = found.map(|credential| credential.view(context));
                for view in &mut views {
                    view.last_seen = last_used.last_of(store, &view.credential)?;
                }
                Ok((views, more))
            };
            let (found, more) = self.authority.facts.read(read).await?;
            let ends = || found.iter().flat_map(|view| view.credential.ends());
            self.authority
                .persist_reported(reported_at, |_| ends().filter(|end| *end <= reported_at).max())
                .await?;
            // Grants under another ceiling, or of a deleted company, would belong to no revision.
            let (_, catalog, present) = self.existing_company(company_id).await?;
            if present.revision == company.revision && catalog.revision == current.revision {
                let etag = |view: &CredentialView| self.authority.etag(view.credential.revision);
                return Ok(page(found, more, at, etag));
            }
        }
        Err(AuthorityError::Conflict)
    }
}

impl Authority {
    /// When the credential was last used, if the store can answer.
    pub(super) fn last_seen(&self, credential: &Credential) -> Option<Timestamp> {
        // It belongs to no revision, so the read need not wait for one. It is one small value, so it
        // is read on this thread.
        self.last_used.last_of(self.facts.store(), credential).ok().flatten()
    }

    pub(super) fn etag(&self, revision: Revision) -> String {
        etag::of(self.incarnation(), revision)
    }
}

impl Session<'_> {
    /// A company, its catalog and the revision of both.
    pub(super) async fn existing_company(
        &self,
        id: &CompanyId,
    ) -> Result<(Revision, Arc<Catalog>, Arc<Company>), AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let company = reader.company(id).await?;
            Ok((reader.revision(), reader.catalog(), company))
        };
        self.read(read).await
    }
}

/// A page that is being built. It is bounded by the number of its items and by their weight, since
/// one item may name a whole catalog.
pub(super) struct PageBuilder<T> {
    items: Vec<T>,
    limit: usize,
    weight: usize,
    ended: bool,
}

impl<T> PageBuilder<T> {
    /// The most scopes that the items of a page name together.
    const MAX_WEIGHT: usize = 20_000;
    /// The most items that are read from the store at once.
    const STEP: usize = 64;

    pub(super) fn new(limit: usize) -> Self {
        Self { items: Vec::new(), limit, weight: 0, ended: false }
    }

    /// Whether to read more: the page needs one item more than it returns.
    pub(super) fn wants_more(&self) -> bool {
        !self.ended && self.items.len() <= self.limit && self.weight <= Self::MAX_WEIGHT
    }

    /// How many items to read next.
    pub(super) fn step(&self) -> usize {
        (self.limit + 1 - self.items.len()).min(Self::STEP)
    }

    pub(super) fn add(&mut self, step: Vec<T>, weight: impl Fn(&T) -> usize) {
        self.ended = step.len() < self.step();
        for item in step {
            self.add_one(item, &weight);
        }
    }

    fn add_one(&mut self, item: T, weight: impl Fn(&T) -> usize) {
        // An item that does not fit is on the next page. The first item always fits.
        if self.weight > Self::MAX_WEIGHT {
            self.ended = false;
            return;
        }
        self.weight += weight(&item);
        self.items.push(item);
    }

    /// The items of the page, and whether there are more.
    pub(super) fn map<U>(mut self, view: impl Fn(T) -> U) -> (Vec<U>, bool) {
        let more = self.items.len() > self.limit || !self.ended;
        self.items.truncate(self.limit);
        (self.items.into_iter().map(view).collect(), more)
    }
}

/// Credentials of a company: all, or those with an active grant of a scope, or also a dormant one.
fn credentials(
    store: &Store,
    context: GrantContext<'_>,
    filter: Option<(ScopeId, bool)>,
    mut after: Option<CredentialId>,
    limit: usize,
) -> Result<PageBuilder<Credential>, StoreError> {
    const STEP: usize = 1000;
    let company = context.company;
    let weight = |credential: &Credential| credential.grants.len();
    let mut page = PageBuilder::new(limit);
    while page.wants_more() {
        let Some((scope, include_dormant)) = filter else {
            let step = store.credentials(company.created_at, after.as_ref(), page.step())?;
            after = step.last().map(|credential| credential.id.clone());
            page.add(step, weight);
            continue;
        };
        let holders = store.holders(company.created_at, scope, after.as_ref(), STEP)?;
        let last_step = holders.len() < STEP;
        for id in holders {
            if !page.wants_more() {
                return Ok(page);
            }
            let key = FactKey::Credential(company.created_at, id.clone());
            after = Some(id);
            let Some(Fact::Credential(credential)) = store.get(&key)? else { continue };
            let Some(grant) = credential.grants.get(scope) else { continue };
            let wanted = match grant.state(scope, company, context.now) {
                GrantState::Active => true,
                GrantState::Dormant => include_dormant,
                GrantState::Expired => false,
            };
            if wanted {
                page.add_one(Arc::unwrap_or_clone(credential), weight);
            }
        }
        page.ended = last_step;
    }
    Ok(page)
}

pub(super) fn page<T>(
    items: Vec<T>,
    more: bool,
    revision: Revision,
    etag: impl Fn(&T) -> String,
) -> Page<T> {
    let items = items
        .into_iter()
        .map(|item| {
            let etag = etag(&item);
            (item, etag)
        })
        .collect();
    Page { items, more, revision }
}
