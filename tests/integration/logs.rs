//! Logs: what they say, and that no state of them hurts the server.
use std::fs::{self, File};
use std::io::{PipeReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::harness;
use crate::harness::raw::{self, Raw, WAIT_LIMIT};
use crate::harness::{Client, Server, bootstrap, free_address, scopegate, scopes_of};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use scopegate::proto::backup_service_client::BackupServiceClient;
use scopegate::proto::*;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

/// What is wrong with an output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// A pipe whose reader is gone.
    Gone,
    /// A full pipe whose reader reads nothing.
    Stuck,
    /// The same, where a write fails instead of waiting.
    StuckNonBlocking,
    /// The file descriptor is closed.
    Closed,
    /// A full disk.
    Full,
}

const BROKEN: [Broken; 5] =
    [Broken::Gone, Broken::Stuck, Broken::StuckNonBlocking, Broken::Closed, Broken::Full];

impl Broken {
    /// An output that is broken like this, and the reader to keep; none is closed.
    fn output(self) -> (Option<Stdio>, Option<PipeReader>) {
        match self {
            Self::Gone => (Some(std::io::pipe().expect("a pipe").1.into()), None),
            Self::Stuck | Self::StuckNonBlocking => {
                let (reader, mut writer) = std::io::pipe().expect("a pipe");
                let flags = fcntl_getfl(&writer).expect("flags");
                fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set");
                while writer.write(&[b'x'; 512]).is_ok() {}
                if self == Self::Stuck {
                    fcntl_setfl(&writer, flags).expect("set");
                }
                (Some(writer.into()), Some(reader))
            }
            Self::Closed => (None, None),
            Self::Full => {
                let full = File::options().write(true).open("/dev/full").expect("a device");
                (Some(full.into()), None)
            }
        }
    }

    /// Runs the binary with this standard error.
    fn run(self, args: &[&str]) -> Running {
        let mut command = match self {
            Self::Closed => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(scopegate().get_program());
                shell
            }
            _ => scopegate(),
        };
        let (output, reader) = self.output();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(output.unwrap_or(Stdio::null())).spawn().expect("started");
        Running { child, _reader: reader }
    }
}

/// A process, until it is dropped.
struct Running {
    child: Child,
    _reader: Option<PipeReader>,
}

impl Running {
    fn signal(&self, name: &str) {
        let (name, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(Command::new("kill").args([name, pid]).status().expect("kill runs").success());
    }

    /// Waits for its end, which must come by itself.
    fn ended(&mut self) -> ExitStatus {
        let patience = Instant::now() + WAIT_LIMIT;
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until something listens there.
fn wait_for(address: &str, running: &mut Running) {
    let patience = Instant::now() + WAIT_LIMIT;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = running.child.try_wait().expect("a child") {
            panic!("it ended: {status}");
        }
        assert!(Instant::now() < patience, "nothing listens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// The value of a metric.
fn metric(address: &str, name: &str) -> Option<f64> {
    let mut connection = TcpStream::connect(address).ok()?;
    write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    connection.read_to_string(&mut page).ok()?;
    let line = page.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until a metric has a value that is wanted.
fn wait_metric(address: &str, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let patience = Instant::now() + WAIT_LIMIT;
    loop {
        let value = metric(address, name);
        if let Some(value) = value.filter(|value| wanted(*value)) {
            return value;
        }
        assert!(Instant::now() < patience, "{name} is {value:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a certificate of this machine that ends in this year, and its key; returns the first.
fn certify(dir: &Path, year: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("names");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("signed").pem();
    fs::write(dir.join("cert.pem"), &cert).expect("written");
    write_private(&dir.join("key.pem"), &key.serialize_pem());
    cert
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
}

async fn tls_channel(address: &str, cert: &str) -> Channel {
    let port = address.rsplit(':').next().expect("a port");
    let endpoint = harness::endpoint(&format!("https://localhost:{port}"));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert));
    let patience = Instant::now() + WAIT_LIMIT;
    loop {
        match endpoint.clone().tls_config(tls.clone()).expect("TLS").connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts, answers, changes, backs up, reloads its certificate, drains and ends, all with a
/// standard error like this.
async fn live_with(broken: Broken, format: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, metrics) = (free_address(), free_address());
    let first = certify(dir.path(), 2090);
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let data = dir.path().join("data");
    let mut running = broken.run(&[
        "serve",
        "--demo",
        "--log-format",
        format,
        "--log",
        "debug",
        "--worker-threads",
        "1",
        "--data-dir",
        text(&data),
        "--listen",
        &address,
        "--metrics",
        &metrics,
        "--tls-cert",
        text(&cert),
        "--tls-key",
        text(&key),
    ]);
    wait_for(&metrics, &mut running);
    wait_metric(&metrics, "scopegate_ready", |open| open == 1.0);
    let channel = tls_channel(&address, &first).await;
    let client = Client::over(channel.clone());
    assert_eq!(client.reason("demo", "hr-sync", &["users:write"]).await, Reason::Allowed);
    client.create_company("acme", None).await;
    let mut backup = BackupServiceClient::new(channel);
    let mut parts = backup.backup(BackupRequest::default()).await.expect("begun").into_inner();
    while parts.message().await.expect("a part").is_some() {}
    let end =
        metric(&metrics, "scopegate_tls_certificate_not_after_timestamp_seconds").expect("an end");
    let second = certify(dir.path(), 2091);
    wait_metric(&metrics, "scopegate_tls_certificate_not_after_timestamp_seconds", |now| now > end);
    let client = Client::over(tls_channel(&address, &second).await);
    assert_eq!(client.reason("demo", "hr-sync", &["users:write"]).await, Reason::Allowed);
    drop(client);
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(0), "{broken:?} {format}");
    // Nothing of the log went where it does not belong.
    let mut again = scopegate();
    let again = again.args(["keys", "bootstrap", "--data-dir", text(&data)]).output();
    assert!(again.expect("run").status.success(), "the store is whole");
}

#[test]
fn a_log_that_cannot_be_written_never_hurts() {
    std::thread::scope(|scope| {
        for broken in BROKEN {
            for format in ["text", "json"] {
                // Each waits for its process: a thread of its own.
                scope.spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                    runtime.block_on(live_with(broken, format));
                });
            }
        }
    });
}

#[test]
fn exit_codes_are_the_same_without_a_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").expect("written");
    let (file, none) = (text(&file), format!("http://{}", free_address()));
    let none = none.as_str();
    let run = |broken: Broken| {
        for format in ["text", "json"] {
            let format = ["--log-format", format];
            let serve = |more: &[&'static str]| [&["serve"][..], &format, more].concat();
            for (args, code) in [
                (serve(&["--data-dir", "/dev/null/none", "--listen", "127.0.0.1:0"]), 74),
                (serve(&["--catalog", "/dev/null/none"]), 64),
                (serve(&["--no-such-flag"]), 64),
                (vec!["keys", "bootstrap", "--data-dir", file], 74),
                (vec!["health", "--endpoint", none], 2),
                (vec!["import", "/dev/null/none", "--endpoint", none], 2),
            ] {
                // A command waits for who reads what it says, as any does.
                if broken == Broken::Stuck && args[0] != "serve" {
                    continue;
                }
                let mut running = broken.run(&args);
                assert_eq!(running.ended().code(), Some(code), "{broken:?} {args:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        for broken in BROKEN {
            scope.spawn(move || run(broken));
        }
    });
}

/// A server with the demo's store and this decision log, and where its metrics are.
fn deciding(dir: &Path, log: &str, more: &[&str]) -> (Server, String) {
    let metrics = free_address();
    let args = ["--demo", "--decision-log", log, "--metrics", &metrics];
    (Server::start(&dir.join("data"), &[&args[..], more].concat()), metrics)
}

/// Waits until the log has so many lines with this in them.
fn wait_logged(server: &Server, part: &str, many: usize) {
    let patience = Instant::now() + WAIT_LIMIT;
    while server.logged(part) < many {
        assert!(Instant::now() < patience, "{} of {many} lines say `{part}`", server.logged(part));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks for a decision about a credential that there is not.
async fn deny(client: &Client, credential: &str) {
    assert_eq!(client.reason("demo", credential, &["users:read"]).await, Reason::CredentialUnknown);
}

/// The whole lines of a file, once there are so many that are JSON.
fn wait_lines(path: &Path, many: usize) -> Vec<serde_json::Value> {
    let patience = Instant::now() + WAIT_LIMIT;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() >= many {
            return lines;
        }
        assert!(Instant::now() < patience, "{} of {many} lines", lines.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

const WRITTEN: &str = "scopegate_decision_log_written_total";
const DROPPED: &str = "scopegate_decision_log_dropped_total";

#[tokio::test]
async fn a_line_of_the_decision_log_is_whole_and_has_a_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    fs::write(&log, "{\"time\":\"2026-01-01T00:00:00Z\",\"company_id\":\"de").expect("written");
    let (server, _) = deciding(dir.path(), text(&log), &[]);
    let client = server.client().await;
    let names: Vec<_> = (0..1_000).map(|n| format!("{}:{n}", "x".repeat(100))).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for some in [&names[..], &names[..20], &names[..21]] {
        client.ask(scopes_of("demo", "hr-sync", some)).await.expect("an answer");
    }
    let lines = wait_lines(&log, 3);
    let all = fs::read_to_string(&log).expect("text");
    assert_eq!(all.lines().count(), 4, "the torn line is its own");
    for (line, (count, asked)) in lines.iter().zip([(20, 1_000), (20, 20), (20, 21)]) {
        for (list, full) in [("scopes", "scopes_count"), ("missing_scopes", "missing_scopes_count")]
        {
            assert_eq!(line[list].as_array().map(Vec::len), Some(count), "{line}");
            let cut = (asked > 20).then_some(asked);
            assert_eq!(line[full].as_u64(), cut, "{line}");
        }
        assert!(line.to_string().len() < 8 << 10);
    }
    // A reader of the log does not take the names that are there for all.
    let explain = |more: &[&str]| {
        let mut command = scopegate();
        let command = command.args(["explain", "demo", "hr-sync"]).args(more);
        let command = command.args(["--decision-log", text(&log), "--endpoint", &server.url()]);
        let output = command.output().expect("run");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let (code, said) = explain(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the check had 21 scopes"), "{said}");
    let (_, said) = explain(&[names[20]]);
    assert!(said.contains("decided a check of 21 scopes"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_sighup_loses_nothing_and_leaves_the_old_file_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let log = path("decisions.jsonl");
    let (server, metrics) = deciding(dir.path(), text(&log), &[]);
    let client = server.client().await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0..300 {
                deny(&client, &format!("c-{n}")).await;
            }
        }
    });
    for rotation in 1..=3 {
        wait_lines(&log, 1);
        fs::rename(&log, path(&format!("old-{rotation}"))).expect("moved");
        server.signal("HUP");
        wait_logged(&server, "the decision log was opened again", rotation);
        let old = || (1..=rotation).map(|n| fs::metadata(path(&format!("old-{n}"))).unwrap().len());
        let before: Vec<_> = old().collect();
        deny(&client, &format!("after-{rotation}")).await;
        wait_lines(&log, 1);
        assert_eq!(before, old().collect::<Vec<_>>(), "the old file is left alone");
    }
    asking.await.expect("answered");
    wait_metric(&metrics, WRITTEN, |written| written == 303.0);
    let files = ["old-1", "old-2", "old-3", "decisions.jsonl"];
    let mut all: Vec<_> = files.iter().flat_map(|name| wait_lines(&path(name), 1)).collect();
    all.retain(|line| line["credential_id"].as_str().expect("an id").starts_with("c-"));
    let ids: Vec<_> = all.iter().map(|line| line["credential_id"].clone()).collect();
    assert_eq!(ids, (0..300).map(|n| format!("c-{n}")).collect::<Vec<_>>(), "each, in order");
    // What cannot be opened leaves the old one in force.
    fs::rename(&log, path("old-4")).expect("moved");
    fs::create_dir(&log).expect("made");
    server.signal("HUP");
    wait_logged(&server, "the old file is still written", 1);
    deny(&client, "last").await;
    wait_metric(&metrics, WRITTEN, |written| written == 304.0);
    let last = fs::read_to_string(path("old-4")).expect("text");
    assert!(last.lines().last().is_some_and(|line| line.contains("\"last\"")));
}

#[tokio::test]
async fn lost_decision_log_entries_are_counted_at_the_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, metrics) = deciding(dir.path(), "/dev/full", &[]);
    let client = server.client().await;
    for n in 0..10 {
        deny(&client, &format!("c-{n}")).await;
    }
    wait_metric(&metrics, DROPPED, |dropped| dropped == 10.0);
    assert_eq!(metric(&metrics, WRITTEN), Some(0.0));
    wait_logged(&server, "the decision log cannot be written", 1);
    assert_eq!(server.end().1.iter().filter(|line| line.contains("cannot be written")).count(), 1);
}

#[tokio::test]
async fn a_decision_log_of_too_many_bytes_a_second_drops_and_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    let bound = ["--decision-log-bytes-per-second", "65536"];
    let (server, metrics) = deciding(dir.path(), text(&log), &bound);
    let client = server.client().await;
    // Each line has about 5 KB.
    let names: Vec<_> = (0..20).map(|n| format!("{}:{n}", "x".repeat(100))).collect();
    let check = CheckRequest { scopes: names, ..scopes_of("demo", "hr-sync", &[]) };
    let batch = BatchCheckRequest { checks: vec![check; 100] };
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    let dropped = || metric(&metrics, DROPPED).expect("a count");
    let written = wait_metric(&metrics, WRITTEN, |written| written + dropped() == 100.0);
    assert!((10.0..50.0).contains(&written), "{written}");
    wait_logged(&server, "--decision-log-bytes-per-second", 1);
}

#[tokio::test]
async fn a_named_pipe_without_a_reader_holds_up_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("run").success());
    let (server, metrics) = deciding(dir.path(), text(&pipe), &[]);
    let client = server.client().await;
    deny(&client, "unread").await;
    wait_metric(&metrics, DROPPED, |dropped| dropped == 1.0);
    // A reader comes.
    let flags = OFlags::NONBLOCK | OFlags::RDONLY;
    let reader = rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).expect("opened");
    let mut reader = File::from(reader);
    deny(&client, "read").await;
    wait_metric(&metrics, WRITTEN, |written| written == 1.0);
    let mut read = [0; 4096];
    let count = reader.read(&mut read).expect("read");
    assert!(String::from_utf8_lossy(&read[..count]).contains("\"read\""));
    // It stops to read: decisions go on, and so does the end.
    let names: Vec<_> = (0..20).map(|n| format!("{}:{n}", "x".repeat(100))).collect();
    let check = CheckRequest { scopes: names, ..scopes_of("demo", "hr-sync", &[]) };
    let batch = BatchCheckRequest { checks: vec![check; 100] };
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    deny(&client, "stuck").await;
    server.signal("HUP");
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log:?}");
    drop(reader);
}

#[test]
fn unread_standard_output_blocks_nothing() {
    std::thread::scope(|scope| {
        for broken in [Broken::Gone, Broken::Stuck, Broken::StuckNonBlocking, Broken::Full] {
            scope.spawn(move || {
                let dir = tempfile::tempdir().expect("a directory");
                let (address, data) = (free_address(), dir.path().join("data"));
                let (stdout, _reader) = broken.output();
                let mut command = scopegate();
                command.args(["serve", "--demo", "--decision-log", "-", "--listen", &address]);
                command.args(["--data-dir", text(&data)]).stdout(stdout.expect("an output"));
                let child = command.stderr(Stdio::null()).spawn().expect("started");
                let mut running = Running { child, _reader };
                wait_for(&address, &mut running);
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    let client = Client::connect(&format!("http://{address}")).await;
                    let check = || client.ask(scopes_of("demo", "hr-sync", &["users:write"]));
                    // The store may still be closed.
                    let patience = Instant::now() + WAIT_LIMIT;
                    while check().await.is_err() {
                        assert!(Instant::now() < patience, "no answer");
                    }
                    for n in 0..100 {
                        deny(&client, &format!("c-{n}")).await;
                    }
                });
                running.signal("TERM");
                assert_eq!(running.ended().code(), Some(0), "{broken:?}");
            });
        }
    });
}

/// Makes a key: its text, and its id.
async fn key_of(
    operator: &Client,
    roles: &[Role],
    companies: &[&str],
    over: bool,
) -> (String, String) {
    let request = CreateKeyRequest {
        name: "someone".to_owned(),
        roles: roles.iter().map(|role| *role as i32).collect(),
        company_ids: harness::owned(companies),
        expires_at: over.then_some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..CreateKeyRequest::default()
    };
    let made = operator.keys.clone().create_key(request).await.expect("made").into_inner();
    (made.secret, made.key.expect("a key").key_id)
}

/// The events of a log about refused callers.
fn refusals(log: &[String]) -> Vec<serde_json::Value> {
    let events = log.iter().map(|line| serde_json::from_str(line).expect("JSON"));
    events.filter(|event: &serde_json::Value| event["target"] == "scopegate::access").collect()
}

#[tokio::test]
async fn refused_callers_are_logged_without_secrets() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let operator = bootstrap(&data);
    let metrics = free_address();
    let server = Server::start(&data, &["--demo", "--metrics", &metrics]);
    let url = server.url();
    let all = Client::connect_as(&url, Some(&operator)).await;
    all.create_company("other", None).await;
    let (service, service_id) = key_of(&all, &[Role::Service], &["demo"], false).await;
    let (expired, expired_id) = key_of(&all, &[Role::Service], &[], true).await;
    let (deleted, deleted_id) = key_of(&all, &[Role::Service], &[], false).await;
    let gone = Client::connect_as(&url, Some(&deleted)).await;
    let request = DeleteKeyRequest { key_id: deleted_id.clone(), ..DeleteKeyRequest::default() };
    all.keys.clone().delete_key(request).await.expect("deleted");
    let check = |company: &str| scopes_of(company, "hr-sync", &["users:read"]);
    let wrong = format!("sgk_{}_{}", &deleted_id, "0".repeat(64));
    for key in [None, Some(&expired), Some(&wrong), Some(&"hunter2".to_owned())] {
        let client = Client::connect_as(&url, key.map(String::as_str)).await;
        client.ask(check("demo")).await.expect_err("refused");
        client.credential("demo", "hr-sync").await.expect_err("refused");
    }
    gone.ask(check("demo")).await.expect_err("refused");
    let bound = Client::connect_as(&url, Some(&service)).await;
    // Of another company, on a worker and on the background runtime.
    bound.ask(check("other")).await.expect_err("refused");
    let batch = BatchCheckRequest { checks: vec![check("demo"), check("other")] };
    bound.authorization.clone().batch_check(batch).await.expect_err("refused");
    let secret = VerifySecretRequest { company_id: "other".to_owned(), ..Default::default() };
    bound.directory.clone().verify_secret(secret).await.expect_err("refused");
    // Without the role.
    bound.credential("demo", "hr-sync").await.expect_err("refused");
    // What is let in leaves no line, whatever it is answered.
    bound.check("demo", "hr-sync", &["users:read"]).await;
    all.credential("demo", "nobody").await.expect_err("none");
    let total = |reason: &str| {
        metric(&metrics, &format!("scopegate_refused_callers_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!(total("KEY_REQUIRED"), Some(2.0));
    assert_eq!(total("COMPANY_NOT_PERMITTED"), Some(3.0));
    let (_, log) = server.end();
    let told = refusals(&log);
    let check = "scopegate.v1.AuthorizationService/Check";
    let get = "scopegate.v1.DirectoryService/GetCredential";
    let batch = "scopegate.v1.AuthorizationService/BatchCheck";
    let verify = "scopegate.v1.DirectoryService/VerifySecret";
    let (expired_id, service_id) = (Some(expired_id.as_str()), Some(service_id.as_str()));
    let deleted_id = Some(deleted_id.as_str());
    let wanted = [
        ("KEY_REQUIRED", None, check),
        ("KEY_REQUIRED", None, get),
        ("KEY_EXPIRED", expired_id, check),
        ("KEY_EXPIRED", expired_id, get),
        ("KEY_UNKNOWN", deleted_id, check),
        ("KEY_UNKNOWN", deleted_id, get),
        ("KEY_UNKNOWN", None, check),
        ("KEY_UNKNOWN", None, get),
        ("COMPANY_NOT_PERMITTED", service_id, check),
        ("COMPANY_NOT_PERMITTED", service_id, batch),
        ("COMPANY_NOT_PERMITTED", service_id, verify),
        ("ROLE_NOT_PERMITTED", service_id, get),
    ];
    for (reason, key, method) in wanted {
        let found = told.iter().any(|event| {
            let peer = event["peer"].as_str().unwrap_or_default();
            event["level"] == "INFO"
                && event["reason"] == reason
                && event["method"] == method
                && event["key_id"].as_str() == key
                && peer.starts_with("127.0.0.1:")
        });
        assert!(found, "{reason} {key:?} {method}: {told:?}");
    }
    // The deleted key was refused as the wrong one of its id was: one line, and one in a count.
    let singles = told.iter().filter(|event| event["count"].is_null()).count();
    let counted: u64 = told.iter().filter_map(|event| event["count"].as_u64()).sum();
    assert_eq!((singles + counted as usize), wanted.len() + 1, "{told:?}");
    for secret in [&operator, &service, &expired, &deleted, &wrong] {
        let (_, random) = secret.rsplit_once('_').expect("a random part");
        assert!(log.iter().all(|line| !line.contains(random) && !line.contains("hunter2")));
    }
}

#[tokio::test]
async fn a_flood_of_refused_callers_is_counted_and_not_listed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    bootstrap(&data);
    let server = Server::start(&data, &["--demo"]);
    let mut floods = tokio::task::JoinSet::new();
    for n in 0..10 {
        let client = Client::connect_as(&server.url(), None).await;
        floods.spawn(async move {
            for m in 0..300 {
                // Each with another key.
                let key = format!("sgk_{n:012x}{m:012x}_{}", "0".repeat(64));
                let mut request =
                    tonic::Request::new(scopes_of("demo", "hr-sync", &["users:read"]));
                let key = format!("Bearer {key}").parse().expect("a header");
                request.metadata_mut().insert("authorization", key);
                client.authorization.clone().check(request).await.expect_err("refused");
            }
        });
    }
    while let Some(one) = floods.join_next().await {
        one.expect("refused");
    }
    // It is told of while the server goes on.
    wait_logged(&server, "more callers were refused", 1);
    let (_, log) = server.end();
    let told = refusals(&log);
    let singles = told.iter().filter(|event| event["count"].is_null()).count() as u64;
    let counted: u64 = told.iter().filter_map(|event| event["count"].as_u64()).sum();
    assert_eq!(singles + counted, 3_000, "each is in a line or in a count");
    assert!((20..100).contains(&singles), "{singles}");
    let size: usize = log.iter().map(String::len).sum();
    assert!(size < 100 << 10, "{size} bytes");
}

#[tokio::test]
async fn clients_without_a_good_certificate_are_logged() {
    let dir = tempfile::tempdir().expect("a directory");
    let server_cert = certify(dir.path(), 2090);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, metrics) = (path("cert.pem"), path("key.pem"), free_address());
    let args = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &cert];
    let args = [&args[..], &["--metrics", &metrics]].concat();
    let server = Server::start(&dir.path().join("data"), &args);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let (other, key) = (other.cert.pem(), other.signing_key.serialize_pem());
    let port = server.address.rsplit(':').next().expect("a port");
    for (shown, why) in [
        (None, "CLIENT_CERTIFICATE_REQUIRED"),
        (Some(tonic::transport::Identity::from_pem(other, key)), "CLIENT_CERTIFICATE_INVALID"),
    ] {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&server_cert));
        if let Some(shown) = shown {
            tls = tls.identity(shown);
        }
        let endpoint = harness::endpoint(&format!("https://localhost:{port}"));
        if let Ok(channel) = endpoint.tls_config(tls).expect("TLS").connect().await {
            // The client may take the handshake for done before it is refused.
            Client::over(channel).ask(scopes_of("a", "b", &["c:d"])).await.expect_err("refused");
        }
        wait_logged(&server, why, 1);
    }
    let (_, log) = server.end();
    let told = refusals(&log);
    let mut singles = told.iter().filter(|event| event["count"].is_null());
    assert!(singles.all(|event| event["peer"].as_str().is_some_and(|p| p.contains("127.0.0.1:"))));
}

#[test]
fn h2_warnings_do_not_fill_the_log() {
    let attack = |server: &Server| {
        for _ in 0..5 {
            let mut raw = Raw::begun(server, &[]);
            let mut bytes = vec![];
            for stream in (1..400).step_by(2) {
                bytes.extend(raw::frame(raw::HEADERS, raw::END_HEADERS, stream, &raw::block()));
                bytes.extend(raw::frame(raw::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            // The server may end the connection before it has read all.
            raw.0.write_all(&bytes).ok();
            raw.end();
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let named = Server::start(&dir.path().join("named"), &["--log", "info,h2=warn"]);
    attack(&named);
    wait_logged(&named, "\"target\":\"h2", 5);
    let server = Server::start(&dir.path().join("data"), &[]);
    attack(&server);
    let (_, log) = server.end();
    assert!(log.iter().all(|line| line.contains("\"target\":\"scopegate")), "{log:?}");
}

#[test]
fn a_key_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    let (data, cert, key) =
        (dir.path().join("data"), dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let secret = dir.path().join("operator.key");
    write_private(&secret, &bootstrap(&data));
    certify(dir.path(), 2090);
    let args = ["--tls-cert", text(&cert), "--tls-key", text(&key)];
    let server = Server::start(&data, &args);
    let health = || {
        let mut command = scopegate();
        let url = server.url().replace("http://127.0.0.1", "https://localhost");
        command.args(["health", "--endpoint", &url, "--ca", text(&cert)]);
        let output = command.args(["--key-file", text(&secret)]).output().expect("run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert_eq!(health(), "");
    open(&secret, 0o644);
    assert!(health().contains("--key-file") && health().contains("chmod 600"), "{}", health());
    assert_eq!(server.logged("chmod 600"), 0);
    // One that is reloaded, and one that is there at the start.
    open(&key, 0o644);
    certify(dir.path(), 2091);
    wait_logged(&server, "can be read by every user of this machine", 1);
    drop(server);
    let server = Server::start(&data, &args);
    wait_logged(&server, "can be read by every user of this machine", 1);
}
