//! Introspection: what a token is good for, as JSON (RFC 7662 section 2.2, T36).
//!
//! Not here: how that is decided; see [`crate::authority::introspection`].

use http::{Response, StatusCode};
use serde::Serialize;

use super::presented_client::{CLIENT_ID, CLIENT_SECRET};
use super::refusal;
use super::token::joined;
use crate::authority::introspection::ActiveToken;
use crate::web::answer::Body;

/// The parameters of the endpoint.
pub(super) const PARAMETERS: &[&str] = &["token", "audience", CLIENT_ID, CLIENT_SECRET];

/// A claim `aud`: a string if there is one value.
#[derive(Serialize)]
#[serde(untagged)]
enum Aud<'a> {
    One(&'a str),
    Several(&'a [Box<str>]),
}

#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    scope: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    own_scope: String,
    client_id: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    sub: &'a str,
    aud: Aud<'a>,
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    company_id: &'a str,
}

/// The response about a token that is good for calls.
pub(super) fn active(token: &ActiveToken) -> Response<Body> {
    let active = Active {
        active: true,
        scope: joined(&token.scopes),
        own_scope: joined(&token.own_scopes),
        client_id: token.credential.as_str(),
        token_type: "Bearer",
        exp: token.expires_at.map(|time| time.as_second()),
        iat: token.issued_at.map(|time| time.as_second()),
        sub: &token.subject,
        aud: match token.audiences.as_slice() {
            [one] => Aud::One(one),
            several => Aud::Several(several),
        },
        iss: &token.issuer,
        jti: token.id.as_deref(),
        company_id: token.company.as_str(),
    };
    refusal::json(StatusCode::OK, &active)
}

/// The response about any other token. It tells nothing more, so that no one can try tokens here.
pub(super) fn inactive() -> Response<Body> {
    #[derive(Serialize)]
    struct Inactive {
        active: bool,
    }
    refusal::json(StatusCode::OK, &Inactive { active: false })
}
