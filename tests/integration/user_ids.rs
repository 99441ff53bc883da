//! User ids as identity providers make them, everywhere that one is named or kept.
use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::harness::{Client, Server, fields, owned, refused, scopegate, scopes_of};
use scopegate::proto::*;
use tempfile::TempDir;
use tonic::{Code, Status};

const CATALOG: &str = "
scopes: { \"users:read\": {} }
roles: { own: { scopes: { \"users:read\": own } }, all: { scopes: { \"users:read\": all } } }
";

/// Ids that providers make; every character that an id can have; the longest one.
fn ids() -> Vec<String> {
    let every = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("._:@|+=~'-".chars());
    let mut ids = owned(&[
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "google-oauth2|103547991597142817347",
        "o'brien+test@x.org",
        "_~id=9f2c",
        "urn:a:b",
        "|",
        "'",
        ".",
        "..",
    ]);
    ids.push(every.collect());
    // Two that begin alike, so that each is a page's last and the other the next one.
    ids.push("x".repeat(254));
    ids.push("x".repeat(255));
    ids.sort();
    ids
}

async fn served(dir: &TempDir) -> (Server, Client) {
    let file = dir.path().join("catalog.yaml");
    fs::write(&file, CATALOG).expect("written");
    let (data, log) = (dir.path().join("data"), dir.path().join("decisions"));
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let args = ["--catalog", &text(&file), "--decision-log", &text(&log)];
    let server = Server::start(&data, &args);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    (server, client)
}

async fn users(client: &Client, page_size: i32) -> Vec<String> {
    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let company_id = "acme".to_owned();
        let request = ListUsersRequest { company_id, page_size, page_token };
        let page = client.directory.clone().list_users(request).await.expect("a page").into_inner();
        found.extend(page.users.into_iter().map(|user| user.user_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// A check for a user, by their own word or by a token's, of a record of an owner.
fn asked(user: &str, of_token: bool, owner: &str) -> CheckRequest {
    let token =
        Token { user_id: user.to_owned(), scopes: owned(&["users:read"]), ..Token::default() };
    CheckRequest {
        user_id: if of_token { String::new() } else { user.to_owned() },
        token: of_token.then_some(token),
        resource_owner_id: owner.to_owned(),
        ..scopes_of("acme", "hr", &["users:read"])
    }
}

#[tokio::test]
async fn a_user_id_of_every_provider_is_one_everywhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, client) = served(&dir).await;
    let ids = ids();
    for id in &ids {
        assert_eq!(client.put_user("acme", id, &["own"]).await.user_id, *id);
        let request = GetUserRequest { company_id: "acme".to_owned(), user_id: id.clone() };
        let got = client.directory.clone().get_user(request).await.expect("there").into_inner();
        assert_eq!(got.user.expect("a user").user_id, *id);
        assert_eq!(client.consent("acme", "hr", id, &["users:read"]).await, ["users:read"]);
        let request = GetConsentRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            user_id: id.clone(),
        };
        let got = client.directory.clone().get_consent(request).await.expect("there").into_inner();
        assert_eq!(got.consent.expect("a consent").user_id, *id);
        for of_token in [false, true] {
            let own = client.agreed(asked(id, of_token, id)).await;
            assert_eq!((own.reason(), own.reach()), (Reason::Allowed, Reach::Own), "{id}");
            let other = client.agreed(asked(id, of_token, "o'brien")).await;
            assert_eq!(other.reason(), Reason::NotRecordOwner, "{id}");
        }
    }
    for page_size in [1, 5, 1000] {
        assert_eq!(users(&client, page_size).await, ids);
    }
    let request = ListChangesRequest { company_id: Some("acme".to_owned()), ..Default::default() };
    let changes = client.changes.clone().list_changes(request).await.expect("a page").into_inner();
    let of_users = changes.changes.iter().filter(|change| change.kind == "PutUser");
    let mut named: Vec<_> = of_users.map(|change| change.user_id.clone()).collect();
    named.sort();
    assert_eq!(named, ids);

    // The command line: as an argument, in a file of checks, in a decision log, and in an export.
    let run = |words: &[&str], input: &str| {
        let mut command = scopegate();
        command.args(words).args(["--endpoint", &server.url()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        child.stdin.take().expect("an input").write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let log = dir.path().join("decisions");
    let id = "o'brien+test@x.org";
    let (code, said) = run(&["user", "get", "acme", id], "");
    assert!(code == Some(0) && said.contains(id), "{said}");
    let question = ["acme", "hr", "users:read", "--user", id, "--resource-owner", "auth0|1"];
    // Only what is checked is in the decision log.
    let (code, said) = run(&[&["check"], &question[..]].concat(), "");
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = run(&[&["explain"], &question[..]].concat(), "");
    assert!(said.contains("NOT_RECORD_OWNER"), "{code:?} {said}");
    let past = ["--decision-log", log.to_str().expect("text")];
    let past_question = ["explain", "acme", "hr", "--user", id, "--resource-owner", "auth0|1"];
    while !fs::read_to_string(&log).expect("a log").contains("\"auth0|1\"") {
        tokio::task::yield_now().await;
    }
    let (code, said) = run(&[&past_question[..], &past].concat(), "");
    assert!(said.contains("NOT_RECORD_OWNER"), "{code:?} {said}");
    let lines: Vec<_> = ids
        .iter()
        .map(|id| {
            serde_json::json!({
                "company_id": "acme", "credential_id": "hr", "scopes": ["users:read"],
                "user_id": id, "resource_owner_id": id,
            })
            .to_string()
        })
        .collect();
    let (code, said) = run(&["batch", "-"], &lines.join("\n"));
    assert_eq!(code, Some(0), "{said}");
    let table = dir.path().join("checks.csv");
    let rows = ids.iter().map(|id| format!("acme,hr,users:read,{id},{id}\n"));
    let head = "company_id,credential_id,scopes,user_id,resource_owner_id\n";
    fs::write(&table, [head.to_owned()].into_iter().chain(rows).collect::<String>())
        .expect("written");
    let (code, said) = run(&["batch", table.to_str().expect("text")], "");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["export"], "");
    assert_eq!(code, Some(0), "{said}");
    for id in &ids {
        let quoted = serde_json::Value::from(id.as_str()).to_string();
        assert_eq!(said.matches(&quoted).count(), 2, "a user and a consent: {id}");
    }

    // A backup has them, and a store that is made of it.
    let (file, new) = (dir.path().join("backup"), dir.path().join("new"));
    let (code, said) = run(&["backup", "--output", file.to_str().expect("text")], "");
    assert_eq!(code, Some(0), "{said}");
    let mut command = scopegate();
    command.arg("restore").arg(&file).arg("--data-dir").arg(&new);
    assert!(command.output().expect("it runs").status.success());
    let server = Server::start(&new, &[]);
    let client = server.client().await;
    assert_eq!(users(&client, 3).await, ids);
    for id in &ids {
        assert_eq!(client.agreed(asked(id, true, id)).await.reason(), Reason::Allowed);
        let request = DeleteUserRequest {
            company_id: "acme".to_owned(),
            user_id: id.clone(),
            ..Default::default()
        };
        client.directory.clone().delete_user(request).await.expect("deleted");
    }
    assert!(users(&client, 3).await.is_empty());
}

/// Says which field was refused, and why.
fn named<T: std::fmt::Debug>(answer: Result<T, Status>) -> (String, String) {
    let (code, details) = refused(answer);
    assert_eq!(code, Code::InvalidArgument);
    let bad = details.bad_request().expect("fields");
    (fields(&details).join(" "), bad.field_violations[0].description.clone())
}

#[tokio::test]
async fn invalid_user_ids_are_refused_by_field() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(&dir).await;
    let alphabet = "user ids are made of letters, digits and \
                    `.` `_` `:` `@` `|` `+` `=` `~` `'` `-`";
    let long = "x".repeat(256);
    let bad = ["a b", "a/b", "a\"b", "a\\b", "a,b", "a%7Cb", "a\nb", "é", "a`b", "a$b", &long];
    for id in bad {
        let why = if id == long {
            "has 256 bytes, the limit is 255".to_owned()
        } else {
            alphabet.to_owned()
        };
        let mut found = vec![];
        let put = PutUserRequest {
            company_id: "acme".to_owned(),
            user_id: id.to_owned(),
            ..Default::default()
        };
        found.push(("user_id", named(client.directory.clone().put_user(put).await)));
        let put = PutConsentRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            user_id: id.to_owned(),
            ..Default::default()
        };
        found.push(("user_id", named(client.directory.clone().put_consent(put).await)));
        found.push(("user_id", named(client.ask(asked(id, false, "")).await)));
        found.push(("token.user_id", named(client.ask(asked(id, true, "")).await)));
        found.push(("resource_owner_id", named(client.ask(asked("ada", false, id)).await)));
        for (field, (told, reason)) in found {
            assert_eq!(told, field);
            assert!(reason.contains(&why), "{reason}");
        }
    }
}

#[tokio::test]
async fn ids_of_companies_and_credentials_stay_as_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(&dir).await;
    let company = async |id: &str| {
        let request = CreateCompanyRequest { company_id: id.to_owned(), ..Default::default() };
        client.directory.clone().create_company(request).await
    };
    let credential = async |id: &str| {
        let request = CreateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: id.to_owned(),
            ..Default::default()
        };
        client.directory.clone().create_credential(request).await
    };
    let alphabet = "; ids are made of letters, digits and `.` `_` `:` `@` `-`";
    for id in ["auth0|1", "o'brien", "a+b", "a=b", "~a"] {
        let (field, why) = named(company(id).await);
        assert!(field == "company_id" && why.ends_with(alphabet), "{field} {why}");
        let (field, why) = named(credential(id).await);
        assert!(field == "credential_id" && why.ends_with(alphabet), "{field} {why}");
    }
    for id in [".", ".."] {
        let (field, why) = named(company(id).await);
        assert!(field == "company_id" && why.starts_with("must not be `.` or `..`"), "{why}");
        let (field, why) = named(credential(id).await);
        assert!(field == "credential_id" && why.starts_with("must not be `.` or `..`"), "{why}");
        let new = ImportCredentialsRequest {
            companies: vec![ImportedCompany { company_id: id.to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let mut directory = client.directory.clone();
        let import = directory.import_credentials(tokio_stream::once(new));
        assert_eq!(named(import.await).0, "companies[0].company_id");
        let new = ImportCredentialsRequest {
            credentials: vec![ImportedCredential {
                company_id: "acme".to_owned(),
                credential_id: id.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut directory = client.directory.clone();
        let import = directory.import_credentials(tokio_stream::once(new));
        assert_eq!(named(import.await).0, "credentials[0].credential_id");
        // What does not exist is not found, and nothing is malformed.
        assert_eq!(client.reason(id, id, &["users:read"]).await, Reason::CompanyUnknown);
        let request = GetCompanyRequest { company_id: id.to_owned() };
        let found = client.directory.clone().get_company(request).await;
        assert_eq!(refused(found).0, Code::NotFound);
    }
    for id in ["...", "a", &"x".repeat(128)] {
        company(id).await.expect("created");
        credential(id).await.expect("created");
    }
    assert!(named(company(&"x".repeat(129)).await).1.contains("the limit is 128"));
}
