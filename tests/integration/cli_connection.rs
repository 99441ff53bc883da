//! Reaching a server from the command line: how its address is written, what answers there instead,
//! the files and variables that say who asks, and how a failure is told to people and to programs.
//! Real servers over real sockets.
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::ca::Ca;
use crate::harness::proxy::Proxy;
use crate::harness::{Server, scopegate};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{CertificateParams, date_time_ymd};
use scopegate::proto::CreateCompanyRequest;
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A directory, which is also the home of the commands.
fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn command(home: &Path, line: &str) -> Command {
    let mut command = scopegate();
    command.env("XDG_CONFIG_HOME", home).args(line.split_whitespace()).stdin(Stdio::null());
    command
}

/// How a command ended: its exit code, and what it wrote.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ended {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A command that fails says so in one sentence, which has this.
fn fails(command: &mut Command, says: &str) -> String {
    let ended = run(command);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains(says), "{says}: {}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    assert_eq!(ended.out, "");
    ended.err
}

fn works(command: &mut Command) -> String {
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out
}

/// A server that ends at once: why, in one sentence, with exit code 64.
fn refuses_to_serve(command: &mut Command, says: &str) {
    let ended = run(command);
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    let last = ended.err.lines().last().expect("a line");
    assert!(last.contains(says), "{says}: {}", ended.err);
}

fn health(home: &Path, endpoint: &str) -> Command {
    let mut health = command(home, "health --timeout 5s");
    health.args(["--endpoint", endpoint]);
    health
}

/// A port at which every connection gets these bytes, once it has sent some, and is closed.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut some = [0; 1024];
                let read = connection.read(&mut some).unwrap_or(0);
                if read > 0 && !bytes.is_empty() {
                    connection.write_all(bytes).ok();
                }
                connection.shutdown(Shutdown::Write).ok();
                // So that it is no reset.
                while connection.read(&mut some).is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

/// A port that no server listens at.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

impl Ca {
    /// Writes a certificate and its key.
    fn pair_files(&self, dir: &Path, file: &str, name: &str, until: i32) -> [String; 2] {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let pair = self.sign(&params);
        [
            write(dir, &format!("{file}.pem"), pair.cert.as_bytes()),
            write(dir, &format!("{file}.key"), pair.key.as_bytes()),
        ]
    }

    fn file(&self, dir: &Path, name: &str) -> String {
        write(dir, name, self.pem().as_bytes())
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
    path.display().to_string()
}

fn serve_tls(dir: &Path, pair: &[String; 2], more: &[&str]) -> Server {
    let tls = ["--demo", "--tls-cert", &pair[0], "--tls-key", &pair[1]];
    Server::start(dir, &[&tls[..], more].concat())
}

#[test]
fn an_address_is_a_host_and_a_port_or_a_url_wherever_it_is_written() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let port = server.address.rsplit_once(':').expect("a port").1;
    for endpoint in [
        server.address.clone(),
        format!("localhost:{port}"),
        format!("{}/", server.address),
        format!("http://{}/", server.address),
        format!("HTTP://localhost:{port}"),
    ] {
        assert_eq!(works(&mut health(home.path(), &endpoint)), "SERVING\n", "{endpoint}");
        let mut by_variable = command(home.path(), "health");
        assert_eq!(works(by_variable.env("SCOPEGATE_ENDPOINT", &endpoint)), "SERVING\n");
    }
    for (endpoint, says) in [
        ("grpc://localhost:1", "begin with http:// or https://"),
        ("dns:///localhost:1", "begin with http:// or https://"),
        ("::1", "`[::1]:50051`"),
        (":50051", "`localhost:50051`"),
        ("localhost:x", "from 1 to 65535"),
        ("http://localhost:1/v1", "leave `/v1` out"),
        ("me:pw@localhost:1", "--key-file"),
    ] {
        fails(&mut health(home.path(), endpoint), says);
        fails(command(home.path(), "health").env("SCOPEGATE_ENDPOINT", endpoint), says);
        let file = format!("current: a\ncontexts: {{ a: {{ endpoint: {endpoint:?} }} }}\n");
        let file = write(home.path(), "config.yaml", file.as_bytes());
        fails(command(home.path(), "health").env("SCOPEGATE_CONFIG", file), says);
    }
    let file = format!("current: a\ncontexts: {{ a: {{ endpoint: {:?} }} }}\n", server.address);
    let file = write(home.path(), "config.yaml", file.as_bytes());
    works(command(home.path(), "health").env("SCOPEGATE_CONFIG", file));
    // Without a port it is the usual one.
    let mut usual = health(home.path(), "[::1]");
    let ended = run(usual.args(["--ca", "/dev/null/none"]));
    assert!(
        ended.err.contains("--ca"),
        "an address alone with --ca is asked by TLS: {}",
        ended.err
    );
}

/// A server that refuses each call as unavailable, for these reasons in turn, and the last one again.
struct RefusingServer {
    address: String,
    /// The messages of the requests so far.
    requests: Arc<Mutex<Vec<Bytes>>>,
}

impl RefusingServer {
    async fn start(reasons: &'static [&'static str]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                let answer = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                    let received = Arc::clone(&received);
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let mut received = received.lock().expect("requests");
                        received.push(body.slice(5..));
                        let reason = reasons[received.len().min(reasons.len()) - 1];
                        let details = ErrorDetails::with_error_info(reason, "scopegate", []);
                        let status = Status::with_error_details(Code::Unavailable, reason, details);
                        Ok::<_, hyper::Error>(status.into_http::<String>())
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Bytes> {
        self.requests.lock().expect("requests").clone()
    }
}

#[test]
fn address_without_a_server_is_passed_over_wherever_the_list_is_written() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let list = format!("{}, {},{}", closed(), server.url(), closed());
    for line in ["health", "check demo hr-sync users:read", "company create acme", "export"] {
        works(command(home.path(), line).args(["--endpoint", &list]));
    }
    works(command(home.path(), "health").env("SCOPEGATE_ENDPOINT", &list));
    let file = format!("current: a\ncontexts: {{ a: {{ endpoint: {list:?} }} }}\n");
    let file = write(home.path(), "config.yaml", file.as_bytes());
    works(command(home.path(), "health").env("SCOPEGATE_CONFIG", file));

    let (one, two) = (closed(), closed());
    let mut check = command(home.path(), "check demo hr-sync users:read --output json");
    let failed = fails(check.args(["--endpoint", &format!("{one},{two}")]), &one);
    let line: Value = serde_json::from_str(&failed).expect("JSON");
    assert_eq!(line["error"]["reason"], "UNREACHABLE", "{line}");
    assert!(failed.contains(&two), "{failed}");
    fails(&mut health(home.path(), &format!("{},", server.address)), "HOST:PORT");
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_call_is_sent_to_the_next_address_once() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let away = RefusingServer::start(&["REPLICA_CUT_OFF"]).await;
    let list = format!("{},{}", away.address, server.address);
    let run_with = |line: &str, list: &str| {
        let mut command = command(home.path(), line);
        tokio::task::block_in_place(|| run(command.args(["--endpoint", list])))
    };
    for line in ["check demo hr-sync users:read", "health", "company create acme", "export"] {
        let before = away.requests().len();
        let ended = run_with(line, &list);
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.err);
        // Later calls of the command begin at the server that answered.
        assert_eq!(away.requests().len(), before + 1, "{line}");
    }
    // No server is available: each is called once.
    let (before, other) =
        (away.requests().len(), RefusingServer::start(&["STORE_UNAVAILABLE"]).await);
    let list = format!("{},{}", away.address, other.address);
    let ended = run_with("check demo hr-sync users:read", &list);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("REPLICA_CUT_OFF"), "{}", ended.err);
    assert_eq!((away.requests().len(), other.requests().len()), (before + 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_is_not_yet_everywhere_is_repeated_with_the_same_request_id() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let reasons = &["NOT_YET_EVERYWHERE", "NOT_YET_EVERYWHERE", "REPLICA_CUT_OFF"];
    for own in ["", "7f9c2ba4-e88f-4a27-8c1d-5f0e2d6b3a10"] {
        let away = RefusingServer::start(reasons).await;
        let list = format!("{},{}", away.address, server.address);
        let company = format!("acme{}", own.len());
        let mut create = command(home.path(), "company create");
        create.args([company.as_str(), "--endpoint", &list, "--output", "json"]);
        if !own.is_empty() {
            create.args(["--request-id", own]);
        }
        let ended = tokio::task::block_in_place(|| run(&mut create));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "it says so once: {}", ended.err);
        assert!(ended.err.contains("NOT_YET_EVERYWHERE"), "{}", ended.err);
        let requests = away.requests();
        let first = CreateCompanyRequest::decode(requests[0].clone()).expect("a request");
        assert_eq!((first.request_id.len(), first.company_id), (36, company));
        assert!(own.is_empty() || first.request_id == own);
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| *request == requests[0]));
    }
}

#[test]
fn change_whose_response_was_lost_is_repeated_and_an_import_is_not() {
    let (home, data, other_data) = (dir(), dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let other = Server::start(other_data.path(), &["--demo"]);
    let line = b"{\"company_id\":\"imported\"}\n";
    let file = write(home.path(), "import.jsonl", line);
    let has = |server: &Server, company: &str| {
        let mut get = command(home.path(), "company get --timeout 60s");
        run(get.args([company, "--endpoint", &server.address])).code == Some(0)
    };
    for (words, company, is_repeated) in [
        (["company", "create", "created"].as_slice(), "created", true),
        (&["import", &file], "imported", false),
    ] {
        let proxy = Proxy::start(&server.address);
        let list = format!("{},{}", proxy.address, other.address);
        let mut sent = command(home.path(), "");
        sent.args(words).args(["--endpoint", &list, "--timeout", "60s"]);
        // No response passes, so the command waits.
        proxy.hold_answers();
        let sent = sent.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        while !has(&server, company) {}
        proxy.cut();
        let ended = sent.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.success(), is_repeated, "{words:?}: {text}");
        assert_eq!(has(&other, company), is_repeated, "{words:?}: {text}");
    }
}

#[test]
fn foreign_server_at_the_address_is_reported_in_one_sentence() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo", "--metrics", "127.0.0.1:0"]);
    let at = &server.address;
    // The frames of a server that ends the connection before it answers.
    let http1 = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let html = answering(b"<!DOCTYPE HTML>\n<html></html>\n");
    let ssh = answering(b"SSH-2.0-OpenSSH_9.6\r\n");
    let silent = answering(b"");
    let closed = closed();
    let gone = format!("no server answers at http://{closed}/ (connection refused)");
    let plain = format!("the server at {at} speaks no TLS: give --endpoint http://{at}");
    for (endpoint, says) in [
        (format!("https://{at}"), plain.as_str()),
        (closed, &gone),
        ("nowhere.invalid:1".to_owned(), "the name `nowhere.invalid` cannot be resolved"),
        (http1.clone(), "does not speak HTTP/2, so it is not a gRPC server"),
        (format!("https://{http1}"), "does not speak HTTP/2, so it is not a gRPC server"),
        (html, "does not speak HTTP/2"),
        (ssh, "does not speak HTTP/2"),
        (silent, "closed the connection and sent nothing"),
    ] {
        fails(&mut health(home.path(), &endpoint), says);
        let mut check = command(home.path(), "check demo hr-sync users:read --output json");
        check.args(["--endpoint", &endpoint]);
        let line: Value = serde_json::from_str(&fails(&mut check, "")).expect("JSON");
        assert_eq!(line["error"]["code"], "UNAVAILABLE", "{line}");
        assert_eq!(line["error"]["reason"], "UNREACHABLE", "{line}");
        assert!(line["error"]["message"].as_str().expect("text").contains(says), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_reach_its_server_is_told_of() {
    use hyper::service::service_fn;
    let home = dir();
    for (status, says) in [(502, "a proxy at"), (404, "is not a gRPC server")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(move |_| async move {
                    let page = http::Response::builder().status(status);
                    let page = page.header("content-type", "text/html");
                    page.body(http_body_util::Full::<bytes::Bytes>::from("<html>"))
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
            }
        });
        let path = home.path().to_owned();
        let failed = tokio::task::spawn_blocking(move || fails(&mut health(&path, &address), says));
        let sentence = failed.await.expect("it fails");
        assert!(sentence.contains(&status.to_string()), "{sentence}");
    }
}

#[test]
fn tls_failures_are_reported_with_a_remedy() {
    let (home, files) = (dir(), dir());
    let (files, ca) = (files.path(), Ca::new());
    let root = ca.file(files, "ca.pem");
    let other = Ca::new().file(files, "other.pem");
    let good = ca.pair_files(files, "good", "localhost", 2100);
    let (open, closed, old, named) = (dir(), dir(), dir(), dir());
    let open = serve_tls(open.path(), &good, &[]);
    let closed = serve_tls(closed.path(), &good, &["--tls-client-ca", &root]);
    let old = serve_tls(old.path(), &ca.pair_files(files, "old", "localhost", 2021), &[]);
    let named =
        serve_tls(named.path(), &ca.pair_files(files, "named", "scopegate.internal", 2100), &[]);
    let url = |server: &Server| {
        format!("https://localhost:{}", server.address.rsplit_once(':').expect("a port").1)
    };
    let bare = url(&open).replace("https://", "");
    works(health(home.path(), &bare).args(["--ca", &root]));
    works(health(home.path(), &url(&open)).args(["--ca", &root]));
    let says = format!("speaks TLS: give --endpoint https://{bare}");
    fails(&mut health(home.path(), &bare), &says);
    fails(&mut health(home.path(), &url(&closed).replace("https", "http")), "speaks TLS");
    fails(&mut health(home.path(), &url(&open)), "of a CA that is not trusted here");
    for (server, less, says) in [
        (&open, &["--ca", other.as_str()][..], "give the right one by --ca"),
        (&old, &["--ca", &root], "its certificate has expired"),
        (&named, &["--ca", &root], "does not name `localhost`"),
        (&closed, &["--ca", &root], "--client-cert"),
        (&open, &["--ca", "/dev/null"], "--ca /dev/null is empty"),
        (&open, &["--ca", &good[1]], "holds no certificate but a private key"),
        (
            &closed,
            &["--ca", &root, "--client-cert", &good[1], "--client-key", &good[0]],
            "are the two files exchanged?",
        ),
        (
            &closed,
            &["--ca", &root, "--client-cert", &good[0], "--client-key", &good[0]],
            "holds no private key but a certificate",
        ),
    ] {
        fails(health(home.path(), &url(server)).args(less), says);
    }
    let pair = ["--ca", &root, "--client-cert", &good[0], "--client-key", &good[1]];
    works(health(home.path(), &url(&closed)).args(pair));
    let strange = Ca::new().pair_files(files, "strange", "localhost", 2100);
    let pair = ["--ca", &root, "--client-cert", &strange[0], "--client-key", &strange[1]];
    fails(health(home.path(), &url(&closed)).args(pair), "--client-cert");
    // The files of a server.
    let empty = write(files, "empty.pem", b"\n");
    let data = files.join("data").display().to_string();
    for (cert, key, says) in [
        (&empty, &good[1], "is empty"),
        (&good[0], &empty, "is empty"),
        (&good[1], &good[0], "are the two files exchanged?"),
    ] {
        let mut serve = command(home.path(), "serve --listen 127.0.0.1:0 --demo");
        serve.args(["--data-dir", &data, "--tls-cert", cert, "--tls-key", key]);
        refuses_to_serve(&mut serve, says);
    }
}

#[test]
fn a_key_file_that_holds_no_key_is_told_of_before_anything_is_asked() {
    let home = dir();
    let at = closed();
    let path = |name: &str| home.path().join(name).display().to_string();
    fs::create_dir(path("folder")).expect("made");
    for (bytes, says) in [
        (&b""[..], "is empty"),
        (b"\r\n \n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"sgk_a\nsgk_b\n", "has more than one line"),
        (b"sgs_a_b\n", "the secret of a credential"),
        (b"Bearer sgk_a_b\n", "put only the key there"),
        (b"sgk_a\0b", "has a character that no key has"),
        (b"\xff\xfe", "is UTF-16"),
    ] {
        let file = write(home.path(), "key", bytes);
        let failed = fails(health(home.path(), &at).args(["--key-file", &file]), says);
        assert!(failed.contains(&format!("--key-file {file} ")), "{failed}");
    }
    fails(health(home.path(), &at).args(["--key-file", &path("folder")]), "is a directory");
    fails(health(home.path(), &at).args(["--key-file", &path("none")]), "does not exist");
    fails(health(home.path(), &at).env("SCOPEGATE_KEY", "sgs_a_b"), "SCOPEGATE_KEY has the secret");
    // What editors of other systems leave around a key is no part of it.
    let file = write(home.path(), "key", b"\xef\xbb\xbfsgk_a_b\r\n");
    fails(health(home.path(), &at).args(["--key-file", &file]), "no server answers");
}

#[test]
fn an_empty_variable_is_not_set_and_a_switch_takes_the_usual_words() {
    let (home, data) = (dir(), dir());
    // Every variable of a flag, empty.
    let names = scopegate_variables();
    let mut serve = scopegate();
    for name in &names {
        serve.env(name, "");
    }
    serve.env("SCOPEGATE_DEMO", "Yes").env("SCOPEGATE_STRICT_CATALOG", "off");
    // As Kubernetes has it for a Service of this name.
    serve.env("SCOPEGATE_PORT", "tcp://10.0.0.1:50051").env("SCOPEGATE_SERVICE_HOST", "10.0.0.1");
    serve.env("SCOPEGATE_PORT_50051_TCP_ADDR", "10.0.0.1").env("SCOPEGATE_LISTN", "127.0.0.1:1");
    let server = Server::start_by(serve, data.path(), &[]);
    let mut asked = health(home.path(), &server.address);
    for name in &names {
        asked.env(name, "");
    }
    works(&mut asked);
    let (_, log) = server.end();
    let warned: Vec<_> = log.iter().filter(|line| line.contains("is not read")).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("`SCOPEGATE_LISTN`"), "{warned:?}");
    assert!(warned[0].contains("did you mean `SCOPEGATE_LISTEN`?"), "{warned:?}");

    let data = dir();
    let mut serve = command(home.path(), "serve --listen 127.0.0.1:0 --data-dir");
    serve.arg(data.path()).env("SCOPEGATE_DEMO", "maybe");
    refuses_to_serve(&mut serve, "the value is that of the variable SCOPEGATE_DEMO");
    // A switch that is off conflicts with nothing.
    let mut serve = command(home.path(), "serve --listen 127.0.0.1:0 --data-dir");
    let empty = write(home.path(), "catalog.yaml", b"");
    serve.arg(data.path()).env("SCOPEGATE_DEMO", "0").env("SCOPEGATE_CATALOG", empty);
    refuses_to_serve(&mut serve, "the file is empty");
    let mut asked = health(home.path(), "localhost");
    let ended = run(asked.env_clear().env("SCOPEGATE_CONTEXT", "").arg("--timeout=x"));
    assert!(!ended.err.contains("variable"), "it was written on the line: {}", ended.err);
}

fn scopegate_variables() -> Vec<String> {
    use clap::CommandFactory;
    fn walk(command: &clap::Command, all: &mut Vec<String>) {
        let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
        all.extend(names.map(str::to_owned));
        command.get_subcommands().for_each(|child| walk(child, all));
    }
    let mut all = vec!["SCOPEGATE_KEY".to_owned(), "SCOPEGATE_CONFIG".to_owned()];
    walk(&scopegate::cli::command::Cli::command(), &mut all);
    all
}

#[test]
fn a_server_listens_where_a_name_says_and_is_as_strict_there() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo", "--listen", "localhost:0"]);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    works(&mut health(home.path(), &server.address));
    for flag in ["--listen", "--metrics"] {
        for (address, says) in [
            (":50051", "`127.0.0.1:50051`"),
            ("50051", "`0.0.0.0:50051`"),
            ("localhost", "`localhost:50051`"),
            ("*:50051", "`0.0.0.0:50051`"),
            ("::1:50051:", "`127.0.0.1:50051`"),
            ("http://localhost:1", "without a scheme"),
            ("nowhere.invalid:1", "cannot resolve"),
        ] {
            let mut serve = command(home.path(), "serve --demo");
            refuses_to_serve(serve.args([flag, address]), says);
        }
    }
    // The name of this machine in a container is an address off loopback.
    let resolved = std::net::ToSocketAddrs::to_socket_addrs("0:0");
    if resolved.is_ok_and(|mut all| all.all(|address| !address.ip().is_loopback())) {
        let mut serve = command(home.path(), "serve --demo --listen 0:0 --data-dir");
        refuses_to_serve(serve.arg(home.path().join("none")), "not a loopback address");
    }
}

#[test]
fn unknown_names_are_reported_with_a_suggestion() {
    let (home, data) = (dir(), dir());
    let catalog = write(
        home.path(),
        "catalog.yaml",
        b"audiences: { public: {}, webhooks: {} }\n\
          scopes: { 'users:read': { audiences: [public, webhooks] } }\n\
          roles: { owner: { scopes: { 'users:read': all } } }\n",
    );
    let server = Server::start(data.path(), &["--catalog", &catalog]);
    let run = |line: &str| run(command(home.path(), line).args(["--endpoint", &server.address]));
    let good = |line: &str| {
        let ended = run(line);
        assert_eq!(ended.code, Some(0), "{line}: {}", ended.err);
        ended
    };
    good("company create acme");
    good("credential create acme sync");
    for line in [
        "credential grant acme sync user:read",
        "credential revoke acme sync user:read",
        "credential replace acme sync user:read",
        "credential create acme other user:read",
        "company create other user:read",
        "company add-scopes acme user:read",
        "company restrict acme user:read",
        "credential list acme --scope user:read",
    ] {
        let ended = run(line);
        assert_eq!(ended.code, Some(2), "{line}: {}", ended.err);
        assert!(ended.err.contains("did you mean `users:read`?"), "{line}: {}", ended.err);
    }
    let list = run("credential grant acme sync users:read,users:write");
    assert!(list.err.contains("separate scopes by spaces"), "{}", list.err);
    let list = run("check acme sync users:read,users:read --audience public");
    assert_eq!(list.code, Some(1));
    assert!(list.err.contains("separate scopes by spaces"), "{}", list.err);
    let audience = run("check acme sync users:read --audience pulbic");
    assert_eq!(audience.code, Some(2));
    assert!(audience.err.contains("did you mean `public`?"), "{}", audience.err);
    assert!(audience.err.contains("`--audience`"), "{}", audience.err);

    let put = good("user put acme kim owner,onwer");
    assert!(put.out.contains("owner"), "{}", put.out);
    assert!(put.err.contains("`onwer` is not a role of the catalog"), "{}", put.err);
    assert!(put.err.contains("did you mean `owner`?"), "{}", put.err);
    assert_eq!(good("user put acme kim owner --yes").err, "");
    let put = good("user put acme kim onwer --yes --output json");
    let answer: Value = serde_json::from_str(&put.out).expect("JSON");
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1), "{answer}");
    let warning: Value = serde_json::from_str(&put.err).expect("a line of JSON");
    assert_eq!(warning["warning"], answer["warnings"][0]);

    let typo = run("keys create bob --role opertor");
    assert!(typo.err.contains("'operator'"), "{}", typo.err);
    good("keys create boss --role operator --dry-run");
    let first = good("keys create boss --role operator --output json");
    let first: Value = serde_json::from_str(&first.out).expect("JSON");
    let mut bound = command(home.path(), "keys create bob --role service --company acme,nowhere");
    bound.args(["--endpoint", &server.address]);
    bound.env("SCOPEGATE_KEY", first["secret"].as_str().expect("a secret"));
    let bound = self::run(&mut bound);
    assert_eq!(bound.code, Some(0), "{}", bound.err);
    assert!(bound.err.contains("there is no company `nowhere`"), "{}", bound.err);
    assert_eq!(bound.err.lines().count(), 1, "{}", bound.err);
}

#[test]
fn errors_name_what_was_typed_and_are_json_for_programs() {
    let (home, data) = (dir(), dir());
    let server = Server::start(data.path(), &["--demo"]);
    let failed = |words: &[&str]| {
        let mut command = command(home.path(), "");
        let ended = run(command.args(words).args(["--endpoint", &server.address]));
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{words:?} {}", ended.err);
        ended.err
    };
    for (words, says) in [
        (&["company", "get", "a b"][..], "`COMPANY` has the character"),
        (&["check", "demo", "hr-sync", ""], "`SCOPE` "),
        (&["check", "demo", "a b", "users:read"], "`CREDENTIAL` "),
        (&["check", "demo", "hr-sync", "users:read", "--user", "a\tb"], "`--user` "),
        (&["check", "demo", "hr-sync", "users:read", "--token-user", "\u{7}"], "`--token-user` "),
        (&["company", "create", "x", "--display-name", "a\tb"], "`--display-name` "),
        (&["company", "create", "x", "--request-id", "1"], "`--request-id` "),
        (&["user", "put", "demo", "kim", "a b"], "`ROLE` "),
        (&["changes", "watch", "--cursor", "nonsense"], "`--cursor` "),
    ] {
        let sentence = failed(words);
        assert!(sentence.contains(says), "{says}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        let fields = ["company_id", "credential_id", "user_id", "display_name", "request_id"];
        assert!(!fields.iter().any(|field| sentence.contains(field)), "{sentence}");
        let json = failed(&[words, &["--output", "json"]].concat());
        let line: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json.lines().count(), 1, "{json}");
        assert_eq!(line["error"]["code"], "INVALID_ARGUMENT", "{line}");
        assert!(line["error"]["violations"][0]["field"].is_string(), "{line}");
        assert!(line["error"]["violations"][0]["description"].is_string(), "{line}");
    }
    let two = failed(&["company", "create", "a b", "--display-name", "a\tb"]);
    assert!(two.starts_with("scopegate: 2 arguments are malformed:\n  `COMPANY` "), "{two}");
    assert!(two.contains("\n  `--display-name` "), "{two}");

    let of = |words: &[&str]| {
        let json = failed(words);
        assert_eq!(json.lines().count(), 1, "{json}");
        serde_json::from_str::<Value>(&json).expect("JSON")["error"].clone()
    };
    let missing = of(&["company", "get", "nowhere", "--output=json"]);
    assert_eq!(
        (&missing["code"], &missing["reason"]),
        (&"NOT_FOUND".into(), &"COMPANY_NOT_FOUND".into())
    );
    let usage = of(&["--output", "json", "check", "--nonsense"]);
    assert_eq!(usage["code"], "USAGE", "{usage}");
    let usage = of(&["check", "demo", "--output", "json"]);
    assert_eq!(usage["code"], "USAGE", "{usage}");
    assert!(usage["message"].as_str().expect("text").contains("<CREDENTIAL>"), "{usage}");
    let local =
        of(&["check", "demo", "hr-sync", "users:read", "--output", "json", "--context", "x"]);
    assert_eq!(local["code"], "LOCAL", "{local}");
}
