//! Decision: renders the answer to one question.
//!
//! Not here: why a request has no answer; see [`super::refusal`].

use serde::Serialize;

use super::question::NotAskable;
use crate::authority::Answer;
use crate::policy::catalog::Reach;
use crate::policy::decision::Verdict;
use crate::wire::names::reason_name;
use crate::wire::render;

/// The answer to one question.
#[derive(Debug, Serialize)]
pub(super) struct Decision {
    decision: bool,
    context: DecisionContext,
}

#[derive(Debug, Default, Serialize)]
#[serde(default)]
struct DecisionContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorContext>,
    /// A string: a number in JSON has 53 bits in many readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorContext {
    status: u32,
    code: String,
    message: String,
}

impl Decision {
    /// Whether it is an allow.
    pub(super) fn is_allowed(&self) -> bool {
        self.decision
    }

    /// The decision of a check.
    pub(super) fn of(answer: Answer) -> Self {
        let (reach, reason) = match &answer.verdict {
            Verdict::Allowed { reach: Reach::All } => (Some("ALL"), None),
            Verdict::Allowed { reach: Reach::Own } => (Some("OWN"), None),
            Verdict::Denied { reason, .. } => (None, Some(reason_name(*reason))),
        };
        let rendered = render::check(answer);
        let error = || ErrorContext {
            status: rendered.http_status,
            code: rendered.error,
            message: rendered.message,
        };
        Self {
            decision: reason.is_none(),
            context: DecisionContext {
                reach,
                reason,
                missing_scopes: reason.map(|_| rendered.missing_scopes),
                error: reason.map(|_| error()),
                revision: Some(rendered.revision.to_string()),
            },
        }
    }

    /// The decision on what cannot be asked.
    pub(super) fn not_askable(message: String) -> Self {
        let error = ErrorContext { status: 400, code: "invalid_request".to_owned(), message };
        Self {
            decision: false,
            context: DecisionContext { error: Some(error), ..DecisionContext::default() },
        }
    }
}

impl From<NotAskable> for Decision {
    fn from(NotAskable(message): NotAskable) -> Self {
        Self::not_askable(message)
    }
}
