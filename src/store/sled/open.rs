//! Open: opens a store, or creates an empty one, and prepares its writer.
//!
//! Not here: the repair of files before sled reads them; see `data_dir`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sled::Tree;

use super::backup::ActiveBackups;
use super::checksum::{StoreChecksum, WriteBatch};
use super::command_queue::{CommandQueue, QUEUE, URGENT};
use super::data_dir::{LOG, PAGE_CACHE, config, create, lock_dir, quietly, recover_files};
use super::disk_space::{self, DiskSpace};
use super::engine_error::EngineError;
use super::high_water_mark::{HighWaterMark, MarkState};
use super::open_error::{OpenError, open_error, refused};
use super::writer::Writer;
use super::{SCHEMA_VERSION, SledStore, Start, gc, permissions, restore, upgrade};
use crate::metrics::shortage;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::revision::Revision;
use crate::store::quota::Quotas;
use crate::store::{CLOCK_LEAD, Incarnation, StoreError, StoreMetrics, key};

/// How long to wait for another process that is about to close the store.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The delay between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// The number of threads of a store: sled's and the writer.
pub(super) const THREADS: usize = 10;

/// How to open a store of an older schema.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OlderSchema {
    /// Upgrade it to the schema of this program.
    Upgrade,
    /// Leave it as it is, for reading only.
    Keep,
}

impl SledStore {
    /// Whether the directory contains a store.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(LOG).exists()
    }

    /// Opens the store in this directory, or creates an empty one.
    ///
    /// # Errors
    /// Why the store cannot be opened, and what to do.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_page_cache(dir, PAGE_CACHE)
    }

    /// As [`Self::open`], with a page cache of this many bytes. sled counts pages by their size on
    /// disk; in memory they take about twice as much.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_page_cache(dir: &Path, bytes: u64) -> Result<Self, OpenError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match Self::open_now(dir, bytes) {
                // The other process may be about to close it.
                Err(OpenError::Locked(_)) if Instant::now() < deadline => thread::sleep(PAUSE),
                opened => return opened,
            }
        }
    }

    fn open_now(dir: &Path, page_cache: u64) -> Result<Self, OpenError> {
        let name = dir.display().to_string();
        let io_error = |error: &io::Error| refused(dir, error);
        create(dir).map_err(|error| io_error(&error))?;
        let lock = match lock_dir(dir) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(name)),
            Err(TryLockError::Error(error)) => return Err(io_error(&error)),
        };
        if restore::is_unfinished(dir) {
            return Err(OpenError::HalfRestored(name));
        }
        // sled would wait for its threads for ever.
        shortage::threads(THREADS).map_err(|error| io_error(&error))?;
        // sled panics on data that it cannot read, and prints the message. Here it becomes part of
        // the error.
        let (opened, panic_message) =
            quietly(|| Self::read(dir, page_cache, lock, OlderSchema::Upgrade));
        match opened {
            Some(Ok(store)) => {
                permissions::warn(dir);
                Ok(store)
            }
            Some(Err(EngineError::Newer(found))) => Err(OpenError::Newer { dir: name, found }),
            Some(Err(EngineError::Sled(error))) => Err(open_error(dir, &error, &panic_message)),
            Some(Err(EngineError::Damage)) => Err(OpenError::Damaged(name)),
            Some(Err(EngineError::Store(error))) => Err(OpenError::of(dir, &error)),
            None => Err(OpenError::of_panic(dir, &panic_message)),
        }
    }

    /// Sets the retention of changes. Call it before the writer is started. The last change always
    /// stays.
    #[must_use]
    pub fn keeping_changes_for(self, retention: SignedDuration) -> Self {
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *setup {
            writer.set_audit_log_retention(retention);
        }
        drop(setup);
        self
    }

    /// Sets the quotas of every company. Call it before the writer is started. The default is no
    /// limits.
    #[must_use]
    pub fn bounding_companies(self, bounds: Quotas) -> Self {
        self.usage.set_quotas(bounds);
        self
    }

    /// Lets every change use the space that is reserved for changes that remove access. Call it
    /// before the writer is started. It serves recovery, when all operators have lost their keys.
    #[must_use]
    pub fn using_the_reserve(self) -> Self {
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *setup {
            writer.use_the_reserve();
        }
        drop(setup);
        self
    }

    /// Sets the store's time back to the machine's clock, by an audited change, if it is ahead by
    /// more than [`CLOCK_LEAD`]. Call it before the writer is started. Returns the time from which
    /// it was set back, if so (D19).
    ///
    /// # Errors
    /// The disk failed.
    pub fn accept_clock(
        &mut self,
        now: Timestamp,
        author: Author,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((writer, ..)) = &mut *setup else { return Err(StoreError::Unavailable) };
        let (_, before) = writer.reached();
        // All times are whole milliseconds.
        let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        if before <= now.checked_add(CLOCK_LEAD).unwrap_or(Timestamp::MAX) {
            return Ok(None);
        }
        writer.accept_clock(Change {
            revision: Revision::NEXT,
            time: now,
            author,
            kind: ChangeKind::AcceptClock,
            company: None,
            credential: None,
            user: None,
            added: vec![],
            removed: vec![],
            displaced: vec![],
            fields: FieldChange::time("time", Some(before), Some(now)).into_iter().collect(),
        })?;
        (self.opened_at, self.time_mark) = (writer.reached().0, Some(now));
        Ok(Some(before))
    }

    /// The schema that the store had before it was opened, if this program has upgraded it.
    #[must_use]
    pub fn upgraded_from(&self) -> Option<u64> {
        self.upgraded_from
    }

    pub(super) fn read(
        dir: &Path,
        page_cache: u64,
        lock: File,
        older: OlderSchema,
    ) -> Result<Self, EngineError> {
        disk_space::release(dir)?;
        recover_files(dir)?;
        let db = config(dir, page_cache).open()?;
        let tree: Tree = (*db).clone();
        let log = File::open(dir.join(LOG))?;
        // Makes the names of the log and of the new snapshot durable: sled does not sync them.
        File::open(dir)?.sync_all()?;
        let high_water_mark = HighWaterMark::read(dir)?;
        if tree.get(key::SCHEMA)?.is_none() {
            // sled opens a log that it cannot follow as an empty one. If this program has created a
            // store here before, an empty one is corrupt.
            if !tree.is_empty() || !matches!(high_water_mark, MarkState::Missing) {
                return Err(EngineError::Damage);
            }
            let mut first = WriteBatch::default();
            first.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
            first.insert(key::INCARNATION, *Incarnation::new_v4().as_bytes());
            first.insert(key::HEAD, 0_u64.to_be_bytes());
            first.apply(&tree, &mut StoreChecksum::default())?;
            tree.flush()?;
        }
        // A killed process may have left data that is only in the kernel's cache. It must be
        // durable before it is visible.
        log.sync_all()?;
        let schema = number(&tree, key::SCHEMA)?.ok_or(EngineError::Damage)?;
        if schema > SCHEMA_VERSION {
            return Err(EngineError::Newer(schema));
        }
        let (mut checksum, usage) = StoreChecksum::of(&tree)?;
        if StoreChecksum::stored(&tree)? != Some(checksum) {
            return Err(EngineError::Damage);
        }
        let incarnation = tree.get(key::INCARNATION)?.ok_or(EngineError::Damage)?;
        let incarnation = Incarnation::from_slice(&incarnation).map_err(|_| EngineError::Damage)?;
        let opened_at = Revision(number(&tree, key::HEAD)?.ok_or(EngineError::Damage)?);
        if let Some((last, _)) = tree.scan_prefix(key::changes()).next_back().transpose()?
            && key::revision_at_end(&last) != Some(opened_at)
        {
            return Err(EngineError::Damage);
        }
        let time_mark = number(&tree, key::TIME)?.map(i64::try_from).transpose();
        let time_mark = time_mark.map_err(|_| EngineError::Damage)?;
        let time_mark = time_mark.map(Timestamp::from_millisecond).transpose();
        let mut time_mark = time_mark.map_err(|_| EngineError::Damage)?;
        let accepted = gc::clock_accepted(&tree)?.map_or(Revision::ZERO, |(at, _)| at);
        match high_water_mark {
            MarkState::Missing => {
                if opened_at > Revision::ZERO {
                    tracing::warn!(
                        dir = %dir.display(), revision = %opened_at,
                        "the store has no `witness` file, so scopegate cannot detect whether an \
                         older state of it was put back: compare the revision with a backup or a \
                         log; a new file is created"
                    );
                }
            }
            MarkState::Reached(of, reached, mark) if of == incarnation && reached <= opened_at => {
                // The file's time is later if the disk had no space for the log, or if the log lost
                // its end. It does not count if an operator set the time back since.
                if reached >= accepted {
                    time_mark = time_mark.max(Some(mark));
                }
            }
            MarkState::Reached(..) | MarkState::Unreadable => return Err(EngineError::Damage),
        }
        let upgraded_from = match older {
            OlderSchema::Upgrade if schema < SCHEMA_VERSION => {
                upgrade::upgrade(&tree, &mut checksum, &log, schema)?;
                Some(schema)
            }
            _ => None,
        };
        let mark = time_mark.unwrap_or(Timestamp::UNIX_EPOCH);
        let high_water_mark = HighWaterMark::open(dir, incarnation, opened_at, mark)?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE + URGENT);
        // The thread is created here, so that opening fails if the store could not accept changes.
        let (start_sender, started) = mpsc::channel::<Start>();
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            if let Ok((writer, commands, observer)) = started.recv() {
                writer.run(&commands, observer);
            }
        })?;
        let metrics = Arc::<StoreMetrics>::default();
        let queue_metrics = Arc::clone(&metrics);
        let mut disk_space = DiskSpace::open(dir, Arc::clone(&metrics))?;
        // Measure the space at the start, not only from the first change on.
        disk_space.measure();
        let tree_state = (checksum, usage.clone());
        let writer = Writer::new(
            tree.clone(),
            tree_state,
            log,
            high_water_mark,
            disk_space,
            opened_at,
            time_mark,
        )?;
        let durable_time = writer.durable_mark();
        Ok(Self {
            tree,
            incarnation,
            opened_at,
            time_mark,
            upgraded_from,
            durable_time,
            metrics,
            usage,
            setup: Mutex::new(Some((writer, receiver, start_sender))),
            commands: CommandQueue::new(sender, queue_metrics),
            backups: ActiveBackups::default(),
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }
}

pub(super) fn number(tree: &Tree, key: &[u8]) -> Result<Option<u64>, EngineError> {
    let Some(bytes) = tree.get(key)? else {
        return Ok(None);
    };
    let bytes = <[u8; 8]>::try_from(&*bytes).map_err(|_| EngineError::Damage)?;
    Ok(Some(u64::from_be_bytes(bytes)))
}
