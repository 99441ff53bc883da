//! A rolling restart of what has one replica: the server is asked to end, drains, and the next one
//! opens the same store on the same address, while clients go on. Who retries, as a caller in a
//! cluster does, sees no failure; who does not is only ever told that nobody is there.
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness;
use crate::harness::{Client, Server, free_address, owned, scopes_of};
use scopegate::proto::*;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Clients that change something and look whether it is so.
const WRITERS: usize = 4;

/// How long anything may take that must happen: far longer than it takes.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// How often to restart.
fn restarts() -> usize {
    std::env::var("SCOPEGATE_RESTARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// A client of whoever answers there.
fn client(address: &str) -> Client {
    let endpoint = harness::endpoint(&format!("http://{address}"));
    Client::over(endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy())
}

/// Whether a failure says that nobody is there: the server's own word for it, or a connection that
/// is not, in which case no server has said anything.
fn is_nobody(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// The outcome of a call. One that has none fails the test, and does not hang it.
async fn ended<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(WAIT_LIMIT, call).await.expect("a call has neither an answer nor an error")
}

/// Calls until somebody answers.
async fn retrying<T, F: Future<Output = Result<T, Status>>>(call: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        match ended(call()).await {
            Ok(answer) => return answer,
            Err(status) => {
                assert!(is_nobody(&status), "{status:?}");
                // So that a server that does not come back fails the test, and does not hang it.
                assert!(begun.elapsed() < WAIT_LIMIT, "nobody came back: {status:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Checks until somebody answers.
async fn ask(client: &Client, check: &CheckRequest) -> CheckResponse {
    retrying(|| {
        let (client, check) = (client.clone(), check.clone());
        async move { client.ask(check).await }
    })
    .await
}

/// What the clients have in common.
#[derive(Clone)]
struct Drill {
    address: String,
    over: Arc<AtomicBool>,
    /// Answers that the clients without retries got; what they got instead.
    answered: Arc<AtomicU64>,
    unanswered: Arc<AtomicU64>,
}

impl Drill {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One who holds the scope and one who does not are told so, at revisions that never go back.
    async fn ask(self, retries: bool) {
        let (client, mut last) = (client(&self.address), 0);
        for n in 0_usize.. {
            if self.is_over() {
                return;
            }
            let (credential, right) =
                [("holder", Reason::Allowed), ("other", Reason::ScopeNotGranted)][n % 2];
            let request = scopes_of("acme", credential, &["users:read"]);
            let answer = if retries {
                ask(&client, &request).await
            } else {
                match ended(client.ask(request)).await {
                    Ok(answer) => answer,
                    Err(status) => {
                        assert!(is_nobody(&status), "{status:?}");
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    }
                }
            };
            self.answered.fetch_add(1, Ordering::Relaxed);
            assert_eq!(answer.reason(), right, "{credential}");
            assert!(answer.revision >= last, "{} after {last}", answer.revision);
            last = answer.revision;
        }
    }

    /// Grants and revokes in turns, and asks after each. What was acknowledged, by revision.
    async fn write(self, writer: usize) -> BTreeMap<u64, &'static str> {
        let client = client(&self.address);
        let credential = format!("writer-{writer}");
        let mut done = BTreeMap::new();
        for n in 0_u64.. {
            if self.is_over() {
                break;
            }
            // Sent again, it is made once: an answer that a drain cut off may have been made.
            let request_id = uuid(writer, n);
            let (company_id, scopes) = ("acme".to_owned(), owned(&["users:write"]));
            let (revision, kind, right) = if n % 2 == 0 {
                let grant = GrantScopesRequest {
                    company_id,
                    credential_id: credential.clone(),
                    scopes,
                    request_id,
                    ..Default::default()
                };
                let granted = retrying(|| {
                    let (mut client, grant) = (client.authorization.clone(), grant.clone());
                    async move { client.grant_scopes(grant).await }
                });
                let granted = granted.await.into_inner();
                assert_eq!(granted.added_scopes, ["users:write"], "made once");
                (granted.revision, "GrantScopes", Reason::Allowed)
            } else {
                let revoke = RevokeScopesRequest {
                    company_id,
                    credential_id: credential.clone(),
                    scopes,
                    request_id,
                    ..Default::default()
                };
                let revoked = retrying(|| {
                    let (mut client, revoke) = (client.authorization.clone(), revoke.clone());
                    async move { client.revoke_scopes(revoke).await }
                });
                let revoked = revoked.await.into_inner();
                assert_eq!(revoked.removed_scopes, ["users:write"], "made once");
                (revoked.revision, "RevokeScopes", Reason::ScopeNotGranted)
            };
            assert!(done.insert(revision, kind).is_none(), "two changes of revision {revision}");
            let asked = scopes_of("acme", &credential, &["users:write"]);
            let answer = ask(&client, &asked).await;
            assert_eq!(answer.reason(), right, "after {kind} at {revision}");
            assert!(answer.revision >= revision);
        }
        done
    }
}

fn uuid(writer: usize, n: u64) -> String {
    format!("00000000-0000-4000-8000-{writer:04x}{n:08x}")
}

/// Starts a server at the drill's address, which the one before has left.
fn start(dir: &Path, address: &str) -> Server {
    let catalog = harness::catalog("360learning.yaml");
    let catalog = catalog.to_str().expect("a path");
    Server::start(dir, &["--listen", address, "--catalog", catalog])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_retries_sees_no_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let drill = Drill {
        address: free_address(),
        over: Arc::default(),
        answered: Arc::default(),
        unanswered: Arc::default(),
    };
    let mut server = start(dir.path(), &drill.address);
    let setup = server.client().await;
    setup.create_company("acme", None).await;
    setup.create_credential("acme", "holder", &["users:read"]).await;
    setup.create_credential("acme", "other", &[]).await;
    for writer in 0..WRITERS {
        setup.create_credential("acme", &format!("writer-{writer}"), &[]).await;
    }
    drop(setup);
    let askers = [true, false].map(|retries| tokio::spawn(drill.clone().ask(retries)));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(drill.clone().write(writer))).collect();
    for _ in 0..restarts() {
        // Each server has work under way when it is asked to end.
        let (before, begun) = (drill.answered.load(Ordering::Relaxed), Instant::now());
        while drill.answered.load(Ordering::Relaxed) < before + 200 {
            assert!(!askers.iter().any(|asker| asker.is_finished()), "an asker failed");
            assert!(!writers.iter().any(|writer| writer.is_finished()), "a writer failed");
            let counts = [&drill.answered, &drill.unanswered].map(|n| n.load(Ordering::Relaxed));
            assert!(begun.elapsed() < 2 * WAIT_LIMIT, "too few answers: {before}, {counts:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let code = tokio::task::spawn_blocking(|| server.terminate()).await.expect("ended").code();
        assert_eq!(code, Some(0), "drained");
        server = start(dir.path(), &drill.address);
    }
    drill.over.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.expect("every answer was right");
    }
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("every answer was right"));
    }
    let failed = drill.unanswered.load(Ordering::Relaxed);
    assert!(failed > 0, "without retries somebody is there all the time: nothing was tried");
    // Nothing acknowledged is lost, and nothing was made twice.
    let client = client(&drill.address);
    let mut logged = BTreeMap::new();
    let mut request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = client.changes.clone().list_changes(request.clone()).await.expect("listed");
        let page = page.into_inner();
        logged.extend(page.changes.into_iter().map(|change| (change.revision, change.kind)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(logged.len() as u64, *logged.last_key_value().expect("a change").0, "no gap");
    let changed = logged.iter().filter(|(_, kind)| kind.ends_with("Scopes"));
    let changed: Vec<_> = changed.map(|(revision, kind)| (*revision, kind.as_str())).collect();
    assert_eq!(changed, Vec::from_iter(acknowledged), "what was made is what was acknowledged");
}

/// Who watches health hears of the end from the server itself, and then the end of the stream: as a
/// stream that never ends it would hold up the drain until it is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_reports_a_drain_before_it_begins_and_does_not_delay_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--demo"]);
    let channel = harness::endpoint(&server.url()).connect().await;
    let mut health = HealthClient::new(channel.expect("a connection"));
    let watched = health.watch(HealthCheckRequest::default()).await.expect("watched");
    let mut watched = watched.into_inner();
    let mut next = async || {
        let said = watched.message().await.map_err(|status| status.code())?;
        Ok(said.expect("no end without a word").status())
    };
    assert_eq!(next().await, Ok(ServingStatus::Serving));
    server.signal("TERM");
    assert_eq!(next().await, Ok(ServingStatus::NotServing), "and not merely the end");
    assert_eq!(next().await, Err(Code::Unavailable));
    assert_eq!(server.terminate().code(), Some(0));
}
