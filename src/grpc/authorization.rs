//! AuthorizationService: checks, and the scopes of credentials and companies.
//!
//! Not here: how a decision is made; see `policy::decision`.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::{Api, reply};
use crate::authority::Answer;
use crate::observe::trace_context::RequestContext;
use crate::proto::authorization_service_server::AuthorizationService;
use crate::proto::*;
use crate::wire::access::Authorized;
use crate::wire::{parse, render};

impl Api {
    /// Decides a check and logs the decision with this request context, if there is one.
    ///
    /// # Errors
    /// The request is malformed, or the authority cannot decide it.
    pub async fn decide(
        &self,
        authorized: Authorized<CheckRequest>,
        context: Option<&Arc<RequestContext>>,
    ) -> Result<CheckResponse, Status> {
        let start = Instant::now();
        let authority = self.ready()?;
        let (query, at_least) =
            parse::check(authorized.request, &|aud| authority.audience_by_aud(aud))?;
        let answer = authority.check(&query, at_least).await?;
        if let Some(log) = &self.decisions {
            log.note(&authorized.caller, context, &query, &answer.verdict, answer.revision);
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
        authorized: Authorized<BatchCheckRequest>,
        context: Option<&Arc<RequestContext>>,
    ) -> Result<BatchCheckResponse, Status> {
        let start = Instant::now();
        let authority = self.ready()?;
        let (queries, at_least) =
            parse::batch(authorized.request, &|aud| authority.audience_by_aud(aud))?;
        let (verdicts, revision) = authority.batch_check(&queries, at_least).await?;
        if let Some(log) = &self.decisions {
            for (query, verdict) in queries.iter().zip(&verdicts) {
                log.note(&authorized.caller, context, query, verdict, revision);
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
        self.decide(self.authorize_request(request)?, context.as_ref()).await.map(Response::new)
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let context = request.extensions().get().cloned();
        self.decide_all(self.authorize_request(request)?, context.as_ref()).await.map(Response::new)
    }

    async fn explain_check(
        &self,
        request: Request<ExplainCheckRequest>,
    ) -> Result<Response<ExplainCheckResponse>, Status> {
        let (request, authority) = (self.authorize_request(request)?.request, self.ready()?);
        let (query, at_least) = parse::explain(request, &|aud| authority.audience_by_aud(aud))?;
        let (answer, scopes) = authority.explain(&query, at_least).await?;
        let scopes = scopes.into_iter().map(render::explanation).collect();
        Ok(Response::new(ExplainCheckResponse { decision: Some(render::check(answer)), scopes }))
    }

    async fn list_effective_scopes(
        &self,
        request: Request<ListEffectiveScopesRequest>,
    ) -> Result<Response<ListEffectiveScopesResponse>, Status> {
        let (request, authority) = (self.authorize_request(request)?.request, self.ready()?);
        let query = parse::effective(request, &|aud| authority.audience_by_aud(aud))?;
        let (scopes, revision) = authority.effective_scopes(&query).await?;
        let scopes = scopes.into_iter().map(render::effective).collect();
        Ok(Response::new(ListEffectiveScopesResponse { scopes, revision: revision.0 }))
    }

    async fn grant_scopes(
        &self,
        request: Request<GrantScopesRequest>,
    ) -> Result<Response<GrantScopesResponse>, Status> {
        let (company, id, change, options) = parse::grant(self.authorize_request(request)?)?;
        let render = reply::granted;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn revoke_scopes(
        &self,
        request: Request<RevokeScopesRequest>,
    ) -> Result<Response<RevokeScopesResponse>, Status> {
        let (company, id, change, options) = parse::revoke(self.authorize_request(request)?)?;
        let render = reply::revoked;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn replace_scopes(
        &self,
        request: Request<ReplaceScopesRequest>,
    ) -> Result<Response<ReplaceScopesResponse>, Status> {
        let (company, id, change, options) = parse::replace(self.authorize_request(request)?)?;
        let render = reply::replaced;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn reset_scopes(
        &self,
        request: Request<ResetScopesRequest>,
    ) -> Result<Response<ResetScopesResponse>, Status> {
        let (company, id, change, options) = parse::reset(self.authorize_request(request)?)?;
        let render = reply::reset;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn restore_grants(
        &self,
        request: Request<RestoreGrantsRequest>,
    ) -> Result<Response<RestoreGrantsResponse>, Status> {
        let (restore, options) = parse::restore(self.authorize_request(request)?)?;
        let render = reply::restored;
        self.renewed(self.ready()?.restore_grants(&restore, &options, render).await?).await
    }

    async fn add_company_scopes(
        &self,
        request: Request<AddCompanyScopesRequest>,
    ) -> Result<Response<AddCompanyScopesResponse>, Status> {
        let (id, change, options) = parse::add_company_scopes(self.authorize_request(request)?)?;
        let render = reply::scopes_added;
        self.renewed(self.ready()?.change_company(&id, &change, &options, render).await?).await
    }

    async fn restrict_company_scopes(
        &self,
        request: Request<RestrictCompanyScopesRequest>,
    ) -> Result<Response<RestrictCompanyScopesResponse>, Status> {
        let (restriction, options) = parse::restrict(self.authorize_request(request)?)?;
        let render = reply::restricted;
        self.renewed(self.ready()?.restrict_company(&restriction, &options, render).await?).await
    }
}
