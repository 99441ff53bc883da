//! Entries: a store that applies another store's entries is the same store, whatever the division of
//! the entries into batches; and an entry that is not the next one changes nothing.

pub mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{fs, iter, thread};

use blake3::Hash;
use jiff::Timestamp;
use proptest::prelude::*;
use scopegate::policy::change::{Change, ChangeKind};
use scopegate::policy::company::Company;
use scopegate::policy::id::Name;
use scopegate::policy::revision::Revision;
use scopegate::store::engine::{Engine, EngineError, SledEngine, WriteBatch};

use scopegate::store::replicated::entry::{Entry, MAX_BYTES};
use scopegate::store::replicated::head::{Head, HeadState};
use scopegate::store::replicated::member_record::{MemberRecord, PeerToken};
use scopegate::store::replicated::{Cluster, FORMAT, LogError, LogPosition, ReplicaReport};
use scopegate::store::{
    self, CommitError, CommitObserver, Fact, FactKey, IdempotencyRecord, Incarnation, Outcome,
    Proposal, RequestKey, ResultDetail, Store, StoreError, WriteResult,
};

use crate::fixture::{NoListener, Rng};
use crate::harness::process::alone;
use crate::power_loss::memory;
use crate::redb_engine::RedbEngine;
use crate::store::{catalog, change, company, in_time, later, put};
use history::History;

/// What a store has said to its caches and streams.
#[derive(Default)]
struct Cache {
    facts: Mutex<BTreeMap<String, String>>,
    changes: Mutex<Vec<Change>>,
}

impl CommitObserver for Cache {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}

    fn durable(&self, last: Revision, outcomes: Vec<Outcome>) {
        let mut facts = self.facts.lock().expect("whole");
        for Outcome { key, since, fact } in outcomes {
            assert!(since <= last);
            // The numbers of a catalog's scopes have no order.
            let fact = fact.map(|fact| match fact {
                Fact::Catalog(catalog) => {
                    let (ids, last) = catalog.scope_id_map();
                    let ids: BTreeMap<_, _> = ids.iter().collect();
                    format!("{} {} {ids:?} {last}", catalog.revision, catalog.yaml)
                }
                fact => format!("{fact:?}"),
            });
            facts.insert(format!("{key:?}"), format!("{since} {fact:?}"));
        }
    }

    fn published(&self, changes: Vec<Change>) {
        self.changes.lock().expect("whole").extend(changes);
    }

    fn failed(&self) {}
}

/// A store in a directory of its own.
pub struct Replica {
    dir: PathBuf,
    pub store: Arc<Store>,
    cache: Arc<Cache>,
}

/// Copies a closed store.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("readable").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("copied")),
        }
    }
}

/// A new store, and the head of a log that begins with it.
pub fn found<E: Engine>(dir: &Path) -> Head {
    let mut store = Store::open_on::<E>(dir, 1 << 20).expect("opened");
    let incarnation = store.incarnation();
    let head =
        Head::first(Incarnation::from_u128(7), incarnation, Revision::ZERO, Timestamp::UNIX_EPOCH);
    store.follow_log(&head, Some(1)).expect("it follows");
    head
}

impl Replica {
    pub fn open<E: Engine>(dir: &Path, entries: Option<mpsc::Sender<Vec<u8>>>) -> Self {
        let mut store = Store::open_on::<E>(dir, 1 << 20).expect("opened");
        if let Some(entries) = entries {
            store = store.sending_entries(entries);
        }
        let (store, cache) = (Arc::new(store), Arc::new(Cache::default()));
        store.start(Arc::clone(&cache) as Arc<dyn CommitObserver>);
        Self { dir: dir.to_owned(), store, cache }
    }

    pub fn position(&self) -> LogPosition {
        self.store.log_position().expect("readable").expect("it follows a log")
    }

    pub fn apply(&self, entries: &[Vec<u8>]) -> Result<LogPosition, LogError> {
        apply(&self.store, entries, hash(entries))
    }

    /// All entries, once garbage collection is done and the time mark is that of all stores.
    pub fn close<E: Engine>(mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        loop {
            // The writer does a step of garbage collection each 64 batches, and when it is idle.
            for _ in 0..=64 {
                let marked = self.store.persist_time(history::END).expect("queued");
                marked.blocking_recv().expect("durable");
            }
            self.store.close();
            drop(self.store);
            let entries = entries::<E>(&self.dir);
            if !entries.keys().any(|key| key.starts_with(b"D")) {
                return entries;
            }
            self = Self::open::<E>(&self.dir, None);
        }
    }
}

/// Changes the value of a key of a closed store, and the checksum with it: the store opens, and is not the
/// one that its log makes.
pub fn forge(dir: &Path, entry_key: &[u8], edit: impl FnOnce(&mut Vec<u8>)) {
    let engine = SledEngine::open(dir, 1 << 20).expect("opened");
    let hash = |value: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(entry_key.len() as u64).to_be_bytes()).update(entry_key).update(value);
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        u128::from_be_bytes(bytes)
    };
    let before = engine.get(entry_key).expect("readable").expect("a value");
    let mut after = before.clone();
    edit(&mut after);
    let checksum = engine.get(b"Mtally").expect("readable").expect("a checksum");
    let checksum = u128::from_be_bytes(checksum.try_into().expect("a number"));
    let checksum = checksum.wrapping_sub(hash(&before)).wrapping_add(hash(&after));
    let mut batch = WriteBatch::default();
    batch.insert(entry_key, after);
    batch.insert(&b"Mtally"[..], checksum.to_be_bytes());
    engine.apply(&batch).expect("applied");
    engine.sync().expect("durable");
}

/// All entries of a store, but the last-seen times, which each replica has of its own.
pub fn entries<E: Engine>(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let engine = loop {
        match E::open(dir, 1 << 20) {
            // The threads of the engine are about to close its files.
            Err(EngineError::Locked) => thread::yield_now(),
            engine => break engine.expect("opened"),
        }
    };
    let all = engine.all().map(|entry| entry.expect("readable"));
    all.filter(|(key, _)| !key.starts_with(b"N")).collect()
}

fn hash(entries: &[Vec<u8>]) -> Hash {
    blake3::hash(entries.last().expect("one"))
}

fn apply(store: &Store, entries: &[Vec<u8>], last: Hash) -> Result<LogPosition, LogError> {
    store.apply_entries(entries, last)?.blocking_recv().expect("answered")
}

/// A store that decides, one that follows it, and one that applies the whole log at once.
fn stores_of_one_log_are_the_same<E: Engine>(seed: u64, changes: usize) {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    let head = found::<E>(&at("a"));
    copy(&at("a"), &at("b"));
    copy(&at("a"), &at("c"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<E>(&at("a"), Some(sender));
    let b = Replica::open::<E>(&at("b"), None);
    assert_eq!((b.position().seq, b.position().hash), (0, head.hash));
    let mut rng = Rng(seed);
    let mut history = History::new(rng.roll());
    let (mut done, mut all) = (0, Vec::new());
    while done < changes {
        done += history.live(&a.store, 1 + rng.below(30) as usize);
        a.store.note_last_seen(vec![(Revision(rng.below(50)), 7)]);
        let mut next: Vec<_> = log.try_iter().collect();
        all.extend_from_slice(&next);
        let mut applied = Vec::new();
        while !next.is_empty() {
            let rest = next.split_off((1 + rng.below(5) as usize).min(next.len()));
            applied.push(b.store.apply_entries(&next, hash(&next)).expect("readable"));
            next = rest;
        }
        for applied in applied {
            applied.blocking_recv().expect("answered").expect("applied");
        }
        assert_eq!(a.position(), b.position());
    }
    for entry in &all {
        assert_eq!(Entry::decode(entry).expect("readable").encode(), *entry);
    }
    let c = Replica::open::<E>(&at("c"), None);
    assert_eq!(c.apply(&all), Ok(a.position()));
    let kinds: BTreeSet<_> = {
        let facts = a.cache.facts.lock().expect("whole");
        facts.keys().map(|key| key.split('(').next().expect("a kind").to_owned()).collect()
    };
    assert_eq!(kinds.len(), 11, "every kind of fact: {kinds:?}");
    assert!(history.requests.len() > changes / 10);
    for other in [&b, &c] {
        for request in &history.requests {
            let answered = a.store.answered(request).expect("readable");
            assert!(answered.is_some());
            assert_eq!(other.store.answered(request).expect("readable"), answered);
        }
        assert_eq!(
            *a.cache.facts.lock().expect("whole"),
            *other.cache.facts.lock().expect("whole")
        );
        let changes = |of: &Replica| of.cache.changes.lock().expect("whole").clone();
        assert!(changes(&a) == changes(other), "the streams have the same changes");
    }
    // The facts have the same sums, by their changes and by a look at all of them.
    let sums = |of: &Replica| {
        let head = a.store.changes(None, Revision::ZERO, Revision(u64::MAX), usize::MAX);
        let head = head.expect("readable").last().map(|change| change.revision);
        let sums = || of.store.fact_sums().last().copied().filter(|(at, _)| Some(*at) == head);
        assert!(in_time(|| sums().is_some()), "garbage collection ends");
        sums()
    };
    let at_head = sums(&a);
    assert_eq!([sums(&b), sums(&c)], [at_head; 2]);
    let counts: Vec<_> = at_head.expect("some").1.kinds().map(|sum| sum.count).collect();
    assert!(
        counts.len() == 10 && counts.iter().filter(|count| **count > 0).count() > 5,
        "{counts:?}"
    );
    let content = a.close::<E>();
    assert_same(&content, &b.close::<E>());
    assert_same(&content, &c.close::<E>());
    assert_eq!(Replica::open::<E>(&at("a"), None).store.fact_sums(), at_head.as_slice());
}

pub fn assert_same(a: &BTreeMap<Vec<u8>, Vec<u8>>, b: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let different = a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key));
    let different: Vec<_> = different.map(|key| String::from_utf8_lossy(key)).collect();
    assert!(different.is_empty(), "{different:?}");
    // The checksum, the chain and the position are compared, too.
    for key in ["Mtally", "Mchain", "Mhead", "Mlog", "Mincarnation", "Mtime"] {
        assert!(a.contains_key(key.as_bytes()), "{key}");
    }
}

#[test]
fn stores_of_one_log_are_the_same_on_sled() {
    (0..2).for_each(|seed| stores_of_one_log_are_the_same::<SledEngine>(seed, 300));
}

#[test]
fn stores_of_one_log_are_the_same_on_another_engine() {
    stores_of_one_log_are_the_same::<RedbEngine>(2, 300);
}

/// Entries of a few changes each, and a store that has applied none of them.
struct Log {
    _dir: tempfile::TempDir,
    entries: Vec<Vec<u8>>,
    follower: Replica,
}

fn log() -> Log {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    found::<SledEngine>(&at("a"));
    copy(&at("a"), &at("b"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender));
    History::new(3).live(&a.store, 20);
    let entries: Vec<_> = log.try_iter().collect();
    assert!(entries.len() > 5);
    let follower = Replica::open::<SledEngine>(&at("b"), None);
    Log { _dir: dir, entries, follower }
}

/// Whether nothing of a store has changed.
fn is_at(replica: &Replica, position: LogPosition, changes: usize) -> bool {
    let read = replica.store.changes(None, Revision::ZERO, Revision(u64::MAX), usize::MAX);
    let published = replica.cache.changes.lock().expect("whole").len();
    replica.position() == position
        && (read.expect("readable").len(), published) == (changes, changes)
}

#[test]
fn only_the_next_entry_is_applied() {
    let Log { entries, follower, .. } = &log();
    let start = follower.position();
    let edited = |edit: fn(&mut Entry)| {
        let mut entry = Entry::decode(&entries[0]).expect("readable");
        edit(&mut entry);
        vec![entry.encode()]
    };
    let (incarnation, other) = (follower.store.incarnation(), Incarnation::from_u128(9));
    let refused = [
        (entries[1..2].to_vec(), LogError::Sequence { last: 0, found: 2 }),
        // With a gap further on, what is before it is not applied either.
        ([&entries[..2], &entries[3..4]].concat(), LogError::Sequence { last: 2, found: 4 }),
        (edited(|entry| entry.prev = blake3::hash(b"x")), LogError::History(1)),
        (
            edited(|entry| entry.incarnation = Incarnation::from_u128(9)),
            LogError::Incarnation { log: other, store: incarnation },
        ),
        (edited(|entry| entry.seq = 0), LogError::Unreadable { format: FORMAT }),
        (
            edited(|entry| entry.first_revision = Revision(9)),
            LogError::Unreadable { format: FORMAT },
        ),
        (
            {
                let mut entry = Entry::decode(&entries[1]).expect("readable");
                (entry.seq, entry.prev) = (1, start.hash);
                vec![entry.encode()]
            },
            LogError::Revision {
                log: Entry::decode(&entries[1]).expect("readable").first_revision,
                store: Revision(1),
            },
        ),
        // A chain, field 15, is added by the store. Field 14 is unknown to this version.
        (with_change(&entries[0], &[15 << 3 | 2, 1, 7]), LogError::Unreadable { format: FORMAT }),
        (with_change(&entries[0], &[14 << 3, 7]), LogError::Unreadable { format: FORMAT }),
        // Of a field that is repeated, the last value counts. Field 7 is the format.
        (vec![[&entries[0][..], &[7 << 3, 9]].concat()], LogError::Format { needs: 9 }),
        // Field 8 are the changes. This one has no time.
        (
            vec![[&entries[0][..], &[8 << 3 | 2, 0]].concat()],
            LogError::Unreadable { format: FORMAT },
        ),
        (vec![vec![0xff; 9]], LogError::Damaged("entry")),
    ];
    for (entries, error) in refused {
        assert_eq!(follower.apply(&entries), Err(error));
        assert!(is_at(follower, start, 0));
    }
    follower.apply(&with_change(&entries[0], &[])).expect("applied");
}

/// An entry with one more change: a record with its time, its kind and these bytes.
fn with_change(entry: &[u8], end: &[u8]) -> Vec<Vec<u8>> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("short");
        [&[number << 3 | 2, length], content].concat()
    };
    let record = [&field(1, &[]), &field(5, b"PutUser"), end].concat();
    vec![[entry, &field(8, &field(2, &record))].concat()]
}

#[test]
fn an_entry_reads_the_same_from_its_parts() {
    let Log { entries, follower, .. } = &log();
    let read = |bytes: &[u8]| Entry::decode(bytes).expect("readable");
    let mut moved = 0;
    for bytes in entries {
        let mut named = read(bytes);
        let Some(content) = named.move_to_parts() else { continue };
        moved += 1;
        let named = named.encode();
        assert_eq!(read(&named).with_parts(&content).expect("readable").encode(), *bytes);
        // Without its parts it is not applied, and a second time there is nothing to move.
        if moved == 1 && bytes == &entries[0] {
            let refused = follower.apply(std::slice::from_ref(&named));
            assert_eq!(refused, Err(LogError::Unreadable { format: FORMAT }));
        }
        assert_eq!(read(&named).move_to_parts(), None);
        for end in 0..content.len() {
            let _ = read(&named).with_parts(&content[..end]);
        }
        // Field 7 is the format: the first one has no parts.
        let earlier = [&named[..], &[7 << 3, 1]].concat();
        assert_eq!(Entry::decode(&earlier).err(), Some(LogError::Unreadable { format: 1 }));
    }
    assert!(moved > 2);
}

#[test]
fn an_entry_is_applied_once() {
    let Log { entries, follower, .. } = &log();
    let position = follower.apply(&entries[..2]).expect("applied");
    let changes = follower.cache.changes.lock().expect("whole").len();
    for repeated in [&entries[..1], &entries[1..2], &entries[..4]] {
        let found = Entry::decode(&repeated[0]).expect("readable").seq;
        assert_eq!(follower.apply(repeated), Err(LogError::Sequence { last: 2, found }));
        assert!(is_at(follower, position, changes));
    }
    let last = follower.apply(&entries[2..]).expect("applied");
    assert_eq!(last.seq, entries.len() as u64);
}

#[test]
fn other_facts_than_those_of_the_writer_are_counted_and_made_equal() {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    found::<SledEngine>(&at("a"));
    copy(&at("a"), &at("b"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender));
    let renamed = |name: &str| {
        let key = FactKey::Company(company("acme", &catalog(1)).id);
        let before = a.store.get(&key).expect("readable");
        let after = Company { display_name: name.to_owned(), ..company("acme", &catalog(1)) };
        let proposal = Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![put(before, Fact::Company(Arc::new(after)))],
            change: change(ChangeKind::UpdateCompany, "acme"),
            idempotency: None,
        };
        a.store.commit(proposal).expect("queued").blocking_recv().expect("answered").expect("done");
        log.try_iter().collect::<Vec<_>>()
    };
    let first = renamed("first");
    let b = Replica::open::<SledEngine>(&at("b"), None);
    b.apply(&first).expect("applied");
    b.close::<SledEngine>();
    forge(&at("b"), b"Cacme", |value| {
        let name = value.windows(5).position(|part| part == b"first").expect("its name");
        value[name] = b'F';
    });
    let b = Replica::open::<SledEngine>(&at("b"), None);
    let diverged = || b.store.metrics().diverged.read();
    // An entry that is not applied is not counted.
    let (second, third) = (renamed("second"), renamed("third"));
    b.apply(&[second.clone(), second.clone()].concat())
        .expect_err("the second is not the next one");
    assert_eq!(diverged(), 0);
    b.apply(&second).expect("applied");
    assert_eq!(diverged(), 1);
    b.apply(&[third, renamed(&"long ".repeat(2_000)), renamed("last")].concat()).expect("applied");
    assert_eq!(diverged(), 1, "the first change made the fact equal");
    assert_same(&a.close::<SledEngine>(), &b.close::<SledEngine>());
}

/// The hash of an entry is that of the head, or the `prev` of the next one.
#[test]
fn no_damaged_byte_of_an_entry_is_applied() {
    let Log { entries, follower, .. } = &log();
    let start = follower.position();
    let (first, both) = (hash(&entries[..1]), hash(&entries[..2]));
    for at in 0..entries[0].len() {
        let mut damaged = entries[..2].to_vec();
        damaged[0][at] ^= 1 << (at % 8);
        apply(&follower.store, &damaged[..1], first).expect_err("its hash is another");
        apply(&follower.store, &damaged, both).expect_err("the next one has another `prev`");
        damaged[0].truncate(at);
        apply(&follower.store, &damaged[..1], first).expect_err("it is truncated");
    }
    assert!(is_at(follower, start, 0));
    apply(&follower.store, &entries[..2], both).expect("applied");
}

#[test]
fn a_store_follows_only_the_open_log_of_its_own_state() {
    let dir = memory();
    let mut store = Store::open(dir.path()).expect("opened");
    let own = store.incarnation();
    let other = Incarnation::from_u128(9);
    let head = Head::first(other, own, Revision::ZERO, Timestamp::UNIX_EPOCH);
    let ahead = Head { revision: Revision(1), ..head.clone() };
    for (head, error) in [
        (Head { format: 9, ..head.clone() }, LogError::Format { needs: 9 }),
        (Head { state: HeadState::Closed(other), ..head.clone() }, LogError::Closed),
        (
            Head { incarnation: other, ..head.clone() },
            LogError::Incarnation { log: other, store: own },
        ),
        (ahead, LogError::Revision { log: Revision(1), store: Revision::ZERO }),
    ] {
        assert_eq!(store.follow_log(&head, Some(1)), Err(error));
        assert_eq!(store.log_position(), Ok(None));
    }
    store.follow_log(&head, Some(1)).expect("it follows");
    assert_eq!(store.follow_log(&head, Some(1)), Err(LogError::Following));
    let cluster = Some(Cluster { id: other, etcd_cluster_id: Some(1) });
    assert_eq!(store.cluster(), cluster);
    let accepted = store.accept_clock(Timestamp::now(), Default::default(), &Default::default());
    assert_eq!(accepted, Err(StoreError::Unavailable), "the change would have no entry");
    drop(store);
    // So it does in the next process, and makes no change that has no entry.
    let replica = Replica::open::<SledEngine>(dir.path(), None);
    assert_eq!(replica.position(), LogPosition { incarnation: own, seq: 0, hash: head.hash });
    assert_eq!(replica.store.cluster(), cluster);
    let refused = Err(CommitError::Store(StoreError::Unavailable));
    assert_eq!(commit(&replica.store, "a"), refused);
    assert!(is_at(&replica, replica.position(), 0));
    // A store that was restored from it follows no log.
    let mut backup = replica.store.backup().expect("begun");
    let backup: Vec<_> = iter::from_fn(|| backup.next_part().expect("read")).flatten().collect();
    let copy = dir.path().join("copy");
    store::restore(&copy, &*backup, Default::default(), Timestamp::now()).expect("restored");
    let copy = Store::open(&copy).expect("opened");
    assert_eq!((copy.log_position(), copy.cluster()), (Ok(None), None));
    copy.start(Arc::new(NoListener));
    commit(&copy, "a").expect("committed");
    let Log { entries, .. } = log();
    assert_eq!(apply(&copy, &entries, hash(&entries)), Err(LogError::NotFollowing));
}

pub fn commit(store: &Store, name: &str) -> Result<Revision, CommitError> {
    let committed = store.commit(creation(name)).expect("queued").blocking_recv();
    committed.expect("answered").map(|receipt| receipt.revision)
}

/// The creation of a company with this name.
pub fn creation(name: &str) -> Proposal {
    let company = Company { display_name: name.to_owned(), ..company(&name[..1], &catalog(1)) };
    Proposal {
        preconditions: vec![],
        caller: None,
        writes: vec![put(None, Fact::Company(Arc::new(company)))],
        change: change(ChangeKind::CreateCompany, &name[..1]),
        idempotency: None,
    }
}

#[test]
fn changes_are_divided_among_entries_of_a_mebibyte() {
    let dir = memory();
    found::<SledEngine>(dir.path());
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(dir.path(), Some(sender));
    let handles: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| {
            let length = if name == "c" { MAX_BYTES } else { MAX_BYTES * 2 / 5 };
            a.store.commit(creation(&name.repeat(length))).expect("queued")
        })
        .into_iter()
        .map(|handle| handle.blocking_recv().expect("answered"))
        .collect();
    let committed: Vec<_> = handles.iter().flatten().map(|receipt| receipt.revision.0).collect();
    assert_eq!(committed, [1, 2, 3, 4], "the one that is too large has no revision");
    assert!(
        matches!(handles[2], Err(CommitError::Store(StoreError::EntryTooLarge { bytes, .. })) if bytes > MAX_BYTES)
    );
    let entries: Vec<_> = log.try_iter().collect();
    assert!(entries.len() > 1 && entries.iter().all(|entry| entry.len() <= MAX_BYTES));
    let last = Entry::decode(entries.last().expect("one")).expect("readable");
    assert_eq!(a.position().seq, last.seq);
    assert_eq!(a.position().hash, hash(&entries));
}

/// A replica may collect garbage later than the one that wrote the entry.
#[test]
fn a_request_of_which_the_result_has_expired_is_remembered_anew() {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    found::<SledEngine>(&at("a"));
    copy(&at("a"), &at("b"));
    copy(&at("a"), &at("c"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender));
    let key = RequestKey([7; 32]);
    let request = |name: &str, hour: i64| {
        // Longer than a value has in its place.
        let detail = ResultDetail::Impact(7, name.repeat(10_000));
        let result = WriteResult { detail, ..WriteResult::default() };
        let idempotency = Some(IdempotencyRecord { key, body: [1; 32], result });
        let proposal = creation(name);
        let change = Change { time: later(hour), ..proposal.change };
        let committed = a.store.commit(Proposal { change, idempotency, ..proposal });
        committed.expect("queued").blocking_recv().expect("answered").expect("committed")
    };
    request("x", 1);
    a.store.mark_time(later(26), later(26));
    assert!(in_time(|| a.store.answered(&key) == Ok(None)), "collected");
    request("y", 26);
    let entries: Vec<_> = log.try_iter().collect();
    let b = Replica::open::<SledEngine>(&at("b"), None);
    for entry in entries.chunks(1) {
        b.apply(entry).expect("applied");
    }
    let c = Replica::open::<SledEngine>(&at("c"), None);
    c.apply(&entries).expect("applied");
    let a = (a.store.answered(&key), a.close::<SledEngine>());
    for other in [b, c] {
        other.store.mark_time(later(26), later(26));
        let answered = other.store.answered(&key);
        assert_eq!((answered, other.close::<SledEngine>()), a);
    }
}

/// The process that is killed: it applies the entries of a file, and writes down how far it is.
#[test]
fn following_process() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let root = Path::new(&root);
    let entries = read_entries(root);
    let replica = Replica::open::<SledEngine>(&root.join("b"), None);
    let (mut done, mut rng) = (replica.position().seq as usize, Rng(entries.len() as u64));
    let mut out = std::io::stdout();
    while done < entries.len() {
        let next = (done + 1 + rng.below(4) as usize).min(entries.len());
        replica.apply(&entries[done..next]).expect("applied");
        done = next;
        writeln!(out, "\napplied {done}").and_then(|()| out.flush()).expect("told");
    }
    loop {
        std::thread::park();
    }
}

/// The directory of the process that is killed.
const ROOT: &str = "SCOPEGATE_ENTRIES";

fn read_entries(root: &Path) -> Vec<Vec<u8>> {
    let read = |n: usize| fs::read(root.join(format!("entry-{n}"))).ok();
    (0..).map_while(read).collect()
}

#[test]
fn a_replica_that_is_killed_goes_on_with_the_next_entry() {
    let dir = memory();
    let root = dir.path();
    found::<SledEngine>(&root.join("a"));
    copy(&root.join("a"), &root.join("b"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&root.join("a"), Some(sender));
    History::new(5).live(&a.store, 120);
    for (n, entry) in log.try_iter().enumerate() {
        fs::write(root.join(format!("entry-{n}")), entry).expect("written");
    }
    let entries = read_entries(root);
    let (mut rng, mut kills) = (Rng(7), 0);
    let b = loop {
        let mut child = alone("entries::following_process", &[])
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        // Killed at any moment after some entries, or while the store is opened.
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let told = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("applied ").and_then(|seq| seq.parse::<u64>().ok())
        });
        let told = told.take(rng.below(12) as usize).take_while(|seq| *seq < entries.len() as u64);
        let told = told.last().unwrap_or(0);
        child.kill().expect("killed");
        child.wait().expect("gone");
        kills += 1;
        let b = Replica::open::<SledEngine>(&root.join("b"), None);
        assert!(b.position().seq >= told, "{told} was acknowledged, now {:?}", b.position());
        if b.position().seq == entries.len() as u64 {
            break b;
        }
    };
    assert!(kills > 5, "{kills}");
    assert_eq!(b.position(), a.position());
    assert_same(&a.close::<SledEngine>(), &b.close::<SledEngine>());
}

/// The order in which a power cut may leave the two stores: the entry is in the log, and the store that
/// wrote it has not applied it.
#[test]
fn a_store_applies_its_own_entry_after_a_crash() {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    found::<SledEngine>(&at("a"));
    copy(&at("a"), &at("before"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender.clone()));
    History::new(1).live(&a.store, 3);
    let entries: Vec<_> = log.try_iter().collect();
    let again = Replica::open::<SledEngine>(&at("before"), Some(sender));
    assert_eq!(again.apply(&entries), Ok(a.position()));
    // Its next own change follows them.
    commit(&again.store, "z").expect("committed");
    let next: Vec<_> = log.try_iter().collect();
    assert_eq!(a.apply(&next), Ok(again.position()));
    assert_same(&a.close::<SledEngine>(), &again.close::<SledEngine>());
}

fn uuid() -> impl Strategy<Value = Incarnation> {
    any::<u128>().prop_map(Incarnation::from_u128)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nanos)| Timestamp::new(second, nanos).expect("a time"))
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9.-]{1,40}".prop_map(|name| Name::parse(name).expect("a name"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_head_is_read_as_it_was_written(
        ids in (uuid(), uuid(), prop::option::of(uuid())),
        numbers in (any::<u64>(), any::<u64>(), any::<u64>(), 1_u32..),
        hash in any::<[u8; 32]>(),
        time in time(),
    ) {
        let (cluster, incarnation, closing) = ids;
        let (seq, revision, bytes, format) = numbers;
        let truncated_bytes = bytes / 3;
        let state = closing.map_or(HeadState::Open, HeadState::Closed);
        let (revision, hash) = (Revision(revision), Hash::from_bytes(hash));
        let head = Head {
            cluster,
            incarnation,
            seq,
            revision,
            hash,
            time,
            bytes,
            truncated_bytes,
            format,
            state,
        };
        let encoded = head.encode();
        prop_assert_eq!(Head::decode(&encoded), Ok(head));
        // The format is 0 in a head that was cut off.
        prop_assert!(Head::decode(&encoded[..encoded.len() / 2]).is_err());
    }

    #[test]
    fn a_record_is_read_as_it_was_written(
        session in uuid(),
        name in name(),
        numbers in (any::<u64>(), any::<u64>(), 1_u32..),
        bytes in (any::<[u8; 16]>(), any::<[u8; 32]>()),
        fenced in any::<bool>(),
        ttl in 3_000_u64..=60_000,
        clock in time(),
        started in time(),
        ahead in prop::collection::btree_set(self::name(), 0..4),
        (free_bytes, diverged, retention, catalog) in
            (any::<Option<u64>>(), any::<u64>(), prop::option::of(0..1_u64 << 40), any::<Option<[u8; 32]>>()),
        texts in (".{0,20}", ".{0,40}"),
    ) {
        let (count, published, speaks) = numbers;
        let record = MemberRecord {
            session,
            name,
            count,
            random: bytes.0,
            published: Revision(published),
            fenced,
            ttl: Duration::from_millis(ttl),
            clock,
            started,
            report: ReplicaReport {
                ahead: ahead.into_iter().collect(),
                free_bytes,
                diverged,
                audit_log_retention: retention.map(Duration::from_secs),
                catalog: catalog.map(Hash::from_bytes),
            },
            speaks,
            version: texts.0,
            advertise: texts.1,
            peer_token: PeerToken(bytes.1),
        };
        let secret = format!("{:?}", bytes.1);
        let shown = format!("{record:?}");
        prop_assert!(!shown.contains(&secret));
        for wrong in [
            MemberRecord { ttl: Duration::from_millis(2_999), ..record.clone() },
            MemberRecord { ttl: Duration::from_millis(60_001), ..record.clone() },
            MemberRecord { speaks: 0, ..record.clone() },
            MemberRecord {
                report: ReplicaReport {
                    ahead: vec![record.name.clone(); 2],
                    ..record.report.clone()
                },
                ..record.clone()
            },
        ] {
            prop_assert!(MemberRecord::decode(&wrong.encode()).is_err());
        }
        prop_assert_eq!(MemberRecord::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn the_impact_is_the_same_after_the_clock_was_set_back() {
    use crate::store::credential;
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    let catalog = catalog(1);
    let propose = |store: &Store, write: store::FactWrite| {
        let proposal = Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![write],
            change: change(ChangeKind::UpdateCredential, "a"),
            idempotency: None,
        };
        store.commit(proposal).expect("queued").blocking_recv().expect("answered").expect("done")
    };
    let store = Arc::new(Store::open(&at("a")).expect("opened"));
    store.start(Arc::new(NoListener));
    let acme = company("a", &catalog);
    let key = FactKey::Company(acme.id.clone());
    propose(&store, put(None, Fact::Company(Arc::new(acme))));
    let Ok(Some(Fact::Company(acme))) = store.get(&key) else { panic!() };
    let mut hr = credential(&acme, "hr", &catalog, &[]);
    hr.revoked_tokens.end_all(Timestamp::now() + jiff::SignedDuration::from_hours(24 * 800));
    let hr_key = FactKey::Credential(hr.company, hr.id.clone());
    propose(&store, put(None, Fact::Credential(Arc::new(hr))));
    let years = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 900);
    store.persist_time(years).expect("queued").blocking_recv().expect("durable");
    store.close();
    drop(store);
    let mut store = Store::open(&at("a")).expect("opened");
    assert!(
        store
            .accept_clock(Timestamp::now(), Default::default(), &Default::default())
            .expect("accepted")
            .is_some()
    );
    let head = Head::first(
        Incarnation::from_u128(7),
        store.incarnation(),
        store.opened_at(),
        Timestamp::UNIX_EPOCH,
    );
    store.follow_log(&head, Some(1)).expect("it follows");
    drop(store);
    copy(&at("a"), &at("b"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender));
    let b = Replica::open::<SledEngine>(&at("b"), None);
    let Ok(Some(Fact::Credential(before))) = a.store.get(&hr_key) else { panic!() };
    let mut after = (*before).clone();
    after.label = "renamed".to_owned();
    propose(&a.store, put(Some(Fact::Credential(before)), Fact::Credential(Arc::new(after))));
    let all: Vec<_> = log.try_iter().collect();
    b.apply(&all).expect("applied");
    let impact = FactKey::Impact(acme.created_at);
    let show = |store: &Store| store.get(&impact).expect("read").map(|fact| fact.revision());
    assert_eq!(show(&a.store), show(&b.store), "the impact revision");
}

/// The clock of the replica that made an entry may be wrong (D19).
#[test]
fn time_of_an_entry_moves_no_clock_and_no_time_mark_of_another_store() {
    let dir = memory();
    let at = |name: &str| dir.path().join(name);
    found::<SledEngine>(&at("a"));
    // Nobody reads the entries of the followers' own changes.
    let (unread, _kept) = mpsc::channel();
    let follower = |name: &str| {
        copy(&at("a"), &at(name));
        Replica::open::<SledEngine>(&at(name), Some(unread.clone()))
    };
    let (near, far) = (follower("near"), follower("far"));
    let (sender, log) = mpsc::channel();
    let a = Replica::open::<SledEngine>(&at("a"), Some(sender));
    let own = creation("b").change.time;
    let commit_at = |replica: &Replica, name: &str, time| {
        let mut proposal = creation(name);
        proposal.change.time = time;
        let committed = replica.store.commit(proposal).expect("queued").blocking_recv();
        committed.expect("answered").expect("committed").time
    };
    let apply = |entry: &[Vec<u8>], replica: &Replica| {
        let before = replica.store.durable_time();
        replica.apply(entry).expect("applied");
        assert_eq!(replica.store.durable_time(), before);
    };
    // Both clocks may be right, so the times have the order of the log.
    let later = own + jiff::SignedDuration::from_secs(2);
    assert_eq!(commit_at(&a, "c", later), later);
    let entry = [log.recv().expect("an entry")];
    apply(&entry, &near);
    apply(&entry, &far);
    assert_eq!(commit_at(&near, "b", own), later);
    // One of them is wrong.
    let wrong = own + jiff::SignedDuration::from_hours(24);
    assert_eq!(commit_at(&a, "d", wrong), wrong);
    apply(&[log.recv().expect("an entry")], &far);
    assert_eq!(commit_at(&far, "b", own), own);
    assert_eq!(commit_at(&far, "e", own), own);
    assert_eq!(far.store.durable_time(), own);
}
