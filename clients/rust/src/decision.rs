//! Decision: the only place that reads a response as an allow. Anything that is not a clear allow
//! is an error.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

use crate::proto::{self, CheckRequest, CheckResponse, Reason};

/// The decision of a check. It is not a bool, so that the application must read it.
#[must_use = "a decision allows or denies nothing by itself"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The call is allowed: for all records, or for the record of the named owner.
    Allowed(Allowed),
    /// The call is allowed for the user's own records only, and the check named no owner: the
    /// application must filter (D17).
    OwnRecords(Allowed),
    /// At least one scope is not effective.
    Denied(Denied),
}

/// An allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed {
    /// The records that the call may access.
    pub reach: Reach,
    /// The revision at which the server decided (D12).
    pub revision: u64,
}

/// The records that an allowed call may access (D17).
#[must_use = "`Own` allows the user's own records only: filter by it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All records.
    All,
    /// The user's own records only.
    Own,
}

/// A denial, with everything that an API needs for its error response (D14).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denied {
    /// The first reason that applies, in the order of D15.
    pub reason: Reason,
    /// The status of an HTTP API: 401, 403, 404 or 503.
    pub http_status: u16,
    /// The code for an error body, such as `invalid_scope`.
    pub error: String,
    /// A sentence that says who can fix the denial, and where. It may be shown to an end user.
    pub message: String,
    /// The needed scopes that are not effective, in the order of the request.
    pub missing_scopes: Vec<String>,
    /// The revision at which the server decided (D12).
    pub revision: u64,
}

/// The reason why a call is not allowed.
#[derive(Clone, Debug)]
pub enum NotAllowed {
    /// The server denied it.
    Denied(Denied),
    /// There is no decision.
    Failed(CheckError),
}

/// A check without a decision: the server was not reached, did not respond in time, rejected the
/// request, or returned no valid decision. It is never an allow.
#[derive(Clone, Debug)]
pub struct CheckError {
    status: Status,
}

impl Decision {
    /// Reads the response to a request. It is an allow only if all of its fields agree, and a
    /// denial whatever its other fields contain.
    pub(crate) fn read(request: &CheckRequest, answer: CheckResponse) -> Result<Self, CheckError> {
        let reason = answer.reason();
        match answer.decision() {
            proto::Decision::Denied => Ok(Self::Denied(Denied {
                reason,
                http_status: match answer.http_status {
                    401 => 401,
                    404 => 404,
                    503 => 503,
                    _ => 403,
                },
                error: if answer.error.is_empty() {
                    "access_denied".to_owned()
                } else {
                    answer.error
                },
                message: answer.message,
                missing_scopes: answer.missing_scopes,
                revision: answer.revision,
            })),
            proto::Decision::Allowed => {
                let reach = match answer.reach() {
                    proto::Reach::All => Reach::All,
                    proto::Reach::Own => Reach::Own,
                    proto::Reach::Unspecified => {
                        return Err(CheckError::invalid_response("a yes without a reach"));
                    }
                };
                if reason != Reason::Allowed || !answer.missing_scopes.is_empty() {
                    return Err(CheckError::invalid_response("a yes that contradicts itself"));
                }
                if answer.revision < request.at_least_revision {
                    return Err(CheckError::invalid_response(
                        "a yes of an older revision than asked for",
                    ));
                }
                let allowed = Allowed { reach, revision: answer.revision };
                Ok(match reach {
                    Reach::Own if request.resource_owner_id.is_empty() => Self::OwnRecords(allowed),
                    Reach::All | Reach::Own => Self::Allowed(allowed),
                })
            }
            proto::Decision::Unspecified => Err(CheckError::invalid_response("no decision")),
        }
    }

    /// The allow for the call, or the error. [`Decision::OwnRecords`] is an error.
    pub fn allowed(self) -> Result<Allowed, Denied> {
        match self {
            Self::Allowed(allowed) => Ok(allowed),
            Self::OwnRecords(allowed) => Err(Denied::owner_unknown(allowed.revision)),
            Self::Denied(denied) => Err(denied),
        }
    }

    /// The allow, also if it is for the user's own records only.
    pub(crate) fn at_least_own(self) -> Result<Allowed, Denied> {
        match self {
            Self::Allowed(allowed) | Self::OwnRecords(allowed) => Ok(allowed),
            Self::Denied(denied) => Err(denied),
        }
    }
}

impl Denied {
    /// The denial for an allow of the user's own records, if no owner is named and the application
    /// does not filter (D17).
    pub(crate) fn owner_unknown(revision: u64) -> Self {
        Self {
            reason: Reason::NotRecordOwner,
            http_status: 403,
            error: "access_denied".to_owned(),
            message: "The user's own permissions allow this for their own records only.".to_owned(),
            missing_scopes: vec![],
            revision,
        }
    }
}

impl CheckError {
    pub(crate) fn new(status: Status) -> Self {
        Self { status }
    }

    pub(crate) fn invalid_response(what: &str) -> Self {
        Self::new(Status::internal(format!("the server's answer is {what}")))
    }

    /// `UNAVAILABLE`, `DEADLINE_EXCEEDED` and `RESOURCE_EXHAUSTED` are temporary.
    /// `INVALID_ARGUMENT` is a malformed check. `UNAUTHENTICATED` and `PERMISSION_DENIED` concern
    /// the key of this client. `INTERNAL` is an invalid response.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// The unchanged status, for logs. It is not for end users.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }
}

impl From<Denied> for NotAllowed {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<CheckError> for NotAllowed {
    fn from(unanswered: CheckError) -> Self {
        Self::Failed(unanswered)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.as_str_name().trim_start_matches("REASON_");
        write!(f, "denied ({reason}): {}", self.message)
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer ({:?}): {}", self.status.code(), self.status.message())
    }
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Failed(unanswered) => unanswered.fmt(f),
        }
    }
}

impl Error for Denied {}

impl Error for CheckError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.status)
    }
}

impl Error for NotAllowed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::Failed(unanswered) => Some(unanswered),
        }
    }
}
