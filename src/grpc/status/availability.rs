//! Availability: the errors of a server that starts, stops or fails, and of deadlines that passed.
//!
//! Not here: limits; see [`super::limit`].

use std::time::Duration;

use tonic::{Code, Status};

use super::StatusBuilder;

/// The server is still opening the store.
pub fn not_ready() -> Status {
    StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", "the store is being opened")
        .retry()
        .finish()
}

/// The server shuts down during a stream that cannot be resumed, such as a backup.
pub fn ending() -> Status {
    shutting_down("the server is shutting down: call again when it is back").finish()
}

/// The server shuts down during a call.
#[must_use]
pub fn server_ending() -> Status {
    shutting_down(
        "the server is shutting down: call again; resume a change stream after its last cursor",
    )
    .finish()
}

/// An error of a server that shuts down.
pub(super) fn shutting_down(message: &str) -> StatusBuilder {
    StatusBuilder::new(Code::Unavailable, "SHUTTING_DOWN", message).retry()
}

/// A connection closes during a call.
#[must_use]
pub fn connection_ending() -> Status {
    let message = "the connection was asked to close and its grace period has passed: call again on \
                   another connection; resume a change stream after its last cursor";
    StatusBuilder::new(Code::Unavailable, "CONNECTION_ENDING", message).retry().finish()
}

/// The deadline of the call passed.
pub fn deadline_exceeded() -> Status {
    StatusBuilder::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed").finish()
}

/// The request message was not received completely within `--request-timeout`.
pub fn body_timeout(time: Duration) -> Status {
    let message = format!("the request was not received completely within {} s", time.as_secs());
    StatusBuilder::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message).finish()
}

/// The handler ended without a response.
pub fn internal() -> Status {
    StatusBuilder::new(Code::Internal, "INTERNAL", "the call ended without a response").finish()
}
