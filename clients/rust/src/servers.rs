//! Servers: the servers of a client, and which of them gets a call: the nearest that is serving.
//!
//! A task sends health checks to all of them: every 10 seconds, within 100 ms after a failed call,
//! and more often while one is not serving. The nearest has the lowest smoothed round-trip time.
//! Another server becomes the preferred one if it is nearer by more than a fifth, so that two that are
//! equally near do not alternate.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::health::PriorState;
use crate::server::Server;

/// The interval of health checks while all servers are serving.
const INTERVAL: Duration = Duration::from_secs(10);
/// The minimum interval, and the interval while one is not serving.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const FAILED_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Servers {
    first: Arc<Server>,
    others: Vec<Arc<Server>>,
    /// The index of the preferred server.
    preferred: AtomicUsize,
    failed: Arc<Notify>,
}

impl Servers {
    /// The servers in the order of preference until they are measured. Several are measured by a task
    /// of the current runtime, which ends when they are dropped.
    pub(crate) fn start(first: Server, others: Vec<Server>) -> Arc<Self> {
        let others = Vec::from_iter(others.into_iter().map(Arc::new));
        let (preferred, failed) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let servers = Arc::new(Self { first: Arc::new(first), others, preferred, failed });
        if !servers.others.is_empty() {
            tokio::spawn(measure(Arc::downgrade(&servers)));
        }
        servers
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn preferred(&self) -> &Arc<Server> {
        self.all().nth(self.preferred.load(Ordering::Relaxed)).unwrap_or(&self.first)
    }

    /// The server of a new call: the preferred one, or the nearest other one if it is not serving.
    pub(crate) fn nearest(&self) -> &Arc<Server> {
        let preferred = self.preferred();
        if preferred.is_serving() {
            return preferred;
        }
        self.serving(&[]).unwrap_or(preferred)
    }

    /// The nearest server that is serving and was not tried.
    pub(crate) fn serving(&self, tried: &[&Arc<Server>]) -> Option<&Arc<Server>> {
        let is_new = |server: &&Arc<Server>| !tried.iter().any(|tried| Arc::ptr_eq(tried, server));
        let serving = self.all().filter(|server| server.is_serving()).filter(is_new);
        serving.min_by_key(|server| server.round_trip())
    }

    /// Asks for a new measurement, because a call has failed.
    pub(crate) fn check_soon(&self) {
        self.failed.notify_one();
    }

    /// Waits until a server is serving. Returns the connection to it, and its state before. `failed` has to be found serving more often than `found`.
    pub(crate) async fn wait_serving(
        &self,
        failed: &Arc<Server>,
        found: u64,
        backoff: &Backoff,
    ) -> (&Arc<Server>, Connection, PriorState) {
        let mut waits = Vec::from_iter(self.all().map(|server| {
            let found = if Arc::ptr_eq(server, failed) { found } else { server.found() };
            let backoff = backoff.clone();
            Box::pin(async move {
                let (connection, before) = server.serving(found, backoff).await;
                (server, connection, before)
            })
        }));
        poll_fn(|context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                Poll::Ready(found) => Some(found),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Measures all servers, and chooses the preferred one. Returns whether all are serving.
    async fn measure(&self) -> bool {
        let mut checks = JoinSet::new();
        for server in self.all().map(Arc::clone) {
            checks.spawn(async move { server.measure().await });
        }
        let are_serving = checks.join_all().await.into_iter().all(|is_serving| is_serving);
        let preferred = self.preferred();
        let limit = match preferred.is_serving() {
            true => preferred.round_trip() / 5 * 4,
            false => u64::MAX,
        };
        let near = self.all().enumerate().filter(|(_, server)| server.is_serving());
        if let Some((index, nearest)) = near.min_by_key(|(_, server)| server.round_trip())
            && nearest.round_trip() < limit
        {
            self.preferred.store(index, Ordering::Relaxed);
        }
        are_serving
    }
}

async fn measure(servers: Weak<Servers>) {
    while let Some(all) = servers.upgrade() {
        let interval = if all.measure().await { INTERVAL } else { FAILED_INTERVAL };
        let failed = Arc::clone(&all.failed);
        drop(all);
        sleep(MIN_INTERVAL).await;
        timeout(interval, failed.notified()).await.ok();
    }
}
