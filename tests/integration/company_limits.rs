//! Bounds of one company, over the real wire: none has more credentials, users or consents than
//! it may, or writes more in a day, and what takes away is never refused.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::harness::{Client, Server, free_address, owned, refused, scopegate};
use scopegate::proto::*;
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

const CATALOG: &str = "roles: { r: { scopes: { a: all } } }\nscopes: { a: , b: }\n";
const FEW: [&str; 6] = [
    "--max-credentials-per-company",
    "5",
    "--max-users-per-company",
    "3",
    "--max-consents-per-company",
    "4",
];

fn start(dir: &Path, args: &[&str]) -> Server {
    let catalog = dir.join("catalog.yaml");
    std::fs::write(&catalog, CATALOG).expect("written");
    let catalog = catalog.to_str().expect("a path");
    Server::start(
        &dir.join("data"),
        &[&["--worker-threads", "1", "--catalog", catalog], args].concat(),
    )
}

/// How many changes were refused by this bound.
fn met(metrics: &str, bound: &str) -> u64 {
    let mut connection = TcpStream::connect(metrics).expect("a connection");
    write!(connection, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("a text");
    let series = format!("scopegate_company_bounds_met_total{{bound=\"{bound}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&series)).expect("the series");
    count.parse().expect("a number")
}

/// That it was refused by this bound, in a sentence that names the bound, its flag and the way on.
fn by_bound<T: std::fmt::Debug>(answer: Result<T, Status>, bound: &str) -> ErrorDetails {
    let status = answer.as_ref().expect_err("a refusal").clone();
    let (code, details) = refused(answer);
    assert_eq!(code, Code::ResourceExhausted, "{status:?}");
    assert_eq!(details.error_info().expect("info").reason, "LIMIT_EXCEEDED");
    let quota = details.quota_failure().expect("a QuotaFailure");
    assert_eq!(quota.violations[0].subject, bound);
    let flag = match bound {
        "bytes" => "--max-company-mib-per-day".to_owned(),
        _ => format!("--max-{bound}-per-company"),
    };
    for part in [&format!("`{bound}`"), &flag, "reached the limit of", "raise the limit"] {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
    details
}

fn credential(company: &str, id: &str, validate_only: bool) -> CreateCredentialRequest {
    CreateCredentialRequest {
        company_id: company.to_owned(),
        credential_id: id.to_owned(),
        scopes: owned(&["a"]),
        validate_only,
        ..Default::default()
    }
}

fn user(company: &str, id: &str, validate_only: bool) -> PutUserRequest {
    PutUserRequest {
        company_id: company.to_owned(),
        user_id: id.to_owned(),
        roles: owned(&["r"]),
        validate_only,
        ..Default::default()
    }
}

fn consent(company: &str, of: (&str, &str), validate_only: bool) -> PutConsentRequest {
    PutConsentRequest {
        company_id: company.to_owned(),
        credential_id: of.0.to_owned(),
        user_id: of.1.to_owned(),
        scopes: owned(&["a"]),
        validate_only,
        ..Default::default()
    }
}

async fn try_credential(client: &Client, request: CreateCredentialRequest) -> Result<(), Status> {
    client.directory.clone().create_credential(request).await.map(drop)
}

async fn try_user(client: &Client, request: PutUserRequest) -> Result<(), Status> {
    client.directory.clone().put_user(request).await.map(drop)
}

async fn try_consent(client: &Client, request: PutConsentRequest) -> Result<(), Status> {
    client.directory.clone().put_consent(request).await.map(drop)
}

async fn delete_credential(client: &Client, company: &str, id: &str) -> Result<(), Status> {
    let request = DeleteCredentialRequest {
        company_id: company.to_owned(),
        credential_id: id.to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_credential(request).await.map(drop)
}

async fn delete_user(client: &Client, company: &str, id: &str) -> Result<(), Status> {
    let request = DeleteUserRequest {
        company_id: company.to_owned(),
        user_id: id.to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_user(request).await.map(drop)
}

async fn delete_consent(client: &Client, company: &str, of: (&str, &str)) -> Result<(), Status> {
    let request = DeleteConsentRequest {
        company_id: company.to_owned(),
        credential_id: of.0.to_owned(),
        user_id: of.1.to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_consent(request).await.map(drop)
}

async fn delete_company(client: &Client, company: &str) {
    let request = DeleteCompanyRequest { company_id: company.to_owned(), ..Default::default() };
    client.directory.clone().delete_company(request).await.expect("deleted");
}

/// How many credentials a company has.
async fn count(client: &Client, company: &str) -> usize {
    let request = ListCredentialsRequest {
        company_id: company.to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let page = client.directory.clone().list_credentials(request).await.expect("a page");
    page.into_inner().credentials.len()
}

async fn revision(client: &Client) -> u64 {
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    read.into_inner().revision
}

/// Gives a new company as much as it may have.
async fn fill(client: &Client, company: &str) {
    client.create_company(company, None).await;
    for n in 0..5 {
        try_credential(client, credential(company, &format!("k{n}"), false)).await.expect("done");
    }
    for n in 0..3 {
        try_user(client, user(company, &format!("u{n}"), false)).await.expect("done");
    }
    for of in [("k0", "u0"), ("k0", "u1"), ("k1", "u0"), ("k1", "u1")] {
        try_consent(client, consent(company, of, false)).await.expect("done");
    }
}

/// That a company has as much as it may have: nothing more is given, also not in a dry run, and
/// what it has can be changed.
async fn is_full(client: &Client, company: &str) {
    let before = revision(client).await;
    for dry in [true, false] {
        by_bound(try_credential(client, credential(company, "k9", dry)).await, "credentials");
        by_bound(try_user(client, user(company, "u9", dry)).await, "users");
        by_bound(try_consent(client, consent(company, ("k2", "u2"), dry)).await, "consents");
    }
    assert_eq!(revision(client).await, before, "nothing was changed");
    let exists = refused(try_credential(client, credential(company, "k0", false)).await);
    assert_eq!(exists.0, Code::AlreadyExists);
    for roles in [&[][..], &["r"]] {
        client.put_user(company, "u0", roles).await;
        client.consent(company, "k0", "u0", &["a"]).await;
    }
}

#[tokio::test]
async fn a_company_never_exceeds_its_limits_in_any_incarnation() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let server = start(dir.path(), &[&FEW[..], &["--metrics", &metrics]].concat());
    let client = server.client().await;
    fill(&client, "acme").await;
    is_full(&client, "acme").await;
    for bound in ["credentials", "users", "consents"] {
        assert_eq!(met(&metrics, bound), 1, "{bound}: a dry run does not count");
    }
    assert_eq!(met(&metrics, "bytes"), 0);
    // Others have their own.
    fill(&client, "other").await;
    // After a crash, and in a store that is restored.
    let file = dir.path().join("backup");
    let mut command = scopegate();
    command.args(["backup", "--endpoint", &server.url(), "--output"]).arg(&file);
    assert!(command.status().expect("it runs").success());
    server.kill();
    let mut command = scopegate();
    command.arg("restore").arg(&file).arg("--data-dir").arg(dir.path().join("restored"));
    assert!(command.status().expect("it runs").success());
    let restored = Server::start(&dir.path().join("restored"), &FEW);
    is_full(&restored.client().await, "acme").await;
    is_full(&restored.client().await, "other").await;
    drop(restored);
    let server = start(dir.path(), &FEW);
    let client = server.client().await;
    is_full(&client, "acme").await;
    // What goes makes room at once: one for one.
    for round in 0..3 {
        let new = (format!("new{round}"), format!("new{round}"));
        delete_consent(&client, "acme", ("k1", "u1")).await.expect("withdrawn");
        try_consent(&client, consent("acme", ("k1", "u1"), true)).await.expect("there is room");
        try_consent(&client, consent("acme", ("k1", "u1"), false)).await.expect("there is room");
        let old = if round == 0 { "k4".to_owned() } else { format!("new{}", round - 1) };
        delete_credential(&client, "acme", &old).await.expect("deleted");
        try_credential(&client, credential("acme", &new.0, false)).await.expect("there is room");
        let old = if round == 0 { "u2".to_owned() } else { old };
        delete_user(&client, "acme", &old).await.expect("deleted");
        try_user(&client, user("acme", &new.1, false)).await.expect("there is room");
        by_bound(try_credential(&client, credential("acme", "k9", false)).await, "credentials");
        by_bound(try_user(&client, user("acme", "u9", false)).await, "users");
    }
    // Another company of the id has nothing yet.
    delete_company(&client, "acme").await;
    fill(&client, "acme").await;
    is_full(&client, "acme").await;
    // Lower bounds take nothing away, and higher ones give room.
    server.kill();
    let server = start(dir.path(), &["--max-credentials-per-company", "2"]);
    let client = server.client().await;
    by_bound(try_credential(&client, credential("acme", "k9", false)).await, "credentials");
    assert_eq!(count(&client, "acme").await, 5);
    try_user(&client, user("acme", "u9", false)).await.expect("there is room");
}

fn imported(company: &str, ids: impl IntoIterator<Item = usize>) -> Vec<ImportedCredential> {
    let item = |n: usize| ImportedCredential {
        company_id: company.to_owned(),
        credential_id: format!("i{n}"),
        ..Default::default()
    };
    ids.into_iter().map(item).collect()
}

async fn import(
    client: &Client,
    request: ImportCredentialsRequest,
) -> Result<ImportCredentialsResponse, Status> {
    let requests = tokio_stream::iter([request]);
    client.directory.clone().import_credentials(requests).await.map(Response::into_inner)
}

fn told(details: &ErrorDetails, key: &str) -> String {
    details.error_info().expect("info").metadata[key].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_and_races_end_exactly_at_the_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), &["--max-credentials-per-company", "20"]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    let of = |company: &str, validate_only| ImportCredentialsRequest {
        companies: vec![ImportedCompany { company_id: company.to_owned(), ..Default::default() }],
        credentials: imported(company, 0..700),
        validate_only,
        ..Default::default()
    };
    // A dry run names the same item, of a company that exists and of one that does not.
    for (company, validate_only) in [("acme", true), ("new", true), ("acme", false), ("new", false)]
    {
        let refusal = by_bound(import(&client, of(company, validate_only)).await, "credentials");
        let what = format!("{company} {validate_only}");
        assert_eq!(told(&refusal, "item"), "credentials[20]", "{what}");
        assert_eq!(told(&refusal, "created_credential_count"), "20", "{what}");
    }
    for company in ["acme", "new"] {
        assert_eq!(count(&client, company).await, 20);
        // Run again, it skips what is there, and ends at the same item.
        let refusal = by_bound(import(&client, of(company, false)).await, "credentials");
        assert_eq!(told(&refusal, "item"), "credentials[20]");
        assert_eq!(told(&refusal, "skipped_count"), "21");
        let there = ImportCredentialsRequest {
            credentials: imported(company, 0..20),
            ..Default::default()
        };
        assert_eq!(import(&client, there).await.expect("all exist").skipped_count, 20);
    }
    // Many at once, of imports and of single calls.
    client.create_company("race", None).await;
    let mut race = JoinSet::new();
    for lane in 0..8 {
        let client = client.clone();
        race.spawn(async move {
            let mut done = 0;
            if lane % 2 == 0 {
                let request = ImportCredentialsRequest {
                    credentials: imported("race", (0..30).map(|n| lane * 100 + n)),
                    ..Default::default()
                };
                let refusal = by_bound(import(&client, request).await, "credentials");
                done = told(&refusal, "created_credential_count").parse().expect("a number");
            } else {
                for n in 0..30 {
                    let id = format!("s{lane}-{n}");
                    match try_credential(&client, credential("race", &id, false)).await {
                        Ok(()) => done += 1,
                        refusal => drop(by_bound(refusal, "credentials")),
                    }
                }
            }
            done
        });
    }
    let done: usize = race.join_all().await.into_iter().sum();
    assert_eq!((done, count(&client, "race").await), (20, 20));
}

/// Every change of `acme` that gives something, as far as it is not the first.
async fn gifts(client: &Client, dry: bool) -> Vec<(&'static str, Result<(), Status>)> {
    let (mut directory, mut authorization) =
        (client.directory.clone(), client.authorization.clone());
    let company_id = || "acme".to_owned();
    let credential_id = || "k0".to_owned();
    let update_company = UpdateCompanyRequest {
        company_id: company_id(),
        display_name: "Another".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["display_name"]) }),
        validate_only: dry,
        ..Default::default()
    };
    let update_credential = UpdateCredentialRequest {
        company_id: company_id(),
        credential_id: credential_id(),
        label: "Another".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["label"]) }),
        validate_only: dry,
        ..Default::default()
    };
    let grant = GrantScopesRequest {
        company_id: company_id(),
        credential_id: credential_id(),
        scopes: owned(&["b"]),
        validate_only: dry,
        ..Default::default()
    };
    let replace = ReplaceScopesRequest {
        company_id: company_id(),
        credential_id: credential_id(),
        scopes: owned(&["a", "b"]),
        validate_only: dry,
        ..Default::default()
    };
    let reset = ResetScopesRequest {
        company_id: company_id(),
        credential_id: credential_id(),
        validate_only: dry,
        ..Default::default()
    };
    let secret = CreateSecretRequest {
        company_id: company_id(),
        credential_id: credential_id(),
        validate_only: dry,
        ..Default::default()
    };
    let import_one = ImportCredentialsRequest {
        credentials: imported("acme", 0..1),
        validate_only: dry,
        ..Default::default()
    };
    let roles = PutUserRequest { roles: owned(&["r", "s"]), ..user("acme", "u0", dry) };
    vec![
        ("UpdateCompany", directory.update_company(update_company).await.map(drop)),
        ("UpdateCredential", directory.update_credential(update_credential).await.map(drop)),
        ("GrantScopes", authorization.grant_scopes(grant).await.map(drop)),
        ("ReplaceScopes", authorization.replace_scopes(replace).await.map(drop)),
        ("ResetScopes", authorization.reset_scopes(reset).await.map(drop)),
        ("CreateSecret", directory.create_secret(secret).await.map(drop)),
        ("CreateCredential", try_credential(client, credential("acme", "k9", dry)).await),
        ("PutUser", try_user(client, user("acme", "u9", dry)).await),
        ("PutUser, more roles", try_user(client, roles).await),
        ("PutConsent", try_consent(client, consent("acme", ("k1", "u1"), dry)).await),
        ("ImportCredentials", import(client, import_one).await.map(drop)),
    ]
}

#[tokio::test]
async fn a_company_at_its_daily_write_limit_can_still_revoke() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let args = ["--max-company-mib-per-day", "1", "--metrics", &metrics];
    let server = start(dir.path(), &args);
    let client = server.client().await;
    for company in ["acme", "other"] {
        client.create_company(company, None).await;
        for id in ["k0", "k1"] {
            try_credential(&client, credential(company, id, false)).await.expect("created");
            try_user(&client, user(company, &id.replace('k', "u"), false)).await.expect("put");
        }
        try_consent(&client, consent(company, ("k0", "u0"), false)).await.expect("put");
    }
    let secret = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "k0".to_owned(),
        ..Default::default()
    };
    let secret = client.directory.clone().create_secret(secret).await.expect("created");
    let secret = secret.into_inner().secret_id;
    // One request that goes through, to be sent again when nothing more does.
    let request_id = "0191f0a0-0000-7000-8000-000000000001".to_owned();
    let repeated = CreateCredentialRequest { request_id, ..credential("acme", "k2", false) };
    try_credential(&client, repeated.clone()).await.expect("created");
    // Changes that say why at length, until the day's bytes are written.
    let mut written = 0;
    let refusal = loop {
        let request = CreateCredentialRequest {
            reason: "x".repeat(900),
            label: "y".repeat(100),
            ..credential("acme", &format!("f{written}"), false)
        };
        match try_credential(&client, request).await {
            Ok(()) => written += 1,
            refusal => break refusal,
        }
        assert!(written < 2_000, "there is no bound");
    };
    by_bound(refusal, "bytes");
    assert!(written > 300, "about a MiB: {written}");
    let before = revision(&client).await;
    for dry in [true, false] {
        for (what, answer) in gifts(&client, dry).await {
            assert!(answer.is_err(), "{what} {dry}");
            by_bound(answer, "bytes");
        }
    }
    assert_eq!(revision(&client).await, before, "nothing was changed");
    assert_eq!(met(&metrics, "bytes"), 12, "dry runs do not count");
    try_credential(&client, repeated).await.expect("it was carried out before");
    // What takes away is never refused.
    let company_id = || "acme".to_owned();
    let (mut directory, mut authorization) =
        (client.directory.clone(), client.authorization.clone());
    let end = DeleteSecretRequest {
        company_id: company_id(),
        credential_id: "k0".to_owned(),
        secret_id: secret,
        ..Default::default()
    };
    directory.delete_secret(end).await.expect("ended");
    let revoke = RevokeScopesRequest {
        company_id: company_id(),
        credential_id: "k0".to_owned(),
        scopes: owned(&["a"]),
        ..Default::default()
    };
    authorization.revoke_scopes(revoke).await.expect("revoked");
    let disable = UpdateCredentialRequest {
        company_id: company_id(),
        credential_id: "k1".to_owned(),
        enabled: false,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    directory.update_credential(disable).await.expect("disabled");
    client.put_user("acme", "u1", &[]).await;
    delete_consent(&client, "acme", ("k0", "u0")).await.expect("withdrawn");
    delete_user(&client, "acme", "u0").await.expect("deleted");
    delete_credential(&client, "acme", "k0").await.expect("deleted");
    let restricted = client.restrict("acme", &["a"]).await;
    // To undo a restriction gives, and waits as all else does.
    let add = AddCompanyScopesRequest {
        company_id: company_id(),
        scopes: owned(&["a"]),
        ..Default::default()
    };
    by_bound(authorization.add_company_scopes(add).await, "bytes");
    assert!(restricted.revision > before);
    let disable = UpdateCompanyRequest {
        company_id: company_id(),
        enabled: false,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    directory.update_company(disable).await.expect("disabled");
    // Others write on, and the platform's catalog and keys are nobody's company.
    try_credential(&client, credential("other", "k9", false)).await.expect("created");
    client.create_company("third", None).await;
    delete_company(&client, "acme").await;
    client.create_company("acme", None).await;
    for (what, answer) in [
        ("credential", try_credential(&client, credential("acme", "k0", false)).await),
        ("user", try_user(&client, user("acme", "u0", false)).await),
    ] {
        assert!(answer.is_ok(), "{what} of a new company: {answer:?}");
    }
    let status = try_credential(&client, credential("acme", "k0", false)).await.expect_err("there");
    assert_eq!(status.get_error_details().error_info().expect("info").reason, "CREDENTIAL_EXISTS");
}
