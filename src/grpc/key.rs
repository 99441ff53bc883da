//! KeyService: the API keys that authenticate callers of scopegate.

use tonic::{Request, Response, Status};

use super::{Api, reply, warnings};
use crate::policy::id::Name;
use crate::proto::key_service_server::KeyService;
use crate::proto::*;
use crate::wire::pagination::{self, PageTokens};
use crate::wire::{parse, render};

#[tonic::async_trait]
impl KeyService for Api {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (new, options) = parse::create_key(request)?;
        let written = session.create_key(&new, &options).await?;
        let warnings = warnings::of_companies(&session, &new.companies).await;
        Ok(Response::new(CreateKeyResponse { warnings, ..reply::key_created(written) }))
    }

    async fn get_key(
        &self,
        request: Request<GetKeyRequest>,
    ) -> Result<Response<GetKeyResponse>, Status> {
        let (session, request) = self.session(request)?;
        let id = parse::key(request.key_id)?;
        let read = session.key(&id).await?;
        let key = Some(render::key(read.resource, read.etag));
        Ok(Response::new(GetKeyResponse { key, revision: read.revision.0 }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let (session, request) = self.session(request)?;
        let size = pagination::size(request.page_size)?;
        let list = PageTokens::new(session.incarnation(), "ListKeys", &[]);
        let after = pagination::after(&list, &request.page_token, Name::parse)?;
        let page = session.keys(after, size).await?;
        Ok(Response::new(ListKeysResponse {
            next_page_token: pagination::next(&list, &page, |view| view.key.id.as_str()),
            revision: page.revision.0,
            keys: page.items.into_iter().map(|(view, etag)| render::key(view, etag)).collect(),
        }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (id, options) = parse::delete_key(request)?;
        let written = session.delete_key(&id, &options).await?;
        let revision = written.revision.0;
        Ok(Response::new(DeleteKeyResponse { key: reply::key(written), revision }))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let (session, _) = self.session(request)?;
        Ok(Response::new(render::caller(session.caller())))
    }
}
