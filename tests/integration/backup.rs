//! Backup and restore, by the commands and over the real wire: while changes go on at full speed
//! the file is exactly the state at one revision; what is made of it is another life of it; and
//! nothing is made of a file that is not whole.
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{Client, Server, catalog, fields, owned, refused, scopegate};
use crate::replay::reference::{ReferenceReplay, kept};
use scopegate::policy::change::ChangeKind;
use scopegate::proto::backup_service_client::BackupServiceClient;
use scopegate::proto::*;
use scopegate::store::Store;
use tonic::Code;

/// How far revisions jump with a restore.
const STEP: u64 = 1 << 32;

fn printed(output: &Output) -> (Option<i32>, String) {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

/// `scopegate backup`, and the revision that it says.
fn back_up(server: &Server, file: &Path) -> u64 {
    let mut command = scopegate();
    command.args(["backup", "--endpoint", &server.url(), "--output"]).arg(file);
    let mut tries = 0;
    let (code, said) = loop {
        let (code, said) = printed(&command.output().expect("it runs"));
        // Those who are gone free their places as soon as the server notices.
        if tries == 200 || !said.contains("too many backups") {
            break (code, said);
        }
        tries += 1;
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(0), "{said}");
    let revision = said.strip_prefix("backed up revision ").expect("what it did");
    revision.split(' ').next().expect("a word").parse().expect("a revision")
}

fn restore(file: &Path, dir: &Path) -> (Option<i32>, String) {
    let mut command = scopegate();
    command.arg("restore").arg(file).arg("--data-dir").arg(dir);
    printed(&command.output().expect("it runs"))
}

/// Restores what must be restored.
fn restored(file: &Path, dir: &Path) {
    let (code, said) = restore(file, dir);
    assert_eq!(code, Some(0), "{said}");
}

/// Scopes enough that companies and catalogs have parts.
fn wide_catalog(more: usize) -> String {
    let mut yaml =
        "name: wide\nroles: { r: { scopes: { s1: all, s2: own } } }\nscopes:\n".to_owned();
    for n in 0..600 + more {
        writeln!(yaml, "  s{n}: {{ title: \"The scope {n}\" }}").expect("written");
    }
    yaml
}

struct Rng(u64);

impl Rng {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % sides
    }
}

/// One step of a writer. What it asks for may be refused: another writer was there first.
async fn step(client: &Client, rng: &mut Rng) -> bool {
    let company_id = format!("c{}", rng.roll(4));
    let credential_id = format!("k{}", rng.roll(40));
    let user_id = format!("u{}", rng.roll(3));
    let scopes: Vec<_> = (0..=rng.roll(3)).map(|_| format!("s{}", rng.roll(600))).collect();
    let mut directory = client.directory.clone();
    let mut authorization = client.authorization.clone();
    macro_rules! of {
        ($request:ident { $($field:ident),* }) => {
            $request { $($field: $field.clone(),)* ..Default::default() }
        };
    }
    match rng.roll(24) {
        0 => directory.create_company(of!(CreateCompanyRequest { company_id })).await.is_ok(),
        1 if rng.roll(10) == 0 => {
            directory.delete_company(of!(DeleteCompanyRequest { company_id })).await.is_ok()
        }
        2 => {
            let acknowledge_impact = true;
            let restrict =
                of!(RestrictCompanyScopesRequest { company_id, scopes, acknowledge_impact });
            authorization.restrict_company_scopes(restrict).await.is_ok()
        }
        3 => {
            let add = of!(AddCompanyScopesRequest { company_id, scopes });
            authorization.add_company_scopes(add).await.is_ok()
        }
        4 if rng.roll(4) == 0 => {
            let yaml = wide_catalog(usize::try_from(rng.roll(20)).expect("few"));
            client.catalog.clone().apply_catalog(of!(ApplyCatalogRequest { yaml })).await.is_ok()
        }
        5 | 6 => {
            let delete = of!(DeleteCredentialRequest { company_id, credential_id });
            directory.delete_credential(delete).await.is_ok()
        }
        7 => {
            let secret = of!(CreateSecretRequest { company_id, credential_id });
            directory.create_secret(secret).await.is_ok()
        }
        8 => {
            let roles = owned(&["r"]);
            directory.put_user(of!(PutUserRequest { company_id, user_id, roles })).await.is_ok()
        }
        9 => directory.delete_user(of!(DeleteUserRequest { company_id, user_id })).await.is_ok(),
        10 => {
            let scopes = owned(&["s1", "s2"]);
            let put = of!(PutConsentRequest { company_id, credential_id, user_id, scopes });
            directory.put_consent(put).await.is_ok()
        }
        11 => {
            let reset = of!(ResetScopesRequest { company_id, credential_id });
            authorization.reset_scopes(reset).await.is_ok()
        }
        12..=16 => {
            let label = "x".repeat(usize::try_from(rng.roll(250)).expect("few"));
            let create = of!(CreateCredentialRequest { company_id, credential_id, label, scopes });
            directory.create_credential(create).await.is_ok()
        }
        17 => {
            let revoke = of!(RevokeScopesRequest { company_id, credential_id, scopes });
            authorization.revoke_scopes(revoke).await.is_ok()
        }
        _ => {
            let grant = of!(GrantScopesRequest { company_id, credential_id, scopes });
            authorization.grant_scopes(grant).await.is_ok()
        }
    }
}

/// A server with `count` credentials in a company of their own, and writers who go on until told
/// to stop.
struct Fixture {
    server: Server,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    async fn busy(dir: &Path, count: usize) -> Self {
        let file = dir.join("catalog.yaml");
        fs::write(&file, wide_catalog(0)).expect("written");
        let arg = ["--catalog", file.to_str().expect("a path")];
        let server = Server::start(&dir.join("data"), &arg);
        import(&server, count);
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let writers = (1..=8_u64).map(|n| {
            let (url, stop, done) = (server.url(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let client = Client::connect(&url).await;
                let mut rng = Rng(n << 40 | 0x9e37_79b9);
                while !stop.load(Ordering::Relaxed) {
                    if step(&client, &mut rng).await {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let writers = writers.collect();
        Self { server, stop, done, writers }
    }

    /// Waits for so many more changes.
    async fn more(&self, changes: u64) {
        let goal = self.done.load(Ordering::Relaxed) + changes;
        while self.done.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> Server {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("no failure");
        }
        self.server
    }
}

/// Creates credentials in a company that nobody else changes.
fn import(server: &Server, count: usize) {
    let mut text = "{\"company_id\": \"many\", \"scopes\": [\"s1\", \"s2\"]}\n".to_owned();
    for n in 0..count {
        writeln!(text, r#"{{"company_id": "many", "credential_id": "m{n:06}", "scopes": ["s1"]}}"#)
            .expect("written");
    }
    let (code, said) = by_import(server, &text);
    assert_eq!(code, Some(0), "{said}");
}

fn by_import(server: &Server, text: &str) -> (Option<i32>, String) {
    let mut child = scopegate()
        .args(["import", "-", "--endpoint", &server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    use std::io::Write as _;
    child.stdin.take().expect("an input").write_all(text.as_bytes()).expect("read");
    printed(&child.wait_with_output().expect("it ends"))
}

fn credentials() -> usize {
    std::env::var("SCOPEGATE_BACKED_UP").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000)
}

/// The drill: back up under fire, lose the store, restore, and go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_fire_is_exactly_the_state_at_its_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let town = Fixture::busy(dir.path(), credentials()).await;
    town.more(300).await;
    let mut revisions = vec![];
    for n in 0..3 {
        let before = town.done.load(Ordering::Relaxed);
        let (server, file) = (&town.server, path(&format!("{n}.backup")));
        let revision = tokio::task::block_in_place(|| back_up(server, &file));
        let during = town.done.load(Ordering::Relaxed) - before;
        println!("backup {n}: revision {revision}, {during} changes meanwhile");
        assert!(during > 0, "changes went on");
        revisions.push(revision);
        town.more(100).await;
    }
    town.stop().await.kill();
    let (_, lost) = kept(&path("data"));
    assert!(lost.last().expect("a change").revision.0 > revisions[2]);
    for (n, revision) in revisions.into_iter().enumerate() {
        let new = path(&format!("new-{n}"));
        restored(&path(&format!("{n}.backup")), &new);
        let (state, mut log) = kept(&new);
        assert_eq!(ReferenceReplay::of(&log), state, "every fact is what the log says");
        let last = log.pop().expect("the restore");
        assert_eq!((last.kind, last.revision.0), (ChangeKind::RestoreBackup, revision + STEP));
        let before: Vec<_> = lost.iter().filter(|change| change.revision.0 <= revision).collect();
        assert_eq!(log.iter().collect::<Vec<_>>(), before, "the log up to the backup");
        let mode = fs::metadata(path(&format!("{n}.backup"))).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "hashes of secrets are nobody else's");
        assert!(!path(&format!("{n}.backup.partial")).exists());
    }
    // It goes on: changes and another end, and its log says all of it.
    let new = path("new-1");
    let server = Server::start(&new, &[]);
    let client = server.client().await;
    let mut rng = Rng(7);
    for _ in 0..200 {
        step(&client, &mut rng).await;
    }
    server.kill();
    let server = Server::start(&new, &[]);
    server.client().await.create_company("after", None).await;
    assert!(server.terminate().success());
    let (state, log) = kept(&new);
    assert_eq!(ReferenceReplay::of(&log), state);
    assert!(state.companies.contains_key("after"));
}

/// A small served store, and what a client has of it.
async fn small(dir: &Path) -> Server {
    let server = Server::with_catalog(dir, "360learning.yaml");
    let client = server.client().await;
    for company in ["a", "b", "c"] {
        client.create_company(company, Some(&["users:read", "users:write"])).await;
        client.create_credential(company, "hr", &["users:read"]).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_is_a_new_incarnation() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let server = small(&path("data")).await;
    let client = server.client().await;
    let request = GrantScopesRequest {
        company_id: "a".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:write"]),
        request_id: "9b2e3c54-6d5c-4f4e-8f43-0f6a2d1f6c11".to_owned(),
        ..Default::default()
    };
    let granted = client.authorization.clone().grant_scopes(request.clone()).await;
    let granted = granted.expect("granted").into_inner();
    let list = ListCompaniesRequest { page_size: 1, ..Default::default() };
    let page = client.directory.clone().list_companies(list.clone()).await.expect("a page");
    let page_token = page.into_inner().next_page_token;
    let watch = WatchChangesRequest::default();
    let watched = client.changes.clone().watch_changes(watch.clone()).await.expect("watched");
    let first = watched.into_inner().message().await.expect("a change").expect("a change");
    let revision = back_up(&server, &path("file"));
    // What comes after it is lost.
    let etag = client.credential("a", "hr").await.expect("read").etag;
    client.create_company("lost", None).await;
    server.kill();
    let mark = Store::open(&path("data")).expect("opened").time_mark();

    restored(&path("file"), &path("new"));
    let server = Server::start(&path("new"), &[]);
    let client = server.client().await;
    let read = client.credential("a", "hr").await.expect("read");
    assert_eq!(read.effective_scopes, ["users:read", "users:write"]);
    assert_ne!(read.etag, etag, "of another life");
    let stale = RevokeScopesRequest {
        company_id: "a".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:read"]),
        etag,
        ..Default::default()
    };
    let (code, _) = refused(client.authorization.clone().revoke_scopes(stale).await);
    assert_eq!(code, Code::Aborted);
    let next = ListCompaniesRequest { page_token, ..list };
    let (code, details) = refused(client.directory.clone().list_companies(next).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["page_token"]));
    let resume = WatchChangesRequest { cursor: first.cursor, ..watch };
    let (code, details) = refused(client.changes.clone().watch_changes(resume).await.map(|_| ()));
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["cursor"]));
    // A request that was carried out before the backup is not carried out again; its resource is
    // told as it is now.
    let again = client.authorization.clone().grant_scopes(request).await.expect("answered");
    assert_eq!(again.into_inner(), GrantScopesResponse { credential: Some(read), ..granted });
    // Who follows by number misses nothing of the new life, and is told of the jump.
    let made = client.create_company("lost", None).await;
    assert_eq!(made.revision, revision + STEP + 1);
    let after_lost =
        ListChangesRequest { after_revision: revision + 1, ..ListChangesRequest::default() };
    let told = client.changes.clone().list_changes(after_lost).await.expect("listed").into_inner();
    let told: Vec<_> = told.changes.iter().map(|c| (c.kind.as_str(), c.revision)).collect();
    let made = ("CreateCompany", revision + STEP + 1);
    assert_eq!(told, [("RestoreBackup", revision + STEP), made]);
    assert_eq!(client.reason("c", "hr", &["users:read"]).await, Reason::Allowed);
    assert!(server.terminate().success());
    let store = Store::open(&path("new")).expect("opened");
    assert!(store.time_mark() >= mark.map(|mark| mark - jiff::SignedDuration::from_secs(3)));
    assert_ne!(store.incarnation(), Store::open(&path("data")).expect("opened").incarnation());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_of_a_quiet_store_are_of_equal_facts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let server = small(&path("data")).await;
    let revisions = ["1", "2"].map(|name| back_up(&server, &path(name)));
    assert_eq!(revisions[0], revisions[1]);
    server.kill();
    let of = |name: &str| {
        restored(&path(name), &path(&format!("new-{name}")));
        let (state, mut log) = kept(&path(&format!("new-{name}")));
        log.pop();
        (state, log)
    };
    let (first, second) = (of("1"), of("2"));
    assert_eq!(first, second);
    assert_eq!(first, kept(&path("data")), "and of those that were backed up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let server = small(&path("data")).await;
    back_up(&server, &path("file"));
    server.kill();
    let whole = fs::read(path("file")).expect("readable");
    let refused = |bytes: &[u8], what: &str, word: &str| {
        fs::write(path("bad"), bytes).expect("written");
        let (code, said) = restore(&path("bad"), &path("new"));
        assert_eq!(code, Some(2), "{what}: {said}");
        assert!(said.starts_with("scopegate: `") && said.lines().count() == 1, "{what}: {said}");
        assert!(said.contains(word), "{what}: {said}");
        assert!(!path("new").exists(), "{what} left something");
    };
    let mut rng = Rng(whole.len() as u64);
    let length = whole.len() as u64;
    let places = (0..40).chain((0..60).map(|_| rng.roll(length)).collect::<Vec<_>>());
    for at in places.chain(length - 40..length) {
        let at = usize::try_from(at).expect("small");
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped, &format!("a flipped byte at {at}"), "`");
        if at % 3 == 0 {
            refused(&whole[..at], &format!("a cut at {at}"), "is truncated");
        }
    }
    refused(&[&whole[..], b"x"].concat(), "more than a backup", "is damaged");
    refused(b"{\"company_id\": \"acme\"}", "another file", "is not a backup");
    refused(b"scopegate-backup 2\n???", "a newer form", "newer version");
    // A file of a right form and checksum whose entries do not add up.
    let (mut forged, mut at) = (whole.clone(), "scopegate-backup 1\n".len());
    let record = |bytes: &[u8], at: usize| {
        let length: [u8; 4] = bytes[at..at + 4].try_into().expect("a length");
        u32::from_be_bytes(length) as usize
    };
    at += 4 + record(&forged, at);
    // The last byte of the first entries is that of a value.
    at += 3 + record(&forged, at);
    forged[at] ^= 1;
    let end = forged.len() - 32;
    let checksum = *blake3::hash(&forged[..end]).as_bytes();
    forged[end..].copy_from_slice(&checksum);
    refused(&forged, "another value", "is damaged");
    assert!(!path("missing").exists());
    let (code, said) = restore(&path("missing"), &path("new"));
    assert_eq!((code, said.contains("cannot read")), (Some(2), true), "{said}");
    restored(&path("file"), &path("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_empty_directory_is_restored_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let server = small(&path("data")).await;
    back_up(&server, &path("file"));
    for taken in [path("data"), dir.path().to_owned()] {
        let (code, said) = restore(&path("file"), &taken);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("is not empty"), "{said}");
    }
    assert_eq!(server.client().await.reason("a", "hr", &["users:read"]).await, Reason::Allowed);
    server.kill();
    assert!(path("file").exists());
    fs::create_dir(path("empty")).expect("made");
    restored(&path("file"), &path("empty"));
    let (code, said) = restore(&path("file"), &path("empty"));
    assert_eq!((code, said.contains("is not empty")), (Some(2), true), "{said}");
    restored(&path("file"), &path("deep/er"));
    let (code, said) = restore(&path("file"), &path("file"));
    assert_eq!((code, said.contains("cannot be written")), (Some(2), true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_leaves_no_store_and_is_run_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let file = path("catalog.yaml");
    fs::write(&file, wide_catalog(0)).expect("written");
    let server = Server::start(&path("data"), &["--catalog", file.to_str().expect("a path")]);
    import(&server, 5_000);
    back_up(&server, &path("file"));
    server.kill();
    let new = path("new");
    let mut killed = 0;
    for round in 0..12 {
        let mut command = scopegate();
        command.arg("restore").arg(path("file")).arg("--data-dir").arg(&new);
        let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
        // Any moment will do, and each round has another one.
        std::thread::sleep(Duration::from_millis(10 + 35 * round));
        child.kill().expect("killed");
        child.wait().expect("gone");
        if !new.exists() {
            continue;
        }
        match Store::open(&new) {
            // Before the mark there is nothing, and behind it everything.
            Ok(store) => {
                let all = store.opened_at().0;
                assert!(all == 0 || all > STEP, "round {round}: a half store at {all}");
                drop(store);
                fs::remove_dir_all(&new).expect("removed");
            }
            Err(error) => {
                assert!(error.to_string().contains("partly restored"), "round {round}: {error}");
                killed += 1;
                let mut serve = scopegate();
                serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&new);
                let (code, said) = printed(&serve.output().expect("it runs"));
                assert_eq!(code, Some(74), "{said}");
                assert!(said.contains("run `scopegate restore` again"), "{said}");
            }
        }
    }
    assert!(killed > 0, "none was killed in the middle");
    fs::create_dir_all(&new).expect("there");
    restored(&path("file"), &new);
    let (state, log) = kept(&new);
    assert_eq!(ReferenceReplay::of(&log), state);
    assert_eq!(state.companies["many"].credentials.len(), 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_leaves_no_file_of_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let town = Fixture::busy(dir.path(), 5_000).await;
    let mut left = 0;
    for _ in 0..8 {
        fs::remove_file(path("file.partial")).ok();
        let mut command = scopegate();
        command.args(["backup", "--endpoint", &town.server.url(), "--output"]).arg(path("file"));
        let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
        // Killed as soon as it writes.
        while !path("file.partial").exists() && child.try_wait().expect("a child").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        left += u32::from(path("file.partial").exists());
        if path("file").exists() {
            fs::remove_file(path("file")).expect("a whole one");
        }
    }
    assert!(left > 0, "none was killed in the middle");
    // Whoever is gone takes no place, as soon as the server notices; and what was left is in
    // nobody's way.
    let server = town.stop().await;
    let mut client = BackupServiceClient::connect(server.url()).await.expect("connected");
    while client.backup(BackupRequest {}).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    back_up(&server, &path("file"));
    // The server's end is told from the backup's.
    let mut parts = client.backup(BackupRequest {}).await.expect("begun").into_inner();
    parts.message().await.expect("a part").expect("a part");
    server.signal("TERM");
    let ended = loop {
        match parts.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(status) => break Some(status.code()),
        }
    };
    assert_eq!(ended, Some(Code::Unavailable));
    // Standard output is a file like any other; a directory is none.
    drop(server);
    let server = Server::start(&path("data"), &[]);
    let mut command = scopegate();
    command.args(["backup", "--endpoint", &server.url(), "--output", "-"]);
    let output = command.output().expect("it runs");
    assert!(output.status.success());
    fs::write(path("by-hand"), output.stdout).expect("written");
    restored(&path("by-hand"), &path("new"));
    let mut command = scopegate();
    command.args(["backup", "--endpoint", &server.url(), "--output"]).arg(dir.path());
    let (code, said) = printed(&command.output().expect("it runs"));
    assert_eq!((code, said.contains("is a directory")), (Some(2), true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_two_backups_are_under_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("catalog.yaml");
    fs::write(&file, wide_catalog(0)).expect("written");
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--catalog", file.to_str().expect("a path")]);
    // Far more than is on its way to a client that reads nothing.
    import(&server, 20_000);
    let client = BackupServiceClient::connect(server.url()).await.expect("connected");
    let begin = || async { client.clone().backup(BackupRequest {}).await };
    let first = begin().await.expect("begun");
    let second = begin().await.expect("begun");
    let (code, details) = refused(begin().await.map(|_| ()));
    assert_eq!(code, Code::ResourceExhausted);
    assert!(details.quota_failure().is_some());
    drop(first);
    // The place is free as soon as the server notices.
    let mut tries = 0;
    let third = loop {
        match begin().await {
            Ok(third) => break third,
            Err(_) if tries < 1_000 => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => panic!("{status}"),
        }
        tries += 1;
    };
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_read_back_by_an_import() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let server = small(&path("data")).await;
    let client = server.client().await;
    client.put_user("a", "ada", &[]).await;
    client.consent("a", "hr", "ada", &[]).await;
    client.create_credential("a", "bi", &["users:read", "users:write"]).await;
    client.restrict("a", &["users:write"]).await;
    let end = Some(prost_types::Timestamp { seconds: 4_102_444_800, nanos: 0 });
    let grant = GrantScopesRequest {
        company_id: "b".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:write"]),
        expires_at: end,
        ..Default::default()
    };
    client.authorization.clone().grant_scopes(grant).await.expect("granted");
    let mut command = scopegate();
    command.args(["export", "--endpoint", &server.url(), "--output"]).arg(path("all.jsonl"));
    let (code, said) = printed(&command.output().expect("it runs"));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let text = fs::read_to_string(path("all.jsonl")).expect("readable");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let yaml = fs::read_to_string(catalog("360learning.yaml")).expect("readable");
    assert_eq!(lines[0]["yaml"], yaml);
    let of = |kind: &str| lines.iter().filter(|line| line["record"] == kind).collect::<Vec<_>>();
    assert_eq!((of("user").len(), of("consent").len()), (1, 1));
    let states: Vec<_> =
        of("grant").iter().map(|line| line["state"].as_str().expect("a word")).collect();
    assert_eq!(states, ["dormant", "active"]);
    server.kill();
    // Into an empty store it gives no more than there was.
    let server = Server::with_catalog(&path("new"), "360learning.yaml");
    let (code, said) = by_import(&server, &text);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("created 3 companies and 4 credentials"), "{said}");
    assert!(said.contains("skipped 5 lines"), "{said}");
    let client = server.client().await;
    assert_eq!(client.reason("a", "bi", &["users:read"]).await, Reason::Allowed);
    assert_ne!(client.reason("a", "bi", &["users:write"]).await, Reason::Allowed);
    assert_ne!(client.reason("b", "hr", &["users:write"]).await, Reason::Allowed);
    // A company that is off is not turned on.
    let update = UpdateCompanyRequest {
        company_id: "b".to_owned(),
        enabled: false,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    client.directory.clone().update_company(update).await.expect("off");
    let mut command = scopegate();
    let output = command.args(["export", "--endpoint", &server.url()]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (code, said) = by_import(&server, &text);
    assert_eq!((code, said.contains("is not imported disabled")), (Some(2), true), "{said}");
}

#[test]
fn backup_without_a_server_prints_one_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let file: PathBuf = dir.path().join("file");
    let mut command = scopegate();
    command.args(["backup", "--endpoint", "http://127.0.0.1:9", "--output"]).arg(&file);
    let (code, said) = printed(&command.output().expect("it runs"));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(fs::read_dir(dir.path()).expect("a directory").next().is_none());
}
