//! DirectoryService: companies, credentials, secrets, users and consents.

use tonic::{Request, Response, Status, Streaming};

use super::{Api, import, reply, warnings};
use crate::authority::secrets::Verification;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::secret::SecretText;
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
        let (session, request) = self.session(request)?;
        let (new, options) = parse::create_company(request)?;
        let written = session.create_company(&new, &options).await?;
        let revision = written.revision.0;
        let company = Some(reply::company(&new.id, written));
        Ok(Response::new(CreateCompanyResponse { company, revision }))
    }

    async fn get_company(
        &self,
        request: Request<GetCompanyRequest>,
    ) -> Result<Response<GetCompanyResponse>, Status> {
        let (session, request) = self.session(request)?;
        let id = parse::company(request.company_id)?;
        let read = session.company(&id).await?;
        let (company, revision) = (render::company(read.resource, read.etag), read.revision.0);
        Ok(Response::new(GetCompanyResponse { company: Some(company), revision }))
    }

    async fn list_companies(
        &self,
        request: Request<ListCompaniesRequest>,
    ) -> Result<Response<ListCompaniesResponse>, Status> {
        let (session, request) = self.session(request)?;
        let size = pagination::size(request.page_size)?;
        let list = PageTokens::new(session.incarnation(), "ListCompanies", &[]);
        let after = after(&list, &request.page_token, CompanyId::parse)?;
        let page = session.companies(after, size).await?;
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
        let (session, request) = self.session(request)?;
        let (id, change, options) = parse::update_company(request)?;
        let written = session.change_company(&id, &change, &options).await?;
        let revision = written.revision.0;
        let company = Some(reply::company(&id, written));
        Ok(Response::new(UpdateCompanyResponse { company, revision }))
    }

    async fn delete_company(
        &self,
        request: Request<DeleteCompanyRequest>,
    ) -> Result<Response<DeleteCompanyResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (id, change, options) = parse::delete_company(request)?;
        let written = session.change_company(&id, &change, &options).await?;
        let revision = written.revision.0;
        let company = Some(reply::company(&id, written));
        Ok(Response::new(DeleteCompanyResponse { company, revision }))
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (new, options) = parse::create_credential(request)?;
        let written = session.create_credential(&new, &options).await?;
        let revision = written.revision.0;
        let credential = Some(reply::credential(&new.company, &new.id, written));
        Ok(Response::new(CreateCredentialResponse { credential, revision }))
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id) = parse::credential(request.company_id, request.credential_id)?;
        let read = session.credential(&company, &id).await?;
        let (credential, revision) =
            (render::credential(read.resource, read.etag), read.revision.0);
        Ok(Response::new(GetCredentialResponse { credential: Some(credential), revision }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let (session, request) = self.session(request)?;
        let size = pagination::size(request.page_size)?;
        let dormant = if request.include_dormant { "dormant" } else { "" };
        let parameters = [&request.company_id, &request.scope, dormant];
        let list = PageTokens::new(session.incarnation(), "ListCredentials", &parameters);
        let after = after(&list, &request.page_token, CredentialId::parse)?;
        let company = parse::company(request.company_id)?;
        let holding = parse::scope_filter(request.scope, request.include_dormant)?;
        let page = session.credentials(&company, holding.as_ref(), after, size).await?;
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
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::update_credential(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        let revision = written.revision.0;
        let credential = Some(reply::credential(&company, &id, written));
        Ok(Response::new(UpdateCredentialResponse { credential, revision }))
    }

    async fn delete_credential(
        &self,
        request: Request<DeleteCredentialRequest>,
    ) -> Result<Response<DeleteCredentialResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, change, options) = parse::delete_credential(request)?;
        let written = session.change_credential(&company, &id, &change, &options).await?;
        let revision = written.revision.0;
        let credential = Some(reply::credential(&company, &id, written));
        Ok(Response::new(DeleteCredentialResponse { credential, revision }))
    }

    async fn import_credentials(
        &self,
        request: Request<Streaming<ImportCredentialsRequest>>,
    ) -> Result<Response<ImportCredentialsResponse>, Status> {
        let (session, messages) = self.session(request)?;
        Ok(Response::new(import::import(session, messages, self.closing()).await?))
    }

    async fn create_secret(
        &self,
        request: Request<CreateSecretRequest>,
    ) -> Result<Response<CreateSecretResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, options) = parse::create_secret(request)?;
        let created = session.create_secret(&company, &id, &options).await?;
        Ok(Response::new(CreateSecretResponse {
            secret_id: created.id.map(|id| id.to_string()).unwrap_or_default(),
            secret: created.secret.map(SecretText::reveal).unwrap_or_default(),
            revision: created.revision.0,
        }))
    }

    async fn delete_secret(
        &self,
        request: Request<DeleteSecretRequest>,
    ) -> Result<Response<DeleteSecretResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, secret, options) = parse::delete_secret(request)?;
        let written = session.delete_secret(&company, &id, &secret, &options).await?;
        let revision = written.revision.0;
        let credential = Some(reply::credential(&company, &id, written));
        Ok(Response::new(DeleteSecretResponse { credential, revision }))
    }

    async fn verify_secret(
        &self,
        request: Request<VerifySecretRequest>,
    ) -> Result<Response<VerifySecretResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (owner, secret) = parse::verify_secret(request)?;
        let verification = match secret {
            Some(secret) => session.verify_secret(&owner, &secret).await?,
            None => Verification::Wrong,
        };
        Ok(Response::new(render::verification(verification)))
    }

    async fn put_user(
        &self,
        request: Request<PutUserRequest>,
    ) -> Result<Response<PutUserResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id, roles, options) = parse::put_user(request)?;
        let written = session.put_user(&company, &id, &roles, &options).await?;
        let warnings = warnings::of_roles(&session, &roles).await;
        let revision = written.revision.0;
        let user = Some(reply::user(&company, &id, written));
        Ok(Response::new(PutUserResponse { user, revision, warnings }))
    }

    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (company, id) = parse::user(request.company_id, request.user_id)?;
        let read = session.user(&company, &id).await?;
        let user = Some(render::user(read.resource, &company, read.etag));
        Ok(Response::new(GetUserResponse { user, revision: read.revision.0 }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let (session, request) = self.session(request)?;
        let size = pagination::size(request.page_size)?;
        let list = PageTokens::new(session.incarnation(), "ListUsers", &[&request.company_id]);
        let after = after(&list, &request.page_token, UserId::parse)?;
        let company = parse::company(request.company_id)?;
        let page = session.users(&company, after, size).await?;
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
        let (session, request) = self.session(request)?;
        let (company, id, options) = parse::delete_user(request)?;
        let written = session.delete_user(&company, &id, &options).await?;
        let revision = written.revision.0;
        let user = Some(reply::user(&company, &id, written));
        Ok(Response::new(DeleteUserResponse { user, revision }))
    }

    async fn put_consent(
        &self,
        request: Request<PutConsentRequest>,
    ) -> Result<Response<PutConsentResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (id, scopes, options) = parse::put_consent(request)?;
        let written = session.put_consent(&id, &scopes, &options).await?;
        let revision = written.revision.0;
        let consent = Some(reply::consent(&id, written));
        Ok(Response::new(PutConsentResponse { consent, revision }))
    }

    async fn get_consent(
        &self,
        request: Request<GetConsentRequest>,
    ) -> Result<Response<GetConsentResponse>, Status> {
        let (session, request) = self.session(request)?;
        let id = parse::consent(request)?;
        let read = session.consent(&id).await?;
        let consent = Some(render::consent(read.resource, &id, read.etag));
        Ok(Response::new(GetConsentResponse { consent, revision: read.revision.0 }))
    }

    async fn delete_consent(
        &self,
        request: Request<DeleteConsentRequest>,
    ) -> Result<Response<DeleteConsentResponse>, Status> {
        let (session, request) = self.session(request)?;
        let (id, options) = parse::delete_consent(request)?;
        let written = session.delete_consent(&id, &options).await?;
        let revision = written.revision.0;
        let consent = Some(reply::consent(&id, written));
        Ok(Response::new(DeleteConsentResponse { consent, revision }))
    }
}
