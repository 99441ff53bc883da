//! The commands under failure, on real servers: a server that is silent, stopped, or gone; an
//! output that is no file; text that deceives its readers.
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::harness;
use crate::harness::proxy::Proxy;
use crate::harness::{Client, Server, scopegate};
use clap::CommandFactory;
use scopegate::authority::{Authority, NewCompany, WriteOptions};
use scopegate::cli::command::Cli;
use scopegate::policy::id::CompanyId;
use scopegate::policy::text::first_deceptive;
use scopegate::proto::*;
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn demo(dir: &Path) -> Server {
    Server::start(dir, &["--demo"])
}

/// A command without a context of whoever runs the tests.
fn command(home: &Path, words: &[String]) -> Command {
    let mut command = scopegate();
    command.env("XDG_CONFIG_HOME", home).args(words).stdin(Stdio::null());
    command
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).into_string().expect("a name")).collect();
    names.sort();
    names
}

/// A port that takes every connection and never says a word.
fn silent_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// A way to a server that carries so many bytes of its answers and then no more, for each
/// connection. The connection stays open.
fn relay(server: &Server, bytes: usize) -> String {
    let to: SocketAddr = server.address.parse().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(to).expect("a server");
            let (mut from, mut into) =
                (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
            thread::spawn(move || std::io::copy(&mut from, &mut into).map(drop));
            thread::spawn(move || {
                let (mut near, far) = (near, far);
                let mut some = Read::take(&far, bytes as u64);
                std::io::copy(&mut some, &mut near).ok();
                // Until the command goes.
                let mut nothing = [0];
                while near.peek(&mut nothing).is_ok_and(|read| read > 0) {
                    thread::sleep(Duration::from_millis(20));
                }
                far.shutdown(Shutdown::Both).ok();
            });
        }
    });
    url
}

/// Every command that asks a server, with words that it takes: from the commands' own definition,
/// so that a new command is among them.
fn all_commands(files: &Path) -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], files: &Path, all: &mut Vec<Vec<String>>) {
        for child in command.get_subcommands() {
            let path = [path, &[child.get_name().to_owned()]].concat();
            walk(child, &path, files, all);
            let has = |id: &str| child.get_arguments().any(|arg| arg.get_id() == id);
            if has("endpoint") {
                assert!(has("timeout"), "{path:?}");
                all.push([path.clone(), arguments(child, &path, files)].concat());
            }
        }
    }
    let mut all = Vec::new();
    let mut command = Cli::command();
    command.build();
    walk(&command, &[], files, &mut all);
    all
}

/// What a command must be given, and that it asks nobody for a yes.
fn arguments(command: &clap::Command, path: &[String], files: &Path) -> Vec<String> {
    let mut given = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let is_confirmation = ["yes", "affected"].contains(&id);
        let groups = command.get_groups().filter(|group| group.is_required_set());
        let is_one_of = groups
            .map(|group| group.get_args().next())
            .any(|first| first.is_some_and(|first| first == arg.get_id()));
        // Some are required unless a flag says whom to ask for instead.
        let is_scopes = ["company", "credential", "scopes"].contains(&id) && arg.is_positional();
        if !(arg.is_required_set() || is_confirmation || is_one_of || is_scopes) {
            continue;
        }
        if let Some(long) = arg.get_long() {
            given.push(format!("--{long}"));
        }
        let takes = arg.get_action().takes_values();
        let file = |name: &str| files.join(name).display().to_string();
        match (id, path[0].as_str()) {
            _ if !takes => {}
            ("file", "import") => given.push(file("import.jsonl")),
            ("file", "batch") => given.push(file("checks.jsonl")),
            ("file", _) => given.push(file("catalog.yaml")),
            ("output", _) => given.push(file(&path.join("-"))),
            ("affected" | "restricted_at", _) => given.push("1".to_owned()),
            ("role", "keys") => given.push("auditor".to_owned()),
            _ => given.push("demo".to_owned()),
        }
    }
    given
}

fn input_files(dir: &Path) {
    let line = "{\"company_id\":\"demo\",\"credential_id\":\"a\",\"scopes\":[\"users:read\"]}\n";
    fs::write(dir.join("import.jsonl"), line).expect("written");
    fs::write(dir.join("checks.jsonl"), line).expect("written");
    fs::copy(harness::catalog("360learning.yaml"), dir.join("catalog.yaml")).expect("copied");
}

/// Runs all at once, and each at the longest for a minute.
fn run_all(home: &Path, commands: &[Vec<String>], more: &[&str]) -> Vec<Output> {
    let more: Vec<_> = more.iter().map(|word| (*word).to_owned()).collect();
    let start = |words: &Vec<String>| {
        let mut command = command(home, &[words.clone(), more.clone()].concat());
        let (input, mut end) = std::io::pipe().expect("a pipe");
        end.write_all(b"sgs_x_secret\n").expect("written");
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it runs")
    };
    let running: Vec<_> = commands.iter().map(start).collect();
    running.into_iter().map(ended).collect()
}

/// How a command ended, which it does within a minute.
fn ended(child: Child) -> Output {
    let (pid, (send, receive)) = (child.id(), channel());
    thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(Duration::from_secs(60)) {
        Ok(output) => output.expect("it ends"),
        Err(_) => {
            Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
            panic!("{pid} did not end");
        }
    }
}

#[test]
fn every_command_ends_when_the_server_is_silent() {
    let (home, files, data) = (dir(), dir(), dir());
    input_files(files.path());
    let inputs = names(files.path());
    let commands = all_commands(files.path());
    // Of two that write one file the second would be refused.
    let other_files = dir();
    input_files(other_files.path());
    let others = all_commands(other_files.path());
    assert!(commands.len() > 40, "{}", commands.len());
    let (_listener, silent) = silent_port();
    let url = silent.clone();
    let server = demo(data.path());
    server.pause();
    // A port that takes connections is the same to all of them: those that stream are enough.
    let streams = ["backup", "export", "import", "batch", "health", "changes"];
    let streams = others.iter().filter(|words| streams.contains(&words[0].as_str()));
    let streams: Vec<_> = streams.cloned().collect();
    thread::scope(|scope| {
        for (url, commands) in [(silent, &streams), (server.url(), &commands)] {
            let home = home.path();
            scope.spawn(move || {
                let more = ["--endpoint", &url, "--timeout", "1s"];
                for (command, output) in commands.iter().zip(run_all(home, commands, &more)) {
                    let (code, text) = said(&output);
                    assert_eq!(code, Some(2), "{command:?}: {text}");
                    // An upload ends by pings that are not answered.
                    let silent = ["the server has been silent for 1 s", "timed out"];
                    let silent = silent.iter().any(|part| text.contains(part));
                    assert!(silent, "{command:?}: {text}");
                    assert!(output.stdout.is_empty(), "{command:?}: {text}");
                }
            });
        }
    });
    server.signal("CONT");
    for files in [&files, &other_files] {
        assert_eq!(names(files.path()), inputs, "no output is left");
    }
    // TLS begins with words of the server's, too.
    let url = url.replace("http:", "https:");
    let health = words(&format!("health --endpoint {url} --timeout 1s"));
    let (code, text) = said(&command(home.path(), &health).output().expect("it runs"));
    assert_eq!((code, text.contains("within 1 s")), (Some(2), true), "{text}");
}

#[test]
fn a_server_that_stops_in_the_middle_is_noticed() {
    let (home, files, data) = (dir(), dir(), dir());
    let server = demo(data.path());
    // Replies of some size, and an import that must wait.
    let mut lines = String::new();
    for n in 0..3_000 {
        let scopes = "\"users:read\",\"users:write\",\"groups:read\"";
        lines += &format!(
            "{{\"company_id\":\"demo\",\"credential_id\":\"c{n}\",\"label\":\"The label of the \
             credential {n}\",\"scopes\":[{scopes}]}}\n"
        );
    }
    fs::write(files.path().join("import.jsonl"), &lines).expect("written");
    let import = |url: &str| {
        let file = files.path().join("import.jsonl").display().to_string();
        let more = words(&format!("--endpoint {url} --timeout 1s"));
        [vec!["import".to_owned(), file], more].concat()
    };
    let done = command(home.path(), &import(&server.url())).output().expect("it runs");
    assert_eq!(said(&done).0, Some(0), "{}", said(&done).1);
    let output = files.path().join("out");
    let mut commands = Vec::new();
    for bytes in [0, 60, 200, 20_000, 200_000] {
        let url = relay(&server, bytes);
        let more = format!("--endpoint {url} --timeout 1s");
        let out = format!("{}-{bytes}", output.display());
        commands.push(words(&format!("backup --output {out}-backup {more}")));
        commands.push(words(&format!("export --output {out}-export {more}")));
        commands.push(words(&format!("credential list demo {more}")));
        commands.push(words(&format!("changes watch --after 0 --reconnect 0s {more}")));
        if bytes < 100 {
            commands.push(import(&url));
        }
    }
    for (command, output) in commands.iter().zip(run_all(home.path(), &commands, &[])) {
        let (code, text) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(code, Some(2), "{command:?}: {text}");
        assert!(text.starts_with("scopegate: "), "{command:?}: {text}");
    }
    assert_eq!(names(files.path()), ["import.jsonl"], "nothing is left");
}

#[test]
fn only_a_plain_file_is_written() {
    let (home, data, place) = (dir(), dir(), dir());
    let server = demo(data.path());
    let path = |name: &str| place.path().join(name);
    fs::write(path("target"), "kept").expect("written");
    fs::create_dir(path("directory")).expect("made");
    std::os::unix::fs::symlink("target", path("link")).expect("made");
    std::os::unix::fs::symlink("nowhere", path("dangling")).expect("made");
    std::os::unix::fs::symlink("directory", path("link-to-directory")).expect("made");
    let made = Command::new("mkfifo").arg(path("fifo")).status().expect("it runs");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("made");
    fs::write(path("file"), "old").expect("written");
    // Names that a first name would have, with something else there.
    std::os::unix::fs::symlink("target", path("taken.partial")).expect("made");
    let before = names(place.path());
    let mut commands = Vec::new();
    let places = [
        "directory",
        "directory/",
        "directory/.",
        "link",
        "dangling",
        "link-to-directory",
        "fifo",
        "socket",
        "taken",
        "new/",
        "no/such",
    ];
    let places = places.map(|name| path("").join(name).display().to_string());
    for at in places.into_iter().chain(["/dev/null", "/dev/stdout", "/dev/full"].map(str::to_owned))
    {
        for kind in ["backup", "export"] {
            commands.push(words(&format!("{kind} --endpoint {} --output {at}", server.url())));
        }
    }
    for (command, output) in commands.iter().zip(run_all(home.path(), &commands, &[])) {
        let (code, text) = said(&output);
        assert_eq!((code, text.lines().count()), (Some(2), 1), "{command:?}: {text}");
        let kinds = ["is a directory", "symbolic link", "not a regular file", "cannot write"];
        assert!(kinds.iter().any(|kind| text.contains(kind)), "{command:?}: {text}");
    }
    assert_eq!(names(place.path()), before, "nothing is made");
    assert_eq!(fs::read_to_string(path("target")).expect("read"), "kept");
    assert!(fs::symlink_metadata(path("link")).expect("there").is_symlink());
    // A file is replaced, also where a part was left behind.
    fs::write(path("file.partial"), "left behind").expect("written");
    let at = path("file").display().to_string();
    let done = words(&format!("backup --endpoint {} --output {at}", server.url()));
    let (code, text) = said(&command(home.path(), &done).output().expect("it runs"));
    assert_eq!(code, Some(0), "{text}");
    assert!(fs::read(path("file")).expect("read").len() > 1_000);
    assert!(!path("file.partial").exists());
    let mode = PermissionsExt::mode(&fs::metadata(path("file")).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_is_written_to_a_new_file_alone() {
    let (data, place) = (dir(), dir());
    let path = |name: &str| place.path().join(name);
    std::os::unix::fs::symlink("nowhere", path("dangling")).expect("made");
    assert!(Command::new("mkfifo").arg(path("fifo")).status().expect("it runs").success());
    for name in ["dangling", "fifo"] {
        let mut command = scopegate();
        command.args(["keys", "bootstrap", "--data-dir"]).arg(data.path().join("store"));
        command.arg("--to-file").arg(path(name)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (code, text) = said(&ended(command.spawn().expect("it runs")));
        assert_eq!((code, text.contains("cannot be created")), (Some(64), true), "{text}");
    }
    assert_eq!(names(place.path()), ["dangling", "fifo"]);
}

#[test]
fn a_fresh_file_system_takes_a_store() {
    let (home, data, place) = (dir(), dir(), dir());
    let server = demo(data.path());
    let file = place.path().join("file").display().to_string();
    let backup = words(&format!("backup --endpoint {} --output {file}", server.url()));
    let (code, text) = said(&command(home.path(), &backup).output().expect("it runs"));
    assert_eq!(code, Some(0), "{text}");
    let fresh = |name: &str| {
        let dir = place.path().join(name);
        fs::create_dir_all(dir.join("lost+found")).expect("made");
        dir
    };
    let run = |words: &str, dir: &Path| {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let mut command = command(home.path(), &words);
        said(&command.arg("--data-dir").arg(dir).output().expect("it runs"))
    };
    let restored = fresh("restored");
    // A backup that is not whole leaves the directory as it was, and the next one goes on.
    let whole = fs::read(&file).expect("read");
    fs::write(format!("{file}-cut"), &whole[..whole.len() / 2]).expect("written");
    assert_eq!(run(&format!("restore {file}-cut"), &restored).0, Some(2));
    assert_eq!(names(&restored), ["lost+found"]);
    let (code, text) = run(&format!("restore {file}"), &restored);
    assert_eq!(code, Some(0), "{text}");
    assert!(restored.join("lost+found").is_dir());
    drop(Server::start(&restored, &[]));
    // A store is made there, too, and by the first key.
    drop(demo(&fresh("served")));
    assert_eq!(run("keys bootstrap", &fresh("first-key")).0, Some(0));
    // What has the name alone is something of somebody's.
    let taken = place.path().join("taken");
    fs::create_dir(&taken).expect("made");
    fs::write(taken.join("lost+found"), "mine").expect("written");
    let (code, text) = run(&format!("restore {file}"), &taken);
    assert_eq!((code, text.contains("is not empty")), (Some(2), true), "{text}");
}

#[test]
fn a_restore_gives_up_a_silent_input() {
    let (home, data, place) = (dir(), dir(), dir());
    let server = demo(data.path());
    let file = place.path().join("file").display().to_string();
    let backup = words(&format!("backup --endpoint {} --output {file}", server.url()));
    let (code, text) = said(&command(home.path(), &backup).output().expect("it runs"));
    assert_eq!(code, Some(0), "{text}");
    let whole = fs::read(&file).expect("read");
    let new = place.path().join("new");
    let restore = |part: &[u8], more: &str| {
        let (input, mut end) = std::io::pipe().expect("a pipe");
        end.write_all(part).expect("written");
        let words = words(&format!("restore - {more}"));
        let mut command = command(home.path(), &words);
        command.arg("--data-dir").arg(&new).stdin(input);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        (child.expect("it runs"), end)
    };
    for part in [0, 100, whole.len() - 1] {
        let (child, _end) = restore(&whole[..part], "--timeout 1s");
        let (code, text) = said(&ended(child));
        assert_eq!((code, text.contains("timed out")), (Some(2), true), "{text}");
        assert!(!new.exists());
    }
    let (child, end) = restore(&whole, "--timeout 60s");
    drop(end);
    let (code, text) = said(&ended(child));
    assert_eq!(code, Some(0), "{text}");
}

/// `changes watch`, whose lines come as they are printed.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Watcher {
    fn start(home: &Path, url: &str, more: &str) -> Self {
        let words = words(&format!("changes watch --endpoint {url} --timeout 1s {more}"));
        let mut command = command(home, &words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let lines = by_line(child.stdout.take().expect("an output"));
        let errors = by_line(child.stderr.take().expect("an output"));
        Self { child, lines, errors }
    }

    /// The revisions of the next lines.
    fn revisions(&self, count: usize) -> Vec<u64> {
        let revision = |line: String| line.split(' ').next().expect("a word").parse();
        let line = || self.lines.recv_timeout(Duration::from_secs(60)).expect("a line");
        (0..count).map(|_| revision(line()).expect("a revision")).collect()
    }

    fn error(&self) -> String {
        self.errors.recv_timeout(Duration::from_secs(60)).expect("a line")
    }

    /// How it ended, and what it had to say that was not read yet.
    fn end(self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let code = ended(self.child).status.code();
        (code, self.lines.iter().collect(), self.errors.iter().collect())
    }

    fn interrupt(self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        self.end()
    }
}

fn by_line(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            send.send(line).ok();
        }
    });
    receive
}

/// Makes so many changes.
fn change(home: &Path, url: &str, names: std::ops::Range<u32>) {
    for n in names {
        let words = words(&format!("company create co{n} --endpoint {url}"));
        let (code, text) = said(&command(home, &words).output().expect("it runs"));
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn a_watch_resumes_after_its_last_change_when_the_server_was_killed() {
    let (home, data) = (dir(), dir());
    let server = demo(data.path());
    let (url, address) = (server.url(), server.address.clone());
    let watcher = Watcher::start(home.path(), &url, "--after 3 --reconnect 60s");
    // One that has seen nothing yet has a place, too.
    let fresh = Watcher::start(home.path(), &url, "--after 4 --reconnect 60s");
    assert_eq!(watcher.revisions(1), [4]);
    change(home.path(), &url, 0..2);
    assert_eq!(watcher.revisions(2), [5, 6]);
    server.kill();
    let server = Server::start(data.path(), &["--listen", &address]);
    let said = watcher.error();
    assert!(said.starts_with("reconnected after "), "{said}");
    change(home.path(), &url, 2..4);
    assert_eq!(watcher.revisions(2), [7, 8]);
    assert_eq!(fresh.revisions(4), [5, 6, 7, 8]);
    // A server that ends as it should is no other case.
    assert!(server.terminate().success());
    let server = Server::start(data.path(), &["--listen", &address]);
    change(home.path(), &url, 4..6);
    assert_eq!(watcher.revisions(2), [9, 10]);
    let (code, lines, errors) = watcher.interrupt();
    assert_eq!((code, lines.len()), (Some(0), 0), "{lines:?}");
    assert!(errors[0].starts_with("reconnected after "), "{errors:?}");
    assert!(errors[1].starts_with("continue after the last change with --cursor "), "{errors:?}");
    drop(server);
}

#[test]
fn a_watch_goes_on_at_the_next_address_after_its_last_change() {
    let (home, data) = (dir(), dir());
    let server = demo(data.path());
    // A second way to the same log, as another replica has.
    let proxy = Proxy::start(&server.address);
    let list = format!("{},{}", proxy.address, server.address);
    let watcher = Watcher::start(home.path(), &list, "--after 3 --reconnect 60s");
    assert_eq!(watcher.revisions(1), [4]);
    proxy.cut();
    assert!(watcher.error().starts_with("reconnected after "));
    change(home.path(), &server.url(), 0..2);
    assert_eq!(watcher.revisions(2), [5, 6]);
    assert_eq!(watcher.interrupt().0, Some(0));
}

#[test]
fn a_watch_notices_a_stopped_server_and_goes_on_when_it_is_back() {
    let (home, data) = (dir(), dir());
    let server = demo(data.path());
    let watcher = Watcher::start(home.path(), &server.url(), "--after 3 --reconnect 60s");
    let brief = Watcher::start(home.path(), &server.url(), "--after 3 --reconnect 2s");
    let never = Watcher::start(home.path(), &server.url(), "--after 3 --reconnect 0s");
    for watcher in [&watcher, &brief, &never] {
        assert_eq!(watcher.revisions(1), [4]);
    }
    server.pause();
    for watcher in [never, brief] {
        let (code, lines, errors) = watcher.end();
        assert_eq!((code, lines.len(), errors.len()), (Some(2), 0, 1), "{errors:?}");
        assert!(errors[0].contains("continue after the last change with --cursor "), "{errors:?}");
    }
    server.signal("CONT");
    assert!(watcher.error().starts_with("reconnected after "));
    change(home.path(), &server.url(), 0..2);
    assert_eq!(watcher.revisions(2), [5, 6]);
    assert_eq!(watcher.interrupt().0, Some(0));
}

#[test]
fn a_watch_does_not_ask_again_what_was_refused() {
    let (home, data) = (dir(), dir());
    let server = demo(data.path());
    let run = |more: &str| Watcher::start(home.path(), &server.url(), more).end();
    let (code, _, errors) = run("--cursor nonsense --reconnect 60s");
    assert_eq!((code, errors.len()), (Some(2), 1), "{errors:?}");
    // The key of a watch is ended, and with it the watch.
    let key = |words: &str| {
        let words = self::words(&format!("{words} --endpoint {}", server.url()));
        command(home.path(), &words)
    };
    let made = key("keys create root --role operator --output json").output().expect("it runs");
    let root: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let root = root["secret"].as_str().expect("a secret").to_owned();
    let mut make = key("keys create reader --role auditor --output json");
    let made = make.env("SCOPEGATE_KEY", &root).output().expect("it runs");
    let reader: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let file = home.path().join("key");
    fs::write(&file, reader["secret"].as_str().expect("a secret")).expect("written");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("set");
    let more = format!("--after 3 --reconnect 60s --key-file {}", file.display());
    let watcher = Watcher::start(home.path(), &server.url(), &more);
    assert_eq!(watcher.revisions(1), [4]);
    let id = reader["key"]["keyId"].as_str().expect("an id");
    let mut end = key(&format!("keys delete {id} --yes"));
    assert!(end.env("SCOPEGATE_KEY", &root).output().expect("it runs").status.success());
    let (code, _, errors) = watcher.end();
    assert_eq!((code, errors.len()), (Some(2), 1), "{errors:?}");
    assert!(errors[0].contains("--cursor "), "{errors:?}");
}

/// Bytes as they are, for messages that are made of descriptors.
#[derive(Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        into: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(into, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Vec<u8>>, tonic::Status> {
        Ok(Some(bytes::Buf::copy_to_bytes(from, bytes::Buf::remaining(from)).to_vec()))
    }
}

/// What people read, by the fields' names.
const READ: [&str; 7] =
    ["label", "display_name", "reason", "on_behalf_of", "name", "title", "certificate"];

#[tokio::test]
async fn deceptive_characters_are_refused_in_every_text_field() {
    let data = dir();
    let server = demo(data.path());
    let channel = harness::endpoint(&server.url());
    let channel = channel.connect().await.expect("a connection");
    let pool = prost_reflect::DescriptorPool::decode(DESCRIPTORS).expect("descriptors");
    let mut asked = 0;
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let mut places = Vec::new();
        for field in method.input().fields() {
            let nested = field.kind().as_message().cloned();
            match nested.filter(|nested| nested.package_name() == "scopegate.v1") {
                Some(nested) => {
                    let of = nested.fields().filter(|field| READ.contains(&field.name()));
                    places.extend(of.map(|inner| (Some(field.clone()), inner)));
                }
                None if READ.contains(&field.name()) => places.push((None, field)),
                None => {}
            }
        }
        for (outer, field) in places {
            for c in ['\u{202e}', '\u{200b}', '\u{e0041}', '\u{feff}', '\n', '\u{85}', '\u{2028}'] {
                let text = prost_reflect::Value::String(format!("Innocent{c}gnp.exe"));
                let mut request = prost_reflect::DynamicMessage::new(method.input());
                match &outer {
                    None => request.set_field(&field, text),
                    Some(outer) => {
                        let kind = outer.kind().as_message().expect("a message").clone();
                        let mut inner = prost_reflect::DynamicMessage::new(kind);
                        inner.set_field(&field, text);
                        let inner = prost_reflect::Value::Message(inner);
                        let list = prost_reflect::Value::List(vec![inner.clone()]);
                        request.set_field(outer, if outer.is_list() { list } else { inner });
                    }
                }
                let body = prost::Message::encode_to_vec(&request);
                let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
                let path = path.parse().expect("a path");
                let mut client = tonic::client::Grpc::new(channel.clone());
                client.ready().await.expect("ready");
                let body = tokio_stream::once(body);
                let call = client.client_streaming(tonic::Request::new(body), path, Raw);
                let (code, details) = harness::refused(call.await);
                let place = format!("{} {} U+{:04X}", method.name(), field.name(), u32::from(c));
                assert_eq!(code, tonic::Code::InvalidArgument, "{place}");
                let wrong = details.bad_request().expect("fields").field_violations.clone();
                let wrong: Vec<_> =
                    wrong.iter().filter(|wrong| wrong.field.ends_with(field.name())).collect();
                assert_eq!(wrong.len(), 1, "{place}");
                let named = wrong[0].description.to_uppercase();
                // Names have an alphabet of their own, and say so.
                let (point, quoted) =
                    (format!("U+{:04X}", u32::from(c)), format!("{c:?}").to_uppercase());
                assert!(named.contains(&point) || named.contains(&quoted), "{place}: {named}");
                assert_eq!(first_deceptive(&wrong[0].description), None, "{place}");
                asked += 1;
            }
        }
    }
    assert!(asked > 200, "{asked}");
}

#[tokio::test]
async fn deceptive_characters_are_refused_in_catalogs() {
    let data = dir();
    let server = demo(data.path());
    let client = server.client().await;
    let file = |place: &str| {
        let at = |name: &str| if name == place { "safe \u{202e}txet" } else { "safe" };
        format!(
            "# {}\nname: {}\naudiences:\n  api: {{ title: {} }}\nscopes:\n  a:\n    title: {}\n",
            at("comment"),
            at("name"),
            at("audience"),
            at("scope"),
        )
    };
    let places = ["comment", "name", "audience", "scope"].map(file).into_iter().chain(
        ["name", "title"].map(
            // Written with an escape of YAML's, the file itself has nothing to see.
            |key| match key {
                "name" => "name: \"a\\u202Eb\"\nscopes: { a: }\n".to_owned(),
                _ => "scopes: { a: { title: \"a\\u202Eb\" } }\n".to_owned(),
            },
        ),
    );
    for yaml in places {
        let request = ApplyCatalogRequest { yaml: yaml.clone(), ..Default::default() };
        let status = client.catalog.clone().apply_catalog(request).await.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{yaml}");
        assert!(status.message().contains("U+202E"), "{yaml}: {}", status.message());
        assert_eq!(first_deceptive(status.message()), None, "{yaml}");
    }
    // The mark of some editors, line ends of others, and tabs are no deception.
    let request = ApplyCatalogRequest {
        yaml: "\u{feff}name: a\r\nscopes:\r\n  a: { title: \"xy\" }\t# z\tz\r\n".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    client.catalog.clone().apply_catalog(request).await.expect("taken");
}

#[tokio::test]
async fn quoted_request_text_is_escaped_and_truncated() {
    let data = dir();
    let server = demo(data.path());
    let client: Client = server.client().await;
    let long = format!("\u{202e}{}", "x".repeat(100_000));
    let request = UpdateCompanyRequest {
        company_id: "demo".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec![long.clone()] }),
        ..Default::default()
    };
    let status = client.directory.clone().update_company(request).await.expect_err("refused");
    assert!(status.message().len() < 300, "{}", status.message());
    assert_eq!(first_deceptive(status.message()), None, "{}", status.message());
    let yaml = format!("scopes: {{ a: {{ implies: [\"{}\"] }} }}", "y".repeat(100_000));
    let request = ApplyCatalogRequest { yaml, ..Default::default() };
    let status = client.catalog.clone().apply_catalog(request).await.expect_err("refused");
    assert!(status.message().len() < 400, "{}", status.message());
}

#[tokio::test]
async fn stored_text_is_returned_unchanged() {
    // As a server stored it that did not refuse it yet.
    const LABEL: &str = "Payroll \u{202e}nimda\u{200b}\u{e0041}\u{1b}[2J";
    let (home, data) = (dir(), dir());
    drop(demo(data.path()));
    let store = scopegate::store::Store::open(data.path()).expect("a store");
    let authority = Authority::new(std::sync::Arc::new(store), 1).expect("opened");
    let new = NewCompany {
        id: CompanyId::parse("odd").expect("an id"),
        display_name: LABEL.to_owned(),
        scopes: None,
    };
    let (reason, on_behalf_of) = (LABEL.to_owned(), LABEL.to_owned());
    let terms = WriteOptions { reason, on_behalf_of, ..WriteOptions::default() };
    authority.internal_session("test").create_company(&new, &terms).await.expect("created");
    authority.close();
    drop(authority);
    let server = demo(data.path());
    let mut shown = 0;
    for command in ["company get odd", "company list", "changes list", "company disable odd --yes"]
    {
        for output in ["table", "json"] {
            let words = words(&format!("{command} --output {output} --endpoint {}", server.url()));
            let output = self::command(home.path(), &words).output().expect("it runs");
            let (code, text) = said(&output);
            assert_eq!(code, Some(0), "{text}");
            assert_eq!(first_deceptive(&text.replace('\n', "")), None, "{text:?}");
            shown += usize::from(text.contains("\\u{202e}nimda") || text.contains("\\u202enimda"));
            if words.contains(&"json".to_owned()) {
                let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert!(json.to_string().contains('\u{202e}'), "the same text");
            }
        }
    }
    assert_eq!(shown, 8);
    let words = words(&format!("export --endpoint {}", server.url()));
    let (code, text) = said(&command(home.path(), &words).output().expect("it runs"));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(first_deceptive(&text.replace('\n', "")), None);
    assert!(text.contains("\\u202enimda"));
}

#[test]
fn a_restore_keeps_no_deceptive_reason() {
    let place = dir();
    for flag in ["--reason", "--on-behalf-of"] {
        let mut command = scopegate();
        command.arg("restore").arg(place.path().join("none")).arg("--data-dir");
        command.arg(place.path().join("new")).args([flag, "safe \u{202e}txet"]);
        let (code, text) = said(&command.output().expect("it runs"));
        assert_eq!((code, text.contains("U+202E")), (Some(2), true), "{text}");
        assert_eq!(first_deceptive(&text.replace('\n', "")), None, "{text}");
    }
    assert!(names(place.path()).is_empty());
}
