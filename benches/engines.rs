//! Compares the engines below the store: sled, which serves, and the redb of the tests.
//!
//! `cargo bench --bench engines` makes a store of 100 000 credentials on each, twice in turn.
//! `cargo bench --bench engines -- ENGINE CREDENTIALS` makes one. For its system calls, put
//! `strace -fc` before the program that Cargo names.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

#[path = "../tests/integration/redb_engine.rs"]
mod redb_engine;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redb_engine::RedbEngine;
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::credential::{Credential, Grant};
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::ScopeId;
use scopegate::store::engine::{Engine, SledEngine};
use scopegate::store::{
    CommitHandle, CommitObserver, Fact, FactKey, FactWrite, Outcome, Proposal, Store,
};

const COMPANY: Revision = Revision(1);
/// The size of an engine's own cache: far less than the store.
const CACHE: u64 = 16 << 20;
/// How many changes are made one after the other, and how many wait together otherwise.
const ALONE: usize = 2_000;
const TOGETHER: usize = 64;
const READS: usize = 50_000;

struct NoListener;

impl CommitObserver for NoListener {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}

fn credential_id(n: usize) -> CredentialId {
    CredentialId::parse(format!("credential-{n:07}")).expect("an id")
}

/// Creates a credential with ten grants.
fn proposal(n: usize) -> Proposal {
    let id = credential_id(n);
    let time = Timestamp::UNIX_EPOCH;
    let grant = Grant { granted_at: Revision::NEXT, expires_at: None };
    let credential = Credential {
        id: id.clone(),
        company: COMPANY,
        label: "A credential".to_owned(),
        enabled: true,
        expires_at: None,
        grants: (1..=10).map(|scope| (ScopeId(scope), grant)).collect(),
        secrets: vec![],
        redirect_uris: [].into(),
        revoked_tokens: Default::default(),
        created_at: Revision::NEXT,
        revision: Revision::NEXT,
        create_time: time,
        update_time: time,
    };
    let change = Change {
        revision: Revision::NEXT,
        time,
        author: Author { actor: "bench".to_owned(), ..Author::default() },
        kind: ChangeKind::CreateCredential,
        company: CompanyId::parse("acme").ok(),
        credential: Some(id.clone()),
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    };
    let key = FactKey::Credential(COMPANY, id);
    let after = Some(Fact::Credential(Arc::new(credential)));
    let writes = vec![FactWrite { key, before: None, after }];
    Proposal { preconditions: vec![], caller: None, writes, change, idempotency: None }
}

fn wait(handle: CommitHandle) {
    handle.blocking_recv().expect("answered").expect("committed");
}

fn open<E: Engine>(dir: &Path) -> (Store, Duration) {
    let start = Instant::now();
    let store = Store::open_on::<E>(dir, CACHE).expect("opened");
    let took = start.elapsed();
    store.start(Arc::new(NoListener));
    (store, took)
}

fn measure<E: Engine>(name: &str, credentials: usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (store, _) = open::<E>(dir.path());
    let start = Instant::now();
    (0..ALONE).for_each(|n| wait(store.commit(proposal(n)).expect("queued")));
    let alone = ALONE as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut waiting = std::collections::VecDeque::new();
    for n in ALONE..credentials {
        if waiting.len() == TOGETHER {
            wait(waiting.pop_front().expect("one"));
        }
        waiting.push_back(store.commit(proposal(n)).expect("queued"));
    }
    waiting.into_iter().for_each(wait);
    let together = (credentials - ALONE) as f64 / start.elapsed().as_secs_f64();
    drop(store);
    let files = fs::read_dir(dir.path()).expect("readable").map(|file| file.expect("readable"));
    let size: u64 = files.map(|file| file.metadata().expect("readable").len()).sum();
    // The first one also reads the log that was written since the last snapshot.
    let first = open::<E>(dir.path()).1;
    let (store, second) = open::<E>(dir.path());
    let mut reads = Vec::with_capacity(READS);
    // Steps of a prime number are as good as drawn by lot.
    for n in 0..READS {
        let key = FactKey::Credential(COMPANY, credential_id(n * 7_919 % credentials));
        let start = Instant::now();
        assert!(store.get(&key).expect("readable").is_some());
        reads.push(start.elapsed());
    }
    reads.sort_unstable();
    let read = |part: usize| reads[READS * part / 100].as_secs_f64() * 1e6;
    println!(
        "{name}: {alone:.0} commits/s alone, {together:.0} with {TOGETHER} waiting; opens in \
         {first:.2?}, then {second:.2?}; reads in {:.1} us (median), {:.1} us (p99); {} MiB",
        read(50),
        read(99),
        size >> 20,
    );
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [engine, credentials] => {
            let credentials = credentials.parse().expect("a number");
            match engine {
                "redb" => measure::<RedbEngine>(engine, credentials),
                _ => measure::<SledEngine>(engine, credentials),
            }
        }
        _ => {
            for _ in 0..2 {
                measure::<SledEngine>("sled", 100_000);
                measure::<RedbEngine>("redb", 100_000);
            }
        }
    }
}
