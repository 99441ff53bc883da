//! Status: the only place that makes an error of the gRPC API. Every error has a code, an `ErrorInfo` of
//! the domain `scopegate` with a reason, and details for programs; one file for each kind.
//!
//! Not here: denials, which are responses. No text contains an error of the store engine, a path or a
//! secret.

mod admission;
mod authentication;
mod authority;
mod availability;
mod import;
mod limit;
mod validation;

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(super) use self::authentication::caller_revoked;
pub(super) use self::authentication::not_permitted;
use self::authentication::unauthenticated;
pub(super) use self::availability::{body_timeout, ending};
pub use self::availability::{
    connection_ending, deadline_exceeded, internal, not_ready, server_ending,
};
pub(super) use self::limit::{no_memory, too_large_headers, too_long, too_many_watchers};
pub use self::limit::{overloaded, too_many_lists, too_many_open};
use self::limit::{rate_limited, too_many_of_key};
pub use self::validation::{bad_deadline, compressed, no_such_service, unknown_method};
pub(super) use self::validation::{truncated, undecodable};
use crate::policy::text;
use crate::wire::validate::{MAX_VIOLATIONS, Violation};

const DOMAIN: &str = "scopegate";
/// The most bytes of the violations of one status: details are in a trailer, which clients and proxies
/// limit. The number of violations has a limit, too: [`MAX_VIOLATIONS`].
const MAX_BYTES: usize = 2_000;

/// Builds a status with its details.
struct StatusBuilder {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl StatusBuilder {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, reason, metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds as many violations as fit, and the number of all.
    fn violations<V>(
        mut self,
        count: usize,
        all: impl IntoIterator<Item = V>,
        size: impl Fn(&V) -> usize,
        add: impl Fn(&mut ErrorDetails, V),
    ) -> Self {
        let mut remaining = MAX_BYTES;
        for violation in all.into_iter().take(MAX_VIOLATIONS) {
            let Some(rest) = remaining.checked_sub(size(&violation)) else {
                break;
            };
            remaining = rest;
            add(&mut self.details, violation);
        }
        self.with("violation_count", count)
    }

    fn malformed(
        self,
        violations: impl IntoIterator<Item = Violation, IntoIter: ExactSizeIterator>,
    ) -> Self {
        let violations = violations.into_iter();
        let size = |v: &Violation| v.field.len() + v.description.len();
        self.violations(violations.len(), violations, size, |details, violation| {
            details.add_bad_request_violation(violation.field, violation.description);
        })
    }

    /// Makes this an error of one item of a request: prefixes each field with the path of the item.
    fn at(mut self, item: &str) -> Self {
        self.message = format!("`{item}`: {}", self.message);
        if let Some(bad) = self.details.bad_request().cloned() {
            self.details.set_bad_request(
                bad.field_violations
                    .into_iter()
                    .map(|mut violation| {
                        violation.field = format!("{item}.{}", violation.field);
                        violation
                    })
                    .collect::<Vec<_>>(),
            );
        }
        self
    }

    fn retry(mut self) -> Self {
        self.details.set_retry_info(Some(Duration::from_secs(1)));
        self
    }

    fn finish(mut self) -> Status {
        self.details.set_error_info(self.reason, DOMAIN, self.metadata);
        self.message = text::escaped_lines(&self.message).into_owned();
        // The message is in a trailer, too.
        if self.message.len() > 1_000 {
            let mut end = 1_000;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
            self.message.push('…');
        }
        Status::with_error_details(self.code, self.message, self.details)
    }
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
