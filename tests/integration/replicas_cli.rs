//! The commands of replicas, against a real etcd: how a cluster begins, is shown, and is replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use scopegate::policy::id::Name;
use scopegate::policy::revision::Revision;
use scopegate::store::replicated::ReplicaReport;
use scopegate::store::replicated::etcd::{Client, Operation, Range, Txn};
use scopegate::store::replicated::head::{Head, HeadState};
use scopegate::store::replicated::initialisation::{self, InitError};
use scopegate::store::replicated::member_record::{MemberRecord, PeerToken};
use scopegate::store::replicated::{Cluster, closing, keys, listing};
use scopegate::store::{CommitObserver, FactKey, Outcome, Store};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::proxy::Proxy;
use crate::harness::{bootstrap, free_address, scopegate};

/// What a command ended with.
struct Ended {
    code: i32,
    out: String,
    error: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("a text");
        let code = output.status.code().expect("a code");
        Self { code, out: text(output.stdout), error: text(output.stderr) }
    }
}

impl Ended {
    /// Asserts a failure with this code and this part of its sentence.
    fn fails(self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.error);
        assert!(self.error.contains(part), "{}", self.error);
    }

    fn succeeds(self) -> String {
        assert_eq!(self.code, 0, "{}", self.error);
        self.out
    }
}

fn command(verb: &str, etcd: &str) -> Command {
    let mut command = scopegate();
    command.args(["replicas", verb, "--replicate", &format!("etcd://{etcd}/test")]);
    command
}

fn run(command: &mut Command) -> Ended {
    command.output().expect("it runs").into()
}

fn init(etcd: &Etcd, args: &[&str]) -> Ended {
    run(command("init", etcd.address(0)).args(args))
}

fn init_of(etcd: &Etcd, dir: &Path, args: &[&str]) -> Ended {
    run(command("init", etcd.address(0)).arg("--data-dir").arg(dir).args(args))
}

/// The head with its bytes.
async fn head(client: &Client) -> Option<Head> {
    let answer = client.range(&Range::key(keys::HEAD), WITHIN).await.expect("an answer");
    answer.pairs.first().map(|pair| Head::decode(&pair.value).expect("a head"))
}

async fn put(client: &Client, key: &str, value: Vec<u8>) {
    let then = vec![Operation::Put(key.to_owned(), value.into())];
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
}

async fn all(client: &Client) -> Vec<String> {
    let answer = client.range(&Range::under(""), WITHIN).await.expect("an answer");
    answer.pairs.into_iter().map(|pair| pair.key).collect()
}

/// A store with a key, at revision 1.
fn store(dir: &Path) -> PathBuf {
    let store = dir.join("store");
    bootstrap(&store);
    store
}

fn cluster(dir: &Path) -> Option<Cluster> {
    Store::open(dir).expect("opened").cluster()
}

struct NoObserver;

impl CommitObserver for NoObserver {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}

fn member(name: &str, fenced: bool) -> MemberRecord {
    MemberRecord {
        session: Uuid::new_v4(),
        name: Name::parse(name).expect("a name"),
        count: 1,
        random: [1; 16],
        published: Revision(1),
        fenced,
        ttl: Duration::from_secs(4),
        clock: Timestamp::now(),
        started: Timestamp::UNIX_EPOCH,
        report: ReplicaReport::default(),
        speaks: 1,
        version: "0.4.0".to_owned(),
        advertise: "http://127.0.0.1:1".to_owned(),
        peer_token: PeerToken([2; 32]),
    }
}

async fn put_member(client: &Client, record: &MemberRecord) {
    put(client, &keys::member(record.session), record.encode()).await;
}

#[tokio::test]
async fn cluster_begins_empty_with_its_first_key() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    let name = file.to_str().expect("a text");
    let out = init(&etcd, &["--first-key-to-file", name]).succeeds();
    let client = etcd.client();
    let begun = head(&client).await.expect("a head");
    assert!(out.contains(&format!("initialised the cluster {} at revision 1", begun.cluster)));
    assert_eq!((begun.seq, begun.revision, begun.state), (1, Revision(1), HeadState::Open));
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "only the key is left");
    // A newcomer begins empty, and applies the entry.
    let store = Store::create_for(&dir.path().join("new"), 1 << 20, &begun, client.cluster_id());
    let store = store.expect("created");
    let etcd_cluster_id = client.cluster_id();
    assert_eq!(store.cluster(), Some(Cluster { id: begun.cluster, etcd_cluster_id }));
    store.start(Arc::new(NoObserver));
    let entry = client.range(&keys::entries_behind(0), WITHIN).await.expect("an answer");
    let entry: Vec<Bytes> = entry.pairs.into_iter().map(|pair| pair.value).collect();
    let applied = store.apply_entries(&entry, begun.hash).expect("queued");
    let position = applied.await.expect("answered").expect("applied");
    assert_eq!((position.seq, position.hash), (begun.seq, begun.hash));
    assert!(store.get(&FactKey::Keyring).expect("readable").is_some());
    // Another one is refused, and changes nothing.
    init(&etcd, &[]).fails(64, "the prefix has a cluster already");
    let other = dir.path().join("other");
    init(&etcd, &["--first-key-to-file", other.to_str().expect("a text")]).fails(64, "already");
    assert!(!other.exists());
    assert!(
        init(&etcd, &["--if-none", "--first-key-to-file", name]).succeeds().contains("is init")
    );
    assert_eq!(head(&client).await, Some(begun.clone()));
    // A run that was interrupted before it named the file is completed by the next one.
    let mut draft = other.clone().into_os_string();
    draft.push(format!(".{}", begun.cluster.simple()));
    fs::rename(&file, draft).expect("renamed");
    init(&etcd, &["--first-key-to-file", other.to_str().expect("a text")]).succeeds();
    assert!(other.exists());
}

#[tokio::test]
async fn one_of_several_initialisations_at_once_wins() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let started: Vec<_> = (0..4)
        .map(|number| {
            let mut command = command("init", etcd.address(0));
            command.arg("--first-key-to-file").arg(dir.path().join(number.to_string()));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
        })
        .collect();
    let ended =
        started.into_iter().map(|child| Ended::from(child.wait_with_output().expect("it ends")));
    let (won, lost): (Vec<_>, Vec<_>) = ended.partition(|ended| ended.code == 0);
    assert_eq!((won.len(), lost.len()), (1, 3));
    lost.into_iter().for_each(|lost| lost.fails(64, "the prefix has a cluster already"));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "one key, and no draft");
    let client = etcd.client();
    let cluster = head(&client).await.expect("a head").cluster;
    assert!(won[0].out.contains(&cluster.to_string()));
}

#[tokio::test]
async fn cluster_begins_with_a_store_that_then_belongs_to_it() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = store(dir.path());
    init_of(&etcd, Path::new("/nowhere"), &[]).fails(64, "there is no store in `/nowhere`");
    let client = etcd.client();
    init_of(&etcd, &dir, &[]).succeeds();
    let begun = head(&client).await.expect("a head");
    assert_eq!((begun.seq, begun.revision), (0, Revision(1)));
    let own = Some(Cluster { id: begun.cluster, etcd_cluster_id: client.cluster_id() });
    assert_eq!(cluster(&dir), own);
    // What was done is not reported as a failure.
    assert!(init_of(&etcd, &dir, &[]).succeeds().contains("is initialised"));
    assert_eq!(head(&client).await, Some(begun.clone()));
    let shown =
        run(scopegate().args(["replicas", "show", "--output", "json", "--data-dir"]).arg(&dir));
    let shown: Value = serde_json::from_str(&shown.succeeds()).expect("JSON");
    assert_eq!(shown["cluster"], begun.cluster.to_string());
    assert_eq!(shown["incarnation"], begun.incarnation.to_string());
    assert_eq!((&shown["revision"], &shown["entry"]), (&1.into(), &0.into()));
    assert_eq!(shown["hash"], begun.hash.to_string());
    assert_eq!(shown["initialising"], false);
    // Without the log it gets no change.
    for args in [&["serve"][..], &["serve", "--accept-clock"], &["serve", "--demo"]] {
        let served = scopegate().args(args).arg("--data-dir").arg(&dir).output();
        Ended::from(served.expect("it runs")).fails(64, "start it with --replicate");
    }
    let key = scopegate().args(["keys", "bootstrap", "--data-dir"]).arg(&dir).output();
    Ended::from(key.expect("it runs")).fails(64, "--replicate URL` while this replica is stopped");
    assert_eq!(cluster(&dir), own);
}

#[tokio::test]
async fn interrupted_initialisation_of_a_store_is_completed_by_the_next() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let parent = tempfile::tempdir().expect("a directory");
    let dir = store(parent.path());
    let mark = || {
        let mut store = Store::open(&dir).expect("opened");
        let (id, now) = (Uuid::new_v4(), Timestamp::now());
        let head = Head::first(id, store.incarnation(), store.opened_at(), now);
        store.follow_log(&head, None).expect("it follows");
        head
    };
    // Another cluster was first: the store is as it was before.
    let other = Head::first(Uuid::new_v4(), Uuid::new_v4(), Revision::ZERO, Timestamp::now());
    put(&client, keys::HEAD, other.encode()).await;
    mark();
    init_of(&etcd, &dir, &[]).fails(64, "the prefix has a cluster already");
    assert_eq!(cluster(&dir), None);
    init_of(&etcd, &dir, &["--if-none"]).succeeds();
    assert_eq!((cluster(&dir), head(&client).await), (None, Some(other)));
    // Interrupted before the transaction.
    let removed = vec![Operation::Delete(Range::under(""))];
    client.txn(&Txn { then: removed.clone(), ..Txn::default() }, WITHIN).await.expect("removed");
    let marked = mark();
    assert_eq!(cluster(&dir).expect("one").etcd_cluster_id, None);
    init_of(&etcd, &dir, &[]).succeeds();
    assert_eq!(head(&client).await.expect("a head").cluster, marked.cluster);
    let etcd_cluster_id = client.cluster_id();
    let own = Some(Cluster { id: marked.cluster, etcd_cluster_id });
    assert_eq!(cluster(&dir), own);
    // Interrupted after the transaction.
    Store::open(&dir).expect("opened").note_etcd_cluster(None).expect("noted");
    init_of(&etcd, &dir, &[]).succeeds();
    assert_eq!(cluster(&dir), own);
    // The log is lost, and this store may not be the one with the last changes.
    client.txn(&Txn { then: removed, ..Txn::default() }, WITHIN).await.expect("removed");
    init_of(&etcd, &dir, &[]).fails(64, "run `replicas init --again`");
    put(&client, &keys::entry(1), vec![1]).await;
    init(&etcd, &[]).fails(64, "and no head");
    // So it can begin another cluster.
    init_of(&etcd, &dir, &["--again", "--all-stopped"]).succeeds();
    let begun = head(&client).await.expect("a head");
    assert_eq!(cluster(&dir), Some(Cluster { id: begun.cluster, etcd_cluster_id }));
    assert_eq!(all(&client).await, [keys::HEAD]);
}

#[tokio::test]
async fn killed_initialisation_is_completed_by_the_next() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let deleted = Txn { then: vec![Operation::Delete(Range::under(""))], ..Txn::default() };
    // As soon as there is a draft of the key, and as soon as there is a head.
    for waits_for_head in [false, true, false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        let mut command = command("init", etcd.address(0));
        command.arg("--first-key-to-file").arg(&file).stdout(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        while match waits_for_head {
            true => head(&client).await.is_none(),
            false => fs::read_dir(dir.path()).expect("readable").next().is_none(),
        } {}
        child.kill().expect("killed");
        child.wait().expect("gone");
        run(command.arg("--if-none")).succeeds();
        let files = fs::read_dir(dir.path()).expect("readable");
        let files: Vec<_> = files.map(|file| file.expect("readable").file_name()).collect();
        assert_eq!(files, ["key"], "one key, and nothing else");
        // The key is the one that the cluster began with.
        let begun = head(&client).await.expect("a head");
        assert_eq!((begun.seq, begun.revision), (1, Revision(1)));
        let secret = fs::read_to_string(&file).expect("readable");
        let entry = client.range(&keys::entries_behind(0), WITHIN).await.expect("an answer");
        let id = secret.trim().split('_').nth(1).expect("an id");
        let entry = &entry.pairs.first().expect("an entry").value;
        assert!(entry.windows(id.len()).any(|part| part == id.as_bytes()), "{id}");
        client.txn(&deleted, WITHIN).await.expect("removed");
    }
    let parent = tempfile::tempdir().expect("a directory");
    let dir = store(parent.path());
    let mut command = command("init", etcd.address(0));
    let mut child = command.arg("--data-dir").arg(&dir).spawn().expect("it runs");
    while head(&client).await.is_none() {}
    child.kill().expect("killed");
    child.wait().expect("gone");
    let begun = head(&client).await.expect("a head");
    init_of(&etcd, &dir, &[]).succeeds();
    assert_eq!(head(&client).await.as_ref(), Some(&begun));
    let own = Cluster { id: begun.cluster, etcd_cluster_id: client.cluster_id() };
    assert_eq!(cluster(&dir), Some(own));
}

#[tokio::test]
async fn transaction_whose_answer_is_lost_is_not_reported_as_a_failure() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let direct = etcd.client();
    let proxy = Proxy::start(etcd.address(0));
    let head_of = |cluster| Head::first(cluster, Uuid::new_v4(), Revision(3), Timestamp::now());
    let (first, second) = (head_of(Uuid::new_v4()), head_of(Uuid::new_v4()));
    for new in [&first, &second] {
        let client = Etcd::client_of(&[&proxy.address]);
        let closed = match head(&client).await {
            Some(Head { cluster, .. }) => {
                let closed = closing::close(&client, cluster, Uuid::new_v4()).await;
                Some(closed.expect("closed").1)
            }
            None => None,
        };
        proxy.hold_answers();
        let (replaced, ()) = tokio::join!(initialisation::replace(&client, closed, new), async {
            while head(&direct).await.as_ref() != Some(new) {}
            proxy.cut();
            proxy.mend();
        });
        replaced.expect("it was carried out");
        assert_eq!(head(&direct).await.as_ref(), Some(new));
    }
    let third = head_of(Uuid::new_v4());
    let lost = initialisation::begin(&direct, &third, None).await;
    assert_eq!(lost, Err(InitError::Exists(second.cluster)));
}

#[tokio::test]
async fn cluster_is_replaced_with_another_incarnation() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let parent = tempfile::tempdir().expect("a directory");
    let dir = store(parent.path());
    init_of(&etcd, &dir, &[]).succeeds();
    let old = head(&client).await.expect("a head");
    put(&client, &keys::entry(1), vec![1]).await;
    put_member(&client, &member("a", false)).await;
    let ahead = Head { revision: Revision(5), ..old.clone() };
    put(&client, keys::HEAD, ahead.encode()).await;
    let again = ["--again", "--all-stopped"];
    init_of(&etcd, &dir, &again)
        .fails(64, "use the store of the replica with the highest revision");
    assert_eq!(head(&client).await, Some(ahead));
    for args in [&["--again"][..], &["--all-stopped"], &["--accept-loss"]] {
        assert_eq!(init(&etcd, args).code, 2, "a usage error: {args:?}");
    }
    let out = init_of(&etcd, &dir, &["--again", "--all-stopped", "--accept-loss"]).succeeds();
    let new = head(&client).await.expect("a head");
    assert!(out.contains(&format!("{} at revision {}", new.cluster, new.revision)));
    assert!(new.cluster != old.cluster && new.incarnation != old.incarnation);
    assert_eq!((new.seq, new.state), (0, HeadState::Open));
    assert_eq!(new.revision, Revision(1 + (1 << 32)));
    assert_eq!(all(&client).await, [keys::HEAD]);
    let store = Store::open(&dir).expect("opened");
    assert_eq!((store.incarnation(), store.opened_at()), (new.incarnation, new.revision));
    let position = store.log_position().expect("readable").expect("it follows");
    assert_eq!((position.seq, position.hash), (0, new.hash));
    drop(store);
    // A log that was closed by another is replaced, too. An interruption before the last step is
    // completed.
    let closed = Head { state: HeadState::Closed(Uuid::new_v4()), ..new.clone() };
    put(&client, keys::HEAD, closed.encode()).await;
    init_of(&etcd, &dir, &again).succeeds();
    let newer = head(&client).await.expect("a head");
    assert!(newer.cluster != new.cluster && newer.revision > new.revision);
    Store::open(&dir).expect("opened").note_etcd_cluster(None).expect("noted");
    assert!(init_of(&etcd, &dir, &again).succeeds().contains("is initialised"));
    assert_eq!(head(&client).await, Some(newer));
}

#[tokio::test]
async fn replicas_are_listed_and_fenced() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let list = |args: &[&str]| run(command("list", etcd.address(0)).args(args));
    list(&[]).fails(64, "the prefix has no cluster");
    init(&etcd, &[]).succeeds();
    assert!(list(&[]).succeeds().contains("no replica has a record"));
    put_member(&client, &member("silent", false)).await;
    put_member(&client, &member("fenced", true)).await;
    let mut serving = member("serving", false);
    serving.started = Timestamp::now() - SignedDuration::from_hours(50);
    serving.report = ReplicaReport {
        free_bytes: Some(3 << 20),
        diverged: 2,
        audit_log_retention: Some(Duration::from_secs(90 * 86_400)),
        catalog: Some(blake3::hash(b"scopes: { a: }")),
        ..ReplicaReport::default()
    };
    let renewed = tokio::spawn({
        let client = etcd.client();
        async move {
            loop {
                (serving.count, serving.clock) = (serving.count + 1, Timestamp::now());
                put_member(&client, &serving).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let listed = |args: &'static [&'static str]| {
        let address = etcd.address(0).to_owned();
        tokio::task::spawn_blocking(move || run(command("list", &address).args(args)).succeeds())
    };
    let (json, table) = tokio::join!(listed(&["--output", "json"]), listed(&[]));
    let shown: Value = serde_json::from_str(&json.expect("ended")).expect("JSON");
    renewed.abort();
    let states: Vec<_> = shown["replicas"].as_array().expect("a list").iter().collect();
    let states = states.iter().map(|replica| {
        let text = |field: &str| replica[field].as_str().expect("a text");
        (text("replica"), text("state"), replica["lease_ms"].is_u64())
    });
    let expected =
        [("fenced", "fenced", false), ("serving", "serving", true), ("silent", "silent", false)];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    assert_eq!((&shown["reached"], &shown["nodes"]), (&1.into(), &1.into()));
    assert_eq!(shown["leader"], etcd.address(0));
    let table = table.expect("ended");
    for line in [
        "the replicas keep changes for different times (--audit-log-retention): for 90d at serving; without \
         a limit at silent",
        "(--catalog): file ",
        " at serving; no file at silent",
        "2 facts of `serving` differed",
        "the disk of `serving` has 3.0 MiB left",
        "etcd 1 of 1, leader",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    let columns = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        columns("REPLICA").join(" "),
        "REPLICA STATE LEASE PUBLISHED BEHIND CLOCK VERSION SINCE"
    );
    let [_, state, lease, .., since] = &*columns("serving") else { panic!("{table}") };
    assert_eq!((&**state, &lease[..2], &**since), ("serving", "3.", "2d"));
    let fence = |name: &str| run(command("fence", etcd.address(0)).arg(name));
    assert!(fence("silent").succeeds().contains("silent is fenced"));
    let listing = listing::Listing::read(&client, WITHIN).await.expect("an answer");
    let mut silent = listing.members.iter().filter(|(record, _)| record.name.as_str() == "silent");
    assert!(silent.all(|(record, _)| record.fenced));
    fence("other").fails(64, "no replica `other` has a record");
}

#[test]
fn commands_of_replicas_say_what_is_missing() {
    run(scopegate().args(["replicas", "init"])).fails(64, "--replicate etcd://");
    let nowhere = free_address();
    run(&mut command("list", &nowhere)).fails(69, "etcd gave no answer");
    run(scopegate().args(["replicas", "list", "--endpoint", &nowhere])).fails(2, &nowhere);
    let failed = run(command("list", &nowhere).args(["--output", "json"]));
    let failed: Value = serde_json::from_str(&failed.error).expect("JSON");
    assert!(failed["error"]["message"].as_str().expect("a text").contains("etcd gave no answer"));
    run(&mut command("init", &nowhere)).fails(69, "nothing was initialised");
    let dir = tempfile::tempdir().expect("a directory");
    let show = scopegate().args(["replicas", "show", "--data-dir"]).arg(dir.path()).output();
    Ended::from(show.expect("it runs")).fails(64, "there is no store");
}
