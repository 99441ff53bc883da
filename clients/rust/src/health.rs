//! Health: waiting until the server says that it serves (`grpc.health.v1`). A server that is
//! restarted is away for a moment, and then refuses checks until its store is open: asking again
//! before that would be in vain, for each check by itself. So one of those that wait asks for all.

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

/// How long one question may take: the connection may be one on which nobody answers any more.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of the server's health.
pub(crate) struct Health {
    /// How often it was found serving.
    found: AtomicU64,
    /// What it was before it was found serving last. Whoever holds this asks.
    before: Mutex<PriorState>,
}

/// What a server was before it served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorState {
    /// It was away, or not ready: an outage has ended.
    Down,
    /// It served when it was first asked, or says nothing of its health.
    Serving,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { found: AtomicU64::new(0), before: Mutex::new(PriorState::Serving) }
    }

    /// How often the server was found serving until now.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// Waits until the server is found serving again after it was found so often. Who calls has a
    /// deadline, and may drop this at any time: another of those that wait goes on asking.
    pub(crate) async fn serving(
        &self,
        found: u64,
        connection: &Connection,
        mut backoff: Backoff,
    ) -> PriorState {
        let mut before = self.before.lock().await;
        if self.found() == found {
            *before = PriorState::Serving;
            while !serves(ask(connection.clone()).await) {
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

fn serves(answer: Result<HealthCheckResponse, Status>) -> bool {
    match answer {
        Ok(answer) => answer.status == SERVING,
        // Whatever it is that answers, of its health it says nothing.
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
