//! Query: the request of one check.

use super::catalog::endpoint::RequestPath;
use super::id::{CompanyId, CredentialId, Name, UserId};
use super::scope::Scope;
use super::token::Token;

/// The request of one check. Its parts are well formed; the decision finds out whether they exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The tenant.
    pub company: CompanyId,
    /// Its API client.
    pub credential: CredentialId,
    /// The scopes or the endpoint.
    pub needs: Requirement,
    /// The audience named, if any.
    pub audience: Option<Name>,
    /// The token presented, if any.
    pub token: Option<Token>,
    /// The user that the request names, if any.
    pub user: Option<UserId>,
    /// The owner of the record, if the request names one.
    pub owner: Option<UserId>,
}

impl Query {
    /// Whether another query concerns the same company, credential and user.
    #[must_use]
    pub fn same_subject_as(&self, other: &Self) -> bool {
        self.company == other.company
            && self.credential == other.credential
            && self.on_behalf_of() == other.on_behalf_of()
    }

    /// The user on whose behalf the call is made: the request's, else the token's (D16).
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<&UserId> {
        self.user.as_ref().or_else(|| self.token.as_ref()?.user.as_ref())
    }
}

/// The requirement of a check: scopes, at least one, or an endpoint (D13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// All of these scopes, without repetition, in the order of the request.
    Scopes(Vec<Scope>),
    /// The requirement of the matching endpoint.
    Endpoint {
        /// The HTTP method, or `GRPC`.
        method: Box<str>,
        /// The path.
        path: RequestPath,
    },
}
