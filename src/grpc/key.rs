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
        let (new, options) = parse::create_key(self.authorize_request(request)?)?;
        let done = self.ready()?.create_key(&new, &options, reply::key_created).await?;
        let warnings = warnings::of_companies(self.ready()?, &new.companies).await;
        let reply = self.renewed(done).await?.map(|reply| CreateKeyResponse { warnings, ..reply });
        Ok(reply)
    }

    async fn get_key(
        &self,
        request: Request<GetKeyRequest>,
    ) -> Result<Response<GetKeyResponse>, Status> {
        let id = parse::key(self.authorize_request(request)?.request.key_id)?;
        let read = self.ready()?.key(&id).await?;
        let key = Some(render::key(read.resource, read.etag));
        Ok(Response::new(GetKeyResponse { key, revision: read.revision.0 }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let size = pagination::size(request.page_size)?;
        let list = PageTokens::new(self.ready()?.incarnation(), "ListKeys", &[]);
        let after = pagination::after(&list, &request.page_token, Name::parse)?;
        let page = self.ready()?.keys(after, size).await?;
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
        let (id, options) = parse::delete_key(self.authorize_request(request)?)?;
        self.renewed(self.ready()?.delete_key(&id, &options, reply::key_deleted).await?).await
    }
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let caller = self.authorize_request(request)?.caller;
        Ok(Response::new(render::caller(&caller)))
    }
}
