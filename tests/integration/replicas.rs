//! Replicas: what callers see of several replicas while a part of the cluster fails. Real processes of etcd
//! and of the binary, proxies between them, and calls over real sockets.
//!
//! During each fault a writer and a checker call each replica, and no answer is stale; see [`load`]. The
//! tests print how long callers wait. No limit of it is asserted, because the machine may be busy.

mod clocks;
mod etcd_faults;
mod facts;
mod failover;
mod joiners;
mod load;
mod replica_faults;
mod stale_answers;
mod writers;

use std::time::Duration;

use crate::harness::Server;
use crate::harness::cluster::Cluster;

/// The shortest lease, so that what waits for its end is soon over.
const LEASE: Duration = Duration::from_secs(3);

/// A size that the long form of the tests raises.
fn size(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// How often a fault is repeated that one test has once.
fn rounds() -> u64 {
    size("SCOPEGATE_REPLICA_ROUNDS", 1)
}

/// Three replicas on one node of etcd.
async fn three() -> Option<Cluster> {
    Cluster::start(1, &[], 3, LEASE).await
}

/// The sentence with which a process ended by itself.
fn sentence(server: Server) -> String {
    let (status, log) = server.ended();
    assert!(!status.success(), "{status}: {log:#?}");
    log.last().cloned().unwrap_or_default()
}
