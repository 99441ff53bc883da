//! Logs: what they say, and that no state of them hurts the server.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod harness;

use std::fs::{self, File};
use std::io::{PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use harness::raw::PATIENCE;
use harness::{Client, scopegate};
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
        let patience = Instant::now() + PATIENCE;
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

/// An address that is free now.
fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// Waits until something listens there.
fn wait_for(address: &str, running: &mut Running) {
    let patience = Instant::now() + PATIENCE;
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
    let patience = Instant::now() + PATIENCE;
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
    let endpoint = Channel::from_shared(format!("https://localhost:{port}")).expect("a URL");
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert));
    let patience = Instant::now() + PATIENCE;
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
    let (address, metrics) = (free(), free());
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
        "--cores",
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
    wait_metric(&metrics, "scopegate_store_open", |open| open == 1.0);
    let channel = tls_channel(&address, &first).await;
    let client = Client::over(channel.clone());
    assert_eq!(client.reason("demo", "hr-sync", &["users:write"]).await, Reason::Allowed);
    client.create_company("acme", None).await;
    let mut backup = BackupServiceClient::new(channel);
    let mut parts = backup.backup(BackupRequest::default()).await.expect("begun").into_inner();
    while parts.message().await.expect("a part").is_some() {}
    let end = metric(&metrics, "scopegate_tls_certificate_end_seconds").expect("an end");
    let second = certify(dir.path(), 2091);
    wait_metric(&metrics, "scopegate_tls_certificate_end_seconds", |now| now > end);
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
    let (file, none) = (text(&file), format!("http://{}", free()));
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
