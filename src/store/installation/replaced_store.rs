//! ReplacedStore: the store of a directory that an installed one replaces, in a directory within it.
//!
//! A move is not atomic, because a store has several files and its directory may be a mount point. The
//! files are therefore moved into [`MOVING`], which is renamed to [`REPLACED`] when all of them are in it.
//! Files are put back in the opposite way. A move that was interrupted in either direction can therefore
//! be completed in the first one.
//!
//! Only files of a store are moved and removed. The data directory may have other files, such as those of
//! the signing keys.
//!
//! Not here: the marker that keeps the directory from being opened meanwhile.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::data_dir::create;
use crate::store::disk_space;
use crate::store::engine::Engine;
use crate::store::high_water_mark::HighWaterMark;

/// The whole replaced store.
const REPLACED: &str = "replaced";
/// A part of it; the other part is in the data directory.
const MOVING: &str = "replaced.moving";
/// A part of it; the other part was deleted.
const DISCARDED: &str = "replaced.discarded";

/// The replaced store of a data directory, if there is one.
pub(super) struct ReplacedStore {
    dir: PathBuf,
    /// The file that a directory with a store has.
    file: &'static str,
    /// Whether the engine makes a file of this name.
    is_file: fn(&str) -> bool,
}

impl ReplacedStore {
    pub(super) fn of<E: Engine>(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), file: E::file_name(), is_file: E::is_file }
    }

    /// Whether the data directory has a store.
    pub(super) fn is_in_place(&self) -> bool {
        self.dir.join(self.file).exists()
    }

    /// Prepares to move the store aside. Until the first file is moved, it is the store of the directory.
    pub(super) fn begin_move(&self) -> io::Result<()> {
        create(&self.at(MOVING))
    }

    /// Ends a move of which all files are in the data directory.
    pub(super) fn cancel_move(&self) -> io::Result<()> {
        let moving = self.at(MOVING);
        if moving.exists() { fs::remove_dir(moving) } else { Ok(()) }
    }

    /// Deletes the replaced store if the disk has no room for a new one.
    pub(super) fn make_room(&self) -> io::Result<()> {
        let replaced = self.at(REPLACED);
        if !replaced.exists() || disk_space::has_room(&self.dir, size(&replaced)?)? {
            return Ok(());
        }
        tracing::warn!(
            dir = %self.dir.display(),
            "the disk has no room for two stores: the old one is deleted before the snapshot of \
             another replica is installed"
        );
        self.discard()
    }

    /// Moves the rest of the store aside, if a move of it was begun in either direction.
    pub(super) fn complete_move(&self) -> io::Result<()> {
        let moving = self.at(MOVING);
        if !moving.exists() {
            return Ok(());
        }
        for entry in self.files(&self.dir)? {
            fs::rename(entry.path(), moving.join(entry.file_name()))?;
        }
        sync(&moving)?;
        sync(&self.dir)?;
        self.discard()?;
        if !moving.join(self.file).exists() {
            // There was no store.
            return fs::remove_dir_all(moving);
        }
        fs::rename(moving, self.at(REPLACED))?;
        sync(&self.dir)
    }

    /// Removes the files of a store from the data directory.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in self.files(&self.dir)? {
            remove(&entry.path())?;
        }
        sync(&self.dir)
    }

    /// Moves the replaced store back, if there is one.
    pub(super) fn put_back(&self) -> io::Result<bool> {
        let (replaced, moving) = (self.at(REPLACED), self.at(MOVING));
        if !replaced.exists() {
            return Ok(false);
        }
        fs::rename(replaced, &moving)?;
        sync(&self.dir)?;
        for entry in self.files(&moving)? {
            fs::rename(entry.path(), self.at_name(&entry))?;
        }
        sync(&self.dir)?;
        Ok(true)
    }

    /// Deletes the replaced store. A part of it is never put back.
    pub(super) fn discard(&self) -> io::Result<()> {
        let (replaced, discarded) = (self.at(REPLACED), self.at(DISCARDED));
        if discarded.exists() {
            fs::remove_dir_all(&discarded)?;
        }
        if replaced.exists() {
            fs::rename(replaced, &discarded)?;
            sync(&self.dir)?;
            fs::remove_dir_all(discarded)?;
        }
        Ok(())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn at_name(&self, entry: &DirEntry) -> PathBuf {
        self.dir.join(entry.file_name())
    }

    /// The files and directories of a store in this directory.
    fn files(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let all = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        let is_own = |entry: &DirEntry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| (self.is_file)(name) || HighWaterMark::is_file(name))
        };
        Ok(all.into_iter().filter(is_own).collect())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The bytes of all files of a directory.
fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 3] = ["db", "conf", "witness"];

    /// A data directory of which these files are in [`MOVING`], and the others in their place.
    fn moving(files: &[&str]) -> (tempfile::TempDir, ReplacedStore) {
        let dir = tempfile::tempdir().expect("a directory");
        let is_file = |name: &str| FILES.contains(&name);
        let store = ReplacedStore { dir: dir.path().to_owned(), file: "db", is_file };
        fs::create_dir(store.at(MOVING)).expect("made");
        fs::write(store.at("other"), "").expect("written");
        for name in FILES {
            let place = if files.contains(&name) { store.at(MOVING) } else { store.dir.clone() };
            fs::write(place.join(name), name).expect("written");
        }
        (dir, store)
    }

    fn has_all(dir: &Path) -> bool {
        FILES.iter().all(|name| fs::read_to_string(dir.join(name)).is_ok_and(|text| text == *name))
    }

    #[test]
    fn interrupted_move_is_completed_and_undone_from_any_part() {
        for parts in 0..1 << FILES.len() {
            let files: Vec<_> = (0..).zip(FILES).filter(|(n, _)| parts & 1 << n != 0).collect();
            let files: Vec<_> = files.into_iter().map(|(_, name)| name).collect();
            let (_dir, store) = moving(&files);
            store.complete_move().expect("moved");
            assert!(has_all(&store.at(REPLACED)) && !store.is_in_place(), "{files:?}");
            store.clear().expect("cleared");
            assert!(store.put_back().expect("moved"), "{files:?}");
            store.cancel_move().expect("empty");
            assert!(has_all(&store.dir) && store.at("other").exists(), "{files:?}");
            assert!(!store.put_back().expect("readable"), "there is none now");
        }
    }

    #[test]
    fn only_the_last_replaced_store_is_kept_and_no_part_of_it() {
        let (_dir, store) = moving(&[]);
        fs::create_dir(store.at(REPLACED)).expect("made");
        fs::write(store.at(REPLACED).join("db"), "an earlier one").expect("written");
        fs::create_dir(store.at(DISCARDED)).expect("made");
        store.complete_move().expect("moved");
        assert!(has_all(&store.at(REPLACED)) && !store.at(DISCARDED).exists());
        store.discard().expect("deleted");
        assert!(!store.at(REPLACED).exists() && !store.at(DISCARDED).exists());
        store.discard().expect("there is none");
    }

    #[test]
    fn directory_without_a_store_has_none_to_keep() {
        let (_dir, store) = moving(&[]);
        fs::remove_file(store.at("db")).expect("removed");
        store.complete_move().expect("moved");
        assert!(!store.at(REPLACED).exists() && !store.at(MOVING).exists());
        assert!(!store.put_back().expect("readable"));
    }
}
