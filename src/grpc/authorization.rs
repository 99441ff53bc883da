//! AuthorizationService: checks, and the scopes of credentials and companies.
//!
//! Not here: how a decision is made; see `policy::decision`.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::{Api, reply};
use crate::authority::{Answer, Session};
use crate::observe::trace_context::RequestContext;
use crate::proto::authorization_service_server::AuthorizationService;
use crate::proto::*;
use crate::wire::render::names;
use crate::wire::{parse, render};

impl Api {
    /// Decides a check and logs the decision with this request context, if there is one.
    ///
    /// # Errors
    /// The request is malformed, or the authority cannot decide it.
    pub async fn decide(
        &self,
        session: Session<'_>,
        request: CheckRequest,
        context: Option<&Arc<RequestContext>>,
    ) -> Result<CheckResponse, Status> {
        let start = Instant::now();
        let authority = self.ready()?;
        let (query, at_least) = parse::check(request, &|aud| session.audience_by_aud(aud))?;
        let answer = session.check(&query, at_least).await?;
        if let Some(log) = &self.decisions {
            log.note(session.caller(), context, &query, &answer.verdict, answer.revision);
        }
        let response = render::check(answer);
        authority.measures().checks.note(start.elapsed());
        Ok(response)
    }

    /// Decides a batch of checks and logs the decisions with this request context, if there is one.
    ///
    /// # Errors
    /// As for a check: an error of one check is an error of the batch.
    pub async fn decide_all(
        &self,
        session: Session<'_>,
        request: BatchCheckRequest,
        context: Option<&Arc<RequestContext>>,
    ) -> Result<BatchCheckResponse, Status> {
        let start = Instant::now();
        let authority = self.ready()?;
        let (queries, at_least) = parse::batch(request, &|aud| session.audience_by_aud(aud))?;
        let (verdicts, revision) = session.batch_check(&queries, at_least).await?;
        if let Some(log) = &self.decisions {
            for (query, verdict) in queries.iter().zip(&verdicts) {
                log.note(session.caller(), context, query, verdict, revision);
            }
        }
        let response = |verdict| render::check(Answer { verdict, revision });
        let results = verdicts.into_iter().map(response).collect();
        authority.measures().batches.note(start.elapsed());
        Ok(BatchCheckResponse { results, revision: revision.0 })
    }
}

#[tonic::async_trait]
impl AuthorizationService for Api {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let context = request.extensions().get().cloned();
        let (session, request) = self.session(request)?;
        self.decide(session, request, context.as_ref()).await.map(Response::new)
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let context = request.extensions().get().cloned();
        let (session, request) = self.session(request)?;
        self.decide_all(session, request, context.as_ref()).await.map(Response::new)
    }

    async fn explain_check(
        &self,
        request: Request<ExplainCheckRequest>,
    ) -> Result<Response<ExplainCheckResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (query, at_least) = parse::explain(request, &|aud| session.audience_by_aud(aud))?;
        let (answer, scopes) = session.explain(&query, at_least).await?;
        let scopes = scopes.into_iter().map(render::explanation).collect();
        Ok(Response::new(ExplainCheckResponse { decision: Some(render::check(answer)), scopes }))
    }

    async fn list_effective_scopes(
        &self,
        request: Request<ListEffectiveScopesRequest>,
    ) -> Result<Response<ListEffectiveScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let query = parse::effective(request, &|aud| session.audience_by_aud(aud))?;
        let (scopes, revision) = session.effective_scopes(&query).await?;
        let scopes = scopes.into_iter().map(render::effective).collect();
        Ok(Response::new(ListEffectiveScopesResponse { scopes, revision: revision.0 }))
    }

    async fn grant_scopes(
        &self,
        request: Request<GrantScopesRequest>,
    ) -> Result<Response<GrantScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::grant(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        Ok(Response::new(GrantScopesResponse {
            added_scopes: names(&written.added),
            revision: written.revision.0,
            credential: Some(reply::credential(&company, &id, written)),
        }))
    }

    async fn revoke_scopes(
        &self,
        request: Request<RevokeScopesRequest>,
    ) -> Result<Response<RevokeScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::revoke(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        Ok(Response::new(RevokeScopesResponse {
            removed_scopes: names(&written.removed),
            revision: written.revision.0,
            credential: Some(reply::credential(&company, &id, written)),
        }))
    }

    async fn replace_scopes(
        &self,
        request: Request<ReplaceScopesRequest>,
    ) -> Result<Response<ReplaceScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::replace(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        Ok(Response::new(ReplaceScopesResponse {
            added_scopes: names(&written.added),
            removed_scopes: names(&written.removed),
            revision: written.revision.0,
            credential: Some(reply::credential(&company, &id, written)),
        }))
    }

    async fn reset_scopes(
        &self,
        request: Request<ResetScopesRequest>,
    ) -> Result<Response<ResetScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::reset(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        Ok(Response::new(ResetScopesResponse {
            added_scopes: names(&written.added),
            removed_scopes: names(&written.removed),
            revision: written.revision.0,
            credential: Some(reply::credential(&company, &id, written)),
        }))
    }

    async fn restore_grants(
        &self,
        request: Request<RestoreGrantsRequest>,
    ) -> Result<Response<RestoreGrantsResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (restore, options) = parse::restore(request)?;
        let (restored_credential_count, revision) =
            session.restore_grants(&restore, &options).await?;
        let revision = revision.0;
        Ok(Response::new(RestoreGrantsResponse { restored_credential_count, revision }))
    }

    async fn add_company_scopes(
        &self,
        request: Request<AddCompanyScopesRequest>,
    ) -> Result<Response<AddCompanyScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (id, change, options) = parse::add_company_scopes(request)?;
        let written = session.change_company(&id, &change, &options).await?;
        Ok(Response::new(AddCompanyScopesResponse {
            added_scopes: names(&written.added),
            revision: written.revision.0,
            company: Some(reply::company(&id, written)),
        }))
    }

    async fn restrict_company_scopes(
        &self,
        request: Request<RestrictCompanyScopesRequest>,
    ) -> Result<Response<RestrictCompanyScopesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (restriction, options) = parse::restrict(request)?;
        let (written, impact) = session.restrict_company(&restriction, &options).await?;
        Ok(Response::new(RestrictCompanyScopesResponse {
            restricted_scopes: names(&written.removed),
            affected_credential_count: impact.count,
            affected_credentials: impact.affected.into_iter().map(render::affected).collect(),
            etag: impact.etag,
            revision: written.revision.0,
            company: Some(reply::company(&restriction.company, written)),
        }))
    }
}
