//! The ChangeService: the audit log, and the stream made of it.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::access::Asked;
use super::page::{self, List};
use super::{Doors, fields, parse, render, status};
use crate::authority::Authority;
use crate::policy::caller::Caller;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::proto::change_service_server::ChangeService;
use crate::proto::{
    ListChangesRequest, ListChangesResponse, WatchChangesRequest, WatchChangesResponse,
};

/// How many changes a watcher may be behind before its stream is no longer fed.
const WINDOW: usize = 64;

/// How many streams may be open at once.
const WATCHERS: u64 = 1_000;

/// How often to look whether the key of a stream is over.
const OVER: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl ChangeService for Doors {
    type WatchChangesStream =
        Pin<Box<dyn Stream<Item = Result<WatchChangesResponse, Status>> + Send>>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let request = self.asked(request)?.request;
        let company = parse::optional_company(request.company_id)?;
        let size = page::size(request.page_size)?;
        let of = company.as_ref().map_or("", CompanyId::as_str);
        let from = request.after_revision.to_string();
        let list = List::new(self.ask()?.incarnation(), "ListChanges", &[of, &from]);
        let after = match list.after(&request.page_token)? {
            Some(last) => Some(last.parse().map_err(|_| page::foreign_token())?),
            // Who names no place to start from gets the oldest that there is.
            None => Some(request.after_revision).filter(|after| *after > 0),
        };
        let after = after.map(Revision);
        let (changes, more) = self.ask()?.changes_kept(company, after, size).await?;
        let last = changes.last().filter(|_| more);
        let next_page_token = last.map(|c| list.token(&c.revision.to_string())).unwrap_or_default();
        let changes = changes.into_iter().map(render::change).collect();
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let Asked { caller, request } = self.asked(request)?;
        let company = parse::optional_company(request.company_id)?;
        let of = company.as_ref().map_or("", CompanyId::as_str);
        let cursors = List::new(self.ask()?.incarnation(), "WatchChanges", &[of]);
        let after = match cursors.after(&request.cursor).map_err(|_| foreign_cursor())? {
            Some(last) => last.parse().map_err(|_| foreign_cursor())?,
            None => request.after_revision,
        };
        if self.watchers.read() >= WATCHERS {
            return Err(status::too_many_watchers(WATCHERS));
        }
        let (send, stream) = mpsc::channel(WINDOW);
        tokio::spawn(watch(self.clone(), caller, company, Revision(after), cursors, send));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Sends changes as they are published, until the watcher, its key or the server goes.
async fn watch(
    doors: Doors,
    caller: Caller,
    company: Option<CompanyId>,
    mut after: Revision,
    cursors: List,
    send: mpsc::Sender<Result<WatchChangesResponse, Status>>,
) {
    let Some(authority) = doors.authority() else { return };
    let _counted = doors.watchers.one();
    let mut bell = authority.bell();
    let mut closing = doors.closing();
    let feed = async {
        loop {
            // Heard before the read: a publication during it rings again.
            let head = *bell.borrow_and_update();
            let (changes, more) = match authority.changes(company.clone(), after, WINDOW).await {
                Ok(found) => found,
                Err(refusal) => return Some(refusal.into()),
            };
            for change in changes {
                // To revoke a key is a change, and what comes behind it is not for who had it.
                if !authority.stands(&caller) {
                    return Some(status::no_longer_known());
                }
                after = change.revision;
                let cursor = cursors.token(&after.to_string());
                let change = Some(render::change(change));
                // A slow watcher holds up its own stream, and nothing else.
                if send.send(Ok(WatchChangesResponse { change, cursor })).await.is_err() {
                    return None;
                }
            }
            if more {
                continue;
            }
            // Everything up to the head is read, also where it concerns other companies.
            after = after.max(head);
            if bell.changed().await.is_err() {
                return None;
            }
        }
    };
    let ended = tokio::select! {
        ended = feed => ended,
        () = send.closed() => None,
        () = gone(authority, &caller) => Some(status::no_longer_known()),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    if let Some(status) = ended {
        // It waits behind what the watcher has not read, but not for a watcher that never reads.
        tokio::time::timeout(OVER, send.send(Err(status))).await.ok();
    }
}

/// Waits until a caller is no longer who it was.
pub(super) async fn gone(authority: &Authority, caller: &Caller) {
    while authority.stands(caller) {
        tokio::time::sleep(OVER).await;
    }
}

fn foreign_cursor() -> fields::Rejection {
    fields::malformed("cursor", "is not a cursor of this stream: start again by `after_revision`")
}
