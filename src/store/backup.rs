//! Backup: a file that has all that a store kept at one revision.
//!
//! A line with the version, then records, each behind its length, then a checksum of everything
//! before it. The first record says what the file is of; those between have entries, each in
//! force over the ones before; the last says which state they add up to.
//!
//! Not here: how entries are read from a store that goes on changing, and how they become a
//! store again; the engine does both. What an entry means is not known here.

use jiff::Timestamp;
use prost::Message;

use super::record::proto::{BackupBegin, BackupEnd, BackupEntries, BackupEntry, BackupRecord};
use super::record::{moment, stamp};
use super::{Incarnation, StoreError};
use crate::policy::revision::Revision;

/// A backup under way.
pub trait Backup: Send {
    /// The next part of the file; none behind its end. It may wait for the disk.
    ///
    /// # Errors
    /// The engine cannot answer, or its changes have overtaken the backup.
    fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError>;
}

/// What every file begins with; the version and a line's end follow.
const MAGIC: &str = "scopegate-backup ";
/// The version of the files written here. Of a later one nothing more is known.
const VERSION: u32 = 1;
/// The most digits of a version.
const DIGITS: usize = 9;
/// The most bytes of a record: far more than any has that is written here.
const MAX_RECORD: usize = 16 << 20;
const CHECKSUM: usize = blake3::OUT_LEN;

/// Why a file is no backup, in words that follow its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is something else.
    #[error("is not a backup of scopegate: give a file that `scopegate backup` wrote")]
    Foreign,
    /// A newer version wrote it.
    #[error("was written by a newer version of scopegate: restore it with that version or later")]
    Newer,
    /// It ends before its end.
    #[error("is not whole, it breaks off before its end: use another backup")]
    BrokenOff,
    /// It is not what was written.
    #[error("is damaged: use another backup")]
    Damaged,
}

impl From<prost::DecodeError> for Unusable {
    fn from(_: prost::DecodeError) -> Self {
        Self::Damaged
    }
}

/// Entries of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// What lies in which places.
    pub(super) puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// The places where nothing lies any more.
    pub(super) removals: Vec<Vec<u8>>,
}

/// What a file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// The version of the schema of what is kept.
    pub(super) schema: u64,
    /// The life of the store that was backed up.
    pub(super) incarnation: Incarnation,
}

/// The state that a file adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The last revision that it has.
    pub(super) revision: Revision,
    /// The sum of all entries.
    pub(super) tally: u128,
    /// The latest time that was relied on (D19).
    pub(super) time_mark: Timestamp,
}

/// A file in the making.
pub(super) struct Writing(blake3::Hasher);

impl Writing {
    /// A new file, and how it begins.
    pub(super) fn begin(begin: Begin) -> (Self, Vec<u8>) {
        let mut file = Self(blake3::Hasher::new());
        let mut bytes = format!("{MAGIC}{VERSION}\n").into_bytes();
        file.0.update(&bytes);
        let Begin { schema, incarnation } = begin;
        let incarnation = incarnation.as_bytes().to_vec();
        let begin = Some(BackupBegin { schema, incarnation });
        bytes.extend(file.record(&BackupRecord { begin, ..BackupRecord::default() }));
        (file, bytes)
    }

    /// More entries.
    pub(super) fn entries(&mut self, entries: Entries) -> Vec<u8> {
        let puts = entries.puts.into_iter().map(|(place, value)| BackupEntry { place, value });
        let entries = BackupEntries { puts: puts.collect(), removals: entries.removals };
        self.record(&BackupRecord { entries: Some(entries), ..BackupRecord::default() })
    }

    /// How it ends.
    pub(super) fn end(mut self, end: End) -> Vec<u8> {
        let End { revision, tally, time_mark } = end;
        let tally = tally.to_be_bytes().to_vec();
        let end = BackupEnd { revision: revision.0, tally, time_mark: Some(stamp(time_mark)) };
        let mut bytes = self.record(&BackupRecord { end: Some(end), ..BackupRecord::default() });
        bytes.extend(self.0.finalize().as_bytes());
        bytes
    }

    fn record(&mut self, record: &BackupRecord) -> Vec<u8> {
        let length = record.encoded_len();
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(record.encode_to_vec());
        self.0.update(&bytes);
        bytes
    }
}

/// A file that is read from its beginning, in pieces of any size. Nothing that it says is to be
/// relied on before its end was found right.
pub struct Reading {
    /// Read, and not understood yet.
    rest: Vec<u8>,
    hash: blake3::Hasher,
    next: Expected,
    begin: Option<Begin>,
    end: Option<End>,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Line,
    Begin,
    Entries,
    Checksum,
    Nothing,
}

impl Default for Reading {
    fn default() -> Self {
        let (rest, hash) = (Vec::new(), blake3::Hasher::new());
        Self { rest, hash, next: Expected::Line, begin: None, end: None }
    }
}

impl Reading {
    /// Reads on, and only checks.
    ///
    /// # Errors
    /// It is no backup, or not a whole one.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
        self.read(bytes, |_| Ok(()))
    }

    /// Reads on, and hands the entries over.
    pub(super) fn read<E: From<Unusable>>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Entries) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rest.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.rest);
        let mut read = 0;
        while let Some(unread) = rest.get(read..) {
            let (length, entries) = self.step(unread)?;
            if length == 0 {
                break;
            }
            read += length;
            if let Some(entries) = entries {
                take(entries)?;
            }
        }
        rest.drain(..read);
        self.rest = rest;
        Ok(())
    }

    /// What the file is of, once that was read.
    pub(super) fn begin(&self) -> Option<Begin> {
        self.begin
    }

    /// The revision that a whole file is of: there is no more of it.
    ///
    /// # Errors
    /// It is not whole.
    pub fn revision(self) -> Result<Revision, Unusable> {
        self.finish().map(|end| end.revision)
    }

    /// The state that a whole file adds up to: there is no more of it.
    pub(super) fn finish(self) -> Result<End, Unusable> {
        match (self.next, self.end) {
            (Expected::Nothing, Some(end)) => Ok(end),
            _ => Err(Unusable::BrokenOff),
        }
    }

    /// Understands the next thing, and says how long it is; 0 if it is not all there.
    fn step(&mut self, unread: &[u8]) -> Result<(usize, Option<Entries>), Unusable> {
        match self.next {
            Expected::Line => {
                let length = line(unread)?;
                if let Some(line) = unread.get(..length).filter(|line| !line.is_empty()) {
                    self.hash.update(line);
                    self.next = Expected::Begin;
                }
                Ok((length, None))
            }
            Expected::Begin | Expected::Entries => self.record(unread),
            Expected::Checksum => {
                let Some(checksum) = unread.first_chunk::<CHECKSUM>() else {
                    return Ok((0, None));
                };
                if blake3::Hash::from_bytes(*checksum) != self.hash.finalize() {
                    return Err(Unusable::Damaged);
                }
                self.next = Expected::Nothing;
                Ok((CHECKSUM, None))
            }
            Expected::Nothing if unread.is_empty() => Ok((0, None)),
            Expected::Nothing => Err(Unusable::Damaged),
        }
    }

    fn record(&mut self, unread: &[u8]) -> Result<(usize, Option<Entries>), Unusable> {
        let Some((length, behind)) = unread.split_first_chunk::<4>() else { return Ok((0, None)) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_RECORD {
            return Err(Unusable::Damaged);
        }
        let (Some(body), Some(whole)) = (behind.get(..length), unread.get(..4 + length)) else {
            return Ok((0, None));
        };
        let read = BackupRecord::decode(body)?;
        self.hash.update(whole);
        let entries = match (self.next, read.begin, read.entries, read.end) {
            (Expected::Begin, Some(begin), None, None) => {
                let incarnation = Incarnation::from_slice(&begin.incarnation);
                let incarnation = incarnation.map_err(|_| Unusable::Damaged)?;
                self.begin = Some(Begin { schema: begin.schema, incarnation });
                self.next = Expected::Entries;
                None
            }
            (Expected::Entries, None, Some(entries), None) => {
                let puts = entries.puts.into_iter().map(|entry| (entry.place, entry.value));
                Some(Entries { puts: puts.collect(), removals: entries.removals })
            }
            (Expected::Entries, None, None, Some(end)) => {
                let tally = end.tally.try_into().map_err(|_| Unusable::Damaged)?;
                let time_mark = moment(end.time_mark).map_err(|_| Unusable::Damaged)?;
                let (revision, tally) = (Revision(end.revision), u128::from_be_bytes(tally));
                self.end = Some(End { revision, tally, time_mark });
                self.next = Expected::Checksum;
                None
            }
            _ => return Err(Unusable::Damaged),
        };
        Ok((4 + length, entries))
    }
}

/// How long the first line is; 0 if it is not all there.
fn line(unread: &[u8]) -> Result<usize, Unusable> {
    let known = unread.len().min(MAGIC.len());
    if unread.get(..known) != MAGIC.as_bytes().get(..known) {
        return Err(Unusable::Foreign);
    }
    let Some(version) = unread.get(MAGIC.len()..) else { return Ok(0) };
    let Some(digits) = version.iter().position(|byte| *byte == b'\n') else {
        let so_far = version.len() <= DIGITS && version.iter().all(u8::is_ascii_digit);
        return if so_far { Ok(0) } else { Err(Unusable::Foreign) };
    };
    let version = version.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
    match version.filter(|text| text.len() <= DIGITS).and_then(|text| text.parse::<u32>().ok()) {
        Some(version) if version > VERSION => Err(Unusable::Newer),
        Some(VERSION) => Ok(MAGIC.len() + digits + 1),
        _ => Err(Unusable::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, Vec<Entries>, End) {
        let (mut file, mut bytes) =
            Writing::begin(Begin { schema: 1, incarnation: Incarnation::new_v4() });
        let entries = vec![
            Entries { puts: vec![(b"a".to_vec(), b"1".to_vec())], removals: vec![] },
            Entries { puts: vec![], removals: vec![b"a".to_vec(), b"b".to_vec()] },
        ];
        entries.iter().for_each(|entries| bytes.extend(file.entries(entries.clone())));
        let time_mark = Timestamp::from_millisecond(7).expect("a time");
        let end = End { revision: Revision(9), tally: u128::MAX - 3, time_mark };
        bytes.extend(file.end(end));
        (bytes, entries, end)
    }

    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Entries>, End), Unusable> {
        let (mut reading, mut found) = (Reading::default(), vec![]);
        for piece in bytes.chunks(step) {
            reading.read(piece, |entries| {
                found.push(entries);
                Ok::<_, Unusable>(())
            })?;
        }
        reading.finish().map(|end| (found, end))
    }

    #[test]
    fn a_file_is_read_in_pieces_of_any_size() {
        let (bytes, entries, end) = file();
        for step in [1, 2, 7, bytes.len()] {
            assert_eq!(read(&bytes, step), Ok((entries.clone(), end)));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_has_a_damaged_byte_is_refused() {
        let (bytes, ..) = file();
        for at in 0..bytes.len() {
            assert_eq!(read(&bytes[..at], 5), Err(Unusable::BrokenOff), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                read(&damaged, 64).expect_err("a damaged byte");
            }
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat(), 64), Err(Unusable::Damaged), "too long");
        assert_eq!(read(b"something else", 64), Err(Unusable::Foreign));
        assert_eq!(read(b"scopegate-backup 2\nwhatever", 64), Err(Unusable::Newer));
    }
}
