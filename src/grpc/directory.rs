//! DirectoryService: companies, credentials, secrets, users and consents.

use tonic::{Request, Response, Status, Streaming};

use super::{Api, import, reply, warnings};
use crate::authority::secrets::Verification;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::proto::directory_service_server::DirectoryService;
use crate::proto::*;
use crate::wire::pagination::{self, PageTokens, after, next};
use crate::wire::{parse, render};

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn create_company(
        &self,
        request: Request<CreateCompanyRequest>,
    ) -> Result<Response<CreateCompanyResponse>, Status> {
        let (new, options) = parse::create_company(self.authorize_request(request)?)?;
        let render = reply::company_created;
        self.renewed(self.ready()?.create_company(&new, &options, render).await?).await
    }

    async fn get_company(
        &self,
        request: Request<GetCompanyRequest>,
    ) -> Result<Response<GetCompanyResponse>, Status> {
        let id = parse::company(self.authorize_request(request)?.request.company_id)?;
        let read = self.ready()?.company(&id).await?;
        let (company, revision) = (render::company(read.resource, read.etag), read.revision.0);
        Ok(Response::new(GetCompanyResponse { company: Some(company), revision }))
    }

    async fn list_companies(
        &self,
        request: Request<ListCompaniesRequest>,
    ) -> Result<Response<ListCompaniesResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let size = pagination::size(request.page_size)?;
        let list = PageTokens::new(self.ready()?.incarnation(), "ListCompanies", &[]);
        let after = after(&list, &request.page_token, CompanyId::parse)?;
        let page = self.ready()?.companies(after, size).await?;
        Ok(Response::new(ListCompaniesResponse {
            next_page_token: next(&list, &page, |item| item.company.id.as_str()),
            revision: page.revision.0,
            companies: page
                .items
                .into_iter()
                .map(|(view, etag)| render::company(view, etag))
                .collect(),
        }))
    }

    async fn update_company(
        &self,
        request: Request<UpdateCompanyRequest>,
    ) -> Result<Response<UpdateCompanyResponse>, Status> {
        let (id, change, options) = parse::update_company(self.authorize_request(request)?)?;
        let render = reply::company_updated;
        self.renewed(self.ready()?.change_company(&id, &change, &options, render).await?).await
    }

    async fn delete_company(
        &self,
        request: Request<DeleteCompanyRequest>,
    ) -> Result<Response<DeleteCompanyResponse>, Status> {
        let (id, change, options) = parse::delete_company(self.authorize_request(request)?)?;
        let render = reply::company_deleted;
        self.renewed(self.ready()?.change_company(&id, &change, &options, render).await?).await
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        let (new, options) = parse::create_credential(self.authorize_request(request)?)?;
        let render = reply::credential_created;
        self.renewed(self.ready()?.create_credential(&new, &options, render).await?).await
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let (company, id) = parse::credential(request.company_id, request.credential_id)?;
        let read = self.ready()?.credential(&company, &id).await?;
        let (credential, revision) =
            (render::credential(read.resource, read.etag), read.revision.0);
        Ok(Response::new(GetCredentialResponse { credential: Some(credential), revision }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let size = pagination::size(request.page_size)?;
        let dormant = if request.include_dormant { "dormant" } else { "" };
        let parameters = [&request.company_id, &request.scope, dormant];
        let list = PageTokens::new(self.ready()?.incarnation(), "ListCredentials", &parameters);
        let after = after(&list, &request.page_token, CredentialId::parse)?;
        let company = parse::company(request.company_id)?;
        let holding = parse::scope_filter(request.scope, request.include_dormant)?;
        let page = self.ready()?.credentials(&company, holding.as_ref(), after, size).await?;
        Ok(Response::new(ListCredentialsResponse {
            next_page_token: next(&list, &page, |item| item.credential.id.as_str()),
            revision: page.revision.0,
            credentials: page
                .items
                .into_iter()
                .map(|(v, etag)| render::credential(v, etag))
                .collect(),
        }))
    }

    async fn update_credential(
        &self,
        request: Request<UpdateCredentialRequest>,
    ) -> Result<Response<UpdateCredentialResponse>, Status> {
        let (company, id, change, options) =
            parse::update_credential(self.authorize_request(request)?)?;
        let render = reply::credential_updated;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn delete_credential(
        &self,
        request: Request<DeleteCredentialRequest>,
    ) -> Result<Response<DeleteCredentialResponse>, Status> {
        let (company, id, change, options) =
            parse::delete_credential(self.authorize_request(request)?)?;
        let render = reply::credential_deleted;
        self.renewed(
            self.ready()?.change_credential(&company, &id, &change, &options, render).await?,
        )
        .await
    }

    async fn import_credentials(
        &self,
        request: Request<Streaming<ImportCredentialsRequest>>,
    ) -> Result<Response<ImportCredentialsResponse>, Status> {
        Ok(Response::new(import::import(self, self.authorize_request(request)?).await?))
    }

    async fn create_secret(
        &self,
        request: Request<CreateSecretRequest>,
    ) -> Result<Response<CreateSecretResponse>, Status> {
        let (company, id, options) = parse::create_secret(self.authorize_request(request)?)?;
        let render = reply::secret_created;
        self.renewed(self.ready()?.create_secret(&company, &id, &options, render).await?).await
    }

    async fn delete_secret(
        &self,
        request: Request<DeleteSecretRequest>,
    ) -> Result<Response<DeleteSecretResponse>, Status> {
        let (company, id, secret, options) =
            parse::delete_secret(self.authorize_request(request)?)?;
        let render = reply::secret_deleted;
        self.renewed(self.ready()?.delete_secret(&company, &id, &secret, &options, render).await?)
            .await
    }

    async fn verify_secret(
        &self,
        request: Request<VerifySecretRequest>,
    ) -> Result<Response<VerifySecretResponse>, Status> {
        let authorized = self.authorize_request(request)?;
        let (owner, secret) = parse::verify_secret(authorized.request)?;
        let verification = match secret {
            Some(secret) => {
                self.ready()?.verify_secret(&authorized.caller, &owner, &secret).await?
            }
            None => Verification::Wrong,
        };
        Ok(Response::new(render::verification(verification)))
    }

    async fn put_user(
        &self,
        request: Request<PutUserRequest>,
    ) -> Result<Response<PutUserResponse>, Status> {
        let (company, id, roles, options) = parse::put_user(self.authorize_request(request)?)?;
        let of = company.clone();
        let render = move |done| reply::user_put(&of, done);
        let done = self.ready()?.put_user(&company, &id, &roles, &options, render).await?;
        let warnings = warnings::of_roles(self.ready()?, &roles).await;
        let reply = self.renewed(done).await?.map(|reply| PutUserResponse { warnings, ..reply });
        Ok(reply)
    }

    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let (company, id) = parse::user(request.company_id, request.user_id)?;
        let read = self.ready()?.user(&company, &id).await?;
        let user = Some(render::user(read.resource, &company, read.etag));
        Ok(Response::new(GetUserResponse { user, revision: read.revision.0 }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let request = self.authorize_request(request)?.request;
        let size = pagination::size(request.page_size)?;
        let list =
            PageTokens::new(self.ready()?.incarnation(), "ListUsers", &[&request.company_id]);
        let after = after(&list, &request.page_token, UserId::parse)?;
        let company = parse::company(request.company_id)?;
        let page = self.ready()?.users(&company, after, size).await?;
        Ok(Response::new(ListUsersResponse {
            next_page_token: next(&list, &page, |user| user.id.as_str()),
            revision: page.revision.0,
            users: page
                .items
                .into_iter()
                .map(|(u, etag)| render::user(u, &company, etag))
                .collect(),
        }))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let (company, id, options) = parse::delete_user(self.authorize_request(request)?)?;
        let of = company.clone();
        let render = move |done| reply::user_deleted(&of, done);
        self.renewed(self.ready()?.delete_user(&company, &id, &options, render).await?).await
    }

    async fn put_consent(
        &self,
        request: Request<PutConsentRequest>,
    ) -> Result<Response<PutConsentResponse>, Status> {
        let (id, scopes, options) = parse::put_consent(self.authorize_request(request)?)?;
        let of = id.clone();
        let render = move |done| reply::consent_put(&of, done);
        self.renewed(self.ready()?.put_consent(&id, &scopes, &options, render).await?).await
    }

    async fn get_consent(
        &self,
        request: Request<GetConsentRequest>,
    ) -> Result<Response<GetConsentResponse>, Status> {
        let id = parse::consent(self.authorize_request(request)?.request)?;
        let read = self.ready()?.consent(&id).await?;
        let consent = Some(render::consent(read.resource, &id, read.etag));
        Ok(Response::new(GetConsentResponse { consent, revision: read.revision.0 }))
    }

    async fn delete_consent(
        &self,
        request: Request<DeleteConsentRequest>,
    ) -> Result<Response<DeleteConsentResponse>, Status> {
        let (id, options) = parse::delete_consent(self.authorize_request(request)?)?;
        let of = id.clone();
        let render = move |done| reply::consent_deleted(&of, done);
        self.renewed(self.ready()?.delete_consent(&id, &options, render).await?).await
    }
}
