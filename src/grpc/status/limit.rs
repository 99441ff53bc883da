//! Limits: the errors of requests that are above a limit (RESOURCE_EXHAUSTED, `LIMIT_EXCEEDED`).
//!
//! Not here: how the limits are enforced; see `transport` and [`crate::grpc::memory`].

use tonic::{Code, Status};

use super::StatusBuilder;
use crate::grpc::stream_limit::StreamLimitReached;
use crate::metrics::memory_budget::Exhausted;

/// An error of the limit on this subject. The message is a whole sentence.
pub(super) fn limit(subject: &str, message: impl Into<String>) -> StatusBuilder {
    let message = message.into();
    let mut status =
        StatusBuilder::new(Code::ResourceExhausted, "LIMIT_EXCEEDED", message.as_str());
    status.details.add_quota_failure_violation(subject, message);
    status
}

/// The limit on open change streams is reached: that of the server or that of one key.
pub(in crate::grpc) fn too_many_watchers(reached: StreamLimitReached) -> Status {
    let message = match reached {
        StreamLimitReached::All(limit) => {
            format!("too many open change streams on this server (limit {limit})")
        }
        StreamLimitReached::Key(limit) => format!(
            "too many open change streams of this API key (limit {limit}): end one of them first"
        ),
    };
    limit("streams", message).retry().finish()
}

/// The API key is above its rate limit, in requests per second.
pub fn rate_limited(limit: u32) -> Status {
    let message = format!(
        "too many requests per second of this API key (limit {limit}; Check, BatchCheck and \
         VerifySecret do not count)"
    );
    self::limit("calls", message).retry().finish()
}

/// The worker has as many requests in flight as it accepts. This request has not been started.
pub fn overloaded(limit: usize) -> Status {
    let message = format!("too many requests in flight on this worker (limit {limit})");
    self::limit("calls", message).retry().finish()
}

/// The API key has as many requests in flight on this worker as one key may have. This request has
/// not been started.
pub fn too_many_of_key(limit: usize) -> Status {
    let message = format!(
        "too many requests of this API key in flight on this worker (limit {limit}): wait for \
         responses first"
    );
    self::limit("calls", message).retry().finish()
}

/// The request headers are larger than `--max-header-bytes`.
pub fn too_large_headers(size: usize, limit: usize) -> Status {
    let message = format!(
        "the request headers have {size} bytes, the limit is {limit}: send fewer, or raise \
         `--max-header-bytes`"
    );
    self::limit("headers", message).finish()
}

/// The limit on open requests of this kind is reached, on one connection or on the whole server.
pub fn too_many_open(kind: &str, limit: usize, scope: &str) -> Status {
    let message = format!("too many open {kind} {scope} (limit {limit}): end some first");
    self::limit(kind, message).retry().finish()
}

/// The API key has as many List requests in flight or queued as one key may have.
pub fn too_many_lists(limit: usize) -> Status {
    let message = format!(
        "too many List requests of this API key in flight (limit {limit}): wait for responses first"
    );
    self::limit("lists", message).retry().finish()
}

/// The memory budget has no space for this request: that of the server or that of one key.
pub fn no_memory(exhausted: Exhausted) -> Status {
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
    limit("memory", message).retry().finish()
}

/// The request message is longer than the limit, in bytes.
pub fn too_long(length: impl std::fmt::Display, limit: impl std::fmt::Display) -> Status {
    self::limit("message", format!("the message has {length} bytes, the limit is {limit}")).finish()
}
