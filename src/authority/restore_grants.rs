//! Restore grants: reactivates the grants that a restriction made dormant (D3).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::idempotency::{IdempotencyStart, StorableReply};
use super::transaction::{Attempt, Subject, WritePlan, Written, require_catalog, resolve};
use super::write_options::WriteOptions;
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

/// A restriction, and the scopes whose dormant grants are reactivated.
#[derive(Clone, Debug)]
pub struct RestoreGrants {
    /// The company.
    pub company: CompanyId,
    /// The scopes to reactivate, with the scopes that they imply.
    pub scopes: Vec<Scope>,
    /// The revision of the restriction.
    pub restricted_at: Revision,
}

impl Authority {
    /// Reactivates the grants that were active immediately before a restriction, and returns how many
    /// credentials hold a scope again.
    ///
    /// # Errors
    /// A scope or the company is unknown, the etag is not current, the revision is no
    /// restriction of this company that took the scopes, or a scope is not back in the ceiling.
    pub async fn restore_grants<R: StorableReply>(
        &self,
        request: &RestoreGrants,
        options: &WriteOptions,
        render: impl Fn(u64, Revision) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::RestoreGrants;
        let (id, at) = (&request.company, request.restricted_at);
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let named = resolve(&view.catalog, "scopes", &request.scopes)?;
            let found = self.facts.company(view.at, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let company = found.ok_or_else(|| AuthorityError::CompanyNotFound(id.clone()))?;
            self.check_etag(options, Some(company.revision))?;
            let of = id.clone();
            let before = Revision(at.0.saturating_sub(1));
            let read = move |store: &Store| store.changes(Some(&of), before, at, 1);
            let change = match self.facts.read_for_change(read).await {
                Err(StoreError::Compacted(_)) => None,
                found => found?.pop(),
            };
            // A restriction of an earlier incarnation of the company does not count.
            let restriction = change.filter(|change| {
                change.kind == ChangeKind::RestrictCompanyScopes && at > company.created_at
            });
            let taken = restriction.ok_or(AuthorityError::NoSuchRestriction(at))?.displaced;
            let was_taken = |scope: &ScopeId| taken.iter().any(|entry| entry.scope == *scope);
            let not_removed: Vec<_> = named.iter().copied().filter(|s| !was_taken(s)).collect();
            if !not_removed.is_empty() {
                return Err(AuthorityError::NotTaken(at, view.catalog.names(&not_removed)));
            }
            let wanted = view.catalog.closure(&named);
            let entries: Vec<_> =
                taken.into_iter().filter(|p| wanted.binary_search(&p.scope).is_ok()).collect();
            let absent = entries.iter().map(|entry| entry.scope);
            let absent: Vec<_> = absent.filter(|s| !company.ceiling.contains(*s)).collect();
            if !absent.is_empty() {
                return Err(AuthorityError::NotInCeiling(view.catalog.names(&absent)));
            }
            let blocked = company.blocked_by_later_restriction(&view.catalog, &entries, at);
            if !blocked.is_empty() {
                return Err(AuthorityError::LaterRestrictionFirst(view.catalog.names(&blocked)));
            }
            let mut edit = company.restore(&entries, at);
            if !edit.added.is_empty() {
                let undone = FieldChange::new_text("restricted_at_revision", &at.to_string());
                edit.fields.extend(undone);
            }
            let now = self.clock.now();
            let (old, new) = (Arc::clone(&company), edit.after.clone());
            let (catalog, reactivated) = (Arc::clone(&view.catalog), edit.added.clone());
            let count = move |store: &Store| {
                reactivated_credentials(store, &catalog, &old, &new, &reactivated, now)
            };
            let count = self.facts.read_for_change(count).await?;
            // No grant is dormant because of this restriction, and none will be, since later grants are
            // newer than it. But the undo of an earlier restriction of scopes that imply these
            // depends on this one.
            if count == 0 && view.catalog.implying_closure(&edit.added) == edit.added {
                edit = Edit::none(&company);
            }
            let preconditions = vec![require_catalog(&view)];
            let render = render.clone();
            let answer = move |written: Written<Company>| render(count, written.revision);
            let keep = options.keep(answer.clone());
            let before = Some(company);
            let plan = WritePlan {
                before,
                edit,
                delete: false,
                preconditions,
                other_writes: vec![],
                keep,
            };
            let subject = Subject::of(kind, id);
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(answer(written));
            }
        }
        Err(AuthorityError::Conflict)
    }
}

/// How many credentials hold one of these scopes in the new state of a company, and not in the
/// old one.
fn reactivated_credentials(
    store: &Store,
    catalog: &Catalog,
    old: &Company,
    new: &Company,
    scopes: &[ScopeId],
    now: Timestamp,
) -> Result<u64, StoreError> {
    const PAGE: usize = 1000;
    let (before, after) =
        (GrantContext { catalog, company: old, now }, GrantContext { catalog, company: new, now });
    let mut reactivated = BTreeSet::new();
    for scope in scopes {
        let mut last = None;
        loop {
            let page = store.holders(old.created_at, *scope, last.as_ref(), PAGE)?;
            let ended = page.len() < PAGE;
            last = page.last().cloned();
            for id in page {
                let key = FactKey::Credential(old.created_at, id);
                let Some(Fact::Credential(credential)) = store.get(&key)? else { continue };
                let active = |context| credential.active(*scope, context).is_some();
                if active(after) && !active(before) {
                    reactivated.insert(credential.id.clone());
                }
            }
            if ended {
                break;
            }
        }
    }
    Ok(reactivated.len() as u64)
}
