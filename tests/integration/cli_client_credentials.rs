//! The command line with what a client presents: a token or a header, from a file or standard input.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use scopegate::proto::CreateSecretRequest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::token_issuer::{NAME, TokenIssuer};
use crate::harness::{Server, scopegate};

/// A served company `acme` with the credential `hr`, its issuer, and the credential's secret.
struct Platform {
    dir: TempDir,
    server: Server,
    issuer: TokenIssuer,
    secret: String,
}

/// How a command ended: its code, standard output and standard error.
type Ended = (i32, String, String);

impl Platform {
    async fn new() -> Self {
        let (dir, issuer) = (tempfile::tempdir().expect("a directory"), TokenIssuer::new());
        let catalog = issuer.catalog(dir.path());
        let decisions = dir.path().join("decisions.jsonl");
        let args = ["--catalog", catalog.to_str().expect("a path"), "--decision-log"];
        let args = [&args[..], &[decisions.to_str().expect("a path")]].concat();
        let server = Server::start(&dir.path().join("store"), &args);
        let client = server.client().await;
        client.create_company("acme", None).await;
        client.create_credential("acme", "hr", &["users:read"]).await;
        client.put_user("acme", "auth0|ada", &["reader"]).await;
        let create = CreateSecretRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            ..Default::default()
        };
        let secret = client.directory.clone().create_secret(create).await.expect("a secret");
        let secret = secret.into_inner().secret;
        Self { dir, server, issuer, secret }
    }

    /// Writes a file that only its owner can read, and returns its name.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path.to_str().expect("a path").to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = scopegate();
        command
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("SCOPEGATE_ENDPOINT", self.server.url());
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str) -> Ended {
        self.tell(line, "")
    }

    /// Runs it with this on standard input.
    fn tell(&self, line: &str, input: &str) -> Ended {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut child = self.command(&words).stdin(Stdio::piped()).spawn().expect("it runs");
        // A command that reads no input may have ended.
        child.stdin.take().expect("an input").write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
    }
}

fn squeezed(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn token_and_header_are_read_from_files_and_standard_input() {
    let platform = Platform::new().await;
    let token = platform.issuer.token(json!({}));
    let token_file = platform.file("token", &format!("{token}\r\n"));
    let header_file = platform.file("header", &format!("Bearer {}\n", platform.secret));
    let allowed = "decision ALLOWED\nreach ALL\ncompany acme\ncredential hr\nrevision 5\n";
    for line in [
        format!("check --bearer-token {token_file} users:read"),
        format!("check users:read --authorization {header_file}"),
        format!("check --bearer-token {token_file} --method GET --path /users"),
        format!("check --bearer-token {token_file} --company acme --credential hr users:read"),
    ] {
        let line = if line.contains("--path") { line } else { format!("{line} --audience api") };
        let (code, out, err) = platform.run(&line);
        assert_eq!((code, squeezed(&out).trim(), &*err), (0, allowed.trim(), ""), "{line}");
    }
    let (code, out, err) =
        platform.tell("check --audience api --bearer-token - users:read", &format!("{token}\n"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // A user of the token is shown, too.
    let of_ada = platform.issuer.token(json!({ "sub": "auth0|ada" }));
    let line = "check --audience api --bearer-token - users:read";
    assert!(squeezed(&platform.tell(line, &of_ada).1).contains("user auth0|ada"));
    // All arguments are scopes, and all are needed.
    let line = format!("check --audience api --bearer-token {token_file} users:read users:write");
    let (code, out, _) = platform.run(&format!("{line} --output json"));
    let response: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &response["missingScopes"]), (1, &json!(["users:write"])));
    assert_eq!(response["companyId"], "acme");
    let (code, out, _) =
        platform.run(&format!("explain --audience api --bearer-token {token_file} users:write"));
    assert_eq!(code, 0);
    assert!(squeezed(&out).contains("company acme\ncredential hr"), "{out}");
    assert!(squeezed(&out).contains("users:write credential SCOPE_NOT_GRANTED"), "{out}");
    let (code, out, err) =
        platform.run(&format!("effective --audience api --authorization {header_file}"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(squeezed(&out).contains("users:read ALL Read users"), "{out}");
}

#[tokio::test]
async fn wrong_token_is_a_denial_and_a_wrong_file_is_an_error_without_its_text() {
    let platform = Platform::new().await;
    let forged = TokenIssuer::new().token(json!({}));
    let forged_file = platform.file("forged", &forged);
    let empty_file = platform.file("empty", "");
    for (flag, file, reason) in [
        ("--bearer-token", &forged_file, "TOKEN_INVALID"),
        ("--bearer-token", &empty_file, "TOKEN_INVALID"),
        ("--authorization", &empty_file, "TOKEN_REQUIRED"),
        ("--authorization", &forged_file, "TOKEN_REQUIRED"),
    ] {
        let (code, out, err) =
            platform.run(&format!("check --audience api {flag} {file} users:read"));
        assert_eq!((code, err.as_str()), (1, ""), "{out}");
        let out = squeezed(&out);
        assert!(out.contains(&format!("reason {reason}\n")) && !out.contains("company "), "{out}");
    }
    let secret = &platform.secret;
    let long = platform.file("long", &"x".repeat(1 << 17));
    let directory = platform.dir.path().to_str().expect("a path").to_owned();
    for (given, says) in [
        (forged.as_str(), "not a token or a secret"),
        (secret, "not a token or a secret"),
        ("Basic", "not a token or a secret"),
        ("no/such-file", "cannot be read (entity not found)"),
        (&directory, "cannot be read (is a directory)"),
        (&long, "more than 65536 bytes"),
    ] {
        for flag in ["--bearer-token", "--authorization"] {
            let output = platform.command(&["check", flag, given, "users:read"]).output();
            let output = output.expect("it runs");
            let err = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{err}");
            assert!(err.contains(says) && err.contains(flag) && !err.contains(given), "{err}");
        }
    }
    let open = platform.file("open", &forged);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("set");
    let (_, _, err) =
        platform.run(&format!("check --bearer-token {open} users:read --audience api"));
    assert!(err.contains("chmod 600"), "{err}");
    for (line, says) in [
        ("check users:read", "required"),
        ("check --company acme --credential hr acme hr users:read", "--bearer-token"),
        (&format!("check --bearer-token {open} --authorization {open} a"), "cannot be used with"),
        (&format!("check --bearer-token {open} --token a"), "must not be set together"),
        (&format!("check --bearer-token {open} --audience api"), "SCOPE"),
        (&format!("effective acme hr --bearer-token {open}"), "with --company and --credential"),
        (&format!("explain --at 10:00 --bearer-token {open} a"), "the logs have no tokens"),
        (&format!("explain --decision-log x --authorization {open}"), "the logs have no tokens"),
        ("batch - --bearer-token -", "cannot both come from standard input"),
    ] {
        let (code, out, err) = platform.run(line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains(says), "{line}: {err}");
    }
}

#[tokio::test]
async fn file_of_checks_has_tokens_of_its_own_or_is_of_one_client() {
    let platform = Platform::new().await;
    let token = platform.issuer.token(json!({}));
    let header = format!("Bearer {}", platform.secret);
    let check = json!({ "scopes": ["users:read"], "audience": "api" });
    let with = |changes: Value| {
        let mut check = check.clone();
        for (name, value) in changes.as_object().expect("an object") {
            check[name] = value.clone();
        }
        check.to_string()
    };
    let lines = [
        with(json!({ "bearer_token": token })),
        with(json!({ "authorization": header, "company_id": "acme" })),
        with(json!({ "authorization": "Basic nonsense", "expect": "denied" })),
        with(json!({ "company_id": "acme", "credential_id": "hr" })),
    ];
    let (code, out, err) = platform.tell("batch -", &lines.join("\n"));
    assert_eq!((code, err.as_str()), (0, "4 checks: 3 allowed, 1 denied; 0 not as expected\n"));
    let expected = [
        "1 ALLOWED acme hr users:read",
        "2 ALLOWED acme hr users:read",
        "3 DENIED - - users:read CREDENTIAL_UNKNOWN -users:read",
        "4 ALLOWED acme hr users:read",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    // One client for all lines, which need no ids then.
    let file = platform.file("token", &token);
    let csv = "method,path,expect\nGET,/users,allowed\n";
    let (code, out, err) = platform.tell(&format!("batch - --bearer-token {file}"), csv);
    assert_eq!((code, out.as_str()), (0, "2 ALLOWED acme hr GET /users\n"), "{err}");
    let (code, _, err) = platform.tell("batch -", csv);
    assert_eq!(code, 2);
    assert!(err.contains("the column `company_id` is missing"), "{err}");
    let (code, _, err) = platform.tell("batch -", &check.to_string());
    assert_eq!(code, 2);
    assert!(err.contains("line 1: `company_id`"), "{err}");
}

#[tokio::test]
async fn decision_log_names_verified_tokens_and_past_decisions_are_found_beside_unproven_ones() {
    let platform = Platform::new().await;
    let token = platform.issuer.token(json!({ "scope": "users:write" }));
    let forged = TokenIssuer::new().token(json!({ "jti": "forged-id" }));
    for (token, says) in [(&token, "SCOPE_NOT_IN_TOKEN"), (&forged, "TOKEN_INVALID")] {
        let (code, out, _) =
            platform.tell("check --audience api --bearer-token - users:read", token);
        assert_eq!(code, 1);
        assert!(out.contains(says), "{out}");
    }
    let Platform { dir, server, issuer, secret } = platform;
    assert!(server.terminate().success(), "the log is whole");
    let log = dir.path().join("decisions.jsonl");
    let lines = fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [verified, unproven] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(
        (&verified["token_issuer"], &verified["token_id"]),
        (&json!(NAME), &json!("token-7f"))
    );
    let keys = ["company_id", "credential_id", "token_issuer", "token_id"];
    assert!(keys.iter().all(|key| unproven.get(key).is_none()), "{unproven}");
    let server = Server::start(&dir.path().join("store"), &[]);
    let platform = Platform { dir, server, issuer, secret };
    let line = format!("explain acme hr --audience api --decision-log {}", log.display());
    let (code, out, err) = platform.run(&format!("{line} --token-scope users:write"));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let out = squeezed(&out);
    assert!(out.contains(&format!("token token-7f of {NAME}")), "{out}");
    assert!(out.contains("logged DENIED SCOPE_NOT_IN_TOKEN"), "{out}");
    assert!(!out.contains("could not be read"), "{out}");
}
