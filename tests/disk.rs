//! A full disk and one that cannot be written: changes are refused in time and in so many words,
//! checks go on, and changes go on when there is space again.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Server, refused};
use scopegate::proto::*;
use scopegate::store::sled::SledStore;
use tonic::Code;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Fills the disk up to so many bytes.
fn fill(disk: &Path, left: u64) {
    let ballast = disk.join("ballast");
    fs::remove_file(&ballast).ok();
    let free = || {
        let told = Command::new("stat").args(["-f", "-c", "%b %a %S"]).arg(disk).output();
        let told = String::from_utf8(told.expect("stat runs").stdout).expect("text");
        let told: Vec<u64> =
            told.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        assert!(told[0] * told[2] <= 128 << 20, "the small disk, and no other");
        told[1] * told[2]
    };
    let bytes = free().saturating_sub(left);
    fs::write(&ballast, vec![1; usize::try_from(bytes).expect("small")]).expect("written");
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
        let end = Instant::now() + PATIENCE;
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
    server.signal("STOP");
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

#[test]
fn a_disk_that_cannot_be_written_is_one_sentence_and_74() {
    let Some(way) = small_disk() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    // A new store, and one that was written before.
    drop(SledStore::open(&dir.path().join("old")).expect("opened"));
    let mount =
        format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", dir.path().display());
    for name in ["new", "old"] {
        let mut command = after(way, &mount);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join(name));
        let output = command.output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(74), "{name}: {said}");
        assert!(said.contains("check that the directory can be written"), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
}
