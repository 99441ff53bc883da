//! Stale answers: none, while faults of replicas and of etcd come at random.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::load::{Load, Route};
use super::{LEASE, size};
use crate::fixture::Rng;
use crate::harness::cluster::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_stale_while_faults_come_at_random() {
    let Some(mut cluster) = Cluster::start(3, &[], 3, LEASE).await else { return };
    let load = Load::start_with(&cluster, Route::Any, 3).await;
    let seed = size("SCOPEGATE_SEED", RandomState::new().hash_one(0));
    eprintln!("SCOPEGATE_SEED={seed}");
    let mut rng = Rng(seed);
    for _ in 0..size("SCOPEGATE_REPLICA_FAULTS", 2) {
        fault(&mut cluster, &load, &mut rng).await;
        load.changes_go_on_somewhere(5).await;
    }
    let checks = size("SCOPEGATE_REPLICA_CHECKS", 1_000);
    while load.settled() < checks {
        fault(&mut cluster, &load, &mut rng).await;
        load.changes_go_on_somewhere(5).await;
    }
    load.goes_on(&[0, 1, 2]).await;
    eprintln!("{} settled checks", load.settled());
    load.finish().await;
}

/// One fault, for a random time that may be longer than a lease and its margin.
async fn fault(cluster: &mut Cluster, load: &Load, rng: &mut Rng) {
    let (which, replica) = (rng.below(7), rng.below(3) as usize);
    let time = Duration::from_millis(rng.below(6_500));
    let lasts = tokio::time::sleep(time);
    let name = match which {
        0 => {
            cluster.replicas[replica].take().kill();
            lasts.await;
            cluster.launch(replica);
            "a replica dies"
        }
        1 => {
            cluster.replicas[replica].server().pause();
            lasts.await;
            let asked = load.burst(replica, 50);
            cluster.replicas[replica].server().signal("CONT");
            for ended in asked {
                ended.await.expect("no panic");
            }
            "a replica stops"
        }
        2 | 3 => {
            match which {
                2 => cluster.cut(replica),
                _ => cluster.hold(replica),
            }
            lasts.await;
            cluster.mend(replica);
            "a replica is cut off"
        }
        4 | 5 => {
            // It is elected first, if it is not there yet.
            let leader = cluster.etcd.leader().await;
            match which {
                4 => cluster.etcd.kill(leader),
                _ => cluster.etcd.pause(leader),
            }
            lasts.await;
            match which {
                4 => cluster.etcd.start_node(leader),
                _ => cluster.etcd.resume(leader),
            }
            "the leader of etcd is away"
        }
        _ => {
            let status = cluster.replicas[replica].take().terminate();
            assert!(status.success(), "{status}");
            lasts.await;
            cluster.launch(replica);
            "a replica is restarted"
        }
    };
    if which == 0 || which == 6 {
        // A process that has not begun to listen for signals ends by them.
        let replica = &cluster.replicas[replica];
        until("it listens", async || {
            tokio::net::TcpStream::connect(&replica.address).await.is_ok()
        })
        .await;
    }
    load.end_row(&format!("{name} ({replica}, {} ms)", time.as_millis()));
}
