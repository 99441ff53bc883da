//! Restore: an operator's undo of a restriction that was wrong (D3).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::idempotency::{IdempotencyStart, StorableReply};
use super::transaction::{
    Attempt, Subject, WriteOptions, WritePlan, Written, require_catalog, resolve,
};
use super::{ATTEMPTS, Authority};
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::GrantContext;
use crate::policy::edit::Edit;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey, Store, StoreError};

/// A restriction to undo for the grants that it made dormant.
#[derive(Clone, Debug)]
pub struct RestoreGrants {
    /// The company.
    pub company: CompanyId,
    /// The scopes to wake, with those that they imply.
    pub scopes: Vec<Scope>,
    /// The revision of the restriction.
    pub restricted_at: Revision,
}

impl Authority {
    /// Wakes the grants that were active immediately before a restriction, and says how many
    /// credentials hold a scope again by it.
    ///
    /// # Errors
    /// A scope or the company is unknown, the etag is not current, the revision is no
    /// restriction of this company that took the scopes, or a scope is not back in the ceiling.
    pub async fn restore_grants<R: StorableReply>(
        &self,
        restoration: &RestoreGrants,
        terms: &WriteOptions,
        render: impl Fn(u64, Revision) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::RestoreGrants;
        let (id, at) = (&restoration.company, restoration.restricted_at);
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let named = resolve(&view.catalog, "scopes", &restoration.scopes)?;
            let found = self.facts.company(view.at, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let company = found.ok_or_else(|| AuthorityError::CompanyNotFound(id.clone()))?;
            self.check_etag(terms, Some(company.revision))?;
            let of = id.clone();
            let before = Revision(at.0.saturating_sub(1));
            let read = move |store: &dyn Store| store.changes(Some(&of), before, at, 1);
            let change = match self.facts.read_for_change(read).await {
                Err(StoreError::Compacted(_)) => None,
                found => found?.pop(),
            };
            // A company of an earlier life of the id was another one.
            let restriction = change.filter(|change| {
                change.kind == ChangeKind::RestrictCompanyScopes && at > company.created_at
            });
            let taken = restriction.ok_or(AuthorityError::NoSuchRestriction(at))?.displaced;
            let was_taken = |scope: &ScopeId| taken.iter().any(|place| place.scope == *scope);
            let strangers: Vec<_> = named.iter().copied().filter(|s| !was_taken(s)).collect();
            if !strangers.is_empty() {
                return Err(AuthorityError::NotTaken(at, view.catalog.names(&strangers)));
            }
            let wanted = view.catalog.closure(&named);
            let places: Vec<_> =
                taken.into_iter().filter(|p| wanted.binary_search(&p.scope).is_ok()).collect();
            let absent = places.iter().map(|place| place.scope);
            let absent: Vec<_> = absent.filter(|s| !company.ceiling.contains(*s)).collect();
            if !absent.is_empty() {
                return Err(AuthorityError::NotInCeiling(view.catalog.names(&absent)));
            }
            let asleep = company.blocked_by_later_restriction(&view.catalog, &places, at);
            if !asleep.is_empty() {
                return Err(AuthorityError::LaterRestrictionFirst(view.catalog.names(&asleep)));
            }
            let mut edit = company.restore(&places, at);
            if !edit.added.is_empty() {
                let undone = FieldChange::new_text("restricted_at_revision", &at.to_string());
                edit.fields.extend(undone);
            }
            let now = self.clock.now();
            let (old, new) = (Arc::clone(&company), edit.after.clone());
            let (catalog, woken) = (Arc::clone(&view.catalog), edit.added.clone());
            let count = move |store: &dyn Store| {
                reactivated_credentials(store, &catalog, &old, &new, &woken, now)
            };
            let count = self.facts.read_for_change(count).await?;
            // Nobody sleeps there, and nobody will: later grants are not older than that. But the
            // undo of an earlier restriction above these scopes waits for theirs.
            if count == 0 && view.catalog.implying_closure(&edit.added) == edit.added {
                edit = Edit::none(&company);
            }
            let preconditions = vec![require_catalog(&view)];
            let render = render.clone();
            let answer = move |done: Written<Company>| render(count, done.revision);
            let keep = terms.keep(answer.clone());
            let before = Some(company);
            let plan =
                WritePlan { before, edit, delete: false, preconditions, beside: vec![], keep };
            let subject = Subject::of(kind, id);
            if let Attempt::Written(done) =
                self.commit_plan(&view, plan, subject, terms, now).await?
            {
                return Ok(answer(done));
            }
        }
        Err(AuthorityError::Conflict)
    }
}

/// How many credentials hold one of these scopes in the new state of a company, and not in the
/// old one.
fn reactivated_credentials(
    store: &dyn Store,
    catalog: &Catalog,
    old: &Company,
    new: &Company,
    scopes: &[ScopeId],
    now: Timestamp,
) -> Result<u64, StoreError> {
    const PAGE: usize = 1000;
    let (before, after) =
        (GrantContext { catalog, company: old, now }, GrantContext { catalog, company: new, now });
    let mut woken = BTreeSet::new();
    for scope in scopes {
        let mut last = None;
        loop {
            let page = store.holders(old.created_at, *scope, last.as_ref(), PAGE)?;
            let ended = page.len() < PAGE;
            last = page.last().cloned();
            for id in page {
                let key = FactKey::Credential(old.created_at, id);
                let Some(Fact::Credential(credential)) = store.get(&key)? else { continue };
                let active = |ground| credential.active(*scope, ground).is_some();
                if active(after) && !active(before) {
                    woken.insert(credential.id.clone());
                }
            }
            if ended {
                break;
            }
        }
    }
    Ok(woken.len() as u64)
}
