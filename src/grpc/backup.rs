//! The BackupService: the store as a file, in parts.
//!
//! Not here: what the parts say, and that they are of one revision; see `store::backup`.

use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{Api, status};
use crate::authority::error::AuthorityError;
use crate::policy::caller::Caller;
use crate::proto::backup_service_server::BackupService;
use crate::proto::{BackupRequest, BackupResponse};
use crate::store::StoreError;
use crate::store::backup::Backup;
use crate::wire::access::Authorized;

/// How many parts are made ahead of the client.
const AHEAD: usize = 4;

#[tonic::async_trait]
impl BackupService for Api {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let Authorized { caller, .. } = self.authorize_request(request)?;
        // Also counted while what was made waits for the client.
        let place = self
            .backups
            .take(&caller)
            .map_err(|_| AuthorityError::Store(StoreError::TooManyBackups))?;
        let backup = self.ready()?.backup().await?;
        let (send, parts) = mpsc::channel(AHEAD);
        // It waits for the disk, and for the client.
        tokio::task::spawn_blocking(move || make(backup, &send));
        let (send, stream) = mpsc::channel(1);
        tokio::spawn(hand_on(self.clone(), caller, parts, send));
        let stream = ReceiverStream::new(stream).map(move |part| {
            let _ = &place;
            part
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

type Part = Result<BackupResponse, Status>;

/// Makes parts until the end, or until nobody takes them any more.
fn make(mut backup: Box<dyn Backup>, send: &mpsc::Sender<Part>) {
    tracing::info!("a backup begins");
    let mut bytes = 0;
    loop {
        let part = match backup.next() {
            Ok(Some(data)) => {
                bytes += data.len();
                Ok(BackupResponse { data })
            }
            Ok(None) => {
                tracing::info!(bytes, "a backup was made");
                return;
            }
            Err(error) => {
                tracing::warn!(bytes, %error, "a backup was not made");
                Err(AuthorityError::Store(error).into())
            }
        };
        let last = part.is_err();
        if send.blocking_send(part).is_err() || last {
            // A client that is gone has no backup, and knows it.
            return;
        }
    }
}

/// Hands parts on until their end, or that of the client, its key or the server. A backup that is
/// cut off says so: one that merely stopped could pass for a whole one.
async fn hand_on(
    doors: Api,
    caller: Caller,
    mut parts: mpsc::Receiver<Part>,
    send: mpsc::Sender<Part>,
) {
    let Some(authority) = doors.authority() else { return };
    let mut closing = doors.closing();
    loop {
        let hand_on = async {
            match parts.recv().await {
                Some(part) => send.send(part).await.is_ok(),
                None => false,
            }
        };
        tokio::select! {
            more = hand_on => if !more { return },
            _ = closing.wait_for(|closing| *closing) => {
                send.try_send(Err(status::ending())).ok();
                return;
            }
            // Also while the client takes nothing: its place is another's.
            () = authority.no_longer_stands(&caller) => {
                send.try_send(Err(status::caller_revoked())).ok();
                return;
            }
        }
    }
}
