//! Upgrade: converts a store of an older schema to that of this program, before anything reads it.
//!
//! Schema 2 has an index of secrets by their public ids. The upgrade builds it from the secrets, in
//! batches of bounded size, each with its checksum.
//!
//! INVARIANT (schema last): the new schema number is written after everything else is durable. An
//! interrupted upgrade leaves a store of the old schema and starts again. It first removes the
//! entries of the earlier attempt, because an older program may have deleted secrets meanwhile.
//!
//! Not here: changed rules for catalogs.

use std::collections::HashMap;
use std::fs::File;

use sled::Tree;

use super::checksum::{StoreChecksum, WriteBatch};
use super::engine_error::EngineError;
use super::{SCHEMA_VERSION, chunked};
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::secret::SecretOwner;
use crate::store::{Fact, FactKey, key, record};

/// The limit of entries that one batch writes or removes.
const BATCH: usize = 500;

/// Upgrades a store of schema 1 to schema 2, and logs it once.
pub(super) fn upgrade(
    tree: &Tree,
    checksum: &mut StoreChecksum,
    log: &File,
    from: u64,
) -> Result<(), EngineError> {
    clear(tree, checksum)?;
    let secrets = index(tree, checksum)?;
    tree.flush()?;
    log.sync_all()?;
    let mut last = WriteBatch::default();
    last.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
    last.apply(tree, checksum)?;
    tree.flush()?;
    log.sync_all()?;
    tracing::info!(
        from,
        to = SCHEMA_VERSION,
        secrets,
        "the store was upgraded: its secrets can be verified without their company"
    );
    Ok(())
}

/// Removes the entries of an interrupted upgrade.
fn clear(tree: &Tree, checksum: &mut StoreChecksum) -> Result<(), EngineError> {
    loop {
        let mut batch = WriteBatch::default();
        let mut removed = 0;
        for tree_key in tree.scan_prefix(key::all_secret_owners()).keys().take(BATCH) {
            batch.remove(&*tree_key?);
            removed += 1;
        }
        if removed == 0 {
            return Ok(());
        }
        batch.apply(tree, checksum)?;
    }
}

/// Writes an entry for each secret of an existing company, and returns their number.
fn index(tree: &Tree, checksum: &mut StoreChecksum) -> Result<u64, EngineError> {
    let companies = companies(tree)?;
    let (mut batch, mut waiting, mut all) = (WriteBatch::default(), 0, 0);
    for entry in tree.scan_prefix(key::all_secrets()) {
        let (tree_key, stored) = entry?;
        let (company_created_at, secret) = key::secret_of(&tree_key).ok_or(EngineError::Damage)?;
        // The company was deleted, and garbage collection has not removed the secret yet.
        let Some(company) = companies.get(&company_created_at) else { continue };
        let key = FactKey::Secret(company_created_at, secret.clone());
        let Fact::Secret(found) = read(tree, &key, &stored)? else {
            return Err(EngineError::Damage);
        };
        let owner = SecretOwner {
            secret: secret.clone(),
            company: company.clone(),
            company_created_at,
            credential_created_at: found.credential_created_at,
            revision: found.revision,
        };
        let bytes = record::encode(&Fact::SecretOwner(owner.into()));
        let tree_key = key::fact(&FactKey::SecretOwner(secret));
        // An owner is small enough to have no chunks.
        chunked::put(&mut batch, tree_key, found.revision, 0, &bytes);
        (waiting, all) = (waiting + 1, all + 1);
        if waiting == BATCH {
            std::mem::take(&mut batch).apply(tree, checksum)?;
            waiting = 0;
        }
    }
    batch.apply(tree, checksum)?;
    Ok(all)
}

/// The ids of all companies, by the revisions that created them.
fn companies(tree: &Tree) -> Result<HashMap<Revision, CompanyId>, EngineError> {
    let prefix = key::companies();
    let mut companies = HashMap::new();
    for entry in tree.scan_prefix(prefix.bytes()) {
        let (tree_key, stored) = entry?;
        let id = prefix.id(&tree_key).ok_or(EngineError::Damage)?;
        let id = CompanyId::parse(id).map_err(|_| EngineError::Damage)?;
        let key = FactKey::Company(id.clone());
        let Fact::Company(company) = read(tree, &key, &stored)? else {
            return Err(EngineError::Damage);
        };
        companies.insert(company.created_at, id);
    }
    Ok(companies)
}

fn read(tree: &Tree, key: &FactKey, stored: &[u8]) -> Result<Fact, EngineError> {
    let (revision, bytes) = chunked::read(stored, tree)?.ok_or(EngineError::Damage)?;
    Ok(record::decode(key, revision, &bytes)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use crate::policy::change::Author;
    use crate::policy::id::Name;
    use crate::store::Store;
    use crate::store::sled::data_dir::{PAGE_CACHE, config};
    use crate::store::sled::{SledStore, restore};

    const SCHEMA_1: &[u8] = include_bytes!("../../../tests/schema1.store");

    fn tree(dir: &Path) -> Tree {
        (*config(dir, PAGE_CACHE).open().expect("opened")).clone()
    }

    fn entries(tree: &Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = tree.scan_prefix(key::all_secret_owners());
        let entries = entries.map(|entry| entry.expect("readable"));
        entries.map(|(tree_key, value)| (tree_key.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn an_upgrade_that_was_cut_off_anywhere_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let restored = |name: &str| {
            restore(&at(name), SCHEMA_1, Author::default(), Timestamp::now()).expect("restored")
        };
        restored("whole");
        drop(SledStore::open(&at("whole")).expect("opened"));
        let whole = entries(&tree(&at("whole")));
        assert_eq!(whole.len(), 4);
        for done in 0..=whole.len() {
            let name = format!("cut at {done}");
            restored(&name);
            {
                let tree = tree(&at(&name));
                let mut checksum = StoreChecksum::stored(&tree).ok().flatten().expect("a checksum");
                let mut batch = WriteBatch::default();
                for (tree_key, value) in whole.iter().take(done) {
                    batch.insert(tree_key.clone(), value.clone());
                }
                // A secret that an older program has deleted since.
                let gone = FactKey::SecretOwner(Name::parse("0123").expect("a name"));
                batch.insert(key::fact(&gone), whole.last().expect("one").1.clone());
                batch.apply(&tree, &mut checksum).expect("written");
                tree.flush().expect("flushed");
            }
            let store = SledStore::open(&at(&name)).expect("its checksum is right");
            assert_eq!(store.upgraded_from(), Some(1));
            assert_eq!(entries(&store.tree), whole, "{name}");
            let secret = Name::parse("8f3edb543feb21eab5cf5aa9").expect("a name");
            let owner = store.get(&FactKey::SecretOwner(secret)).expect("readable");
            let Some(Fact::SecretOwner(owner)) = owner else { panic!("no owner: {owner:?}") };
            assert_eq!(owner.company.as_str(), "acme");
            drop(store);
            // Nothing is left to do, and its checksum is still right.
            assert_eq!(SledStore::open(&at(&name)).expect("opened").upgraded_from(), None);
        }
    }
}
