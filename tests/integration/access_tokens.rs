//! Access tokens in checks: the text of a token, verified by the server (T1 to T6, T14 to T22).

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use scopegate::proto::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::jwt::{Signer, key_set};
use crate::harness::{Client, Server, bootstrap, owned};

const ISSUER: &str = "https://id.example.org/";

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    i64::try_from(now.as_secs()).expect("a time")
}

/// A catalog with one issuer, whose entry has these lines, too.
fn catalog(lines: &str) -> String {
    format!(
        "
audiences:
  public: {{ token: optional, aud: [\"https://api.example.org\"] }}
  users: {{ token: required, user: required, max_token_age: 1h }}
scopes: {{ read: , write: }}
roles: {{ member: {{ scopes: {{ read: all }} }} }}
endpoints:
  - {{ method: GET, path: /items, audience: public, scopes: [read] }}
issuers:
  {ISSUER}:
    algorithms: [ES256]
    company: {{ claim: tid }}
    companies: [acme, other]
{lines}
"
    )
}

fn inline(signers: &[&Signer]) -> String {
    format!("    jwks: {}\n", key_set(signers.iter().copied()))
}

/// A server with this catalog and two companies, each with the credential `hr` and the user `ada`.
async fn served(dir: &TempDir, catalog: &str, args: &[&str]) -> (Server, Client) {
    let key = bootstrap(dir.path());
    let file = dir.path().join("catalog.yaml");
    std::fs::write(&file, catalog).expect("written");
    let catalog = ["--catalog", file.to_str().expect("a path")];
    let server = Server::start(dir.path(), &[&catalog[..], args].concat());
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    for company in ["acme", "other"] {
        client.create_company(company, None).await;
        client.create_credential(company, "hr", &["read", "write"]).await;
        client.put_user(company, "ada", &["member"]).await;
    }
    (server, client)
}

async fn apply(client: &Client, yaml: &str) {
    let request = ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() };
    client.catalog.clone().apply_catalog(request).await.expect("applied");
}

/// The claims of a good token.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "https://api.example.org", "sub": "ada", "client_id": "hr",
        "tid": "acme", "scope": "read", "iat": now() - 10, "exp": now() + 600,
    })
}

fn with(changes: Value) -> Value {
    let mut all = claims();
    for (name, value) in changes.as_object().expect("an object") {
        all[name] = value.clone();
        if value.is_null() {
            all.as_object_mut().expect("an object").remove(name);
        }
    }
    all
}

fn check(token: &str) -> CheckRequest {
    CheckRequest {
        scopes: owned(&["read"]),
        audience: "public".to_owned(),
        bearer_token: Some(token.to_owned()),
        ..Default::default()
    }
}

/// The answer of Check, which a batch and Explain must repeat; and of the header.
async fn ask(client: &Client, request: CheckRequest) -> CheckResponse {
    let by_header = CheckRequest {
        bearer_token: None,
        authorization: request.bearer_token.as_ref().map(|token| format!("bearer {token}")),
        ..request.clone()
    };
    let answer = client.ask(request.clone()).await.expect("an answer");
    let batch =
        BatchCheckRequest { checks: vec![request.clone(), by_header.clone(), request.clone()] };
    let batch =
        client.authorization.clone().batch_check(batch).await.expect("an answer").into_inner();
    assert_eq!(batch.results, [(); 3].map(|()| answer.clone()));
    let explain = ExplainCheckRequest { check: Some(by_header) };
    let explained = client.authorization.clone().explain_check(explain).await.expect("an answer");
    let explained = explained.into_inner();
    assert_eq!(explained.decision, Some(answer.clone()));
    let list = ListEffectiveScopesRequest {
        company_id: request.company_id,
        credential_id: request.credential_id,
        audience: request.audience,
        user_id: request.user_id,
        bearer_token: request.bearer_token,
        ..Default::default()
    };
    let list = client.authorization.clone().list_effective_scopes(list).await;
    if answer.reason() == Reason::TokenUnverifiable {
        let status = list.expect_err("the scopes are not known");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
        assert!(status.message().contains("keys of the access token's issuer"), "{status}");
        return answer;
    }
    let list = list.expect("a list");
    let lists_it = list.into_inner().scopes.iter().any(|scope| scope.scope == "read");
    assert_eq!(lists_it, answer.reason() == Reason::Allowed);
    answer
}

async fn reason(client: &Client, token: &str) -> Reason {
    ask(client, check(token)).await.reason()
}

#[tokio::test]
async fn token_decides_for_whom_it_was_issued() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let (_server, client) = served(&dir, &catalog(&inline(&[&signer])), &[]).await;
    let token = signer.token(&claims());
    // Twice: of the cache, too.
    for _ in 0..2 {
        let answer = ask(&client, check(&token)).await;
        assert_eq!(answer.reason(), Reason::Allowed, "{}", answer.message);
        let whom = (&*answer.company_id, &*answer.credential_id, &*answer.user_id);
        assert_eq!(whom, ("acme", "hr", "ada"));
    }
    let ids = |company: &str, credential: &str, user: &str| CheckRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        user_id: user.to_owned(),
        ..check(&token)
    };
    assert_eq!(ask(&client, ids("acme", "hr", "ada")).await.reason(), Reason::Allowed);
    for (company, credential, user) in [
        ("other", "", ""),
        ("other", "hr", ""),
        ("", "bi", ""),
        ("", "", "bob"),
        ("acme", "hr", "bob"),
    ] {
        let answer = ask(&client, ids(company, credential, user)).await;
        assert!(answer.company_id.is_empty(), "{company} {credential} {user}");
        let expected = match (company, credential) {
            ("", "bi") | ("other", _) | ("", "") | ("acme", _) => Reason::TokenInvalid,
            _ => unreachable!(),
        };
        assert_eq!(answer.reason(), expected, "{company} {credential} {user}");
    }
    // A token narrows: `write` is granted, and not in the token; the role does not reach it either.
    let request = CheckRequest { scopes: owned(&["write"]), ..check(&token) };
    assert_eq!(ask_only(&client, request).await, Reason::ScopeNotInToken);
    // The endpoint is first.
    let endpoint = |path: &str| CheckRequest {
        scopes: vec![],
        endpoint: Some(Endpoint { method: "GET".to_owned(), path: path.to_owned() }),
        ..check("a.b.c")
    };
    assert_eq!(ask_only(&client, endpoint("/nowhere")).await, Reason::EndpointUnknown);
    assert_eq!(ask_only(&client, endpoint("/items")).await, Reason::TokenInvalid);
    // What the facts say comes before the token, if the request names them.
    let unknown = CheckRequest {
        company_id: "none".to_owned(),
        credential_id: "hr".to_owned(),
        ..check("a.b.c")
    };
    let answer = ask(&client, unknown).await;
    assert_eq!(answer.reason(), Reason::CompanyUnknown);
    assert_eq!((&*answer.company_id, &*answer.credential_id), ("", ""), "it proved nothing");
    let half = CheckRequest { company_id: "none".to_owned(), ..check("a.b.c") };
    assert_eq!(ask_only(&client, half).await, Reason::TokenInvalid);
}

async fn ask_only(client: &Client, request: CheckRequest) -> Reason {
    client.ask(request).await.expect("an answer").reason()
}

#[tokio::test]
async fn each_claim_is_compared_in_each_decision() {
    use Reason::*;
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let (_server, client) = served(&dir, &catalog(&inline(&[&signer])), &[]).await;
    let other = Signer::other("ES256", "k1");
    for (changes, expected) in [
        (json!({}), Allowed),
        (json!({ "iss": "https://id.example.org" }), TokenInvalid),
        (json!({ "iss": null }), TokenInvalid),
        (json!({ "exp": null }), TokenInvalid),
        (json!({ "exp": format!("{}", now() + 600) }), TokenInvalid),
        (json!({ "exp": now() - 1 }), TokenExpired),
        (json!({ "exp": now() - 1, "aud": "x" }), TokenExpired),
        (json!({ "nbf": now() + 20 }), Allowed),
        (json!({ "nbf": now() + 600 }), TokenInvalid),
        (json!({ "iat": now() + 20 }), Allowed),
        (json!({ "iat": now() + 500 }), TokenInvalid),
        (json!({ "iat": null }), Allowed),
        (json!({ "aud": ["x", "https://api.example.org"] }), Allowed),
        (json!({ "aud": "public" }), TokenAudienceMismatch),
        (json!({ "aud": "x" }), TokenAudienceMismatch),
        (json!({ "aud": [] }), TokenAudienceMismatch),
        (json!({ "aud": "" }), TokenAudienceMismatch),
        (json!({ "aud": null }), TokenAudienceMismatch),
        (json!({ "aud": 7 }), TokenInvalid),
        (json!({ "scope": "write" }), ScopeNotInToken),
        (json!({ "scope": null }), ScopeNotInToken),
        (json!({ "scope": ["read"] }), Allowed),
        (json!({ "scope": 7 }), TokenInvalid),
        (json!({ "scope": null, "scp": ["read"] }), Allowed),
        (json!({ "tid": "third" }), TokenInvalid),
        (json!({ "tid": null }), TokenInvalid),
        (json!({ "client_id": "bi" }), CredentialUnknown),
        (json!({ "client_id": null, "azp": "hr" }), Allowed),
        (json!({ "azp": "bi" }), TokenInvalid),
        (json!({ "sub": "bob" }), UserUnknown),
        (json!({ "sub": "hr" }), Allowed),
        (json!({ "sub": null }), TokenInvalid),
        (json!({ "cnf": { "jkt": "x" } }), TokenInvalid),
    ] {
        let token = signer.token(&with(changes.clone()));
        for _ in 0..2 {
            let answer = ask(&client, check(&token)).await;
            assert_eq!(answer.reason(), expected, "{changes}: {}", answer.message);
            let is_proven = !(8..=11).contains(&(expected as i32)) && expected != TokenUnverifiable;
            assert_eq!(!answer.company_id.is_empty(), is_proven, "{changes}");
        }
        // A signature that is wrong is told, and nothing else of the token.
        let forged = other.token(&with(changes.clone()));
        assert_eq!(reason(&client, &forged).await, TokenInvalid, "{changes}");
    }
    // The client itself, where the company has a user of that id, could be either (T16).
    let token = signer.token(&with(json!({ "sub": "hr" })));
    assert_eq!(reason(&client, &token).await, Allowed);
    client.put_user("acme", "hr", &["member"]).await;
    assert_eq!(reason(&client, &token).await, TokenInvalid);
    // The audience of the call is never the token's.
    let users = CheckRequest { audience: "users".to_owned(), ..check(&signer.token(&claims())) };
    assert_eq!(ask_only(&client, users).await, TokenAudienceMismatch);
    let users = |changes| CheckRequest {
        audience: "users".to_owned(),
        ..check(&signer.token(&with(changes)))
    };
    let named = json!({ "aud": "users" });
    assert_eq!(ask_only(&client, users(named)).await, Allowed, "an audience without `aud`");
    let old = json!({ "aud": "users", "iat": now() - 3700 });
    assert_eq!(ask_only(&client, users(old)).await, TokenExpired);
    let undated = json!({ "aud": "users", "iat": null });
    assert_eq!(ask_only(&client, users(undated)).await, TokenExpired);
}

#[tokio::test]
async fn changes_act_at_once_on_a_token_in_the_cache() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let next = Signer::other("ES256", "k2");
    let (_server, client) = served(&dir, &catalog(&inline(&[&signer])), &[]).await;
    let token = signer.token(&claims());
    assert_eq!(reason(&client, &token).await, Reason::Allowed);
    // The facts behind it.
    client.put_user("acme", "ada", &[]).await;
    assert_eq!(reason(&client, &token).await, Reason::UserLacksPermission);
    client.put_user("acme", "ada", &["member"]).await;
    client.restrict("acme", &["read"]).await;
    assert_eq!(reason(&client, &token).await, Reason::ScopeNotInCompany);
    client.add_scopes("acme", &["read"]).await;
    client.grant("acme", "hr", &["read"]).await.expect("granted");
    assert_eq!(reason(&client, &token).await, Reason::Allowed);
    // The issuer's entry: another company, a required claim, an algorithm, another audience.
    let entry = |lines: &str| catalog(&format!("{}{lines}", inline(&[&signer])));
    apply(&client, &entry("    require: { token_use: access }\n")).await;
    assert_eq!(reason(&client, &token).await, Reason::TokenInvalid);
    apply(&client, &entry("")).await;
    assert_eq!(reason(&client, &token).await, Reason::Allowed);
    apply(&client, &entry("").replace("companies: [acme, other]", "companies: [other]")).await;
    assert_eq!(reason(&client, &token).await, Reason::TokenInvalid);
    apply(&client, &entry("").replace("https://api.example.org", "https://b.example.org")).await;
    assert_eq!(reason(&client, &token).await, Reason::TokenAudienceMismatch);
    // The key: a set without it ends the token at the acknowledgement, one with both keeps it.
    apply(&client, &catalog(&inline(&[&signer, &next]))).await;
    assert_eq!(reason(&client, &token).await, Reason::Allowed);
    apply(&client, &catalog(&inline(&[&next]))).await;
    assert_eq!(reason(&client, &token).await, Reason::TokenInvalid);
    assert_eq!(reason(&client, &next.token(&claims())).await, Reason::Allowed);
    // The issuer itself.
    let none = catalog("").split("issuers:").next().expect("a part").to_owned();
    let request = ApplyCatalogRequest { yaml: none, ..Default::default() };
    client.catalog.clone().apply_catalog(request).await.expect("applied");
    assert_eq!(reason(&client, &next.token(&claims())).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn bound_caller_sees_another_companys_token_as_a_forged_one() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let (server, client) = served(&dir, &catalog(&inline(&[&signer])), &[]).await;
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["acme"]),
        ..Default::default()
    };
    let key = client.keys.clone().create_key(new).await.expect("created").into_inner().secret;
    let bound = Client::connect_as(&server.url(), Some(&key)).await;
    assert_eq!(reason(&bound, &signer.token(&claims())).await, Reason::Allowed);
    let forged = ask(&bound, check(&Signer::other("ES256", "k1").token(&claims()))).await;
    for changes in [json!({ "tid": "other" }), json!({ "tid": "other", "exp": now() - 5 })] {
        let theirs = signer.token(&with(changes));
        for request in
            [check(&theirs), CheckRequest { company_id: "acme".to_owned(), ..check(&theirs) }]
        {
            let answer = ask(&bound, request.clone()).await;
            assert_eq!(answer, CheckResponse { revision: answer.revision, ..forged.clone() });
            let explain = ExplainCheckRequest { check: Some(request) };
            let explained = bound.authorization.clone().explain_check(explain).await;
            let layers = explained.expect("an answer").into_inner().scopes.remove(0).layers;
            assert!(layers.iter().any(|layer| layer.detail.contains("signature")), "{layers:?}");
        }
    }
}

/// The answer hides that a token or a secret of an unreached company is right (T6). The decision log does not,
/// and has neither its text nor its ids (T7).
#[tokio::test]
async fn decision_log_has_the_cause_that_a_bound_caller_is_not_told() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let log = tempfile::NamedTempFile::new().expect("a file");
    let args = ["--decision-log", log.path().to_str().expect("a path")];
    let (server, client) = served(&dir, &catalog(&inline(&[&signer])), &args).await;
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["acme"]),
        ..Default::default()
    };
    let key = client.keys.clone().create_key(new).await.expect("created").into_inner().secret;
    let bound = Client::connect_as(&server.url(), Some(&key)).await;
    let new = CreateSecretRequest {
        company_id: "other".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let secret = client.directory.clone().create_secret(new).await.expect("made").into_inner();
    let by_secret = |secret: &str| CheckRequest {
        bearer_token: None,
        authorization: Some(format!("Bearer {secret}")),
        ..check("")
    };
    let unknown = format!("sgs_{}_{}", "0".repeat(24), "0".repeat(64));
    let of = |company: &str| signer.token(&with(json!({ "tid": company, "jti": "jti-7" })));
    let mut answers = Vec::new();
    for request in [
        check(&Signer::other("ES256", "k1").token(&claims())),
        check(&of("other")),
        check(&of("third")),
        by_secret(&unknown),
        by_secret(&secret.secret),
    ] {
        answers.push(bound.ask(request).await.expect("an answer"));
    }
    assert_eq!((&answers[1], &answers[2]), (&answers[0], &answers[0]));
    assert_eq!(answers[4], answers[3]);
    assert!(server.terminate().success());
    let text = std::fs::read_to_string(log.path()).expect("a log");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let causes: Vec<_> = lines.iter().map(|line| line["cause"].as_str()).collect();
    let expected = [
        Some("SIGNATURE_WRONG"),
        Some("COMPANY_NOT_REACHED"),
        Some("COMPANY_NOT_ALLOWED_UNTOLD"),
        None,
        Some("SECRET_NOT_REACHED"),
    ];
    assert_eq!(causes, expected, "{text}");
    for hidden in ["other", "jti-7", ISSUER, "company_id", &secret.secret_id] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}

/// A server of key sets whose answers the test sets: the status line and the body; none: it hangs.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<Option<(&'static str, String)>>>,
    asked: Arc<Mutex<usize>>,
}

impl KeyServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let answer: Arc<Mutex<Option<(&'static str, String)>>> = Arc::default();
        let asked: Arc<Mutex<usize>> = Arc::default();
        let (own, count) = (Arc::clone(&answer), Arc::clone(&asked));
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                lines.map_while(Result::ok).find(|line| line.is_empty());
                *count.lock().expect("a lock") += 1;
                let answer = own.lock().expect("a lock").clone();
                let Some((status, body)) = answer else {
                    hanging.push(stream);
                    continue;
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: /x\r\n\r\n",
                    body.len()
                );
                (&stream).write_all(format!("{head}{body}").as_bytes()).ok();
            }
        });
        Self { url, answer, asked }
    }

    fn set(&self, answer: Option<(&'static str, String)>) {
        *self.answer.lock().expect("a lock") = answer;
    }

    fn asked(&self) -> usize {
        *self.asked.lock().expect("a lock")
    }
}

/// Asks until the reason is another one.
async fn changed(client: &Client, token: &str, from: Reason) -> Reason {
    loop {
        let reason = ask_only(client, check(token)).await;
        if reason != from {
            return reason;
        }
    }
}

#[tokio::test]
async fn keys_that_are_not_there_are_no_fault_of_the_token() {
    use Reason::{Allowed, TokenInvalid, TokenUnverifiable};
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let next = Signer::other("ES256", "k2");
    let keys = KeyServer::start();
    keys.set(Some(("500 Broken", String::new())));
    let lines = format!("    jwks_url: {}\n    refetch_after: 1s\n    refresh: 1s\n", keys.url);
    let (_server, client) = served(&dir, &catalog(&lines), &[]).await;
    let token = signer.token(&claims());
    // Never fetched: any token of the issuer, and a token of another issuer is not of it.
    let answer = ask(&client, check(&token)).await;
    assert_eq!((answer.reason(), answer.http_status), (TokenUnverifiable, 503));
    assert_eq!((&*answer.error, &*answer.company_id), ("temporarily_unavailable", ""));
    assert_eq!(reason(&client, &next.token(&claims())).await, TokenUnverifiable);
    let foreign = signer.token(&with(json!({ "iss": "https://other.example.org/" })));
    assert_eq!(reason(&client, &foreign).await, TokenInvalid, "nothing is fetched for it");
    for broken in [
        ("200 OK", "no keys".to_owned()),
        ("200 OK", "x".repeat(300 << 10)),
        ("302 Found", key_set([&signer])),
        ("201 Created", key_set([&signer])),
    ] {
        let before = keys.asked();
        keys.set(Some(broken.clone()));
        while keys.asked() < before + 2 {
            assert_eq!(reason(&client, &token).await, TokenUnverifiable, "{}", broken.0);
        }
    }
    // It comes back: nothing has to be restarted.
    keys.set(Some(("200 OK", key_set([&signer]))));
    assert_eq!(changed(&client, &token, TokenUnverifiable).await, Allowed);
    let forged = Signer::new("ES256", "k1").token(&claims());
    assert_eq!(reason(&client, &forged).await, TokenInvalid);
    // It dies: what is known is used, and another key cannot be judged.
    keys.set(None);
    assert_eq!(reason(&client, &token).await, Allowed);
    let new = next.token(&claims());
    assert_eq!(changed(&client, &new, TokenInvalid).await, TokenUnverifiable);
    keys.set(Some(("500 Broken", String::new())));
    assert_eq!(reason(&client, &token).await, Allowed);
    // A new set: the new key is found by its first token, and the old key is good for nothing.
    keys.set(Some(("200 OK", key_set([&next]))));
    assert_eq!(changed(&client, &new, TokenUnverifiable).await, Allowed);
    assert_eq!(changed(&client, &token, Allowed).await, TokenInvalid);
    // An empty set is a set.
    keys.set(Some(("200 OK", "{\"keys\":[]}".to_owned())));
    assert_eq!(changed(&client, &new, Allowed).await, TokenInvalid);
}

#[tokio::test]
async fn keys_of_a_file_follow_the_file() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let next = Signer::other("ES256", "k2");
    let keys = tempfile::tempdir().expect("a directory");
    let file = keys.path().join("keys.json");
    let write = |path: &Path, text: String| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, path).expect("renamed");
    };
    write(&file, key_set([&signer]));
    let args = ["--jwks-dir", keys.path().to_str().expect("a path")];
    let (_server, client) = served(&dir, &catalog("    jwks_file: keys.json\n"), &args).await;
    let (old, new) = (signer.token(&claims()), next.token(&claims()));
    changed(&client, &old, Reason::TokenUnverifiable).await;
    assert_eq!(reason(&client, &old).await, Reason::Allowed);
    std::fs::remove_file(&file).expect("removed");
    write(&file, "no keys".to_owned());
    assert_eq!(reason(&client, &old).await, Reason::Allowed, "the last good set stays");
    write(&file, key_set([&next]));
    assert_eq!(changed(&client, &old, Reason::Allowed).await, Reason::TokenInvalid);
    assert_eq!(reason(&client, &new).await, Reason::Allowed);
}

#[tokio::test]
async fn rejected_token_does_not_make_a_credential_look_used() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let (_server, client) = served(&dir, &catalog(&inline(&[&signer])), &[]).await;
    let last_seen = async || client.credential("acme", "hr").await.expect("found").last_seen_time;
    let request = CheckRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..check("a.b.c")
    };
    assert_eq!(ask(&client, request).await.reason(), Reason::TokenInvalid);
    assert_eq!(last_seen().await, None);
    assert_eq!(reason(&client, &signer.token(&claims())).await, Reason::Allowed);
    assert!(last_seen().await.is_some());
}

#[tokio::test]
async fn token_of_a_silent_issuer_is_a_denial_of_its_own_item_within_the_deadline() {
    let (dir, signer) = (tempfile::tempdir().expect("a directory"), Signer::new("ES256", "k1"));
    let (silent, other) = (KeyServer::start(), KeyServer::start());
    let old = Signer::other("ES256", "");
    other.set(Some(("200 OK", key_set([&old]))));
    // The other issuer's keys are fetched for unknown keys alone.
    let lines = format!("    jwks_url: {}\n    refetch_after: 1s\n    refresh: 24h\n", silent.url);
    let yaml = catalog(&lines);
    let second = yaml.split("issuers:\n").nth(1).expect("an entry");
    let second =
        second.replace(ISSUER, "https://second.example.org/").replace(&silent.url, &other.url);
    let (_server, client) = served(&dir, &format!("{yaml}{second}"), &[]).await;
    let token = signer.token(&claims());
    let of_second = |signer: &Signer| {
        check(&signer.token(&with(json!({ "iss": "https://second.example.org/" }))))
    };
    // A call with a deadline is answered, and the time for that is left.
    let with_deadline = async |checks: Vec<CheckRequest>| {
        let mut request = tonic::Request::new(BatchCheckRequest { checks });
        request.set_timeout(std::time::Duration::from_millis(400));
        let answer = client.authorization.clone().batch_check(request).await.expect("an answer");
        answer.into_inner().results.iter().map(CheckResponse::reason).collect::<Vec<_>>()
    };
    loop {
        let reasons = with_deadline(vec![check(&token), of_second(&old)]).await;
        assert_eq!(reasons[0], Reason::TokenUnverifiable);
        if reasons[1] == Reason::Allowed {
            break;
        }
    }
    // The keys of both issuers are waited for at the same time. A token without `kid` is found in a newer
    // set, too.
    let next = Signer::new("ES256", "");
    other.set(Some(("200 OK", key_set([&next]))));
    loop {
        let reasons = with_deadline(vec![check(&token), of_second(&next)]).await;
        assert_eq!(reasons[0], Reason::TokenUnverifiable);
        if reasons[1] == Reason::Allowed {
            break;
        }
        assert_eq!(reasons[1], Reason::TokenInvalid, "it is too early for a fetch");
    }
    assert_eq!(with_deadline(vec![of_second(&old)]).await, [Reason::TokenInvalid]);
}
