//! What becomes of checks while the server is away, is restarted, or cannot answer.

use std::future::pending;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scopegate_client::{Check, Scopegate};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Server, analytics, patient};
use crate::liar::{Liar, Says, this};

fn check() -> Check {
    Check::scope(&analytics(), "users:read")
}

fn yes() -> Says {
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
    let setup = Scopegate::at(server.url()).deadline(Duration::from_secs(60));
    let gate = setup.connections(connections).open().expect("a client");
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks = Vec::from_iter((0..8).map(|_| {
        let (gate, stop, answers) = (gate.clone(), Arc::clone(&stop), Arc::clone(&answers));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                gate.require(&check()).await.expect("allowed");
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
async fn a_restart_fails_no_check_that_has_the_time() {
    restarted(Server::terminate, 1).await;
    restarted(Server::terminate, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_fails_no_check_that_has_the_time() {
    restarted(Server::kill, 1).await;
    restarted(Server::kill, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_asked_to_end_takes_no_check_with_it() {
    let dir = TempDir::new().expect("a directory");
    let server = Server::start(dir.path(), &["--demo", "--max-connection-age", "1s"]);
    let gate = patient(&server.url());
    let tasks = Vec::from_iter((0..8).map(|_| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                gate.require(&check()).await.expect("allowed");
            }
        })
    }));
    for task in tasks {
        task.await.expect("no check failed");
    }
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let gate = Scopegate::at(format!("http://{free}")).open().expect("a client");
    let none = gate.check(&check()).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable);
    assert!(none.to_string().contains("refused"), "{none}");
    assert!(gate.require(&check()).await.is_err());
    assert!(gate.check_all(&[check()]).await.is_err());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_asked_once() {
    let liar = Liar::saying(|_| Says::Nothing).await;
    let gate = Scopegate::at(&liar.url).open().expect("a client");
    let none = gate.check(&check()).await.expect_err("no answer");
    assert_eq!((none.code(), liar.asked()), (Code::DeadlineExceeded, 1));
}

#[tokio::test]
async fn a_port_that_says_nothing_ends_with_the_deadline() {
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
        let gate = Scopegate::at(format!("{scheme}://{address}")).open().expect("a client");
        let none = gate.check(&check()).await.expect_err("no answer");
        assert_eq!(none.code(), Code::DeadlineExceeded, "{scheme}");
    }
    silent.abort();
}

#[tokio::test]
async fn unavailable_is_asked_again_once() {
    let liar = Liar::saying(|n| if n == 0 { Says::No(Code::Unavailable) } else { yes() }).await;
    patient(&liar.url).require(&check()).await.expect("allowed");
    assert_eq!(liar.asked(), 2);
    let liar = Liar::saying(|_| Says::No(Code::Unavailable)).await;
    let none = patient(&liar.url).check(&check()).await.expect_err("no answer");
    assert_eq!((none.code(), liar.asked()), (Code::Unavailable, 2));
}

#[tokio::test]
async fn nothing_else_that_a_server_says_is_asked_again() {
    for code in (1..=16).map(Code::from).filter(|code| *code != Code::Unavailable) {
        let liar = Liar::saying(move |_| Says::No(code)).await;
        let none = patient(&liar.url).check(&check()).await.expect_err("no answer");
        assert_eq!((none.code(), liar.asked()), (code, 1));
    }
}

#[tokio::test]
async fn an_outage_is_not_doubled() {
    let liar = Liar::saying(|_| Says::No(Code::Unavailable)).await;
    let setup = Scopegate::at(&liar.url).deadline(Duration::from_secs(30)).retry_budget(3);
    let gate = setup.open().expect("a client");
    for _ in 0..10 {
        assert!(gate.clone().check(&check()).await.is_err());
    }
    assert_eq!(liar.asked(), 10 + 3);
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
    let gate = Scopegate::at(format!("http://{address}")).open().expect("a client");
    let none = gate.check(&check()).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable, "{none}");
    drops.abort();
}
