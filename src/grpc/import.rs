//! Import: reads a stream of messages, creates their items and sends one response. It reads a message
//! only after all items of the message before it are in flight.
//!
//! Not here: what is created and how; see `authority::import`.

use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::import_position::ImportPosition;
use super::reply;
use crate::authority::Session;
use crate::authority::error::AuthorityError;
use crate::authority::import::{Import, ImportSummary};
use crate::authority::import_item::ImportItem;
use crate::proto::{ImportCredentialsRequest, ImportCredentialsResponse};
use crate::wire::parse;
use crate::wire::validate::InvalidRequest;

/// Why an import stopped early.
pub(super) enum ImportErrorCause {
    /// A message or an item is malformed.
    Invalid(InvalidRequest),
    /// The authority rejected an item.
    Rejected(AuthorityError),
    /// The server shuts down.
    ShuttingDown,
    /// The caller's key was revoked or expired.
    CallerRevoked,
}

/// An import that stopped early: the position, and what was created before.
pub(super) struct ImportError {
    pub(super) position: ImportPosition,
    pub(super) summary: ImportSummary,
    pub(super) cause: ImportErrorCause,
}

/// Runs an import. It reads the next message only when all items of the last one are in flight, so
/// HTTP/2 flow control slows down a caller that sends faster than the store commits.
pub(super) async fn import(
    session: Session<'_>,
    mut messages: Streaming<ImportCredentialsRequest>,
    mut closing: watch::Receiver<bool>,
) -> Result<ImportCredentialsResponse, Status> {
    let mut message = messages.message().await?.unwrap_or_default();
    let options = parse::import_options(&message)?;
    let mut import = session.import(options.clone());
    let mut position = ImportPosition::default();
    loop {
        let added = match parse::import_message(&message, &options) {
            Ok(()) if !session.is_current() => Err((position, ImportErrorCause::CallerRevoked)),
            Ok(()) => {
                let space = tokio::select! {
                    space = import.wait_for_space() => space.map_err(ImportErrorCause::Rejected),
                    _ = closing.wait_for(|closing| *closing) => Err(ImportErrorCause::ShuttingDown),
                };
                match space {
                    Ok(()) => add(&mut import, position.message, message).await,
                    Err(cause) => Err((position, cause)),
                }
            }
            Err(invalid) => Err((position, ImportErrorCause::Invalid(invalid))),
        };
        if let Err((position, cause)) = added {
            return Err(stop(import, position, cause).await.into());
        }
        position.message += 1;
        let next = tokio::select! {
            next = messages.message() => Some(next),
            _ = closing.wait_for(|closing| *closing) => None,
        };
        match next {
            Some(Ok(Some(next))) => message = next,
            Some(Ok(None)) => break,
            None => {
                return Err(stop(import, position, ImportErrorCause::ShuttingDown).await.into());
            }
            Some(Err(status)) => {
                // The client disconnected or sent a malformed frame: the items before it are kept.
                import.settle().await.ok();
                return Err(status);
            }
        }
    }
    match import.settle().await {
        Ok(()) => Ok(reply::imported(import.tally(), import.take_differences())),
        Err((position, error)) => {
            Err(stop(import, position, ImportErrorCause::Rejected(error)).await.into())
        }
    }
}

/// Adds the items of a message, up to the first one that is malformed or rejected.
async fn add(
    import: &mut Import<'_, ImportPosition>,
    message: u64,
    request: ImportCredentialsRequest,
) -> Result<(), (ImportPosition, ImportErrorCause)> {
    for (index, item) in request.companies.into_iter().enumerate() {
        let position = ImportPosition { message, list: "companies", index, line: item.line };
        let new = parse::imported_company(index, item);
        let new = new.map_err(|invalid| (position, ImportErrorCause::Invalid(invalid)))?;
        let added = import.add(position, ImportItem::Company(new)).await;
        added.map_err(|(position, error)| (position, ImportErrorCause::Rejected(error)))?;
    }
    for (index, item) in request.credentials.into_iter().enumerate() {
        let position = ImportPosition { message, list: "credentials", index, line: item.line };
        let new = parse::imported_credential(index, item);
        let new = new.map_err(|invalid| (position, ImportErrorCause::Invalid(invalid)))?;
        let added = import.add(position, ImportItem::Credential(new)).await;
        added.map_err(|(position, error)| (position, ImportErrorCause::Rejected(error)))?;
    }
    Ok(())
}

/// Waits for the items before the position where an import stops. If one of them is rejected, the import
/// stops there.
async fn stop(
    mut import: Import<'_, ImportPosition>,
    position: ImportPosition,
    cause: ImportErrorCause,
) -> ImportError {
    match import.settle().await {
        Ok(()) => ImportError { position, summary: import.tally(), cause },
        Err((position, error)) => ImportError {
            position,
            summary: import.tally(),
            cause: ImportErrorCause::Rejected(error),
        },
    }
}
