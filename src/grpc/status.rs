//! Status: the only place where an error of the wire is made. Every refusal has its code, an
//! `ErrorInfo` of the domain `scopegate`, and details that a program can read.
//!
//! Not here: denials, which are answers. And no words of a driver, path or secret.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::import::{ImportError, ImportErrorCause};
use super::stream_limit::NoPlace;
use crate::authority::ApplyError;
use crate::authority::error::AuthorityError;
use crate::authority::impact::{Affected, Impact};
use crate::metrics::memory_budget::Exhausted;
use crate::policy::catalog::file::CatalogErrors;
use crate::policy::keyring::AuthenticationError;
use crate::policy::scope::Scope;
use crate::policy::text;
use crate::store::StoreError;
use crate::wire::validate::{InvalidRequest, MAX_VIOLATIONS, Violation};

const DOMAIN: &str = "scopegate";
/// Details travel in a trailer, which peers bound: this many violations, and this many bytes.
const MAX_BYTES: usize = 2_000;

/// A status in the making.
struct StatusBuilder {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl StatusBuilder {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, reason, metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds as many violations as fit, and says how many there are in all.
    fn violations<V>(
        mut self,
        count: usize,
        all: impl IntoIterator<Item = V>,
        size: impl Fn(&V) -> usize,
        add: impl Fn(&mut ErrorDetails, V),
    ) -> Self {
        let mut room = MAX_BYTES;
        for violation in all.into_iter().take(MAX_VIOLATIONS) {
            let Some(left) = room.checked_sub(size(&violation)) else {
                break;
            };
            room = left;
            add(&mut self.details, violation);
        }
        self.with("violation_count", count)
    }

    fn malformed(
        self,
        violations: impl IntoIterator<Item = Violation, IntoIter: ExactSizeIterator>,
    ) -> Self {
        let violations = violations.into_iter();
        let size = |v: &Violation| v.field.len() + v.description.len();
        self.violations(violations.len(), violations, size, |details, violation| {
            details.add_bad_request_violation(violation.field, violation.description);
        })
    }

    /// Says that it is about one item of a request: its path stands before that of each field.
    fn at(mut self, item: &str) -> Self {
        self.message = format!("`{item}`: {}", self.message);
        if let Some(bad) = self.details.bad_request().cloned() {
            self.details.set_bad_request(
                bad.field_violations
                    .into_iter()
                    .map(|mut violation| {
                        violation.field = format!("{item}.{}", violation.field);
                        violation
                    })
                    .collect::<Vec<_>>(),
            );
        }
        self
    }

    fn retry(mut self) -> Self {
        self.details.set_retry_info(Some(Duration::from_secs(1)));
        self
    }

    fn finish(mut self) -> Status {
        self.details.set_error_info(self.reason, DOMAIN, self.metadata);
        self.message = text::escaped_lines(&self.message).into_owned();
        // A message travels in a trailer too.
        if self.message.len() > 1_000 {
            let mut end = 1_000;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
            self.message.push('…');
        }
        Status::with_error_details(self.code, self.message, self.details)
    }
}

impl From<InvalidRequest> for Status {
    fn from(rejection: InvalidRequest) -> Self {
        StatusBuilder::from(rejection).finish()
    }
}

impl From<InvalidRequest> for StatusBuilder {
    fn from(rejection: InvalidRequest) -> Self {
        match rejection {
            InvalidRequest::Malformed(violations, count) => {
                let message = match violations.as_slice() {
                    [one] => format!("`{}` {}", one.field, one.description),
                    _ => format!("{count} fields are malformed; see the details"),
                };
                StatusBuilder::new(Code::InvalidArgument, "MALFORMED_REQUEST", message)
                    .malformed(violations)
                    .with("violation_count", count)
            }
            InvalidRequest::TooMany(Violation { field, description }) => {
                limit(&field, &description)
            }
        }
    }
}

fn limit(subject: &str, description: &str) -> StatusBuilder {
    let message = format!("`{subject}` {description}");
    let mut draft = StatusBuilder::new(Code::ResourceExhausted, "LIMIT_EXCEEDED", message);
    draft.details.add_quota_failure_violation(subject, description);
    draft
}

impl From<AuthorityError> for Status {
    fn from(refusal: AuthorityError) -> Self {
        StatusBuilder::from(refusal).finish()
    }
}

impl From<AuthorityError> for StatusBuilder {
    fn from(refusal: AuthorityError) -> Self {
        let message = refusal.to_string();
        match refusal {
            AuthorityError::ScopesUnknown { field, unknown, near } => {
                let proposal = |scope: &Scope| {
                    let near = near.iter().find(|(unknown, _)| unknown == scope);
                    near.map(|(_, near)| format!("; did you mean `{near}`?")).unwrap_or_default()
                };
                let violations = unknown.into_iter().map(|(n, scope)| Violation {
                    // A single scope is a field of its own.
                    field: if field == "scope" {
                        field.to_owned()
                    } else {
                        format!("{field}[{n}]")
                    },
                    description: format!(
                        "`{scope}` is not a scope of the catalog{}",
                        proposal(&scope)
                    ),
                });
                StatusBuilder::new(Code::InvalidArgument, "SCOPE_UNKNOWN", message)
                    .malformed(violations)
            }
            AuthorityError::AudienceToExplain(_) => {
                let field = "check.audience".to_owned();
                let text = format!("`{field}` {message}");
                StatusBuilder::new(Code::InvalidArgument, "AUDIENCE_AMBIGUOUS", text)
                    .malformed([Violation { field, description: message }])
            }
            AuthorityError::Audience(_) => StatusBuilder::new(
                Code::InvalidArgument,
                "AUDIENCE_AMBIGUOUS",
                format!("`audience` {message}"),
            )
            .malformed([Violation { field: "audience".to_owned(), description: message }]),
            AuthorityError::AudienceOf(place, _) => {
                let field = format!("checks[{place}].audience");
                StatusBuilder::new(
                    Code::InvalidArgument,
                    "AUDIENCE_AMBIGUOUS",
                    format!("`{field}` {message}"),
                )
                .malformed([Violation { field, description: message }])
            }
            AuthorityError::UserNotFound(_, id) => {
                resource(Code::NotFound, "USER_NOT_FOUND", message, "User", id.as_str())
            }
            AuthorityError::SecretNotFound(_, id) => {
                resource(Code::NotFound, "SECRET_NOT_FOUND", message, "Secret", id.as_str())
            }
            AuthorityError::TooManySecrets(id) => {
                let mut draft =
                    StatusBuilder::new(Code::FailedPrecondition, "SECRET_LIMIT", message);
                let what = "has two live secrets: end one first";
                let failure = ("SECRET_LIMIT", id.as_str(), what);
                draft.details.add_precondition_failure_violation(failure.0, failure.1, failure.2);
                draft
            }
            AuthorityError::ConsentNotFound(id, _) => {
                resource(Code::NotFound, "CONSENT_NOT_FOUND", message, "Consent", id.as_str())
            }
            AuthorityError::CallerRevoked => {
                StatusBuilder::new(Code::Unauthenticated, REVOKED.0, message)
            }
            AuthorityError::KeyNotFound(id) => {
                resource(Code::NotFound, "KEY_NOT_FOUND", message, "Key", id.as_str())
            }
            AuthorityError::FirstKeyNotOperator => {
                let mut draft =
                    StatusBuilder::new(Code::FailedPrecondition, "FIRST_KEY_NOT_OPERATOR", message);
                let what =
                    "must have ROLE_OPERATOR, a secret, no company_ids and no end in the past";
                let kind = "FIRST_KEY_NOT_OPERATOR";
                draft.details.add_precondition_failure_violation(kind, "roles", what);
                draft
            }
            AuthorityError::LastOperatorKey(id) => {
                let mut draft =
                    StatusBuilder::new(Code::FailedPrecondition, "LAST_OPERATOR_KEY", message);
                let what = "is the last of an operator: make another one first";
                let kind = "LAST_OPERATOR_KEY";
                draft.details.add_precondition_failure_violation(kind, id.as_str(), what);
                draft
            }
            AuthorityError::TooManyKeys(most) => {
                limit("keys", &format!("are {most}, which is the limit: delete some first"))
            }
            AuthorityError::CertificateTaken(id) => {
                resource(Code::AlreadyExists, "CERTIFICATE_TAKEN", message, "Key", id.as_str())
            }
            AuthorityError::CompanyNotFound(id) => {
                resource(Code::NotFound, "COMPANY_NOT_FOUND", message, "Company", id.as_str())
            }
            AuthorityError::CredentialNotFound(_, id) => {
                resource(Code::NotFound, "CREDENTIAL_NOT_FOUND", message, "Credential", id.as_str())
            }
            AuthorityError::CompanyExists(id) => {
                resource(Code::AlreadyExists, "COMPANY_EXISTS", message, "Company", id.as_str())
            }
            AuthorityError::CredentialExists(_, id) => resource(
                Code::AlreadyExists,
                "CREDENTIAL_EXISTS",
                message,
                "Credential",
                id.as_str(),
            ),
            AuthorityError::EtagStale => StatusBuilder::new(Code::Aborted, "ETAG_STALE", message),
            AuthorityError::RequestReused(_) => {
                let field = "request_id".to_owned();
                let text = format!("`{field}` {message}");
                StatusBuilder::new(Code::InvalidArgument, "REQUEST_ID_REUSED", text)
                    .malformed([Violation { field, description: message }])
            }
            AuthorityError::Conflict => {
                StatusBuilder::new(Code::Aborted, "CONFLICT", message).retry()
            }
            AuthorityError::AboveCeiling(above) => {
                let what = "not in the company's ceiling: ask the operator to add it";
                scopes("SCOPE_NOT_IN_COMPANY", message, above.scopes, what)
            }
            AuthorityError::NotInCeiling(missing) => {
                let what = "not back in the company's ceiling: add it first";
                scopes("SCOPE_NOT_IN_COMPANY", message, missing, what)
            }
            AuthorityError::LaterRestrictionFirst(asleep) => {
                let what = "implied, and taken by a later restriction: restore that one first";
                scopes("LATER_RESTRICTION_ACTIVE", message, asleep, what)
            }
            AuthorityError::NotTaken(_, strangers) => {
                let what = "not among the scopes that the restriction took";
                scopes("NOT_RESTRICTED", message, strangers, what)
            }
            AuthorityError::NoSuchRestriction(at) => {
                let subject = at.to_string();
                let what = "is no restriction of this company that is still kept";
                let kind = "NO_SUCH_RESTRICTION";
                let mut draft = StatusBuilder::new(Code::FailedPrecondition, kind, message);
                draft.details.add_precondition_failure_violation(kind, subject, what);
                draft
            }
            AuthorityError::ImpactNotAcknowledged(impact) => unacknowledged(message, *impact),
            AuthorityError::RevisionNotReached { .. } => {
                StatusBuilder::new(Code::Unavailable, "REVISION_NOT_REACHED", message).retry()
            }
            AuthorityError::DryRunTooLarge(most) => {
                limit("companies", &format!("are more than the {most} that a dry run remembers"))
            }
            AuthorityError::RemovesScopes(_) => {
                StatusBuilder::new(Code::FailedPrecondition, "CATALOG_REMOVES_SCOPES", message)
            }
            AuthorityError::Store(StoreError::Busy) => {
                let mut draft = limit("changes", "wait in greater number than the queue holds");
                draft.details.set_retry_info(Some(Duration::from_secs(1)));
                draft
            }
            AuthorityError::Store(StoreError::TooManyBackups) => {
                let mut draft = limit("backups", "under way are two, which is the most");
                draft.details.set_retry_info(Some(Duration::from_secs(1)));
                draft
            }
            AuthorityError::Store(StoreError::BackupTooSlow) => {
                let mut draft =
                    StatusBuilder::new(Code::ResourceExhausted, "BACKUP_TOO_SLOW", message);
                let what = "was not taken as fast as changes were made";
                draft.details.add_quota_failure_violation("backup", what);
                draft
            }
            AuthorityError::Store(StoreError::AtBound(reached)) => {
                limit(reached.bound.name(), &reached.to_string())
            }
            AuthorityError::Store(
                StoreError::NearlyFull | StoreError::KeysOnly | StoreError::Full,
            ) => {
                let mut draft =
                    StatusBuilder::new(Code::ResourceExhausted, "DISK_FULL", message).retry();
                draft.details.add_quota_failure_violation("disk", "has too little space left");
                draft
            }
            AuthorityError::Store(StoreError::Compacted(gone)) => {
                StatusBuilder::new(Code::OutOfRange, "REVISION_COMPACTED", message)
                    .with("oldest_after_revision", gone)
            }
            AuthorityError::Store(StoreError::Unavailable | StoreError::Damaged) => {
                StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", message).retry()
            }
        }
    }
}

impl From<ImportError> for Status {
    fn from(ended: ImportError) -> Self {
        let ImportError { place, tally, why } = ended;
        let mut draft = match why {
            ImportErrorCause::Rejected(rejection) => StatusBuilder::from(rejection),
            ImportErrorCause::Refused(refusal) => {
                StatusBuilder::from(refusal).at(&place.to_string())
            }
            ImportErrorCause::Closing => {
                let message = "the server is ending: import again, and go on where this ended";
                StatusBuilder::new(Code::Unavailable, "SHUTTING_DOWN", message).retry()
            }
            ImportErrorCause::NoLongerKnown => {
                StatusBuilder::new(Code::Unauthenticated, REVOKED.0, REVOKED.1)
            }
        };
        if !place.list.is_empty() {
            draft = draft.with("item", place);
        }
        if place.line > 0 {
            draft = draft.with("line", place.line);
        }
        draft
            .with("message", place.message)
            .with("created_company_count", tally.companies)
            .with("created_credential_count", tally.credentials)
            .with("skipped_count", tally.skipped)
            .with("differing_count", tally.differing)
            .with("revision", tally.revision)
            .finish()
    }
}

/// A precondition that scopes do not meet.
fn scopes(reason: &'static str, message: String, scopes: Vec<Scope>, what: &str) -> StatusBuilder {
    let size = |scope: &Scope| scope.as_str().len() + what.len() + reason.len();
    StatusBuilder::new(Code::FailedPrecondition, reason, message).violations(
        scopes.len(),
        scopes,
        size,
        |details, scope| {
            details.add_precondition_failure_violation(reason, scope.as_str(), what);
        },
    )
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(refusal) => refusal.into(),
            ApplyError::Catalog(CatalogErrors(problems)) => {
                let message = match problems.as_slice() {
                    [one] => format!("`yaml` {one}"),
                    many => format!("`yaml` has {} problems; see the details", many.len()),
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

fn resource(
    code: Code,
    reason: &'static str,
    message: String,
    kind: &str,
    name: &str,
) -> StatusBuilder {
    let mut draft = StatusBuilder::new(code, reason, message.clone());
    draft.details.set_resource_info(format!("scopegate.v1.{kind}"), name, "", message);
    draft
}

/// The report of an audit, as far as it fits.
fn unacknowledged(message: String, impact: Impact) -> StatusBuilder {
    let count = usize::try_from(impact.count).unwrap_or(usize::MAX);
    let describe = |affected: &Affected| {
        let scopes: Vec<_> = affected.scopes.iter().take(5).map(|s| format!("`{s}`")).collect();
        let more = affected.scopes.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let state = if affected.enabled { "enabled" } else { "disabled" };
        format!("{:?} ({state}) would lose {}{more}", affected.label, scopes.join(", "))
    };
    // As many names as fit, and the number of all.
    let scopes: Vec<_> = impact.scopes.iter().take(5).map(|scope| scope.as_str()).collect();
    let scopes = scopes.join(" ");
    let size = |affected: &Affected| affected.id.as_str().len() + describe(affected).len() + 40;
    StatusBuilder::new(Code::FailedPrecondition, "IMPACT_NOT_ACKNOWLEDGED", message)
        .with("etag", &impact.etag)
        .with("affected_credential_count", impact.count)
        .with("restricted_scopes", scopes)
        .with("restricted_scope_count", impact.scopes.len())
        .violations(count, impact.affected, size, |details, affected| {
            let description = describe(&affected);
            let kind = "IMPACT_NOT_ACKNOWLEDGED";
            details.add_precondition_failure_violation(kind, affected.id.as_str(), description);
        })
}

/// It is not known who calls.
pub fn unproven(why: AuthenticationError) -> Status {
    let reason = match why {
        AuthenticationError::Unsettled => {
            let text = why.to_string();
            return StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", text)
                .retry()
                .finish();
        }
        AuthenticationError::Nothing => "KEY_REQUIRED",
        AuthenticationError::Unknown => "KEY_UNKNOWN",
        AuthenticationError::Expired => "KEY_EXPIRED",
        AuthenticationError::Certificate => "CERTIFICATE_REQUIRED",
    };
    StatusBuilder::new(Code::Unauthenticated, reason, why.to_string()).finish()
}

/// The caller may not make this call, or not for the company that it names.
pub fn not_permitted() -> Status {
    let text = "the key does not permit this call, or not for this company: ask an operator";
    StatusBuilder::new(Code::PermissionDenied, "NOT_PERMITTED", text).finish()
}

/// What is said to a caller whose key ended while its call went on.
const REVOKED: (&str, &str) =
    ("KEY_UNKNOWN", "the API key was revoked, or has expired: ask an operator for another");

/// The caller's key ended while its call went on.
pub(super) fn caller_revoked() -> Status {
    StatusBuilder::new(Code::Unauthenticated, REVOKED.0, REVOKED.1).finish()
}

/// There is no such call.
pub fn unknown_method() -> Status {
    StatusBuilder::new(
        Code::Unimplemented,
        "METHOD_NOT_FOUND",
        "there is no such call: see the reflection",
    )
    .finish()
}

/// There are as many streams of changes as there may be.
pub(super) fn too_many_watchers(full: NoPlace) -> Status {
    let what = match full {
        NoPlace::All(limit) => format!("of changes are open as many as may be: {limit}"),
        NoPlace::Key(limit) => {
            format!("of changes are open as many as one key may have: {limit}; end one of them")
        }
    };
    let mut draft = self::limit("streams", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// The caller makes more calls a second than it may.
pub fn rate_limited(limit: u32) -> Status {
    let what = format!(
        "of one API key are at most {limit} a second, beside Check, BatchCheck and VerifySecret"
    );
    let mut draft = self::limit("calls", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// The store is still being opened.
pub fn not_ready() -> Status {
    StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", "the store is being opened")
        .retry()
        .finish()
}

/// The server ends in the middle of a stream that has an end of its own.
pub(super) fn ending() -> Status {
    let text = "the server is ending: ask again when it is back";
    StatusBuilder::new(Code::Unavailable, "SHUTTING_DOWN", text).retry().finish()
}

/// The server ends, and with it a call that is still open.
#[must_use]
pub fn server_ending() -> Status {
    let text = "the server is ending: call again; resume a stream of changes behind its cursor";
    StatusBuilder::new(Code::Unavailable, "SHUTTING_DOWN", text).retry().finish()
}

/// A connection ends, and with it a call that is still open.
#[must_use]
pub fn connection_ending() -> Status {
    let text = "the connection was asked to end and its grace is over: call again on another one; \
                resume a stream of changes behind its cursor";
    StatusBuilder::new(Code::Unavailable, "CONNECTION_ENDING", text).retry().finish()
}

/// The trailers that end a stream with this status.
#[must_use]
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        // Only of a status that cannot be written as headers, which none of these is.
        Err(_) => HeaderMap::new(),
    }
}

/// Whether trailers say that a call succeeded.
#[must_use]
pub fn is_success(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|code| code == "0")
}

/// The deadline is not written as the protocol says.
pub fn bad_deadline() -> Status {
    let text =
        "the header `grpc-timeout` is at most eight digits and one of `H`, `M`, `S`, `m`, `u`, `n`";
    StatusBuilder::new(Code::InvalidArgument, "MALFORMED_DEADLINE", text).finish()
}

/// The deadline passed.
pub fn deadline_exceeded() -> Status {
    StatusBuilder::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed").finish()
}

/// The request did not come as a whole in time.
pub(super) fn body_timeout(time: Duration) -> Status {
    let text = format!("the request did not come as a whole within {} s", time.as_secs());
    StatusBuilder::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", text).finish()
}

/// More calls are under way than a core takes on. Nothing of this one was begun.
pub fn overloaded(limit: usize) -> Status {
    let what = format!("under way on this core are as many as it takes on: {limit}");
    let mut draft = self::limit("calls", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// One key has as many calls under way as it may have. Nothing of this one was begun.
pub fn too_many_of_key(limit: usize) -> Status {
    let what = format!(
        "of this API key in flight on this core are as many as one key may have: {limit}; wait \
         for the replies of some"
    );
    let mut draft = self::limit("calls", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// The headers are larger than the server takes.
pub(super) fn too_large_headers(size: usize, limit: usize) -> Status {
    let what = format!(
        "have {size} bytes, the limit is {limit}: send fewer, or have `--max-header-bytes` raised"
    );
    self::limit("headers", &what).finish()
}

/// As many calls of a kind are open as may be: on the connection, or in all.
pub fn too_many_open(kind: &str, limit: usize, place: &str) -> Status {
    let what = format!("open {place} are {limit}, which is the most: end some first");
    let mut draft = self::limit(kind, &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// As many lists of one key are read, or wait to be, as may.
pub fn too_many_lists(limit: usize) -> Status {
    let what =
        format!("of this API key are {limit}, which is the most: wait for the replies of some");
    let mut draft = self::limit("lists", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// What the call would hold in memory is more than there is for it.
pub(super) fn no_memory(exhausted: Exhausted) -> Status {
    let what = match exhausted {
        Exhausted::All(limit) => format!(
            "for requests and replies is in use up to its limit of {limit} bytes: call again later"
        ),
        Exhausted::Account(limit) => format!(
            "for requests and replies of this API key is in use up to its limit of {limit} bytes: \
             wait for the replies of other calls, and read them"
        ),
    };
    let mut draft = self::limit("memory", &what);
    draft.details.set_retry_info(Some(Duration::from_secs(1)));
    draft.finish()
}

/// Nobody knows the health of a service of this name.
pub fn no_such_service() -> Status {
    let text = "there is no service of this name: see the reflection";
    StatusBuilder::new(Code::NotFound, "NO_SUCH_SERVICE", text).finish()
}

/// The call ended without an answer.
pub fn internal() -> Status {
    StatusBuilder::new(Code::Internal, "INTERNAL", "the call ended without an answer").finish()
}

/// The message did not come as a whole.
pub(super) fn truncated() -> Status {
    malformed_message("the request is not one whole message: send exactly one, complete")
}

/// The bytes are no message of this call.
pub(super) fn undecodable() -> Status {
    malformed_message(
        "the request is no message of this call: compare with its .proto; texts are UTF-8",
    )
}

/// The message is compressed, or may be.
pub fn compressed() -> Status {
    let text = "compressed messages are not read: send them as they are";
    StatusBuilder::new(Code::Unimplemented, "COMPRESSED_MESSAGE", text).finish()
}

/// The message is longer than what is read.
pub(super) fn too_long(length: usize, limit: usize) -> Status {
    self::limit("message", &format!("has {length} bytes, the limit is {limit}")).finish()
}

fn malformed_message(text: &str) -> Status {
    let mut draft = StatusBuilder::new(Code::InvalidArgument, "MALFORMED_MESSAGE", text.to_owned());
    draft.details.add_bad_request_violation("message", text);
    draft.finish()
}

/// What tonic says of a message that never reached a service, in the words of the contract: its
/// refusals have no details, and ours all have.
pub fn with_details<B: Default>(response: Response<B>) -> Response<B> {
    let headers = response.headers();
    if headers.contains_key("grpc-status-details-bin") || !headers.contains_key("grpc-status") {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else { return response };
    match status.code() {
        // Above the limit.
        Code::OutOfRange if status.message().contains("message length too large") => {
            let sizes: Vec<_> = status.message().split(|c: char| !c.is_ascii_digit()).collect();
            let mut sizes = sizes.into_iter().filter(|size| !size.is_empty());
            let (found, most) = (sizes.next().unwrap_or("?"), sizes.next().unwrap_or("?"));
            let description = format!("has {found} bytes, the limit is {most}");
            limit("message", &description).finish().into_http()
        }
        Code::Unimplemented if status.message().contains("compressed") => compressed().into_http(),
        // Without a word of how.
        Code::Internal if status.message().contains("compressed-flag") => compressed().into_http(),
        Code::Internal => undecodable().into_http(),
        _ => response,
    }
}
