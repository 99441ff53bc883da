//! Authority problems: the code, the reason and the details of each error of the authority and of the
//! store, in one match.
//!
//! The text of a message is that of the error, but for limits. Not here: problems of calls that the
//! authority never gets; see [`super::call`].

use std::time::Duration;

use super::{Code, Detail, Problem, Violation};
use crate::authority::ApplyError;
use crate::authority::error::AuthorityError;
use crate::authority::impact::{Affected, Impact};
use crate::policy::catalog::file::CatalogErrors;
use crate::policy::credential::AboveCeiling;
use crate::policy::scope::Scope;
use crate::store::StoreError;

/// After this time a caller may ask a replica again that had no lease.
const CUT_OFF_RETRY: Duration = Duration::from_millis(100);

impl From<AuthorityError> for Problem {
    fn from(error: AuthorityError) -> Self {
        use AuthorityError as E;

        let message = error.to_string();
        match error {
            E::ScopesUnknown { field, unknown, near } => {
                let count = unknown.len();
                let violations = unknown.into_iter().map(|(n, scope)| {
                    // A single scope is a field of its own.
                    let is_single = field == "scope";
                    let field = if is_single { field.to_owned() } else { format!("{field}[{n}]") };
                    let near = near.iter().find(|(unknown, _)| *unknown == scope);
                    let suggestion = near.map(|(_, name)| format!("; did you mean `{name}`?"));
                    let suggestion = suggestion.unwrap_or_default();
                    let description =
                        format!("`{scope}` is not a scope of the catalog{suggestion}");
                    Violation::new(field, description)
                });
                Self::new(Code::InvalidArgument, "SCOPE_UNKNOWN", message)
                    .with_violations(Detail::Fields, violations)
                    .with_count(count)
            }
            E::AudienceToExplain(_) => field("AUDIENCE_AMBIGUOUS", "check.audience", message),
            E::Audience(_) => field("AUDIENCE_AMBIGUOUS", "audience", message),
            E::AudienceOf(index, _) => {
                field("AUDIENCE_AMBIGUOUS", &format!("checks[{index}].audience"), message)
            }
            E::RequestReused(_) => field("REQUEST_ID_REUSED", "request_id", message),
            E::UserNotFound(_, id) => not_found("USER_NOT_FOUND", message, "User", id),
            E::SecretNotFound(_, id) => not_found("SECRET_NOT_FOUND", message, "Secret", id),
            E::ConsentNotFound(id, _) => not_found("CONSENT_NOT_FOUND", message, "Consent", id),
            E::KeyNotFound(id) => not_found("KEY_NOT_FOUND", message, "Key", id),
            E::CompanyNotFound(id) => not_found("COMPANY_NOT_FOUND", message, "Company", id),
            E::CredentialNotFound(_, id) => {
                not_found("CREDENTIAL_NOT_FOUND", message, "Credential", id)
            }
            E::CertificateTaken(id) => exists("CERTIFICATE_TAKEN", message, "Key", id),
            E::CompanyExists(id) => exists("COMPANY_EXISTS", message, "Company", id),
            E::CredentialExists(_, id) => exists("CREDENTIAL_EXISTS", message, "Credential", id),
            E::CallerRevoked => Self::new(Code::Unauthenticated, super::call::REVOKED, message),
            E::TooManySecrets(id) => {
                let why = "has two live secrets: end one first";
                unmet("SECRET_LIMIT", message, [id], why)
            }
            E::FirstKeyNotOperator => {
                let why =
                    "must have ROLE_OPERATOR, a secret, no company_ids and no expiry in the past";
                unmet("FIRST_KEY_NOT_OPERATOR", message, ["roles"], why)
            }
            E::LastOperatorKey(id) => {
                let why = "is the last operator key: create another one first";
                unmet("LAST_OPERATOR_KEY", message, [id], why)
            }
            E::NoSuchRestriction(revision) => {
                let why =
                    "is not the revision of a restriction of this company that is still in the log";
                unmet("NO_SUCH_RESTRICTION", message, [revision], why)
            }
            E::AboveCeiling(AboveCeiling { scopes }) => {
                let why = "not in the company's ceiling: ask the operator to add it";
                unmet("SCOPE_NOT_IN_COMPANY", message, &scopes, why).with_count(scopes.len())
            }
            E::NotInCeiling(scopes) => {
                let why = "not in the company's ceiling: add it first";
                unmet("SCOPE_NOT_IN_COMPANY", message, &scopes, why).with_count(scopes.len())
            }
            E::LaterRestrictionFirst(scopes) => {
                let why = "implied, and removed by a later restriction: restore that one first";
                unmet("LATER_RESTRICTION_ACTIVE", message, &scopes, why).with_count(scopes.len())
            }
            E::NotTaken(_, scopes) => {
                let why = "not among the scopes that the restriction removed";
                unmet("NOT_RESTRICTED", message, &scopes, why).with_count(scopes.len())
            }
            E::ImpactNotAcknowledged(impact) => impact_not_acknowledged(message, &impact),
            E::RemovesScopes(_) => {
                Self::new(Code::FailedPrecondition, "CATALOG_REMOVES_SCOPES", message)
            }
            E::EtagStale => Self::new(Code::Aborted, "ETAG_STALE", message),
            E::Conflict => Self::new(Code::Aborted, "CONFLICT", message).retry(),
            E::RevisionNotReached { .. } => {
                Self::new(Code::Unavailable, "REVISION_NOT_REACHED", message).retry()
            }
            E::TooManyKeys(limit) => Self::limit(
                "keys",
                format!("there are as many keys as the limit allows ({limit}): delete some first"),
            ),
            E::DryRunTooLarge(limit) => Self::limit(
                "companies",
                format!("a dry run can create at most {limit} companies: split the import"),
            ),
            E::TokenUnverifiable => {
                Self::new(Code::Unavailable, "TOKEN_UNVERIFIABLE", message).retry()
            }
            E::CannotSign => Self::new(Code::Unavailable, "CANNOT_SIGN", message),
            E::IssuesNoTokens => Self::new(Code::FailedPrecondition, "ISSUES_NO_TOKENS", message),
            E::KeyFileNotWritten => {
                Self::new(Code::Unavailable, "KEY_FILE_NOT_WRITTEN", message).retry()
            }
            E::SigningKeyNotFound(id) => {
                not_found("SIGNING_KEY_NOT_FOUND", message, "SigningKey", id)
            }
            E::TooManySigningKeys(_) => Self::limit("signing_keys", message),
            E::IssuerIsOwn(_) => Self::new(Code::FailedPrecondition, "ISSUER_IS_OWN", message),
            E::RedirectUriUnknown(_) => field("REDIRECT_URI_UNKNOWN", "redirect_uri", message),
            E::RevokedTooFarAhead => field("TIME_TOO_FAR_AHEAD", "issued_before", message),
            E::Store(StoreError::Busy) => {
                Self::limit("changes", "too many changes are queued: call again later").retry()
            }
            E::Store(StoreError::TooManyBackups) => {
                Self::limit("backups", "too many backups are in progress (limit 2)").retry()
            }
            E::Store(StoreError::EntryTooLarge { .. }) => Self::limit("change", message),
            E::Store(StoreError::AtBound(reached)) => Self::limit(reached.bound.name(), message),
            E::Store(StoreError::BackupTooSlow) => {
                let why = "the client read more slowly than changes were made";
                Self::new(Code::ResourceExhausted, "BACKUP_TOO_SLOW", message)
                    .with_violations(Detail::Quotas, [Violation::new("backup", why)])
            }
            E::Store(StoreError::NearlyFull | StoreError::KeysOnly | StoreError::Full) => {
                let why = "has too little free space";
                Self::new(Code::ResourceExhausted, "DISK_FULL", message)
                    .with_violations(Detail::Quotas, [Violation::new("disk", why)])
                    .retry()
            }
            E::Store(StoreError::LogNearlyFull) => {
                let why = "its database has too little free space";
                Self::new(Code::ResourceExhausted, "ETCD_FULL", message)
                    .with_violations(Detail::Quotas, [Violation::new("etcd", why)])
                    .retry()
            }
            E::Store(StoreError::Compacted(oldest)) => {
                Self::new(Code::OutOfRange, "REVISION_COMPACTED", message)
                    .with_metadata("oldest_after_revision", oldest)
            }
            E::Store(StoreError::CutOff) => {
                Self::new(Code::Unavailable, "REPLICA_CUT_OFF", message)
                    .with(Detail::Retry(CUT_OFF_RETRY))
            }
            E::Store(StoreError::ClockBehind) => {
                Self::new(Code::Unavailable, "CLOCK_BEHIND", message).retry()
            }
            E::Store(StoreError::ClockAhead) => {
                Self::new(Code::Unavailable, "CLOCK_AHEAD", message).retry()
            }
            E::Store(StoreError::NotYetEverywhere(at)) => {
                let problem = Self::new(Code::Unavailable, "NOT_YET_EVERYWHERE", message).retry();
                at.iter().fold(problem, |problem, at| problem.with_metadata("revision", at))
            }
            E::Store(StoreError::Unavailable | StoreError::Damaged) => {
                Self::new(Code::Unavailable, "STORE_UNAVAILABLE", message).retry()
            }
        }
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(error) => error.into(),
            ApplyError::Catalog(CatalogErrors(errors)) => {
                let message = match errors.as_slice() {
                    [error] => format!("`yaml` {error}"),
                    all => format!("`yaml` has {} problems; see the details", all.len()),
                };
                let violations =
                    errors.iter().map(|error| Violation::new("yaml", error.to_string()));
                Self::new(Code::InvalidArgument, "CATALOG_MALFORMED", message)
                    .with_violations(Detail::Fields, violations)
                    .with_count(errors.len())
            }
        }
    }
}

/// A problem of one field.
fn field(reason: &'static str, field: &str, message: String) -> Problem {
    Problem::new(Code::InvalidArgument, reason, format!("`{field}` {message}"))
        .with_violations(Detail::Fields, [Violation::new(field, message)])
        .with_count(1)
}

/// A precondition that these subjects do not meet.
fn unmet(
    reason: &'static str,
    message: String,
    subjects: impl IntoIterator<Item = impl ToString>,
    why: &str,
) -> Problem {
    let violations = subjects.into_iter().map(|subject| Violation::new(subject.to_string(), why));
    Problem::new(Code::FailedPrecondition, reason, message)
        .with_violations(Detail::Preconditions, violations)
}

fn not_found(
    reason: &'static str,
    message: String,
    kind: &'static str,
    id: impl ToString,
) -> Problem {
    resource(Code::NotFound, reason, message, kind, id.to_string())
}

fn exists(reason: &'static str, message: String, kind: &'static str, id: impl ToString) -> Problem {
    resource(Code::AlreadyExists, reason, message, kind, id.to_string())
}

/// A problem of a resource that exists, or does not exist.
fn resource(
    code: Code,
    reason: &'static str,
    message: String,
    kind: &'static str,
    name: String,
) -> Problem {
    let description = message.clone();
    Problem::new(code, reason, message).with(Detail::Resource { kind, name, description })
}

/// The impact of a restriction or catalog that the caller has not acknowledged.
fn impact_not_acknowledged(message: String, impact: &Impact) -> Problem {
    let violation = |affected: &Affected| {
        let scopes: Vec<_> = affected.scopes.iter().take(5).map(|s| format!("`{s}`")).collect();
        let more = affected.scopes.len().saturating_sub(5);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let state = if affected.enabled { "enabled" } else { "disabled" };
        let scopes = scopes.join(", ");
        let description = format!("{:?} ({state}) would lose {scopes}{more}", affected.label);
        Violation::new(affected.id.as_str(), description)
    };
    let scopes: Vec<_> = impact.scopes.iter().take(5).map(Scope::as_str).collect();
    Problem::new(Code::FailedPrecondition, "IMPACT_NOT_ACKNOWLEDGED", message)
        .with_metadata("etag", &impact.etag)
        .with_metadata("affected_credential_count", impact.count)
        .with_metadata("restricted_scopes", scopes.join(" "))
        .with_metadata("restricted_scope_count", impact.scopes.len())
        .with_violations(Detail::Preconditions, impact.affected.iter().map(violation))
        .with_count(impact.count)
}
