//! What a server is started with: a catalog file that cannot be used stops the first start of a
//! store, and no later one.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

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
