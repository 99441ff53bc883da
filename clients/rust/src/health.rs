//! Health: whether the server says that it serves (`grpc.health.v1`). Asked only before a retry: a
//! server that is being restarted refuses checks until its store is open, and one retry that came
//! too early would be wasted.

use std::time::Duration;

use tokio::time::sleep;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::failure::Failure;
use crate::pauses::Pauses;
use crate::setup::Connection;

/// How long one question may take: the connection may be one on which nobody answers any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// `grpc.health.v1.HealthCheckRequest` for the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING`.
const SERVING: i32 = 1;

/// Returns when the server serves, or says nothing of its health. Who calls has a deadline.
pub(crate) async fn serving(connection: &Connection, pauses: &mut Pauses) {
    loop {
        match ask(connection.clone()).await {
            Ok(Answer { status: SERVING }) => return,
            Err(status) if Failure::of(&status) == Failure::Final => return,
            Ok(_) | Err(_) => sleep(pauses.next()).await,
        }
    }
}

async fn ask(connection: Connection) -> Result<Answer, Status> {
    let mut grpc = Grpc::new(connection);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(Question {});
    request.set_timeout(PATIENCE);
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    Ok(grpc.unary(request, path, ProstCodec::default()).await?.into_inner())
}
