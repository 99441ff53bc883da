//! Errors of an endpoint path template.

use super::path::{MAX_PATH_LEN, PathError};
use crate::policy::text;

/// Why a template is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct TemplateError {
    /// The offset in bytes of the refused segment in the template; 0 if the problem is the
    /// template as a whole.
    pub offset: usize,
    /// Why.
    pub kind: TemplateErrorKind,
}

impl TemplateError {
    pub(super) fn whole(kind: impl Into<TemplateErrorKind>) -> Self {
        Self { offset: 0, kind: kind.into() }
    }
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// Its literal parts are not a path.
    #[error("the template {0}")]
    Path(#[from] PathError),
    /// It is longer than any path.
    #[error("the template has {0} bytes, the limit is {MAX_PATH_LEN}")]
    TooLong(usize),
    /// A segment mixes braces and text, or a parameter has no name.
    #[error(
        "`{}` is neither a literal nor a parameter like `{{id}}`, `{{id}}:verb` or a last `{{path+}}`",
        short(.0)
    )]
    InvalidSegment(String),
    /// The parameter syntax of another tool.
    #[error("`{}` is the syntax of another tool; here {instead}", short(.segment))]
    ForeignSyntax {
        /// The segment.
        segment: String,
        /// The advice.
        instead: &'static str,
    },
    /// A parameter's name has other characters.
    #[error(
        "`{}` is not a parameter's name: use letters, digits, `_`, `-`, and `.` inside", short(.0)
    )]
    InvalidName(String),
    /// Two parameters of the template have one name.
    #[error("duplicate parameter `{}`: give each parameter its own name", short(.0))]
    DuplicateName(String),
    /// A parameter for the rest of the path is not the last segment.
    #[error(
        "`{}` matches the rest of the path, so it must be the last segment, without a `/` after it; write `{{name}}` for one segment",
        short(.0)
    )]
    RestNotLast(String),
    /// A segment before the last one has a `;`.
    #[error("`{}` has a `;`, where some servers end the path: only the last segment can have one", short(.0))]
    Semicolon(String),
    /// The text after a parameter is not a verb.
    #[error("`:{}` is not a verb: write `:` and letters, digits, `-`, `.`, `_` or `~`", short(.0))]
    InvalidVerb(String),
    /// Some servers take it for a literal or verb of another template.
    #[error(
        "ambiguous segment `{}`: some servers match it as another endpoint's segment `{}`; write both the same way, or remove one",
        short(.segment), short(.other)
    )]
    AmbiguousSegment {
        /// The segment.
        segment: String,
        /// The other one.
        other: String,
    },
    /// All templates together have too many segments.
    #[error("the paths of the catalog have more than {0} segments: remove some endpoints")]
    TooManySegments(usize),
    /// Another template has the same shape.
    #[error("another endpoint has the same method and the same shape of path")]
    DuplicateShape,
}

fn short(text: &str) -> String {
    text::quoted(text, 80)
}
