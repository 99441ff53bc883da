//! Query: one check, as asked.

use super::catalog::endpoint::RequestPath;
use super::id::{CompanyId, CredentialId, Name, UserId};
use super::scope::Scope;
use super::token::Token;

/// One check, as asked. Its parts are well formed; whether they exist is the decision's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The tenant.
    pub company: CompanyId,
    /// Its API client.
    pub credential: CredentialId,
    /// What is needed.
    pub needs: Requirement,
    /// The audience named, if any.
    pub audience: Option<Name>,
    /// The token presented, if any.
    pub token: Option<Token>,
    /// The user that the request names, if any.
    pub user: Option<UserId>,
    /// Whose record is asked for, if it says so.
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

/// What a check asks for: at least one scope, or an endpoint (D13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// All of these scopes, without repetition, in the order asked.
    Scopes(Vec<Scope>),
    /// Whatever the matching endpoint needs.
    Endpoint {
        /// The HTTP method, or `GRPC`.
        method: Box<str>,
        /// The path.
        path: RequestPath,
    },
}
