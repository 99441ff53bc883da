//! Unix sockets: served beside TCP, with a mode, by one server at a time, and bounded like TCP.
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::ca::Ca;
use crate::harness::raw::*;
use crate::harness::{Client, Server, bootstrap, refused, scopegate, scopes_of};
use rcgen::CertificateParams;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scopegate::proto::*;
use tonic::Code;

/// A directory, with the paths of a store and of a socket in it.
fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, path) = (dir.path().join("store"), dir.path().join("s"));
    (dir, store, path)
}

/// A path as an address.
fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A server with the demo data on these addresses.
fn serve(store: &Path, listen: &str, args: &[&str]) -> Server {
    Server::start(store, &[&["--worker-threads", "1", "--demo", "--listen", listen], args].concat())
}

/// Runs a server that does not start: its exit code, and its log.
fn not_started(command: &mut Command, store: &Path) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        command.arg("--data-dir").arg(store).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

async fn assert_served(address: &str) {
    let reason = Client::connect(address).await.reason("demo", "hr-sync", &["users:write"]).await;
    assert_eq!(reason, Reason::Allowed);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn tcp_and_several_unix_sockets_are_served_at_once() {
    let (dir, store, path) = place();
    let (second, listen) = (dir.path().join("second"), unix(&path));
    let args = ["--listen", &unix(&second), "--listen-mode", "0600"];
    let server = serve(&store, &format!("{listen},127.0.0.1:0"), &args);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    let all = format!("\"{listen},{},{}\"", server.address, unix(&second));
    assert_eq!(server.logged(&format!("\"addresses\":{all}")), 1, "{:?}", server.log());
    assert_eq!((mode(&path), mode(&second)), (0o600, 0o600));
    let tcp = server.client().await;
    let by_path = Client::connect(&listen).await;
    tcp.create_company("acme", Some(&["users:read"])).await;
    by_path.create_credential("acme", "reader", &["users:read"]).await;
    for client in [&tcp, &by_path, &Client::connect(&unix(&second)).await] {
        for (credential, scope, reason) in [
            ("reader", "users:read", Reason::Allowed),
            ("reader", "users:write", Reason::ScopeNotInCompany),
            ("nobody", "users:read", Reason::CredentialUnknown),
        ] {
            let answer = client.reason("acme", credential, &[scope]).await;
            assert_eq!(answer, reason, "{credential}");
        }
    }
    let request = || scopes_of("no company", "reader", &["users:read"]);
    let errors = [tcp.ask(request()).await, by_path.ask(request()).await];
    let [first, second] = errors.map(|error| refused(error).0);
    assert_eq!((first, second), (Code::InvalidArgument, Code::InvalidArgument));
}

#[tokio::test]
async fn server_with_unix_sockets_alone_needs_no_key() {
    let (_dir, store, path) = place();
    let server = serve(&store, &unix(&path), &[]);
    assert_eq!(server.address, unix(&path));
    assert_eq!(mode(&path), 0o660);
    assert_served(&unix(&path)).await;
}

#[test]
fn another_address_without_keys_is_refused_beside_a_unix_socket() {
    let (_dir, store, path) = place();
    let listen = format!("{},0.0.0.0:0", unix(&path));
    let (code, log) =
        not_started(scopegate().args(["serve", "--demo", "--listen", &listen]), &store);
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--listen 0.0.0.0:0 is not a loopback address"), "{log}");
}

#[tokio::test]
async fn caller_without_a_key_is_refused_and_its_line_names_the_kind_of_socket() {
    let (_dir, store, path) = place();
    let key = bootstrap(&store);
    let server = Server::start(&store, &["--listen", &unix(&path)]);
    let request = || scopes_of("demo", "hr-sync", &["users:write"]);
    let without = Client::connect(&unix(&path)).await.ask(request()).await;
    assert_eq!(refused(without).0, Code::Unauthenticated);
    assert_eq!(server.logged_all(&["a caller was refused", "\"peer\":\"unix\""]), 1);
    let with = Client::connect_as(&unix(&path), Some(&key)).await;
    let answer = with.ask(request()).await.expect("an answer");
    assert_eq!(answer.decision(), Decision::Denied);
}

#[tokio::test]
async fn socket_of_a_killed_server_is_replaced() {
    let (_dir, store, path) = place();
    serve(&store, &unix(&path), &[]).kill();
    UnixStream::connect(&path).expect_err("nobody serves what is left");
    let server = serve(&store, &unix(&path), &[]);
    assert_served(&unix(&path)).await;
    drop(server);
}

#[tokio::test]
async fn socket_of_a_running_server_is_refused_to_another() {
    let (dir, store, path) = place();
    let server = serve(&store, &unix(&path), &[]);
    let other = dir.path().join("other");
    let (code, log) =
        not_started(scopegate().args(["serve", "--demo", "--listen", &unix(&path)]), &other);
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("another process serves it"), "{log}");
    assert_served(&unix(&path)).await;
    // It is paused, so it accepts nothing, and the socket is still its own.
    server.pause();
    let (code, log) =
        not_started(scopegate().args(["serve", "--demo", "--listen", &unix(&path)]), &other);
    assert_eq!(code, Some(64), "{log}");
    server.signal("CONT");
    assert_served(&unix(&path)).await;
}

#[tokio::test]
async fn of_servers_that_start_at_once_exactly_one_serves() {
    let (dir, store, path) = place();
    serve(&store, &unix(&path), &[]).kill();
    let listen = unix(&path);
    let started: Vec<_> = (0..4)
        .map(|n| {
            let store = dir.path().join(format!("store-{n}"));
            Server::launch(scopegate(), &store, &["--demo", "--listen", &listen])
        })
        .collect();
    let mut serving = Vec::new();
    for (server, address) in started {
        // The channel ends with the process.
        match address.recv_timeout(WAIT_LIMIT) {
            Ok(_) => serving.push(server),
            Err(_) => {
                let (status, log) = server.ended();
                assert_eq!(status.code(), Some(64), "{log:?}");
                assert!(log.join("\n").contains("another process serves it"), "{log:?}");
            }
        }
    }
    assert_eq!(serving.len(), 1);
    assert_served(&listen).await;
}

#[test]
fn socket_is_removed_at_the_end_unless_it_is_of_another_program() {
    let (_dir, store, path) = place();
    let server = serve(&store, &unix(&path), &[]);
    assert!(server.terminate().success());
    assert!(!path.exists());
    let server = serve(&store, &unix(&path), &[]);
    fs::remove_file(&path).expect("removed");
    let _other = UnixListener::bind(&path).expect("bound");
    assert!(server.terminate().success());
    UnixStream::connect(&path).expect("kept");
}

#[test]
fn one_address_that_cannot_be_bound_ends_the_start() {
    let (dir, store, path) = place();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let used = taken.local_addr().expect("an address").to_string();
    let file = dir.path().join("file");
    fs::write(&file, "text").expect("written");
    let missing = dir.path().join("missing/s");
    let twice = unix(&path);
    for (listen, says) in [
        (used, "cannot listen on 127.0.0.1:"),
        (unix(&file), "not a socket"),
        (unix(&missing), "cannot lock"),
        (twice, "twice"),
        (format!("unix:/{}", "x".repeat(200)), "give a shorter one"),
        ("unix:".to_owned(), "no file name"),
        (String::new(), "is empty"),
    ] {
        let both = format!("{},{listen}", unix(&path));
        let (code, log) =
            not_started(scopegate().args(["serve", "--demo", "--listen", &both]), &store);
        assert_eq!(code, Some(64), "{listen}: {log}");
        assert!(log.contains(says), "{listen}: {log}");
        assert!(!path.exists(), "{listen}: nothing is left");
    }
    assert_eq!(fs::read_to_string(&file).expect("kept"), "text");
}

#[tokio::test]
async fn every_address_of_ipv6_is_also_every_address_of_ipv4() {
    if TcpListener::bind("[::]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let (_dir, store, _) = place();
    let server = serve(&store, "[::]:0", &["--allow-unauthenticated"]);
    let port = server.address.rsplit(':').next().expect("a port");
    for host in ["127.0.0.1", "[::1]"] {
        assert_served(&format!("http://{host}:{port}")).await;
    }
}

/// The files of a certificate that names no address, of a CA that nobody trusts, and of its key.
fn certificate(dir: &Path) -> [String; 2] {
    let name = vec!["scopegate.test".to_owned()];
    let pair = Ca::new().sign(&CertificateParams::new(name).expect("a name"));
    [("cert.pem", &pair.cert), ("key.pem", &pair.key)].map(|(name, pem)| {
        let path = dir.join(name);
        fs::write(&path, pem).expect("written");
        path.to_str().expect("a path").to_owned()
    })
}

#[tokio::test]
async fn unix_socket_has_no_tls_beside_an_address_that_has() {
    let (dir, store, path) = place();
    let [cert, key] = certificate(dir.path());
    let files = ["--tls-cert", &cert, "--tls-key", &key];
    let server = serve(&store, &format!("127.0.0.1:0,{}", unix(&path)), &files);
    assert_served(&unix(&path)).await;
    let mut plain = Raw::begun(&server, &[]);
    let (kind, ..) = plain.next().unwrap_or_default();
    assert_ne!(kind, SETTINGS, "it has TLS");
}

/// The memory of a server, in bytes.
fn memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("alive");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

/// Begins HTTP/2 with the largest windows, so that what is not read fills the socket.
fn with_large_windows(path: &Path) -> Raw<UnixStream> {
    let mut wide = vec![0, 4];
    wide.extend(0x7fff_ffff_u32.to_be_bytes());
    let mut raw = Raw::begun_at(path, &wide);
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &(0x7fff_0000_u32).to_be_bytes()));
    raw
}

/// No limit for unknown callers ends it, because its calls are accepted; no limit for floods, because it
/// has no more calls than allowed; and the kernel has none.
#[test]
fn client_that_never_reads_is_disconnected() {
    let (_dir, store, path) = place();
    let _server = serve(&store, &unix(&path), &["--stall-timeout", "1s"]);
    let mut raw = with_large_windows(&path);
    // Replies of 3 KB each: together more than the socket holds.
    let block = block_to("/scopegate.v1.CatalogService/GetCatalog", &[]);
    for call in 0..250 {
        raw.send(&frame(HEADERS, END_HEADERS, 2 * call + 1, &block));
        raw.send(&frame(DATA, END_STREAM, 2 * call + 1, &[0; 5]));
    }
    // The end of the other side needs no read to be seen.
    let mut ended = [PollFd::new(&raw.0, PollFlags::empty())];
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut ended, Some(&limit)), Ok(1), "it was waited for");
    assert!(ended[0].revents().contains(PollFlags::HUP));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_floods_and_never_reads_costs_a_bounded_amount() {
    let (_dir, store, path) = place();
    let server = serve(&store, &unix(&path), &[]);
    assert_served(&unix(&path)).await;
    let before = memory(&server);
    let mut raw = with_large_windows(&path);
    raw.0.set_write_timeout(Some(WAIT_LIMIT)).expect("set");
    let mut call = 1;
    let error = loop {
        match raw.0.write_all(&check(call)) {
            Ok(()) => call += 2,
            Err(error) => break error,
        }
        assert!(call < 600_000, "all were taken");
    };
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was waited for");
    let after = memory(&server);
    assert!(after < before + (32 << 20), "{before} bytes before, {after} after");
    assert_served(&unix(&path)).await;
}

#[tokio::test]
async fn connections_of_unix_sockets_count_as_those_of_loopback() {
    let (_dir, store, path) = place();
    let listen = format!("127.0.0.1:0,{}", unix(&path));
    let server = serve(&store, &listen, &["--max-connections", "24"]);
    let mut by_tcp: Vec<_> = (0..12).map(|_| Raw::begun(&server, &[])).collect();
    by_tcp.iter_mut().for_each(Raw::assert_open);
    // Eight more than others may have.
    let mut by_path: Vec<_> = (0..20).map(|_| Raw::begun_at(&path, &[])).collect();
    by_path.iter_mut().for_each(Raw::assert_open);
    let mut above = UnixStream::connect(&path).expect("queued");
    above.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    assert!(matches!(above.read(&mut [0; 64]), Ok(0)), "turned away");
    let mut above = Raw::silent(&server);
    assert!(matches!(above.0.read(&mut [0; 64]), Ok(0) | Err(_)), "turned away");
}

#[test]
fn drain_ends_the_connections_of_a_unix_socket() {
    let (_dir, store, path) = place();
    let server = serve(&store, &unix(&path), &[]);
    let mut raw = Raw::begun_at(&path, &[]);
    raw.assert_open();
    server.signal("TERM");
    assert_eq!(raw.end(), Some(0), "it is told of the end");
    let (status, log) = server.ended();
    assert!(status.success(), "{log:?}");
    assert!(!path.exists());
}

/// A command that asks a server: its exit code, and what it wrote.
fn run(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = scopegate();
    command.env("XDG_CONFIG_HOME", dir).args(args).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).expect("text"))
}

#[test]
fn commands_take_the_path_of_a_unix_socket() {
    let (dir, store, path) = place();
    let check = ["check", "demo", "hr-sync", "users:write", "--endpoint"];
    let listen = unix(&path);
    let ask = |endpoint: &str| run(dir.path(), &[&check[..], &[endpoint]].concat(), &[]);
    let (code, text) = ask(&listen);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("no server answers at {listen} ")), "{text}");
    let server = serve(&store, &listen, &[]);
    let url = format!("unix://{}", path.display());
    for endpoint in [&listen, &url, &format!("127.0.0.1:1,{listen}")] {
        let (code, text) = ask(endpoint);
        assert_eq!(code, Some(0), "{endpoint}: {text}");
    }
    let (code, text) = run(dir.path(), &[&check[..], &[&listen, "--ca", "x"]].concat(), &[]);
    assert_eq!(code, Some(2));
    assert!(text.contains("need TLS"), "{text}");
    // The path of a context is from the directory of its file.
    let config = dir.path().join("scopegate");
    fs::create_dir(&config).expect("made");
    let yaml = "current: own\ncontexts: { own: { endpoint: 'unix:../s' } }\n";
    fs::write(config.join("config.yaml"), yaml).expect("written");
    let (code, text) = run(dir.path(), &check[..4], &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(server.terminate().success());
    let (code, text) = ask(&listen);
    assert_eq!(code, Some(2));
    assert!(text.contains("--listen"), "{text}");
}

#[test]
fn health_asks_the_server_that_the_variables_of_serve_describe() {
    let (dir, store, path) = place();
    let listen = format!("127.0.0.1:0,{}", unix(&path));
    let server = serve(&store, &listen, &[]);
    let port = server.address.rsplit(':').next().expect("a port");
    let health = |listen: &str| run(dir.path(), &["health"], &[("SCOPEGATE_LISTEN", listen)]);
    for listen in [
        server.address.clone(),
        format!("0.0.0.0:{port}"),
        format!("[::]:{port}"),
        unix(&path),
        format!("{},[::]:1", unix(&path)),
    ] {
        assert_eq!(health(&listen), (Some(0), "SERVING\n".to_owned()), "{listen}");
    }
    let (code, text) = health("127.0.0.1:0");
    assert_eq!(code, Some(2));
    assert!(text.contains("--endpoint"), "{text}");
    // A flag, a variable and a context name another server.
    let nowhere = [("SCOPEGATE_LISTEN", "127.0.0.1:1"), ("SCOPEGATE_ENDPOINT", &server.address)];
    assert_eq!(run(dir.path(), &["health"], &nowhere).0, Some(0));
    assert_eq!(run(dir.path(), &["health"], &nowhere[..1]).0, Some(2));
    let flag = ["health", "--endpoint", &server.address];
    assert_eq!(run(dir.path(), &flag, &nowhere[..1]).0, Some(0));
    // The certificate is for addresses of TCP.
    let both = [("SCOPEGATE_LISTEN", &unix(&path)[..]), ("SCOPEGATE_TLS_CERT", "missing")];
    assert_eq!(run(dir.path(), &["health"], &both).0, Some(0));
}

#[test]
fn health_trusts_the_certificate_of_its_own_server_and_no_other() {
    let (dir, store, _) = place();
    let [cert, key] = certificate(dir.path());
    let other = dir.path().join("other");
    fs::create_dir(&other).expect("made");
    let [other_cert, _] = certificate(&other);
    let server = serve(&store, "127.0.0.1:0", &["--tls-cert", &cert, "--tls-key", &key]);
    let health = |cert: &str| {
        let variables = [("SCOPEGATE_LISTEN", &server.address[..]), ("SCOPEGATE_TLS_CERT", cert)];
        run(dir.path(), &["health"], &variables)
    };
    assert_eq!(health(&cert), (Some(0), "SERVING\n".to_owned()));
    let (code, text) = health(&other_cert);
    assert_eq!(code, Some(2));
    assert!(text.contains("not the one of SCOPEGATE_TLS_CERT"), "{text}");
    let (code, text) = health("missing");
    assert_eq!(code, Some(2));
    assert!(text.contains("SCOPEGATE_TLS_CERT missing does not exist"), "{text}");
    let (code, text) = run(dir.path(), &["health"], &[("SCOPEGATE_LISTEN", &server.address)]);
    assert_eq!(code, Some(2));
    assert!(text.contains("speaks TLS"), "{text}");
}

#[test]
fn health_shows_a_client_certificate_where_the_server_needs_one() {
    let (dir, store, path) = place();
    let [cert, key] = certificate(dir.path());
    let (ca, name) = (Ca::new(), vec!["probe".to_owned()]);
    let pair = ca.sign(&CertificateParams::new(name).expect("a name"));
    let written = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let client_ca = written("client-ca.pem", &ca.pem());
    let (own, own_key) = (written("own.pem", &pair.cert), written("own.key", &pair.key));
    let args = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &client_ca];
    let server = serve(&store, &format!("127.0.0.1:0,{}", unix(&path)), &args);
    let variables = [
        ("SCOPEGATE_LISTEN", &server.address[..]),
        ("SCOPEGATE_TLS_CERT", &cert),
        ("SCOPEGATE_CLIENT_CERT", &own),
        ("SCOPEGATE_CLIENT_KEY", &own_key),
    ];
    assert_eq!(run(dir.path(), &["health"], &variables).0, Some(0));
    let (code, text) = run(dir.path(), &["health"], &variables[..2]);
    assert_eq!(code, Some(2), "{text}");
    // A Unix socket asks for none.
    let first = [("SCOPEGATE_LISTEN", &unix(&path)[..]), ("SCOPEGATE_TLS_CERT", &cert)];
    assert_eq!(run(dir.path(), &["health"], &first).0, Some(0));
}
