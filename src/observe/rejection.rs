//! Refused: why a caller was refused, for the operator's log: more than the caller is told.
//!
//! It is kept beside the status of the answer, and is never on the wire.
//!
//! Not here: the log itself; the server writes it.

use http::Response;
use tonic::{Code, Status};

use crate::policy::caller::Caller;
use crate::policy::keyring::AuthenticationError;

/// Why a caller was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectionReason {
    /// It presents neither a key nor a certificate that is known.
    NoKey,
    /// Its key is not known: never was, or was deleted.
    UnknownKey,
    /// Its key has expired.
    ExpiredKey,
    /// Its key was deleted, or has expired, while its call went on.
    RevokedKey,
    /// Its key is good only together with another client certificate.
    KeyCertificate,
    /// Its key has no role for this call.
    Role,
    /// Its key is not for this company.
    Company,
    /// It shows no client certificate in the TLS handshake.
    NoClientCertificate,
    /// It shows a client certificate that is not valid.
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

    /// Its name, in the log and in metrics.
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
    fn from(why: AuthenticationError) -> Self {
        match why {
            AuthenticationError::Nothing => Self::NoKey,
            AuthenticationError::Unknown => Self::UnknownKey,
            AuthenticationError::Expired | AuthenticationError::Unsettled => Self::ExpiredKey,
            AuthenticationError::Certificate => Self::KeyCertificate,
        }
    }
}

/// A refused caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: {}", why.name())]
pub struct RejectedCaller {
    /// Why.
    pub why: RejectionReason,
    /// The public id of its key, if it presented one.
    pub key_id: Option<Box<str>>,
}

impl RejectedCaller {
    /// Keeps it beside the status that the caller gets.
    pub(crate) fn beside(mut status: Status, why: RejectionReason, key_id: Option<&str>) -> Status {
        status.set_source(std::sync::Arc::new(Self { why, key_id: key_id.map(Into::into) }));
        status
    }

    /// Keeps who it is beside the status that a caller gets.
    #[must_use]
    pub fn caller(status: Status, why: RejectionReason, caller: &Caller) -> Status {
        let key_id = match caller {
            Caller::Key(key) => Some(key.id.as_str()),
            Caller::Internal | Caller::Anonymous => None,
        };
        Self::beside(status, why, key_id)
    }

    /// The same, of this caller if it is not known yet.
    #[must_use]
    pub fn of_caller(mut self, caller: Option<&Caller>) -> Self {
        if let (None, Some(Caller::Key(key))) = (&self.key_id, caller) {
            self.key_id = Some(key.id.as_str().into());
        }
        self
    }

    /// The caller that was refused by an answer with this code, if it was.
    #[must_use]
    pub fn of<B>(code: Code, response: &Response<B>) -> Option<Self> {
        let why = match code {
            Code::Unauthenticated => RejectionReason::RevokedKey,
            Code::PermissionDenied => RejectionReason::Role,
            _ => return None,
        };
        let source = response.extensions().get::<Status>().and_then(std::error::Error::source);
        let refused = source.and_then(|source| source.downcast_ref::<Self>()).cloned();
        Some(refused.unwrap_or(Self { why, key_id: None }))
    }
}
