//! Keys: the requests that read or change an API key.

use super::raw_write_options;
use crate::authority::WriteOptions;
use crate::authority::api_keys::NewKey;
use crate::policy::caller::ANONYMOUS;
use crate::policy::id::{CompanyId, Name};
use crate::policy::role::{Role, Roles};
use crate::policy::token::key_set::Thumbprint;
use crate::proto;
use crate::wire::render;
use crate::wire::validate::{FieldValidator, InvalidRequest, MAX_CERTIFICATE_NAME, MAX_ROLES};

pub(crate) fn create_key(
    mut request: proto::CreateKeyRequest,
) -> Result<(NewKey, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let name = fields.take("name", Name::parse(request.name));
    if name.as_ref().is_some_and(|name| name.as_str() == ANONYMOUS) {
        fields.wrong("name", "is reserved for callers without a key");
    }
    if request.roles.is_empty() {
        fields.wrong("roles", "must have at least one role");
    }
    let mut roles = Roles::NONE;
    for (n, role) in request.roles.into_iter().enumerate() {
        match role_of(role) {
            Some(role) => roles = roles.with(role),
            None => fields.wrong(format!("roles[{n}]"), "is not a role"),
        }
    }
    if request.company_ids.len() > MAX_ROLES {
        let count = request.company_ids.len();
        fields.too_many("company_ids", format!("has {count} companies, the limit is {MAX_ROLES}"));
    }
    let mut companies = Vec::new();
    for (n, company) in request.company_ids.into_iter().take(MAX_ROLES).enumerate() {
        companies.extend(fields.take(&format!("company_ids[{n}]"), CompanyId::parse(company)));
    }
    companies.sort_unstable();
    companies.dedup();
    if roles.has(Role::CompanyAdmin) && companies.is_empty() {
        fields.wrong("company_ids", "must have at least one company for a company admin");
    }
    let certificate = fields.line("certificate", request.certificate, MAX_CERTIFICATE_NAME);
    let certificate = (!certificate.is_empty()).then(|| certificate.into_boxed_str());
    if request.certificate_only && certificate.is_none() {
        fields.wrong("certificate", "must be set with `certificate_only`");
    }
    let certificate_only = request.certificate_only;
    let expires_at = fields.moment("expires_at", request.expires_at);
    let new = name.map(|name| NewKey {
        name,
        roles,
        companies,
        certificate,
        certificate_only,
        expires_at,
    });
    fields.finish(new.map(|new| (new, options)))
}

fn role_of(role: i32) -> Option<Role> {
    Role::ALL.into_iter().find(|known| render::role(*known) as i32 == role)
}

pub(crate) fn delete_key(
    mut request: proto::DeleteKeyRequest,
) -> Result<(Name, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let id = fields.take("key_id", Name::parse(request.key_id));
    fields.finish(id.map(|id| (id, options)))
}

pub(crate) fn rotate_signing_key(
    mut request: proto::RotateSigningKeyRequest,
) -> Result<(bool, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    fields.finish(Some((request.publish_only, options)))
}

pub(crate) fn delete_signing_key(
    mut request: proto::DeleteSigningKeyRequest,
) -> Result<(Thumbprint, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    let id = Thumbprint::parse(&request.key_id);
    if id.is_none() {
        fields.wrong("key_id", "is not the id of a signing key: see ListSigningKeys");
    }
    fields.finish(id.map(|id| (id, options)))
}

pub(crate) fn key(id: String) -> Result<Name, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.take("key_id", Name::parse(id));
    fields.finish(id)
}
