//! The ChangeService: the audit log, and the stream made of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::Authorized;
use super::pagination::{self, PageTokens};
use super::stream_limit::StreamPlace;
use super::{Api, status};
use crate::authority::{Interest, WatchEvent, Watcher};
use crate::policy::caller::Caller;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::proto::change_service_server::ChangeService;
use crate::proto::{
    ListChangesRequest, ListChangesResponse, WatchChangesRequest, WatchChangesResponse,
};
use crate::store::Incarnation;
use crate::wire::{parse, render, validate};

#[tonic::async_trait]
impl ChangeService for Api {
    type WatchChangesStream =
        Pin<Box<dyn Stream<Item = Result<WatchChangesResponse, Status>> + Send>>;

    async fn list_changes(
        &self,
        request: Request<ListChangesRequest>,
    ) -> Result<Response<ListChangesResponse>, Status> {
        let Authorized { caller, request } = self.asked(request)?;
        let size = pagination::size(request.page_size)?;
        let list = listed(self.ready()?.incarnation(), &request);
        let continues = match list.after(&request.page_token)? {
            Some(last) => Some(Revision(last.parse().map_err(|_| pagination::foreign_token())?)),
            None => None,
        };
        let (company, wanted) = parse::wanted_changes(request)?;
        let interest = Interest::of(&caller, company);
        let found = self.ready()?.history(&interest, wanted, continues, size).await?;
        let next_page_token =
            found.next.map(|next| list.token(&next.0.to_string())).unwrap_or_default();
        let changes = found.changes.into_iter().map(render::change).collect();
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let Authorized { caller, request } = self.asked(request)?;
        let company = parse::optional_company(request.company_id)?;
        let of = company.as_ref().map_or("", CompanyId::as_str);
        let cursors = PageTokens::new(self.ready()?.incarnation(), "WatchChanges", &[of]);
        let after = match cursors.after(&request.cursor).map_err(|_| foreign_cursor())? {
            Some(last) => last.parse().map_err(|_| foreign_cursor())?,
            None => request.after_revision,
        };
        let place = self.watchers.take(&caller).map_err(status::too_many_watchers)?;
        let interest = Interest::of(&caller, company);
        let watcher = self.ready()?.watch(interest, Revision(after), self.memory.shared()).await?;
        let closing = self.closing();
        let watch = Watch { doors: self.clone(), caller, watcher, cursors, closing, _place: place };
        Ok(Response::new(Box::pin(Steps::of(watch))))
    }
}

/// The list that a request asks for, but for the page.
fn listed(incarnation: Incarnation, request: &ListChangesRequest) -> PageTokens {
    let company = request.company_id.as_deref().unwrap_or_default();
    let after = request.after_revision.to_string();
    // Parameters that were not there before are of no digest where they are not given: the token of
    // a server of another version continues the same list.
    let others = ListChangesRequest {
        company_id: None,
        after_revision: 0,
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    };
    let others = BASE64.encode(others.encode_to_vec());
    let parameters = [company, after.as_str(), others.as_str()];
    let given = if others.is_empty() { 2 } else { 3 };
    PageTokens::new(incarnation, "ListChanges", parameters.get(..given).unwrap_or(&parameters))
}

type Step = Result<WatchChangesResponse, Status>;

/// One stream of changes, step by step.
struct Watch {
    doors: Api,
    caller: Caller,
    watcher: Watcher,
    cursors: PageTokens,
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
            () = authority.wait_revoked(&self.caller) => {
                return Some(Err(status::caller_revoked()));
            }
        };
        // To revoke a key is a change, and what comes behind it is not for who had it. Asked when
        // the change is there: it cannot be younger than the keyring that is asked.
        if !authority.is_current(&self.caller) {
            return Some(Err(status::caller_revoked()));
        }
        Some(match event {
            Ok(WatchEvent::Change(change)) => {
                let cursor = self.cursors.token(&change.revision.to_string());
                let change = Some(render::change(Arc::unwrap_or_clone(change)));
                Ok(WatchChangesResponse { change, cursor })
            }
            Ok(WatchEvent::Idle) => {
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

fn foreign_cursor() -> validate::InvalidRequest {
    validate::malformed("cursor", "is not a cursor of this stream: start again by `after_revision`")
}
