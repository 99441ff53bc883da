//! Repeated: ids that a file names more than once.
//!
//! INVARIANT (bounded): an id costs 32 bytes and its place in the table, about 64 bytes in all,
//! whatever the line's length; there are [`MOST`] at most, which is 0.6 GiB.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{anyhow, bail};

/// The most ids of one file.
pub(super) const MOST: usize = 10_000_000;

/// The ids of the file so far: a digest of each, with its line and a digest of its content.
#[derive(Debug, Default)]
pub(super) struct Repeated(HashMap<[u8; 16], (u64, [u8; 8])>);

impl Repeated {
    /// Notes an item. `id` and `content` are parts, of which every other text is another item.
    ///
    /// # Errors
    /// An earlier line has the same id with other content, or there are too many ids.
    pub(super) fn note(&mut self, line: u64, id: &[&str], content: &[&[u8]]) -> anyhow::Result<()> {
        let count = self.0.len();
        let id_digest = digest(id.iter().map(|part| part.as_bytes()));
        let content = digest(content.iter().copied());
        match self.0.entry(id_digest) {
            Entry::Vacant(_) if count >= MOST => {
                bail!("is the first above {MOST} items: divide the file")
            }
            Entry::Vacant(place) => {
                place.insert((line, content));
                Ok(())
            }
            Entry::Occupied(place) => {
                let (first, known) = place.get();
                if *known == content {
                    return Ok(());
                }
                let what = match id {
                    [company] => format!("the company `{company}`"),
                    _ => format!("the credential `{}`", id.join("` / `")),
                };
                Err(anyhow!(
                    "{what} is also on line {first}, with other content: keep one of the two lines"
                ))
            }
        }
    }
}

/// A digest of parts, none of which runs into the next.
fn digest<'a, const N: usize>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    let mut digest = [0; N];
    hasher.finalize_xof().fill(&mut digest);
    digest
}
