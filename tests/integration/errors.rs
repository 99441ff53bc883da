//! Errors and answers as data, which each transport renders. `tests/golden/errors.txt` has the status
//! of each error, as gRPC renders it. A second renderer, problem details in JSON (RFC 9457), proves
//! that the data suffices for other transports.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use scopegate::authority::error::AuthorityError;
use scopegate::authority::impact::{Affected, Impact};
use scopegate::authority::problem::{Detail, Problem, Violation, call};
use scopegate::authority::{
    Answer, ApplyError, Authority, NewCompany, NewCredential, WriteOptions,
};
use scopegate::grpc::status;
use scopegate::grpc::stream_limit::StreamLimitReached;
use scopegate::metrics::memory_budget::Exhausted;
use scopegate::policy::catalog::file::{CatalogError, CatalogErrors};
use scopegate::policy::catalog::{AudienceError, Reach};
use scopegate::policy::cause::{Cause, DenialCause};
use scopegate::policy::credential::AboveCeiling;
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::keyring::AuthenticationError;
use scopegate::policy::query::{Query, Requirement, Subject};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;
use scopegate::store::StoreError;
use scopegate::store::quota::{Quota, Reached};
use scopegate::wire::names::code_name;
use scopegate::wire::render;
use scopegate::wire::validate::InvalidRequest;
use serde_json::{Value, json};
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
        E::Store(StoreError::LogNearlyFull),
        E::Store(StoreError::AtBound(Reached { bound: Quota::Users, limit: 5 })),
        E::Store(StoreError::AtBound(Reached { bound: Quota::Bytes, limit: 5 << 20 })),
        E::Store(StoreError::EntryTooLarge { bytes: 1_048_577, limit: 1_048_576 }),
        E::Store(StoreError::EntryTooLarge { bytes: 67_108_865, limit: 67_108_864 }),
        E::Store(StoreError::CutOff),
        E::Store(StoreError::ClockBehind),
        E::Store(StoreError::ClockAhead),
        E::Store(StoreError::NotYetEverywhere(Some(Revision(7)))),
        E::Store(StoreError::NotYetEverywhere(None)),
        E::Store(StoreError::Unavailable),
        E::Store(StoreError::Damaged),
        E::Store(StoreError::TooManyBackups),
        E::Store(StoreError::BackupTooSlow),
        E::Store(StoreError::Compacted(Revision(4))),
    ]
}

fn invalid_requests() -> Vec<InvalidRequest> {
    let violation =
        |n: usize| Violation::new(format!("scopes[{n}]"), format!("`{n}` is not a scope"));
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

/// Every error that all transports have.
fn problems() -> Vec<Problem> {
    let mut all: Vec<Problem> = authority_errors().into_iter().map(Into::into).collect();
    all.extend(invalid_requests().into_iter().map(Problem::from));
    all.extend(catalog_errors().into_iter().map(Problem::from));
    all.extend(authentication_errors().into_iter().map(Problem::from));
    all.extend([
        call::not_permitted(),
        call::caller_revoked(),
        call::not_ready(),
        call::ending(),
        call::server_ending(),
        call::connection_ending(),
        call::deadline_exceeded(),
        call::body_timeout(Duration::from_secs(30)),
        call::internal(),
        call::rate_limited(50),
        call::overloaded(10_000),
        call::too_many_of_key(64),
        call::too_large_headers(20_000, 16_384),
        call::too_many_open("calls", 100, "on this connection"),
        call::too_many_lists(4),
        call::no_memory(Exhausted::All(1 << 20)),
        call::no_memory(Exhausted::Account(1 << 20)),
    ]);
    all.extend([StreamLimitReached::All(3), StreamLimitReached::Key(3)].map(Problem::from));
    all
}

/// Every error that only gRPC has.
fn statuses() -> Vec<Status> {
    vec![
        status::too_long(9, 8),
        status::unknown_method(),
        status::bad_deadline(),
        status::no_such_service(),
        status::truncated(),
        status::undecodable(),
        status::compressed(),
    ]
}

#[test]
fn golden_statuses_of_all_errors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors.txt");
    let all = problems().into_iter().map(Status::from).chain(statuses());
    let rendered = all.map(|status| text(&status)).collect::<Vec<_>>().join("\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, &rendered).expect("writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    for (n, (expected, line)) in golden.lines().zip(rendered.lines()).enumerate() {
        assert_eq!(expected, line, "line {} of tests/golden/errors.txt", n + 1);
    }
    assert_eq!(golden, rendered);
}

/// A word of the API for a variant: `SCOPE_UNKNOWN` for `ScopeUnknown`.
fn word(variant: impl std::fmt::Debug) -> String {
    let mut word = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_uppercase());
    }
    word
}

/// The HTTP status of an error, as `google.rpc.Code` maps it.
fn http_status(code: &str) -> u16 {
    match code {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => 400,
        "UNAUTHENTICATED" => 401,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" => 404,
        "ALREADY_EXISTS" | "ABORTED" => 409,
        "RESOURCE_EXHAUSTED" => 429,
        "INTERNAL" => 500,
        "UNAVAILABLE" => 503,
        "DEADLINE_EXCEEDED" => 504,
        other => panic!("no error of all transports has {other}"),
    }
}

/// A problem as RFC 9457 writes it.
fn problem_json(problem: &Problem) -> Value {
    let mut json = json!({
        "type": format!("urn:scopegate:error:{}", problem.reason),
        "title": problem.reason,
        "status": http_status(&word(problem.code)),
        "detail": problem.message,
        "code": word(problem.code),
        "reason": problem.reason,
        "violations": [],
    });
    for detail in &problem.details {
        match detail {
            Detail::Fields(all) | Detail::Preconditions(all) | Detail::Quotas(all) => {
                let all = all.iter().map(|v| json!([v.subject, v.description]));
                json["violations"] = all.collect();
            }
            Detail::Resource { kind, name, .. } => json["resource"] = json!([kind, name]),
            Detail::Retry(delay) => json["retry_after"] = json!(delay.as_secs()),
            Detail::Metadata(name, value) => json[name] = json!(value),
        }
    }
    json
}

/// The answer of a check in JSON.
fn answer_json(answer: &Answer) -> Value {
    let revision = answer.revision.0;
    match &answer.verdict {
        Verdict::Allowed { reach } => json!({
            "decision": "ALLOWED", "reason": "ALLOWED", "status": 200, "revision": revision,
            "reach": word(reach), "missing": [],
        }),
        Verdict::Denied { reason, fault, missing } => json!({
            "decision": "DENIED", "reason": word(reason), "status": reason.http_status(),
            "revision": revision, "reach": "UNSPECIFIED",
            "missing": missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "error": reason.error(),
            "detail": Cause { reason: *reason, fault: *fault }.message(),
        }),
    }
}

fn assert_same_problem(problem: Problem) {
    let json = problem_json(&problem);
    let status = Status::from(problem);
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has a reason");
    assert_eq!(json["code"], code_name(status.code()));
    assert_eq!(json["reason"], info.reason);
    assert_eq!(json["status"], http_status(code_name(status.code())));
    for (name, value) in &info.metadata {
        assert_eq!(json[name], *value);
    }
    let retry = details.retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!(json["retry_after"].as_u64(), retry.map(|delay| delay.as_secs()));
    let resource = details.resource_info();
    assert_eq!(
        json["resource"].as_array().map(|r| r[1].as_str().expect("a name")),
        resource.map(|resource| resource.resource_name.as_str())
    );
    let fields = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
    let preconditions =
        details.precondition_failure().into_iter().flat_map(|failed| &failed.violations);
    let quotas = details.quota_failure().into_iter().flat_map(|failed| &failed.violations);
    let listed: Vec<_> = fields
        .map(|v| json!([v.field, v.description]))
        .chain(preconditions.map(|v| json!([v.subject, v.description])))
        .chain(quotas.map(|v| json!([v.subject, v.description])))
        .collect();
    // A trailer has space for the first of them.
    let all = json["violations"].as_array().expect("a list");
    assert!(all.starts_with(&listed) && listed.is_empty() == all.is_empty(), "{json}");
}

fn assert_same_answer(answer: Answer) {
    let json = answer_json(&answer);
    let response = render::check(answer);
    let name = |whole: &str, prefix: &str| whole.strip_prefix(prefix).unwrap_or(whole).to_owned();
    assert_eq!(json["decision"], name(response.decision().as_str_name(), "DECISION_"));
    assert_eq!(json["reason"], name(response.reason().as_str_name(), "REASON_"));
    assert_eq!(json["reach"], name(response.reach().as_str_name(), "REACH_"));
    assert_eq!(json["status"], response.http_status);
    assert_eq!(json["revision"], response.revision);
    assert_eq!(json["missing"], json!(response.missing_scopes));
    assert_eq!(json["error"].as_str().unwrap_or_default(), response.error);
    assert_eq!(json["detail"].as_str().unwrap_or_default(), response.message);
}

/// An answer for each reason and each cause of a denial, and for each reach of an allow.
fn answers() -> Vec<Answer> {
    let allowed = [Reach::All, Reach::Own].map(|reach| Verdict::Allowed { reach });
    let reasons = Reason::ALL.iter().map(|reason| (*reason, None));
    let faults = DenialCause::ALL.iter().map(|fault| (fault.reason(), Some(*fault)));
    let denied = reasons.chain(faults).map(|(reason, fault)| Verdict::Denied {
        reason,
        fault,
        missing: scopes(2, 4),
    });
    let verdicts = allowed.into_iter().chain(denied);
    verdicts.map(|verdict| Answer { verdict, revision: Revision(7), client: None }).collect()
}

#[tokio::test]
async fn two_renderers_of_the_same_question_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Store::open(dir.path()).expect("opened"));
    let authority = Authority::new(store, 16).expect("readable");
    let session = authority.internal_session("test");
    let yaml = "audiences: { x: , y: }\nscopes: { a: , b: }";
    session.apply_catalog_file(yaml, false, "").await.expect("applied");
    let new = NewCompany { id: company(), display_name: String::new(), scopes: None };
    session.create_company(&new, &WriteOptions::default()).await.expect("created");
    let new = NewCredential {
        company: company(),
        id: credential(),
        label: String::new(),
        scopes: vec![scope("a")],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    session.create_credential(&new, &WriteOptions::default()).await.expect("created");
    let query = |company: &str, scope: Scope, audience: Option<&str>| Query {
        subject: Subject::Known {
            company: CompanyId::parse(company).expect("an id"),
            credential: credential(),
        },
        needs: Requirement::Scopes(vec![scope]),
        audience: audience.map(|name| Name::parse(name).expect("a name")),
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    };
    let mut kinds = Vec::new();
    for query in [
        query("acme", scope("a"), Some("x")),
        query("acme", scope("b"), Some("x")),
        query("acme", scope("c"), Some("x")),
        query("other", scope("a"), Some("x")),
        query("acme", scope("a"), Some("z")),
        query("acme", scope("a"), None),
    ] {
        match session.check(&query, Revision(0)).await {
            Ok(answer) => {
                kinds.push(answer_json(&answer)["reason"].clone());
                assert_same_answer(answer);
            }
            Err(error) => {
                let problem = Problem::from(error);
                kinds.push(problem.reason.into());
                assert_same_problem(problem);
            }
        }
    }
    let expected = ["ALLOWED", "SCOPE_NOT_GRANTED", "SCOPE_UNKNOWN", "COMPANY_UNKNOWN"];
    assert_eq!(kinds[..4], expected);
    assert_eq!(kinds[4..], ["AUDIENCE_AMBIGUOUS"; 2]);
    answers().into_iter().for_each(assert_same_answer);
    problems().into_iter().for_each(assert_same_problem);
}
