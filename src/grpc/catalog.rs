//! The CatalogService: what exists on the platform.

use tonic::{Request, Response, Status};

use super::{Doors, reply};
use crate::wire::parse;
use crate::proto::catalog_service_server::CatalogService;
use crate::proto::{
    ApplyCatalogRequest, ApplyCatalogResponse, GetCatalogRequest, GetCatalogResponse,
};

#[tonic::async_trait]
impl CatalogService for Doors {
    async fn apply_catalog(
        &self,
        request: Request<ApplyCatalogRequest>,
    ) -> Result<Response<ApplyCatalogResponse>, Status> {
        let (yaml, terms) = parse::apply_catalog(self.asked(request)?)?;
        Ok(Response::new(self.ask()?.apply_catalog(&yaml, &terms, reply::applied).await?))
    }

    async fn get_catalog(
        &self,
        request: Request<GetCatalogRequest>,
    ) -> Result<Response<GetCatalogResponse>, Status> {
        self.asked(request)?;
        let read = self.ask()?.catalog().await?;
        let (yaml, etag, revision) = (read.resource.yaml.clone(), read.etag, read.revision.0);
        Ok(Response::new(GetCatalogResponse { yaml, etag, revision }))
    }
}
