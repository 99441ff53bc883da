//! Import difference: in what something that exists differs from what an import would create.
//!
//! Not here: what becomes of it. An import leaves what exists as it is, and reports it.

use std::collections::BTreeSet;

use super::error::AuthorityError;
use super::import_item::ImportItem;
use super::transaction::resolve;
use super::{ATTEMPTS, Authority, NewCredential};
use crate::policy::catalog::Catalog;
use crate::policy::company::Company;
use crate::policy::credential::{Credential, GrantContext};

/// How many differences of one import are listed. All are counted.
pub const LISTED: usize = 20;

/// Something that exists with other content than an import has.
#[derive(Clone, Debug)]
pub struct ImportDifference<P> {
    /// Where the item stands.
    pub place: P,
    /// The item.
    pub new: ImportItem,
    /// The fields that differ, by their names in the contract.
    pub fields: Vec<&'static str>,
}

impl Authority {
    /// In what the item that exists differs from this one. Nothing if it was deleted since.
    pub(super) async fn import_difference(
        &self,
        new: &ImportItem,
    ) -> Result<Vec<&'static str>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            let now = self.clock.now();
            match new {
                ImportItem::Company(new) => {
                    let found = self.facts.company(view.at, &new.id).await;
                    let Some(found) = self.or_retry(found).await? else { continue };
                    return match found {
                        Some(found) => {
                            let wanted = new.edit(&view.catalog, now)?.after;
                            Ok(of_company(&found, &wanted, &view.catalog))
                        }
                        None => Ok(vec![]),
                    };
                }
                ImportItem::Credential(new) => {
                    let found = self.credential_of(&view, &new.company, &new.id).await;
                    let Some((company, found)) = self.or_retry(found).await? else { continue };
                    let (Some(company), Some(found)) = (company, found) else { return Ok(vec![]) };
                    let ground = GrantContext { catalog: &view.catalog, company: &company, now };
                    return of_credential(&found, new, ground);
                }
            }
        }
        Err(AuthorityError::Conflict)
    }
}

/// In what a company differs from one that would be created.
pub(super) fn of_company(
    found: &Company,
    wanted: &Company,
    catalog: &Catalog,
) -> Vec<&'static str> {
    let ceiling = |company: &Company| -> BTreeSet<_> {
        let scopes = company.ceiling.iter().map(|(scope, _)| scope);
        scopes.filter(|scope| catalog.name(*scope).is_some()).collect()
    };
    differing([
        ("display_name", found.display_name != wanted.display_name),
        ("scopes", ceiling(found) != ceiling(wanted)),
        ("enabled", found.enabled != wanted.enabled),
    ])
}

/// In what a credential differs from one that would be created; of its grants, those count that
/// are active.
fn of_credential(
    found: &Credential,
    new: &NewCredential,
    ground: GrantContext<'_>,
) -> Result<Vec<&'static str>, AuthorityError> {
    let wanted = resolve(ground.catalog, "scopes", &new.scopes)?;
    let wanted: BTreeSet<_> = ground.catalog.closure(&wanted).into_iter().collect();
    let all = ground.catalog.scope_ids();
    let active: BTreeSet<_> = all.filter(|scope| found.active(*scope, ground).is_some()).collect();
    Ok(differing([
        ("label", found.label != new.label),
        ("scopes", active != wanted),
        ("expires_at", found.expires_at != new.expires_at),
        ("enabled", found.enabled != new.enabled),
    ]))
}

fn differing<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<&'static str> {
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
