//! DiskModel: what a disk may hold when the power goes.
//!
//! Until a file is synced, each of its writes may be there, or not, or some sectors of it; the
//! file may have grown without what was written into it. Until a directory is synced, each of
//! its names may be there or not. A sync covers what was done before it was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::syscall_trace::{Moment, Op, Trace};
use crate::fixture::Rng;

/// What a write becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashOutcome {
    /// Nothing that was not synced is there.
    None,
    /// All of it is there.
    All,
    /// The first of it is there, up to some write.
    First,
    /// The last of it is there, from some write on.
    Last,
    /// Each write is there or not.
    Some,
    /// Each sector of each write is there or not.
    Torn,
}

pub const OUTCOMES: [CrashOutcome; 6] = [
    CrashOutcome::None,
    CrashOutcome::All,
    CrashOutcome::First,
    CrashOutcome::Last,
    CrashOutcome::Some,
    CrashOutcome::Torn,
];

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// What came since, by op.
    since: BTreeMap<usize, Since>,
}

#[derive(Clone, Copy)]
enum Since {
    Written { done: bool },
    Resized(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir,
}

/// A name comes, goes, or moves within its directory.
#[derive(Clone)]
enum Naming {
    Comes(PathBuf, Node),
    Goes(PathBuf),
    Moves(PathBuf, PathBuf, Node),
}

/// A disk with one directory tree.
#[derive(Default)]
pub struct DiskModel {
    root: PathBuf,
    files: Vec<File>,
    names: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    /// What came since the directory was synced, by directory.
    since: BTreeMap<PathBuf, Vec<Naming>>,
    /// What a sync in progress covers, by its op.
    syncing: BTreeMap<usize, Vec<usize>>,
    /// Deeds on names before which everything is covered, by the sync's op.
    naming: BTreeMap<usize, usize>,
}

impl DiskModel {
    /// What is below this directory, all of it synced.
    pub fn of(root: &Path) -> Self {
        let mut disk = Self { root: root.to_owned(), ..Self::default() };
        disk.take(root);
        disk.synced = disk.names.clone();
        disk
    }

    fn take(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                self.names.insert(path.clone(), Node::Dir);
                self.take(&path);
            } else {
                let synced = fs::read(&path).expect("readable");
                self.names.insert(path, Node::File(self.files.len()));
                self.files.push(File { synced, since: BTreeMap::new() });
            }
        }
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.names.get(path) {
            Some(Node::File(file)) => Some(&mut self.files[*file]),
            // Unlinked: whatever happens to it, nobody will see it again.
            _ => None,
        }
    }

    fn name(&mut self, path: &Path, naming: Naming) {
        let parent = path.parent().expect("a parent").to_owned();
        self.since.entry(parent).or_default().push(naming);
    }

    /// Goes on by one moment of the trace.
    pub fn play(&mut self, trace: &Trace, moment: Moment) {
        match moment {
            Moment::Begun(op) => self.begin(op, &trace.ops[op]),
            Moment::Done(op) => self.finish(op, trace),
        }
    }

    fn begin(&mut self, number: usize, op: &Op) {
        match op {
            Op::Write { path, .. } => {
                if let Some(file) = self.file(path) {
                    file.since.insert(number, Since::Written { done: false });
                }
            }
            Op::Sync { path } => {
                if let Some(file) = self.file(path) {
                    let done = |since: &Since| !matches!(since, Since::Written { done: false });
                    let covered =
                        file.since.iter().filter(|(_, s)| done(s)).map(|(n, _)| *n).collect();
                    self.syncing.insert(number, covered);
                } else {
                    self.naming.insert(number, self.since.get(path).map_or(0, Vec::len));
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, number: usize, trace: &Trace) {
        match &trace.ops[number] {
            Op::Create { path, empty } => {
                if let Some(file) = self.file(path) {
                    if *empty {
                        file.since.insert(number, Since::Resized(0));
                    }
                } else {
                    let node = Node::File(self.files.len());
                    self.files.push(File::default());
                    self.names.insert(path.clone(), node);
                    self.name(path, Naming::Comes(path.clone(), node));
                }
            }
            Op::Write { path, .. } => {
                if let Some(file) = self.file(path)
                    && let Some(since) = file.since.get_mut(&number)
                {
                    *since = Since::Written { done: true };
                }
            }
            Op::Resize { path, length } => {
                if let Some(file) = self.file(path) {
                    file.since.insert(number, Since::Resized(*length));
                }
            }
            Op::Sync { path } => {
                let covered = self.syncing.remove(&number);
                if let (Some(file), Some(covered)) = (self.file(path), covered) {
                    for op in covered {
                        if let Some(since) = file.since.remove(&op) {
                            apply(&mut file.synced, since, &trace.ops[op], |_| true);
                        }
                    }
                } else if let Some(covered) = self.naming.remove(&number)
                    && let Some(namings) = self.since.get_mut(path)
                {
                    let covered = covered.min(namings.len());
                    for naming in namings.drain(..covered) {
                        rename(&mut self.synced, naming);
                    }
                }
            }
            Op::Rename { from, to } => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                    self.name(to, Naming::Moves(from.clone(), to.clone(), node));
                }
            }
            Op::Unlink { path } => {
                self.names.remove(path);
                self.name(path, Naming::Goes(path.clone()));
            }
            Op::MakeDir { path } => {
                self.names.insert(path.clone(), Node::Dir);
                self.name(path, Naming::Comes(path.clone(), Node::Dir));
            }
        }
    }

    /// How many writes are not synced.
    pub fn afloat(&self) -> usize {
        self.files.iter().map(|file| file.since.len()).sum()
    }

    /// Writes what a disk may hold now to this directory.
    pub fn cut(&self, trace: &Trace, outcome: CrashOutcome, rng: &mut Rng, to: &Path) {
        let mut names = self.synced.clone();
        for namings in self.since.values() {
            let keep = lot(namings.len(), outcome, rng);
            for (naming, keep) in namings.iter().zip(keep) {
                if keep {
                    rename(&mut names, naming.clone());
                }
            }
        }
        let mut there = BTreeSet::from([self.root.clone()]);
        fs::create_dir_all(to).expect("made");
        for (path, node) in &names {
            if !path.parent().is_some_and(|parent| there.contains(parent)) {
                continue;
            }
            let copy = to.join(path.strip_prefix(&self.root).expect("below the root"));
            match node {
                Node::Dir => {
                    there.insert(path.clone());
                    fs::create_dir_all(copy).expect("made");
                }
                Node::File(file) => {
                    let bytes = self.contents(&self.files[*file], trace, outcome, rng);
                    fs::write(copy, bytes).expect("written");
                }
            }
        }
    }

    fn contents(
        &self,
        file: &File,
        trace: &Trace,
        outcome: CrashOutcome,
        rng: &mut Rng,
    ) -> Vec<u8> {
        let mut bytes = file.synced.clone();
        let keep = lot(file.since.len(), outcome, rng);
        // A file may grow before its contents are there.
        let grows = outcome != CrashOutcome::None && rng.below(3) == 0;
        for ((op, since), keep) in file.since.iter().zip(keep) {
            let op = &trace.ops[*op];
            let (torn, seed) = (outcome == CrashOutcome::Torn, rng.roll());
            if keep {
                apply(&mut bytes, *since, op, |sector| !torn || Rng(seed ^ sector).below(2) == 0);
            } else if grows && let Op::Write { at, bytes: written, .. } = op {
                let end = (*at as usize) + written.len();
                bytes.resize(bytes.len().max(end), 0);
            }
        }
        bytes
    }
}

/// Which of so many things are there.
fn lot(count: usize, outcome: CrashOutcome, rng: &mut Rng) -> Vec<bool> {
    let edge = rng.below(count as u64 + 1) as usize;
    (0..count)
        .map(|n| match outcome {
            CrashOutcome::None => false,
            CrashOutcome::All => true,
            CrashOutcome::First => n < edge,
            CrashOutcome::Last => n >= edge,
            CrashOutcome::Some | CrashOutcome::Torn => rng.below(2) == 0,
        })
        .collect()
}

const SECTOR: usize = 512;

fn apply(bytes: &mut Vec<u8>, since: Since, op: &Op, mut there: impl FnMut(u64) -> bool) {
    match (since, op) {
        (Since::Resized(length), _) => bytes.resize(length as usize, 0),
        (Since::Written { .. }, Op::Write { at, bytes: written, .. }) => {
            let mut from = 0;
            while from < written.len() {
                let place = *at as usize + from;
                let length = (SECTOR - place % SECTOR).min(written.len() - from);
                if there((place / SECTOR) as u64) {
                    bytes.resize(bytes.len().max(place + length), 0);
                    bytes[place..place + length].copy_from_slice(&written[from..from + length]);
                }
                from += length;
            }
        }
        _ => unreachable!("only writes are written"),
    }
}

fn rename(names: &mut BTreeMap<PathBuf, Node>, naming: Naming) {
    match naming {
        Naming::Comes(path, node) => drop(names.insert(path, node)),
        Naming::Goes(path) => drop(names.remove(&path)),
        Naming::Moves(from, to, node) => {
            names.remove(&from);
            names.insert(to, node);
        }
    }
}
