//! Impact: the credentials that a restriction would take scopes from, before it is made (D7).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::last_used::LastUsed;
use crate::policy::catalog::Catalog;
use crate::policy::company::Company;
use crate::policy::credential::{Credential, GrantContext, is_expired};
use crate::policy::id::CredentialId;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{Fact, FactKey, Store, StoreError};

/// The most credentials that a report lists. `ListCredentials` lists all.
pub const MAX_LISTED: usize = 100;

/// The impact of a restriction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impact {
    /// How many credentials hold one of the scopes.
    pub count: u64,
    /// Whether one of them is enabled.
    pub any_enabled: bool,
    /// The first of them, by id.
    pub affected: Vec<Affected>,
    /// The etag to send with the restriction that this report describes.
    pub etag: String,
    /// The scopes that would leave the ceiling, sorted.
    pub scopes: Vec<Scope>,
}

/// A credential that loses scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct Affected {
    /// Its id.
    pub id: CredentialId,
    /// Its label.
    pub label: String,
    /// Whether it is enabled.
    pub enabled: bool,
    /// The scopes that it loses, sorted.
    pub scopes: Vec<Scope>,
    /// When it was last used, to the minute, if that is known.
    pub last_seen: Option<Timestamp>,
    /// Its expiry, if it has passed.
    pub ended: Option<Timestamp>,
}

/// Counts and lists the credentials that hold one of these scopes under this ceiling. The cost grows
/// with the number of credentials that have a grant of them.
pub(super) fn impact(
    store: &Store,
    catalog: &Catalog,
    company: &Company,
    scopes: &[ScopeId],
    last_used: &LastUsed,
    now: Timestamp,
) -> Result<Impact, StoreError> {
    const PAGE: usize = 1000;
    let context = GrantContext { catalog, company, now };
    let mut holders = BTreeSet::new();
    for scope in scopes {
        let mut after = None;
        loop {
            let page = store.holders(company.created_at, *scope, after.as_ref(), PAGE)?;
            let full = page.len() == PAGE;
            after = page.last().cloned();
            holders.extend(page);
            if !full {
                break;
            }
        }
    }
    let mut impact = Impact { scopes: catalog.names(scopes), ..Impact::default() };
    for id in holders {
        let key = FactKey::Credential(company.created_at, id);
        let Some(Fact::Credential(credential)) = store.get(&key)? else {
            continue;
        };
        let lost = lost(&credential, scopes, context);
        if lost.is_empty() {
            continue;
        }
        impact.count += 1;
        impact.any_enabled |= credential.enabled;
        if impact.affected.len() < MAX_LISTED {
            impact.affected.push(Affected {
                id: credential.id.clone(),
                label: credential.label.clone(),
                enabled: credential.enabled,
                scopes: catalog.names(&lost),
                last_seen: last_used.last_of(store, &credential)?,
                ended: credential.expires_at.filter(|_| is_expired(credential.expires_at, now)),
            });
        }
    }
    Ok(impact)
}

/// The scopes that a credential loses. `scopes` are sorted by id. A credential has few grants, and a
/// restriction may name many scopes.
fn lost(credential: &Credential, scopes: &[ScopeId], context: GrantContext<'_>) -> Vec<ScopeId> {
    let held = credential.grants.iter().map(|(scope, _)| scope);
    held.filter(|scope| scopes.binary_search(scope).is_ok())
        .filter(|scope| credential.active(*scope, context).is_some())
        .collect()
}
