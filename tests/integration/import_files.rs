//! Files as people have them: with ids that come twice, with content that is not that of the
//! store, and as other programs write a text. By the real command, on a real server.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Client, Server, scopegate};
use scopegate::proto::*;
use serde_json::Value;
use tempfile::TempDir;

/// The server of the 360Learning example, and a directory for files.
fn demo() -> (TempDir, Server) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("store"), &["--demo"]);
    (dir, server)
}

fn run(dir: &Path, server: &Server, words: &str) -> (i32, String) {
    let mut command = scopegate();
    command.args(words.split_whitespace()).args(["--endpoint", &server.url()]);
    command.env("XDG_CONFIG_HOME", dir).current_dir(dir).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().expect("a code"), String::from_utf8(said).expect("text"))
}

async fn exists(client: &Client, credential: &str) -> bool {
    client.credential("acme", credential).await.is_ok()
}

#[tokio::test]
async fn an_id_that_comes_twice_with_other_content_ends_the_import() {
    let (dir, server) = demo();
    let client = server.client().await;
    let company =
        r#"{"company_id":"acme","display_name":"Acme","scopes":["users:read","users:write"]}"#;
    let first = r#"{"company_id":"acme","credential_id":"k","label":"K","scopes":["users:read","users:write"]}"#;
    // The same content in other words.
    let same = r#"{"scopes":["users:write","users:read","users:read"],"enabled":true,"label":"K","credential_id":"k","company_id":"acme"}"#;
    let others = [
        r#"{"company_id":"acme","credential_id":"k","label":"L","scopes":["users:read","users:write"]}"#,
        r#"{"company_id":"acme","credential_id":"k","label":"K","scopes":["users:read"]}"#,
        r#"{"company_id":"acme","credential_id":"k","label":"K","scopes":["users:read","users:write"],"enabled":false}"#,
        r#"{"company_id":"acme","credential_id":"k","label":"K","scopes":["users:read","users:write"],"expires_at":"2090-01-01T00:00:00Z"}"#,
        r#"{"company_id":"acme","display_name":"ACME","scopes":["users:read","users:write"]}"#,
        r#"{"company_id":"acme","display_name":"Acme"}"#,
        r#"{"company_id":"acme","display_name":"Acme","scopes":[]}"#,
    ];
    let behind = r#"{"company_id":"acme","credential_id":"behind"}"#;
    for dry in [" --dry-run", ""] {
        for other in others {
            let text = format!("{company}\n{first}\n\n{other}\n{behind}\n");
            fs::write(dir.path().join("twice"), text).expect("written");
            let (code, said) = run(dir.path(), &server, &format!("import twice{dry}"));
            let before = if other.contains("credential_id") { 2 } else { 1 };
            assert_eq!(code, 2, "{other}: {said}");
            assert!(said.contains("line 4: "), "{said}");
            assert!(said.contains(&format!("line {before}, with other content")), "{said}");
        }
        if !dry.is_empty() {
            assert!(!exists(&client, "k").await, "a dry run writes nothing");
        }
    }
    assert!(!exists(&client, "behind").await, "what stands behind is not written");
    let kept = client.credential("acme", "k").await.expect("written");
    assert_eq!((kept.label.as_str(), kept.enabled, kept.expires_at), ("K", true, None));
    // Far apart, and equal: counted as existing.
    let mut text = format!("{company}\n{first}\n");
    for n in 0..2_500 {
        text.push_str(&format!("{{\"company_id\":\"acme\",\"credential_id\":\"c{n}\"}}\n"));
    }
    fs::write(dir.path().join("far"), format!("{text}{same}\n{company}\n")).expect("written");
    let (code, said) = run(dir.path(), &server, "import far");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("2500 credentials; 4 existed already; revision"), "{said}");
    let far = format!("{text}{}\n", others[0]);
    fs::write(dir.path().join("far"), far).expect("written");
    let (code, said) = run(dir.path(), &server, "import far");
    assert!(code == 2 && said.contains("line 2503: ") && said.contains("line 2,"), "{said}");
}

#[tokio::test]
async fn existing_items_with_other_content_are_counted_and_listed() {
    let (dir, server) = demo();
    let path = dir.path();
    let file = |name: &str, lines: &[String]| {
        fs::write(path.join(name), lines.join("\n")).expect("written");
    };
    let line = |n: usize, rest: &str| {
        format!("{{\"company_id\":\"acme\",\"credential_id\":\"k{n:02}\"{rest}}}")
    };
    let company = |name: &str| {
        format!(
            "{{\"company_id\":\"acme\",\"display_name\":\"{name}\",\"scopes\":[\"users:read\",\"users:write\"]}}"
        )
    };
    let first: Vec<_> = std::iter::once(company("Acme"))
        .chain((0..30).map(|n| line(n, ",\"label\":\"K\",\"scopes\":[\"users:read\"]")))
        .collect();
    file("first", &first);
    assert_eq!(run(path, &server, "import first").0, 0);
    let (_, said) = run(path, &server, "import first");
    assert!(said.contains("31 existed already; revision"), "the same: {said}");
    let changed = [
        company("ACME"),
        line(0, ",\"label\":\"other\",\"scopes\":[\"users:read\"]"),
        line(1, ",\"label\":\"K\",\"scopes\":[\"users:read\",\"users:write\"]"),
        line(2, ",\"label\":\"K\",\"scopes\":[\"users:read\"],\"enabled\":false"),
        line(
            3,
            ",\"label\":\"K\",\"scopes\":[\"users:read\"],\"expires_at\":\"2090-01-01T00:00:00Z\"",
        ),
        line(4, ",\"label\":\"K\",\"scopes\":[\"users:read\"]"),
        line(99, ""),
    ];
    file("changed", &changed);
    for (dry, done) in [(" --dry-run", "would create"), ("", "created")] {
        let (code, said) = run(path, &server, &format!("import changed{dry}"));
        assert_eq!(code, 0, "{said}");
        let summary = format!(
            "{done} 0 companies and 1 credential; 6 existed already, 5 of them with other content"
        );
        assert!(said.starts_with(&summary), "{said}");
        let rows: Vec<Vec<_>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
        for row in [
            ["1", "acme", "-", "display_name"],
            ["2", "acme", "k00", "label"],
            ["3", "acme", "k01", "scopes"],
            ["4", "acme", "k02", "enabled"],
            ["5", "acme", "k03", "expires_at"],
        ] {
            assert!(rows.iter().any(|found| found == &row), "{row:?}: {said}");
        }
        assert!(!said.contains("k04"), "{said}");
    }
    let client = server.client().await;
    assert_eq!(client.credential("acme", "k00").await.expect("there").label, "K", "left as it is");
    let (code, said) = run(path, &server, "import changed --output json");
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &json["differingCount"]), (0, &Value::from("5")), "{said}");
    assert_eq!(json["differing"][1]["fields"], serde_json::json!(["label"]));
    // Only the first 20 are listed, all are counted.
    let many: Vec<_> = (0..30).map(|n| line(n, ",\"label\":\"many\"")).collect();
    file("many", &many);
    let (_, said) = run(path, &server, "import many");
    assert!(said.contains("30 of them with other content"), "{said}");
    assert!(said.contains("k19") && !said.contains("k20"), "{said}");
    assert!(said.contains("and 10 more with other content"), "{said}");
    // A grant that no longer counts is a difference, too.
    run(path, &server, "company restrict acme users:read --yes --affected 31");
    let restricted = client.credential("acme", "k04").await.expect("there");
    if restricted.effective_scopes.is_empty() {
        file("again", &[line(4, ",\"label\":\"K\",\"scopes\":[\"users:read\"]")]);
        let (_, said) = run(path, &server, "import again");
        assert!(said.contains("k04") && said.contains("scopes"), "{said}");
    }
}

#[tokio::test]
async fn redirect_uris_are_exported_and_imported() {
    let ((dir, from), (_other, to)) = (demo(), demo());
    let path = dir.path();
    let good = |server: &Server, words: &str| {
        let (code, said) = run(path, server, words);
        assert_eq!(code, 0, "{words}: {said}");
        said
    };
    let uris = "--redirect-uri https://app.example.org/cb?a=b --redirect-uri org.example.app:/cb";
    good(&from, "company create acme");
    good(&from, &format!("credential create acme app users:read {uris}"));
    good(&from, "credential create acme plain users:read");
    good(&from, "export --output all.jsonl");
    good(&to, "import all.jsonl");
    let (ours, theirs) = (from.client().await, to.client().await);
    let exported = ours.credential("acme", "app").await.expect("there").redirect_uris;
    assert_eq!(exported, ["https://app.example.org/cb?a=b", "org.example.app:/cb"]);
    assert_eq!(theirs.credential("acme", "app").await.expect("there").redirect_uris, exported);
    assert_eq!(theirs.credential("acme", "plain").await.expect("there").redirect_uris, [""; 0]);
    let said = good(&to, "import all.jsonl");
    assert!(!said.contains("with other content"), "the same: {said}");
    // Other URIs are a difference, and do not replace the present ones.
    good(&from, "credential update acme app --no-redirect-uris --yes");
    good(&from, "export --output later.jsonl");
    let said = good(&to, "import later.jsonl");
    assert!(said.contains("1 of them with other content"), "{said}");
    assert!(said.contains("redirect_uris"), "{said}");
    assert_eq!(theirs.credential("acme", "app").await.expect("there").redirect_uris, exported);
    let wrong =
        r#"{"company_id":"acme","credential_id":"new","redirect_uris":["http://a.example/"]}"#;
    fs::write(path.join("wrong"), wrong).expect("written");
    let (code, said) = run(path, &to, "import wrong");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("redirect_uris") && !exists(&theirs, "new").await, "{said}");
}

/// A text as UTF-16 with its byte order mark.
fn utf16(text: &str) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// Windows' way to write a text: a byte order mark, `\r\n`, and no end of the last line.
fn windows(text: &str) -> Vec<u8> {
    format!("\u{feff}{}", text.trim_end().replace('\n', "\r\n")).into_bytes()
}

#[tokio::test]
async fn every_file_is_read_as_other_programs_write_it() {
    let (dir, server) = demo();
    let path = dir.path();
    let test = "catalog: c.yaml\ncompanies:\n  acme:\n    credentials: { app: { scopes: [read] } }\n\
                tests:\n  - name: reads\n    check: { company: acme, credential: app, scopes: [read] }\n    \
                expect: { decision: allowed }\n";
    let log = "{\"time\":\"2026-01-01T00:00:00Z\",\"revision\":4,\"company_id\":\"demo\",\
               \"credential_id\":\"hr-sync\",\"scopes\":[\"users:write\"],\"decision\":\"ALLOWED\",\
               \"reason\":\"ALLOWED\"}\n";
    let line =
        "{\"company_id\":\"demo\",\"credential_id\":\"hr-sync\",\"scopes\":[\"users:read\"]}\n";
    let csv = "company_id,credential_id,scopes\n\ndemo,hr-sync,users:read\n";
    let item = "{\"company_id\":\"demo\",\"credential_id\":\"win\"}\n\n\
                {\"company_id\":\"demo\",\"credential_id\":\"win2\"}\n";
    let catalog = "scopes:\n  read: {}\n";
    let files = [
        ("import FILE", item),
        ("import FILE --dry-run", item),
        ("batch FILE", line),
        ("batch FILE", csv),
        ("catalog validate FILE", catalog),
        ("catalog diff FILE", catalog),
        ("catalog test FILE", test),
        ("explain demo hr-sync users:write --at-revision 4 --decision-log FILE", log),
        ("company get demo --key-file FILE", "sgk_x_y\n"),
    ];
    for (n, (command, text)) in files.into_iter().enumerate() {
        fs::write(path.join("c.yaml"), windows(catalog)).expect("written");
        let name = format!("file{n}");
        let tried = |bytes: &[u8]| {
            fs::write(path.join(&name), bytes).expect("written");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(path.join(&name), mode).expect("set");
            let command = command.replace("FILE", &name);
            if command.starts_with("catalog validate") || command.starts_with("catalog test") {
                let mut local = scopegate();
                local.args(command.split_whitespace()).current_dir(path);
                let output = local.stdin(Stdio::null()).output().expect("it runs");
                let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
                let said = String::from_utf8(said).expect("text");
                return (output.status.code().expect("a code"), said);
            }
            run(path, &server, &command)
        };
        for bytes in [text.as_bytes(), &windows(text)] {
            let (code, said) = tried(bytes);
            // A key is read if the server says that it does not know it.
            let is_read = code == 0 || said.contains("unknown API key");
            assert!(is_read, "{command}: {said}");
        }
        let (code, said) = tried(&utf16(text));
        assert_eq!((code, said.contains("save it as UTF-8")), (2, true), "{command}: {said}");
        // Without a mark, too.
        let (code, said) = tried(&utf16(text)[2..]);
        assert_eq!((code, said.contains("save it as UTF-8")), (2, true), "{command}: {said}");
        for nothing in ["", "\n", "\r\n \r\n", "\u{feff}", "\u{feff}\r\n"] {
            let (code, said) = tried(nothing.as_bytes());
            let says_so = said.contains("is empty") || said.contains("has no check");
            assert_eq!((code, says_so), (2, true), "{command} of {nothing:?}: {said}");
        }
    }
    let client = server.client().await;
    for id in ["win", "win2"] {
        let request = GetCredentialRequest { company_id: "demo".into(), credential_id: id.into() };
        client.directory.clone().get_credential(request).await.expect("imported");
    }
    // Contexts, of which there may be none.
    let config = path.join("scopegate");
    fs::create_dir(&config).expect("made");
    let text = format!("contexts:\n  here: {{ endpoint: \"{}\" }}\n", server.url());
    let by_context = |bytes: &[u8]| {
        fs::write(config.join("config.yaml"), bytes).expect("written");
        let mut command = scopegate();
        command.env("XDG_CONFIG_HOME", path).args(["company", "get", "demo", "--context", "here"]);
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    assert_eq!(by_context(&windows(&text)).0, Some(0));
    let (code, said) = by_context(&utf16(&text));
    assert_eq!((code, said.contains("save it as UTF-8")), (Some(2), true), "{said}");
    assert!(by_context(b"").1.contains("has no context `here`"));
    // A catalog that a server starts with.
    fs::write(path.join("c.yaml"), windows(catalog)).expect("written");
    let file = path.join("c.yaml");
    Server::start(&path.join("other"), &["--catalog", file.to_str().expect("a path")]).terminate();
}
