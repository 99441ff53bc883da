//! Catalogs applied and changes watched, over real sockets.
use crate::harness;
use crate::harness::{Client, Server, fields, refused};
use scopegate::proto::*;
use tonic::{Code, Status, Streaming};

async fn served(dir: &std::path::Path) -> (Server, Client) {
    let server = Server::start(dir, &[]);
    let client = server.client().await;
    (server, client)
}

fn apply(yaml: &str) -> ApplyCatalogRequest {
    ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() }
}

async fn applied(
    client: &Client,
    request: ApplyCatalogRequest,
) -> Result<ApplyCatalogResponse, Status> {
    client.catalog.clone().apply_catalog(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_catalog_says_what_it_takes_from_whom_and_widens_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path()).await;
    let first = "
audiences: { api: }
scopes: { a: , b: { implies: [a] }, c: }
roles: { r: { scopes: { a: all } } }
endpoints: [ { method: GET, path: /a, scopes: [a] } ]";
    let done = applied(client, apply(first)).await.expect("applied");
    assert_eq!((done.added_scopes.len(), done.revision), (3, 1));
    client.create_company("one", None).await;
    client.create_company("two", Some(&["a"])).await;
    client.create_credential("one", "hr", &["b", "c"]).await;
    client.create_credential("one", "bi", &["a"]).await;
    client.create_credential("two", "hr", &["a"]).await;
    let second = "
audiences: { api: }
scopes: { a: , b: { implies: [d] }, d: }
roles: { r: { scopes: { a: own } }, s: }
endpoints: [ { method: GET, path: /a, scopes: [a, b] } ]";
    let dry = ApplyCatalogRequest { validate_only: true, ..apply(second) };
    let shown = applied(client, dry.clone()).await.expect("shown");
    assert_eq!(
        (&*shown.added_scopes, &*shown.removed_scopes),
        (&["d".to_owned()][..], &["c".to_owned()][..])
    );
    assert_eq!((shown.affected_company_count, shown.affected_credential_count), (1, 1));
    assert_eq!(shown.changed_scopes, ["b"]);
    assert_eq!(
        (shown.changed_audiences.len(), shown.changed_roles),
        (0, harness::owned(&["r", "s"]))
    );
    assert_eq!(shown.changed_endpoints, ["GET /a"]);
    assert_eq!(client.reason("one", "hr", &["c"]).await, Reason::Allowed, "nothing changed");
    let etag = ApplyCatalogRequest { etag: "stale".to_owned(), ..apply(second) };
    assert_eq!(refused(applied(client, etag).await).0, Code::Aborted);
    let done = applied(client, ApplyCatalogRequest { etag: shown.etag, ..apply(second) }).await;
    let done = done.expect("applied");
    assert_eq!(done.affected_credential_count, 1);
    let again = applied(client, apply(second)).await.expect("applied before");
    assert_eq!((&again.etag, again.revision), (&done.etag, done.revision), "nothing changes");
    let dry = applied(client, ApplyCatalogRequest { validate_only: true, ..apply(second) }).await;
    assert_eq!(dry.expect("shown").etag, done.etag);
    // D2: what is gone is gone from every set, what is new is nobody's, the rest stays.
    assert_eq!(client.reason("one", "hr", &["c"]).await, Reason::ScopeUnknown);
    assert_eq!(client.reason("one", "hr", &["d"]).await, Reason::ScopeNotInCompany);
    assert_eq!(client.reason("one", "hr", &["a", "b"]).await, Reason::Allowed);
    let (code, details) = refused(client.grant("one", "bi", &["b"]).await);
    assert_eq!(code, Code::FailedPrecondition, "D1: the implied scope is above the ceiling");
    assert_eq!(details.precondition_failure().expect("named").violations[0].subject, "d");
    applied(client, apply(first)).await.expect("applied");
    assert_eq!(
        client.reason("one", "hr", &["c"]).await,
        Reason::ScopeNotInCompany,
        "it does not return"
    );
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    assert_eq!(read.into_inner().yaml, first);
    let idle = applied(client, apply(first)).await.expect("nothing to do");
    assert_eq!(idle.revision, done.revision + 1, "committed nothing");
    let (code, details) = refused(applied(client, apply("scopes: { a: { implies: [b] } }")).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["yaml"]));
    let said = &details.bad_request().expect("named").field_violations[0].description;
    assert!(said.starts_with("line 1, column 26: "), "{said}");
}

async fn watch(client: &Client, request: WatchChangesRequest) -> Streaming<WatchChangesResponse> {
    client.changes.clone().watch_changes(request).await.expect("a stream").into_inner()
}

async fn take(stream: &mut Streaming<WatchChangesResponse>, count: usize) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let step = stream.message().await.expect("no error").expect("not the end");
        seen.push((step.change.expect("a change").revision, step.cursor));
    }
    seen
}

fn revisions(seen: &[(u64, String)]) -> Vec<u64> {
    seen.iter().map(|(revision, _)| *revision).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_has_every_change_once_in_order_and_resumes() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_company("other", None).await;
    let mut all = watch(&client, WatchChangesRequest::default()).await;
    let of_acme = WatchChangesRequest { company_id: Some("acme".to_owned()), ..Default::default() };
    let mut acme = watch(&client, of_acme.clone()).await;
    let beyond = WatchChangesRequest { after_revision: 50, ..Default::default() };
    let mut beyond = watch(&client, beyond).await;
    assert_eq!(revisions(&take(&mut all, 3).await), [1, 2, 3]);
    assert_eq!(revisions(&take(&mut acme, 1).await), [2]);
    // Many changes at once, from several hands, while the streams are read.
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let company = if n % 5 == 0 { "acme" } else { "other" };
                    client.create_credential(company, &format!("w{writer}n{n}"), &[]).await;
                }
            })
        })
        .collect();
    let seen = take(&mut all, 200).await;
    assert_eq!(revisions(&seen), (4..204).collect::<Vec<_>>());
    let seen_acme = take(&mut acme, 40).await;
    assert!(revisions(&seen_acme).windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(revisions(&take(&mut beyond, 3).await), [51, 52, 53], "it waited");
    for writer in writers {
        writer.await.expect("written");
    }
    // Resumed behind the step that carried the cursor, also by another stream later.
    let resume = WatchChangesRequest { cursor: seen[99].1.clone(), ..Default::default() };
    assert_eq!(revisions(&take(&mut watch(&client, resume).await, 2).await), [104, 105]);
    let foreign = WatchChangesRequest { cursor: seen[99].1.clone(), ..of_acme };
    let foreign = client.changes.clone().watch_changes(foreign).await;
    assert_eq!(fields(&refused(foreign.map(|_| ())).1), ["cursor"]);
    // The server's end is the stream's, which says so: it is no end of the changes.
    let ended = tokio::spawn(async move { all.message().await });
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.expect("ended");
    assert_eq!(status.code(), Some(0));
    let (code, details) = refused(ended.await.expect("ended"));
    assert_eq!(code, Code::Unavailable);
    assert_eq!(details.error_info().expect("why").reason, "SHUTTING_DOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_past_their_retention_are_out_of_range_and_never_a_gap() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = harness::catalog("360learning.yaml");
    let args = ["--audit-log-retention", "5s", "--catalog", path.to_str().expect("a path")];
    let server = Server::start(dir.path(), &args);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let restricted = client.restrict("acme", &["users:read"]).await.revision;
    let behind = WatchChangesRequest { after_revision: restricted, ..Default::default() };
    let mut behind = watch(&client, behind).await;
    client.add_scopes("acme", &["users:read"]).await;
    let cursor = take(&mut behind, 1).await.remove(0).1;
    let list = |after_revision, page_token: &str| {
        let page_token = page_token.to_owned();
        let request =
            ListChangesRequest { after_revision, page_size: 1, page_token, ..Default::default() };
        let mut changes = client.changes.clone();
        async move { changes.list_changes(request).await.map(tonic::Response::into_inner) }
    };
    let page = list(0, "").await.expect("a page").next_page_token;
    // Changes go on until the first ones are gone.
    let mut n = 0;
    let oldest = loop {
        client.create_credential("acme", &format!("n{n}"), &[]).await;
        n += 1;
        let page = list(0, "").await.expect("the oldest that is kept");
        if page.changes[0].revision > restricted + 1 {
            break page.changes[0].revision;
        }
    };
    let gone = |status: Status| {
        let (code, details) = refused(Err::<(), _>(status));
        let info = details.error_info().expect("info").clone();
        assert_eq!((code, info.reason.as_str()), (Code::OutOfRange, "REVISION_COMPACTED"));
        info.metadata["oldest_after_revision"].parse::<u64>().expect("a number")
    };
    assert!(gone(list(1, "").await.expect_err("gone")) >= oldest - 1);
    gone(list(0, &page).await.expect_err("gone"));
    for request in [
        WatchChangesRequest::default(),
        WatchChangesRequest { after_revision: restricted, ..Default::default() },
        WatchChangesRequest { cursor, ..Default::default() },
        WatchChangesRequest { company_id: Some("acme".to_owned()), ..Default::default() },
    ] {
        gone(watch(&client, request).await.message().await.expect_err("gone"));
    }
    // Whoever asks for what is kept gets all of it.
    let head = client.create_company("last", None).await.revision;
    let from = WatchChangesRequest { after_revision: head - 1, ..Default::default() };
    assert_eq!(revisions(&take(&mut watch(&client, from).await, 1).await), [head]);
    let restore = RestoreGrantsRequest {
        company_id: "acme".to_owned(),
        scopes: harness::owned(&["users:read"]),
        restricted_at_revision: restricted,
        ..Default::default()
    };
    let restored = client.authorization.clone().restore_grants(restore).await;
    assert_eq!(refused(restored).0, Code::FailedPrecondition, "its change is gone");
}
