//! Decision: what was answered. The one place where a message is read as a yes, and whatever is
//! not plainly one is none.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

use crate::proto::{self, CheckRequest, CheckResponse, Reason};

/// The answer to a check. It has no bool: what is not looked at allows nothing.
#[must_use = "a decision allows or denies nothing by itself"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The call is allowed as it is: for all records, or for that of the owner who was named.
    Allowed(Allowed),
    /// The call is allowed for the user's own records only, and no owner was named: whoever goes
    /// on filters (D17).
    OwnRecords(Allowed),
    /// At least one scope is not effective.
    Denied(Denied),
}

/// A yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowed {
    /// How far it reaches.
    pub reach: Reach,
    /// The revision at which it was decided (D12).
    pub revision: u64,
}

/// How far a yes reaches (D17).
#[must_use = "`Own` allows the user's own records only: filter by it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All records.
    All,
    /// The user's own records only.
    Own,
}

/// A no, and all that an API needs to say so (D14).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denied {
    /// The first thing that failed, in the order of D15.
    pub reason: Reason,
    /// What an HTTP API answers: 401, 403 or 404.
    pub http_status: u16,
    /// The word for an error body, such as `invalid_scope`.
    pub error: String,
    /// Who can mend it and where, in a sentence fit for an end user.
    pub message: String,
    /// The needed scopes that are not effective, in the order asked.
    pub missing_scopes: Vec<String>,
    /// The revision at which it was decided (D12).
    pub revision: u64,
}

/// Why there is no yes.
#[derive(Clone, Debug)]
pub enum NotAllowed {
    /// Because the answer is no.
    Denied(Denied),
    /// Because there is no answer.
    Failed(CheckError),
}

/// A question without an answer: nobody could be asked, nobody answered in time, the question was
/// refused, or what came back is no decision. Never an allow.
#[derive(Clone, Debug)]
pub struct CheckError {
    status: Status,
}

impl Decision {
    /// Reads the answer to a request. Only a message that says yes in every field that could say
    /// otherwise is a yes, and a no stays one whatever else is in it.
    pub(crate) fn read(request: &CheckRequest, answer: CheckResponse) -> Result<Self, CheckError> {
        let reason = answer.reason();
        match answer.decision() {
            proto::Decision::Denied => Ok(Self::Denied(Denied {
                reason,
                http_status: match answer.http_status {
                    401 => 401,
                    404 => 404,
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

    /// The yes to the call as it is, or why there is none. [`Decision::OwnRecords`] is none.
    pub fn allowed(self) -> Result<Allowed, Denied> {
        match self {
            Self::Allowed(allowed) => Ok(allowed),
            Self::OwnRecords(allowed) => Err(Denied::owner_unknown(allowed.revision)),
            Self::Denied(denied) => Err(denied),
        }
    }

    /// The yes, if only to the user's own records.
    pub(crate) fn at_least_own(self) -> Result<Allowed, Denied> {
        match self {
            Self::Allowed(allowed) | Self::OwnRecords(allowed) => Ok(allowed),
            Self::Denied(denied) => Err(denied),
        }
    }
}

impl Denied {
    /// What D17 makes of a yes to the user's own records, where nobody says whose record it is and
    /// nobody filters.
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

    /// `UNAVAILABLE`, `DEADLINE_EXCEEDED` or `RESOURCE_EXHAUSTED` pass; `INVALID_ARGUMENT` is a
    /// malformed question, `UNAUTHENTICATED` and `PERMISSION_DENIED` are about this client's own
    /// key; `INTERNAL` is an answer that is none.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.code()
    }

    /// The status as it came, for logs. It is not for end users.
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
