//! The AuthorizationService: decisions, and the scopes that they rest on.

use tonic::{Request, Response, Status};

use super::{Doors, parse, render};
use crate::authority::{Answer, CredentialChange, Done, Terms};
use crate::policy::credential::CredentialView;
use crate::policy::id::{CompanyId, CredentialId};
use crate::proto::authorization_service_server::AuthorizationService;
use crate::proto::*;

/// What a change of a credential's scopes is answered with, before it has its message.
async fn change_credential(
    doors: &Doors,
    call: (CompanyId, CredentialId, CredentialChange, Terms),
) -> Result<(Credential, Vec<String>, Vec<String>, u64), Status> {
    let (company, id, change, terms) = call;
    let done = doors.ask()?.change_credential(&company, &id, &change, &terms).await?;
    let Done { resource, etag, added, removed, revision }: Done<CredentialView> = done;
    let credential = render::credential(resource, etag);
    Ok((credential, render::names(&added), render::names(&removed), revision.0))
}

#[tonic::async_trait]
impl AuthorizationService for Doors {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let (query, at_least) = parse::check(request.into_inner())?;
        let answer = self.ask()?.check(&query, at_least).await?;
        Ok(Response::new(render::check(answer)))
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let (queries, at_least) = parse::batch(request.into_inner())?;
        let (verdicts, revision) = self.ask()?.batch_check(&queries, at_least).await?;
        let answer = |verdict| render::check(Answer { verdict, revision });
        let results = verdicts.into_iter().map(answer).collect();
        Ok(Response::new(BatchCheckResponse { results, revision: revision.0 }))
    }

    async fn explain_check(
        &self,
        request: Request<ExplainCheckRequest>,
    ) -> Result<Response<ExplainCheckResponse>, Status> {
        let (query, at_least) = parse::explain(request.into_inner())?;
        let (answer, scopes) = self.ask()?.explain(&query, at_least).await?;
        let scopes = scopes.into_iter().map(render::explanation).collect();
        Ok(Response::new(ExplainCheckResponse { decision: Some(render::check(answer)), scopes }))
    }

    async fn list_effective_scopes(
        &self,
        request: Request<ListEffectiveScopesRequest>,
    ) -> Result<Response<ListEffectiveScopesResponse>, Status> {
        let query = parse::effective(request.into_inner())?;
        let (scopes, revision) = self.ask()?.effective_scopes(&query).await?;
        let scopes = scopes.into_iter().map(render::effective).collect();
        Ok(Response::new(ListEffectiveScopesResponse { scopes, revision: revision.0 }))
    }

    async fn grant_scopes(
        &self,
        request: Request<GrantScopesRequest>,
    ) -> Result<Response<GrantScopesResponse>, Status> {
        let call = parse::grant(request.into_inner())?;
        let (credential, added_scopes, _, revision) = change_credential(self, call).await?;
        let credential = Some(credential);
        Ok(Response::new(GrantScopesResponse { credential, added_scopes, revision }))
    }

    async fn revoke_scopes(
        &self,
        request: Request<RevokeScopesRequest>,
    ) -> Result<Response<RevokeScopesResponse>, Status> {
        let call = parse::revoke(request.into_inner())?;
        let (credential, _, removed_scopes, revision) = change_credential(self, call).await?;
        let credential = Some(credential);
        Ok(Response::new(RevokeScopesResponse { credential, removed_scopes, revision }))
    }

    async fn replace_scopes(
        &self,
        request: Request<ReplaceScopesRequest>,
    ) -> Result<Response<ReplaceScopesResponse>, Status> {
        let call = parse::replace(request.into_inner())?;
        let (credential, added_scopes, removed_scopes, revision) =
            change_credential(self, call).await?;
        let credential = Some(credential);
        let response = ReplaceScopesResponse { credential, added_scopes, removed_scopes, revision };
        Ok(Response::new(response))
    }

    async fn reset_scopes(
        &self,
        request: Request<ResetScopesRequest>,
    ) -> Result<Response<ResetScopesResponse>, Status> {
        let call = parse::reset(request.into_inner())?;
        let (credential, added_scopes, removed_scopes, revision) =
            change_credential(self, call).await?;
        let credential = Some(credential);
        let response = ResetScopesResponse { credential, added_scopes, removed_scopes, revision };
        Ok(Response::new(response))
    }

    async fn restore_grants(
        &self,
        request: Request<RestoreGrantsRequest>,
    ) -> Result<Response<RestoreGrantsResponse>, Status> {
        let (restoration, terms) = parse::restore(request.into_inner())?;
        let (count, revision) = self.ask()?.restore_grants(&restoration, &terms).await?;
        let (restored_credential_count, revision) = (count, revision.0);
        Ok(Response::new(RestoreGrantsResponse { restored_credential_count, revision }))
    }

    async fn add_company_scopes(
        &self,
        request: Request<AddCompanyScopesRequest>,
    ) -> Result<Response<AddCompanyScopesResponse>, Status> {
        let (id, change, terms) = parse::add_company_scopes(request.into_inner())?;
        let done = self.ask()?.change_company(&id, &change, &terms).await?;
        Ok(Response::new(AddCompanyScopesResponse {
            added_scopes: render::names(&done.added),
            revision: done.revision.0,
            company: Some(render::company(done.resource, done.etag)),
        }))
    }

    async fn restrict_company_scopes(
        &self,
        request: Request<RestrictCompanyScopesRequest>,
    ) -> Result<Response<RestrictCompanyScopesResponse>, Status> {
        let (restriction, terms) = parse::restrict(request.into_inner())?;
        let (done, impact) = self.ask()?.restrict_company(&restriction, &terms).await?;
        Ok(Response::new(render::restriction(done, impact)))
    }
}
