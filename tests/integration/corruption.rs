//! A damaged byte is noticed: whichever file of a store it is in, the store is right, or it says
//! in one sentence that it is damaged. It never answers with something else.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::fixture;
use crate::fixture::{Fixture, NoListener, Rng, Wrong};
use crate::harness::process::is_alone;
use crate::redb_engine::RedbEngine;
use jiff::Timestamp;
use scopegate::store::engine::{Engine, SledEngine};

/// How many bytes to damage in each file.
fn bytes() -> u64 {
    std::env::var("SCOPEGATE_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

#[test]
fn a_damaged_byte_of_any_file_is_noticed() {
    // The panics of an engine are expected here, and a panic hook is that of a process.
    if is_alone("corruption::a_damaged_byte_of_any_file_is_noticed", &[]) {
        notice_damage::<SledEngine>(&["db", "snap.", "witness"]);
    }
}

#[test]
fn a_damaged_byte_is_noticed_on_another_engine() {
    if is_alone("corruption::a_damaged_byte_is_noticed_on_another_engine", &[]) {
        notice_damage::<RedbEngine>(&["redb", "witness"]);
    }
}

fn notice_damage<E: Engine>(names: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let late = Timestamp::from_second(1_000_000).expect("a time");
    let mut fixture = Fixture::default();
    // Three lives, so that there is a snapshot, with a log before and a long one behind it: that
    // one is read when the store is opened, and sled passes over what it cannot read there.
    for until in [60, 120, 700] {
        let store = fixture::open_on::<E>(&path).expect("opened");
        store.start(Arc::new(NoListener));
        fixture.live(&store, until, &mut Rng(until), |_| ());
        if until == 700 {
            store.mark_time(late, late);
        }
        store.close();
    }
    let files: Vec<_> = fs::read_dir(&path)
        .expect("readable")
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .filter(|name| name != "lock")
        .collect();
    let is_there = |name: &&str| files.iter().any(|file| file.starts_with(*name));
    assert!(names.iter().all(is_there), "{files:?}");
    let mut seen = BTreeMap::<(String, &str), u32>::new();
    for damaged in &files {
        let whole = fs::read(path.join(damaged)).expect("readable");
        let mut rng = Rng(whole.len() as u64);
        for n in 0..bytes() {
            let at = match (whole.len() as u64, n) {
                (length, n) if length <= bytes() => n % length,
                // Where something is.
                (length, _) => loop {
                    let at = rng.below(length);
                    if whole[at as usize] != 0 {
                        break at;
                    }
                },
            };
            let copy = dir.path().join("copy");
            fs::remove_dir_all(&copy).ok();
            fs::create_dir_all(&copy).expect("made");
            for file in &files {
                fs::copy(path.join(file), copy.join(file)).expect("copied");
            }
            let mut bytes = whole.clone();
            bytes[at as usize] ^= 1 << rng.below(8);
            fs::write(copy.join(damaged), bytes).expect("written");
            let what = outcome::<E>(&copy, &fixture, late, &format!("byte {at} of {damaged}"));
            let file = damaged.split('.').next().expect("a name").to_owned();
            *seen.entry((file, what)).or_default() += 1;
        }
    }
    println!("{seen:?}");
    for file in names.iter().map(|name| name.trim_end_matches('.').to_owned()) {
        assert!(seen.contains_key(&(file.clone(), "refused")), "{file}: {seen:?}");
    }
}

fn outcome<E: Engine>(dir: &Path, fixture: &Fixture, late: Timestamp, what: &str) -> &'static str {
    let store = match fixture::open_on::<E>(dir) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains("is damaged"), "{what}: {error}");
            return "refused";
        }
    };
    assert_eq!(store.opened_at().0, fixture.revision, "{what}");
    assert!(store.time_mark() >= Some(late), "{what}: the time went back");
    // An engine may panic on data that it cannot read, which whoever reads for a caller catches.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let verified = panic::catch_unwind(AssertUnwindSafe(|| fixture.verify(&store)));
    panic::set_hook(hook);
    match verified {
        Ok(Ok(())) => "right",
        Ok(Err(Wrong::Unreadable(_))) => "read with an error",
        Err(_) => "read with a panic",
        Ok(Err(Wrong::Differs(wrong))) => panic!("{what}: {wrong}"),
    }
}
