//! Upgrade: converts a store of an older schema to that of this program, before anything reads it.
//!
//! - Schema 2 has an index of secrets by their public ids. The upgrade builds it from the secrets,
//!   in batches of bounded size, each with its checksum.
//! - Schema 3 has a chain of changes. It begins at the head of the upgrade: records of earlier
//!   changes stay as they are, without a chain.
//!
//! INVARIANT (schema last): the new schema number is written after everything else is durable. An
//! interrupted upgrade leaves a store of the old schema and starts again. It first removes the
//! entries of the earlier attempt, because an older program may have deleted secrets meanwhile.
//!
//! Not here: changed rules for catalogs.

use std::collections::HashMap;

use super::chain::Chain;
use super::checksum::{self, StoreChecksum};
use super::engine::{Engine, EngineError, WriteBatch};
use super::{Fact, FactKey, Incarnation, SCHEMA_VERSION, chunked, key, record};
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::secret::SecretOwner;

/// The limit of entries that one batch writes or removes.
const BATCH: usize = 500;
/// The first schema with an index of secrets.
const SECRET_INDEX: u64 = 2;

/// Upgrades a store of an older schema, and logs it once.
pub(super) fn upgrade(
    engine: &dyn Engine,
    checksum: &mut StoreChecksum,
    incarnation: Incarnation,
    from: u64,
) -> Result<(), EngineError> {
    if from < SECRET_INDEX {
        clear(engine, checksum)?;
        let secrets = index(engine, checksum)?;
        engine.sync()?;
        tracing::info!(secrets, "secrets can be verified without their company from now on");
    }
    let mut last = WriteBatch::default();
    last.insert(key::CHAIN, Chain::root(incarnation).bytes());
    last.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
    checksum::apply(engine, checksum, &mut last)?;
    engine.sync()?;
    tracing::info!(from, to = SCHEMA_VERSION, "the store was upgraded");
    Ok(())
}

/// Removes the entries of an interrupted upgrade.
fn clear(engine: &dyn Engine, checksum: &mut StoreChecksum) -> Result<(), EngineError> {
    loop {
        let mut batch = WriteBatch::default();
        let mut removed = 0;
        for entry in engine.scan(&key::all_secret_owners()).take(BATCH) {
            batch.remove(entry?.0);
            removed += 1;
        }
        if removed == 0 {
            return Ok(());
        }
        checksum::apply(engine, checksum, &mut batch)?;
    }
}

/// Writes an entry for each secret of an existing company, and returns their number.
fn index(engine: &dyn Engine, checksum: &mut StoreChecksum) -> Result<u64, EngineError> {
    let companies = companies(engine)?;
    let (mut batch, mut waiting, mut all) = (WriteBatch::default(), 0, 0);
    for entry in engine.scan(&key::all_secrets()) {
        let (entry_key, stored) = entry?;
        let (company_created_at, secret) =
            key::secret_of(&entry_key).ok_or(EngineError::Damaged)?;
        // The company was deleted, and garbage collection has not removed the secret yet.
        let Some(company) = companies.get(&company_created_at) else { continue };
        let key = FactKey::Secret(company_created_at, secret.clone());
        let Fact::Secret(found) = read(engine, &key, &stored)? else {
            return Err(EngineError::Damaged);
        };
        let owner = SecretOwner {
            secret: secret.clone(),
            company: company.clone(),
            company_created_at,
            credential_created_at: found.credential_created_at,
            revision: found.revision,
        };
        let bytes = record::encode(&Fact::SecretOwner(owner.into()));
        let entry_key = FactKey::SecretOwner(secret).bytes();
        // An owner is small enough to have no chunks.
        chunked::put(&mut batch, entry_key, found.revision, 0, &bytes);
        (waiting, all) = (waiting + 1, all + 1);
        if waiting == BATCH {
            checksum::apply(engine, checksum, &mut std::mem::take(&mut batch))?;
            waiting = 0;
        }
    }
    checksum::apply(engine, checksum, &mut batch)?;
    Ok(all)
}

/// The ids of all companies, by the revisions that created them.
fn companies(engine: &dyn Engine) -> Result<HashMap<Revision, CompanyId>, EngineError> {
    let prefix = key::companies();
    let mut companies = HashMap::new();
    for entry in engine.scan(prefix.bytes()) {
        let (entry_key, stored) = entry?;
        let id = prefix.id(&entry_key).ok_or(EngineError::Damaged)?;
        let id = CompanyId::parse(id).map_err(|_| EngineError::Damaged)?;
        let key = FactKey::Company(id.clone());
        let Fact::Company(company) = read(engine, &key, &stored)? else {
            return Err(EngineError::Damaged);
        };
        companies.insert(company.created_at, id);
    }
    Ok(companies)
}

fn read(engine: &dyn Engine, key: &FactKey, stored: &[u8]) -> Result<Fact, EngineError> {
    let (revision, bytes) = chunked::read(stored, engine)?.ok_or(EngineError::Damaged)?;
    Ok(record::decode(key, revision, &bytes)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use crate::policy::change::Author;
    use crate::policy::id::Name;
    use crate::store::engine::SledEngine;
    use crate::store::{Store, restore};

    const SCHEMA_1: &[u8] = include_bytes!("../../tests/schema1.store");

    fn engine(dir: &Path) -> SledEngine {
        SledEngine::open(dir, 64 << 20).expect("opened")
    }

    fn entries(engine: &dyn Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
        engine.scan(&key::all_secret_owners()).map(|entry| entry.expect("readable")).collect()
    }

    #[test]
    fn an_upgrade_that_was_cut_off_anywhere_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let restored = |name: &str| {
            restore(&at(name), SCHEMA_1, Author::default(), Timestamp::now()).expect("restored")
        };
        restored("whole");
        drop(Store::open(&at("whole")).expect("opened"));
        let whole = entries(&engine(&at("whole")));
        assert_eq!(whole.len(), 4);
        for done in 0..=whole.len() {
            let name = format!("cut at {done}");
            restored(&name);
            {
                let engine = engine(&at(&name));
                let checksum = StoreChecksum::stored(&engine);
                let mut checksum = checksum.ok().flatten().expect("a checksum");
                let mut batch = WriteBatch::default();
                for (entry_key, value) in whole.iter().take(done) {
                    batch.insert(entry_key.clone(), value.clone());
                }
                // A secret that an older program has deleted since.
                let gone = FactKey::SecretOwner(Name::parse("0123").expect("a name"));
                batch.insert(gone.bytes(), whole.last().expect("one").1.clone());
                checksum::apply(&engine, &mut checksum, &mut batch).expect("written");
                engine.sync().expect("synced");
            }
            let store = Store::open(&at(&name)).expect("its checksum is right");
            assert_eq!(store.upgraded_from(), Some(1));
            assert_eq!(entries(&*store.engine), whole, "{name}");
            let secret = Name::parse("8f3edb543feb21eab5cf5aa9").expect("a name");
            let owner = store.get(&FactKey::SecretOwner(secret)).expect("readable");
            let Some(Fact::SecretOwner(owner)) = owner else { panic!("no owner: {owner:?}") };
            assert_eq!(owner.company.as_str(), "acme");
            drop(store);
            // Nothing is left to do, and its checksum is still right.
            assert_eq!(Store::open(&at(&name)).expect("opened").upgraded_from(), None);
        }
    }
}
