//! Restore grants: reactivates the grants that a restriction made dormant (D3).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::catalog::Catalog;
use crate::policy::ceiling::RemovedEntry;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::GrantContext;
use crate::policy::edit::Edit;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey, ResultDetail, Store, StoreError};

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

impl Session<'_> {
    /// Reactivates the grants that were active immediately before a restriction, and returns how many
    /// credentials hold a scope again, and the revision.
    ///
    /// # Errors
    /// A scope or the company is unknown, the etag is not current, the revision is no
    /// restriction of this company that took the scopes, or a scope is not back in the ceiling.
    pub async fn restore_grants(
        &self,
        request: &RestoreGrants,
        options: &WriteOptions,
    ) -> Result<(u64, Revision), AuthorityError> {
        let (id, at) = (&request.company, request.restricted_at);
        let plan = async |mut tx: Transaction<'_>| {
            let named = tx.resolve("scopes", &request.scopes)?;
            let company = tx.company(id).await?;
            tx.check_etag(Some(company.revision))?;
            let of = id.clone();
            let before = Revision(at.0.saturating_sub(1));
            // A change record never changes, so it needs no precondition.
            let read = move |store: &Store| store.changes(Some(&of), before, at, 1);
            let change = match tx.report(read).await {
                Err(StoreError::Compacted(_)) => None,
                found => found?.pop(),
            };
            // A restriction of an earlier incarnation of the company does not count.
            let restriction = change.filter(|change| {
                change.kind == ChangeKind::RestrictCompanyScopes && at > company.created_at
            });
            let taken = restriction.ok_or(AuthorityError::NoSuchRestriction(at))?.displaced;
            let catalog = tx.catalog();
            let mut edit = restoration(&catalog, &company, &named, taken, at)?;
            let now = tx.now();
            let (old, new) = (Arc::clone(&company), edit.after.clone());
            let (of, reactivated) = (Arc::clone(&catalog), edit.added.clone());
            let count = move |store: &Store| {
                reactivated_credentials(store, &of, &old, &new, &reactivated, now)
            };
            let count = tx.report(count).await?;
            // No grant is dormant because of this restriction, and none will be, since later grants are
            // newer than it. But the undo of an earlier restriction of scopes that imply these
            // depends on this one.
            if count == 0 && catalog.implying_closure(&edit.added) == edit.added {
                edit = Edit::none(&company);
            }
            let detail = ResultDetail::Restored(count);
            Ok::<_, TransactionError>(
                tx.put(Some(company), edit).with_detail(detail).with_context(count),
            )
        };
        let subject = Subject::of(ChangeKind::RestoreGrants, id);
        Ok(match self.write(subject, options, plan).await? {
            Outcome::Written(Written { revision, .. }, count) => (count, revision),
            Outcome::Repeated(stored) => {
                let (Written { revision, .. }, detail) =
                    self.repeated_without::<Company>(stored).await?;
                match detail {
                    ResultDetail::Restored(count) => (count, revision),
                    _ => (0, revision),
                }
            }
        })
    }
}

/// The edit that reactivates the grants of these scopes, of which a restriction took some.
fn restoration(
    catalog: &Catalog,
    company: &Company,
    named: &[ScopeId],
    taken: Vec<RemovedEntry>,
    at: Revision,
) -> Result<Edit<Company>, AuthorityError> {
    let was_taken = |scope: &ScopeId| taken.iter().any(|entry| entry.scope == *scope);
    let not_removed: Vec<_> = named.iter().copied().filter(|s| !was_taken(s)).collect();
    if !not_removed.is_empty() {
        return Err(AuthorityError::NotTaken(at, catalog.names(&not_removed)));
    }
    let wanted = catalog.closure(named);
    let entries: Vec<_> =
        taken.into_iter().filter(|p| wanted.binary_search(&p.scope).is_ok()).collect();
    let absent = entries.iter().map(|entry| entry.scope);
    let absent: Vec<_> = absent.filter(|s| !company.ceiling.contains(*s)).collect();
    if !absent.is_empty() {
        return Err(AuthorityError::NotInCeiling(catalog.names(&absent)));
    }
    let blocked = company.blocked_by_later_restriction(catalog, &entries, at);
    if !blocked.is_empty() {
        return Err(AuthorityError::LaterRestrictionFirst(catalog.names(&blocked)));
    }
    let mut edit = company.restore(&entries, at);
    if !edit.added.is_empty() {
        let undone = FieldChange::new_text("restricted_at_revision", &at.to_string());
        edit.fields.extend(undone);
    }
    Ok(edit)
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
