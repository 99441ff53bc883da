//! Streams of changes with many watchers, slow ones, silent ones, and those of a company that was
//! created anew, over real sockets.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::harness;
use crate::harness::raw::*;
use crate::harness::{Client, Server, owned, refused};
use scopegate::proto::backup_service_client::BackupServiceClient;
use scopegate::proto::*;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};

type Stream = Streaming<WatchChangesResponse>;

async fn try_watch(client: &Client, request: WatchChangesRequest) -> Result<Stream, Status> {
    client.changes.clone().watch_changes(request).await.map(tonic::Response::into_inner)
}

async fn watch(client: &Client, company: Option<&str>, after_revision: u64) -> Stream {
    let company_id = company.map(str::to_owned);
    let request = WatchChangesRequest { company_id, after_revision, ..Default::default() };
    try_watch(client, request).await.expect("a stream")
}

async fn resume(client: &Client, company: Option<&str>, cursor: &str) -> Stream {
    let (company_id, cursor) = (company.map(str::to_owned), cursor.to_owned());
    let request = WatchChangesRequest { company_id, cursor, ..Default::default() };
    try_watch(client, request).await.expect("a stream")
}

/// The next response that has a change.
async fn next(stream: &mut Stream) -> (Change, String) {
    loop {
        let step = stream.message().await.expect("no error").expect("not the end");
        if let Some(change) = step.change {
            return (change, step.cursor);
        }
    }
}

/// The revisions up to this one.
async fn up_to(stream: &mut Stream, last: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        seen.push(next(stream).await.0.revision);
    }
    seen
}

async fn listed(client: &Client, company: Option<&str>, after_revision: u64) -> Vec<Change> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let company_id = company.map(str::to_owned);
        let request = ListChangesRequest {
            company_id,
            after_revision,
            page_size: 7,
            page_token,
            ..Default::default()
        };
        let page = client.changes.clone().list_changes(request).await.expect("a list").into_inner();
        all.extend(page.changes);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

fn revisions(changes: &[Change]) -> Vec<u64> {
    changes.iter().map(|change| change.revision).collect()
}

/// How many threads the server has.
fn threads(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("its threads");
    tasks.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_threads_do_not_grow_with_the_watchers() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_company("other", None).await;
    let before = threads(&server);
    let mut streams = Vec::new();
    for connection in 0..4 {
        let client = server.client().await;
        for n in 0..75 {
            let company = [None, Some("acme"), Some("other")][(n + connection) % 3];
            streams.push((company, watch(&client, company, 0).await));
        }
    }
    let mut last = [0, 0];
    for n in 0..40 {
        for (place, company) in ["acme", "other"].into_iter().enumerate() {
            let made = client.create_credential(company, &format!("c{n}"), &[]).await;
            last[place] = made.revision;
        }
    }
    let log = listed(&client, None, 0).await;
    let readers = streams.into_iter().map(|(company, mut stream)| {
        let last = if company == Some("acme") { last[0] } else { last[1] };
        let of = |change: &&Change| company.is_none_or(|company| change.company_id == company);
        let should: Vec<_> = log.iter().filter(of).map(|change| change.revision).collect();
        tokio::spawn(async move { assert_eq!(up_to(&mut stream, last).await, should) })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("it saw the log");
    }
    let after = threads(&server);
    assert!(after <= before + 12, "{before} threads, and {after} with 300 watchers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_join_leave_and_lag_beside_commits_see_exactly_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    let companies = ["a", "b", "c"];
    for company in companies {
        client.create_company(company, None).await;
    }
    // These are not read before the end, and hold up nobody.
    let mut unread = Vec::new();
    for company in [None, Some("a"), Some("c")] {
        unread.push((company, watch(&client, company, 0).await));
    }
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..60 {
                    let company = companies[(n + writer) % 3];
                    client.create_credential(company, &format!("w{writer}n{n}"), &[]).await;
                }
            })
        })
        .collect();
    // These come and go: each goes on where the one before it ended.
    let relays: Vec<_> = [None, Some("a"), Some("b")]
        .into_iter()
        .map(|company| {
            let client = client.clone();
            tokio::spawn(async move {
                let (mut seen, mut cursor) = (Vec::new(), String::new());
                for leg in 1..=10 {
                    let mut stream = resume(&client, company, &cursor).await;
                    for _ in 0..leg {
                        let (change, at) = next(&mut stream).await;
                        seen.push(change.revision);
                        cursor = at;
                    }
                }
                (company, seen)
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("written");
    }
    // One for each company, so that every stream has an end to wait for.
    let mut last = 0;
    for company in companies {
        last = client.create_credential(company, "last", &[]).await.revision;
    }
    for relay in relays {
        let (company, seen) = relay.await.expect("it saw the log");
        assert_eq!(seen, revisions(&listed(&client, company, 0).await)[..seen.len()]);
    }
    for (company, mut stream) in unread {
        let all = revisions(&listed(&client, company, 0).await);
        assert_eq!(up_to(&mut stream, *all.last().expect("some")).await, all);
    }
    // The next one is there without another change behind it.
    let mut b = watch(&client, Some("b"), last).await;
    for n in 0..20 {
        client.create_credential("a", &format!("beside{n}"), &[]).await;
        let made = client.create_credential("b", &format!("then{n}"), &[]).await.revision;
        assert_eq!(next(&mut b).await.0.revision, made);
    }
}

#[tokio::test]
async fn an_idle_stream_sends_its_cursor_which_outlasts_the_changes_of_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = harness::catalog("360learning.yaml");
    let catalog = path.to_str().expect("a path");
    let args = ["--audit-log-retention", "2s", "--watch-heartbeat", "1s", "--catalog", catalog];
    let server = Server::start(dir.path(), &args);
    let client = server.client().await;
    let created = client.create_company("acme", None).await.revision;
    client.create_company("other", None).await;
    let mut acme = watch(&client, Some("acme"), 0).await;
    let (change, old) = next(&mut acme).await;
    assert_eq!(change.revision, created);
    // Of acme nothing comes, and what others do is forgotten after a while.
    let mut n = 0;
    let oldest = loop {
        n += 1;
        client.create_credential("other", &format!("n{n}"), &[]).await;
        let request = ListChangesRequest { page_size: 1, ..Default::default() };
        let page = client.changes.clone().list_changes(request).await.expect("a list");
        let oldest = page.into_inner().changes[0].revision;
        if oldest > created + 3 {
            break oldest;
        }
    };
    let mut cursor = String::new();
    for _ in 0..3 {
        let step = acme.message().await.expect("no error").expect("not the end");
        assert_eq!(step.change, None, "nothing of others");
        assert!(!step.cursor.is_empty());
        cursor = step.cursor;
    }
    let gone = WatchChangesRequest {
        company_id: Some("acme".to_owned()),
        cursor: old,
        ..Default::default()
    };
    let gone = try_watch(&client, gone).await.expect("a stream").message().await;
    assert_eq!(gone.expect_err("gone").code(), Code::OutOfRange, "it ends before {oldest}");
    let mut resumed = resume(&client, Some("acme"), &cursor).await;
    let made = client.create_credential("acme", "hr", &[]).await.revision;
    assert_eq!(next(&mut resumed).await.0.revision, made);
    assert_eq!(next(&mut acme).await.0.revision, made);
}

/// A server whose callers need keys, and its operator.
async fn guarded(dir: &Path) -> (Server, Client) {
    let (server, key) = guarded_with(dir, &[]);
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    (server, operator)
}

/// The same with more arguments, and the operator's key.
fn guarded_with(dir: &Path, args: &[&str]) -> (Server, String) {
    let key = harness::bootstrap(dir);
    assert!(key.starts_with("sgk_"), "{key}");
    let catalog = harness::catalog("360learning.yaml");
    let catalog = ["--catalog", catalog.to_str().expect("a path")];
    (Server::start(dir, &[&catalog, args].concat()), key)
}

async fn key(operator: &Client, name: &str, role: Role, companies: &[&str]) -> CreateKeyResponse {
    let request = CreateKeyRequest {
        name: name.to_owned(),
        roles: vec![role.into()],
        company_ids: owned(companies),
        ..Default::default()
    };
    operator.keys.clone().create_key(request).await.expect("made").into_inner()
}

#[tokio::test]
async fn one_key_has_sixteen_streams_and_others_have_theirs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = guarded(dir.path()).await;
    let one = key(&operator, "platform", Role::Auditor, &[]).await;
    let two = key(&operator, "platform", Role::Auditor, &[]).await;
    let clients = [
        Client::connect_as(&server.url(), Some(&one.secret)).await,
        Client::connect_as(&server.url(), Some(&one.secret)).await,
    ];
    let mut open = Vec::new();
    for n in 0..16 {
        // Whatever the connection, and whether it is read or not.
        let mut stream = watch(&clients[n % 2], None, 0).await;
        if n % 3 == 0 {
            next(&mut stream).await;
        }
        open.push(stream);
    }
    for client in &clients {
        let (code, details) = refused(try_watch(client, WatchChangesRequest::default()).await);
        assert_eq!(code, Code::ResourceExhausted);
        let said = &details.quota_failure().expect("named").violations[0];
        assert_eq!(said.subject, "streams");
        assert!(said.description.contains("one key may have: 16"), "{}", said.description);
        assert!(details.retry_info().is_some());
    }
    // Another key has its own, also one of the same name.
    let other = Client::connect_as(&server.url(), Some(&two.secret)).await;
    next(&mut watch(&other, None, 0).await).await;
    next(&mut watch(&operator, None, 0).await).await;
    // What ends leaves its place.
    open.pop();
    let again = loop {
        match try_watch(&clients[0], WatchChangesRequest::default()).await {
            Ok(stream) => break stream,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    };
    open.push(again);
    refused(try_watch(&clients[1], WatchChangesRequest::default()).await);
}

#[tokio::test]
async fn watcher_gets_no_change_after_its_key_is_revoked() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = guarded(dir.path()).await;
    operator.create_company("acme", None).await;
    for bound in [&[][..], &["acme"][..]] {
        let made = key(&operator, "leaves", Role::Auditor, bound).await;
        let auditor = Client::connect_as(&server.url(), Some(&made.secret)).await;
        let company = bound.first().copied();
        let (mut read, mut unread) =
            (watch(&auditor, company, 0).await, watch(&auditor, company, 0).await);
        next(&mut read).await;
        let key_id = made.key.expect("a key").key_id;
        let request = DeleteKeyRequest { key_id, ..Default::default() };
        let revoked = operator.keys.clone().delete_key(request).await.expect("revoked");
        let revoked = revoked.into_inner().revision;
        for n in 0..30 {
            operator.create_credential("acme", &format!("{}n{n}", bound.len()), &[]).await;
        }
        for stream in [&mut read, &mut unread] {
            let ended = loop {
                match stream.message().await {
                    Ok(step) => {
                        let step = step.expect("it says why it ends");
                        assert!(step.change.is_none_or(|change| change.revision < revoked));
                    }
                    Err(status) => break status,
                }
            };
            assert_eq!(ended.code(), Code::Unauthenticated);
        }
    }
}

async fn delete_company(operator: &Client, company: &str) -> u64 {
    let company_id = company.to_owned();
    let request = DeleteCompanyRequest { company_id, ..Default::default() };
    operator.directory.clone().delete_company(request).await.expect("gone").into_inner().revision
}

#[tokio::test]
async fn key_bound_to_a_company_sees_nothing_of_an_earlier_company_with_its_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = guarded(dir.path()).await;
    let mut bound = Vec::new();
    for role in [Role::CompanyAdmin, Role::Auditor, Role::Operator] {
        let made = key(&operator, "of-acme", role, &["acme", "other"]).await;
        bound.push(Client::connect_as(&server.url(), Some(&made.secret)).await);
    }
    let free = key(&operator, "of-all", Role::Auditor, &[]).await;
    let free = Client::connect_as(&server.url(), Some(&free.secret)).await;
    // The earlier company.
    let first = operator.create_company("acme", None).await.revision;
    operator.create_company("other", None).await;
    for n in 0..10 {
        operator.create_credential("acme", &format!("secret-{n}"), &["users:read"]).await;
    }
    let restricted = operator.restrict("acme", &["users:read"]).await.revision;
    operator.add_scopes("acme", &["users:read"]).await;
    let page = ListChangesRequest {
        company_id: Some("acme".to_owned()),
        page_size: 3,
        ..Default::default()
    };
    let (mut live, mut cursors, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for client in &bound {
        let mut stream = watch(client, Some("acme"), first - 1).await;
        let (change, cursor) = next(&mut stream).await;
        assert_eq!(change.revision, first);
        cursors.push(cursor);
        up_to(&mut stream, restricted + 1).await;
        live.push(stream);
        let part = client.changes.clone().list_changes(page.clone()).await.expect("a page");
        tokens.push(part.into_inner().next_page_token);
    }
    let deleted = delete_company(&operator, "acme").await;
    for (client, stream) in bound.iter().zip(&mut live) {
        // Who was watching sees the end; who asks now, nothing.
        let (end, _) = next(stream).await;
        assert_eq!((end.revision, end.kind.as_str()), (deleted, "DeleteCompany"));
        assert_eq!(listed(client, Some("acme"), 0).await, []);
        assert_eq!(listed(client, Some("acme"), first).await, []);
    }
    let mut between = Vec::new();
    for (client, cursor) in bound.iter().zip(&cursors) {
        between.push(watch(client, Some("acme"), 0).await);
        between.push(resume(client, Some("acme"), cursor).await);
    }
    // Deleted once more, with nobody there.
    let again = operator.create_company("acme", None).await.revision;
    let ended = delete_company(&operator, "acme").await;
    let second = operator.create_company("acme", None).await.revision;
    let last = operator.create_credential("acme", "fresh", &[]).await.revision;
    for (place, client) in bound.iter().enumerate() {
        for after in [0, first, restricted, deleted, again] {
            let seen = revisions(&listed(client, Some("acme"), after).await);
            assert_eq!(seen, [second, last], "behind {after}");
            let mut stream = watch(client, Some("acme"), after).await;
            assert_eq!(up_to(&mut stream, last).await, [second, last], "behind {after}");
        }
        let mut stream = resume(client, Some("acme"), &cursors[place]).await;
        assert_eq!(up_to(&mut stream, last).await, [second, last]);
        let rest = ListChangesRequest { page_token: tokens[place].clone(), ..page.clone() };
        let rest = client.changes.clone().list_changes(rest).await.expect("a page").into_inner();
        assert_eq!(revisions(&rest.changes), [second, last]);
        let list = ListCredentialsRequest { company_id: "acme".to_owned(), ..Default::default() };
        let list = client.directory.clone().list_credentials(list).await.expect("a list");
        assert_eq!(list.into_inner().credentials.len(), 1);
    }
    for stream in live.iter_mut().chain(&mut between) {
        // Those that kept up may have seen the company that was there for a moment.
        let seen = up_to(stream, last).await;
        assert!(seen.ends_with(&[second, last]), "{seen:?}");
        assert!(seen.iter().all(|revision| *revision >= again), "{seen:?}");
        assert!(!seen.contains(&ended) || seen.contains(&again), "{seen:?}");
    }
    // Who is not bound sees all of it, as ever.
    let all = revisions(&listed(&free, Some("acme"), 0).await);
    assert!(all.contains(&first) && all.contains(&deleted) && all.contains(&last));
    assert_eq!(up_to(&mut watch(&free, Some("acme"), 0).await, last).await, all);
    // And a restriction of the earlier company is none of this one.
    operator.restrict("acme", &["users:read"]).await;
    operator.add_scopes("acme", &["users:read"]).await;
    for client in [&operator, &bound[2]] {
        let restore = RestoreGrantsRequest {
            company_id: "acme".to_owned(),
            scopes: owned(&["users:read"]),
            restricted_at_revision: restricted,
            ..Default::default()
        };
        let restored = client.authorization.clone().restore_grants(restore).await;
        let (code, details) = refused(restored);
        let reason = details.error_info().expect("info").reason.clone();
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "NO_SUCH_RESTRICTION"));
    }
}

/// What Prometheus reads of these series.
fn metrics(address: &str, names: [&str; 3]) -> [f64; 3] {
    let mut connection = TcpStream::connect(address).expect("a connection");
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    names.map(|name| {
        let line = text.lines().find(|line| line.starts_with(&format!("scopegate_{name} ")));
        let (_, value) = line.expect(name).rsplit_once(' ').expect("a value");
        value.parse().expect("a number")
    })
}

/// A connection that grants no stream a window, with open calls of this method and message.
fn stuck(server: &Server, key: &str, path: &str, message: &[u8], count: u32) -> Raw {
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let mut raw = Raw::begun(server, &[0, 4, 0, 0, 0, 0]);
    let authorization = format!("Bearer {key}");
    for n in 0..count {
        let block = block_to(path, &[("authorization", &authorization)]);
        raw.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let content = [&[0][..], &length, message].concat();
        raw.send(&frame(DATA, END_STREAM, 2 * n + 1, &content));
    }
    let mut answered = 0;
    while answered < count {
        let (kind, flags, _) = raw.next().expect("open");
        if kind == HEADERS {
            assert_eq!(flags & END_STREAM, 0, "it goes on");
            answered += 1;
        }
    }
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_client_takes_nothing_keeps_its_place_and_no_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address").to_string();
    drop(port);
    let (server, root) = guarded_with(dir.path(), &["--metrics", &address]);
    let operator = Client::connect_as(&server.url(), Some(&root)).await;
    operator.create_company("acme", None).await;
    let auditor = key(&operator, "auditor", Role::Auditor, &[]).await.secret;
    let path = "/scopegate.v1.ChangeService/WatchChanges";
    let raw = stuck(&server, &auditor, path, &[], 16);
    let client = Client::connect_as(&server.url(), Some(&auditor)).await;
    let (code, _) = refused(try_watch(&client, WatchChangesRequest::default()).await);
    assert_eq!(code, Code::ResourceExhausted);
    // Nobody keeps these for it but the window that all share.
    for n in 0..200 {
        let request = CreateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: format!("c{n}"),
            scopes: owned(&["users:read"]),
            reason: "r".repeat(900),
            ..Default::default()
        };
        operator.directory.clone().create_credential(request).await.expect("made");
    }
    let series = ["watch_streams", "watchers_lagging", "watchers_memory_bytes"];
    let [watchers, _, bytes] = metrics(&address, series);
    assert_eq!(watchers, 16.0);
    assert!(bytes > 0.0 && bytes < f64::from(1 << 20), "{bytes}");
    drop(raw);
    while metrics(&address, series) != [0.0; 3] {}
    next(&mut try_watch(&client, WatchChangesRequest::default()).await.expect("a place")).await;
    // Backups, which are made long before they are taken.
    let raw = stuck(&server, &root, "/scopegate.v1.BackupService/Backup", &[], 2);
    let backup = async || {
        let mut client = BackupServiceClient::connect(server.url()).await.expect("connected");
        let mut request = Request::new(BackupRequest {});
        let bearer: MetadataValue<Ascii> = format!("Bearer {root}").parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
        client.backup(request).await.map(|_| ())
    };
    for _ in 0..20 {
        assert_eq!(refused(backup().await).0, Code::ResourceExhausted);
    }
    drop(raw);
    while backup().await.is_err() {}
}
