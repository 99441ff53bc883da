//! Response: what a gateway does with a request: it passes it on, or it answers the client. With a
//! description of the decision for the gateway's log.
//!
//! Not here: how a gateway is told; see [`crate::envoy`].

use serde::Serialize;

use super::challenge::challenge;
use super::http_request::HttpRequest;
use super::upstream::Upstream;
use crate::authority::{Answer, ProvenClient};
use crate::policy::cause::Cause;
use crate::policy::decision::Verdict;
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;

/// What a gateway does with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    /// It passes the request on.
    Allowed(Upstream),
    /// It answers the client.
    Denied(Denial),
}

/// The response that a client gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// The status.
    pub status: u16,
    /// The headers, each once.
    pub headers: Vec<(&'static str, String)>,
    /// The body, in JSON.
    pub body: String,
}

/// A description of a decision. It has no token and no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The reason; none if the request was not judged, because it cannot be read.
    pub reason: Option<Reason>,
    /// Whether the request is allowed.
    pub is_allowed: bool,
    /// The revision of the decision.
    pub revision: Option<Revision>,
    /// The client, if it has proven who it is or if the route names it.
    pub client: Option<ProvenClient>,
    /// The scopes that are missing.
    pub missing: Vec<Scope>,
    /// The status of HTTP.
    pub status: u16,
}

/// The body of a response, as the guards of an API write it.
#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    message: &'a str,
}

/// What is said of a request that cannot be judged.
const UNREADABLE: Body<'static> = Body {
    error: "invalid_request",
    message: "The call cannot be judged as it is written. Check its path.",
};

/// The response to a request that cannot be judged as it is written.
#[must_use]
pub fn unreadable() -> (Response, Description) {
    let status = 400;
    let denial = Denial::new(status, &UNREADABLE, None);
    (Response::Denied(denial), Description { status, ..Description::default() })
}

/// The response to a request that was decided.
#[must_use]
pub fn decided(
    http: &HttpRequest<'_>,
    stated: Option<(CompanyId, CredentialId)>,
    hides_authorization: bool,
    answer: Answer,
) -> (Response, Description) {
    let Answer { verdict, revision, client } = answer;
    let stated =
        stated.map(|(company, credential)| ProvenClient { company, credential, user: None });
    let client = client.or(stated);
    let described = Description { revision: Some(revision), ..Description::default() };
    match (verdict, client) {
        (Verdict::Allowed { reach }, Some(client)) => {
            let upstream =
                Upstream::new(http, client.clone(), reach, revision, hides_authorization);
            let described =
                Description { is_allowed: true, client: Some(client), status: 200, ..described };
            (Response::Allowed(upstream), described)
        }
        // No decision is an allow without saying for whom. The evaluator makes none.
        (Verdict::Allowed { .. }, None) => {
            denied(http, Reason::CredentialUnknown.into(), vec![], described)
        }
        (Verdict::Denied { reason, fault, missing }, client) => {
            let described = Description { client, ..described };
            denied(http, Cause { reason, fault }, missing, described)
        }
    }
}

fn denied(
    http: &HttpRequest<'_>,
    cause: Cause,
    missing: Vec<Scope>,
    described: Description,
) -> (Response, Description) {
    let (reason, status) = (cause.reason, cause.reason.http_status());
    let body = Body { error: reason.error(), message: cause.message() };
    let is_browser = http.has_header("sec-fetch-mode");
    let challenge = challenge(status, Some(reason), &missing, is_browser);
    let denial = Denial::new(status, &body, challenge);
    (Response::Denied(denial), Description { reason: Some(reason), missing, status, ..described })
}

impl Denial {
    fn new(status: u16, body: &Body<'_>, challenge: Option<String>) -> Self {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            // A grant acts at once. A cache must not keep an earlier denial.
            ("cache-control", "no-store".to_owned()),
        ];
        headers.extend(challenge.map(|challenge| ("www-authenticate", challenge)));
        headers.extend((status == 503).then(|| ("retry-after", "1".to_owned())));
        // Two texts are always written.
        let body = serde_json::to_string(body).unwrap_or_default();
        Self { status, headers, body }
    }
}
