//! Cluster administration: a replica becomes a single server, a backup replaces a cluster, and an upgrade
//! is completed. Real processes on a real etcd, and commands that are interrupted and run again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use scopegate::policy::id::Name;
use scopegate::policy::revision::Revision;
use scopegate::proto::Reason;
use scopegate::store::replicated::closing;
use scopegate::store::replicated::entry::Entry;
use scopegate::store::replicated::etcd::{Client, Compare, Operation, Range, Txn};
use scopegate::store::replicated::head::{Head, HeadState};
use scopegate::store::replicated::member_record::{MemberRecord, PeerToken};
use scopegate::store::replicated::{FORMAT, OLDEST_FORMAT, ReplicaReport, keys};
use scopegate::store::{Incarnation, Store};
use uuid::Uuid;

use crate::harness::cluster::{Cluster, until};
use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::{Server, bootstrap, scopegate, scopes_of};

const LEASE: Duration = Duration::from_secs(3);
/// How far revisions jump with a new incarnation.
const STEP: u64 = 1 << 32;

/// A command of `replicas`, and the arguments that follow.
fn command(verb: &str, etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = scopegate();
    let url = format!("etcd://{}/test", etcd.address(0));
    command.args(["replicas", verb, "--replicate", &url]).args(args);
    command
}

async fn run(verb: &str, etcd: &Etcd, args: &[&str]) -> Output {
    let mut command = command(verb, etcd, args);
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts a failure with this code and this part of its sentence.
fn failed(output: &Output, code: i32, part: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(part), "{error}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a text")
}

async fn head(client: &Client) -> (Head, bytes::Bytes) {
    let answer = client.range(&Range::key(keys::HEAD), WITHIN).await.expect("an answer");
    let bytes = answer.pairs.into_iter().next().expect("a head").value;
    (Head::decode(&bytes).expect("a head"), bytes)
}

async fn keys_of(client: &Client) -> Vec<String> {
    let answer = client.range(&Range::under(""), WITHIN).await.expect("an answer");
    answer.pairs.into_iter().map(|pair| pair.key).collect()
}

async fn carry_out(client: &Client, then: Vec<Operation>) {
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
}

fn put(key: &str, value: impl Into<bytes::Bytes>) -> Operation {
    Operation::Put(key.to_owned(), value.into())
}

/// The format of the last entry.
async fn last_format(client: &Client) -> u32 {
    let (head, _) = head(client).await;
    let entries = client.range(&keys::entries_behind(head.seq - 1), WITHIN).await;
    Entry::decode(&entries.expect("an answer").pairs[0].value).expect("an entry").format
}

fn record(name: &str, speaks: u32) -> MemberRecord {
    MemberRecord {
        session: Uuid::new_v4(),
        name: Name::parse(name).expect("a name"),
        count: 1,
        random: [1; 16],
        published: Revision(1),
        fenced: false,
        ttl: LEASE,
        clock: Timestamp::now(),
        started: Timestamp::now(),
        speaks,
        version: "0.4.0".to_owned(),
        advertise: "http://127.0.0.1:1".to_owned(),
        peer_token: PeerToken([2; 32]),
        report: ReplicaReport::default(),
    }
}

/// Waits until a replica has ended by itself: its last sentence.
async fn ended(server: Server) -> String {
    let ended = tokio::task::spawn_blocking(move || server.ended()).await.expect("it ends");
    assert!(!ended.0.success());
    ended.1.last().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_is_completed_while_replicas_serve() {
    let Some(cluster) = Cluster::start(1, &[], 2, LEASE).await else { return };
    let (etcd, client) = (&cluster.etcd, cluster.etcd.client());
    assert!(succeeded(&run("finalize", etcd, &[]).await).contains("format 2 already"));
    // As after an upgrade from the version before.
    let (begun, seen) = head(&client).await;
    let old = Head { format: OLDEST_FORMAT, ..begun };
    let compares = vec![Compare::Is(keys::HEAD.to_owned(), seen)];
    let then = vec![put(keys::HEAD, old.encode())];
    let txn = Txn { compares, then, or_else: vec![] };
    assert!(client.txn(&txn, WITHIN).await.expect("an answer").succeeded, "nobody commits");
    for number in 0..2 {
        cluster.client(number).create_company(&format!("before-{number}"), None).await;
        assert_eq!(last_format(&client).await, OLDEST_FORMAT);
    }
    // A replica of the version before, which has not been upgraded or was rolled back.
    let rolled_back = record("rolled-back", OLDEST_FORMAT);
    let key = keys::member(rolled_back.session);
    carry_out(&client, vec![put(&key, rolled_back.encode())]).await;
    failed(&run("finalize", etcd, &[]).await, 64, "speak no later one: `rolled-back`");
    assert_eq!(head(&client).await.0.format, OLDEST_FORMAT);
    carry_out(&client, vec![Operation::Delete(Range::key(&key))]).await;
    assert!(succeeded(&run("finalize", etcd, &[]).await).contains("in format 2 from now on"));
    assert_eq!(head(&client).await.0.format, FORMAT);
    // Also the first entry of a replica that knew the earlier head.
    for number in [1, 0] {
        cluster.client(number).create_company(&format!("after-{number}"), None).await;
        assert_eq!(last_format(&client).await, FORMAT);
    }
    for number in 0..2 {
        cluster.client(number).check("after-0", "none", &["a"]).await;
    }
    assert_eq!(cluster.logged("answers no call until"), 0, "no session has ended");
}

#[tokio::test]
async fn format_of_a_log_without_replicas_is_not_raised() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    failed(&run("finalize", &etcd, &[]).await, 64, "has no log under this prefix");
    let first = |format, state| {
        let head = Head::first(Uuid::new_v4(), Uuid::new_v4(), Revision::ZERO, Timestamp::now());
        put(keys::HEAD, Head { format, state, ..head }.encode())
    };
    carry_out(&client, vec![first(OLDEST_FORMAT, HeadState::Open)]).await;
    failed(&run("finalize", &etcd, &[]).await, 64, "no replica has a record");
    carry_out(&client, vec![first(OLDEST_FORMAT, HeadState::Closed(Uuid::new_v4()))]).await;
    failed(&run("finalize", &etcd, &[]).await, 64, "the log is closed");
    carry_out(&client, vec![first(FORMAT + 1, HeadState::Open)]).await;
    failed(&run("finalize", &etcd, &[]).await, 64, "upgrade this replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_becomes_a_single_server_and_the_others_cannot_go_on() {
    let Some(mut cluster) = Cluster::start(1, &[], 2, LEASE).await else { return };
    let client = cluster.etcd.client();
    cluster.client(0).create_company("company", Some(&["a"])).await;
    cluster.client(0).create_credential("company", "key", &["a"]).await;
    let detach = async |cluster: &Cluster, number: usize| {
        let dir = cluster.replicas[number].dir.clone();
        run("detach", &cluster.etcd, &["--data-dir", text(&dir)]).await
    };
    assert!(cluster.replicas[0].take().terminate().success());
    cluster.client(1).restrict("company", &["a"]).await;
    // Its record stays, and it may have answered until now.
    cluster.replicas[1].take().kill();
    failed(&detach(&cluster, 0).await, 64, "of the log, which ends with entry");
    let (open, _) = head(&client).await;
    assert_eq!(open.state, HeadState::Open, "nothing was done");

    // Interrupted while the command waits for the lease of the record.
    let dir = cluster.replicas[1].dir.clone();
    let args = ["--data-dir", text(&dir)];
    let mut child =
        command("detach", &cluster.etcd, &args).stderr(Stdio::null()).spawn().expect("it runs");
    until("closed", async || head(&client).await.0.state != HeadState::Open).await;
    assert!(child.try_wait().expect("a process").is_none(), "a replica may answer");
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert_eq!(open.position(), head(&client).await.0.position());
    // Until then the store is one of the cluster, and no replica joins.
    cluster.launch(0);
    assert!(ended(cluster.replicas[0].take()).await.contains("the log is closed"));
    let alone = scopegate().args(["serve", "--data-dir"]).arg(&dir).output().expect("it runs");
    failed(&alone, 64, "start it with --replicate");
    failed(&detach(&cluster, 0).await, 64, "of the log, which ends with entry");

    let out = succeeded(&detach(&cluster, 1).await);
    assert!(out.contains("belongs to no cluster"), "{out}");
    let members = client.range(&Range::under(keys::MEMBERS), WITHIN).await.expect("an answer");
    assert!(members.pairs.is_empty(), "no replica may answer");
    let is_closed = matches!(head(&client).await.0.state, HeadState::Closed(_));
    assert!(is_closed, "no replica goes on with the earlier cluster");
    // What was done is not reported as a failure.
    assert_eq!(succeeded(&detach(&cluster, 1).await), out);
    assert!(!dir.join("detaching").exists());
    {
        let store = Store::open(&dir).expect("opened");
        assert_eq!((store.cluster(), store.log_position()), (None, Ok(None)));
        assert_eq!(store.opened_at(), Revision(open.revision.0 + STEP));
        assert!(store.incarnation() != open.incarnation);
        assert!(out.contains(&store.incarnation().to_string()));
    }
    // It serves alone, with all that was acknowledged, and is no replica.
    let server = Server::start(&dir, &[]);
    let alone = crate::harness::Client::connect_as(&server.url(), Some(&cluster.key)).await;
    assert_eq!(alone.reason("company", "key", &["a"]).await, Reason::ScopeNotInCompany);
    server.terminate();
    for (number, part) in [(0, "the log is closed"), (1, "the log is closed")] {
        cluster.launch(number);
        let sentence = ended(cluster.replicas[number].take()).await;
        assert!(sentence.contains(part), "{sentence}");
    }
    // From here another cluster can begin with it.
    let replaced = open.incarnation.to_string();
    let init = ["--replace", &replaced, "--data-dir", text(&dir)];
    succeeded(&run("init", &cluster.etcd, &init).await);
    assert!(head(&client).await.0.incarnation != open.incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_a_replica_goes_on_with_meanwhile_is_opened_again() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (client, store) = followed(&etcd, dir.path()).await;
    let (begun, _) = head(&client).await;
    // The command reads the file after its first look at the log, and waits until it is written.
    let file = store.join("detaching");
    assert!(Command::new("mkfifo").arg(&file).status().expect("it runs").success());
    let mut detach = command("detach", &etcd, &["--data-dir", text(&store)]);
    let detach = detach.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let path = file.clone();
    let open = move || fs::File::options().write(true).open(path).expect("opened");
    let reading = tokio::task::spawn_blocking(open).await.expect("it ends");
    let committed = Head { seq: 1, revision: begun.revision.next(), ..begun };
    carry_out(&client, vec![put(keys::HEAD, committed.encode())]).await;
    fs::remove_file(&file).expect("removed");
    drop(reading);
    let detach = move || detach.wait_with_output().expect("it ends");
    let ended = tokio::task::spawn_blocking(detach).await.expect("it ends");
    failed(&ended, 64, "has entry 0 of the log, which ends with entry 1");
    assert_eq!(head(&client).await.0, committed);
    assert!(Store::open(&store).expect("opened").cluster().is_some());

    // Also by the next run, if this one is interrupted after it has closed the log.
    let id = fs::read_to_string(&file).expect("noted").trim().parse().expect("an id");
    let closed = Head { state: HeadState::Closed(id), ..committed.clone() };
    carry_out(&client, vec![put(keys::HEAD, closed.encode())]).await;
    let again = run("detach", &etcd, &["--data-dir", text(&store)]).await;
    failed(&again, 64, "has entry 0 of the log, which ends with entry 1");
    assert_eq!(head(&client).await.0, committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_that_begins_while_a_store_is_detached_is_left_alone() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (client, store) = followed(&etcd, dir.path()).await;
    let [old, new] = ["old", "new"].map(|name| record(name, FORMAT));
    let [old_key, new_key] = [&old, &new].map(|record| keys::member(record.session));
    carry_out(&client, vec![put(&old_key, old.encode())]).await;
    let mut detach = command("detach", &etcd, &["--data-dir", text(&store)]);
    let detach = detach.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    // It waits for the lease of the record.
    until("closed", async || head(&client).await.0.state != HeadState::Open).await;
    let other = Head::first(Uuid::new_v4(), Uuid::new_v4(), Revision::ZERO, Timestamp::now());
    let deletion = Operation::Delete(Range::key(&old_key));
    let begin = vec![put(keys::HEAD, other.encode()), deletion, put(&new_key, new.encode())];
    carry_out(&client, begin).await;
    let detach = move || detach.wait_with_output().expect("it ends");
    let ended = tokio::task::spawn_blocking(detach).await.expect("it ends");
    failed(&ended, 64, "another program has closed the log");
    assert_eq!(head(&client).await.0, other, "it is open");
    let members = client.range(&Range::under(keys::MEMBERS), WITHIN).await.expect("an answer");
    let records: Vec<_> = members.pairs.iter().map(|pair| pair.value.to_vec()).collect();
    assert_eq!(records, [new.encode()], "its session goes on");
    assert!(Store::open(&store).expect("opened").cluster().is_some());
}

/// A log with the store of a directory that follows it.
async fn followed(etcd: &Etcd, dir: &Path) -> (Client, PathBuf) {
    let store = dir.join("store");
    bootstrap(&store);
    succeeded(&run("init", etcd, &["--data-dir", text(&store)]).await);
    (etcd.client(), store)
}

#[tokio::test]
async fn store_is_detached_only_from_its_own_log() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (client, store) = followed(&etcd, dir.path()).await;
    let detach = async || run("detach", &etcd, &["--data-dir", text(&store)]).await;
    let (own, _) = head(&client).await;
    let refused = [
        (Head { cluster: Uuid::new_v4(), ..own.clone() }, "that of the cluster"),
        (Head { seq: 7, ..own.clone() }, "has entry 0 of the log, which ends with entry 7"),
        (Head { hash: blake3::hash(b"other"), ..own.clone() }, "etcd was set back"),
        (Head { format: FORMAT + 1, ..own.clone() }, "upgrade this replica"),
        (
            Head { state: HeadState::Closed(Uuid::new_v4()), ..own.clone() },
            "another program has closed",
        ),
    ];
    for (other, part) in refused {
        carry_out(&client, vec![put(keys::HEAD, other.encode())]).await;
        failed(&detach().await, 64, part);
        assert_eq!(head(&client).await.0, other, "nothing was done");
        assert!(Store::open(&store).expect("opened").cluster().is_some());
    }
    carry_out(&client, vec![Operation::Delete(Range::key(keys::HEAD))]).await;
    failed(&detach().await, 64, "has no log under this prefix");
    // An etcd that was made anew with the same keys.
    carry_out(&client, vec![put(keys::HEAD, own.encode())]).await;
    Store::open(&store).expect("opened").note_etcd_cluster(Some(7)).expect("noted");
    failed(&detach().await, 64, "correct the URL");
    Store::open(&store).expect("opened").note_etcd_cluster(client.cluster_id()).expect("noted");
    // A run that was interrupted after the store had a new incarnation.
    fs::write(store.join("detaching"), "half").expect("written");
    succeeded(&detach().await);
    fs::write(store.join("detaching"), Uuid::new_v4().to_string()).expect("written");
    succeeded(&detach().await);
    assert!(!store.join("detaching").exists());
}

#[tokio::test]
async fn log_is_closed_and_reopened_only_for_its_own_cluster_and_closing() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (client, _) = followed(&etcd, dir.path()).await;
    let (open, _) = head(&client).await;
    let id = Uuid::new_v4();
    let close = async |cluster, id| closing::close(&client, cluster, id).await.expect("an answer");
    // That of another cluster is left alone.
    assert_eq!(close(Uuid::new_v4(), id).await.0, open);
    assert_eq!(head(&client).await.0, open);
    let (closed, bytes) = close(open.cluster, id).await;
    assert_eq!(closed.state, HeadState::Closed(id));
    // It stays that of the first closing.
    assert_eq!(close(open.cluster, Uuid::new_v4()).await.1, bytes);
    closing::reopen(&client, &closed, &bytes).await.expect("open");
    assert_eq!(head(&client).await.0, open);
    // Not a log that another has closed.
    let (other, _) = close(open.cluster, Uuid::new_v4()).await;
    closing::reopen(&client, &closed, &bytes).await.expect("nothing was done");
    assert_eq!(head(&client).await.0, other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_replaces_a_cluster_and_no_replica_of_the_earlier_one_answers() {
    let Some(mut cluster) = Cluster::start(1, &[], 2, LEASE).await else { return };
    let client = cluster.etcd.client();
    cluster.client(0).create_company("before", Some(&["a"])).await;
    let parent = tempfile::tempdir().expect("a directory");
    let (key, file) = (parent.path().join("key"), parent.path().join("file"));
    fs::write(&key, &cluster.key).expect("written");
    let mut backup = scopegate();
    backup.args(["backup", "--endpoint", &cluster.replicas[0].address, "--key-file", text(&key)]);
    succeeded(&backup.arg("--output").arg(&file).output().expect("it runs"));
    cluster.client(0).create_company("after", Some(&["a"])).await;
    let number = cluster.add();
    let restored = cluster.replicas[number].dir.clone();
    let restore = ["restore", text(&file), "--data-dir", text(&restored)];
    succeeded(&scopegate().args(restore).output().expect("it runs"));

    let (old, _) = head(&client).await;
    let (named, wrong) = (old.incarnation.to_string(), Incarnation::new_v4().to_string());
    let replace = async |cluster: &Cluster, named: &str, dir: &Path| {
        run("init", &cluster.etcd, &["--replace", named, "--data-dir", text(dir)]).await
    };
    failed(&replace(&cluster, &wrong, &restored).await, 64, &named);
    let state = head(&client).await.0.state;
    assert_eq!(state, HeadState::Open, "nothing was done");
    let leftovers = ["part/id/0", "seen/replica-0/0", "compacted"];
    carry_out(&client, leftovers.map(|key| put(key, "old")).to_vec()).await;
    // One sees what happens in etcd, and the other one cannot.
    cluster.hold(1);
    succeeded(&replace(&cluster, &named, &restored).await);
    for answering in cluster.clients().into_iter().take(2) {
        answering.ask(scopes_of("before", "key", &["a"])).await.expect_err("it answers nothing");
    }
    assert_eq!(keys_of(&client).await, [keys::HEAD]);
    let (new, _) = head(&client).await;
    assert!(new.cluster != old.cluster && new.incarnation != old.incarnation);
    assert_eq!((new.seq, new.state, new.format), (0, HeadState::Open, FORMAT));
    assert!(succeeded(&replace(&cluster, &named, &restored).await).contains("is initialised"));
    assert_eq!(head(&client).await.0, new);
    cluster.mend(1);
    for replica in 0..2 {
        ended(cluster.replicas[replica].take()).await;
    }
    cluster.launch(0);
    let sentence = ended(cluster.replicas[0].take()).await;
    assert!(sentence.contains("--resync"), "{sentence}");
    cluster.launch(number);
    cluster.until_serving(number).await;
    let known = cluster.client(number);
    known.check("before", "key", &["a"]).await;
    // The change after the backup is not there, so its name is free.
    known.create_company("after", None).await;
}

#[tokio::test]
async fn interrupted_replacement_is_completed_by_the_next() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (client, store) = followed(&etcd, dir.path()).await;
    let (old, _) = head(&client).await;
    let named = old.incarnation.to_string();
    let replace = async |dir: &Path| {
        run("init", &etcd, &["--replace", &named, "--data-dir", text(dir)]).await
    };
    failed(&replace(&store).await, 64, "belongs to a cluster, or was not restored");
    assert_eq!(head(&client).await.0, old);
    let other = dir.path().join("other");
    bootstrap(&other);
    let incarnation = Store::open(&other).expect("opened").incarnation();
    let mark = || {
        let mut store = Store::open(&other).expect("opened");
        let (revision, now) = (store.opened_at(), Timestamp::now());
        let head = Head::first(Uuid::new_v4(), incarnation, revision, now);
        store.follow_log(&head, None).expect("it follows");
        head
    };
    // After the log was closed and the store was marked, before the last transaction.
    let cluster = head(&client).await.0.cluster;
    closing::close(&client, cluster, Uuid::new_v4()).await.expect("closed");
    let marked = mark();
    succeeded(&replace(&other).await);
    let (begun, _) = head(&client).await;
    assert_eq!((begun.cluster, begun.incarnation), (marked.cluster, incarnation));
    let cluster = || Store::open(&other).expect("opened").cluster().expect("one");
    assert_eq!((cluster().id, cluster().etcd_cluster_id), (marked.cluster, client.cluster_id()));
    // After the last transaction.
    Store::open(&other).expect("opened").note_etcd_cluster(None).expect("noted");
    assert!(succeeded(&replace(&other).await).contains("is initialised"));
    assert_eq!(cluster().etcd_cluster_id, client.cluster_id());
    assert_eq!(head(&client).await.0, begun);
}

#[tokio::test]
async fn etcd_that_lost_its_data_does_not_become_an_empty_cluster() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("begun");
    let once = async || run("init", &etcd, &["--once", text(&file)]).await;
    succeeded(&once().await);
    let (begun, _) = head(&client).await;
    let noted = fs::read_to_string(&file).expect("readable");
    assert_eq!(noted.trim(), begun.cluster.to_string());
    // Interrupted before the file was written.
    fs::remove_file(&file).expect("removed");
    succeeded(&once().await);
    assert_eq!(fs::read_to_string(&file).expect("readable"), noted);
    carry_out(&client, vec![Operation::Delete(Range::under(""))]).await;
    assert!(succeeded(&once().await).contains(noted.trim()));
    assert!(keys_of(&client).await.is_empty());
    // Records of replicas that may answer.
    let alive = record("alive", FORMAT);
    carry_out(&client, vec![put(&keys::member(alive.session), alive.encode())]).await;
    failed(&run("init", &etcd, &[]).await, 64, "records of replicas, and no head");
    fs::create_dir(dir.path().join("dir")).expect("created");
    failed(&run("init", &etcd, &["--once", text(&dir.path().join("dir"))]).await, 64, "--once");
}
