//! Suggestion: warns of an unknown scope, company or credential if the response does not mention
//! it, with the most similar scope.
//!
//! These extra calls are made only if the response leaves the cause open. An error of them does not
//! fail the command.

use tonic::Code;

use super::client::Client;
use super::failure;
use crate::policy::catalog::file::CatalogFile;
use crate::policy::scope::Scope;
pub(super) use crate::policy::suggestion::nearest;
use crate::policy::text;
use crate::proto::{GetCatalogRequest, GetCompanyRequest, GetCredentialRequest};

/// The maximum number of warnings about scopes.
const MAX_WARNINGS: usize = 10;

/// Warns of scopes that are not in the catalog, if it has a scope with a similar name.
pub(super) async fn warn_of_scopes(client: &mut Client, scopes: &[String]) {
    let Ok(catalog) = client.catalog.get_catalog(GetCatalogRequest {}).await else { return };
    let Ok(file) = CatalogFile::parse_stored(&catalog.into_inner().yaml) else { return };
    let names = || file.scopes.keys().map(Scope::as_str);
    let unknown = scopes.iter().filter(|scope| names().all(|name| name != scope.as_str()));
    for scope in unknown.take(MAX_WARNINGS) {
        if let Some(similar) = nearest(scope, names()) {
            let scope = text::quoted(scope, 64);
            failure::warn(&format!("the catalog has no scope {scope}: did you mean `{similar}`?"));
        }
    }
}

/// Warns if there is no such company.
pub(super) async fn warn_of_company(client: &mut Client, company: &str) {
    let request = GetCompanyRequest { company_id: company.to_owned() };
    if let Err(status) = client.directory.get_company(request).await
        && status.code() == Code::NotFound
    {
        failure::warn(status.message());
    }
}

/// Warns if there is no such credential.
pub(super) async fn warn_of_credential(client: &mut Client, company: &str, credential: &str) {
    let (company_id, credential_id) = (company.to_owned(), credential.to_owned());
    let request = GetCredentialRequest { company_id, credential_id };
    if let Err(status) = client.directory.get_credential(request).await
        && status.code() == Code::NotFound
    {
        failure::warn(status.message());
    }
}
