//! Witness: the last durable revision and the latest time relied on, noted beside sled's files.
//!
//! sled replays its log up to the first record that it cannot read, and forgets the rest: one
//! damaged byte would bring an earlier state back, and with it what was since forbidden. The
//! witness is written behind every durable batch, so a store that opens below it is damaged. It
//! is not synced with each batch: after a power cut it may be behind, which accuses nobody.
//!
//! It is written in place, over bytes that are on the disk already, so that the time can be kept
//! also where there is no room for the log to grow (D19).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;

use crate::policy::revision::Revision;
use crate::store::Incarnation;

const NAME: &str = "witness";
const LEN: usize = 40;

/// The file, open.
pub(super) struct HighWaterMark {
    file: File,
    incarnation: Incarnation,
}

/// What a witness says.
pub(super) enum MarkState {
    /// There is none: the store was never opened by this program.
    Nothing,
    /// This life of the store reached this revision, and relied on this time.
    Reached(Incarnation, Revision, Timestamp),
    /// It cannot be read.
    Nonsense,
}

impl HighWaterMark {
    /// What the witness of this directory says.
    pub(super) fn ask(dir: &Path) -> io::Result<MarkState> {
        let bytes = match fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(MarkState::Nothing),
            Err(error) => return Err(error),
        };
        let read = || {
            let (incarnation, rest) = bytes.split_first_chunk::<16>()?;
            let (revision, rest) = rest.split_first_chunk::<8>()?;
            let (mark, _) = rest.split_first_chunk::<8>()?;
            let incarnation = Incarnation::from_bytes(*incarnation);
            let revision = Revision(u64::from_be_bytes(*revision));
            let mark = Timestamp::from_millisecond(i64::from_be_bytes(*mark)).ok()?;
            (bytes == note(incarnation, revision, mark)).then_some(MarkState::Reached(
                incarnation,
                revision,
                mark,
            ))
        };
        Ok(read().unwrap_or(MarkState::Nonsense))
    }

    /// Takes the witness of this directory, or calls a new one.
    pub(super) fn take(
        dir: &Path,
        incarnation: Incarnation,
        revision: Revision,
        mark: Timestamp,
    ) -> io::Result<Self> {
        let path = dir.join(NAME);
        if !path.exists() {
            // Whole or not at all, also after a crash.
            let draft = dir.join("witness.new");
            fs::write(&draft, note(incarnation, revision, mark))?;
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(dir)?.sync_all()?;
        }
        let file = File::options().write(true).open(&path)?;
        let witness = Self { file, incarnation };
        witness.note(revision, mark)?;
        Ok(witness)
    }

    /// Notes a revision that is durable, and the latest time relied on. One write below a disk's
    /// sector.
    pub(super) fn note(&self, revision: Revision, mark: Timestamp) -> io::Result<()> {
        self.file.write_all_at(&note(self.incarnation, revision, mark), 0)
    }

    /// Makes what was noted last durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn note(incarnation: Incarnation, revision: Revision, mark: Timestamp) -> [u8; LEN] {
    let mut note = [0; LEN];
    let (revision, mark) = (revision.0.to_be_bytes(), mark.as_millisecond().to_be_bytes());
    let parts: Vec<_> =
        incarnation.as_bytes().iter().chain(&revision).chain(&mark).copied().collect();
    let check = blake3::hash(&parts);
    for (place, byte) in note.iter_mut().zip(parts.iter().chain(check.as_bytes())) {
        *place = *byte;
    }
    note
}
