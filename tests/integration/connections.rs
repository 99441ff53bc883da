//! Connections over real sockets: which of them the server ends, how it tells their open calls,
//! what it keeps free when they are too many, and the signals that do not end it.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;

use crate::harness::raw::*;
use crate::harness::{Client, Server, bootstrap, free_address, refused, scopegate};
use http::uri::PathAndQuery;
use scopegate::proto::*;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

/// What the metrics port answers to these bytes.
fn ask(address: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("a connection");
    connection.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    connection.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("answered");
    text
}

/// The value of a series.
fn scraped(address: &str, series: &str) -> u64 {
    let text = ask(address, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).trim().parse().expect("a number")
}

/// Waits until something is so.
fn until(mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < WAIT_LIMIT, "it never was");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Waits for the end as a client does, which acknowledges it. Returns the code of the end.
fn parted(mut raw: Raw) -> Option<u8> {
    let mut why = None;
    while let Some((kind, flags, content)) = raw.next() {
        if kind == GOAWAY {
            why = Some(content[7]);
        }
        if kind == PING && flags == 0 {
            raw.send(&frame(PING, ACK, 0, &content));
        }
    }
    why
}

fn headers(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block_to(path, more))
}

/// A whole call with an empty message.
fn call_to(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let end = frame(DATA, END_STREAM, stream, &[0; 5]);
    [headers(stream, path, more), end].concat()
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const WATCH: &str = "/scopegate.v1.ChangeService/WatchChanges";
const KEYS: &str = "/scopegate.v1.KeyService/ListKeys";

#[test]
fn a_connection_is_kept_by_calls_that_are_accepted_and_by_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = format!("Bearer {}", bootstrap(dir.path()));
    let metrics = free_address();
    let server = Server::start(
        dir.path(),
        &[
            &["--worker-threads", "1", "--metrics", &metrics, "--first-call-timeout", "1s"][..],
            &["--idle-timeout", "4s", "--max-connection-age-grace", "1s"],
        ]
        .concat(),
    );
    let with_key = [("authorization", key.as_str())];
    let open = |bytes: &[u8]| {
        let mut raw = Raw::begun(&server, &[]);
        raw.send(bytes);
        raw.assert_open();
        raw
    };
    let streaming = open(&call_to(1, WATCH, &with_key));
    let called = open(&call_to(1, KEYS, &with_key));
    let (probing, watching) =
        (open(&call_to(1, HEALTH, &[])), open(&call_to(1, HEALTH_WATCH, &[])));
    let unaccepted = [
        ("nothing", open(&[])),
        ("a call without a key", open(&call_to(1, WATCH, &[]))),
        ("a call with another key", open(&call_to(1, KEYS, &[("authorization", "Bearer x")]))),
        ("no such call", open(&call_to(1, "/scopegate.v1.KeyService/Nothing", &with_key))),
        ("a call that is not ended", open(&headers(1, WATCH, &[]))),
    ];
    // Frames that are no calls, for as long as they are taken.
    let mut busy = open(&[]);
    let chatter = std::thread::spawn(move || {
        let some = [
            frame(PING, 0, 0, &[1; 8]),
            frame(SETTINGS, 0, 0, &[]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ];
        let mut sending = busy.0.try_clone().expect("cloned");
        let sender = std::thread::spawn(move || {
            while sending.write_all(&some.concat()).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        while busy.next().is_some() {}
        sender.join().expect("it ends");
    });
    for (what, raw) in unaccepted {
        assert_eq!(parted(raw), Some(0), "{what}: asked to end, without a fault");
    }
    let no_call = "scopegate_connections_ended_total{reason=\"no_call\"}";
    // These come to their end later.
    let mut probes = [("probe", probing), ("watch", watching)];
    probes.iter_mut().for_each(|(_, raw)| raw.assert_open());
    for (what, raw) in probes {
        assert_eq!(parted(raw), Some(0), "{what}: no proof of a caller, so not for ever");
    }
    until(|| scraped(&metrics, no_call) == 8);
    assert_eq!(parted(called), Some(0), "idle");
    assert_eq!(scraped(&metrics, "scopegate_connections_ended_total{reason=\"idle\"}"), 1);
    // It does not acknowledge its end, and so has longer.
    chatter.join().expect("it ends");
    let mut streaming = streaming;
    streaming.assert_open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_connection_was_idle_does_not_notice() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let args = ["--demo", "--metrics", &metrics, "--idle-timeout", "1s"];
    let server = Server::start(dir.path(), &args);
    let client = server.client().await;
    client.check("demo", "hr-sync", &["users:write"]).await;
    let idle = "scopegate_connections_ended_total{reason=\"idle\"}";
    // Both: then the client has been told.
    until(|| scraped(&metrics, idle) == 1 && scraped(&metrics, "scopegate_connections") == 0);
    client.check("demo", "hr-sync", &["users:write"]).await;
}

/// A shell that sets a limit of files, and becomes the server.
fn with_files(limit: &str) -> Command {
    let mut command = Command::new("sh");
    let binary = scopegate();
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(binary.get_program());
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The limit of files of a process: soft and hard.
fn files(server: &Server) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("alive");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let mut words = line.split_whitespace().skip(3).map(str::to_owned);
    (words.next().expect("soft"), words.next().expect("hard"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_limit_of_files_bounds_connections_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let args = ["--demo", "--worker-threads", "2", "--metrics", &metrics];
    let server = Server::start_by(with_files("-n 300"), dir.path(), &args);
    assert_eq!(server.logged("--max-connections was lowered"), 1);
    let client = server.client().await;
    client.check("demo", "hr-sync", &["users:write"]).await;
    let flood: Vec<_> =
        (0..400).map(|_| TcpStream::connect(&server.address).expect("queued")).collect();
    // Those above are closed, so that a read of one ends.
    for mut above in flood.iter().skip(200) {
        above.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
        assert!(matches!(above.read(&mut [0; 64]), Ok(0) | Err(_)));
    }
    let turned_away = "scopegate_connections_refused_total{reason=\"limit\"}";
    let count = scraped(&metrics, turned_away);
    // 150 of the limit, and eight of loopback addresses; one of them is the client's.
    assert_eq!(count, 400 + 1 - 158);
    assert_eq!(scraped(&metrics, "scopegate_connections_refused_total{reason=\"system\"}"), 0);
    client.check("demo", "hr-sync", &["users:write"]).await;
    client.create_company("acme", None).await;
    until(|| server.logged("connections were turned away") > 0);
    drop(flood);
    let (status, log) = server.end();
    assert!(status.success());
    let told: Vec<_> = log.iter().filter(|line| line.contains("turned away")).collect();
    assert!((1..=2).contains(&told.len()), "{told:?}");
}

#[tokio::test]
async fn the_limit_of_files_is_raised_as_far_as_it_may_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--demo", "--max-connections", "700"];
    let server = Server::start_by(with_files("-Sn 100"), dir.path(), &args);
    let (soft, hard) = files(&server);
    assert_eq!(soft, hard);
    if hard.parse::<u64>().is_ok_and(|hard| hard < 2_000) {
        println!("skipped: only {hard} files");
        return;
    }
    assert_eq!(server.logged("--max-connections was lowered"), 0);
    let _open: Vec<_> =
        (0..300).map(|_| TcpStream::connect(&server.address).expect("queued")).collect();
    server.client().await.check("demo", "hr-sync", &["users:write"]).await;
}

/// An address of this machine that is not a loopback one.
fn outer() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: only a route is looked for.
    socket.connect("192.0.2.77:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn peers_of_other_machines_do_not_keep_out_loopback_ones() {
    let Some(outer) = outer() else {
        println!("skipped: this machine has no address but loopback ones");
        return;
    };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let dir = tempfile::tempdir().expect("a directory");
        if TcpListener::bind(listen).is_err() {
            println!("skipped: {listen}");
            continue;
        }
        let server = Server::start(
            dir.path(),
            &["--listen", listen, "--demo", "--allow-unauthenticated", "--max-connections", "24"],
        );
        let port = server.address.parse::<SocketAddr>().expect("an address").port();
        let connect = |ip: IpAddr| {
            let tcp = TcpStream::connect(SocketAddr::new(ip, port)).expect("queued");
            tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
            tcp
        };
        let mut outer_peers: Vec<_> = (0..24).map(|_| Raw(connect(outer))).collect();
        for peer in &mut outer_peers {
            peer.send(PREFACE);
            peer.send(&frame(SETTINGS, 0, 0, &[]));
            peer.assert_open();
        }
        let mut above = connect(outer);
        assert!(matches!(above.read(&mut [0; 64]), Ok(0) | Err(_)), "turned away");
        let loopback = [127, 0, 0, 1].into();
        let local = Client::connect(&format!("http://{}", SocketAddr::new(loopback, port))).await;
        local.check("demo", "hr-sync", &["users:write"]).await;
        // One of the eight is the client's.
        let mut others: Vec<_> = (0..7).map(|_| Raw(connect(loopback))).collect();
        for other in &mut others {
            other.send(PREFACE);
            other.send(&frame(SETTINGS, 0, 0, &[]));
            other.assert_open();
        }
        let mut above = connect(loopback);
        assert!(matches!(above.read(&mut [0; 64]), Ok(0) | Err(_)), "these are bounded, too");
    }
}

#[test]
fn slow_peers_of_the_metrics_port_do_not_keep_a_scraper_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let _server = Server::start(dir.path(), &["--demo", "--metrics", &metrics]);
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(&metrics).expect("queued")).collect();
    let half: Vec<_> = (0..50)
        .map(|_| {
            let mut tcp = TcpStream::connect(&metrics).expect("queued");
            // One that was closed already does not take it.
            tcp.write_all(b"GET /metrics HTTP/1.1\r\nx-slow: ").ok();
            tcp
        })
        .collect();
    // And more of them all the time.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let address = metrics.clone();
    let flood = std::thread::spawn(move || {
        let mut open = Vec::new();
        let pause = std::time::Duration::from_millis(5);
        while stopped.recv_timeout(pause).is_err_and(|e| e == RecvTimeoutError::Timeout) {
            open.push(TcpStream::connect(&address).expect("queued"));
        }
    });
    for _ in 0..10 {
        assert_eq!(scraped(&metrics, "scopegate_ready"), 1);
    }
    drop(stop);
    flood.join().expect("it ends");
    // A head in drops: the time is for all of it.
    let mut drops = TcpStream::connect(&metrics).expect("queued");
    drops.write_all(b"GET /metrics HTTP/1.1\r\nx-slow: ").expect("sent");
    let mut sent = 0;
    while drops.write_all(b"x").is_ok() {
        sent += 1;
        assert!(sent < 1_500, "it was waited for");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for mut tcp in silent.into_iter().chain(half) {
        tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
        let mut rest = Vec::new();
        let read = tcp.read_to_end(&mut rest);
        let waited = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!waited, "closed");
    }
    let large = format!("GET /metrics HTTP/1.1\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    let mut tcp = TcpStream::connect(&metrics).expect("queued");
    tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    tcp.write_all(large.as_bytes()).ok();
    let mut said = [0; 12];
    if tcp.read_exact(&mut said).is_ok() {
        assert_eq!(&said, b"HTTP/1.1 431");
    }
    assert_eq!(scraped(&metrics, "scopegate_ready"), 1);
}

#[tokio::test]
async fn other_signals_do_not_stop_a_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = scopegate()
        .args(["serve", "--demo", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = child.id().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    };
    let mut log = BufReader::new(child.stderr.take().expect("a log")).lines();
    let mut next = || log.next().expect("a line").expect("a text");
    // While it is opening its store.
    while !next().contains("opening the store") {}
    for name in ["-HUP", "-USR1", "-USR2"] {
        signal(name);
    }
    while !next().contains("\"serving\"") {}
    for name in ["-USR1", "-USR2", "-HUP"] {
        signal(name);
    }
    while !next().contains("SIGHUP") {}
    signal("-TERM");
    let last = log.map_while(Result::ok).last().expect("a line");
    let last: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((&last["message"], &last["calls_cut"]), (&"drained".into(), &0.into()), "{last}");
    assert!(child.wait().expect("it ends").success());
}

/// Calls a method with as many messages as are sent, for as long as the sender lives, and returns
/// how the call ended.
async fn call<Q, A>(channel: Channel, path: &'static str, messages: mpsc::Receiver<Q>) -> Status
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let path = PathAndQuery::from_static(path);
    let request = Request::new(ReceiverStream::new(messages));
    let codec = ProstCodec::<Q, A>::default();
    let mut stream = match client.streaming(request, path, codec).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were complete"),
            Err(status) => return status,
        }
    }
}

/// Calls that do not end by themselves, of each kind, and how each ended. Those that are not
/// streams stay open because their message never comes.
struct Endless {
    calls: JoinSet<(&'static str, Status)>,
    _never: Vec<Box<dyn std::any::Any>>,
}

impl Endless {
    async fn begin(channel: &Channel, streams_alone: bool) -> Self {
        let mut all = Self { calls: JoinSet::new(), _never: vec![] };
        let watch = WatchChangesRequest { after_revision: 1 << 40, ..Default::default() };
        all.one::<_, WatchChangesResponse>(channel, WATCH, Some(watch)).await;
        let health = HealthCheckRequest::default();
        all.one::<_, HealthCheckResponse>(channel, HEALTH_WATCH, Some(health)).await;
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        all.one::<HealthCheckRequest, HealthCheckResponse>(channel, reflection, None).await;
        if streams_alone {
            return all;
        }
        let import = ImportCredentialsRequest {
            companies: vec![ImportedCompany {
                company_id: "imported".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let path = "/scopegate.v1.DirectoryService/ImportCredentials";
        all.one::<_, ImportCredentialsResponse>(channel, path, Some(import)).await;
        let path = "/scopegate.v1.AuthorizationService/Check";
        all.one::<CheckRequest, CheckResponse>(channel, path, None).await;
        let path = "/scopegate.v1.AuthorizationService/BatchCheck";
        all.one::<BatchCheckRequest, BatchCheckResponse>(channel, path, None).await;
        let path = "/scopegate.v1.DirectoryService/GetCompany";
        all.one::<GetCompanyRequest, GetCompanyResponse>(channel, path, None).await;
        all
    }

    async fn one<Q, A>(&mut self, channel: &Channel, path: &'static str, first: Option<Q>)
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let (send, messages) = mpsc::channel::<Q>(1);
        if let Some(first) = first {
            send.send(first).await.expect("taken");
        }
        let channel = channel.clone();
        self.calls.spawn(async move { (path, call::<Q, A>(channel, path, messages).await) });
        // A watch is not sent its message's end otherwise.
        if ![WATCH, HEALTH_WATCH].contains(&path) {
            self._never.push(Box::new(send));
        }
    }

    /// Waits until the server has begun them: a probe is not counted, nor is a stream that was
    /// answered.
    async fn have_begun(&self, metrics: &str) {
        let waiting = if self.calls.len() > 3 { 4 } else { 0 };
        while scraped(metrics, "scopegate_watch_streams") == 0
            || scraped(metrics, "scopegate_grpc_requests_in_flight") < waiting
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// How each ended, once all have.
    async fn ended(mut self) -> Vec<(&'static str, Code, String)> {
        let mut ends = Vec::new();
        while let Some(ended) = self.calls.join_next().await {
            let (path, status) = ended.expect("it ended");
            assert!(status.message().contains(" again"), "{path}: {status:?}");
            let (code, details) = refused(Err::<(), _>(status));
            ends.push((path, code, details.error_info().expect("why").reason.clone()));
        }
        ends
    }
}

async fn connected(server: &Server) -> Channel {
    let channel = crate::harness::endpoint(&server.url());
    channel.connect().await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_calls_get_a_status_when_the_grace_period_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--max-connection-age", "1s", "--max-connection-age-grace", "1s", "--demo"];
    let server = Server::start(dir.path(), &args);
    let channel = connected(&server).await;
    let all = Endless::begin(&channel, false).await;
    let ended = tokio::time::timeout(WAIT_LIMIT, all.ended()).await.expect("in time");
    assert_eq!(ended.len(), 7);
    for (path, code, reason) in ended {
        assert_eq!((code, reason.as_str()), (Code::Unavailable, "CONNECTION_ENDING"), "{path}");
    }
    server.client().await.check("demo", "hr-sync", &["users:write"]).await;
    let (status, log) = server.end();
    assert!(status.success());
    let last: serde_json::Value = serde_json::from_str(log.last().expect("a line")).expect("JSON");
    assert_eq!((&last["message"], &last["calls_cut"]), (&"drained".into(), &0.into()), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_open_calls_and_counts_those_that_it_cuts() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let args = ["--demo", "--drain-timeout", "1s", "--metrics", &metrics];
    let server = Server::start(dir.path(), &args);
    let all = Endless::begin(&connected(&server).await, false).await;
    let mut health = HealthClient::new(connected(&server).await);
    let mut watched =
        health.watch(HealthCheckRequest::default()).await.expect("watched").into_inner();
    let said = watched.message().await.expect("said").expect("one");
    assert_eq!(said.status(), ServingStatus::Serving);
    all.have_begun(&metrics).await;
    let (status, log) = tokio::task::spawn_blocking(move || server.end()).await.expect("ended");
    let ended = tokio::time::timeout(WAIT_LIMIT, all.ended()).await.expect("in time");
    assert_eq!(ended.len(), 7);
    for (path, code, reason) in ended {
        assert_eq!((code, reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"), "{path}");
    }
    let said = watched.message().await.expect("said").expect("one");
    assert_eq!(said.status(), ServingStatus::NotServing);
    let end = watched.message().await;
    assert_eq!(refused(end).0, Code::Unavailable);
    assert!(status.success());
    // Streams of the server's end with the drain, and an import ends itself.
    let last: serde_json::Value = serde_json::from_str(log.last().expect("a line")).expect("JSON");
    assert_eq!((&last["message"], &last["calls_cut"]), (&"drained".into(), &3.into()), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_do_not_hold_up_a_drain() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["serve", "--demo", "--listen", "127.0.0.1:0", "--drain-timeout", "600s"];
    let metrics = free_address();
    let mut child = scopegate()
        .args(args)
        .args(["--metrics", &metrics, "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(child.stderr.take().expect("a log")).lines();
    let address = loop {
        let line = log.next().expect("a line").expect("a text");
        if let Some((_, behind)) = line.split_once("serving address=") {
            break behind.split(' ').next().expect("an address").to_owned();
        }
    };
    let channel = crate::harness::endpoint(&format!("http://{address}"));
    let all = Endless::begin(&channel.connect().await.expect("connected"), true).await;
    all.have_begun(&metrics).await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    let ended = tokio::time::timeout(WAIT_LIMIT, all.ended()).await.expect("in time");
    assert!(ended.iter().all(|(_, code, _)| *code == Code::Unavailable), "{ended:?}");
    let last = tokio::task::spawn_blocking(move || log.map_while(Result::ok).last());
    let last = last.await.expect("read").expect("a line");
    assert!(last.ends_with("drained calls_cut=0"), "as text: {last}");
    assert!(child.wait().expect("it ends").success());
}

/// Writes a certificate that signs itself, and its key.
fn certify(cert: &Path, key: &Path) {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let signed = params.self_signed(&pair).expect("signed");
    std::fs::write(cert, signed.pem()).expect("written");
    std::fs::write(key, pair.serialize_pem()).expect("written");
}

#[test]
fn a_hangup_has_the_certificates_looked_at_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    certify(&cert, &key);
    let metrics = free_address();
    let mut args = vec!["--demo", "--metrics", &metrics];
    args.extend(["--tls-cert", cert.to_str().expect("a path")]);
    args.extend(["--tls-key", key.to_str().expect("a path")]);
    let server = Server::start(&dir.path().join("store"), &args);
    let warned = |count| until(|| server.logged("stay in use until this is fixed") == count);
    std::fs::write(&cert, "no certificate").expect("written");
    warned(1);
    // What is wrong is logged once, and again if it is asked for.
    server.signal("HUP");
    warned(2);
    certify(&cert, &key);
    server.signal("HUP");
    until(|| server.logged("the TLS files were reloaded") == 1);
    // Handshakes that fail are counted, and are no warnings.
    let mut raw = Raw::silent(&server);
    raw.send(b"no TLS at all, but plain text");
    raw.0.read_to_end(&mut Vec::new()).ok();
    let series = "scopegate_connections_refused_total{reason=\"tls_handshake\"}";
    until(|| scraped(&metrics, series) == 1);
    assert_eq!(server.logged("handshake"), 0);
}

#[test]
fn a_peer_that_takes_nothing_before_its_first_accepted_call_is_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    bootstrap(dir.path());
    let metrics = free_address();
    // Nothing else cuts it.
    let long = ["--first-call-timeout", "10m", "--idle-timeout", "10m", "--stall-timeout", "10m"];
    let args = [&["--demo", "--worker-threads", "1", "--metrics", &metrics][..], &long].concat();
    let server = Server::start(dir.path(), &args);
    // A small socket, and no table of headers: the refusals fill it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("set");
    let address: SocketAddr = server.address.parse().expect("an address");
    socket.connect(&address.into()).expect("connected");
    let mut raw: Raw = Raw(socket.into());
    raw.send(PREFACE);
    raw.send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
    until(|| scraped(&metrics, "scopegate_connections") == 1);
    let mut calls = (1_u32..).step_by(2).map(check);
    let refused = "scopegate_refused_callers_total{reason=\"KEY_REQUIRED\"}";
    for sent in (100..).step_by(100) {
        // No more than may be open at once.
        let bytes: Vec<u8> = (0..100).flat_map(|_| calls.next().expect("a call")).collect();
        let is_taken = raw.0.write_all(&bytes).is_ok();
        // Refused, or held back until the connection is cut.
        let is_cut = || scraped(&metrics, "scopegate_connections") == 0;
        until(|| is_cut() || is_taken && scraped(&metrics, refused) >= sent);
        if is_cut() {
            return;
        }
        assert!(sent < 1_000_000, "it takes everything");
    }
}
