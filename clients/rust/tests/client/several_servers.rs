//! A client of several servers: which of them gets a check, and what happens if one is away.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use scopegate_client::proto::{CheckResponse, Decision, Reach, Reason};
use scopegate_client::{Check, Client, ConfigError};
use tempfile::TempDir;
use tokio::task::yield_now;
use tonic::Code;

use crate::harness::{Server, analytics, patient};
use crate::misbehaving_server::{MisbehavingServer, Scripted, this};

fn check() -> Check {
    Check::scope(&analytics(), "users:read")
}

fn yes(_: usize) -> Scripted {
    this(CheckResponse {
        decision: Decision::Allowed.into(),
        reason: Reason::Allowed.into(),
        reach: Reach::All.into(),
        ..CheckResponse::default()
    })
}

fn unavailable(_: usize) -> Scripted {
    Scripted::Error(Code::Unavailable)
}

/// An address without a server.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn address_without_a_server_is_passed_over() {
    let server = MisbehavingServer::replying(yes).await;
    for list in [format!("{},{}", closed(), server.url), format!("{}, {}", server.url, closed())] {
        let client = Client::builder(list).retry_budget(0).deadline(Duration::from_secs(30));
        let client = client.connect().expect("a client");
        for _ in 0..20 {
            client.require(&check()).await.expect("allowed");
        }
    }
    let none = Client::builder(format!("{},{}", closed(), closed())).connect().expect("a client");
    assert_eq!(none.check(&check()).await.expect_err("no answer").code(), Code::Unavailable);
    for list in ["http://a,", ",http://a", "http://a,,http://b", "http://a,b:1"] {
        let error = Client::builder(list).connect().expect_err(list);
        assert!(matches!(error, ConfigError::Endpoint(_)), "{list}: {error}");
    }
}

#[tokio::test]
async fn unavailable_check_goes_to_every_other_server_once() {
    // The budget has no token: a check at another server takes none.
    let one = MisbehavingServer::replying(unavailable).await;
    let two = MisbehavingServer::replying(unavailable).await;
    let three = MisbehavingServer::replying(yes).await;
    let list = format!("{},{},{}", one.url, two.url, three.url);
    let client = Client::builder(&list).retry_budget(0).deadline(Duration::from_secs(30));
    client.connect().expect("a client").require(&check()).await.expect("allowed");
    assert_eq!(three.asked(), 1);
    assert!(one.asked() <= 1 && two.asked() <= 1);
    let list = format!("{},{}", one.url, two.url);
    let (first, second) = (one.asked(), two.asked());
    let client = Client::builder(&list).retry_budget(0).deadline(Duration::from_secs(30));
    let none = client.connect().expect("a client").check(&check()).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable);
    assert_eq!((one.asked(), two.asked()), (first + 1, second + 1));
}

#[tokio::test]
async fn other_errors_are_returned_by_the_first_server() {
    for code in [Code::ResourceExhausted, Code::Internal, Code::Unauthenticated] {
        let server = move |_| Scripted::Error(code);
        let one = MisbehavingServer::replying(server).await;
        let two = MisbehavingServer::replying(server).await;
        let client = patient(&format!("{},{}", one.url, two.url));
        assert_eq!(client.check(&check()).await.expect_err("no answer").code(), code);
        assert_eq!(one.asked() + two.asked(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn nearest_server_is_preferred_whatever_the_order() {
    let far = MisbehavingServer::at_a_distance(Duration::from_millis(200), yes).await;
    let near = MisbehavingServer::replying(yes).await;
    let client = patient(&format!("{},{}", far.url, near.url));
    // Two health checks are one measurement. The preferred server is chosen after all of them.
    while far.health_checks() < 2 || near.asked() == 0 {
        client.require(&check()).await.expect("allowed");
        yield_now().await;
    }
    let (of_far, of_near) = (far.asked(), near.asked());
    for _ in 0..50 {
        client.require(&check()).await.expect("allowed");
    }
    assert_eq!((far.asked(), near.asked()), (of_far, of_near + 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_kill_and_restart_of_one_of_two_fail_no_check() {
    let dirs = [TempDir::new().expect("a directory"), TempDir::new().expect("a directory")];
    let start = |dir: &TempDir| Server::start_to_stay(dir.path(), &["--demo"]);
    let mut servers = VecDeque::from(dirs.each_ref().map(start));
    let client = patient(&Vec::from_iter(servers.iter().map(Server::url)).join(","));
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks = Vec::from_iter((0..8).map(|_| {
        let (client, stop, answers) = (client.clone(), Arc::clone(&stop), Arc::clone(&answers));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                client.require(&check()).await.expect("allowed");
                answers.fetch_add(1, Ordering::SeqCst);
            }
        })
    }));
    let more = async || {
        let enough = answers.load(Ordering::SeqCst) + 200;
        while answers.load(Ordering::SeqCst) < enough {
            assert!(tasks.iter().all(|task| !task.is_finished()), "a check failed");
            yield_now().await;
        }
    };
    for end in [Server::terminate, Server::kill] {
        for dir in &dirs {
            more().await;
            let server = servers.pop_front().expect("two servers");
            let address = server.address.clone();
            tokio::task::block_in_place(|| end(server));
            // The other server alone.
            more().await;
            let again = tokio::task::block_in_place(|| Server::start_at(&address, dir.path(), &[]));
            servers.push_back(again);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("no check failed");
    }
}
