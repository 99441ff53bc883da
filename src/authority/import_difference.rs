//! Import difference: the fields in which an existing company or credential differs from the one that
//! an import would create.
//!
//! Not here: the reaction to a difference. An import leaves existing resources as they are, and
//! reports the difference.

use std::collections::BTreeSet;

use super::NewCredential;
use super::error::AuthorityError;
use super::import_item::ImportItem;
use super::reader::{Reader, resolve};
use super::session::Session;
use crate::policy::catalog::Catalog;
use crate::policy::company::Company;
use crate::policy::credential::{Credential, GrantContext};

/// The most differences of one import that are listed. All are counted.
pub const LISTED: usize = 20;

/// An existing resource whose content differs from the import.
#[derive(Clone, Debug)]
pub struct ImportDifference<P> {
    /// The position of the item in the import.
    pub place: P,
    /// The item.
    pub new: ImportItem,
    /// The names of the fields that differ, as in the API.
    pub fields: Vec<&'static str>,
}

impl Session<'_> {
    /// The fields in which the existing item differs from this one. None: it does not exist.
    pub(super) async fn import_difference(
        &self,
        new: &ImportItem,
    ) -> Result<Option<Vec<&'static str>>, AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let catalog = reader.catalog();
            match new {
                ImportItem::Company(new) => {
                    let Some(found) = reader.find::<Company>(&new.id).await? else {
                        return Ok(None);
                    };
                    let wanted = new.edit(&catalog, reader.now())?.after;
                    Ok(Some(of_company(&found, &wanted, &catalog)))
                }
                ImportItem::Credential(new) => {
                    let Some(company) = reader.find::<Company>(&new.company).await? else {
                        return Ok(None);
                    };
                    let Some(found) =
                        reader.find::<Credential>((&company.created_at, &new.id)).await?
                    else {
                        return Ok(None);
                    };
                    let (catalog, now) = (&catalog, reader.now());
                    let context = GrantContext { catalog, company: &company, now };
                    Ok(Some(of_credential(&found, new, context)?))
                }
            }
        };
        self.read(read).await
    }
}

/// The fields in which a company differs from the one that would be created.
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

/// The fields in which a credential differs from the one that would be created. Only active grants
/// count.
fn of_credential(
    found: &Credential,
    new: &NewCredential,
    context: GrantContext<'_>,
) -> Result<Vec<&'static str>, AuthorityError> {
    let wanted = resolve(context.catalog, "scopes", &new.scopes)?;
    let wanted: BTreeSet<_> = context.catalog.closure(&wanted).into_iter().collect();
    let all = context.catalog.scope_ids();
    let active: BTreeSet<_> = all.filter(|scope| found.active(*scope, context).is_some()).collect();
    Ok(differing([
        ("label", found.label != new.label),
        ("scopes", active != wanted),
        ("expires_at", found.expires_at != new.expires_at),
        ("enabled", found.enabled != new.enabled),
        ("redirect_uris", *found.redirect_uris != *new.redirect_uris),
        ("tokens_valid_from", found.revoked_tokens.issued_before != new.tokens_valid_from),
    ]))
}

fn differing<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<&'static str> {
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
