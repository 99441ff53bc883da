//! Repeated ids: finds ids that a file contains more than once with different content.
//!
//! INVARIANT (bounded): an id takes about 64 bytes of memory, including its table entry, whatever
//! the length of the line. There are at most [`MAX_IDS`] ids, which take 0.6 GiB.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{anyhow, bail};

/// The maximum number of ids in a file.
pub(super) const MAX_IDS: usize = 10_000_000;

/// The ids of the file so far: a digest of each, its line and a digest of its content.
#[derive(Debug, Default)]
pub(super) struct RepeatedIds(HashMap<[u8; 16], (u64, [u8; 8])>);

impl RepeatedIds {
    /// Adds an item. `id` and `content` are lists of parts; the boundaries between parts count.
    ///
    /// # Errors
    /// An earlier line has the same id with different content, or there are too many ids.
    pub(super) fn insert(
        &mut self,
        line: u64,
        id: &[&str],
        content: &[&[u8]],
    ) -> anyhow::Result<()> {
        let count = self.0.len();
        let id_digest = digest(id.iter().map(|part| part.as_bytes()));
        let content = digest(content.iter().copied());
        match self.0.entry(id_digest) {
            Entry::Vacant(_) if count >= MAX_IDS => {
                bail!("exceeds the limit of {MAX_IDS} items: split the file")
            }
            Entry::Vacant(entry) => {
                entry.insert((line, content));
                Ok(())
            }
            Entry::Occupied(entry) => {
                let (first, known_content) = entry.get();
                if *known_content == content {
                    return Ok(());
                }
                let item = match id {
                    [company] => format!("the company `{company}`"),
                    _ => format!("the credential `{}`", id.join("` / `")),
                };
                Err(anyhow!(
                    "{item} is also on line {first}, with other content: keep one of the two lines"
                ))
            }
        }
    }
}

/// A digest of length-prefixed parts.
fn digest<'a, const N: usize>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    let mut digest = [0; N];
    hasher.finalize_xof().fill(&mut digest);
    digest
}
