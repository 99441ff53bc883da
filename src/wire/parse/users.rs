//! Users: the requests that read or change a user or a consent.

use super::raw_write_options;
use crate::authority::WriteOptions;
use crate::authority::authorization_codes::NewAuthorizationCode;
use crate::authority::consents::ConsentId;
use crate::policy::id::{CompanyId, Name, UserId};
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::scope::Scope;
use crate::policy::token::authorization_code::CodeChallenge;
use crate::proto;
use crate::wire::validate::{FieldValidator, InvalidRequest, MAX_CHANGE_SCOPES, MAX_ROLES};

/// The most bytes of the `state` of an authorization request.
const MAX_STATE: usize = 2_048;

pub(crate) fn put_user(
    mut request: proto::PutUserRequest,
) -> Result<(CompanyId, UserId, Vec<Name>, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let ids = fields.company(request.company_id).zip(fields.named_user(request.user_id));
    if request.roles.len() > MAX_ROLES {
        let count = request.roles.len();
        fields.too_many("roles", format!("has {count} roles, the limit is {MAX_ROLES}"));
    }
    let mut roles = Vec::new();
    for (n, role) in request.roles.into_iter().take(MAX_ROLES).enumerate() {
        roles.extend(fields.take(&format!("roles[{n}]"), Name::parse(role)));
    }
    fields.finish(ids.map(|(company, user)| (company, user, roles, options)))
}

pub(crate) fn delete_user(
    mut request: proto::DeleteUserRequest,
) -> Result<(CompanyId, UserId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let ids = fields.company(request.company_id).zip(fields.named_user(request.user_id));
    fields.finish(ids.map(|(company, user)| (company, user, options)))
}

pub(crate) fn user(company: String, user: String) -> Result<(CompanyId, UserId), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(company).zip(fields.named_user(user));
    fields.finish(ids)
}

pub(crate) fn put_consent(
    mut request: proto::PutConsentRequest,
) -> Result<(ConsentId, Vec<Scope>, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    let scopes = fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES);
    fields.finish(id.map(|id| (id, scopes, options)))
}

pub(crate) fn create_authorization_code(
    mut request: proto::CreateAuthorizationCodeRequest,
) -> Result<(NewAuthorizationCode, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let consent = fields.consent(request.company_id, request.credential_id, request.user_id);
    let audience = fields.audience(&request.audience, &|_| None);
    let scopes = fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES);
    let redirect_uri = fields.take("redirect_uri", RedirectUri::parse(&request.redirect_uri));
    let challenge = CodeChallenge::parse(&request.code_challenge)
        .ok_or("is not a code challenge of the method S256: 43 characters of base64url");
    let challenge = fields.take("code_challenge", challenge);
    let state = request.state;
    if state.len() > MAX_STATE {
        fields.wrong("state", format_args!("has {} bytes, the limit is {MAX_STATE}", state.len()));
    } else if !state.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        fields.wrong("state", "has characters that are not printable ASCII");
    }
    let all = consent.zip(redirect_uri).zip(challenge);
    fields.finish(all.map(|((consent, redirect_uri), challenge)| {
        let new =
            NewAuthorizationCode { consent, audience, scopes, redirect_uri, challenge, state };
        (new, options)
    }))
}

pub(crate) fn delete_consent(
    mut request: proto::DeleteConsentRequest,
) -> Result<(ConsentId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id.map(|id| (id, options)))
}

pub(crate) fn consent(request: proto::GetConsentRequest) -> Result<ConsentId, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id)
}
