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
