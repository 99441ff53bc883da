//! Compares the restriction of a company with 100 000 credentials and of one with a single
//! credential. The time ends when the restriction takes effect: when its revision is published
//! (D6). The affected credentials are counted later, which is not part of the time.
//!
//! `cargo bench --bench restriction`. Rounds of both alternate. The result is the ratio of the
//! medians, with its range over three runs.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use scopegate::authority::{
    Authority, CompanyChange, NewCompany, NewCredential, Restriction, WriteOptions,
};
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;

const MANY: usize = 100_000;
const ROUNDS: usize = 31;

fn scopes() -> Vec<Scope> {
    vec![Scope::parse("a").expect("a scope")]
}

async fn company(authority: &Arc<Authority>, name: &str, credentials: usize) -> CompanyId {
    let id = CompanyId::parse(name).expect("an id");
    let new = NewCompany { id: id.clone(), display_name: String::new(), scopes: None };
    authority
        .internal_session("bench")
        .create_company(&new, &WriteOptions::default())
        .await
        .expect("created");
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..256 {
        let (authority, company) = (Arc::clone(authority), id.clone());
        tasks.spawn(async move {
            for n in (worker..credentials).step_by(256) {
                let new = NewCredential {
                    company: company.clone(),
                    id: CredentialId::parse(format!("k{n}")).expect("an id"),
                    label: String::new(),
                    scopes: scopes(),
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
    id
}

/// The time from the call to the publication. Afterwards the scopes are restored.
async fn restrict(authority: &Arc<Authority>, id: &CompanyId) -> Duration {
    let next = authority.published().next();
    let restriction =
        Restriction { company: id.clone(), scopes: scopes(), acknowledge_impact: true };
    let mut bell = authority.bell();
    let start = Instant::now();
    let call = tokio::spawn({
        let authority = Arc::clone(authority);
        async move {
            authority
                .internal_session("bench")
                .restrict_company(&restriction, &WriteOptions::default())
                .await
        }
    });
    bell.wait_for(|published| *published >= next).await.expect("published");
    let taken = start.elapsed();
    call.await.expect("ended").expect("restricted");
    let add = CompanyChange::AddScopes(scopes());
    authority
        .internal_session("bench")
        .change_company(id, &add, &WriteOptions::default())
        .await
        .expect("put back");
    taken
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Store::open(dir.path()).expect("opened"));
    let authority = Arc::new(Authority::new(store, 200_000).expect("readable"));
    authority
        .internal_session("bench")
        .apply_catalog_file("scopes: { a: , b: }", false, "")
        .await
        .expect("applied");
    let one = company(&authority, "one", 1).await;
    let many = company(&authority, "many", MANY).await;
    assert!(authority.published() > Revision(MANY as u64));
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let (mut few, mut lots) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            few.push(restrict(&authority, &one).await);
            lots.push(restrict(&authority, &many).await);
        }
        let (few, lots) = (median(few), median(lots));
        ratios.push(lots.as_secs_f64() / few.as_secs_f64());
        println!("1 credential {few:?}, {MANY} credentials {lots:?}");
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "restriction in force, {MANY} credentials against 1: ratio {:.2} (from {:.2} to {:.2})",
        ratios[1], ratios[0], ratios[2]
    );
}
