//! Server: one server of a client: its connections, whether it is serving, and its round-trip time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::health::{Health, PriorState, is_serving};

/// The round-trip time of a server that was not measured yet.
const UNKNOWN: u64 = u64::MAX;

pub(crate) struct Server {
    connections: Vec<Connection>,
    next: AtomicUsize,
    health: Health,
    is_serving: AtomicBool,
    /// In nanoseconds.
    round_trip: AtomicU64,
}

impl Server {
    /// A server that is assumed to be serving. There must be a connection.
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self {
            connections,
            next: AtomicUsize::new(0),
            health: Health::new(),
            is_serving: AtomicBool::new(true),
            round_trip: AtomicU64::new(UNKNOWN),
        }
    }

    /// The next of its connections.
    pub(crate) fn connection(&self) -> Connection {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        #[expect(clippy::indexing_slicing, reason = "`at` is below the length")]
        self.connections[at].clone()
    }

    /// The backoff of a call, which differs from call to call.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.next.load(Ordering::Relaxed))
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed)
    }

    /// Notes that the connection to it failed.
    pub(crate) fn failed(&self) {
        self.is_serving.store(false, Ordering::Relaxed);
    }

    /// The number of times that it has been found serving after a failure.
    pub(crate) fn found(&self) -> u64 {
        self.health.found()
    }

    /// Waits until it has been found serving more often than this; see [`Health::serving`]. Returns the
    /// connection for the next attempt.
    pub(crate) async fn serving(&self, found: u64, backoff: Backoff) -> (Connection, PriorState) {
        let connection = self.connection();
        let before = self.health.serving(found, &connection, backoff).await;
        self.is_serving.store(true, Ordering::Relaxed);
        (connection, before)
    }

    /// The smoothed round-trip time in nanoseconds.
    pub(crate) fn round_trip(&self) -> u64 {
        self.round_trip.load(Ordering::Relaxed)
    }

    /// Sends two health checks. Returns whether it is serving.
    pub(crate) async fn measure(&self) -> bool {
        let connection = self.connection();
        // The first check may have to connect, so only the second is measured.
        let mut serves = is_serving(connection.clone()).await;
        if serves {
            let began = Instant::now();
            serves = is_serving(connection).await;
            let measured = u64::try_from(began.elapsed().as_nanos()).unwrap_or(UNKNOWN);
            if serves {
                let smoothed = match self.round_trip() {
                    UNKNOWN => measured,
                    known => known / 4 * 3 + measured / 4,
                };
                self.round_trip.store(smoothed, Ordering::Relaxed);
            }
        }
        self.is_serving.store(serves, Ordering::Relaxed);
        serves
    }
}
