//! Platter: what a disk may hold when the power goes.
//!
//! Until a file is synced, each of its writes may be there, or not, or some sectors of it; the
//! file may have grown without what was written into it. Until a directory is synced, each of
//! its names may be there or not. A sync covers what was done before it was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::tape::{Deed, Moment, Tape};
use super::town::Dice;

/// What a write becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
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

pub const LUCK: [Luck; 6] =
    [Luck::None, Luck::All, Luck::First, Luck::Last, Luck::Some, Luck::Torn];

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// What came since, by deed.
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
pub struct Platter {
    root: PathBuf,
    files: Vec<File>,
    names: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    /// What came since the directory was synced, by directory.
    since: BTreeMap<PathBuf, Vec<Naming>>,
    /// What a sync in progress covers, by its deed.
    syncing: BTreeMap<usize, Vec<usize>>,
    /// Deeds on names before which everything is covered, by the sync's deed.
    naming: BTreeMap<usize, usize>,
}

impl Platter {
    /// What is below this directory, all of it synced.
    pub fn of(root: &Path) -> Self {
        let mut platter = Self { root: root.to_owned(), ..Self::default() };
        platter.take(root);
        platter.synced = platter.names.clone();
        platter
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

    /// Goes on by one moment of the tape.
    pub fn play(&mut self, tape: &Tape, moment: Moment) {
        match moment {
            Moment::Begun(deed) => self.begin(deed, &tape.deeds[deed]),
            Moment::Done(deed) => self.finish(deed, tape),
        }
    }

    fn begin(&mut self, number: usize, deed: &Deed) {
        match deed {
            Deed::Write { path, .. } => {
                if let Some(file) = self.file(path) {
                    file.since.insert(number, Since::Written { done: false });
                }
            }
            Deed::Sync { path } => {
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

    fn finish(&mut self, number: usize, tape: &Tape) {
        match &tape.deeds[number] {
            Deed::Create { path, empty } => {
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
            Deed::Write { path, .. } => {
                if let Some(file) = self.file(path)
                    && let Some(since) = file.since.get_mut(&number)
                {
                    *since = Since::Written { done: true };
                }
            }
            Deed::Resize { path, length } => {
                if let Some(file) = self.file(path) {
                    file.since.insert(number, Since::Resized(*length));
                }
            }
            Deed::Sync { path } => {
                let covered = self.syncing.remove(&number);
                if let (Some(file), Some(covered)) = (self.file(path), covered) {
                    for deed in covered {
                        if let Some(since) = file.since.remove(&deed) {
                            apply(&mut file.synced, since, &tape.deeds[deed], |_| true);
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
            Deed::Rename { from, to } => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                    self.name(to, Naming::Moves(from.clone(), to.clone(), node));
                }
            }
            Deed::Unlink { path } => {
                self.names.remove(path);
                self.name(path, Naming::Goes(path.clone()));
            }
            Deed::MakeDir { path } => {
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
    pub fn cut(&self, tape: &Tape, luck: Luck, dice: &mut Dice, to: &Path) {
        let mut names = self.synced.clone();
        for namings in self.since.values() {
            let keep = lot(namings.len(), luck, dice);
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
                    let bytes = self.contents(&self.files[*file], tape, luck, dice);
                    fs::write(copy, bytes).expect("written");
                }
            }
        }
    }

    fn contents(&self, file: &File, tape: &Tape, luck: Luck, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = file.synced.clone();
        let keep = lot(file.since.len(), luck, dice);
        // A file may grow before its contents are there.
        let grows = luck != Luck::None && dice.below(3) == 0;
        for ((deed, since), keep) in file.since.iter().zip(keep) {
            let deed = &tape.deeds[*deed];
            let (torn, seed) = (luck == Luck::Torn, dice.roll());
            if keep {
                apply(&mut bytes, *since, deed, |sector| {
                    !torn || Dice(seed ^ sector).below(2) == 0
                });
            } else if grows && let Deed::Write { at, bytes: written, .. } = deed {
                let end = (*at as usize) + written.len();
                bytes.resize(bytes.len().max(end), 0);
            }
        }
        bytes
    }
}

/// Which of so many things are there.
fn lot(count: usize, luck: Luck, dice: &mut Dice) -> Vec<bool> {
    let edge = dice.below(count as u64 + 1) as usize;
    (0..count)
        .map(|n| match luck {
            Luck::None => false,
            Luck::All => true,
            Luck::First => n < edge,
            Luck::Last => n >= edge,
            Luck::Some | Luck::Torn => dice.below(2) == 0,
        })
        .collect()
}

const SECTOR: usize = 512;

fn apply(bytes: &mut Vec<u8>, since: Since, deed: &Deed, mut there: impl FnMut(u64) -> bool) {
    match (since, deed) {
        (Since::Resized(length), _) => bytes.resize(length as usize, 0),
        (Since::Written { .. }, Deed::Write { at, bytes: written, .. }) => {
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
