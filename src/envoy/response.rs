//! Response: the message that tells Envoy what to do with a request.
//!
//! Not here: what that is; see [`crate::gateway::response`].

use super::metadata::metadata;
use crate::gateway::response::{Denial, Description, Response};
use crate::gateway::upstream::Upstream;
use crate::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::proto::envoy::service::auth::v3::check_response::HttpResponse;
use crate::proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use crate::proto::envoy::r#type::v3::HttpStatus;
use crate::proto::google::rpc::Status;

/// The code of an allow, and of nothing else.
const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// The message for a response.
#[must_use]
pub fn response(response: Response, described: Description) -> CheckResponse {
    let (code, http) = match response {
        Response::Allowed(upstream) => (OK, HttpResponse::OkResponse(allowed(upstream))),
        Response::Denied(denial) => {
            (code(denial.status), HttpResponse::DeniedResponse(denied(denial)))
        }
    };
    CheckResponse {
        status: Some(Status { code, message: String::new() }),
        http_response: Some(http),
        dynamic_metadata: Some(metadata(described)),
    }
}

/// The code of a denial with this status. It is never 0.
fn code(status: u16) -> i32 {
    match status {
        400 => INVALID_ARGUMENT,
        401 => UNAUTHENTICATED,
        404 => NOT_FOUND,
        503 => UNAVAILABLE,
        _ => PERMISSION_DENIED,
    }
}

fn allowed(Upstream { set, removed }: Upstream) -> OkHttpResponse {
    let headers = set.into_iter().map(|(name, value)| header(name, value)).collect();
    OkHttpResponse { headers, headers_to_remove: removed }
}

fn denied(Denial { status, headers, body }: Denial) -> DeniedHttpResponse {
    let headers = headers.into_iter().map(|(name, value)| header(name, value)).collect();
    DeniedHttpResponse { status: Some(HttpStatus { code: status.into() }), headers, body }
}

/// A header that is there once, whatever was sent.
fn header(name: &str, value: String) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value, ..Default::default() };
    let append_action = HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    HeaderValueOption { header: Some(header), append_action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reason::Reason;

    #[test]
    fn no_denial_has_the_code_of_an_allow() {
        for status in 0..=599 {
            assert_ne!(code(status), OK, "{status}");
        }
        let of = |reason: Reason| code(reason.http_status());
        assert_eq!(of(Reason::TokenInvalid), UNAUTHENTICATED);
        assert_eq!(of(Reason::ScopeNotGranted), PERMISSION_DENIED);
        assert_eq!(of(Reason::EndpointUnknown), NOT_FOUND);
        assert_eq!(of(Reason::TokenUnverifiable), UNAVAILABLE);
        assert_eq!(code(400), INVALID_ARGUMENT);
    }
}
