//! Refusal: why a request of a client is not carried out, with its error code, its status and a sentence
//! (RFC 6749 section 5.2).
//!
//! Nothing of the request is repeated: what a client sends may be a secret, and others may read the
//! response.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::authority::admission::AdmissionError;
use crate::authority::error::AuthorityError;
use crate::authority::token_issue::{TokenError, TokenRefusal};
use crate::policy::cause::Cause;
use crate::web::answer::Body;
use crate::web::body::BodyError;

/// An error code, with its status. The words are those of RFC 6749, 7009 and 8707.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidTarget,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedTokenType,
    /// The key of a service has no role for this.
    AccessDenied,
    /// The form has too many bytes.
    TooLarge,
    /// The form did not arrive in time.
    TooSlow,
    /// The client is above a limit of its own.
    TooMany,
    TemporarilyUnavailable,
}

impl ErrorCode {
    /// Every code.
    pub(super) const ALL: [Self; 13] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::UnsupportedTokenType,
        Self::AccessDenied,
        Self::TooLarge,
        Self::TooSlow,
        Self::TooMany,
        Self::TemporarilyUnavailable,
    ];

    /// Its word on the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::TooLarge | Self::TooSlow => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::AccessDenied => "access_denied",
            Self::TooMany | Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The error code.
    pub(super) code: ErrorCode,
    /// A sentence of ASCII without `"` and `\`.
    pub(super) description: &'static str,
    /// The cause of a decision, if that is why.
    pub(super) cause: Option<Cause>,
}

impl Refusal {
    pub(super) const fn new(code: ErrorCode, description: &'static str) -> Self {
        Self { code, description, cause: None }
    }

    pub(super) const fn request(description: &'static str) -> Self {
        Self::new(ErrorCode::InvalidRequest, description)
    }

    /// The response.
    pub(super) fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Error {
            error: &'static str,
            error_description: &'static str,
        }
        let body = Error { error: self.code.word(), error_description: self.description };
        let mut response = json(self.code.status(), &body);
        let headers = response.headers_mut();
        match self.code {
            ErrorCode::InvalidClient => {
                let challenge = HeaderValue::from_static("Basic realm=\"scopegate\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            ErrorCode::TooMany | ErrorCode::TemporarilyUnavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<Cause> for Refusal {
    /// The refusal of a client whose proof has this cause.
    fn from(cause: Cause) -> Self {
        let (code, description) = (ErrorCode::InvalidClient, cause.reason.remedy());
        Self { code, description, cause: Some(cause) }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => {
                Self::new(ErrorCode::TooLarge, "The form has too many bytes for this endpoint.")
            }
            BodyError::TooSlow => Self::new(ErrorCode::TooSlow, "The form did not arrive in time."),
            BodyError::Incomplete => Self::request("The form is not complete."),
            BodyError::NoMemory(_) => UNAVAILABLE,
        }
    }
}

impl From<TokenRefusal> for Refusal {
    fn from(refusal: TokenRefusal) -> Self {
        let code = match refusal.error {
            TokenError::InvalidRequest => ErrorCode::InvalidRequest,
            TokenError::InvalidClient => ErrorCode::InvalidClient,
            TokenError::InvalidGrant => ErrorCode::InvalidGrant,
            TokenError::InvalidScope => ErrorCode::InvalidScope,
            TokenError::InvalidTarget => ErrorCode::InvalidTarget,
            TokenError::UnauthorizedClient => ErrorCode::UnauthorizedClient,
        };
        Self { code, description: refusal.description, cause: refusal.cause }
    }
}

impl From<AuthorityError> for Refusal {
    /// A request has no field by which the authority could refuse it, so it cannot answer now.
    fn from(error: AuthorityError) -> Self {
        tracing::debug!(%error, "a request of an API client could not be answered");
        UNAVAILABLE
    }
}

impl From<AdmissionError> for Refusal {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::TooManyOfKey(_) | AdmissionError::RateLimited(_) => TOO_MANY,
            AdmissionError::Role(_) => NO_ROLE,
            AdmissionError::Unauthenticated { .. } => KEY_UNKNOWN,
            AdmissionError::Overloaded(_) | AdmissionError::UnknownMethod => UNAVAILABLE,
        }
    }
}

/// The store cannot answer now.
pub(super) const UNAVAILABLE: Refusal = Refusal::new(
    ErrorCode::TemporarilyUnavailable,
    "The request cannot be answered at the moment. Try again later.",
);
/// The client or the service is above a limit of its own.
pub(super) const TOO_MANY: Refusal =
    Refusal::new(ErrorCode::TooMany, "This client makes too many requests. Try again later.");
/// The key has no role that may ask what a token is good for.
const NO_ROLE: Refusal =
    Refusal::new(ErrorCode::AccessDenied, "The role of the key does not allow introspection.");
/// A service is not authenticated.
pub(super) const KEY_UNKNOWN: Refusal = Refusal::new(
    ErrorCode::InvalidClient,
    "The key is not known, or has expired, or is not valid at this address.",
);

/// A response with a JSON object, which no cache may keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reason::Reason;

    #[test]
    fn description_is_ascii_without_quotes() {
        let remedies = Reason::ALL.iter().map(|reason| reason.remedy());
        let own = [UNAVAILABLE, TOO_MANY, NO_ROLE, KEY_UNKNOWN].map(|refusal| refusal.description);
        for description in remedies.chain(own) {
            let plain = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
            assert!(description.chars().all(plain), "{description}");
        }
    }
}
