//! Warnings: sentences of a response about names that a change took as they are, and that nothing
//! has.
//!
//! They are read after the change: a warning that cannot be made up is left out, and the change
//! stands.

use crate::authority::Authority;
use crate::authority::error::AuthorityError;
use crate::policy::id::{CompanyId, Name};

/// The most warnings of a response.
const MAX_WARNINGS: usize = 20;

/// Of roles that the catalog lacks (D2).
pub(super) async fn of_roles(authority: &Authority, roles: &[Name]) -> Vec<String> {
    if roles.is_empty() {
        return vec![];
    }
    match authority.catalog().await {
        Ok(read) => bounded(read.resource.missing_roles(roles)),
        Err(_) => vec![],
    }
}

/// Of companies that do not exist.
pub(super) async fn of_companies(authority: &Authority, companies: &[CompanyId]) -> Vec<String> {
    let mut warnings = Vec::new();
    for id in companies {
        if let Err(AuthorityError::CompanyNotFound(_)) = authority.company(id).await {
            warnings.push(format!(
                "there is no company `{id}`: the key is of use in it once it is created"
            ));
        }
    }
    bounded(warnings)
}

fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("there are {more} more of these"));
    }
    warnings
}
