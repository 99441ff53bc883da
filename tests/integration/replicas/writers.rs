//! Writers: clients that create companies at all replicas, and note what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use scopegate::proto::*;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::Client;
use crate::harness::cluster::{Cluster, until};

/// Clients that write until [`Writers::finish`].
pub struct Writers {
    told: Arc<Told>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    /// Companies by id, with the revision that was acknowledged.
    created: Mutex<BTreeMap<String, u64>>,
    is_over: AtomicBool,
}

impl Writers {
    pub fn start(cluster: &Cluster, count: usize) -> Self {
        let told = Arc::<Told>::default();
        let write = |writer| {
            let (clients, told) = (cluster.clients(), Arc::clone(&told));
            tokio::spawn(write(clients, writer, told))
        };
        let tasks = (0..count).map(write).collect();
        Self { told, tasks }
    }

    fn count(&self) -> usize {
        self.told.created.lock().expect("whole").len()
    }

    /// Waits until so many more were acknowledged.
    pub async fn more(&self, count: usize) {
        let target = self.count() + count;
        until("changes", async || self.count() >= target).await;
    }

    /// Ends all clients. What was acknowledged is at every replica, and all have the same.
    pub async fn finish(self, cluster: &Cluster) {
        self.told.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        let created = self.told.created.lock().expect("whole").clone();
        let mut all = Vec::new();
        for client in cluster.clients() {
            let found = companies(&client).await;
            for (id, revision) in &created {
                assert_eq!(found.get(id), Some(revision), "{id} was acknowledged at {revision}");
            }
            all.push((found, changes(&client).await));
        }
        let (first, others) = all.split_first().expect("a replica");
        assert!(others.iter().all(|other| other == first), "all have the same");
        // Each revision once, and none for a change that was repeated.
        let expected: Vec<_> = (1..=first.1.len() as u64).collect();
        assert_eq!(first.1, expected);
        assert_eq!(first.0.len(), created.len(), "none that was not acknowledged in the end");
    }
}

async fn write(clients: Vec<Client>, writer: usize, told: Arc<Told>) {
    for n in 0.. {
        let (company_id, request_id) = (format!("w{writer}-{n}"), Uuid::new_v4().to_string());
        let request = CreateCompanyRequest { company_id, request_id, ..Default::default() };
        let mut at = writer;
        let revision = loop {
            let client = &clients[at % clients.len()];
            match client.directory.clone().create_company(request.clone()).await {
                Ok(done) => break done.into_inner().revision,
                // A repeat at another replica gets the first answer, if there was one.
                Err(_) => at += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        told.created.lock().expect("whole").insert(request.company_id, revision);
        if told.is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// All companies that a replica lists, with their revisions.
async fn companies(client: &Client) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut request = ListCompaniesRequest { page_size: 1000, ..Default::default() };
    loop {
        let page = client.directory.clone().list_companies(request.clone()).await;
        let page = page.expect("listed").into_inner();
        found.extend(page.companies.into_iter().map(|one| (one.company_id, one.revision)));
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

/// The revisions of all changes that a replica lists.
async fn changes(client: &Client) -> Vec<u64> {
    let mut found = Vec::new();
    let mut request = ListChangesRequest { page_size: 1000, ..Default::default() };
    loop {
        let page = client.changes.clone().list_changes(request.clone()).await;
        let page = page.expect("listed").into_inner();
        found.extend(page.changes.into_iter().map(|change| change.revision));
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}
