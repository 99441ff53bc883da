//! Slow and hostile peers over real sockets: whoever begins something and does not end it is cut
//! off, whoever does not read costs a bounded amount, and everybody else is served meanwhile.
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::harness::raw::*;
use crate::harness::{Client, Server, refused, scopes_of};
use http::uri::PathAndQuery;
use scopegate::proto::*;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

fn start(dir: &std::path::Path, args: &[&str]) -> Server {
    Server::start(dir, &[&["--worker-threads", "1", "--demo"], args].concat())
}

async fn assert_served(client: &Client) {
    let reason = client.reason("demo", "hr-sync", &["users:write"]).await;
    assert_eq!(reason, Reason::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_stalls_is_disconnected() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--stall-timeout", "1s"]);
    let client = server.client().await;
    let mut idle = Raw::begun(&server, &[]);
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let (call, ping) = (check(1), frame(PING, 0, 0, &[0; 8]));
    let message = [frame(HEADERS, END_HEADERS, 1, &block()), frame(DATA, 0, 1, &[0; 90])].concat();
    let cases = [
        ("nothing", vec![]),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("half a frame's header", [&begun[..], &ping[..5]].concat()),
        ("half a frame", [&begun[..], &ping[..12]].concat()),
        ("half a header frame", [&begun[..], &call[..20]].concat()),
        ("half a header block", [&begun[..], &frame(HEADERS, 0, 1, &block())].concat()),
        ("half a second call", [&begun[..], &call, &check(3)[..20]].concat()),
        ("half a message", [&begun[..], &message[..message.len() - 20]].concat()),
    ];
    let open: Vec<_> = cases
        .iter()
        .map(|(what, bytes)| {
            let mut raw = Raw::silent(&server);
            raw.send(bytes);
            (*what, raw)
        })
        .collect();
    // While they are waited for.
    assert_served(&client).await;
    for (what, raw) in open {
        println!("{what}");
        raw.end();
    }
    // As silent as they for as long, but in the middle of nothing.
    idle.assert_open();
    assert_served(&client).await;
}

#[test]
fn a_frame_in_drops_is_cut_off_although_there_is_always_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--stall-timeout", "1s"]);
    let mut raw = Raw::begun(&server, &[]);
    let frame = frame(HEADERS, END_HEADERS, 1, &[0; 16_000]);
    raw.0.set_nonblocking(true).expect("set");
    for byte in frame {
        let mut some = [0; 1_000];
        let read = raw.0.read(&mut some);
        let ended = matches!(read, Ok(0))
            || read.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
        if ended || raw.0.write_all(&[byte]).is_err() {
            return;
        }
        // The drops: 16 000 of them take far longer than is allowed.
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it was waited for");
}

/// Calls a method with as many messages as are sent, for as long as the sender lives.
async fn call<Q, A>(
    channel: Channel,
    path: &'static str,
    messages: mpsc::Receiver<Q>,
) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let path = PathAndQuery::from_static(path);
    let request = Request::new(ReceiverStream::new(messages));
    client
        .client_streaming(request, path, ProstCodec::<Q, A>::default())
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_come_as_a_whole_is_ended_and_a_stream_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--request-timeout", "1s"]);
    let client = server.client().await;
    let channel = crate::harness::endpoint(&server.url());
    let channel = channel.connect().await.expect("connected");
    let company = |id: &str| ImportCredentialsRequest {
        companies: vec![ImportedCompany { company_id: id.to_owned(), ..Default::default() }],
        ..ImportCredentialsRequest::default()
    };
    // A stream is as slow as it likes.
    let (send, messages) = mpsc::channel(1);
    let path = "/scopegate.v1.DirectoryService/ImportCredentials";
    let import = call::<_, ImportCredentialsResponse>(channel.clone(), path, messages);
    let import = tokio::spawn(import);
    send.send(company("first")).await.expect("taken");

    let (never, silence) = mpsc::channel::<CheckRequest>(1);
    let (whole, no_end) = mpsc::channel::<CheckRequest>(1);
    whole.send(scopes_of("demo", "hr-sync", &["users:write"])).await.expect("taken");
    let (batch, no_batch) = mpsc::channel::<BatchCheckRequest>(1);
    let (get, no_get) = mpsc::channel::<GetCompanyRequest>(1);
    let (watch, no_watch) = mpsc::channel::<WatchChangesRequest>(1);
    let (health, no_health) = mpsc::channel::<HealthCheckRequest>(1);
    let check = "/scopegate.v1.AuthorizationService/Check";
    let mut calls = JoinSet::new();
    let [a, b, c, d, e, f] = std::array::from_fn(|_| channel.clone());
    calls.spawn(async move { call::<_, CheckResponse>(a, check, silence).await.map(drop) });
    calls.spawn(async move { call::<_, CheckResponse>(b, check, no_end).await.map(drop) });
    calls.spawn(async move {
        let path = "/scopegate.v1.AuthorizationService/BatchCheck";
        call::<_, BatchCheckResponse>(c, path, no_batch).await.map(drop)
    });
    calls.spawn(async move {
        let path = "/scopegate.v1.DirectoryService/GetCompany";
        call::<_, GetCompanyResponse>(d, path, no_get).await.map(drop)
    });
    calls.spawn(async move {
        let path = "/scopegate.v1.ChangeService/WatchChanges";
        call::<_, WatchChangesResponse>(e, path, no_watch).await.map(drop)
    });
    calls.spawn(async move {
        let path = "/grpc.health.v1.Health/Check";
        call::<_, HealthCheckResponse>(f, path, no_health).await.map(drop)
    });
    assert_served(&client).await;
    let mut left = calls.len();
    while left > 0 {
        let ended = tokio::time::timeout(WAIT_LIMIT, calls.join_next()).await;
        let ended = ended.expect("in time").expect("one more");
        left -= 1;
        let (code, details) = refused(ended.expect("ended"));
        assert_eq!(code, Code::DeadlineExceeded);
        assert_eq!(details.error_info().expect("why").reason, "REQUEST_TOO_SLOW");
    }
    drop((never, whole, batch, get, watch, health));

    send.send(company("second")).await.expect("still read");
    drop(send);
    let imported = import.await.expect("ended").expect("imported");
    assert_eq!(imported.created_company_count, 2);
    assert_served(&client).await;
}

/// More calls than may wait to be read.
const CALLS: u32 = 300_000;

/// The memory of a server, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("alive");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_never_reads_is_bounded_then_disconnected() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let client = server.client().await;
    assert_served(&client).await;
    let before = memory(&server);
    // Small windows, which the replies soon fill: calls above the most at once are refused, and
    // after many of those the connection ends. And the largest ones: the socket fills, and what
    // is not written is not made room for by reading.
    let mut wide = vec![0, 4];
    wide.extend(0x7fff_ffff_u32.to_be_bytes());
    let widen = frame(WINDOW_UPDATE, 0, 0, &(0x7fff_0000_u32).to_be_bytes());
    let mut open = Vec::new();
    for (settings, more) in [(&[][..], &[][..]), (&wide, &widen)] {
        let mut raw = Raw::begun(&server, settings);
        raw.send(more);
        raw.0.set_write_timeout(Some(Duration::from_secs(2))).expect("set");
        let mut sent = 0;
        // Until it is cut off, or nothing more is taken.
        for call in 0..CALLS {
            if raw.0.write_all(&check(2 * call + 1)).is_err() {
                break;
            }
            sent = call + 1;
        }
        println!("{sent} calls were taken; {} KiB in use", memory(&server) >> 10);
        assert!(sent < CALLS, "all were taken");
        open.push(raw);
    }
    let after = memory(&server);
    assert!(after < before + (32 << 20), "{before} bytes before, {after} after");
    assert_served(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_only_resets_calls_is_disconnected() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let client = server.client().await;
    let flood = |calls: u32| {
        let mut flood = Vec::new();
        for call in 0..calls {
            flood.extend(frame(HEADERS, END_HEADERS, 2 * call + 1, &block()));
            flood.extend(frame(RST_STREAM, 0, 2 * call + 1, &[0, 0, 0, 8]));
        }
        flood
    };
    let mut raw = Raw::begun(&server, &[]);
    raw.assert_open();
    // Few enough to be read at once, so that nothing hinders the last word.
    raw.send(&flood(40));
    assert_eq!(raw.end(), Some(ENHANCE_YOUR_CALM));
    let mut raw = Raw::begun(&server, &[]);
    let flood = flood(20_000);
    // It is cut off before all is sent.
    raw.0.write_all(&flood).ok();
    raw.end();
    assert_served(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_block_without_end_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let client = server.client().await;
    let before = memory(&server);
    let mut raw = Raw::begun(&server, &[]);
    raw.send(&frame(HEADERS, 0, 1, &block()));
    let name = frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat());
    let mut sent = 0_usize;
    while raw.0.write_all(&name).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "all of it was read");
    }
    assert!(memory(&server) < before + (32 << 20));
    assert_served(&client).await;
}

#[tokio::test]
async fn too_many_headers_are_refused_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let client = server.client().await;
    let with = |length: usize| {
        let mut request = Request::new(scopes_of("demo", "hr-sync", &["users:write"]));
        let value = "x".repeat(length);
        request.metadata_mut().insert("x-large", MetadataValue::try_from(value).expect("ascii"));
        request
    };
    client.authorization.clone().check(with(12 << 10)).await.expect("answered");
    let refusal = client.authorization.clone().check(with(20 << 10)).await.expect_err("refused");
    assert_eq!(refused(Err::<(), _>(refusal)).0, Code::ResourceExhausted);
    assert_served(&client).await;
}

/// Who is told that the connection ends, while calls of theirs are on the way, hears it: from
/// what they are told they know which calls were never begun, and make them again elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_is_sending_still_gets_goaway() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &[]);
    let mut raw = Raw::begun(&server, &[]);
    raw.assert_open();
    raw.send(&check(1));
    server.signal("TERM");
    // Told that there will be an end, and asked to say that this was heard.
    let said = loop {
        let (kind, flags, content) = raw.next().expect("open");
        if kind == PING && flags == 0 {
            break content;
        }
    };
    let mut bytes = frame(PING, ACK, 0, &said);
    let mut on_the_way = (3_u32..).step_by(2);
    bytes.extend((0..200).flat_map(|_| check(on_the_way.next().expect("a number"))));
    // And what HTTP/2 does not know, which needs no window.
    bytes.extend((0..300).flat_map(|_| frame(0xf0, 0, 0, &[0; 16_000])));
    let mut sending = raw.0.try_clone().expect("cloned");
    let sender = std::thread::spawn(move || {
        sending.write_all(&bytes)?;
        sending.shutdown(std::net::Shutdown::Write)
    });
    let (mut ended, mut last) = (false, None);
    loop {
        let mut header = [0; 9];
        match raw.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("cut off: {error}"),
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut content = vec![0; length as usize];
        raw.0.read_exact(&mut content).expect("a whole frame");
        if header[3] == GOAWAY {
            ended = true;
            last = Some(u32::from_be_bytes([content[0], content[1], content[2], content[3]]));
        }
    }
    assert!(ended);
    assert!(last < Some(u32::MAX >> 1), "which call was the last: {last:?}");
    sender.join().expect("it ends").expect("nothing that was sent was sent back");
    assert!(raw.0.take_error().expect("asked").is_none(), "no reset");
}
