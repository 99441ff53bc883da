//! Settings: what a process is told about the cluster that it is a replica of.

use std::time::Duration;

use super::etcd;
use crate::policy::id::Name;

/// How a process is a replica of a cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The etcd that has the log.
    pub etcd: etcd::Settings,
    /// The name of this replica.
    pub name: Name,
    /// The URL at which other replicas reach this one.
    pub advertise: String,
    /// How long this replica may answer after a renewal of its record began.
    pub ttl: Duration,
}
