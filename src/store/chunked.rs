//! Chunked: encodes a value as a tag, the revision that wrote it, and its bytes, inline or in
//! chunks under keys of their own. Every engine gets values of a bounded size, so one format of the
//! store serves all.

use std::borrow::Cow;

use super::engine::{Engine, EngineError, WriteBatch};
use super::error::Corrupt;
use super::key;
use crate::policy::revision::Revision;

/// The largest inline value, in bytes. sled keeps up to about twenty values in a page, and a page
/// must stay below 128 KiB.
pub(super) const INLINE: usize = 4096;
/// The limit of chunks of a value, far above what a message can bring. A larger count is corrupt;
/// rejecting it avoids a huge allocation.
const MAX_CHUNKS: u32 = 1 << 16;

const INLINE_TAG: u8 = 0;
const CHUNKED_TAG: u8 = 1;

/// The revision that wrote a value, and its bytes.
pub(super) type Read<'a> = (Revision, Cow<'a, [u8]>);

/// Puts a value under its key. `number` distinguishes the values of one revision.
pub(super) fn put(
    batch: &mut WriteBatch,
    entry_key: Vec<u8>,
    revision: Revision,
    number: u32,
    bytes: &[u8],
) {
    let mut value = Vec::with_capacity(13 + bytes.len().min(INLINE));
    if bytes.len() <= INLINE {
        value.push(INLINE_TAG);
        value.extend(revision.0.to_be_bytes());
        value.extend(bytes);
    } else {
        let mut chunks = 0_u32;
        for chunk in bytes.chunks(INLINE) {
            batch.insert(key::chunk(revision, number, chunks), chunk);
            chunks += 1;
        }
        value.push(CHUNKED_TAG);
        value.extend(revision.0.to_be_bytes());
        value.extend(number.to_be_bytes());
        value.extend(chunks.to_be_bytes());
    }
    batch.insert(entry_key, value);
}

/// The keys of the chunks of a value that is to be replaced or removed.
pub(super) fn chunks(value: &[u8]) -> Result<Vec<Vec<u8>>, Corrupt> {
    let (revision, location) = open(value)?;
    Ok(match location {
        Location::Inline(_) => Vec::new(),
        Location::Chunked { number, chunks } => {
            (0..chunks).map(|n| key::chunk(revision, number, n)).collect()
        }
    })
}

/// The revision that wrote a value.
pub(super) fn revision(value: &[u8]) -> Result<Revision, Corrupt> {
    open(value).map(|(revision, _)| revision)
}

/// The value's revision and bytes; `None` if one of its chunks is missing.
pub(super) fn read<'a>(
    value: &'a [u8],
    engine: &dyn Engine,
) -> Result<Option<Read<'a>>, EngineError> {
    let (revision, location) = open(value)?;
    match location {
        Location::Inline(bytes) => Ok(Some((revision, bytes.into()))),
        Location::Chunked { number, chunks } => {
            let mut bytes = Vec::new();
            for index in 0..chunks {
                match engine.get(&key::chunk(revision, number, index))? {
                    Some(chunk) => bytes.extend_from_slice(&chunk),
                    None => return Ok(None),
                }
            }
            Ok(Some((revision, bytes.into())))
        }
    }
}

enum Location<'a> {
    Inline(&'a [u8]),
    Chunked { number: u32, chunks: u32 },
}

fn open(value: &[u8]) -> Result<(Revision, Location<'_>), Corrupt> {
    let (tag, rest) = value.split_first().ok_or(Corrupt)?;
    let (revision, rest) = rest.split_first_chunk::<8>().ok_or(Corrupt)?;
    let revision = Revision(u64::from_be_bytes(*revision));
    let location = match *tag {
        INLINE_TAG => Location::Inline(rest),
        CHUNKED_TAG => {
            let (number, rest) = rest.split_first_chunk::<4>().ok_or(Corrupt)?;
            let chunks = <[u8; 4]>::try_from(rest).map_err(|_| Corrupt)?;
            let (number, chunks) = (u32::from_be_bytes(*number), u32::from_be_bytes(chunks));
            if chunks > MAX_CHUNKS {
                return Err(Corrupt);
            }
            Location::Chunked { number, chunks }
        }
        _ => return Err(Corrupt),
    };
    Ok((revision, location))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::store::engine::SledEngine;

    /// Stores a value and returns its encoded form.
    fn stored(bytes: &[u8]) -> (SledEngine, Vec<u8>) {
        let engine = SledEngine::temporary();
        let (mut batch, entry_key) = (WriteBatch::default(), b"entry_key".to_vec());
        put(&mut batch, entry_key.clone(), Revision(7), 3, bytes);
        engine.apply(&batch).expect("kept");
        let value = engine.get(&entry_key).expect("read").expect("there");
        (engine, value)
    }

    #[test]
    fn a_value_is_read_as_it_was_put_whatever_its_length() {
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE, 3 * INLINE + 5] {
            let bytes: Vec<_> = (0..length).map(|n| n as u8).collect();
            let (store, value) = stored(&bytes);
            let found = read(&value, &store).expect("no damage");
            assert_eq!(found, Some((Revision(7), bytes.into())), "{length}");
            let chunks = chunks(&value).expect("no damage");
            let count = store.all().count();
            assert_eq!(count, 1 + chunks.len(), "{length}: every part can be found again");
            if let Some(chunk) = chunks.last() {
                let mut batch = WriteBatch::default();
                batch.remove(chunk.clone());
                store.apply(&batch).expect("removed");
                assert_eq!(read(&value, &store).expect("no damage"), None, "a part is gone");
            }
        }
    }

    #[test]
    fn damage_is_reported_and_no_memory_is_reserved_for_it() {
        let (_store, inline) = stored(b"a");
        let (_store2, chunked) = stored(&[0; INLINE + 1]);
        for value in [&inline, &chunked] {
            let whole = if value.first() == Some(&INLINE_TAG) { 9 } else { value.len() };
            for length in 0..whole {
                assert!(chunks(&value[..length]).is_err(), "{length} bytes of it");
            }
        }
        let mut longer = chunked.clone();
        longer.push(0);
        let mut many = chunked;
        let count = many.len() - 4;
        many[count..].copy_from_slice(&u32::MAX.to_be_bytes());
        for damaged in [&longer, &many, &vec![9; 20]] {
            assert!(chunks(damaged).is_err(), "{damaged:?}");
        }
    }
}
