//! Joiners: replicas that begin to answer, or must not.

use bytes::Bytes;
use scopegate::proto::*;
use scopegate::store::replicated::etcd::{Operation, Range, Txn};
use scopegate::store::replicated::head::Head;
use scopegate::store::replicated::keys;

use super::load::Load;
use super::{LEASE, sentence, three};
use crate::harness::cluster::{Cluster, until};
use crate::harness::etcd::WITHIN;
use crate::harness::fake_clock::FakeClock;
use crate::harness::scopes_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_an_empty_directory_joins_and_nobody_waits() {
    let Some(mut cluster) = three().await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    let number = cluster.add();
    cluster.launch(number);
    let before = cluster.client(0).ask(scopes_of("none", "none", &["a"])).await;
    let before = before.expect("an answer").revision;
    cluster.until_serving(number).await;
    let answer = cluster.client(number).ask(scopes_of("company-0", "key", &["a"])).await;
    assert!(answer.expect("an answer").revision >= before, "it has all");
    load.goes_on(&[0, 1, 2]).await;
    load.end_row("a replica joins with an empty directory").untouched(&[0, 1, 2]);
    assert_eq!(cluster.logged("was fenced"), 0);

    if let Some(clock) = FakeClock::new() {
        clock.set("-60s");
        let number = cluster.add();
        cluster.launch_by(number, clock.command());
        let behind = "5 s behind those of most other replicas";
        until(behind, async || cluster.logged(behind) > 0).await;
        let refused = cluster.client(number).ask(scopes_of("company-0", "key", &["a"])).await;
        refused.expect_err("it answers nothing");
        load.goes_on(&[0, 1, 2]).await;
        load.end_row("the clock of a replica is behind").untouched(&[0, 1, 2]);
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_next_entry_was_deleted_take_a_snapshot_at_their_start() {
    let Some(mut cluster) = Cluster::start(1, &[], 2, LEASE).await else { return };
    assert!(cluster.replicas[1].take().terminate().success());
    let first = cluster.client(0);
    first.create_company("acme", Some(&["a"])).await;
    first.create_credential("acme", "key", &["a"]).await;
    // As a truncation does when no record of a replica lacks the entries.
    let deleted = vec![Operation::Delete(Range::under(keys::LOG))];
    let deleted = Txn { then: deleted, ..Txn::default() };
    cluster.etcd.client().txn(&deleted, WITHIN).await.expect("an answer");
    first.restrict("acme", &["a"]).await;
    // One is behind, and one is empty.
    let empty = cluster.add();
    for number in [1, empty] {
        cluster.launch(number);
    }
    for number in [1, empty] {
        cluster.until_serving(number).await;
        let reason = cluster.client(number).reason("acme", "key", &["a"]).await;
        assert_eq!(reason, Reason::ScopeNotInCompany, "{number}");
    }
    assert_eq!(cluster.logged("the snapshot of a replica is installed"), 2);
    // They follow the log from there.
    cluster.client(empty).create_company("umbrella", Some(&["a"])).await;
    for client in cluster.clients() {
        let company = GetCompanyRequest { company_id: "umbrella".to_owned() };
        client.directory.clone().get_company(company).await.expect("a company");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_read_an_entry_leaves_and_says_what_it_needs() {
    let Some(mut cluster) = three().await else { return };
    let client = cluster.etcd.client();
    let end = client.range(&Range::key(keys::HEAD), WITHIN).await.expect("an answer");
    let head = Head::decode(&end.pairs[0].value).expect("a head");
    let last = client.range(&keys::entries_behind(head.seq - 1), WITHIN).await;
    // The same again, as the next entry, and of a later format: the last value of a field counts.
    let mut entry = last.expect("an answer").pairs[0].value.to_vec();
    let seq = u8::try_from(head.seq + 1).expect("few entries");
    entry.extend([1 << 3, seq, 7 << 3, 99]);
    let next = Head { seq: head.seq + 1, hash: blake3::hash(&entry), ..head };
    let put = |key: String, value: Vec<u8>| Operation::Put(key, Bytes::from(value));
    let then = vec![put(keys::HEAD.to_owned(), next.encode()), put(keys::entry(next.seq), entry)];
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
    for number in 0..3 {
        let replica = &mut cluster.replicas[number];
        let said = sentence(replica.take());
        assert!(said.contains("an entry of format 99 cannot be read by this version"), "{said}");
    }
    cluster.launch(0);
    let said = sentence(cluster.replicas[0].take());
    assert!(said.contains("an entry of format 99 cannot be read by this version"), "{said}");
}
