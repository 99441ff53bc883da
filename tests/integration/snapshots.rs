//! Snapshots: a replica takes over the store of another one as it is at one revision, while changes go
//! on; and its old store is there again unless the new one is whole.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::{fs, iter};

use jiff::{SignedDuration, Timestamp};
use scopegate::policy::revision::Revision;
use scopegate::store::engine::{Engine, SledEngine};
use scopegate::store::replicated::LogError;
use scopegate::store::replicated::head::Head;
use scopegate::store::{
    self, Incarnation, InstallError, Installed, OpenError, Store, StoreError, discard_replaced,
    install_snapshot, install_snapshot_on, put_back_replaced, resume_installation,
};

use crate::entries::history::{END, History};
use crate::entries::{Replica, assert_same, commit, copy, entries, found};
use crate::power_loss::memory;
use crate::redb_engine::RedbEngine;

/// All parts of a snapshot.
fn snapshot(store: &Store) -> Vec<u8> {
    let mut snapshot = store.snapshot().expect("begun");
    iter::from_fn(|| snapshot.next_part().expect("read")).flatten().collect()
}

fn snapshot_is_of_one_revision<E: Engine>() {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    let head = found::<E>(&at("a"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<E>(&at("a"), Some(sender));
    let mut history = History::new(11);
    history.live(&a.store, 150);
    let mut parts = a.store.snapshot().expect("begun");
    let mut bytes = Vec::new();
    let mut count = 0;
    while let Some(part) = parts.next_part().expect("read") {
        bytes.extend(part);
        count += 1;
        // Each of these may make several parts.
        if count < 10 {
            history.live(&a.store, 4);
            a.store.note_last_seen(vec![(Revision(3), 8)]);
        }
    }
    // It holds the engine.
    drop(parts);
    let at_the_end = a.position();
    history.live(&a.store, 20);
    let installed = install_snapshot_on::<E>(&at("b"), &*bytes, &head).expect("installed");
    assert!(installed.position.seq <= at_the_end.seq);
    let log: Vec<_> = log.try_iter().collect();
    let (before, behind) = log.split_at(installed.position.seq as usize);
    assert!(!before.is_empty() && !behind.is_empty());
    let b = Replica::open::<E>(&at("b"), None);
    assert_eq!((b.store.opened_at(), b.position()), (installed.revision, installed.position));
    assert_eq!(b.apply(behind), Ok(a.position()));
    assert_same(&a.close::<E>(), &b.close::<E>());
    // Without changes it has the same bytes, also those that no entry has. Its time is not that of the
    // other replica, whose clock may be wrong.
    let a = Replica::open::<E>(&at("a"), None);
    install_snapshot_on::<E>(&at("c"), &*snapshot(&a.store), &head).expect("installed");
    let mut c = entries::<E>(&at("c"));
    a.store.close();
    drop(a);
    let a = entries::<E>(&at("a"));
    for key in ["Mtime", "Mtally"] {
        let (of_a, key) = (a[key.as_bytes()].clone(), key.as_bytes().to_vec());
        let of_c = c.insert(key, of_a.clone());
        assert_ne!(of_c, Some(of_a));
    }
    assert_same(&a, &c);
}

#[test]
fn snapshot_is_of_one_revision_on_sled() {
    snapshot_is_of_one_revision::<SledEngine>();
}

#[test]
fn snapshot_is_of_one_revision_on_another_engine() {
    snapshot_is_of_one_revision::<RedbEngine>();
}

/// A replica that is behind, and the snapshot of another one.
struct Behind {
    _dir: tempfile::TempDir,
    dir: std::path::PathBuf,
    head: Head,
    source: Replica,
    snapshot: Vec<u8>,
    /// What its store has.
    before: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
}

fn behind() -> Behind {
    let temporary = memory();
    let (a, dir) = (temporary.path().join("a"), temporary.path().join("b"));
    let head = found::<SledEngine>(&a);
    copy(&a, &dir);
    let (sender, _log) = mpsc::channel();
    let source = Replica::open::<SledEngine>(&a, Some(sender));
    commit(&source.store, "a").expect("committed");
    let snapshot = snapshot(&source.store);
    let before = entries::<SledEngine>(&dir);
    fs::create_dir(dir.join("signing-keys")).expect("made");
    fs::write(dir.join("signing-keys/key"), "a key").expect("written");
    Behind { _dir: temporary, dir, head, source, snapshot, before }
}

impl Behind {
    fn install(&self, snapshot: impl Read) -> Result<Installed, InstallError> {
        install_snapshot(&self.dir, snapshot, &self.head)
    }

    /// Whether the directory has the store of before, and nothing of another one.
    fn is_as_before(&self, dir: &Path) -> bool {
        let names = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
        let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        let has = |name: &str| names.iter().any(|other| other.to_str() == Some(name));
        let is_clean = !["replaced", "replaced.moving", "restoring"].into_iter().any(has);
        is_clean
            && has("witness")
            && has("signing-keys")
            && entries::<SledEngine>(dir) == self.before
    }

    fn is_installed(&self, dir: &Path) -> bool {
        let key = fs::read_to_string(dir.join("signing-keys/key"));
        let store = Store::open(dir).expect("opened");
        let position = store.log_position().expect("readable");
        position == Some(self.source.position()) && key.is_ok_and(|key| key == "a key")
    }
}

#[test]
fn snapshot_that_is_not_whole_or_of_another_life_leaves_the_old_store() {
    let behind = behind();
    let bytes = &behind.snapshot;
    let step = bytes.len() / 24;
    for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = behind.install(&*damaged).expect_err("a damaged byte");
        assert!(error.is_of_the_snapshot(), "{error}");
        let error = behind.install(&bytes[..at]).expect_err("it is cut off");
        assert!(matches!(error, InstallError::Unreadable(_)), "{error}");
        assert!(behind.is_as_before(&behind.dir), "{at}");
    }
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let broken = bytes[..bytes.len() / 2].chain(FailingReader(Some(reset)));
    let error = behind.install(broken).expect_err("the connection broke");
    assert!(matches!(error, InstallError::Unreadable(_)), "{error}");
    let other = Incarnation::from_u128(9);
    let install = |head: &Head, bytes: &[u8]| {
        let error = install_snapshot(&behind.dir, bytes, head).expect_err("refused");
        assert!(behind.is_as_before(&behind.dir), "{error}");
        error
    };
    let error = install(&Head { incarnation: other, ..behind.head.clone() }, bytes);
    let own = behind.head.incarnation;
    assert!(
        matches!(error, InstallError::Incarnation { snapshot, log } if (snapshot, log) == (own, other))
    );
    let error = install(&Head { cluster: other, ..behind.head.clone() }, bytes);
    assert!(matches!(error, InstallError::Cluster(cluster) if cluster == other), "{error}");
    // A store that was restored from it follows no log.
    let single = behind.dir.with_file_name("single");
    store::restore(&single, &**bytes, Default::default(), Timestamp::now()).expect("restored");
    let single = Replica::open::<SledEngine>(&single, None);
    assert!(matches!(single.store.snapshot(), Err(LogError::NotFollowing)));
    let mut backup = single.store.backup().expect("begun");
    let backup: Vec<_> = iter::from_fn(|| backup.next_part().expect("read")).flatten().collect();
    let head = Head { incarnation: single.store.incarnation(), ..behind.head.clone() };
    assert!(matches!(install(&head, &backup), InstallError::NotFollowing));
    // Where the marker cannot be written, no file is moved.
    let draft = behind.dir.join("restoring.new");
    fs::create_dir(&draft).expect("made");
    let error = behind.install(&**bytes).expect_err("there is a directory in its place");
    assert!(!error.is_of_the_snapshot() && behind.is_as_before(&behind.dir), "{error}");
    fs::remove_dir(draft).expect("empty");
    behind.install(&**bytes).expect("installed");
    assert!(behind.is_installed(&behind.dir));
}

/// A reader that fails.
struct FailingReader(Option<io::Error>);

impl Read for FailingReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// A reader of one byte at a time, which notes what a kill at this moment would leave.
struct CopyingReader<'a> {
    bytes: &'a [u8],
    dir: &'a Path,
    copies: Vec<std::path::PathBuf>,
}

impl Read for CopyingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let parts = buffer.len().min(self.bytes.len() / 3 + 1);
        let to = self.dir.with_file_name(format!("killed-{}", self.copies.len()));
        copy(self.dir, &to);
        self.copies.push(to);
        self.bytes.read(&mut buffer[..parts])
    }
}

#[test]
fn interrupted_installation_is_undone_or_done_again() {
    let behind = behind();
    let mut reader =
        CopyingReader { bytes: &behind.snapshot, dir: &behind.dir, copies: Vec::new() };
    behind.install(&mut reader).expect("installed");
    assert!(reader.copies.len() > 5);
    for dir in &reader.copies {
        assert!(matches!(Store::open(dir), Err(OpenError::HalfInstalled(_))), "it is no store");
        let error = store::restore(dir, &*behind.snapshot, Default::default(), Timestamp::now());
        error.expect_err("the replaced store is in it");
        let again = dir.with_extension("again");
        copy(dir, &again);
        install_snapshot(&again, &*behind.snapshot, &behind.head).expect("installed");
        assert!(behind.is_installed(&again));
        assert!(resume_installation(dir).expect("undone"));
        assert!(behind.is_as_before(dir));
    }
}

#[test]
fn replaced_store_is_kept_until_the_new_one_serves() {
    let behind = behind();
    behind.install(&*behind.snapshot).expect("installed");
    assert!(resume_installation(&behind.dir).expect("nothing to undo"));
    assert!(behind.is_installed(&behind.dir));
    // The log has another history than the snapshot.
    assert!(put_back_replaced(&behind.dir).expect("put back"));
    assert!(behind.is_as_before(&behind.dir));
    behind.install(&*behind.snapshot).expect("installed");
    discard_replaced(&behind.dir).expect("deleted");
    assert!(behind.is_installed(&behind.dir) && !behind.dir.join("replaced").exists());
    // Now there is nothing to put back, and the directory does not become an empty store.
    assert!(!put_back_replaced(&behind.dir).expect("removed"));
    assert!(!resume_installation(&behind.dir).expect("nothing to undo"));
    assert!(matches!(Store::open(&behind.dir), Err(OpenError::HalfInstalled(_))));
    behind.install(&*behind.snapshot).expect("installed");
    assert!(behind.is_installed(&behind.dir));
}

/// What this replica has reported as expired stays so (D19).
#[test]
fn time_mark_of_the_replaced_store_is_kept() {
    let behind = behind();
    let old = Replica::open::<SledEngine>(&behind.dir, None);
    let later = END + SignedDuration::from_hours(24 * 365 * 100);
    let marked = old.store.persist_time(later).expect("queued");
    marked.blocking_recv().expect("durable");
    old.store.close();
    drop(old);
    let error = behind.install(&behind.snapshot[..90]).expect_err("it is cut off");
    assert!(matches!(error, InstallError::Unreadable(_)), "{error}");
    behind.install(&*behind.snapshot).expect("installed");
    assert_eq!(Store::open(&behind.dir).expect("opened").time_mark(), Some(later));
}

#[test]
fn snapshots_have_two_slots_of_their_own() {
    let behind = behind();
    let store = &behind.source.store;
    let backups = [store.backup(), store.backup()].map(|backup| backup.expect("begun"));
    let snapshots = [store.snapshot(), store.snapshot()].map(|snapshot| snapshot.expect("begun"));
    let error = store.snapshot().err();
    assert_eq!(error, Some(LogError::Store(StoreError::TooManyBackups)));
    let [one, _two] = snapshots;
    drop(one);
    store.snapshot().expect("there is a slot again");
    drop(backups);
}
