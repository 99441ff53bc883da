//! Backup: reads the whole tree while the writer goes on changing it.
//!
//! The tree is read in the order of its keys, chunk by chunk. From before the first chunk on the
//! writer hands over everything that it writes, and at the end says at which state it stands.
//!
//! INVARIANT (a chunk before what it may lack): of the batches that the writer hands over, only
//! those lie before a chunk in the file that were taken from the queue before the chunk was
//! begun to be read; and every batch applied since the beginning is in the file, in order. So for
//! each key: a batch before its chunk was applied before the key was read, and the chunk has its
//! effect, or that of a later one. A batch that the chunk lacks lies behind it, as does every one
//! after that; one that it has already does no harm there, since the last to touch the key comes
//! last. A key that no chunk has lay nowhere when its chunk was read: what put it there since
//! lies behind. Whoever takes records in order ends with the state behind the last batch.
//!
//! The writer answers the end order behind everything it has applied, also what was half
//! written when the last chunk saw it; that is durable then, but for steps of the sweep, which
//! change no fact.
//!
//! INVARIANT (the writer never waits for a backup): what a client has not taken yet waits up to
//! [`WAITING`] bytes; beyond them the backup ends, and not the change.
//!
//! Not here: the file's form, and how it becomes a store again.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sled::Tree;

use super::SCHEMA_VERSION;
use super::backup_feed::{BackupFeed, FeedEnd, FeedId, FeedItem, Source};
use super::checksum::WriteBatch;
use super::command_queue::{CommandQueue, WriterCommand};
use super::engine_error::unavailable;
use crate::store::backup::{self, Begin, End, Writing};
use crate::store::{Incarnation, StoreError, key};

/// The most backups at once: each holds up to [`WAITING`] bytes.
const AT_ONCE: usize = 2;
/// About how many bytes of entries a chunk has, and a record.
const CHUNK: usize = 256 << 10;
/// The most bytes of what was written and has not been taken yet.
const WAITING: u64 = 64 << 20;
/// Reads the tree in the order of its keys.
struct Scan {
    tree: Tree,
    /// Where the next chunk begins.
    from: Vec<u8>,
    ended: bool,
}

impl Scan {
    fn new(tree: Tree) -> Self {
        Self { tree, from: Vec::new(), ended: false }
    }

    /// Reads on into a chunk that is not in the file yet.
    fn read(&mut self, chunk: &mut backup::Entries, most: usize) -> Result<(), StoreError> {
        let mut bytes = 0;
        for entry in self.tree.range(std::mem::take(&mut self.from)..) {
            let (place, value) = entry.map_err(|error| unavailable(&error))?;
            if bytes >= most {
                self.from = place.to_vec();
                return Ok(());
            }
            bytes += place.len() + value.len();
            // Counted anew for what the entries become.
            if &*place != key::TALLY {
                chunk.puts.push((place.to_vec(), value.to_vec()));
            }
        }
        self.ended = true;
        Ok(())
    }
}

/// Entries that were written as one, in as many records as they need.
fn records(written: &WriteBatch) -> VecDeque<backup::Entries> {
    let (mut all, mut record, mut bytes) = (VecDeque::new(), backup::Entries::default(), 0);
    for (place, value) in written.iter() {
        bytes += place.len() + value.map_or(0, <[u8]>::len);
        match value {
            Some(value) => record.puts.push((place.to_vec(), value.to_vec())),
            None => record.removals.push(place.to_vec()),
        }
        if bytes >= CHUNK {
            all.push_back(std::mem::take(&mut record));
            bytes = 0;
        }
    }
    all.push_back(record);
    all
}

/// How many backups are under way.
#[derive(Clone, Default)]
pub(super) struct ActiveBackups(Arc<AtomicUsize>);

/// One of them, until it is dropped.
struct Place(ActiveBackups);

impl ActiveBackups {
    fn one_more(&self) -> Result<Place, StoreError> {
        let place = Place(self.clone());
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before < AT_ONCE { Ok(place) } else { Err(StoreError::TooManyBackups) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A backup under way.
pub(super) struct SledBackup {
    scan: Scan,
    source: Source,
    orders: CommandQueue,
    /// Until its last part is made.
    file: Option<Writing>,
    /// How many batches waited when the last chunk was read, and are still to be taken.
    waiting: usize,
    asked_to_end: bool,
    /// Parts of the file that come before anything else.
    made: VecDeque<Vec<u8>>,
    _place: Place,
}

impl SledBackup {
    /// Begins a backup.
    pub(super) fn begin(
        tree: Tree,
        incarnation: Incarnation,
        orders: CommandQueue,
        under_way: &ActiveBackups,
    ) -> Result<Self, StoreError> {
        let place = under_way.one_more()?;
        let (tap, source) = BackupFeed::new(WAITING);
        orders.wait_for(WriterCommand::Backup(tap))?;
        let FeedItem::Begun = source.next()? else { return Err(StoreError::Unavailable) };
        let (file, first) = Writing::begin(Begin { schema: SCHEMA_VERSION, incarnation });
        Ok(Self {
            scan: Scan::new(tree),
            source,
            orders,
            file: Some(file),
            waiting: 0,
            asked_to_end: false,
            made: VecDeque::from([first]),
            _place: place,
        })
    }

    fn make(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(part) = self.made.pop_front() {
            return Ok(Some(part));
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        if self.source.queue.overtaken.load(Ordering::Acquire) {
            return Err(StoreError::BackupTooSlow);
        }
        if self.waiting == 0 && !self.scan.ended {
            let mut chunk = backup::Entries::default();
            self.scan.read(&mut chunk, CHUNK)?;
            // No more than waits now: the next chunk must come, too, where changes never end.
            self.waiting = self.source.queue.batches.load(Ordering::Acquire);
            return Ok(Some(file.entries(chunk)));
        }
        if self.waiting == 0 && !self.asked_to_end {
            self.orders
                .wait_for(WriterCommand::EndBackup(FeedId(Arc::clone(&self.source.queue))))?;
            self.asked_to_end = true;
        }
        self.waiting = self.waiting.saturating_sub(1);
        match self.source.next()? {
            FeedItem::Begun => Err(StoreError::Unavailable),
            FeedItem::Written(entries, _) => {
                self.made = records(&entries).into_iter().map(|part| file.entries(part)).collect();
                Ok(self.made.pop_front())
            }
            FeedItem::Ended(FeedEnd { head, tally, mark }) => {
                let end = End { revision: head, tally: tally.number(), time_mark: mark };
                Ok(self.file.take().map(|file| file.end(end)))
            }
        }
    }
}

impl backup::Backup for SledBackup {
    fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        // sled panics on a page that it cannot read.
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.make()));
        made.unwrap_or(Err(StoreError::Damaged))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::backup_feed::BackupFeeds;
    use super::super::checksum::StoreChecksum;
    use super::*;
    use crate::policy::revision::Revision;

    type Kept = BTreeMap<Vec<u8>, Vec<u8>>;

    /// One step of the writer or of the backup.
    #[derive(Clone, Debug)]
    enum Act {
        /// Applies a batch: keys, each with a value or none. Readers see it at once.
        Apply(Vec<(u8, Option<u8>)>),
        /// Hands over what was applied, which is durable now.
        HandOver,
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
            3 => Just(Act::HandOver),
            3 => (1..40_usize).prop_map(Act::Read),
            2 => Just(Act::Chunk),
            3 => Just(Act::Take),
        ]
    }

    /// A place of every kind that the tally treats otherwise.
    fn place(number: u8) -> Vec<u8> {
        let table = [b'C', b'K', b'N', b'H'][usize::from(number % 4)];
        vec![table, number]
    }

    fn take(kept: &mut Kept, entries: backup::Entries) {
        kept.extend(entries.puts);
        entries.removals.iter().for_each(|place| {
            kept.remove(place);
        });
    }

    /// All of a tree but its tally.
    fn all(tree: &Tree) -> Kept {
        let all = tree.iter().map(|entry| entry.expect("readable"));
        let all = all.map(|(place, value)| (place.to_vec(), value.to_vec()));
        all.filter(|(place, _)| place != key::TALLY).collect()
    }

    struct Stage {
        tree: Tree,
        tally: StoreChecksum,
        taps: BackupFeeds,
        source: Source,
        scan: Scan,
        /// Applied and not handed over yet.
        applied: VecDeque<WriteBatch>,
        chunk: backup::Entries,
        /// How many batches may be taken since the last chunk.
        waiting: usize,
        file: Kept,
    }

    impl Stage {
        fn new(db: &sled::Db) -> Self {
            let tree: Tree = (**db).clone();
            tree.clear().expect("cleared");
            let (tap, source) = BackupFeed::new(u64::MAX / 2);
            let mut stage = Self {
                scan: Scan::new(tree.clone()),
                tree,
                tally: StoreChecksum::default(),
                taps: BackupFeeds::default(),
                source,
                applied: VecDeque::new(),
                chunk: backup::Entries::default(),
                waiting: 0,
                file: Kept::new(),
            };
            // What was there before.
            stage.act(&Act::Apply((0..24).step_by(2).map(|n| (n, Some(n))).collect()));
            stage.act(&Act::HandOver);
            stage.taps.add(tap);
            assert!(matches!(stage.source.next(), Ok(FeedItem::Begun)));
            stage
        }

        fn act(&mut self, act: &Act) {
            match act {
                Act::Apply(batch) => {
                    let mut entries = WriteBatch::default();
                    for (number, value) in batch {
                        match value {
                            Some(value) => entries.insert(place(*number), [*value]),
                            None => entries.remove(place(*number)),
                        }
                    }
                    entries.apply(&self.tree, &mut self.tally).expect("applied");
                    self.applied.push_back(entries);
                }
                Act::HandOver => {
                    if let Some(entries) = self.applied.pop_front() {
                        self.taps.hand_over(entries);
                    }
                }
                // A chunk is read when all that waited at the last one was taken.
                Act::Read(most) if self.waiting == 0 && !self.scan.ended => {
                    self.scan.read(&mut self.chunk, *most).expect("read");
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

        /// Reads and takes the rest, as the backup does; and says where it ended.
        fn end(&mut self) -> FeedEnd {
            (0..self.waiting).for_each(|_| assert!(self.take_one().is_none()));
            while !self.scan.ended {
                self.scan.read(&mut self.chunk, CHUNK).expect("read");
            }
            take(&mut self.file, std::mem::take(&mut self.chunk));
            while !self.applied.is_empty() {
                self.act(&Act::HandOver);
            }
            let state =
                FeedEnd { head: Revision(7), tally: self.tally, mark: Timestamp::UNIX_EPOCH };
            self.taps.end(&FeedId(Arc::clone(&self.source.queue)), state);
            loop {
                if let Some(state) = self.take_one() {
                    return state;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the writer does between two steps of the backup, also in the middle of a
        /// chunk, and with a batch applied that is not durable yet.
        #[test]
        fn any_interleaving_ends_with_the_state_at_the_head(acts in prop::collection::vec(act(), 1..120)) {
            let dir = tempfile::tempdir().expect("a directory");
            let db = sled::Config::new().path(dir.path()).temporary(true).open().expect("opened");
            let mut stage = Stage::new(&db);
            acts.iter().for_each(|act| stage.act(act));
            let state = stage.end();
            prop_assert_eq!(&stage.file, &all(&stage.tree));
            let copy = db.open_tree("copy").expect("opened");
            for (place, value) in &stage.file {
                copy.insert(place, value.as_slice()).expect("inserted");
            }
            let adds_up = StoreChecksum::of(&copy).is_ok_and(|(tally, _)| tally == state.tally);
            prop_assert!(adds_up, "the tally");
        }
    }

    #[test]
    fn who_does_not_take_what_is_written_is_overtaken_and_the_writer_goes_on() {
        let (tap, source) = BackupFeed::new(10_000);
        let mut taps = BackupFeeds::default();
        taps.add(tap);
        for number in 0..200_u8 {
            let mut entries = WriteBatch::default();
            entries.insert(place(number), [0; 100]);
            taps.hand_over(entries);
        }
        assert!(taps.0.is_empty(), "nothing more is kept for it");
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
    fn what_is_written_at_once_is_divided_among_records() {
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
