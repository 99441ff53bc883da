//! Import: a stream of messages in, each read when there is room for what it holds, one answer
//! out.
//!
//! Not here: what is created and how; see `authority::import`.

use std::fmt;

use tonic::{Status, Streaming};

use super::access::Authorized;
use super::{Api, reply};
use crate::authority::error::AuthorityError;
use crate::authority::import::{Import, ImportSummary};
use crate::authority::import_item::ImportItem;
use crate::proto::{ImportCredentialsRequest, ImportCredentialsResponse};
use crate::wire::parse;
use crate::wire::validate::InvalidRequest;

/// Where an item stands in an import.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Which message, counted from 0.
    pub(super) message: u64,
    /// Which list of it; none for the message as a whole.
    pub(super) list: &'static str,
    /// Which item of the list, counted from 0.
    pub(super) index: usize,
    /// Where it stands at the caller's; 0 if the caller does not say.
    pub(super) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}

/// Why an import ended before its end.
pub(super) enum ImportErrorCause {
    /// Something in a message cannot be read.
    Rejected(InvalidRequest),
    /// An item cannot be created.
    Refused(AuthorityError),
    /// The server is ending.
    Closing,
    /// The caller's key was revoked, or is over.
    NoLongerKnown,
}

/// An import that ended before its end: where, and what was done all the same.
pub(super) struct ImportError {
    pub(super) place: Place,
    pub(super) tally: ImportSummary,
    pub(super) why: ImportErrorCause,
}

/// Takes an import to its end. The next message is read only when all of the last is under way:
/// a caller who sends faster than the store commits is held up by the connection's windows.
pub(super) async fn import(
    doors: &Api,
    asked: Authorized<Streaming<ImportCredentialsRequest>>,
) -> Result<ImportCredentialsResponse, Status> {
    let Authorized { caller, request: mut messages } = asked;
    let authority = doors.ready()?;
    let mut closing = doors.closing();
    let mut message = messages.message().await?.unwrap_or_default();
    let terms = parse::import_terms(&caller, &message)?;
    let mut import = authority.import(terms.clone());
    let mut place = Place::default();
    loop {
        let done = match parse::import_message(&message, &terms) {
            Ok(()) if !authority.is_current(&caller) => {
                Err((place, ImportErrorCause::NoLongerKnown))
            }
            Ok(()) => add(&mut import, place.message, message).await,
            Err(rejection) => Err((place, ImportErrorCause::Rejected(rejection))),
        };
        if let Err((place, why)) = done {
            return Err(ended(import, place, why).await.into());
        }
        place.message += 1;
        let next = tokio::select! {
            next = messages.message() => Some(next),
            _ = closing.wait_for(|closing| *closing) => None,
        };
        match next {
            Some(Ok(Some(next))) => message = next,
            Some(Ok(None)) => break,
            None => return Err(ended(import, place, ImportErrorCause::Closing).await.into()),
            Some(Err(status)) => {
                // The caller is gone, or sent no message: what it sent before stands.
                import.settle().await.ok();
                return Err(status);
            }
        }
    }
    match import.settle().await {
        Ok(()) => Ok(reply::imported(import.tally(), import.take_differences())),
        Err((place, refusal)) => {
            Err(ended(import, place, ImportErrorCause::Refused(refusal)).await.into())
        }
    }
}

/// Adds what a message holds, up to the first item that cannot be read or created.
async fn add(
    import: &mut Import<'_, Place>,
    message: u64,
    request: ImportCredentialsRequest,
) -> Result<(), (Place, ImportErrorCause)> {
    for (index, item) in request.companies.into_iter().enumerate() {
        let place = Place { message, list: "companies", index, line: item.line };
        let new = parse::imported_company(index, item);
        let new = new.map_err(|rejection| (place, ImportErrorCause::Rejected(rejection)))?;
        let added = import.add(place, ImportItem::Company(new)).await;
        added.map_err(|(place, refusal)| (place, ImportErrorCause::Refused(refusal)))?;
    }
    for (index, item) in request.credentials.into_iter().enumerate() {
        let place = Place { message, list: "credentials", index, line: item.line };
        let new = parse::imported_credential(index, item);
        let new = new.map_err(|rejection| (place, ImportErrorCause::Rejected(rejection)))?;
        let added = import.add(place, ImportItem::Credential(new)).await;
        added.map_err(|(place, refusal)| (place, ImportErrorCause::Refused(refusal)))?;
    }
    Ok(())
}

/// Waits for what stands before the place where an import ends, and may end it earlier.
async fn ended(mut import: Import<'_, Place>, place: Place, why: ImportErrorCause) -> ImportError {
    match import.settle().await {
        Ok(()) => ImportError { place, tally: import.tally(), why },
        Err((place, refusal)) => {
            ImportError { place, tally: import.tally(), why: ImportErrorCause::Refused(refusal) }
        }
    }
}
