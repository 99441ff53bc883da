//! Names: the public names of status codes and of decision reasons, for responses, logs, metrics and
//! the CLI.
//!
//! Not here: the reasons of errors (`ErrorInfo.reason`); see [`crate::authority::problem`].

use tonic::Code;

use super::render;
use crate::policy::reason::Reason;

/// The name of a reason of a decision in the public API, without the prefix `REASON_`.
#[must_use]
pub fn reason_name(reason: Reason) -> &'static str {
    let name = render::reason(reason).as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// The name of a status code, as gRPC's specification writes it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
