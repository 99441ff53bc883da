//! A full disk and one that cannot be written: changes are refused in time and in so many words,
//! checks go on, and changes go on when there is space again.
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness;
use crate::harness::cluster::{Cluster, until};
use crate::harness::{Client, Server, owned, refused};
use scopegate::proto::*;
use scopegate::store::Store;
use tonic::Code;

/// Longer than anything here should take.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// How to give a process a small disk of its own, which goes with it; none if this machine does
/// not let us.
fn small_disk() -> Option<&'static str> {
    let ways = ["unshare --mount", "unshare --map-root-user --mount"];
    let works = |way: &&&str| {
        let script = format!("exec {way} sh -c 'mount -t tmpfs none /mnt'");
        let tried = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(works).copied();
    if way.is_none() {
        println!("skipped: no disk can be mounted here (`unshare --mount` needs privileges)");
    }
    way
}

/// The binary, after a disk was mounted for it.
fn after(way: &str, mount: &str) -> Command {
    let binary = harness::scopegate();
    let binary = binary.get_program().to_str().expect("a path");
    let script = format!("exec {way} sh -c '{mount} && exec \"$0\" \"$@\"' {binary} \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCOPEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// A small disk that stays when a server ends: a process holds it, and goes with this value.
struct Disk {
    holder: Child,
    path: PathBuf,
    _mounted_on: tempfile::TempDir,
}

impl Disk {
    fn of(mebibytes: u32) -> Option<Self> {
        let way = small_disk()?;
        let dir = tempfile::tempdir().expect("a directory");
        let mount = format!("mount -t tmpfs -o size={mebibytes}m none {}", dir.path().display());
        let script = format!("exec {way} sh -c '{mount} && echo mounted && exec sleep 600'");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("spawned");
        let mut said = String::new();
        let output = holder.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("said");
        assert_eq!(said.trim(), "mounted");
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), dir.path().display()));
        Some(Self { holder, path, _mounted_on: dir })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// Fills the disk up to so many bytes. What fills it already stays: a server must not see space
/// meanwhile.
fn fill(disk: &Path, left: u64) {
    let free = || {
        let told = Command::new("stat").args(["-f", "-c", "%b %a %S"]).arg(disk).output();
        let told = String::from_utf8(told.expect("stat runs").stdout).expect("text");
        let told: Vec<u64> =
            told.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        assert!(told[0] * told[2] <= 128 << 20, "the small disk, and no other");
        told[1] * told[2]
    };
    let bytes = free().saturating_sub(left);
    let ballast = File::options().create(true).append(true).open(disk.join("ballast"));
    let bytes = vec![1; usize::try_from(bytes).expect("small")];
    ballast.expect("opened").write_all(&bytes).expect("written");
    assert!(free() <= left + 4096);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_and_checks_go_on() {
    let Some(way) = small_disk() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = harness::catalog("360learning.yaml");
    let catalog = ["--catalog", catalog.to_str().expect("a path")];
    let mount = format!("mount -t tmpfs -o size=128m none {}", dir.path().display());
    let server = Server::start_by(after(way, &mount), &dir.path().join("store"), &catalog);
    // The process's own view: nobody else sees the disk.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.pid(), dir.path().display()));
    let client = &server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let create = |id: String| async move {
        let request = CreateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: id,
            ..Default::default()
        };
        client.directory.clone().create_credential(request).await
    };
    let mut made = vec!["hr".to_owned()];
    // First so full that no change is accepted, then without a byte.
    for left in [60 << 20, 0] {
        fill(&inside, left);
        let (code, details) = refused(create("late".to_owned()).await);
        assert_eq!(code, Code::ResourceExhausted);
        assert_eq!(details.error_info().expect("an info").reason, "DISK_FULL");
        assert!(details.retry_info().is_some());
        // While the keeper of time has things to write, too.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
            assert_eq!(
                client.reason("acme", "hr", &["users:write"]).await,
                Reason::ScopeNotGranted
            );
            assert_eq!(
                client.reason("acme", "x", &["users:read"]).await,
                Reason::CredentialUnknown
            );
        }
        refused(create("later".to_owned()).await);
        fs::remove_file(inside.join("ballast")).expect("removed");
        let id = format!("after-{left}");
        let end = Instant::now() + WAIT_LIMIT;
        while create(id.clone()).await.is_err() {
            assert!(Instant::now() < end, "changes are accepted again");
        }
        made.push(id);
    }
    // Filled by changes alone, as fast as they come.
    fill(&inside, 68 << 20);
    let label = "x".repeat(200);
    let mut tasks = Vec::new();
    for writer in 0..32 {
        let (directory, label) = (client.directory.clone(), label.clone());
        tasks.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for n in 0.. {
                let request = CreateCredentialRequest {
                    company_id: "acme".to_owned(),
                    credential_id: format!("w{writer}-{n}"),
                    label: label.clone(),
                    scopes: vec!["users:read".to_owned()],
                    ..Default::default()
                };
                match directory.clone().create_credential(request.clone()).await {
                    Ok(_) => made.push(request.credential_id),
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                        break;
                    }
                }
            }
            made
        }));
    }
    for task in tasks {
        made.extend(task.await.expect("refused at last"));
    }
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    // What was acknowledged is what the disk has. Stopped, so that it does not change meanwhile.
    server.pause();
    let elsewhere = tempfile::tempdir().expect("a directory");
    copy(&inside.join("store"), elsewhere.path());
    server.kill();
    let server = Server::start(elsewhere.path(), &[]);
    let client = server.client().await;
    println!("{} changes until the disk was full", made.len());
    for id in &made {
        client.credential("acme", id).await.expect("acknowledged");
    }
    refused(client.credential("acme", "late").await);
    refused(client.credential("acme", "later").await);
}

/// Expects a change to be refused for want of space, in a sentence that says what still works.
fn no_space<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    let status = answer.as_ref().expect_err("no space");
    assert!(status.message().contains("only changes that remove access"), "{status:?}");
    let (code, details) = refused(answer);
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(details.error_info().expect("an info").reason, "DISK_FULL");
}

/// Waits until a change is accepted.
macro_rules! accepted {
    ($change:expr) => {{
        let end = Instant::now() + WAIT_LIMIT;
        loop {
            match $change.await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => assert!(Instant::now() < end, "{status:?}"),
            }
        }
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_are_committed_on_a_full_disk() {
    let Some(disk) = Disk::of(128) else { return };
    let store = disk.path.join("store");
    // A path through another process's root cannot be made canonical.
    fs::create_dir(&store).expect("made");
    let bootstrap = |name: &str| {
        let mut command = harness::scopegate();
        command.args(["keys", "bootstrap", "--name", name, "--data-dir"]).arg(&store);
        let output = command.output().expect("ran");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let key = bootstrap("first");
    let server = Server::with_catalog(&store, "horizonwebref.yaml");
    let client = &Client::connect_as(&server.url(), Some(&key)).await;
    let (read, all) = ("read_personal_account", &["read_personal_account", "read_organization"]);
    let directory = || client.directory.clone();
    let masked = |path: &str| Some(prost_types::FieldMask { paths: owned(&[path]) });
    let (acme, ada) = (|| "acme".to_owned(), || "ada".to_owned());
    let stages = [40_u64 << 20, 16 << 20, 0];
    let catalog = "{scopes: {read_personal_account: {title: A}, read_organization: {title: B}}, \
                   roles: {owner: {scopes: {read_personal_account: all}}, member: {scopes: {}}}}";
    let apply = ApplyCatalogRequest { yaml: catalog.to_owned(), ..Default::default() };
    client.catalog.clone().apply_catalog(apply).await.expect("applied");
    client.create_company("acme", None).await;
    let mut taken = Vec::new();
    for stage in 0..stages.len() {
        client.create_company(&format!("gone-{stage}"), None).await;
        client.create_company(&format!("off-{stage}"), None).await;
        client.create_company(&format!("less-{stage}"), None).await;
        for id in ["deleted", "disabled", "ended", "revoked", "replaced", "user"] {
            client.create_credential("acme", &format!("{id}-{stage}"), all).await;
        }
        client.create_credential("acme", &format!("none-{stage}"), &[]).await;
        for user in ["deleted", "fewer"] {
            client.put_user("acme", &format!("{user}-{stage}"), &["owner", "member"]).await;
        }
        let secret = CreateSecretRequest {
            company_id: acme(),
            credential_id: format!("user-{stage}"),
            ..Default::default()
        };
        let secret = directory().create_secret(secret).await.expect("made").into_inner().secret_id;
        let key = CreateKeyRequest {
            name: "stolen".to_owned(),
            roles: vec![Role::Service.into()],
            ..Default::default()
        };
        let key = client.keys.clone().create_key(key).await.expect("made").into_inner();
        taken.push((secret, key.key.expect("a key").key_id));
    }
    client.put_user("acme", "ada", &["owner"]).await;
    for n in 0..200 {
        client.put_user("acme", &format!("many-{n}"), &["owner"]).await;
    }
    for stage in 0..stages.len() {
        client.consent("acme", &format!("user-{stage}"), "ada", &[read]).await;
    }
    for (stage, left) in stages.into_iter().enumerate() {
        fill(&disk.path, left);
        let of = |name: &str| format!("{name}-{stage}");
        let (secret_id, key_id) = taken[stage].clone();
        // Nobody is given anything.
        no_space(
            directory()
                .create_credential(CreateCredentialRequest {
                    company_id: acme(),
                    credential_id: of("late"),
                    ..Default::default()
                })
                .await,
        );
        no_space(
            client
                .authorization
                .clone()
                .grant_scopes(GrantScopesRequest {
                    company_id: acme(),
                    credential_id: of("none"),
                    scopes: owned(&[read]),
                    expires_at: None,
                    ..Default::default()
                })
                .await,
        );
        // What takes away is done.
        let key = DeleteKeyRequest { key_id, ..Default::default() };
        client.keys.clone().delete_key(key).await.expect("a key");
        let revoked = RevokeScopesRequest {
            company_id: acme(),
            credential_id: of("revoked"),
            scopes: owned(all),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        client.authorization.clone().revoke_scopes(revoked).await.expect("scopes");
        let replaced = ReplaceScopesRequest {
            company_id: acme(),
            credential_id: of("replaced"),
            scopes: owned(&[read]),
            ..Default::default()
        };
        client.authorization.clone().replace_scopes(replaced).await.expect("scopes");
        let restricted = RestrictCompanyScopesRequest {
            company_id: of("less"),
            scopes: owned(&[read]),
            acknowledge_impact: true,
            ..Default::default()
        };
        client.authorization.clone().restrict_company_scopes(restricted).await.expect("a ceiling");
        let update = UpdateCredentialRequest {
            company_id: acme(),
            credential_id: of("disabled"),
            enabled: false,
            update_mask: masked("enabled"),
            ..Default::default()
        };
        directory().update_credential(update.clone()).await.expect("disabled");
        no_space(
            directory()
                .update_credential(UpdateCredentialRequest { enabled: true, ..update.clone() })
                .await,
        );
        no_space(
            directory()
                .update_credential(UpdateCredentialRequest {
                    label: "x".to_owned(),
                    update_mask: masked("label"),
                    ..update
                })
                .await,
        );
        directory()
            .update_credential(UpdateCredentialRequest {
                company_id: acme(),
                credential_id: of("ended"),
                expires_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                update_mask: masked("expires_at"),
                ..Default::default()
            })
            .await
            .expect("ended");
        directory()
            .update_company(UpdateCompanyRequest {
                company_id: of("off"),
                enabled: false,
                update_mask: masked("enabled"),
                ..Default::default()
            })
            .await
            .expect("disabled");
        directory()
            .delete_secret(DeleteSecretRequest {
                company_id: acme(),
                credential_id: of("user"),
                secret_id,
                ..Default::default()
            })
            .await
            .expect("a secret");
        directory()
            .delete_consent(DeleteConsentRequest {
                company_id: acme(),
                credential_id: of("user"),
                user_id: ada(),
                ..Default::default()
            })
            .await
            .expect("a consent");
        directory()
            .put_user(PutUserRequest {
                company_id: acme(),
                user_id: of("fewer"),
                roles: owned(&["member"]),
                ..Default::default()
            })
            .await
            .expect("fewer roles");
        directory()
            .delete_user(DeleteUserRequest {
                company_id: acme(),
                user_id: of("deleted"),
                ..Default::default()
            })
            .await
            .expect("a user");
        directory()
            .delete_credential(DeleteCredentialRequest {
                company_id: acme(),
                credential_id: of("deleted"),
                ..Default::default()
            })
            .await
            .expect("a credential");
        directory()
            .delete_company(DeleteCompanyRequest { company_id: of("gone"), ..Default::default() })
            .await
            .expect("a company");
        let reason = |id: &str| {
            let id = of(id);
            async move { client.reason("acme", &id, &[read]).await }
        };
        assert_eq!(reason("deleted").await, Reason::CredentialUnknown);
        assert_eq!(reason("disabled").await, Reason::CredentialDisabled);
        assert_eq!(reason("ended").await, Reason::CredentialExpired);
        assert_eq!(reason("revoked").await, Reason::ScopeNotGranted);
        assert_eq!(reason("replaced").await, Reason::Allowed);
    }
    // Two hundred more, from what the store alone can write to.
    for n in 0..200 {
        let user = DeleteUserRequest {
            company_id: acme(),
            user_id: format!("many-{n}"),
            ..Default::default()
        };
        directory().delete_user(user).await.expect("a user");
    }
    // A server that was killed there starts again, and so does one that ended; so are the keys.
    server.kill();
    let back = bootstrap("back");
    let server = Server::start(&store, &[]);
    let client = &Client::connect_as(&server.url(), Some(&back)).await;
    assert_eq!(client.reason("acme", "replaced-0", &[read]).await, Reason::Allowed);
    // The start gave the reserve to all, and has taken it back before others fill the disk again.
    fill(&disk.path, 0);
    let key = client.keys.clone().list_keys(ListKeysRequest::default()).await.expect("listed");
    let key = key.into_inner().keys.into_iter().find(|key| key.name == "first").expect("a key");
    let key = DeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    client.keys.clone().delete_key(key).await.expect("a key on a disk that is full again");
    let delete = DeleteCredentialRequest {
        company_id: acme(),
        credential_id: "replaced-0".to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_credential(delete).await.expect("a credential");
    assert_eq!(server.terminate().code(), Some(0));
    let server = Server::start(&store, &[]);
    let client = &Client::connect_as(&server.url(), Some(&back)).await;
    refused(client.credential("acme", "replaced-0").await);
    // The last of it is for keys alone, whatever used up the rest.
    server.kill();
    let log = File::options().write(true).open(store.join("db")).expect("opened");
    log.set_len(log.metadata().expect("a length").len()).expect("the reserve is given back");
    fill(&disk.path, 13 << 20);
    let spare = bootstrap("spare");
    let server = Server::start(&store, &[]);
    let client = &Client::connect_as(&server.url(), Some(&back)).await;
    let delete =
        DeleteUserRequest { company_id: acme(), user_id: "ada".to_owned(), ..Default::default() };
    let status = client.directory.clone().delete_user(delete).await.expect_err("no space");
    assert!(status.message().contains("only API keys can be deleted"), "{status:?}");
    let keys = client.keys.clone().list_keys(ListKeysRequest::default()).await.expect("listed");
    let key = keys.into_inner().keys.into_iter().find(|key| key.name == "spare").expect("a key");
    let key = DeleteKeyRequest { key_id: key.key_id, ..Default::default() };
    client.keys.clone().delete_key(key).await.expect("a key");
    refused(Client::connect_as(&server.url(), Some(&spare)).await.credential("acme", "hr").await);
    fs::remove_file(disk.path.join("ballast")).expect("removed");
    accepted!(client.directory.clone().create_credential(CreateCredentialRequest {
        company_id: acme(),
        credential_id: "late".to_owned(),
        ..Default::default()
    }));
}

/// T28: a stolen signing key goes, also where no other can be made. Until there is space, the server issues
/// no tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_signing_key_is_deleted_on_a_full_disk() {
    let Some(disk) = Disk::of(128) else { return };
    let store = disk.path.join("store");
    fs::create_dir(&store).expect("made");
    let catalog = harness::catalog("horizonwebref.yaml");
    let catalog = catalog.to_str().expect("a path");
    let oauth = ["--oauth", "127.0.0.1:0", "--issuer", "https://id.example.org"];
    let server = Server::start(&store, &[&["--catalog", catalog][..], &oauth].concat());
    let client = server.client().await;
    let mut keys = client.keys.clone();
    let list = async || {
        let list =
            client.keys.clone().list_signing_keys(ListSigningKeysRequest {}).await.expect("listed");
        let list = list.into_inner().signing_keys;
        list.into_iter().map(|key| (key.key_id.clone(), key.state())).collect::<Vec<_>>()
    };
    // With space for the file of another key, and without a byte.
    for left in [40 << 20, 0] {
        let before = list().await;
        let [(key_id, SigningKeyState::Current)] = &before[..] else { panic!("{before:?}") };
        fill(&disk.path, left);
        for validate_only in [true, false] {
            let delete = DeleteSigningKeyRequest {
                key_id: key_id.clone(),
                validate_only,
                ..Default::default()
            };
            let deleted = keys.delete_signing_key(delete).await.expect("deleted").into_inner();
            assert_eq!(deleted.signing_key.expect("a key").key_id, *key_id);
        }
        assert_eq!(list().await, []);
        let files = fs::read_dir(store.join("signing-keys")).expect("readable").count();
        assert_eq!(files, 0, "{left}");
        keys.rotate_signing_key(RotateSigningKeyRequest::default()).await.expect_err("no space");
        fs::remove_file(disk.path.join("ballast")).expect("removed");
        accepted!(keys.rotate_signing_key(RotateSigningKeyRequest::default()));
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_one_sentence_and_74() {
    let Some(way) = small_disk() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    // A new store, and one that was written before.
    drop(Store::open(&dir.path().join("old")).expect("opened"));
    let mount =
        format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", dir.path().display());
    for name in ["new", "old"] {
        let mut command = after(way, &mount);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join(name));
        let output = command.output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{name}: {said}");
        assert!(said.contains("Read-only file system (os error 30)"), "{name}: {said}");
        assert!(said.contains("mount the file system so that it can be written"), "{said}");
        assert!(!said.contains("damaged"), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}

/// Takes the reserve of a server that does not run now, and every other byte of its disk.
fn exhaust(disk: &Path) {
    let log = File::options().write(true).open(disk.join("store/db")).expect("opened");
    let length = log.metadata().expect("a length").len();
    log.set_len(length).expect("the blocks behind its end are free");
    let ballast = File::options().create(true).append(true).open(disk.join("ballast"));
    let full = ballast.expect("opened").write_all(&vec![1; 128 << 20]);
    full.expect_err("the disk is full");
}

/// Two replicas. The second has a disk of its own.
async fn cluster_with_a_small_disk() -> Option<(Disk, Cluster, usize)> {
    let disk = Disk::of(128)?;
    let mut cluster = Cluster::start(1, &[], 1, Duration::from_secs(3)).await?;
    let full = cluster.add();
    let store = disk.path.join("store");
    fs::create_dir(&store).expect("made");
    cluster.replicas[full].dir = store;
    cluster.launch(full);
    cluster.until_serving(full).await;
    Some((disk, cluster, full))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_disk_space_answers_nothing_and_holds_nobody_up() {
    let Some((disk, mut cluster, full)) = cluster_with_a_small_disk().await else { return };
    let (first, second) = (cluster.client(0), cluster.client(full));
    first.create_company("acme", None).await;
    first.create_credential("acme", "hr", &["a", "b"]).await;
    // With only the reserve it grants nothing by itself, and applies what others grant.
    fill(&disk.path, 0);
    let request = CreateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "late".to_owned(),
        ..Default::default()
    };
    no_space(second.directory.clone().create_credential(request).await);
    first.create_credential("acme", "new", &["a"]).await;
    assert_eq!(second.reason("acme", "new", &["a"]).await, Reason::Allowed);
    // Without the reserve it ends its session, and no change waits for it.
    let server = cluster.replicas[full].server();
    server.pause();
    exhaust(&disk.path);
    server.signal("CONT");
    let is_cut_off = async || {
        let answer = second.ask(harness::scopes_of("acme", "hr", &["b"])).await;
        answer.is_err_and(|status| status.code() == Code::Unavailable)
    };
    until("the end of its session", is_cut_off).await;
    first.restrict("acme", &["b"]).await;
    assert!(is_cut_off().await);
    assert!(cluster.replicas[full].server().is_running());
    fs::remove_file(disk.path.join("ballast")).expect("removed");
    cluster.until_serving(full).await;
    assert_eq!(second.reason("acme", "hr", &["b"]).await, Reason::ScopeNotInCompany);
}

/// The disk fills up while a replica waits for its change to be committed. Another replica's entry came
/// first: it is not applied, the change is not committed, and the process goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_came_first_is_not_applied_without_disk_space() {
    let Some((disk, mut cluster, full)) = cluster_with_a_small_disk().await else { return };
    let (first, second) = (cluster.client(0), cluster.client(full));
    first.create_company("acme", None).await;
    first.create_credential("acme", "hr", &["a", "b"]).await;
    assert_eq!(second.reason("acme", "hr", &["b"]).await, Reason::Allowed);
    fill(&disk.path, 0);
    cluster.hold(full);
    let revoked = tokio::spawn({
        let mut authorization = second.authorization.clone();
        let request = RevokeScopesRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            scopes: owned(&["a"]),
            ..Default::default()
        };
        async move { authorization.revoke_scopes(request).await }
    });
    // It waits for the session of the other one to end. The entry is larger than what sled has in hand.
    let yaml = format!("scopes: {{ a: , b: }}\n#{}", "-".repeat(1 << 20));
    let request = ApplyCatalogRequest { yaml, ..Default::default() };
    first.catalog.clone().apply_catalog(request).await.expect("applied");
    first.restrict("acme", &["b"]).await;
    let server = cluster.replicas[full].server();
    server.pause();
    exhaust(&disk.path);
    server.signal("CONT");
    cluster.mend(full);
    let status = revoked.await.expect("asked").expect_err("not committed");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let server = cluster.replicas[full].server();
    assert!(server.is_running(), "{:#?}", server.log());
    fs::remove_file(disk.path.join("ballast")).expect("removed");
    cluster.until_serving(full).await;
    assert_eq!(second.reason("acme", "hr", &["b"]).await, Reason::ScopeNotInCompany);
    assert_eq!(second.reason("acme", "hr", &["a"]).await, Reason::Allowed, "{status:?}");
}
