//! Problem: an error as data, the same for all transports: a code, a reason, a message and details.
//! Each transport renders it in its own format. The word is that of RFC 9457.
//!
//! Not here: denials, which are answers (D14). Nor the format and the limits of a transport. No text
//! contains an error of the store engine, a path or a secret.

mod authority;
pub mod call;

use std::time::Duration;

/// The most violations that a problem lists. The metadata `violation_count` has the number of all.
const MAX_LISTED: usize = 100;

/// What kind of error a problem is, with the number of `google.rpc.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words are those of google.rpc.Code, which describes them")]
pub enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// An error of a call to scopegate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Problem {
    /// What kind of error it is.
    pub code: Code,
    /// Why, as a word for programs.
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// More, for programs.
    pub details: Vec<Detail>,
}

/// A detail of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Malformed fields of the request.
    Fields(Vec<Violation>),
    /// Preconditions that are not met.
    Preconditions(Vec<Violation>),
    /// Limits that are reached.
    Quotas(Vec<Violation>),
    /// A resource that exists, or does not exist.
    Resource {
        /// The name of its message in the API.
        kind: &'static str,
        /// Its id.
        name: String,
        /// What is wrong with it.
        description: String,
    },
    /// The caller can send the same request again after this time.
    Retry(Duration),
    /// A value with a name.
    Metadata(&'static str, String),
}

/// One of the things that are wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong: the path of a field in the request, a resource or a limit.
    pub subject: String,
    /// Why it is wrong, and what is valid.
    pub description: String,
}

impl Violation {
    /// The violation of this subject.
    pub fn new(subject: impl Into<String>, description: impl Into<String>) -> Self {
        Self { subject: subject.into(), description: description.into() }
    }
}

impl Problem {
    /// A problem without details.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Vec::new() }
    }

    /// A limit on this subject is reached. The message is a whole sentence.
    pub fn limit(subject: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(Code::ResourceExhausted, "LIMIT_EXCEEDED", message.as_str())
            .with_violations(Detail::Quotas, [Violation::new(subject, message)])
    }

    /// Adds a detail.
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    /// Adds metadata. The last value of a name counts.
    pub fn with_metadata(self, name: &'static str, value: impl ToString) -> Self {
        self.with(Detail::Metadata(name, value.to_string()))
    }

    /// Adds the first of these violations, as a detail of this kind.
    pub fn with_violations(
        self,
        kind: fn(Vec<Violation>) -> Detail,
        all: impl IntoIterator<Item = Violation>,
    ) -> Self {
        self.with(kind(all.into_iter().take(MAX_LISTED).collect()))
    }

    /// Adds the number of all violations, also of those that are not listed.
    pub fn with_count(self, violations: impl ToString) -> Self {
        self.with_metadata("violation_count", violations)
    }

    /// The caller can try again after a second.
    pub fn retry(self) -> Self {
        self.with(Detail::Retry(Duration::from_secs(1)))
    }

    /// Makes this a problem of one item of a request: prefixes each field with the path of the item.
    pub fn at(mut self, item: &str) -> Self {
        self.message = format!("`{item}`: {}", self.message);
        for detail in &mut self.details {
            if let Detail::Fields(fields) = detail {
                for field in fields {
                    field.subject = format!("{item}.{}", field.subject);
                }
            }
        }
        self
    }
}
