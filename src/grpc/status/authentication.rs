//! Authentication: the errors of callers that are not authenticated, or that may not call a method.
//!
//! Not here: the reason that only the operator's log gets; see [`crate::observe::rejection`].

use tonic::{Code, Status};

use super::StatusBuilder;
use crate::policy::keyring::AuthenticationError;

/// The caller is not authenticated.
pub fn unauthenticated(error: AuthenticationError) -> Status {
    let reason = match error {
        AuthenticationError::Unsettled => {
            let message = error.to_string();
            return StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", message)
                .retry()
                .finish();
        }
        AuthenticationError::Nothing => "KEY_REQUIRED",
        AuthenticationError::Unknown => "KEY_UNKNOWN",
        AuthenticationError::Expired => "KEY_EXPIRED",
        AuthenticationError::Certificate => "CERTIFICATE_REQUIRED",
    };
    StatusBuilder::new(Code::Unauthenticated, reason, error.to_string()).finish()
}

/// The caller's roles do not allow the method, or its key is not bound to the company.
pub fn not_permitted() -> Status {
    let message = "the key does not permit this call, or not for this company: ask an operator";
    StatusBuilder::new(Code::PermissionDenied, "NOT_PERMITTED", message).finish()
}

/// The reason of a key that was revoked or expired during the call.
pub(super) const REVOKED: &str = "KEY_UNKNOWN";

/// The caller's key was revoked or expired during the call.
pub(super) fn revoked() -> StatusBuilder {
    let message = "the API key was revoked, or has expired: ask an operator for another";
    StatusBuilder::new(Code::Unauthenticated, REVOKED, message)
}

/// The caller's key was revoked or expired during the call.
pub fn caller_revoked() -> Status {
    revoked().finish()
}
