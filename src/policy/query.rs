//! Query: one check, as asked.

use super::catalog::endpoint::Path;
use super::id::{CompanyId, CredentialId, Name};
use super::scope::Scope;

/// One check, as asked. Its parts are well formed; whether they exist is the decision's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The tenant.
    pub company: CompanyId,
    /// Its API client.
    pub credential: CredentialId,
    /// What is needed.
    pub needs: Needs,
    /// The audience named, if any.
    pub audience: Option<Name>,
}

/// What a check asks for: at least one scope, or an endpoint (D13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// All of these scopes, without repetition, in the order asked.
    Scopes(Vec<Scope>),
    /// Whatever the matching endpoint needs.
    Endpoint {
        /// The HTTP method, or `GRPC`.
        method: Box<str>,
        /// The path.
        path: Path,
    },
}
