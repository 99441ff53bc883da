//! The ChangeService: the audit log, and the stream made of it.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::page::{self, List};
use super::{Doors, parse, render, status};
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
        let request = request.into_inner();
        let company = parse::optional_company(request.company_id)?;
        let size = page::size(request.page_size)?;
        let of = company.as_ref().map_or("", CompanyId::as_str);
        let from = request.after_revision.to_string();
        let list = List::new(self.ask()?.incarnation(), "ListChanges", &[of, &from]);
        let after = match list.after(&request.page_token)? {
            Some(last) => last.parse().map_err(|_| page::foreign_token())?,
            None => request.after_revision,
        };
        let (changes, more) = self.ask()?.changes(company, Revision(after), size).await?;
        let last = changes.last().filter(|_| more);
        let next_page_token = last.map(|c| list.token(&c.revision.to_string())).unwrap_or_default();
        let changes = changes.into_iter().map(render::change).collect();
        Ok(Response::new(ListChangesResponse { changes, next_page_token }))
    }

    async fn watch_changes(
        &self,
        _: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        Err(status::not_yet("WatchChanges"))
    }
}
