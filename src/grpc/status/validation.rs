//! Validation: the errors of requests that cannot be read: an unknown method, a malformed header,
//! message or field, or a malformed catalog file.
//!
//! Not here: requests that are well-formed and rejected; see [`super::authority`].

use tonic::{Code, Status};

use super::StatusBuilder;
use crate::authority::ApplyError;
use crate::policy::catalog::file::CatalogErrors;
use crate::wire::validate::{InvalidRequest, Violation};

impl From<InvalidRequest> for Status {
    fn from(invalid: InvalidRequest) -> Self {
        StatusBuilder::from(invalid).finish()
    }
}

impl From<InvalidRequest> for StatusBuilder {
    fn from(invalid: InvalidRequest) -> Self {
        let message = match &invalid {
            InvalidRequest::Malformed(violations, count) if violations.len() != 1 => {
                format!("{count} fields are malformed; see the details")
            }
            _ => invalid.to_string(),
        };
        match invalid {
            InvalidRequest::Malformed(violations, count) => {
                Self::new(Code::InvalidArgument, "MALFORMED_REQUEST", message)
                    .malformed(violations)
                    .with("violation_count", count)
            }
            InvalidRequest::TooMany(Violation { field, description }) => {
                let mut status = Self::new(Code::ResourceExhausted, "LIMIT_EXCEEDED", message);
                status.details.add_quota_failure_violation(field, description);
                status
            }
        }
    }
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(error) => error.into(),
            ApplyError::Catalog(CatalogErrors(problems)) => {
                let message = match problems.as_slice() {
                    [problem] => format!("`yaml` {problem}"),
                    all => format!("`yaml` has {} problems; see the details", all.len()),
                };
                let violations = problems.into_iter().map(|problem| Violation {
                    field: "yaml".to_owned(),
                    description: problem.to_string(),
                });
                StatusBuilder::new(Code::InvalidArgument, "CATALOG_MALFORMED", message)
                    .malformed(violations)
                    .finish()
            }
        }
    }
}

/// The server has no such method.
pub fn unknown_method() -> Status {
    let message = "there is no such method: see the server's reflection";
    StatusBuilder::new(Code::Unimplemented, "METHOD_NOT_FOUND", message).finish()
}

/// The header `grpc-timeout` is malformed.
pub fn bad_deadline() -> Status {
    let message = "the header `grpc-timeout` must be one to eight digits and one of `H`, `M`, `S`, `m`, \
                   `u`, `n`";
    StatusBuilder::new(Code::InvalidArgument, "MALFORMED_DEADLINE", message).finish()
}

/// A health check names a service that the server does not have.
pub fn no_such_service() -> Status {
    let message = "there is no service of this name: see the server's reflection";
    StatusBuilder::new(Code::NotFound, "NO_SUCH_SERVICE", message).finish()
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
    StatusBuilder::new(Code::Unimplemented, "COMPRESSED_MESSAGE", message).finish()
}

fn malformed_message(message: &str) -> Status {
    let mut status = StatusBuilder::new(Code::InvalidArgument, "MALFORMED_MESSAGE", message);
    status.details.add_bad_request_violation("message", message);
    status.finish()
}
