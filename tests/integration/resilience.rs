//! Under siege: a process that was stopped goes on with the truth, and ten thousand connections
//! at once are all answered.
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::harness::process::{is_alone, is_possible};
use crate::harness::{Client, Server, scopes_of};
use scopegate::proto::*;
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_goes_on_with_the_truth() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_company("other", None).await;
    client.create_credential("other", "hr", &["users:read"]).await;
    client.create_credential("acme", "hr", &[]).await;
    let end = SystemTime::now() + Duration::from_secs(3);
    let request = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: vec!["users:read".to_owned()],
        expires_at: Some(end.into()),
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(request).await.expect("granted");
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                for n in 0..200 {
                    let id = format!("w{writer}-{n}");
                    client.create_credential("acme", &id, &["users:read"]).await;
                    made.push(id);
                }
                made
            })
        })
        .collect();
    server.pause();
    // Asked while nobody listens.
    let restricted = {
        let client = client.clone();
        tokio::spawn(async move {
            client.restrict("other", &["users:read"]).await;
            // Acknowledged before this one is asked.
            client.reason("other", "hr", &["users:read"]).await
        })
    };
    let asked: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let answer = client.check("acme", "hr", &["users:read"]).await;
                (answer.reason(), SystemTime::now())
            })
        })
        .collect();
    // The fault itself, and no synchronisation: the grant ends while the process is stopped.
    let until = end + Duration::from_secs(1);
    tokio::time::sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await;
    server.signal("CONT");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::GrantExpired);
    for answer in asked {
        let (reason, _) = answer.await.expect("answered");
        assert_eq!(reason, Reason::GrantExpired, "decided when it was answered");
    }
    assert_eq!(restricted.await.expect("answered"), Reason::ScopeNotInCompany);
    let mut made = Vec::new();
    for writer in writers {
        made.extend(writer.await.expect("acknowledged"));
    }
    server.kill();
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    for id in made {
        assert_eq!(client.reason("acme", &id, &["users:read"]).await, Reason::Allowed, "{id}");
    }
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::GrantExpired);
}

fn connections() -> usize {
    std::env::var("SCOPEGATE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_are_all_answered() {
    let files = connections() + 1_000;
    let limit = format!("--nofile={files}:");
    // The limit is that of a process, and the server inherits it.
    let by = ["prlimit", &limit];
    if !is_possible(&by) {
        println!("skipped: a process may not have {files} files open here (prlimit)");
        return;
    }
    if !is_alone("resilience::ten_thousand_connections_are_all_answered", &by) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    // As many handshakes at once as the queue of a listening socket holds.
    let turns = Arc::new(Semaphore::new(256));
    let opening: Vec<_> = (0..connections())
        .map(|_| {
            let (url, turns) = (server.url(), Arc::clone(&turns));
            tokio::spawn(async move {
                let _turn = turns.acquire().await.expect("open");
                Client::connect(&url).await
            })
        })
        .collect();
    let mut open = Vec::new();
    for connection in opening {
        open.push(connection.await.expect("connected"));
    }
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("alive").count();
    assert!(sockets > connections(), "all at once: {sockets}");
    let asked: Vec<_> = open
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, client)| {
            tokio::spawn(async move {
                let scope = if n % 2 == 0 { "users:read" } else { "users:write" };
                client.ask(scopes_of("acme", "hr", &[scope])).await.map(|answer| answer.reason())
            })
        })
        .collect();
    for (n, answer) in asked.into_iter().enumerate() {
        let right = if n % 2 == 0 { Reason::Allowed } else { Reason::ScopeNotGranted };
        assert_eq!(answer.await.expect("asked").expect("answered"), right);
    }
    drop(open);
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    assert!(server.terminate().success());
}
