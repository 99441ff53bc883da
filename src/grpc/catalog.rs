//! CatalogService: the catalog of scopes, roles, audiences and endpoints.

use tonic::Status;

use super::reply;
use crate::authority::Session;
use crate::proto::{
    ApplyCatalogRequest, ApplyCatalogResponse, GetCatalogRequest, GetCatalogResponse,
};
use crate::wire::parse;

pub(super) async fn apply_catalog(
    session: Session<'_>,
    request: ApplyCatalogRequest,
) -> Result<ApplyCatalogResponse, Status> {
    let (yaml, options) = parse::apply_catalog(request)?;
    Ok(reply::applied(session.apply_catalog(&yaml, &options).await?))
}

pub(super) async fn get_catalog(
    session: Session<'_>,
    _: GetCatalogRequest,
) -> Result<GetCatalogResponse, Status> {
    let read = session.catalog().await?;
    let (yaml, etag, revision) = (read.resource.yaml.clone(), read.etag, read.revision.0);
    Ok(GetCatalogResponse { yaml, etag, revision })
}
