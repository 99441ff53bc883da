//! Admission: the statuses of calls that the authority does not admit, with the reason for the
//! operator's log.
//!
//! Not here: the rules; see [`crate::authority::admission`].

use tonic::Status;

use super::{
    caller_revoked, not_permitted, overloaded, rate_limited, too_many_of_key, unknown_method,
};
use crate::authority::admission::{AccessError, AdmissionError};
use crate::observe::rejection::{RejectedCaller, RejectionReason};

impl From<AdmissionError> for Status {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Unauthenticated { error, key_id } => {
                RejectedCaller::beside(error.into(), error.into(), key_id.as_deref())
            }
            AdmissionError::Overloaded(limit) => overloaded(limit),
            AdmissionError::UnknownMethod => unknown_method(),
            AdmissionError::Role(caller) => {
                RejectedCaller::caller(not_permitted(), RejectionReason::Role, &caller)
            }
            AdmissionError::TooManyOfKey(limit) => too_many_of_key(limit),
            AdmissionError::RateLimited(limit) => rate_limited(limit),
        }
    }
}

impl From<AccessError> for Status {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Revoked(caller) => {
                RejectedCaller::caller(caller_revoked(), RejectionReason::RevokedKey, &caller)
            }
            AccessError::Company(caller) => {
                RejectedCaller::caller(not_permitted(), RejectionReason::Company, &caller)
            }
        }
    }
}
