//! Listing: reads of companies, credentials and changes, one or a page of them.
//!
//! A page is read from the store and shown when everything that it may have seen is published:
//! nobody reads what a crash could still erase.

use std::sync::Arc;

use super::facts::View;
use super::ledger::resolve;
use super::refusal::Refusal;
use super::{ATTEMPTS, Authority, etag};
use crate::policy::catalog::Catalog;
use crate::policy::change::Change;
use crate::policy::company::{Company, CompanyView};
use crate::policy::credential::{CredentialView, GrantState, Ground};
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
    /// Whether there are more behind the last one.
    pub more: bool,
    /// The revision that the page is at least as new as.
    pub revision: Revision,
}

/// Which of a company's credentials to list: those with a grant of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The scope.
    pub scope: Scope,
    /// Also those whose grant is dormant.
    pub include_dormant: bool,
}

impl Authority {
    /// The catalog in force.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn catalog(&self) -> Result<Read<Arc<Catalog>>, Refusal> {
        let View { at, catalog } = self.facts.view().await?;
        let etag = etag::of(self.incarnation(), catalog.revision);
        Ok(Read { resource: catalog, etag, revision: at })
    }

    /// One company.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn company(&self, id: &CompanyId) -> Result<Read<CompanyView>, Refusal> {
        let (view, company) = self.existing_company(id).await?;
        let etag = etag::of(self.incarnation(), company.revision);
        Ok(Read { resource: company.view(&view.catalog), etag, revision: view.at })
    }

    /// One credential.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn credential(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
    ) -> Result<Read<CredentialView>, Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let found = self.credential_of(&view, company_id, id).await;
            let Some((company, credential)) = self.told(found).await? else {
                continue;
            };
            let company = company.ok_or_else(|| Refusal::CompanyNotFound(company_id.clone()))?;
            let credential = credential
                .ok_or_else(|| Refusal::CredentialNotFound(company_id.clone(), id.clone()))?;
            let now = self.clock.now();
            let ground = Ground { catalog: &view.catalog, company: &company, now };
            let etag = etag::of(self.incarnation(), credential.revision);
            return Ok(Read { resource: credential.view(ground), etag, revision: view.at });
        }
        Err(StoreError::Unavailable.into())
    }

    /// Companies behind this id, by id.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn companies(
        &self,
        after: Option<CompanyId>,
        limit: usize,
    ) -> Result<Page<CompanyView>, Refusal> {
        let View { at, catalog } = self.facts.view().await?;
        let found =
            self.facts.read(move |store| store.companies(after.as_ref(), limit + 1)).await?;
        let items = found.into_iter().map(|company| {
            let etag = etag::of(self.incarnation(), company.revision);
            (company.view(&catalog), etag)
        });
        Ok(page(items.collect(), limit, at))
    }

    /// A company's credentials behind this id, by id: all, or those that hold a scope.
    ///
    /// # Errors
    /// The scope or the company is unknown, or the store cannot answer.
    pub async fn credentials(
        &self,
        company_id: &CompanyId,
        holding: Option<&Holding>,
        after: Option<CredentialId>,
        limit: usize,
    ) -> Result<Page<CredentialView>, Refusal> {
        let view = self.facts.view().await?;
        let holding = match holding {
            Some(holding) => {
                let scope = resolve(&view.catalog, "scope", std::slice::from_ref(&holding.scope))?;
                scope.first().map(|scope| (*scope, holding.include_dormant))
            }
            None => None,
        };
        let (view, company) = self.existing_company(company_id).await?;
        let now = self.clock.now();
        let (catalog, of) = (Arc::clone(&view.catalog), Arc::clone(&company));
        let read = move |store: &dyn Store| {
            let ground = Ground { catalog: &catalog, company: &of, now };
            match holding {
                Some((scope, include_dormant)) => {
                    let wanted = |state| match state {
                        GrantState::Active => true,
                        GrantState::Dormant => include_dormant,
                        GrantState::Expired => false,
                    };
                    holding_credentials(store, ground, scope, wanted, after, limit + 1)
                }
                None => {
                    let found = store.credentials(of.created_at, after.as_ref(), limit + 1)?;
                    Ok(found.iter().map(|credential| credential.view(ground)).collect())
                }
            }
        };
        let found = self.facts.read(read).await?;
        let items = found.into_iter().map(|credential| {
            let etag = etag::of(self.incarnation(), credential.credential.revision);
            (credential, etag)
        });
        Ok(page(items.collect(), limit, view.at))
    }

    /// Changes behind this revision, in order; of one company or of all.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn changes(
        &self,
        company: Option<CompanyId>,
        after: Revision,
        limit: usize,
    ) -> Result<(Vec<Change>, bool), Refusal> {
        let up_to = self.facts.view().await?.at;
        let read =
            move |store: &dyn Store| store.changes(company.as_ref(), after, up_to, limit + 1);
        let mut found = self.facts.read(read).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    async fn existing_company(&self, id: &CompanyId) -> Result<(View, Arc<Company>), Refusal> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let found = self.facts.company(view.at, id).await;
            let Some(found) = self.told(found).await? else {
                continue;
            };
            let company = found.ok_or_else(|| Refusal::CompanyNotFound(id.clone()))?;
            return Ok((view, company));
        }
        Err(StoreError::Unavailable.into())
    }
}

fn holding_credentials(
    store: &dyn Store,
    ground: Ground<'_>,
    scope: ScopeId,
    wanted: impl Fn(GrantState) -> bool,
    mut after: Option<CredentialId>,
    limit: usize,
) -> Result<Vec<CredentialView>, StoreError> {
    const STEP: usize = 1000;
    let company = ground.company;
    let mut found = Vec::new();
    loop {
        let holders = store.holders(company.created_at, scope, after.as_ref(), STEP)?;
        let last_step = holders.len() < STEP;
        for id in holders {
            let key = FactKey::Credential(company.created_at, id.clone());
            after = Some(id);
            let Some(Fact::Credential(credential)) = store.get(&key)? else {
                continue;
            };
            let Some(grant) = credential.grants.get(scope) else {
                continue;
            };
            if wanted(grant.state(scope, &company.ceiling, ground.now)) {
                found.push(credential.view(ground));
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
        if last_step {
            return Ok(found);
        }
    }
}

/// A page of what was read with one more than the page has.
fn page<T>(mut items: Vec<(T, String)>, limit: usize, revision: Revision) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more, revision }
}
