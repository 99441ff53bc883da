//! What takes something away is asked about first, and can be undone by a line that is pasted: by
//! the real commands, on a real server and a real terminal.
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::harness::{Server, scopegate, terminal};
use serde_json::Value;
use tempfile::TempDir;

const CATALOG: &str = r#"
name: desk
scopes:
  read: {}
  write: { implies: [read] }
  "it's": {}
  "-force": {}
roles:
  reader: { scopes: { read: all } }
  writer: { scopes: { write: all } }
"#;

/// A company `acme` with the credentials `app`, which has all but `-force`, and `bare`; the user
/// `ada`, who reads and writes and allows `app` both.
struct Stage {
    dir: TempDir,
    server: Server,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = dir.path().join("catalog.yaml");
        fs::write(&catalog, CATALOG).expect("written");
        let catalog = catalog.to_str().expect("a path");
        let server = Server::start(&dir.path().join("store"), &["--catalog", catalog]);
        let stage = Self { dir, server };
        for words in [
            "company create acme",
            "credential create acme app write it's --label Payroll --redirect-uri https://pay.example/in",
            "credential create acme bare",
            "user put acme ada reader writer",
            "consent put acme app ada write",
        ] {
            stage.good(words);
        }
        stage
    }

    fn command(&self, words: &str) -> Command {
        let mut command = scopegate();
        command.env("XDG_CONFIG_HOME", self.dir.path()).args(words.split_whitespace());
        command.args(["--endpoint", &self.server.url()]).stdin(Stdio::null());
        command
    }

    /// The exit code, the output, and what was said on standard error.
    fn run(&self, words: &str) -> (i32, String, String) {
        read(self.command(words).output().expect("it runs"))
    }

    fn good(&self, words: &str) -> String {
        let (code, out, err) = self.run(words);
        assert_eq!(code, 0, "{words}: {out}{err}");
        out
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.good(&format!("{words} --output json"))).expect("JSON")
    }

    /// All that was changed so far.
    fn changes(&self) -> String {
        self.good("changes list --output json")
    }

    /// The active scopes of a credential, with their ends.
    fn grants(&self, credential: &str) -> Vec<(String, Value)> {
        let read = self.json(&format!("credential get acme {credential}"));
        let grants = read["credential"]["grants"].as_array().expect("a list").clone();
        let active = grants.into_iter().filter(|grant| grant["state"] == "GRANT_STATE_ACTIVE");
        let words = |grant: Value| {
            (grant["scope"].as_str().expect("a scope").to_owned(), grant["expiresAt"].clone())
        };
        active.map(words).collect()
    }

    /// Runs a command through a proxy that does something between its first call and its second.
    fn overtaken(&self, words: &str, between: impl FnOnce() + Send) -> (i32, String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = listener.local_addr().expect("an address").to_string();
        let mut command = scopegate();
        command.args(words.split_whitespace()).args(["--endpoint", &proxy]).stdin(Stdio::null());
        std::thread::scope(|scope| {
            let output = scope.spawn(move || command.output().expect("it runs"));
            let (mut client, _) = listener.accept().expect("a client");
            let mut server = TcpStream::connect(&self.server.address).expect("the server");
            let mut answers = (server.try_clone().expect("one"), client.try_clone().expect("one"));
            scope.spawn(move || io::copy(&mut answers.0, &mut answers.1));
            // RFC 9113: a preface of 24 bytes, then frames with a head of 9; HEADERS are of type 1.
            let (mut part, mut calls, mut between) = (vec![0; 24], 0, Some(between));
            client.read_exact(&mut part).expect("a preface");
            while server.write_all(&part).is_ok() {
                part.resize(9, 0);
                if client.read_exact(&mut part).is_err() {
                    break;
                }
                calls += u8::from(part[3] == 1);
                let length = u32::from_be_bytes([0, part[0], part[1], part[2]]);
                part.resize(9 + length as usize, 0);
                client.read_exact(&mut part[9..]).expect("a frame");
                if let (2, Some(between)) = (calls, between.take_if(|_| calls == 2)) {
                    between();
                }
            }
            server.shutdown(Shutdown::Both).ok();
            read(output.join().expect("it ends"))
        })
    }

    /// Pastes a line into a shell, in another directory.
    fn paste(&self, line: &str) {
        let binary = scopegate().get_program().to_owned();
        let bin = std::path::Path::new(&binary).parent().expect("a directory").to_owned();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env_clear().env("PATH", path).current_dir("/");
        let (code, out, err) = read(shell.stdin(Stdio::null()).output().expect("a shell"));
        assert_eq!(code, 0, "{line}: {out}{err}");
    }
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// The line that undoes what an output tells of, if it has one.
fn undo(out: &str) -> Option<&str> {
    out.lines().find_map(|line| line.strip_prefix("undo  "))
}

/// How a question is answered.
#[derive(Clone, Copy, Debug)]
enum Answer<'a> {
    Keys(&'a str),
    Interrupt,
}

/// What was shown on a terminal, on which the question was answered so.
fn on_a_terminal(mut command: Command, answer: Answer<'_>) -> (i32, String) {
    let (screen, mut keys) = terminal::open(40);
    let copy = || Stdio::from(screen.try_clone().expect("a copy"));
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().expect("it runs");
    drop((command, screen));
    let (mut shown, mut part, mut answered) = (Vec::new(), [0; 4096], false);
    // A terminal without a program ends with an error.
    while let Ok(length @ 1..) = keys.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
        if !answered && shown.windows(7).any(|seven| seven == b" [y/N] ") {
            answered = true;
            match answer {
                Answer::Keys(text) => keys.write_all(text.as_bytes()).expect("typed"),
                Answer::Interrupt => {
                    let pid = child.id().to_string();
                    Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
                }
            }
        }
    }
    let code = child.wait().expect("it ends").code().expect("an exit code");
    (code, String::from_utf8(shown).expect("text").replace("\r\n", "\n"))
}

#[test]
fn removals_without_a_terminal_are_refused() {
    let stage = Stage::new();
    let secret = stage.json("credential secret create acme app");
    let secret = secret["secretId"].as_str().expect("an id");
    let delete_secret = format!("credential secret delete acme app {secret}");
    // In an order in which each still has something to take.
    let commands = [
        ("credential reset acme app", "all of the company's scopes"),
        ("credential replace acme app read", "write"),
        ("credential revoke acme app read", "write"),
        ("credential replace acme bare --allow-empty", ""),
        ("consent put acme app ada", "read"),
        ("consent delete acme app ada", "ada"),
        ("user put acme ada reader", "writer"),
        ("user delete acme ada", "ada"),
        (delete_secret.as_str(), secret),
        ("credential update acme app --redirect-uri https://pay.example/new", "example/in?"),
        ("credential update acme app --no-redirect-uris", "Create no more authorization codes"),
        ("credential update acme app --expires-at 2020-01-01T00:00:00Z", "Payroll"),
        ("credential disable acme app", "Payroll"),
        ("credential delete acme app", "Payroll"),
        ("company disable acme", "2 credentials"),
        ("company delete acme", "2 credentials"),
    ];
    stage.good("credential grant acme bare read");
    let before = stage.changes();
    for (command, shown) in commands {
        let (code, out, err) = stage.run(command);
        assert_eq!((code, out.as_str()), (2, ""), "{command}: {err}");
        assert!(err.contains("nothing was changed: ") && err.contains("--yes"), "{command}: {err}");
        assert!(err.contains(shown), "{command}: {err}");
        stage.good(&format!("{command} --dry-run"));
    }
    assert_eq!(stage.changes(), before, "nothing was changed");
    // An etag is not an answer.
    let etag = stage.json("company get acme")["company"]["etag"].clone();
    let with_etag = format!("company disable acme --etag {}", etag.as_str().expect("text"));
    assert_eq!(stage.run(&with_etag).0, 2);
    stage.good("credential replace acme app read --yes");
    stage.good("credential revoke acme app read --yes");
    stage.good("credential reset acme app --yes");
    for (command, _) in &commands[4..] {
        stage.good(&format!("{command} --yes"));
    }
}

#[test]
fn additions_ask_for_no_confirmation() {
    let stage = Stage::new();
    for command in [
        "credential replace acme app write it's",
        "credential revoke acme app write",
        "credential grant acme app write",
        "credential enable acme app",
        "credential update acme app --label Wages",
        "credential update acme app --expires-at 90d --yes",
        "credential update acme app --expires-at 91d",
        "credential update acme app --redirect-uri org.example.pay:/ --redirect-uri https://pay.example/in",
        "credential update acme app --redirect-uri https://pay.example/in --redirect-uri org.example.pay:/",
        "credential update acme bare --no-redirect-uris",
        "credential disable acme bare --yes",
        "credential disable acme bare",
        "company update acme --display-name Acme",
        "company disable acme --yes",
        "company disable acme",
        "company enable acme",
        "user put acme bob",
        "user put acme bob reader writer",
        "user put acme ada writer reader",
        "consent put acme app bob read",
        "consent put acme app bob write",
    ] {
        stage.good(command);
    }
}

#[test]
fn key_changes_ask_for_confirmation() {
    let stage = Stage::new();
    let root = stage.json("keys create root --role operator");
    let root = root["secret"].as_str().expect("a secret").to_owned();
    let as_root = |words: &str| {
        let mut command = stage.command(words);
        command.env("SCOPEGATE_KEY", &root);
        command
    };
    let made = as_root("keys create nightly --role auditor --output json").output();
    let made: Value = serde_json::from_str(&read(made.expect("it runs")).1).expect("JSON");
    let delete = format!("keys delete {}", made["key"]["keyId"].as_str().expect("an id"));
    let (code, _, err) = read(as_root(&delete).output().expect("it runs"));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("nightly") && err.contains("never") && err.contains("--yes"), "{err}");
    let (code, shown) = on_a_terminal(as_root(&delete), Answer::Keys("y\n"));
    assert_eq!(code, 0, "{shown}");
    // A key that comes by the environment is named and not repeated.
    let disable = as_root("company disable acme --yes").output().expect("it runs");
    let (_, out, _) = read(disable);
    assert!(undo(&out).is_some_and(|line| line.starts_with("scopegate company enable acme")));
    assert!(out.contains("needs SCOPEGATE_KEY") && !out.contains(&root), "{out}");
    // One that comes by a file is named by its whole path.
    let file = stage.dir.path().join("my key");
    fs::write(&file, &root).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    let mut enable = stage.command("company enable acme --timeout 9s");
    let (code, out, err) = read(enable.arg("--key-file").arg(&file).output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
    let line = undo(&out).expect("an undo");
    assert!(line.contains("--timeout 9s") && line.contains("my key"), "{line}");
    stage.paste(line);
}

#[test]
fn a_terminal_is_asked_and_only_a_yes_is_one() {
    let stage = Stage::new();
    let disable = || stage.command("credential disable acme app");
    let before = stage.changes();
    for no in [
        Answer::Keys("n\n"),
        Answer::Keys("\n"),
        Answer::Keys("sure\n"),
        Answer::Keys("\u{4}"),
        Answer::Interrupt,
    ] {
        let (code, shown) = on_a_terminal(disable(), no);
        assert_eq!(code, 2, "{no:?}: {shown}");
        assert!(shown.contains("Payroll") && shown.contains("never"), "{shown}");
        assert!(shown.contains("Deny every check of app of acme"), "{shown}");
        assert!(shown.ends_with("\nscopegate: nothing was changed\n"), "{no:?}: {shown}");
    }
    assert_eq!(stage.changes(), before);
    let (code, shown) = on_a_terminal(disable(), Answer::Keys("y\n"));
    assert_eq!(code, 0, "{shown}");
    // One line on a narrow terminal, which can be pasted.
    let line = undo(&shown).expect("an undo");
    assert!(line.len() > 40 && line.contains(&stage.server.url()), "{line}");
    stage.paste(line);
    assert_eq!(stage.json("credential get acme app")["credential"]["enabled"], true);
    let (code, shown) = on_a_terminal(stage.command("company delete acme"), Answer::Keys("y\n"));
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("with 2 credentials and 1 user"), "{shown}");
}

#[test]
fn confirmed_removal_is_exactly_the_previewed_one() {
    let stage = Stage::new();
    let mut command = stage.command("credential delete acme app");
    let (input, mut keys) = terminal::open(40);
    let copy = || Stdio::from(input.try_clone().expect("a copy"));
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = command.spawn().expect("it runs");
    drop((command, input));
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    while !shown.windows(7).any(|seven| seven == b" [y/N] ") {
        let length = keys.read(&mut part).expect("shown");
        shown.extend_from_slice(&part[..length]);
    }
    // Meanwhile another operator changes it.
    stage.good("credential update acme app --label Wages");
    keys.write_all(b"y\n").expect("typed");
    while let Ok(length @ 1..) = keys.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.contains("etag"), "{shown}");
    stage.good("credential get acme app");
}

#[test]
fn a_pasted_undo_restores_the_earlier_state() {
    let stage = Stage::new();
    stage.good("credential create acme short");
    stage.good("credential grant acme short write --expires-at 2090-01-01T00:00:00Z");
    stage.good("credential grant acme short it's");
    for credential in ["app", "bare", "short"] {
        for change in [
            "revoke acme NAME read --yes",
            "replace acme NAME it's --yes",
            "replace acme NAME --allow-empty --yes",
            "reset acme NAME --yes",
            "grant acme NAME write it's",
        ] {
            let before = stage.grants(credential);
            let out = stage.good(&format!("credential {}", change.replace("NAME", credential)));
            let after = stage.grants(credential);
            match undo(&out) {
                Some(line) => {
                    assert_ne!(before, after, "{line}");
                    stage.paste(line);
                    assert_eq!(stage.grants(credential), before, "{change}: {line}");
                }
                // A grant that ended earlier is no shorter again.
                None if change.starts_with("grant") && credential != "bare" => {}
                None => assert_eq!(before, after, "{credential}: {change}: {out}"),
            }
        }
    }
    let company = || stage.json("company get acme")["company"]["scopes"].to_string();
    let names = |text: String| text.matches("\"scope\"").count();
    let out = stage.good("company restrict acme read --yes --affected 2");
    assert_eq!(stage.grants("app").len(), 1);
    stage.paste(undo(&out).expect("an undo"));
    assert_eq!((stage.grants("app").len(), names(company())), (3, 4));
    // As a field, for programs.
    let json = stage.json("user put acme ada --yes");
    assert_eq!(json["user"]["roles"], serde_json::json!([]));
    stage.paste(json["undo"].as_str().expect("an undo"));
    let roles = stage.json("user get acme ada")["user"]["roles"].clone();
    assert_eq!(roles, serde_json::json!(["reader", "writer"]));
    let out = stage.good("consent delete acme app ada --yes");
    stage.paste(undo(&out).expect("an undo"));
    let consent = stage.json("consent get acme app ada")["consent"]["scopes"].clone();
    assert_eq!(consent, serde_json::json!(["read", "write"]));
    // A label with all that a shell reads otherwise.
    let mut update = stage.command("credential update acme app");
    let (code, _, err) = read(update.arg("--label=a'b $HOME \"|~").output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
    let out = stage.good("credential update acme app --label plain");
    stage.paste(undo(&out).expect("an undo"));
    let label = stage.json("credential get acme app")["credential"]["label"].clone();
    assert_eq!(label, "a'b $HOME \"|~");
    let uris = || stage.json("credential get acme app")["credential"]["redirectUris"].clone();
    for change in [
        "--redirect-uri https://pay.example/in --redirect-uri https://pay.example/?a=b&c",
        "--redirect-uri https://pay.example/new --label Pay --yes",
        "--no-redirect-uris --yes",
    ] {
        let before = uris();
        let out = stage.good(&format!("credential update acme app {change}"));
        assert_ne!(uris(), before, "{change}");
        stage.paste(undo(&out).expect("an undo"));
        assert_eq!(uris(), before, "{change}");
    }
    stage.good("credential update acme app --no-redirect-uris --yes");
    let out = stage.good("credential update acme app --redirect-uri https://pay.example/in");
    stage.paste(undo(&out).expect("an undo"));
    assert_eq!(uris(), serde_json::json!([]));
    // A scope that looks like a flag.
    let mut grant = scopegate();
    grant.args(["credential", "grant", "--endpoint", &stage.server.url(), "acme", "bare", "--"]);
    let (code, out, err) = read(grant.arg("-force").output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
    stage.paste(undo(&out).expect("an undo"));
    assert_eq!(stage.grants("bare"), []);
    // What is deleted is not brought back by a line.
    assert_eq!(undo(&stage.good("credential delete acme app --yes")), None);
    assert_eq!(undo(&stage.good("credential disable acme bare --dry-run")), None);
}

#[test]
fn an_undo_names_the_context_that_was_used() {
    let stage = Stage::new();
    let config = stage.dir.path().join("scopegate");
    fs::create_dir(&config).expect("made");
    let text = format!(
        "current: here\ncontexts:\n  here: {{ endpoint: \"{}\" }}\n  other: {{ endpoint: \
         \"http://127.0.0.1:1\" }}\n",
        stage.server.url()
    );
    fs::write(config.join("config.yaml"), text).expect("written");
    let run = |words: &str| {
        let mut command = scopegate();
        command.env("XDG_CONFIG_HOME", stage.dir.path()).args(words.split_whitespace());
        read(command.stdin(Stdio::null()).output().expect("it runs"))
    };
    let (code, out, err) = run("credential disable acme app --yes");
    assert_eq!(code, 0, "{err}");
    let line = undo(&out).expect("an undo");
    let endpoint = stage.server.url();
    let expected =
        format!("scopegate credential enable acme app --endpoint {endpoint} --context here");
    assert_eq!(line, expected);
    // Also once another context is the current one.
    assert_eq!(run("context use other").0, 0);
    assert_eq!(run(line.strip_prefix("scopegate ").expect("a command")).0, 0);
    assert_eq!(stage.json("credential get acme app")["credential"]["enabled"], true);
}

#[test]
fn an_undo_makes_no_grant_longer_than_it_was() {
    const END: &str = "2090-01-01T00:00:00Z";
    let stage = Stage::new();
    // A grant with an end is kept by a reset, and by a replacement.
    for change in ["reset acme app --yes", "replace acme app it's -force --yes"] {
        stage.good("credential replace acme app --allow-empty --yes");
        stage.good(&format!("credential grant acme app it's --expires-at {END}"));
        stage.good("credential grant acme app read");
        let before = stage.grants("app");
        let change = change.replace("it's -force", "it's");
        let out = stage.good(&format!("credential {change}"));
        let line = undo(&out).expect("an undo");
        assert!(!line.contains("replace") && !line.contains("it'"), "{line}");
        stage.paste(line);
        assert_eq!(stage.grants("app"), before, "{line}");
    }
    // `write` ends never and implies `read`, which has an end: no grant of `write` brings that back.
    stage.good("credential replace acme bare --allow-empty --yes");
    stage.good(&format!("credential grant acme bare read --expires-at {END}"));
    stage.good("credential grant acme bare write --expires-at 2080-01-01T00:00:00Z");
    let before = stage.grants("bare");
    let out = stage.good("credential revoke acme bare write --yes");
    stage.paste(undo(&out).expect("an undo"));
    assert_eq!(stage.grants("bare"), before);
    // The end that a grant takes away is said, with and without a line.
    let out = stage.good("credential grant acme bare write --expires-at 2085-01-01T00:00:00Z");
    assert_eq!(undo(&out), None, "{out}");
    assert!(out.contains("expires later") && out.contains("no undo line"), "{out}");
    let json = stage.json("credential grant acme bare write read");
    assert!(json.get("undo").is_none(), "{json}");
    assert!(json["undoNotes"][0].as_str().is_some_and(|note| note.contains("read write")));
    stage.good("credential replace acme bare --allow-empty --yes");
    stage.good(&format!("credential grant acme bare read --expires-at {END}"));
    let out = stage.good("credential grant acme bare write");
    assert!(out.contains("no longer expires") && undo(&out).is_some(), "{out}");
    assert!(out.contains("does not restore the earlier expiry of read"), "{out}");
}

#[test]
fn an_undo_keeps_changes_of_other_callers() {
    let stage = Stage::new();
    for (change, others, format) in [
        ("credential update acme app --label One", "credential disable acme app --yes", "table"),
        ("credential disable acme bare --yes", "credential update acme bare --label Two", "json"),
        (
            "credential replace acme app read --yes",
            "credential revoke acme app it's --yes",
            "table",
        ),
        ("credential reset acme bare --yes", "credential grant acme bare it's", "json"),
        ("consent put acme app ada --yes", "consent put acme app ada read --yes", "table"),
        ("user put acme ada reader --yes", "user put acme ada --yes", "json"),
        ("company update acme --display-name One", "company disable acme --yes", "table"),
        ("company enable acme", "company update acme --display-name Two", "json"),
    ] {
        // All is as it was before, each time.
        for words in [
            "company enable acme",
            "company update acme --display-name Acme",
            "credential enable acme app",
            "credential enable acme bare",
            "credential update acme app --label Payroll",
            "credential update acme bare --label None",
            "credential replace acme app write it's --yes",
            "credential replace acme bare --allow-empty --yes",
            "user put acme ada reader writer",
            "consent put acme app ada write",
        ] {
            stage.good(words);
        }
        if change.starts_with("company enable") {
            stage.good("company disable acme --yes");
        }
        let words = format!("{change} --output {format}");
        let (code, out, err) = stage.overtaken(&words, || drop(stage.good(others)));
        assert_eq!(code, 0, "{change}: {out}{err}");
        let why = "no undo line: something else was changed meanwhile";
        assert!(undo(&out).is_none() && !out.contains("\"undo\""), "{change}: {out}");
        assert!(out.contains(why), "{change}: {out}");
    }
    // A command that changes nothing does not undo the other's change.
    stage.good("company update acme --display-name One");
    let other = || drop(stage.good("company disable acme --yes"));
    let (_, out, _) = stage.overtaken("company update acme --display-name One", other);
    assert!(undo(&out).is_none() && out.contains("disabled"), "{out}");
    // Nothing comes between: there is a line.
    stage.good("company enable acme");
    let (_, out, _) = stage.overtaken("company disable acme --yes", || ());
    assert!(undo(&out).is_some(), "{out}");
}

#[test]
fn an_undo_of_a_restriction_does_not_widen_the_ceiling() {
    let stage = Stage::new();
    stage.good("company restrict acme -- it's --yes --affected 1".replace("-- ", "").as_str());
    stage.good("company add-scopes acme it's");
    let catalog = stage.dir.path().join("next.yaml");
    let text = CATALOG.replace("\"it's\": {}", "\"it's\": { implies: [fresh] }\n  fresh: {}");
    fs::write(&catalog, text).expect("written");
    let out = stage.good(&format!("catalog apply {} --yes", catalog.display()));
    assert!(out.contains("fresh"), "{out}");
    let out = stage.good("company restrict acme it's --yes --affected 0");
    assert_eq!(undo(&out), None, "{out}");
    assert!(out.contains("no undo line: "), "{out}");
}

#[test]
fn an_undo_reaches_the_same_server_from_elsewhere() {
    let stage = Stage::new();
    let root = stage.json("keys create root --role operator");
    let home = stage.dir.path();
    fs::create_dir(home.join("work")).expect("made");
    let key = home.join("root.key");
    fs::write(&key, root["secret"].as_str().expect("a secret")).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    let url = stage.server.url();
    let context = |url: &str| {
        let text = format!("contexts:\n  here: {{ endpoint: \"{url}\", key_file: root.key }}\n");
        fs::write(home.join("config.yaml"), text).expect("written");
    };
    context(&url);
    // The context wins over the variable, and its files are beside the config file.
    let mut command = scopegate();
    command.args(["credential", "disable", "acme", "app", "--yes", "--context", "here"]);
    command.env("SCOPEGATE_CONFIG", "../config.yaml").env("SCOPEGATE_ENDPOINT", "127.0.0.1:1");
    command.current_dir(home.join("work")).stdin(Stdio::null());
    let (code, out, err) = read(command.output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
    let line = undo(&out).expect("an undo");
    assert!(line.contains(&format!("--endpoint {url} --context here")), "{line}");
    let variable = out.split_whitespace().find(|word| word.starts_with("SCOPEGATE_CONFIG="));
    let config = variable.and_then(|word| word.split_once('=')).expect("the whole path").1;
    assert!(config.starts_with('/'), "{out}");
    // The context's address is another one by now; its key is the same.
    context("http://127.0.0.1:1");
    let words = line.strip_prefix("scopegate ").expect("a command").split_whitespace();
    let mut again = scopegate();
    again.args(words).env("SCOPEGATE_CONFIG", config).current_dir("/").stdin(Stdio::null());
    let (code, _, err) = read(again.output().expect("it runs"));
    assert_eq!(code, 0, "{err}");
}
