//! Documents: the metadata of the authorization server (RFC 8414) and its public keys (RFC 7517). Both
//! are the same for every client and need no proof.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::refusal::{self, Refusal};
use super::route::Endpoint;
use super::token::{AUTHORIZATION_CODE, CLIENT_CREDENTIALS, TOKEN_EXCHANGE};
use crate::authority::Authority;
use crate::web::answer::Body;

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
    /// The platform's own page (RFC 6749 section 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_endpoint: Option<&'a str>,
    grant_types_supported: Vec<&'static str>,
    // Required by RFC 8414, also without an authorization endpoint.
    response_types_supported: &'static [&'static str],
    code_challenge_methods_supported: [&'static str; 1],
    // RFC 9207.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: [&'static str; 2],
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
}

/// The metadata of this issuer. `authorize_url` is the platform's page, on which a user gives scopes.
pub(super) fn metadata(issuer: &str, authorize_url: Option<&str>) -> Response<Body> {
    let has_codes = authorize_url.is_some();
    let mut grant_types_supported = vec![CLIENT_CREDENTIALS, TOKEN_EXCHANGE];
    grant_types_supported.extend(has_codes.then_some(AUTHORIZATION_CODE));
    let url = |endpoint: Endpoint| format!("{issuer}{}", endpoint.path());
    cached(refusal::json(
        StatusCode::OK,
        &Metadata {
            issuer,
            token_endpoint: url(Endpoint::Token),
            jwks_uri: url(Endpoint::Jwks),
            introspection_endpoint: url(Endpoint::Introspect),
            revocation_endpoint: url(Endpoint::Revoke),
            authorization_endpoint: authorize_url,
            grant_types_supported,
            response_types_supported: if has_codes { &["code"] } else { &[] },
            code_challenge_methods_supported: ["S256"],
            authorization_response_iss_parameter_supported: has_codes,
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
