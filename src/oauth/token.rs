//! Token: the token endpoint (RFC 6749 section 3.2). Three grants: client credentials (T32), token
//! exchange for a named user (T33), and authorization code (T34).
//!
//! Not here: which token is issued; see [`crate::authority::token_issue`].

use http::{Response, StatusCode};
use serde::Serialize;

use super::counters::Grant;
use super::form::Form;
use super::presented_client::{CLIENT_ID, CLIENT_SECRET};
use super::refusal::{self, ErrorCode, Refusal};
use crate::authority::token_issue::{IssuedToken, TokenGrant};
use crate::policy::catalog::Catalog;
use crate::policy::id::{Name, UserId};
use crate::policy::scope::Scope;
use crate::policy::secret::{SecretKind, SecretText};
use crate::web::answer::Body;

/// The grant type of client credentials (RFC 6749 section 4.4).
pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
/// The grant type of an authorization code (RFC 6749 section 4.1).
pub(super) const AUTHORIZATION_CODE: &str = "authorization_code";
/// The grant type of token exchange (RFC 8693).
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// The type of an access token (RFC 8693 section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The type of a subject that is the id of a user.
const USER_ID: &str = "urn:scopegate:params:oauth:token-type:user-id";

/// The catalog has no such audience.
pub(super) const UNKNOWN_AUDIENCE: Refusal = Refusal::new(
    ErrorCode::InvalidTarget,
    "The audience is not known. Check the parameters audience and resource.",
);

/// The parameters of the endpoint.
pub(super) const PARAMETERS: &[&str] = &[
    "grant_type",
    "scope",
    "audience",
    "resource",
    "subject_token",
    "subject_token_type",
    "requested_token_type",
    "actor_token",
    "actor_token_type",
    "code",
    "redirect_uri",
    "code_verifier",
    CLIENT_ID,
    CLIENT_SECRET,
];

/// What the form asks for. It is read before the proof, and refused after it.
pub(super) fn grant_of(form: &Form) -> Grant {
    match form.get("grant_type") {
        Some(CLIENT_CREDENTIALS) => Grant::ClientCredentials,
        Some(TOKEN_EXCHANGE) => Grant::TokenExchange,
        Some(AUTHORIZATION_CODE) => Grant::AuthorizationCode,
        _ => Grant::Other,
    }
}

/// The token with which the client acts, in a token exchange. Other grants have none.
///
/// # Errors
/// It is of another type than an access token.
pub(super) fn actor_token(form: &Form) -> Result<Option<&str>, Refusal> {
    if grant_of(form) != Grant::TokenExchange {
        return Ok(None);
    }
    match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => Ok(None),
        (Some(token), Some(ACCESS_TOKEN)) => Ok(Some(token)),
        _ => Err(Refusal::request(
            "The parameter actor_token needs the actor_token_type of an access token.",
        )),
    }
}

/// The code to redeem. A text that is no code finds none.
///
/// # Errors
/// There is no code.
pub(super) fn code(form: &Form) -> Result<SecretText, Refusal> {
    let code = form.get("code").ok_or(Refusal::request("The parameter code is missing."))?;
    let code = SecretText::parse(SecretKind::Code, code.to_owned());
    code.ok_or(Refusal::new(
        ErrorCode::InvalidGrant,
        "The parameter code is not an authorization code of this server.",
    ))
}

/// The grant, with its parameters. An authorization code is redeemed by itself.
///
/// # Errors
/// The grant is missing or unknown, or its parameters are not right.
pub(super) fn grant(form: &Form) -> Result<TokenGrant, Refusal> {
    match grant_of(form) {
        Grant::ClientCredentials => Ok(TokenGrant::ClientCredentials),
        Grant::TokenExchange => {
            if form.get("subject_token_type") != Some(USER_ID) {
                return Err(Refusal::request(
                    "The parameter subject_token_type is not urn:scopegate:params:oauth:token-type:user-id.",
                ));
            }
            if form.get("requested_token_type").is_some_and(|requested| requested != ACCESS_TOKEN) {
                return Err(Refusal::request("Only access tokens are issued here."));
            }
            let user = form.get("subject_token").and_then(|id| UserId::parse(id).ok());
            let user =
                user.ok_or(Refusal::request("The parameter subject_token is not a user id."))?;
            Ok(TokenGrant::Exchange { user })
        }
        Grant::Other if form.get("grant_type").is_none() => {
            Err(Refusal::request("The parameter grant_type is missing."))
        }
        Grant::AuthorizationCode | Grant::Other => Err(Refusal::new(
            ErrorCode::UnsupportedGrantType,
            "This grant type is not supported. The metadata lists those that are.",
        )),
    }
}

/// The requested scopes; none if the request names none.
///
/// # Errors
/// One is not a scope.
pub(super) fn scopes(form: &Form) -> Result<Option<Vec<Scope>>, Refusal> {
    const MALFORMED: Refusal = Refusal::new(
        ErrorCode::InvalidScope,
        "The parameter scope is not a list of scopes with spaces between them.",
    );
    let Some(text) = form.get("scope") else { return Ok(None) };
    let names = text.split(' ').filter(|name| !name.is_empty());
    let mut scopes =
        names.map(Scope::parse).collect::<Result<Vec<_>, _>>().map_err(|_| MALFORMED)?;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() { Err(MALFORMED) } else { Ok(Some(scopes)) }
}

/// The audience that the request names, else that of its host, else none (T31). `host` is in lower case.
///
/// # Errors
/// The catalog has no such audience, or the request names two.
pub(super) fn audience(
    form: &Form,
    host: Option<&str>,
    catalog: &Catalog,
) -> Result<Option<Name>, Refusal> {
    let named = form.get("audience").map(|name| Name::parse(name).ok());
    let by_aud = form.get("resource").map(|aud| catalog.audience_by_aud(aud).cloned());
    let by_host = || host.and_then(|host| catalog.audience_by_host(host)).cloned();
    match (named, by_aud) {
        (Some(named), Some(by_aud)) if named != by_aud => Err(UNKNOWN_AUDIENCE),
        (Some(named), _) | (None, Some(named)) => named.map(Some).ok_or(UNKNOWN_AUDIENCE),
        (None, None) => Ok(by_host()),
    }
}

/// The response with a token (RFC 6749 section 5.1).
pub(super) fn issued(token: &IssuedToken, grant: Grant) -> Response<Body> {
    #[derive(Serialize)]
    struct Issued<'a> {
        access_token: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        issued_token_type: Option<&'static str>,
        token_type: &'static str,
        expires_in: u32,
        scope: String,
    }
    let issued = Issued {
        access_token: &token.text,
        issued_token_type: (grant == Grant::TokenExchange).then_some(ACCESS_TOKEN),
        token_type: "Bearer",
        expires_in: token.expires_in,
        scope: joined(&token.scopes),
    };
    refusal::json(StatusCode::OK, &issued)
}

/// Scopes with spaces between them (RFC 6749 section 3.3).
pub(super) fn joined(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}
