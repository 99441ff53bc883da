//! Validation: the statuses of requests that gRPC cannot read: an unknown method, a malformed header or
//! a malformed message.
//!
//! Not here: malformed fields of a message; see [`crate::wire::validate`].

use std::fmt::Display;

use tonic::Status;

use crate::authority::problem::{Code, Detail, Problem, Violation};

/// The server has no such method.
pub fn unknown_method() -> Status {
    let message = "there is no such method: see the server's reflection";
    Problem::new(Code::Unimplemented, "METHOD_NOT_FOUND", message).into()
}

/// The method is for replicas, and the server is a single one.
pub fn not_a_replica() -> Status {
    let message = "this server is not one of several replicas: it was started without --replicate";
    Problem::new(Code::Unimplemented, "METHOD_NOT_FOUND", message).into()
}

/// The header `grpc-timeout` is malformed.
pub fn bad_deadline() -> Status {
    let message = "the header `grpc-timeout` must be one to eight digits and one of `H`, `M`, `S`, `m`, \
                   `u`, `n`";
    Problem::new(Code::InvalidArgument, "MALFORMED_DEADLINE", message).into()
}

/// A health check names a service that the server does not have.
pub fn no_such_service() -> Status {
    let message = "there is no service of this name: see the server's reflection";
    Problem::new(Code::NotFound, "NO_SUCH_SERVICE", message).into()
}

/// The request ended before its message was complete, or has more than one message.
pub fn truncated() -> Status {
    malformed_message("the request is not one complete message: send exactly one")
}

/// The bytes do not decode as a message of this method.
pub fn undecodable() -> Status {
    malformed_message(
        "the request does not decode as a message of this method: compare with its .proto; strings \
         must be UTF-8",
    )
}

/// The message is compressed, or its header declares a compression.
pub fn compressed() -> Status {
    let message = "compressed messages are not supported: send the message uncompressed";
    Problem::new(Code::Unimplemented, "COMPRESSED_MESSAGE", message).into()
}

/// The request message is longer than the limit, in bytes.
pub fn too_long(length: impl Display, limit: impl Display) -> Status {
    Problem::limit("message", format!("the message has {length} bytes, the limit is {limit}"))
        .into()
}

fn malformed_message(message: &str) -> Status {
    Problem::new(Code::InvalidArgument, "MALFORMED_MESSAGE", message)
        .with_violations(Detail::Fields, [Violation::new("message", message)])
        .into()
}
