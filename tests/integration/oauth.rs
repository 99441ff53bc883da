//! The authorization server over real sockets (T24, T29 to T37).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::ring::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use scopegate::proto::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::http::{Reply, basic, connect, get, post, send};
use crate::harness::jwt::{Signer, key_set};
use crate::harness::{Client, Server, bootstrap, free_address, owned};

/// Several audiences: one by host, one that needs a user, one with an exchange.
const CATALOG: &str = r#"
name: platform
audiences:
  public:   { title: Public API, aud: ["https://api.example.org"], hosts: [public.api.example.org], exchange: tokens:exchange }
  webhooks: { title: Webhooks, token: required, hosts: ["hooks.example.org"] }
  people:   { title: For people, user: required }
scopes:
  users:read:  { title: Read users, audiences: [public, people] }
  users:write: { title: Write users, audiences: [public, people] }
  hooks:       { title: Webhooks, audiences: [webhooks] }
  tokens:exchange: { title: Act for a user }
roles:
  owner: { scopes: { users:read: all, users:write: own } }
"#;

const ISSUER: &str = "https://id.example.org";
const CREDENTIALS: &str = "grant_type=client_credentials";

/// A served platform with the company `acme`, its credential `hr`, and another company.
struct Platform {
    server: Server,
    client: Client,
    secret: String,
    _dir: tempfile::TempDir,
    key: String,
}

impl Platform {
    async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = bootstrap(&dir.path().join("data"));
        let server = serve(dir.path(), args);
        let client = Client::connect_as(&server.url(), Some(&key)).await;
        for company in ["acme", "other"] {
            client.create_company(company, None).await;
            let scopes = ["users:read", "hooks", "tokens:exchange"];
            client.create_credential(company, "hr", &scopes).await;
        }
        client.put_user("acme", "ann", &["owner"]).await;
        let secret = secret(&client, "acme", "hr").await.secret;
        Self { server, client, secret, _dir: dir, key }
    }

    fn token(&self, form: &str) -> Reply {
        let basic = basic("acme", &self.secret);
        post(&self.server.oauth, "/oauth2/token", &basic, form)
    }

    fn post(&self, path: &str, form: &str) -> Reply {
        post(&self.server.oauth, path, &basic("acme", &self.secret), form)
    }
}

fn serve(dir: &Path, args: &[&str]) -> Server {
    let catalog = dir.join("catalog.yaml");
    std::fs::write(&catalog, CATALOG).expect("written");
    let catalog = catalog.to_str().expect("a path");
    let fixed = ["--catalog", catalog, "--oauth", "127.0.0.1:0", "--issuer", ISSUER];
    Server::start(&dir.join("data"), &[&fixed[..], args].concat())
}

async fn secret(client: &Client, company: &str, credential: &str) -> CreateSecretResponse {
    let request = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_secret(request).await.expect("made").into_inner()
}

/// Panics unless the reply is this error, with the headers of an error.
fn assert_error(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, reply.error().as_str()), (status, error), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    let challenge = (status == 401).then_some("Basic realm=\"scopegate\"");
    assert_eq!(reply.header("www-authenticate"), challenge);
    let body = reply.json();
    let description = body["error_description"].as_str().expect("a sentence");
    let plain = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
    assert!(!description.is_empty() && description.chars().all(plain), "{description}");
    assert_eq!(body.as_object().expect("an object").len(), 2);
}

#[tokio::test]
async fn t37_a_client_that_revokes_too_many_tokens_is_told_when_to_try_again() {
    let platform = Platform::start(&[]).await;
    let form = format!("{CREDENTIALS}&audience=public");
    // What is no token commits nothing, and does not count.
    for _ in 0..200 {
        assert_eq!(platform.post("/oauth2/revoke", "token=x").status, 200);
    }
    let refused = (0..1_000).find_map(|_| {
        let (token, _) = issued(&platform.token(&form));
        let reply = platform.post("/oauth2/revoke", &format!("token={token}"));
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.expect("a limit");
    assert_error(&refused, 429, "temporarily_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(platform.token(&form).status, 200, "other requests go on");
}

#[tokio::test]
async fn form_that_is_not_right_is_an_invalid_request() {
    let platform = Platform::start(&[]).await;
    let address = &platform.server.oauth;
    let (right, secret) = (basic("acme", &platform.secret), &platform.secret);
    let form = "application/x-www-form-urlencoded";
    let with_secret = format!("{CREDENTIALS}&client_id=acme&client_secret={secret}");
    let long = format!("{CREDENTIALS}&client_secret={}", "a".repeat(16 << 10));
    for (name, line, headers, body) in [
        ("another type", "", &[("Content-Type", "application/json")][..], CREDENTIALS),
        ("no type", "", &[], CREDENTIALS),
        ("two types", "", &[("Content-Type", form), ("Content-Type", form)], CREDENTIALS),
        ("compressed", "", &[("Content-Type", form), ("Content-Encoding", "gzip")], CREDENTIALS),
        ("twice", "", &[("Content-Type", form)], "grant_type=a&grant_type=a"),
        ("twice, encoded", "", &[("Content-Type", form)], "scope=a&%73cope=a"),
        ("not UTF-8", "", &[("Content-Type", form)], "grant_type=%ff"),
        ("two ways", "", &[("Content-Type", form)], &with_secret),
        ("another client_id", "", &[("Content-Type", form)], "client_id=hr"),
        ("in the query", "?client_secret=x", &[("Content-Type", form)], CREDENTIALS),
        ("a token in the query", "?actor_token=x", &[("Content-Type", form)], CREDENTIALS),
        ("no grant", "", &[("Content-Type", form)], ""),
        ("an empty grant", "", &[("Content-Type", form)], "grant_type="),
        (
            "an actor without a type",
            "",
            &[("Content-Type", form)],
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&actor_token=a.b.c",
        ),
        (
            "no subject",
            "",
            &[("Content-Type", form)],
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange",
        ),
    ] {
        let headers = [headers, &[("Authorization", right.as_str())]].concat();
        let line = format!("POST /oauth2/token{line}");
        let reply = send(address, &line, &headers, body);
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_request"), "{name}");
        assert_error(&reply, 400, "invalid_request");
    }
    let two = [("Content-Type", form), ("Authorization", &right), ("Authorization", &right)];
    assert_error(&send(address, "POST /oauth2/token", &two, CREDENTIALS), 400, "invalid_request");
    let no_id = post(address, "/oauth2/token", "", &format!("{CREDENTIALS}&client_secret=x"));
    assert_error(&no_id, 400, "invalid_request");
    let reply = platform.token(&long);
    assert_error(&reply, 413, "invalid_request");
    let far = "a".repeat(1 << 20);
    let line = ("Content-Type", form);
    let mut tcp = connect(address);
    let head = format!("POST /oauth2/token HTTP/1.1\r\nHost: x\r\n{}: {}\r\n", line.0, line.1);
    write!(tcp, "{head}Content-Length: {}\r\n\r\n", far.len()).expect("sent");
    let mut response = [0; 12];
    tcp.read_exact(&mut response).expect("before the form is sent");
    assert_eq!(&response, b"HTTP/1.1 413");
}

#[tokio::test]
async fn client_that_proves_nothing_is_told_nothing() {
    let platform = Platform::start(&[]).await;
    let (address, secret) = (&platform.server.oauth, platform.secret.as_str());
    let mut wrong = secret.to_owned();
    let last = wrong.pop();
    wrong.push(if last == Some('0') { '1' } else { '0' });
    let unknown = format!("sgs_{}_{}", "0".repeat(24), "0".repeat(64));
    let mut bodies = Vec::new();
    for (path, authorization, form) in [
        ("/oauth2/token", String::new(), CREDENTIALS.to_owned()),
        ("/oauth2/token", String::new(), format!("{CREDENTIALS}&client_id=acme")),
        ("/oauth2/token", basic("acme", &wrong), CREDENTIALS.to_owned()),
        ("/oauth2/token", basic("acme", &unknown), CREDENTIALS.to_owned()),
        ("/oauth2/token", basic("acme", ""), CREDENTIALS.to_owned()),
        ("/oauth2/token", basic("other", secret), CREDENTIALS.to_owned()),
        ("/oauth2/token", basic("none", secret), CREDENTIALS.to_owned()),
        ("/oauth2/token/other", basic("hr", secret), CREDENTIALS.to_owned()),
        ("/oauth2/token/none", basic("hr", secret), CREDENTIALS.to_owned()),
        ("/oauth2/token", "Basic !".to_owned(), CREDENTIALS.to_owned()),
        ("/oauth2/token", format!("Bearer {secret}"), CREDENTIALS.to_owned()),
        ("/oauth2/token", format!("Bearer {}", platform.key), CREDENTIALS.to_owned()),
        ("/oauth2/token", String::new(), format!("client_id=acme&client_secret={wrong}")),
        // The proof comes before the grant, the scopes and the audience.
        ("/oauth2/token", basic("acme", &wrong), "grant_type=password".to_owned()),
        ("/oauth2/token", basic("acme", &wrong), format!("{CREDENTIALS}&audience=none")),
        ("/oauth2/introspect", basic("acme", &wrong), String::new()),
        ("/oauth2/introspect/acme", String::new(), "token=x".to_owned()),
        ("/oauth2/revoke", basic("acme", &wrong), "token=x".to_owned()),
    ] {
        let reply = post(address, path, &authorization, &form);
        assert_error(&reply, 401, "invalid_client");
        bodies.push(reply.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the same words: {bodies:?}");
    // A right secret is told what is wrong (D11).
    let request = UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        enabled: false,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    platform.client.directory.clone().update_credential(request).await.expect("disabled");
    let disabled = platform.token(CREDENTIALS);
    assert_error(&disabled, 401, "invalid_client");
    assert!(disabled.body.contains("is disabled"), "{disabled:?}");
}

#[tokio::test]
async fn right_proof_goes_on_to_the_grant() {
    let platform = Platform::start(&[]).await;
    let (address, secret) = (&platform.server.oauth, platform.secret.as_str());
    for (path, authorization, form) in [
        ("/oauth2/token", basic("acme", secret), "grant_type=password".to_owned()),
        ("/oauth2/token", basic("hr", secret), "grant_type=password".to_owned()),
        ("/oauth2/token/acme", basic("hr", secret), "grant_type=password".to_owned()),
        ("/oauth2/token", basic("%61cme", secret), "grant_type=password".to_owned()),
        ("/oauth2/token", basic("acme", secret), "grant_type=x&client_id=acme".to_owned()),
        (
            "/oauth2/token",
            String::new(),
            format!("grant_type=implicit&client_id=acme&client_secret={secret}"),
        ),
    ] {
        let reply = post(address, path, &authorization, &form);
        assert_error(&reply, 400, "unsupported_grant_type");
    }
    let scope = platform.token(&format!("{CREDENTIALS}&audience=public&scope=%C3%A9"));
    assert_error(&scope, 400, "invalid_scope");
    for audience in [
        "audience=none",
        "resource=https://none",
        "audience=%20",
        "audience=webhooks&resource=https://api.example.org",
    ] {
        let reply = platform.token(&format!("{CREDENTIALS}&{audience}"));
        assert_error(&reply, 400, "invalid_target");
    }
    for path in ["/oauth2/introspect", "/oauth2/revoke"] {
        assert_error(&platform.post(path, ""), 400, "invalid_request");
    }
}

#[tokio::test]
async fn path_and_method_are_answered_by_a_table() {
    let platform = Platform::start(&[]).await;
    let address = &platform.server.oauth;
    for (line, status, allow) in [
        ("GET /", 404, None),
        ("GET /oauth2/token/acme/x", 404, None),
        ("POST /oauth2/token/%61cme", 404, None),
        ("POST /scopegate.v1.AuthorizationService/Check", 404, None),
        ("GET /oauth2/token", 405, Some("POST")),
        ("OPTIONS /oauth2/token/acme", 405, Some("POST")),
        ("PUT /oauth2/introspect", 405, Some("POST")),
        ("GET /oauth2/revoke", 405, Some("POST")),
        ("POST /oauth2/jwks", 405, Some("GET, HEAD")),
        ("POST /.well-known/oauth-authorization-server", 405, Some("GET, HEAD")),
        ("HEAD /oauth2/jwks", 200, None),
    ] {
        let reply = send(address, line, &[], "");
        assert_eq!((reply.status, reply.header("allow")), (status, allow), "{line}");
    }
}

const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn:scopegate:params:oauth:token-type:user-id";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The token of a reply, which has one, and its scopes.
fn issued(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    let body = reply.json();
    assert_eq!(body["token_type"], "Bearer");
    let text = |name: &str| body[name].as_str().expect("a text").to_owned();
    (text("access_token"), text("scope"))
}

fn check(token: &str, audience: &str, scopes: &[&str]) -> CheckRequest {
    CheckRequest {
        bearer_token: Some(token.to_owned()),
        audience: audience.to_owned(),
        scopes: owned(scopes),
        ..Default::default()
    }
}

#[tokio::test]
async fn client_credentials_give_a_token_until_it_is_revoked() {
    let platform = Platform::start(&[]).await;
    let reply = platform.token(&format!("{CREDENTIALS}&audience=public"));
    let (token, scope) = issued(&reply);
    assert_eq!(scope, "users:read", "without the scope of the exchange");
    assert_eq!(reply.json()["expires_in"], 3600);
    assert_eq!(reply.json().get("issued_token_type"), None);
    let read = check(&token, "public", &["users:read"]);
    let allowed = platform.client.ask(read.clone()).await.expect("an answer");
    assert_eq!(allowed.reason(), Reason::Allowed);
    assert_eq!((&*allowed.company_id, &*allowed.credential_id), ("acme", "hr"));

    // What a service reads of it, and what the client does.
    let form = format!("token={token}");
    let service = format!("Bearer {}", platform.key);
    for path in ["/oauth2/introspect", "/oauth2/introspect/acme"] {
        let of_service = post(&platform.server.oauth, path, &service, &form);
        assert_eq!(of_service.status, 200, "{of_service:?}");
        let body = of_service.json();
        for (name, value) in [
            ("active", json!(true)),
            ("scope", json!("users:read")),
            ("client_id", json!("hr")),
            ("company_id", json!("acme")),
            ("token_type", json!("Bearer")),
            ("sub", json!("acme/hr")),
            ("aud", json!(["public", "https://api.example.org"])),
            ("iss", json!(ISSUER)),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
        assert!(body["exp"].is_i64() && body["iat"].is_i64() && body["jti"].is_string());
        assert_eq!(platform.post(path, &form).body, of_service.body, "of the client");
    }
    let inactive = json!({"active": false});
    let of_path = post(&platform.server.oauth, "/oauth2/introspect/other", &service, &form);
    assert_eq!(of_path.json(), inactive, "of another company than the path's");
    let other = basic("other", &secret(&platform.client, "other", "hr").await.secret);
    let by_other = post(&platform.server.oauth, "/oauth2/introspect", &other, &form);
    assert_eq!(by_other.json(), inactive, "another client's");
    for junk in ["x", "a.b.c", &token[..token.len() - 4]] {
        assert_eq!(platform.post("/oauth2/introspect", &format!("token={junk}")).json(), inactive);
        let revoked = platform.post("/oauth2/revoke", &format!("token={junk}"));
        assert_eq!((revoked.status, revoked.body.as_str()), (200, ""));
    }

    // Only the client itself revokes it, and the next check sees that.
    let by_other = post(&platform.server.oauth, "/oauth2/revoke", &other, &form);
    assert_error(&by_other, 400, "unauthorized_client");
    assert_eq!(
        platform.client.ask(read.clone()).await.expect("an answer").reason(),
        Reason::Allowed
    );
    for _ in 0..2 {
        let revoked =
            platform.post("/oauth2/revoke", &format!("{form}&token_type_hint=access_token"));
        assert_eq!((revoked.status, revoked.body.as_str()), (200, ""));
        let denied = platform.client.ask(read.clone()).await.expect("an answer");
        assert_eq!(denied.reason(), Reason::TokenInvalid);
    }
    assert_eq!(platform.post("/oauth2/introspect", &form).json(), inactive);
    let changes = ListChangesRequest { company_id: Some("acme".to_owned()), ..Default::default() };
    let changes = platform.client.changes.clone().list_changes(changes).await.expect("a list");
    let changes = changes.into_inner().changes;
    let revocations: Vec<_> = changes.iter().filter(|c| c.kind == "RevokeToken").collect();
    assert_eq!(revocations.len(), 1, "the second one committed nothing");
    assert_eq!(revocations[0].actor, "client acme/hr");
}

#[tokio::test]
async fn restriction_acts_at_once_on_a_token() {
    let platform = Platform::start(&[]).await;
    let (token, _) = issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
    platform.client.restrict("acme", &["users:read"]).await;
    let denied = platform.client.ask(check(&token, "public", &["users:read"])).await;
    assert_eq!(denied.expect("an answer").reason(), Reason::ScopeNotInCompany);
    let refused = platform.token(&format!("{CREDENTIALS}&audience=public&scope=users:read"));
    assert_error(&refused, 400, "invalid_scope");
    assert!(refused.body.contains("not available to the company"), "{refused:?}");
    let form = format!("token={token}");
    assert_eq!(platform.post("/oauth2/introspect", &form).json()["scope"], "");
}

#[tokio::test]
async fn audience_is_the_named_one_or_that_of_the_host() {
    let platform = Platform::start(&[]).await;
    let (address, right) = (&platform.server.oauth, basic("acme", &platform.secret));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let ask = |host: &str, line: &str, more: &str| {
        let headers = [form, ("Authorization", right.as_str()), ("Host", host)];
        send(address, line, &headers, &format!("{CREDENTIALS}{more}"))
    };
    let token = "POST /oauth2/token";
    for host in ["public.api.example.org", "PUBLIC.api.example.org:8443", "public.api.example.org."]
    {
        assert_eq!(issued(&ask(host, token, "")).1, "users:read", "{host}");
    }
    assert_eq!(issued(&ask("hooks.example.org", token, "")).1, "hooks");
    let absolute = "POST http://hooks.example.org/oauth2/token";
    assert_eq!(issued(&ask("public.api.example.org", absolute, "")).1, "hooks");
    assert_eq!(issued(&ask("hooks.example.org", token, "&audience=public")).1, "users:read");
    let resource = "&resource=https%3A%2F%2Fapi.example.org";
    assert_eq!(issued(&ask("hooks.example.org", token, resource)).1, "users:read");
    assert_eq!(issued(&ask("x", token, &format!("{resource}&audience=public"))).1, "users:read");
    assert_error(&ask("x", token, ""), 400, "invalid_request");
    assert_error(&ask("x", token, "&audience=people"), 400, "unauthorized_client");
    // Fewer scopes than requested, and none.
    let scopes = "&audience=public&scope=users:write+users:read++none:such+users:read";
    assert_eq!(issued(&ask("x", token, scopes)).1, "users:read");
    let none = ask("x", token, "&audience=public&scope=users:write");
    assert_error(&none, 400, "invalid_scope");
    assert!(none.body.contains("Ask the company's admin to grant it"), "{none:?}");
    assert_eq!(
        issued(&ask("x", token, "&audience=public&scope=tokens:exchange")).1,
        "tokens:exchange"
    );
}

#[tokio::test]
async fn exchange_gives_a_token_of_a_named_user() {
    let platform = Platform::start(&[]).await;
    let address = &platform.server.oauth;
    let by_secret = |form: &str| platform.token(&format!("{EXCHANGE}&audience=public&{form}"));
    let reply = by_secret("subject_token=ann");
    let (token, scope) = issued(&reply);
    assert_eq!(scope, "users:read");
    assert_eq!(reply.json()["issued_token_type"], ACCESS_TOKEN);
    let allowed = platform.client.ask(check(&token, "public", &["users:read"])).await;
    let allowed = allowed.expect("an answer");
    assert_eq!((allowed.reason(), &*allowed.user_id), (Reason::Allowed, "ann"));

    // By the client's own token instead of its secret.
    let exchange = format!("{CREDENTIALS}&audience=public&scope=tokens:exchange");
    let (actor, _) = issued(&platform.token(&exchange));
    let actor_type = format!("actor_token_type={ACCESS_TOKEN}");
    let by_actor = |path: &str, authorization: &str, actor: &str, more: &str| {
        let form = format!(
            "{EXCHANGE}&audience=public&subject_token=ann&{actor_type}&actor_token={actor}&{more}"
        );
        post(address, path, authorization, &form)
    };
    let right = basic("acme", &platform.secret);
    let requested = format!("requested_token_type={ACCESS_TOKEN}");
    for (path, authorization, more) in [
        ("/oauth2/token", "", ""),
        ("/oauth2/token/acme", "", requested.as_str()),
        ("/oauth2/token", "", "client_id=acme"),
        ("/oauth2/token", "", "client_id=hr"),
        ("/oauth2/token", &right, ""),
    ] {
        let (of_user, _) = issued(&by_actor(path, authorization, &actor, more));
        let allowed = platform.client.ask(check(&of_user, "public", &["users:read"])).await;
        assert_eq!(allowed.expect("an answer").user_id, "ann");
    }
    let (plain, _) = issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
    assert_error(&by_actor("/oauth2/token", "", &plain, ""), 400, "unauthorized_client");
    let other = basic("other", &secret(&platform.client, "other", "hr").await.secret);
    for (path, authorization, actor, more) in [
        ("/oauth2/token", "", "a.b.c", ""),
        ("/oauth2/token", "", &token, ""),
        ("/oauth2/token/other", "", &actor, ""),
        ("/oauth2/token", "", &actor, "client_id=other"),
        ("/oauth2/token", &other, &actor, ""),
    ] {
        let refused = by_actor(path, authorization, actor, more);
        assert_error(&refused, 400, "invalid_request");
    }
    // An actor token is no proof for another grant.
    let form = format!("{CREDENTIALS}&audience=public&{actor_type}&actor_token={actor}");
    assert_error(&post(address, "/oauth2/token", "", &form), 401, "invalid_client");
    assert_error(&by_secret("subject_token=bob"), 400, "invalid_request");
    assert_error(&by_secret("subject_token=a%20b"), 400, "invalid_request");
    assert_error(&by_secret("subject_token=ann&requested_token_type=x"), 400, "invalid_request");
    let webhooks = platform.token(&format!("{EXCHANGE}&audience=webhooks&subject_token=ann"));
    assert_error(&webhooks, 400, "unauthorized_client");
    // What was exchanged ends with the token that it was exchanged with.
    let (of_user, _) = issued(&by_actor("/oauth2/token", "", &actor, ""));
    assert_eq!(platform.post("/oauth2/revoke", &format!("token={actor}")).status, 200);
    let denied = platform.client.ask(check(&of_user, "public", &["users:read"])).await;
    assert_eq!(denied.expect("an answer").reason(), Reason::TokenInvalid);
    assert_error(&by_actor("/oauth2/token", "", &actor, ""), 400, "invalid_request");
}

#[tokio::test]
async fn documents_have_the_keys_and_the_endpoints() {
    let platform = Platform::start(&[]).await;
    let address = &platform.server.oauth;
    let metadata = get(address, "/.well-known/oauth-authorization-server");
    let keys = get(address, "/oauth2/jwks");
    for document in [&metadata, &keys] {
        assert_eq!(document.status, 200);
        assert_eq!(document.header("cache-control"), Some("max-age=300"));
        assert_eq!(document.header("pragma"), None);
    }
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    assert_eq!(
        metadata.json(),
        json!({
            "issuer": ISSUER,
            "token_endpoint": format!("{ISSUER}/oauth2/token"),
            "jwks_uri": format!("{ISSUER}/oauth2/jwks"),
            "introspection_endpoint": format!("{ISSUER}/oauth2/introspect"),
            "revocation_endpoint": format!("{ISSUER}/oauth2/revoke"),
            "grant_types_supported":
                ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
            "response_types_supported": [],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_methods_supported": methods,
        })
    );
    let keys = keys.json();
    let keys = keys["keys"].as_array().expect("a list");
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].get("d"), None, "public members only");
    let (token, _) = issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
    let header = token.split('.').next().expect("a header");
    let header = URL_SAFE_NO_PAD.decode(header).expect("base64url");
    let header: serde_json::Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!(header["kid"], keys[0]["kid"]);
    assert_eq!(header["typ"], "at+jwt");
}

/// Makes HTTP/2 requests on a connection: the status and the body of each.
async fn http2<I>(io: I, requests: Vec<http::Request<String>>) -> Vec<(u16, String)>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut replies = Vec::new();
    for request in requests {
        let reply = send.send_request(request).await.expect("a response");
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.expect("a body").to_bytes();
        replies.push((status, String::from_utf8(body.to_vec()).expect("UTF-8")));
    }
    replies
}

fn request(line: &str, authority: &str, authorization: &str, form: &str) -> http::Request<String> {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let request = http::Request::builder().method(method).uri(format!("http://{authority}{path}"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.header("authorization", authorization).body(form.to_owned()).expect("a request")
}

#[tokio::test]
async fn http2_is_answered_as_http_1_1() {
    let platform = Platform::start(&[]).await;
    let right = basic("acme", &platform.secret);
    let tcp = tokio::net::TcpStream::connect(&platform.server.oauth).await.expect("accepted");
    let replies = http2(
        tcp,
        vec![
            request("POST /oauth2/token", "hooks.example.org", &right, CREDENTIALS),
            request("POST /oauth2/token", "x", &right, CREDENTIALS),
            request("POST /oauth2/token", "x", "", CREDENTIALS),
            request("GET /oauth2/jwks", "x", "", ""),
            request("GET /oauth2/token", "x", "", ""),
            request("POST /", "x", "", ""),
            request("POST /oauth2/revoke", "x", &right, &"a".repeat(25 << 10)),
        ],
    )
    .await;
    let statuses: Vec<_> = replies.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 400, 401, 200, 405, 404, 413]);
    assert!(replies[0].1.contains("\"scope\":\"hooks\""), "the authority is the host");
}

/// HEAD is answered as GET is, with the length of the body and without the body (RFC 9110 section 9.3.2).
#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let platform = Platform::start(&[]).await;
    let address = &platform.server.oauth;
    let tcp = tokio::net::TcpStream::connect(address).await.expect("accepted");
    let (by_http2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let paths =
        ["/oauth2/jwks", "/.well-known/oauth-authorization-server", "/oauth2/token", "/nothing"];
    for path in paths {
        let by_http1 = get(address, path);
        let head = send(address, &format!("HEAD {path}"), &[], "");
        assert_eq!((head.status, head.body.as_str()), (by_http1.status, ""), "{path}");
        let mut answers = Vec::new();
        for method in ["GET", "HEAD"] {
            let request = request(&format!("{method} {path}"), "x", "", "");
            let reply = by_http2.clone().send_request(request).await.expect("a response");
            let (parts, body) = reply.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let header = |name: &str| parts.headers.get(name).cloned();
            let headers = ["allow", "content-length", "content-type", "cache-control"].map(header);
            answers.push((parts.status.as_u16(), headers, body.len()));
        }
        let [(status, headers, length), head] = answers.try_into().expect("two");
        assert!(status == by_http1.status && length > 0, "{path}");
        assert_eq!(headers[1], Some(length.into()), "{path}");
        assert_eq!(head, (status, headers, 0), "{path}");
    }
}

#[tokio::test]
async fn tls_asks_no_client_for_a_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = bootstrap(&dir.path().join("data"));
    let names = ["localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).expect("made");
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let cert = file("cert.pem", pair.cert.pem());
    let private = file("key.pem", pair.signing_key.serialize_pem());
    let tls = ["--tls-cert", &cert, "--tls-key", &private, "--tls-client-ca", &cert];
    let server = serve(dir.path(), &tls);
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a root");
    let connect = async |protocols: &[&[u8]]| {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let tcp = tokio::net::TcpStream::connect(&server.oauth).await.expect("accepted");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake")
    };
    let stream = connect(&[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let service = format!("Bearer {key}");
    let ask = request("POST /oauth2/introspect", "localhost", &service, "token=x");
    let jwks = request("GET /oauth2/jwks", "localhost", "", "");
    let replies = http2(stream, vec![jwks, ask]).await;
    assert_eq!(replies[0].0, 200);
    assert_eq!(replies[1].0, 401, "a key is only half of the proof of a service here");
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let mut stream = connect(protocols).await;
        let line = b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(line).await.expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("a response");
        assert_eq!(Reply::read(&response).status, 200);
    }
    // Plain text is no handshake.
    let mut plain = crate::harness::http::connect(&server.oauth);
    plain.write_all(b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn slow_client_is_cut_off() {
    let timeouts = ["--first-call-timeout", "1s", "--request-timeout", "1s"];
    let timeouts = [&timeouts[..], &["--max-connection-age-grace", "1s"]].concat();
    let platform = Platform::start(&timeouts).await;
    let address = &platform.server.oauth;
    let begun = |begin: &str| {
        let mut tcp = connect(address);
        tcp.write_all(begin.as_bytes()).expect("sent");
        tcp
    };
    let read = |mut tcp: TcpStream| {
        let mut response = String::new();
        tcp.read_to_string(&mut response).expect("closed");
        response
    };
    let head = "POST /oauth2/token HTTP/1.1\r\nHost: x\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 29\r\n\r\ngrant";
    // All of them at once, for they take their time.
    let silent = ["", "P", head].map(begun);
    let response = read(begun(&format!("{head}{form}")));
    assert_error(&Reply::read(&response), 408, "invalid_request");
    for silent in silent {
        assert_eq!(read(silent), "", "no request");
    }
    // A connection with a proven client stays.
    let mut tcp = connect(address);
    let basic = basic("acme", &platform.secret);
    for _ in 0..2 {
        let form = "grant_type=x";
        let length = form.len();
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let auth = format!("Authorization: {basic}");
        write!(tcp, "{head}{kind}\r\n{auth}\r\nContent-Length: {length}\r\n\r\n{form}")
            .expect("sent");
        let mut response = [0; 12];
        tcp.read_exact(&mut response).expect("a response");
        assert_eq!(&response, b"HTTP/1.1 400");
        let mut rest = [0; 4096];
        assert!(tcp.read(&mut rest).expect("the rest") > 0);
    }
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
    let mut tcp = connect(address);
    tcp.write_all(long.as_bytes()).ok();
    let mut response = [0; 12];
    tcp.read_exact(&mut response).expect("a response");
    assert_eq!(&response, b"HTTP/1.1 431");
}

#[tokio::test]
async fn clients_have_a_quarter_of_the_connections() {
    let platform = Platform::start(&["--max-connections", "8"]).await;
    let hold: Vec<_> = (0..2)
        .map(|_| {
            let mut tcp = connect(&platform.server.oauth);
            tcp.write_all(b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            tcp.read_exact(&mut [0; 12]).expect("a response");
            tcp
        })
        .collect();
    let mut third = connect(&platform.server.oauth);
    third.write_all(b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n").ok();
    assert!(!matches!(third.read(&mut [0; 64]), Ok(1..)), "turned away");
    for _ in 0..3 {
        Client::connect_as(&platform.server.url(), Some(&platform.key)).await;
    }
    drop(hold);
}

/// T2, T36: the path's company is the request's, so a token of an issuer with `company: request` is judged for
/// it.
#[tokio::test]
async fn introspection_judges_a_token_for_the_company_of_the_path() {
    const OTHER: &str = "https://idp.example.org/";
    let platform = Platform::start(&[]).await;
    let signer = Signer::new("ES256", "k1");
    let issuers = format!(
        "issuers:\n  {OTHER}:\n    jwks: {}\n    algorithms: [ES256]\n    company: request\n    \
         companies: [acme]\n    without_aud: public\n    user: none\n",
        key_set([&signer])
    );
    let yaml = format!("{CATALOG}{issuers}");
    let apply = ApplyCatalogRequest { yaml, ..Default::default() };
    platform.client.catalog.clone().apply_catalog(apply).await.expect("applied");
    let new = CreateKeyRequest {
        name: "of-other".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["other"]),
        ..Default::default()
    };
    let bound = platform.client.keys.clone().create_key(new).await.expect("created").into_inner();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let token = signer.token(&json!({
        "iss": OTHER, "client_id": "hr", "scope": "users:read", "exp": now.as_secs() + 600,
    }));
    let form = format!("token={token}&audience=public");
    let [service, bound] = [&platform.key, &bound.secret].map(|key| format!("Bearer {key}"));
    let client = basic("acme", &platform.secret);
    for (who, company, is_active) in [
        (&service, "", false),
        (&service, "/acme", true),
        (&service, "/other", false),
        (&service, "/nobody", false),
        (&bound, "/acme", false),
        (&bound, "/other", false),
        (&client, "/acme", true),
    ] {
        let path = format!("/oauth2/introspect{company}");
        let reply = post(&platform.server.oauth, &path, who, &form).json();
        assert_eq!(reply["active"], is_active, "{who} {path}");
        if is_active {
            assert_eq!(
                (&reply["company_id"], &reply["scope"]),
                (&json!("acme"), &json!("users:read"))
            );
        }
    }
    // Of a token that names its company, the path's must be the same.
    let (own, _) = issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
    for (company, is_active) in [("", true), ("/acme", true), ("/other", false)] {
        let path = format!("/oauth2/introspect{company}");
        let reply = post(&platform.server.oauth, &path, &service, &format!("token={own}")).json();
        assert_eq!(reply["active"], is_active, "{path}");
    }
}

/// T37: clients that have proven nothing hold a quarter of the memory of requests, here 256 KiB.
#[tokio::test]
async fn unfinished_forms_have_a_quarter_of_the_memory() {
    let platform = Platform::start(&["--call-memory-mib", "1"]).await;
    let address = &platform.server.oauth;
    let part = "a".repeat(20 << 10);
    let kind = "Content-Type: application/x-www-form-urlencoded";
    // 20 of 20 KiB: more than a quarter, and less than half.
    let unfinished: Vec<_> = (0..20)
        .map(|_| {
            let mut tcp = connect(address);
            let head = "POST /oauth2/revoke HTTP/1.1\r\nHost: x\r\nContent-Length: 24000";
            write!(tcp, "{head}\r\n{kind}\r\n\r\n{part}").expect("sent");
            tcp
        })
        .collect();
    let status = || post(address, "/oauth2/revoke", "", &part).status;
    let begun = std::time::Instant::now();
    let until = |expected: u16| {
        while status() != expected {
            assert!(begun.elapsed() < crate::harness::raw::WAIT_LIMIT, "never {expected}");
        }
    };
    until(503);
    // A small form is not counted, and callers with a key have the rest.
    issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
    let large = CheckRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        audience: "public".to_owned(),
        scopes: (0..1000).map(|n| format!("{n:0>32}")).collect(),
        ..Default::default()
    };
    let batch = BatchCheckRequest { checks: vec![large] };
    let answered = platform.client.authorization.clone().batch_check(batch).await;
    answered.expect("there is memory");
    drop(unfinished);
    until(401);
}

#[tokio::test]
async fn flood_of_wrong_proofs_refuses_no_right_one() {
    let platform = Platform::start(&["--max-in-flight", "4"]).await;
    let wrong = basic("acme", &format!("sgs_{}_{}", "0".repeat(24), "0".repeat(64)));
    let done = AtomicBool::new(false);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let reply = post(&platform.server.oauth, "/oauth2/token", &wrong, CREDENTIALS);
                    assert_eq!(reply.status, 401);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            issued(&platform.token(&format!("{CREDENTIALS}&audience=public")));
        }
        while refused.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[tokio::test]
async fn client_above_its_rate_is_refused_and_no_other_is() {
    let platform = Platform::start(&["--key-rate-limit", "20"]).await;
    let other = basic("other", &secret(&platform.client, "other", "hr").await.secret);
    let limited =
        (0..10_000).map(|_| platform.token("grant_type=x")).find(|reply| reply.status == 429);
    let limited = limited.expect("a limit");
    assert_error(&limited, 429, "temporarily_unavailable");
    assert_eq!(limited.header("retry-after"), Some("1"));
    let form = format!("{CREDENTIALS}&audience=public");
    issued(&post(&platform.server.oauth, "/oauth2/token", &other, &form));
}

// The client must see that its connection ends, while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn drain_ends_idle_connections_of_clients() {
    let platform = Platform::start(&[]).await;
    let mut idle = connect(&platform.server.oauth);
    idle.write_all(b"GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    idle.read_exact(&mut [0; 12]).expect("a response");
    let silent = connect(&platform.server.oauth);
    let (status, log) = platform.server.end();
    assert!(status.success());
    let drained = log.last().expect("a line");
    assert!(drained.contains("\"drained\"") && drained.contains("\"calls_cut\":0"), "{drained}");
    drop(silent);
}

/// No log, metric, span or audit record has a token or a secret (T7).
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_and_secrets_are_in_no_log() {
    let decisions = tempfile::NamedTempFile::new().expect("a file");
    let path = decisions.path().to_str().expect("a path").to_owned();
    let metrics = free_address();
    let args = ["--log", "trace", "--decision-log", &path, "--metrics", &metrics];
    let platform = Platform::start(&args).await;
    let address = platform.server.oauth.clone();
    let exchange = format!("{CREDENTIALS}&audience=public&scope=tokens:exchange");
    let (actor, _) = issued(&platform.token(&exchange));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let right = basic("acme", &platform.secret);
    let headers = [form, ("Authorization", right.as_str()), ("X-Request-Id", "request-7")];
    let ask = format!("{EXCHANGE}&audience=public&subject_token=ann");
    let (token, _) = issued(&send(&address, "POST /oauth2/token", &headers, &ask));
    let wrong = format!("sgs_{}_{}", "1".repeat(24), "2".repeat(64));
    for _ in 0..3 {
        assert_eq!(
            post(&address, "/oauth2/token", &basic("acme", &wrong), CREDENTIALS).status,
            401
        );
    }
    assert_eq!(platform.token(&format!("{CREDENTIALS}&audience=people")).status, 400);
    let query = format!("POST /oauth2/token?client_secret={}", platform.secret);
    assert_eq!(send(&address, &query, &[form], CREDENTIALS).status, 400);
    let actor_type = format!("actor_token_type={ACCESS_TOKEN}&actor_token={token}");
    assert_eq!(
        post(&address, "/oauth2/token", "", &format!("{EXCHANGE}&{actor_type}")).status,
        400
    );
    let service = format!("Bearer {}", platform.key);
    for token in [&actor, &token] {
        let form = format!("token={token}");
        assert_eq!(post(&address, "/oauth2/introspect", &service, &form).status, 200);
        assert_eq!(platform.post("/oauth2/revoke", &form).status, 200);
        platform.client.ask(check(token, "public", &["users:read"])).await.expect("an answer");
    }
    // A code that is redeemed, one with a wrong verifier, and one that is used again.
    let redirect_uri = "https://app.example.org/callback";
    let update = UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        redirect_uris: owned(&[redirect_uri]),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["redirect_uris"]) }),
        ..Default::default()
    };
    platform.client.directory.clone().update_credential(update).await.expect("updated");
    let (verifier, forged) = ("verifier".repeat(8), "otherone".repeat(8));
    let challenge = digest(&SHA256, verifier.as_bytes());
    let create = CreateAuthorizationCodeRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        user_id: "ann".to_owned(),
        audience: "public".to_owned(),
        scopes: owned(&["users:read"]),
        redirect_uri: redirect_uri.to_owned(),
        code_challenge: URL_SAFE_NO_PAD.encode(challenge),
        state: "state-of-the-application".to_owned(),
        ..Default::default()
    };
    let mut codes = Vec::new();
    for _ in 0..2 {
        let mut directory = platform.client.directory.clone();
        let created = directory.create_authorization_code(create.clone()).await;
        let created = created.expect("created").into_inner();
        assert!(created.redirect_to.contains(&created.code), "{created:?}");
        codes.push(created.code);
    }
    let redeem = |code: &str, verifier: &str| {
        let code = format!("code={code}&redirect_uri={redirect_uri}&code_verifier={verifier}");
        platform.token(&format!("grant_type=authorization_code&{code}"))
    };
    let (of_code, scope) = issued(&redeem(&codes[0], &verifier));
    assert_eq!(scope, "users:read");
    for (code, verifier) in [(&codes[0], &verifier), (&codes[1], &forged)] {
        assert_error(&redeem(code, verifier), 400, "invalid_grant");
    }
    let scraped = get(&metrics, "/metrics").body;
    for line in [
        "scopegate_oauth_requests_total{endpoint=\"token\",status=\"200\"} 3",
        "scopegate_oauth_requests_total{endpoint=\"token\",status=\"401\"} 3",
        "scopegate_oauth_requests_total{endpoint=\"revoke\",status=\"200\"} 2",
        "scopegate_oauth_requests_in_flight 0",
        "scopegate_tokens_issued_total{grant=\"client_credentials\"} 1",
        "scopegate_tokens_issued_total{grant=\"token_exchange\"} 1",
        "scopegate_tokens_issued_total{grant=\"authorization_code\"} 1",
        "scopegate_tokens_refused_total{grant=\"authorization_code\",error=\"invalid_grant\"} 2",
        "scopegate_tokens_refused_total{grant=\"client_credentials\",error=\"unauthorized_client\"} 1",
        "scopegate_tokens_refused_total{grant=\"client_credentials\",error=\"invalid_client\"} 3",
    ] {
        assert!(scraped.contains(line), "{line}\n{scraped}");
    }
    let changes = platform.client.changes.clone().list_changes(ListChangesRequest::default()).await;
    let changes = format!("{:?}", changes.expect("a list").into_inner());
    let (secret, key) = (platform.secret.clone(), platform.key.clone());
    let (_, log) = platform.server.end();
    let log = log.join("\n");
    let decisions = std::fs::read_to_string(&path).expect("a log");
    for text in [&scraped, &changes, &log, &decisions] {
        let random = |secret: &str| secret.rsplit('_').next().expect("a part").to_owned();
        let codes = codes.iter().map(|code| random(code));
        let presented =
            [random(&secret), random(&key), random(&wrong), verifier.clone(), forged.clone()];
        let state = "state-of-the-application".to_owned();
        for secret in presented.into_iter().chain(codes).chain([state]) {
            assert!(!text.contains(&secret), "{text}");
        }
        for part in
            [&actor, &token, &of_code].into_iter().flat_map(|token| token.split('.').skip(1))
        {
            assert!(!text.contains(part), "{text}");
        }
        assert!(!text.contains(right.trim_start_matches("Basic ")), "{text}");
    }
    // What the logs do have.
    let lines: Vec<serde_json::Value> =
        decisions.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lines: Vec<_> = lines.iter().filter(|line| line["kind"] == "token").collect();
    let issued = |line: &serde_json::Value| line["decision"] == "ISSUED";
    assert_eq!(lines.iter().filter(|line| issued(line)).count(), 3, "{decisions}");
    let of_code = lines.iter().find(|line| line["grant"] == "authorization_code").expect("a line");
    assert_eq!((&of_code["decision"], &of_code["user_id"]), (&json!("ISSUED"), &json!("ann")));
    let exchanged = lines.iter().find(|line| line["grant"] == "token_exchange").expect("a line");
    for (name, value) in [
        ("company_id", "acme"),
        ("credential_id", "hr"),
        ("user_id", "ann"),
        ("audience", "public"),
        ("x_request_id", "request-7"),
    ] {
        assert_eq!(exchanged[name], value, "{exchanged}");
    }
    assert!(exchanged["jti"].is_string() && exchanged["revision"].is_u64());
    let refused = lines.iter().find(|line| line["error"] == "unauthorized_client").expect("a line");
    assert_eq!((&refused["decision"], &refused["company_id"]), (&json!("REFUSED"), &json!("acme")));
    let unproven: Vec<_> = lines.iter().filter(|line| line["count"].is_u64()).collect();
    assert_eq!(unproven.len(), 1, "one line an address: {decisions}");
    assert_eq!((&unproven[0]["address"], &unproven[0]["count"]), (&json!("127.0.0.1"), &json!(4)));
    assert!(log.contains("clients were refused"));
    let call = log.lines().find(|line| line.contains("request-7")).expect("a line of the call");
    assert!(call.contains("client acme/hr") && call.contains("oauth2/token"), "{call}");
}
