//! Demo: the company and credentials of `serve --demo`, after the example in 360Learning's document.
//!
//! Not here: the catalog of the demo; see [`super::DEMO_CATALOG`].

use std::borrow::Cow;

use super::SERVE;
use crate::authority::error::AuthorityError;
use crate::authority::{Authority, NewCompany, NewCredential, WriteOptions};
use crate::policy::id::{CompanyId, CredentialId, IdError};
use crate::policy::scope::{Scope, ScopeError};
use crate::transport::listen_address::ListenAddress;

/// Why the demo cannot be created.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("the demo's id {0}")]
    Id(#[from] IdError),
    #[error("the demo's scope {0}")]
    Scope(#[from] ScopeError),
    #[error("the demo cannot be created in this store: {0}; choose an empty --data-dir")]
    Refused(#[from] AuthorityError),
}

/// Creates the company of the example and its two credentials, if the company does not exist yet.
pub(super) async fn seed(authority: &Authority) -> Result<(), DemoError> {
    let session = authority.internal_session(SERVE);
    let options = WriteOptions { reason: "the demo".to_owned(), ..WriteOptions::default() };
    let company = CompanyId::parse("demo")?;
    let ceiling = scopes(&["users:read", "users:write", "groups:read"])?;
    let new = NewCompany {
        id: company.clone(),
        display_name: "Demo company".to_owned(),
        scopes: Some(ceiling.clone()),
    };
    match session.create_company(&new, &options).await {
        Ok(_) => {}
        // An earlier start created it. It may have been changed since, so it stays as it is.
        Err(AuthorityError::CompanyExists(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
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
            redirect_uris: vec![],
            tokens_valid_from: None,
        };
        session.create_credential(&new, &options).await?;
    }
    Ok(())
}

fn scopes(names: &[&str]) -> Result<Vec<Scope>, ScopeError> {
    names.iter().map(|name| Scope::parse(*name)).collect()
}

/// The text that shows commands for another terminal.
pub(super) fn lines(address: &ListenAddress, tls: bool) -> String {
    let (flag, target) = match address {
        ListenAddress::Unix(path) => {
            let path = path.to_string_lossy();
            let word = shlex::try_quote(&path).map(Cow::into_owned).unwrap_or_default();
            ("-plaintext -unix", word)
        }
        ListenAddress::Tcp(address) if tls => ("-cacert ca.pem", address.to_string()),
        ListenAddress::Tcp(address) => ("-plaintext", address.to_string()),
    };
    format!(
        r#"
scopegate serves the 360Learning catalog on {address}. The company `demo` has the scopes
users:read, users:write and groups:read, and two credentials: `analytics` has users:read,
`hr-sync` has all three. In another terminal:

  grpcurl {flag} -d '{{"company_id":"demo","credential_id":"hr-sync","scopes":["users:write"]}}' \
    {target} scopegate.v1.AuthorizationService/Check

  grpcurl {flag} -d '{{"company_id":"demo","credential_id":"analytics","scopes":["users:write"]}}' \
    {target} scopegate.v1.AuthorizationService/Check

"#
    )
}
