//! Call problems: a caller that is not authenticated, a limit that is reached, a deadline that passed,
//! and a server that starts, stops or fails.
//!
//! Not here: how the limits are enforced; see `transport`. Nor the reason of a rejected caller that only
//! the operator's log gets; see `observe`.

use std::time::Duration;

use super::{Code, Problem};
use crate::authority::error::AuthorityError;
use crate::metrics::memory_budget::Exhausted;
use crate::policy::keyring::AuthenticationError;

/// The reason of a key that was revoked or expired during the call.
pub(super) const REVOKED: &str = "KEY_UNKNOWN";

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        let reason = match error {
            AuthenticationError::Unsettled => {
                let message = error.to_string();
                return Self::new(Code::Unavailable, "STORE_UNAVAILABLE", message).retry();
            }
            AuthenticationError::Nothing => "KEY_REQUIRED",
            AuthenticationError::Unknown => "KEY_UNKNOWN",
            AuthenticationError::Expired => "KEY_EXPIRED",
            AuthenticationError::Certificate => "CERTIFICATE_REQUIRED",
        };
        Self::new(Code::Unauthenticated, reason, error.to_string())
    }
}

/// The caller's roles do not allow the method, or its key is not bound to the company.
pub fn not_permitted() -> Problem {
    let message = "the key does not permit this call, or not for this company: ask an operator";
    Problem::new(Code::PermissionDenied, "NOT_PERMITTED", message)
}

/// The caller's key was revoked or expired during the call.
pub fn caller_revoked() -> Problem {
    AuthorityError::CallerRevoked.into()
}

/// The server is still opening the store.
pub fn not_ready() -> Problem {
    Problem::new(Code::Unavailable, "STORE_UNAVAILABLE", "the store is being opened").retry()
}

/// The server shuts down. The message says how to continue.
pub fn shutting_down(message: &str) -> Problem {
    Problem::new(Code::Unavailable, "SHUTTING_DOWN", message).retry()
}

/// The server shuts down during a stream that cannot be resumed, such as a backup.
pub fn ending() -> Problem {
    shutting_down("the server is shutting down: call again when it is back")
}

/// The server shuts down during a call.
pub fn server_ending() -> Problem {
    shutting_down(
        "the server is shutting down: call again; resume a change stream after its last cursor",
    )
}

/// A connection closes during a call.
pub fn connection_ending() -> Problem {
    let message = "the connection was asked to close and its grace period has passed: call again on \
                   another connection; resume a change stream after its last cursor";
    Problem::new(Code::Unavailable, "CONNECTION_ENDING", message).retry()
}

/// The deadline of the call passed.
pub fn deadline_exceeded() -> Problem {
    Problem::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed")
}

/// The request message was not received completely within `--request-timeout`.
pub fn body_timeout(time: Duration) -> Problem {
    let message = format!("the request was not received completely within {} s", time.as_secs());
    Problem::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message)
}

/// The handler ended without a response.
pub fn internal() -> Problem {
    Problem::new(Code::Internal, "INTERNAL", "the call ended without a response")
}

/// The API key is above its rate limit, in requests per second.
pub fn rate_limited(limit: u32) -> Problem {
    let message = format!(
        "too many requests per second of this API key (limit {limit}; Check, BatchCheck and \
         VerifySecret do not count)"
    );
    Problem::limit("calls", message).retry()
}

/// The worker has as many requests in flight as it accepts. This request has not been started.
pub fn overloaded(limit: usize) -> Problem {
    let message = format!("too many requests in flight on this worker (limit {limit})");
    Problem::limit("calls", message).retry()
}

/// The API key has as many requests in flight on this worker as one key may have. This request has
/// not been started.
pub fn too_many_of_key(limit: usize) -> Problem {
    let message = format!(
        "too many requests of this API key in flight on this worker (limit {limit}): wait for \
         responses first"
    );
    Problem::limit("calls", message).retry()
}

/// The request headers are larger than `--max-header-bytes`.
pub fn too_large_headers(size: usize, limit: usize) -> Problem {
    let message = format!(
        "the request headers have {size} bytes, the limit is {limit}: send fewer, or raise \
         `--max-header-bytes`"
    );
    Problem::limit("headers", message)
}

/// The limit on open requests of this kind is reached, on one connection or on the whole server.
pub fn too_many_open(kind: &str, limit: usize, scope: &str) -> Problem {
    let message = format!("too many open {kind} {scope} (limit {limit}): end some first");
    Problem::limit(kind, message).retry()
}

/// The API key has as many List requests in flight or queued as one key may have.
pub fn too_many_lists(limit: usize) -> Problem {
    let message = format!(
        "too many List requests of this API key in flight (limit {limit}): wait for responses first"
    );
    Problem::limit("lists", message).retry()
}

/// The memory budget has no space for this request: that of the server or that of one key.
pub fn no_memory(exhausted: Exhausted) -> Problem {
    let message = match exhausted {
        Exhausted::All(limit) => format!(
            "the memory for requests and responses is exhausted (limit {limit} bytes): call again \
             later"
        ),
        Exhausted::Account(limit) => format!(
            "the memory for requests and responses of this API key is exhausted (limit {limit} \
             bytes): wait for the responses to other requests, and read them"
        ),
    };
    Problem::limit("memory", message).retry()
}
