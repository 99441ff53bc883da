//! Renaming and splitting scopes of the catalog, on a real server (D2): who holds a scope keeps it
//! under its new name, and nobody gains or loses.
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness;
use crate::harness::{Client, Server, fields, refused, scopegate, scopes_of};
use scopegate::proto::*;
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Code, Status};

const FIRST: &str = "
name: people
audiences: { api: { title: API }, app: { user: optional, consent: required } }
scopes:
  people:read:  { title: See people }
  people:write: { title: Change people, implies: [\"people:read\"] }
  reports: { title: Reports, audiences: [api] }
roles: { member: { scopes: { people:write: own } } }
endpoints: [ { method: GET, path: /people, audience: api, scopes: [\"people:read\"] } ]
";

/// The same platform, with a word of today.
fn renamed() -> String {
    let entries =
        FIRST.replace("people:read:  {", "members:read: { renamed_from: \"people:read\",");
    let entries =
        entries.replace("people:write: {", "members:write: { renamed_from: \"people:write\",");
    let entries = entries.replace("[\"people:read\"]", "[\"members:read\"]");
    entries.replace("people:write: own", "members:write: own")
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn apply(yaml: &str) -> ApplyCatalogRequest {
    ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() }
}

async fn applied(
    client: &Client,
    request: ApplyCatalogRequest,
) -> Result<ApplyCatalogResponse, Status> {
    Ok(client.catalog.clone().apply_catalog(request).await?.into_inner())
}

async fn changes(client: &Client) -> Vec<Change> {
    let request = ListChangesRequest { page_size: 1_000, ..Default::default() };
    client.changes.clone().list_changes(request).await.expect("listed").into_inner().changes
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("written");
    path.to_str().expect("a path").to_owned()
}

fn run(server: &Server, home: &Path, words: &str) -> (i32, String, String) {
    let mut command: Command = scopegate();
    command.env("XDG_CONFIG_HOME", home).env("SCOPEGATE_ENDPOINT", server.url());
    let output = command.args(words.split_whitespace()).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// Lines without the spaces that line them up.
fn plain(text: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn with_user(credential: &str, scope: &str, audience: &str) -> CheckRequest {
    CheckRequest {
        user_id: "ada".to_owned(),
        audience: audience.to_owned(),
        ..scopes_of("acme", credential, &[scope])
    }
}

/// Every grant without its name: what it is, since when, until when.
fn grants(credential: &Credential) -> Vec<(i32, u64, Option<prost_types::Timestamp>)> {
    let mut all: Vec<_> = credential
        .grants
        .iter()
        .map(|grant| (grant.state, grant.granted_at_revision, grant.expires_at))
        .collect();
    all.sort_by_key(|grant| (grant.1, grant.0, grant.2.map(|end| end.seconds)));
    all
}

fn renames(said: &ApplyCatalogResponse) -> Vec<(&str, &str)> {
    said.renamed_scopes.iter().map(|s| (s.old_name.as_str(), s.new_name.as_str())).collect()
}

const BOTH: [(&str, &str); 2] =
    [("people:read", "members:read"), ("people:write", "members:write")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_a_renamed_scope_keep_it_under_its_new_name() {
    let (data, home) = (dir(), dir());
    let path = file(home.path(), "catalog.yaml", FIRST);
    let server = Server::start(data.path(), &["--catalog", &path]);
    let client = &server.client().await;
    client.create_company("acme", None).await;
    client.create_company("other", Some(&["reports"])).await;
    for credential in ["hr", "old"] {
        client.create_credential("acme", credential, &["people:read"]).await;
    }
    let until = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let grant = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: harness::owned(&["people:write"]),
        expires_at: until(4_102_444_800),
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(grant).await.expect("granted");
    // One restriction that was undone before, and one that is not.
    let taken = client.restrict("acme", &["people:write"]).await;
    client.add_scopes("acme", &["people:write"]).await;
    client.put_user("acme", "ada", &["member"]).await;
    client.consent("acme", "hr", "ada", &["people:read"]).await;
    let before = [
        client.credential("acme", "hr").await.expect("read"),
        client.credential("acme", "old").await.expect("read"),
    ];
    assert_eq!(grants(&before[0]).len(), 2);

    let api = |scope: &str| CheckRequest {
        audience: "api".to_owned(),
        ..scopes_of("acme", "old", &[scope])
    };
    let reason =
        async |request: CheckRequest| client.ask(request).await.expect("answered").reason();
    // The dry run says what the change says, and changes nothing.
    let mut dry = apply(&renamed());
    dry.validate_only = true;
    let dry = applied(client, dry).await.expect("valid");
    assert_eq!(reason(api("members:read")).await, Reason::ScopeUnknown);
    let said = applied(client, apply(&renamed())).await.expect("applied");
    assert_eq!(renames(&dry), BOTH);
    let nothing = ApplyCatalogResponse {
        renamed_scopes: dry.renamed_scopes.clone(),
        etag: said.etag.clone(),
        revision: said.revision,
        ..Default::default()
    };
    assert_eq!(said, nothing, "nothing else is otherwise");

    assert_eq!(reason(api("members:read")).await, Reason::Allowed);
    assert_eq!(reason(api("people:read")).await, Reason::ScopeUnknown);
    assert_eq!(reason(api("members:write")).await, Reason::ScopeNotGranted);
    // Consent and role likewise; the restricted grant sleeps on.
    assert_eq!(reason(with_user("hr", "members:read", "app")).await, Reason::Allowed);
    assert_eq!(reason(with_user("hr", "members:write", "app")).await, Reason::GrantDormant);
    let endpoint = CheckRequest {
        endpoint: Some(Endpoint { method: "GET".to_owned(), path: "/people".to_owned() }),
        ..scopes_of("acme", "old", &[])
    };
    assert_eq!(reason(endpoint).await, Reason::Allowed);
    for then in &before {
        let now = client.credential("acme", &then.credential_id).await.expect("read");
        assert_eq!(grants(&now), grants(then));
        assert_eq!((&now.etag, now.revision), (&then.etag, then.revision));
        assert!(now.grants.iter().all(|grant| grant.scope.starts_with("members:")), "{now:?}");
    }

    // Who reads the log follows.
    let log = changes(client).await;
    let last = log.last().expect("a change");
    assert_eq!((last.kind.as_str(), last.revision), ("ApplyCatalog", said.revision));
    assert!(last.added_scopes.is_empty() && last.removed_scopes.is_empty(), "{last:?}");
    let pairs: Vec<_> =
        last.fields.iter().filter(|field| field.field == "renamed_scopes").collect();
    assert_eq!(
        (pairs.len(), pairs[0].after.as_str()),
        (1, "\"people:read -> members:read, people:write -> members:write\"")
    );

    // Again: nothing.
    let again = applied(client, apply(&renamed())).await.expect("applied");
    assert_eq!((again.revision, renames(&again)), (said.revision, vec![]));
    let spaced = format!("{}# the same\n", renamed());
    let again = applied(client, apply(&spaced)).await.expect("applied");
    assert_eq!((renames(&again), again.removed_scopes.len()), (vec![], 0));

    // A restriction of before is undone under the new name.
    let restore = |scope: &str| RestoreGrantsRequest {
        company_id: "acme".to_owned(),
        scopes: harness::owned(&[scope]),
        restricted_at_revision: taken.revision,
        ..Default::default()
    };
    let old = client.authorization.clone().restore_grants(restore("people:write")).await;
    assert_eq!(refused(old).0, Code::InvalidArgument);
    let woken = client.authorization.clone().restore_grants(restore("members:write")).await;
    assert_eq!(woken.expect("restored").into_inner().restored_credential_count, 1);
    assert_eq!(
        reason(CheckRequest {
            audience: "api".to_owned(),
            ..scopes_of("acme", "hr", &["members:write"])
        })
        .await,
        Reason::Allowed
    );

    // What was decided is explained: of now, and of before with the catalog of then.
    let before_it = said.revision - 1;
    let explain =
        format!("explain acme old members:read --audience api --at-revision {}", said.revision);
    let (code, out, err) = run(&server, home.path(), &format!("{explain} --output json"));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("DECISION_ALLOWED"), "{out}");
    let explain = format!("explain acme old people:read --audience api --at-revision {before_it}");
    let (code, out, err) =
        run(&server, home.path(), &format!("{explain} --catalog {path} --output json"));
    assert_eq!(code, 0, "{err}");
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert!(told.to_string().contains("DECISION_ALLOWED"), "{out}");
    // A line of the log for people.
    let (_, out, _) = run(&server, home.path(), "changes list");
    assert!(out.contains("renamed_scopes"), "{out}");

    // And all of it is kept.
    server.terminate();
    let server = Server::start(data.path(), &[]);
    let client = &server.client().await;
    let check =
        CheckRequest { audience: "api".to_owned(), ..scopes_of("acme", "old", &["members:read"]) };
    assert_eq!(client.ask(check).await.expect("answered").reason(), Reason::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_in_the_file_of_a_start_is_no_removal() {
    let (data, home) = (dir(), dir());
    let holds = async |server: &Server, scope: &str| {
        let check =
            CheckRequest { audience: "api".to_owned(), ..scopes_of("acme", "hr", &[scope]) };
        server.client().await.ask(check).await.expect("answered").reason()
    };
    let path = file(home.path(), "catalog.yaml", FIRST);
    let server = Server::start(data.path(), &["--catalog", &path]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["people:read"]).await;
    server.terminate();

    file(home.path(), "catalog.yaml", &renamed());
    let server = Server::start(data.path(), &["--catalog", &path, "--strict-catalog"]);
    assert_eq!(holds(&server, "members:read").await, Reason::Allowed);
    // An operator goes on to a third name; the file of the start stays behind.
    let third = renamed().replace(
        "members:read: { renamed_from: \"people:read\"",
        "staff: { renamed_from: \"members:read\"",
    );
    let third = third.replace("[\"members:read\"]", "[staff]");
    let said = applied(&server.client().await, apply(&third)).await.expect("applied");
    assert_eq!(renames(&said), [("members:read", "staff")]);
    server.terminate();
    let server = Server::start(data.path(), &["--catalog", &path, "--strict-catalog"]);
    assert_eq!(holds(&server, "staff").await, Reason::Allowed, "an old file is not applied again");
    server.terminate();
    // Another file that lags behind would remove `staff`: it is not applied without leave.
    file(home.path(), "catalog.yaml", &format!("{}# other\n", renamed()));
    let server = Server::start(data.path(), &["--catalog", &path]);
    assert_eq!(holds(&server, "staff").await, Reason::Allowed);
    assert_eq!(holds(&server, "members:read").await, Reason::ScopeUnknown);
    // And with leave, nobody who held it holds what the lagging file calls new.
    server.terminate();
    let server = Server::start(data.path(), &["--catalog", &path, "--allow-catalog-removals"]);
    assert_eq!(holds(&server, "members:read").await, Reason::ScopeNotInCompany);
    server.terminate();
    // A merge stops no start of a store that has a catalog, and is not applied.
    let merge = renamed().replace("reports: {", "\"reports\": { renamed_from: \"members:read\",");
    let merge = merge.lines().filter(|line| !line.contains("members:read: {")).collect::<Vec<_>>();
    let merge = merge.join("\n").replace("[\"members:read\"]", "[reports]");
    file(home.path(), "catalog.yaml", &merge);
    let server = Server::start(data.path(), &["--catalog", &path, "--allow-catalog-removals"]);
    assert_eq!(holds(&server, "members:read").await, Reason::ScopeNotInCompany);
    assert!(server.logged("the catalog in force has `members:read` and `reports`") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_two_scopes_is_refused_with_its_position() {
    let (data, home) = (dir(), dir());
    let server = Server::start(data.path(), &[]);
    let client = &server.client().await;
    applied(client, apply("scopes:\n  a:\n  b:\n  c:\n")).await.expect("applied");
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a"]).await;
    let at = changes(client).await.len();
    for (yaml, place) in [
        (
            "scopes:\n  b: { renamed_from: a }\n  c:\n",
            "line 2, column 22: the catalog in force has `a`",
        ),
        ("scopes:\n  x: { renamed_from: a }\n  a:\n", "line 2, column 22: `a` is still a scope"),
        (
            "scopes:\n  x: { renamed_from: a }\n  y: { renamed_from: a }\n",
            "line 3, column 22: `a` has become",
        ),
        (
            "scopes:\n  x: { renamed_from: x }\n",
            "line 2, column 22: `x` cannot be renamed to itself",
        ),
        ("scopes:\n  x: { renamed_from: \"x y\" }\n", "line 2, column 22: `x y` has the character"),
    ] {
        for validate_only in [true, false] {
            let request = ApplyCatalogRequest { validate_only, ..apply(yaml) };
            let (code, details) = refused(applied(client, request).await);
            assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["yaml"]), "{yaml}");
            let said =
                details.bad_request().expect("fields").field_violations[0].description.clone();
            assert!(said.contains(place), "{said}");
        }
        let path = file(home.path(), "new.yaml", yaml);
        for command in ["diff", "apply --yes", "apply --dry-run"] {
            let (code, _, err) = run(&server, home.path(), &format!("catalog {command} {path}"));
            let place = place.replace("line ", "new.yaml:").replace(", column ", ":");
            assert!(code == 2 && err.contains(&place), "{command}: {err}");
        }
    }
    assert_eq!(changes(client).await.len(), at);
    assert_eq!(client.reason("acme", "hr", &["a"]).await, Reason::Allowed);
    // A removed scope comes back under no name: its holders are those of nothing.
    applied(client, apply("scopes:\n  b:\n  c:\n")).await.expect("applied");
    let said = applied(client, apply("scopes:\n  b:\n  c:\n  d: { renamed_from: a }\n")).await;
    assert_eq!(said.expect("applied").added_scopes, ["d"]);
    assert_eq!(client.reason("acme", "hr", &["d"]).await, Reason::ScopeNotInCompany);
    // An implication that comes with a rename reaches no holder either (D2).
    client.create_credential("acme", "bi", &["b"]).await;
    applied(client, apply("scopes:\n  e: { renamed_from: b, implies: [c] }\n  c:\n"))
        .await
        .expect("applied");
    assert_eq!(client.reason("acme", "bi", &["e"]).await, Reason::Allowed);
    assert_eq!(client.reason("acme", "bi", &["c"]).await, Reason::ScopeNotGranted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_and_a_list_go_on_over_a_rename() {
    let data = dir();
    let server = Server::start(data.path(), &[]);
    let client = &server.client().await;
    applied(client, apply("scopes: { a: , b: }")).await.expect("applied");
    client.create_company("acme", None).await;
    for credential in ["one", "three", "two"] {
        client.create_credential("acme", credential, &["b"]).await;
    }
    let grant = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "one".to_owned(),
        scopes: harness::owned(&["a"]),
        request_id: "0190aaaa-0000-7000-8000-000000000001".to_owned(),
        ..Default::default()
    };
    let grant = async || client.authorization.clone().grant_scopes(grant.clone()).await;
    let first = grant().await.expect("granted").into_inner();
    let list = |scope: &str, page_token: &str| ListCredentialsRequest {
        company_id: "acme".to_owned(),
        scope: scope.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let page = client.directory.clone().list_credentials(list("b", "")).await;
    let page = page.expect("listed").into_inner();
    applied(client, apply("scopes: { x: { renamed_from: a }, y: { renamed_from: b } }"))
        .await
        .expect("applied");
    // The first reply's revision and names, and the resource as it is called now.
    let again = grant().await.expect("answered").into_inner();
    assert_eq!((again.revision, &again.added_scopes), (first.revision, &first.added_scopes));
    let names: Vec<_> = again.credential.expect("it").grants.into_iter().map(|g| g.scope).collect();
    assert_eq!(names, ["x", "y"]);
    // No page is of another scope than was asked for.
    for scope in ["b", "y"] {
        let next =
            client.directory.clone().list_credentials(list(scope, &page.next_page_token)).await;
        assert_eq!(refused(next).0, Code::InvalidArgument, "{scope}");
    }
    let all = ListCredentialsRequest { page_size: 10, ..list("y", "") };
    let all = client.directory.clone().list_credentials(all).await.expect("listed").into_inner();
    assert_eq!(all.credentials.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_change_tells_its_parts_and_who_loses_by_name() {
    let (data, home) = (dir(), dir());
    let server = Server::start(data.path(), &[]);
    let client = &server.client().await;
    let command = |words: &str| run(&server, home.path(), words);
    let first = file(home.path(), "first.yaml", FIRST);
    assert!(
        plain(&command(&format!("catalog apply {first}")).1)
            .contains("GET /people added - people:read (audience api)")
    );
    let same = "nothing to change: this is the current catalog\n";
    assert_eq!(command(&format!("catalog diff {first}")), (0, same.to_owned(), String::new()));
    let (code, out, _) = command(&format!("catalog apply {first}"));
    assert!(code == 0 && out.starts_with(same), "{out}");
    let comment = file(home.path(), "comment.yaml", &format!("# why\n{FIRST}"));
    assert!(
        command(&format!("catalog diff {comment}")).1.contains("only the formatting of the file")
    );
    for n in 0..101 {
        client.create_company(&format!("c{n:03}"), Some(&["reports"])).await;
        client.create_credential(&format!("c{n:03}"), "bi", &["reports"]).await;
    }
    // A title is told, and is nothing that acts.
    let titled = FIRST.replace("See people", "See members").replace("title: API", "title: Api");
    let path = file(home.path(), "titled.yaml", &titled);
    let diff = plain(&command(&format!("catalog diff {path}")).1);
    assert_eq!(
        diff,
        "TITLE OF WAS IS\npeople:read \"See people\" \"See members\"\naudience api \"API\" \"Api\""
    );
    let said = applied(client, ApplyCatalogRequest { validate_only: true, ..apply(&titled) })
        .await
        .expect("valid");
    assert_eq!(said.changed_titles, ["people:read", "api"]);
    assert!(said.changed_scopes.is_empty() && said.changed_audiences.is_empty(), "{said:?}");
    // A shorter one says who loses, before it is refused for want of a yes.
    let shorter = FIRST.replace("  reports: { title: Reports, audiences: [api] }\n", "");
    let shorter = shorter.replace(
        "path: /people, audience: api, scopes: [\"people:read\"]",
        "path: /people, scopes: [\"people:write\"]",
    );
    let shorter = shorter.replace(
        "endpoints: [",
        "endpoints: [ { method: GET, path: /new, scopes: [\"people:read\"] }, ",
    );
    let path = file(home.path(), "shorter.yaml", &shorter);
    let (code, out, err) = command(&format!("catalog apply {path}"));
    assert!(code == 2 && err.contains("nothing was applied"), "{err}");
    let out = plain(&out);
    for part in [
        "removed scopes reports",
        "companies that lose a scope 101\ncredentials that lose a scope 101",
        "COMPANY NAME CREDENTIALS LOSES\nc000 - 1 reports",
        "c099 - 1 reports\nand 1 more company",
        "COMPANY CREDENTIAL LABEL STATE LAST SEEN LOSES\nc000 bi The label of bi enabled never reports",
        "and 1 more credential",
        "ENDPOINT CHANGE NEEDED NEEDS\nGET /new added - people:read\n\
         GET /people changed people:read (audience api) people:write",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let said = applied(client, ApplyCatalogRequest { validate_only: true, ..apply(&shorter) })
        .await
        .expect("valid");
    assert_eq!(said.changed_endpoints, ["GET /new", "GET /people"]);
    assert_eq!(
        (said.added_endpoints, said.removed_endpoints),
        (harness::owned(&["GET /new"]), vec![])
    );
    assert_eq!((said.affected_company_count, said.affected_companies.len()), (101, 100));
    assert_eq!((said.affected_credential_count, said.affected_credentials.len()), (101, 100));
    let last = &said.affected_credentials[99];
    assert_eq!(
        (last.company_id.as_str(), last.credential.clone().expect("it").scopes),
        ("c099", harness::owned(&["reports"]))
    );
    // A rename is told as one.
    let path = file(home.path(), "renamed.yaml", &renamed());
    let diff = plain(&command(&format!("catalog diff {path}")).1);
    assert_eq!(diff, "renamed scopes people:read -> members:read, people:write -> members:write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holders_of_a_scope_are_given_what_it_was_split_into() {
    let (data, home) = (dir(), dir());
    let server = Server::start(data.path(), &[]);
    let client = &server.client().await;
    let command = |words: &str| run(&server, home.path(), words);
    applied(client, apply("scopes: { write: , read: }")).await.expect("applied");
    for company in ["acme", "late", "other"] {
        client.create_company(company, None).await;
        for n in 0..9 {
            let scopes: &[&str] = if n < 8 { &["write"] } else { &["read"] };
            client.create_credential(company, &format!("k{n}"), scopes).await;
        }
    }
    applied(client, apply("scopes: { write: , read: , delete: }")).await.expect("applied");
    for company in ["acme", "other"] {
        client.add_scopes(company, &["delete"]).await;
    }
    let grant = "credential grant --scope-holders write delete --output json";
    // Nobody is there to be asked.
    let (code, _, err) = command(grant);
    assert!(
        code == 2 && err.contains("24 credentials of 3 companies") && err.contains("--yes"),
        "{err}"
    );
    let at = changes(client).await.len();
    let counts = |out: &str| {
        let told: Value = serde_json::from_str(out).expect("JSON");
        let count = |of: &str| {
            told[format!("{of}CredentialCount")]
                .as_str()
                .expect("a number")
                .parse::<u64>()
                .expect("a number")
        };
        (count("granted"), count("unchanged"), count("refused"))
    };
    let (code, out, _) = command(&format!("{grant} --dry-run"));
    assert_eq!((code, counts(&out)), (2, (16, 0, 8)));
    assert_eq!(changes(client).await.len(), at, "nothing was changed");
    let (code, out, _) =
        command(&format!("{grant} --company acme --company acme --yes --reason split"));
    assert_eq!((code, counts(&out)), (0, (8, 0, 0)));
    let log = changes(client).await;
    assert!(
        log.len() == at + 8
            && log.iter().skip(at).all(|change| {
                change.kind == "GrantScopes"
                    && change.reason == "split"
                    && change.added_scopes == ["delete"]
            })
    );
    // It goes on where one is refused, and says why; again, it changes nothing of what is done.
    let (code, out, _) = command("credential grant --scope-holders write delete --yes");
    let out = plain(&out);
    assert_eq!(code, 2);
    assert!(out.starts_with("granted 8\nunchanged (already held) 8\nrejected 8\n"), "{out}");
    assert!(
        out.contains("\nlate k0 ") && out.contains("\nlate k7 ") && !out.contains("late k8"),
        "{out}"
    );
    let (code, out, _) = command(&format!("{grant} --yes"));
    assert_eq!((code, counts(&out)), (2, (0, 16, 8)));
    assert_eq!(changes(client).await.len(), at + 16);
    assert_eq!(client.reason("other", "k7", &["delete"]).await, Reason::Allowed);
    assert_eq!(client.reason("other", "k8", &["delete"]).await, Reason::ScopeNotGranted);
    // What no grant can be is told once, and so is who asks for nothing.
    for (words, why) in [
        ("--scope-holders write nothing --yes", "`nothing`"),
        ("--scope-holders wrote delete --yes", "`wrote`"),
        ("--scope-holders write --yes", "name the scopes to grant"),
        (
            "--scope-holders write delete --yes --etag x",
            "--etag and --request-id are for one change",
        ),
        ("acme k0", "SCOPE"),
        ("acme k0 delete --yes", "--scope-holders"),
    ] {
        let (code, _, err) = command(&format!("credential grant {words}"));
        assert!(code == 2 && err.contains(why), "{words}: {err}");
    }
    let (code, out, _) =
        command("credential grant --scope-holders write delete --yes --company nowhere");
    assert!(code == 2 && out.contains("`nowhere`"), "{out}");
    let (code, out, err) = command("credential grant --scope-holders read delete --company late");
    assert!(code == 2 && err.contains("1 credential of 1 company"), "{out}{err}");
    // One of them by hand, as before.
    assert_eq!(command("credential grant acme k8 delete").0, 0);
    let ended = "--scope-holders write read --company other --expires-at 2100-01-01T00:00:00Z --yes --output json";
    let (code, out, _) = command(&format!("credential grant {ended}"));
    assert_eq!((code, counts(&out)), (0, (8, 0, 0)));
    let ended = ended.replace("2100", "2101");
    let (_, out, _) = command(&format!("credential grant {ended}"));
    assert_eq!(counts(&out), (8, 0, 0), "a later end is a change");
    assert_eq!(counts(&command(&format!("credential grant {ended}")).1), (0, 8, 0));
}
