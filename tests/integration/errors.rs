//! Errors: each error of the API, as gRPC renders it. `tests/golden/errors.txt` has them all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use scopegate::authority::ApplyError;
use scopegate::authority::error::AuthorityError;
use scopegate::authority::impact::{Affected, Impact};
use scopegate::grpc::status;
use scopegate::metrics::memory_budget::Exhausted;
use scopegate::policy::catalog::AudienceError;
use scopegate::policy::catalog::file::{CatalogError, CatalogErrors};
use scopegate::policy::credential::AboveCeiling;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::keyring::AuthenticationError;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::StoreError;
use scopegate::store::quota::{Quota, Reached};
use scopegate::wire::names::code_name;
use scopegate::wire::validate::{InvalidRequest, Violation};
use tonic::Status;
use tonic_types::{ErrorDetail, StatusExt};

fn company() -> CompanyId {
    CompanyId::parse("acme").expect("an id")
}

fn credential() -> CredentialId {
    CredentialId::parse("billing").expect("an id")
}

fn user() -> UserId {
    UserId::parse("ada").expect("an id")
}

fn name() -> Name {
    Name::parse("ops").expect("a name")
}

fn scope(text: &str) -> Scope {
    Scope::parse(text).expect("a scope")
}

/// As many scopes as asked, with names of this length at least.
fn scopes(count: usize, length: usize) -> Vec<Scope> {
    (0..count).map(|n| scope(&format!("{}{n}", "s".repeat(length)))).collect()
}

fn impact(count: usize, label: &str) -> Box<Impact> {
    let affected = |n: usize| Affected {
        id: CredentialId::parse(format!("billing-{n}")).expect("an id"),
        label: label.to_owned(),
        enabled: n.is_multiple_of(2),
        scopes: scopes(n % 8 + 1, 4),
        last_seen: None,
        ended: None,
    };
    Box::new(Impact {
        count: count as u64,
        any_enabled: true,
        affected: (0..count.min(100)).map(affected).collect(),
        etag: "e7a9".to_owned(),
        scopes: scopes(count, 4),
    })
}

/// Every error of the authority; those with violations also with more than a status lists.
fn authority_errors() -> Vec<AuthorityError> {
    use AuthorityError as E;
    let indexed = |scopes: Vec<Scope>| scopes.into_iter().enumerate().collect::<Vec<_>>();
    let ambiguous = || AudienceError::Unknown { name: name(), near: None };
    let unknown =
        |field, unknown: Vec<(usize, Scope)>, near| E::ScopesUnknown { field, unknown, near };
    vec![
        unknown("scope", vec![(0, scope("orders:raed"))], vec![]),
        unknown(
            "scopes",
            vec![(1, scope("orders:raed")), (3, scope("x"))],
            vec![(scope("orders:raed"), scope("orders:read"))],
        ),
        unknown("add_scopes", indexed(scopes(30, 1)), vec![]),
        unknown("scopes", indexed(scopes(30, 100)), vec![]),
        E::Audience(ambiguous()),
        E::AudienceToExplain(ambiguous()),
        E::AudienceOf(7, ambiguous()),
        E::CompanyNotFound(company()),
        E::CredentialNotFound(company(), credential()),
        E::UserNotFound(company(), user()),
        E::SecretNotFound(credential(), name()),
        E::TooManySecrets(credential()),
        E::CallerRevoked,
        E::KeyNotFound(name()),
        E::FirstKeyNotOperator,
        E::LastOperatorKey(name()),
        E::TooManyKeys(1000),
        E::CertificateTaken(name()),
        E::ConsentNotFound(user(), credential()),
        E::CompanyExists(company()),
        E::CredentialExists(company(), credential()),
        E::EtagStale,
        E::RequestReused(uuid::Uuid::from_u128(0x6f1c_0a52)),
        E::Conflict,
        E::AboveCeiling(AboveCeiling { scopes: scopes(1, 4) }),
        E::AboveCeiling(AboveCeiling { scopes: scopes(30, 4) }),
        E::ImpactNotAcknowledged(impact(1, "a \"label\"\u{7}")),
        E::ImpactNotAcknowledged(impact(30, "short")),
        E::ImpactNotAcknowledged(impact(200, &"long".repeat(12))),
        E::NoSuchRestriction(Revision(9)),
        E::NotTaken(Revision(9), scopes(2, 4)),
        E::NotInCeiling(scopes(30, 90)),
        E::LaterRestrictionFirst(scopes(3, 4)),
        E::RevisionNotReached { asked: Revision(9), current: Revision(8) },
        E::RemovesScopes(vec!["orders:read".to_owned(), "a\nb".to_owned()]),
        E::DryRunTooLarge(10_000),
        E::Store(StoreError::Busy),
        E::Store(StoreError::NearlyFull),
        E::Store(StoreError::KeysOnly),
        E::Store(StoreError::Full),
        E::Store(StoreError::AtBound(Reached { bound: Quota::Users, limit: 5 })),
        E::Store(StoreError::AtBound(Reached { bound: Quota::Bytes, limit: 5 << 20 })),
        E::Store(StoreError::Unavailable),
        E::Store(StoreError::Damaged),
        E::Store(StoreError::TooManyBackups),
        E::Store(StoreError::BackupTooSlow),
        E::Store(StoreError::Compacted(Revision(4))),
    ]
}

fn invalid_requests() -> Vec<InvalidRequest> {
    let violation = |n: usize| Violation {
        field: format!("scopes[{n}]"),
        description: format!("`{n}` is not a scope"),
    };
    vec![
        InvalidRequest::Malformed(vec![violation(0)], 1),
        InvalidRequest::Malformed((0..20).map(violation).collect(), 31),
        InvalidRequest::TooMany(violation(0)),
    ]
}

fn catalog_errors() -> Vec<ApplyError> {
    let error = |line: u64| CatalogError {
        line,
        column: 1,
        message: "the scope `x` is defined twice".to_owned(),
    };
    vec![
        ApplyError::Catalog(CatalogErrors(vec![error(3)])),
        ApplyError::Catalog(CatalogErrors((1..40).map(error).collect())),
        ApplyError::Refused(AuthorityError::EtagStale),
    ]
}

fn authentication_errors() -> Vec<AuthenticationError> {
    use AuthenticationError as E;
    vec![E::Nothing, E::Unknown, E::Expired, E::Unsettled, E::Certificate]
}

/// A status in words: what its trailers have, in their order.
fn text(status: &Status) -> String {
    let mut text = format!("{} {}\n", code_name(status.code()), status.message());
    for detail in status.get_error_details_vec() {
        let line = match detail {
            ErrorDetail::ErrorInfo(info) => {
                let metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
                format!("ErrorInfo {} {} {metadata:?}", info.domain, info.reason)
            }
            ErrorDetail::BadRequest(bad) => list("BadRequest", bad.field_violations, |v| {
                format!("{}: {}", v.field, v.description)
            }),
            ErrorDetail::PreconditionFailure(failed) => {
                list("PreconditionFailure", failed.violations, |v| {
                    format!("{} {}: {}", v.r#type, v.subject, v.description)
                })
            }
            ErrorDetail::QuotaFailure(failed) => list("QuotaFailure", failed.violations, |v| {
                format!("{}: {}", v.subject, v.description)
            }),
            other => format!("{other:?}"),
        };
        writeln!(text, "  {line}").expect("a string");
    }
    text
}

fn list<V>(kind: &str, violations: Vec<V>, line: impl Fn(V) -> String) -> String {
    violations.into_iter().fold(kind.to_owned(), |text, v| format!("{text}\n    {}", line(v)))
}

fn statuses() -> Vec<Status> {
    let mut all: Vec<Status> = authority_errors().into_iter().map(Into::into).collect();
    all.extend(invalid_requests().into_iter().map(Status::from));
    all.extend(catalog_errors().into_iter().map(Status::from));
    all.extend(authentication_errors().into_iter().map(status::unauthenticated));
    all.extend([
        status::not_permitted(),
        status::caller_revoked(),
        status::not_ready(),
        status::ending(),
        status::server_ending(),
        status::connection_ending(),
        status::deadline_exceeded(),
        status::body_timeout(Duration::from_secs(30)),
        status::internal(),
        status::rate_limited(50),
        status::overloaded(10_000),
        status::too_many_of_key(64),
        status::too_large_headers(20_000, 16_384),
        status::too_many_open("calls", 100, "on this connection"),
        status::too_many_lists(4),
        status::no_memory(Exhausted::All(1 << 20)),
        status::no_memory(Exhausted::Account(1 << 20)),
        status::too_long(9, 8),
        status::unknown_method(),
        status::bad_deadline(),
        status::no_such_service(),
        status::truncated(),
        status::undecodable(),
        status::compressed(),
    ]);
    all
}

#[test]
fn golden_statuses_of_all_errors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors.txt");
    let rendered = statuses().iter().map(text).collect::<Vec<_>>().join("\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, &rendered).expect("writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    for (n, (expected, line)) in golden.lines().zip(rendered.lines()).enumerate() {
        assert_eq!(expected, line, "line {} of tests/golden/errors.txt", n + 1);
    }
    assert_eq!(golden, rendered);
}
