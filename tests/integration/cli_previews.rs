//! What is asked before a change is what the change then does, and what is not asked is told: by the
//! real commands, on a real server and a real terminal.
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use crate::harness::{Server, scopegate, terminal};
use serde_json::Value;
use tempfile::TempDir;

const CATALOG: &str = r#"
name: school
scopes:
  read: {}
  write: { implies: [read] }
  users:read: {}
audiences:
  web: { token: required, max_token_age: 60s }
  app: {}
roles:
  reader: { scopes: { read: all } }
  writer: { scopes: { write: all } }
endpoints:
  - { method: GET, path: /a, scopes: [read] }
  - { method: GET, path: /b, scopes: [read] }
"#;

/// A company `acme` that has `read`, with the credential `app`, which has it, too.
struct Stage {
    dir: TempDir,
    server: Server,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = dir.path().join("catalog.yaml");
        fs::write(&catalog, CATALOG).expect("written");
        let server = Server::start(&dir.path().join("store"), &[]);
        let stage = Self { dir, server };
        stage.good(&format!("catalog apply {}", catalog.display()));
        stage.good("company create acme read users:read");
        stage.good("credential create acme app read");
        stage
    }

    fn command(&self, words: &str) -> Command {
        let mut command = scopegate();
        command.env("XDG_CONFIG_HOME", self.dir.path()).args(words.split_whitespace());
        command.args(["--endpoint", &self.server.url()]).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &str) -> (i32, String, String) {
        read(self.command(words).output().expect("it runs"))
    }

    fn good(&self, words: &str) -> String {
        let (code, out, err) = self.run(words);
        assert_eq!(code, 0, "{words}: {out}{err}");
        out
    }

    /// The one line of JSON on standard error of a command that fails.
    fn error(&self, words: &str) -> Value {
        let (code, out, err) = self.run(&format!("{words} --output json"));
        assert_eq!((code, out.as_str()), (2, ""), "{words}: {err}");
        assert_eq!(err.lines().count(), 1, "{words}: {err}");
        let error: Value = serde_json::from_str(&err).expect("JSON");
        error["error"].clone()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file = self.dir.path().join(name);
        fs::write(&file, text).expect("written");
        file.to_str().expect("a path").to_owned()
    }

    /// Runs a command on a terminal and says yes, once this was done.
    fn asked(&self, words: &str, meanwhile: impl FnOnce()) -> (i32, String) {
        let mut command = self.command(words);
        let (screen, mut keys) = terminal::open(120);
        let copy = || Stdio::from(screen.try_clone().expect("a copy"));
        command.stdin(copy()).stdout(copy()).stderr(copy());
        let mut child = command.spawn().expect("it runs");
        drop((command, screen));
        let (mut shown, mut part, mut meanwhile) = (Vec::new(), [0; 4096], Some(meanwhile));
        // A terminal without a program ends with an error.
        while let Ok(length @ 1..) = keys.read(&mut part) {
            shown.extend_from_slice(&part[..length]);
            if shown.windows(7).any(|seven| seven == b" [y/N] ")
                && let Some(meanwhile) = meanwhile.take()
            {
                meanwhile();
                keys.write_all(b"y\n").expect("typed");
            }
        }
        let code = child.wait().expect("it ends").code().expect("an exit code");
        (code, String::from_utf8(shown).expect("text"))
    }
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn change_is_dropped_if_its_impact_changed_during_the_prompt() {
    let stage = Stage::new();
    let less = stage.file("less.yaml", &CATALOG.replace("  users:read: {}\n", ""));
    for (command, meanwhile) in [
        // No etag of what is changed covers these.
        ("credential reset acme app".to_owned(), "company add-scopes acme write"),
        ("company disable acme".to_owned(), "credential create acme second"),
        ("company delete acme".to_owned(), "user put acme ada reader"),
        (format!("catalog apply {less}"), "credential grant acme second users:read"),
    ] {
        let mut before = String::new();
        let (code, shown) = stage.asked(&command, || {
            stage.good(meanwhile);
            before = stage.good("changes list");
        });
        assert_eq!(code, 2, "{command}: {shown}");
        assert!(shown.contains("run it"), "{command}: {shown}");
        assert_eq!(stage.good("changes list"), before, "{command}: nothing was changed");
    }
    stage.good("company get acme");
    let (code, shown) = stage.asked("credential reset acme app", || {});
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn a_catalog_that_takes_anything_away_is_asked_about() {
    let stage = Stage::new();
    for (from, to, says) in [
        ("  users:read: {}\n", "", "users:read"),
        ("  app: {}\n", "", "remove the audience app"),
        ("token: required, ", "", "audience web"),
        (", max_token_age: 60s", "", "audience web"),
        ("max_token_age: 60s", "max_token_age: 600s", "audience web"),
        ("  writer: { scopes: { write: all } }\n", "", "remove the role writer"),
        ("{ write: all }", "{ read: all }", "role writer"),
        ("{ write: all }", "{ write: own }", "role writer"),
        ("  - { method: GET, path: /b, scopes: [read] }\n", "", "remove the endpoint GET /b"),
    ] {
        let file = stage.file("other.yaml", &CATALOG.replace(from, to));
        let (code, _, err) = stage.run(&format!("catalog apply {file}"));
        assert_eq!(code, 2, "{says}: {err}");
        assert!(err.contains(says) && err.contains("--yes"), "{says}: {err}");
        let error = stage.error(&format!("catalog apply {file}"));
        assert!(error["message"].as_str().expect("text").contains(says), "{error}");
        let (code, shown) = stage.asked(&format!("catalog apply {file}"), || {});
        assert_eq!(code, 0, "{shown}");
        let back = stage.file("back.yaml", CATALOG);
        stage.good(&format!("catalog apply {back} --yes"));
    }
    // What only adds is not.
    let more = CATALOG.replace("  read: {}\n", "  read: {}\n  more: {}\n");
    let more = more.replace("  app: {}\n", "  app: {}\n  other: {}\n");
    let more = stage.file("more.yaml", &more);
    let dry = stage.good(&format!("catalog apply {more} --dry-run"));
    assert!(dry.starts_with("at revision ") && dry.contains("nothing was changed"), "{dry}");
    stage.good(&format!("catalog apply {more}"));
}

#[test]
fn an_error_before_the_question_keeps_its_code_and_is_one_line() {
    let stage = Stage::new();
    for words in [
        "credential reset acme nosuch",
        "credential replace acme nosuch read",
        "credential revoke acme nosuch read",
        "credential disable acme nosuch",
        "credential delete acme nosuch",
        "credential update acme nosuch --expires-at 1d",
        "company disable nosuch",
        "company delete nosuch",
        "credential grant --scope-holders read --company nosuch users:read",
    ] {
        assert_eq!(stage.error(words)["code"], "NOT_FOUND", "{words}");
    }
    let lines = stage.file("in.jsonl", "{\"company_id\":\"acme\",\"scopes\":[\"nosuch\"]}\n");
    let mut import = stage.command("import --output json");
    let (code, _, err) = read(import.arg(&lines).output().expect("it runs"));
    let error: Value = serde_json::from_str(&err).expect("JSON");
    assert_eq!(code, 2, "{err}");
    assert_ne!(error["error"]["code"], "LOCAL", "{err}");
    let message = error["error"]["message"].as_str().expect("text");
    assert!(message.starts_with("line 1: the catalog has no scope"), "{message}");
    // What nobody can be asked about is one line of JSON, too.
    stage.good("company create other read");
    for words in [
        "credential disable acme app",
        "credential replace acme app users:read",
        "company delete acme",
        "company restrict acme read",
        "company restrict acme read --yes --affected 7",
        "credential update acme app --expires-at 1d",
    ] {
        assert_eq!(stage.error(words)["code"], "LOCAL", "{words}");
    }
}

#[test]
fn a_sooner_end_is_asked_about_and_a_later_one_is_not() {
    let stage = Stage::new();
    let update = |end: &str| stage.run(&format!("credential update acme app --expires-at {end}"));
    let (code, _, err) = update("90d");
    assert_eq!(code, 2, "it had no end: {err}");
    assert!(err.contains("never") && err.contains("--yes"), "{err}");
    stage.good("credential update acme app --expires-at 90d --yes");
    assert_eq!(update("91d").0, 0);
    let (code, _, err) = update("1d");
    assert_eq!(code, 2, "{err}");
    let (code, shown) = stage.asked("credential update acme app --expires-at 1d", || {});
    assert_eq!(code, 0, "{shown}");
    stage.good("credential update acme app --never-expires");
}

#[test]
fn an_unknown_scope_or_id_is_told_beside_an_answer() {
    let stage = Stage::new();
    for command in ["check", "explain"] {
        for scope in ["USERS:READ", "user:read", "Users:Raed"] {
            let (_, out, err) = stage.run(&format!("{command} acme app {scope} --audience app"));
            assert!(out.contains("SCOPE_UNKNOWN"), "{out}{err}");
            assert!(err.contains("did you mean `users:read`?"), "{command} {scope}: {err}");
        }
        let (_, _, err) = stage.run(&format!("{command} acme app users:read --audience app"));
        assert_eq!(err, "");
    }
    let (_, _, err) = stage.run("scope get USERS:READ");
    assert!(err.contains("did you mean `users:read`?"), "{err}");
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    for address in [
        "http://u:hunter2@localhost:1",
        "u:hunter2@localhost:1",
        "grpc://u:hunter2@localhost:1",
        "http://u:hunter2@localhost:1/path",
        "http://u:hun/hunter2@localhost:1",
        "http://u:hunter2#x@localhost:1",
    ] {
        for output in ["table", "json"] {
            let mut command = scopegate();
            command.env("XDG_CONFIG_HOME", dir.path()).args([
                "company",
                "list",
                "--endpoint",
                address,
            ]);
            let (code, out, err) =
                read(command.args(["--output", output]).output().expect("it runs"));
            assert_eq!(code, 2, "{address}");
            assert!(!format!("{out}{err}").contains("hunter2"), "{address}: {out}{err}");
        }
    }
}

#[test]
fn a_list_of_nothing_says_if_there_is_no_such_company() {
    let stage = Stage::new();
    for (words, says) in [
        ("changes list --company nosuch", "no company `nosuch`"),
        ("changes list --company nosuch --output json", "no company `nosuch`"),
        ("effective acme nosuch --audience app", "no credential `nosuch`"),
        ("effective nosuch app --audience app", "nosuch"),
    ] {
        let (code, _, err) = stage.run(words);
        assert_eq!(code, 0, "{words}: {err}");
        assert!(err.contains("warning") && err.contains(says), "{words}: {err}");
    }
    assert_eq!(stage.run("changes list --company acme").2, "");
    // A variable that nothing reads.
    let mut list = stage.command("company list");
    list.env("SCOPEGATE_ENDPONT", "localhost:1");
    let (code, _, err) = read(list.output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("did you mean `SCOPEGATE_ENDPOINT`?"), "{err}");
}

#[test]
fn a_dry_run_says_at_which_revision_nothing_was_changed() {
    let stage = Stage::new();
    let out = stage.good("company restrict acme write --dry-run");
    assert!(out.contains("at revision 3, nothing was changed; nothing to change"), "{out}");
    let out = stage.good("credential grant --scope-holders read users:read --dry-run");
    assert!(out.contains("at revision 3, nothing was changed"), "{out}");
}

#[test]
fn text_may_begin_with_a_hyphen_and_swallows_no_flag() {
    let stage = Stage::new();
    stage.good("company update acme --display-name -acme- --reason -1 --on-behalf-of -x");
    stage.good("credential update acme app --label - --reason=--yes");
    let (code, _, err) = stage.run("credential disable acme app --yes --reason --dry-run");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--dry-run"), "{err}");
    assert!(stage.good("credential get acme app").contains("enabled"));
}

#[test]
fn input_files_are_bounded() {
    let stage = Stage::new();
    let long = stage.file("long", &"x".repeat(5_000));
    let mut verify = stage.command("credential secret verify");
    verify.stdin(fs::File::open(&long).expect("a file"));
    let (code, _, err) = read(verify.output().expect("it runs"));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("4096 bytes"), "{err}");
    let (code, _, err) = stage.run("catalog apply /dev/zero");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("16777216 bytes"), "{err}");
    for (config, says) in [("/dev/zero", "1048576 bytes"), ("/dev/null", "it has none")] {
        let mut list = scopegate();
        list.args(["company", "list", "--context", "zz"]);
        let (code, _, err) = read(list.env("SCOPEGATE_CONFIG", config).output().expect("it runs"));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says), "{config}: {err}");
    }
}

#[test]
fn an_interrupted_prompt_shows_again_what_is_typed() {
    use rustix::termios::{LocalModes, tcgetattr};
    let stage = Stage::new();
    let mut command = stage.command("credential secret verify");
    let (screen, mut keys) = terminal::open(120);
    let copy = || Stdio::from(screen.try_clone().expect("a copy"));
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().expect("it runs");
    let is_shown =
        || tcgetattr(&screen).expect("a terminal").local_modes.contains(LocalModes::ECHO);
    assert!(is_shown());
    while is_shown() {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    assert!(is_shown());
    drop((command, screen));
    let mut shown = Vec::new();
    keys.read_to_end(&mut shown).ok();
    assert!(String::from_utf8_lossy(&shown).contains("interrupted"));
}
