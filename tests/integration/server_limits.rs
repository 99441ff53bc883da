//! Bounds of a real server: what is too much is refused at once, and the rest goes on.
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness;
use crate::harness::{Client, Server, refused, scopes_of};
use scopegate::proto::*;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn start(dir: &std::path::Path, args: &[&str]) -> Server {
    let catalog = harness::catalog("360learning.yaml");
    let catalog = catalog.to_str().expect("a path");
    Server::start(dir, &[&["--worker-threads", "1", "--catalog", catalog], args].concat())
}

/// A check that waits for a revision which does not come, for half a second.
async fn wait(client: Client) -> Result<CheckResponse, tonic::Status> {
    let request =
        CheckRequest { at_least_revision: 1 << 40, ..scopes_of("acme", "hr", &["users:read"]) };
    client.ask(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_above_the_bound_are_refused_at_once_and_health_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--max-in-flight", "4"]);
    let client = server.client().await;
    let channel = harness::endpoint(&server.url());
    let mut health = HealthClient::new(channel.connect().await.expect("a connection"));
    // Twice as many as may be under way: the first that is refused says that there is no room.
    let mut waiting: JoinSet<_> = (0..8).map(|_| wait(client.clone())).collect();
    let refusal = waiting.join_next().await.expect("eight").expect("ended");
    health.check(HealthCheckRequest::default()).await.expect("answered");
    let list = client.directory.clone().list_companies(ListCompaniesRequest::default()).await;
    let (code, details) = refused(refusal);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(details.retry_info().is_some());
    assert_eq!(refused(list).0, Code::ResourceExhausted, "any call counts");
    let mut ends = vec![code];
    while let Some(ended) = waiting.join_next().await {
        ends.push(refused(ended.expect("ended")).0);
    }
    let waited = ends.iter().filter(|code| **code == Code::Unavailable).count();
    assert_eq!(waited, 4, "those within the bound waited for what did not come: {ends:?}");
    client.ask(scopes_of("acme", "hr", &["users:read"])).await.expect("there is room again");
}

#[tokio::test]
async fn connections_above_the_bound_are_closed_and_the_others_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--max-connections", "2"]);
    let client = server.client().await;
    let _second = TcpStream::connect(&server.address).expect("accepted");
    client.check("acme", "hr", &["users:read"]).await;
    let mut third = TcpStream::connect(&server.address).expect("accepted by the kernel");
    let end = third.read(&mut [0; 64]);
    assert!(matches!(end, Ok(0) | Err(_)), "closed: {end:?}");
    client.check("acme", "hr", &["users:read"]).await;
}

#[tokio::test]
async fn an_old_connection_gets_goaway() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--max-connection-age", "1s"]);
    let mut raw = TcpStream::connect(&server.address).expect("accepted");
    // The preface and empty settings (RFC 9113 section 3.4).
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut said: Vec<u8> = Vec::new();
    // A GOAWAY frame (section 6.8): eight bytes, type 7, no flags, stream 0.
    while !said.windows(7).any(|frame| *frame == [0, 8, 7, 0, 0, 0, 0]) {
        let mut some = [0; 64];
        let count = raw.read(&mut some).expect("more");
        assert_ne!(count, 0, "closed without a word");
        said.extend(&some[..count]);
    }
    server.client().await.check("acme", "hr", &["users:read"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_health_probes_take_no_capacity_from_calls() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--max-in-flight", "4"]);
    let channel = harness::endpoint(&server.url());
    let channel = channel.connect().await.expect("a connection");
    let mut open = JoinSet::new();
    for _ in 0..8 {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        open.spawn(async move {
            grpc.ready().await.expect("ready");
            let never = tokio_stream::pending::<HealthCheckRequest>();
            let codec =
                tonic_prost::ProstCodec::<_, tonic_health::pb::HealthCheckResponse>::default();
            let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
            grpc.streaming(tonic::Request::new(never), path, codec).await.map(drop)
        });
    }
    // On the same connection, so that the probes have come before it is asked.
    let client = Client::over(channel);
    for _ in 0..20 {
        client.check("acme", "hr", &["users:read"]).await;
    }
    drop(open);
}
