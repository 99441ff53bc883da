//! KeyService: the API keys that authenticate callers of scopegate.

use tonic::Status;

use super::{reply, warnings};
use crate::authority::Session;
use crate::policy::id::Name;
use crate::proto::*;
use crate::wire::pagination::{self, PageTokens};
use crate::wire::{parse, render};

pub(super) async fn create_key(
    session: Session<'_>,
    request: CreateKeyRequest,
) -> Result<CreateKeyResponse, Status> {
    let (new, options) = parse::create_key(request)?;
    let written = session.create_key(&new, &options).await?;
    let warnings = warnings::of_companies(&session, &new.companies).await;
    Ok(CreateKeyResponse { warnings, ..reply::key_created(written) })
}

pub(super) async fn get_key(
    session: Session<'_>,
    request: GetKeyRequest,
) -> Result<GetKeyResponse, Status> {
    let id = parse::key(request.key_id)?;
    let read = session.key(&id).await?;
    let key = Some(render::key(read.resource, read.etag));
    Ok(GetKeyResponse { key, revision: read.revision.0 })
}

pub(super) async fn list_keys(
    session: Session<'_>,
    request: ListKeysRequest,
) -> Result<ListKeysResponse, Status> {
    let size = pagination::size(request.page_size)?;
    let list = PageTokens::new(session.incarnation(), "ListKeys", &[]);
    let after = pagination::after(&list, &request.page_token, Name::parse)?;
    let page = session.keys(after, size).await?;
    Ok(ListKeysResponse {
        next_page_token: pagination::next(&list, &page, |view| view.key.id.as_str()),
        revision: page.revision.0,
        keys: page.items.into_iter().map(|(view, etag)| render::key(view, etag)).collect(),
    })
}

pub(super) async fn delete_key(
    session: Session<'_>,
    request: DeleteKeyRequest,
) -> Result<DeleteKeyResponse, Status> {
    let (id, options) = parse::delete_key(request)?;
    let written = session.delete_key(&id, &options).await?;
    let revision = written.revision.0;
    Ok(DeleteKeyResponse { key: reply::key(written), revision })
}

pub(super) async fn who_am_i(
    session: Session<'_>,
    _: WhoAmIRequest,
) -> Result<WhoAmIResponse, Status> {
    Ok(render::caller(session.caller()))
}
