//! Nothing acknowledged is lost: real processes, killed in the middle of their work.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::harness;
use crate::harness::fake_clock::FakeClock;
use crate::harness::{Client, Server};
use scopegate::proto::*;

const WRITERS: usize = 64;

/// How often to kill.
fn kills() -> usize {
    std::env::var("SCOPEGATE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

/// A random number below this one.
fn roll(below: u64) -> u64 {
    RandomState::new().hash_one(below) % below
}

/// What was told to somebody, and so must be there for ever.
#[derive(Default)]
struct SharedProgress {
    /// Credentials created, by id, with the revision acknowledged.
    created: BTreeMap<String, u64>,
    /// Credentials that a check said exist, acknowledged or not.
    seen: Vec<String>,
    /// The highest revision that any answer carried.
    revision: u64,
}

async fn write(client: Client, told: Arc<Mutex<SharedProgress>>, name: String) {
    for n in 0.. {
        let id = format!("{name}-{n}");
        let request = CreateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: id.clone(),
            scopes: vec!["users:read".to_owned()],
            ..CreateCredentialRequest::default()
        };
        let Ok(done) = client.directory.clone().create_credential(request).await else { return };
        let revision = done.into_inner().revision;
        let mut told = told.lock().expect("whole");
        told.created.insert(id, revision);
        told.revision = told.revision.max(revision);
    }
}

/// Asks for what the writers are just making: an allow must not rest on what a crash erases.
async fn ask(client: Client, told: Arc<Mutex<SharedProgress>>, round: usize) {
    for n in 0.. {
        for writer in 0..WRITERS {
            let id = format!("r{round}w{writer}-{n}");
            let mut tries = 0;
            loop {
                let request = harness::scopes_of("acme", &id, &["users:read"]);
                let Ok(answer) = client.ask(request).await else { return };
                let mut told = told.lock().expect("whole");
                told.revision = told.revision.max(answer.revision);
                if answer.decision() == Decision::Allowed {
                    told.seen.push(id);
                    break;
                }
                tries += 1;
                if tries == 50 {
                    break;
                }
            }
        }
    }
}

async fn verify(client: &Client, told: &SharedProgress) {
    let mut found = BTreeMap::new();
    let mut request = ListCredentialsRequest {
        company_id: "acme".to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    loop {
        let page = client.directory.clone().list_credentials(request.clone()).await;
        let page = page.expect("listed").into_inner();
        assert!(page.revision >= told.revision, "revisions never go back");
        found.extend(page.credentials.into_iter().map(|c| (c.credential_id, c.revision)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    for (id, revision) in &told.created {
        assert_eq!(found.get(id), Some(revision), "{id} was acknowledged at {revision}");
    }
    for id in &told.seen {
        assert!(found.contains_key(id), "{id} was seen by a check");
    }
    // The log has every revision once, without a gap.
    let mut request = ListChangesRequest { page_size: 1000, ..Default::default() };
    let mut next = 1;
    loop {
        let page = client.changes.clone().list_changes(request.clone()).await.expect("listed");
        let page = page.into_inner();
        for change in page.changes {
            assert_eq!(change.revision, next);
            next += 1;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(next > told.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_change_survives_kill_9_under_64_writers() {
    let dir = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new(SharedProgress::default()));
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    server.client().await.create_company("acme", None).await;
    server.kill();
    for round in 0..kills() {
        let server = Server::start(dir.path(), &[]);
        let client = server.client().await;
        let before = std::mem::take(&mut *told.lock().expect("whole"));
        if round % 5 == 0 {
            verify(&client, &before).await;
        }
        *told.lock().expect("whole") = before;
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            let name = format!("r{round}w{writer}");
            tasks.push(tokio::spawn(write(client.clone(), Arc::clone(&told), name)));
        }
        tasks.push(tokio::spawn(ask(client.clone(), Arc::clone(&told), round)));
        // Not a timing assertion: any moment will do.
        tokio::time::sleep(Duration::from_micros(20_000 + roll(300_000))).await;
        server.kill();
        for task in tasks {
            task.await.expect("ended with the connection");
        }
    }
    let server = Server::start(dir.path(), &[]);
    let told = std::mem::take(&mut *told.lock().expect("whole"));
    assert!(told.created.len() > 10 * kills(), "only {} changes", told.created.len());
    assert!(!told.seen.is_empty());
    verify(&server.client().await, &told).await;
}

/// Killed as soon as a change is acknowledged, and again while the store is being opened, at any
/// moment and as often as it comes: the change stands, and is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_repeatedly_interrupted_recovery() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let (mut expected, mut revision) = (Reason::Allowed, 0);
    for round in 0..kills() {
        let client = server.client().await;
        assert_eq!(client.reason("acme", "hr", &["users:read"]).await, expected, "round {round}");
        let (company_id, credential_id) = ("acme".to_owned(), "hr".to_owned());
        let scopes = vec!["users:read".to_owned()];
        let mut directory = client.directory.clone();
        let mut authorization = client.authorization.clone();
        let told = match round % 6 {
            0 => {
                let request = RestrictCompanyScopesRequest {
                    company_id,
                    scopes,
                    acknowledge_impact: true,
                    ..Default::default()
                };
                expected = Reason::ScopeNotInCompany;
                let done = authorization.restrict_company_scopes(request).await;
                done.expect("restricted").into_inner().revision
            }
            1 => {
                let request = AddCompanyScopesRequest { company_id, scopes, ..Default::default() };
                expected = Reason::GrantDormant;
                let done = authorization.add_company_scopes(request).await;
                done.expect("added").into_inner().revision
            }
            2 | 5 => {
                let request =
                    GrantScopesRequest { company_id, credential_id, scopes, ..Default::default() };
                expected = Reason::Allowed;
                let done = authorization.grant_scopes(request).await;
                done.expect("granted").into_inner().revision
            }
            3 => {
                let request =
                    DeleteCredentialRequest { company_id, credential_id, ..Default::default() };
                expected = Reason::CredentialUnknown;
                directory.delete_credential(request).await.expect("deleted").into_inner().revision
            }
            _ => {
                let request =
                    CreateCredentialRequest { company_id, credential_id, ..Default::default() };
                expected = Reason::ScopeNotGranted;
                directory.create_credential(request).await.expect("created").into_inner().revision
            }
        };
        server.kill();
        assert!(told > revision, "round {round}: {told} after {revision}");
        revision = told;
        for _ in 0..roll(3) {
            let mut opening = harness::scopegate()
                .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
                .arg(dir.path())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("started");
            tokio::time::sleep(Duration::from_micros(roll(60_000))).await;
            opening.kill().expect("killed");
            opening.wait().expect("gone");
        }
        server = Server::start(dir.path(), &[]);
    }
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, expected);
}

#[tokio::test]
async fn expired_grants_stay_expired_when_the_process_dies_and_the_clock_steps_back() {
    // faketime is not at hand everywhere: the store's own mark is read instead of the clock.
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &[]).await;
    let soon = std::time::SystemTime::now() + Duration::from_millis(50);
    let request = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: vec!["users:read".to_owned()],
        expires_at: Some(soon.into()),
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(request).await.expect("granted");
    while client.reason("acme", "hr", &["users:read"]).await != Reason::GrantExpired {}
    server.kill();
    let store = scopegate::store::Store::open(dir.path()).expect("opened");
    let mark = scopegate::store::Store::time_mark(&store).expect("a mark");
    let soon = jiff::Timestamp::try_from(soon).expect("a time");
    assert!(mark >= soon, "whatever the clock says next, the time starts behind the expiry");
}

#[tokio::test]
async fn expired_grants_stay_expired_when_the_clock_of_a_running_process_steps_back() {
    let Some(clock) = FakeClock::new() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let start = || {
        let catalog = harness::catalog("360learning.yaml");
        let args = ["--catalog", catalog.to_str().expect("a path")];
        Server::start_by(clock.command(), &dir.path().join("store"), &args)
    };
    let server = start();
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &[]).await;
    let request = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: vec!["users:read".to_owned()],
        expires_at: Some((std::time::SystemTime::now() + Duration::from_secs(3_600)).into()),
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(request).await.expect("granted");
    let reason = async |client: &Client| client.reason("acme", "hr", &["users:read"]).await;
    assert_eq!(reason(&client).await, Reason::Allowed);
    clock.set("+2h");
    assert_eq!(reason(&client).await, Reason::GrantExpired, "the clock is the one that we set");
    clock.set("-1h");
    for _ in 0..100 {
        assert_eq!(reason(&client).await, Reason::GrantExpired);
    }
    // Neither for a change, nor for the next process. The jump was of more than an hour, so what it
    // leaves is the end that was told, and no more (`clock.rs`).
    let made = client.create_credential("acme", "later", &[]).await;
    let soon = std::time::SystemTime::now() + Duration::from_secs(3_500);
    let made: std::time::SystemTime = made.create_time.expect("a time").try_into().expect("a time");
    assert!(made > soon, "no change is earlier than an end that was told before");
    assert_eq!(reason(&client).await, Reason::GrantExpired);
    server.kill();
    let server = start();
    assert_eq!(reason(&server.client().await).await, Reason::GrantExpired);
}

/// The server issues tokens for this catalog.
const TOKEN_CATALOG: &str = "audiences: { public: }\nscopes: { read: }\n";

/// What a client was told of tokens.
#[derive(Default)]
struct TokenProgress {
    /// Tokens that were ended, with what ended them.
    ended: Vec<(&'static str, String)>,
    /// Tokens that nothing ended but the deletion of their keys.
    kept: Vec<String>,
    /// Keys whose deletion was begun.
    deleted_keys: BTreeSet<String>,
}

/// A server of access tokens that is killed at any moment, and the clients that end tokens there.
#[derive(Clone)]
struct TokenClients {
    client: Client,
    /// The address for API clients.
    oauth: String,
    round: usize,
    told: Arc<Mutex<TokenProgress>>,
}

impl TokenClients {
    /// A new company with a credential `app`, and its secret.
    async fn company(&self, id: &str) -> Option<CreateSecretResponse> {
        let mut directory = self.client.directory.clone();
        let company_id = || id.to_owned();
        let new = CreateCompanyRequest { company_id: company_id(), ..Default::default() };
        directory.create_company(new).await.ok()?;
        let new = CreateCredentialRequest {
            company_id: company_id(),
            credential_id: "app".to_owned(),
            scopes: harness::owned(&["read"]),
            ..Default::default()
        };
        directory.create_credential(new).await.ok()?;
        self.secret(id).await
    }

    async fn secret(&self, company: &str) -> Option<CreateSecretResponse> {
        let new = CreateSecretRequest {
            company_id: company.to_owned(),
            credential_id: "app".to_owned(),
            ..Default::default()
        };
        Some(self.client.directory.clone().create_secret(new).await.ok()?.into_inner())
    }

    /// The body of a response with status 200.
    async fn post(&self, path: &'static str, secret: &str, form: String) -> Option<String> {
        let (oauth, basic) = (self.oauth.clone(), harness::http::basic("app", secret));
        let send = move || harness::http::try_post(&oauth, path, &basic, &form);
        let reply = tokio::task::spawn_blocking(send).await.expect("no panic").ok()?;
        (reply.status == 200).then_some(reply.body)
    }

    async fn token(&self, secret: &str) -> Option<String> {
        let form = "grant_type=client_credentials".to_owned();
        let body = self.post("/oauth2/token", secret, form).await?;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        Some(body["access_token"].as_str().expect("a token").to_owned())
    }

    fn ended(&self, how: &'static str, token: String) {
        self.told.lock().expect("whole").ended.push((how, token));
    }

    /// A client revokes one token and keeps another.
    async fn revoke(self) -> Option<()> {
        let secret = self.company(&format!("revoke{}", self.round)).await?.secret;
        loop {
            let (token, kept) = (self.token(&secret).await?, self.token(&secret).await?);
            self.post("/oauth2/revoke", &secret, format!("token={token}")).await?;
            self.ended("RevokeToken", token);
            self.told.lock().expect("whole").kept.push(kept);
        }
    }

    async fn revoke_all(self) -> Option<()> {
        let company_id = format!("all{}", self.round);
        let secret = self.company(&company_id).await?.secret;
        loop {
            let token = self.token(&secret).await?;
            let request = RevokeTokensRequest {
                company_id: company_id.clone(),
                credential_id: "app".to_owned(),
                ..Default::default()
            };
            self.client.directory.clone().revoke_tokens(request).await.ok()?;
            self.ended("RevokeTokens", token);
        }
    }

    async fn delete_secrets(self) -> Option<()> {
        let company_id = format!("secret{}", self.round);
        let mut made = self.company(&company_id).await?;
        loop {
            let token = self.token(&made.secret).await?;
            let request = DeleteSecretRequest {
                company_id: company_id.clone(),
                credential_id: "app".to_owned(),
                secret_id: made.secret_id,
                ..Default::default()
            };
            self.client.directory.clone().delete_secret(request).await.ok()?;
            self.ended("DeleteSecret", token);
            made = self.secret(&company_id).await?;
        }
    }

    async fn create_anew(self) -> Option<()> {
        let company_id = format!("anew{}", self.round);
        loop {
            let secret = self.company(&company_id).await?.secret;
            let token = self.token(&secret).await?;
            let delete =
                DeleteCompanyRequest { company_id: company_id.clone(), ..Default::default() };
            self.client.directory.clone().delete_company(delete).await.ok()?;
            self.ended("DeleteCompany", token);
        }
    }

    /// Replaces the signing key, and deletes the one before or the current one.
    async fn delete_keys(self) -> Option<()> {
        let secret = self.company(&format!("key{}", self.round)).await?.secret;
        let mut keys = self.client.keys.clone();
        // The tokens of the last key are kept.
        for n in 0..4 {
            let token = self.token(&secret).await?;
            if n % 2 == 0 {
                keys.rotate_signing_key(RotateSigningKeyRequest::default()).await.ok()?;
            }
            let key_id = key_of(&token);
            self.told.lock().expect("whole").deleted_keys.insert(key_id.clone());
            let delete = DeleteSigningKeyRequest { key_id, ..Default::default() };
            keys.delete_signing_key(delete).await.ok()?;
            self.ended("DeleteSigningKey", token);
        }
        Some(())
    }

    /// Panics unless everything that was told is so, and the server issues tokens.
    async fn verify(&self, signing_keys: &Path) {
        let told = std::mem::take(&mut *self.told.lock().expect("whole"));
        let reason = async |token: &str| {
            let token = Some(token.to_owned());
            let scopes = harness::owned(&["read"]);
            let request = CheckRequest { bearer_token: token, scopes, ..Default::default() };
            self.client.ask(request).await.expect("an answer").reason()
        };
        for (how, token) in &told.ended {
            use Reason::{CompanyUnknown, CredentialUnknown, TokenInvalid};
            let reason = reason(token).await;
            // A company may be gone, or be there without its credential.
            let is_over = matches!(reason, TokenInvalid | CompanyUnknown | CredentialUnknown);
            assert!(is_over, "{how}: {reason:?}");
        }
        for token in &told.kept {
            if !told.deleted_keys.contains(&key_of(token)) {
                assert_eq!(reason(token).await, Reason::Allowed);
            }
        }
        let mut keys = self.client.keys.clone();
        let listed = keys.list_signing_keys(ListSigningKeysRequest {}).await.expect("listed");
        let listed = listed.into_inner().signing_keys;
        let mut current = listed.iter().filter(|key| key.state() == SigningKeyState::Current);
        let (key, None) = (current.next().expect("a current key"), current.next()) else {
            panic!("two current keys")
        };
        assert!(signing_keys.join(format!("{}.pem", key.key_id)).exists(), "the file is first");
        // A kill between two changes leaves a previous key.
        for key in listed.iter().filter(|key| key.state() == SigningKeyState::Previous) {
            let key_id = key.key_id.clone();
            self.told.lock().expect("whole").deleted_keys.insert(key_id.clone());
            let delete = DeleteSigningKeyRequest { key_id, ..Default::default() };
            keys.delete_signing_key(delete).await.expect("deleted");
        }
        let secret = self.company(&format!("verify{}", self.round)).await.expect("made").secret;
        let token = self.token(&secret).await.expect("issued");
        assert_eq!(reason(&token).await, Reason::Allowed);
        let mut now = self.told.lock().expect("whole");
        let deleted_keys =
            told.deleted_keys.into_iter().chain(std::mem::take(&mut now.deleted_keys));
        *now = TokenProgress { deleted_keys: deleted_keys.collect(), ..told };
    }
}

/// The key that signed a token.
fn key_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header"));
    let header = serde_json::from_slice::<serde_json::Value>(&header.expect("base64"));
    header.expect("JSON")["kid"].as_str().expect("a key").to_owned()
}

/// T27, T28: what ended a token ends it also after a kill at any moment, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t27_acknowledged_ends_of_tokens_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, catalog) = (dir.path().join("data"), dir.path().join("catalog.yaml"));
    std::fs::write(&catalog, TOKEN_CATALOG).expect("written");
    let catalog = catalog.to_str().expect("a path");
    let args = ["--catalog", catalog, "--oauth", "127.0.0.1:0", "--issuer", "https://id.example"];
    let told = Arc::new(Mutex::new(TokenProgress::default()));
    let rounds = kills() / 3;
    for round in 0..=rounds {
        let server = Server::start(&data, &args);
        let (client, told) = (server.client().await, Arc::clone(&told));
        let clients = TokenClients { client, oauth: server.oauth.clone(), round, told };
        clients.verify(&data.join("signing-keys")).await;
        if round == rounds {
            break;
        }
        let tasks = [
            tokio::spawn(clients.clone().revoke()),
            tokio::spawn(clients.clone().revoke_all()),
            tokio::spawn(clients.clone().delete_secrets()),
            tokio::spawn(clients.clone().create_anew()),
            tokio::spawn(clients.delete_keys()),
        ];
        // Not a timing assertion: any moment will do.
        tokio::time::sleep(Duration::from_micros(50_000 + roll(300_000))).await;
        server.kill();
        for task in tasks {
            task.await.expect("ended with the connection");
        }
    }
    let told = told.lock().expect("whole");
    let kinds: BTreeSet<_> = told.ended.iter().map(|(how, _)| how).collect();
    assert_eq!((kinds.len(), told.kept.is_empty()), (5, false), "each change was made: {kinds:?}");
}
