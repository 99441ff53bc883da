//! Refusal: why a request is not carried out: its HTTP status, a sentence, and the headers that belong to
//! the status. The body is one JSON string.
//!
//! Not here: denials, which are decisions; see [`super::decision`].

use std::borrow::Cow;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::entity::Malformed;
use super::route::Endpoint;
use crate::authority::admission::{AccessError, AdmissionError};
use crate::authority::error::AuthorityError;
use crate::authority::problem::{Code, Detail, Problem, call};
use crate::observe::rejection::RejectedCaller;
use crate::policy::keyring::AuthenticationError;
use crate::web::answer::Body;
use crate::web::body::BodyError;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: Cow<'static, str>,
    header: StatusHeader,
    /// The caller that was rejected, for the operator's log.
    pub(super) rejected: Option<Box<RejectedCaller>>,
}

/// The header that belongs to a status.
#[derive(Clone, Copy, Debug)]
enum StatusHeader {
    None,
    Allow(&'static str),
    Challenge(&'static str),
    /// In seconds.
    RetryAfter(u64),
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), header: StatusHeader::None, rejected: None }
    }

    fn with(self, header: StatusHeader) -> Self {
        Self { header, ..self }
    }

    /// The request is malformed.
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such path.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this path")
    }

    /// The path has no such method.
    pub(super) fn no_such_method(endpoint: Endpoint) -> Self {
        let refusal =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not answer this method");
        refusal.with(StatusHeader::Allow(endpoint.allow()))
    }

    /// A part of the request is larger than its limit.
    pub(super) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// It cannot be carried out now.
    fn later(message: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        refusal.with(StatusHeader::RetryAfter(seconds.max(1)))
    }

    /// The caller is not authenticated. `has_key`: it presented a key.
    fn unauthenticated(message: impl Into<Cow<'static, str>>, has_key: bool) -> Self {
        let challenge = match has_key {
            true => r#"Bearer realm="scopegate", error="invalid_token""#,
            false => r#"Bearer realm="scopegate""#,
        };
        Self::new(StatusCode::UNAUTHORIZED, message).with(StatusHeader::Challenge(challenge))
    }

    fn of(problem: Problem) -> Self {
        let Problem { code, message, details, .. } = problem;
        let wait = details.iter().find_map(|detail| match detail {
            Detail::Retry(wait) => Some(wait.as_secs()),
            _ => None,
        });
        match code {
            Code::Unauthenticated => Self::unauthenticated(message, true),
            Code::PermissionDenied => Self::new(StatusCode::FORBIDDEN, message),
            // A request has no field by which the authority could refuse it, so it cannot answer now.
            _ => Self::later(message, wait.unwrap_or(1)),
        }
    }

    /// The refusal of a caller that is not admitted. `has_key`: it presented a key.
    pub(super) fn of_admission(error: AdmissionError, has_key: bool) -> Self {
        let rejected = RejectedCaller::of_admission(&error).map(Box::new);
        let refusal = match error {
            AdmissionError::Unauthenticated { error: AuthenticationError::Unsettled, .. } => {
                Self::of(AuthenticationError::Unsettled.into())
            }
            AdmissionError::Unauthenticated { error, .. } => {
                Self::unauthenticated(error.to_string(), has_key)
            }
            AdmissionError::Role(_) => Self::of(call::not_permitted()),
            AdmissionError::Overloaded(limit) => Self::of(call::overloaded(limit)),
            AdmissionError::TooManyOfKey(limit) => Self::of(call::too_many_of_key(limit)),
            AdmissionError::RateLimited(limit) => Self::of(call::rate_limited(limit)),
            AdmissionError::UnknownMethod => Self::no_such_path(),
        };
        Self { rejected, ..refusal }
    }

    /// The response.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &self.message);
        let (name, value) = match self.header {
            StatusHeader::None => return response,
            StatusHeader::Allow(methods) => (ALLOW, HeaderValue::from_static(methods)),
            StatusHeader::Challenge(challenge) => {
                (WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            }
            StatusHeader::RetryAfter(seconds) => (RETRY_AFTER, HeaderValue::from(seconds)),
        };
        response.headers_mut().insert(name, value);
        response
    }
}

impl From<Malformed> for Refusal {
    fn from(Malformed(message): Malformed) -> Self {
        Self::malformed(message)
    }
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        let rejected = Some(Box::new(RejectedCaller::of_access(&error)));
        let problem = match error {
            AccessError::Revoked(_) => call::caller_revoked(),
            AccessError::Company(_) => call::not_permitted(),
        };
        Self { rejected, ..Self::of(problem) }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::of(problem)
    }
}

impl From<AuthorityError> for Refusal {
    fn from(error: AuthorityError) -> Self {
        Self::of(error.into())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::too_large("the request has more bytes than the limit"),
            BodyError::TooSlow => Self::later("the request did not arrive in time", 1),
            BodyError::Incomplete => Self::malformed("the request is not complete"),
            BodyError::NoMemory(exhausted) => Self::of(call::no_memory(exhausted)),
        }
    }
}

/// A response with JSON, which no cache may keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
