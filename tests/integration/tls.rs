//! TLS over real sockets: who gets a connection, with which certificate, and what happens when
//! the files change.
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness;
use crate::harness::ca::{Ca, Pair};
use crate::harness::{Client, Server, scopegate};
use rcgen::{CertificateParams, SanType, SerialNumber, date_time_ymd};
use scopegate::proto::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use x509_cert::der::Decode;

/// The preface and empty settings (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// How long the files may be unseen: far longer than it takes.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

impl Ca {
    /// A pair of this machine, by its serial number.
    fn pair(&self, serial: u8) -> Pair {
        self.pair_until(serial, 2100)
    }

    fn pair_until(&self, serial: u8, year: i32) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("names");
        let uri = "spiffe://example.org/gateway".try_into().expect("ascii");
        params.subject_alt_names.push(SanType::URI(uri));
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(&params)
    }
}

/// The files of a server, and a place for others.
struct Files(TempDir);

impl Files {
    fn new(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.write("cert.pem", &pair.cert);
        files.write("key.pem", &pair.key);
        files
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("written");
        self.path(name).display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn serve(&self, more: &[&str]) -> Server {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let tls = ["--tls-cert", text(&cert), "--tls-key", text(&key)];
        Server::start(&self.data(), &[&tls[..], &["--demo"], more].concat())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A client that trusts a CA, and perhaps shows a certificate.
fn config(ca: &Ca, shown: Option<&Pair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM")).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Begins HTTP/2, and waits for the server's first word: it has none for who is refused.
async fn begin(
    server: &Server,
    config: ClientConfig,
) -> io::Result<TlsStream<tokio::net::TcpStream>> {
    let tcp = tokio::net::TcpStream::connect(&server.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.write_all(PREFACE).await?;
    tls.read_u8().await?;
    Ok(tls)
}

fn serial(tls: &TlsStream<tokio::net::TcpStream>) -> u8 {
    let (_, session) = tls.get_ref();
    let certificate = &session.peer_certificates().expect("a certificate")[0];
    let certificate = x509_cert::Certificate::from_der(certificate).expect("a certificate");
    *certificate.tbs_certificate.serial_number.as_bytes().last().expect("a number")
}

/// Connects until the server shows a certificate.
async fn until_shown(server: &Server, ca: &Ca, wanted: u8) {
    let end = Instant::now() + WAIT_LIMIT;
    loop {
        let shown = serial(&begin(server, config(ca, None)).await.expect("served"));
        if shown == wanted {
            return;
        }
        assert!(Instant::now() < end, "{shown} is still shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_logged(server: &Server, part: &str) {
    let end = Instant::now() + WAIT_LIMIT;
    while server.logged(part) == 0 {
        assert!(Instant::now() < end, "not logged: {part}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn client(server: &Server, ca: &Ca, shown: Option<&Pair>) -> Client {
    client_as(server, ca, shown, None).await
}

/// A client that also presents a key, if any.
async fn client_as(server: &Server, ca: &Ca, shown: Option<&Pair>, key: Option<&str>) -> Client {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.pem()));
    if let Some(pair) = shown {
        tls = tls.identity(Identity::from_pem(&pair.cert, &pair.key));
    }
    let endpoint = harness::endpoint(&format!("https://{}", server.address));
    let endpoint = endpoint.tls_config(tls).expect("a configuration");
    Client::over_as(endpoint.connect().await.expect("connected"), key)
}

async fn assert_served(client: &Client) {
    let reason = client.reason("demo", "hr-sync", &["users:write"]).await;
    assert_eq!(reason, Reason::Allowed);
}

/// What a raw connection is answered with, to its end.
fn raw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(&server.address).expect("accepted");
    tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    tcp.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("kept open"),
        _ => answer,
    }
}

#[tokio::test]
async fn a_check_is_answered_over_tls_and_nothing_in_plain_text() {
    let ca = Ca::new();
    let files = Files::new(&ca.pair(1));
    let server = files.serve(&[]);
    assert_served(&client(&server, &ca, None).await).await;
    let answer = raw(&server, PREFACE);
    // At most an alert (RFC 8446 section 6).
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    assert!(begin(&server, config(&Ca::new(), None)).await.is_err(), "another's CA");
    assert_served(&client(&server, &ca, None).await).await;
}

#[tokio::test]
async fn other_protocols_and_old_versions_are_refused() {
    let ca = Ca::new();
    let files = Files::new(&ca.pair(1));
    let server = files.serve(&[]);
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = config(&ca, None);
        config.alpn_protocols = protocols.clone();
        assert!(begin(&server, config).await.is_err(), "{protocols:?}");
    }
    // A ClientHello of TLS 1.1 with one cipher of its time (RFC 4346 section 7.4.1.2).
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    hello[4] = u8::try_from(hello.len() - 5).expect("short");
    hello[8] = u8::try_from(hello.len() - 9).expect("short");
    let answer = raw(&server, &hello);
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    assert_served(&client(&server, &ca, None).await).await;
}

#[tokio::test]
async fn only_clients_of_the_client_ca_are_served() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.pair(1));
    let client_ca = files.write("clients.pem", &clients.pem());
    let server = files.serve(&["--tls-client-ca", &client_ca]);
    let right = clients.pair(2);
    for (what, shown) in [
        ("none", None),
        ("of the server's CA", Some(ca.pair(3))),
        ("expired", Some(clients.pair_until(4, 2021))),
    ] {
        assert!(begin(&server, config(&ca, shown.as_ref())).await.is_err(), "{what}");
    }
    begin(&server, config(&ca, Some(&right))).await.expect("served");
    assert_served(&client(&server, &ca, Some(&right)).await).await;
}

#[tokio::test]
async fn a_client_certificate_is_looked_at_for_every_connection() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.pair(1));
    let client_ca = files.write("clients.pem", &clients.pem());
    let server = files.serve(&["--tls-client-ca", &client_ca]);
    // One that remembers sessions, and would resume one.
    let config = config(&ca, Some(&clients.pair(2)));
    for _ in 0..3 {
        let mut tls = begin(&server, config.clone()).await.expect("served");
        // What is left of its first word; tickets would stand before it.
        tls.read_u8().await.expect("more");
        let kind = tls.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(tokio_rustls::rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn the_certificate_changes_with_the_link_that_names_its_directory() {
    let ca = Ca::new();
    // As Kubernetes mounts a secret: files that are links into `..data`, itself a link, which is
    // replaced by a rename.
    let files = Files(tempfile::tempdir().expect("a directory"));
    for n in 1..=3u8 {
        let (pair, dir) = (ca.pair(n), files.path(&format!("..{n}")));
        fs::create_dir(&dir).expect("made");
        fs::write(dir.join("cert.pem"), pair.cert).expect("written");
        fs::write(dir.join("key.pem"), pair.key).expect("written");
    }
    symlink("..1", files.path("..data")).expect("linked");
    for name in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{name}"), files.path(name)).expect("linked");
    }
    let server = files.serve(&[]);
    until_shown(&server, &ca, 1).await;
    let open = client(&server, &ca, None).await;
    assert_served(&open).await;
    for n in 2..=3u8 {
        symlink(format!("..{n}"), files.path("..data_tmp")).expect("linked");
        fs::rename(files.path("..data_tmp"), files.path("..data")).expect("renamed");
        until_shown(&server, &ca, n).await;
        assert_served(&open).await;
    }
    // Another connection would have been shown the new one, and the open one is still the first.
    assert_eq!(server.logged("reloaded"), 2);
}

#[tokio::test]
async fn unusable_files_leave_the_old_ones_in_force() {
    let ca = Ca::new();
    let files = Files::new(&ca.pair(1));
    let server = files.serve(&[]);
    let next = ca.pair(2);
    let half = &next.cert[..next.cert.len() / 2];
    files.write("cert.pem", half);
    until_logged(&server, "is not PEM from its beginning to its end").await;
    until_shown(&server, &ca, 1).await;
    files.write("cert.pem", &next.cert);
    until_logged(&server, "is not the key of --tls-cert").await;
    until_shown(&server, &ca, 1).await;
    fs::remove_file(files.path("key.pem")).expect("removed");
    until_logged(&server, "entity not found").await;
    until_shown(&server, &ca, 1).await;
    files.write("key.pem", &next.key);
    until_shown(&server, &ca, 2).await;
    assert_eq!(server.logged("stay in use"), 3, "each fault is logged once");
    assert_eq!(server.logged("PRIVATE KEY"), 0);
}

#[tokio::test]
async fn changed_client_ca_is_reloaded() {
    let (ca, first, second) = (Ca::new(), Ca::new(), Ca::new());
    let files = Files::new(&ca.pair(1));
    let client_ca = files.write("clients.pem", &first.pem());
    let server = files.serve(&["--tls-client-ca", &client_ca]);
    let (old, new) = (first.pair(2), second.pair(3));
    begin(&server, config(&ca, Some(&old))).await.expect("served");
    files.write("clients.pem", &second.pem());
    let end = Instant::now() + WAIT_LIMIT;
    while begin(&server, config(&ca, Some(&new))).await.is_err() {
        assert!(Instant::now() < end, "the new CA's clients are still refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin(&server, config(&ca, Some(&old))).await.is_err(), "the old CA's are refused");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_and_the_others_are_served() {
    let ca = Ca::new();
    let files = Files::new(&ca.pair(1));
    let server = files.serve(&["--worker-threads", "1", "--stall-timeout", "1s"]);
    let open = client(&server, &ca, None).await;
    let silent: Vec<_> =
        (0..50).map(|_| TcpStream::connect(&server.address).expect("accepted")).collect();
    // They are waited for, and nobody else waits for them.
    assert_served(&client(&server, &ca, None).await).await;
    for mut silent in silent {
        silent.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
        let end = silent.read(&mut [0; 64]);
        assert!(matches!(end, Ok(0)), "closed: {end:?}");
    }
    // A handshake that was begun and not ended.
    assert!(raw(&server, &[22, 3, 1, 1, 0, 1]).is_empty());
    // And one that ended, with nothing behind it.
    let tcp = tokio::net::TcpStream::connect(&server.address).await.expect("accepted");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::new(config(&ca, None)));
    let mut tls = tls.connect(name, tcp).await.expect("shaken");
    let mut said = Vec::new();
    let read = tokio::time::timeout(WAIT_LIMIT, tls.read_to_end(&mut said)).await;
    assert!(read.is_ok(), "closed after its settings");
    assert_served(&open).await;
}

/// Starts a server that must not start.
fn fails(files: &Files, args: &[&str]) -> String {
    let output = scopegate()
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--data-dir"])
        .arg(files.data())
        .args(args)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(!files.data().exists(), "nothing was opened");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn unusable_files_are_reported_in_one_sentence_at_start() {
    let ca = Ca::new();
    let (pair, other) = (ca.pair(1), ca.pair(2));
    let files = Files::new(&pair);
    let (cert, key) = (files.write("cert.pem", &pair.cert), files.write("key.pem", &pair.key));
    let other = files.write("other.pem", &other.key);
    let nothing = files.write("nothing.pem", "nothing");
    let missing = text(&files.path("missing.pem")).to_owned();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let encrypted = files.write("encrypted.pem", encrypted);
    let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let unknown = files.write("unknown.pem", unknown);
    for (cert, key, client_ca, flag, said) in [
        (&missing, &key, &cert, "--tls-cert", "entity not found"),
        (&cert, &missing, &cert, "--tls-key", "entity not found"),
        (&cert, &key, &missing, "--tls-client-ca", "entity not found"),
        (&nothing, &key, &cert, "--tls-cert", "holds no certificate"),
        (&cert, &nothing, &cert, "--tls-key", "holds no private key"),
        (&cert, &encrypted, &cert, "--tls-key", "not encrypted"),
        (&cert, &unknown, &cert, "--tls-key", "unsupported kind"),
        (&cert, &other, &cert, "--tls-key", "is not the key of --tls-cert"),
        (&cert, &key, &key, "--tls-client-ca", "holds no certificate"),
    ] {
        let args = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", client_ca];
        let sentence = fails(&files, &args);
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(sentence.starts_with(&format!("scopegate: {flag} /")), "{sentence}");
        assert!(sentence.contains(said), "{sentence}");
    }
    for half in [["--tls-cert", &cert], ["--tls-key", &key], ["--tls-client-ca", &cert]] {
        assert!(fails(&files, &half).contains("required arguments"));
    }
}

fn ask(server: &Server, scheme: &str, command: &[&str], more: &[&str]) -> Output {
    let endpoint = format!("{scheme}://{}", server.address);
    let args = [command, &["--endpoint", &endpoint], more].concat();
    scopegate().args(args).output().expect("runs")
}

#[tokio::test]
async fn the_commands_speak_tls() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.pair(1));
    let client_ca = files.write("clients.pem", &clients.pem());
    let root = files.write("ca.pem", &ca.pem());
    let pair = clients.pair(2);
    let (cert, key) = (files.write("c.pem", &pair.cert), files.write("k.pem", &pair.key));
    let company = files.write("import.jsonl", r#"{"company_id":"acme"}"#);
    let server = files.serve(&["--tls-client-ca", &client_ca]);
    let check: &[&str] = &["check", "demo", "hr-sync", "users:write"];
    let shown = ["--ca", &root, "--client-cert", &cert, "--client-key", &key];
    for command in [check, &["health"], &["import", &company]] {
        let output = ask(&server, "https", command, &shown);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for (scheme, less, said) in [
            ("https", &shown[..2], ""),
            ("https", &[], "cannot reach"),
            ("http", &[], ""),
            ("http", &shown[..], "begins with https://"),
        ] {
            let output = ask(&server, scheme, command, less);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let sentence = String::from_utf8_lossy(&output.stderr);
            assert!(sentence.contains(said), "{sentence}");
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
            println!("{sentence}");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_a_key_or_half_of_one() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let files = Files::new(&ca.pair(1));
    let client_ca = files.write("clients.pem", &clients.pem());
    let server = files.serve(&["--tls-client-ca", &client_ca]);
    let gateway = clients.pair(2);
    let stranger = {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("names");
        params.not_after = date_time_ymd(2100, 1, 1);
        clients.sign(&params)
    };
    let anybody = client(&server, &ca, Some(&stranger)).await;
    let new = |name: &str, role: Role| CreateKeyRequest {
        name: name.to_owned(),
        roles: vec![role.into()],
        ..CreateKeyRequest::default()
    };
    let create = async |by: &Client, new: CreateKeyRequest| {
        by.keys.clone().create_key(new).await.map(tonic::Response::into_inner)
    };
    let operator = create(&anybody, new("root", Role::Operator)).await.expect("made").secret;
    let operator = client_as(&server, &ca, Some(&stranger), Some(&operator)).await;
    let uri = || "spiffe://example.org/gateway".to_owned();
    let alone = CreateKeyRequest {
        certificate: uri(),
        certificate_only: true,
        ..new("gateway", Role::Service)
    };
    let made = create(&operator, alone.clone()).await.expect("made");
    assert!(made.secret.is_empty() && made.key.as_ref().is_some_and(|key| key.certificate_only));
    // Of two with the same certificate it could not be told who calls.
    let (code, _) = harness::refused(create(&operator, alone).await);
    assert_eq!(code, tonic::Code::AlreadyExists);
    let both = CreateKeyRequest { certificate: uri(), ..new("both", Role::Service) };
    let both = create(&operator, both).await.expect("made").secret;

    assert_served(&client(&server, &ca, Some(&gateway)).await).await;
    assert_served(&client_as(&server, &ca, Some(&gateway), Some(&both)).await).await;
    for (what, shown, key, reason) in [
        ("another's certificate", &stranger, None, "KEY_REQUIRED"),
        ("another's with a key", &stranger, Some(&*both), "CERTIFICATE_REQUIRED"),
        ("a right certificate, a wrong key", &gateway, Some("sgk_x"), "KEY_UNKNOWN"),
    ] {
        let client = client_as(&server, &ca, Some(shown), key).await;
        let asked = client.ask(harness::scopes_of("demo", "hr-sync", &["users:write"])).await;
        let (code, details) = harness::refused(asked);
        assert_eq!(code, tonic::Code::Unauthenticated, "{what}");
        assert_eq!(details.error_info().expect("it").reason, reason, "{what}");
    }
    let gone = DeleteKeyRequest { key_id: made.key.expect("a key").key_id, ..Default::default() };
    operator.keys.clone().delete_key(gone).await.expect("revoked");
    let after = client(&server, &ca, Some(&gateway)).await;
    let asked = after.ask(harness::scopes_of("demo", "hr-sync", &["users:write"])).await;
    assert_eq!(harness::refused(asked).0, tonic::Code::Unauthenticated);
}
