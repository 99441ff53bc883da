//! RedbEngine: a second engine below the store, on redb. It proves that nothing above the trait
//! depends on sled. No user can choose it.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use scopegate::store::engine::{Engine, EngineError, Entries, WriteBatch};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("store");
const FILE: &str = "redb";
const DRAFT: &str = "redb.draft";

pub struct RedbEngine(Database);

impl RedbEngine {
    fn create(path: &Path, cache: u64) -> Result<Self, redb::Error> {
        let cache = usize::try_from(cache).unwrap_or(usize::MAX);
        let db = Database::builder().set_cache_size(cache).create(path)?;
        // A table that does not exist cannot be read.
        let write = db.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self(db))
    }

    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, redb::Error> {
        Ok(self.0.begin_read()?.open_table(TABLE)?)
    }

    fn commit(&self, batch: &WriteBatch, durability: Durability) -> Result<(), redb::Error> {
        let mut write = self.0.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut table = write.open_table(TABLE)?;
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => table.insert(key, value)?,
                    None => table.remove(key)?,
                };
            }
        }
        Ok(write.commit()?)
    }
}

impl Engine for RedbEngine {
    fn file_name() -> &'static str {
        FILE
    }

    fn open(dir: &Path, cache: u64) -> Result<Self, EngineError> {
        // redb does not open a file that a power cut left half made.
        let (path, draft) = (dir.join(FILE), dir.join(DRAFT));
        if !path.exists() {
            fs::remove_file(&draft).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            drop(Self::create(&draft, cache).map_err(failed)?);
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &path)?;
        }
        let engine = Self::create(&path, cache).map_err(failed)?;
        File::open(dir)?.sync_all()?;
        Ok(engine)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        // The transaction ends with the table. Until then the writer frees no page of the value.
        let table = self.table().map_err(failed)?;
        let value = table.get(key).map_err(failed)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Entries<'_> {
        let range = self.table().and_then(|table| Ok(table.range::<&[u8]>((from, to))?));
        match range {
            Ok(range) => Box::new(range.map(|entry| {
                let (key, value) = entry.map_err(failed)?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            })),
            Err(error) => Box::new(std::iter::once(Err(failed(error)))),
        }
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        self.commit(batch, Durability::None).map_err(failed)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.commit(&WriteBatch::default(), Durability::Immediate).map_err(failed)
    }
}

fn failed<E: Error + Into<redb::Error>>(error: E) -> EngineError {
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => EngineError::Locked,
        redb::Error::Corrupted(_) => EngineError::Damaged,
        redb::Error::Io(error) => error.into(),
        error => io::Error::other(error.to_string()).into(),
    }
}
