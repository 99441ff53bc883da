//! Engine: ordered bytes in a directory, which the store is built on.
//!
//! An engine keeps keys with their values in the order of the keys, applies a batch atomically, and
//! makes it durable when it is asked to. One engine serves: [`SledEngine`]. The store's acceptance
//! tests also run on a second one, so that nothing above this trait depends on sled.
//!
//! Not here: the meaning of a key, and everything that all engines need above them:
//! preconditions, revisions, checksum, garbage collection, disk space and backups are in `store`.
//! There is no snapshot of all keys, because sled has none; a backup reads the keys while they
//! change, and the writer passes it every batch (`store::backup`).

mod sled;
mod write_batch;

use std::io;
use std::ops::Bound;
use std::path::Path;

pub use self::sled::SledEngine;
pub use self::write_batch::WriteBatch;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Entries in the order of their keys; [`Iterator::rev`] reverses it.
pub type Entries<'a> = Box<dyn DoubleEndedIterator<Item = Result<Entry, EngineError>> + 'a>;

/// Ordered bytes in a directory.
pub trait Engine: Send + Sync + 'static {
    /// The name of the file that holds the entries and grows with them. A directory that has it
    /// contains a store. The store reserves disk space after its end.
    fn file_name() -> &'static str
    where
        Self: Sized;

    /// Whether the engine makes a file or a directory of this name.
    fn is_file(name: &str) -> bool
    where
        Self: Sized,
    {
        name == Self::file_name()
    }

    /// Opens the entries of this directory, or creates them. It repairs what a crash or a power cut
    /// can leave behind. Everything that can be read afterwards is durable. `cache` is the size of
    /// the engine's own cache, in bytes.
    ///
    /// # Errors
    /// Another process has the files open, they are corrupt, or the system refused something.
    fn open(dir: &Path, cache: u64) -> Result<Self, EngineError>
    where
        Self: Sized;

    /// The value of a key. A batch that was applied is visible, durable or not.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// The entries between two keys. Batches that are applied meanwhile may be visible in part.
    fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'_>;

    /// Applies a batch atomically: after a crash all of it is there, or nothing. A later batch is
    /// never there without an earlier one.
    ///
    /// # Errors
    /// The engine failed. It is unknown whether the batch is applied.
    fn apply(&self, batch: &WriteBatch) -> Result<(), EngineError>;

    /// Makes all batches durable that were applied before.
    ///
    /// # Errors
    /// The engine failed. It is unknown which batches are durable, and another sync does not prove
    /// it.
    fn sync(&self) -> Result<(), EngineError>;

    /// The entries whose keys begin with `prefix`.
    fn scan(&self, prefix: &[u8]) -> Entries<'_> {
        // The first key after all of the prefix: its last byte that can be raised, raised by one.
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return self.range(Bound::Included(prefix), Bound::Excluded(&end));
            }
        }
        self.range(Bound::Included(prefix), Bound::Unbounded)
    }

    /// All entries.
    fn all(&self) -> Entries<'_> {
        self.scan(&[])
    }
}

/// Why an engine cannot be opened or cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the files open.
    #[error("another process has the files open")]
    Locked,
    /// The stored data is corrupt.
    #[error("the stored data is corrupt")]
    Damaged,
    /// The engine panicked for this reason. What it holds in memory is unknown, so nothing may be
    /// committed afterwards.
    #[error(transparent)]
    Panicked(Box<Self>),
    /// The system refused something, or the engine failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
