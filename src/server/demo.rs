//! Demo: the 360Learning document's own example, ready to be tried.

use std::net::SocketAddr;

use crate::authority::error::AuthorityError;
use crate::authority::{Authority, NewCompany, NewCredential, WriteOptions};
use crate::policy::change::Author;
use crate::policy::id::{CompanyId, CredentialId, IdError};
use crate::policy::scope::{Scope, ScopeError};

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("the demo's id {0}")]
    Id(#[from] IdError),
    #[error("the demo's scope {0}")]
    Scope(#[from] ScopeError),
    #[error("the demo cannot be made in this store: {0}; choose an empty --data-dir")]
    Refused(#[from] AuthorityError),
}

/// The company of the document's example and its two credentials, if they do not exist yet.
pub(super) async fn seed(authority: &Authority) -> Result<(), DemoError> {
    let author = Author {
        actor: "scopegate serve".to_owned(),
        on_behalf_of: String::new(),
        reason: "the demo".to_owned(),
    };
    let terms = WriteOptions { author, ..WriteOptions::default() };
    let company = CompanyId::parse("demo")?;
    let ceiling = scopes(&["users:read", "users:write", "groups:read"])?;
    let new = NewCompany {
        id: company.clone(),
        display_name: "Demo company".to_owned(),
        scopes: Some(ceiling.clone()),
    };
    match authority.create_company(&new, &terms, |_| ()).await {
        Ok(()) => {}
        // Made by an earlier start, and perhaps changed since: left as it is.
        Err(AuthorityError::CompanyExists(_)) => return Ok(()),
        Err(refusal) => return Err(refusal.into()),
    }
    for (id, label, scopes) in
        [("analytics", "Analytics", scopes(&["users:read"])?), ("hr-sync", "HR sync", ceiling)]
    {
        let new = NewCredential {
            company: company.clone(),
            id: CredentialId::parse(id)?,
            label: label.to_owned(),
            scopes,
            expires_at: None,
            enabled: true,
        };
        authority.create_credential(&new, &terms, |_| ()).await?;
    }
    Ok(())
}

fn scopes(names: &[&str]) -> Result<Vec<Scope>, ScopeError> {
    names.iter().map(|name| Scope::parse(*name)).collect()
}

/// What to paste into another terminal.
pub(super) fn lines(address: SocketAddr, tls: bool) -> String {
    let how = if tls { "-cacert ca.pem" } else { "-plaintext" };
    format!(
        r#"
scopegate serves the 360Learning catalog on {address}. The company `demo` has the scopes
users:read, users:write and groups:read, and two credentials: `analytics` has users:read,
`hr-sync` has all three. In another terminal:

  grpcurl {how} -d '{{"company_id":"demo","credential_id":"hr-sync","scopes":["users:write"]}}' \
    {address} scopegate.v1.AuthorizationService/Check

  grpcurl {how} -d '{{"company_id":"demo","credential_id":"analytics","scopes":["users:write"]}}' \
    {address} scopegate.v1.AuthorizationService/Check

"#
    )
}
