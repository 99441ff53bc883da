//! A server whose store has a lease that ends, over real sockets: it answers no call that has no session,
//! and no call whose session ended before its answer left. Each test has a process of its own, because the
//! server in it takes the signals of the process.
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use prost::Message;
use scopegate::authority::operation::Effect;
use scopegate::proto::*;
use scopegate::server::args::ServeArgs;
use scopegate::server::run_under_lease;
use scopegate::store::boot_clock;
use scopegate::store::lease::Lease;
use scopegate::wire::access;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::authentication::{Call, call, reflected, wire};
use crate::harness::bytes_codec::BytesCodec;
use crate::harness::process::is_alone;
use crate::harness::{Client, Wire, bootstrap, catalog, free_address, http, refused};

const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
/// Longer than any test.
const HOUR: u64 = 3_600_000_000_000;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    serve: ServeArgs,
}

/// A server in this process, and the lease of its store.
struct Replica {
    url: String,
    oauth: String,
    metrics: String,
    lease: Arc<Lease>,
    session: AtomicU64,
    channel: Channel,
    key: String,
    _dir: tempfile::TempDir,
}

impl Replica {
    /// Starts a server, begins a session, and waits until the server serves.
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = bootstrap(dir.path());
        let (address, oauth, metrics) = (free_address(), free_address(), free_address());
        let flags = ["--data-dir", dir.path().to_str().expect("a path"), "--listen", &address];
        let catalog = catalog("360learning.yaml");
        let more = ["--catalog", catalog.to_str().expect("a path"), "--metrics", &metrics];
        let own = ["--oauth", &oauth, "--issuer", "https://id.example.org"];
        let words = ["serve"].into_iter().chain(flags).chain(more).chain(own);
        let args = Program::parse_from(words).serve;
        let lease = Arc::new(Lease::none());
        let of_server = Arc::clone(&lease);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(run_under_lease(args, of_server)).expect("it serves");
        });
        let url = format!("http://{address}");
        let endpoint = crate::harness::endpoint(&url);
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let session = AtomicU64::new(1);
        let replica = Self { url, oauth, metrics, lease, session, channel, key, _dir: dir };
        assert_eq!(replica.health("live").await, ServingStatus::Serving, "from the first moment");
        assert_eq!(replica.health("").await, ServingStatus::NotServing, "without a session");
        replica.begin(HOUR);
        replica.turns_to("", ServingStatus::Serving).await;
        replica
    }

    /// Begins a session of this many nanoseconds.
    fn begin(&self, time: u64) {
        let session = self.session.fetch_add(1, Ordering::Relaxed);
        assert!(self.lease.begin(session, boot_clock::now() + time), "a new session");
    }

    /// Another session takes the place of the present one.
    fn next_session(&self) {
        self.lease.end();
        self.begin(HOUR);
    }

    async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(self.channel.clone()).check(request).await;
        response.expect("health answers").into_inner().status()
    }

    /// Waits until a watch of this service has this status.
    async fn turns_to(&self, service: &str, status: ServingStatus) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let watch = HealthClient::new(self.channel.clone()).watch(request).await;
        let mut watch = watch.expect("health answers").into_inner();
        while watch.message().await.expect("goes on").expect("a status").status() != status {}
    }

    async fn wire(&self, key: Option<&str>) -> Wire {
        wire(&self.url, key).await
    }

    async fn client(&self) -> Client {
        Client::connect_as(&self.url, Some(&self.key)).await
    }

    /// Panics unless no call of anybody is answered.
    async fn assert_answers_nothing(&self, calls: &[Call]) {
        let unknown = "/scopegate.v1.KeyService/Nothing";
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        for key in [Some(self.key.as_str()), Some("sgk_wrong"), None] {
            let wire = self.wire(key).await;
            for of in calls {
                assert_cut_off(call(&wire, &of.path, of.naming("acme")).await, &of.path);
            }
            assert_cut_off(call(&wire, unknown, Bytes::new()).await, unknown);
            if key != Some(&self.key) {
                assert_cut_off(call(&wire, reflection, Bytes::new()).await, reflection);
            }
        }
        for line in [
            "POST /oauth2/token",
            "POST /oauth2/introspect",
            "POST /oauth2/revoke",
            "GET /oauth2/jwks",
            "HEAD /oauth2/jwks",
            "GET /.well-known/oauth-authorization-server",
            "GET /nothing",
        ] {
            let reply = http::send(&self.oauth, line, &[], "");
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{line}");
        }
    }
}

/// Panics unless an answer is that of a replica without a lease.
fn assert_cut_off<T: std::fmt::Debug>(answer: Result<T, Status>, what: &str) {
    let expected =
        (Code::Unavailable, "REPLICA_CUT_OFF".to_owned(), Some(Duration::from_millis(100)));
    assert_eq!(unavailable(answer, what), expected, "{what}");
}

/// Panics unless an answer is that of a replica whose lease ended during the call. The outcome of a change
/// is not known then.
fn assert_cut_off_later<T: std::fmt::Debug>(answer: Result<T, Status>, path: &str) {
    let operation = access::operation(path).expect("an operation");
    if operation.effect == Effect::Read {
        return assert_cut_off(answer, path);
    }
    let expected =
        (Code::Unavailable, "NOT_YET_EVERYWHERE".to_owned(), Some(Duration::from_secs(1)));
    assert_eq!(unavailable(answer, path), expected, "{path}");
}

/// The code, the reason and the retry delay of a refusal.
fn unavailable<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    what: &str,
) -> (Code, String, Option<Duration>) {
    assert!(answer.is_err(), "{what}: {answer:?}");
    let (code, details) = refused(answer);
    let reason = details.error_info().expect("a reason").reason.clone();
    (code, reason, details.retry_info().and_then(|retry| retry.retry_delay))
}

fn is_cut_off<T>(answer: &Result<T, Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.message().contains("has no lease"))
}

/// The answer to a call whose message is sent after `meanwhile`.
async fn call_with_a_late_message(
    wire: &Wire,
    path: &str,
    message: Bytes,
    meanwhile: impl FnOnce(),
) -> Result<Option<Bytes>, Status> {
    let (send, receive) = mpsc::channel(1);
    let mut grpc = tonic::client::Grpc::new(wire.clone());
    grpc.ready().await.expect("ready");
    let request = Request::new(ReceiverStream::new(receive));
    let path = path.to_owned().try_into().expect("a path");
    let mut answered = Box::pin(grpc.streaming(request, path, BytesCodec));
    // The server takes the calls of a connection in their order. `wire` and the second call share one.
    let mut second = tonic::client::Grpc::new(wire.clone());
    second.ready().await.expect("ready");
    let health = async {
        let request = HealthCheckRequest { service: "live".to_owned() };
        let path = "/grpc.health.v1.Health/Check".try_into().expect("a path");
        let request = Request::new(Bytes::from(request.encode_to_vec()));
        second.unary(request, path, BytesCodec).await.expect("health answers")
    };
    tokio::select! {
        biased;
        answer = &mut answered => panic!("answered before its message: {:?}", answer.err()),
        _ = health => {}
    }
    meanwhile();
    send.send(message).await.expect("taken");
    drop(send);
    answered.await?.into_inner().message().await
}

#[tokio::test]
async fn without_a_session_no_call_is_answered() {
    if !is_alone("cut_off::without_a_session_no_call_is_answered", &[]) {
        return;
    }
    let replica = Replica::start().await;
    let calls = reflected(&replica.url, &replica.key).await;
    let wire = replica.wire(Some(&replica.key)).await;
    for of in &calls {
        assert!(!is_cut_off(&call(&wire, &of.path, of.naming("acme")).await), "{}", of.path);
    }

    replica.lease.end();
    assert_eq!(replica.health("").await, ServingStatus::NotServing, "at once");
    replica.turns_to("", ServingStatus::NotServing).await;
    replica.turns_to("scopegate.v1.AuthorizationService", ServingStatus::NotServing).await;
    assert_eq!(replica.health("live").await, ServingStatus::Serving);
    replica.assert_answers_nothing(&calls).await;
    let still = reflected(&replica.url, &replica.key).await;
    assert_eq!(still.len(), calls.len(), "reflection answers");

    // A session whose time is over, and which nobody has ended.
    replica.begin(0);
    assert_eq!(replica.health("").await, ServingStatus::NotServing);
    replica.assert_answers_nothing(&calls).await;

    replica.next_session();
    assert_eq!(replica.health("").await, ServingStatus::Serving, "at once");
    replica.turns_to("", ServingStatus::Serving).await;
    assert!(!is_cut_off(&call(&wire, CHECK, Bytes::new()).await));
    assert_eq!(http::send(&replica.oauth, "GET /oauth2/jwks", &[], "").status, 200);

    let metrics = http::send(&replica.metrics, "GET /metrics", &[], "").body;
    let counted = metrics.lines().filter(|line| line.starts_with("scopegate_grpc_requests_total"));
    let counted: Vec<_> = counted.filter(|line| line.contains("UNAVAILABLE")).collect();
    for of in &calls {
        let method = of.path.rsplit('/').next().expect("a method");
        let is_counted = counted.iter().any(|line| line.contains(method) && line.ends_with(" 6"));
        assert!(is_counted, "{}: {counted:?}", of.path);
    }
}

#[tokio::test]
async fn call_whose_session_ended_before_its_answer_is_cut_off() {
    if !is_alone("cut_off::call_whose_session_ended_before_its_answer_is_cut_off", &[]) {
        return;
    }
    let replica = Replica::start().await;
    let calls = reflected(&replica.url, &replica.key).await;
    let wire = replica.wire(Some(&replica.key)).await;
    for of in &calls {
        let (path, message) = (of.path.as_str(), of.naming("acme"));
        let late = call_with_a_late_message(&wire, path, message.clone(), || {
            replica.next_session();
        });
        assert_cut_off_later(late.await, path);
        // A stream of changes has no end.
        if !path.contains("/Watch") {
            let late = call_with_a_late_message(&wire, path, message, || {}).await;
            assert!(!is_cut_off(&late), "{path}");
        }
    }

    // A change that is committed, too.
    let path = "/scopegate.v1.DirectoryService/CreateCompany";
    let new = CreateCompanyRequest { company_id: "acme".to_owned(), ..Default::default() };
    let message = Bytes::from(new.encode_to_vec());
    let late = call_with_a_late_message(&wire, path, message, || replica.next_session());
    assert_cut_off_later(late.await, path);
    let client = replica.client().await;
    let request = GetCompanyRequest { company_id: "acme".to_owned() };
    client.directory.clone().get_company(request).await.expect("it was created");
}

#[tokio::test]
async fn stream_whose_session_ended_sends_no_more_message() {
    if !is_alone("cut_off::stream_whose_session_ended_sends_no_more_message", &[]) {
        return;
    }
    let replica = Replica::start().await;
    let client = replica.client().await;
    client.create_company("acme", None).await;
    let watch = client.changes.clone().watch_changes(WatchChangesRequest::default()).await;
    let mut watch = watch.expect("a stream").into_inner();
    // All that there is so far.
    while watch
        .message()
        .await
        .expect("goes on")
        .expect("a message")
        .change
        .is_none_or(|change| change.company_id != "acme")
    {}
    let reflection = replica.wire(Some(&replica.key)).await;
    let services = MessageRequest::ListServices(String::new());
    let services = ServerReflectionRequest { host: String::new(), message_request: Some(services) };
    let (ask, asked) = mpsc::channel(1);
    let mut reflection = ServerReflectionClient::new(reflection);
    let reflected = reflection.server_reflection_info(ReceiverStream::new(asked));
    ask.send(services.clone()).await.expect("taken");
    let mut reflected = reflected.await.expect("a stream").into_inner();
    reflected.message().await.expect("an answer");

    replica.next_session();
    client.create_company("other", None).await;
    assert_cut_off(watch.message().await, "the stream of changes");
    ask.send(services.clone()).await.expect("taken");
    assert!(reflected.message().await.expect("goes on").is_some(), "reflection goes on");
}

#[tokio::test]
async fn oauth_request_whose_session_ended_before_its_answer_is_unavailable() {
    if !is_alone("cut_off::oauth_request_whose_session_ended_before_its_answer_is_unavailable", &[])
    {
        return;
    }
    let replica = Replica::start().await;
    for (path, meanwhile) in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"]
        .into_iter()
        .flat_map(|path| [(path, false), (path, true)])
    {
        let mut tcp = http::connect(&replica.oauth);
        let body = "token=x&grant_type=client_credentials";
        write!(
            tcp,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .expect("sent");
        let mut reader = BufReader::new(tcp.try_clone().expect("a handle"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("told to go on");
        assert!(line.contains("100"), "{line}");
        reader.read_line(&mut line).expect("the end of it");
        if meanwhile {
            replica.next_session();
        }
        tcp.write_all(body.as_bytes()).expect("sent");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a response");
        let reply = http::Reply::read(&text);
        assert_eq!(reply.status == 503, meanwhile, "{path}: {text}");
    }
}
