//! Revocation: the response to a client that revokes a token (RFC 7009 section 2.2, T36).
//!
//! Not here: the revocation; see [`crate::authority::token_revocation`].

use http::{Response, StatusCode};

use super::presented_client::{CLIENT_ID, CLIENT_SECRET};
use super::refusal::{self, ErrorCode, Refusal};
use crate::authority::token_revocation::Revocation;
use crate::web::answer::Body;

/// The parameters of the endpoint.
pub(super) const PARAMETERS: &[&str] = &["token", CLIENT_ID, CLIENT_SECRET];

/// The response.
///
/// # Errors
/// The token is of another client or of another issuer.
pub(super) fn response(revocation: Revocation) -> Result<Response<Body>, Refusal> {
    match revocation {
        Revocation::Revoked(_) => {
            let mut response = refusal::json(StatusCode::OK, &());
            *response.body_mut() = Body::default();
            response.headers_mut().remove(http::header::CONTENT_TYPE);
            Ok(response)
        }
        Revocation::OfOtherClient => Err(Refusal::new(
            ErrorCode::UnauthorizedClient,
            "The token was issued to another client. Only that client can revoke it.",
        )),
        Revocation::OfOtherIssuer => Err(Refusal::new(
            ErrorCode::UnsupportedTokenType,
            "The token is of another issuer. Revoke it there.",
        )),
    }
}
