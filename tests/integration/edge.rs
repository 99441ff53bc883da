//! What anybody can send without a key: health calls, reflection, requests that are no gRPC calls,
//! large headers. Each takes a bounded part of the server, and none of it from other connections.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness;
use crate::harness::raw::*;
use crate::harness::{Server, scopes_of};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use scopegate::proto::*;
use scopegate::wire::access::{ENVOY_CHECK, OPERATIONS};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;
use tower::ServiceExt;

const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

fn start(dir: &Path, args: &[&str]) -> Server {
    Server::start(dir, &[&["--worker-threads", "1", "--demo"], args].concat())
}

async fn connect(server: &Server) -> Channel {
    let channel = harness::endpoint(&server.url());
    channel.connect().await.expect("a connection")
}

/// A server with metrics, and where they are.
fn measured(dir: &Path, args: &[&str]) -> (Server, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let metrics = listener.local_addr().expect("an address").to_string();
    drop(listener);
    (start(dir, &[&["--metrics", &metrics], args].concat()), metrics)
}

/// The value of one series.
fn metric(address: &str, series: &str) -> u64 {
    let mut connection = TcpStream::connect(address).expect("a connection");
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

/// Waits until there is none left.
async fn until_none(left: impl Fn() -> u64) {
    let waited = async {
        while left() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_LIMIT, waited).await.expect("in time");
}

/// A message behind its prefix (one byte that says that it is not compressed, and its length).
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

fn whole(message: &impl Message) -> Body {
    Body::new(Full::new(framed(&message.encode_to_vec())))
}

/// A body that begins with these bytes, and does not end.
fn endless(begin: Bytes) -> Body {
    let begin = tokio_stream::once(Ok::<_, Infallible>(Frame::data(begin)));
    Body::new(StreamBody::new(begin.chain(tokio_stream::pending())))
}

/// An empty body that ends with the sender.
fn open_until(end: &broadcast::Sender<Bytes>) -> Body {
    let frames = BroadcastStream::new(end.subscribe());
    Body::new(StreamBody::new(frames.map(|data| data.map(Frame::data))))
}

/// Sends any request, a gRPC call or not.
async fn send(
    channel: &Channel,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).expect("a request");
    let sent = tokio::time::timeout(WAIT_LIMIT, channel.clone().oneshot(request));
    sent.await.expect("in time").expect("a response")
}

/// Makes a gRPC call: its reply, as soon as it begins.
async fn begin(channel: &Channel, path: &str, body: Body) -> Result<Body, Status> {
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let response = send(channel, Method::POST, path, &headers, body).await;
    assert_eq!(response.status(), StatusCode::OK);
    match Status::from_header_map(response.headers()) {
        Some(status) => Err(status),
        None => Ok(response.into_body()),
    }
}

/// Makes a unary call: its reply.
async fn unary<A: Message + Default>(
    channel: &Channel,
    path: &str,
    body: Body,
) -> Result<A, Status> {
    let reply = begin(channel, path, body).await?.collect().await?;
    Status::from_header_map(reply.trailers().expect("trailers"))
        .map_or(Ok(()), |status| if status.code() == Code::Ok { Ok(()) } else { Err(status) })?;
    Ok(A::decode(&reply.to_bytes()[5..]).expect("a message"))
}

/// The next health status of a watch; none at its end.
async fn next(watch: &mut Body) -> Option<ServingStatus> {
    let frame = tokio::time::timeout(WAIT_LIMIT, watch.frame()).await.expect("in time");
    let data = frame.expect("a frame").expect("not cut off").into_data().ok()?;
    Some(HealthCheckResponse::decode(&data[5..]).expect("a message").status())
}

fn of(service: &str) -> Body {
    whole(&HealthCheckRequest { service: service.to_owned() })
}

/// Asserts that this is said of a limit: the code, a sentence, and of what.
fn assert_limited(status: &Status, subject: &str, part: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains(part), "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("why").reason, "LIMIT_EXCEEDED");
    assert_eq!(details.quota_failure().expect("of what").violations[0].subject, subject);
}

/// As many as told of a limit, and as many as not.
fn count_refused<T>(all: &[Result<T, Status>]) -> (usize, usize) {
    let refused = all
        .iter()
        .filter(|one| one.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted));
    let refused = refused.count();
    (refused, all.len() - refused)
}

async fn assert_served(channel: &Channel) {
    let check = whole(&scopes_of("demo", "hr-sync", &["users:write"]));
    let answer: CheckResponse = unary(channel, CHECK, check).await.expect("an answer");
    assert_eq!(answer.decision(), Decision::Allowed);
}

async fn assert_healthy(channel: &Channel) {
    let answer: HealthCheckResponse = unary(channel, HEALTH, of("")).await.expect("an answer");
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_health_calls_refuse_no_probe_of_another_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let probe = connect(&server).await;
    let mut open: Vec<_> = (0..8).map(|_| Raw::begun(&server, &[])).collect();
    for raw in &mut open {
        for call in 0..250 {
            // With nothing of a message, and with the beginning of one.
            let path = if call % 4 < 2 { HEALTH } else { WATCH };
            raw.send(&frame(HEADERS, END_HEADERS, 2 * call + 1, &block_to(path, &[])));
            if call % 2 == 0 {
                raw.send(&frame(DATA, 0, 2 * call + 1, &[0, 0, 0, 0, 9, 10]));
            }
        }
        raw.assert_open();
    }
    for _ in 0..20 {
        assert_healthy(&probe).await;
        let mut watch = begin(&probe, WATCH, of("")).await.expect("watched");
        assert_eq!(next(&mut watch).await, Some(ServingStatus::Serving));
        assert_served(&probe).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_eight_health_calls_of_at_most_a_second_each() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = measured(dir.path(), &[]);
    let channel = connect(&server).await;
    let never = |n: usize| {
        let channel = channel.clone();
        // Nothing; a whole message without an end; the beginning of a message.
        let body = [&b""[..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 10]][n % 3];
        async move {
            let body = endless(Bytes::from_static(body));
            unary::<HealthCheckResponse>(&channel, HEALTH, body).await
        }
    };
    let mut calls: JoinSet<_> = (0..20).map(never).collect();
    let mut refused = 0;
    while let Some(ended) = calls.join_next().await {
        let status = ended.expect("ended").expect_err("not answered");
        if status.code() == Code::DeadlineExceeded {
            let info = status.get_error_details().error_info().expect("why").clone();
            assert_eq!(info.reason, "REQUEST_TOO_SLOW");
            assert!(status.message().contains("within 1 s"), "{status:?}");
        } else {
            assert_limited(&status, "health checks", "8");
            refused += 1;
        }
    }
    assert_eq!(refused, 12);
    let kind = "{kind=\"health_check\"}";
    assert_eq!(metric(&metrics, &format!("scopegate_streams_refused_total{kind}")), 12);
    // The places of those who give up are free again.
    for _ in 0..4 {
        drop((0..8).map(never).collect::<JoinSet<_>>());
        until_none(|| metric(&metrics, &format!("scopegate_streams_open{kind}"))).await;
        assert_healthy(&channel).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_message_has_at_most_1_kib() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let channel = connect(&server).await;
    // A name and its prefix of three bytes.
    let name = |length: usize| "x".repeat(length - 3);
    for path in [HEALTH, WATCH] {
        for body in [of(&name(1025)), of(&name(1 << 20)), endless(framed(&[0; 1025]))] {
            let status = begin(&channel, path, body).await.map(drop).expect_err("refused");
            assert_limited(&status, "message", "the limit is 1024");
        }
        // Announced, and never sent.
        let announced = Bytes::from_static(&[0, 0, 0x40, 0, 0]);
        let status = begin(&channel, path, endless(announced)).await.map(drop);
        assert_limited(&status.expect_err("refused"), "message", "4194304");
        let status = begin(&channel, path, Body::new(Full::from("no message"))).await.map(drop);
        assert_eq!(status.expect_err("refused").code(), Code::Unimplemented, "compressed");
        let status = begin(&channel, path, Body::empty()).await.map(drop);
        assert_eq!(status.expect_err("refused").code(), Code::InvalidArgument);
    }
    let unknown = unary::<HealthCheckResponse>(&channel, HEALTH, of(&name(1024))).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
    let mut watch = begin(&channel, WATCH, of(&name(1024))).await.expect("watched");
    assert_eq!(next(&mut watch).await, Some(ServingStatus::ServiceUnknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_watches_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = measured(dir.path(), &[]);
    let open = || metric(&metrics, "scopegate_streams_open{kind=\"health_watch\"}");
    let channel = connect(&server).await;
    let mut watches = Vec::new();
    for n in 0..16 {
        // Of what is known, and of names that nobody has.
        let (name, status) = match n % 2 {
            0 => ("scopegate.v1.KeyService".to_owned(), ServingStatus::Serving),
            _ => (format!("no.such.{n}"), ServingStatus::ServiceUnknown),
        };
        let mut watch = begin(&channel, WATCH, of(&name)).await.expect("watched");
        assert_eq!(next(&mut watch).await, Some(status));
        watches.push(watch);
    }
    let status = begin(&channel, WATCH, of("")).await.map(drop).expect_err("refused");
    assert_limited(&status, "health watches", "16");
    assert_healthy(&channel).await;
    assert_eq!(open(), 16);
    // One that has ended has made room for another.
    drop(watches.pop());
    until_none(|| open() - 15).await;
    watches.push(begin(&channel, WATCH, of("")).await.expect("room"));
    // As many as there may be in all, each connection within its own bound.
    let mut channels = vec![channel];
    while channels.len() < 63 {
        channels.push(connect(&server).await);
    }
    let mut all = Vec::new();
    for channel in &channels[1..] {
        let calls: JoinSet<_> = (0..16)
            .map(|_| {
                let channel = channel.clone();
                async move { begin(&channel, WATCH, of("")).await }
            })
            .collect();
        all.extend(calls.join_all().await);
    }
    assert_eq!(count_refused(&all), (8, 984));
    let last = all.iter().find_map(|one| one.as_ref().err()).expect("refused");
    assert_limited(last, "health watches", "1000");
    assert_eq!(open(), 1000);
    assert_healthy(&connect(&server).await).await;
    assert_served(&channels[5]).await;
    drop((all, watches, channels));
    until_none(open).await;
    let channel = connect(&server).await;
    let mut watch = begin(&channel, WATCH, of("")).await.expect("room again");
    let mut unknown = begin(&channel, WATCH, of("nobody")).await.expect("room again");
    assert_eq!(next(&mut watch).await, Some(ServingStatus::Serving));
    assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
    // Both hear of the end, and hold up nothing.
    server.signal("TERM");
    assert_eq!(next(&mut watch).await, Some(ServingStatus::NotServing));
    assert_eq!(next(&mut watch).await, None);
    assert_eq!(next(&mut unknown).await, None);
    assert_eq!(server.terminate().code(), Some(0));
}

/// Whoever does not read its replies keeps its own places and no others.
#[test]
fn unread_health_replies_keep_their_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    // No window for any reply (SETTINGS_INITIAL_WINDOW_SIZE).
    let mut raw = Raw::begun(&server, &[0, 4, 0, 0, 0, 0]);
    raw.assert_open();
    for call in 0..9 {
        raw.send(&frame(HEADERS, END_HEADERS, 2 * call + 1, &block_to(HEALTH, &[])));
        raw.send(&frame(DATA, END_STREAM, 2 * call + 1, &framed(&[])));
    }
    let mut said = Vec::new();
    while said.len() < 9 {
        let (kind, flags, _) = raw.next().expect("open");
        if kind == HEADERS {
            said.push(flags & END_STREAM != 0);
        }
    }
    assert_eq!(said.iter().filter(|refused| **refused).count(), 1, "{said:?}");
    let mut another = Raw::begun(&server, &[]);
    another.send(&frame(HEADERS, END_HEADERS, 1, &block_to(HEALTH, &[])));
    another.send(&frame(DATA, END_STREAM, 1, &framed(&[])));
    while another.next().expect("open").0 != DATA {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_streams_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = measured(dir.path(), &[]);
    let open = || metric(&metrics, "scopegate_streams_open{kind=\"reflection\"}");
    let (end, _) = broadcast::channel(1);
    let mut channels = Vec::new();
    let mut all = Vec::new();
    for _ in 0..17 {
        let channel = connect(&server).await;
        let calls: JoinSet<_> = (0..17)
            .map(|n| {
                let (channel, body) = (channel.clone(), open_until(&end));
                async move { begin(&channel, REFLECTION[n % 2], body).await }
            })
            .collect();
        all.extend(calls.join_all().await);
        channels.push(channel);
    }
    assert_eq!(count_refused(&all), (33, 256), "one of each connection, and all of the last");
    for status in all.iter().filter_map(|one| one.as_ref().err()) {
        assert_limited(status, "reflection streams", "");
    }
    assert_eq!(open(), 256);
    assert_healthy(&channels[16]).await;
    assert_served(&channels[0]).await;
    drop((all, end));
    until_none(open).await;
    // Whoever takes its calls back has its places back, and so has whoever goes.
    let mut raw = Raw::begun(&server, &[]);
    for round in 0..3 {
        for call in 16 * round..16 * (round + 1) {
            let block = block_to(REFLECTION[0], &[]);
            raw.send(&frame(HEADERS, END_HEADERS, 2 * call + 1, &block));
            let begun = loop {
                let (kind, flags, _) = raw.next().expect("open");
                if kind == HEADERS {
                    break flags & END_STREAM == 0;
                }
            };
            assert!(begun, "refused");
        }
        assert_eq!(open(), 16);
        if round < 2 {
            for call in 16 * round..16 * (round + 1) {
                raw.send(&frame(RST_STREAM, 0, 2 * call + 1, &[0, 0, 0, 8]));
            }
            until_none(open).await;
        }
    }
    drop(raw);
    until_none(open).await;
    let channel = connect(&server).await;
    // A message that is longer than any name is not waited for.
    let announced = Bytes::from_static(&[0, 0, 0x40, 0, 0]);
    let long = begin(&channel, REFLECTION[0], endless(announced)).await.expect("begun");
    let ended = tokio::time::timeout(WAIT_LIMIT, long.collect()).await.expect("in time");
    assert!(ended.is_err() || ended.is_ok_and(|reply| reply.to_bytes().is_empty()));
}

/// Every path that there is: of this program, of health, of reflection, and some of none.
fn every_path() -> Vec<&'static str> {
    let others = [HEALTH, WATCH, "/grpc.health.v1.Health/Nothing", REFLECTION[0], REFLECTION[1]];
    let none = ["/", "/scopegate.v1.Nothing/Nothing", "/metrics", "/favicon.ico"];
    let own = OPERATIONS.iter().copied().chain([&ENVOY_CHECK]).map(|operation| operation.path);
    own.chain(others).chain(none).collect()
}

/// A grant that would change something.
fn grant() -> Bytes {
    let grant = GrantScopesRequest {
        company_id: "demo".to_owned(),
        credential_id: "analytics".to_owned(),
        scopes: harness::owned(&["users:write"]),
        ..GrantScopesRequest::default()
    };
    framed(&grant.encode_to_vec())
}

const GRANT: &str = "/scopegate.v1.AuthorizationService/GrantScopes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_grpc_posts_are_answered_and_nothing_else_changes_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = measured(dir.path(), &[]);
    let (channel, client) = (connect(&server).await, server.client().await);
    let before = client.credential("demo", "analytics").await.expect("a credential");
    let mut sent = 0;
    let kinds = [
        "text/plain",
        "text/plain;application/grpc",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc+json",
        "application/grpc+proto2",
        "application/grpc+",
        "application/grpcx",
        "application/grpc proto",
        "",
    ];
    for path in every_path() {
        for kind in kinds {
            let (headers, body) = ([("content-type", kind)], Body::new(Full::new(grant())));
            let response = send(&channel, Method::POST, path, &headers, body).await;
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {kind}");
            assert_eq!(response.headers()[ACCEPT], "application/grpc, application/grpc+proto");
            assert!(!response.headers().contains_key("grpc-status"), "{path} {kind}");
        }
        let two = [("content-type", "application/grpc"), ("content-type", "text/plain")];
        for headers in [&[][..], &two] {
            let body = Body::new(Full::new(grant()));
            let response = send(&channel, Method::POST, path, headers, body).await;
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
        }
        let methods = [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::OPTIONS,
            Method::DELETE,
            Method::PATCH,
            Method::TRACE,
            Method::from_bytes(b"QUERY").expect("a method"),
            Method::from_bytes(b"post").expect("a method"),
        ];
        for method in &methods {
            let headers = [("content-type", "application/grpc")];
            let body = Body::new(Full::new(grant()));
            let response = send(&channel, method.clone(), path, &headers, body).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(response.headers()[ALLOW], "POST");
            let cors = response.headers().keys().any(|name| name.as_str().starts_with("access-"));
            assert!(!cors, "no browser is let in");
        }
        sent += kinds.len() + 2 + methods.len();
    }
    let after = client.credential("demo", "analytics").await.expect("a credential");
    assert_eq!((after.revision, after.grants), (before.revision, before.grants));
    assert_eq!(metric(&metrics, "scopegate_requests_not_grpc_total"), sent as u64);
    // The same bytes as a call change it.
    let kinds = [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "application/grpc+proto ; x=y",
        "Application/gRPC",
    ];
    for kind in kinds {
        let headers = [("content-type", kind), ("te", "trailers")];
        let check = whole(&scopes_of("demo", "hr-sync", &["users:write"]));
        let response = send(&channel, Method::POST, CHECK, &headers, check).await;
        assert_eq!(response.status(), StatusCode::OK, "{kind}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let reply = response.into_body().collect().await.expect("a reply");
        assert_eq!(reply.trailers().expect("trailers")["grpc-status"], "0", "{kind}");
    }
    let granted: GrantScopesResponse =
        unary(&channel, GRANT, Body::new(Full::new(grant()))).await.expect("granted");
    assert_eq!(granted.added_scopes, ["users:write"]);
}

/// HTTP would make a tunnel of the stream.
#[test]
fn connect_method_is_refused_like_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = measured(dir.path(), &[]);
    let mut raw = Raw::begun(&server, &[]);
    let block = literal_headers(&[
        (":method", "CONNECT"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
    ]);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &block));
    raw.send(&frame(DATA, 0, 1, &grant()));
    while raw.next().expect("open").0 != HEADERS {}
    raw.assert_open();
    assert_eq!(metric(&metrics, "scopegate_requests_not_grpc_total"), 1);
}

/// Headers of this many bytes in all, about: one, or many.
fn headers_of(bytes: usize, many: bool) -> Vec<(String, String)> {
    if !many {
        return vec![("x-large".to_owned(), "x".repeat(bytes))];
    }
    (0..bytes / 50).map(|n| (format!("x-{n:06}"), "0123456789".to_owned())).collect()
}

async fn with_headers(
    channel: &Channel,
    path: &str,
    more: &[(String, String)],
    body: Body,
) -> Response<Body> {
    let more = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<_> = [("content-type", "application/grpc")].into_iter().chain(more).collect();
    send(channel, Method::POST, path, &all, body).await
}

fn status_of(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("a status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_too_large_headers_is_told_so_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let (channel, client) = (connect(&server).await, server.client().await);
    let before = client.credential("demo", "analytics").await.expect("a credential");
    // A call of the same connection that is open all the time.
    let mut watch = begin(&channel, WATCH, of("")).await.expect("watched");
    assert_eq!(next(&mut watch).await, Some(ServingStatus::Serving));
    for (bytes, many) in
        [(17 << 10, false), (17 << 10, true), (250 << 10, false), (250 << 10, true)]
    {
        let large = headers_of(bytes, many);
        let paths = every_path();
        // What is nearly too large to be read takes a client of these tests long to write.
        let step = if bytes < 100 << 10 { 1 } else { 9 };
        for path in paths.into_iter().step_by(step) {
            let body = Body::new(Full::new(grant()));
            let response = with_headers(&channel, path, &large, body).await;
            assert_eq!(response.status(), StatusCode::OK);
            let status = status_of(response.headers());
            assert_limited(&status, "headers", "16384");
            assert!(status.message().contains("--max-header-bytes"), "{status:?}");
        }
        let headers: Vec<_> = large.iter().map(|(name, value)| (&**name, &**value)).collect();
        let response = send(&channel, Method::GET, GRANT, &headers, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let check = whole(&scopes_of("demo", "hr-sync", &["users:write"]));
        let within = with_headers(&channel, CHECK, &headers_of(12 << 10, many), check).await;
        assert!(!within.headers().contains_key("grpc-status"));
        assert_served(&channel).await;
    }
    let after = client.credential("demo", "analytics").await.expect("a credential");
    assert_eq!((after.revision, after.grants), (before.revision, before.grants));
    server.signal("TERM");
    assert_eq!(next(&mut watch).await, Some(ServingStatus::NotServing), "it was open all the time");
}

#[tokio::test]
async fn the_limit_of_headers_is_an_operators_to_set() {
    let dir = tempfile::tempdir().expect("a directory");
    for (limit, bytes) in [("1024", 2 << 10), ("262144", 250 << 10)] {
        let server = start(dir.path(), &["--max-header-bytes", limit]);
        let channel = connect(&server).await;
        let check = whole(&scopes_of("demo", "hr-sync", &["users:write"]));
        let response = with_headers(&channel, CHECK, &headers_of(bytes, false), check).await;
        let status = Status::from_header_map(response.headers());
        assert_eq!(status.is_some(), limit == "1024", "{status:?}");
        assert_served(&channel).await;
    }
}

/// What a process has had in memory at most, in bytes.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("alive");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

/// One byte of a header block can be a whole header of an HPACK table: it takes fifty times as
/// much in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_grow_in_memory_are_not_gathered() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let channel = connect(&server).await;
    assert_served(&channel).await;
    let before = peak(&server);
    let mut raw = Raw::begun(&server, &[]);
    raw.assert_open();
    let mut flood = Vec::new();
    for call in 0..250 {
        // `accept-charset`, without a value, from the static table (RFC 7541, appendix A).
        let block = [block_to(HEALTH, &[]), vec![0x80 | 15; 5_000]].concat();
        flood.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, &block));
    }
    // What HTTP/2 does not know: it is read, and TCP makes its window larger.
    for _ in 0..1_000 {
        raw.send(&frame(0xf0, 0, 0, &[0; 16_000]));
    }
    raw.assert_open();
    // All that fits between the two is there when the server goes on.
    server.pause();
    raw.0.set_nonblocking(true).expect("set");
    let mut sent = 0;
    while sent < flood.len()
        && let Ok(count) = raw.0.write(&flood[sent..])
    {
        sent += count;
    }
    raw.0.set_nonblocking(false).expect("set");
    let mut sending = raw.0.try_clone().expect("cloned");
    let sender = std::thread::spawn(move || sending.write_all(&flood[sent..]).is_ok());
    server.signal("CONT");
    let mut refused = 0;
    while refused < 250 {
        let (kind, flags, _) = raw.next().expect("open");
        if kind == HEADERS {
            assert_ne!(flags & END_STREAM, 0, "not refused");
            refused += 1;
        }
    }
    assert!(sender.join().expect("sent"));
    let after = peak(&server);
    println!("{sent} bytes at once; {} KiB before, {} KiB after", before >> 10, after >> 10);
    assert!(after < before + (48 << 20), "{before} bytes before, {after} after");
    raw.assert_open();
    assert_served(&channel).await;
}

#[test]
fn a_connection_has_256_streams() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let mut raw = Raw::begun(&server, &[]);
    let settings = loop {
        let (kind, flags, content) = raw.next().expect("open");
        if kind == SETTINGS && flags & ACK == 0 {
            break content;
        }
    };
    // By RFC 9113 section 6.5.1: two bytes that name it, and four of its value.
    let settings: BTreeMap<_, _> = settings
        .chunks_exact(6)
        .map(|one| (one[1], u32::from_be_bytes([one[2], one[3], one[4], one[5]])))
        .collect();
    assert_eq!(settings.get(&3), Some(&256), "SETTINGS_MAX_CONCURRENT_STREAMS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generated_client_of_health_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let mut health = HealthClient::new(connect(&server).await);
    for service in ["", "scopegate.v1.AuthorizationService", "scopegate.v1.BackupService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request.clone()).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        let mut watch = health.watch(request).await.expect("known").into_inner();
        let first = watch.message().await.expect("not cut off").expect("a message");
        assert_eq!(first.status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(health.check(unknown).await.expect_err("unknown").code(), Code::NotFound);
    let list = begin(&connect(&server).await, "/grpc.health.v1.Health/List", Body::empty()).await;
    assert_eq!(list.map(drop).expect_err("not there").code(), Code::Unimplemented);
}
