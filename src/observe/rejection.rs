//! Rejection: why a caller was rejected, for the operator's log. The caller gets less detail.
//!
//! The reason is the source of the response's status. It is never sent.
//!
//! Not here: the log itself; see `observe::rejected_callers`.

use http::Response;
use tonic::{Code, Status};

use crate::authority::admission::{AccessError, AdmissionError};
use crate::policy::caller::Caller;
use crate::policy::keyring::AuthenticationError;

/// Why a caller was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectionReason {
    /// The caller presents neither a key nor a known certificate.
    NoKey,
    /// The key is unknown: it never existed, or it was deleted.
    UnknownKey,
    /// The key has expired.
    ExpiredKey,
    /// The key was deleted or expired during the call.
    RevokedKey,
    /// The key is valid only together with another client certificate.
    KeyCertificate,
    /// The key has no role that may make this call.
    Role,
    /// The key is not for this company.
    Company,
    /// The client presents no certificate in the TLS handshake.
    NoClientCertificate,
    /// The client presents a certificate that is not valid.
    ClientCertificate,
}

impl RejectionReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::NoKey,
        Self::UnknownKey,
        Self::ExpiredKey,
        Self::RevokedKey,
        Self::KeyCertificate,
        Self::Role,
        Self::Company,
        Self::NoClientCertificate,
        Self::ClientCertificate,
    ];

    /// The name of the reason, in the log and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoKey => "KEY_REQUIRED",
            Self::UnknownKey => "KEY_UNKNOWN",
            Self::ExpiredKey => "KEY_EXPIRED",
            Self::RevokedKey => "KEY_REVOKED",
            Self::KeyCertificate => "CERTIFICATE_REQUIRED",
            Self::Role => "ROLE_NOT_PERMITTED",
            Self::Company => "COMPANY_NOT_PERMITTED",
            Self::NoClientCertificate => "CLIENT_CERTIFICATE_REQUIRED",
            Self::ClientCertificate => "CLIENT_CERTIFICATE_INVALID",
        }
    }
}

impl From<AuthenticationError> for RejectionReason {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::Nothing => Self::NoKey,
            AuthenticationError::Unknown => Self::UnknownKey,
            AuthenticationError::Expired | AuthenticationError::Unsettled => Self::ExpiredKey,
            AuthenticationError::Certificate => Self::KeyCertificate,
        }
    }
}

/// A rejected caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: {}", why.name())]
pub struct RejectedCaller {
    /// The reason.
    pub why: RejectionReason,
    /// The public id of the caller's key, if it presented one.
    pub key_id: Option<Box<str>>,
}

impl RejectedCaller {
    /// Attaches a rejection to the status that the caller gets.
    pub(crate) fn beside(mut status: Status, why: RejectionReason, key_id: Option<&str>) -> Status {
        status.set_source(std::sync::Arc::new(Self { why, key_id: key_id.map(Into::into) }));
        status
    }

    /// Attaches the rejection of this caller to the status that the caller gets.
    #[must_use]
    pub fn caller(status: Status, why: RejectionReason, caller: &Caller) -> Status {
        let key_id = match caller {
            Caller::Key(key) => Some(key.id.as_str()),
            Caller::Internal | Caller::Anonymous => None,
        };
        Self::beside(status, why, key_id)
    }

    /// The rejected caller of a call that was not admitted; none if a limit was reached.
    #[must_use]
    pub fn of_admission(error: &AdmissionError) -> Option<Self> {
        match error {
            AdmissionError::Unauthenticated { error, key_id } => {
                Some(Self { why: (*error).into(), key_id: key_id.clone() })
            }
            AdmissionError::Role(caller) => {
                Some(Self { why: RejectionReason::Role, key_id: None }.of_caller(Some(caller)))
            }
            AdmissionError::Overloaded(_)
            | AdmissionError::UnknownMethod
            | AdmissionError::TooManyOfKey(_)
            | AdmissionError::RateLimited(_) => None,
        }
    }

    /// The rejected caller of a call whose message was not allowed.
    #[must_use]
    pub fn of_access(error: &AccessError) -> Self {
        let (why, caller) = match error {
            AccessError::Revoked(caller) => (RejectionReason::RevokedKey, caller),
            AccessError::Company(caller) => (RejectionReason::Company, caller),
        };
        Self { why, key_id: None }.of_caller(Some(caller))
    }

    /// The rejection, with the key of this caller if it has none yet.
    #[must_use]
    pub fn of_caller(mut self, caller: Option<&Caller>) -> Self {
        if let (None, Some(Caller::Key(key))) = (&self.key_id, caller) {
            self.key_id = Some(key.id.as_str().into());
        }
        self
    }

    /// The rejected caller, if a response with this code is a rejection.
    #[must_use]
    pub fn of<B>(code: Code, response: &Response<B>) -> Option<Self> {
        let why = match code {
            Code::Unauthenticated => RejectionReason::RevokedKey,
            Code::PermissionDenied => RejectionReason::Role,
            _ => return None,
        };
        let source = response.extensions().get::<Status>().and_then(std::error::Error::source);
        let rejected = source.and_then(|source| source.downcast_ref::<Self>()).cloned();
        Some(rejected.unwrap_or(Self { why, key_id: None }))
    }
}
