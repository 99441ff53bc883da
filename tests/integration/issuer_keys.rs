//! The keys of issuers over time, read over real sockets and from real files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use scopegate::authority::issuer_keys::{IssuerKeys, KeyReader, KeysNow, Refetched, Waiters};
use scopegate::metrics::supervise::Supervisor;
use scopegate::policy::catalog::issuer::{
    Algorithm, Companies, Issuer, KeySource, PartySource, UserSource,
};
use scopegate::policy::revision::Revision;
use scopegate::policy::token::key_set::KeySet;
use scopegate::proto::ApplyCatalogRequest;
use scopegate::transport::jwks::{JwksReader, JwksSettings};
use tokio::time::Instant;

use crate::harness::jwks::{Answer, Ca, JwksServer};
use crate::harness::{Server, free_address, scopegate};
use crate::metrics::scrape;

/// A set of one key with this `kid`.
fn one_key(id: &str) -> String {
    let key = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    format!(r#"{{"keys":[{{{key},"kid":"{id}"}}]}}"#)
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// An issuer of which every unknown key is fetched.
fn issuer(keys: KeySource) -> Arc<Issuer> {
    Arc::new(Issuer {
        name: "https://id.example.org/".into(),
        aliases: BTreeSet::new(),
        keys,
        algorithms: [Algorithm::EdDsa].into(),
        audiences: None,
        require: BTreeMap::new(),
        without_aud: None,
        company: PartySource::Request,
        companies: Companies::Any,
        credential: PartySource::Request,
        user: UserSource::None,
        scope_claims: vec![],
        types: None,
        clock_skew: 0,
        refresh: 24 * 3600,
        refetch_after: 0,
        usable_for: 24 * 3600,
        confirmed_by_caller: false,
    })
}

/// The keys of one issuer, as a server has them.
struct Scene {
    keys: IssuerKeys,
    issuer: Arc<Issuer>,
    waiters: Waiters,
}

impl Scene {
    fn new(source: KeySource, settings: JwksSettings) -> Self {
        let scene = Self {
            keys: IssuerKeys::default(),
            issuer: issuer(source),
            waiters: Waiters::default(),
        };
        let reader: Arc<dyn KeyReader> = Arc::new(JwksReader::new(settings).expect("a reader"));
        let supervisor = Arc::new(Supervisor::default());
        scene.keys.reconcile(Revision(1), [&scene.issuer], &reader, &supervisor);
        scene
    }

    /// Asks for a fetch, as a check with a token of an unknown key does.
    async fn refetched(&self) -> Refetched {
        self.keys.refetched(&self.issuer, Revision(1), &self.waiters, far()).await
    }

    fn has(&self, document: &str) -> bool {
        let set = KeySet::parse(document.as_bytes()).expect("a key set").keys;
        self.keys.current(&self.issuer) == KeysNow::Usable(Arc::new(set))
    }

    async fn until_has(&self, document: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.has(document) {
            assert!(Instant::now() < end, "{:?}", self.keys.current(&self.issuer));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn read(reader: &JwksReader, source: KeySource) -> Result<String, String> {
    let read = reader.read(&source).await;
    read.map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(|error| error.0)
}

fn by_url(url: &str) -> KeySource {
    KeySource::Url(url.into())
}

fn plain_reader() -> JwksReader {
    JwksReader::new(JwksSettings::default()).expect("a reader")
}

#[tokio::test]
async fn document_is_fetched_by_one_plain_request() {
    let server = JwksServer::start(Answer::keys(&one_key("a")));
    let url = format!("http://{}/keys?of=x%20y#part", server.address);
    assert_eq!(read(&plain_reader(), by_url(&url)).await, Ok(one_key("a")));
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    let lines: BTreeSet<_> = request.trim_end().split("\r\n").collect();
    let host = format!("host: {}", server.address);
    let agent = concat!("user-agent: scopegate/", env!("CARGO_PKG_VERSION"));
    let accept = "accept: application/jwk-set+json, application/json";
    let expected = ["GET /keys?of=x%20y HTTP/1.1", &host, agent, accept, "connection: close"];
    assert_eq!(lines, expected.into());
    // The end of the connection is the end of the body, too.
    server.set(Answer::Bytes(b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec()));
    assert_eq!(read(&plain_reader(), by_url(&server.url())).await.as_deref(), Ok("{}"));
    server.set(Answer::Bytes(b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec()));
    assert_eq!(read(&plain_reader(), by_url(&server.url())).await.as_deref(), Ok("{}"));
}

#[tokio::test]
async fn response_that_is_not_a_plain_document_is_a_failure_and_is_not_told() {
    const BODY: &str = "BODY";
    let reader = plain_reader();
    let elsewhere = JwksServer::start(Answer::keys(&one_key("a")));
    let server = JwksServer::start(Answer::Silence);
    let location = format!("location: {}\r\n", elsewhere.url());
    let cut = |head: &str| Answer::Bytes(format!("HTTP/1.1 200 OK\r\n{head}\r\n{BODY}").into());
    let large = "x".repeat((256 << 10) + 1);
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    let chunks =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5));
    for (answer, cause) in [
        (Answer::response("404 Not Found", "", BODY), "status 404"),
        (Answer::response("500 Internal Server Error", "", BODY), "status 500"),
        (Answer::response("204 No Content", "", ""), "status 204"),
        (Answer::response("206 Partial Content", "", BODY), "status 206"),
        (Answer::response("401 Unauthorized", "www-authenticate: Basic\r\n", BODY), "status 401"),
        (Answer::response("302 Found", &location, BODY), "status 302: a redirect is not followed"),
        (Answer::response("308 Permanent", &location, BODY), "status 308: a redirect is not"),
        (Answer::response("200 OK", "content-encoding: gzip\r\n", BODY), "a content encoding"),
        (Answer::response("200 OK", "", &large), "more than 262144 bytes"),
        (Answer::Bytes(chunks.into()), "more than 262144 bytes"),
        (Answer::Flood(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), "no valid response"),
        (Answer::Flood(b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()), "more than 262144 bytes"),
        (Answer::Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()), "not fetched within 5 s"),
        (cut("content-length: 5\r\n"), "the response is cut"),
        (cut("transfer-encoding: chunked\r\n"), "the response is cut"),
        (cut("content-length: x\r\n"), "no valid response"),
        (cut("content-length: 4\r\ncontent-length: 5\r\n"), "no valid response"),
        (Answer::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), "no valid response"),
        (Answer::Bytes(vec![]), "no valid response"),
    ] {
        server.set(answer);
        let error = read(&reader, by_url(&server.url())).await.expect_err(cause);
        assert!(error.contains(cause), "{error}, not {cause}");
        assert!(!error.contains(BODY) && error.len() <= 300, "{error}");
    }
    assert_eq!(elsewhere.requests(), [""; 0]);
    // As many bytes as are allowed.
    let (largest, _) = large.split_at(256 << 10);
    server.set(Answer::keys(largest));
    assert_eq!(read(&reader, by_url(&server.url())).await.as_deref(), Ok(largest));
    // A body that is longer than it says is read as it says.
    server.set(cut("content-length: 2\r\n"));
    assert_eq!(read(&reader, by_url(&server.url())).await.as_deref(), Ok("BO"));
}

#[tokio::test]
async fn fetch_from_a_server_that_hangs_ends() {
    let ca = Ca::new();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    fs::write(&file, ca.pem()).expect("written");
    let reader = JwksReader::new(JwksSettings { ca: Some(file), dir: None }).expect("a reader");
    let at = "127.0.0.1:0".parse().expect("an address");
    let tls = || Some(ca.tls(&["127.0.0.1"], 2100));
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"keys\"".to_vec();
    let servers = [
        JwksServer::start(Answer::Silence),
        JwksServer::start(Answer::Hang(vec![])),
        JwksServer::start(Answer::Hang(head.clone())),
        JwksServer::start_at(at, Answer::Silence, tls()),
        JwksServer::start_at(at, Answer::Hang(head), tls()),
    ];
    let [a, b, c, d, e] = &servers;
    let https = |server: &JwksServer| by_url(&server.url().replace("http:", "https:"));
    let (a, b, c, d, e) = tokio::join!(
        read(&reader, by_url(&a.url())),
        read(&reader, by_url(&b.url())),
        read(&reader, by_url(&c.url())),
        read(&reader, https(d)),
        read(&reader, https(e)),
    );
    for outcome in [a, b, c, d, e] {
        assert_eq!(outcome, Err("not fetched within 5 seconds".to_owned()));
    }
}

#[tokio::test]
async fn keys_outlive_a_server_that_lies_and_dies_and_follow_it_when_it_rotates() {
    let server = JwksServer::start(Answer::keys(&one_key("a")));
    let scene = Scene::new(by_url(&server.url()), JwksSettings::default());
    assert_eq!(scene.refetched().await, Refetched::LookAgain, "the first fetch");
    assert!(scene.has(&one_key("a")));
    let key = one_key("b").replace(r#"{"keys":["#, "").replace("]}", "");
    let many = |count: usize| format!(r#"{{"keys":[{}]}}"#, vec![key.as_str(); count].join(","));
    for lie in [
        Answer::response("500 Internal Server Error", "", &one_key("b")),
        Answer::response("302 Found", "location: /\r\n", &one_key("b")),
        Answer::keys("<html>"),
        Answer::keys(""),
        Answer::keys(&one_key("b").replace("keys", "key")),
        Answer::keys(&key),
        Answer::keys(&many(65)),
        Answer::keys(&format!("{}{}", one_key("b"), " ".repeat(300 << 10))),
        Answer::keys(one_key("b").trim_end_matches('}')),
    ] {
        server.set(lie);
        assert_eq!(scene.refetched().await, Refetched::Unverifiable);
        assert!(scene.has(&one_key("a")));
    }
    server.set(Answer::keys(&many(64)));
    assert_eq!(scene.refetched().await, Refetched::LookAgain);
    assert!(scene.has(&many(64)), "rotated");
    // A set without usable keys is a set.
    for none in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
        server.set(Answer::keys(none));
        assert_eq!(scene.refetched().await, Refetched::LookAgain);
        assert!(scene.has(r#"{"keys":[]}"#));
    }
    server.set(Answer::keys(&one_key("b")));
    assert_eq!(scene.refetched().await, Refetched::LookAgain);
    let address = server.address;
    drop(server);
    assert_eq!(scene.refetched().await, Refetched::Unverifiable, "dead");
    assert!(scene.has(&one_key("b")));
    let _server = JwksServer::start_at(address, Answer::keys(&one_key("c")), None);
    assert_eq!(scene.refetched().await, Refetched::LookAgain, "it came back");
    assert!(scene.has(&one_key("c")));
    let status = scene.keys.status();
    assert!(status[0].fetched >= 6 && status[0].failed >= 10, "{status:?}");
}

#[tokio::test]
async fn failed_fetch_is_repeated_without_any_check() {
    let server = JwksServer::start(Answer::response("503 Unavailable", "", ""));
    let scene = Scene::new(by_url(&server.url()), JwksSettings::default());
    assert_eq!(scene.refetched().await, Refetched::Unverifiable);
    server.set(Answer::keys(&one_key("a")));
    scene.until_has(&one_key("a")).await;
}

#[tokio::test]
async fn server_of_keys_is_verified_by_the_given_ca_alone() {
    let (ca, other) = (Ca::new(), Ca::new());
    let dir = tempfile::tempdir().expect("a directory");
    let reader_of = |ca: &Ca| {
        let file = dir.path().join("ca.pem");
        fs::write(&file, ca.pem()).expect("written");
        JwksReader::new(JwksSettings { ca: Some(file), dir: None }).expect("a reader")
    };
    let start = |names: &[&str], until| {
        let at = "127.0.0.1:0".parse().expect("an address");
        JwksServer::start_at(at, Answer::keys(&one_key("a")), Some(ca.tls(names, until)))
    };
    let good = start(&["localhost", "127.0.0.1"], 2100);
    let url = |server: &JwksServer, host: &str| {
        by_url(&format!("https://{host}:{}/", server.address.port()))
    };
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(read(&reader_of(&ca), url(&good, host)).await, Ok(one_key("a")), "{host}");
    }
    let wrong_host = start(&["id.example.org"], 2100);
    let expired = start(&["localhost"], 2021);
    for (reader, server, cause) in [
        (reader_of(&other), &good, "no TLS: invalid peer certificate"),
        (plain_reader(), &good, "no TLS: invalid peer certificate"),
        (
            reader_of(&ca),
            &wrong_host,
            "no TLS: invalid peer certificate: certificate not valid for name",
        ),
        (reader_of(&ca), &expired, "no TLS: invalid peer certificate: certificate expired"),
    ] {
        let error = read(&reader, url(server, "localhost")).await.expect_err(cause);
        // A machine may have no CAs at all.
        let has_none = error.contains("this machine has no CA certificates");
        assert!(error.contains(cause) || has_none, "{error}, not {cause}");
    }
    let plain = JwksServer::start(Answer::keys(&one_key("a")));
    let error = read(&reader_of(&ca), url(&plain, "localhost")).await.expect_err("no TLS");
    assert!(error.starts_with("no TLS"), "{error}");
    assert!(plain.requests().is_empty() && wrong_host.requests().is_empty());
}

#[tokio::test]
async fn only_https_and_loopback_addresses_are_fetched() {
    let server = JwksServer::start(Answer::keys(&one_key("a")));
    let port = server.address.port();
    for url in [
        format!("http://localhost:{port}/"),
        format!("http://localhost.:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://user:password@127.0.0.1:{port}/"),
        format!("https://user@127.0.0.1:{port}/"),
        format!("HTTP2://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("ftp://127.0.0.1:{port}/"),
        "file:///etc/passwd".to_owned(),
        "/jwks.json".to_owned(),
        "https://".to_owned(),
        "https://a b/".to_owned(),
        String::new(),
    ] {
        assert!(read(&plain_reader(), by_url(&url)).await.is_err(), "{url}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn file_of_cas_must_be_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    let new = || JwksReader::new(JwksSettings { ca: Some(file.clone()), dir: None }).err();
    let name = format!("--jwks-ca {}: ", file.display());
    assert_eq!(new(), Some(format!("{name}entity not found")));
    fs::write(&file, "").expect("written");
    assert_eq!(new(), Some(format!("{name}is empty: it should hold a certificate in PEM")));
}

#[tokio::test]
async fn file_is_followed_and_its_last_good_set_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let settings = JwksSettings { ca: None, dir: Some(dir.path().to_owned()) };
    let scene = Scene::new(KeySource::File("id.json".into()), settings);
    assert_eq!(scene.refetched().await, Refetched::Unverifiable, "there is no file");
    assert_eq!(scene.keys.current(&scene.issuer), KeysNow::Unusable);
    write("id.json", &one_key("a"));
    scene.until_has(&one_key("a")).await;
    assert_eq!(scene.refetched().await, Refetched::Unchanged, "no check waits for a file");
    // A malformed file, and then the next good one: there is no moment without the old keys.
    write("id.json", "{");
    write("new.json", &one_key("b"));
    assert!(scene.has(&one_key("a")));
    fs::rename(dir.path().join("new.json"), dir.path().join("id.json")).expect("renamed");
    scene.until_has(&one_key("b")).await;
    fs::remove_file(dir.path().join("id.json")).expect("removed");
    assert!(scene.has(&one_key("b")));
    // As the volumes of Kubernetes change.
    write("linked.json", &one_key("c"));
    symlink("linked.json", dir.path().join("id.json")).expect("linked");
    scene.until_has(&one_key("c")).await;
}

#[tokio::test]
async fn only_files_of_the_directory_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).expect("made");
    fs::write(dir.path().join("outer.json"), "{}").expect("written");
    fs::write(inner.join("inner.json"), "{}").expect("written");
    let by_file = |name: &str| KeySource::File(name.into());
    let reader_of = |dir: Option<&Path>| {
        let dir = dir.map(Path::to_owned);
        JwksReader::new(JwksSettings { ca: None, dir }).expect("a reader")
    };
    let reader = reader_of(Some(&inner));
    assert_eq!(read(&reader, by_file("inner.json")).await.as_deref(), Ok("{}"));
    let absolute = dir.path().join("outer.json").display().to_string();
    for name in ["../outer.json", &absolute, "./inner.json", "..", ".", "", "a/../inner.json"] {
        assert!(read(&reader, by_file(name)).await.is_err(), "{name}");
    }
    fs::write(inner.join("large.json"), " ".repeat((256 << 10) + 1)).expect("written");
    // A read of a pipe that no process writes to would never end.
    let pipe = inner.join("pipe.json");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("made");
    symlink("/dev/zero", inner.join("endless.json")).expect("linked");
    for name in ["pipe.json", "endless.json"] {
        let error = read(&reader, by_file(name)).await.expect_err("not a file");
        assert!(error.ends_with(&format!("{name}: is not a regular file")), "{error}");
    }
    let large = read(&reader, by_file("large.json")).await.expect_err("too large");
    assert!(large.ends_with("large.json: has more than 262144 bytes"), "{large}");
    let none = read(&reader_of(None), by_file("inner.json")).await;
    assert_eq!(none, Err("--jwks-dir is not given".to_owned()));
}

const BY_URL: &str = "https://id.example.org/";
const BY_FILE: &str = "https://files.example.org/";

/// A catalog with an issuer whose keys are at this URL, and one whose keys are in a file.
fn catalog(url: &str, more: &str) -> String {
    format!(
        "scopes: {{ users:read: }}\n\
         issuers:\n  \
           {BY_URL}: {{ jwks_url: '{url}', algorithms: [EdDSA], company: {{ is: acme }}, audiences: [api], refresh: 1s{more} }}\n  \
           {BY_FILE}: {{ jwks_file: id.json, algorithms: [EdDSA], company: {{ is: acme }}, audiences: [api] }}\n"
    )
}

/// Reads the metrics until a series has at least this value.
fn until_counted(metrics: &str, series: &str, least: f64) -> BTreeMap<String, f64> {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let all = scrape(metrics);
        if all.get(series).is_some_and(|value| *value >= least) {
            return all;
        }
        assert!(std::time::Instant::now() < end, "{series}: {all:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn until_logged(server: &Server, parts: [&str; 2]) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while server.logged_all(&parts) == 0 {
        assert!(std::time::Instant::now() < end, "not logged: {parts:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_serves_without_keys_and_counts_and_logs_how_they_are_read() {
    const BODY: &str = "the body of a response";
    let jwks = JwksServer::start(Answer::response("500 Internal Server Error", "", BODY));
    let dir = tempfile::tempdir().expect("a directory");
    let (file, store) = (dir.path().join("catalog.yaml"), dir.path().join("store"));
    fs::write(&file, catalog(&jwks.url(), "")).expect("written");
    let (metrics, jwks_dir) = (free_address(), dir.path().join("jwks"));
    let flags = ["--catalog", file.to_str().expect("a path"), "--metrics", &metrics];
    let more = ["--jwks-dir", jwks_dir.to_str().expect("a path")];
    let server = Server::start(&store, &[&flags[..], &more].concat());
    let client = server.client().await;
    let age = |issuer: &str| format!("scopegate_issuer_keys_age_seconds{{issuer=\"{issuer}\"}}");
    let fetches = |result: &str| {
        format!("scopegate_issuer_fetches_total{{issuer=\"{BY_URL}\",result=\"{result}\"}}")
    };
    let read = until_counted(&metrics, &fetches("failed"), 2.0);
    assert_eq!(read[&fetches("ok")], 0.0);
    assert_eq!(
        read[&format!("scopegate_issuer_keys_usable_for_seconds{{issuer=\"{BY_URL}\"}}")],
        86_400.0
    );
    let ages = |read: &BTreeMap<String, f64>| {
        read.keys().filter(|name| name.contains("keys_age")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(ages(&read), [""; 0], "no keys yet");
    let usable = |issuer: &str| format!("scopegate_issuer_keys_usable{{issuer=\"{issuer}\"}}");
    assert_eq!([read[&usable(BY_URL)], read[&usable(BY_FILE)]], [0.0, 0.0]);
    until_logged(&server, [BY_FILE, "could not be read"]);
    assert_eq!(server.logged_all(&[BY_URL, "could not be read", "status 500"]), 1, "once");
    jwks.set(Answer::keys(&one_key("a")));
    let read = until_counted(&metrics, &fetches("ok"), 2.0);
    assert_eq!(ages(&read), [age(BY_URL)]);
    assert_eq!([read[&usable(BY_URL)], read[&usable(BY_FILE)]], [1.0, 0.0]);
    until_logged(&server, [BY_URL, "are read again"]);
    fs::create_dir(&jwks_dir).expect("made");
    let symmetric = r#"{"keys":[{"kty":"oct","kid":"s","k":"c2VjcmV0"}]}"#;
    fs::write(jwks_dir.join("id.json"), symmetric).expect("written");
    until_counted(&metrics, &age(BY_FILE), 0.0);
    until_logged(&server, [BY_FILE, "skipped"]);
    // Another entry of the same issuer begins anew, and is fetched from its own URL.
    let other = JwksServer::start(Answer::Silence);
    let apply = async |yaml: String| {
        let request = ApplyCatalogRequest { yaml, ..ApplyCatalogRequest::default() };
        client.catalog.clone().apply_catalog(request).await.expect("applied");
    };
    apply(catalog(&other.url(), "")).await;
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while ages(&scrape(&metrics)) != [age(BY_FILE)] {
        assert!(std::time::Instant::now() < end, "{:?}", ages(&scrape(&metrics)));
    }
    apply(catalog(&jwks.url(), ", usable_for: 1h")).await;
    until_counted(&metrics, &age(BY_URL), 0.0);
    apply("scopes: { users:read: }".to_owned()).await;
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while scrape(&metrics).keys().any(|name| name.starts_with("scopegate_issuer")) {
        assert!(std::time::Instant::now() < end, "the issuers are still there");
    }
    let (status, log) = server.end();
    assert!(status.success());
    let log = log.join("\n");
    for secret in [BODY, "11qYAYKxCrfVS", "c2VjcmV0"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn server_does_not_start_with_a_malformed_file_of_cas() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    fs::write(&file, "no certificate").expect("written");
    let mut command = scopegate();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("store"));
    let done = command.arg("--jwks-ca").arg(&file).output().expect("it runs");
    assert_eq!(done.status.code(), Some(64));
    let error = String::from_utf8_lossy(&done.stderr);
    let expected = format!("--jwks-ca {}: holds no certificate in PEM", file.display());
    assert!(error.contains(&expected), "{error}");
}
