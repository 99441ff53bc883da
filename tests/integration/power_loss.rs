//! A power cut loses nothing that was acknowledged: what the engine writes and syncs is recorded,
//! and opened again from everything that a disk may hold of it after a cut at any moment.
mod disk_model;
mod syscall_trace;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fixture;
use crate::fixture::{Fixture, NoListener, Rng};
use crate::harness::process::alone;
use crate::redb_engine::RedbEngine;
use disk_model::{DiskModel, OUTCOMES};
use scopegate::store::engine::{Engine, SledEngine};
use syscall_trace::{Moment, Op};

/// The process to record: the same binary, told so by its environment.
const PART: &str = "SCOPEGATE_POWER_PART";
/// How many lives the store has, each going on from what a cut left of the one before.
const LIVES: u64 = 8;
/// How many changes are made in a life.
const CHANGES: u64 = 500;

/// From how many cuts to open the store.
fn cuts() -> usize {
    std::env::var("SCOPEGATE_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(240)
}

/// The recorded life: opens the store, makes changes, and writes down what is acknowledged.
#[test]
fn recorded_process() {
    let Ok(part) = std::env::var(PART) else { return };
    let [engine, life, root] = part.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("an engine, a number and a directory")
    };
    let life = life.parse().expect("a number");
    match engine {
        "redb" => live::<RedbEngine>(Path::new(root), life),
        _ => live::<SledEngine>(Path::new(root), life),
    }
}

fn live<E: Engine>(root: &Path, life: u64) {
    let mut rng = Rng(life);
    let store = fixture::open_on::<E>(&root.join("store")).expect("opened");
    let mut fixture = Fixture::at(store.opened_at().0);
    // What was opened is told to whoever asks, so it has to stay.
    let mut told = fs::File::create(root.join("told")).expect("made");
    let mut tell = |revision: u64| {
        told.write_all(format!("{revision}\n").as_bytes()).expect("written");
    };
    tell(fixture.revision);
    store.start(Arc::new(NoListener));
    fixture.live(&store, fixture.revision + CHANGES, &mut rng, &mut tell);
    if rng.below(2) == 0 {
        store.close();
        drop(store);
    }
    std::process::exit(0);
}

/// A directory in memory, where syncing costs nothing.
pub fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a directory")
}

#[test]
fn acknowledged_changes_survive_a_power_cut_at_any_moment() {
    survive_power_cuts::<SledEngine>("sled");
}

#[test]
fn acknowledged_changes_survive_a_power_cut_on_another_engine() {
    survive_power_cuts::<RedbEngine>("redb");
}

fn survive_power_cuts<E: Engine>(engine: &str) {
    if !syscall_trace::at_hand() {
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
        let log = dir.join("trace");
        let mut disk = DiskModel::of(&root);
        let recorded = syscall_trace::recorder(&log);
        let recorded: Vec<_> = recorded.iter().map(String::as_str).collect();
        let status = alone("power_loss::recorded_process", &recorded)
            .env(PART, format!("{engine} {life} {}", root.display()))
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("recorded").success(), "the life ended well");
        let trace = syscall_trace::read(&fs::read_to_string(&log).expect("readable"), &root);
        let mut rng = Rng(life);
        let mut cuts: Vec<_> = (0..cuts().div_ceil(LIVES as usize))
            .map(|n| match n % 4 {
                // The beginning of a life is a recovery: few moments, all of them delicate.
                0 => rng.below((trace.moments.len() as u64).min(120)),
                _ => rng.below(trace.moments.len() as u64),
            } as usize)
            .collect();
        cuts.sort_unstable();
        let heir = cuts[cuts.len() / 2 + rng.below(cuts.len() as u64 / 2) as usize];
        let (mut told, mut next) = (promised, PathBuf::new());
        let mut cuts = cuts.into_iter().enumerate().peekable();
        for (at, moment) in trace.moments.iter().enumerate() {
            disk.play(&trace, *moment);
            if let Moment::Begun(op) = moment
                && let Op::Write { path, bytes, .. } = &trace.ops[*op]
                && path.ends_with("told")
            {
                let line = String::from_utf8_lossy(bytes);
                told = told.max(line.trim().parse().expect("a revision"));
            }
            while let Some((n, _)) = cuts.next_if(|(_, cut)| *cut == at) {
                let outcome = OUTCOMES[n % OUTCOMES.len()];
                let image = dir.join(format!("image-{life}-{n}"));
                let seed = Rng(rng.roll());
                disk.cut(&trace, outcome, &mut seed.clone(), &image);
                if at == heir {
                    next = dir.join("heir");
                    fs::remove_dir_all(&next).ok();
                    disk.cut(&trace, outcome, &mut seed.clone(), &next);
                    promised = told;
                }
                most = most.max(disk.afloat());
                images += 1;
                let what = format!("life {life}, moment {at}, {outcome:?}, {told} was told");
                match opened::<E>(&image.join("store"), told) {
                    Ok(revision) if revision == told => behind += 1,
                    Ok(_) => ahead += 1,
                    Err(Trouble::Refused(error)) => {
                        println!("{what}: {error}");
                        *refused.entry(format!("{outcome:?}")).or_default() += 1;
                        if let Some(keep) = std::env::var_os("SCOPEGATE_KEEP") {
                            let keep = Path::new(&keep).join(format!("{life}-{n}"));
                            fs::create_dir_all(&keep).expect("made");
                            disk.cut(&trace, outcome, &mut seed.clone(), &keep);
                        }
                    }
                    Err(Trouble::Wrong(wrong)) => panic!("{what}: {wrong}"),
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

/// How often to kill.
const KILLS: u64 = 12;

#[test]
fn acknowledged_changes_survive_a_kill_at_any_moment() {
    survive_kills::<SledEngine>("sled");
}

#[test]
fn acknowledged_changes_survive_a_kill_on_another_engine() {
    survive_kills::<RedbEngine>("redb");
}

/// The same process, killed after so many acknowledgements.
fn survive_kills<E: Engine>(engine: &str) {
    let dir = memory();
    let told = dir.path().join("told");
    let told = || {
        let lines = fs::read_to_string(&told).unwrap_or_default();
        let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().next_back().map_or(0, |line| line.parse().expect("a revision"))
    };
    let (mut rng, mut last) = (Rng(1), 0);
    for life in 0..KILLS {
        fs::remove_file(dir.path().join("told")).ok();
        let mut process = alone("power_loss::recorded_process", &[])
            .env(PART, format!("{engine} {life} {}", dir.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("started");
        let until = last + rng.below(CHANGES - 100);
        while told() <= until && process.try_wait().expect("there").is_none() {
            std::thread::yield_now();
        }
        process.kill().expect("killed");
        process.wait().expect("ended");
        assert!(told() > until, "life {life} ended by itself");
        match opened::<E>(&dir.path().join("store"), told()) {
            Ok(revision) => last = revision,
            Err(Trouble::Refused(error) | Trouble::Wrong(error)) => panic!("life {life}: {error}"),
        }
    }
}

enum Trouble {
    Refused(String),
    Wrong(String),
}

/// Opens the store, finds the fixture of its revision, and goes on with it.
fn opened<E: Engine>(dir: &Path, told: u64) -> Result<u64, Trouble> {
    let store = fixture::open_on::<E>(dir).map_err(|error| Trouble::Refused(error.to_string()))?;
    let revision = store.opened_at().0;
    if revision < told {
        return Err(Trouble::Wrong(format!("opened at {revision}")));
    }
    let mut fixture = Fixture::at(revision);
    let wrong = |what: fixture::Wrong| Trouble::Wrong(format!("opened at {revision}: {what:?}"));
    fixture.verify(&store).map_err(wrong)?;
    store.start(Arc::new(NoListener));
    fixture.live(&store, revision + 3, &mut Rng(revision), |_| ());
    store.close();
    drop(store);
    let store = fixture::open_on::<E>(dir).map_err(|error| Trouble::Refused(error.to_string()))?;
    fixture.verify(&store).map_err(wrong)?;
    Ok(revision)
}
