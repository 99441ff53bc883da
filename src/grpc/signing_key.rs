//! KeyService: the public keys that sign access tokens.
//!
//! Not here: the API keys of callers; see [`super::key`].

use tonic::Status;

use crate::authority::Session;
use crate::authority::signing_keys::SigningKeyWritten;
use crate::policy::token::key_set::Thumbprint;
use crate::proto::*;
use crate::wire::{parse, render};

pub(super) async fn list_signing_keys(
    session: Session<'_>,
    _: ListSigningKeysRequest,
) -> Result<ListSigningKeysResponse, Status> {
    let read = session.signing_keys().await?;
    let keys = read.resource.into_iter();
    Ok(ListSigningKeysResponse {
        signing_keys: keys.map(|key| render::signing_key(&key, read.etag.clone())).collect(),
        revision: read.revision.0,
    })
}

pub(super) async fn rotate_signing_key(
    session: Session<'_>,
    request: RotateSigningKeyRequest,
) -> Result<RotateSigningKeyResponse, Status> {
    let (publish_only, options) = parse::rotate_signing_key(request)?;
    let SigningKeyWritten { key, etag, revision } =
        session.rotate_signing_key(publish_only, &options).await?;
    let signing_key = key.map(|key| render::signing_key(&key, etag));
    Ok(RotateSigningKeyResponse { signing_key, revision: revision.0 })
}

pub(super) async fn delete_signing_key(
    session: Session<'_>,
    request: DeleteSigningKeyRequest,
) -> Result<DeleteSigningKeyResponse, Status> {
    let (id, options) = parse::delete_signing_key(request)?;
    let SigningKeyWritten { key, etag, revision } =
        session.delete_signing_key(&id, &options).await?;
    let only_id = |id: Thumbprint| SigningKey { key_id: id.to_string(), ..Default::default() };
    let signing_key = key.map_or_else(|| only_id(id), |key| render::signing_key(&key, etag));
    Ok(DeleteSigningKeyResponse { signing_key: Some(signing_key), revision: revision.0 })
}
