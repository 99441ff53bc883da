//! Authority errors: the code, the reason and the details of each [`AuthorityError`], in one match.
//!
//! The text of a message is that of the error. Not here: errors of requests that cannot be read; see
//! [`super::validation`].

use tonic::{Code, Status};

use super::StatusBuilder;
use super::authentication::REVOKED;
use super::limit::limit;
use crate::authority::error::AuthorityError;
use crate::authority::impact::{Affected, Impact};
use crate::policy::scope::Scope;
use crate::store::StoreError;
use crate::wire::validate::Violation;

impl From<AuthorityError> for Status {
    fn from(error: AuthorityError) -> Self {
        StatusBuilder::from(error).finish()
    }
}

impl From<AuthorityError> for StatusBuilder {
    fn from(error: AuthorityError) -> Self {
        let message = error.to_string();
        match error {
            AuthorityError::ScopesUnknown { field, unknown, near: suggestions } => {
                let suggestion = |scope: &Scope| {
                    let suggestion = suggestions.iter().find(|(unknown, _)| unknown == scope);
                    suggestion
                        .map(|(_, name)| format!("; did you mean `{name}`?"))
                        .unwrap_or_default()
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
                        suggestion(&scope)
                    ),
                });
                StatusBuilder::new(Code::InvalidArgument, "SCOPE_UNKNOWN", message)
                    .malformed(violations)
            }
            AuthorityError::AudienceToExplain(_) => {
                invalid_field("AUDIENCE_AMBIGUOUS", "check.audience", message)
            }
            AuthorityError::Audience(_) => invalid_field("AUDIENCE_AMBIGUOUS", "audience", message),
            AuthorityError::AudienceOf(index, _) => {
                let field = format!("checks[{index}].audience");
                invalid_field("AUDIENCE_AMBIGUOUS", field, message)
            }
            AuthorityError::UserNotFound(_, id) => {
                resource(Code::NotFound, "USER_NOT_FOUND", message, "User", id.as_str())
            }
            AuthorityError::SecretNotFound(_, id) => {
                resource(Code::NotFound, "SECRET_NOT_FOUND", message, "Secret", id.as_str())
            }
            AuthorityError::TooManySecrets(id) => {
                let description = "has two live secrets: end one first";
                precondition("SECRET_LIMIT", message, id.as_str(), description)
            }
            AuthorityError::ConsentNotFound(id, _) => {
                resource(Code::NotFound, "CONSENT_NOT_FOUND", message, "Consent", id.as_str())
            }
            AuthorityError::CallerRevoked => {
                StatusBuilder::new(Code::Unauthenticated, REVOKED, message)
            }
            AuthorityError::KeyNotFound(id) => {
                resource(Code::NotFound, "KEY_NOT_FOUND", message, "Key", id.as_str())
            }
            AuthorityError::FirstKeyNotOperator => {
                let description =
                    "must have ROLE_OPERATOR, a secret, no company_ids and no expiry in the past";
                precondition("FIRST_KEY_NOT_OPERATOR", message, "roles", description)
            }
            AuthorityError::LastOperatorKey(id) => {
                let description = "is the last operator key: create another one first";
                precondition("LAST_OPERATOR_KEY", message, id.as_str(), description)
            }
            AuthorityError::TooManyKeys(limit) => self::limit(
                "keys",
                format!("there are as many keys as the limit allows ({limit}): delete some first"),
            ),
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
                invalid_field("REQUEST_ID_REUSED", "request_id", message)
            }
            AuthorityError::Conflict => {
                StatusBuilder::new(Code::Aborted, "CONFLICT", message).retry()
            }
            AuthorityError::AboveCeiling(above) => {
                let description = "not in the company's ceiling: ask the operator to add it";
                scopes("SCOPE_NOT_IN_COMPANY", message, above.scopes, description)
            }
            AuthorityError::NotInCeiling(missing) => {
                let description = "not in the company's ceiling: add it first";
                scopes("SCOPE_NOT_IN_COMPANY", message, missing, description)
            }
            AuthorityError::LaterRestrictionFirst(implied) => {
                let description =
                    "implied, and removed by a later restriction: restore that one first";
                scopes("LATER_RESTRICTION_ACTIVE", message, implied, description)
            }
            AuthorityError::NotTaken(_, others) => {
                let description = "not among the scopes that the restriction removed";
                scopes("NOT_RESTRICTED", message, others, description)
            }
            AuthorityError::NoSuchRestriction(revision) => {
                let description =
                    "is not the revision of a restriction of this company that is still in the log";
                precondition("NO_SUCH_RESTRICTION", message, &revision.to_string(), description)
            }
            AuthorityError::ImpactNotAcknowledged(impact) => {
                impact_not_acknowledged(message, *impact)
            }
            AuthorityError::RevisionNotReached { .. } => {
                StatusBuilder::new(Code::Unavailable, "REVISION_NOT_REACHED", message).retry()
            }
            AuthorityError::DryRunTooLarge(limit) => self::limit(
                "companies",
                format!("a dry run can create at most {limit} companies: split the import"),
            ),
            AuthorityError::RemovesScopes(_) => {
                StatusBuilder::new(Code::FailedPrecondition, "CATALOG_REMOVES_SCOPES", message)
            }
            AuthorityError::Store(StoreError::Busy) => {
                limit("changes", "too many changes are queued: call again later").retry()
            }
            AuthorityError::Store(StoreError::TooManyBackups) => {
                limit("backups", "too many backups are in progress (limit 2)").retry()
            }
            AuthorityError::Store(StoreError::BackupTooSlow) => {
                let description = "the client read more slowly than changes were made";
                quota("BACKUP_TOO_SLOW", message, "backup", description)
            }
            AuthorityError::Store(StoreError::AtBound(reached)) => {
                limit(reached.bound.name(), format!("`{}` {reached}", reached.bound.name()))
            }
            AuthorityError::Store(
                StoreError::NearlyFull | StoreError::KeysOnly | StoreError::Full,
            ) => quota("DISK_FULL", message, "disk", "has too little free space").retry(),
            AuthorityError::Store(StoreError::Compacted(oldest)) => {
                StatusBuilder::new(Code::OutOfRange, "REVISION_COMPACTED", message)
                    .with("oldest_after_revision", oldest)
            }
            AuthorityError::Store(StoreError::Unavailable | StoreError::Damaged) => {
                StatusBuilder::new(Code::Unavailable, "STORE_UNAVAILABLE", message).retry()
            }
        }
    }
}

/// An error about one field.
fn invalid_field(reason: &'static str, field: impl Into<String>, message: String) -> StatusBuilder {
    let field = field.into();
    StatusBuilder::new(Code::InvalidArgument, reason, format!("`{field}` {message}"))
        .malformed([Violation { field, description: message }])
}

/// A precondition that one subject does not meet.
fn precondition(
    reason: &'static str,
    message: String,
    subject: &str,
    description: &str,
) -> StatusBuilder {
    let mut status = StatusBuilder::new(Code::FailedPrecondition, reason, message);
    status.details.add_precondition_failure_violation(reason, subject, description);
    status
}

/// A resource of the server, other than a limit, that is exhausted.
fn quota(reason: &'static str, message: String, subject: &str, description: &str) -> StatusBuilder {
    let mut status = StatusBuilder::new(Code::ResourceExhausted, reason, message);
    status.details.add_quota_failure_violation(subject, description);
    status
}

/// A precondition that these scopes do not meet.
fn scopes(
    reason: &'static str,
    message: String,
    scopes: Vec<Scope>,
    description: &str,
) -> StatusBuilder {
    let size = |scope: &Scope| scope.as_str().len() + description.len() + reason.len();
    StatusBuilder::new(Code::FailedPrecondition, reason, message).violations(
        scopes.len(),
        scopes,
        size,
        |details, scope| {
            details.add_precondition_failure_violation(reason, scope.as_str(), description);
        },
    )
}

/// An error about a resource that exists, or does not exist.
fn resource(
    code: Code,
    reason: &'static str,
    message: String,
    kind: &str,
    name: &str,
) -> StatusBuilder {
    let mut status = StatusBuilder::new(code, reason, message.clone());
    status.details.set_resource_info(format!("scopegate.v1.{kind}"), name, "", message);
    status
}

/// The impact of a restriction or catalog that the caller has not acknowledged: as many affected
/// credentials as fit, and the number of all.
fn impact_not_acknowledged(message: String, impact: Impact) -> StatusBuilder {
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
