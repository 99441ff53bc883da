//! Golden files: what the program writes that others read, kept in `tests/golden`.
//!
//! - `cli/*.txt`: the JSON of the commands, one file for each family. Scripts parse it.
//! - `schema2/store.tar.gz` and `schema2/backup`: a store and a backup that an earlier build wrote.
//!   Every later build must open the one and restore the other. `store.txt` and `backup.txt` have
//!   what a server then answers.
//!
//! A `.txt` file is a transcript: the test runs each line that begins with `$ `, and compares the
//! output with the lines below it. To renew the transcripts, and to record lines that were added:
//!
//! ```sh
//! UPDATE_GOLDEN=1 cargo test golden
//! git diff tests/golden
//! ```
//!
//! A store or a backup that exists is never renewed: it stands for the files that users have. When
//! the number of the store's schema changes, add a folder `schemaN` with the three transcripts of
//! the last one; the command above makes its store and its backup.
//!
//! Values that differ from run to run have a name instead: `SERVER`, `TIME`, `UUID`, and `ETAG-1`,
//! `ID-1`, `KEY-1`, `SECRET-1`, `CODE-1` with a number for each value. A command can use these names.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::harness::{Server, scopegate};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

const HOW_TO_RENEW: &str =
    "if this change is wanted: `UPDATE_GOLDEN=1 cargo test golden`, then `git diff tests/golden`";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_renewing() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The names of values that differ from run to run.
struct Names {
    named: Vec<(String, String)>,
    /// Times from then on differ; those of a store that was made earlier do not.
    began: Timestamp,
}

impl Names {
    /// The name of a value; a new one for a value that was not seen before.
    fn of(&mut self, kind: &str, value: &str) -> String {
        if let Some((name, _)) = self.named.iter().find(|(_, known)| known == value) {
            return name.clone();
        }
        let number = 1 + self.named.iter().filter(|(name, _)| name.starts_with(kind)).count();
        let name = format!("{kind}-{number}");
        self.named.push((name.clone(), value.to_owned()));
        name
    }

    /// Text with the values that these names stand for.
    fn resolved(&self, text: &str) -> String {
        each_word(text, |word| {
            let value = self.named.iter().find(|(name, _)| name == word);
            value.map(|(_, value)| value.clone())
        })
    }

    /// Text with names instead of values that differ from run to run.
    fn masked(&mut self, text: &str, address: &str) -> String {
        let is_hex = |word: &str| word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        each_word(text, |word| match word.len() {
            _ if word == address => Some("SERVER".to_owned()),
            _ if word.starts_with("sgk_") => Some(self.of("KEY", word)),
            _ if word.starts_with("sgs_") => Some(self.of("SECRET", word)),
            _ if word.starts_with("sgc_") => Some(self.of("CODE", word)),
            32 if is_hex(word) => Some(self.of("ETAG", word)),
            24 if is_hex(word) => Some(self.of("ID", word)),
            36 if uuid::Uuid::try_parse(word).is_ok() => Some("UUID".to_owned()),
            20.. if self.is_of_this_run(word) => Some("TIME".to_owned()),
            _ => None,
        })
    }

    fn is_of_this_run(&self, word: &str) -> bool {
        let soon = Timestamp::now() + SignedDuration::from_mins(2);
        word.parse().is_ok_and(|time| self.began <= time && time < soon)
    }
}

/// Text with other words where there are some.
fn each_word(text: &str, mut other: impl FnMut(&str) -> Option<String>) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let mut written = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        written.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let run = &rest[..end];
        // The end of a sentence is no part of its last word.
        let word = run.trim_end_matches(['.', ':']);
        written.push_str(&other(word).unwrap_or_else(|| word.to_owned()));
        written.push_str(&run[word.len()..]);
        rest = &rest[end..];
    }
    written + rest
}

/// Runs commands on a server, as a user with a shell.
struct Shell {
    home: TempDir,
    server: Server,
    names: Names,
}

impl Shell {
    fn of(server: Server, names: Names) -> Self {
        Self { home: dir(), server, names }
    }

    /// A new store with the catalog of the golden files.
    fn on_new_store(store: &Path, args: &[&str]) -> Self {
        // Some times are rounded to the minute.
        let began = Timestamp::now() - SignedDuration::from_mins(2);
        let catalog = folder().join("catalog.yaml");
        let catalog = ["--catalog", catalog.to_str().expect("a path")];
        let server = Server::start(store, &[&catalog[..], args].concat());
        Self::of(server, Names { named: Vec::new(), began })
    }

    /// `[NAME=VALUE...] scopegate ARG... [< INPUT]`: what it prints, and its exit code unless 0.
    fn run(&mut self, line: &str) -> String {
        let words = shlex::split(&self.names.resolved(line)).expect("words");
        let start = words.iter().position(|word| word == "scopegate").expect("`scopegate`");
        let end = words.iter().position(|word| word == "<").unwrap_or(words.len());
        let mut command = scopegate();
        command.env("SCOPEGATE_ENDPOINT", self.server.url());
        command.env("XDG_CONFIG_HOME", self.home.path()).current_dir(folder());
        for word in &words[..start] {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            command.env(name, value);
        }
        command.args(&words[start + 1..end]);
        let input = words.get(end + 1).map_or("", String::as_str);
        let (code, printed) = output_of(command, input);
        let mut printed = self.names.masked(&printed, &self.server.address);
        if !printed.is_empty() && !printed.ends_with('\n') {
            printed.push('\n');
        }
        if code != 0 {
            writeln!(printed, "exit code {code}").expect("written");
        }
        printed
    }

    /// Runs commands that must succeed; what they print is not compared.
    fn fill(&mut self, file: &Path) {
        let commands = fs::read_to_string(file).expect("readable");
        for command in commands.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let printed = self.run(command);
            assert!(!printed.contains("exit code"), "{command}: {printed}");
        }
    }

    /// Runs the commands of a transcript, and compares what they print.
    fn replay(&mut self, file: &Path) {
        let kept = fs::read_to_string(file).expect("a transcript");
        let mut found = String::new();
        for line in kept.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                writeln!(found, "{line}\n{}", self.run(command)).expect("written");
            } else if line.starts_with("# ") {
                writeln!(found, "{line}").expect("written");
            }
        }
        let found = format!("{}\n", found.trim_end());
        if is_renewing() {
            return fs::write(file, found).expect("written");
        }
        let mut command = "";
        let mut lines = (kept.lines(), found.lines());
        for number in 1.. {
            let (expected, printed) = (lines.0.next(), lines.1.next());
            if expected == printed {
                let Some(line) = expected else { return };
                command = if line.starts_with("$ ") { line } else { command };
                continue;
            }
            panic!(
                "{}, line {number}, below `{command}`:\n  expected: {}\n  printed:  {}\n{HOW_TO_RENEW}",
                file.display(),
                expected.unwrap_or("the end"),
                printed.unwrap_or("the end"),
            );
        }
    }
}

fn output_of(mut command: Command, input: &str) -> (i32, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    // A command that reads no input may have ended by now.
    child.stdin.take().expect("an input").write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().expect("it ends");
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.code().expect("an exit code"), printed)
}

fn succeeded(command: Command) {
    let (code, printed) = output_of(command, "");
    assert_eq!(code, 0, "{printed}");
}

/// The transcript of a family of commands, on a store that `setup.txt` has filled.
fn family(name: &str, args: &[&str]) {
    let store = dir();
    let mut shell = Shell::on_new_store(store.path(), args);
    shell.fill(&folder().join("setup.txt"));
    shell.replay(&folder().join("cli").join(name).with_extension("txt"));
}

macro_rules! families {
    ($($test:ident: $name:literal $($args:expr)?),* $(,)?) => {
        $(#[test]
        fn $test() {
            let args: &[&[&str]] = &[$(&$args)?];
            family($name, &args.concat());
        })*

        #[test]
        fn golden_json_has_a_test_for_each_transcript() {
            let files = fs::read_dir(folder().join("cli")).expect("readable");
            let names = files.map(|file| file.expect("a file").path());
            let mut names: Vec<_> =
                names.map(|path| path.file_stem().expect("a name").to_owned()).collect();
            names.sort();
            assert_eq!(names, [$($name),*]);
        }
    };
}

/// A server that issues tokens.
const ISSUER: [&str; 4] = ["--oauth", "127.0.0.1:0", "--issuer", "https://id.example.org"];

families! {
    golden_json_of_authorization_code: "authorization-code" ISSUER,
    golden_json_of_catalog: "catalog",
    golden_json_of_changes: "changes",
    golden_json_of_checks: "checks",
    golden_json_of_company: "company",
    golden_json_of_consent: "consent",
    golden_json_of_context: "context",
    golden_json_of_credential: "credential",
    golden_json_of_files: "files",
    golden_json_of_keys: "keys",
    golden_json_of_scope: "scope",
    golden_json_of_secret: "secret",
    golden_json_of_user: "user",
}

/// The folders of all schemas, oldest first.
fn schemas() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("readable").map(|entry| entry.expect("one").path());
    let is_schema = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.starts_with("schema")
    };
    let mut found: Vec<_> = entries.filter(is_schema).collect();
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    assert!(!found.is_empty());
    found
}

fn tar(action: &str, archive: &Path, of: &Path) {
    let mut tar = Command::new("tar");
    tar.arg(action).arg(archive).arg("-C").arg(of);
    if action.contains('c') {
        tar.args(["--owner=0", "--group=0", "--sort=name", "store"]);
    } else {
        tar.arg("--no-same-owner");
    }
    succeeded(tar);
}

/// Makes the store and the backup of a schema's folder, if it has none, by the commands of
/// `world.txt`, and keeps the keys and secrets that these showed.
fn make(schema: &Path) {
    static ONCE: Mutex<()> = Mutex::new(());
    let _made = ONCE.lock().expect("the other test has made them");
    if !is_renewing() || schema.join("store.tar.gz").exists() {
        return;
    }
    let parent = dir();
    let mut shell = Shell::on_new_store(&parent.path().join("store"), &[]);
    shell.fill(&schema.join("world.txt"));
    let mut secrets = String::new();
    let mut backup = scopegate();
    for (name, value) in &shell.names.named {
        if name.starts_with("KEY-") || name.starts_with("SECRET-") {
            writeln!(secrets, "{name} {value}").expect("written");
        }
        if name == "KEY-1" {
            backup.env("SCOPEGATE_KEY", value);
        }
    }
    fs::write(schema.join("secrets"), secrets).expect("written");
    backup.args(["backup", "--endpoint", &shell.server.url(), "--output"]);
    backup.arg(schema.join("backup"));
    succeeded(backup);
    assert!(shell.server.terminate().success());
    tar("czf", &schema.join("store.tar.gz"), parent.path());
}

/// The transcript of what a server answers from this store.
fn served(schema: &Path, transcript: &str, store: &Path, began: Timestamp) -> Shell {
    let secrets = fs::read_to_string(schema.join("secrets")).expect("readable");
    let named = secrets.lines().map(|line| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        (name.to_owned(), value.to_owned())
    });
    let names = Names { named: named.collect(), began };
    let mut shell = Shell::of(Server::start(store, &[]), names);
    shell.replay(&schema.join(transcript));
    shell
}

#[test]
fn golden_stores_of_every_schema_are_opened() {
    for schema in schemas() {
        make(&schema);
        let (parent, began) = (dir(), Timestamp::now());
        tar("xzf", &schema.join("store.tar.gz"), parent.path());
        let store = parent.path().join("store");
        let shell = served(&schema, "store.txt", &store, began);
        if schema == *schemas().last().expect("one") {
            let upgraded = shell.server.logged("the store was upgraded");
            assert_eq!(
                upgraded,
                0,
                "there is a newer schema: add a folder for it, see {}",
                file!()
            );
        }
        // The program goes on from what it wrote itself.
        assert!(shell.server.terminate().success());
        assert!(Server::start(&store, &[]).terminate().success());
    }
}

#[test]
fn golden_backups_of_every_schema_are_restored() {
    for schema in schemas() {
        make(&schema);
        let (parent, began) = (dir(), Timestamp::now());
        let store = parent.path().join("store");
        let mut restore = scopegate();
        restore.arg("restore").arg(schema.join("backup")).arg("--data-dir").arg(&store);
        succeeded(restore);
        served(&schema, "backup.txt", &store, began);
    }
}
