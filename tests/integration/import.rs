//! Imports over the real wire: durable at the answer, safe to run again after any end, refused by
//! the item's place, and seen in the log as if each had been created by itself.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::harness::{Client, Server, fields, owned, refused, scopegate};
use scopegate::proto::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

fn company(id: &str) -> ImportedCompany {
    ImportedCompany { company_id: id.to_owned(), ..Default::default() }
}

fn credential(company: &str, id: &str, scopes: &[&str]) -> ImportedCredential {
    ImportedCredential {
        company_id: company.to_owned(),
        credential_id: id.to_owned(),
        label: format!("The label of {id}"),
        scopes: owned(scopes),
        ..Default::default()
    }
}

fn message(
    companies: Vec<ImportedCompany>,
    credentials: Vec<ImportedCredential>,
) -> ImportCredentialsRequest {
    ImportCredentialsRequest { companies, credentials, ..Default::default() }
}

async fn import(
    client: &Client,
    messages: Vec<ImportCredentialsRequest>,
) -> Result<ImportCredentialsResponse, Status> {
    let done = client.directory.clone().import_credentials(tokio_stream::iter(messages)).await;
    done.map(tonic::Response::into_inner)
}

/// Companies, credentials, what was skipped.
fn counts(done: &ImportCredentialsResponse) -> (u64, u64, u64) {
    (done.created_company_count, done.created_credential_count, done.skipped_count)
}

/// The same of an import that ended early.
fn counted(details: &ErrorDetails) -> (u64, u64, u64) {
    let told = &details.error_info().expect("info").metadata;
    let count = |key: &str| told[key].parse().expect("a number");
    (count("created_company_count"), count("created_credential_count"), count("skipped_count"))
}

fn told<'a>(details: &'a ErrorDetails, key: &str) -> &'a str {
    &details.error_info().expect("info").metadata[key]
}

/// Every credential of a company, by id.
async fn credentials(client: &Client, company: &str) -> BTreeMap<String, Credential> {
    let mut all = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = client.directory.clone().list_credentials(request).await.expect("a page");
        let page = page.into_inner();
        all.extend(page.credentials.into_iter().map(|c| (c.credential_id.clone(), c)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// Every change, in order.
async fn changes(client: &Client) -> Vec<Change> {
    let mut all = vec![];
    let mut request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = client.changes.clone().list_changes(request.clone()).await.expect("a page");
        let page = page.into_inner();
        all.extend(page.changes);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

async fn head(client: &Client) -> u64 {
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    read.into_inner().revision
}

fn start(dir: &std::path::Path) -> Server {
    Server::with_catalog(dir, "360learning.yaml")
}

fn id(n: usize) -> String {
    format!("k{n:05}")
}

/// `count` credentials in companies of 1 000, as a file.
fn file(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let company = format!("c{:02}", n / 1_000);
        if n % 1_000 == 0 {
            writeln!(text, r#"{{"company_id": "{company}", "display_name": "{company} & Co"}}"#)
                .expect("written");
        }
        let (id, end) = (id(n), "2099-12-31T23:59:59Z");
        writeln!(
            text,
            r#"{{"company_id": "{company}", "credential_id": "{id}", "label": "{id}", "scopes": ["users:read"], "expires_at": "{end}"}}"#
        )
        .expect("written");
    }
    text
}

/// `scopegate import -`.
fn run(url: &str, args: &[&str], text: &str) -> Output {
    let mut child = scopegate()
        .args(["import", "-", "--endpoint", url])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // It may end before it has read everything.
    child.stdin.take().expect("an input").write_all(text.as_bytes()).ok();
    child.wait_with_output().expect("it ends")
}

fn printed(output: &Output) -> (Option<i32>, String) {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

async fn all_are_there(client: &Client, count: usize) {
    for first in (0..count).step_by(1_000) {
        let company = format!("c{:02}", first / 1_000);
        let found = credentials(client, &company).await;
        let expected: Vec<_> = (first..count.min(first + 1_000)).map(id).collect();
        assert!(found.keys().eq(&expected), "{company}: each once");
        for made in found.values() {
            assert_eq!(made.effective_scopes, ["users:read"]);
            assert!(made.enabled && made.expires_at.is_some() && made.label == made.credential_id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_import_survives_kill_9() {
    const COUNT: usize = 20_000;
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let (code, said) = printed(&run(&server.url(), &[], &file(COUNT)));
    server.kill();
    assert_eq!(code, Some(0), "{said}");
    let expected = "created 20 companies and 20000 credentials; 0 existed already; revision 20021";
    assert_eq!(said.trim(), expected);
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    all_are_there(&client, COUNT).await;
    assert_eq!(client.reason("c19", "k19999", &["users:read"]).await, Reason::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_killed_in_the_middle_is_run_again() {
    const COUNT: usize = 20_000;
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = server.client().await;
    let (url, text) = (server.url(), file(COUNT));
    let importing = std::thread::spawn({
        let text = text.clone();
        move || printed(&run(&url, &[], &text))
    });
    // Not a timing assertion: a third of it is there, the rest is not.
    while head(&client).await < COUNT as u64 / 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.kill();
    let (code, said) = importing.join().expect("ended");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("import the whole file again"), "{said}");
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    let before = head(&client).await;
    assert!(before < COUNT as u64, "killed in the middle");
    let (code, said) = printed(&run(&server.url(), &[], &text));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("; {} existed already", before - 1)), "{said} {before}");
    all_are_there(&client, COUNT).await;
    let changes = changes(&client).await;
    assert_eq!(changes.len(), COUNT + 21, "each was made once, and the catalog");
    assert!(changes.iter().zip(1..).all(|(change, n)| change.revision == n), "without a gap");
}

#[tokio::test]
async fn the_first_bad_item_ends_an_import_and_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = &server.client().await;
    let scopes = Some(Scopes { names: owned(&["users:read"]) });
    let acme = ImportedCompany { scopes, ..company("acme") };
    let good = |n: usize| credential("acme", &id(n), &["users:read"]);
    let mut made = 0;
    // Each with its code, the field that it names, and the reason.
    let bad = [
        (credential("acme", "a/b", &[]), Code::InvalidArgument, "credential_id"),
        (credential("acme", "k", &["moon:read"]), Code::InvalidArgument, "scopes[0]"),
        (credential("acme", "k", &["users:write"]), Code::FailedPrecondition, "users:write"),
        (credential("moon", "k", &["users:read"]), Code::NotFound, "moon"),
    ];
    for (round, (bad, code, named)) in bad.into_iter().enumerate() {
        let numbers = round * 1_000..round * 1_000 + 999;
        let mut credentials: Vec<_> = numbers.map(good).collect();
        credentials[700] = ImportedCredential { line: 4_711, ..bad };
        let next = message(vec![], vec![good(999_999)]);
        let ended = import(client, vec![message(vec![acme.clone()], credentials), next]).await;
        let (found, details) = refused(ended);
        assert_eq!(found, code, "{named}");
        assert_eq!(told(&details, "item"), "credentials[700]");
        assert_eq!((told(&details, "message"), told(&details, "line")), ("0", "4711"));
        let first = u64::from(round == 0);
        assert_eq!(counted(&details), (first, 700, 1 - first), "{named}");
        match code {
            Code::InvalidArgument => {
                assert_eq!(fields(&details), [format!("credentials[700].{named}")]);
            }
            Code::FailedPrecondition => {
                let failed = details.precondition_failure().expect("which");
                assert_eq!(failed.violations[0].subject, named);
            }
            _ => assert_eq!(details.resource_info().expect("which").resource_name, named),
        }
        made += 700;
        assert_eq!(credentials_of(client).await, made, "what stands before it, and no more");
    }
}

async fn credentials_of(client: &Client) -> usize {
    credentials(client, "acme").await.len()
}

#[tokio::test]
async fn existing_items_are_skipped_and_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = &server.client().await;
    let before = client.create_company("acme", Some(&["users:read"])).await;
    let hr = client.create_credential("acme", "hr", &["users:read"]).await;
    let scopes = Some(Scopes { names: owned(&["users:bulk"]) });
    let acme = ImportedCompany { scopes, display_name: "Otherwise".to_owned(), ..company("acme") };
    let other = ImportedCredential { enabled: Some(false), ..credential("acme", "hr", &[]) };
    let off = ImportedCredential { enabled: Some(false), ..credential("acme", "off", &[]) };
    let twice = vec![other, off.clone(), off];
    let request = ImportCredentialsRequest {
        reason: "we move in".to_owned(),
        on_behalf_of: "ada".to_owned(),
        ..message(vec![acme, company("new")], twice)
    };
    let done = import(client, vec![request.clone(), request]).await.expect("imported");
    assert_eq!(counts(&done), (1, 1, 8));
    let get = GetCompanyRequest { company_id: "acme".to_owned() };
    let read = client.directory.clone().get_company(get).await.expect("read").into_inner();
    assert_eq!(read.company, Some(before));
    assert_eq!(client.credential("acme", "hr").await.expect("read"), hr);
    let off = client.credential("acme", "off").await.expect("read");
    assert!(!off.enabled);
    assert_eq!(off.revision, done.revision);
    // The log reads as if each had been created by itself.
    let changes = changes(client).await;
    let [.., made_company, made] = &changes[..] else { panic!("changes") };
    assert_eq!(
        (made_company.kind.as_str(), made_company.company_id.as_str()),
        ("CreateCompany", "new")
    );
    assert_eq!((made.kind.as_str(), made.credential_id.as_str()), ("CreateCredential", "off"));
    assert_eq!((made.reason.as_str(), made.on_behalf_of.as_str()), ("we move in", "ada"));
    assert_eq!(client.reason("acme", "off", &["users:read"]).await, Reason::CredentialDisabled);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = &server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &[]).await;
    let before = head(client).await;
    let scopes = Some(Scopes { names: owned(&["users:read"]) });
    let narrow = ImportedCompany { scopes, ..company("narrow") };
    let good = vec![
        credential("acme", "hr", &[]),
        credential("acme", "new", &["users:bulk"]),
        credential("narrow", "new", &["users:read"]),
    ];
    let dry = |credentials| ImportCredentialsRequest {
        validate_only: true,
        ..message(vec![company("acme"), narrow.clone()], credentials)
    };
    let done = import(client, vec![dry(good)]).await.expect("it would be");
    assert_eq!(counts(&done), (1, 2, 2));
    let above = vec![credential("narrow", "new", &["users:bulk"])];
    let (code, details) = refused(import(client, vec![dry(above)]).await);
    assert_eq!((code, told(&details, "item")), (Code::FailedPrecondition, "credentials[0]"));
    // A dry run is one from its first message on.
    let (code, details) = refused(import(client, vec![message(vec![], vec![]), dry(vec![])]).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["validate_only"]));
    let (code, said) = printed(&run(&server.url(), &["--dry-run"], &file(100)));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("would create 1 company and 100 credentials"), "{said}");
    assert_eq!(head(client).await, before, "nothing was changed");
}

#[tokio::test]
async fn a_file_is_refused_by_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = &server.client().await;
    let good =
        "{\"company_id\": \"acme\"}\n\n{\"company_id\": \"acme\", \"credential_id\": \"hr\"}\n";
    let bad = [
        (r#"{"company_id": "acme", "credential_idd": "k"}"#, "unknown field `credential_idd`"),
        (r#"{"company_id": "acme", "credential_id": "k", "scopes": "a"}"#, "expected a sequence"),
        (r#"{"company_id": "acme", "credential_id": "k", "display_name": "K"}"#, "a `label`"),
        (r#"{"company_id": "acme", "label": "K"}"#, "is `credential_id` missing?"),
        (r#"{"company_id": "acme", "redirect_uris": []}"#, "is `credential_id` missing?"),
        (r#"{"company_id": "acme", "credential_id": "k", "expires_at": "tomorrow"}"#, "not a time"),
        (r#"{"credential_id": "k"}"#, "missing field `company_id`"),
        ("acme", "expected value"),
        (r#"{"company_id": "acme", "credential_id": "a b"}"#, "line 4: `credential_id`"),
        (r#"{"company_id": "acme", "credential_id": "k", "scopes": ["moon"]}"#, "no scope `moon`"),
    ];
    for (line, what) in bad {
        let after = r#"{"company_id": "behind"}"#;
        let (code, said) = printed(&run(&server.url(), &[], &format!("{good}{line}\n{after}\n")));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("line 4: ") && said.contains(what), "{what}: {said}");
        assert!(said.contains("import the whole file again"), "{said}");
    }
    assert!(client.credential("acme", "hr").await.is_ok(), "what stands before it is there");
    assert_eq!(client.reason("acme", "k", &["users:read"]).await, Reason::CredentialUnknown);
    let (code, said) = printed(&run("http://127.0.0.1:1", &[], good));
    assert_eq!(code, Some(2));
    assert!(said.contains("no server answers"), "{said}");
    let nowhere = scopegate().args(["import", "/nowhere"]).output().expect("it ends");
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(printed(&nowhere).1.contains("cannot read /nowhere"));
}

#[tokio::test]
async fn a_message_has_its_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = &server.client().await;
    let credentials = (0..1_000).map(|n| credential("acme", &id(n), &[])).collect();
    let large = message(vec![company("acme")], credentials);
    let first = message(vec![company("acme")], vec![]);
    let (code, details) = refused(import(client, vec![first, large]).await);
    assert_eq!((code, told(&details, "message")), (Code::ResourceExhausted, "1"));
    assert_eq!(counted(&details), (1, 0, 0));
    let done = import(client, vec![]).await.expect("nothing is imported");
    assert_eq!(counts(&done), (0, 0, 0));
    assert_eq!(done.revision, head(client).await);
}

/// Whoever sends faster than the store commits is held up: the server reads the next message only
/// when all of the last is under way, so what it holds of an import is two messages and a window
/// of proposals. A sender that never waits has sent little more than was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_sender_is_held_up_and_others_are_served_meanwhile() {
    const MESSAGES: usize = 40;
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = server.client().await;
    client.create_company("acme", None).await;
    let (send, messages) = mpsc::channel(1);
    let importing = tokio::spawn({
        let mut directory = client.directory.clone();
        async move { directory.import_credentials(ReceiverStream::new(messages)).await }
    });
    // A connection of its own: the import's windows are full.
    let other = server.client().await;
    let mut furthest = 0;
    for round in 0..MESSAGES {
        let numbers = round * 1_000..(round + 1) * 1_000;
        // Some 300 bytes each, so that a few messages fill the windows.
        let long = "x".repeat(250);
        let credentials = numbers
            .map(|n| ImportedCredential { label: long.clone(), ..credential("acme", &id(n), &[]) });
        send.send(message(vec![], credentials.collect())).await.expect("taken");
        let (sent, done) = ((round as u64 + 1) * 1_000, head(&other).await);
        furthest = furthest.max(sent.saturating_sub(done));
        if round % 8 == 0 {
            // Nobody else is turned away, or waits for the import's end.
            other.create_company(&format!("beside-{round}"), None).await;
        }
    }
    drop(send);
    let done = importing.await.expect("ended").expect("imported").into_inner();
    assert_eq!(counts(&done), (0, MESSAGES as u64 * 1_000, 0));
    assert!(furthest < MESSAGES as u64 * 1_000 / 2, "{furthest} were sent and not committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_of_the_same_file_at_once_create_each_item_once() {
    const COUNT: usize = 3_000;
    const IMPORTERS: usize = 8;
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = server.client().await;
    let tasks = (0..IMPORTERS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let messages = (0..COUNT / 500).map(|m| {
                let numbers = m * 500..(m + 1) * 500;
                let credentials = numbers.map(|n| credential("acme", &id(n), &["users:read"]));
                message(vec![company("acme")], credentials.collect())
            });
            import(&client, messages.collect()).await.expect("imported")
        })
    });
    let mut all = (0, 0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (companies, credentials, skipped) = counts(&task.await.expect("ended"));
        all = (all.0 + companies, all.1 + credentials, all.2 + skipped);
    }
    let items = (COUNT + COUNT / 500) * IMPORTERS;
    assert_eq!(all, (1, COUNT as u64, (items - COUNT - 1) as u64));
    assert_eq!(credentials_of(&client).await, COUNT);
    assert_eq!(changes(&client).await.len(), COUNT + 2);
}

#[tokio::test]
async fn a_server_that_ends_tells_its_importer_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path());
    let client = server.client().await;
    let (send, messages) = mpsc::channel(1);
    let importing = tokio::spawn({
        let mut directory = client.directory.clone();
        async move { directory.import_credentials(ReceiverStream::new(messages)).await }
    });
    let first = message(vec![company("acme")], vec![credential("acme", "hr", &[])]);
    send.send(first).await.expect("taken");
    while client.credential("acme", "hr").await.is_err() {}
    let ending = tokio::task::spawn_blocking(move || server.terminate());
    let (code, details) = refused(importing.await.expect("ended"));
    assert_eq!(code, Code::Unavailable);
    assert_eq!(details.error_info().expect("info").reason, "SHUTTING_DOWN");
    assert_eq!(counted(&details), (1, 1, 0));
    assert!(ending.await.expect("ended").success());
    let server = Server::start(dir.path(), &[]);
    assert!(server.client().await.credential("acme", "hr").await.is_ok());
}
