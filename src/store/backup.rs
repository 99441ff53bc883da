//! Backup: reads all entries of a store while the writer continues to change them.
//!
//! The backup reads the entries in key order, chunk by chunk. Before the first chunk is read, the
//! writer begins to pass every batch to the backup's feed. At the end the writer passes the state
//! of the store.
//!
//! INVARIANT (a chunk before what it may lack): a batch is in the file before a chunk only if it
//! was taken from the feed before the chunk was read. Every batch applied since the beginning is in
//! the file, in order.
//!
//! It follows for each key: a batch before the key's chunk was applied before the key was read, so
//! the chunk contains its effect or a later one. A batch that the chunk lacks is after the chunk in
//! the file, and so is every later batch. A batch that the chunk already contains does no harm
//! after it, because the last write of a key wins. If no chunk contains a key, the key did not
//! exist when its range was read; the batch that created it is later in the file. A reader that
//! applies the records in order therefore ends with the state after the last batch.
//!
//! The writer carries out the end command after every batch before it. All of these are durable
//! then, except for steps of garbage collection, which change no fact.
//!
//! INVARIANT (the writer never waits for a backup): batches that the client has not taken wait in
//! the feed, up to `QUEUE_BYTES` bytes. Above that the backup ends, and the change is committed.
//!
//! Not here: the file format, see `file`, and the restore.

pub(super) mod feed;
mod file;

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::command_queue::{CommandQueue, WriterCommand};
use super::engine::{Engine, EngineError, WriteBatch};
use super::{Incarnation, SCHEMA_VERSION, StoreError, key};
use feed::{BackupFeed, FeedEnd, FeedId, FeedItem, Source};
pub(super) use file::End;
use file::{Begin, Entries, Writing};
pub use file::{Reading, Unusable};

/// The limit of concurrent backups. Each may hold `QUEUE_BYTES` bytes.
const MAX_BACKUPS: usize = 2;
/// The approximate size of a chunk and of a record, in bytes.
const CHUNK: usize = 256 << 10;
/// The limit of the feed's queue, in bytes.
const QUEUE_BYTES: u64 = 64 << 20;

/// Reads all entries in the order of their keys.
struct Scan {
    engine: Arc<dyn Engine>,
    /// The first key of the next chunk.
    from: Vec<u8>,
    ended: bool,
}

impl Scan {
    fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, from: Vec::new(), ended: false }
    }

    /// Reads the next keys into a chunk that is not in the file yet.
    fn read(&mut self, chunk: &mut Entries, limit: usize) -> Result<(), EngineError> {
        let (mut bytes, from) = (0, std::mem::take(&mut self.from));
        for entry in self.engine.range(Bound::Included(&from), Bound::Unbounded) {
            let (entry_key, value) = entry?;
            if bytes >= limit {
                self.from = entry_key;
                return Ok(());
            }
            bytes += entry_key.len() + value.len();
            // The restore computes it from the entries.
            if entry_key != key::CHECKSUM {
                chunk.puts.push((entry_key, value));
            }
        }
        self.ended = true;
        Ok(())
    }
}

/// The entries of one batch, in as many records as needed.
fn records(written: &WriteBatch) -> VecDeque<Entries> {
    let (mut all, mut record, mut bytes) = (VecDeque::new(), Entries::default(), 0);
    for (entry_key, value) in written.iter().filter(|(entry_key, _)| *entry_key != key::CHECKSUM) {
        bytes += entry_key.len() + value.map_or(0, <[u8]>::len);
        match value {
            Some(value) => record.puts.push((entry_key.to_vec(), value.to_vec())),
            None => record.removals.push(entry_key.to_vec()),
        }
        if bytes >= CHUNK {
            all.push_back(std::mem::take(&mut record));
            bytes = 0;
        }
    }
    all.push_back(record);
    all
}

/// The number of backups in progress.
#[derive(Clone, Default)]
pub(super) struct ActiveBackups(Arc<AtomicUsize>);

/// A slot for one backup, until it is dropped.
struct BackupSlot(ActiveBackups);

impl ActiveBackups {
    fn acquire(&self) -> Result<BackupSlot, StoreError> {
        let slot = BackupSlot(self.clone());
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before < MAX_BACKUPS { Ok(slot) } else { Err(StoreError::TooManyBackups) }
    }
}

impl Drop for BackupSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A backup in progress.
pub struct Backup {
    scan: Scan,
    source: Source,
    commands: CommandQueue,
    /// `None` after the last part was made.
    file: Option<Writing>,
    /// How many batches of the feed are still to be taken before the next chunk.
    waiting: usize,
    end_requested: bool,
    /// Parts of the file that are made and not returned yet.
    ready: VecDeque<Vec<u8>>,
    _slot: BackupSlot,
}

impl Backup {
    /// Begins a backup.
    pub(super) fn begin(
        engine: Arc<dyn Engine>,
        incarnation: Incarnation,
        commands: CommandQueue,
        active: &ActiveBackups,
    ) -> Result<Self, StoreError> {
        let slot = active.acquire()?;
        let (feed, source) = BackupFeed::new(QUEUE_BYTES);
        commands.wait_for(WriterCommand::Backup(feed))?;
        let FeedItem::Begun = source.next()? else { return Err(StoreError::Unavailable) };
        let (file, first) = Writing::begin(Begin { schema: SCHEMA_VERSION, incarnation });
        Ok(Self {
            scan: Scan::new(engine),
            source,
            commands,
            file: Some(file),
            waiting: 0,
            end_requested: false,
            ready: VecDeque::from([first]),
            _slot: slot,
        })
    }

    /// The next part of the file; `None` after the last one. It may wait for the disk.
    ///
    /// # Errors
    /// The engine cannot answer, or the client was too slow.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(part) = self.ready.pop_front() {
            return Ok(Some(part));
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        if self.source.queue.overflowed.load(Ordering::Acquire) {
            return Err(StoreError::BackupTooSlow);
        }
        if self.waiting == 0 && !self.scan.ended {
            let mut chunk = Entries::default();
            self.scan.read(&mut chunk, CHUNK)?;
            // Only as many as wait now: otherwise, with constant changes, the next chunk would
            // never be read.
            self.waiting = self.source.queue.batches.load(Ordering::Acquire);
            return Ok(Some(file.entries(chunk)));
        }
        if self.waiting == 0 && !self.end_requested {
            self.commands
                .wait_for(WriterCommand::EndBackup(FeedId(Arc::clone(&self.source.queue))))?;
            self.end_requested = true;
        }
        self.waiting = self.waiting.saturating_sub(1);
        match self.source.next()? {
            FeedItem::Begun => Err(StoreError::Unavailable),
            FeedItem::Written(entries, _) => {
                self.ready = records(&entries).into_iter().map(|part| file.entries(part)).collect();
                Ok(self.ready.pop_front())
            }
            FeedItem::Ended(FeedEnd { head, checksum, mark }) => {
                let end = End { revision: head, checksum: checksum.number(), time_mark: mark };
                Ok(self.file.take().map(|file| file.end(end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::feed::BackupFeeds;
    use super::*;
    use crate::policy::revision::Revision;
    use crate::store::checksum::{self, StoreChecksum};
    use crate::store::engine::SledEngine;

    type Kept = BTreeMap<Vec<u8>, Vec<u8>>;

    /// One step of the writer or of the backup.
    #[derive(Clone, Debug)]
    enum Act {
        /// Applies a batch: keys, each with a value or none. Readers see it at once.
        Apply(Vec<(u8, Option<u8>)>),
        /// Passes an applied batch, which is durable now, to the feeds.
        Send,
        /// Reads so many bytes into the chunk.
        Read(usize),
        /// Puts the chunk into the file.
        Chunk,
        /// Takes one batch from the queue, as far as the last chunk allows it.
        Take,
    }

    fn act() -> impl Strategy<Value = Act> {
        let batch = prop::collection::vec((0..24_u8, any::<Option<u8>>()), 1..6);
        prop_oneof![
            4 => batch.prop_map(Act::Apply),
            3 => Just(Act::Send),
            3 => (1..40_usize).prop_map(Act::Read),
            2 => Just(Act::Chunk),
            3 => Just(Act::Take),
        ]
    }

    /// A key of each kind that the store checksum treats differently.
    fn entry_key(number: u8) -> Vec<u8> {
        let table = [b'C', b'K', b'N', b'H'][usize::from(number % 4)];
        vec![table, number]
    }

    fn take(kept: &mut Kept, entries: Entries) {
        kept.extend(entries.puts);
        entries.removals.iter().for_each(|entry_key| {
            kept.remove(entry_key);
        });
    }

    /// All entries except the checksum.
    fn all(engine: &dyn Engine) -> Kept {
        let all = engine.all().map(|entry| entry.expect("readable"));
        all.filter(|(entry_key, _)| entry_key != key::CHECKSUM).collect()
    }

    struct Fixture {
        engine: Arc<dyn Engine>,
        checksum: StoreChecksum,
        feeds: BackupFeeds,
        source: Source,
        scan: Scan,
        /// Applied, and not passed to the feeds yet.
        applied: VecDeque<WriteBatch>,
        chunk: Entries,
        /// How many batches may be taken since the last chunk.
        waiting: usize,
        file: Kept,
    }

    impl Fixture {
        fn new() -> Self {
            let engine: Arc<dyn Engine> = Arc::new(SledEngine::temporary());
            let (feed, source) = BackupFeed::new(u64::MAX / 2);
            let mut fixture = Self {
                scan: Scan::new(Arc::clone(&engine)),
                engine,
                checksum: StoreChecksum::default(),
                feeds: BackupFeeds::default(),
                source,
                applied: VecDeque::new(),
                chunk: Entries::default(),
                waiting: 0,
                file: Kept::new(),
            };
            // The state before the backup.
            fixture.act(&Act::Apply((0..24).step_by(2).map(|n| (n, Some(n))).collect()));
            fixture.act(&Act::Send);
            fixture.feeds.add(feed);
            assert!(matches!(fixture.source.next(), Ok(FeedItem::Begun)));
            fixture
        }

        fn act(&mut self, act: &Act) {
            match act {
                Act::Apply(batch) => {
                    let mut entries = WriteBatch::default();
                    for (number, value) in batch {
                        match value {
                            Some(value) => {
                                entries
                                    .insert(entry_key(*number), [&[0; 9], &[*value][..]].concat());
                            }
                            None => entries.remove(entry_key(*number)),
                        }
                    }
                    checksum::apply(&*self.engine, &mut self.checksum, &mut entries)
                        .expect("applied");
                    self.applied.push_back(entries);
                }
                Act::Send => {
                    if let Some(entries) = self.applied.pop_front() {
                        self.feeds.send(entries);
                    }
                }
                // A chunk is read only after all batches that waited at the last chunk were taken.
                Act::Read(limit) if self.waiting == 0 && !self.scan.ended => {
                    self.scan.read(&mut self.chunk, *limit).expect("read");
                }
                Act::Chunk if self.waiting == 0 => {
                    take(&mut self.file, std::mem::take(&mut self.chunk));
                    self.waiting = self.source.queue.batches.load(Ordering::Acquire);
                }
                Act::Take if self.waiting > 0 => {
                    self.waiting -= 1;
                    self.take_one();
                }
                _ => {}
            }
        }

        fn take_one(&mut self) -> Option<FeedEnd> {
            match self.source.next().expect("handed over") {
                FeedItem::Written(entries, _) => {
                    records(&entries).into_iter().for_each(|part| take(&mut self.file, part));
                    None
                }
                FeedItem::Ended(state) => Some(state),
                FeedItem::Begun => panic!("begun twice"),
            }
        }

        /// Reads and takes the rest, as the backup does, and returns the end state.
        fn end(&mut self) -> FeedEnd {
            (0..self.waiting).for_each(|_| assert!(self.take_one().is_none()));
            while !self.scan.ended {
                self.scan.read(&mut self.chunk, CHUNK).expect("read");
            }
            take(&mut self.file, std::mem::take(&mut self.chunk));
            while !self.applied.is_empty() {
                self.act(&Act::Send);
            }
            let state =
                FeedEnd { head: Revision(7), checksum: self.checksum, mark: Timestamp::UNIX_EPOCH };
            self.feeds.end(&FeedId(Arc::clone(&self.source.queue)), state);
            loop {
                if let Some(state) = self.take_one() {
                    return state;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// The writer may act between any two steps of the backup, in the middle of a chunk, and
        /// with a batch applied that is not durable yet.
        #[test]
        fn every_interleaving_ends_with_the_state_at_the_head(acts in prop::collection::vec(act(), 1..120)) {
            let mut fixture = Fixture::new();
            acts.iter().for_each(|act| fixture.act(act));
            let state = fixture.end();
            prop_assert_eq!(&fixture.file, &all(&*fixture.engine));
            let mut batch = WriteBatch::default();
            for (entry_key, value) in fixture.file {
                batch.insert(entry_key, value);
            }
            let copy = SledEngine::temporary();
            copy.apply(&batch).expect("applied");
            let matches_checksum = StoreChecksum::of(&copy).is_ok_and(|(checksum, _)| checksum == state.checksum);
            prop_assert!(matches_checksum, "the checksum");
        }
    }

    #[test]
    fn slow_backup_client_is_dropped_and_writer_continues() {
        let (feed, source) = BackupFeed::new(10_000);
        let mut feeds = BackupFeeds::default();
        feeds.add(feed);
        for number in 0..200_u8 {
            let mut entries = WriteBatch::default();
            entries.insert(entry_key(number), [0; 100]);
            feeds.send(entries);
        }
        assert!(feeds.0.is_empty(), "nothing more is kept for it");
        assert!(source.queue.bytes.load(Ordering::Relaxed) < 10_000 + 1_000, "nor was");
        let mut taken = 0;
        let ended = loop {
            match source.next() {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!((10..100).contains(&taken), "{taken}");
        assert_eq!(ended, StoreError::BackupTooSlow);
    }

    #[test]
    fn a_large_batch_is_divided_among_records() {
        let mut entries = WriteBatch::default();
        for number in 0..1_000_u32 {
            let value = (number % 3 > 0).then(|| vec![7; 4_096]);
            match value {
                Some(value) => entries.insert(number.to_be_bytes(), value),
                None => entries.remove(number.to_be_bytes()),
            }
        }
        let mut kept: Kept = [(0_u32.to_be_bytes().to_vec(), vec![])].into();
        let records = records(&entries);
        assert!(records.len() > 5);
        records.into_iter().for_each(|record| take(&mut kept, record));
        assert_eq!(kept.len(), 666);
    }
}
