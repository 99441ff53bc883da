//! BackupFile: the format of a backup file, which holds all keys and values of a store at one revision.
//!
//! The file is a line with the format version, then records with a length prefix, then a checksum
//! of everything before it. The first record names the schema and the incarnation. The records
//! between hold entries; a later entry replaces an earlier one of the same key. The last record
//! holds the revision and the store checksum.
//!
//! Not here: how entries are read while changes go on, how they are restored, and the meaning of an
//! entry. Writer and reader of the format stay in one file, so that a change of one
//! is seen next to the other.

use jiff::Timestamp;
use prost::Message;

use crate::policy::revision::Revision;
use crate::store::Incarnation;
use crate::store::record::proto::{
    BackupBegin, BackupEnd, BackupEntries, BackupEntry, BackupRecord,
};
use crate::store::record::{moment, stamp};

/// The start of every file. The format version and a line feed follow.
const MAGIC: &str = "scopegate-backup ";
/// The format version that this program writes. It cannot read a later one.
const VERSION: u32 = 1;
/// The largest number of digits of a format version.
const DIGITS: usize = 9;
/// The largest record that is accepted, in bytes. It is far above the largest one that is written.
const MAX_RECORD: usize = 16 << 20;
const CHECKSUM: usize = blake3::OUT_LEN;

/// Why a file cannot be used as a backup. The text follows the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not a backup file.
    #[error("is not a backup of scopegate: give a file that `scopegate backup` wrote")]
    Foreign,
    /// A newer version of scopegate wrote it.
    #[error("was written by a newer version of scopegate: restore it with that version or later")]
    Newer,
    /// It is truncated.
    #[error("is truncated: use another backup")]
    BrokenOff,
    /// It is corrupt.
    #[error("is damaged: use another backup")]
    Damaged,
}

impl From<prost::DecodeError> for Unusable {
    fn from(_: prost::DecodeError) -> Self {
        Self::Damaged
    }
}

/// Keys and values of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Entries {
    /// Keys with their values.
    pub(in crate::store) puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys that are removed.
    pub(in crate::store) removals: Vec<Vec<u8>>,
}

/// The first record: which store the file is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Begin {
    /// The schema version of the store.
    pub(in crate::store) schema: u64,
    /// The incarnation of the store.
    pub(in crate::store) incarnation: Incarnation,
}

/// The last record: the state that the entries make up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct End {
    /// The revision of the backup.
    pub(in crate::store) revision: Revision,
    /// The store checksum of all entries.
    pub(in crate::store) checksum: u128,
    /// The durable time mark (D19).
    pub(in crate::store) time_mark: Timestamp,
}

/// Writes a backup file.
pub(in crate::store) struct Writing(blake3::Hasher);

impl Writing {
    /// A new file, and its first bytes.
    pub(in crate::store) fn begin(begin: Begin) -> (Self, Vec<u8>) {
        let mut file = Self(blake3::Hasher::new());
        let mut bytes = format!("{MAGIC}{VERSION}\n").into_bytes();
        file.0.update(&bytes);
        let Begin { schema, incarnation } = begin;
        let incarnation = incarnation.as_bytes().to_vec();
        let begin = Some(BackupBegin { schema, incarnation });
        bytes.extend(file.record(&BackupRecord { begin, ..BackupRecord::default() }));
        (file, bytes)
    }

    /// The bytes of a record of entries.
    pub(in crate::store) fn entries(&mut self, entries: Entries) -> Vec<u8> {
        let puts = entries.puts.into_iter().map(|(place, value)| BackupEntry { place, value });
        let entries = BackupEntries { puts: puts.collect(), removals: entries.removals };
        self.record(&BackupRecord { entries: Some(entries), ..BackupRecord::default() })
    }

    /// The last bytes: the end record and the checksum of the file.
    pub(in crate::store) fn end(mut self, end: End) -> Vec<u8> {
        let End { revision, checksum, time_mark } = end;
        let tally = checksum.to_be_bytes().to_vec();
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

/// Reads a backup file from its beginning, in pieces of any size. The content may be used only
/// after the checksum at the end was verified.
pub struct Reading {
    /// Bytes that were read and not parsed yet.
    rest: Vec<u8>,
    hash: blake3::Hasher,
    next: Expected,
    begin: Option<Begin>,
    end: Option<End>,
}

/// What the reader expects next.
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
    /// Reads the next bytes and only checks them.
    ///
    /// # Errors
    /// The bytes are not a backup, or they are corrupt.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
        self.read(bytes, |_| Ok(()))
    }

    /// Reads the next bytes and passes the entries to `take`.
    pub(in crate::store) fn read<E: From<Unusable>>(
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

    /// The first record, once it was read.
    pub(in crate::store) fn begin(&self) -> Option<Begin> {
        self.begin
    }

    /// The revision of a complete file, after its last byte was read.
    ///
    /// # Errors
    /// The file is truncated.
    pub fn revision(self) -> Result<Revision, Unusable> {
        self.finish().map(|end| end.revision)
    }

    /// The end record of a complete file, after its last byte was read.
    pub(in crate::store) fn finish(self) -> Result<End, Unusable> {
        match (self.next, self.end) {
            (Expected::Nothing, Some(end)) => Ok(end),
            _ => Err(Unusable::BrokenOff),
        }
    }

    /// Parses the next element and returns its length; 0 if it is incomplete.
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
                let checksum = end.tally.try_into().map_err(|_| Unusable::Damaged)?;
                let time_mark = moment(end.time_mark).map_err(|_| Unusable::Damaged)?;
                let (revision, checksum) = (Revision(end.revision), u128::from_be_bytes(checksum));
                self.end = Some(End { revision, checksum, time_mark });
                self.next = Expected::Checksum;
                None
            }
            _ => return Err(Unusable::Damaged),
        };
        Ok((4 + length, entries))
    }
}

/// The length of the first line; 0 if it is incomplete.
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
        let end = End { revision: Revision(9), checksum: u128::MAX - 3, time_mark };
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
