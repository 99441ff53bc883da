//! Credentials: the requests that read or change a credential, its grants or its secrets.

use jiff::Timestamp;

use super::raw_write_options;
use crate::authority::queries::ScopeFilter;
use crate::authority::secrets::SecretOf;
use crate::authority::{CredentialChange, NewCredential, WriteOptions};
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::scope::Scope;
use crate::policy::secret::{SecretKind, SecretText};
use crate::proto;
use crate::wire::validate::{
    FieldValidator, InvalidRequest, MAX_CHANGE_SCOPES, MAX_LABEL, RawWriteOptions,
};

type CredentialCall = (CompanyId, CredentialId, CredentialChange, WriteOptions);

fn credential_call(
    mut fields: FieldValidator,
    company: String,
    credential: String,
    change: CredentialChange,
    options: RawWriteOptions,
) -> Result<CredentialCall, InvalidRequest> {
    let ids = fields.company(company).zip(fields.credential(credential));
    let options = fields.write_options(options);
    fields.finish(ids.map(|(company, credential)| (company, credential, change, options)))
}

pub(crate) fn grant(
    mut request: proto::GrantScopesRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let scopes = fields.some_scopes(request.scopes);
    let expires_at = fields.moment("expires_at", request.expires_at);
    let change = CredentialChange::Grant { scopes, expires_at };
    credential_call(fields, request.company_id, request.credential_id, change, options)
}

pub(crate) fn revoke(
    mut request: proto::RevokeScopesRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let change = CredentialChange::Revoke(fields.some_scopes(request.scopes));
    credential_call(fields, request.company_id, request.credential_id, change, options)
}

pub(crate) fn replace(
    mut request: proto::ReplaceScopesRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    if request.scopes.is_empty() && !request.allow_empty {
        fields.wrong(
            "scopes",
            "is empty: set `allow_empty` to leave the credential without any scope",
        );
    }
    let change =
        CredentialChange::Replace(fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES));
    credential_call(fields, request.company_id, request.credential_id, change, options)
}

pub(crate) fn reset(
    mut request: proto::ResetScopesRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let options = raw_write_options!(request);
    let change = CredentialChange::Reset;
    credential_call(
        FieldValidator::default(),
        request.company_id,
        request.credential_id,
        change,
        options,
    )
}

pub(crate) fn update_credential(
    mut request: proto::UpdateCredentialRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let paths =
        fields.mask(request.update_mask, &["label", "enabled", "expires_at", "redirect_uris"]);
    let masked = |path: &str| paths.iter().any(|p| p == path);
    let label = fields.line("label", request.label, MAX_LABEL);
    let expires_at = fields.moment("expires_at", request.expires_at);
    let redirect_uris = fields.redirect_uris(request.redirect_uris);
    let change = CredentialChange::Update {
        label: masked("label").then_some(label),
        enabled: masked("enabled").then_some(request.enabled),
        expires_at: masked("expires_at").then_some(expires_at),
        redirect_uris: masked("redirect_uris").then_some(redirect_uris),
    };
    credential_call(fields, request.company_id, request.credential_id, change, options)
}

pub(crate) fn delete_credential(
    mut request: proto::DeleteCredentialRequest,
) -> Result<CredentialCall, InvalidRequest> {
    let options = raw_write_options!(request);
    let change = CredentialChange::Delete;
    credential_call(
        FieldValidator::default(),
        request.company_id,
        request.credential_id,
        change,
        options,
    )
}

pub(crate) fn create_credential(
    mut request: proto::CreateCredentialRequest,
) -> Result<(NewCredential, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let new = proto::ImportedCredential {
        company_id: request.company_id,
        credential_id: request.credential_id,
        label: request.label,
        scopes: request.scopes,
        expires_at: request.expires_at,
        redirect_uris: request.redirect_uris,
        ..Default::default()
    };
    let new = new_credential(&mut fields, new);
    fields.finish(new.map(|new| (new, options)))
}

pub(super) fn new_credential(
    fields: &mut FieldValidator,
    new: proto::ImportedCredential,
) -> Option<NewCredential> {
    let ids = fields.company(new.company_id).zip(fields.new_credential(new.credential_id));
    let label = fields.line("label", new.label, MAX_LABEL);
    let scopes = fields.scopes("scopes", new.scopes, MAX_CHANGE_SCOPES);
    let expires_at = fields.moment("expires_at", new.expires_at);
    let enabled = new.enabled.unwrap_or(true);
    let redirect_uris = fields.redirect_uris(new.redirect_uris);
    let tokens_valid_from = fields.moment("tokens_valid_from", new.tokens_valid_from);
    let (company, id) = ids?;
    Some(NewCredential {
        company,
        id,
        label,
        scopes,
        expires_at,
        enabled,
        redirect_uris,
        tokens_valid_from,
    })
}

pub(crate) fn create_secret(
    mut request: proto::CreateSecretRequest,
) -> Result<(CompanyId, CredentialId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    fields.finish(ids.map(|(company, credential)| (company, credential, options)))
}

pub(crate) fn delete_secret(
    mut request: proto::DeleteSecretRequest,
) -> Result<(CompanyId, CredentialId, Name, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let secret = fields.take("secret_id", Name::parse(request.secret_id));
    let all = ids.zip(secret);
    fields.finish(all.map(|((company, credential), secret)| (company, credential, secret, options)))
}

pub(crate) fn revoke_tokens(
    mut request: proto::RevokeTokensRequest,
) -> Result<(CompanyId, CredentialId, Option<Timestamp>, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let before = fields.moment("issued_before", request.issued_before);
    fields.finish(ids.map(|(company, credential)| (company, credential, before, options)))
}

/// The owner of the secret to verify, and the secret; none if the text is not a secret.
pub(crate) fn verify_secret(
    request: proto::VerifySecretRequest,
) -> Result<(SecretOf, Option<SecretText>), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let company = match request.company_id.as_str() {
        "" => None,
        text => fields.take("company_id", CompanyId::parse(text)),
    };
    let credential = match request.credential_id.as_str() {
        "" => None,
        text => fields.take("credential_id", CredentialId::parse(text)),
    };
    let presented = SecretText::parse(SecretKind::Credential, request.secret);
    fields.finish(Some((SecretOf { company, credential }, presented)))
}

pub(crate) fn credential(
    company: String,
    credential: String,
) -> Result<(CompanyId, CredentialId), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(company).zip(fields.credential(credential));
    fields.finish(ids)
}

pub(crate) fn scope_filter(
    scope: String,
    include_dormant: bool,
) -> Result<Option<ScopeFilter>, InvalidRequest> {
    let mut fields = FieldValidator::default();
    if scope.is_empty() {
        if include_dormant {
            fields.wrong("include_dormant", "needs a `scope`");
        }
        return fields.finish(Some(None));
    }
    let scope = fields.take("scope", Scope::parse(scope));
    fields.finish(scope.map(|scope| Some(ScopeFilter { scope, include_dormant })))
}
