//! Open: reads and verifies the whole store of a directory, and prepares its writer.
//!
//! Not here: the repair of the engine's files; each engine repairs its own.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::apply::AppliedState;
use super::backup::{ActiveBackups, feed::BackupFeeds};
use super::chain::Chain;
use super::checksum::{self, StoreChecksum};
use super::command_queue::{CommandQueue, QUEUE, URGENT};
use super::data_dir::{create, lock_dir, quietly};
use super::disk_space::{self, DiskSpace};
use super::engine::{Engine, EngineError, SledEngine, WriteBatch};
use super::error::Corrupt;
use super::fact_sums::RecentFactSums;
use super::high_water_mark::{HighWaterMark, MarkState};
use super::lease::Lease;
use super::open_error::{self, OpenError};
use super::quota::Quotas;
use super::replicated::head::Head;
use super::replicated::members_view::MembersView;
use super::replicated::{Cluster, LogPosition, MAX_APART, cluster};
use super::usage::{Moves, SharedUsage};
use super::writer::Writer;
use super::{
    CLOCK_LEAD, DecidingTime, Fact, FactKey, Incarnation, REPLICATED_SCHEMA_VERSION,
    SCHEMA_VERSION, Start, Store, StoreError, StoreMetrics, chunked, gc, installation, key,
    permissions, record, restore, upgrade,
};
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;

/// How long to wait for another process that is about to close the store.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The delay between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// The default size of the engine's own cache, in bytes.
pub(super) const PAGE_CACHE: u64 = 64 << 20;

/// Why a store cannot be read.
pub(super) enum ReadError {
    Engine(EngineError),
    Newer(u64),
}

impl From<EngineError> for ReadError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Corrupt> for ReadError {
    fn from(error: Corrupt) -> Self {
        Self::Engine(error.into())
    }
}

/// The entries of a directory, all of which were read and match the store checksum.
pub(super) struct VerifiedStore {
    pub(super) engine: Arc<dyn Engine>,
    schema: u64,
    pub(super) checksum: StoreChecksum,
    counted: Moves,
    pub(super) incarnation: Incarnation,
    cluster: Option<Cluster>,
    pub(super) head: Revision,
    pub(super) time_mark: Option<Timestamp>,
}

impl VerifiedStore {
    /// Reads the directory. An empty one becomes a store without facts, which follows the log of
    /// `new` from its beginning.
    pub(super) fn read<E: Engine>(
        dir: &Path,
        cache: u64,
        new: Option<(&Head, Option<u64>)>,
    ) -> Result<Self, ReadError> {
        disk_space::release(dir, E::file_name())?;
        let engine: Arc<dyn Engine> = Arc::new(E::open(dir, cache)?);
        let high_water_mark = HighWaterMark::read(dir)?;
        if engine.get(key::SCHEMA)?.is_none() {
            // sled opens a log that it cannot follow as an empty one. If this program has created a
            // store here before, an empty one is corrupt.
            if engine.all().next().is_some() || !matches!(high_water_mark, MarkState::Missing) {
                return Err(EngineError::Damaged.into());
            }
            let incarnation = new.map_or_else(Incarnation::new_v4, |(head, _)| head.incarnation);
            let log = new.map(|(head, etcd_cluster_id)| {
                let cluster = Cluster { id: head.cluster, etcd_cluster_id };
                let first = Head::first(cluster.id, incarnation, Revision::ZERO, head.time);
                (cluster, LogPosition::of(&first))
            });
            let mut first = WriteBatch::default();
            cluster::write(&mut first, log);
            first.insert(key::INCARNATION, *incarnation.as_bytes());
            first.insert(key::HEAD, 0_u64.to_be_bytes());
            first.insert(key::CHAIN, Chain::root(incarnation).bytes());
            checksum::apply(&*engine, &mut StoreChecksum::default(), &mut first)?;
            engine.sync()?;
        }
        let schema = number(&*engine, key::SCHEMA)?.ok_or(Corrupt)?;
        if schema > REPLICATED_SCHEMA_VERSION {
            return Err(ReadError::Newer(schema));
        }
        let (checksum, counted) = StoreChecksum::of(&*engine)?;
        if StoreChecksum::stored(&*engine)? != Some(checksum) {
            return Err(EngineError::Damaged.into());
        }
        let incarnation = engine.get(key::INCARNATION)?.ok_or(Corrupt)?;
        let incarnation = Incarnation::from_slice(&incarnation).map_err(|_| Corrupt)?;
        let cluster = Cluster::stored(&*engine, schema)?;
        let head = Revision(number(&*engine, key::HEAD)?.ok_or(Corrupt)?);
        if let Some((last, _)) = engine.scan(&key::changes()).next_back().transpose()?
            && key::revision_at_end(&last) != Some(head)
        {
            return Err(EngineError::Damaged.into());
        }
        let time_mark = number(&*engine, key::TIME)?.map(i64::try_from).transpose();
        let time_mark = time_mark.map_err(|_| Corrupt)?;
        let time_mark = time_mark.map(Timestamp::from_millisecond).transpose();
        let mut time_mark = time_mark.map_err(|_| Corrupt)?;
        let accepted = gc::clock_accepted(&*engine)?.map_or(Revision::ZERO, |(at, _)| at);
        match high_water_mark {
            MarkState::Missing => {
                if head > Revision::ZERO {
                    tracing::warn!(
                        dir = %dir.display(), revision = %head,
                        "the store has no `witness` file, so scopegate cannot detect whether an \
                         older state of it was put back: compare the revision with a backup or a \
                         log; a new file is created"
                    );
                }
            }
            MarkState::Reached(of, reached, mark) if of == incarnation && reached <= head => {
                // The file's time is later if the disk had no space for the log, or if the log lost
                // its end. It does not count if an operator set the time back since.
                if reached >= accepted {
                    time_mark = time_mark.max(Some(mark));
                }
            }
            MarkState::Reached(..) | MarkState::Unreadable => {
                return Err(EngineError::Damaged.into());
            }
        }
        Ok(Self { engine, schema, checksum, counted, incarnation, cluster, head, time_mark })
    }

    /// Upgrades the store to the schema of this program. Returns the schema that it had, if that
    /// was an older one.
    pub(super) fn upgrade(&mut self) -> Result<Option<u64>, EngineError> {
        let from = self.schema;
        if from >= SCHEMA_VERSION {
            return Ok(None);
        }
        upgrade::upgrade(&*self.engine, &mut self.checksum, self.incarnation, from)?;
        self.schema = SCHEMA_VERSION;
        Ok(Some(from))
    }

    /// The keyring.
    fn keyring(&self) -> Result<Option<Arc<Keyring>>, EngineError> {
        let Some(stored) = self.engine.get(&FactKey::Keyring.bytes())? else {
            return Ok(None);
        };
        let (revision, bytes) = chunked::read(&stored, &*self.engine)?.ok_or(Corrupt)?;
        match record::decode(&FactKey::Keyring, revision, &bytes)? {
            Fact::Keyring(keyring) => Ok(Some(keyring)),
            _ => Err(EngineError::Damaged),
        }
    }
}

impl Store {
    /// Whether the directory contains a store.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(SledEngine::file_name()).exists()
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
        Self::open_on::<SledEngine>(dir, bytes)
    }

    /// As [`Self::open`], on another engine, with a cache of this many bytes.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_on<E: Engine>(dir: &Path, cache: u64) -> Result<Self, OpenError> {
        Self::open_or_create::<E>(dir, cache, None)
    }

    /// As [`Self::open_with_page_cache`], for a replica of the cluster of this head in this etcd. If
    /// the directory is empty, the store is the one before the first entry of a cluster that was
    /// initialised from nothing. A store that is there is opened as it is, also one of another cluster.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn create_for(
        dir: &Path,
        page_cache: u64,
        head: &Head,
        etcd_cluster_id: Option<u64>,
    ) -> Result<Self, OpenError> {
        Self::open_or_create::<SledEngine>(dir, page_cache, Some((head, etcd_cluster_id)))
    }

    fn open_or_create<E: Engine>(
        dir: &Path,
        cache: u64,
        new: Option<(&Head, Option<u64>)>,
    ) -> Result<Self, OpenError> {
        let store = locked(dir, |lock| {
            let verified = VerifiedStore::read::<E>(dir, cache, new)?;
            Self::of(dir, E::file_name(), verified, lock)
        })?;
        permissions::warn(dir);
        Ok(store)
    }

    /// Prepares the writer of a store that was verified.
    fn of(
        dir: &Path,
        log: &str,
        mut verified: VerifiedStore,
        lock: File,
    ) -> Result<Self, ReadError> {
        let upgraded_from = verified.upgrade()?;
        let keyring = verified.keyring()?;
        let VerifiedStore {
            engine, checksum, counted, incarnation, cluster, head, time_mark, ..
        } = verified;
        let (facts, usage) = (counted.facts, SharedUsage::of(counted));
        let chain = engine.get(key::CHAIN)?.ok_or(Corrupt)?;
        let chain = Chain::from_bytes(&chain).ok_or(Corrupt)?;
        let time = time_mark.unwrap_or(Timestamp::UNIX_EPOCH);
        let high_water_mark = HighWaterMark::open(dir, incarnation, head, time)?;
        let (sender, receiver) = mpsc::sync_channel(QUEUE + URGENT);
        // The thread is created here, so that opening fails if the store could not accept changes.
        let (start_sender, started) = mpsc::channel::<Start>();
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            if let Ok((writer, commands, observer)) = started.recv() {
                writer.run(&commands, observer);
            }
        })?;
        let metrics = Arc::<StoreMetrics>::default();
        let mut disk_space = DiskSpace::open(dir, log, Arc::clone(&metrics))?;
        // Measure the space at the start, not only from the first change on.
        disk_space.measure();
        let disk = disk_space.state();
        let durable_time = Arc::new(AtomicI64::new(time.as_millisecond()));
        let state = AppliedState {
            engine: Arc::clone(&engine),
            checksum,
            facts,
            usage: usage.clone(),
            high_water_mark,
            metrics: Arc::clone(&metrics),
            head,
            chain,
            position: LogPosition::stored(&*engine, incarnation)?,
            time,
            mark: time,
            entry_time: Timestamp::UNIX_EPOCH,
            durable_mark: Arc::clone(&durable_time),
            keyring,
            feeds: BackupFeeds::default(),
        };
        let fact_sums = RecentFactSums::default();
        let writer = Writer::new(state, disk_space, fact_sums.clone())?;
        let clock_accepted = gc::clock_accepted(&*engine)?;
        Ok(Self {
            engine,
            clock_accepted,
            incarnation,
            cluster,
            opened_at: head,
            time_mark,
            deciding_time: Arc::new(DecidingTime::starting_at(time_mark)),
            upgraded_from,
            durable_time,
            commands: CommandQueue::new(sender, Arc::clone(&metrics)),
            metrics,
            usage,
            fact_sums,
            lease: Arc::new(Lease::unlimited()),
            setup: Mutex::new(Some((writer, receiver, start_sender))),
            backups: ActiveBackups::default(),
            snapshots: ActiveBackups::default(),
            replica: None,
            disk,
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// Sets the retention of changes. Call it before the writer is started. The last change always
    /// stays.
    #[must_use]
    pub fn keeping_changes_for(mut self, retention: SignedDuration) -> Self {
        if let Some(writer) = self.writer() {
            writer.set_audit_log_retention(retention);
        }
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
    pub fn using_the_reserve(mut self) -> Self {
        if let Some(writer) = self.writer() {
            writer.use_the_reserve();
        }
        self
    }

    /// Sets the store's time back to the machine's clock, by an audited change, if it is ahead by
    /// more than [`CLOCK_LEAD`]. Call it before the writer is started. Returns the time from which
    /// it was set back, if so (D19).
    ///
    /// `members` are the live records of the other replicas, if the store is that of a replica. The change
    /// is [untold](Self::untold_clock) until it is committed to the log.
    ///
    /// # Errors
    /// The clocks of most other replicas are as far ahead; the disk failed; or the store follows a log, and
    /// is not that of a replica.
    pub fn accept_clock(
        &mut self,
        now: Timestamp,
        author: Author,
        members: &MembersView,
    ) -> Result<Option<Timestamp>, StoreError> {
        // The change would be in no entry, so the store would no longer be that of the log.
        if self.log_position()?.is_some() && self.replica.is_none() {
            return Err(StoreError::Unavailable);
        }
        let clocks = self.replica.as_ref().map(|replica| replica.clocks(members, now));
        let name = self.replica.as_ref().map(|replica| replica.settings().name.clone());
        let writer = self.writer().ok_or(StoreError::Unavailable)?;
        let (_, before) = writer.reached();
        // All times are whole milliseconds.
        let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        if before <= now.checked_add(CLOCK_LEAD).unwrap_or(Timestamp::MAX) {
            return Ok(None);
        }
        // Others are as far ahead if their time is nearer to that of the store than to the clock, or if
        // they would be too far ahead of the clock.
        let lead = SignedDuration::try_from(CLOCK_LEAD).unwrap_or_default();
        let ahead = now.duration_until(before).saturating_sub(lead) / 2;
        if clocks.is_some_and(|clocks| clocks.most_are_ahead_by(ahead.min(MAX_APART))) {
            return Err(StoreError::ClockBehind);
        }
        let fields = [
            FieldChange::time("time", Some(before), Some(now)),
            name.and_then(|name| FieldChange::new_text("replica", name.as_str())),
        ];
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
            fields: fields.into_iter().flatten().collect(),
        })?;
        let head = writer.reached().0;
        (self.opened_at, self.time_mark) = (head, Some(now));
        self.deciding_time = Arc::new(DecidingTime::starting_at(self.time_mark));
        self.clock_accepted = gc::clock_accepted(&*self.engine)?;
        Ok(Some(before))
    }

    /// The change by which an operator set the time of this replica back, if the log does not have it
    /// yet. Commit it before calls are answered.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn untold_clock(&self) -> Result<Option<Change>, StoreError> {
        let Some(record) = self.engine.get(key::UNTOLD_CLOCK)? else { return Ok(None) };
        Ok(Some(record::decode_change(Revision::NEXT, &record)?))
    }

    /// The writer, until it is started.
    pub(super) fn writer(&mut self) -> Option<&mut Writer> {
        let setup = self.setup.get_mut().unwrap_or_else(PoisonError::into_inner);
        setup.as_mut().map(|(writer, ..)| writer)
    }

    /// The schema that the store had before it was opened, if this program has upgraded it.
    #[must_use]
    pub fn upgraded_from(&self) -> Option<u64> {
        self.upgraded_from
    }
}

/// Does something with the locked directory of a store.
pub(super) fn locked<T>(
    dir: &Path,
    work: impl Fn(File) -> Result<T, ReadError>,
) -> Result<T, OpenError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match locked_now(dir, &work) {
            // The other process may be about to close it.
            Err(OpenError::Locked(_)) if Instant::now() < deadline => thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn locked_now<T>(
    dir: &Path,
    work: impl FnOnce(File) -> Result<T, ReadError>,
) -> Result<T, OpenError> {
    let name = dir.display().to_string();
    let io_error = |error: &io::Error| open_error::refused(dir, error);
    create(dir).map_err(|error| io_error(&error))?;
    let lock = match lock_dir(dir) {
        Ok(lock) => lock,
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(name)),
        Err(TryLockError::Error(error)) => return Err(io_error(&error)),
    };
    if restore::is_unfinished(dir) {
        return Err(match installation::is_unfinished(dir) {
            true => OpenError::HalfInstalled(name),
            false => OpenError::HalfRestored(name),
        });
    }
    // An engine may panic on data that it cannot read, and print the message. Here it becomes part of
    // the error.
    match quietly(|| work(lock)) {
        (Some(Ok(done)), _) => Ok(done),
        (Some(Err(ReadError::Newer(found))), _) => Err(OpenError::Newer { dir: name, found }),
        (Some(Err(ReadError::Engine(error))), panic_message) => {
            Err(open_error::of_engine(dir, &error, &panic_message))
        }
        (None, panic_message) => Err(OpenError::of_panic(dir, &panic_message)),
    }
}

/// The number under this key.
pub(super) fn number(engine: &dyn Engine, key: &[u8]) -> Result<Option<u64>, EngineError> {
    let Some(bytes) = engine.get(key)? else { return Ok(None) };
    Ok(Some(u64::from_be_bytes(bytes.try_into().map_err(|_| Corrupt)?)))
}
