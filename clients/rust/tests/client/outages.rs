//! What becomes of checks while the server is away, is restarted, or cannot answer.

use std::future::pending;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scopegate_client::{Check, Client};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Server, analytics, patient};
use crate::misbehaving_server::{MisbehavingServer, Scripted, this};

fn check() -> Check {
    Check::scope(&analytics(), "users:read")
}

fn yes() -> Scripted {
    use scopegate_client::proto::{CheckResponse, Decision, Reach, Reason};
    this(CheckResponse {
        decision: Decision::Allowed.into(),
        reason: Reason::Allowed.into(),
        reach: Reach::All.into(),
        ..CheckResponse::default()
    })
}

/// Asks without a pause from several tasks, through restarts of the server, and fails if one check
/// fails.
async fn restarted(end: impl Fn(Server), connections: usize) {
    let dir = TempDir::new().expect("a directory");
    let mut server = Server::start_to_stay(dir.path(), &["--demo"]);
    let setup = Client::builder(server.url()).deadline(Duration::from_secs(60));
    let client = setup.connections(connections).connect().expect("a client");
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
            tokio::task::yield_now().await;
        }
    };
    for _ in 0..3 {
        more().await;
        let address = server.address.clone();
        server = tokio::task::block_in_place(|| {
            end(server);
            Server::start_at(&address, dir.path(), &[])
        });
    }
    more().await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("no check failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_fails_no_check_with_a_long_deadline() {
    restarted(Server::terminate, 1).await;
    restarted(Server::terminate, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_and_restart_fail_no_check_with_a_long_deadline() {
    restarted(Server::kill, 1).await;
    restarted(Server::kill, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_an_aged_connection_fails_no_check() {
    let dir = TempDir::new().expect("a directory");
    let server = Server::start(dir.path(), &["--demo", "--max-connection-age", "1s"]);
    let client = patient(&server.url());
    let tasks = Vec::from_iter((0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                client.require(&check()).await.expect("allowed");
            }
        })
    }));
    for task in tasks {
        task.await.expect("no check failed");
    }
}

#[tokio::test]
async fn unreachable_server_is_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let client = Client::builder(format!("http://{free}")).connect().expect("a client");
    let none = client.check(&check()).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable);
    assert!(none.to_string().contains("refused"), "{none}");
    assert!(client.require(&check()).await.is_err());
    assert!(client.batch_check(&[check()]).await.is_err());
}

#[tokio::test]
async fn silent_server_is_called_once() {
    let server = MisbehavingServer::replying(|_| Scripted::Never).await;
    let client = Client::builder(&server.url).connect().expect("a client");
    let none = client.check(&check()).await.expect_err("no answer");
    assert_eq!((none.code(), server.asked()), (Code::DeadlineExceeded, 1));
}

#[tokio::test]
async fn silent_port_ends_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let silent = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            all.push(accepted);
        }
        pending::<()>().await;
    });
    for scheme in ["http", "https"] {
        let client = Client::builder(format!("{scheme}://{address}")).connect().expect("a client");
        let none = client.check(&check()).await.expect_err("no answer");
        assert_eq!(none.code(), Code::DeadlineExceeded, "{scheme}");
    }
    silent.abort();
}

#[tokio::test]
async fn unavailable_is_retried_once() {
    let server = MisbehavingServer::replying(|n| {
        if n == 0 { Scripted::Error(Code::Unavailable) } else { yes() }
    })
    .await;
    patient(&server.url).require(&check()).await.expect("allowed");
    assert_eq!(server.asked(), 2);
    let server = MisbehavingServer::replying(|_| Scripted::Error(Code::Unavailable)).await;
    let none = patient(&server.url).check(&check()).await.expect_err("no answer");
    assert_eq!((none.code(), server.asked()), (Code::Unavailable, 2));
}

#[tokio::test]
async fn other_statuses_are_not_retried() {
    for code in (1..=16).map(Code::from).filter(|code| *code != Code::Unavailable) {
        let server = MisbehavingServer::replying(move |_| Scripted::Error(code)).await;
        let none = patient(&server.url).check(&check()).await.expect_err("no answer");
        assert_eq!((none.code(), server.asked()), (code, 1));
    }
}

#[tokio::test]
async fn retry_budget_bounds_retries() {
    let server = MisbehavingServer::replying(|_| Scripted::Error(Code::Unavailable)).await;
    let setup = Client::builder(&server.url).deadline(Duration::from_secs(30)).retry_budget(3);
    let client = setup.connect().expect("a client");
    for _ in 0..10 {
        assert!(client.clone().check(&check()).await.is_err());
    }
    assert_eq!(server.asked(), 10 + 3);
}

#[tokio::test]
async fn a_lost_connection_costs_a_retry_too() {
    // Takes connections, reads a little of each, and drops them.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let drops = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 16]).await.ok();
        }
    });
    let client = Client::builder(format!("http://{address}")).connect().expect("a client");
    let none = client.check(&check()).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable, "{none}");
    drops.abort();
}
