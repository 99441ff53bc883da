//! ChangeService: the audit log, as pages and as a stream.
//!
//! Not here: the position of a stream in the log; see `authority::change_feed`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;

use super::Api;
use super::stream_limit::StreamGuard;
use crate::authority::{Session, WatchEvent, Watcher};
use crate::policy::caller::Caller;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::proto::{
    ListChangesRequest, ListChangesResponse, WatchChangesRequest, WatchChangesResponse,
};
use crate::store::Incarnation;
use crate::wire::pagination::{self, PageTokens};
use crate::wire::{parse, render, validate};

/// A page of the audit log.
pub(super) async fn list_changes(
    session: Session<'_>,
    request: ListChangesRequest,
) -> Result<ListChangesResponse, Status> {
    let size = pagination::size(request.page_size)?;
    let list = page_tokens(session.incarnation(), &request);
    let continues = match list.after(&request.page_token)? {
        Some(last) => Some(Revision(last.parse().map_err(|_| pagination::foreign_token())?)),
        None => None,
    };
    let (company, filter) = parse::change_filter(request)?;
    let page = session.history(company, filter, continues, size).await?;
    let next_page_token = page.next.map(|next| list.token(&next.0.to_string())).unwrap_or_default();
    let changes = page.changes.into_iter().map(render::change).collect();
    Ok(ListChangesResponse { changes, next_page_token })
}

/// A stream of the changes after a position.
pub(super) async fn watch_changes(
    api: &Api,
    session: Session<'_>,
    request: WatchChangesRequest,
) -> Result<impl Stream<Item = StreamItem> + Send + use<>, Status> {
    let company = parse::optional_company(request.company_id)?;
    let filter = company.as_ref().map_or("", CompanyId::as_str);
    let cursors = PageTokens::new(session.incarnation(), "WatchChanges", &[filter]);
    let after = match cursors.after(&request.cursor).map_err(|_| foreign_cursor())? {
        Some(last) => last.parse().map_err(|_| foreign_cursor())?,
        None => request.after_revision,
    };
    let guard = api.watchers.take(session.caller())?;
    let watcher = session.watch(company, Revision(after), api.memory.shared()).await?;
    let (caller, closing) = (session.caller().clone(), api.closing());
    let watch = Watch { api: api.clone(), caller, watcher, cursors, closing, _guard: guard };
    Ok(Items::of(watch))
}

/// The page tokens of a request, which depend on all parameters except the page.
fn page_tokens(incarnation: Incarnation, request: &ListChangesRequest) -> PageTokens {
    let company = request.company_id.as_deref().unwrap_or_default();
    let after = request.after_revision.to_string();
    // A parameter that is not set is not in the digest. So a token of a server version that does not
    // have the parameter continues the same list.
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

pub(super) type StreamItem = Result<WatchChangesResponse, Status>;

/// The state of one change stream.
struct Watch {
    api: Api,
    caller: Caller,
    watcher: Watcher,
    cursors: PageTokens,
    closing: watch::Receiver<bool>,
    _guard: StreamGuard,
}

impl Watch {
    /// Waits for the next item; none if the server shuts down.
    async fn next_item(&mut self) -> Option<StreamItem> {
        let session = self.api.authority()?.session(self.caller.clone());
        let until = Instant::now() + self.api.heartbeat;
        if *self.closing.borrow() {
            return None;
        }
        let event = tokio::select! {
            biased;
            // Changes come first: the other branch matters only while there are none.
            event = session.next_change(&mut self.watcher, until) => event,
            _ = self.closing.wait_for(|closing| *closing) => return None,
        };
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
            Err(error) => Err(error.into()),
        })
    }
}

/// A stream that produces an item only when the transport polls it: nothing is buffered for a client
/// that does not read.
struct Items {
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = (Option<StreamItem>, Watch)> + Send>>;

impl Items {
    fn of(watch: Watch) -> Self {
        Self { next: Some(Self::next(watch)) }
    }

    fn next(mut watch: Watch) -> Next {
        Box::pin(async move { (watch.next_item().await, watch) })
    }
}

impl Stream for Items {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamItem>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (item, watch) = ready!(next.as_mut().poll(context));
        self.next = matches!(item, Some(Ok(_))).then(|| Self::next(watch));
        Poll::Ready(item)
    }
}

fn foreign_cursor() -> validate::InvalidRequest {
    validate::malformed("cursor", "is not a cursor of this stream: start again by `after_revision`")
}
