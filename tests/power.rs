//! A power cut loses nothing that was acknowledged: what the engine writes and syncs is recorded,
//! and opened again from everything that a disk may hold of it after a cut at any moment.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "power/platter.rs"]
mod platter;
#[path = "power/tape.rs"]
mod tape;
#[path = "town/mod.rs"]
mod town;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use platter::{LUCK, Platter};
use scopegate::store::Store;
use scopegate::store::sled::SledStore;
use tape::{Deed, Moment};
use town::{Deaf, Dice, Fixture};

/// The process to record: the same binary, told so by its environment.
const PART: &str = "SCOPEGATE_POWER_PART";
/// How many lives the store has, each going on from what a cut left of the one before.
const LIVES: u64 = 8;
/// How many changes are made in a life.
const CHANGES: u64 = 500;

/// From how many cuts to open the store.
fn cuts() -> usize {
    std::env::var("SCOPEGATE_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(520)
}

/// The recorded life: opens the store, makes changes, and writes down what is acknowledged.
#[test]
fn a_life() {
    let Ok(part) = std::env::var(PART) else { return };
    let (root, life) = part.split_once(' ').expect("a directory and a number");
    let (root, mut dice) = (Path::new(root), Dice(life.parse().expect("a number")));
    let store = town::open(&root.join("store")).expect("opened");
    let mut town = Fixture::at(store.opened_at().0);
    // What was opened is told to whoever asks, so it has to stay.
    let mut told = fs::File::create(root.join("told")).expect("made");
    let mut tell = |revision: u64| {
        told.write_all(format!("{revision}\n").as_bytes()).expect("written");
    };
    tell(town.revision);
    store.start(Arc::new(Deaf));
    town.live(&store, town.revision + CHANGES, &mut dice, &mut tell);
    if dice.below(2) == 0 {
        store.close();
        drop(store);
    }
    std::process::exit(0);
}

/// A directory in memory, where syncing costs nothing.
fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a directory")
}

#[test]
fn what_is_acknowledged_survives_a_power_cut_at_any_moment() {
    if !tape::at_hand() {
        println!("skipped: no strace, or it may not trace (apt-get install strace)");
        return;
    }
    let dir = memory();
    let dir = dir.path().canonicalize().expect("a path");
    let root = dir.join("disk");
    fs::create_dir(&root).expect("made");
    let (mut images, mut behind, mut ahead, mut most) = (0, 0, 0, 0);
    let mut refused = BTreeMap::<String, usize>::new();
    // What an earlier life was told holds for ever.
    let mut promised = 0;
    for life in 0..LIVES {
        let log = dir.join("tape");
        let mut platter = Platter::of(&root);
        let status = tape::recorded(&log)
            .arg(std::env::current_exe().expect("a path"))
            .args(["--exact", "a_life", "--nocapture"])
            .env(PART, format!("{} {life}", root.display()))
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("recorded").success(), "the life ended well");
        let tape = tape::read(&fs::read_to_string(&log).expect("readable"), &root);
        let mut dice = Dice(life);
        let mut cuts: Vec<_> = (0..cuts().div_ceil(LIVES as usize))
            .map(|n| match n % 4 {
                // The beginning of a life is a recovery: few moments, all of them delicate.
                0 => dice.below((tape.moments.len() as u64).min(120)),
                _ => dice.below(tape.moments.len() as u64),
            } as usize)
            .collect();
        cuts.sort_unstable();
        let heir = cuts[cuts.len() / 2 + dice.below(cuts.len() as u64 / 2) as usize];
        let (mut told, mut next) = (promised, PathBuf::new());
        let mut cuts = cuts.into_iter().enumerate().peekable();
        for (at, moment) in tape.moments.iter().enumerate() {
            platter.play(&tape, *moment);
            if let Moment::Begun(deed) = moment
                && let Deed::Write { path, bytes, .. } = &tape.deeds[*deed]
                && path.ends_with("told")
            {
                let line = String::from_utf8_lossy(bytes);
                told = told.max(line.trim().parse().expect("a revision"));
            }
            while let Some((n, _)) = cuts.next_if(|(_, cut)| *cut == at) {
                let luck = LUCK[n % LUCK.len()];
                let image = dir.join(format!("image-{life}-{n}"));
                let seed = Dice(dice.roll());
                platter.cut(&tape, luck, &mut seed.clone(), &image);
                if at == heir {
                    next = dir.join("heir");
                    fs::remove_dir_all(&next).ok();
                    platter.cut(&tape, luck, &mut seed.clone(), &next);
                    promised = told;
                }
                most = most.max(platter.afloat());
                images += 1;
                let what = format!("life {life}, moment {at}, {luck:?}, {told} was told");
                match opened(&image.join("store"), told) {
                    Ok(revision) if revision == told => behind += 1,
                    Ok(_) => ahead += 1,
                    Err(EngineError::Refused(error)) => {
                        println!("{what}: {error}");
                        *refused.entry(format!("{luck:?}")).or_default() += 1;
                        if let Some(keep) = std::env::var_os("SCOPEGATE_KEEP") {
                            let keep = Path::new(&keep).join(format!("{life}-{n}"));
                            fs::create_dir_all(&keep).expect("made");
                            platter.cut(&tape, luck, &mut seed.clone(), &keep);
                        }
                    }
                    Err(EngineError::Wrong(wrong)) => panic!("{what}: {wrong}"),
                }
                fs::remove_dir_all(&image).expect("removed");
            }
        }
        fs::remove_dir_all(&root).expect("removed");
        fs::rename(&next, &root).expect("moved");
    }
    println!(
        "{images} images: {behind} at what was told, {ahead} ahead of it, refused {refused:?}; \
         up to {most} writes afloat; {promised} revisions"
    );
    assert!(refused.is_empty(), "a power cut alone never damages a store");
}

enum EngineError {
    Refused(String),
    Wrong(String),
}

/// Opens the store, finds the town of its revision, and goes on with it.
fn opened(dir: &Path, told: u64) -> Result<u64, EngineError> {
    let store = town::open(dir).map_err(|error| EngineError::Refused(error.to_string()))?;
    let revision = store.opened_at().0;
    if revision < told {
        return Err(EngineError::Wrong(format!("opened at {revision}")));
    }
    let mut town = Fixture::at(revision);
    let wrong = |what: town::Wrong| EngineError::Wrong(format!("opened at {revision}: {what:?}"));
    town.verify(&store).map_err(wrong)?;
    store.start(Arc::new(Deaf));
    town.live(&store, revision + 3, &mut Dice(revision), |_| ());
    store.close();
    drop(store);
    let store = SledStore::open(dir).map_err(|error| EngineError::Refused(error.to_string()))?;
    town.verify(&store).map_err(wrong)?;
    Ok(revision)
}
