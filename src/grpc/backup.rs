//! BackupService: streams a backup of the store in chunks.
//!
//! Not here: the format of a backup, and how it is of one revision; see `store::backup`.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{Api, status};
use crate::authority::Session;
use crate::authority::error::AuthorityError;
use crate::policy::caller::Caller;
use crate::proto::{BackupRequest, BackupResponse};
use crate::store::StoreError;
use crate::store::backup::Backup;

/// How many chunks are read from the store before the client takes them.
pub(super) const CHUNKS_AHEAD: usize = 4;

/// The chunks of a backup.
pub(super) async fn backup(
    api: &Api,
    session: Session<'_>,
    _: BackupRequest,
) -> Result<impl Stream<Item = Chunk> + Send + use<>, Status> {
    // The stream counts for the limit until the client has received the last chunk.
    let guard = api
        .backups
        .take(session.caller())
        .map_err(|_| AuthorityError::Store(StoreError::TooManyBackups))?;
    let backup = session.backup().await?;
    let (send, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // This blocks on the disk and on the client.
    tokio::task::spawn_blocking(move || {
        read("a backup", backup, &send, |data| BackupResponse { data });
    });
    let (send, stream) = mpsc::channel(1);
    tokio::spawn(forward(api.clone(), session.caller().clone(), chunks, send));
    Ok(ReceiverStream::new(stream).map(move |chunk| {
        let _ = &guard;
        chunk
    }))
}

pub(super) type Chunk = Result<BackupResponse, Status>;

/// Reads chunks until the end of the backup, or until the stream is dropped.
pub(super) fn read<T>(
    what: &str,
    mut backup: Backup,
    send: &mpsc::Sender<Result<T, Status>>,
    message: fn(Vec<u8>) -> T,
) {
    tracing::info!("{what} started");
    let mut bytes = 0;
    loop {
        let chunk = match backup.next_part() {
            Ok(Some(data)) => {
                bytes += data.len();
                Ok(message(data))
            }
            Ok(None) => {
                tracing::info!(bytes, "{what} was completed");
                return;
            }
            Err(error) => {
                tracing::warn!(bytes, %error, "{what} failed");
                Err(AuthorityError::Store(error).into())
            }
        };
        let last = chunk.is_err();
        if send.blocking_send(chunk).is_err() || last {
            // The client disconnected.
            return;
        }
    }
}

/// Forwards chunks until the backup is complete, the client disconnects, its key is revoked or the
/// server shuts down. A backup that is cut off ends with an error, so that no client takes it for a
/// complete one.
async fn forward(
    api: Api,
    caller: Caller,
    mut chunks: mpsc::Receiver<Chunk>,
    send: mpsc::Sender<Chunk>,
) {
    let Some(authority) = api.authority() else { return };
    let session = authority.session(caller);
    let mut closing = api.closing();
    loop {
        let forward = async {
            match chunks.recv().await {
                Some(chunk) => send.send(chunk).await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            more = forward => if !more { return },
            _ = closing.wait_for(|closing| *closing) => {
                send.try_send(Err(status::ending())).ok();
                return;
            }
            // This also ends a backup whose client reads nothing, so that its place is free.
            () = session.wait_revoked() => {
                send.try_send(Err(status::caller_revoked())).ok();
                return;
            }
        }
    }
}
