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
        let (session, request) = self.session(request)?;
        let (yaml, options) = parse::apply_catalog(request)?;
        Ok(Response::new(reply::applied(session.apply_catalog(&yaml, &options).await?)))
    }

    async fn get_catalog(
        &self,
        request: Request<GetCatalogRequest>,
    ) -> Result<Response<GetCatalogResponse>, Status> {
        let (session, _) = self.session(request)?;
        let read = session.catalog().await?;
        let (yaml, etag, revision) = (read.resource.yaml.clone(), read.etag, read.revision.0);
        Ok(Response::new(GetCatalogResponse { yaml, etag, revision }))
    }
}
