//! PeerService: what a replica serves beside the API of the platform: snapshots for other replicas, and
//! the list of the replicas for operators. A snapshot is the store of this replica at one revision.
//!
//! The caller of a snapshot presents the token in the record of this replica's session. Each session has a
//! new one, so a token that was read before is not valid after it. An API key is not accepted, and a lease
//! is not needed: a snapshot is right at its revision, and the replica that installs it reads on from
//! there. The list is a call as those of the API: with a key, and with a lease.
//!
//! Not here: how a snapshot is installed; see `store::installation`. And the API of the platform.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::Body;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::backup::{CHUNKS_AHEAD, read};
use super::body_timeout::BodyTimeout;
use super::stream_limit::StreamGuard;
use super::{Api, bearer_token, status};
use crate::authority::Session;
use crate::authority::error::AuthorityError;
use crate::observe::rejection::RejectedCaller;
use crate::policy::caller::Caller;
use crate::policy::keyring::AuthenticationError;
use crate::store::StoreError;
use crate::store::replicated::LogError;
use crate::store::replicated::membership::MembershipState;
use crate::store::replicated::peer::{
    ReplicasResponse, SNAPSHOT, SnapshotRequest, SnapshotResponse,
};

/// The limit of a request, which has no fields, in bytes.
const MAX_REQUEST_BYTES: usize = 1 << 10;
/// How long a replica may not take a chunk. Then its snapshot ends, so that its slot is free.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

type Chunk = Result<SnapshotResponse, Status>;

/// The path of a method that this replica serves to others.
#[must_use]
pub fn method(api: &Api, path: &str) -> Option<&'static str> {
    (path == SNAPSHOT && api.membership.get().is_some()).then_some(SNAPSHOT)
}

/// Admits a call of another replica, before its message is read.
///
/// # Errors
/// The caller does not present the token of the present session.
pub fn admit(api: &Api, headers: &HeaderMap) -> Result<(), Status> {
    let presented =
        bearer_token(headers).and_then(|token| token.ok_or(AuthenticationError::Nothing));
    let admitted = presented.and_then(|presented| {
        let state = api.membership.get().map(|state| state.borrow());
        match state.as_deref() {
            Some(MembershipState::Joined { peer_token, .. }) if peer_token.is(presented) => Ok(()),
            _ => Err(AuthenticationError::Unknown),
        }
    });
    admitted.map_err(|error| RejectedCaller::beside(error.into(), error.into(), None))
}

/// Answers an admitted call. The request must arrive within this time.
pub async fn answer<B>(
    api: Api,
    request: Request<B>,
    within: Duration,
) -> Response<tonic::body::Body>
where
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<super::body_timeout::Error> + Send,
{
    let service = service_fn(move |_: tonic::Request<SnapshotRequest>| {
        let api = api.clone();
        async move { Ok::<_, Status>(tonic::Response::new(snapshot(&api).await?)) }
    });
    let grpc = Grpc::new(ProstCodec::<SnapshotResponse, SnapshotRequest>::default());
    let mut grpc = grpc.apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
    let request = request.map(|body| BodyTimeout::new(body, within));
    status::with_details(grpc.server_streaming(service, request).await)
}

/// The replicas that etcd has a record of, and the log.
pub(super) async fn replicas(session: Session<'_>) -> Result<ReplicasResponse, Status> {
    let Some(listed) = session.replicas().await else {
        return Err(status::not_a_replica());
    };
    match listed {
        Ok(listed) => Ok(listed.response()),
        Err(error) => {
            tracing::info!(%error, "the replicas cannot be listed");
            Err(AuthorityError::Store(StoreError::CutOff).into())
        }
    }
}

/// The chunks of a snapshot.
async fn snapshot(api: &Api) -> Result<impl Stream<Item = Chunk> + Send + use<>, Status> {
    let refused = |error| -> Status { AuthorityError::Store(error).into() };
    // The snapshot counts for the limit until its last chunk is handed over.
    let guard = api.snapshots.take(&Caller::Internal);
    let guard = guard.map_err(|_| refused(StoreError::TooManyBackups))?;
    let authority = api.authority().ok_or_else(status::not_ready)?;
    let snapshot = authority.snapshot().await.map_err(|error| match error {
        LogError::Store(error) => refused(error),
        _ => refused(StoreError::Unavailable),
    })?;
    if let Some(replica) = authority.replica() {
        replica.log_metrics().snapshots_given.inc();
    }
    let (send, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // This blocks on the disk and on the other replica.
    tokio::task::spawn_blocking(move || {
        read("a snapshot", snapshot, &send, |data| SnapshotResponse { data });
    });
    let (send, stream) = mpsc::channel(1);
    tokio::spawn(forward(api.closing(), chunks, send, guard));
    Ok(ReceiverStream::new(stream))
}

/// Forwards chunks until the snapshot is complete, the other replica disconnects or takes none for too
/// long, or this server shuts down. Then the slot is free.
async fn forward(
    mut closing: watch::Receiver<bool>,
    mut chunks: mpsc::Receiver<Chunk>,
    send: mpsc::Sender<Chunk>,
    _slot: StreamGuard,
) {
    loop {
        let forward = async {
            let Some(chunk) = chunks.recv().await else { return false };
            timeout(STALL_TIMEOUT, send.send(chunk)).await.is_ok_and(|sent| sent.is_ok())
        };
        tokio::select! {
            more = forward => if !more { return },
            _ = closing.wait_for(|closing| *closing) => break,
        }
    }
    timeout(STALL_TIMEOUT, send.send(Err(status::ending()))).await.ok();
}
