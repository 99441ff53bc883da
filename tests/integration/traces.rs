//! Traces and the log, from a real process: what a collector is sent, what the log and the
//! decision log say of where calls come from, and that no secret is in any of them.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::envoy;
use crate::harness::http::{self, basic, post};
use crate::harness::jwt::Signer;
use crate::harness::token_issuer::TokenIssuer;
use crate::harness::{Client, Server, bootstrap, catalog, free_address, scopegate, scopes_of};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use ring::digest::{SHA256, digest};
use scopegate::proto::*;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::AsciiMetadataKey;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A context of the caller that is recorded, or not.
fn context(is_sampled: bool) -> String {
    format!("00-{TRACE}-{PARENT}-0{}", u8::from(is_sampled))
}

/// What a collector was sent, and the tokens that came with it.
type Taken = Vec<(Vec<String>, ExportTraceServiceRequest)>;

/// A collector of traces.
#[derive(Clone, Default)]
struct Collector {
    taken: Arc<Mutex<Taken>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tokens = request.metadata().get_all("x-token").iter();
        let tokens = tokens.map(|token| token.to_str().expect("a text").to_owned()).collect();
        self.taken.lock().expect("a collector").push((tokens, request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector, and its address.
    async fn start() -> (Self, String) {
        let (collector, port) = Self::start_by(tonic::transport::Server::builder()).await;
        (collector, format!("http://127.0.0.1:{port}"))
    }

    /// A collector on this server, and its port.
    async fn start_by(mut server: tonic::transport::Server) -> (Self, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let collector = Self::default();
        let serving = server.add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, port)
    }

    /// All spans so far, in the order in which they began.
    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().expect("a collector");
        let resources = taken.iter().flat_map(|(_, request)| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        let mut spans: Vec<_> = scopes.flat_map(|scope| scope.spans.clone()).collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    /// Those of calls, without their steps.
    fn calls(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.kind() == SpanKind::Server).collect()
    }

    /// Those of the steps of a call.
    fn steps(&self, of: &Span) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.parent_span_id == of.span_id);
        assert!(spans.iter().all(|span| span.trace_id == of.trace_id));
        spans
    }

    fn all_text(&self) -> String {
        format!("{:?}", self.taken.lock().expect("a collector"))
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<&str, serde_json::Value> {
    let value = |pair: &KeyValue| match pair.value.clone().expect("a value").value {
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::IntValue(number)) => json!(number),
        other => panic!("{other:?}"),
    };
    all.iter().map(|pair| (pair.key.as_str(), value(pair))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message with these headers.
fn with<T>(message: T, headers: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        let name: AsciiMetadataKey = name.parse().expect("a name");
        request.metadata_mut().append(name, value.parse().expect("a value"));
    }
    request
}

async fn check(client: &Client, scope: &str, headers: &[(&str, &str)]) -> CheckResponse {
    let request = with(scopes_of("acme", "hr", &[scope]), headers);
    client.authorization.clone().check(request).await.expect("an answer").into_inner()
}

fn start(dir: &Path, args: &[&str]) -> Server {
    let catalog = catalog("360learning.yaml");
    let catalog = catalog.to_str().expect("a path");
    Server::start(dir, &[&["--worker-threads", "1", "--catalog", catalog], args].concat())
}

/// A store with a company and a credential, whose server has ended: the next one has no fact at
/// hand.
async fn furnished(dir: &Path) {
    let server = start(dir, &[]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_recorded_trace_has_a_span_there_and_no_other_has_one() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(dir.path()).await;
    let (collector, endpoint) = Collector::start().await;
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint]);
    let client = server.client().await;
    let traced = [
        ("traceparent", context(true)),
        ("tracestate", "rojo=1,congo=2".to_owned()),
        ("x-request-id", "from-the-gateway".to_owned()),
    ];
    let traced = traced.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(check(&client, "users:read", &traced).await.revision, 3);
    let not = context(false);
    let wrong = context(true).to_uppercase();
    for headers in [
        &[][..],
        &[("traceparent", not.as_str())],
        &[("traceparent", wrong.as_str())],
        &[("x-request-id", "alone")],
    ] {
        check(&client, "users:read", headers).await;
    }
    assert!(server.terminate().success(), "what waits is sent before the end");
    let calls = collector.calls();
    let [span] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(span.trace_state, "rojo=1,congo=2");
    assert_eq!(span.name, "scopegate.v1.AuthorizationService/Check");
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    let expected = [
        ("rpc.grpc.status_code", json!(0)),
        ("rpc.method", json!("Check")),
        ("rpc.service", json!("scopegate.v1.AuthorizationService")),
        ("rpc.system", json!("grpc")),
        ("scopegate.caller", json!("anonymous")),
        ("scopegate.company_id", json!("acme")),
        ("scopegate.credential_id", json!("hr")),
        ("scopegate.decision", json!("ALLOWED")),
        ("scopegate.reason", json!("ALLOWED")),
        ("scopegate.revision", json!(3)),
        ("scopegate.x_request_id", json!("from-the-gateway")),
    ];
    assert_eq!(attributes(&span.attributes), BTreeMap::from(expected));
    // Neither fact was at hand: each was read. Later they are, and there is nothing to tell.
    let steps = collector.steps(span);
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["store read", "store read"]);
    let taken = collector.taken.lock().expect("a collector");
    let resource = taken[0].1.resource_spans[0].resource.clone().expect("a resource");
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "scopegate");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_say_how_calls_ended_and_where_changes_are_in_the_audit_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (collector, endpoint) = Collector::start().await;
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let context = context(true);
    let traced = [("traceparent", context.as_str())];
    check(&client, "users:write", &traced).await;
    let checks = ["users:read", "users:write", "users:bulk"].map(|scope| {
        let scopes = [scope];
        scopes_of("acme", "hr", &scopes)
    });
    let batch = with(BatchCheckRequest { checks: checks.into() }, &traced);
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    let malformed = with(scopes_of("no id", "hr", &["users:read"]), &traced);
    client.authorization.clone().check(malformed).await.expect_err("malformed");
    let grant = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: vec!["users:write".to_owned()],
        ..GrantScopesRequest::default()
    };
    let granted = client.authorization.clone().grant_scopes(with(grant, &traced)).await;
    let revision = granted.expect("granted").into_inner().revision;
    // It waits for what does not come, and that is the server's fault.
    let unreached =
        CheckRequest { at_least_revision: 1 << 40, ..scopes_of("acme", "hr", &["users:read"]) };
    let refusal = client.authorization.clone().check(with(unreached, &traced)).await;
    assert_eq!(refusal.expect_err("not reached").code(), Code::Unavailable);
    assert!(server.terminate().success());
    let calls = collector.calls();
    let read = |n: usize| attributes(&calls[n].attributes);
    assert_eq!(calls.len(), 5);
    let code =
        |n: usize| calls[n].status.as_ref().map_or(StatusCode::Unset, |status| status.code());
    assert_eq!(read(0)["scopegate.decision"], "DENIED");
    assert_eq!(read(0)["scopegate.reason"], "SCOPE_NOT_GRANTED");
    assert_eq!(code(0), StatusCode::Unset, "a denial is an answer");
    assert_eq!(calls[1].name, "scopegate.v1.AuthorizationService/BatchCheck");
    assert_eq!(read(1)["scopegate.checks"], 3);
    assert_eq!(read(1)["scopegate.denied"], 2);
    assert_eq!(read(2)["rpc.grpc.status_code"], 3);
    assert!(!read(2).contains_key("scopegate.company_id"), "it is none");
    assert_eq!(code(2), StatusCode::Unset, "the caller's fault");
    assert_eq!(calls[3].name, "scopegate.v1.AuthorizationService/GrantScopes");
    assert_eq!(read(3)["scopegate.revision"], revision);
    let steps = collector.steps(&calls[3]);
    let commit = steps.iter().find(|step| step.name == "commit").expect("a commit");
    assert_eq!(attributes(&commit.attributes)["scopegate.revision"], revision);
    assert_eq!(read(4)["rpc.grpc.status_code"], 14);
    assert_eq!(code(4), StatusCode::Error);
    assert_eq!(collector.steps(&calls[4])[0].name, "revision wait");
}

/// The ids of a check by a token or a secret are those of its client, once that is proven. A request to the
/// authorization server has a span once its client is. Neither has a token, a secret or a user (T7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_proven_clients_have_their_ids_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(dir.path()).await;
    let (collector, endpoint) = Collector::start().await;
    let issuer = ["--oauth", "127.0.0.1:0", "--issuer", "https://id.example.org"];
    let server = start(dir.path(), &[&issuer[..], &["--otlp-endpoint", &endpoint]].concat());
    let client = server.client().await;
    let new = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let secret = client.directory.clone().create_secret(new).await.expect("made").into_inner();
    let context = context(true);
    let (right, wrong) = (basic("acme", &secret.secret), basic("acme", "sgs_wrong"));
    let send = |line: &str, authorization: &str, form: &str| {
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Authorization", authorization),
            ("traceparent", &context),
            ("x-request-id", "r-7"),
        ];
        http::send(&server.oauth, line, &headers, form)
    };
    let form = "grant_type=client_credentials&scope=users:read";
    let token = send("POST /oauth2/token/acme", &right, form).json()["access_token"].clone();
    let token = token.as_str().expect("a token").to_owned();
    // Who proves nothing has no span.
    assert_eq!(send("POST /oauth2/token", &wrong, form).status, 401);
    assert_eq!(send("GET /oauth2/jwks", "", "").status, 200);
    assert_eq!(send("POST /oauth2/revoke", &right, "").status, 400);
    let by_token = |token: &str| CheckRequest {
        bearer_token: Some(token.to_owned()),
        scopes: vec!["users:read".to_owned()],
        ..Default::default()
    };
    let by_secret =
        CheckRequest { bearer_token: None, authorization: Some(right.clone()), ..by_token("") };
    for request in [by_token(&token), by_secret, by_token("no.token.this")] {
        let request = with(request, &[("traceparent", &context)]);
        client.authorization.clone().check(request).await.expect("an answer");
    }
    let mut gateway = envoy::gateway(&server, None).await;
    for authorization in [&right, &wrong] {
        let headers = [("authorization", authorization.as_str())];
        let asked = envoy::request("GET", "/", &headers, &[("scopes", "users:read")]);
        gateway.check(with(asked, &[("traceparent", &context)])).await.expect("an answer");
    }
    assert_eq!(send("POST /oauth2/revoke", &right, &format!("token={token}")).status, 200);
    assert!(server.terminate().success());
    let calls = collector.calls();
    let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
    let check = "scopegate.v1.AuthorizationService/Check";
    let (issue, revoke) = ("POST /oauth2/token", "POST /oauth2/revoke");
    let gateway = "envoy.service.auth.v3.Authorization/Check";
    assert_eq!(names, [issue, revoke, check, check, check, gateway, gateway, revoke]);
    let expected = [
        ("http.request.method", json!("POST")),
        ("http.response.status_code", json!(200)),
        ("http.route", json!("/oauth2/token")),
        ("scopegate.caller", json!("client acme/hr")),
        ("scopegate.company_id", json!("acme")),
        ("scopegate.credential_id", json!("hr")),
        ("scopegate.x_request_id", json!("r-7")),
    ];
    let first = attributes(&calls[0].attributes);
    let first: BTreeMap<_, _> =
        first.into_iter().filter(|(key, _)| *key != "scopegate.revision").collect();
    assert_eq!(first, BTreeMap::from(expected));
    assert_eq!(attributes(&calls[1].attributes)["http.response.status_code"], 400);
    let ids = |n: usize| {
        let all = attributes(&calls[n].attributes);
        ["scopegate.company_id", "scopegate.credential_id"].map(|id| all.get(id).cloned())
    };
    let proven = [Some(json!("acme")), Some(json!("hr"))];
    assert_eq!([ids(2), ids(3), ids(4)], [proven.clone(), proven.clone(), [None, None]]);
    assert_eq!([ids(5), ids(6)], [proven, [None, None]]);
    for (span, decision, reason) in [(5, "ALLOWED", "ALLOWED"), (6, "DENIED", "CREDENTIAL_UNKNOWN")]
    {
        let all = attributes(&calls[span].attributes);
        assert_eq!(all["scopegate.decision"], decision);
        assert_eq!(all["scopegate.reason"], reason);
    }
    // A revocation is a change, and its span names the revision.
    assert!(attributes(&calls[7].attributes)["scopegate.revision"].is_u64());
    assert!(collector.steps(&calls[7]).iter().any(|step| step.name == "commit"));
    assert!(calls.iter().all(|call| hex(&call.trace_id) == TRACE));
    let text = collector.all_text();
    let signature = token.rsplit('.').next().expect("a part");
    let random = secret.secret.rsplit('_').next().expect("a part");
    let basic = right.trim_start_matches("Basic ");
    for hidden in [signature, random, basic, "users:read", "sgs_wrong", "no.token"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_trace_are_sampled() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(dir.path()).await;
    let (collector, endpoint) = Collector::start().await;
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint, "--traces-one-in", "1"]);
    let client = server.client().await;
    for _ in 0..2 {
        check(&client, "users:read", &[]).await;
    }
    check(&client, "users:read", &[("traceparent", &context(false))]).await;
    assert!(server.terminate().success());
    let calls = collector.calls();
    let [one, two] = calls.as_slice() else { panic!("{calls:?}") };
    assert_ne!(one.trace_id, two.trace_id);
    assert!(one.parent_span_id.is_empty() || one.parent_span_id == [0; 8]);
    // One of many is few of some.
    let (collector, endpoint) = Collector::start().await;
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint, "--traces-one-in", "10"]);
    let client = server.client().await;
    for _ in 0..500 {
        check(&client, "users:read", &[]).await;
    }
    assert!(server.terminate().success());
    let count = collector.calls().len();
    assert!((1..=200).contains(&count), "{count} of 500, where one of 10 was wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_speaks_tls_is_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(&dir.path().join("store")).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("a file");
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let tls =
        tonic::transport::Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let (collector, port) = Collector::start_by(tls.expect("a configuration")).await;
    let endpoint = format!("https://localhost:{port}");
    // This machine's CAs do not know it.
    for (trusts, spans) in [(false, 0), (true, 1)] {
        let mut command = scopegate();
        command.env_remove("SSL_CERT_DIR");
        if trusts {
            command.env("SSL_CERT_FILE", &ca);
        }
        let args = ["--worker-threads", "1", "--otlp-endpoint", &endpoint];
        let server = Server::start_by(command, &dir.path().join("store"), &args);
        check(&server.client().await, "users:read", &[("traceparent", &context(true))]).await;
        assert!(server.terminate().success());
        assert_eq!(collector.calls().len(), spans);
    }
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// A series of the metrics.
fn read(metrics: &str, series: &str) -> u64 {
    let mut connection = TcpStream::connect(metrics).expect("a connection");
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.expect("the series").trim().parse().expect("a number")
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_collector_delays_no_call_and_lost_spans_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(dir.path()).await;
    let (endpoint, metrics) = (format!("http://{}", nowhere()), nowhere());
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint, "--metrics", &metrics]);
    let client = server.client().await;
    let dropped = || read(&metrics, "scopegate_otlp_spans_dropped_total");
    for round in 1..=2 {
        for _ in 0..10 {
            check(&client, "users:read", &[("traceparent", &context(true))]).await;
        }
        // The two facts were read once.
        until(|| dropped() == round * 10 + 2).await;
    }
    assert_eq!(read(&metrics, "scopegate_otlp_spans_sent_total"), 0);
    let (status, log) = server.end();
    assert!(status.success());
    let warned = log.iter().filter(|line| line.contains("traces cannot be sent")).count();
    assert_eq!(warned, 1, "once, however long it lasts: {log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_holds_up_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    furnished(dir.path()).await;
    // The kernel takes its connections, and nobody reads.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().expect("an address");
    let (endpoint, metrics) = (format!("http://{address}"), nowhere());
    let server = start(dir.path(), &["--otlp-endpoint", &endpoint, "--metrics", &metrics]);
    let client = server.client().await;
    let mut asking: JoinSet<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            async move {
                for _ in 0..750 {
                    check(&client, "users:read", &[("traceparent", &context(true))]).await;
                }
            }
        })
        .collect();
    while let Some(asked) = asking.join_next().await {
        asked.expect("all were answered");
    }
    let dropped = read(&metrics, "scopegate_otlp_spans_dropped_total");
    assert!(dropped > 1_000, "the queue has its bound: {dropped}");
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decision_log_says_where_a_check_comes_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    furnished(&dir.path().join("store")).await;
    let path = log.to_str().expect("a path");
    let server = start(&dir.path().join("store"), &["--decision-log", path]);
    let client = server.client().await;
    let not = context(false);
    let long = "x".repeat(129);
    check(&client, "users:read", &[("x-request-id", "r-1"), ("traceparent", &not)]).await;
    check(&client, "users:read", &[("x-request-id", "two words")]).await;
    check(&client, "users:read", &[("x-request-id", &long)]).await;
    check(&client, "users:read", &[("x-request-id", "a"), ("x-request-id", "b")]).await;
    let checks = vec![scopes_of("acme", "hr", &["users:read"]); 2];
    let batch = with(BatchCheckRequest { checks }, &[("x-request-id", "r-2")]);
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    assert!(server.terminate().success());
    let text = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let ids: Vec<_> = lines.iter().map(|line| line["x_request_id"].as_str()).collect();
    assert_eq!(ids, [Some("r-1"), None, None, None, Some("r-2"), Some("r-2")]);
    let traces: Vec<_> = lines.iter().map(|line| line["trace_id"].as_str()).collect();
    assert_eq!(traces, [Some(TRACE), None, None, None, None, None]);
    // Nothing is left of what is not there, and the contract's word is not used for another thing.
    assert!(lines[1].get("x_request_id").is_none() && lines[0].get("request_id").is_none());
}

/// An event: its fields are flat, and its time is RFC 3339 in UTC.
fn event(line: &str) -> serde_json::Map<String, serde_json::Value> {
    let event: serde_json::Value = serde_json::from_str(line).expect(line);
    let event = event.as_object().expect("an object").clone();
    let time = event["timestamp"].as_str().expect("a time");
    time.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert!(time.ends_with('Z'), "{time}");
    assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    assert!(event.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
    event
}

#[test]
fn server_that_fails_to_start_logs_one_event() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("taken"), "").expect("a file");
    let taken = dir.path().join("taken");
    let taken = taken.to_str().expect("a path");
    let secret = "http://me:hunter2@collector:4317";
    for (args, code, what) in [
        (&["--otlp-endpoint", secret][..], 64, "--otlp-endpoint"),
        (&["--otlp-endpoint", "collector"], 64, "--otlp-endpoint"),
        (&["--log", "nonsense=["], 64, "--log"),
        (&["--worker-threads", "none"], 64, "--worker-threads"),
        (&["--catalog", "nowhere.yaml"], 64, "nowhere.yaml"),
        (&["--listen", "0.0.0.0:0"], 64, "--listen"),
        (&["--log", "off", "--data-dir", taken], 74, "cannot be opened"),
    ] {
        let mut command = scopegate();
        command.args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0"]);
        if !args.contains(&"--data-dir") {
            command.arg("--data-dir").arg(dir.path().join("store"));
        }
        if args.contains(&"--listen") {
            command = scopegate();
            command.args(["serve", "--log-format=json", "--data-dir", "nowhere"]);
        }
        let ended = command.args(args).output().expect("it runs");
        assert_eq!(ended.status.code(), Some(code), "{args:?}");
        let log = String::from_utf8(ended.stderr).expect("a text");
        let events: Vec<_> = log.lines().map(event).collect();
        let last = events.last().expect("a line");
        assert_eq!(last["exit_code"], code);
        assert!(last["message"].as_str().expect("a text").contains(what), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_or_span_and_every_line_is_an_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let key = bootstrap(&store);
    let key = key.as_str();
    let (collector, endpoint) = Collector::start().await;
    let decisions = dir.path().join("decisions.jsonl");
    let catalog = catalog("360learning.yaml");
    let mut command: Command = scopegate();
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=for-the-collector");
    command.env("OTEL_SERVICE_NAME", "gate-7");
    let args = [
        ["--catalog", catalog.to_str().expect("a path")],
        ["--decision-log", decisions.to_str().expect("a path")],
        ["--otlp-endpoint", &endpoint],
        ["--traces-one-in", "1"],
        ["--log", "debug"],
    ];
    let server = Server::start_by(command, &store, args.as_flattened());
    let client = Client::connect_as(&server.url(), Some(key)).await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let create = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..CreateSecretRequest::default()
    };
    let create = with(create, &[("x-request-id", "rotation-1")]);
    let secret = client.directory.clone().create_secret(create).await.expect("a secret");
    let secret = secret.into_inner().secret;
    let wrong = format!("{}x", &secret[..secret.len() - 1]);
    for (secret, verified) in [(&secret, true), (&wrong, false)] {
        let verify = VerifySecretRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            secret: secret.clone(),
        };
        let answer = client.directory.clone().verify_secret(verify).await.expect("an answer");
        assert_eq!(answer.into_inner().verified, verified);
    }
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        ..CreateKeyRequest::default()
    };
    let other = client.keys.clone().create_key(new).await.expect("a key").into_inner();
    let gateway = Client::connect_as(&server.url(), Some(&other.secret)).await;
    let token = Token {
        scopes: vec!["scope-of-a-token".to_owned()],
        user_id: "ada@example.com".to_owned(),
        ..Token::default()
    };
    let check = CheckRequest { token: Some(token), ..scopes_of("acme", "hr", &["users:read"]) };
    gateway
        .authorization
        .clone()
        .check(with(check, &[("x-request-id", "r-1")]))
        .await
        .expect("one");
    // A compressed message is refused, and its call has a line like any other.
    let get = with(
        GetCompanyRequest { company_id: "acme".to_owned() },
        &[("grpc-encoding", "gzip"), ("x-request-id", "packed-1")],
    );
    let packed = client.directory.clone().get_company(get).await.expect_err("compressed");
    assert_eq!(packed.code(), Code::Unimplemented);
    // Of a stranger there is no span, whatever it says.
    let stranger = Client::connect_as(&server.url(), Some("sgk_of_a_stranger")).await;
    let check = with(scopes_of("acme", "hr", &["users:read"]), &[("traceparent", &context(true))]);
    let refusal = stranger.authorization.clone().check(check).await.expect_err("a stranger");
    assert_eq!(refusal.code(), Code::Unauthenticated);
    let (status, log) = server.end();
    assert!(status.success());
    let events: Vec<_> = log.iter().map(|line| event(line)).collect();
    let decisions = std::fs::read_to_string(&decisions).expect("a log");
    let spans = collector.all_text();
    let bare = key.rsplit('_').next().expect("the secret part");
    for secret in
        [key, bare, &other.secret, &secret, &wrong, "sgk_of_a_stranger", "scope-of-a-token"]
    {
        assert!(!log.iter().any(|line| line.contains(secret)), "`{secret}` is in the log");
        assert!(!decisions.contains(secret), "`{secret}` is in the decision log");
        assert!(!spans.contains(secret), "`{secret}` is in a span");
    }
    assert!(!log.iter().any(|line| line.contains("for-the-collector")));
    assert!(!spans.contains("ada@example.com"), "users are in no span");
    assert!(!spans.contains(TRACE), "nobody traces for a stranger");
    // All three had something to say.
    let answered = |event: &&serde_json::Map<_, _>| event["target"] == "scopegate::calls";
    let calls: Vec<_> = events.iter().filter(answered).collect();
    let rotation =
        calls.iter().find(|event| event["method"] == "scopegate.v1.DirectoryService/CreateSecret");
    let rotation = rotation.expect("a line for each call that is no check");
    assert_eq!(rotation["x_request_id"], "rotation-1");
    assert_eq!((&rotation["code"], &rotation["caller"]), (&json!("OK"), &json!("operator")));
    let packed = calls.iter().find(|event| event.get("x_request_id") == Some(&json!("packed-1")));
    assert_eq!(packed.expect("a line")["code"], "UNIMPLEMENTED");
    assert!(calls.iter().all(|event| !event["method"].as_str().expect("it").ends_with("Check")));
    assert!(decisions.contains("\"x_request_id\":\"r-1\""));
    let verified = collector.calls().into_iter().filter(|span| span.name.ends_with("VerifySecret"));
    assert_eq!(verified.count(), 2);
    let taken = collector.taken.lock().expect("a collector");
    assert!(taken.iter().all(|(tokens, _)| tokens == &["for-the-collector"]));
    let resource = taken[0].1.resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(attributes(&resource.attributes)["service.name"], "gate-7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_client_presents_is_in_any_log_span_error_record_or_metric() {
    let dir = tempfile::tempdir().expect("a directory");
    let issuer = TokenIssuer::new();
    let (catalog, decisions) = (issuer.catalog(dir.path()), dir.path().join("decisions.jsonl"));
    let (collector, endpoint) = Collector::start().await;
    let metrics = free_address();
    let args = [
        ["--catalog", catalog.to_str().expect("a path")],
        ["--decision-log", decisions.to_str().expect("a path")],
        ["--otlp-endpoint", &endpoint],
        ["--traces-one-in", "1"],
        ["--metrics", &metrics],
        ["--log", "debug"],
        ["--oauth", "127.0.0.1:0"],
        ["--issuer", "https://tokens.example.org"],
    ];
    let server = Server::start(&dir.path().join("store"), args.as_flattened());
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let create = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..CreateSecretRequest::default()
    };
    let secret = client.directory.clone().create_secret(create).await.expect("a secret");
    let secret = secret.into_inner().secret;
    let (_, random) = secret.rsplit_once('_').expect("a random part");
    let token = issuer.token(json!({ "sub": "auth0|private", "nonce": "private-claim" }));
    let stranger = TokenIssuer(Signer::new("ES256", "forged-kid"));
    let forged = stranger.token(json!({ "iss": "https://forged.example", "jti": "forged-jti" }));
    let unknown_key = stranger.token(json!({ "jti": "forged-jti" }));
    let basic =
        |name: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
    let bearer = |text: &str| format!("Bearer {text}");
    let (right, wrong) = (basic("acme", &secret), basic("acme", "hunter2-of-basic"));
    let headers = [
        bearer(&token),
        bearer(&forged),
        bearer(&unknown_key),
        bearer("malformed.private.text"),
        bearer(&secret),
        bearer(&format!("{}x", &secret[..secret.len() - 1])),
        right.clone(),
        wrong.clone(),
        "Digest private-digest".to_owned(),
        bearer(&"private".repeat(4_000)),
    ];
    let mut errors = String::new();
    // An application gets a code, redeems it, and uses it again.
    client.put_user("acme", "ann", &["reader"]).await;
    let create = CreateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        scopes: vec!["users:read".to_owned()],
        redirect_uris: vec!["https://app.example.org/".to_owned()],
        ..CreateCredentialRequest::default()
    };
    client.directory.clone().create_credential(create).await.expect("created");
    let create = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        ..CreateSecretRequest::default()
    };
    let app_secret = client.directory.clone().create_secret(create).await.expect("a secret");
    let app_secret = app_secret.into_inner().secret;
    let verifier = "private-verifier".repeat(3);
    let challenge = digest(&SHA256, verifier.as_bytes());
    let create = CreateAuthorizationCodeRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        user_id: "ann".to_owned(),
        scopes: vec!["users:read".to_owned()],
        redirect_uri: "https://app.example.org/".to_owned(),
        code_challenge: URL_SAFE_NO_PAD.encode(challenge),
        state: "private-state".to_owned(),
        ..CreateAuthorizationCodeRequest::default()
    };
    let created = client.directory.clone().create_authorization_code(create.clone()).await;
    let created = created.expect("created").into_inner();
    assert!(created.redirect_to.contains(&created.code), "{created:?}");
    let (_, code) = created.code.rsplit_once('_').expect("a random part");
    let wrong_uri = CreateAuthorizationCodeRequest {
        redirect_uri: "https://private-uri.example/".to_owned(),
        ..create
    };
    let wrong_uri = client.directory.clone().create_authorization_code(wrong_uri).await;
    errors += &format!("{:?}", wrong_uri.expect_err("another URI"));
    let form = format!(
        "grant_type=authorization_code&code={}&redirect_uri=https://app.example.org/&code_verifier={verifier}",
        created.code
    );
    let redeem = || post(&server.oauth, "/oauth2/token/acme", &basic("app", &app_secret), &form);
    let redeemed = redeem();
    assert_eq!(redeemed.status, 200, "{redeemed:?}");
    let code_token = redeemed.json()["access_token"].as_str().expect("a token").to_owned();
    errors += &redeem().body;
    let mut authorization = client.authorization.clone();
    for header in &headers {
        let check = CheckRequest {
            scopes: vec!["users:read".to_owned()],
            audience: "api".to_owned(),
            authorization: Some(header.clone()),
            ..CheckRequest::default()
        };
        let raw = header.strip_prefix("Bearer ").map(str::to_owned);
        let raw = CheckRequest { authorization: None, bearer_token: raw, ..check.clone() };
        let named = CheckRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            ..raw.clone()
        };
        let list = ListEffectiveScopesRequest {
            audience: "api".to_owned(),
            authorization: Some(header.clone()),
            ..ListEffectiveScopesRequest::default()
        };
        let explain = ExplainCheckRequest { check: Some(check.clone()) };
        let batch = BatchCheckRequest { checks: vec![check.clone(), named.clone()] };
        let stated = CheckRequest { token: Some(Token::default()), ..check.clone() };
        let malformed = CheckRequest { company_id: "a b".to_owned(), ..check.clone() };
        errors += &format!("{:?}", authorization.explain_check(explain).await.expect("an answer"));
        errors += &format!("{:?}", authorization.batch_check(batch).await.expect("an answer"));
        errors +=
            &format!("{:?}", authorization.list_effective_scopes(list).await.expect("a list"));
        let mut gateway = envoy::gateway(&server, None).await;
        let sent = [("authorization", header.as_str())];
        for (settings, path) in [
            (&[("company_id", "acme"), ("audience", "api")][..], "/users"),
            (&[("audience", "api"), ("scopes", "users:read")], "/users"),
            (&[("audience", "api")], "//"),
        ] {
            let asked = envoy::request("GET", path, &sent, settings);
            errors += &format!("{:?}", gateway.check(asked).await.expect("an answer"));
        }
        let misconfigured = envoy::request("GET", "/users", &sent, &[("company_id", "a b")]);
        errors += &format!("{:?}", gateway.check(misconfigured).await.expect_err("malformed"));
        for request in [check, named] {
            errors += &format!("{:?}", client.ask(request).await.expect("an answer"));
        }
        for request in [stated, malformed] {
            errors += &format!("{:?}", client.ask(request).await.expect_err("malformed"));
        }
    }
    let changes = ListChangesRequest { page_size: 1_000, ..ListChangesRequest::default() };
    let changes = client.changes.clone().list_changes(changes).await.expect("a list");
    let changes = format!("{:?}", changes.into_inner());
    let scraped = TcpStream::connect(&metrics).and_then(|mut connection| {
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        std::io::read_to_string(connection)
    });
    let scraped = scraped.expect("metrics");
    let (status, log) = server.end();
    assert!(status.success());
    let decisions = std::fs::read_to_string(&decisions).expect("a log");
    let places = [
        ("the log", log.join("\n")),
        ("the decision log", decisions.clone()),
        ("a span", collector.all_text()),
        ("a response", errors),
        ("the audit log", changes),
        ("a metric", scraped.clone()),
    ];
    let parts = [&token, &forged, &unknown_key, &code_token].map(|token| token.split('.'));
    let encoded = [&right, &wrong].map(|header| &header["Basic ".len()..]);
    let of_code = [code, "private-verifier", "private-state", "private-uri"];
    let others =
        [random, "private-claim", "hunter2", "private.text", "private-digest", "privateprivate"];
    let others = others.into_iter().chain(of_code);
    let unproven = ["forged-jti", "forged-kid", "forged.example"];
    for private in parts.into_iter().flatten().chain(encoded).chain(others).chain(unproven) {
        for (place, text) in &places {
            assert!(!text.contains(private), "`{private}` is in {place}");
        }
    }
    // All of them had something to say.
    assert!(decisions.contains("\"token_id\":\"token-7f\""), "{decisions}");
    assert!(scraped.contains("scopegate_tokens_verified_total"), "{scraped}");
    assert!(collector.calls().len() > headers.len());
}
