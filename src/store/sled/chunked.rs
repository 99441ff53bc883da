//! Value: a tag, the revision that wrote it, and its bytes, here or in parts elsewhere.

use sled::Tree;

use crate::policy::revision::Revision;
use crate::store::error::Corrupt;
use crate::store::{StoreError, key};

use super::checksum::WriteBatch;
use super::engine_error::unavailable;

/// The most bytes that a value has in its place. sled keeps up to some twenty values in a page,
/// and a page must stay below 128 KiB.
pub(super) const INLINE: usize = 4096;
/// The most parts of a value, far above what a message can bring. More are damage, and nobody
/// makes room for four billion of them.
const MOST: u32 = 1 << 16;

const HERE: u8 = 0;
const IN_PARTS: u8 = 1;

/// Puts a value in its place. `number` tells values of one revision apart.
pub(super) fn put(
    batch: &mut WriteBatch,
    place: Vec<u8>,
    revision: Revision,
    number: u32,
    bytes: &[u8],
) {
    let mut value = Vec::with_capacity(13 + bytes.len().min(INLINE));
    if bytes.len() <= INLINE {
        value.push(HERE);
        value.extend(revision.0.to_be_bytes());
        value.extend(bytes);
    } else {
        let mut parts = 0_u32;
        for part in bytes.chunks(INLINE) {
            batch.insert(key::part(revision, number, parts), part);
            parts += 1;
        }
        value.push(IN_PARTS);
        value.extend(revision.0.to_be_bytes());
        value.extend(number.to_be_bytes());
        value.extend(parts.to_be_bytes());
    }
    batch.insert(place, value);
}

/// The keys of the parts of a value that is to be replaced or removed.
pub(super) fn chunks(value: &[u8]) -> Result<Vec<Vec<u8>>, Corrupt> {
    let (revision, place) = open(value)?;
    Ok(match place {
        Place::Here(_) => Vec::new(),
        Place::InParts { number, parts } => {
            (0..parts).map(|n| key::part(revision, number, n)).collect()
        }
    })
}

/// The revision that wrote a value.
pub(super) fn revision(value: &[u8]) -> Result<Revision, Corrupt> {
    open(value).map(|(revision, _)| revision)
}

/// The value's revision and bytes; none if one of its parts is gone.
pub(super) fn read(value: &[u8], tree: &Tree) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
    let (revision, place) = open(value)?;
    match place {
        Place::Here(bytes) => Ok(Some((revision, bytes.to_vec()))),
        Place::InParts { number, parts } => {
            let mut bytes = Vec::new();
            for part in 0..parts {
                let part = tree.get(key::part(revision, number, part));
                match part.map_err(|error| unavailable(&error))? {
                    Some(part) => bytes.extend_from_slice(&part),
                    None => return Ok(None),
                }
            }
            Ok(Some((revision, bytes)))
        }
    }
}

enum Place<'a> {
    Here(&'a [u8]),
    InParts { number: u32, parts: u32 },
}

fn open(value: &[u8]) -> Result<(Revision, Place<'_>), Corrupt> {
    let (tag, rest) = value.split_first().ok_or(Corrupt)?;
    let (revision, rest) = rest.split_first_chunk::<8>().ok_or(Corrupt)?;
    let revision = Revision(u64::from_be_bytes(*revision));
    let place = match *tag {
        HERE => Place::Here(rest),
        IN_PARTS => {
            let (number, rest) = rest.split_first_chunk::<4>().ok_or(Corrupt)?;
            let parts = <[u8; 4]>::try_from(rest).map_err(|_| Corrupt)?;
            let (number, parts) = (u32::from_be_bytes(*number), u32::from_be_bytes(parts));
            if parts > MOST {
                return Err(Corrupt);
            }
            Place::InParts { number, parts }
        }
        _ => return Err(Corrupt),
    };
    Ok((revision, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies there afterwards.
    fn kept(bytes: &[u8]) -> (sled::Db, Vec<u8>) {
        let store = sled::Config::new().temporary(true).open().expect("a store");
        let (mut batch, place) = (WriteBatch::default(), b"place".to_vec());
        put(&mut batch, place.clone(), Revision(7), 3, bytes);
        for (place, value) in batch.iter() {
            store.insert(place, value.expect("nothing is removed")).expect("kept");
        }
        let value = store.get(&place).expect("read").expect("there").to_vec();
        (store, value)
    }

    #[test]
    fn a_value_is_read_as_it_was_put_whatever_its_length() {
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE, 3 * INLINE + 5] {
            let bytes: Vec<_> = (0..length).map(|n| n as u8).collect();
            let (store, value) = kept(&bytes);
            let found = read(&value, &store).expect("no damage");
            assert_eq!(found, Some((Revision(7), bytes)), "{length}");
            let parts = chunks(&value).expect("no damage");
            assert_eq!(store.len(), 1 + parts.len(), "{length}: every part can be found again");
            if let Some(part) = parts.last() {
                store.remove(part).expect("removed");
                assert_eq!(read(&value, &store).expect("no damage"), None, "a part is gone");
            }
        }
    }

    #[test]
    fn damage_is_told_and_no_room_is_made_for_it() {
        let (_store, here) = kept(b"a");
        let (_parts, in_parts) = kept(&[0; INLINE + 1]);
        for value in [&here, &in_parts] {
            let whole = if value.first() == Some(&HERE) { 9 } else { value.len() };
            for length in 0..whole {
                assert!(chunks(&value[..length]).is_err(), "{length} bytes of it");
            }
        }
        let mut longer = in_parts.clone();
        longer.push(0);
        let mut many = in_parts;
        let count = many.len() - 4;
        many[count..].copy_from_slice(&u32::MAX.to_be_bytes());
        for damaged in [&longer, &many, &vec![9; 20]] {
            assert!(chunks(damaged).is_err(), "{damaged:?}");
        }
    }
}
