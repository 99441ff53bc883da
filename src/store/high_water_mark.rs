//! HighWaterMark: a file with the last durable revision and the time mark, beside the engine's files.
//!
//! sled replays its log up to the first record that it cannot read, and drops the rest. One corrupt
//! byte would therefore bring back an earlier state, with access that was revoked since. The writer
//! updates this file after every durable batch, so a store that opens at an earlier revision is
//! corrupt. The file is not synced with each batch: after a power cut it may be older than the
//! store, which is no error.
//!
//! The file is written in place, over allocated bytes. The time can therefore be stored even when
//! the disk has no space for the log to grow (D19).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;

use super::Incarnation;
use crate::policy::revision::Revision;

const NAME: &str = "witness";
const DRAFT: &str = "witness.new";
const LEN: usize = 40;

/// The file, open.
pub(super) struct HighWaterMark {
    file: File,
    incarnation: Incarnation,
}

/// The content of the file.
pub(super) enum MarkState {
    /// There is no file: this program never opened the store.
    Missing,
    /// The incarnation, its last durable revision, and its time mark.
    Reached(Incarnation, Revision, Timestamp),
    /// The file is corrupt.
    Unreadable,
}

impl HighWaterMark {
    /// Whether the file has this name, until it is renamed or since.
    pub(super) fn is_file(name: &str) -> bool {
        name == NAME || name == DRAFT
    }

    /// Reads the file of this directory.
    pub(super) fn read(dir: &Path) -> io::Result<MarkState> {
        let bytes = match fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(MarkState::Missing),
            Err(error) => return Err(error),
        };
        let decode = || {
            let (incarnation, rest) = bytes.split_first_chunk::<16>()?;
            let (revision, rest) = rest.split_first_chunk::<8>()?;
            let (mark, _) = rest.split_first_chunk::<8>()?;
            let incarnation = Incarnation::from_bytes(*incarnation);
            let revision = Revision(u64::from_be_bytes(*revision));
            let mark = Timestamp::from_millisecond(i64::from_be_bytes(*mark)).ok()?;
            (bytes == encode(incarnation, revision, mark)).then_some(MarkState::Reached(
                incarnation,
                revision,
                mark,
            ))
        };
        Ok(decode().unwrap_or(MarkState::Unreadable))
    }

    /// Opens the file of this directory, or creates it.
    pub(super) fn open(
        dir: &Path,
        incarnation: Incarnation,
        revision: Revision,
        mark: Timestamp,
    ) -> io::Result<Self> {
        let path = dir.join(NAME);
        if !path.exists() {
            // Renamed into place, so that a crash leaves no partial file.
            let draft = dir.join(DRAFT);
            fs::write(&draft, encode(incarnation, revision, mark))?;
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(dir)?.sync_all()?;
        }
        let file = File::options().write(true).open(&path)?;
        let mark_file = Self { file, incarnation };
        mark_file.write(revision, mark)?;
        Ok(mark_file)
    }

    /// Removes the file of this directory durably, if there is one.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(dir)?.sync_all(),
        }
    }

    /// Writes a durable revision and the time mark. It is one write, smaller than a sector.
    pub(super) fn write(&self, revision: Revision, mark: Timestamp) -> io::Result<()> {
        self.file.write_all_at(&encode(self.incarnation, revision, mark), 0)
    }

    /// Syncs the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(incarnation: Incarnation, revision: Revision, mark: Timestamp) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let (revision, mark) = (revision.0.to_be_bytes(), mark.as_millisecond().to_be_bytes());
    let parts: Vec<_> =
        incarnation.as_bytes().iter().chain(&revision).chain(&mark).copied().collect();
    let check = blake3::hash(&parts);
    for (target, byte) in bytes.iter_mut().zip(parts.iter().chain(check.as_bytes())) {
        *target = *byte;
    }
    bytes
}
