//! Documents: the metadata of the authorization server (RFC 8414) and its public keys (RFC 7517). Both
//! are the same for every client and need no proof.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::refusal::{self, Body, Refusal};
use super::route::Endpoint;
use super::token::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE};
use crate::authority::Authority;

/// How long a cache may keep a document (T29).
const MAX_AGE: &str = "max-age=300";
/// How a client may prove itself.
const AUTH_METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    jwks_uri: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 2],
    // Required by RFC 8414. No endpoint here shows a page, so there is none.
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: [&'static str; 2],
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
}

/// The metadata of this issuer.
pub(super) fn metadata(issuer: &str) -> Response<Body> {
    let url = |endpoint: Endpoint| format!("{issuer}{}", endpoint.path());
    cached(refusal::json(
        StatusCode::OK,
        &Metadata {
            issuer,
            token_endpoint: url(Endpoint::Token),
            jwks_uri: url(Endpoint::Jwks),
            introspection_endpoint: url(Endpoint::Introspect),
            revocation_endpoint: url(Endpoint::Revoke),
            grant_types_supported: [CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
            response_types_supported: [],
            token_endpoint_auth_methods_supported: AUTH_METHODS,
            introspection_endpoint_auth_methods_supported: AUTH_METHODS,
            revocation_endpoint_auth_methods_supported: AUTH_METHODS,
        },
    ))
}

/// The public keys.
///
/// # Errors
/// The store cannot answer.
pub(super) async fn jwks(authority: &Authority) -> Result<Response<Body>, Refusal> {
    let keys = authority.signing_jwks().await?;
    let mut response = refusal::json(StatusCode::OK, &());
    *response.body_mut() = Body::from(keys);
    Ok(cached(response))
}

fn cached(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
    headers.remove(http::header::PRAGMA);
    response
}
