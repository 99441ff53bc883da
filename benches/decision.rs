//! Benchmarks of the decision alone, on prepared facts: without cache, store or network.
//!
//! `cargo bench --bench decision`.
#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::Criterion;
use jiff::Timestamp;
use scopegate::policy::catalog::Catalog;
use scopegate::policy::catalog::endpoint::RequestPath;
use scopegate::policy::company::Company;
use scopegate::policy::credential::{Credential, GrantContext};
use scopegate::policy::decision::{Facts, Verdict, decide, effective};
use scopegate::policy::edit::Stamped;
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::query::{Query, Requirement, Subject};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::{Scope, ScopeId};

const CATALOG: &str = include_str!("../catalogs/360learning.yaml");
const HELD: [&str; 3] = ["groups:read", "users:read", "users:write"];

fn scope(name: &str) -> Scope {
    Scope::parse(name).expect("a scope")
}

fn query(needs: Requirement) -> Query {
    Query {
        subject: Subject::Known {
            company: CompanyId::parse("demo").expect("an id"),
            credential: CredentialId::parse("hr-sync").expect("an id"),
        },
        needs,
        audience: None,
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    }
}

fn scopes(names: &[&str]) -> Query {
    query(Requirement::Scopes(names.iter().map(|name| scope(name)).collect()))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let now = Timestamp::UNIX_EPOCH;
    let mut catalog = Catalog::empty().replaced_by(CATALOG).expect("a catalog");
    catalog.revision = Revision(1);
    let held: Vec<ScopeId> =
        HELD.iter().map(|name| catalog.id(&scope(name)).expect("a known scope")).collect();
    let id = CompanyId::parse("demo").expect("an id");
    let mut company = Company::create(id, String::new(), &catalog, Some(&held), now).after;
    company.stamp(Revision(2), now);
    let ground = GrantContext { catalog: &catalog, company: &company, now };
    let id = CredentialId::parse("hr-sync").expect("an id");
    let made = Credential::create(id, String::new(), None, &held, ground);
    let mut credential = made.expect("within the ceiling").after;
    credential.stamp(Revision(3), now);
    let facts = Facts {
        ambiguous_subject: false,
        tokens: Default::default(),
        catalog: &catalog,
        company: Some(&company),
        credential: Some(&credential),
        user: None,
        consent: None,
        now,
    };

    let path = RequestPath::parse("/api/v2/users/7/groups").expect("a path");
    let endpoint = query(Requirement::Endpoint { method: "GET".into(), path });
    let cases = [
        ("allow by scope", scopes(&["users:write"]), true),
        ("allow by three scopes", scopes(&HELD), true),
        ("allow by endpoint", endpoint, true),
        ("denial", scopes(&["courses:write"]), false),
    ];
    let mut group = criterion.benchmark_group("decision");
    for (name, query, allowed) in &cases {
        let verdict = decide(query, facts).expect("a clear audience");
        assert_eq!(matches!(verdict, Verdict::Allowed { .. }), *allowed, "{name}");
        group.bench_function(*name, |b| b.iter(|| decide(black_box(query), black_box(facts))));
    }
    let query = scopes(&HELD);
    assert_eq!(effective(&query, facts).expect("a clear audience").len(), HELD.len());
    group.bench_function("effective list", |b| {
        b.iter(|| effective(black_box(&query), black_box(facts)));
    });
    group.finish();
    criterion.final_summary();
}
