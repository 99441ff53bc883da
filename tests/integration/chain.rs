//! The chain of changes: each record has the hash of the chain before and of itself, and the store
//! has the chain of its head. Computed here anew from the stored bytes, by the words of
//! `store/chain.rs`.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::revision::Revision;
use scopegate::store::engine::{Engine, SledEngine};
use scopegate::store::{self, Incarnation, Proposal, Store};

use crate::fixture::{self, Fixture, NoListener, Rng};
use crate::harness::Server;
use crate::redb_engine::RedbEngine;

const ROOT: &str = "scopegate 2026-11 root of the change chain";
/// The tag and the length of the field at the end of a record.
const FIELD: [u8; 2] = [15 << 3 | 2, 32];
/// A restore skips so many revisions.
const STEP: u64 = 1 << 32;

/// The revision and the bytes of each record, oldest first.
fn records(engine: &dyn Engine) -> Vec<(u64, Vec<u8>)> {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let short = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let entries = engine.scan(b"L").map(|entry| entry.expect("readable"));
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let bytes = match value[0] {
            0 => value[9..].to_vec(),
            _ => (0..short(&value[13..17]))
                .flat_map(|part| {
                    let key = [b"O", &value[1..13], &part.to_be_bytes()[..]].concat();
                    engine.get(&key).expect("readable").expect("a part")
                })
                .collect(),
        };
        (number(&key[1..]), bytes)
    };
    entries.map(read).collect()
}

/// Computes the chain of a store's records and compares it with each record and with the head.
/// Returns the number of records without a chain, and of those with one.
pub fn verify<E: Engine>(dir: &Path, first: Incarnation) -> (usize, usize) {
    let engine = E::open(dir, 1 << 20).expect("opened");
    let incarnation = engine.get(b"Mincarnation").expect("readable").expect("there");
    let mut chain = blake3::derive_key(ROOT, first.as_bytes());
    let (mut last, mut without, mut with) = (0, 0, 0);
    for (revision, bytes) in records(&engine) {
        let restored = revision - last >= STEP;
        last = revision;
        let Some((record, [tag, length, end @ ..])) =
            bytes.split_last_chunk::<34>().filter(|(_, end)| end.starts_with(&FIELD))
        else {
            assert_eq!(with, 0, "revision {revision} has no chain");
            without += 1;
            continue;
        };
        assert_eq!([*tag, *length], FIELD);
        if restored {
            chain = blake3::derive_key(ROOT, &[&incarnation, &chain[..]].concat());
        }
        chain = *blake3::hash(&[&chain, record].concat()).as_bytes();
        assert_eq!(*end, chain, "the chain of revision {revision}");
        with += 1;
    }
    let head = engine.get(b"Mchain").expect("readable").expect("there");
    assert_eq!(head, chain, "the chain of the head");
    (without, with)
}

/// Makes changes up to about this revision, and returns the last one.
fn change(store: &Store, until: u64) -> usize {
    let mut fixture = Fixture::at(store.opened_at().0);
    store.start(Arc::new(NoListener));
    fixture.live(store, until, &mut Rng(until), |_| ());
    fixture.revision as usize
}

/// A change whose record is stored in parts.
fn long_change() -> Proposal {
    let change = Change {
        revision: Revision::NEXT,
        time: Timestamp::now(),
        author: Author { reason: "x".repeat(10_000), ..Author::default() },
        kind: ChangeKind::UpdateCompany,
        company: None,
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    };
    let (preconditions, writes) = (vec![], vec![]);
    Proposal { preconditions, caller: None, writes, change, idempotency: None }
}

fn backup_of(store: &Store) -> Vec<u8> {
    let mut backup = store.backup().expect("begun");
    std::iter::from_fn(|| backup.next_part().expect("read")).flatten().collect()
}

#[test]
fn the_chain_goes_on_after_a_restart_and_begins_anew_in_a_restored_store() {
    go_on_and_begin_anew::<SledEngine>();
}

#[test]
fn the_chain_goes_on_and_begins_anew_on_another_engine() {
    go_on_and_begin_anew::<RedbEngine>();
}

fn go_on_and_begin_anew<E: Engine>() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let store = Store::open_on::<E>(&path, 64 << 20).expect("opened");
    let incarnation = store.incarnation();
    drop(store);
    assert_eq!(verify::<E>(&path, incarnation), (0, 0));
    let store = Store::open_on::<E>(&path, 64 << 20).expect("opened");
    let count = change(&store, 100);
    drop(store);
    assert_eq!(verify::<E>(&path, incarnation), (0, count));
    let store = Store::open_on::<E>(&path, 64 << 20).expect("opened");
    let count = 1 + change(&store, 250);
    let committed = store.commit(long_change()).expect("queued").blocking_recv();
    committed.expect("answered").expect("committed");
    let backup = backup_of(&store);
    drop(store);
    assert_eq!(verify::<E>(&path, incarnation), (0, count));
    for copy in ["a", "b"] {
        let copy = dir.path().join(copy);
        let restored = store::restore_on::<E>(&copy, &*backup, Author::default(), Timestamp::now());
        assert_ne!(restored.expect("restored").incarnation, incarnation);
        assert_eq!(verify::<E>(&copy, incarnation), (0, count + 1));
    }
}

#[test]
fn the_chain_of_an_old_store_begins_with_its_upgrade() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema1.store");
    let old = std::fs::read(old).expect("readable");
    store::restore(dir.path(), &*old, Author::default(), Timestamp::now()).expect("restored");
    let server = Server::start(dir.path(), &["--allow-unauthenticated"]);
    assert_eq!(server.logged("the store was upgraded"), 1);
    assert!(server.terminate().success());
    let store = fixture::open(dir.path()).expect("opened");
    let incarnation = store.incarnation();
    drop(store);
    let (without, with) = verify::<SledEngine>(dir.path(), incarnation);
    assert!(without > 1 && with == 0, "{without} {with}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_holds_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    // Some are acknowledged, others are under way.
    let writers = (0..16).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let request = scopegate::proto::CreateCredentialRequest {
                    company_id: "acme".to_owned(),
                    credential_id: format!("{writer}-{n}"),
                    ..Default::default()
                };
                if client.directory.clone().create_credential(request).await.is_err() {
                    return n;
                }
            }
            0
        })
    });
    let writers: Vec<_> = writers.collect();
    while client.credential("acme", "3-20").await.is_err() {}
    server.kill();
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.expect("ended with the connection");
    }
    let store = Store::open(dir.path()).expect("opened");
    let incarnation = store.incarnation();
    drop(store);
    let (without, with) = verify::<SledEngine>(dir.path(), incarnation);
    assert!(without == 0 && with > acknowledged, "{with} records, {acknowledged} acknowledged");
}
