//! Health: waits until the server is serving (`grpc.health.v1`). A server that restarts rejects
//! checks until its store is open, so earlier attempts would fail. One of the waiting checks sends
//! the health checks for all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::failure::Failure;

/// The timeout of one health check: the connection may be lost.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The known health of the server.
pub(crate) struct Health {
    /// The number of times that the server was found serving.
    found: AtomicU64,
    /// The state before the server was last found serving. The holder of this lock sends the health
    /// checks.
    before: Mutex<PriorState>,
}

/// The state of a server before it was serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorState {
    /// It was not reachable or not ready: an outage has ended.
    Down,
    /// It was serving at the first health check, or does not implement health checks.
    Serving,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { found: AtomicU64::new(0), before: Mutex::new(PriorState::Serving) }
    }

    /// The number of times that the server has been found serving.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// Waits until the server has been found serving more often than this. The caller has a
    /// deadline and may drop this future at any time: another waiting check then sends the health
    /// checks.
    pub(crate) async fn serving(
        &self,
        found: u64,
        connection: &Connection,
        mut backoff: Backoff,
    ) -> PriorState {
        let mut before = self.before.lock().await;
        if self.found() == found {
            *before = PriorState::Serving;
            while !is_serving(connection.clone()).await {
                *before = PriorState::Down;
                sleep(backoff.next()).await;
            }
            self.found.fetch_add(1, Ordering::SeqCst);
        }
        *before
    }
}

/// `grpc.health.v1.HealthCheckRequest`, for the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING`.
const SERVING: i32 = 1;

/// Whether the server is serving.
pub(crate) async fn is_serving(connection: Connection) -> bool {
    match ask(connection).await {
        Ok(answer) => answer.status == SERVING,
        // The server does not implement health checks.
        Err(status) => Failure::of(&status) == Failure::Permanent,
    }
}

async fn ask(connection: Connection) -> Result<HealthCheckResponse, Status> {
    let mut grpc = Grpc::new(connection);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(HealthCheckRequest {});
    request.set_timeout(PROBE_TIMEOUT);
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    Ok(grpc.unary(request, path, ProstCodec::default()).await?.into_inner())
}
