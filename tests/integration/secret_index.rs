//! A secret verified by itself (D11): the index that finds its company and credential, what the
//! index has of a store that an older version wrote, and that nothing ended is found by it.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Client, Server, bootstrap, owned, scopegate};
use scopegate::authority::secrets::{SecretOf, Verification};
use scopegate::authority::{
    Authority, CompanyChange, CredentialChange, NewCompany, NewCredential, WriteOptions,
};
use scopegate::policy::id::{CompanyId, CredentialId, Name};
use scopegate::policy::secret::SecretText;
use scopegate::proto::*;
use scopegate::store::{FactKey, OpenError, Store};
use tempfile::TempDir;
use tonic::Code;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// What an answer says of whose the secret is, and whether it is good.
type Told = (bool, String, String, Reason);

async fn verify(client: &Client, company: &str, credential: &str, secret: &str) -> Told {
    let request = VerifySecretRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        secret: secret.to_owned(),
    };
    let answer = client.directory.clone().verify_secret(request).await.expect("an answer");
    let answer = answer.into_inner();
    let reason = answer.reason();
    // All of the ids are there, or none.
    assert_eq!(answer.company_id.is_empty(), answer.credential_id.is_empty());
    assert_eq!(answer.company_id.is_empty(), answer.secret_id.is_empty());
    (answer.verified, answer.company_id, answer.credential_id, reason)
}

async fn alone(client: &Client, secret: &str) -> Told {
    verify(client, "", "", secret).await
}

fn good(company: &str, credential: &str) -> Told {
    (true, company.to_owned(), credential.to_owned(), Reason::Allowed)
}

fn bad(company: &str, credential: &str, reason: Reason) -> Told {
    (false, company.to_owned(), credential.to_owned(), reason)
}

fn wrong() -> Told {
    bad("", "", Reason::CredentialUnknown)
}

async fn make(client: &Client, company: &str, credential: &str) -> CreateSecretResponse {
    let request = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_secret(request).await.expect("made").into_inner()
}

/// The secret with another last character.
fn forged(secret: &str) -> String {
    let mut forged = secret.to_owned();
    let last = forged.pop();
    forged.push(if last == Some('0') { '1' } else { '0' });
    forged
}

async fn delete_company(client: &Client, company: &str) {
    let request = DeleteCompanyRequest { company_id: company.to_owned(), ..Default::default() };
    client.directory.clone().delete_company(request).await.expect("deleted");
}

#[tokio::test]
async fn a_secret_alone_finds_its_company_and_its_credential() {
    let dir = dir();
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = &server.client().await;
    for company in ["acme", "other"] {
        client.create_company(company, None).await;
        client.create_credential(company, "hr", &["users:read"]).await;
    }
    client.create_credential("acme", "bi", &[]).await;
    let of = async |company: &str, credential: &str| make(client, company, credential).await;
    let (acme, other) = (of("acme", "hr").await, of("other", "hr").await);
    assert_eq!(alone(client, &acme.secret).await, good("acme", "hr"));
    assert_eq!(alone(client, &other.secret).await, good("other", "hr"));
    // Each of the two can be named by itself, and then it has to be the right one.
    assert_eq!(verify(client, "", "hr", &acme.secret).await, good("acme", "hr"));
    assert_eq!(verify(client, "acme", "", &acme.secret).await, good("acme", "hr"));
    assert_eq!(verify(client, "acme", "hr", &acme.secret).await, good("acme", "hr"));
    assert_eq!(verify(client, "", "bi", &acme.secret).await, wrong());
    assert_eq!(verify(client, "other", "", &acme.secret).await, wrong());
    let unknown = format!("sgs_{}_{}", "0".repeat(24), "0".repeat(64));
    let key = acme.secret.replacen("sgs_", "sgk_", 1);
    let halves = format!("{}_{}", &acme.secret[..28], &other.secret[29..]);
    for secret in [&forged(&acme.secret), &unknown, &key, &halves, &acme.secret_id, "", "sgs_"] {
        assert_eq!(alone(client, secret).await, wrong(), "{secret}");
    }
    let malformed = VerifySecretRequest { company_id: "a b".to_owned(), ..Default::default() };
    let refused = client.directory.clone().verify_secret(malformed).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);

    // A specific reason for a right secret only.
    let enable = async |enabled: bool| {
        let request = UpdateCompanyRequest {
            company_id: "acme".to_owned(),
            enabled,
            update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
            ..Default::default()
        };
        client.directory.clone().update_company(request).await.expect("updated");
    };
    enable(false).await;
    let disabled = bad("acme", "hr", Reason::CompanyDisabled);
    assert_eq!(alone(client, &acme.secret).await, disabled);
    assert_eq!(alone(client, &forged(&acme.secret)).await, wrong());
    enable(true).await;

    // It ends with itself, with its credential, and with its company; what is made again under
    // the same id has none of the earlier secrets.
    let second = of("acme", "hr").await;
    let delete = DeleteSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        secret_id: acme.secret_id.clone(),
        ..Default::default()
    };
    client.directory.clone().delete_secret(delete).await.expect("deleted");
    assert_eq!(alone(client, &acme.secret).await, wrong());
    assert_eq!(alone(client, &second.secret).await, good("acme", "hr"));
    let delete = DeleteCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_credential(delete).await.expect("deleted");
    assert_eq!(alone(client, &second.secret).await, wrong());
    client.create_credential("acme", "hr", &["users:read"]).await;
    assert_eq!(alone(client, &second.secret).await, wrong());
    let third = of("acme", "hr").await;
    assert_eq!(alone(client, &third.secret).await, good("acme", "hr"));
    delete_company(client, "other").await;
    assert_eq!(alone(client, &other.secret).await, wrong());
    client.create_company("other", None).await;
    client.create_credential("other", "hr", &["users:read"]).await;
    assert_eq!(alone(client, &other.secret).await, wrong());

    // The command line needs no more than the secret either.
    for (secret, code, line) in [(&third.secret, 0, "company     acme"), (&second.secret, 2, "no")]
    {
        let mut command = scopegate();
        command.args(["credential", "secret", "verify", "--endpoint", &server.url()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut input = child.stdin.take().expect("an input");
        writeln!(input, "{secret}").expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(line), "{text}");
    }

    // It is in a backup, and in what is made of it.
    let (file, new) = (dir.path().join("backup"), dir.path().join("new"));
    let mut command = scopegate();
    let command = command.args(["backup", "--endpoint", &server.url(), "--output"]).arg(&file);
    assert!(command.status().expect("it runs").success());
    restore(&file, &new);
    let server = Server::start(&new, &[]);
    let client = &server.client().await;
    assert_eq!(alone(client, &third.secret).await, good("acme", "hr"));
    assert_eq!(alone(client, &second.secret).await, wrong());
    assert_eq!(server.logged("the store was upgraded"), 0);
}

#[tokio::test]
async fn a_caller_bound_to_companies_learns_nothing_of_other_companies_secrets() {
    let dir = dir();
    let key = bootstrap(dir.path());
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    for company in ["acme", "other"] {
        operator.create_company(company, None).await;
        operator.create_credential(company, "hr", &["users:read"]).await;
    }
    let acme = make(&operator, "acme", "hr").await.secret;
    let other = make(&operator, "other", "hr").await.secret;
    let disable = UpdateCredentialRequest {
        company_id: "other".to_owned(),
        credential_id: "hr".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["acme"]),
        ..Default::default()
    };
    let made = operator.keys.clone().create_key(new).await.expect("made").into_inner();
    let bound = Client::connect_as(&server.url(), Some(&made.secret)).await;
    assert_eq!(alone(&operator, &other).await, good("other", "hr"));
    assert_eq!(alone(&bound, &acme).await, good("acme", "hr"));
    assert_eq!(alone(&bound, &other).await, wrong());
    assert_eq!(alone(&bound, &forged(&other)).await, wrong());
    operator.directory.clone().update_credential(disable).await.expect("disabled");
    assert_eq!(alone(&bound, &other).await, wrong(), "nor why it is not good");
    let disabled = bad("other", "hr", Reason::CredentialDisabled);
    assert_eq!(alone(&operator, &other).await, disabled);
    // A company that is named has to be its own, as in every call.
    let named = VerifySecretRequest {
        company_id: "other".to_owned(),
        secret: other.clone(),
        ..Default::default()
    };
    let refused = bound.directory.clone().verify_secret(named).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

fn restore(file: &Path, dir: &Path) {
    let mut command = scopegate();
    command.arg("restore").arg(file).arg("--data-dir").arg(dir);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A store as version 0.1 wrote it: schema 1. Its secrets are listed beside it: how each ended,
/// its company, its credential, and its text.
fn schema_1(dir: &Path) -> (PathBuf, Vec<[String; 4]>) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let store = dir.join("store");
    restore(&tests.join("schema1.store"), &store);
    let secrets = std::fs::read_to_string(tests.join("schema1.secrets")).expect("readable");
    let secrets = secrets.lines().map(|line| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words.try_into().expect("four words")
    });
    (store, secrets.collect())
}

#[tokio::test]
async fn a_store_of_schema_1_gets_the_index_when_it_is_opened() {
    let dir = dir();
    let (store, secrets) = schema_1(dir.path());
    let server = Server::start(&store, &[]);
    assert_eq!(server.logged("the store was upgraded"), 1);
    assert_eq!(server.logged("\"secrets\":4"), 1, "acme's two, one of `gone`, one of `.`");
    let client = &server.client().await;
    for [state, company, credential, secret] in &secrets {
        let is_good = state == "good";
        let expected = if is_good { good(company, credential) } else { wrong() };
        assert_eq!(alone(client, secret).await, expected, "{state} of {company} {credential}");
        assert_eq!(verify(client, company, "", secret).await, expected);
    }
    // What has an id that nothing new gets is still changed and deleted.
    let new = CreateCredentialRequest {
        company_id: ".".to_owned(),
        credential_id: "app".to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_credential(new).await.expect("created");
    let delete = DeleteCredentialRequest {
        company_id: ".".to_owned(),
        credential_id: "..".to_owned(),
        ..Default::default()
    };
    assert_eq!(client.reason(".", "..", &["users:read"]).await, Reason::Allowed);
    client.directory.clone().delete_credential(delete.clone()).await.expect("deleted");
    let again = CreateCredentialRequest {
        company_id: ".".to_owned(),
        credential_id: "..".to_owned(),
        ..Default::default()
    };
    let refused = client.directory.clone().create_credential(again).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("`.` or `..`"), "{}", refused.message());
    delete_company(client, ".").await;
    server.terminate();
    // Once.
    let server = Server::start(&store, &[]);
    assert_eq!(server.logged("the store was upgraded"), 0);
    let [_, company, credential, secret] = &secrets[0];
    assert_eq!(alone(&server.client().await, secret).await, good(company, credential));
}

#[test]
fn a_program_is_told_once_that_it_has_upgraded_a_store() {
    let dir = dir();
    let (store, _) = schema_1(dir.path());
    assert_eq!(Store::open(&store).expect("opened").upgraded_from(), Some(1));
    assert_eq!(Store::open(&store).expect("opened").upgraded_from(), None);
    assert_eq!(Store::open(&dir.path().join("new")).expect("made").upgraded_from(), None);
    let newer = OpenError::Newer { dir: "d".to_owned(), found: 5 }.to_string();
    assert!(newer.contains("schema 5, this program knows 4"), "{newer}");
}

/// The parts of a server without its wire.
struct World {
    authority: Authority,
    store: Arc<Store>,
}

fn acme() -> CompanyId {
    CompanyId::parse("acme").expect("an id")
}

fn hr() -> CredentialId {
    CredentialId::parse("hr").expect("an id")
}

impl World {
    fn new(dir: &Path, cache_entries: u64) -> Self {
        let store = Arc::new(Store::open(dir).expect("opened"));
        let authority = Authority::new(Arc::<Store>::clone(&store), cache_entries);
        Self { authority: authority.expect("readable"), store }
    }

    async fn create(&self) -> (Name, SecretText) {
        let (terms, company) = (WriteOptions::default(), acme());
        let new = NewCompany { id: company.clone(), display_name: String::new(), scopes: None };
        self.authority.internal_session("test").create_company(&new, &terms).await.ok();
        let new = NewCredential {
            company: company.clone(),
            id: hr(),
            label: String::new(),
            scopes: vec![],
            expires_at: None,
            enabled: true,
            redirect_uris: vec![],
            tokens_valid_from: None,
        };
        self.authority.internal_session("test").create_credential(&new, &terms).await.ok();
        let made = self
            .authority
            .internal_session("test")
            .create_secret(&company, &hr(), &terms)
            .await
            .expect("made");
        (made.id.expect("an id"), made.secret.expect("a secret"))
    }

    async fn is_right(&self, secret: &SecretText) -> bool {
        let nobody = SecretOf::default();
        let session = self.authority.internal_session("test");
        let found = session.verify_secret(&nobody, secret);
        !matches!(found.await.expect("an answer"), Verification::Wrong)
    }

    /// Ends the secret, by itself, with its credential or with its company; these are made again.
    async fn end(&self, round: usize, secret: &Name) {
        let (terms, company, hr) = (WriteOptions::default(), acme(), hr());
        let session = self.authority.internal_session("test");
        match round % 3 {
            0 => {
                session
                    .delete_secret(&company, &hr, secret, &terms)
                    .await
                    .map(drop)
                    .expect("ended");
            }
            1 => {
                let delete = CredentialChange::Delete;
                session
                    .change_credential(&company, &hr, &delete, &terms)
                    .await
                    .map(drop)
                    .expect("ended");
            }
            _ => {
                let delete = CompanyChange::Delete;
                session.change_company(&company, &delete, &terms).await.map(drop).expect("ended");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_ended_secret_is_not_verified_after_the_acknowledgement() {
    // Once with everything cached, and once with next to nothing.
    for cache_entries in [1, 10_000] {
        let dir = dir();
        let world = Arc::new(World::new(dir.path(), cache_entries));
        for round in 0..9 {
            let (id, secret) = world.create().await;
            assert!(world.is_right(&secret).await, "from the acknowledgement on");
            let (ended, stop) =
                (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let askers: Vec<_> = (0..4)
                .map(|_| {
                    let (world, secret) = (Arc::clone(&world), secret.clone());
                    let (ended, stop) = (Arc::clone(&ended), Arc::clone(&stop));
                    tokio::spawn(async move {
                        let mut after = 0;
                        while after < 3 || !stop.load(Ordering::SeqCst) {
                            let was_ended = ended.load(Ordering::SeqCst);
                            let is_right = world.is_right(&secret).await;
                            assert!(!(was_ended && is_right), "after the acknowledgement");
                            after += u32::from(was_ended);
                            tokio::task::yield_now().await;
                        }
                    })
                })
                .collect();
            world.end(round, &id).await;
            ended.store(true, Ordering::SeqCst);
            let (_, next) = world.create().await;
            assert!(world.is_right(&next).await, "that of the next life");
            stop.store(true, Ordering::SeqCst);
            for asker in askers {
                asker.await.expect("no panic");
            }
            world.end(2, &id).await;
        }
        world.authority.close();
    }
}

#[tokio::test]
async fn no_entry_of_the_index_outlives_its_secret() {
    let dir = dir();
    let world = World::new(dir.path(), 100);
    let mut ended = Vec::new();
    for round in 0..3 {
        let (id, _) = world.create().await;
        let key = FactKey::SecretOwner(id.clone());
        assert!(world.store.get(&key).expect("readable").is_some());
        world.end(round, &id).await;
        if round < 2 {
            assert!(world.store.get(&key).expect("readable").is_none(), "with the change");
        }
        ended.push(key);
    }
    // Those of a company go with the sweep; a restart does not forget them.
    let World { authority, store } = world;
    authority.close();
    drop((authority, store));
    let world = World::new(dir.path(), 100);
    let (live, _) = world.create().await;
    for key in ended {
        while world.store.get(&key).expect("readable").is_some() {
            tokio::task::yield_now().await;
        }
    }
    assert!(world.store.get(&FactKey::SecretOwner(live)).expect("readable").is_some());
    world.authority.close();
}
