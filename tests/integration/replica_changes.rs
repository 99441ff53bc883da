//! Changes at replicas: two servers on a real etcd. A change, its repeat and its refusal are answered only
//! when no other replica answers by the facts before it.

use std::path::{Path, PathBuf};
use std::process::Command;

use scopegate::proto::*;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::harness::etcd::Etcd;
use crate::harness::proxy::Proxy;
use crate::harness::{Client, Server, bootstrap, refused, scopegate};

const NAMES: [&str; 2] = ["r1", "r2"];

/// Two replicas, and the key of an operator. The second one reaches etcd through a proxy.
struct Cluster {
    first: Server,
    second: Server,
    key: String,
    proxy: Proxy,
    etcd: Etcd,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// None: there is no etcd on this machine.
    async fn start() -> Option<Self> {
        let etcd = Etcd::start(1, &[]).await?;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        let mut init = scopegate();
        init.args(["replicas", "init", "--replicate", &url(etcd.address(0))]);
        let init = init.arg("--first-key-to-file").arg(&file).output().expect("it runs");
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let key = std::fs::read_to_string(&file).expect("a key").trim().to_owned();
        let proxy = Proxy::start(etcd.address(0));
        let serve = |name: &str, etcd: &str| {
            let args = ["--replicate", &url(etcd), "--replica-name", name, "--replica-lease", "3s"];
            Server::start(&dir.path().join(name), &args)
        };
        let (first, second) = (serve(NAMES[0], etcd.address(0)), serve(NAMES[1], &proxy.address));
        Some(Self { first, second, key, proxy, etcd, dir })
    }

    async fn clients(&self) -> [Client; 2] {
        let of = async |server: &Server| Client::connect_as(&server.url(), Some(&self.key)).await;
        [of(&self.first).await, of(&self.second).await]
    }

    /// The command line, with the key.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = scopegate();
        command.args(args).env("SCOPEGATE_KEY", &self.key);
        command
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn url(etcd: &str) -> String {
    format!("etcd://{etcd}/test")
}

fn creation(company: &str, request_id: &str) -> CreateCompanyRequest {
    CreateCompanyRequest {
        company_id: company.to_owned(),
        request_id: request_id.to_owned(),
        ..CreateCompanyRequest::default()
    }
}

async fn create(
    client: &Client,
    company: &str,
    request_id: &str,
) -> Result<Response<CreateCompanyResponse>, Status> {
    client.directory.clone().create_company(creation(company, request_id)).await
}

async fn company(client: &Client, id: &str) -> Result<Response<GetCompanyResponse>, Status> {
    client.directory.clone().get_company(GetCompanyRequest { company_id: id.to_owned() }).await
}

/// The replica that changed, and the replicas that it waited for, as the metadata of a reply tell.
fn waited(metadata: &MetadataMap) -> (Option<&str>, Option<&str>) {
    let text = |name| metadata.get(name).map(|value| value.to_str().expect("a text"));
    let time = text("scopegate-waited-ms").map(|time| time.parse::<u64>().expect("a number"));
    assert_eq!(time.is_some(), text("scopegate-replica").is_some());
    (text("scopegate-replica"), text("scopegate-waited-for"))
}

/// A replica that answers shows the company.
async fn assert_shown(client: &Client, id: &str) {
    if let Err(status) = company(client, id).await {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_its_repeat_and_its_refusal_wait_for_the_other_replica() {
    const REQUEST: &str = "6f1c0a52-8d3e-4b7a-9c10-2e5f7a8b9c0d";
    let Some(cluster) = Cluster::start().await else { return };
    let [first, second] = cluster.clients().await;
    cluster.proxy.hold_requests();
    cluster.proxy.hold_answers();
    let answered = |request_id: &'static str| {
        let (first, second) = (first.clone(), second.clone());
        tokio::spawn(async move {
            let answer = create(&first, "acme", request_id).await;
            assert_shown(&second, "acme").await;
            answer
        })
    };
    let change = answered(REQUEST);
    while company(&first, "acme").await.is_err() {}
    let (repeat, refusal) = (answered(REQUEST), answered(""));
    // A dry run waits for nothing.
    let dry_run = CreateCompanyRequest { validate_only: true, ..creation("acme", "") };
    let dry_run = first.directory.clone().create_company(dry_run).await;
    let dry_run = dry_run.expect_err("the company exists");
    assert_eq!((dry_run.code(), waited(dry_run.metadata())), (Code::AlreadyExists, (None, None)));
    let read = company(&first, "acme").await.expect("a company");
    assert_eq!(waited(read.metadata()), (None, None));
    cluster.proxy.mend();

    let for_second = (Some("r1"), Some("r2"));
    let change = change.await.expect("no panic").expect("created");
    assert_eq!(waited(change.metadata()), for_second);
    let repeat = repeat.await.expect("no panic").expect("created");
    assert_eq!(waited(repeat.metadata()).0, Some("r1"));
    assert_eq!(repeat.get_ref().revision, change.get_ref().revision);
    let refusal = refusal.await.expect("no panic").expect_err("it exists");
    assert_eq!((refusal.code(), waited(refusal.metadata()).0), (Code::AlreadyExists, Some("r1")));
    // Everybody shows it now, so nobody is waited for.
    let again = create(&first, "acme", REQUEST).await.expect("created");
    assert_eq!(waited(again.metadata()), (Some("r1"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_lists_all_replicas_for_operators_and_auditors() {
    let Some(cluster) = Cluster::start().await else { return };
    let [first, _] = cluster.clients().await;
    let list = |key: &str| {
        let address = &cluster.first.address;
        let mut command = scopegate();
        command.args(["replicas", "list", "--output", "json", "--endpoint", address]);
        let ended = command.env("SCOPEGATE_KEY", key).output().expect("it runs");
        match ended.status.success() {
            true => Ok(String::from_utf8(ended.stdout).expect("a text")),
            false => Err(String::from_utf8(ended.stderr).expect("a text")),
        }
    };
    let secret = async |role: Role| {
        let (name, roles) = ("caller".to_owned(), vec![role.into()]);
        let request = CreateKeyRequest { name, roles, ..CreateKeyRequest::default() };
        first.keys.clone().create_key(request).await.expect("created").into_inner().secret
    };
    let listed = list(&secret(Role::Auditor).await).expect("listed");
    assert!(list(&cluster.key).is_ok());
    let shown: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let replicas = shown["replicas"].as_array().expect("a list").iter();
    let states: Vec<_> = replicas.map(|one| (&one["replica"], &one["state"])).collect();
    let serving = &"serving".into();
    assert_eq!(states, [(&"r1".into(), serving), (&"r2".into(), serving)]);
    assert_eq!((&shown["reached"], &shown["leader"]), (&1.into(), &cluster.etcd.address(0).into()));
    let error = list(&secret(Role::Service).await).expect_err("not its call");
    assert!(error.contains("does not permit this call"), "{error}");
    let error = list("").expect_err("no key");
    assert!(error.contains("key"), "{error}");
    // A server of its own has no replicas.
    let dir = tempfile::tempdir().expect("a directory");
    let alone = Server::start(dir.path(), &[]);
    let ended = scopegate().args(["replicas", "list", "--endpoint", &alone.address]).output();
    let error = String::from_utf8(ended.expect("it runs").stderr).expect("a text");
    assert!(error.contains("started without --replicate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_changes_at_the_first_try_when_a_replica_was_killed() {
    let Some(cluster) = Cluster::start().await else { return };
    let [first, _] = cluster.clients().await;
    let mut command =
        cluster.command(&["company", "create", "acme", "--endpoint", &cluster.first.address]);
    let Cluster { first: _alive, second, etcd: _etcd, .. } = cluster;
    second.kill();
    let by_command = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let by_client = create(&first, "umbrella", "").await.expect("created");
    assert_eq!(waited(by_client.metadata()), (Some("r1"), Some("r2")));
    let ended = by_command.await.expect("no panic");
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && error.is_empty(), "{error}");
    assert!(company(&first, "acme").await.is_ok());
    let later = create(&first, "globex", "").await.expect("created");
    assert_eq!(waited(later.metadata()), (Some("r1"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn import_is_refused_before_it_is_read() {
    let Some(cluster) = Cluster::start().await else { return };
    let [first, _] = cluster.clients().await;
    // The stream of messages never begins.
    let messages = tokio_stream::pending::<ImportCredentialsRequest>();
    let (code, details) = refused(first.directory.clone().import_credentials(messages).await);
    let reason = &details.error_info().expect("an ErrorInfo").reason;
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "REPLICATED"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import.jsonl");
    let mut command = cluster.command(&["import", "--endpoint", &cluster.first.address]);
    let ended = command.arg(file).output().expect("it runs");
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && error.contains("a replica takes no import"), "{error}");
}

/// Runs `keys bootstrap` in the directory of a replica.
fn new_key(dir: &Path, etcd: &str, args: &[&str]) -> Result<String, String> {
    let mut command = scopegate();
    command.args(["keys", "bootstrap", "--data-dir"]).arg(dir);
    let ended = command.args(["--replicate", &url(etcd)]).args(args).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("a text").trim().to_owned();
    if ended.status.success() { Ok(text(ended.stdout)) } else { Err(text(ended.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_key_is_made_with_the_store_of_a_stopped_replica() {
    let Some(cluster) = Cluster::start().await else { return };
    let [first, _] = cluster.clients().await;
    let (dir, etcd) = (cluster.store(NAMES[1]), cluster.etcd.address(0).to_owned());
    let error = new_key(&dir, &etcd, &[]).expect_err("the replica runs");
    assert!(error.contains("another process"), "{error}");
    let Cluster { first: alive, second, dir: parent, etcd: _etcd, .. } = cluster;
    assert!(second.terminate().success());
    // The stopped replica has to catch up.
    create(&first, "acme", "").await.expect("created");
    let key = new_key(&dir, &etcd, &["--name", "recovery"]).expect("a key");
    // It is good at once at the replica that serves, which nobody waits for any more.
    let client = Client::connect_as(&alive.url(), Some(&key)).await;
    let who = client.keys.clone().who_am_i(WhoAmIRequest {}).await.expect("a key");
    assert_eq!(who.into_inner().name, "recovery");
    let later = create(&client, "globex", "").await.expect("created");
    assert_eq!(waited(later.metadata()), (Some("r1"), None));
    assert_eq!(new_key(&dir, &etcd, &["--if-no-keys"]), Ok(String::new()));
    // A store of another server is no replica.
    let other = parent.path().join("other");
    bootstrap(&other);
    let error = new_key(&other, &etcd, &[]).expect_err("no replica");
    assert!(error.contains("belongs to no cluster"), "{error}");
}
