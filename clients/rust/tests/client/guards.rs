//! The guard in front of axum and tonic services.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use http::header::AUTHORIZATION;
use http::request::Parts;
use scopegate_client::{Allowed, Caller, Check, Client, Guard, NotAllowed, Reach};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower_service::Service;

use crate::harness::{Server, catalog, demo, patient, run};
use crate::misbehaving_server::{MisbehavingServer, Scripted};

/// The credential's id is its token.
fn caller(parts: &Parts) -> Option<Caller> {
    let token = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    (token != "forged").then(|| Caller::new("demo", token))
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// What came back: the status, the head in lower case, the body.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn has(&self, status: u16, challenge: Option<&str>, error: &str) {
        assert_eq!(self.status, status, "{} {}", self.head, self.body);
        assert_eq!(self.header("www-authenticate"), challenge);
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let begin = format!(r#"{{"error":"{error}","message":""#);
        assert!(self.body.starts_with(&begin) && self.body.ends_with("\"}"), "{}", self.body);
    }
}

/// Sends these bytes of a path as they are.
async fn send(address: SocketAddr, line: &str, token: Option<&str>) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("{line} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Reply { status: status.expect("a status"), head: head.to_owned(), body: body.to_owned() }
}

/// An app that counts what reaches its handler.
fn counted() -> (Router, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let handler = async move |Extension(caller): Extension<Caller>| {
        counter.fetch_add(1, Ordering::SeqCst);
        caller.credential_id().to_owned()
    };
    (Router::new().fallback(any(handler)), served)
}

const INVALID: Option<&str> = Some(r#"Bearer error="invalid_token""#);
const LACKS_WRITE: Option<&str> = Some(r#"Bearer error="insufficient_scope", scope="users:write""#);

#[tokio::test]
async fn guard_forwards_allowed_calls_and_renders_denials() {
    let (_dir, _server, client) = demo();
    let (app, served) = counted();
    let address = serve(app.layer(Guard::endpoint(&client, caller))).await;
    let reply = send(address, "PATCH /api/v2/users/7?force=1", Some("hr-sync")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "hr-sync"));
    assert_eq!(served.load(Ordering::SeqCst), 1);

    let denied = send(address, "PATCH /api/v2/users/7", Some("analytics")).await;
    denied.has(403, LACKS_WRITE, "invalid_scope");
    assert!(denied.body.contains("credential level"), "{}", denied.body);
    send(address, "PATCH /api/v2/users/7", None).await.has(401, Some("Bearer"), "invalid_token");
    send(address, "PATCH /api/v2/users/7", Some("forged")).await.has(401, INVALID, "invalid_token");
    send(address, "PATCH /api/v2/users/7", Some("gone")).await.has(401, INVALID, "invalid_client");
    send(address, "GET /nowhere", Some("hr-sync")).await.has(404, None, "not_found");
    // As it came: what may be read in two ways is not judged at all.
    for path in
        ["/api/v2/users/../users", "/api/v2/users/%2e%2e", "/api/v2/users/7%2f8", "/api//v2"]
    {
        let reply = send(address, &format!("GET {path}"), Some("hr-sync")).await;
        reply.has(400, None, "invalid_request");
    }
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn guard_passes_the_header_on_and_the_server_proves_the_client() {
    let dir = TempDir::new().expect("a directory");
    let catalog = dir.path().join("catalog.yaml");
    let issuer = "{ jwks_url: \"http://127.0.0.1:1/\", algorithms: [RS256], audiences: [api], company: { is: demo } }";
    let text =
        format!("scopes: {{ \"users:write\": {{}} }}\nissuers: {{ \"https://id\": {issuer} }}\n");
    std::fs::write(&catalog, text).expect("written");
    let args = ["--catalog", catalog.to_str().expect("a path")];
    let server = Server::start(&dir.path().join("store"), &args);
    run(&server, &["company", "create", "demo"]);
    run(&server, &["credential", "create", "demo", "hr-sync", "users:write"]);
    let created = run(&server, &["credential", "secret", "create", "demo", "hr-sync"]);
    let secret = created.split_whitespace().find(|word| word.starts_with("sgs_"));
    let secret = secret.expect("a secret");
    let (app, served) = counted();
    let guard = Guard::scope(&patient(&server.url()), "users:write", Caller::of_request);
    let address = serve(app.layer(guard)).await;
    let reply = send(address, "GET /", Some(secret)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "hr-sync"), "{}", reply.head);
    send(address, "GET /", None).await.has(401, Some("Bearer"), "invalid_token");
    for (wrong, error) in
        [("a.b.c", "invalid_token"), ("sgs_ab_cd", "invalid_client"), ("\u{e9}", "invalid_token")]
    {
        send(address, "GET /", Some(wrong)).await.has(401, INVALID, error);
    }
    // `{"alg":"RS256"}` and `{"iss":"https://id"}`: the keys of this issuer cannot be fetched.
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkIn0.AAAA";
    let reply = send(address, "GET /", Some(token)).await;
    reply.has(503, None, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(reply.body.contains("token"), "the server's message is passed on: {}", reply.body);
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn route_can_name_its_scopes() {
    let (_dir, server, client) = demo();
    let (app, served) = counted();
    let address =
        serve(app.layer(Guard::scopes(&client, ["users:read", "users:write"], caller))).await;
    assert_eq!(send(address, "GET /any", Some("hr-sync")).await.status, 200);
    send(address, "GET /any", Some("analytics")).await.has(403, LACKS_WRITE, "invalid_scope");
    run(&server, &["company", "restrict", "demo", "users:write", "--yes", "--affected", "1"]);
    let reply = send(address, "GET /any", Some("hr-sync")).await;
    reply.has(403, LACKS_WRITE, "invalid_scope");
    assert!(reply.body.contains("company level"), "{}", reply.body);
    run(&server, &["company", "disable", "demo", "--yes"]);
    send(address, "GET /any", Some("hr-sync")).await.has(401, INVALID, "invalid_client");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn path_prefix_restores_a_nested_path() {
    let (_dir, _server, client) = demo();
    let guard = Guard::endpoint(&client, caller);
    let inner = |guard: Guard| counted().0.layer(guard);
    let app = Router::new()
        .nest("/api/v2", inner(guard.clone().path_prefix("/api/v2")))
        .nest("/forgotten", inner(guard));
    let address = serve(app).await;
    assert_eq!(send(address, "GET /api/v2/users/7", Some("analytics")).await.status, 200);
    let reply = send(address, "GET /forgotten/users/7", Some("analytics")).await;
    reply.has(404, None, "not_found");
}

#[tokio::test]
async fn outer_layers_see_the_error_and_inner_layers_do_not_run() {
    let (_dir, _server, client) = demo();
    let seen = Arc::new(AtomicUsize::new(0));
    let inside = {
        let seen = Arc::clone(&seen);
        middleware::from_fn(move |request: Request, next: Next| {
            seen.fetch_add(1, Ordering::SeqCst);
            next.run(request)
        })
    };
    let outside = middleware::from_fn(async |request: Request, next: Next| -> Response {
        let mut response = next.run(request).await;
        if let Some(NotAllowed::Denied(denied)) = response.extensions().get::<NotAllowed>() {
            let reason = denied.reason.as_str_name().parse().expect("a header");
            response.headers_mut().insert("x-reason", reason);
        }
        response
    });
    let (app, _) = counted();
    // The last layer is the outermost.
    let app = app.layer(inside).layer(Guard::scope(&client, "users:write", caller)).layer(outside);
    let address = serve(app).await;
    let reply = send(address, "GET /", Some("analytics")).await;
    assert_eq!(reply.header("x-reason"), Some("REASON_SCOPE_NOT_GRANTED"));
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    assert_eq!(send(address, "GET /", Some("hr-sync")).await.status, 200);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn handler_is_not_called_without_a_decision() {
    let (dir, server, _) = demo();
    let client = Client::builder(server.url()).connect().expect("a client");
    let (app, served) = counted();
    let address = serve(app.layer(Guard::scope(&client, "users:write", caller))).await;
    server.kill();
    let reply = send(address, "GET /", Some("hr-sync")).await;
    reply.has(503, None, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), Some("1"));
    // Of whom nothing is known, nothing is asked.
    send(address, "GET /", None).await.has(401, Some("Bearer"), "invalid_token");
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::ResourceExhausted] {
        let server = MisbehavingServer::replying(move |_| Scripted::Error(code)).await;
        let (app, misbehaving_served) = counted();
        let guard = Guard::scope(&patient(&server.url), "users:write", caller);
        let address = serve(app.layer(guard)).await;
        let reply = send(address, "GET /", Some("hr-sync")).await;
        reply.has(503, None, "temporarily_unavailable");
        assert_eq!(misbehaving_served.load(Ordering::SeqCst), 0);
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
    drop(dir);
}

#[tokio::test]
async fn own_reach_is_forwarded_only_with_an_owner_or_a_filter() {
    let dir = TempDir::new().expect("a directory");
    let server = Server::start(dir.path(), &["--catalog", &catalog("humaans")]);
    run(&server, &["company", "create", "acme"]);
    run(&server, &["credential", "create", "acme", "crm", "private:read"]);
    run(&server, &["user", "put", "acme", "ada", "member"]);
    run(&server, &["user", "put", "acme", "olga", "owner"]);
    let client = patient(&server.url());
    let person = |parts: &Parts| {
        let user = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let token = scopegate_client::Token::new(["private:read"]).audience("api").user(user);
        Some(Caller::new("acme", "crm").token(token))
    };
    let whose = |parts: &Parts| parts.uri.path().rsplit('/').next().map(str::to_owned);
    let reach = async |Extension(allowed): Extension<Allowed>| match allowed.reach {
        Reach::All => "all",
        Reach::Own => "own",
    };
    let guarded = async |guard: Guard| {
        serve(Router::new().route("/api/people/{id}", get(reach)).layer(guard)).await
    };
    let lacks = Some(r#"Bearer error="insufficient_scope""#);
    let guard = Guard::endpoint(&client, person);
    let strict = guarded(guard.clone()).await;
    send(strict, "GET /api/people/ada", Some("ada")).await.has(403, lacks, "access_denied");
    assert_eq!(send(strict, "GET /api/people/ada", Some("olga")).await.body, "all");
    let owners = guarded(guard.clone().owned_by(whose)).await;
    assert_eq!(send(owners, "GET /api/people/ada", Some("ada")).await.body, "own");
    send(owners, "GET /api/people/olga", Some("ada")).await.has(403, lacks, "access_denied");
    let filters = guarded(guard.own_records()).await;
    assert_eq!(send(filters, "GET /api/people/olga", Some("ada")).await.body, "own");
}

#[tokio::test]
async fn challenge_can_be_replaced() {
    let (_dir, _server, client) = demo();
    let basic = http::HeaderValue::from_static(r#"Basic realm="api""#);
    let guard = Guard::scope(&client, "users:write", caller).challenge(basic);
    let address = serve(counted().0.layer(guard)).await;
    send(address, "GET /", None).await.has(401, Some(r#"Basic realm="api""#), "invalid_token");
    send(address, "GET /", Some("analytics")).await.has(403, LACKS_WRITE, "invalid_scope");
}

#[tokio::test]
async fn manual_check_renders_the_same_response() {
    let (_dir, _server, client) = demo();
    let by_hand = async |client: Client, scope: &str, token: &str| {
        let check = Check::scope(&Caller::new("demo", token), scope);
        client.require(&check).await.expect_err("refused")
    };
    let http = |refused: NotAllowed| refused.into_http::<String>();
    let denied = by_hand(client.clone(), "users:write", "analytics").await;
    assert_eq!(Status::from(denied.clone()).code(), Code::PermissionDenied);
    let denied = http(denied);
    assert_eq!(
        (denied.status().as_u16(), denied.headers()["www-authenticate"].to_str().ok()),
        (403, LACKS_WRITE)
    );
    let unknown = by_hand(client.clone(), "users:write", "gone").await;
    assert_eq!(Status::from(unknown.clone()).code(), Code::Unauthenticated);
    assert_eq!(http(unknown).headers()["www-authenticate"].to_str().ok(), INVALID);
    let malformed = by_hand(client.clone(), "two words", "hr-sync").await;
    assert_eq!(Status::from(malformed.clone()).code(), Code::InvalidArgument);
    assert_eq!(http(malformed).status().as_u16(), 400);
    let server = MisbehavingServer::replying(|_| Scripted::Error(Code::DeadlineExceeded)).await;
    let late = by_hand(patient(&server.url), "users:write", "hr-sync").await;
    assert_eq!(Status::from(late.clone()).code(), Code::Unavailable);
    let late = http(late);
    assert_eq!(
        (late.status().as_u16(), late.headers()["retry-after"].to_str().ok()),
        (503, Some("1"))
    );
}

/// A gRPC service that answers every method with an empty message's worth of nothing.
#[derive(Clone)]
struct Answers;

impl NamedService for Answers {
    const NAME: &'static str = "shop.Orders";
}

impl Service<http::Request<tonic::body::Body>> for Answers {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let known = request.extensions().get::<Allowed>().is_some();
        let said = if known { "served" } else { "nobody has looked" };
        // An error that only this service makes.
        std::future::ready(Ok(Status::data_loss(said).into_http()))
    }
}

#[tokio::test]
async fn grpc_guard_returns_statuses() {
    use tower_layer::Layer;

    let dir = TempDir::new().expect("a directory");
    let shop = dir.path().join("shop.yaml");
    let endpoint = r#"{ method: GRPC, path: "/shop.Orders/Change", scopes: ["orders:write"] }"#;
    let text = format!("scopes:\n  orders:write: {{}}\nendpoints:\n  - {endpoint}\n");
    std::fs::write(&shop, text).expect("written");
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--catalog", shop.to_str().expect("a path")]);
    run(&server, &["company", "create", "demo"]);
    run(&server, &["credential", "create", "demo", "may", "orders:write"]);
    run(&server, &["credential", "create", "demo", "lacks"]);
    let client = Client::builder(server.url()).deadline(Duration::from_secs(30));
    let client = client.connect().expect("a client");

    // Around one service, and around all of a server.
    let one = tonic::service::Routes::new(Guard::grpc(&client, caller).layer(Answers));
    let one = serve(one.into_axum_router()).await;
    let all = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let of_all = all.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(all);
    let guarded = tonic::transport::Server::builder()
        .layer(Guard::grpc(&client, caller))
        .add_service(Answers)
        .serve_with_incoming(incoming);
    tokio::spawn(guarded);

    let call = async |address: SocketAddr, method: &'static str, token: Option<&str>| {
        let url = format!("http://{address}");
        let endpoint = tonic::transport::Endpoint::from_shared(url).expect("a URL");
        let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.expect("a connection"));
        grpc.ready().await.expect("ready");
        let mut request = tonic::Request::new(());
        if let Some(token) = token {
            let token = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", token);
        }
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = http::uri::PathAndQuery::from_static(method);
        grpc.unary(request, path, codec).await.expect_err("all of them say something")
    };
    for address in [one, of_all] {
        let served = call(address, "/shop.Orders/Change", Some("may")).await;
        assert_eq!((served.code(), served.message()), (Code::DataLoss, "served"));
        let denied = call(address, "/shop.Orders/Change", Some("lacks")).await;
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert!(denied.message().contains("credential level"), "{denied}");
        for token in [None, Some("forged"), Some("gone")] {
            let refused = call(address, "/shop.Orders/Change", token).await;
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        let unknown = call(address, "/shop.Orders/Other", Some("may")).await;
        assert_eq!(unknown.code(), Code::Unimplemented);
        let malformed = call(address, "/shop.Orders/%2e%2e", Some("may")).await;
        assert_eq!(malformed.code(), Code::InvalidArgument);
    }
    server.kill();
    let client = client.with_deadline(Duration::from_millis(250));
    let away = tonic::service::Routes::new(Guard::grpc(&client, caller).layer(Answers));
    let away = serve(away.into_axum_router()).await;
    let unanswered = call(away, "/shop.Orders/Change", Some("may")).await;
    assert_eq!(unanswered.code(), Code::Unavailable);
}
