//! A machine's clock that jumps, and the store's time (D19).
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::harness;
use crate::harness::fake_clock::FakeClock;
use crate::harness::{Client, Server, free_address, owned, refused, scopes_of};
use jiff::{SignedDuration, Timestamp};
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::revision::Revision;
use scopegate::proto::*;
use scopegate::store::{
    CommitObserver, IdempotencyRecord, Outcome, Proposal, RequestKey, Store, StoredResult,
    WriteResult,
};
use tonic::Code;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A machine whose clock can be set, and the store on it.
struct Machine {
    clock: FakeClock,
    dir: tempfile::TempDir,
    metrics: String,
}

impl Machine {
    /// None where there is no libfaketime.
    fn new() -> Option<Self> {
        let clock = FakeClock::new()?;
        let dir = tempfile::tempdir().expect("a directory");
        Some(Self { clock, dir, metrics: free_address() })
    }

    fn set(&self, offset: &str) {
        self.clock.set(offset);
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn start(&self, more: &[&str]) -> Server {
        let catalog = harness::catalog("360learning.yaml");
        let mut args = vec!["--catalog", catalog.to_str().expect("a path")];
        args.extend(["--metrics", &self.metrics, "--drain-timeout", "1s"]);
        args.extend(more);
        Server::start_by(self.clock.command(), &self.store(), &args)
    }

    /// By how many seconds the time is ahead of the clock, as Prometheus is told.
    fn ahead(&self) -> u64 {
        let mut connection = TcpStream::connect(&self.metrics).expect("a connection");
        write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        let mut text = String::new();
        connection.read_to_string(&mut text).expect("a text");
        let name = "scopegate_clock_ahead_seconds ";
        let ahead = text.lines().find_map(|line| line.strip_prefix(name)).expect("a gauge");
        ahead.parse().expect("a number")
    }
}

/// So many seconds from now.
fn after(seconds: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(seconds)
}

async fn grant_until(client: &Client, credential: &str, scope: &str, end: SystemTime) {
    let request = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: credential.to_owned(),
        scopes: owned(&[scope]),
        expires_at: Some(end.into()),
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(request).await.expect("granted");
}

/// When a new credential says that it was made.
async fn made(client: &Client, credential: &str) -> SystemTime {
    let made = client.create_credential("acme", credential, &[]).await;
    made.create_time.expect("a time").try_into().expect("a time")
}

async fn changes(client: &Client) -> Vec<scopegate::proto::Change> {
    let request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    client.changes.clone().list_changes(request).await.expect("listed").into_inner().changes
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..1_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn store_keeps_reported_expiries_of_a_short_clock_jump_until_the_clock_is_accepted() {
    let Some(machine) = Machine::new() else { return };
    let server = machine.start(&[]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &[]).await;
    grant_until(&client, "hr", "users:read", after(3 * HOUR)).await;
    grant_until(&client, "hr", "groups:read", after(30 * DAY)).await;
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    machine.set("+70y");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::GrantExpired);
    until("a word of the jump", async || server.logged("has jumped ahead") == 1).await;
    let doubtful = made(&client, "doubtful").await;
    let told = after(3 * HOUR - 60)..after(3 * HOUR + 60);
    assert!(told.contains(&doubtful), "not the time of the jump: {doubtful:?}");
    // Back, and nothing revives while the process runs.
    machine.set("+0");
    until("a word of the end", async || server.logged("is back from its jump") == 1).await;
    until("a warning", async || server.logged("restart the server") == 1).await;
    assert!(machine.ahead() > 69 * 365 * DAY);
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::GrantExpired);
    server.kill();
    let server = machine.start(&[]);
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::GrantExpired, "told");
    assert_eq!(client.reason("acme", "hr", &["groups:read"]).await, Reason::Allowed, "not told");
    assert!(told.contains(&made(&client, "after").await));
    let ahead = machine.ahead();
    assert!((3 * HOUR - 60..3 * HOUR + 60).contains(&ahead), "{ahead}");
    until("a warning", async || server.logged("--accept-clock") == 1).await;
    let times: Vec<_> = changes(&client).await.iter().filter_map(|c| c.time).collect();
    assert!(times.is_sorted_by_key(|time| (time.seconds, time.nanos)), "{times:?}");
    server.kill();
    // The operator's word.
    let server = machine.start(&["--accept-clock"]);
    assert_eq!(server.logged("are valid again"), 1);
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    assert!(machine.ahead() <= 2);
    assert!(made(&client, "right").await < after(60));
    let log = changes(&client).await;
    let accepted: Vec<_> = log.iter().filter(|change| change.kind == "AcceptClock").collect();
    let [accepted] = accepted.as_slice() else { panic!("{accepted:?}") };
    assert_eq!(accepted.actor, "scopegate serve");
    let [field] = accepted.fields.as_slice() else { panic!("{accepted:?}") };
    assert_eq!(field.field, "time");
    assert!(field.before > field.after, "{field:?}");
    // The past can still be asked for, on both sides of the step.
    for revision in [accepted.revision - 1, accepted.revision, accepted.revision + 1] {
        let explained = harness::scopegate()
            .args(["explain", "acme", "hr", "users:read", "--at-revision", &revision.to_string()])
            .args(["--endpoint", &server.url()])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&explained.stderr).into_owned();
        assert!(explained.status.success(), "{revision}: {said}");
    }
    let count = log.len();
    server.kill();
    // Once more does nothing, and without it nothing comes back.
    for more in [&["--accept-clock"][..], &[]] {
        let server = machine.start(more);
        assert_eq!(server.logged("--accept-clock did nothing"), more.len());
        let client = server.client().await;
        assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
        assert_eq!(changes(&client).await.len(), count);
        server.kill();
    }
}

#[tokio::test]
async fn a_jump_of_which_nothing_was_told_leaves_nothing() {
    let Some(machine) = Machine::new() else { return };
    let server = machine.start(&[]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    grant_until(&client, "hr", "groups:read", after(30 * DAY)).await;
    machine.set("+70y");
    // Neither an allowed check, nor a denial for another reason, nor a change, nor a clean end.
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    assert_eq!(client.reason("acme", "hr", &["users:write"]).await, Reason::ScopeNotGranted);
    assert!(made(&client, "doubtful").await < after(60));
    until("a word of the jump", async || server.logged("has jumped ahead") == 1).await;
    assert!(server.terminate().success());
    machine.set("+0");
    let server = machine.start(&[]);
    let client = server.client().await;
    assert!(machine.ahead() <= 2);
    let seen = client.credential("acme", "hr").await.expect("there").last_seen_time;
    assert!(SystemTime::try_from(seen.expect("seen")).expect("a time") < after(60));
    assert_eq!(client.reason("acme", "hr", &["groups:read"]).await, Reason::Allowed);
    assert!(made(&client, "right").await < after(60));
}

/// A way to ask whether a credential's time is over.
#[derive(Clone, Copy, Debug)]
enum Door {
    Check,
    Token,
    Batch,
    Explain,
    Effective,
    Verify,
    Read,
    List,
    DryRun,
    Unchanged,
    Key,
}

#[tokio::test]
async fn an_end_is_on_the_disk_before_it_is_told_by_whatever_call() {
    use Door::*;
    let Some(machine) = Machine::new() else { return };
    let doors =
        [Check, Token, Batch, Explain, Effective, Verify, Read, List, DryRun, Unchanged, Key];
    for (n, door) in (3..).zip(doors) {
        machine.set("+0");
        let server = machine.start(&[]);
        let client = server.client().await;
        let company = format!("company-{n}");
        client.create_company(&company, None).await;
        let end = after(n * HOUR);
        let ends = (!matches!(door, Token | Key)).then(|| end.into());
        let request = CreateCredentialRequest {
            company_id: company.clone(),
            credential_id: "hr".to_owned(),
            label: "hr".to_owned(),
            scopes: owned(&["users:read"]),
            expires_at: ends,
            ..Default::default()
        };
        client.directory.clone().create_credential(request).await.expect("created");
        let secret = CreateSecretRequest {
            company_id: company.clone(),
            credential_id: "hr".to_owned(),
            ..Default::default()
        };
        let secret = client.directory.clone().create_secret(secret).await.expect("made");
        let secret = secret.into_inner().secret;
        // From the first key on nobody is let in without.
        let key = match door {
            Key => Some(expiring_key(&client, end).await),
            _ => None,
        };
        let client = Client::connect_as(&server.url(), key.as_deref()).await;
        let check = scopes_of(&company, "hr", &["users:read"]);
        assert!(client.ask(check.clone()).await.is_ok());
        machine.set("+70y");
        match door {
            Check => {
                let answer = client.ask(check).await.expect("an answer");
                assert_eq!(answer.reason(), Reason::CredentialExpired);
            }
            Token => {
                let token = scopegate::proto::Token {
                    scopes: owned(&["users:read"]),
                    expires_at: Some(end.into()),
                    ..Default::default()
                };
                let check = CheckRequest { token: Some(token), ..check };
                let answer = client.ask(check).await.expect("an answer");
                assert_eq!(answer.reason(), Reason::TokenExpired);
            }
            Batch => {
                let other = scopes_of("nobody", "hr", &["users:read"]);
                let batch = BatchCheckRequest { checks: vec![other, check] };
                let answer = client.authorization.clone().batch_check(batch).await;
                let results = answer.expect("an answer").into_inner().results;
                assert_eq!(results[1].reason(), Reason::CredentialExpired);
            }
            Explain => {
                let request = ExplainCheckRequest { check: Some(check) };
                client.authorization.clone().explain_check(request).await.expect("an answer");
            }
            Effective => {
                let request = ListEffectiveScopesRequest {
                    company_id: company.clone(),
                    credential_id: "hr".to_owned(),
                    ..Default::default()
                };
                let list = client.authorization.clone().list_effective_scopes(request).await;
                assert!(list.expect("an answer").into_inner().scopes.is_empty());
            }
            Verify => {
                let request = VerifySecretRequest {
                    company_id: company.clone(),
                    secret,
                    ..Default::default()
                };
                let answer = client.directory.clone().verify_secret(request).await;
                assert!(!answer.expect("an answer").into_inner().verified);
            }
            Read => {
                client.credential(&company, "hr").await.expect("there");
            }
            List => {
                let request =
                    ListCredentialsRequest { company_id: company.clone(), ..Default::default() };
                client.directory.clone().list_credentials(request).await.expect("listed");
            }
            DryRun | Unchanged => {
                let is_dry = matches!(door, DryRun);
                let label = if is_dry { "new" } else { "hr" };
                let request = UpdateCredentialRequest {
                    company_id: company.clone(),
                    credential_id: "hr".to_owned(),
                    label: label.to_owned(),
                    update_mask: Some(prost_types::FieldMask { paths: owned(&["label"]) }),
                    validate_only: is_dry,
                    ..Default::default()
                };
                let told = client.directory.clone().update_credential(request).await;
                assert!(told.expect("an answer").into_inner().credential.is_some());
            }
            Key => {
                until("the key is over", async || {
                    let (code, details) = refused(client.ask(check.clone()).await);
                    assert_ne!(code, Code::Ok);
                    let info = details.error_info().expect("an ErrorInfo");
                    info.reason == "KEY_EXPIRED"
                })
                .await;
            }
        }
        server.kill();
        let store = Store::open(&machine.store()).expect("opened");
        let mark = SystemTime::from(store.time_mark().expect("a mark"));
        assert!(mark >= end, "{door:?}: {mark:?} is before {end:?}");
        assert!(
            mark <= end + Duration::from_secs(1),
            "{door:?}: no further than {end:?}: {mark:?}"
        );
    }
}

/// A key that may do everything until then, beside one that may for ever.
async fn expiring_key(client: &Client, end: SystemTime) -> String {
    let request = |name: &str, expires_at: Option<SystemTime>| CreateKeyRequest {
        name: name.to_owned(),
        roles: vec![Role::Operator.into()],
        expires_at: expires_at.map(Into::into),
        ..Default::default()
    };
    let root = client.keys.clone().create_key(request("root", None)).await.expect("made");
    let root = root.into_inner().secret;
    let mut keys = client.keys.clone();
    let mut request = tonic::Request::new(request("ending", Some(end)));
    let header = format!("Bearer {root}").parse().expect("a header");
    request.metadata_mut().insert("authorization", header);
    keys.create_key(request).await.expect("made").into_inner().secret
}

/// Listens to nothing.
struct Nobody;

impl CommitObserver for Nobody {
    fn before_apply(&self, _: Revision, _: &[scopegate::store::FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}

fn hour(hour: i64) -> Timestamp {
    Timestamp::from_second(hour * 3_600).expect("a time")
}

fn proposal(time: Timestamp, idempotency: Option<IdempotencyRecord>) -> Proposal {
    let change = Change {
        revision: Revision::NEXT,
        time,
        author: Author::default(),
        kind: ChangeKind::UpdateCompany,
        company: None,
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    };
    Proposal { preconditions: vec![], caller: None, writes: vec![], change, idempotency }
}

fn commit(store: &Store, proposal: Proposal) -> Timestamp {
    let ticket = store.commit(proposal).expect("queued");
    ticket.blocking_recv().expect("answered").expect("committed").time
}

fn open(dir: &Path) -> Store {
    Store::open(dir).expect("opened").keeping_changes_for(SignedDuration::from_hours(24))
}

#[test]
fn an_accepted_clock_outlives_a_crash_before_the_witness_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    store.start(Arc::new(Nobody));
    commit(&store, proposal(hour(1_000), None));
    store.close();
    drop(store);
    let witness = dir.path().join("witness");
    let before = std::fs::read(&witness).expect("a witness");
    let mut store = open(dir.path());
    assert_eq!(store.time_mark(), Some(hour(1_000)));
    let author = || Author { actor: "test".to_owned(), ..Author::default() };
    let none =
        store.accept_clock(hour(1_000), author(), &Default::default()).expect("the disk is well");
    assert_eq!((none, store.opened_at()), (None, Revision(1)), "it is not ahead");
    let accepted =
        store.accept_clock(hour(10), author(), &Default::default()).expect("the disk is well");
    assert_eq!(accepted, Some(hour(1_000)));
    assert_eq!((store.time_mark(), store.durable_time()), (Some(hour(10)), hour(10)));
    assert_eq!(store.opened_at(), Revision(2));
    drop(store);
    std::fs::write(&witness, before).expect("written");
    let store = Arc::new(open(dir.path()));
    assert_eq!(store.time_mark(), Some(hour(10)));
    store.start(Arc::new(Nobody));
    assert_eq!(commit(&store, proposal(hour(9), None)), hour(10), "never backwards from there");
}

#[test]
fn entries_of_a_rejected_clock_are_not_kept_longer() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    store.start(Arc::new(Nobody));
    let key = RequestKey([7; 32]);
    let idempotency = IdempotencyRecord { key, body: [1; 32], result: WriteResult::default() };
    commit(&store, proposal(hour(1_000), Some(idempotency)));
    store.close();
    drop(store);
    let mut store = open(dir.path());
    store
        .accept_clock(hour(10), Author::default(), &Default::default())
        .expect("the disk is well")
        .expect("back");
    let store = Arc::new(store);
    store.start(Arc::new(Nobody));
    commit(&store, proposal(hour(10), None));
    let result = Some(WriteResult::default());
    let told = StoredResult { body: [1; 32], revision: Revision(1), result };
    assert_eq!(store.answered(&key).expect("readable"), Some(told), "a day is not over");
    store.mark_time(hour(36), hour(36));
    let gone = || {
        let changes = store.changes(None, Revision(2), Revision(3), 10);
        store.answered(&key).expect("readable").is_none()
            && store.changes(None, Revision(0), Revision(3), 10).is_err()
            && changes.is_ok_and(|changes| changes.len() == 1)
    };
    for _ in 0..1_000 {
        if gone() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it is still there");
}

/// Commits a change that remembers its request.
fn commit_request(store: &Store, at: Timestamp, request: u8) {
    let key = RequestKey([request; 32]);
    let idempotency = IdempotencyRecord { key, body: [1; 32], result: WriteResult::default() };
    commit(store, proposal(at, Some(idempotency)));
}

/// Waits until a request is no longer remembered.
fn wait_until_forgotten(store: &Store, request: u8) {
    for _ in 0..1_000 {
        if store.answered(&RequestKey([request; 32])).expect("readable").is_none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("request {request} is still remembered");
}

#[test]
fn reported_expiry_does_not_shorten_retention() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    store.start(Arc::new(Nobody));
    commit_request(&store, hour(1_000), 1);
    commit_request(&store, hour(1_010), 2);
    // An end that is told while the clock is doubted, and what is believed meanwhile.
    let told = store.persist_time(hour(9_000)).expect("queued");
    told.blocking_recv().expect("kept");
    store.mark_time(hour(9_000), hour(1_025));
    wait_until_forgotten(&store, 1);
    assert!(
        store.answered(&RequestKey([2; 32])).expect("readable").is_some(),
        "its day is not over"
    );
    let kept = store.changes(None, Revision(1), Revision(2), 10).expect("kept");
    assert_eq!(kept.len(), 1, "its retention is not over");
    store.mark_time(hour(9_000), hour(1_035));
    wait_until_forgotten(&store, 2);
}

#[test]
fn a_request_of_after_an_accepted_clock_is_remembered_for_its_day() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    store.start(Arc::new(Nobody));
    commit_request(&store, hour(1_000), 1);
    store.close();
    drop(store);
    let mut store = open(dir.path());
    store
        .accept_clock(hour(10), Author::default(), &Default::default())
        .expect("the disk is well")
        .expect("back");
    let store = Arc::new(store);
    store.start(Arc::new(Nobody));
    // The store's time is ahead of the machine's, by an end that was told.
    commit_request(&store, hour(60), 2);
    store.mark_time(hour(60), hour(36));
    wait_until_forgotten(&store, 1);
    assert!(
        store.answered(&RequestKey([2; 32])).expect("readable").is_some(),
        "its day is not over"
    );
}
