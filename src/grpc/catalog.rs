//! CatalogService: the catalog of scopes, roles, audiences and endpoints.

use tonic::{Request, Response, Status};

use super::{Api, reply};
use crate::proto::catalog_service_server::CatalogService;
use crate::proto::{
    ApplyCatalogRequest, ApplyCatalogResponse, GetCatalogRequest, GetCatalogResponse,
};
use crate::wire::parse;

#[tonic::async_trait]
impl CatalogService for Api {
    async fn apply_catalog(
        &self,
        request: Request<ApplyCatalogRequest>,
    ) -> Result<Response<ApplyCatalogResponse>, Status> {
        let (yaml, options) = parse::apply_catalog(self.authorize_request(request)?)?;
        Ok(Response::new(self.ready()?.apply_catalog(&yaml, &options, reply::applied).await?))
    }

    async fn get_catalog(
        &self,
        request: Request<GetCatalogRequest>,
    ) -> Result<Response<GetCatalogResponse>, Status> {
        self.authorize_request(request)?;
        let read = self.ready()?.catalog().await?;
        let (yaml, etag, revision) = (read.resource.yaml.clone(), read.etag, read.revision.0);
        Ok(Response::new(GetCatalogResponse { yaml, etag, revision }))
    }
}
