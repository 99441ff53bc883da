//! Questions and answers, and who is answered.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use scopegate_client::proto::VerifySecretRequest;
use scopegate_client::proto::directory_service_client::DirectoryServiceClient;
use scopegate_client::{
    Caller, Check, Client, ConfigError, Decision, NotAllowed, Reach, Reason, Token,
};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Server, analytics, catalog, demo, hr_sync, patient, run, scopegate};

#[tokio::test]
async fn require_returns_the_allow_or_the_denial() {
    let (_dir, _server, client) = demo();
    let allowed = client.require(&Check::scope(&hr_sync(), "users:write")).await.expect("allowed");
    assert_eq!((allowed.reach, allowed.revision), (Reach::All, 4));
    let patch = |caller: Caller| Check::endpoint(&caller, "PATCH", "/api/v2/users/7");
    client.require(&patch(hr_sync())).await.expect("allowed");
    match client.require(&patch(analytics())).await {
        Err(NotAllowed::Denied(denied)) => {
            assert_eq!(denied.reason, Reason::ScopeNotGranted);
            assert_eq!((denied.http_status, denied.error.as_str()), (403, "invalid_scope"));
            assert_eq!((denied.missing_scopes, denied.revision), (vec!["users:write".into()], 4));
            assert!(denied.message.contains("credential level"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn server_is_reached_by_a_unix_socket() {
    let dir = TempDir::new().expect("a directory");
    let (store, path) = (dir.path().join("store"), dir.path().join("socket"));
    let server = Server::start_at(&format!("unix:{}", path.display()), &store, &["--demo"]);
    for url in [server.url(), format!("unix://{}", path.display())] {
        let client = patient(&url);
        let check = Check::scope(&hr_sync(), "users:write");
        assert_eq!(client.require(&check).await.expect("allowed").reach, Reach::All, "{url}");
    }
    for url in ["unix:", "unix://host/socket"] {
        let refused = Client::builder(url).connect().expect_err(url);
        assert!(matches!(refused, ConfigError::Endpoint(_)), "{refused}");
    }
    let with_ca = Client::builder(server.url()).ca_file("ca.pem").connect().expect_err("no TLS");
    assert!(matches!(with_ca, ConfigError::TlsWithoutHttps), "{with_ca}");
}

#[tokio::test]
async fn malformed_request_is_an_error() {
    let (_dir, _server, client) = demo();
    let none: [&str; 0] = [];
    for check in [
        Check::scopes(&hr_sync(), none),
        Check::scope(&Caller::new("", ""), "users:read"),
        Check::endpoint(&hr_sync(), "GET", "/api/v2/users/../users"),
    ] {
        let none = client.check(&check).await.expect_err("no answer");
        assert_eq!(none.code(), Code::InvalidArgument, "{check:?}");
    }
}

#[tokio::test]
async fn batch_results_keep_the_request_order() {
    let (_dir, _server, client) = demo();
    let scopes = ["users:read", "users:write", "groups:read"];
    let checks = scopes.map(|scope| Check::scope(&analytics(), scope));
    let decisions = client.batch_check(&checks).await.expect("answers");
    let yes = decisions.iter().map(|decision| matches!(decision, Decision::Allowed(_)));
    assert_eq!(Vec::from_iter(yes), [true, false, false]);
    assert!(client.batch_check(&[]).await.is_err());
}

#[tokio::test]
async fn users_and_tokens_narrow_as_the_catalog_says() {
    let dir = TempDir::new().expect("a directory");
    let server = Server::start(dir.path(), &["--catalog", &catalog("humaans")]);
    run(&server, &["company", "create", "acme"]);
    let scopes = ["private:read", "public:read"];
    run(&server, &[&["credential", "create", "acme", "crm"], &scopes[..]].concat());
    run(&server, &["user", "put", "acme", "ada", "member"]);
    let client = patient(&server.url());
    let token = Token::new(["private:read", "public:read"]).audience("api").user("ada");
    let ada = Caller::new("acme", "crm").token(token.clone());
    assert_eq!(ada.user_id(), Some("ada"));
    let person = Check::endpoint(&ada, "GET", "/api/people/ada");
    assert_eq!(client.require_reach(&person).await.expect("allowed"), Reach::Own);
    let reason = async |check: &Check| match client.require(check).await {
        Ok(_) => Reason::Allowed,
        Err(NotAllowed::Denied(denied)) => denied.reason,
        Err(NotAllowed::Failed(none)) => panic!("{none}"),
    };
    assert_eq!(reason(&person).await, Reason::NotRecordOwner);
    assert_eq!(reason(&person.clone().owned_by("ada")).await, Reason::Allowed);
    assert_eq!(reason(&person.clone().owned_by("grace")).await, Reason::NotRecordOwner);
    let people =
        |token| Check::endpoint(&Caller::new("acme", "crm").token(token), "GET", "/api/people");
    assert_eq!(reason(&people(token.clone())).await, Reason::Allowed);
    let none: [&str; 0] = [];
    let empty = Token::new(none).audience("api").user("ada");
    assert_eq!(reason(&people(empty)).await, Reason::ScopeNotInToken);
    let past = token.clone().expires_at(std::time::UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(reason(&people(past)).await, Reason::TokenExpired);
    assert_eq!(reason(&people(token.clone().audience("web"))).await, Reason::TokenAudienceMismatch);
    let bare = Check::endpoint(&Caller::new("acme", "crm"), "GET", "/api/people");
    assert_eq!(reason(&bare).await, Reason::TokenRequired);
}

#[tokio::test]
async fn check_waits_for_a_revision() {
    let (_dir, server, client) = demo();
    run(&server, &["credential", "grant", "demo", "analytics", "users:write"]);
    let check = Check::scope(&analytics(), "users:write").at_least_revision(5);
    assert_eq!(client.require(&check).await.expect("allowed").revision, 5);
    let none = client.check(&check.at_least_revision(1000)).await.expect_err("no answer");
    assert_eq!(none.code(), Code::Unavailable);
}

#[tokio::test]
async fn server_with_keys_requires_a_key() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("operator.key");
    let made = scopegate()
        .args(["keys", "bootstrap", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--to-file")
        .arg(&file)
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = std::fs::read_to_string(&file).expect("a key");
    let server = Server::start(&dir.path().join("data"), &["--catalog", &catalog("360learning")]);
    let file = file.to_str().expect("a path");
    run(&server, &["company", "create", "demo", "--key-file", file]);
    run(&server, &["credential", "create", "demo", "hr-sync", "users:read", "--key-file", file]);

    let check = Check::scope(&hr_sync(), "users:read");
    let setup = || Client::builder(server.url()).deadline(Duration::from_secs(30));
    let client = setup().key(key).connect().expect("a client");
    client.require(&check).await.expect("allowed");
    for stranger in [setup(), setup().key(format!("sgk_{}", "0".repeat(64)))] {
        let none =
            stranger.connect().expect("a client").check(&check).await.expect_err("no answer");
        assert_eq!(none.code(), Code::Unauthenticated);
    }
    // The contract's other calls go as the same caller.
    let question = VerifySecretRequest {
        company_id: "demo".to_owned(),
        secret: "sgs_no".to_owned(),
        ..VerifySecretRequest::default()
    };
    let mut directory = DirectoryServiceClient::new(client.connection());
    let answer = directory.verify_secret(question.clone()).await.expect("an answer");
    assert!(!answer.into_inner().verified);
    let mut directory = DirectoryServiceClient::new(patient(&server.url()).connection());
    let refused = directory.verify_secret(question).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn over_tls_only_the_ca_that_was_given_is_trusted() {
    let dir = TempDir::new().expect("a directory");
    let ca = ca();
    let pair = |name: &str| {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &ca).expect("signed").pem(), key.serialize_pem())
    };
    let write = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let (cert, key) = pair("127.0.0.1");
    let cert = write("cert.pem", &cert);
    let key = write("key.pem", &key);
    let roots = write("ca.pem", &ca.pem());
    let data = dir.path().join("data");
    let tls = ["--demo", "--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &roots];
    let server = Server::start(&data, &tls);
    let check = Check::scope(&hr_sync(), "users:write");
    let setup = || {
        let (cert, key) = pair("client");
        Client::builder(format!("https://{}", server.address))
            .deadline(Duration::from_secs(30))
            .identity_pem(cert, key)
    };
    let client = setup().ca_file(&roots).connect().expect("a client");
    client.require(&check).await.expect("allowed");
    // At once, and not when the deadline is over: this does not mend itself.
    for other in [setup().ca_pem(self::ca().pem()), setup()] {
        let none = other.connect().expect("a client").check(&check).await.expect_err("no answer");
        assert_eq!(none.code(), Code::Unavailable);
        assert!(none.to_string().contains("certificate"), "{none}");
    }
    let plain = Client::builder(server.url()).connect().expect("a client");
    assert!(plain.check(&check).await.is_err());
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

#[tokio::test]
async fn invalid_configuration_is_reported_by_connect() {
    let opened = |setup: scopegate_client::Builder| setup.connect().map(|_| ());
    let builder = Client::builder;
    assert!(matches!(opened(builder("127.0.0.1:50051")), Err(ConfigError::Endpoint(_))));
    assert!(matches!(opened(builder("ftp://127.0.0.1")), Err(ConfigError::Endpoint(_))));
    for key in ["", "  \n", "sgk_a b", "sgk_\u{e9}"] {
        assert!(matches!(opened(builder("http://a").key(key)), Err(ConfigError::Key)), "{key}");
    }
    assert!(matches!(opened(builder("http://a").ca_pem("")), Err(ConfigError::TlsWithoutHttps)));
    assert!(matches!(opened(builder("https://a").ca_file("/no")), Err(ConfigError::Ca(..))));
    assert!(matches!(opened(builder("https://a").identity_pem("", "")), Err(ConfigError::Tls(_))));
    assert!(matches!(opened(builder("http://a").connections(0)), Err(ConfigError::NoConnections)));
    assert!(opened(builder("http://a").key("sgk_1\n")).is_ok());
}

#[test]
fn connect_requires_a_runtime() {
    assert!(matches!(Client::builder("http://a").connect(), Err(ConfigError::NoRuntime)));
}

#[tokio::test]
async fn no_debug_shows_a_key() {
    let setup = Client::builder("http://a").key("sgk_hidden");
    let shown = format!("{setup:?}");
    let client = setup.connect().expect("a client");
    let shown = format!("{shown} {client:?} {:?}", client.connection());
    assert!(!shown.contains("hidden"), "{shown}");
    let caller = Caller::authorization("Basic hidden");
    let shown = format!("{caller:?} {:?}", Check::scope(&caller, "users:read"));
    assert!(!shown.contains("hidden"), "{shown}");
}
