//! Issuers of tokens as a part of the catalog, on a real server (T8): they are applied, told of,
//! audited and removed like its other parts.
use std::fs;
use std::process::Stdio;

use crate::harness::{Client, Server, refused, scopegate};
use scopegate::proto::*;
use tonic::Code;

const NONE: &str = "audiences: { api: }\nscopes: { a: }\n";

fn with(issuers: &[(&str, &str)]) -> String {
    let entry = |(name, keys): &(&str, &str)| {
        format!("  {name}: {{ jwks_file: a.json, algorithms: [RS256], {keys} }}\n")
    };
    format!("{NONE}issuers:\n{}", issuers.iter().map(entry).collect::<String>())
}

async fn apply(client: &Client, request: ApplyCatalogRequest) -> ApplyCatalogResponse {
    client.catalog.clone().apply_catalog(request).await.expect("applied").into_inner()
}

fn request(yaml: &str) -> ApplyCatalogRequest {
    ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() }
}

/// The last change of the store, with its field `issuers`.
async fn last_change(client: &Client) -> (u64, Option<(String, String)>) {
    let request = ListChangesRequest { newest_first: true, page_size: 1, ..Default::default() };
    let page = client.changes.clone().list_changes(request).await.expect("listed").into_inner();
    let change = &page.changes[0];
    let field = change.fields.iter().find(|field| field.field == "issuers");
    let field = field.map(|field| (field.before.clone(), field.after.clone()));
    (change.revision, field)
}

#[tokio::test]
async fn a_change_of_issuers_is_told_warned_of_and_audited() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    apply(&client, request(NONE)).await;
    let acme = "company: { is: acme }";
    let any = "company: { claim: tid }, companies: any";
    let both = with(&[("https://x/", acme), ("https://y/", any)]);
    // The dry run says all that the call would.
    let dry = ApplyCatalogRequest { validate_only: true, ..request(&both) };
    let dry = apply(&client, dry).await;
    assert_eq!(dry.changed_issuers, ["https://x/", "https://y/"]);
    assert_eq!(dry.warnings.len(), 2, "{:?}", dry.warnings);
    assert!(dry.warnings[0].contains("the issuer `https://y/` may speak for any company"));
    assert!(dry.warnings[1].contains("`https://x/` and `https://y/` can both name the same"));
    let id = "5f0c6a4e-6b1e-4b53-9d0a-2f5a3d2f9c11".to_owned();
    let call = ApplyCatalogRequest { request_id: id, ..request(&both) };
    let applied = apply(&client, call.clone()).await;
    assert_eq!(
        (&applied.changed_issuers, &applied.warnings),
        (&dry.changed_issuers, &dry.warnings)
    );
    let added = Some((String::new(), "\"https://x/, https://y/\"".to_owned()));
    assert_eq!(last_change(&client).await, (applied.revision, added));
    // A repeat has the names, and no warnings.
    let repeated = apply(&client, call).await;
    assert_eq!(repeated.changed_issuers, dry.changed_issuers);
    assert_eq!((repeated.warnings.len(), repeated.revision), (0, applied.revision));
    // A change of one, the removal of the other.
    let one = with(&[("https://x/", "company: { is: globex }")]);
    let applied = apply(&client, request(&one)).await;
    assert_eq!(applied.changed_issuers, ["https://x/", "https://y/"]);
    assert!(applied.warnings.is_empty(), "{:?}", applied.warnings);
    let changed = Some(("\"https://y/\"".to_owned(), "\"https://x/\"".to_owned()));
    assert_eq!(last_change(&client).await, (applied.revision, changed));
    // The same issuers in another text are no change.
    let again = apply(&client, request(&format!("# again\n{one}"))).await;
    assert!(again.changed_issuers.is_empty(), "{again:?}");
    let wrong = with(&[("https://x/", "company: { is: acme }, companies: any")]);
    let (code, details) = refused(client.catalog.clone().apply_catalog(request(&wrong)).await);
    assert_eq!(code, Code::InvalidArgument);
    let fields = details.bad_request().expect("a BadRequest").field_violations.clone();
    assert!(fields[0].description.contains("`company` is `acme` alone"), "{fields:?}");
}

#[tokio::test]
async fn a_file_without_an_issuer_is_a_removal_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("catalog.yaml"));
    let path = file.to_str().expect("a path");
    let yaml = with(&[("https://x/", "company: { claim: tid }, companies: any")]);
    fs::write(&file, &yaml).expect("written");
    let server = Server::start(&data, &["--catalog", path]);
    assert_eq!(server.logged("the issuer `https://x/` may speak for any company"), 1);
    server.kill();
    fs::write(&file, NONE).expect("written");
    let server = Server::start(&data, &["--catalog", path]);
    assert!(server.logged("would remove `issuer https://x/`") > 0);
    let client = server.client().await;
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    assert_eq!(read.into_inner().yaml, yaml);
    server.kill();
    let server = Server::start(&data, &["--catalog", path, "--allow-catalog-removals"]);
    let removed = Some(("\"https://x/\"".to_owned(), String::new()));
    assert_eq!(last_change(&server.client().await).await.1, removed);
}

#[tokio::test]
async fn commands_show_issuers_and_ask_before_one_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"), &[]);
    let client = server.client().await;
    let run = |words: &[&str]| {
        let mut command = scopegate();
        command.args(words).env("SCOPEGATE_ENDPOINT", server.url()).stdin(Stdio::null());
        let output = command.output().expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let file = |name: &str, yaml: &str| {
        let path = dir.path().join(name);
        fs::write(&path, yaml).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let one = file("one.yaml", &with(&[("https://x/", "company: request, companies: any")]));
    let (code, out, _) = run(&["catalog", "validate", &one]);
    assert!(code == Some(0) && out.contains("0 endpoints, 1 issuer"), "{out}");
    let (code, out, err) = run(&["catalog", "diff", &one]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("ISSUER") && out.contains("speaks for any company"), "{out}");
    assert!(err.contains("warning: the issuer `https://x/` may speak for any company"), "{err}");
    let (_, out, err) = run(&["catalog", "apply", &one, "--output", "json"]);
    assert!(out.contains("\"changedIssuers\""), "{out}");
    assert!(err.contains("{\"warning\":\"the issuer `https://x/`"), "{err}");
    // Another entry and no entry are asked about, and there is no terminal to ask on.
    let other = file("other.yaml", &with(&[("https://x/", "company: { is: acme }")]));
    let none = file("none.yaml", NONE);
    for (path, said) in [
        (&other, "the file would change the issuer https://x/"),
        (&none, "the file would remove the issuer https://x/"),
    ] {
        let (code, _, err) = run(&["catalog", "apply", path]);
        assert!(code == Some(2) && err.contains(said), "{err}");
    }
    let (code, out, err) = run(&["catalog", "apply", &none, "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("removed"), "{out}");
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    assert_eq!(read.into_inner().yaml, NONE);
}
