//! Endpoints over real sockets (D20): which templates and methods a catalog may have, and which
//! endpoint answers for the path of a call.
use crate::harness;
use crate::harness::{Client, Server, endpoint_of, scopegate};
use scopegate::proto::*;
use tonic::{Code, Status};

const CATALOG: &str = r#"
scopes: { read: , export: , purge: , files: , slash: }
endpoints:
  - { method: GET,    path: "/users/{id}",       scopes: [read] }
  - { method: GET,    path: "/users/export",     scopes: [export] }
  - { method: POST,   path: "/users/{id}",       scopes: [read], colon_in: [id] }
  - { method: POST,   path: "/users/{id}:purge", scopes: [purge] }
  - { method: GET,    path: "/files/{path+}",    scopes: [files] }
  - { method: GET,    path: "/files/admin/keys", scopes: [export] }
  - { method: GET,    path: "/docs/",            scopes: [slash] }
"#;

fn apply(yaml: &str) -> ApplyCatalogRequest {
    ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() }
}

async fn applied(client: &Client, yaml: &str) -> Result<ApplyCatalogResponse, Status> {
    client.catalog.clone().apply_catalog(apply(yaml)).await.map(tonic::Response::into_inner)
}

/// A server with this catalog, and credentials of `acme` that hold one scope each.
async fn served(dir: &std::path::Path, yaml: &str, scopes: &[&str]) -> (Server, Client) {
    let server = Server::start(dir, &[]);
    let client = server.client().await;
    applied(&client, yaml).await.expect("applied");
    client.create_company("acme", None).await;
    for scope in scopes {
        client.create_credential("acme", scope, &[scope]).await;
    }
    (server, client)
}

#[tokio::test]
async fn a_call_is_allowed_by_the_scope_of_the_endpoint_that_it_means() {
    const SCOPES: [&str; 5] = ["read", "export", "purge", "files", "slash"];
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path(), CATALOG, &SCOPES).await;
    for (method, path, needed) in [
        ("GET", "/users/7", Some("read")),
        ("GET", "/users/export", Some("export")),
        ("GET", "/users/EXPORT", None),
        ("GET", "/users/Export", None),
        ("GET", "/users/export;x=1", None),
        ("GET", "/users/e%2578port", None),
        ("GET", "/USERS/7", None),
        ("GET", "/users/7:8", None),
        ("GET", "/users/7%3A8", Some("read")),
        ("GET", "/users/7/", None),
        ("HEAD", "/users/7", Some("read")),
        ("HEAD", "/users/export", Some("export")),
        ("HEAD", "/users/EXPORT", None),
        ("get", "/users/7", None),
        ("POST", "/users/1:2", Some("read")),
        ("POST", "/users/7:purge", Some("purge")),
        ("POST", "/users/7:PURGE", None),
        ("POST", "/users/7%3Apurge", None),
        ("POST", "/users/7:purge;x", None),
        ("POST", "/users/1:2:purge", None),
        ("GET", "/files/a", Some("files")),
        ("GET", "/files/a/b/c", Some("files")),
        ("GET", "/files/admin/keys", Some("export")),
        ("GET", "/files/admin/other", Some("files")),
        ("GET", "/files/ADMIN/keys", None),
        ("GET", "/files/admin/KEYS", None),
        ("GET", "/files/admin;x/keys", None),
        ("GET", "/files/a/b:c", None),
        ("GET", "/files/a/", None),
        ("GET", "/files/", None),
        ("GET", "/docs/", Some("slash")),
        ("GET", "/docs", None),
    ] {
        for scope in SCOPES {
            let check = endpoint_of("acme", scope, method, path);
            let answer = client.ask(check.clone()).await.expect("an answer");
            let expected = match needed {
                None => Reason::EndpointUnknown,
                Some(needed) if needed == scope => Reason::Allowed,
                Some(_) => Reason::ScopeNotGranted,
            };
            assert_eq!(answer.reason(), expected, "{method} {path} with {scope}");
        }
    }
}

#[tokio::test]
async fn every_way_to_ask_finds_the_same_endpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path(), CATALOG, &["read"]).await;
    for path in ["/users/7", "/users/EXPORT", "/users/7:8", "/users/export"] {
        let check = endpoint_of("acme", "read", "GET", path);
        let single = client.ask(check.clone()).await.expect("an answer").reason();
        let batch = BatchCheckRequest { checks: vec![check.clone()] };
        let batch =
            client.authorization.clone().batch_check(batch).await.expect("answers").into_inner();
        let explain = ExplainCheckRequest { check: Some(check) };
        let explained =
            client.authorization.clone().explain_check(explain).await.expect("told").into_inner();
        let explained = explained.decision.expect("the answer").reason();
        assert_eq!((explained, batch_reason(&batch)), (single, single), "{path}");
    }
}

fn batch_reason(batch: &BatchCheckResponse) -> Reason {
    batch.results[0].reason()
}

#[tokio::test]
async fn a_path_that_is_encoded_twice_is_refused_as_one_that_is_encoded_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path(), CATALOG, &["read"]).await;
    for path in ["/users/a%2Fb", "/users/a%252Fb", "/users/%252e%252e", "/users/a%25255Cb"] {
        let refused = client.ask(endpoint_of("acme", "read", "GET", path)).await.expect_err(path);
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}");
    }
}

/// What `ApplyCatalog` says of an endpoint that is written so, on line 4.
async fn refused(client: &Client, endpoint: &str) -> String {
    let yaml = format!(
        "scopes: {{ a: }}\nendpoints:\n  - {{ method: GET, path: \"/u/export\", scopes: [a] }}\n  - {{ {endpoint}, scopes: [a] }}\n"
    );
    let status = applied(client, &yaml).await.expect_err(endpoint);
    assert_eq!(status.code(), Code::InvalidArgument, "{endpoint}");
    let (_, details) = harness::refused::<()>(Err(status.clone()));
    let told = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    let told: Vec<_> = told.into_iter().map(|violation| violation.description).collect();
    format!("{} {}", status.message(), told.join(" "))
}

#[tokio::test]
async fn invalid_catalogs_are_refused_with_line_and_column() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let client = &server.client().await;
    for (path, column, instead) in [
        ("/a/*", 30, "`{name}`"),
        ("/a/**", 30, "`{name+}`"),
        ("/a/*path", 30, "`{name+}`"),
        ("/a/:id", 30, "`{name}`"),
        ("/a/b/(x|y)", 32, "`{name}`"),
        ("/a/<int:id>", 30, "`{name}`"),
        ("/a/[id]", 30, "`{name}`"),
        ("/a/{id:int}", 30, "`{name}`"),
        ("/a/{id?}", 30, "two endpoints"),
        ("/a/{*path}", 30, "`{name+}`"),
        ("/a/{path...}", 30, "`{name+}`"),
        ("/a/{path*}", 30, "`{name+}`"),
        ("/a/{name=x}", 30, "`{name}`"),
        ("/a/{$}", 30, "`/` at its end"),
        ("/a/x{id}", 30, "`{id}`"),
        ("/a/{path+}/b", 30, "must be the last segment"),
        ("/a/{path+}/", 30, "must be the last segment"),
        ("/a/{b c}", 30, "letters, digits"),
        ("/a/{x}/{x}", 34, "its own name"),
        ("/u/EXPORT", 30, "`export`"),
        ("/u/expor%C3%AF;x/../y", 44, "`..`"),
        ("/u/export", 26, "the same shape"),
        ("u", 26, "must begin with `/`"),
    ] {
        let said = refused(client, &format!("method: GET, path: \"{path}\"")).await;
        let place = format!("line 4, column {column}: ");
        assert!(said.contains(&place) && said.contains(instead), "{path}: {said}");
    }
    for (method, instead) in [
        ("get", "write `GET`"),
        ("Post", "write `POST`"),
        ("grpc", "write `GRPC`"),
        ("ANY", "for each method"),
        ("all", "for each method"),
        ("\"*\"", "for each method"),
    ] {
        let said = refused(client, &format!("method: {method}, path: /x")).await;
        assert!(said.contains("line 4, column 15: ") && said.contains(instead), "{method}: {said}");
    }
    let said = refused(client, "method: GET, path: \"/x/{id}\", colon_in: [id, other]").await;
    assert!(said.contains("line 4, column 52: `other` is not a parameter of `/x/{id}`"), "{said}");
}

#[tokio::test]
async fn a_permission_for_colons_is_a_change_of_the_endpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path(), CATALOG, &[]).await;
    let other = CATALOG.replace(", colon_in: [id]", "");
    let said = applied(&client, &other).await.expect("applied");
    assert_eq!(said.changed_endpoints, ["POST /users/{id}"]);
    let said = applied(&client, CATALOG).await.expect("applied");
    assert_eq!(said.changed_endpoints, ["POST /users/{id}"]);
}

#[tokio::test]
async fn a_change_of_resources_is_reported_and_noted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path(), CATALOG, &[]).await;
    let resources = "resources: { doc: { actions: { read: [{ scopes: [read] }] } } }";
    let with = format!("{CATALOG}{resources}");
    let dry = ApplyCatalogRequest { validate_only: true, ..apply(&with) };
    let dry = client.catalog.clone().apply_catalog(dry).await.expect("shown").into_inner();
    assert_eq!(dry.changed_resources, ["doc"]);
    let once = ApplyCatalogRequest {
        request_id: "6f1c0a52-9d5e-4a6b-8f0e-2c4d1b3a7e90".to_owned(),
        ..apply(&with)
    };
    for _ in 0..2 {
        let done = client.catalog.clone().apply_catalog(once.clone()).await.expect("applied");
        assert_eq!(done.into_inner().changed_resources, ["doc"], "also when repeated");
    }
    let wrong = with.replace("scopes: [read] }] } }", "scopes: [write] }] } }");
    let said = applied(&client, &wrong).await.expect_err("refused");
    let (_, details) = harness::refused::<()>(Err(said));
    let said = format!("{:?}", details.bad_request());
    assert!(said.contains("line 11, column 50: `write` is not a scope"), "{said}");
    let said = applied(&client, CATALOG).await.expect("applied");
    assert_eq!(said.changed_resources, ["doc"]);
    let changes = ListChangesRequest::default();
    let changes = client.changes.clone().list_changes(changes).await.expect("listed").into_inner();
    let fields = changes.changes.iter().flat_map(|change| &change.fields);
    let fields: Vec<_> = fields
        .filter(|field| field.field == "resources")
        .map(|field| (&*field.before, &*field.after))
        .collect();
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert!(fields.contains(&("", "\"doc\"")) && fields.contains(&("\"doc\"", "")), "{fields:?}");
}

#[test]
fn the_command_line_refuses_the_same_and_its_tests_find_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("catalog.yaml");
    std::fs::write(&path, CATALOG.replace("/users/{id}:purge", "/users/:id")).expect("written");
    let run = |arguments: &[&str]| {
        let output = scopegate().args(arguments).current_dir(&dir).output().expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (good, said) = run(&["catalog", "validate", "catalog.yaml"]);
    assert!(!good && said.contains("a parameter is `{name}`"), "{said}");
    std::fs::write(&path, CATALOG).expect("written");
    let tests = "
catalog: catalog.yaml
companies:
  acme: { scopes: [read, export], credentials: { app: { scopes: [read] } } }
tests:
  - name: in another case
    check: { company: acme, credential: app, endpoint: { method: GET, path: /users/EXPORT } }
    expect: { decision: denied, reason: ENDPOINT_UNKNOWN }
  - name: head
    check: { company: acme, credential: app, endpoint: { method: HEAD, path: /users/7 } }
    expect: { decision: allowed }
";
    std::fs::write(dir.path().join("tests.yaml"), tests).expect("written");
    let (good, said) = run(&["catalog", "test", "tests.yaml"]);
    assert!(good && said.contains("2 passed, 0 failed"), "{said}");
}
