//! Cluster: which cluster a store belongs to, and the etcd that has the log of that cluster.
//!
//! The id of the cluster, the position in its log and the schema number are written in one batch. A
//! store of a cluster has a schema of its own, so that no program opens it that does not know
//! clusters and would change it without an entry.
//!
//! Not here: how a cluster is initialised; see [`super::initialisation`].

use uuid::Uuid;

use super::{LogPosition, uuid};
use crate::store::engine::{Engine, EngineError, WriteBatch};
use crate::store::error::Corrupt;
use crate::store::{REPLICATED_SCHEMA_VERSION, SCHEMA_VERSION, key};

/// The cluster of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The random id of the cluster.
    pub id: Uuid,
    /// The id of the etcd that has its log; answers of another etcd do not count. None: the
    /// initialisation of the cluster from this store has begun, and it is not known that it is
    /// complete.
    pub etcd_cluster_id: Option<u64>,
}

impl Cluster {
    /// The cluster and the position that the store has stored, if its schema is that of a cluster's
    /// store.
    pub(in crate::store) fn stored(
        engine: &dyn Engine,
        schema: u64,
    ) -> Result<Option<Self>, EngineError> {
        let Some(bytes) = engine.get(key::CLUSTER)? else {
            return match schema == REPLICATED_SCHEMA_VERSION {
                true => Err(EngineError::Damaged),
                false => Ok(None),
            };
        };
        if schema != REPLICATED_SCHEMA_VERSION || engine.get(key::LOG_POSITION)?.is_none() {
            return Err(EngineError::Damaged);
        }
        let (id, etcd) = bytes.split_last_chunk::<8>().ok_or(Corrupt)?;
        // etcd's ids are hashes, and zero stands for none.
        let etcd = Some(u64::from_be_bytes(*etcd)).filter(|id| *id != 0);
        Ok(Some(Self { id: uuid(id)?, etcd_cluster_id: etcd }))
    }
}

/// Writes which log the store follows, and from where. None: it is a store of no cluster.
pub(in crate::store) fn write(batch: &mut WriteBatch, log: Option<(Cluster, LogPosition)>) {
    let Some((cluster, position)) = log else {
        batch.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
        batch.remove(key::CLUSTER);
        batch.remove(key::LOG_POSITION);
        return;
    };
    let etcd = cluster.etcd_cluster_id.unwrap_or(0).to_be_bytes();
    batch.insert(key::SCHEMA, REPLICATED_SCHEMA_VERSION.to_be_bytes());
    batch.insert(key::CLUSTER, [cluster.id.as_bytes().as_slice(), &etcd].concat());
    batch.insert(key::LOG_POSITION, position.bytes());
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::change::Author;
    use crate::policy::revision::Revision;
    use crate::store::checksum::{self, StoreChecksum};
    use crate::store::engine::SledEngine;
    use crate::store::replicated::head::Head;
    use crate::store::{OpenError, Store, begin_again};

    /// Changes the entries of a closed store.
    fn change(dir: &std::path::Path, change: impl FnOnce(&mut WriteBatch)) {
        let engine = SledEngine::open(dir, 1 << 20).expect("opened");
        let mut sum = StoreChecksum::stored(&engine).expect("readable").expect("a checksum");
        let mut batch = WriteBatch::default();
        change(&mut batch);
        checksum::apply(&engine, &mut sum, &mut batch).expect("written");
        engine.sync().expect("synced");
    }

    #[test]
    fn cluster_position_and_schema_are_there_together() {
        let parent = tempfile::tempdir().expect("a directory");
        let now = Timestamp::UNIX_EPOCH;
        let head = Head::first(Uuid::from_u128(7), Uuid::from_u128(8), Revision::ZERO, now);
        for (name, key) in
            [("cluster", key::CLUSTER), ("position", key::LOG_POSITION), ("schema", key::SCHEMA)]
        {
            let dir = parent.path().join(name);
            drop(Store::create_for(&dir, 1 << 20, &head, Some(9)).expect("created"));
            let store = Store::open(&dir).expect("opened");
            let own = Cluster { id: head.cluster, etcd_cluster_id: Some(9) };
            assert_eq!((store.cluster(), store.incarnation()), (Some(own), head.incarnation));
            drop(store);
            change(&dir, |batch| match name {
                "schema" => batch.insert(key, SCHEMA_VERSION.to_be_bytes()),
                _ => batch.remove(key),
            });
            assert!(matches!(Store::open(&dir), Err(OpenError::Damaged(_))), "{name}");
        }
        let dir = parent.path().join("newer");
        drop(Store::open(&dir).expect("created"));
        change(&dir, |batch| batch.insert(key::SCHEMA, 5_u64.to_be_bytes()));
        assert!(matches!(Store::open(&dir), Err(OpenError::Newer { found: 5, .. })));
    }

    #[test]
    fn store_that_begins_again_or_leaves_its_log_opens_as_what_it_is_then() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("store");
        let mut store = Store::open(&dir).expect("created");
        let (before, now) = (store.incarnation(), Timestamp::UNIX_EPOCH);
        let head = Head::first(Uuid::from_u128(7), before, Revision::ZERO, now);
        store.follow_log(&head, None).expect("it follows");
        store.leave_log().expect("left");
        assert_eq!((store.cluster(), store.log_position()), (None, Ok(None)));
        drop(store);
        assert_eq!(Store::open(&dir).expect("opened").cluster(), None);
        // One of no cluster, and then one of a cluster.
        for id in [Uuid::from_u128(1), Uuid::from_u128(2)] {
            let revision = Store::open(&dir).expect("opened").opened_at();
            let head = begin_again(&dir, id, Author::default(), now).expect("begun");
            assert!(head.revision > revision && head.incarnation != before);
            let store = Store::open(&dir).expect("opened");
            assert_eq!(store.cluster(), Some(Cluster { id, etcd_cluster_id: None }));
            assert_eq!((store.opened_at(), store.incarnation()), (head.revision, head.incarnation));
            assert_eq!(store.log_position(), Ok(Some(LogPosition::of(&head))));
        }
    }
}
