//! A store that is not opened because the system refuses something is not called damaged: each
//! case is one sentence with the system's number, and the store opens again afterwards.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness;
use crate::harness::Server;
use scopegate::store::Store;

/// A store of a user who is not root, and the binary where that user can run it.
struct Somebody {
    user: u32,
    home: tempfile::TempDir,
}

impl Somebody {
    /// None where this process may not become another user. A limit of threads counts all of one
    /// user, so each test has one of its own.
    fn new(user: u32) -> Option<Self> {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), "--clear-groups", "true"]);
        let can = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !can {
            println!("skipped: this process may not run another as user {user}");
            return None;
        }
        let home = tempfile::tempdir().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("set");
        // A process of its own copies the program: a test that starts another process at this moment
        // would hold an open copy, and a program that is open for writing cannot run.
        let mut copy = Command::new("cp");
        copy.arg(harness::scopegate().get_program()).arg(home.path().join("scopegate"));
        assert!(copy.status().expect("cp runs").success());
        let it = Self { user, home };
        fs::create_dir(it.store()).expect("made");
        chown(it.store(), Some(user), None).expect("given");
        let (code, said) = it.run(&[], &["keys", "bootstrap", "--name", "first"]);
        assert_eq!(code, Some(0), "{said}");
        Some(it)
    }

    fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// Runs the binary on the store, behind these words.
    fn run(&self, before: &[&str], words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={}", self.user), "--clear-groups"]).args(before);
        command.arg(self.home.path().join("scopegate")).args(words);
        command.arg("--data-dir").arg(self.store());
        let output = command.output().expect("ran");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Serving and making a key end with one sentence that says all of this.
    fn is_refused(&self, before: &[&str], says: &[&str]) {
        let serve: &[_] = &["serve", "--listen", "127.0.0.1:0", "--log", "error"];
        for words in [serve, &["keys", "bootstrap", "--name", "second"]] {
            let (code, said) = self.run(before, words);
            assert_eq!(code, Some(74), "{before:?} {words:?}: {said}");
            assert_eq!(said.trim().lines().count(), 1, "{before:?} {words:?}: {said}");
            for part in says {
                assert!(said.contains(part), "{before:?} {words:?}: {said}");
            }
            assert!(!said.contains("damaged") && !said.contains("panicked"), "{said}");
        }
    }

    /// The store is as it was.
    fn is_intact(&self) {
        let store = Store::open(&self.store()).expect("opened");
        assert_eq!(store.opened_at().0, 1);
    }
}

#[test]
fn a_process_without_a_thread_says_so() {
    let Some(somebody) = Somebody::new(61_001) else { return };
    for most in ["--nproc=1", "--nproc=2", "--nproc=4", "--nproc=7", "--nproc=9"] {
        somebody.is_refused(&["prlimit", most], &["os error 11", "ulimit -u", "TasksMax"]);
    }
    // Serving needs more.
    for most in ["--nproc=12", "--nproc=20"] {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
        let (code, said) = somebody.run(&["prlimit", most], &serve);
        assert_eq!(code, Some(74), "{said}");
        assert!(said.contains("ulimit -u") && said.lines().count() == 1, "{said}");
    }
    somebody.is_intact();
}

#[test]
fn a_process_without_a_file_says_so() {
    let Some(somebody) = Somebody::new(61_002) else { return };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    for most in ["--nofile=6", "--nofile=9", "--nofile=12", "--nofile=20"] {
        let (code, said) = somebody.run(&["timeout", "2", "prlimit", most], &serve);
        // With some more it serves until it is ended.
        if code != Some(124) {
            assert_eq!(code, Some(74), "{most}: {said}");
            assert!(said.contains("os error 24") && said.contains("ulimit -n"), "{most}: {said}");
            assert_eq!(said.trim().lines().count(), 1, "{most}: {said}");
        }
    }
    for most in ["--nofile=5", "--nofile=7", "--nofile=8"] {
        let (code, said) =
            somebody.run(&["prlimit", most], &["keys", "bootstrap", "--name", "second"]);
        assert_eq!(code, Some(74), "{most}: {said}");
        assert!(said.contains("os error 24") && said.contains("ulimit -n"), "{most}: {said}");
    }
    somebody.is_intact();
}

#[test]
fn a_process_without_memory_says_so() {
    let Some(somebody) = Somebody::new(61_003) else { return };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    let (code, said) = somebody.run(&["prlimit", "--as=100000000"], &serve);
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("os error 12") || said.contains("os error 11"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    somebody.is_intact();
}

#[test]
fn a_path_that_may_not_be_used_is_named() {
    let Some(somebody) = Somebody::new(61_004) else { return };
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    let names = ["db", "conf", "witness", "lock", ""];
    for path in names.map(|name| somebody.store().join(name)) {
        let before = fs::metadata(&path).expect("there").permissions().mode();
        mode(&path, 0);
        let named = path.display().to_string();
        let named = named.trim_end_matches('/');
        somebody.is_refused(&[], &["os error 13", &format!("`{named}`"), "permission"]);
        mode(&path, before & 0o7777);
    }
    // A file where the directory should be.
    let aside = somebody.home.path().join("aside");
    fs::rename(somebody.store(), &aside).expect("moved");
    fs::write(somebody.store(), "").expect("written");
    somebody.is_refused(&[], &["cannot be opened", "a file is where a directory is needed"]);
    fs::remove_file(somebody.store()).expect("removed");
    fs::rename(aside, somebody.store()).expect("moved");
    somebody.is_intact();
}

#[test]
fn a_signal_ends_a_server_that_is_still_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    // Whoever opens it waits a while for this one to let go.
    let _held = Store::open(dir.path()).expect("opened");
    for signal in ["TERM", "INT"] {
        let mut command = harness::scopegate();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("spawned");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("opening the store") {
            line.clear();
            assert!(log.read_line(&mut line).expect("a line") > 0, "it opens the store");
        }
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.expect("sent").success());
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("text");
        assert_eq!(child.wait().expect("ended").code(), Some(0), "{rest}");
        assert!(rest.contains("ending before the store was open"), "{rest}");
        assert!(rest.trim().lines().last().is_some_and(|line| line.contains("drained")), "{rest}");
    }
}

#[tokio::test]
async fn a_store_is_for_its_user_alone_and_a_wider_one_is_warned_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let start = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000 && exec \"$0\" \"$@\""]);
        command.arg(harness::scopegate().get_program());
        Server::start_by(command, &store, &[])
    };
    let server = start();
    server.client().await.create_company("acme", Some(&[])).await;
    assert_eq!(server.logged("other users than its owner"), 0);
    assert!(server.terminate().success());
    // A second start makes a snapshot.
    let server = start();
    assert_eq!(server.logged("other users than its owner"), 0);
    assert_eq!(server.logged("`witness`"), 0);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&store), 0o700);
    let files: Vec<_> =
        fs::read_dir(&store).expect("read").map(|file| file.expect("read").path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for path in &files {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(path), wanted, "{}", path.display());
    }
    assert!(server.terminate().success());
    for (path, wide, narrow) in [(store.clone(), 0o750, 0o700), (store.join("db"), 0o644, 0o600)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(wide)).expect("set");
        let server = start();
        assert_eq!(server.logged("other users than its owner"), 1);
        assert_eq!(server.logged(&format!("{} ({wide:04o})", path.display())), 1);
        assert_eq!(server.logged("chmod -R go= "), 1);
        assert!(server.terminate().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(narrow)).expect("set");
    }
    // Without its high-water file an older state would not be noticed.
    fs::remove_file(store.join("witness")).expect("removed");
    for warned in [1, 0] {
        let server = start();
        assert_eq!(server.logged("has no `witness` file"), warned);
        assert_eq!(mode(&store.join("witness")), 0o600);
        assert!(server.terminate().success());
    }
}
