//! ErrorBody: the error response to a request. The challenge follows RFC 6750 section 3. The code
//! and the message of a denial come from the server (D15).

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use tonic::{Code, Status};

use crate::decision::{CheckError, Denied, NotAllowed};
use crate::proto::Reason;

/// The format of the error response to one request.
pub(crate) struct ErrorFormat {
    grpc: bool,
    /// True if the request has an `Authorization` header.
    authorized: bool,
    challenge: Option<HeaderValue>,
}

/// An error response, for HTTP or gRPC.
struct ErrorBody<'a> {
    status: StatusCode,
    error: &'a str,
    message: &'a str,
}

const UNAUTHENTICATED: ErrorBody<'static> = ErrorBody {
    status: StatusCode::UNAUTHORIZED,
    error: "invalid_token",
    message: "The call does not say who makes it in a way that is known here. Send valid credentials with it.",
};
const INVALID_REQUEST: ErrorBody<'static> = ErrorBody {
    status: StatusCode::BAD_REQUEST,
    error: "invalid_request",
    message: "The call cannot be judged as it is written. Check its path.",
};
const UNAVAILABLE: ErrorBody<'static> = ErrorBody {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "temporarily_unavailable",
    message: "Whether the call is allowed cannot be found out now. Try again in a moment.",
};

impl ErrorFormat {
    pub(crate) fn of(parts: &Parts, challenge: Option<HeaderValue>) -> Self {
        let content = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let grpc = content.is_some_and(|content| content.starts_with(b"application/grpc"));
        Self { grpc, authorized: parts.headers.contains_key(AUTHORIZATION), challenge }
    }

    /// The response to a request without a caller.
    pub(crate) fn unauthenticated<B: Default + From<String>>(&self) -> Response<B> {
        self.write(&UNAUTHENTICATED, self.unauthorized())
    }

    pub(crate) fn refused<B: Default + From<String>>(&self, refused: NotAllowed) -> Response<B> {
        let mut response = match &refused {
            NotAllowed::Denied(denied) => self.denied(denied),
            NotAllowed::Failed(unanswered) => self.unanswered(unanswered),
        };
        response.extensions_mut().insert(refused);
        response
    }

    fn denied<B: Default + From<String>>(&self, denied: &Denied) -> Response<B> {
        let status = denied.status();
        let challenge = match status {
            StatusCode::UNAUTHORIZED => self.unauthorized(),
            StatusCode::FORBIDDEN => Some(insufficient(denied)),
            _ => None,
        };
        self.write(&ErrorBody { status, error: &denied.error, message: &denied.message }, challenge)
    }

    fn unanswered<B: Default + From<String>>(&self, unanswered: &CheckError) -> Response<B> {
        self.write(unanswered.refusal(), None)
    }

    /// Without credentials, the challenge has no error code (RFC 6750 section 3.1).
    fn unauthorized(&self) -> Option<HeaderValue> {
        Some(self.challenge.clone().unwrap_or(HeaderValue::from_static(if self.authorized {
            r#"Bearer error="invalid_token""#
        } else {
            "Bearer"
        })))
    }

    fn write<B: Default + From<String>>(
        &self,
        refusal: &ErrorBody<'_>,
        challenge: Option<HeaderValue>,
    ) -> Response<B> {
        if self.grpc {
            return Status::new(code(refusal.status), refusal.message).into_http();
        }
        let (error, message) = (quoted(refusal.error), quoted(refusal.message));
        let mut response =
            Response::new(B::from(format!(r#"{{"error":{error},"message":{message}}}"#)));
        *response.status_mut() = refusal.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A grant applies immediately. A cache must not keep an earlier error.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl NotAllowed {
    /// Converts this to the HTTP response that a [`Guard`](crate::Guard) sends, for handlers that
    /// call the client themselves.
    #[must_use]
    pub fn into_http<B: Default + From<String>>(self) -> Response<B> {
        let bare = matches!(&self, Self::Denied(denied) if denied.reason == Reason::TokenRequired);
        ErrorFormat { grpc: false, authorized: !bare, challenge: None }.refused(self)
    }
}

/// Converts this to the gRPC status that a [`Guard`](crate::Guard) sends, for handlers that call
/// the client themselves.
impl From<NotAllowed> for Status {
    fn from(refused: NotAllowed) -> Self {
        let (status, message) = match &refused {
            NotAllowed::Denied(denied) => (denied.status(), denied.message.as_str()),
            NotAllowed::Failed(unanswered) => {
                let refusal = unanswered.refusal();
                (refusal.status, refusal.message)
            }
        };
        Self::new(code(status), message)
    }
}

impl Denied {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.http_status).unwrap_or(StatusCode::FORBIDDEN)
    }
}

impl CheckError {
    /// An invalid path (D20) or an invalid id is the client's mistake and not an outage.
    fn refusal(&self) -> &'static ErrorBody<'static> {
        if self.code() == Code::InvalidArgument { &INVALID_REQUEST } else { &UNAVAILABLE }
    }
}

/// The gRPC code for an HTTP status, as in the contract.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::PermissionDenied,
    }
}

/// The challenge of a 403. It names the missing scopes, unless the user lacks the permission: a
/// token with other scopes would not help.
fn insufficient(denied: &Denied) -> HeaderValue {
    let bare = HeaderValue::from_static(r#"Bearer error="insufficient_scope""#);
    if matches!(denied.reason, Reason::UserLacksPermission | Reason::NotRecordOwner) {
        return bare;
    }
    // RFC 6749 section 3.3. Other characters would end the quoted string.
    let fit = |scope: &&String| {
        !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    let scopes: Vec<&str> = denied.missing_scopes.iter().filter(fit).map(String::as_str).collect();
    if scopes.is_empty() {
        return bare;
    }
    let named = format!(r#"Bearer error="insufficient_scope", scope="{}""#, scopes.join(" "));
    HeaderValue::from_str(&named).unwrap_or(bare)
}

/// A JSON string (RFC 8259 section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_quotation() {
        assert_eq!(quoted("a \"b\" \\ \n\u{1}é"), r#""a \"b\" \\ \u000a\u0001é""#);
    }

    #[test]
    fn no_scope_ends_the_challenge() {
        let mut denied = Denied::owner_unknown(1);
        denied.reason = Reason::ScopeNotGranted;
        let scopes = ["users:read", "a\", realm=\"b", "two words", "", "new\nline", "é", "api/all"];
        denied.missing_scopes = scopes.map(str::to_owned).to_vec();
        let challenge = insufficient(&denied);
        assert_eq!(challenge, r#"Bearer error="insufficient_scope", scope="users:read api/all""#);
    }
}
