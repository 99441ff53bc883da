//! Query: the request of one check.

use std::sync::Arc;

use super::catalog::Catalog;
use super::catalog::endpoint::{PathError, RequestPath, Template, TemplateError, is_method};
pub use super::catalog::resource::ResourceAction;
use super::cause::Cause;
use super::client_credential::ClientCredential;
use super::id::{CompanyId, CredentialId, Name, UserId};
use super::scope::Scope;
use super::token::{PresentedToken, Token, VerifiedToken};

/// For whom a check is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// This credential of this company.
    Known {
        /// The tenant.
        company: CompanyId,
        /// Its API client.
        credential: CredentialId,
    },
    /// What the client presented names no credential, for this cause. Such a check is always denied (T5).
    Unproven(Cause),
}

/// The request of one check. Its parts are well formed; the decision finds out whether they exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The company and the credential.
    pub subject: Subject,
    /// The scopes or the endpoint.
    pub needs: Requirement,
    /// The audience named, if any.
    pub audience: Option<Name>,
    /// The token presented, if any.
    pub token: Option<PresentedToken>,
    /// The user that the request names, if any.
    pub user: Option<UserId>,
    /// The owner of the record, if the request names one.
    pub owner: Option<UserId>,
    /// Whether a scope that reaches only the user's own records is denied if the request names no owner
    /// (D17). It is so for a caller that cannot filter by the reach.
    pub denies_own: bool,
}

impl Query {
    /// Whether another query concerns the same company, credential and user.
    #[must_use]
    pub fn same_subject_as(&self, other: &Self) -> bool {
        self.subject == other.subject
            && self.on_behalf_of() == other.on_behalf_of()
            && self.client_subject() == other.client_subject()
    }

    /// The company, if it is known.
    #[must_use]
    pub fn company(&self) -> Option<&CompanyId> {
        match &self.subject {
            Subject::Known { company, .. } => Some(company),
            Subject::Unproven(_) => None,
        }
    }

    /// The credential, if it is known.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialId> {
        match &self.subject {
            Subject::Known { credential, .. } => Some(credential),
            Subject::Unproven(_) => None,
        }
    }

    /// The facts of the token presented, unless the token was rejected.
    #[must_use]
    pub fn token_facts(&self) -> Option<&Token> {
        self.token.as_ref().and_then(PresentedToken::facts)
    }

    /// The subject of the token, if it is the client itself; see [`VerifiedToken::client_subject`].
    #[must_use]
    pub fn client_subject(&self) -> Option<&UserId> {
        self.verified_token()?.client_subject.as_ref()
    }

    /// The token, if scopegate has verified it.
    #[must_use]
    pub fn verified_token(&self) -> Option<&Arc<VerifiedToken>> {
        match &self.token {
            Some(PresentedToken::Verified(token)) => Some(token),
            _ => None,
        }
    }

    /// The user on whose behalf the call is made: the request's, else the token's (D16).
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<&UserId> {
        self.user.as_ref().or_else(|| self.token_facts()?.user.as_ref())
    }
}

/// A client that proves who it is by what it presents, and what the request says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it presents.
    pub presented: ClientCredential,
    /// The company that the request names, if any.
    pub company: Option<CompanyId>,
    /// The credential that the request names, if any.
    pub credential: Option<CredentialId>,
}

/// The request of one check as it was received. If it has a client, the client's credential completes the
/// query: its subject, its token and its user. Until then the query is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The query.
    pub query: Query,
    /// The client, if it proves itself who it is.
    pub client: Option<Client>,
}

impl From<Query> for Request {
    fn from(query: Query) -> Self {
        Self { query, client: None }
    }
}

/// A borrowed request. A client completes the query in place.
#[derive(Debug)]
pub enum Asked<'a> {
    /// The query is complete.
    Query(&'a Query),
    /// A client completes it.
    Client(&'a mut Query, &'a Client),
}

impl Asked<'_> {
    /// The query, as far as it is complete.
    #[must_use]
    pub fn query(&self) -> &Query {
        match self {
            Self::Query(query) => query,
            Self::Client(query, _) => query,
        }
    }
}

impl<'a> From<&'a Query> for Asked<'a> {
    fn from(query: &'a Query) -> Self {
        Self::Query(query)
    }
}

impl<'a> From<&'a mut Request> for Asked<'a> {
    fn from(request: &'a mut Request) -> Self {
        match &request.client {
            None => Self::Query(&request.query),
            Some(client) => Self::Client(&mut request.query, client),
        }
    }
}

/// The requirement of a check: scopes, at least one, or an endpoint (D13), or an action on a resource.
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
    /// The requirement of the endpoint that a template names, as [`Requirement::Endpoint`] has it of a path.
    Template {
        /// The HTTP method, or `GRPC`.
        method: Box<str>,
        /// A template of the shape of one in the catalog.
        template: Template,
    },
    /// The requirement of an action on a resource.
    Resource(Box<ResourceAction>),
}

impl Requirement {
    /// The requirement of an endpoint that is named by a path, or by a template such as `/users/{id}`.
    ///
    /// # Errors
    /// The method has not the form of one, or the text is neither a path nor a template.
    pub fn route(method: &str, text: &str) -> Result<Self, RouteError> {
        if !is_method(method) {
            return Err(RouteError::Method);
        }
        let method = method.into();
        // No path has a brace, and a template without one is the path itself.
        if text.contains(['{', '}']) {
            let template = Template::parse_stored(text)?;
            return Ok(Self::Template { method, template });
        }
        Ok(Self::Endpoint { method, path: RequestPath::parse(text)? })
    }

    /// The owner of the record, if the catalog lists the resource and names its owner. The owner counts
    /// instead of the one that the request names.
    #[must_use]
    pub fn known_owner<'a>(&self, catalog: &'a Catalog) -> Option<&'a UserId> {
        let Self::Resource(asked) = self else { return None };
        catalog.resource_type(&asked.kind)?.needs(asked)?.owner
    }
}

/// Why a method and a text name no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The method has not the form of one.
    #[error("the method must have 1 to 32 letters, `-` and `_`")]
    Method,
    /// The path is refused (D20).
    #[error("the path {0}")]
    Path(#[from] PathError),
    /// The template is refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
}
