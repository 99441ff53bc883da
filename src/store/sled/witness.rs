//! Witness: the last durable revision, noted beside sled's files.
//!
//! sled replays its log up to the first record that it cannot read, and forgets the rest: one
//! damaged byte would bring an earlier state back, and with it what was since forbidden. The
//! witness is written behind every durable batch, so a store that opens below it is damaged. It
//! is not synced with each batch: after a power cut it may be behind, which accuses nobody.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::policy::revision::Revision;
use crate::store::Incarnation;

const NAME: &str = "witness";
const LEN: usize = 32;

/// The file, open.
pub(super) struct Witness {
    file: File,
    incarnation: Incarnation,
}

/// What a witness says.
pub(super) enum Said {
    /// There is none: the store was never opened by this program.
    Nothing,
    /// This life of the store reached this revision.
    Reached(Incarnation, Revision),
    /// It cannot be read.
    Nonsense,
}

impl Witness {
    /// What the witness of this directory says.
    pub(super) fn ask(dir: &Path) -> io::Result<Said> {
        let bytes = match fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Nothing),
            Err(error) => return Err(error),
        };
        let read = || {
            let (incarnation, rest) = bytes.split_first_chunk::<16>()?;
            let (revision, _) = rest.split_first_chunk::<8>()?;
            let incarnation = Incarnation::from_bytes(*incarnation);
            let revision = Revision(u64::from_be_bytes(*revision));
            (bytes == note(incarnation, revision)).then_some(Said::Reached(incarnation, revision))
        };
        Ok(read().unwrap_or(Said::Nonsense))
    }

    /// Takes the witness of this directory, or calls a new one.
    pub(super) fn take(
        dir: &Path,
        incarnation: Incarnation,
        revision: Revision,
    ) -> io::Result<Self> {
        let path = dir.join(NAME);
        if !path.exists() {
            // Whole or not at all, also after a crash.
            let draft = dir.join("witness.new");
            fs::write(&draft, note(incarnation, revision))?;
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(dir)?.sync_all()?;
        }
        let file = File::options().write(true).open(&path)?;
        let witness = Self { file, incarnation };
        witness.note(revision)?;
        Ok(witness)
    }

    /// Notes a revision that is durable. One write below a disk's sector.
    pub(super) fn note(&self, revision: Revision) -> io::Result<()> {
        self.file.write_all_at(&note(self.incarnation, revision), 0)
    }
}

fn note(incarnation: Incarnation, revision: Revision) -> [u8; LEN] {
    let mut note = [0; LEN];
    let parts =
        incarnation.as_bytes().iter().chain(&revision.0.to_be_bytes()).copied().collect::<Vec<_>>();
    let check = blake3::hash(&parts);
    for (place, byte) in note.iter_mut().zip(parts.iter().chain(check.as_bytes())) {
        *place = *byte;
    }
    note
}
