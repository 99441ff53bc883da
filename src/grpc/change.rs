//! The ChangeService: the audit log, and the stream made of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::Asked;
use super::page::{self, List};
use super::stream_places::StreamPlace;
use super::{Doors, fields, parse, render, status};
use crate::authority::{Event, Interest, Watcher};
use crate::policy::caller::Caller;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::proto::change_service_server::ChangeService;
use crate::proto::{
    ListChangesRequest, ListChangesResponse, WatchChangesRequest, WatchChangesResponse,
};

#[tonic::async_trait]
impl ChangeService for Doors {
    type WatchChangesStream =
        Pin<Box<dyn Stream<Item = Result<WatchChangesResponse, Status>> + Send>>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let Asked { caller, request } = self.asked(request)?;
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
        let interest = Interest::of(&caller, company);
        let (changes, more) = self.ask()?.changes_kept(&interest, after, size).await?;
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
        let place = self.watchers.take(&caller).map_err(status::too_many_watchers)?;
        let interest = Interest::of(&caller, company);
        let watcher = self.ask()?.watch(interest, Revision(after), self.memory.shared()).await?;
        let closing = self.closing();
        let watch = Watch { doors: self.clone(), caller, watcher, cursors, closing, _place: place };
        Ok(Response::new(Box::pin(Steps::of(watch))))
    }
}

type Step = Result<WatchChangesResponse, Status>;

/// One stream of changes, step by step.
struct Watch {
    doors: Doors,
    caller: Caller,
    watcher: Watcher,
    cursors: List,
    closing: watch::Receiver<bool>,
    _place: StreamPlace,
}

impl Watch {
    /// Waits for the next step; none if the server ends.
    async fn step(&mut self) -> Option<Step> {
        let authority = self.doors.authority()?;
        let until = Instant::now() + self.doors.heartbeat;
        if *self.closing.borrow() {
            return None;
        }
        let event = tokio::select! {
            biased;
            // First: nobody waits for the others while there are changes.
            event = authority.next_change(&mut self.watcher, until) => event,
            _ = self.closing.wait_for(|closing| *closing) => return None,
            () = authority.no_longer_stands(&self.caller) => {
                return Some(Err(status::no_longer_known()));
            }
        };
        // To revoke a key is a change, and what comes behind it is not for who had it. Asked when
        // the change is there: it cannot be younger than the keyring that is asked.
        if !authority.stands(&self.caller) {
            return Some(Err(status::no_longer_known()));
        }
        Some(match event {
            Ok(Event::Change(change)) => {
                let cursor = self.cursors.token(&change.revision.to_string());
                let change = Some(render::change(Arc::unwrap_or_clone(change)));
                Ok(WatchChangesResponse { change, cursor })
            }
            Ok(Event::Idle) => {
                let cursor = self.cursors.token(&self.watcher.after().to_string());
                Ok(WatchChangesResponse { change: None, cursor })
            }
            Err(refusal) => Err(refusal.into()),
        })
    }
}

/// A stream that makes each step only when the client takes one: a client that takes none has
/// nothing kept for it.
struct Steps {
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = (Option<Step>, Watch)> + Send>>;

impl Steps {
    fn of(watch: Watch) -> Self {
        Self { next: Some(Self::next(watch)) }
    }

    fn next(mut watch: Watch) -> Next {
        Box::pin(async move { (watch.step().await, watch) })
    }
}

impl Stream for Steps {
    type Item = Step;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Step>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (step, watch) = ready!(next.as_mut().poll(context));
        self.next = matches!(step, Some(Ok(_))).then(|| Self::next(watch));
        Poll::Ready(step)
    }
}

fn foreign_cursor() -> fields::Rejection {
    fields::malformed("cursor", "is not a cursor of this stream: start again by `after_revision`")
}
