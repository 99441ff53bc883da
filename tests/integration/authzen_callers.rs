//! AuthZEN: who may call, over which connections, what is recorded of calls, and the certification scenario.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, SanType};
use scopegate::proto::*;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::authzen::{Platform, question, with};
use crate::harness::ca::{Ca, Pair};
use crate::harness::http::{Reply, connect, get, send};
use crate::harness::{Client, Server, bootstrap, catalog, scopegate};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const HR: (&str, &str) = ("credential", "acme/hr");
const READ: (&str, &str) = ("scope", "users:read");

/// Every endpoint, with a request that an operator may send.
fn requests() -> [(&'static str, Value); 6] {
    let asked = question(HR, "use", READ);
    let several = with(asked.clone(), "evaluations", json!([{}]));
    let below = |subject: &str| with(asked.clone(), "subject", json!({"type": subject}));
    [
        (EVALUATION, asked.clone()),
        (EVALUATIONS, several),
        ("/companies/acme/access/v1/search/subject", below("credential")),
        ("/companies/acme/credentials/hr/access/v1/search/subject", below("user")),
        ("/access/v1/search/resource", asked.clone()),
        ("/access/v1/search/action", asked),
    ]
}

#[tokio::test]
async fn caller_without_a_good_key_is_not_authenticated() {
    let platform = Platform::start(&[]).await;
    let deleted = platform.key(Role::Service, &[]).await;
    let keys = platform.client.keys.clone().list_keys(ListKeysRequest::default()).await;
    let keys = keys.expect("a list").into_inner().keys;
    let id = &keys.iter().find(|key| key.name == "someone").expect("the key").key_id;
    let request = DeleteKeyRequest { key_id: id.clone(), ..DeleteKeyRequest::default() };
    platform.client.keys.clone().delete_key(request).await.expect("deleted");
    let (deleted, basic) = (format!("Bearer {deleted}"), "Basic YTpi".to_owned());
    let right = format!("Bearer {}", platform.key);
    for (path, body) in requests() {
        for (authorization, challenge) in [
            (vec![], r#"Bearer realm="scopegate""#),
            (vec!["Bearer sgk_nonsense"], r#"Bearer realm="scopegate", error="invalid_token""#),
            (vec![&*deleted], r#"Bearer realm="scopegate", error="invalid_token""#),
            (vec![&*basic], r#"Bearer realm="scopegate", error="invalid_token""#),
            (vec![&*right, &*right], r#"Bearer realm="scopegate", error="invalid_token""#),
        ] {
            let mut headers = vec![("Content-Type", "application/json")];
            headers.extend(authorization.iter().map(|value| ("Authorization", *value)));
            let http = platform.server.http();
            let reply = send(http, &format!("POST {path}"), &headers, &body.to_string());
            assert_eq!(reply.status, 401, "{path} {authorization:?}");
            assert_eq!(reply.header("www-authenticate"), Some(challenge));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert!(reply.json().is_string());
        }
    }
    assert!(platform.server.logged_all(&["KEY_UNKNOWN", EVALUATION.trim_start_matches('/')]) > 0);
    // Before the body is read: it never comes.
    let mut tcp = connect(platform.server.http());
    let head = "POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    tcp.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 12];
    tcp.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn roles_are_those_of_the_methods_of_grpc() {
    let platform = Platform::start(&[]).await;
    // Evaluations, subjects of both types, resources and actions.
    for (role, permitted) in [
        (Role::Service, [true, true, false, false, true, true]),
        (Role::CompanyAdmin, [false, false, true, true, true, true]),
        (Role::Identity, [false, false, false, true, false, false]),
        (Role::Auditor, [false, false, true, true, true, true]),
        (Role::Operator, [true; 6]),
    ] {
        let companies: &[&str] = if role == Role::CompanyAdmin { &["acme"] } else { &[] };
        let key = platform.key(role, companies).await;
        for ((path, body), is_permitted) in requests().into_iter().zip(permitted) {
            let reply = platform.post_as(&key, path, &body.to_string());
            let expected = if is_permitted { 200 } else { 403 };
            assert_eq!(reply.status, expected, "{role:?} {path} {reply:?}");
            assert!(is_permitted || reply.json().is_string());
        }
    }
    assert!(platform.server.logged("ROLE_NOT_PERMITTED") > 0);
}

#[tokio::test]
async fn key_that_is_bound_to_companies_reaches_no_other() {
    let platform = Platform::start(&[]).await;
    let service = platform.key(Role::Service, &["acme"]).await;
    let admin = platform.key(Role::CompanyAdmin, &["acme"]).await;
    let status =
        |key: &str, path: &str, body: &Value| platform.post_as(key, path, &body.to_string()).status;
    let own = question(HR, "use", READ);
    let other = |company: &str| question(("credential", &format!("{company}/hr")), "use", READ);
    assert_eq!(status(&service, EVALUATION, &own), 200);
    for company in ["other", "none", "no company", ""] {
        assert_eq!(status(&service, EVALUATION, &other(company)), 403, "{company}");
        // One item is enough, wherever it is, and whatever else is wrong with it.
        let subject = json!({"type": "user", "id": format!("{company}/hr/ann")});
        for item in [
            json!({"subject": subject}),
            json!({"subject": subject, "action": {}}),
            json!({"subject": subject, "resource": null}),
            json!({"subject": subject, "resource": {"type": "route", "id": "no path"}}),
        ] {
            let all = with(own.clone(), "evaluations", json!([{}, item, {}]));
            assert_eq!(status(&service, EVALUATIONS, &all), 403, "{company}");
            let first = with(own.clone(), "evaluations", json!([{"context": {}}, item]));
            let first =
                with(first, "options", json!({"evaluations_semantic": "deny_on_first_deny"}));
            assert_eq!(status(&service, EVALUATIONS, &first), 403, "{company}: after the end");
        }
        let unused = with(other(company), "evaluations", json!([{"subject": own["subject"]}]));
        assert_eq!(status(&service, EVALUATIONS, &unused), 403, "{company}: a default of no item");
        for path in ["/access/v1/search/resource", "/access/v1/search/action"] {
            assert_eq!(status(&service, path, &other(company)), 403, "{company} {path}");
        }
    }
    let below = question(("credential", "hr"), "use", READ);
    for base in ["/companies/other", "/companies/none", "/companies/other/credentials/hr"] {
        assert_eq!(status(&service, &format!("{base}{EVALUATION}"), &below), 403, "{base}");
        let search = format!("{base}/access/v1/search/subject");
        let kind = if base.contains("credentials") { "user" } else { "credential" };
        let asked = with(below.clone(), "subject", json!({"type": kind}));
        assert_eq!(status(&admin, &search, &asked), 403, "{base}");
    }
    // What names no company is only denied.
    for (kind, id) in [("group", "other/hr"), ("credential", "other"), ("user", "other/hr")] {
        assert_eq!(status(&service, EVALUATION, &question((kind, id), "use", READ)), 200, "{id}");
    }
}

/// The same request by HTTP/2.
async fn by_http2<I>(io: I, key: &str, path: &str, body: &str) -> (u16, String)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (mut send, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://x{path}"));
    let request = request.header("content-type", "application/json");
    let request = match key {
        "" => request,
        key => request.header("authorization", format!("Bearer {key}")),
    };
    let request = request.header("x-request-id", "abc").body(body.to_owned()).expect("a request");
    let reply = send.send_request(request).await.expect("a response");
    assert_eq!(reply.headers()["x-request-id"], "abc");
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn http2_is_answered_as_http_1_1() {
    let platform = Platform::start(&[]).await;
    for (path, body) in requests() {
        for (key, body) in [
            (&*platform.key, body.to_string()),
            (&*platform.key, "{".to_owned()),
            ("sgk_x", body.to_string()),
        ] {
            let by_http1 = platform.post_as(key, path, &body);
            let tcp = tokio::net::TcpStream::connect(platform.server.http()).await;
            let by_http2 = by_http2(tcp.expect("accepted"), key, path, &body).await;
            assert_eq!(by_http2, (by_http1.status, by_http1.body), "{path}");
        }
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let platform = Platform::start(&[]).await;
    let tcp = tokio::net::TcpStream::connect(platform.server.http()).await.expect("accepted");
    let io = TokioIo::new(tcp);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (send, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    for path in ["/.well-known/authzen-configuration", EVALUATION, "/nothing"] {
        let mut answers = Vec::new();
        for method in ["GET", "HEAD"] {
            let request = http::Request::builder().method(method).uri(format!("http://x{path}"));
            let request = request.body(String::new()).expect("a request");
            let reply = send.clone().send_request(request).await.expect("a response");
            let (parts, body) = reply.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let header = |name: &str| parts.headers.get(name).cloned();
            let headers = ["allow", "content-length", "content-type", "cache-control"].map(header);
            answers.push((parts.status, headers, body.len()));
        }
        let [(status, headers, length), head] = answers.try_into().expect("two");
        assert_eq!(headers[1], Some(length.into()), "{path}");
        assert_eq!(head, (status, headers, 0), "{path}");
    }
}

#[tokio::test]
async fn limit_of_a_key_is_answered_with_the_time_to_ask_again() {
    let platform = Platform::start(&["--key-rate-limit", "30"]).await;
    let asked = question(HR, "use", READ);
    let search = || platform.post("/access/v1/search/resource", &asked);
    let refused = (0..1_000).map(|_| search()).find(|reply| reply.status != 200);
    let refused = refused.expect("a limit");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.json().is_string());
    // Evaluations do not count, as checks do not.
    for _ in 0..100 {
        assert_eq!(platform.post(EVALUATION, &asked).status, 200);
    }
}

#[tokio::test]
async fn connection_without_an_accepted_request_is_ended() {
    let platform = Platform::start(&["--first-call-timeout", "1s"]).await;
    for bytes in [
        String::new(),
        "POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\n".to_owned(),
        "POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
    ] {
        let mut tcp = connect(platform.server.http());
        tcp.write_all(bytes.as_bytes()).expect("sent");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("ended");
        assert!(!answer.contains("200"), "{answer}");
    }
}

#[tokio::test]
async fn connection_serves_one_request_after_another() {
    let platform = Platform::start(&[]).await;
    let mut tcp = connect(platform.server.http());
    let body = question(HR, "use", READ).to_string();
    let request = format!(
        "POST {EVALUATION} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        platform.key,
        body.len()
    );
    for _ in 0..50 {
        tcp.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}}") {
            let mut byte = [0];
            tcp.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn client_certificate_is_asked_for_and_identifies_a_caller() {
    let (ca, client_ca) = (Ca::new(), Ca::new());
    let pair = |ca: &Ca, uri: &str| -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("names");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ascii")));
        ca.sign(&params)
    };
    let server_pair = pair(&ca, "spiffe://example.org/scopegate");
    let caller = pair(&client_ca, "spiffe://example.org/gateway");
    let stranger = pair(&client_ca, "spiffe://example.org/stranger");
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).expect("written");
        dir.path().join(name).display().to_string()
    };
    let (cert, key) = (file("cert.pem", &server_pair.cert), file("key.pem", &server_pair.key));
    let client_ca_file = file("ca.pem", &client_ca.pem());
    let data = dir.path().join("data");
    // The store gets its company, and a key that is a certificate.
    let operator = bootstrap(&data);
    {
        let server = Server::with_catalog(&data, "authzen.yaml");
        let client = Client::connect_as(&server.url(), Some(&operator)).await;
        client.create_company("acme", None).await;
        let request = CreateKeyRequest {
            name: "gateway".to_owned(),
            roles: vec![Role::Service.into()],
            certificate: "spiffe://example.org/gateway".to_owned(),
            certificate_only: true,
            ..CreateKeyRequest::default()
        };
        client.keys.clone().create_key(request).await.expect("made");
        assert!(server.terminate().success());
    }
    let args = [
        "--http",
        "127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &client_ca_file,
    ];
    let server = Server::start(&data, &args);
    let asked = question(("credential", "acme/none"), "use", ("scope", "records:read"));
    let asked = with(asked, "context", json!({})).to_string();
    let tls = async |shown: Option<&Pair>, protocol: &[u8]| {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM");
        roots.add(root).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(vec![cert], key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = tokio::net::TcpStream::connect(server.http()).await.expect("accepted");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    let stream = tls(Some(&caller), b"h2").await.expect("a handshake");
    let (status, body) = by_http2(stream, "", EVALUATION, &asked).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("CREDENTIAL_UNKNOWN"), "{body}");
    let stream = tls(Some(&stranger), b"h2").await.expect("a handshake");
    assert_eq!(by_http2(stream, "", EVALUATION, &asked).await.0, 401, "an unknown certificate");
    let stream = tls(Some(&stranger), b"h2").await.expect("a handshake");
    assert_eq!(by_http2(stream, &operator, EVALUATION, &asked).await.0, 200, "a key besides");
    // By HTTP/1.1 as well.
    let mut stream = tls(Some(&caller), b"http/1.1").await.expect("a handshake");
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{asked}",
        asked.len()
    );
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok();
    assert_eq!(Reply::read(&answer).status, 200, "{answer}");
    // Without a certificate there is no connection.
    let refused = match tls(None, b"http/1.1").await {
        Err(_) => true,
        Ok(mut stream) => {
            stream.write_all(head.as_bytes()).await.ok();
            stream.read_u8().await.is_err()
        }
    };
    assert!(refused);
    // Plain text is no TLS.
    let mut plain = TcpStream::connect(server.http()).expect("accepted");
    plain.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(answer.is_empty() || answer[0] == 21, "at most an alert");
}

#[test]
fn address_that_others_reach_needs_a_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let serve = |more: &[&str]| {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0", "--data-dir"];
        scopegate().args(fixed).arg(&store).args(more).output().expect("it runs")
    };
    let output = serve(&[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("--http 0.0.0.0:0 is not a loopback address"), "{text}");
    bootstrap(&store);
    let server = Server::start(&store, &["--http", "0.0.0.0:0"]);
    assert!(server.http().starts_with("0.0.0.0:"));
    let wrong = scopegate().args(["serve", "--http-url", "https://pdp.example.org"]).output();
    assert!(!wrong.expect("it runs").status.success(), "without --http");
}

#[tokio::test]
async fn requests_are_counted_and_logged() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions");
    let metrics = crate::harness::free_address();
    let args = ["--decision-log", log.to_str().expect("a path"), "--metrics", &metrics];
    let platform = Platform::start(&args).await;
    let bearer = format!("Bearer {}", platform.key);
    let body = question(("user", "acme/hr/ann"), "use", READ).to_string();
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", &*bearer),
        ("X-Request-ID", "the-request"),
    ];
    let http = platform.server.http();
    assert_eq!(send(http, &format!("POST {EVALUATION}"), &headers, &body).status, 200);
    platform.post_as("sgk_x", EVALUATION, &body);
    platform.post("/access/v1/search/action", &question(HR, "-", READ));
    get(http, "/nothing");
    let scraped = get_text(&metrics);
    for line in [
        r#"scopegate_http_requests_total{endpoint="evaluation",status="200"} 1"#,
        r#"scopegate_http_requests_total{endpoint="evaluation",status="401"} 1"#,
        r#"scopegate_http_requests_total{endpoint="search_action",status="200"} 1"#,
        r#"scopegate_http_requests_total{endpoint="other",status="404"} 1"#,
        r#"scopegate_decisions_total{decision="ALLOWED",reason="ALLOWED"} 1"#,
        "scopegate_http_requests_in_flight 0",
    ] {
        assert!(scraped.contains(line), "{line}\n{scraped}");
    }
    platform.server.terminate();
    let log = fs::read_to_string(log).expect("a log");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the-request")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("users:read") && lines[0].contains("ann"), "{log}");
    assert_eq!(log.lines().count(), 1, "a search is no decision: {log}");
}

fn get_text(address: &str) -> String {
    let mut tcp = connect(address);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("read");
    text
}

/// The certification scenario: a base URL, its subjects, and the decisions that it expects, one by one and
/// as several evaluations.
#[tokio::test]
async fn certification_scenario_is_met() {
    const BASE: &str = "/companies/cert/credentials/harness";
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let key = bootstrap(&data);
    let file = catalog("authzen.yaml");
    let args = ["--catalog", file.to_str().expect("a path"), "--http", "127.0.0.1:0"];
    let server = Server::start(&data, &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    client.create_company("cert", None).await;
    let scopes = ["records:read", "records:write", "records:trash", "archive:write"];
    client.create_credential("cert", "harness", &scopes).await;
    client.put_user("cert", "alice", &["editor"]).await;
    client.put_user("cert", "bob", &["admin"]).await;
    let bearer = format!("Bearer {key}");
    let headers = [("Content-Type", "application/json"), ("Authorization", &*bearer)];
    let post = |path: &str, body: &Value| {
        let line = format!("POST {BASE}{path}");
        let reply = send(server.http(), &line, &headers, &body.to_string());
        assert_eq!(reply.status, 200, "{body} {reply:?}");
        reply.json()
    };
    let asked = |user: &str, action: Value, id: &str, properties: Value| {
        json!({
            "subject": {"type": "user", "id": user, "properties": {"role": "admin"}},
            "action": action,
            "resource": {"type": "record", "id": id, "properties": properties},
        })
    };
    let (read, write) = (json!({"name": "read"}), json!({"name": "write"}));
    let delete = |soft: bool| json!({"name": "delete", "properties": {"soft": soft}});
    let archived = json!({"status": "archived"});
    let scenario = [
        (asked("alice", read.clone(), "record-1", json!({})), true),
        (asked("alice", write.clone(), "record-1", json!({"status": "active"})), true),
        (asked("bob", read.clone(), "record-1", json!({})), true),
        (asked("bob", write.clone(), "record-1", json!({})), false),
        (asked("alice", write.clone(), "record-2", archived.clone()), false),
        (asked("bob", write, "record-2", archived), true),
        (asked("alice", delete(true), "record-1", json!({})), true),
        (asked("alice", delete(false), "record-1", json!({})), false),
        (asked("carol", read.clone(), "record-1", json!({})), false),
        (asked("alice", read, "record-3", json!({})), false),
    ];
    for (body, expected) in &scenario {
        assert_eq!(post(EVALUATION, body)["decision"], json!(expected), "{body}");
    }
    let all: Vec<_> = scenario.iter().map(|(body, _)| body).collect();
    let decisions = post(EVALUATIONS, &json!({"evaluations": all}))["evaluations"].clone();
    let expected: Vec<_> = scenario.iter().map(|(_, expected)| json!(expected)).collect();
    let found: Vec<_> = decisions.as_array().expect("decisions").iter().collect();
    let found: Vec<_> = found.iter().map(|one| one["decision"].clone()).collect();
    assert_eq!(found, expected);
    let subjects = json!({
        "subject": {"type": "user"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1"},
    });
    assert_eq!(
        post("/access/v1/search/subject", &subjects)["results"],
        json!([{"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}])
    );
    let resources = json!({
        "subject": {"type": "user", "id": "bob"},
        "action": {"name": "write"},
        "resource": {"type": "record"},
    });
    assert_eq!(
        post("/access/v1/search/resource", &resources)["results"],
        json!([{"type": "record", "id": "record-2"}])
    );
    let actions = json!({
        "subject": {"type": "user", "id": "alice"},
        "resource": {"type": "record", "id": "record-1"},
    });
    assert_eq!(
        post("/access/v1/search/action", &actions)["results"],
        json!([{"name": "read"}, {"name": "write"}])
    );
}
