//! The operator's command line, on a real server: what it prints, and how it ends.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::harness::{Server, catalog, scopegate, terminal};
use clap::CommandFactory;
use scopegate::cli::command::Cli;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Somebody with a shell, and a config file of their own.
struct Operator {
    home: TempDir,
    url: Option<String>,
}

/// How a command ended and what it said.
struct MarkState {
    code: i32,
    out: String,
    err: String,
}

impl MarkState {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// What it printed, once it ended well.
    fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it complained of, once it ended as it should.
    fn bad(self) -> String {
        assert_eq!(self.code, 2, "{}{}", self.out, self.err);
        self.err
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.good()).expect("JSON")
    }
}

impl Operator {
    fn nowhere() -> Self {
        Self { home: tempfile::tempdir().expect("a directory"), url: None }
    }

    fn of(server: &Server) -> Self {
        Self { url: Some(server.url()), ..Self::nowhere() }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = scopegate();
        command.env("XDG_CONFIG_HOME", self.home.path()).args(words.split_whitespace());
        if let Some(url) = &self.url {
            command.env("SCOPEGATE_ENDPOINT", url);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &str) -> MarkState {
        MarkState::of(self.command(words).output().expect("it runs"))
    }

    /// Runs it with this on standard input.
    fn tell(&self, words: &str, input: &str) -> MarkState {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let written = child.stdin.take().expect("an input").write_all(input.as_bytes());
        written.expect("it reads");
        MarkState::of(child.wait_with_output().expect("it ends"))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).expect("written");
        // A key may be in it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path.to_str().expect("a path").to_owned()
    }
}

/// The 360Learning document's example.
fn demo() -> (TempDir, Server, Operator) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--demo"]);
    let operator = Operator::of(&server);
    (dir, server, operator)
}

/// Text without what no test can foretell: times, etags, and the spaces that line them up.
fn plain(text: &str) -> String {
    fn shown(word: &str) -> &str {
        let dated = word.len() == 20 && word.ends_with('Z') && word.starts_with("20");
        let etag = word.len() == 32 && word.chars().all(|c| c.is_ascii_hexdigit());
        match word {
            _ if dated => "TIME",
            _ if etag => "ETAG",
            word => word,
        }
    }
    let line = |line: &str| line.split_whitespace().map(shown).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn companies() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    assert_eq!(
        plain(&run("company create acme users:read groups:read --display-name Acme").good()),
        "company acme\nname Acme\nstate enabled\ncreated TIME\nupdated TIME\netag ETAG\n\
         revision 5\n\nSCOPE SINCE TITLE\ngroups:read TIME Retrieve groups\n\
         users:read TIME Retrieve users"
    );
    assert_eq!(
        plain(&run("company list").good()),
        "COMPANY NAME STATE SCOPES UPDATED\nacme Acme enabled 2 TIME\n\
         demo Demo company enabled 3 TIME"
    );
    assert_eq!(
        run("company list --limit 1").good().lines().last(),
        Some("there are more: raise --limit")
    );
    let all = run("company list --output json").json();
    assert_eq!(all["companies"][0]["companyId"], "acme");
    assert_eq!(
        all["companies"][0]["scopes"][0],
        json!({"scope": "groups:read", "addedAtRevision": "5"})
    );
    assert_eq!(all["nextPageToken"], "");
    assert_eq!(
        run("company create none --no-scopes --output json").json()["company"]["scopes"],
        json!([])
    );
    assert_eq!(
        run("company create all --output json").json()["company"]["scopes"]
            .as_array()
            .map(Vec::len),
        Some(12)
    );
    assert!(run("company update acme --display-name Apex").good().contains("Apex"));
    assert!(run("company disable acme --yes").good().contains("disabled"));
    assert_eq!(run("check acme x users:read").code, 1);
    assert!(run("company enable acme").good().contains("enabled"));
    let would = run("company delete acme --dry-run").good();
    assert!(would.contains(", nothing was changed; would delete:\n"), "{would}");
    let added = run("company add-scopes acme users:write").good();
    assert!(
        added.contains("\nadded  users:write\nundo  scopegate company restrict acme"),
        "{added}"
    );
    assert!(run("company delete acme --yes").good().starts_with("deleted:\n"));
    assert_eq!(run("company get acme").bad(), "scopegate: there is no company `acme`\n");
    assert!(run("company create a/b").bad().contains("`COMPANY` has the character '/'"));
    // Wrong words are told as they always were.
    assert!(run("company update acme").bad().contains("--display-name <NAME>"));
    assert!(
        run("company create acme users:read --no-scopes").bad().contains("cannot be used with")
    );
}

#[test]
fn credentials_and_their_scopes() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    assert_eq!(
        plain(&run("credential create demo nightly users:read --label Nightly --expires-at 2030-01-31T12:00:00Z").good()),
        "company demo\ncredential nightly\nlabel Nightly\nstate enabled\nexpires TIME\n\
         created TIME\nupdated TIME\netag ETAG\nrevision 5\n\nSCOPE GRANT SINCE EXPIRES TITLE\n\
         users:read active TIME - Retrieve users"
    );
    let granted =
        run("credential grant demo nightly users:write groups:read --expires-at 90d").good();
    assert!(granted.contains("\nadded  groups:read users:write\nundo  "), "{granted}");
    let dry = run("credential revoke demo nightly users:read --dry-run").good();
    assert!(dry.contains(", nothing was changed; the change would leave:\n"), "{dry}");
    assert!(dry.ends_with("\nremoved  users:read\n"), "{dry}");
    let got = run("credential get demo nightly --output json").json();
    assert_eq!(
        got["credential"]["effectiveScopes"],
        json!(["groups:read", "users:read", "users:write"])
    );
    assert_eq!(got["credential"]["grants"][0]["state"], "GRANT_STATE_ACTIVE");
    assert_eq!(got["credential"]["expiresAt"], "2030-01-31T12:00:00Z");
    // Ninety days from now, by the clock of whoever asks.
    let ends: jiff::Timestamp = got["credential"]["grants"][0]["expiresAt"]
        .as_str()
        .expect("an end")
        .parse()
        .expect("RFC 3339");
    let days = ends.duration_since(jiff::Timestamp::now()).as_hours() as f64 / 24.0;
    assert!((89.0..=90.0).contains(&days), "{days}");

    let stale = run("credential revoke demo nightly users:read --etag 0123").bad();
    assert!(stale.contains("etag"), "{stale}");
    assert!(
        run("credential revoke demo nightly users:read --reason audit --on-behalf-of ada")
            .good()
            .contains("removed")
    );
    let who = run("changes list --oldest-first --output json").json();
    let last = who["changes"].as_array().and_then(|all| all.last()).expect("a change");
    assert_eq!((&last["reason"], &last["onBehalfOf"]), (&json!("audit"), &json!("ada")));

    // Sent again, a change with a request id is made once.
    let again = "credential replace demo nightly users:read --yes --request-id 0b4c2a9e-6f1d-4d7b-9a53-2f5d8c1e7a60 --output json";
    assert_eq!(run(again).json()["revision"], run(again).json()["revision"]);
    assert!(run("credential replace demo nightly").bad().contains("<SCOPE>..."));
    assert!(
        plain(&run("credential replace demo nightly --allow-empty --yes").good())
            .contains("removed users:read")
    );
    assert!(
        run("credential reset demo nightly --yes")
            .good()
            .contains("added  groups:read users:read users:write")
    );
    assert!(run("credential disable demo nightly --yes").good().contains("disabled"));
    assert!(run("credential enable demo nightly").good().contains("enabled"));
    assert!(
        !run("credential update demo nightly --label N --never-expires")
            .good()
            .contains("\nexpires")
    );
    assert!(run("credential update demo nightly").bad().contains("--never-expires"));
    let twice = run("credential update demo nightly --expires-at tomorrow").bad();
    assert!(twice.contains("`tomorrow` is neither a time such as"), "{twice}");

    assert_eq!(
        plain(&run("credential list demo --scope users:write").good()),
        "CREDENTIAL LABEL STATE EXPIRES LAST SEEN SCOPES\n\
         hr-sync HR sync enabled - never groups:read users:read users:write\n\
         nightly N enabled - never groups:read users:read users:write"
    );
    let above = run("credential grant demo nightly users:bulk paths:read").bad();
    assert!(
        above.contains("\n  paths:read: not in the company's ceiling: ask the operator"),
        "{above}"
    );
    assert!(run("credential delete demo nightly --yes").good().starts_with("deleted:\n"));
}

#[test]
fn secrets_come_from_standard_input() {
    let (_dir, _server, operator) = demo();
    let made = operator.run("credential secret create demo hr-sync --output json").json();
    let secret = made["secret"].as_str().expect("a secret");
    let right = operator.tell("credential secret verify demo", &format!("{secret}\n"));
    assert_eq!(
        plain(&right.good()),
        format!(
            "verified yes\ncompany demo\ncredential hr-sync\nsecret id {}",
            made["secretId"].as_str().expect("an id")
        )
    );
    let wrong = operator.tell("credential secret verify demo hr-sync", "nonsense\n");
    assert_eq!(
        (wrong.code, plain(&wrong.out)),
        (2, "verified no\nreason CREDENTIAL_UNKNOWN".to_owned())
    );
    assert!(
        operator
            .run("credential secret verify demo")
            .bad()
            .contains("no secret came on standard input")
    );
    let id = made["secretId"].as_str().expect("an id");
    assert!(
        !operator
            .run(&format!("credential secret delete demo hr-sync {id} --yes"))
            .good()
            .contains(id)
    );
}

#[test]
fn users_and_consents() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "horizonwebref.yaml");
    let operator = Operator::of(&server);
    let run = |words: &str| operator.run(words);
    run("company create acme").good();
    run("credential create acme app read_personal_account manage_organization read_organization")
        .good();
    assert_eq!(
        plain(&run("user put acme ada general_member").good()),
        "company acme\nuser ada\nroles general_member\netag ETAG\nrevision 4"
    );
    assert_eq!(plain(&run("user list acme").good()), "USER ROLES\nada general_member");
    assert_eq!(
        run("user get acme ada --output json").json()["user"]["roles"],
        json!(["general_member"])
    );
    // The user cannot provide what they may not do.
    let given =
        plain(&run("consent put acme app ada read_personal_account manage_organization").good());
    assert!(given.contains("\nscopes read_personal_account\n"), "{given}");
    assert!(given.ends_with("\nnot given manage_organization"), "{given}");
    assert_eq!(
        run("consent get acme app ada --output json").json()["consent"]["scopes"],
        json!(["read_personal_account"])
    );
    let token = "--token-scope read_personal_account --token-user ada --token-audience developer";
    assert_eq!(run(&format!("check acme app read_personal_account --user ada {token}")).code, 0);
    let effective = run(&format!("effective acme app --user ada {token}")).good();
    assert!(effective.contains("read_personal_account"), "{effective}");
    let other = run(&format!("check acme app read_personal_account --user bob {token}"));
    assert!(other.out.contains("TOKEN_INVALID"), "{}", other.out);
    run("consent delete acme app ada --yes").good();
    assert_eq!(run("check acme app read_personal_account --user ada").code, 1);
    run("user delete acme ada --yes").good();
    assert_eq!(run("user get acme ada").code, 2);
}

#[test]
fn authorization_codes_and_redirect_uris() {
    let dir = tempfile::tempdir().expect("a directory");
    let horizon = catalog("horizonwebref.yaml");
    let issuer = ["--oauth", "127.0.0.1:0", "--issuer", "https://id.example.org"];
    let args = [&["--catalog", horizon.to_str().expect("a path")][..], &issuer].concat();
    let server = Server::start(dir.path(), &args);
    let operator = Operator::of(&server);
    let run = |words: &str| operator.run(words);
    run("company create acme").good();
    run("user put acme ada general_member").good();
    let create = "credential create acme app read_personal_account";
    for uri in ["http://app.example.org/", "https://app.example.org/#top", "app:/callback", "/"] {
        let wrong = run(&format!("{create} --redirect-uri {uri}")).bad();
        assert!(wrong.contains("--redirect-uri"), "{wrong}");
    }
    let app = "https://app.example.org/callback";
    let uris = format!("--redirect-uri {app} --redirect-uri http://127.0.0.1/cb");
    let created = plain(&run(&format!("{create} {uris}")).good());
    assert!(created.contains(&format!("\nredirect uris {app} http://127.0.0.1/cb\n")), "{created}");
    let read = || run("credential get acme app --output json").json()["credential"].clone();
    assert_eq!(read()["redirectUris"], json!([app, "http://127.0.0.1/cb"]));
    // An update of something else keeps them, and one of them replaces all.
    run("credential update acme app --label App").good();
    assert_eq!(read()["redirectUris"].as_array().map(Vec::len), Some(2));
    run(&format!("credential update acme app --redirect-uri {app} --yes")).good();
    assert_eq!((&read()["redirectUris"], &read()["label"]), (&json!([app]), &json!("App")));
    let both = run("credential update acme app --redirect-uri x --no-redirect-uris").bad();
    assert!(both.contains("cannot be used with"), "{both}");

    // RFC 7636 appendix B.
    let challenge = "--code-challenge E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let code = |scopes: &str, more: &str| {
        let page = format!("authorization-code create acme app ada {scopes} {challenge}");
        run(&format!("{page} --redirect-uri {app} {more}"))
    };
    let dry = code("read_personal_account", "--dry-run").good();
    assert!(dry.contains(", nothing was changed; the change would put the consent"), "{dry}");
    assert!(!dry.contains("sgc_"), "{dry}");
    let asked = "read_personal_account manage_organization";
    let made = plain(&code(asked, "--state -s1").good());
    assert!(made.starts_with("scopes read_personal_account\nnot given manage_organization\n"));
    let word = |name: &str| {
        let line = made.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{made}")).trim().to_owned()
    };
    let redirect =
        format!("{app}?code={}&state=-s1&iss=https%3A%2F%2Fid.example.org", word("code "));
    assert_eq!(word("redirect to "), redirect);
    assert!(made.contains("the code is shown once"), "{made}");
    assert_eq!(
        run("consent get acme app ada --output json").json()["consent"]["scopes"],
        json!(["read_personal_account"])
    );
    // Sent again, it shows no code.
    let id = "--request-id 0b4c2a9e-6f1d-4d7b-9a53-2f5d8c1e7a60";
    assert!(code("read_personal_account", id).good().contains("sgc_"));
    let again = code("read_personal_account", id).good();
    assert!(!again.contains("sgc_") && again.contains("with the first response"), "{again}");
    // The user refuses.
    let refused = code("", "").good();
    assert!(refused.contains("error=access_denied") && !refused.contains("sgc_"), "{refused}");
    assert!(refused.contains("the user gives no scope"), "{refused}");

    let other = format!("authorization-code create acme app ada read_personal_account {challenge}");
    let unknown = run(&format!("{other} --redirect-uri https://other.example.org/")).bad();
    assert!(unknown.contains("--redirect-uri"), "{unknown}");
    let nobody = code("nosuch", "").bad();
    assert!(nobody.contains("`nosuch`"), "{nobody}");
    let missing =
        run(&format!("authorization-code create acme app ada --redirect-uri {app}")).bad();
    assert!(missing.contains("--code-challenge <CHALLENGE>"), "{missing}");
    let history = run("changes list --kind CreateAuthorizationCode").good();
    assert!(history.contains(app) && !history.contains("sgc_"), "{history}");
}

#[test]
fn decisions() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    let allowed = run("check demo analytics --method GET --path /api/v2/users/7");
    assert_eq!(
        (allowed.code, plain(&allowed.out)),
        (0, "decision ALLOWED\nreach ALL\nrevision 4".to_owned())
    );
    let denied = run(
        "check demo analytics --endpoint-method PATCH --endpoint-path /api/v2/users/7 --output json",
    );
    assert_eq!(denied.code, 1);
    let answer: Value = serde_json::from_str(&denied.out).expect("JSON");
    assert_eq!(answer["reason"], "REASON_SCOPE_NOT_GRANTED");
    assert_eq!(answer["reach"], "REACH_UNSPECIFIED", "what is absent is there for a script");
    assert_eq!(
        run("check demo analytics users:read --token").code,
        1,
        "a token without scopes allows nothing"
    );
    assert_eq!(run("check demo analytics users:read --token-scope users:read").code, 0);
    assert!(run("check demo analytics").bad().contains("<SCOPE>"));
    assert!(
        run("check demo analytics users:read --path /x --method GET")
            .bad()
            .contains("cannot be used with")
    );
    assert!(
        run("check demo analytics users:read --at-least-revision 99").bad().contains("revision")
    );
    let explained = run("explain demo analytics users:write").good();
    assert!(
        explained.contains("\nSCOPE        LAYER       VERDICT            DETAIL\n"),
        "{explained}"
    );
    assert!(
        explained
            .contains("\nusers:write  credential  SCOPE_NOT_GRANTED  The API credential lacks"),
        "{explained}"
    );
    let layers =
        &run("explain demo analytics users:write --output json").json()["scopes"][0]["layers"];
    assert_eq!(layers[1]["layer"], "LAYER_CREDENTIAL");
    assert_eq!(layers[1]["passed"], false);
    assert_eq!(
        run("effective demo analytics").good(),
        "SCOPE       REACH  TITLE\nusers:read  ALL    Retrieve users\n"
    );
    let nothing = run("effective demo nobody");
    assert!(nothing.out.contains("no scope is allowed"), "{}", nothing.out);
    assert!(nothing.err.contains("no credential `nobody`"), "{}", nothing.err);
}

#[test]
fn a_file_of_checks() {
    let (_dir, _server, operator) = demo();
    let batch = |input: &str, words: &str| operator.tell(&format!("batch - {words}"), input);
    // As JSON lines, more than are asked for at once.
    let allowed =
        r#"{"company_id": "demo", "credential_id": "hr-sync", "scopes": ["users:write"]}"#;
    let denied = r#"{"company_id": "demo", "credential_id": "analytics", "endpoint": {"method": "PATCH", "path": "/api/v2/users/7"}, "expect": "denied"}"#;
    let many = format!("{}\n{denied}\n", [allowed; 249].join("\n"));
    let said = batch(&many, "");
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!((lines.len(), lines[0]), (250, "1 ALLOWED demo hr-sync users:write"));
    assert_eq!(
        lines[249],
        "250 DENIED demo analytics PATCH /api/v2/users/7 SCOPE_NOT_GRANTED -users:write"
    );
    assert_eq!(said.err, "250 checks: 249 allowed, 1 denied; 0 not as expected\n");
    // As CSV, for programs; where nothing is expected, it is that a check is allowed.
    let csv = "company_id,credential_id,method,path,expect\n\
               demo,analytics,GET,/api/v2/users/7,allowed\n\
               demo,analytics,PATCH,\"/api/v2/users/7\",\n";
    let said = batch(csv, "--mismatches-only --output json");
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    let only: Value = serde_json::from_str(&said.out).expect("one line");
    assert_eq!(only["reason"], "REASON_SCOPE_NOT_GRANTED");
    // What is wrong is told by its line, and what stands before it is asked.
    for (input, error) in [
        (
            format!("{allowed}\n\n{{\"company\": 1}}\n"),
            "line 3: column 10: unknown field `company`",
        ),
        (format!("{allowed}\n{}\n", allowed.replace("users:write", "a b")), "line 2: `scopes"),
        ("company_id,who\n".to_owned(), "line 1: `who` is neither a JSON object nor a column"),
        ("company_id\n".to_owned(), "line 1: the column `credential_id` is missing"),
        ("company_id,credential_id\ndemo\n".to_owned(), "line 2: has 1 cells"),
        ("company_id,credential_id,expect\na,b,maybe\n".to_owned(), "line 2: `maybe` is neither"),
    ] {
        let said = batch(&input, "").bad();
        assert!(said.contains(error), "{said}");
    }
    assert!(batch("", "").bad().contains("the file has no check"));
}

/// Two columns of the changes under a heading: the revision, and the answer from then on.
fn history(said: &str, heading: &str) -> Vec<String> {
    let part = said.split(&format!("\n{heading}\n")).nth(1).expect("the heading");
    let rows = part.lines().skip(2).take_while(|line| !line.is_empty());
    let columns = |row: &str| {
        let all: Vec<_> = row.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
        format!("{} {}", all[0], all[all.len() - 1])
    };
    rows.map(columns).collect()
}

#[test]
fn past_denials_are_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    let log = log.to_str().expect("a path");
    let server = Server::start(&dir.path().join("data"), &["--demo", "--decision-log", log]);
    let operator = Operator::of(&server);
    let run = |words: &str| operator.run(words);
    let past = |words: &str| run(&format!("explain demo hr-sync {words}"));

    assert_eq!(run("check demo hr-sync users:write").code, 0);
    run("company restrict demo users:write --yes --affected 1 --reason cleanup").good();
    assert_eq!(run("check demo hr-sync --method PATCH --path /api/v2/users/7").code, 1);
    run("company add-scopes demo users:write").good();
    run("credential grant demo hr-sync users:write --reason ticket-12 --on-behalf-of alice").good();
    assert_eq!(run("check demo hr-sync users:write").code, 0);

    // Nobody need know what the call needed: the last denial in the log says it.
    while !fs::read_to_string(log).expect("a log").contains("DENIED") {}
    let said = past(&format!("--decision-log {log}")).good();
    let flat = plain(&said);
    assert!(flat.contains("\nneeded PATCH /api/v2/users/7\n"), "{said}");
    assert!(flat.contains("\nlogged DENIED SCOPE_NOT_IN_COMPANY\ndecision DENIED\n"), "{said}");
    assert!(flat.contains("\nusers:write company SCOPE_NOT_IN_COMPANY "), "{said}");
    assert_eq!(
        history(&said, "changes before"),
        [
            "1 DENIED COMPANY_UNKNOWN",
            "2 DENIED CREDENTIAL_UNKNOWN",
            "4 ALLOWED",
            "5 DENIED SCOPE_NOT_IN_COMPANY"
        ]
    );
    assert_eq!(history(&said, "changes after"), ["6 DENIED GRANT_DORMANT", "7 ALLOWED"]);
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("now ALLOWED, since revision 7 of 20"), "{last}");
    assert!(last.ends_with("Z: GrantScopes by anonymous for alice (ticket-12)"), "{last}");

    // A line of another version, and one that was cut.
    let more =
        fs::read_to_string(log).expect("a log").replace("{\"time\"", "{\"new\":[1],\"time\"");
    let more = operator.file("more.jsonl", &format!("{more}{{\"time\": \"20"));
    assert!(past(&format!("--decision-log {more}")).good().contains("logged    DENIED"));
    let nothing = past(&format!("--decision-log {log} --at 2020-01-31T14:03Z")).bad();
    assert!(
        nothing.contains("a sample of allowed decisions; the nearest denial is of 20"),
        "{nothing}"
    );

    // Asked for a minute in which it was allowed, one is told when it was not.
    let lines = fs::read_to_string(log).expect("a log");
    let line = lines.lines().find(|line| line.contains("DENIED")).expect("a denial");
    let mut allowed: serde_json::Value = serde_json::from_str(line).expect("JSON");
    for (key, value) in
        [("time", "2020-01-31T14:03:05Z"), ("decision", "ALLOWED"), ("reason", "ALLOWED")]
    {
        allowed[key] = value.into();
    }
    let both = operator.file("both.jsonl", &format!("{line}\n{allowed}\n"));
    let said = past(&format!("--decision-log {both} --at 2020-01-31T14:03Z")).good();
    let hint = "no decision of that time was a denial; the nearest denial is of 20";
    assert!(plain(&said).contains(hint), "{said}");

    // Only the last changes before it are shown, and the number of the others.
    let said = past("users:write --at-revision 7").good();
    assert!(said.contains("\nand 1 earlier: see scopegate changes list\n"), "{said}");

    // By revision, with no decision log.
    let json = past("users:write --at-revision 6 --output json").json();
    assert_eq!(json["then"]["reason"], "REASON_GRANT_DORMANT");
    assert_eq!(json["layers"][1]["reason"], "GRANT_DORMANT");
    assert_eq!(json["now"]["decision"], "DECISION_ALLOWED");
    assert!(
        past("users:write --at-revision 99")
            .bad()
            .contains("revision 99 does not exist: the last is 7")
    );
    assert!(past("users:write --at 2020-01-31T14:03Z").good().contains("there was no catalog yet"));
    assert!(past("users:write --at noon").bad().contains("nor a time of day in UTC"));
    assert!(past("").bad().contains("<SCOPE>"));

    // What ends by itself is no change, and is seen all the same.
    let end = jiff::Timestamp::now();
    run(&format!("credential update demo hr-sync --expires-at {end} --yes")).good();
    let json = past("users:write --at-revision 7 --output json").json();
    assert_eq!(json["then"]["decision"], "DECISION_ALLOWED");
    assert_eq!(json["now"]["reason"], "REASON_CREDENTIAL_EXPIRED");

    // A catalog that asks something else since is needed to know; one that does not is not.
    let yaml = fs::read_to_string(catalog("360learning.yaml")).expect("a catalog");
    let less = yaml.lines().filter(|line| !line.contains("users:write"));
    let less = operator.file("less.yaml", &less.collect::<Vec<_>>().join("\n"));
    run(&format!("catalog apply {less} --yes")).good();
    let unknown = past("users:write --at-revision 5").good();
    assert!(unknown.contains("the catalog of revision 9 changed the requirement"), "{unknown}");
    assert!(plain(&unknown).contains("\nnow DENIED CREDENTIAL_EXPIRED"), "{unknown}");
    let file = catalog("360learning.yaml");
    let known = past(&format!("users:write --at-revision 5 --catalog {}", file.display())).good();
    assert!(plain(&known).contains("\nreason SCOPE_NOT_IN_COMPANY\n"), "{known}");
    let other = past(&format!("users:write --at-revision 5 --catalog {less}")).bad();
    assert!(other.contains("is not the catalog of revision 5: its scopes differ"), "{other}");
    let same = past("users:read --at-revision 5 --output json").json();
    assert_eq!(same["then"]["decision"], "DECISION_ALLOWED");
    assert!(run("explain demo hr-sync users:read --catalog x").bad().contains("is for the past"));
}

#[test]
fn compacted_history_gives_no_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--demo", "--audit-log-retention", "1s"]);
    let operator = Operator::of(&server);
    for n in 0.. {
        operator.run(&format!("company create n{n}")).good();
        let log = operator.run("changes list --oldest-first --limit 1 --output json").json();
        let first = log["changes"][0]["revision"].as_str().unwrap_or_default();
        if first.parse::<u64>().is_ok_and(|first| first > 4) {
            break;
        }
    }
    server.terminate();
    // From here on nothing goes.
    let server = Server::start(dir.path(), &["--demo"]);
    let operator = Operator::of(&server);
    let run = |words: &str| operator.run(words);
    let made = run("company create acme users:read --output json").json();
    let made: u64 = made["revision"].as_str().expect("one").parse().expect("a revision");
    // Of a company that is older than the log nothing is said that could be wrong,
    let of_demo = format!("explain demo hr-sync users:write --at-revision {made}");
    let same = run(&of_demo).good();
    assert!(same.contains("nothing that the check depends on has changed since then"), "{same}");
    run("credential disable demo hr-sync --yes").good();
    let unknown = run(&of_demo).good();
    assert!(unknown.contains("the decision is not known: the audit log"), "{unknown}");
    assert!(unknown.contains("enabled: true -> false"), "what has come since is: {unknown}");
    let gone = run("explain demo hr-sync users:write --at-revision 1").bad();
    assert!(gone.contains("the audit log begins at revision "), "{gone}");
    // and of one that is younger all is known.
    run("credential create acme k users:read").good();
    let known = format!("explain acme k users:read --at-revision {made} --output json");
    assert_eq!(run(&known).json()["then"]["reason"], "REASON_CREDENTIAL_UNKNOWN");
}

#[test]
fn a_restriction_is_seen_before_it_is_made() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    let report = "1 credential of demo would lose users:write:\n\n\
                  SCOPE TITLE\nusers:write Create, update and delete users\n\n\
                  CREDENTIAL LABEL STATE LAST SEEN LOSES\nhr-sync HR sync enabled never users:write";
    // To look.
    let seen = plain(&run("company restrict demo users:write --dry-run").good());
    assert_eq!(seen, format!("at revision 4, nothing was changed\n{report}\netag ETAG"));
    // Without a terminal nobody can be asked.
    let refused = run("company restrict demo users:write");
    assert_eq!(plain(&refused.out), report);
    assert_eq!(
        refused.bad(),
        "scopegate: nothing was restricted, because there is no terminal to confirm it on: run it on a terminal, \
         or say --yes --affected 1 if this is what you want\n"
    );
    // A script says what its author saw.
    assert!(run("company restrict demo users:write --yes").bad().contains("--affected <N>"));
    let differs = run("company restrict demo users:write --yes --affected 2").bad();
    assert!(differs.contains("since not 2 but 1 would lose a scope"), "{differs}");
    assert_eq!(run("check demo hr-sync users:write").code, 0);
    let done =
        plain(&run("company restrict demo users:write --yes --affected 1 --reason quiet").good());
    let to = operator.url.as_deref().expect("a server");
    let undo = format!(
        "scopegate company add-scopes demo users:write --endpoint {to} && scopegate company \
         restore-grants demo users:write --restricted-at 5 --endpoint {to}"
    );
    assert_eq!(
        done,
        format!(
            "company demo\nrestricted users:write\naffected credentials 1\nrevision 5\nundo {undo}"
        )
    );
    assert_eq!(run("check demo hr-sync users:write").code, 1);
    assert!(
        run("company restrict demo users:write --yes --affected 1")
            .good()
            .contains("has none of these")
    );
    // And back.
    for command in undo.split(" && ") {
        run(command.strip_prefix("scopegate ").expect("a command")).good();
    }
    assert_eq!(run("check demo hr-sync users:write").code, 0);
    // Or with the etag of what was looked at, once it is no longer so.
    let audit = run("company restrict demo users:write --dry-run --output json").json();
    let etag = audit["etag"].as_str().expect("an etag");
    run("credential grant demo analytics users:write").good();
    let stale = run(&format!("company restrict demo users:write --etag {etag}")).bad();
    assert!(stale.contains("etag"), "{stale}");
    let audit = run("company restrict demo users:write --dry-run --output json").json();
    let etag = audit["etag"].as_str().expect("an etag");
    let done =
        run(&format!("company restrict demo users:write --etag {etag} --output json")).json();
    assert_eq!(done["affectedCredentialCount"], "2");
}

/// A terminal of a usual size, and what was shown on it by a command to which this was typed.
fn on_a_terminal(mut command: Command, typed: &str) -> (i32, String) {
    let (screen, mut keys) = terminal::open(120);
    let copy = || Stdio::from(screen.try_clone().expect("a copy"));
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().expect("it runs");
    drop((command, screen));
    keys.write_all(typed.as_bytes()).expect("typed");
    let mut shown = Vec::new();
    // A terminal without a program ends with an error.
    std::io::Read::read_to_end(&mut keys, &mut shown).ok();
    let code = child.wait().expect("it ends").code().expect("an exit code");
    (code, String::from_utf8(shown).expect("text").replace("\r\n", "\n"))
}

#[test]
fn restrict_asks_for_confirmation_on_a_terminal() {
    let (_dir, _server, operator) = demo();
    let restrict = || operator.command("company restrict demo users:write");
    for no in ["n\n", "\n", "of course\n"] {
        let (code, shown) = on_a_terminal(restrict(), no);
        assert_eq!(code, 2, "{shown}");
        assert!(shown.contains("hr-sync"), "{shown}");
        assert!(shown.contains("Take users:write from demo? [y/N] "), "{shown}");
        assert!(shown.ends_with("scopegate: nothing was restricted\n"), "{shown}");
    }
    assert_eq!(operator.run("check demo hr-sync users:write").code, 0);
    let (code, shown) = on_a_terminal(restrict(), "y\n");
    assert_eq!(code, 0, "{shown}");
    assert!(plain(&shown).contains("\nrevision 5\n"), "{shown}");
    let less = operator.file("less.yaml", "scopes: { \"users:read\": {} }\n");
    let apply = || operator.command(&format!("catalog apply {less}"));
    let (code, shown) = on_a_terminal(apply(), "n\n");
    assert_eq!(code, 2, "{shown}");
    assert!(
        shown.ends_with(
            " from all companies and credentials? [y/N] scopegate: nothing was applied\n"
        ),
        "{shown}"
    );
    assert_eq!(on_a_terminal(apply(), "yes\n").0, 0);
    // Ctrl-D instead of a secret.
    let (code, shown) = on_a_terminal(operator.command("credential secret verify demo"), "\u{4}");
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("The secret: "), "{shown}");
    // Colours are for a terminal, and for who wants them.
    let colours = |name, value| {
        let mut check = operator.command("check demo hr-sync users:write");
        check.env_remove("NO_COLOR").env("TERM", "xterm").env(name, value);
        let (code, shown) = on_a_terminal(check, "");
        assert_eq!(code, 1, "{shown}");
        shown.contains("\u{1b}[")
    };
    assert!(colours("TERM", "xterm-256color"));
    assert!(!colours("NO_COLOR", "1"));
    assert!(!colours("TERM", "dumb"));
}

#[test]
fn holders_of_a_scope_are_listed() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    run("company create acme").good();
    run("company create idle").good();
    run("credential create acme k users:read").good();
    assert_eq!(
        plain(&run("company list --scope users:read").good()),
        "COMPANY NAME STATE CREDENTIALS\nacme - enabled 1\ndemo Demo company enabled 2\n\
         3 credentials of 2 companies hold users:read"
    );
    let cut = run("company list --scope users:read --limit 1").good();
    assert!(
        cut.ends_with("1 credential of 1 company hold users:read\nthere are more: raise --limit\n"),
        "{cut}"
    );
    let whole = run("company list --scope users:read --limit 2").good();
    assert!(whole.ends_with("3 credentials of 2 companies hold users:read\n"), "{whole}");
    let json = |limit: u32| {
        let list = format!("company list --scope users:read --limit {limit} --output json");
        run(&list).json()["truncated"].clone()
    };
    assert_eq!((json(1), json(2)), (json!(true), json!(false)));
    let found = run("company list --scope users:write --output json").json();
    assert_eq!(found["credentialCount"], "1");
    assert_eq!(found["companies"][0]["companyId"], "demo");
    assert!(run("company list --scope users:wrote").bad().contains("no scope `users:wrote`"));
}

#[test]
fn a_catalog_from_file_to_server() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    let file = catalog("360learning.yaml");
    let yaml = fs::read_to_string(&file).expect("a catalog");
    assert_eq!(run("catalog get").good(), yaml, "to the byte");
    assert!(
        run(&format!("catalog validate {}", file.display()))
            .good()
            .contains("is a valid catalog: 12 scopes")
    );

    let bad = operator.file("bad.yaml", "scopes:\n  a: { implies: [b] }\n  a b: {}\n");
    let found = run(&format!("catalog validate {bad}"));
    assert_eq!(found.code, 2);
    assert_eq!(
        found.out,
        format!(
            "{bad}:2:18: `b` is not a scope of this catalog\n{bad}:3:3: `a b` has the character \
             ' '; a scope is printable ASCII without space, quote and backslash\n"
        )
    );
    let found = run(&format!("catalog validate {bad} --output json"));
    let found: Value = serde_json::from_str(&found.out).expect("JSON");
    assert_eq!((&found["valid"], &found["problems"][0]["column"]), (&json!(false), &json!(18)));
    assert!(run(&format!("catalog apply {bad}")).bad().contains("bad.yaml:2:18: "));

    let more = operator.file(
        "more.yaml",
        &yaml.replace("scopes:\n  users:read", "scopes:\n  new:scope: {}\n  users:read"),
    );
    assert_eq!(run(&format!("catalog diff {more}")).good(), "added scopes  new:scope\n");
    assert!(
        run(&format!("catalog apply {more} --dry-run")).good().contains(", nothing was changed\n")
    );
    // What takes nothing away is not asked about.
    assert!(run(&format!("catalog apply {more}")).good().contains("revision      5"));

    let less = operator.file(
        "less.yaml",
        &yaml.lines().filter(|line| !line.contains("users:write")).collect::<Vec<_>>().join("\n"),
    );
    let diff = plain(&run(&format!("catalog diff {less}")).good());
    assert!(diff.contains("removed scopes new:scope users:write\n"), "{diff}");
    assert!(
        diff.contains(
            "companies that lose a scope 1\ncredentials that lose a scope 1\n\n\
             COMPANY NAME CREDENTIALS LOSES\ndemo Demo company 1 users:write\n"
        ),
        "{diff}"
    );
    let refused = run(&format!("catalog apply {less}"));
    assert!(refused.bad().contains("nothing was applied: the file would remove"));
    assert_eq!(run("check demo hr-sync users:write").code, 0);
    assert!(
        run(&format!("catalog apply {less} --yes --reason smaller")).good().contains("revision")
    );
    assert_eq!(run("check demo hr-sync users:write").code, 1);
}

#[test]
fn a_catalogs_tests() {
    let operator = Operator::nowhere();
    let example = catalog("360learning.test.yaml");
    let passed = operator.run(&format!("catalog test {}", example.display())).good();
    assert!(
        passed.starts_with("OUTCOME  TEST\nok       a scope gives access to several endpoints\n"),
        "{passed}"
    );
    assert!(passed.ends_with("\n11 passed, 0 failed\n"), "{passed}");
    let certification = catalog("authzen.test.yaml");
    let passed = operator.run(&format!("catalog test {}", certification.display())).good();
    assert!(passed.ends_with("\n13 passed, 0 failed\n"), "{passed}");

    let text = fs::read_to_string(&example).expect("tests");
    let named = format!("catalog: {}", catalog("360learning.yaml").display());
    let text = text.replace("catalog: 360learning.yaml", &named);
    let wrong = text.replace("reason: GRANT_EXPIRED", "reason: GRANT_DORMANT");
    let wrong = operator.file("wrong.yaml", &wrong);
    let failed = operator.run(&format!("catalog test {wrong}"));
    assert_eq!((failed.code, failed.err.as_str()), (2, ""));
    assert!(
        plain(&failed.out).ends_with(
            "\n\na grant ends when it says\nexpected DENIED, GRANT_DORMANT\n\
             actual DENIED, GRANT_EXPIRED, missing users:read\n\n10 passed, 1 failed"
        ),
        "{}",
        failed.out
    );
    let failed = operator.run(&format!("catalog test {wrong} --output json"));
    let report: Value = serde_json::from_str(&failed.out).expect("JSON");
    assert_eq!((&report["passed"], &report["failed"]), (&json!(10), &json!(1)));
    assert_eq!(report["tests"][7]["actual"]["missingScopes"], json!(["users:read"]));

    for (from, to, said) in [
        ("decision: allowed, reach: all", "decision: maybe", "t.yaml:27:25: "),
        ("    restricted:", "    restricts:", "t.yaml:20:"),
        (
            "\"groups:read\"]   #",
            "\"groups:reed\"]   #",
            "company `acme`: `groups:reed` is not a scope",
        ),
        (
            "reason: GRANT_EXPIRED",
            "reason: GRANT_OVER",
            "`GRANT_OVER` is not a reason; the reasons are",
        ),
    ] {
        let file = operator.file("t.yaml", &text.replacen(from, to, 1));
        let error = operator.run(&format!("catalog test {file}")).bad();
        assert!(error.contains(said), "{to}: {error}");
    }
}

/// A catalog's tests are decided as a server decides, also where users, consents and tokens count.
#[test]
fn a_catalogs_tests_know_every_layer() {
    let operator = Operator::nowhere();
    let file = operator.file(
        "layers.yaml",
        &format!(
            "catalog: {}
now: 2026-01-31T12:00:00Z
companies:
  acme:
    credentials: {{ app: {{ scopes: [read_personal_account, manage_organization] }} }}
    users: {{ ada: {{ roles: [general_member] }} }}
    consents: [{{ credential: app, user: ada, scopes: [read_personal_account, manage_organization] }}]
tests:
  - name: consented
    check: {{ company: acme, credential: app, scopes: [read_personal_account], user: ada }}
    expect: {{ decision: allowed }}
  - name: not provided
    check: {{ company: acme, credential: app, scopes: [manage_organization], user: ada }}
    expect: {{ decision: denied, reason: SCOPE_NOT_CONSENTED }}
  - name: nobody
    check: {{ company: acme, credential: app, scopes: [read_personal_account] }}
    expect: {{ decision: denied, reason: USER_REQUIRED }}
  - name: an old token
    check:
      company: acme
      credential: app
      scopes: [read_personal_account]
      token: {{ scopes: [read_personal_account], user: ada, expires_at: 2026-01-31T12:00:00Z }}
    expect: {{ decision: denied, reason: TOKEN_EXPIRED }}
  - name: no such audience
    check: {{ company: acme, credential: app, scopes: [read_personal_account], audience: moon }}
    expect: {{ decision: invalid }}
",
            catalog("horizonwebref.yaml").display()
        ),
    );
    let said = operator.run(&format!("catalog test {file}"));
    assert!(said.code == 0, "{}{}", said.out, said.err);
}

#[test]
fn changes_are_listed_and_watched() {
    let (_dir, _server, operator) = demo();
    let run = |words: &str| operator.run(words);
    run("company restrict demo users:write --yes --affected 1 --reason quiet").good();
    assert_eq!(
        plain(&run("changes list --company demo --after 3 --oldest-first").good()),
        "REVISION TIME ACTOR KIND RESOURCE CHANGE REASON\n\
         4 TIME scopegate serve CreateCredential demo/hr-sync +groups:read +users:read +users:write \
         label: none -> \"HR sync\" the demo\n\
         5 TIME anonymous RestrictCompanyScopes demo -users:write quiet"
    );
    let watch = |words: &str| {
        let mut child = operator
            .command(&format!("changes watch {words}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("an output")).lines();
        (child, lines.map(|line| line.expect("a line")))
    };
    let stop = |child: std::process::Child| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        MarkState::of(child.wait_with_output().expect("it ends"))
    };
    // Every line is an object, and carries what resumes behind it.
    let (child, mut lines) = watch("--after 3 --output json");
    let steps: Vec<Value> =
        lines.by_ref().take(2).map(|line| serde_json::from_str(&line).expect("JSON")).collect();
    assert_eq!(steps[0]["change"]["revision"], "4");
    assert_eq!(steps[1]["change"]["removedScopes"], json!(["users:write"]));
    assert_eq!(stop(child).code, 0, "Ctrl-C is how it ends");
    let cursor = steps[0]["cursor"].as_str().expect("a cursor");
    let (child, mut lines) = watch(&format!("--cursor {cursor}"));
    assert_eq!(
        plain(&lines.next().expect("a line")),
        "5 TIME anonymous RestrictCompanyScopes demo -users:write (quiet)"
    );
    run("company disable demo --yes --on-behalf-of ada").good();
    assert_eq!(
        plain(&lines.next().expect("a line")),
        "6 TIME anonymous for ada UpdateCompany demo enabled: true -> false"
    );
    let ended = stop(child);
    assert_eq!(ended.code, 0);
    assert!(
        ended.err.starts_with("continue after the last change with --cursor "),
        "{}",
        ended.err
    );
}

#[test]
fn contexts_name_servers() {
    let (_dir, server, mut operator) = demo();
    let url = operator.url.take().expect("a URL");
    let run = |words: &str| operator.run(words);
    assert!(run("context list").good().starts_with("no contexts in "));
    fs::create_dir(operator.home.path().join("scopegate")).expect("made");
    let file = operator.file(
        "scopegate/config.yaml",
        &format!("# Mine.\ncontexts:\n  here: {{ endpoint: \"{url}\" }}\n  away: {{ endpoint: \"http://127.0.0.1:1\" }}\n"),
    );
    assert_eq!(run("health --context here").good(), "SERVING\n");
    assert_eq!(run("context use here").good(), "current: here\n");
    assert_eq!(run("health").good(), "SERVING\n");
    assert_eq!(run("health --service live").good(), "SERVING\n");
    assert!(run("context list").good().contains("\n*        here  http://127.0.0.1:"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    run("context use away").good();
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).expect("text").starts_with("current: \"away\"\n# Mine.\n"));
    assert!(run("health").bad().contains("no server answers at http://127.0.0.1:1/"));
    // Flags and environment win.
    assert_eq!(run(&format!("health --endpoint {url}")).good(), "SERVING\n");
    let by_environment = operator.command("health").env("SCOPEGATE_ENDPOINT", &url).output();
    assert_eq!(MarkState::of(by_environment.expect("it runs")).good(), "SERVING\n");
    let by_environment = operator.command("health").env("SCOPEGATE_CONTEXT", "here").output();
    assert_eq!(MarkState::of(by_environment.expect("it runs")).good(), "SERVING\n");
    assert!(
        run("health --context nowhere")
            .bad()
            .contains("has no context `nowhere`; it has: away, here")
    );
    assert!(run("context use nowhere").bad().contains("has no context `nowhere`"));
    drop(server);
}

#[test]
fn bash_reads_its_completions() {
    let operator = Operator::nowhere();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            operator.run(&format!("completions {shell}")).good().contains("restore-grants"),
            "{shell}"
        );
    }
    let script = operator.file("completions.bash", &operator.run("completions bash").good());
    let read = Command::new("bash").args(["-n", &script]).output().expect("bash runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn every_command_has_help() {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        assert!(command.get_about().is_some(), "{path} says nothing of itself");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{path} {} has no help", arg.get_id());
        }
        found.push(path.to_owned());
        for child in command.get_subcommands() {
            walk(child, format!("{path} {}", child.get_name()).trim(), found);
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut commands = Vec::new();
    walk(&command, "", &mut commands);
    assert!(commands.len() > 50, "{commands:?}");
    let operator = Operator::nowhere();
    for path in commands.iter().filter(|path| !path.contains("help")) {
        assert!(operator.run(&format!("{path} --help")).good().contains("Usage: "), "{path}");
    }
}

/// What a command prints for programs is there for programs alone.
#[test]
fn no_colours_off_a_terminal() {
    let (_dir, _server, operator) = demo();
    for words in ["check demo analytics users:write", "explain demo analytics users:write"] {
        let said = operator.command(words).env("CLICOLOR_FORCE", "1").output().expect("it runs");
        assert!(!said.stdout.contains(&0x1b), "{words}");
    }
    // A reader who has seen enough is no error to tell.
    let mut child = operator
        .command("changes list --output json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let said = MarkState::of(child.wait_with_output().expect("it ends"));
    assert_eq!(said.err, "");
}

#[test]
fn a_key_from_a_file_the_environment_or_a_context() {
    let (_dir, server, operator) = demo();
    let root = operator.run("keys create root --role operator --output json").json();
    let secret = root["secret"].as_str().expect("a secret").to_owned();
    let key_id = root["key"]["keyId"].as_str().expect("an id").to_owned();
    // From the acknowledgement on everybody needs one.
    let refused = operator.run("check demo hr-sync users:write");
    assert_eq!(refused.code, 2);
    assert_eq!(refused.err, "scopegate: no API key: give it by --key-file or SCOPEGATE_KEY\n");
    let file = operator.file("root.key", &format!("{secret}\n"));
    let with_file = |words: &str| operator.run(&format!("{words} --key-file {file}"));
    with_file("check demo hr-sync users:write").good();

    let made = with_file("keys create acme-admin --role company-admin,identity --company demo");
    let made = plain(&made.good());
    assert!(
        made.contains("name acme-admin\nroles company-admin identity\ncompanies demo"),
        "{made}"
    );
    assert!(made.ends_with("keep the secret now: it is shown once"), "{made}");
    let key = made.lines().next().expect("a key").strip_prefix("key ").expect("its id");
    let secret_of = made.lines().find_map(|line| line.strip_prefix("secret ")).expect("a secret");
    let admin = operator.file("admin.key", secret_of);
    let who = operator.run(&format!("whoami --key-file {admin}")).good();
    let expected = "name acme-admin\nroles company-admin identity\ncompanies demo";
    assert_eq!(plain(&who).trim_end(), format!("key {key}\n{expected}"));
    assert!(operator.run("whoami").bad().contains("no API key"));
    let listed = with_file("keys list").good();
    let heads = "KEY NAME STATE ROLES COMPANIES EXPIRES LAST USED";
    assert_eq!(plain(&listed).lines().next(), Some(heads));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(!listed.contains("sgk_"), "a list has no secrets");
    let last = with_file(&format!("keys delete {key_id} --yes"));
    assert!(last.bad().contains("is the last of an operator"));

    let mut command = operator.command("keys get");
    command.arg(&key_id).args(["--output", "json"]).env("SCOPEGATE_KEY", &secret);
    let got = MarkState::of(command.output().expect("it runs")).json();
    assert_eq!(got["key"]["roles"], json!(["ROLE_OPERATOR"]));

    let contexts = operator.home.path().join("scopegate");
    fs::create_dir_all(&contexts).expect("made");
    let text = format!(
        "current: here\ncontexts:\n  here: {{ endpoint: \"{}\", key_file: \"{file}\" }}\n",
        server.url()
    );
    fs::write(contexts.join("config.yaml"), text).expect("written");
    let by_context = Operator { url: None, home: operator.home };
    by_context.run("check demo hr-sync users:write").good();
    // An --endpoint alone leaves the context's key out.
    let alone =
        by_context.run(&format!("check demo hr-sync users:write --endpoint {}", server.url()));
    assert!(alone.bad().contains("no API key"));
}
