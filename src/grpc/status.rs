//! Status: the gRPC rendering of a [`Problem`]. Every error of the gRPC API is made here: it has a code, an
//! `ErrorInfo` of the domain `scopegate` with a reason, and details for programs.
//!
//! Not here: denials, which are responses. Nor which code, reason and details an error has; see
//! [`crate::authority::problem`].

mod admission;
mod import;
mod validation;

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use self::validation::{
    bad_deadline, compressed, no_such_service, not_a_replica, too_long, truncated, undecodable,
    unknown_method,
};
use super::import::ImportError;
use super::stream_limit::StreamLimitReached;
use crate::authority::ApplyError;
use crate::authority::error::AuthorityError;
use crate::authority::problem::{Detail, Problem, Violation, call};
use crate::metrics::memory_budget::Exhausted;
use crate::policy::keyring::AuthenticationError;
use crate::policy::text;
use crate::wire::validate::{InvalidRequest, MAX_VIOLATIONS};

const DOMAIN: &str = "scopegate";
/// The most bytes of the violations of one status: details are in a trailer, which clients and proxies
/// limit. The number of violations has a limit, too: [`MAX_VIOLATIONS`].
const MAX_BYTES: usize = 2_000;
/// The most bytes of the message, which is in a trailer, too.
const MAX_MESSAGE: usize = 1_000;

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Problem { code, reason, message, details: all } = problem;
        let mut details = ErrorDetails::new();
        let mut metadata = HashMap::new();
        for detail in all {
            match detail {
                Detail::Fields(all) => fitting(all, 0).for_each(|violation| {
                    details.add_bad_request_violation(violation.subject, violation.description);
                }),
                Detail::Preconditions(all) => {
                    // Each violation repeats the reason. One of an impact counts as 40 bytes more.
                    let own = if reason == "IMPACT_NOT_ACKNOWLEDGED" { 40 } else { reason.len() };
                    fitting(all, own).for_each(|Violation { subject, description }| {
                        details.add_precondition_failure_violation(reason, subject, description);
                    });
                }
                Detail::Quotas(all) => fitting(all, 0).for_each(|violation| {
                    details.add_quota_failure_violation(violation.subject, violation.description);
                }),
                Detail::Resource { kind, name, description } => {
                    let kind = format!("scopegate.v1.{kind}");
                    details.set_resource_info(kind, name, "", description);
                }
                Detail::Retry(delay) => {
                    details.set_retry_info(Some(delay));
                }
                Detail::Metadata(name, value) => {
                    metadata.insert(name.to_owned(), value);
                }
            }
        }
        details.set_error_info(reason, DOMAIN, metadata);
        let mut message = text::escaped_lines(&message).into_owned();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self::with_error_details(Code::from_i32(code as i32), message, details)
    }
}

/// The first of these violations that fit, if each has this many bytes beside its texts.
fn fitting(all: Vec<Violation>, own: usize) -> impl Iterator<Item = Violation> {
    let mut remaining = Some(MAX_BYTES);
    all.into_iter().take(MAX_VIOLATIONS).take_while(move |violation| {
        let size = violation.subject.len() + violation.description.len() + own;
        remaining = remaining.and_then(|remaining| remaining.checked_sub(size));
        remaining.is_some()
    })
}

/// The errors that a handler returns as they are.
macro_rules! problems {
    ($($error:ty),*) => {$(
        impl From<$error> for Status {
            fn from(error: $error) -> Self {
                Problem::from(error).into()
            }
        }
    )*};
}

problems!(
    AuthorityError,
    ApplyError,
    InvalidRequest,
    AuthenticationError,
    ImportError,
    StreamLimitReached
);

/// The problems of calls, as statuses.
macro_rules! statuses {
    ($($name:ident($($argument:ident: $type:ty),*)),* $(,)?) => {$(
        #[doc = concat!("The status of [`call::", stringify!($name), "`].")]
        pub fn $name($($argument: $type),*) -> Status {
            call::$name($($argument),*).into()
        }
    )*};
}

statuses!(
    not_permitted(),
    caller_revoked(),
    not_ready(),
    ending(),
    server_ending(),
    connection_ending(),
    deadline_exceeded(),
    body_timeout(time: Duration),
    internal(),
    rate_limited(limit: u32),
    overloaded(limit: usize),
    too_many_of_key(limit: usize),
    too_many_lists(limit: usize),
    too_many_open(kind: &str, limit: usize, scope: &str),
    too_large_headers(size: usize, limit: usize),
    no_memory(exhausted: Exhausted),
);

/// The response to a call that ends with this error.
pub fn response<B: Default>(error: AuthorityError) -> Response<B> {
    Status::from(error).into_http()
}

/// The trailers that end a stream with this status.
#[must_use]
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        // A status that cannot be written as headers; this module makes none.
        Err(_) => HeaderMap::new(),
    }
}

/// Whether these trailers are those of a call that succeeded.
#[must_use]
pub fn is_success(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|code| code == "0")
}

/// A response of tonic to a message that reached no handler, with the status of this module. The
/// responses of tonic have no details; all statuses of this module have.
pub fn with_details<B: Default>(response: Response<B>) -> Response<B> {
    let headers = response.headers();
    if headers.contains_key("grpc-status-details-bin") || !headers.contains_key("grpc-status") {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    match status.code() {
        // The message is longer than the limit.
        Code::OutOfRange if status.message().contains("message length too large") => {
            let sizes: Vec<_> = status.message().split(|c: char| !c.is_ascii_digit()).collect();
            let mut sizes = sizes.into_iter().filter(|size| !size.is_empty());
            let (length, limit) = (sizes.next().unwrap_or("?"), sizes.next().unwrap_or("?"));
            too_long(length, limit).into_http()
        }
        Code::Unimplemented if status.message().contains("compressed") => compressed().into_http(),
        // The message is compressed, but its header declares no compression.
        Code::Internal if status.message().contains("compressed-flag") => compressed().into_http(),
        Code::Internal => undecodable().into_http(),
        _ => response,
    }
}
