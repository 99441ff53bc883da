//! More credentials than 16 bits count, in one company: every count, list and page still says
//! each of them once.
use std::path::Path;
use std::sync::Arc;

use crate::harness::{Client, Server, owned, refused};
use scopegate::authority::{Authority, NewCompany, NewCredential, WriteOptions};
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::scope::Scope;
use scopegate::proto::*;
use scopegate::store::Store;
use tonic::Code;

const MANY: usize = 70_000;
/// So many are created at once that the store commits them in large batches.
const AT_ONCE: usize = 1_000;

fn id(n: usize) -> String {
    format!("k{n:05}")
}

/// A company whose every credential holds `a`.
async fn fill(dir: &Path) {
    let store = Arc::new(Store::open(dir).expect("opened"));
    let authority = Arc::new(Authority::new(store, 1_000).expect("readable"));
    let yaml = "scopes: { a: , b: }";
    authority.internal_session("test").apply_catalog_file(yaml, false, "").await.expect("applied");
    let acme = CompanyId::parse("acme").expect("an id");
    let new = NewCompany { id: acme.clone(), display_name: String::new(), scopes: None };
    authority
        .internal_session("test")
        .create_company(&new, &WriteOptions::default())
        .await
        .expect("created");
    let tasks = (0..AT_ONCE).map(|first| {
        let (authority, company) = (Arc::clone(&authority), acme.clone());
        tokio::spawn(async move {
            for n in (first..MANY).step_by(AT_ONCE) {
                let new = NewCredential {
                    company: company.clone(),
                    id: CredentialId::parse(id(n)).expect("an id"),
                    label: String::new(),
                    scopes: vec![Scope::parse("a").expect("a scope")],
                    expires_at: None,
                    enabled: true,
                    redirect_uris: vec![],
                    tokens_valid_from: None,
                };
                authority
                    .internal_session("test")
                    .create_credential(&new, &WriteOptions::default())
                    .await
                    .expect("created");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("created");
    }
    authority.close();
}

/// The ids of all pages, in the order in which they came.
async fn listed(client: &Client, scope: &str, include_dormant: bool) -> Vec<String> {
    let mut all = vec![];
    let mut page_token = String::new();
    loop {
        let request = ListCredentialsRequest {
            company_id: "acme".to_owned(),
            scope: scope.to_owned(),
            include_dormant,
            page_size: 1_000,
            page_token,
        };
        let page = client.directory.clone().list_credentials(request).await.expect("a page");
        let page = page.into_inner();
        all.extend(page.credentials.into_iter().map(|credential| credential.credential_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seventy_thousand_credentials_are_counted_listed_and_restricted() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path()).await;
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    let all: Vec<_> = (0..MANY).map(id).collect();
    let last = id(MANY - 1);
    assert_eq!(client.reason("acme", &last, &["a"]).await, Reason::Allowed);
    let restrict = RestrictCompanyScopesRequest {
        company_id: "acme".to_owned(),
        scopes: owned(&["a"]),
        ..Default::default()
    };
    let (code, details) = refused(client.try_restrict(restrict.clone()).await);
    assert_eq!(code, Code::FailedPrecondition, "nobody has acknowledged it");
    let failed = details.precondition_failure().expect("who").violations.len();
    assert!((1..=20).contains(&failed), "{failed}");
    let audit = RestrictCompanyScopesRequest { validate_only: true, ..restrict.clone() };
    let audit = client.try_restrict(audit).await.expect("a report");
    let etag = audit.etag.clone();
    let done = RestrictCompanyScopesRequest { etag, ..restrict };
    let done = client.try_restrict(done).await.expect("restricted");
    for report in [audit, done] {
        assert_eq!(report.affected_credential_count, MANY as u64);
        let named = report.affected_credentials.into_iter().map(|a| a.credential_id);
        assert!(named.eq(all.iter().take(100).cloned()), "the first 100");
    }
    assert_eq!(client.reason("acme", &last, &["a"]).await, Reason::ScopeNotInCompany);
    assert!(listed(&client, "", false).await == all, "each once, by id");
    assert!(listed(&client, "a", true).await == all, "each once, by id");
    assert_eq!(listed(&client, "a", false).await, [""; 0], "nobody holds it");
    client.add_scopes("acme", &["a"]).await;
    assert_eq!(client.reason("acme", &last, &["a"]).await, Reason::GrantDormant);
}
