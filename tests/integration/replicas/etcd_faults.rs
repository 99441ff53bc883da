//! Faults of etcd: replicas answer as long as their leases hold, and never by a log that is not theirs.

use std::time::Duration;

use tonic_health::pb::health_check_response::ServingStatus;

use super::LEASE;
use super::load::{Load, Route};
use crate::harness::cluster::Cluster;

/// Longer than the shortest: a loaded machine may take longer to elect a leader.
const LONG_LEASE: Duration = Duration::from_secs(10);
const CUT_OFF: &str = "REPLICA_CUT_OFF";
const ALL: &[usize] = &[0, 1, 2];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_etcd_that_dies_or_stops_touches_no_check() {
    let Some(mut cluster) = Cluster::start(3, &[], 3, LONG_LEASE).await else { return };
    let load = Load::start(&cluster, Route::Own).await;
    for fault in ["the leader of etcd dies", "the leader of etcd stops", "one node of etcd is down"]
    {
        let leader = cluster.etcd.leader().await;
        let is_other = fault.starts_with("one");
        let node = if is_other { (leader + 1) % 3 } else { leader };
        load.begin_row();
        match fault.ends_with("stops") {
            true => cluster.etcd.pause(node),
            false => cluster.etcd.kill(node),
        }
        load.goes_on(ALL).await;
        load.end_row(fault).untouched(ALL);
        match fault.ends_with("stops") {
            true => cluster.etcd.resume(node),
            false => cluster.etcd.start_node(node),
        }
        load.goes_on(ALL).await;
        load.end_row("and it is back").untouched(ALL);
        cluster.etcd.until_all_answer().await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_of_etcd_replicas_answer_until_their_leases_end() {
    let Some(mut cluster) = Cluster::start(3, &[], 3, LEASE).await else { return };
    let load = Load::start(&cluster, Route::Own).await;
    load.begin_row();
    cluster.etcd.kill(0);
    cluster.etcd.kill(1);
    load.until_failed(ALL, CUT_OFF).await;
    load.end_row("etcd has no quorum");
    for replica in &mut cluster.replicas {
        assert_eq!(replica.health("live").await, ServingStatus::Serving);
        assert_eq!(replica.health("").await, ServingStatus::NotServing);
        assert!(replica.server().is_running());
    }
    cluster.etcd.start_node(0);
    cluster.etcd.start_node(1);
    load.goes_on(ALL).await;
    load.end_row("etcd has a quorum again");
    for replica in &mut cluster.replicas {
        assert_eq!(replica.health("").await, ServingStatus::Serving);
    }
    load.finish().await;
}
