//! Token issue: the access tokens that scopegate issues itself, by the client credentials grant and by
//! token exchange (T25 to T27, T32, T33, T35).
//!
//! Nothing is stored when a token is issued. A token has the scopes that are effective at its issue, and
//! every check asks all layers again, so a token never allows more than that later.
//!
//! Not here: the endpoint and its forms. The verification of such a token is in
//! [`super::token_verifier`], and what ends it is in [`crate::policy::token::own`].

use super::client_proof::ProvenSecret;
use super::error::AuthorityError;
use super::session::Session;
use crate::policy::cause::Cause;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::StoreError;

/// The most bytes of a token that is issued (T35).
pub const MAX_ISSUED_BYTES: usize = 7 << 10;

/// How the client of a token request proves who it is.
#[derive(Clone, Copy, Debug)]
pub enum TokenClient<'a> {
    /// By a secret.
    Secret(&'a ProvenSecret),
    /// By an access token of its own, which a token exchange presents as `actor_token`.
    Actor {
        /// The text of the token.
        token: &'a str,
        /// The secret, if the client presents one besides. Both must be of one client.
        secret: Option<&'a ProvenSecret>,
        /// The company that the request names, if any. The client must be one of it.
        company: Option<&'a CompanyId>,
    },
}

/// The grant of a token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenGrant {
    /// `client_credentials` (RFC 6749 section 4.4).
    ClientCredentials,
    /// Token exchange for a user of the client's company (RFC 8693). A client that presents an
    /// `actor_token` can ask for this grant only.
    Exchange {
        /// The user.
        user: UserId,
    },
}

/// A request for a token.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The client.
    pub client: TokenClient<'a>,
    /// The grant.
    pub grant: TokenGrant,
    /// The audience of the token, as the catalog names it; none if the catalog declares none, or only
    /// one.
    pub audience: Option<Name>,
    /// The scopes; none for all that are effective, without those that an `exchange` names.
    pub scopes: Option<Vec<Scope>>,
}

/// A token that was issued. `Debug` does not print its text.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The text.
    pub text: String,
    /// In how many seconds it ends.
    pub expires_in: u32,
    /// Its scopes, sorted.
    pub scopes: Vec<Scope>,
    /// The claim `jti`, for the log.
    pub id: String,
    /// The company of the client.
    pub company: CompanyId,
    /// The credential of the client.
    pub credential: CredentialId,
    /// The user, after an exchange.
    pub user: Option<UserId>,
    /// The audience.
    pub audience: Option<Name>,
    /// The revision at which it was issued.
    pub revision: Revision,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuedToken({})", self.id)
    }
}

/// The error code of a refusal (RFC 6749 section 5.2, RFC 8707 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// `invalid_request`.
    InvalidRequest,
    /// `invalid_client`, with status 401: the client is disabled or has expired since its proof.
    InvalidClient,
    /// `invalid_scope`.
    InvalidScope,
    /// `invalid_target`: the catalog has no such audience.
    InvalidTarget,
    /// `unauthorized_client`.
    UnauthorizedClient,
}

impl TokenError {
    /// Its code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
        }
    }
}

/// Why a token is not issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// The error code.
    pub error: TokenError,
    /// The cause of a decision, if that is why: for the log.
    pub cause: Option<Cause>,
    /// What is wrong and who can fix it: a sentence of ASCII without `"` and `\`, which repeats nothing
    /// of the request (T35).
    pub description: &'static str,
}

impl Session<'_> {
    /// Issues a token. Use the session of a client: [`Authority::internal_session`], with
    /// [`ProvenSecret::actor`] where the client has proven itself by a secret.
    ///
    /// [`Authority::internal_session`]: super::Authority::internal_session
    ///
    /// # Errors
    /// The store cannot answer, or this server has no key to sign with:
    /// [`AuthorityError::CannotSign`].
    pub async fn issue_token(
        &self,
        request: &TokenRequest<'_>,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let _ = request;
        Err(StoreError::Unavailable.into())
    }
}
