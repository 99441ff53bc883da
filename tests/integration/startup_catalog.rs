//! What a server is started with: a catalog file that cannot be used stops the first start of a
//! store, and no later one.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::harness::etcd::Etcd;
use crate::harness::{Server, free_address, scopegate};
use scopegate::proto::*;

const GOOD: &str = "scopes: { a: , b: }";

/// A gauge of the metrics at this address.
fn gauge(address: &str, name: &str) -> Option<f64> {
    let mut connection = TcpStream::connect(address).expect("a connection");
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// The exit code of a server that does not start, and what it says.
fn refused(data: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = scopegate();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(args);
    let output = command.stdin(Stdio::null()).output().expect("runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// Files that no server starts an empty store with, each with what is said of it.
fn unusable(dir: &Path) -> Vec<(String, &'static str)> {
    let write = |name: &str, text: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let long = dir.join("long.yaml");
    std::fs::File::create(&long).expect("made").set_len((16 << 20) + 1).expect("long");
    let endless = "/dev/zero".to_owned();
    vec![
        (dir.join("none.yaml").to_str().expect("a path").to_owned(), "entity not found"),
        (dir.to_str().expect("a path").to_owned(), "is a directory"),
        (long.to_str().expect("a path").to_owned(), "the limit is"),
        (endless, "is not a regular file"),
        (write("latin1.yaml", b"scopes: { caf\xe9: }"), "is not UTF-8"),
        (write("cut.yaml", b"scopes: { a: , b"), "line 1"),
        (write("other.yaml", b"kind: ConfigMap\nscopes: { a: , b: }"), "kind"),
        (write("empty.yaml", b""), "the file is empty"),
    ]
}

#[tokio::test]
async fn a_catalog_file_that_cannot_be_used_stops_no_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let file = dir.path().join("catalog.yaml");
    let good = file.to_str().expect("a path");
    std::fs::write(&file, GOOD).expect("written");
    let mut unusable = unusable(dir.path());
    for (file, said) in &unusable {
        let (code, why) = refused(&data, &["--catalog", file]);
        assert_eq!(code, Some(64), "{file}: {why}");
        assert!(why.contains(said), "{file}: {why}");
        assert!(!data.exists(), "{file}: nothing was opened");
    }
    let metrics = free_address();
    let server = Server::start(&data, &["--catalog", good, "--metrics", &metrics]);
    assert_eq!(gauge(&metrics, "scopegate_catalog_file_rejected"), Some(0.0));
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a", "b"]).await;
    server.kill();
    let fewer = dir.path().join("fewer.yaml");
    std::fs::write(&fewer, "scopes: { a: , c: }").expect("written");
    unusable.push((fewer.to_str().expect("a path").to_owned(), "would remove `b`"));
    for (file, said) in &unusable {
        let (code, why) = refused(&data, &["--catalog", file, "--strict-catalog"]);
        assert_eq!(code, Some(64), "{file}: {why}");
        assert!(why.contains(said), "{file}: {why}");
        let server = Server::start(&data, &["--catalog", file, "--metrics", &metrics]);
        let client = server.client().await;
        assert_eq!(client.reason("acme", "hr", &["a", "b"]).await, Reason::Allowed, "{file}");
        assert_eq!(gauge(&metrics, "scopegate_catalog_file_rejected"), Some(1.0), "{file}");
        let warned = |part: &str| {
            server.logged("the catalog file is not applied") == 1 && server.logged(part) > 0
        };
        assert!(warned(said), "{file}");
        let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
        assert_eq!(read.into_inner().yaml, GOOD);
        server.kill();
    }
    // The way out that the refusal names, and the file put right.
    let fewer = fewer.to_str().expect("a path");
    let args = ["--catalog", fewer, "--allow-catalog-removals", "--metrics", &metrics];
    let server = Server::start(&data, &args);
    assert_eq!(gauge(&metrics, "scopegate_catalog_file_rejected"), Some(0.0));
    assert_eq!(server.client().await.reason("acme", "hr", &["b"]).await, Reason::ScopeUnknown);
}

#[test]
fn a_store_without_a_catalog_is_not_served_with_a_file_that_cannot_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let made = scopegate()
        .args(["keys", "bootstrap", "--data-dir"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .expect("runs");
    assert!(made.success(), "there is a store, and no catalog in it");
    for (file, said) in unusable(dir.path()) {
        let (code, why) = refused(&data, &["--catalog", &file]);
        assert_eq!(code, Some(64), "{file}: {why}");
        assert!(why.contains(said), "{file}: {why}");
    }
}

/// Without audiences a call needs no token and no user, so a file that lost them would open what
/// was closed.
#[tokio::test]
async fn a_file_without_an_audience_is_a_removal_and_the_log_says_what_was_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("catalog.yaml"));
    let path = file.to_str().expect("a path");
    let closed = "scopes: { a: }\nroles: { old: { scopes: { a: all } } }\n\
        audiences: { web: { token: required } }\n";
    std::fs::write(&file, closed).expect("written");
    let server = Server::start(&data, &["--catalog", path]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a"]).await;
    assert_eq!(client.reason("acme", "hr", &["a"]).await, Reason::TokenRequired);
    server.kill();
    std::fs::write(&file, "scopes: { a: }\n").expect("written");
    let server = Server::start(&data, &["--catalog", path]);
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["a"]).await, Reason::TokenRequired);
    assert!(server.logged("would remove `audience web`") > 0);
    server.kill();
    let server = Server::start(&data, &["--catalog", path, "--allow-catalog-removals"]);
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["a"]).await, Reason::Allowed);
    let request = ListChangesRequest { newest_first: true, page_size: 1, ..Default::default() };
    let page = client.changes.clone().list_changes(request).await.expect("listed").into_inner();
    let fields = &page.changes[0].fields;
    for (name, gone) in [("audiences", "\"web\""), ("roles", "\"old\"")] {
        let field = fields.iter().find(|field| field.field == name).expect("it changed");
        assert_eq!((field.before.as_str(), field.after.as_str()), (gone, ""), "{name}");
    }
}

/// A byte order mark that an editor adds or drops makes no other file: or it would undo what an
/// operator has applied since.
#[tokio::test]
async fn a_file_with_a_byte_order_mark_is_applied_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("catalog.yaml"));
    let path = file.to_str().expect("a path");
    std::fs::write(&file, format!("\u{feff}{GOOD}")).expect("written");
    drop(Server::start(&data, &["--catalog", path]));
    std::fs::write(&file, GOOD).expect("written");
    let server = Server::start(&data, &["--catalog", path]);
    assert_eq!(server.logged("the catalog file was applied before"), 1);
}

/// During an upgrade replicas have different files. None of them replaces a catalog, and of several starts
/// of a new cluster one decides.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_several_catalog_files_is_applied_once_to_a_cluster() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let url = format!("etcd://{}/test", etcd.address(0));
    let init = scopegate().args(["replicas", "init", "--replicate", &url]).output();
    assert!(init.expect("it runs").status.success());
    let dir = tempfile::tempdir().expect("a directory");
    let files = [0, 1, 2].map(|number| {
        let file = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&file, format!("{GOOD} # {number}")).expect("written");
        file.to_str().expect("a path").to_owned()
    });
    let metrics = files.each_ref().map(|_| free_address());
    let start = |number: usize, file: &str| {
        let name = number.to_string();
        let args = ["--replicate", &url, "--replica-name", &name, "--metrics", &metrics[number]];
        let args = [&args[..], &["--catalog", file, "--replica-lease", "3s"]].concat();
        Server::launch(scopegate(), &dir.path().join(&name), &args)
    };
    let served = |(mut server, serving): (Server, Receiver<(String, String)>)| {
        (server.address, _) = serving.recv_timeout(Duration::from_secs(60)).expect("it serves");
        server
    };
    // All are started before one of them serves.
    let mut servers = [0, 1, 2].map(|number| start(number, &files[number])).map(served);
    let differs = || {
        metrics
            .each_ref()
            .map(|at| gauge(at, "scopegate_replica_catalog_file_differs") == Some(1.0))
    };
    let catalog = async |server: &Server| {
        let mut client = server.client().await.catalog;
        client.get_catalog(GetCatalogRequest {}).await.expect("read").into_inner().yaml
    };
    let first = catalog(&servers[0]).await;
    let is_of = |number: usize| first == format!("{GOOD} # {number}");
    let winner = (0..3).find(|number| is_of(*number)).expect("one of the files");
    assert_eq!(differs(), [0, 1, 2].map(|number| number != winner));
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(catalog(server).await, first, "{number}");
        let warned = server.logged("the catalog file differs from the catalog in force");
        assert_eq!(warned, usize::from(number != winner), "{number}");
    }
    let changes = async |server: &Server| {
        let mut client = server.client().await.changes;
        let listed = client.list_changes(ListChangesRequest::default()).await;
        listed.expect("listed").into_inner().changes.len()
    };
    assert_eq!(changes(&servers[0]).await, 1, "the other files changed nothing");

    // An operator applies another file.
    let loser = (winner + 1) % 3;
    let request =
        ApplyCatalogRequest { yaml: format!("{GOOD} # {loser}"), ..ApplyCatalogRequest::default() };
    servers[0].client().await.catalog.apply_catalog(request).await.expect("applied");
    assert_eq!(differs(), [0, 1, 2].map(|number| number != loser));
    // A restart changes nothing, and a file that is no catalog does not prevent it.
    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, "scopes: { a: , b").expect("written");
    for (number, file) in [(winner, &*files[winner]), (loser, broken.to_str().expect("a path"))] {
        servers[number].signal("TERM");
        while servers[number].is_running() {}
        servers[number] = served(start(number, file));
    }
    assert_eq!(changes(&servers[winner]).await, 2);
    assert_eq!(gauge(&metrics[loser], "scopegate_catalog_file_rejected"), Some(1.0));
}
