//! Failover: a client that has the addresses of all replicas, and repeats a check elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::harness::cluster::Cluster;
use crate::harness::{Client, scopes_of};

/// Checks that go on until [`Failover::finish`].
pub struct Failover {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Failover {
    pub fn start(cluster: &Cluster) -> Self {
        let (is_over, clients) = (Arc::new(AtomicBool::new(false)), cluster.clients());
        let task = tokio::spawn(run(clients, Arc::clone(&is_over)));
        Self { is_over, task }
    }

    /// How many checks were answered. None failed.
    pub async fn finish(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("no check failed")
    }
}

async fn run(clients: Vec<Client>, is_over: Arc<AtomicBool>) -> u64 {
    let (mut answered, mut at) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut failed = Vec::new();
        while let Err(status) = clients[at].ask(scopes_of("company-0", "key", &["a"])).await {
            failed.push(status);
            assert!(failed.len() < clients.len(), "no replica answered: {failed:?}");
            at = (at + 1) % clients.len();
        }
        answered += 1;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    answered
}
