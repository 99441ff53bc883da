//! Benchmarks of the authority in process: cached checks, checks that read the store, and changes.
//!
//! `cargo bench --bench check`. A change is timed until it is acknowledged and therefore
//! durable, so the result depends mostly on the disk.
#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use scopegate::authority::{
    Authority, CompanyChange, CredentialChange, NewCompany, NewCredential, Restriction,
    WriteOptions,
};
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::query::{Query, Request, Requirement, Subject};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const CACHED: u64 = 200_000;
const BATCH: u64 = 100;
const WRITERS: u64 = 64;
/// Far more than a cache with room for one fact keeps, even if it evicts late.
const COLD: u64 = 10_000;

fn company() -> CompanyId {
    CompanyId::parse("demo").expect("an id")
}

fn credential(number: u64) -> CredentialId {
    CredentialId::parse(format!("k{number}")).expect("an id")
}

fn scopes(name: &str) -> Vec<Scope> {
    vec![Scope::parse(name).expect("a scope")]
}

fn query(number: u64) -> Query {
    Query {
        subject: Subject::Known { company: company(), credential: credential(number) },
        needs: Requirement::Scopes(scopes("a")),
        audience: None,
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    }
}

/// An authority with one company, whose credentials all have the scope `a`.
async fn authority(dir: &Path, entries: u64, credentials: u64) -> Arc<Authority> {
    let store = Arc::new(Store::open(dir).expect("opened"));
    let authority = Arc::new(Authority::new(store, entries).expect("readable"));
    authority
        .internal_session("bench")
        .apply_catalog_file("scopes: { a: , b: }", false, "")
        .await
        .expect("applied");
    let new = NewCompany { id: company(), display_name: String::new(), scopes: None };
    authority
        .internal_session("bench")
        .create_company(&new, &WriteOptions::default())
        .await
        .expect("created");
    let mut tasks = JoinSet::new();
    // The store's command queue is bounded.
    for worker in 0..WRITERS {
        let authority = Arc::clone(&authority);
        tasks.spawn(async move {
            for number in (worker..credentials).step_by(WRITERS as usize) {
                let new = NewCredential {
                    company: company(),
                    id: credential(number),
                    label: String::new(),
                    scopes: scopes("a"),
                    expires_at: None,
                    enabled: true,
                    redirect_uris: vec![],
                    tokens_valid_from: None,
                };
                authority
                    .internal_session("bench")
                    .create_credential(&new, &WriteOptions::default())
                    .await
                    .expect("created");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("created");
    }
    let answer = authority
        .internal_session("bench")
        .check(&query(0), Revision::ZERO)
        .await
        .expect("answered");
    assert!(matches!(answer.verdict, Verdict::Allowed { .. }));
    authority
}

fn checks(criterion: &mut Criterion, runtime: &Runtime, authority: &Authority) {
    let session = authority.internal_session("bench");
    let mut group = criterion.benchmark_group("check");
    let one = query(0);
    group.bench_function("hit", |b| {
        b.to_async(runtime).iter(|| session.check(black_box(&one), Revision::ZERO));
    });
    let many: Vec<_> = (0..BATCH).map(|number| Request::from(query(number % WRITERS))).collect();
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function(BenchmarkId::new("batch", BATCH), |b| {
        b.to_async(runtime)
            .iter(async || session.batch_check(black_box(&mut many.clone()), Revision::ZERO).await);
    });
    group.finish();
}

/// Checks credentials in turn. The cache has evicted each before it is checked again.
fn misses(criterion: &mut Criterion, runtime: &Runtime, authority: &Authority) {
    let session = authority.internal_session("bench");
    let cold: Vec<_> = (0..COLD).map(query).collect();
    let mut turns = cold.iter().cycle();
    let mut group = criterion.benchmark_group("check");
    group.bench_function("miss", |b| {
        b.to_async(runtime).iter(|| {
            let next = turns.next().expect("a cycle does not end");
            session.check(black_box(next), Revision::ZERO)
        });
    });
    group.finish();
}

/// Grants and revokes `b` alternately, so that every call is a change.
async fn change(authority: &Authority, number: u64, turn: u64) {
    let change = if turn.is_multiple_of(2) {
        CredentialChange::Grant { scopes: scopes("b"), expires_at: None }
    } else {
        CredentialChange::Revoke(scopes("b"))
    };
    let before = authority.published();
    let done = authority
        .internal_session("bench")
        .change_credential(&company(), &credential(number), &change, &WriteOptions::default())
        .await
        .expect("changed");
    assert!(done.revision > before, "a call that changes nothing measures nothing");
}

async fn restrict(authority: &Authority) -> Duration {
    let restriction =
        Restriction { company: company(), scopes: scopes("a"), acknowledge_impact: true };
    let start = Instant::now();
    authority
        .internal_session("bench")
        .restrict_company(&restriction, &WriteOptions::default())
        .await
        .expect("restricted");
    let taken = start.elapsed();
    let back = CompanyChange::AddScopes(scopes("a"));
    authority
        .internal_session("bench")
        .change_company(&company(), &back, &WriteOptions::default())
        .await
        .expect("put back");
    taken
}

fn changes(criterion: &mut Criterion, runtime: &Runtime, authority: &Arc<Authority>) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(20);
    let turns = AtomicU64::new(0);
    let next = || turns.fetch_add(1, Ordering::Relaxed);
    group.bench_function("one grant", |b| {
        b.to_async(runtime).iter(|| change(authority, 0, next()));
    });
    group.bench_function("restriction", |b| {
        b.to_async(runtime).iter_custom(|rounds| async move {
            let mut taken = Duration::ZERO;
            for _ in 0..rounds {
                taken += restrict(authority).await;
            }
            taken
        });
    });
    group.throughput(Throughput::Elements(WRITERS));
    // The first credential may still have `b` from the previous benchmark.
    turns.store(0, Ordering::Relaxed);
    group.bench_function(BenchmarkId::new("grants at once", WRITERS), |b| {
        b.to_async(runtime).iter(|| {
            let turn = next();
            async move {
                let mut tasks = JoinSet::new();
                for number in 1..=WRITERS {
                    let authority = Arc::clone(authority);
                    tasks.spawn(async move { change(&authority, number, turn).await });
                }
                while let Some(done) = tasks.join_next().await {
                    done.expect("changed");
                }
            }
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let warm = runtime.block_on(authority(dir.path(), CACHED, WRITERS + 1));
    checks(&mut criterion, &runtime, &warm);
    let cold_dir = tempfile::tempdir().expect("a directory");
    let cold = runtime.block_on(authority(cold_dir.path(), 1, COLD));
    misses(&mut criterion, &runtime, &cold);
    changes(&mut criterion, &runtime, &warm);
    criterion.final_summary();
}
