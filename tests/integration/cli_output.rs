//! What the commands show, on real servers: what has ended, dry runs, times, titles, and the audit
//! log from either end.
use std::process::{Command, Stdio};

use crate::harness::{Client, Server, fields, refused, scopegate};
use scopegate::proto::*;
use serde_json::Value;
use tempfile::TempDir;

struct Demo {
    dir: TempDir,
    server: Server,
}

impl Demo {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(&dir.path().join("store"), &["--demo"]);
        Self { dir, server }
    }

    fn asked(&self, mut command: Command) -> (Option<i32>, String) {
        command
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("SCOPEGATE_ENDPOINT", self.server.url());
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }

    fn run(&self, words: &str) -> String {
        let mut command = scopegate();
        command.args(words.split_whitespace());
        let (code, text) = self.asked(command);
        assert_eq!(code, Some(0), "{words}: {text}");
        text
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{words} --output json"))).expect("JSON")
    }

    /// On a terminal of this width.
    fn terminal(&self, width: u16, words: &str) -> String {
        let mut command = Command::new("script");
        let line = format!("stty cols {width}; {} {words}", env!("CARGO_BIN_EXE_scopegate"));
        command.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", "1").env("TERM", "xterm");
        let (code, text) = self.asked(command);
        assert_eq!(code, Some(0), "{words}: {text}");
        text.replace('\r', "")
    }

    fn revisions(&self, words: &str) -> Vec<u64> {
        let found = self.json(&format!("changes list {words}"));
        let changes = found["changes"].as_array().expect("a list").iter();
        let revision = |change: &Value| change["revision"].as_str().and_then(|r| r.parse().ok());
        changes.map(|change| revision(change).expect("a revision")).collect()
    }
}

/// The line that begins with this word.
fn line<'a>(text: &'a str, word: &str) -> &'a str {
    let mut lines = text.lines();
    lines.find(|line| line.split_whitespace().next() == Some(word)).unwrap_or_else(|| {
        panic!("no {word}: {text}");
    })
}

#[test]
fn expired_resources_are_shown_as_expired() {
    let demo = Demo::start();
    let ended = "2026-01-31";
    demo.run(&format!("credential create demo old users:read --expires-at {ended}"));
    demo.run("credential create demo young users:read --expires-at 2999-12-31");
    demo.run(&format!("credential grant demo young groups:read --expires-at {ended}"));
    let list = demo.run("credential list demo");
    let row = line(&list, "old");
    assert!(row.contains(" expired ") && row.contains(" days ago "), "{list}");
    let row = line(&list, "young");
    assert!(row.contains(" enabled ") && !row.contains("ago"), "{list}");
    let old = demo.run("credential get demo old");
    assert!(line(&old, "state").contains("expired"), "{old}");
    assert!(line(&old, "expires").contains("2026-01-31T00:00:00Z ("), "{old}");
    let young = demo.run("credential get demo young");
    let grant = line(&young, "groups:read");
    assert!(grant.contains(" expired ") && grant.contains(" ago)"), "{young}");
    let restrict = demo.run("company restrict demo users:read --dry-run");
    assert!(line(&restrict, "old").contains(" expired "), "{restrict}");
    let expired = |name: &str| {
        demo.json(&format!("credential get demo {name}"))["credential"]["expired"].clone()
    };
    assert_eq!((expired("old"), expired("young")), (true.into(), false.into()));
    demo.run("credential disable demo old --yes");
    assert!(line(&demo.run("credential list demo"), "old").contains(" disabled "));
    // Keys too. From here on each call needs one.
    let made = demo.json("keys create ops --role operator");
    let secret = made["secret"].as_str().expect("a secret");
    let as_ops = |words: &str| {
        let mut command = scopegate();
        command.env("SCOPEGATE_KEY", secret).args(words.split_whitespace());
        let (code, text) = demo.asked(command);
        assert_eq!(code, Some(0), "{words}: {text}");
        text
    };
    as_ops(&format!("keys create gone --role auditor --expires-at {ended}"));
    let keys = as_ops("keys list");
    let row = keys.lines().find(|line| line.contains(" gone ")).expect("the key");
    assert!(row.contains(" expired ") && row.contains(" days ago"), "{keys}");
    let row = keys.lines().find(|line| line.contains(" ops ")).expect("the key");
    assert!(row.contains(" enabled "), "{keys}");
}

#[tokio::test]
async fn last_use_is_never_before_creation() {
    let demo = Demo::start();
    let client = demo.server.client().await;
    client.create_credential("demo", "new", &["users:read"]).await;
    client.check("demo", "new", &["users:read"]).await;
    // Seen by the minute, which began before.
    let credential = client.credential("demo", "new").await.expect("a credential");
    let time = |time: Option<prost_types::Timestamp>| {
        let time = time.expect("a time");
        (time.seconds, time.nanos)
    };
    assert!(time(credential.last_seen_time) >= time(credential.create_time));
    let list = ListCredentialsRequest { company_id: "demo".to_owned(), ..Default::default() };
    let list = client.directory.clone().list_credentials(list).await.expect("a list").into_inner();
    let listed = list.credentials.into_iter().find(|c| c.credential_id == "new").expect("it");
    assert!(time(listed.last_seen_time) >= time(listed.create_time));
    let audit = RestrictCompanyScopesRequest {
        company_id: "demo".to_owned(),
        scopes: vec!["users:read".to_owned()],
        validate_only: true,
        ..Default::default()
    };
    let audit = client.authorization.clone().restrict_company_scopes(audit).await.expect("told");
    let affected = audit.into_inner().affected_credentials;
    let affected = affected.into_iter().find(|c| c.credential_id == "new").expect("it");
    assert!(time(affected.last_seen_time) >= time(credential.create_time));
}

#[test]
fn a_dry_run_and_a_change_of_nothing_have_no_new_revision() {
    let demo = Demo::start();
    demo.run("user put demo u1 admin");
    let head = demo.revisions("--limit 1")[0];
    let would = format!("at revision {head}, nothing was changed; ");
    let next = (head + 1).to_string();
    for words in [
        "company create acme",
        "company update demo --display-name Other",
        "company disable demo",
        "company delete demo",
        "company restrict demo users:write",
        "credential create demo c2 users:read",
        "credential disable demo analytics",
        "credential update demo analytics --label x",
        "credential delete demo analytics",
        "credential revoke demo analytics users:read",
        "credential replace demo analytics groups:read",
        "credential secret create demo analytics",
        "user put demo u2",
        "user delete demo u1",
        "consent put demo analytics u1",
        "keys create ops --role operator",
    ] {
        let said = demo.run(&format!("{words} --dry-run"));
        assert!(said.contains(would.trim_end_matches("; ")), "{words}: {said}");
        let words_said: Vec<_> = said.split_whitespace().collect();
        assert!(!words_said.contains(&next.as_str()), "{words}: {said}");
        assert!(!said.lines().any(|line| line.starts_with("revision")), "{words}: {said}");
    }
    let same = demo.run("company enable demo --dry-run");
    assert!(same.starts_with(&format!("{would}there is nothing to change")), "{same}");
    assert_eq!(demo.revisions("--limit 1"), [head]);
    // The change itself, and once more.
    let lead = "nothing to change: at revision ";
    for words in [
        "company enable demo",
        "credential enable demo analytics",
        "credential grant demo analytics groups:read",
        "credential revoke demo analytics users:write",
        "company add-scopes demo users:read",
        "user put demo u1 admin",
        "consent put demo analytics u1",
    ] {
        demo.run(words);
        let again = demo.run(words);
        assert!(again.starts_with(lead), "{words}: {again}");
    }
    let said = demo.run("credential disable demo analytics --yes");
    assert!(!said.contains("nothing"), "{said}");
}

#[test]
fn changes_are_listed_newest_first_and_fit_a_terminal() {
    let demo = Demo::start();
    let label = "l".repeat(60);
    let long = "0f8fad5b-d9cb-469f-a165-70867728950e";
    demo.run(&format!("credential create demo {long} users:read --label {label}"));
    demo.run("credential grant demo analytics groups:read --reason because --on-behalf-of kim");
    let newest = demo.revisions("");
    assert!(newest.is_sorted_by(|a, b| a > b) && newest.len() > 3, "{newest:?}");
    let mut oldest = demo.revisions("--oldest-first");
    oldest.reverse();
    assert_eq!(newest, oldest);
    let head = newest[0];
    for words in [
        "--kind GrantScopes",
        "--kind grantscopes",
        "--kind GrantScopes,DeleteCompany",
        "--kind DeleteCompany --kind GrantScopes",
        "--actor kim",
        "--company demo --credential analytics --limit 1",
    ] {
        assert_eq!(demo.revisions(words), [head], "{words}");
    }
    assert_eq!(demo.revisions("--since 1h"), newest);
    assert_eq!(demo.revisions("--since 2020-01-31"), newest);
    assert_eq!(demo.revisions("--until 2020-01-31T00:00:00Z"), [0_u64; 0]);
    assert_eq!(demo.revisions(&format!("--after {}", head - 2)), [head, head - 1]);
    let mut wrong = scopegate();
    wrong.args(["changes", "list", "--kind", "GrantScope"]);
    let (code, said) = demo.asked(wrong);
    assert!(code == Some(2) && said.contains("GrantScopes"), "{said}");
    for width in [80, 120] {
        let shown = demo.terminal(width, "changes list");
        let too_long = |line: &&str| line.chars().count() > usize::from(width);
        assert_eq!(shown.lines().find(too_long), None, "{shown}");
        assert!(shown.contains(&format!("demo/{long}")), "an id in one piece: {shown}");
        assert!(shown.contains("reason: because"), "{shown}");
    }
    let piped = demo.run("changes list");
    assert!(piped.contains(&format!("demo/{long}")) && !piped.contains('…'), "{piped}");
}

#[test]
fn scopes_have_titles_and_times() {
    let demo = Demo::start();
    let list = demo.run("scope list");
    assert!(list.starts_with("SCOPE"), "{list}");
    let row = line(&list, "users:read");
    let title = demo.json("scope get users:read")["title"].as_str().expect("a title").to_owned();
    assert!(!title.is_empty() && row.contains(&title), "{list}");
    for words in ["company get demo", "credential get demo analytics", "effective demo analytics"] {
        let shown = demo.run(words);
        assert!(shown.contains("TITLE") && line(&shown, "users:read").contains(&title), "{shown}");
        let narrow = demo.terminal(30, words);
        assert!(!narrow.contains("TITLE"), "{narrow}");
    }
    let since = demo.run("company get demo");
    assert!(line(&since, "users:read").contains("T"), "a time: {since}");
    let got = demo.run("scope get users:read");
    assert!(line(&got, "implied").contains("by") && got.contains("ENDPOINTS"), "{got}");
    let mut wrong = scopegate();
    wrong.args(["scope", "get", "user:read"]);
    let (code, said) = demo.asked(wrong);
    assert!(code == Some(2) && said.contains("did you mean `users:read`"), "{said}");
}

async fn listed(client: &Client, request: ListChangesRequest) -> Vec<u64> {
    let (mut request, mut found) = (request, Vec::new());
    loop {
        let page = client.changes.clone().list_changes(request.clone()).await.expect("a page");
        let page = page.into_inner();
        found.extend(page.changes.iter().map(|change| change.revision));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn a_list_goes_back_as_it_goes_forward_and_shows_nobody_more() {
    let demo = Demo::start();
    let client = demo.server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "before", &["users:read"]).await;
    let delete =
        DeleteCompanyRequest { company_id: "acme".to_owned(), ..DeleteCompanyRequest::default() };
    client.directory.clone().delete_company(delete).await.expect("deleted");
    let present = client.create_company("acme", None).await.revision;
    let fresh = client.create_credential("acme", "fresh", &["users:read"]).await.revision;
    let back = |company: Option<&str>, page_size| ListChangesRequest {
        company_id: company.map(str::to_owned),
        page_size,
        newest_first: true,
        ..ListChangesRequest::default()
    };
    for company in [None, Some("demo"), Some("acme")] {
        let forward = ListChangesRequest { newest_first: false, ..back(company, 1) };
        let mut all = listed(&client, forward).await;
        all.reverse();
        for size in [1, 2, 1_000] {
            assert_eq!(listed(&client, back(company, size)).await, all, "{company:?} by {size}");
        }
    }
    // A token is of one list.
    let page = client.changes.clone().list_changes(back(None, 1)).await.expect("a page");
    let token = page.into_inner().next_page_token;
    for other in [
        ListChangesRequest { newest_first: false, ..back(None, 1) },
        ListChangesRequest { actor: "kim".to_owned(), ..back(None, 1) },
        ListChangesRequest { kinds: vec!["GrantScopes".to_owned()], ..back(None, 1) },
        ListChangesRequest { start_time: Some(Default::default()), ..back(None, 1) },
        ListChangesRequest { end_time: Some(Default::default()), ..back(None, 1) },
        back(Some("demo"), 1),
    ] {
        let other = ListChangesRequest { page_token: token.clone(), ..other };
        let (_, details) = refused(client.changes.clone().list_changes(other).await);
        assert_eq!(fields(&details), ["page_token"]);
    }
    for (wrong, field) in [
        (ListChangesRequest { kinds: vec!["Grant".to_owned()], ..back(None, 1) }, "kinds[0]"),
        (ListChangesRequest { credential_id: "c".to_owned(), ..back(None, 1) }, "credential_id"),
        (ListChangesRequest { actor: "a\nb".to_owned(), ..back(None, 1) }, "actor"),
    ] {
        let (_, details) = refused(client.changes.clone().list_changes(wrong).await);
        assert_eq!(fields(&details), [field]);
    }
    // Who is bound to the company sees the present one only, from whichever end.
    let key = |name: &str, roles: Vec<i32>, companies: &[&str]| CreateKeyRequest {
        name: name.to_owned(),
        roles,
        company_ids: companies.iter().map(ToString::to_string).collect(),
        ..CreateKeyRequest::default()
    };
    let ops = key("ops", vec![Role::Operator.into()], &[]);
    let ops = client.keys.clone().create_key(ops).await.expect("made").into_inner().secret;
    let ops = Client::connect_as(&demo.server.url(), Some(&ops)).await;
    let admin = key("admin", vec![Role::CompanyAdmin.into()], &["acme"]);
    let admin = ops.keys.clone().create_key(admin).await.expect("made").into_inner().secret;
    let admin = Client::connect_as(&demo.server.url(), Some(&admin)).await;
    for size in [1, 1_000] {
        assert_eq!(listed(&admin, back(Some("acme"), size)).await, [fresh, present]);
        let kind = ListChangesRequest {
            kinds: vec!["CreateCredential".to_owned(), "DeleteCompany".to_owned()],
            ..back(Some("acme"), size)
        };
        assert_eq!(listed(&admin, kind).await, [fresh]);
    }
    refused(admin.changes.clone().list_changes(back(None, 1)).await);
    refused(admin.changes.clone().list_changes(back(Some("demo"), 1)).await);
}

#[tokio::test]
async fn one_call_looks_at_so_many_changes_and_the_list_goes_on() {
    let demo = Demo::start();
    let client = demo.server.client().await;
    // By one commit each, in few calls.
    let credential = |n: u32| ImportedCredential {
        company_id: "demo".to_owned(),
        credential_id: format!("c{n}"),
        ..ImportedCredential::default()
    };
    let messages: Vec<_> = (0..11)
        .map(|part| ImportCredentialsRequest {
            credentials: (part * 1_000..(part + 1) * 1_000).map(credential).collect(),
            ..ImportCredentialsRequest::default()
        })
        .collect();
    let import = client.directory.clone().import_credentials(tokio_stream::iter(messages)).await;
    import.expect("imported");
    for newest_first in [true, false] {
        let kinds = match newest_first {
            true => vec!["ApplyCatalog".to_owned()],
            false => vec!["DeleteCompany".to_owned()],
        };
        let mut request = ListChangesRequest { newest_first, kinds, ..Default::default() };
        let page = client.changes.clone().list_changes(request.clone()).await.expect("a page");
        let page = page.into_inner();
        let found = page.changes.len();
        assert!(found == 0 && !page.next_page_token.is_empty(), "{found} changes");
        request.page_token = page.next_page_token;
        let rest = listed(&client, request).await;
        assert_eq!(rest, if newest_first { vec![1] } else { vec![] });
    }
}

/// A demo with what makes tables wide: long names and ids, many scopes, roles.
fn crowded() -> Demo {
    let demo = Demo::start();
    let scopes: Vec<_> = (0..40).map(|n| format!("library:section-{n:02}:manage")).collect();
    let wide = |n: usize| if n == 1 { "A title of a scope that is longer than others" } else { "" };
    let lines = scopes.iter().enumerate();
    let lines = lines.map(|(n, scope)| format!("  \"{scope}\": {{ title: \"{}\" }}\n", wide(n)));
    let lines = lines.collect::<String>();
    let roles = scopes.iter().take(12).enumerate();
    let roles =
        roles.map(|(n, scope)| format!("  role-{n}: {{ scopes: {{ \"{scope}\": all }} }}\n"));
    let catalog = demo.run("catalog get");
    let catalog = catalog.replace("\nendpoints:", &format!("{lines}\nendpoints:"));
    let catalog = format!("{catalog}\nroles:\n{}", roles.collect::<String>());
    let file = demo.dir.path().join("wide.yaml");
    std::fs::write(&file, catalog).expect("written");
    demo.run(&format!("catalog apply {} --yes", file.display()));
    demo.run(&format!("company add-scopes demo {}", scopes.join(" ")));
    let line = |company: &str, credential: Option<&str>, label: &str, scopes: &[String]| {
        let mut line = serde_json::json!({ "company_id": company });
        match credential {
            Some(id) => {
                line["credential_id"] = id.into();
                line["label"] = label.into();
                line["scopes"] = scopes.into();
            }
            None => line["display_name"] = label.into(),
        }
        format!("{line}\n")
    };
    let long = "c".repeat(128);
    let words = "a label of many words ".repeat(6);
    let lines = [
        line("acme", None, "", &[]),
        line(&"d".repeat(128), None, words.trim(), &[]),
        line("other", None, words.trim(), &[]),
        line("demo", Some(UUID), "nightly export of the users", &scopes[..3]),
        line("demo", Some(&long), "l", &scopes),
        line("demo", Some("short"), &"m".repeat(90), &scopes[..20]),
        line("demo", Some("plain"), words.trim(), &[]),
    ];
    std::fs::write(demo.dir.path().join("import.jsonl"), lines.concat()).expect("written");
    demo.run(&format!("import {}", demo.dir.path().join("import.jsonl").display()));
    let other = lines.concat().replace("label\":\"", "label\":\"x");
    std::fs::write(demo.dir.path().join("other.jsonl"), other).expect("written");
    let asks = serde_json::json!({ "company_id": "demo", "credential_id": UUID, "scopes": scopes, "expect": "denied" });
    std::fs::write(demo.dir.path().join("asks.jsonl"), asks.to_string()).expect("written");
    let roles: String = (0..12).map(|n| format!(" role-{n}")).collect();
    demo.run(&format!("user put demo auth0|{} {roles}", "u".repeat(90)));
    demo.run(&format!("user put demo ada {roles}"));
    demo.run("user put demo nobody");
    demo.run(&format!("consent put demo {long} ada {}", scopes[..12].join(" ")));
    demo
}

const UUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

#[test]
fn a_terminal_shows_whole_words_and_a_pipe_whole_rows() {
    let demo = crowded();
    let path = |name: &str| demo.dir.path().join(name).display().to_string();
    let long = "c".repeat(128);
    let of_all: String = (0..40).map(|n| format!(" library:section-{n:02}:manage")).collect();
    let before = path("before.yaml");
    std::fs::write(&before, std::fs::read_to_string("catalogs/360learning.yaml").expect("read"))
        .expect("written");
    for words in [
        "company list".to_owned(),
        "company list --scope users:read".to_owned(),
        "company get demo".to_owned(),
        format!("company get {}", "d".repeat(128)),
        "company restrict demo library:section-01:manage library:section-02:manage --dry-run"
            .to_owned(),
        "credential list demo".to_owned(),
        format!("credential get demo {long}"),
        format!("effective demo {UUID}"),
        format!("explain demo {UUID} {of_all}"),
        format!("explain demo {UUID} {of_all} --at-revision 14"),
        "user list demo".to_owned(),
        "user get demo ada".to_owned(),
        format!("consent get demo {long} ada"),
        "scope list".to_owned(),
        "scope get library:section-01:manage".to_owned(),
        format!("catalog diff {before}"),
        format!("import {} --dry-run", path("other.jsonl")),
        format!("batch {}", path("asks.jsonl")),
        "changes list".to_owned(),
    ] {
        let piped = demo.run(&words);
        assert!(!piped.contains('…') && !piped.contains(" more"), "{words}: {piped}");
        let is_between = |c: char| c.is_whitespace() || "[],\"".contains(c);
        let known: Vec<_> = piped.split(is_between).chain(piped.split_whitespace()).collect();
        for width in [80, 120] {
            let shown = demo.terminal(width, &words);
            // A progress bar is gone before the answer.
            let shown = shown.rsplit("\u{1b}[2K").next().unwrap_or_default();
            for line in shown.lines() {
                let fits = line.chars().count() <= usize::from(width);
                assert!(
                    fits || line.split_whitespace().any(|word| word.len() >= 90),
                    "{words}: {line}\n{shown}"
                );
                // No word is a part of another.
                for word in line.split_whitespace() {
                    let part = known
                        .iter()
                        .any(|known| known.len() > word.len() && known.starts_with(word));
                    let is_known = known.contains(&word);
                    assert!(is_known || !part, "{words}: `{word}` of {line}\n{shown}");
                }
            }
        }
    }
    // Many scopes are cut where another command has them, and not where somebody decides by them.
    let list = demo.terminal(80, "credential list demo");
    assert!(list.contains(" more\n") && !list.contains("section-39"), "{list}");
    assert_eq!(list.lines().filter(|line| line.trim() == long).count(), 1, "{list}");
    let restrict = demo.terminal(80, &format!("company restrict demo {of_all} --dry-run"));
    assert_eq!(restrict.matches("section-39").count(), 2, "{restrict}");
    // A terminal of no width is one that does not know.
    assert_eq!(demo.terminal(0, "company list"), demo.run("company list"));
    let changes = demo.terminal(80, "changes list --kind PutUser");
    assert!(changes.contains("roles: none\n") && !changes.contains("[\""), "{changes}");
    // On a pipe a row is a line.
    let list = demo.run("credential list demo");
    assert_eq!(list.lines().count(), 1 + 6, "{list}");
    assert!(line(&list, &long).contains("section-39"), "{list}");
}

#[test]
fn an_explanation_and_a_report_of_impact_have_titles() {
    let demo = Demo::start();
    let title = demo.json("scope get users:write")["title"].as_str().expect("a title").to_owned();
    for words in [
        "explain demo analytics users:write",
        "explain demo analytics users:write --at-revision 4",
        "company restrict demo users:write --dry-run",
    ] {
        for shown in [demo.run(words), demo.terminal(80, words)] {
            let named = line(&shown, "users:write");
            assert!(shown.contains("TITLE") && named.contains(&title), "{words}: {shown}");
        }
        assert!(!demo.run(&format!("{words} --output json")).contains(&title), "{words}");
    }
}

#[test]
fn a_key_that_was_not_made_has_no_id() {
    let demo = Demo::start();
    let dry = demo.run("keys create ops --role operator --dry-run");
    for absent in ["key ", "etag", "secret", "revision "] {
        let has = dry.lines().any(|line| line.starts_with(absent));
        assert!(!has, "{absent}: {dry}");
    }
    assert!(line(&dry, "name").contains("ops"), "{dry}");
    let made = demo.json("keys create ops --role operator");
    let list = |mut command: Command, words: &str| {
        command.env("SCOPEGATE_KEY", made["secret"].as_str().expect("a secret"));
        command.args(words.split_whitespace());
        demo.asked(command).1
    };
    list(scopegate(), "keys create admin --role company-admin --company demo");
    let keys = list(scopegate(), "keys list");
    let row = keys.lines().find(|line| line.contains(" admin ")).expect("the key");
    assert!(row.contains(" demo ") && row.ends_with(" never"), "{keys}");
    let row = keys.lines().find(|line| line.contains(" ops ")).expect("the key");
    assert!(row.contains(" all "), "{keys}");
    // What would be made is not there yet.
    for words in ["company create acme --dry-run", "credential create demo c --dry-run"] {
        let dry = list(scopegate(), words);
        assert!(dry.contains("would leave:") && !dry.contains("created"), "{dry}");
    }
}
