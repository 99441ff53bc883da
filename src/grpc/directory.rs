//! DirectoryService: companies, credentials, secrets, users and consents.

use tonic::Status;

use super::{reply, warnings};
use crate::authority::Session;
use crate::authority::authorization_codes::RedirectTo;
use crate::authority::secrets::Verification;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::secret::SecretText;
use crate::proto::*;
use crate::wire::pagination::{self, PageTokens, after, next};
use crate::wire::{parse, render};

pub(super) async fn create_company(
    session: Session<'_>,
    request: CreateCompanyRequest,
) -> Result<CreateCompanyResponse, Status> {
    let (new, options) = parse::create_company(request)?;
    let written = session.create_company(&new, &options).await?;
    let revision = written.revision.0;
    let company = Some(reply::company(&new.id, written));
    Ok(CreateCompanyResponse { company, revision })
}

pub(super) async fn get_company(
    session: Session<'_>,
    request: GetCompanyRequest,
) -> Result<GetCompanyResponse, Status> {
    let id = parse::company(request.company_id)?;
    let read = session.company(&id).await?;
    let (company, revision) = (render::company(read.resource, read.etag), read.revision.0);
    Ok(GetCompanyResponse { company: Some(company), revision })
}

pub(super) async fn list_companies(
    session: Session<'_>,
    request: ListCompaniesRequest,
) -> Result<ListCompaniesResponse, Status> {
    let size = pagination::size(request.page_size)?;
    let list = PageTokens::new(session.incarnation(), "ListCompanies", &[]);
    let after = after(&list, &request.page_token, CompanyId::parse)?;
    let page = session.companies(after, size).await?;
    Ok(ListCompaniesResponse {
        next_page_token: next(&list, &page, |item| item.company.id.as_str()),
        revision: page.revision.0,
        companies: page.items.into_iter().map(|(view, etag)| render::company(view, etag)).collect(),
    })
}

pub(super) async fn update_company(
    session: Session<'_>,
    request: UpdateCompanyRequest,
) -> Result<UpdateCompanyResponse, Status> {
    let (id, change, options) = parse::update_company(request)?;
    let written = session.change_company(&id, &change, &options).await?;
    let revision = written.revision.0;
    let company = Some(reply::company(&id, written));
    Ok(UpdateCompanyResponse { company, revision })
}

pub(super) async fn delete_company(
    session: Session<'_>,
    request: DeleteCompanyRequest,
) -> Result<DeleteCompanyResponse, Status> {
    let (id, change, options) = parse::delete_company(request)?;
    let written = session.change_company(&id, &change, &options).await?;
    let revision = written.revision.0;
    let company = Some(reply::company(&id, written));
    Ok(DeleteCompanyResponse { company, revision })
}

pub(super) async fn create_credential(
    session: Session<'_>,
    request: CreateCredentialRequest,
) -> Result<CreateCredentialResponse, Status> {
    let (new, options) = parse::create_credential(request)?;
    let written = session.create_credential(&new, &options).await?;
    let revision = written.revision.0;
    let credential = Some(reply::credential(&new.company, &new.id, written));
    Ok(CreateCredentialResponse { credential, revision })
}

pub(super) async fn get_credential(
    session: Session<'_>,
    request: GetCredentialRequest,
) -> Result<GetCredentialResponse, Status> {
    let (company, id) = parse::credential(request.company_id, request.credential_id)?;
    let read = session.credential(&company, &id).await?;
    let (credential, revision) = (render::credential(read.resource, read.etag), read.revision.0);
    Ok(GetCredentialResponse { credential: Some(credential), revision })
}

pub(super) async fn list_credentials(
    session: Session<'_>,
    request: ListCredentialsRequest,
) -> Result<ListCredentialsResponse, Status> {
    let size = pagination::size(request.page_size)?;
    let dormant = if request.include_dormant { "dormant" } else { "" };
    let parameters = [&request.company_id, &request.scope, dormant];
    let list = PageTokens::new(session.incarnation(), "ListCredentials", &parameters);
    let after = after(&list, &request.page_token, CredentialId::parse)?;
    let company = parse::company(request.company_id)?;
    let holding = parse::scope_filter(request.scope, request.include_dormant)?;
    let page = session.credentials(&company, holding.as_ref(), after, size).await?;
    Ok(ListCredentialsResponse {
        next_page_token: next(&list, &page, |item| item.credential.id.as_str()),
        revision: page.revision.0,
        credentials: page.items.into_iter().map(|(v, etag)| render::credential(v, etag)).collect(),
    })
}

pub(super) async fn update_credential(
    session: Session<'_>,
    request: UpdateCredentialRequest,
) -> Result<UpdateCredentialResponse, Status> {
    let (company, id, change, options) = parse::update_credential(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    let revision = written.revision.0;
    let credential = Some(reply::credential(&company, &id, written));
    Ok(UpdateCredentialResponse { credential, revision })
}

pub(super) async fn delete_credential(
    session: Session<'_>,
    request: DeleteCredentialRequest,
) -> Result<DeleteCredentialResponse, Status> {
    let (company, id, change, options) = parse::delete_credential(request)?;
    let written = session.change_credential(&company, &id, &change, &options).await?;
    let revision = written.revision.0;
    let credential = Some(reply::credential(&company, &id, written));
    Ok(DeleteCredentialResponse { credential, revision })
}

pub(super) async fn create_secret(
    session: Session<'_>,
    request: CreateSecretRequest,
) -> Result<CreateSecretResponse, Status> {
    let (company, id, options) = parse::create_secret(request)?;
    let created = session.create_secret(&company, &id, &options).await?;
    Ok(CreateSecretResponse {
        secret_id: created.id.map(|id| id.to_string()).unwrap_or_default(),
        secret: created.secret.map(SecretText::reveal).unwrap_or_default(),
        revision: created.revision.0,
    })
}

pub(super) async fn delete_secret(
    session: Session<'_>,
    request: DeleteSecretRequest,
) -> Result<DeleteSecretResponse, Status> {
    let (company, id, secret, options) = parse::delete_secret(request)?;
    let written = session.delete_secret(&company, &id, &secret, &options).await?;
    let revision = written.revision.0;
    let credential = Some(reply::credential(&company, &id, written));
    Ok(DeleteSecretResponse { credential, revision })
}

pub(super) async fn revoke_tokens(
    session: Session<'_>,
    request: RevokeTokensRequest,
) -> Result<RevokeTokensResponse, Status> {
    let (company, id, issued_before, options) = parse::revoke_tokens(request)?;
    let written = session.revoke_tokens(&company, &id, issued_before, &options).await?;
    let revision = written.revision.0;
    let credential = Some(reply::credential(&company, &id, written));
    Ok(RevokeTokensResponse { credential, revision })
}

pub(super) async fn verify_secret(
    session: Session<'_>,
    request: VerifySecretRequest,
) -> Result<VerifySecretResponse, Status> {
    let (owner, secret) = parse::verify_secret(request)?;
    let verification = match secret {
        Some(secret) => session.verify_secret(&owner, &secret).await?,
        None => Verification::Wrong,
    };
    Ok(render::verification(verification))
}

pub(super) async fn put_user(
    session: Session<'_>,
    request: PutUserRequest,
) -> Result<PutUserResponse, Status> {
    let (company, id, roles, options) = parse::put_user(request)?;
    let written = session.put_user(&company, &id, &roles, &options).await?;
    let warnings = warnings::of_roles(&session, &roles).await;
    let revision = written.revision.0;
    let user = Some(reply::user(&company, &id, written));
    Ok(PutUserResponse { user, revision, warnings })
}

pub(super) async fn get_user(
    session: Session<'_>,
    request: GetUserRequest,
) -> Result<GetUserResponse, Status> {
    let (company, id) = parse::user(request.company_id, request.user_id)?;
    let read = session.user(&company, &id).await?;
    let user = Some(render::user(read.resource, &company, read.etag));
    Ok(GetUserResponse { user, revision: read.revision.0 })
}

pub(super) async fn list_users(
    session: Session<'_>,
    request: ListUsersRequest,
) -> Result<ListUsersResponse, Status> {
    let size = pagination::size(request.page_size)?;
    let list = PageTokens::new(session.incarnation(), "ListUsers", &[&request.company_id]);
    let after = after(&list, &request.page_token, UserId::parse)?;
    let company = parse::company(request.company_id)?;
    let page = session.users(&company, after, size).await?;
    Ok(ListUsersResponse {
        next_page_token: next(&list, &page, |user| user.id.as_str()),
        revision: page.revision.0,
        users: page.items.into_iter().map(|(u, etag)| render::user(u, &company, etag)).collect(),
    })
}

pub(super) async fn delete_user(
    session: Session<'_>,
    request: DeleteUserRequest,
) -> Result<DeleteUserResponse, Status> {
    let (company, id, options) = parse::delete_user(request)?;
    let written = session.delete_user(&company, &id, &options).await?;
    let revision = written.revision.0;
    let user = Some(reply::user(&company, &id, written));
    Ok(DeleteUserResponse { user, revision })
}

pub(super) async fn put_consent(
    session: Session<'_>,
    request: PutConsentRequest,
) -> Result<PutConsentResponse, Status> {
    let (id, scopes, options) = parse::put_consent(request)?;
    let written = session.put_consent(&id, &scopes, &options).await?;
    let revision = written.revision.0;
    let consent = Some(reply::consent(&id, written));
    Ok(PutConsentResponse { consent, revision })
}

pub(super) async fn create_authorization_code(
    session: Session<'_>,
    request: CreateAuthorizationCodeRequest,
) -> Result<CreateAuthorizationCodeResponse, Status> {
    let (new, options) = parse::create_authorization_code(request)?;
    let created = session.create_authorization_code(&new, &options).await?;
    Ok(CreateAuthorizationCodeResponse {
        code: created.code.map(SecretText::reveal).unwrap_or_default(),
        scopes: created.scopes.iter().map(ToString::to_string).collect(),
        expires_at: created.expires_at.map(render::stamp),
        redirect_to: created.redirect_to.map(|RedirectTo(uri)| uri).unwrap_or_default(),
        revision: created.revision.0,
    })
}

pub(super) async fn get_consent(
    session: Session<'_>,
    request: GetConsentRequest,
) -> Result<GetConsentResponse, Status> {
    let id = parse::consent(request)?;
    let read = session.consent(&id).await?;
    let consent = Some(render::consent(read.resource, &id, read.etag));
    Ok(GetConsentResponse { consent, revision: read.revision.0 })
}

pub(super) async fn delete_consent(
    session: Session<'_>,
    request: DeleteConsentRequest,
) -> Result<DeleteConsentResponse, Status> {
    let (id, options) = parse::delete_consent(request)?;
    let written = session.delete_consent(&id, &options).await?;
    let revision = written.revision.0;
    let consent = Some(reply::consent(&id, written));
    Ok(DeleteConsentResponse { consent, revision })
}
