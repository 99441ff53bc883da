//! Imports at replicas, and the space of etcd: real processes, and an etcd whose quota seems to be small.

use std::time::Duration;

use scopegate::proto::*;
use scopegate::store::replicated::compaction::CompactionNote;
use scopegate::store::replicated::etcd::{Operation, Range, Txn};
use scopegate::store::replicated::keys;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::cluster::{Cluster, until};
use crate::harness::etcd::WITHIN;
use crate::harness::{Client, owned, refused, scopes_of};

const LEASE: Duration = Duration::from_secs(3);
/// The credentials of a message.
const MESSAGE: usize = 900;

/// A message that creates credentials of the company `acme`, which the first message creates, too.
fn message(number: usize) -> ImportCredentialsRequest {
    let company = ImportedCompany { company_id: "acme".to_owned(), ..Default::default() };
    let credential = |n: usize| ImportedCredential {
        company_id: "acme".to_owned(),
        credential_id: format!("c{n}"),
        label: "x".repeat(200),
        scopes: owned(&["a"]),
        ..Default::default()
    };
    let numbers = number * MESSAGE..(number + 1) * MESSAGE;
    ImportCredentialsRequest {
        companies: (number == 0).then_some(company).into_iter().collect(),
        credentials: numbers.map(credential).collect(),
        ..Default::default()
    }
}

async fn import(
    client: Client,
    messages: mpsc::Receiver<ImportCredentialsRequest>,
) -> Result<ImportCredentialsResponse, tonic::Status> {
    let mut directory = client.directory;
    directory
        .import_credentials(ReceiverStream::new(messages))
        .await
        .map(tonic::Response::into_inner)
}

/// How many credentials there are.
async fn count(client: &Client) -> usize {
    let (mut count, mut page_token) = (0, String::new());
    loop {
        let request = ListCredentialsRequest {
            company_id: "acme".to_owned(),
            page_size: 1000,
            page_token,
            ..Default::default()
        };
        let page = client.directory.clone().list_credentials(request).await.expect("a page");
        let page = page.into_inner();
        count += page.credentials.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return count;
        }
    }
}

async fn is_there(client: &Client, credential: &str) -> bool {
    let answer = client.ask(scopes_of("acme", credential, &["a"])).await;
    answer.is_ok_and(|answer| answer.decision() == Decision::Allowed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_at_a_replica_is_everywhere_at_its_end() {
    // The history is compacted whenever entries of 512 KiB were put.
    let cluster = Cluster::start_with(1, &[], 3, LEASE, "?quota=16MiB").await;
    let Some(mut cluster) = cluster else { return };
    let clients = cluster.clients();
    let etcd = cluster.etcd.client();
    let before = etcd.range(&Range::key("none"), WITHIN).await.expect("an answer").revision;
    // Another catalog comes meanwhile.
    let (sender, messages) = mpsc::channel(1);
    let done = tokio::spawn(import(clients[0].clone(), messages));
    sender.send(message(0)).await.expect("read");
    let apply =
        ApplyCatalogRequest { yaml: "scopes: { a: , b: , c: }".to_owned(), ..Default::default() };
    clients[1].catalog.clone().apply_catalog(apply).await.expect("applied");
    sender.send(message(1)).await.expect("read");
    drop(sender);
    let done = done.await.expect("no panic").expect("imported");
    let told = (done.created_company_count, done.created_credential_count, done.skipped_count);
    assert_eq!(told, (1, 2 * MESSAGE as u64, 0));
    for client in &clients {
        assert!(is_there(client, &format!("c{}", 2 * MESSAGE - 1)).await);
        assert_eq!(count(client).await, 2 * MESSAGE);
    }
    let is_noted = async || {
        let note = etcd.range(&Range::key(keys::COMPACTED), WITHIN).await.expect("an answer");
        let note =
            note.pairs.first().map(|note| CompactionNote::decode(&note.value).expect("a note"));
        note.is_some_and(|note| note.etcd_revision > before)
    };
    until("a note behind the import", is_noted).await;
    // The replica dies amid an import, which then runs again at another one.
    let (sender, messages) = mpsc::channel(1);
    let killed = tokio::spawn(import(clients[2].clone(), messages));
    sender.send(message(2)).await.expect("read");
    until("a part", async || is_there(&clients[2], &format!("c{}", 2 * MESSAGE)).await).await;
    cluster.replicas[2].take().kill();
    killed.await.expect("no panic").expect_err("the connection is lost");
    let (sender, messages) = mpsc::channel(4);
    for number in 0..4 {
        sender.try_send(message(number)).expect("room");
    }
    drop(sender);
    let again = import(clients[0].clone(), messages).await.expect("imported");
    assert!(again.skipped_count > 2 * MESSAGE as u64, "{again:?}");
    let all = again.created_credential_count + again.skipped_count;
    assert_eq!((all, again.created_company_count), (4 * MESSAGE as u64 + 1, 0));
    assert_eq!(count(&clients[1]).await, 4 * MESSAGE);
    // The history of etcd does not go back to the begin of the first import.
    let head = Range::key(keys::HEAD);
    let is_compacted = async || match etcd.watch(&head, before, WITHIN).await {
        Ok(mut watch) => watch.woken().await.is_err_and(|error| error.is_compacted()),
        Err(error) => error.is_compacted(),
    };
    until("the compaction", is_compacted).await;
    // And nobody needs it: the dead replica follows the log from where it was.
    cluster.launch(2);
    cluster.until_serving(2).await;
    assert_eq!(count(&clients[2]).await, 4 * MESSAGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_takes_away_is_committed_while_etcd_is_nearly_full() {
    let cluster = Cluster::start_with(1, &[], 1, LEASE, "?quota=16MiB&compact=off").await;
    let Some(cluster) = cluster else { return };
    let client = cluster.client(0);
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a", "b"]).await;
    let etcd = cluster.etcd.client();
    for number in 0..12 {
        let junk = Operation::Put(format!("junk/{number}"), vec![0; 1 << 20].into());
        let txn = Txn { then: vec![junk], ..Txn::default() };
        etcd.txn(&txn, WITHIN).await.expect("put");
    }
    until("the brake", async || cluster.logged("more than half of its quota") > 0).await;
    let granted = client.grant("acme", "hr", &["a"]).await.expect("it changes nothing");
    assert!(granted.added_scopes.is_empty());
    let request = CreateCompanyRequest { company_id: "late".to_owned(), ..Default::default() };
    let refusal = client.directory.clone().create_company(request.clone()).await;
    assert!(refusal.as_ref().is_err_and(|status| status.message().contains("raise its quota")));
    let (code, details) = refused(refusal);
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(details.error_info().expect("an info").reason, "ETCD_FULL");
    client.restrict("acme", &["b"]).await;
    assert_eq!(client.reason("acme", "hr", &["b"]).await, Reason::ScopeNotInCompany);
    // An import waits, and is not refused.
    let (sender, messages) = mpsc::channel(1);
    sender.try_send(message(0)).expect("room");
    drop(sender);
    let mut importing = tokio::spawn(import(client.clone(), messages));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut importing).await;
    assert!(early.is_err(), "{early:?}");
    let txn = Txn { then: vec![Operation::Delete(Range::under("junk/"))], ..Txn::default() };
    etcd.txn(&txn, WITHIN).await.expect("deleted");
    cluster.etcd.compact().await;
    let done = importing.await.expect("no panic").expect("imported");
    assert_eq!((done.created_credential_count, done.skipped_count), (MESSAGE as u64, 1));
    client.directory.clone().create_company(request).await.expect("created");
}
