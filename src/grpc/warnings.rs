//! Warnings: sentences of a response about names in a change that nothing has yet: roles that the
//! catalog lacks, and companies that do not exist.
//!
//! They are computed after the change is committed. If that fails, the response has no warning. Not
//! here: the warnings about issuers, which the change of the catalog computes and bounds.

use crate::authority::Session;
use crate::authority::error::AuthorityError;
use crate::policy::id::{CompanyId, Name};

/// The most warnings of a response.
const MAX_WARNINGS: usize = 20;

/// The warnings about roles that the catalog lacks (D2).
pub(super) async fn of_roles(session: &Session<'_>, roles: &[Name]) -> Vec<String> {
    if roles.is_empty() {
        return vec![];
    }
    match session.catalog().await {
        Ok(read) => bounded(read.resource.missing_roles(roles)),
        Err(_) => vec![],
    }
}

/// The warnings about companies that do not exist.
pub(super) async fn of_companies(session: &Session<'_>, companies: &[CompanyId]) -> Vec<String> {
    let mut warnings = Vec::new();
    for id in companies {
        if let Err(AuthorityError::CompanyNotFound(_)) = session.company(id).await {
            warnings.push(format!(
                "there is no company `{id}`: the key works there once the company is created"
            ));
        }
    }
    bounded(warnings)
}

/// The first warnings, and how many more there are.
fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("there are {more} more of these"));
    }
    warnings
}
