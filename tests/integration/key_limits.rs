//! What one caller may take of a server: memory, places in flight, calls per second. The others,
//! and the operator who takes rights away, are served whatever it does.
use std::path::Path;

use crate::harness;
use crate::harness::bytes_codec::BytesCodec;
use crate::harness::raw::*;
use crate::harness::{Client, Server, bootstrap, owned, refused, scopes_of};
use bytes::Bytes;
use prost::Message;
use scopegate::proto::*;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::ErrorDetails;

/// A server on one core with a company, a credential and an operator's key.
async fn start(dir: &Path, args: &[&str]) -> (Server, Client) {
    let key = bootstrap(dir);
    let catalog = harness::catalog("360learning.yaml");
    let catalog = catalog.to_str().expect("a path");
    let server =
        Server::start(dir, &[&["--worker-threads", "1", "--catalog", catalog], args].concat());
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    operator.create_company("acme", None).await;
    operator.create_credential("acme", "hr", &["users:read"]).await;
    (server, operator)
}

async fn new_key(operator: &Client, role: Role) -> CreateKeyResponse {
    let request = CreateKeyRequest {
        name: "someone".to_owned(),
        roles: vec![role.into()],
        ..CreateKeyRequest::default()
    };
    operator.keys.clone().create_key(request).await.expect("made").into_inner()
}

async fn client(server: &Server, key: &CreateKeyResponse) -> Client {
    Client::connect_as(&server.url(), Some(&key.secret)).await
}

/// The headers of a call by this key.
fn headers(path: &str, key: &CreateKeyResponse, stream: u32) -> Vec<u8> {
    let bearer = format!("Bearer {}", key.secret);
    frame(HEADERS, END_HEADERS, stream, &block_to(path, &[("authorization", &bearer)]))
}

/// A connection with a call by this key, of whose message so many bytes came, and no more come.
fn unfinished(server: &Server, path: &str, key: &CreateKeyResponse, bytes: usize) -> Raw {
    let mut raw = Raw::begun(server, &[]);
    raw.send(&headers(path, key, 1));
    // A message of 4 MiB, but for one byte.
    let mut content = vec![0; bytes];
    content[1..5].copy_from_slice(&(4_u32 << 20).to_be_bytes());
    for part in content.chunks(16_000) {
        raw.send(&frame(DATA, 0, 1, part));
    }
    raw
}

/// Takes those out whose call was refused, which it is before its message is whole.
fn drop_refused(open: &mut Vec<Raw>) {
    open.retain_mut(|raw| {
        raw.send(&frame(PING, 0, 0, &[7; 8]));
        let mut refused = false;
        loop {
            let (kind, flags, content) = raw.next().expect("open");
            refused |= kind == HEADERS && flags & END_STREAM != 0;
            if kind == PING && flags == ACK && content == [7; 8] {
                return !refused;
            }
        }
    });
}

/// Begins so many calls by this key, of which so many are to be held and the others refused.
fn hold(
    server: &Server,
    key: &CreateKeyResponse,
    bytes: usize,
    all: usize,
    held: usize,
) -> Vec<Raw> {
    let paths = PATHS.iter().cycle().take(all);
    let mut open: Vec<_> = paths.map(|path| unfinished(server, path, key, bytes)).collect();
    let start = std::time::Instant::now();
    while open.len() > held {
        drop_refused(&mut open);
        assert!(start.elapsed() < WAIT_LIMIT, "{} of {all} are held, and not {held}", open.len());
    }
    for _ in 0..10 {
        drop_refused(&mut open);
    }
    assert_eq!(open.len(), held);
    open
}

fn is_limit(details: &ErrorDetails, subject: &str) -> bool {
    let quota = details.quota_failure().expect("which limit");
    assert_eq!(details.error_info().expect("why").reason, "LIMIT_EXCEEDED");
    quota.violations.iter().any(|violation| violation.subject == subject)
}

/// A batch of about 125 bytes a check.
fn batch(checks: usize) -> BatchCheckRequest {
    let credential = "c".repeat(100);
    BatchCheckRequest { checks: vec![scopes_of("acme", &credential, &["users:read"]); checks] }
}

async fn asks(client: &Client, checks: usize) -> Result<(), Status> {
    client.authorization.clone().batch_check(batch(checks)).await.map(drop)
}

const PATHS: [&str; 5] = [
    "/scopegate.v1.AuthorizationService/Check",
    "/scopegate.v1.AuthorizationService/BatchCheck",
    "/scopegate.v1.DirectoryService/GetCompany",
    "/scopegate.v1.CatalogService/ApplyCatalog",
    "/scopegate.v1.DirectoryService/ImportCredentials",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_requests_hold_bounded_memory_and_one_key_half_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &["--call-memory-mib", "1"]).await;
    let (first, second) =
        (new_key(&operator, Role::Operator).await, new_key(&operator, Role::Operator).await);
    let third = client(&server, &new_key(&operator, Role::Service).await).await;
    let mut open = Vec::new();
    for key in [&first, &second] {
        // Eight are less than half of 1 MiB, and nine are more.
        open.extend(hold(&server, key, 60_000, 12, 8));
        let client = client(&server, key).await;
        let (code, details) = refused(asks(&client, 800).await);
        assert_eq!(code, Code::ResourceExhausted);
        assert!(is_limit(&details, "memory") && details.retry_info().is_some());
        client.check("acme", "hr", &["users:read"]).await;
    }
    // What is left is less than what this asks for.
    let (code, details) = refused(asks(&third, 1_000).await);
    assert!(code == Code::ResourceExhausted && is_limit(&details, "memory"));
    third.check("acme", "hr", &["users:read"]).await;
    drop(open);
    while asks(&third, 1_000).await.is_err() {}
    asks(&client(&server, &first).await, 1_000).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_and_committed_changes_are_answered_without_free_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let scopes: Vec<_> = (0..3_000).map(|n| format!("s{n:04}")).collect();
    let catalog = dir.path().join("catalog.yaml");
    std::fs::write(&catalog, format!("scopes: {{ {}: }}", scopes.join(": , "))).expect("written");
    let data = dir.path().join("data");
    let key = bootstrap(&data);
    let args = ["--worker-threads", "1", "--call-memory-mib", "1", "--catalog"];
    let server = Server::start(&data, &[&args[..], &[catalog.to_str().expect("a path")]].concat());
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    operator.create_company("acme", None).await;
    operator.create_credential("acme", "hr", &["s0000"]).await;
    let mut open = Vec::new();
    for held in [8, 8, 1] {
        let key = new_key(&operator, Role::Operator).await;
        open.extend(hold(&server, &key, 60_000, held, held));
    }
    // A page of the company has no room, a change of it has: its reply is longer than the room.
    let request = GetCompanyRequest { company_id: "acme".to_owned() };
    let read = operator.directory.clone().get_company(request).await.map(drop);
    let (code, details) = refused(read);
    assert!(code == Code::ResourceExhausted && is_limit(&details, "memory"));
    let granted = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: scopes.clone(),
        ..GrantScopesRequest::default()
    };
    let granted = operator.authorization.clone().grant_scopes(granted).await.expect("told");
    assert_eq!(granted.into_inner().added_scopes.len(), 2_999);
    operator.restrict("acme", &["s0001"]).await;
    let stolen = open.len().to_string();
    let delete = DeleteKeyRequest { key_id: stolen, ..DeleteKeyRequest::default() };
    assert_eq!(refused(operator.keys.clone().delete_key(delete).await).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_hold_bounded_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &["--call-memory-mib", "1"]).await;
    let key = new_key(&operator, Role::Operator).await;
    let label = "x".repeat(250);
    let mut directory = operator.directory.clone();
    let credentials = (0..900).map(|n| ImportedCredential {
        company_id: "acme".to_owned(),
        credential_id: format!("c{n}"),
        label: label.clone(),
        ..ImportedCredential::default()
    });
    let credentials = credentials.collect();
    let message = ImportCredentialsRequest { credentials, ..Default::default() };
    directory.import_credentials(tokio_stream::once(message)).await.expect("imported");

    // No windows: nothing of a reply is taken. Each is more than 300 KiB.
    let request = ListCredentialsRequest {
        company_id: "acme".to_owned(),
        page_size: 1_000,
        ..ListCredentialsRequest::default()
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let content = [&[0][..], &length, &message].concat();
    let mut raw = Raw::begun(&server, &[0, 4, 0, 0, 0, 0]);
    let path = "/scopegate.v1.DirectoryService/ListCredentials";
    for call in 0..4 {
        raw.send(&headers(path, &key, 2 * call + 1));
        raw.send(&frame(DATA, END_STREAM, 2 * call + 1, &content));
    }
    // A reply without room ends by its trailers, which need no window.
    let mut ended = 0;
    while ended < 3 {
        let (kind, flags, _) = raw.next().expect("open");
        ended += u32::from(kind == HEADERS && flags & END_STREAM != 0);
    }
    let client = client(&server, &key).await;
    let (code, details) = refused(client.directory.clone().list_credentials(request.clone()).await);
    assert!(code == Code::ResourceExhausted && is_limit(&details, "memory"));
    operator.directory.clone().list_credentials(request.clone()).await.expect("another key's half");
    drop(raw);
    while client.directory.clone().list_credentials(request.clone()).await.is_err() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_half_of_the_places_in_flight_and_what_takes_away_has_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &["--max-in-flight", "8"]).await;
    let keys = [new_key(&operator, Role::Operator).await, new_key(&operator, Role::Operator).await];
    let stolen = new_key(&operator, Role::Service).await;
    for credential in ["two", "three"] {
        operator.create_credential("acme", credential, &["users:read"]).await;
    }
    let mut open = Vec::new();
    for (key, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
        let held = hold(&server, key, 100, 5, 4);
        let client = client(&server, key).await;
        let answer = client.ask(scopes_of("acme", "hr", &["users:read"])).await;
        assert_eq!(refused(answer).0, Code::ResourceExhausted);
        if open.is_empty() {
            let other = self::client(&server, other).await;
            other.check("acme", "hr", &["users:read"]).await;
        }
        open.extend(held);
    }
    // Every place is taken.
    let (code, details) = refused(operator.credential("acme", "hr").await);
    assert!(code == Code::ResourceExhausted && is_limit(&details, "calls"));
    let (mut directory, mut authorization) =
        (operator.directory.clone(), operator.authorization.clone());
    let id = stolen.key.expect("a key").key_id;
    let delete = DeleteKeyRequest { key_id: id, ..DeleteKeyRequest::default() };
    operator.keys.clone().delete_key(delete).await.expect("a stolen key is revoked");
    operator.restrict("acme", &["users:write"]).await;
    let (company_id, credential_id) = ("acme".to_owned(), "two".to_owned());
    let revoke = RevokeScopesRequest {
        company_id: company_id.clone(),
        credential_id: credential_id.clone(),
        scopes: owned(&["users:read"]),
        ..RevokeScopesRequest::default()
    };
    authorization.revoke_scopes(revoke).await.expect("revoked");
    let disable = UpdateCredentialRequest {
        company_id: company_id.clone(),
        credential_id: credential_id.clone(),
        enabled: false,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..UpdateCredentialRequest::default()
    };
    directory.update_credential(disable).await.expect("disabled");
    let delete =
        DeleteCredentialRequest { company_id, credential_id, ..DeleteCredentialRequest::default() };
    directory.delete_credential(delete).await.expect("deleted");
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_not_taken_keeps_its_place_in_flight() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &["--max-in-flight", "8"]).await;
    let key = new_key(&operator, Role::Operator).await;
    // No windows: no message of a reply is taken.
    let mut raw = Raw::begun(&server, &[0, 4, 0, 0, 0, 0]);
    let message = scopes_of("acme", "hr", &["users:read"]).encode_to_vec();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let content = [&[0][..], &length, &message].concat();
    for call in 0..6 {
        raw.send(&headers(PATHS[0], &key, 2 * call + 1));
        raw.send(&frame(DATA, END_STREAM, 2 * call + 1, &content));
    }
    let (mut begun, mut refused) = (0, 0);
    while begun + refused < 6 {
        let (kind, flags, _) = raw.next().expect("open");
        begun += u32::from(kind == HEADERS && flags & END_STREAM == 0);
        refused += u32::from(kind == HEADERS && flags & END_STREAM != 0);
    }
    assert_eq!((begun, refused), (4, 2), "half of the places");
    let client = client(&server, &key).await;
    let ask = || client.ask(scopes_of("acme", "hr", &["users:read"]));
    assert_eq!(harness::refused(ask().await).0, Code::ResourceExhausted);
    drop(raw);
    while ask().await.is_err() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_but_those_made_with_every_request_counts_in_its_keys_rate() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &["--key-rate-limit", "12"]).await;
    let check = scopes_of("acme", "hr", &["users:read"]);
    for call in ["explain", "effective", "list", "changes", "delete"] {
        let made = loop {
            // The operator has a rate, too.
            let request = CreateKeyRequest {
                name: "someone".to_owned(),
                roles: vec![Role::Operator.into()],
                ..CreateKeyRequest::default()
            };
            if let Ok(made) = operator.keys.clone().create_key(request).await {
                break made.into_inner();
            }
        };
        let client = client(&server, &made).await;
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (client, check) = (client.clone(), check.clone());
            calls.spawn(async move {
                let (mut authorization, mut directory) =
                    (client.authorization.clone(), client.directory.clone());
                let (company_id, credential_id) = ("acme".to_owned(), "hr".to_owned());
                match call {
                    "explain" => {
                        let request = ExplainCheckRequest { check: Some(check) };
                        authorization.explain_check(request).await.map(drop)
                    }
                    "effective" => {
                        let request = ListEffectiveScopesRequest {
                            company_id,
                            credential_id,
                            ..ListEffectiveScopesRequest::default()
                        };
                        authorization.list_effective_scopes(request).await.map(drop)
                    }
                    "list" => {
                        directory.list_companies(ListCompaniesRequest::default()).await.map(drop)
                    }
                    "changes" => {
                        let request = ListChangesRequest::default();
                        client.changes.clone().list_changes(request).await.map(drop)
                    }
                    _ => {
                        let key_id = "none".to_owned();
                        let request = DeleteKeyRequest { key_id, ..DeleteKeyRequest::default() };
                        let answer = client.keys.clone().delete_key(request).await;
                        match refused(answer) {
                            (Code::NotFound, _) => Ok(()),
                            (code, _) => Err(Status::new(code, "")),
                        }
                    }
                }
            });
        }
        let mut limited = 0;
        while let Some(ended) = calls.join_next().await {
            if let Err(status) = ended.expect("ended") {
                assert_eq!(status.code(), Code::ResourceExhausted, "{call}: {status:?}");
                limited += 1;
            }
        }
        assert!(limited > 0, "{call}");
        for _ in 0..30 {
            client.check("acme", "hr", &["users:read"]).await;
            asks(&client, 2).await.expect("no rate");
            let secret = VerifySecretRequest {
                company_id: "acme".to_owned(),
                credential_id: "hr".to_owned(),
                secret: "sgs_wrong".to_owned(),
            };
            client.directory.clone().verify_secret(secret).await.expect("no rate");
        }
        if call != "delete" {
            // What takes away has a rate of its own.
            let key_id = "none".to_owned();
            let request = DeleteKeyRequest { key_id, ..DeleteKeyRequest::default() };
            assert_eq!(refused(client.keys.clone().delete_key(request).await).0, Code::NotFound);
        }
    }
}

/// So many empty items of the list in this field.
fn empty_items(field: u8, count: usize) -> Vec<u8> {
    [field << 3 | 2, 0].repeat(count)
}

fn nested(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    [&bytes, content].concat()
}

/// The most memory that a process ever had, in bytes.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("alive");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_counted_before_they_are_decoded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = start(dir.path(), &[]).await;
    let key = new_key(&operator, Role::Operator).await;
    let before = peak(&server);
    let channel = harness::endpoint(&server.url()).connect().await.expect("up");
    let many = 2_000_000;
    let token = nested(6, &empty_items(2, many));
    let authorization = |method| format!("/scopegate.v1.AuthorizationService/{method}");
    let directory = |method| format!("/scopegate.v1.DirectoryService/{method}");
    let cases = [
        (authorization("BatchCheck"), empty_items(1, many), "checks"),
        (authorization("Check"), empty_items(3, many), "scopes"),
        (authorization("Check"), token.clone(), "token.scopes"),
        (authorization("BatchCheck"), nested(1, &token), "checks[0].token.scopes"),
        (authorization("ExplainCheck"), nested(1, &token), "check.token.scopes"),
        (authorization("GrantScopes"), empty_items(3, many), "scopes"),
        (directory("UpdateCompany"), nested(4, &empty_items(1, many)), "update_mask.paths"),
        (directory("UpdateCredential"), nested(6, &empty_items(1, many)), "update_mask.paths"),
        (directory("ImportCredentials"), empty_items(1, many), "companies"),
        (directory("ImportCredentials"), empty_items(2, many), "credentials"),
        (directory("PutUser"), empty_items(3, many), "roles"),
        ("/scopegate.v1.KeyService/CreateKey".to_owned(), empty_items(3, many), "company_ids"),
    ];
    for (path, message, field) in cases {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("ready");
        let mut request = Request::new(tokio_stream::once(Bytes::from(message)));
        let bearer = format!("Bearer {}", key.secret).parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
        let uri = path.clone().try_into().expect("a path");
        let answer = match grpc.streaming(request, uri, BytesCodec).await {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        let (code, details) = refused(answer);
        assert_eq!(code, Code::ResourceExhausted, "{path} {field}");
        assert!(is_limit(&details, field), "{path} {field}: {details:?}");
    }
    let grown = peak(&server) - before;
    assert!(grown < 64 << 20, "twelve messages of 4 MB took {grown} bytes");
    operator.check("acme", "hr", &["users:read"]).await;
}
