//! The client of etcd, against real etcd processes that are killed, stopped, wiped and cut off.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::CertificateParams;
use scopegate::store::replicated::etcd::{
    Client, Compare, EtcdError, Login, MAX_OPERATIONS, MAX_REQUEST_BYTES, Operation, Range,
    TlsFiles, Txn, unsupported_version,
};

use crate::harness::ca::{Ca, Pair};
use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::http;
use crate::harness::proxy::Proxy;

/// The limit of a call that must fail by it.
const SHORT: Duration = Duration::from_millis(300);

fn put(key: &str, value: &'static str) -> Operation {
    Operation::Put(key.to_owned(), Bytes::from_static(value.as_bytes()))
}

fn is(key: &str, value: &'static str) -> Compare {
    Compare::Is(key.to_owned(), Bytes::from_static(value.as_bytes()))
}

fn absent(key: &str) -> Compare {
    Compare::Absent(key.to_owned())
}

/// A transaction that sets a key if it does not exist.
fn create(key: &str, value: &'static str) -> Txn {
    Txn { compares: vec![absent(key)], then: vec![put(key, value)], or_else: vec![] }
}

/// Whether the comparisons hold.
async fn holds(client: &Client, compares: Vec<Compare>) -> bool {
    let txn = Txn { compares, ..Txn::default() };
    client.txn(&txn, WITHIN).await.expect("an answer").succeeded
}

/// The keys of a range and their values.
async fn read(client: &Client, range: Range) -> Vec<(String, String)> {
    let answer = client.range(&range, WITHIN).await.expect("an answer");
    let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("a text");
    answer.pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Why a call got no answer.
fn no_answer<T: std::fmt::Debug>(result: Result<T, EtcdError>) -> String {
    match result {
        Err(error @ EtcdError::NoAnswer(_)) => {
            assert!(!error.is_certain());
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn transaction_compares_whole_values_and_its_ranges_see_its_puts() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let txn = Txn {
        compares: vec![absent("head"), absent("log/2")],
        then: vec![
            Operation::Range(Range::key("head")),
            put("head", "1"),
            put("log/1", "a"),
            Operation::Range(Range::key("head")),
            Operation::Range(Range::under("log/")),
        ],
        or_else: vec![
            Operation::Range(Range::key("head")),
            Operation::Range(Range::behind("log/", "log/1").limit(2)),
        ],
    };
    let done = client.txn(&txn, WITHIN).await.expect("an answer");
    assert!(done.succeeded);
    let found: Vec<_> = done.ranges.iter().map(|range| range.pairs.len()).collect();
    assert_eq!(found, [0, 1, 1], "before the put, and after it");
    assert_eq!(done.ranges[1].pairs[0].value, "1");

    // Neighbours of the range and of the prefix are not in it.
    let more = ["log/2", "log/3", "log/4", "log", "log0", "members/a"].map(|key| put(key, "x"));
    let more = Txn { then: more.to_vec(), ..Txn::default() };
    client.txn(&more, WITHIN).await.expect("an answer");
    let lost = client.txn(&txn, WITHIN).await.expect("an answer");
    assert!(!lost.succeeded);
    assert!(lost.revision > done.revision);
    assert_eq!(lost.ranges[0].pairs[0].value, "1");
    let behind: Vec<_> = lost.ranges[1].pairs.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!((behind, lost.ranges[1].has_more), (vec!["log/2", "log/3"], true));
    let all = ["log/1", "log/2", "log/3", "log/4"];
    let read: Vec<_> = read(&client, Range::under("log/")).await.into_iter().map(|p| p.0).collect();
    assert_eq!(read, all);

    for (compares, expected) in [
        (vec![is("head", "1")], true),
        (vec![is("head", "1"), is("log/1", "b")], false),
        // Neither a part of the value, nor a longer one, nor an empty one.
        (vec![is("log/1", "")], false),
        (vec![is("log/1", "aa")], false),
        // No value is that of a key that does not exist.
        (vec![is("none", "")], false),
        (vec![absent("none")], true),
        (vec![absent("head")], false),
        (vec![Compare::Exists("head".to_owned())], true),
        (vec![Compare::Exists("none".to_owned())], false),
    ] {
        assert_eq!(holds(&client, compares.clone()).await, expected, "{compares:?}");
    }
    // What is truncated: neither the next key, nor one whose name only begins like the last.
    let up_to = Operation::Delete(Range::up_to("log/", "log/2"));
    let truncate = Txn { then: vec![put("log/20", "x"), up_to], ..Txn::default() };
    client.txn(&truncate, WITHIN).await.expect("an answer");
    let left = self::read(&client, Range::under("log/")).await;
    let left: Vec<_> = left.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(left, ["log/20", "log/3", "log/4"]);
    assert!(holds(&client, vec![is("log", "x")]).await);
    let delete = Txn { then: vec![Operation::Delete(Range::under("log/"))], ..Txn::default() };
    client.txn(&delete, WITHIN).await.expect("an answer");
    assert!(holds(&client, vec![absent("log/4"), is("log", "x"), is("log0", "x")]).await);
}

#[tokio::test]
async fn transaction_at_etcds_limits_is_carried_out_and_a_larger_one_is_not_sent() {
    // As far as is known nothing listens there, so nothing can be sent.
    let nowhere = Etcd::client_of(&["127.0.0.1:1"]);
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let many = |count: usize| Txn {
        compares: (0..count).map(|n| absent(&format!("many/{n}"))).collect(),
        then: (0..count).map(|n| put(&format!("many/{n}"), "")).collect(),
        or_else: vec![],
    };
    assert!(client.txn(&many(MAX_OPERATIONS), WITHIN).await.expect("an answer").succeeded);
    let error = nowhere.txn(&many(MAX_OPERATIONS + 1), WITHIN).await.expect_err("too large");
    assert!(matches!(error, EtcdError::TooLarge { what: "operations", size: 129, limit: 128 }));
    assert!(error.is_certain());

    let large = |size: usize| Txn {
        then: vec![Operation::Put("large".to_owned(), vec![7; size].into())],
        ..Txn::default()
    };
    // What the message has besides the value.
    let too_large = nowhere.txn(&large(MAX_REQUEST_BYTES), WITHIN).await;
    let Err(EtcdError::TooLarge { size, .. }) = too_large else { panic!("sent") };
    let frame = size - MAX_REQUEST_BYTES;
    let most = large(MAX_REQUEST_BYTES - frame);
    assert!(client.txn(&most, WITHIN).await.expect("an answer").succeeded);
    let found = client.range(&Range::key("large"), WITHIN).await.expect("an answer");
    assert_eq!(found.pairs[0].value.len(), MAX_REQUEST_BYTES - frame);
    let error = nowhere.txn(&large(MAX_REQUEST_BYTES - frame + 1), WITHIN).await;
    assert!(matches!(error, Err(EtcdError::TooLarge { what: "bytes", .. })));
}

#[tokio::test]
async fn etcd_with_lower_limits_refuses_with_certainty() {
    let limits = ["--max-txn-ops", "2", "--max-request-bytes", "2000"];
    let Some(etcd) = Etcd::start(1, &limits).await else { return };
    let client = etcd.client();
    let three = ["a", "b", "c"].map(|key| put(key, "x")).to_vec();
    let large = Operation::Put("a".to_owned(), vec![7; 4000].into());
    for (then, part) in [
        (three, "too many operations"),
        (vec![large], "request is too large"),
        (vec![put("a", "x"), put("a", "y")], "duplicate key"),
    ] {
        let error = client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect_err(part);
        assert!(error.is_certain() && error.to_string().contains(part), "{error}");
    }
    assert!(holds(&client, vec![absent("a")]).await);
}

#[tokio::test]
async fn node_that_gives_no_answer_is_asked_last() {
    let Some(mut etcd) = Etcd::start(3, &[]).await else { return };
    // The first two of the URL are followers, so the cluster answers without either.
    let leader = etcd.leader().await;
    let nodes = [(leader + 1) % 3, (leader + 2) % 3, leader];
    let proxies = nodes.map(|node| Proxy::start(etcd.address(node)));
    let addresses = proxies.each_ref().map(|proxy| proxy.address.as_str());
    let accepted = || proxies.each_ref().map(Proxy::accepted);
    let (client, range, all) = (Etcd::client_of(&addresses), Range::key("a"), pairs(&[("a", "1")]));
    client.txn(&create("a", "1"), WITHIN).await.expect("an answer");
    assert_eq!(accepted(), [1, 0, 0], "the first of the URL");

    etcd.kill(nodes[0]);
    no_answer(client.range(&range, WITHIN).await);
    // That call may have tried to connect again.
    let first = accepted()[0];
    assert_eq!(read(&client, range.clone()).await, all);
    assert_eq!(accepted(), [first, 1, 0], "the next node, and no other");
    // It lives again, and is still asked last.
    etcd.start_node(nodes[0]);
    etcd.until_it_answers(&Etcd::client_of(&[etcd.address(nodes[0])])).await;
    for _ in 0..10 {
        assert_eq!(read(&client, range.clone()).await, all);
    }
    assert_eq!(accepted(), [first, 1, 0]);

    // A node that hangs costs the time that the caller gives.
    etcd.pause(nodes[1]);
    let why = no_answer(client.range(&range, SHORT).await);
    assert!(why.contains("not within 300 ms") && why.contains(addresses[1]), "{why}");
    assert_eq!(read(&client, range.clone()).await, all);
    assert_eq!(accepted(), [first, 1, 1]);

    // The caller leaves a node. The others failed, and the first one failed earlier.
    client.next_node();
    assert_eq!(read(&client, range).await, all);
    assert_eq!(accepted(), [first + 1, 1, 1]);
    etcd.resume(nodes[1]);
}

#[tokio::test]
async fn cluster_answers_again_after_its_leader_is_killed() {
    let Some(mut etcd) = Etcd::start(3, &[]).await else { return };
    let client = etcd.client();
    client.txn(&create("a", "1"), WITHIN).await.expect("an answer");
    let leader = etcd.leader().await;
    etcd.kill(leader);
    etcd.until_it_answers(&client).await;
    assert_eq!(read(&client, Range::key("a")).await, pairs(&[("a", "1")]));
    let statuses = client.status(WITHIN).await;
    for (node, status) in statuses.into_iter().enumerate() {
        assert_eq!(status.is_err(), node == leader, "{status:?}");
    }
    assert_ne!(etcd.leader().await, leader);
}

#[tokio::test]
async fn answer_of_another_cluster_is_none() {
    let Some(mut etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    client.txn(&create("a", "1"), WITHIN).await.expect("an answer");
    let first = client.cluster_id().expect("a cluster");
    etcd.kill(0);
    etcd.wipe(0);
    etcd.start_node(0);
    let other = etcd.client();
    etcd.until_it_answers(&other).await;
    assert_eq!(read(&other, Range::key("a")).await, pairs(&[]));
    assert_ne!(other.cluster_id(), Some(first));
    // The first attempt may meet the connection to the old process.
    client.range(&Range::key("a"), WITHIN).await.expect_err("the connection, or the cluster");
    let belongs = format!("and not to {first:x}");
    let range = Range::key("a");
    assert!(no_answer(client.range(&range, WITHIN).await).contains(&belongs));
    assert!(no_answer(client.txn(&create("b", "1"), WITHIN).await).contains(&belongs));
    assert!(no_answer(client.watch(&range, 0, WITHIN).await.map(drop)).contains(&belongs));
    assert!(no_answer(client.compact(1, WITHIN).await).contains(&belongs));
    assert!(no_answer(client.status(WITHIN).await.remove(0)).contains(&belongs));
    // The cluster that a client is given counts from the first answer on.
    let mut settings = Etcd::settings(&[etcd.address(0)]);
    settings.cluster_id = Some(first);
    let client = Client::new(settings).expect("a client");
    assert!(no_answer(client.range(&range, WITHIN).await).contains(&belongs));
}

/// Calls etcd's administration, which has JSON.
fn administer(etcd: &Etcd, call: &str, body: &str) {
    let (line, json) = (format!("POST /v3/auth/{call}"), [("Content-Type", "application/json")]);
    let reply = http::send(etcd.address(0), &line, &json, body);
    assert_eq!(reply.status, 200, "{call}: {reply:?}");
}

#[tokio::test]
async fn token_that_ended_is_replaced_and_the_call_sent_again() {
    let Some(mut etcd) = Etcd::start(1, &["--auth-token-ttl", "1"]).await else { return };
    let [from, to] = ["test/", "test0"].map(|key| STANDARD.encode(key));
    administer(&etcd, "user/add", r#"{"name": "root", "password": "of-root"}"#);
    administer(&etcd, "user/add", r#"{"name": "replica", "password": "of-replica"}"#);
    administer(&etcd, "role/add", r#"{"name": "root"}"#);
    administer(&etcd, "role/add", r#"{"name": "replica"}"#);
    let grant = format!(
        r#"{{"name": "replica", "perm": {{"permType": "READWRITE", "key": "{from}", "range_end": "{to}"}}}}"#
    );
    administer(&etcd, "role/grant", &grant);
    administer(&etcd, "user/grant", r#"{"user": "root", "role": "root"}"#);
    administer(&etcd, "user/grant", r#"{"user": "replica", "role": "replica"}"#);

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, "of-replica\n").expect("written");
    let mut settings = Etcd::settings(&[etcd.address(0)]);
    settings.login = Some(Login { user: "replica".to_owned(), password_file: file.clone() });
    let client = Client::new(settings.clone()).expect("a client");
    let (range, stranger) = (Range::key("a"), etcd.client());
    assert!(client.txn(&create("a", "1"), WITHIN).await.expect("no users yet").succeeded);
    administer(&etcd, "enable", "{}");
    assert_eq!(read(&client, range.clone()).await, pairs(&[("a", "1")]));
    let refused = stranger.range(&range, WITHIN).await.expect_err("no user");
    assert_eq!(refused, EtcdError::Refused("user name is empty".to_owned()));

    // The fault itself, and no synchronisation: the token ends. A wrong password shows that it did.
    let password = |text: &str| std::fs::write(&file, text).expect("written");
    let wrong = "authentication failed, invalid user ID or password";
    let wrong = EtcdError::Refused(wrong.to_owned());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    password("wrong\n");
    assert_eq!(client.txn(&create("b", "1"), WITHIN).await, Err(wrong.clone()));
    password("of-replica\n");
    assert!(client.txn(&create("b", "1"), WITHIN).await.expect("a new token").succeeded);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    password("wrong\n");
    let all = Range::under("");
    assert_eq!(client.watch(&all, 1, WITHIN).await.map(drop), Err(wrong.clone()));
    password("of-replica\n");
    let mut watch = client.watch(&all, 1, WITHIN).await.expect("a new token");
    watch.woken().await.expect("woken");
    // A restart ends all tokens. Nor are they in other processes.
    etcd.kill(0);
    no_answer(client.range(&range, WITHIN).await);
    etcd.start_node(0);
    etcd.until_it_answers(&client).await;
    assert!(client.txn(&create("c", "1"), WITHIN).await.expect("an answer").succeeded);

    // Another prefix is not this user's.
    let mut elsewhere = settings.clone();
    elsewhere.url.prefix = "other".to_owned();
    let elsewhere = Client::new(elsewhere).expect("a client");
    let denied = EtcdError::Refused("permission denied".to_owned());
    assert_eq!(elsewhere.range(&range, WITHIN).await, Err(denied.clone()));
    assert_eq!(elsewhere.txn(&create("a", "1"), WITHIN).await, Err(denied.clone()));
    assert_eq!(elsewhere.watch(&range, 0, WITHIN).await.map(drop), Err(denied));
    password("wrong\n");
    assert_eq!(read(&client, range.clone()).await.len(), 1, "the token is still good");
    let error = Client::new(settings.clone()).expect("a client").range(&range, WITHIN).await;
    assert_eq!(error, Err(wrong));
    std::fs::remove_file(&file).expect("removed");
    let error = Client::new(settings).expect("a client").range(&range, WITHIN).await;
    assert!(no_answer(error).contains("--replicate-password-file"));
}

#[tokio::test]
async fn watch_wakes_on_changes_of_its_range_and_ends_with_its_node() {
    let Some(mut etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let revision = client.range(&Range::key("head"), WITHIN).await.expect("an answer").revision;
    let mut log = client.watch(&Range::under("log/"), 0, WITHIN).await.expect("a watch");
    let mut head = client.watch(&Range::key("head"), revision + 1, WITHIN).await.expect("a watch");
    client.txn(&create("head", "1"), WITHIN).await.expect("an answer");
    head.woken().await.expect("woken");
    client.txn(&create("log/1", "1"), WITHIN).await.expect("an answer");
    log.woken().await.expect("woken");
    // A change of another key does not wake, so the next one that does is the deletion.
    let mut deleted = client.watch(&Range::key("head"), 0, WITHIN).await.expect("a watch");
    client.txn(&create("other", "1"), WITHIN).await.expect("an answer");
    assert!(tokio::time::timeout(SHORT, deleted.woken()).await.is_err());
    let delete = Operation::Delete(Range::key("head"));
    client.txn(&Txn { then: vec![delete], ..Txn::default() }, WITHIN).await.expect("an answer");
    deleted.woken().await.expect("woken");
    head.woken().await.expect("woken");
    etcd.kill(0);
    for watch in [&mut log, &mut head, &mut deleted] {
        no_answer(watch.woken().await);
    }
}

#[tokio::test]
async fn watch_from_a_compacted_revision_ends() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    client.txn(&create("a", "1"), WITHIN).await.expect("an answer");
    let last = client.txn(&create("b", "1"), WITHIN).await.expect("an answer").revision;
    client.compact(last, WITHIN).await.expect("compacted");
    let compacted = EtcdError::Refused("mvcc: required revision has been compacted".to_owned());
    let mut watch = client.watch(&Range::under(""), 1, WITHIN).await.expect("a watch");
    assert_eq!(watch.woken().await, Err(compacted.clone()));
    assert_eq!(client.compact(last, WITHIN).await, Err(compacted));
    let future = client.compact(last + 100, WITHIN).await.expect_err("in the future");
    assert!(future.is_certain(), "{future}");
    // Keys are not lost by it.
    assert_eq!(read(&client, Range::under("")).await, pairs(&[("a", "1"), ("b", "1")]));
}

#[tokio::test]
async fn transaction_without_an_answer_is_found_by_reading() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    let client = Etcd::client_of(&[&proxy.address]);
    client.txn(&create("a", "1"), WITHIN).await.expect("an answer");
    // It is carried out, and the answer is lost.
    proxy.hold_answers();
    no_answer(client.txn(&create("done", "1"), SHORT).await);
    proxy.cut();
    no_answer(client.range(&Range::key("done"), WITHIN).await);
    proxy.mend();
    assert_eq!(read(&client, Range::key("done")).await, pairs(&[("done", "1")]));

    // The connection ends while the call waits for its answer.
    proxy.hold_answers();
    let direct = etcd.client();
    let txn = create("cut", "1");
    let cut = async {
        while read(&direct, Range::key("cut")).await.is_empty() {}
        proxy.cut();
    };
    let (answer, ()) = tokio::join!(client.txn(&txn, WITHIN), cut);
    no_answer(answer);
    proxy.mend();
    assert!(!client.txn(&create("cut", "2"), WITHIN).await.expect("an answer").succeeded);

    // It is not carried out yet when its caller reads, and is after that: its comparison then fails.
    let before = proxy.requested();
    proxy.hold_requests();
    no_answer(client.txn(&create("late", "old"), SHORT).await);
    assert!(proxy.requested() > before);
    assert_eq!(read(&direct, Range::key("late")).await, pairs(&[]));
    assert!(direct.txn(&create("late", "new"), WITHIN).await.expect("an answer").succeeded);
    proxy.mend();
    assert_eq!(read(&client, Range::key("late")).await, pairs(&[("late", "new")]));

    // An answer that comes before its time is over is one.
    proxy.delay(Duration::from_millis(20));
    assert!(client.txn(&create("slow", "1"), WITHIN).await.expect("an answer").succeeded);
}

#[tokio::test]
async fn full_database_proves_nothing() {
    let quota = (4 << 20).to_string();
    let Some(etcd) = Etcd::start(1, &["--quota-backend-bytes", &quota]).await else { return };
    let client = etcd.client();
    let large = |n: usize| Txn {
        then: vec![Operation::Put(format!("large/{n:03}"), vec![7; 256 << 10].into())],
        ..Txn::default()
    };
    // etcd looks at its size now and then, so several are sent at once until it has seen that it is full.
    let (mut sent, mut full) = (0, vec![]);
    while full.is_empty() {
        let txns: Vec<_> = (sent..sent + 8).map(large).collect();
        let answers =
            futures_util::future::join_all(txns.iter().map(|txn| client.txn(txn, WITHIN)));
        for (n, answer) in (sent..).zip(answers.await) {
            if let Err(error) = answer {
                assert!(error == EtcdError::NoSpace && !error.is_certain(), "{error}");
                full.push(format!("large/{n:03}"));
            }
        }
        sent += 8;
    }
    // Reads go on, and tell which of them were carried out: usually all of them, and no more later.
    let mut done = 0;
    for key in &full {
        done += usize::from(holds(&client, vec![Compare::Exists(key.clone())]).await);
    }
    println!("{done} of {} without space were carried out", full.len());
    let later = client.txn(&large(sent), WITHIN).await.expect_err("still full");
    assert_eq!(later, EtcdError::NoSpace);
    let status = client.status(WITHIN).await.remove(0).expect("a status");
    assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 1 << 20);
}

#[tokio::test]
async fn status_names_version_leader_and_sizes_of_each_node() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = Etcd::client_of(&[etcd.address(0), "127.0.0.1:1"]);
    let [node, missing] = &client.status(WITHIN).await[..] else { panic!("two nodes") };
    let node = node.as_ref().expect("a status");
    assert_eq!((node.is_leader, unsupported_version(&node.version)), (true, None), "{node:?}");
    assert!(node.db_size >= node.db_size_in_use && node.db_size_in_use > 0, "{node:?}");
    let missing = no_answer(missing.clone());
    assert!(missing.contains("`127.0.0.1:1`") && missing.contains("refused"), "{missing}");
}

#[tokio::test]
async fn tls_proves_both_sides_and_its_files_are_read_for_each_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("written");
        dir.path().join(name)
    };
    let (ca, other) = (Ca::new(), Ca::new());
    let pair = |ca: &Ca| {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        ca.sign(&CertificateParams::new(names).expect("names"))
    };
    let Pair { cert, key } = pair(&ca);
    let [roots, cert, key] =
        [("ca.pem", &ca.pem()), ("cert.pem", &cert), ("key.pem", &key)].map(|(n, t)| write(n, t));
    let args = ["--client-cert-auth", "--trusted-ca-file", roots.to_str().expect("a path")];
    let files = ["--cert-file", cert.to_str().expect("a path"), "--key-file"];
    let args = [&args[..], &files, &[key.to_str().expect("a path")]].concat();
    let good = TlsFiles { ca: Some(roots.clone()), identity: Some((cert.clone(), key.clone())) };
    let Some(etcd) = Etcd::start_tls(1, &args, good.clone()).await else { return };

    let with = |tls: &TlsFiles| {
        let mut settings = Etcd::settings(&[etcd.address(0)]);
        (settings.url.is_tls, settings.tls) = (true, tls.clone());
        Client::new(settings)
    };
    let range = Range::key("a");
    let anonymous = TlsFiles { ca: good.ca.clone(), identity: None };
    no_answer(with(&anonymous).expect("a client").range(&range, WITHIN).await);
    let strange = pair(&other);
    let strange = (write("strange.pem", &strange.cert), write("strange.key", &strange.key));
    let strange = TlsFiles { identity: Some(strange), ..good.clone() };
    no_answer(with(&strange).expect("a client").range(&range, WITHIN).await);
    // The CA of the file is replaced while a client uses it.
    let changing = write("changing.pem", &other.pem());
    let changing = TlsFiles { ca: Some(changing), ..good.clone() };
    let client = with(&changing).expect("a client");
    let why = no_answer(client.range(&range, WITHIN).await);
    assert!(why.contains("invalid peer certificate"), "{why}");
    write("changing.pem", &ca.pem());
    client.range(&range, WITHIN).await.expect("an answer");

    let error = |result: Result<Client, String>| result.err().expect("no client");
    let missing = TlsFiles { ca: Some(dir.path().join("none.pem")), ..good.clone() };
    assert!(error(with(&missing)).contains("--replicate-ca"));
    let mixed = TlsFiles { identity: Some((key.clone(), key.clone())), ..good.clone() };
    assert!(error(with(&mixed)).contains("the files of TLS cannot be used"), "{mixed:?}");
    let mut settings = Etcd::settings(&[etcd.address(0)]);
    settings.tls = good;
    assert!(error(Client::new(settings)).contains("etcds://"));
}
