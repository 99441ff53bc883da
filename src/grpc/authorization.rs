//! AuthorizationService: checks, and the scopes of credentials and companies.
//!
//! Not here: how a decision is made; see `policy::decision`.

use tonic::Status;

use super::reply;
use crate::authority::Session;
use crate::proto::*;
use crate::wire::render::names;
use crate::wire::{parse, render};

pub(super) async fn check(
    session: Session<'_>,
    request: CheckRequest,
) -> Result<CheckResponse, Status> {
    let (mut request, at_least) = parse::check(request, &|aud| session.audience_by_aud(aud))?;
    Ok(render::check(session.check(&mut request, at_least).await?))
}

pub(super) async fn batch_check(
    session: Session<'_>,
    request: BatchCheckRequest,
) -> Result<BatchCheckResponse, Status> {
    let (mut requests, at_least) = parse::batch(request, &|aud| session.audience_by_aud(aud))?;
    let (answers, revision) = session.batch_check(&mut requests, at_least).await?;
    let results = answers.into_iter().map(render::check).collect();
    Ok(BatchCheckResponse { results, revision: revision.0 })
}

pub(super) async fn explain_check(
    session: Session<'_>,
    request: ExplainCheckRequest,
) -> Result<ExplainCheckResponse, Status> {
    let (mut request, at_least) = parse::explain(request, &|aud| session.audience_by_aud(aud))?;
    let (answer, scopes) = session.explain(&mut request, at_least).await?;
    let scopes = scopes.into_iter().map(render::explanation).collect();
    Ok(ExplainCheckResponse { decision: Some(render::check(answer)), scopes })
}

pub(super) async fn list_effective_scopes(
    session: Session<'_>,
    request: ListEffectiveScopesRequest,
) -> Result<ListEffectiveScopesResponse, Status> {
    let mut request = parse::effective(request, &|aud| session.audience_by_aud(aud))?;
    let (scopes, revision) = session.effective_scopes(&mut request).await?;
    let scopes = scopes.into_iter().map(render::effective).collect();
    Ok(ListEffectiveScopesResponse { scopes, revision: revision.0 })
}

pub(super) async fn grant_scopes(
    session: Session<'_>,
    request: GrantScopesRequest,
) -> Result<GrantScopesResponse, Status> {
    let (company, id, change, options) = parse::grant(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    Ok(GrantScopesResponse {
        added_scopes: names(&written.added),
        revision: written.revision.0,
        credential: Some(reply::credential(&company, &id, written)),
    })
}

pub(super) async fn revoke_scopes(
    session: Session<'_>,
    request: RevokeScopesRequest,
) -> Result<RevokeScopesResponse, Status> {
    let (company, id, change, options) = parse::revoke(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    Ok(RevokeScopesResponse {
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(reply::credential(&company, &id, written)),
    })
}

pub(super) async fn replace_scopes(
    session: Session<'_>,
    request: ReplaceScopesRequest,
) -> Result<ReplaceScopesResponse, Status> {
    let (company, id, change, options) = parse::replace(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    Ok(ReplaceScopesResponse {
        added_scopes: names(&written.added),
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(reply::credential(&company, &id, written)),
    })
}

pub(super) async fn reset_scopes(
    session: Session<'_>,
    request: ResetScopesRequest,
) -> Result<ResetScopesResponse, Status> {
    let (company, id, change, options) = parse::reset(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    Ok(ResetScopesResponse {
        added_scopes: names(&written.added),
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(reply::credential(&company, &id, written)),
    })
}

pub(super) async fn restore_grants(
    session: Session<'_>,
    request: RestoreGrantsRequest,
) -> Result<RestoreGrantsResponse, Status> {
    let (restore, options) = parse::restore(request)?;
    let (restored_credential_count, revision) = session.restore_grants(&restore, &options).await?;
    let revision = revision.0;
    Ok(RestoreGrantsResponse { restored_credential_count, revision })
}

pub(super) async fn add_company_scopes(
    session: Session<'_>,
    request: AddCompanyScopesRequest,
) -> Result<AddCompanyScopesResponse, Status> {
    let (id, change, options) = parse::add_company_scopes(request)?;
    let written = session.change_company(&id, &change, &options).await?;
    Ok(AddCompanyScopesResponse {
        added_scopes: names(&written.added),
        revision: written.revision.0,
        company: Some(reply::company(&id, written)),
    })
}

pub(super) async fn restrict_company_scopes(
    session: Session<'_>,
    request: RestrictCompanyScopesRequest,
) -> Result<RestrictCompanyScopesResponse, Status> {
    let (restriction, options) = parse::restrict(request)?;
    let (written, impact) = session.restrict_company(&restriction, &options).await?;
    Ok(RestrictCompanyScopesResponse {
        restricted_scopes: names(&written.removed),
        affected_credential_count: impact.count,
        affected_credentials: impact.affected.into_iter().map(render::affected).collect(),
        etag: impact.etag,
        revision: written.revision.0,
        company: Some(reply::company(&restriction.company, written)),
    })
}
