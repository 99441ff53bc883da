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

/// How long to wait for another process that is about to let go of the store.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before another look.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How many threads a store needs: those of sled, and the writer.
pub(super) const THREADS: usize = 10;

/// What is done with a store of an older schema.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OlderSchema {
    /// It is brought to that of this program.
    Upgrade,
    /// It is only read, as it is.
    Keep,
}

impl SledStore {
    /// Whether there is something in this directory that could be a store.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(LOG).exists()
    }

    /// Opens the store in this directory, or makes an empty one.
    ///
    /// # Errors
    /// Says why not, and what to do.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_page_cache(dir, PAGE_CACHE)
    }

    /// As [`Self::open`], with so many bytes of pages kept in memory. What sled counts is the
    /// pages as they are on disk: in memory they take about twice as much.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_page_cache(dir: &Path, bytes: u64) -> Result<Self, OpenError> {
        let patience = Instant::now() + LOCK_TIMEOUT;
        loop {
            match Self::open_now(dir, bytes) {
                // Whoever has it may be about to let go.
                Err(OpenError::Locked(_)) if Instant::now() < patience => thread::sleep(PAUSE),
                opened => return opened,
            }
        }
    }

    fn open_now(dir: &Path, page_cache: u64) -> Result<Self, OpenError> {
        let name = dir.display().to_string();
        let io_error = |error: &io::Error| refused(dir, error);
        create(dir).map_err(|error| io_error(&error))?;
        let held = match lock_dir(dir) {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(name)),
            Err(TryLockError::Error(error)) => return Err(io_error(&error)),
        };
        if restore::is_unfinished(dir) {
            return Err(OpenError::HalfRestored(name));
        }
        // Without its own threads sled waits for them for ever.
        shortage::threads(THREADS).map_err(|error| io_error(&error))?;
        // sled panics on what it cannot read, and prints it: here it becomes one sentence.
        let (opened, said) = quietly(|| Self::read(dir, page_cache, held, OlderSchema::Upgrade));
        match opened {
            Some(Ok(store)) => {
                permissions::warn(dir);
                Ok(store)
            }
            Some(Err(EngineError::Newer(found))) => Err(OpenError::Newer { dir: name, found }),
            Some(Err(EngineError::Sled(error))) => Err(open_error(dir, &error, &said)),
            Some(Err(EngineError::Damage)) => Err(OpenError::Damaged(name)),
            Some(Err(EngineError::Store(error))) => Err(OpenError::of(dir, &error)),
            None => Err(OpenError::of_panic(dir, &said)),
        }
    }

    /// Keeps changes for this long, and no longer; to be said before the writer is started. The
    /// last change always stays.
    #[must_use]
    pub fn keeping_changes_for(self, retention: SignedDuration) -> Self {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *parts {
            writer.audit_log_retention(retention);
        }
        drop(parts);
        self
    }

    /// Keeps every company within these bounds; to be said before the writer is started. Without
    /// it there are none.
    #[must_use]
    pub fn bounding_companies(self, bounds: Quotas) -> Self {
        self.usage.bound_by(bounds);
        self
    }

    /// Lets every change use the space that is reserved for those that take away; to be said
    /// before the writer is started. It is for the way back, when nobody has a key any more.
    #[must_use]
    pub fn using_the_reserve(self) -> Self {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *parts {
            writer.use_the_reserve();
        }
        drop(parts);
        self
    }

    /// Brings the store's time back to the machine's clock, by an audited change, if it is ahead
    /// of it by more than the mark always is; to be called before the writer is started. Says
    /// from which time, if so (D19).
    ///
    /// # Errors
    /// The disk failed.
    pub fn accept_clock(
        &mut self,
        now: Timestamp,
        author: Author,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((writer, ..)) = &mut *parts else { return Err(StoreError::Unavailable) };
        let (_, before) = writer.reached();
        // Whole milliseconds, as all times.
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
        held: File,
        older: OlderSchema,
    ) -> Result<Self, EngineError> {
        disk_space::release(dir)?;
        recover_files(dir)?;
        let db = config(dir, page_cache).open()?;
        let tree: Tree = (*db).clone();
        let log = File::open(dir.join(LOG))?;
        // The names of the log and of the snapshot that was just made: sled does not sync them.
        File::open(dir)?.sync_all()?;
        let witness = HighWaterMark::ask(dir)?;
        if tree.get(key::SCHEMA)?.is_none() {
            // sled opens a log that it cannot follow as an empty one: a store that was made here
            // before must not come back as a new one.
            if !tree.is_empty() || !matches!(witness, MarkState::Nothing) {
                return Err(EngineError::Damage);
            }
            let mut first = WriteBatch::default();
            first.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
            first.insert(key::INCARNATION, *Incarnation::new_v4().as_bytes());
            first.insert(key::HEAD, 0_u64.to_be_bytes());
            first.apply(&tree, &mut StoreChecksum::default())?;
            tree.flush()?;
        }
        // What a killed process had only handed to the kernel is durable before it is known.
        log.sync_all()?;
        let schema = number(&tree, key::SCHEMA)?.ok_or(EngineError::Damage)?;
        if schema > SCHEMA_VERSION {
            return Err(EngineError::Newer(schema));
        }
        let (mut tally, usage) = StoreChecksum::of(&tree)?;
        if StoreChecksum::kept(&tree)? != Some(tally) {
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
        match witness {
            MarkState::Nothing => {
                if opened_at > Revision::ZERO {
                    tracing::warn!(
                        dir = %dir.display(), revision = %opened_at,
                        "the store has no `witness` file, so it cannot be told whether an older \
                         state of it was put back: compare the revision with a backup or a log; \
                         the file is made anew"
                    );
                }
            }
            MarkState::Reached(life, reached, mark)
                if life == incarnation && reached <= opened_at =>
            {
                // Its time is the later one if the log had no room for it, or has lost its end.
                // It does not count if an operator brought time back since.
                if reached >= accepted {
                    time_mark = time_mark.max(Some(mark));
                }
            }
            MarkState::Reached(..) | MarkState::Nonsense => return Err(EngineError::Damage),
        }
        let upgraded_from = match older {
            OlderSchema::Upgrade if schema < SCHEMA_VERSION => {
                upgrade::upgrade(&tree, &mut tally, &log, schema)?;
                Some(schema)
            }
            _ => None,
        };
        let mark = time_mark.unwrap_or(Timestamp::UNIX_EPOCH);
        let witness = HighWaterMark::take(dir, incarnation, opened_at, mark)?;
        let (send, receive) = mpsc::sync_channel(QUEUE + URGENT);
        // Now, so that a store which could not change anything is not opened.
        let (begin, begins) = mpsc::channel::<Start>();
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            if let Ok((writer, orders, listener)) = begins.recv() {
                writer.run(&orders, listener);
            }
        })?;
        let measures = Arc::<StoreMetrics>::default();
        let counted = Arc::clone(&measures);
        let mut room = DiskSpace::on(dir, Arc::clone(&measures))?;
        // From the start, not only from the first change on.
        room.look();
        let of_tree = (tally, usage.clone());
        let writer = Writer::new(tree.clone(), of_tree, log, witness, room, opened_at, time_mark)?;
        let time_kept = writer.kept();
        Ok(Self {
            tree,
            incarnation,
            opened_at,
            time_mark,
            upgraded_from,
            time_kept,
            measures,
            usage,
            parts: Mutex::new(Some((writer, receive, begin))),
            orders: CommandQueue::new(send, counted),
            backups: ActiveBackups::default(),
            thread: Mutex::new(Some(thread)),
            _held: held,
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
