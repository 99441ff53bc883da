//! Metrics, as Prometheus reads them from a real process.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness;
use crate::harness::etcd::Etcd;
use crate::harness::{Client, Server, free_address, scopegate, scopes_of};
use scopegate::proto::*;
use tonic::Code;

/// What a GET of a path says: its status line, and its body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).expect("a connection");
    write!(connection, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().expect("a status").to_owned(), body.to_owned())
}

/// Every series and its value.
pub fn scrape(address: &str) -> BTreeMap<String, f64> {
    let (status, body) = get(address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.ends_with("# EOF\n"), "OpenMetrics");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let series: BTreeMap<_, _> = lines
        .map(|line| line.rsplit_once(' ').expect("a value"))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect();
    let infinite = series.keys().filter(|series| series.contains("le=\"+Inf\"")).count();
    let histograms = body.lines().filter(|line| line.ends_with(" histogram")).count();
    assert_eq!(infinite, histograms, "every histogram ends");
    series
}

async fn served(dir: &std::path::Path, more: &[&str]) -> (Server, Client, String) {
    let metrics = free_address();
    let catalog = harness::catalog("360learning.yaml");
    let mut args = vec!["--catalog", catalog.to_str().expect("a path"), "--metrics", &metrics];
    args.extend(more);
    let server = Server::start(dir, &args);
    let client = server.client().await;
    (server, client, metrics)
}

#[tokio::test]
async fn requests_are_counted_once_by_their_labels() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, metrics) = served(dir.path(), &[]).await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let before = scrape(&metrics);
    for _ in 0..3 {
        client.check("acme", "hr", &["users:read"]).await;
    }
    client.check("acme", "hr", &["users:write"]).await;
    let batch = BatchCheckRequest {
        checks: vec![
            scopes_of("acme", "hr", &["users:read"]),
            scopes_of("acme", "x", &["users:read"]),
        ],
    };
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    let none = client.credential("acme", "nobody").await.expect_err("none");
    assert_eq!(none.code(), Code::NotFound);
    let malformed = client.ask(scopes_of("acme", "hr", &[])).await.expect_err("malformed");
    assert_eq!(malformed.code(), Code::InvalidArgument);
    let after = scrape(&metrics);
    let moved = |series: &str| {
        let series = format!("scopegate_{series}");
        after.get(&series).copied().unwrap_or(0.0) - before.get(&series).copied().unwrap_or(0.0)
    };
    for (series, count) in [
        ("decisions_total{decision=\"ALLOWED\",reason=\"ALLOWED\"}", 4.0),
        ("decisions_total{decision=\"DENIED\",reason=\"SCOPE_NOT_GRANTED\"}", 1.0),
        ("decisions_total{decision=\"DENIED\",reason=\"CREDENTIAL_UNKNOWN\"}", 1.0),
        ("check_duration_seconds_count", 4.0),
        ("check_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("batch_check_duration_seconds_count", 1.0),
        ("grpc_requests_total{method=\"Check\",code=\"OK\"}", 4.0),
        ("grpc_requests_total{method=\"Check\",code=\"INVALID_ARGUMENT\"}", 1.0),
        ("grpc_requests_total{method=\"GetCredential\",code=\"NOT_FOUND\"}", 1.0),
        ("changes_committed_total", 0.0),
    ] {
        assert_eq!(moved(series), count, "{series}");
    }
    assert_eq!(after["scopegate_published_revision"], 3.0);
    assert_eq!(after["scopegate_changes_committed_total"], 3.0);
    assert_eq!(after["scopegate_commit_queue_depth"], 0.0);
    assert_eq!(after["scopegate_connections"], 1.0);
    // No id of the platform is in any series.
    assert!(after.keys().all(|series| !series.contains("acme") && !series.contains("\"hr\"")));
    let (status, _) = get(&metrics, "/elsewhere");
    assert_eq!(status, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn replicas_measure_their_lease_the_log_and_each_other() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("etcd://{}/test", etcd.address(0));
    let init = scopegate().args(["replicas", "init", "--replicate", &url]).output();
    assert!(init.expect("it runs").status.success());
    let replica = |name: &str| {
        let metrics = free_address();
        let args = ["--replicate", &url, "--replica-name", name, "--metrics", &metrics];
        (Server::start(&dir.path().join(name), &args), metrics)
    };
    let ((a, metrics), (_b, _)) = (replica("a"), replica("b"));
    let apply = scopegate()
        .args(["catalog", "apply", "--yes", "--endpoint", &a.url()])
        .arg(harness::catalog("360learning.yaml"))
        .output();
    assert!(apply.expect("it runs").status.success());
    a.client().await.create_company("acme", None).await;
    let all = scrape(&metrics);
    for (series, value) in [
        ("state{state=\"joined\"}", 1.0),
        ("state{state=\"joining\"}", 0.0),
        ("head_revision", 2.0),
        ("published_revision", 2.0),
        ("commit_seconds_count", 2.0),
        ("commits_lost_total", 0.0),
        ("diverged_total", 0.0),
        ("barrier_seconds_count", 2.0),
        ("barrier_given_up_total", 0.0),
        ("barrier_waits_total{for=\"b\"}", 2.0),
        ("sessions_total", 1.0),
        ("etcd_quota_bytes", 2_147_483_648.0),
        ("snapshots_total{way=\"given\"}", 0.0),
        ("etcd_errors_total{kind=\"no_space\"}", 0.0),
    ] {
        let series = format!("scopegate_replica_{series}");
        assert_eq!(all.get(&series), Some(&value), "{series}: {all:#?}");
    }
    let left = all["scopegate_replica_lease_seconds_left"];
    assert!(left > 0.0 && left <= 4.0, "{left}");
    assert!(all["scopegate_replica_log_bytes"] > 0.0);
    assert!(all["scopegate_replica_beat_seconds_count"] > 0.0);
    // Both have the clock of this machine. A record that is on its way makes it look behind.
    let ahead = all["scopegate_replica_clock_ahead_seconds{of=\"b\"}"];
    assert!(ahead < 0.1, "{ahead}");
    assert!(!all.contains_key("scopegate_replica_clock_ahead_seconds{of=\"a\"}"));
}

#[tokio::test]
async fn a_flood_of_unknown_credentials_displaces_nobodys_facts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, metrics) =
        served(dir.path(), &["--cache-entries", "500", "--worker-threads", "1"]).await;
    client.create_company("acme", None).await;
    let known: Vec<_> = (0..100).map(|n| format!("known-{n}")).collect();
    for credential in &known {
        client.create_credential("acme", credential, &["users:read"]).await;
    }
    let ask_all = async |names: &[String]| {
        for names in names.chunks(1000) {
            let checks = names.iter().map(|name| scopes_of("acme", name, &["users:read"]));
            let batch = BatchCheckRequest { checks: checks.collect() };
            client.authorization.clone().batch_check(batch).await.expect("an answer");
        }
    };
    for _ in 0..5 {
        ask_all(&known).await;
    }
    let unknown: Vec<_> = (0..20_000).map(|n| format!("unknown-{n}")).collect();
    ask_all(&unknown).await;
    let read = || scrape(&metrics)["scopegate_cache_lookups_total{tier=\"store\"}"];
    let before = read();
    assert!(before >= 20_000.0, "the flood was one: {before}");
    ask_all(&known).await;
    let reads = read() - before;
    assert!(reads <= 10.0, "{reads} of 100 had to be read again");
}

/// The lines of a decision log, once there are so many.
async fn decisions(log: &std::path::Path, many: usize) -> Vec<serde_json::Value> {
    for _ in 0..500 {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if text.lines().count() >= many && text.ends_with('\n') {
            let lines = text.lines().map(|line| serde_json::from_str(line).expect("an object"));
            return lines.collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no {many} decisions in time");
}

#[tokio::test]
async fn the_decision_log_has_every_denial_a_sample_of_the_rest_and_no_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    let path = log.to_str().expect("a path");
    let args = ["--decision-log", path, "--decision-log-allowed-one-in", "4"];
    let (server, client, metrics) = served(&dir.path().join("store"), &args).await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    for _ in 0..8 {
        client.check("acme", "hr", &["users:read"]).await;
    }
    let token = Token { scopes: vec!["secret:scope".to_owned()], ..Token::default() };
    let denied = CheckRequest { token: Some(token), ..scopes_of("acme", "hr", &["users:read"]) };
    client.ask(denied.clone()).await.expect("an answer");
    let batch = BatchCheckRequest { checks: vec![denied.clone(), denied] };
    client.authorization.clone().batch_check(batch).await.expect("an answer");
    let endpoint = harness::endpoint_of("acme", "hr", "GET", "/api/v2/nowhere");
    client.ask(endpoint).await.expect("an answer");
    client.ask(scopes_of("acme", "hr", &[])).await.expect_err("malformed is no decision");
    let lines = decisions(&log, 6).await;
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().expect("it")).collect();
    let missing = "SCOPE_NOT_IN_TOKEN";
    let expected = ["ALLOWED", "ALLOWED", missing, missing, missing, "ENDPOINT_UNKNOWN"];
    assert_eq!(reasons, expected);
    let denied = &lines[2];
    for (key, value) in [
        ("caller", serde_json::json!("anonymous")),
        ("company_id", serde_json::json!("acme")),
        ("credential_id", serde_json::json!("hr")),
        ("scopes", serde_json::json!(["users:read"])),
        ("decision", serde_json::json!("DENIED")),
        ("missing_scopes", serde_json::json!(["users:read"])),
        ("revision", serde_json::json!(3)),
    ] {
        assert_eq!(denied[key], value, "{key}");
    }
    assert_eq!(lines[5]["path"], "/api/v2/nowhere");
    assert!(!std::fs::read_to_string(&log).expect("a text").contains("secret:scope"));
    assert_eq!(scrape(&metrics)["scopegate_decision_log_written_total"], 6.0);
    assert_eq!(scrape(&metrics)["scopegate_decision_log_dropped_total"], 0.0);
    // A clean end writes what waits.
    for _ in 0..100 {
        client.check("acme", "nobody", &["users:read"]).await;
    }
    assert!(server.terminate().success());
    assert_eq!(decisions(&log, 106).await.len(), 106);
}
