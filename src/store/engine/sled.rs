//! Sled: the engine that serves, on one sled tree.
//!
//! sled's own `flush` only hands pages to the kernel, so [`SledEngine`] also syncs the log through
//! a file handle of its own. sled leaves some files beside the log unsynced or half written;
//! `files` repairs them before sled opens the directory. A store therefore opens after a power cut
//! at any moment (`tests/integration/power_loss.rs`). sled panics on data that it cannot read; each
//! call here catches that and returns an error.
//!
//! sled passes over records that it cannot read, and puts a page above 128 KiB into a file that it
//! does not sync. The store's checksum, high-water mark and chunked values are for that.

mod files;

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use sled::{Batch, IVec, Tree};

use super::{Engine, EngineError, Entries, Entry, WriteBatch};
use crate::metrics::shortage;

/// The number of threads of a store: sled's and the writer.
const THREADS: usize = 10;

/// One sled tree and a handle of its log.
pub struct SledEngine {
    tree: Tree,
    log: File,
}

impl Engine for SledEngine {
    fn file_name() -> &'static str {
        files::LOG
    }

    fn is_file(name: &str) -> bool {
        files::NAMES.contains(&name) || name.starts_with(files::SNAPSHOT)
    }

    /// sled counts pages by their size on disk; in memory they take about twice as much.
    fn open(dir: &Path, cache: u64) -> Result<Self, EngineError> {
        // sled would wait for its threads for ever.
        shortage::threads(THREADS)?;
        files::repair(dir, cache)?;
        let db = guarded(|| files::config(dir, cache).open())?;
        let tree: Tree = (*db).clone();
        let log = File::open(dir.join(files::LOG))?;
        // Makes the names of the log and of the new snapshot durable: sled does not sync them.
        File::open(dir)?.sync_all()?;
        // A killed process may have left data that is only in the kernel's cache.
        log.sync_all()?;
        Ok(Self { tree, log })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(guarded(|| self.tree.get(key))?.map(|value| value.to_vec()))
    }

    fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'_> {
        Box::new(Range(self.tree.range::<&[u8], _>((from, to))))
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        let mut writes = Batch::default();
        for (key, value) in batch.iter() {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        guarded(|| self.tree.apply_batch(writes))
    }

    fn sync(&self) -> Result<(), EngineError> {
        guarded(|| self.tree.flush())?;
        Ok(self.log.sync_data()?)
    }
}

#[cfg(test)]
impl SledEngine {
    /// An empty engine that a test never opens again, so nothing is synced.
    pub(in crate::store) fn temporary() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let db = sled::Config::new().path(dir.path()).temporary(true).open().expect("opened");
        let log = File::open(dir.path().join(files::LOG)).expect("there");
        Self { tree: (*db).clone(), log }
    }
}

/// A range of the tree.
struct Range(sled::Iter);

impl Range {
    fn step(
        &mut self,
        next: impl FnOnce(&mut sled::Iter) -> Option<sled::Result<(IVec, IVec)>>,
    ) -> Option<Result<Entry, EngineError>> {
        let entry = guarded(|| next(&mut self.0).transpose()).transpose()?;
        Some(entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }
}

impl Iterator for Range {
    type Item = Result<Entry, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Iterator::next)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(DoubleEndedIterator::next_back)
    }
}

/// Calls sled, and turns a panic into an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result?),
        Err(payload) => Err(EngineError::Panicked(Box::new(of_panic(&*payload)))),
    }
}

/// sled also panics on an error of the system. Its number is then in the message.
fn of_panic(payload: &(dyn Any + Send)) -> EngineError {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.and_then(shortage::number_in).map_or(EngineError::Damaged, from_number)
}

fn from_number(number: i32) -> EngineError {
    io::Error::from_raw_os_error(number).into()
}

impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> Self {
        let text = format!("{error:?}");
        if text.contains("could not acquire lock") {
            return Self::Locked;
        }
        match (error, shortage::number_in(&text)) {
            (sled::Error::Io(error), _) if error.raw_os_error().is_some() => error.into(),
            // sled often wraps an error of the system.
            (_, Some(number)) => from_number(number),
            (sled::Error::Io(error), None) => error.into(),
            (sled::Error::Corruption { .. }, None) => Self::Damaged,
            (error, None) => io::Error::other(error).into(),
        }
    }
}
