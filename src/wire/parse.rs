//! Parse: the only way from messages to values. Text becomes typed here, once, and every field
//! that is wrong is named.
//!
//! Not here: whether what is named exists.

use std::mem;

use prost::Message;

use super::validate::{
    Auds, FieldValidator, InvalidRequest, MAX_CERTIFICATE_NAME, MAX_CHANGE_SCOPES, MAX_CHECKS,
    MAX_IMPORTED, MAX_LABEL, MAX_QUOTED, MAX_ROLES, Place, RawWriteOptions,
};
use crate::authority::api_keys::NewKey;
use crate::authority::consents::ConsentId;
use crate::authority::history::ChangeFilter;
use crate::authority::queries::ScopeFilter;
use crate::authority::secrets::SecretOf;
use crate::authority::{
    CompanyChange, CredentialChange, NewCompany, NewCredential, RestoreGrants, Restriction,
    WriteOptions,
};
use crate::grpc::access::Authorized;
use crate::policy::caller::{ANONYMOUS, Caller, Role, Roles};
use crate::policy::change::ChangeKind;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Query, Requirement};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::secret::{SecretKind, SecretText};
use crate::policy::text;
use crate::proto;

macro_rules! terms {
    ($caller:ident, $request:ident) => {
        RawWriteOptions {
            caller: $caller,
            body: digest(&$request.request_id, &$request),
            etag: mem::take(&mut $request.etag),
            validate_only: $request.validate_only,
            request_id: mem::take(&mut $request.request_id),
            reason: mem::take(&mut $request.reason),
            on_behalf_of: mem::take(&mut $request.on_behalf_of),
        }
    };
}

/// A digest of all that a request asks for, if it may be sent again.
fn digest(request_id: &str, request: &impl Message) -> [u8; 32] {
    if request_id.is_empty() {
        return [0; 32];
    }
    *blake3::hash(&request.encode_to_vec()).as_bytes()
}

/// A check as asked, and the revision that it waits for.
pub(crate) fn check(
    request: proto::CheckRequest,
    auds: Auds<'_>,
) -> Result<(Query, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let query = fields.check(request, auds);
    fields.finish(query)
}

/// The checks of a batch, and the latest revision that one of them waits for.
pub(crate) fn batch(
    request: proto::BatchCheckRequest,
    auds: Auds<'_>,
) -> Result<(Vec<Query>, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = request.checks.len();
    if count == 0 {
        fields.wrong("checks", "must have at least one check");
    }
    if count > MAX_CHECKS {
        fields.too_many("checks", format!("has {count} checks, the limit is {MAX_CHECKS}"));
        return fields.finish(None);
    }
    let mut at_least = Revision::ZERO;
    let mut queries = Vec::with_capacity(count);
    for (n, check) in request.checks.into_iter().enumerate() {
        fields.place = Place::Checks(n);
        if let Some((query, revision)) = fields.check(check, auds) {
            at_least = at_least.max(revision);
            queries.push(query);
        }
    }
    fields.finish(Some((queries, at_least)))
}

/// The check to explain.
pub(crate) fn explain(
    request: proto::ExplainCheckRequest,
    auds: Auds<'_>,
) -> Result<(Query, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let Some(check) = request.check else {
        fields.wrong("check", "must be given");
        return fields.finish(None);
    };
    fields.place = Place::Check;
    let query = fields.check(check, auds);
    fields.finish(query)
}

/// For whom to list what is allowed: a query that needs nothing.
pub(crate) fn effective(
    request: proto::ListEffectiveScopesRequest,
    auds: Auds<'_>,
) -> Result<Query, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let audience = fields.audience(&request.audience, auds);
    let token = request.token.map(|token| fields.token(token));
    let user = fields.user("user_id", request.user_id);
    fields.finish(ids.map(|(company, credential)| {
        let needs = Requirement::Scopes(vec![]);
        Query { company, credential, needs, audience, token, user, owner: None }
    }))
}

type CredentialCall = (CompanyId, CredentialId, CredentialChange, WriteOptions);

fn credential_call(
    mut fields: FieldValidator,
    company: String,
    credential: String,
    change: CredentialChange,
    terms: RawWriteOptions,
) -> Result<CredentialCall, InvalidRequest> {
    let ids = fields.company(company).zip(fields.credential(credential));
    let terms = fields.terms(terms);
    fields.finish(ids.map(|(company, credential)| (company, credential, change, terms)))
}

pub(crate) fn grant(
    Authorized { caller, mut request }: Authorized<proto::GrantScopesRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let scopes = fields.some_scopes(request.scopes);
    let expires_at = fields.moment("expires_at", request.expires_at);
    let change = CredentialChange::Grant { scopes, expires_at };
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(crate) fn revoke(
    Authorized { caller, mut request }: Authorized<proto::RevokeScopesRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let change = CredentialChange::Revoke(fields.some_scopes(request.scopes));
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(crate) fn replace(
    Authorized { caller, mut request }: Authorized<proto::ReplaceScopesRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    if request.scopes.is_empty() && !request.allow_empty {
        fields.wrong(
            "scopes",
            "is empty: set `allow_empty` to leave the credential without any scope",
        );
    }
    let change =
        CredentialChange::Replace(fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES));
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(crate) fn reset(
    Authorized { caller, mut request }: Authorized<proto::ResetScopesRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let terms = terms!(caller, request);
    let change = CredentialChange::Reset;
    credential_call(
        FieldValidator::default(),
        request.company_id,
        request.credential_id,
        change,
        terms,
    )
}

pub(crate) fn update_credential(
    Authorized { caller, mut request }: Authorized<proto::UpdateCredentialRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let paths = fields.mask(request.update_mask, &["label", "enabled", "expires_at"]);
    let masked = |path: &str| paths.iter().any(|p| p == path);
    let label = fields.line("label", request.label, MAX_LABEL);
    let expires_at = fields.moment("expires_at", request.expires_at);
    let change = CredentialChange::Update {
        label: masked("label").then_some(label),
        enabled: masked("enabled").then_some(request.enabled),
        expires_at: masked("expires_at").then_some(expires_at),
    };
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(crate) fn delete_credential(
    Authorized { caller, mut request }: Authorized<proto::DeleteCredentialRequest>,
) -> Result<CredentialCall, InvalidRequest> {
    let terms = terms!(caller, request);
    let change = CredentialChange::Delete;
    credential_call(
        FieldValidator::default(),
        request.company_id,
        request.credential_id,
        change,
        terms,
    )
}

type CompanyCall = (CompanyId, CompanyChange, WriteOptions);

fn company_call(
    mut fields: FieldValidator,
    company: String,
    change: CompanyChange,
    terms: RawWriteOptions,
) -> Result<CompanyCall, InvalidRequest> {
    let company = fields.company(company);
    let terms = fields.terms(terms);
    fields.finish(company.map(|company| (company, change, terms)))
}

pub(crate) fn add_company_scopes(
    Authorized { caller, mut request }: Authorized<proto::AddCompanyScopesRequest>,
) -> Result<CompanyCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let change = CompanyChange::AddScopes(fields.some_scopes(request.scopes));
    company_call(fields, request.company_id, change, terms)
}

pub(crate) fn update_company(
    Authorized { caller, mut request }: Authorized<proto::UpdateCompanyRequest>,
) -> Result<CompanyCall, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let paths = fields.mask(request.update_mask, &["display_name", "enabled"]);
    let masked = |path: &str| paths.iter().any(|p| p == path);
    let display_name = fields.line("display_name", request.display_name, MAX_LABEL);
    let change = CompanyChange::Update {
        display_name: masked("display_name").then_some(display_name),
        enabled: masked("enabled").then_some(request.enabled),
    };
    company_call(fields, request.company_id, change, terms)
}

pub(crate) fn delete_company(
    Authorized { caller, mut request }: Authorized<proto::DeleteCompanyRequest>,
) -> Result<CompanyCall, InvalidRequest> {
    let terms = terms!(caller, request);
    company_call(FieldValidator::default(), request.company_id, CompanyChange::Delete, terms)
}

pub(crate) fn restrict(
    Authorized { caller, mut request }: Authorized<proto::RestrictCompanyScopesRequest>,
) -> Result<(Restriction, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let acknowledge_impact = request.acknowledge_impact;
    let restriction = company.map(|company| Restriction { company, scopes, acknowledge_impact });
    fields.finish(restriction.map(|restriction| (restriction, terms)))
}

pub(crate) fn restore(
    Authorized { caller, mut request }: Authorized<proto::RestoreGrantsRequest>,
) -> Result<(RestoreGrants, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let restricted_at = Revision(request.restricted_at_revision);
    if restricted_at == Revision::ZERO {
        fields.wrong("restricted_at_revision", "must be the revision of the restriction");
    }
    let restoration = company.map(|company| RestoreGrants { company, scopes, restricted_at });
    fields.finish(restoration.map(|restoration| (restoration, terms)))
}

pub(crate) fn create_company(
    Authorized { caller, mut request }: Authorized<proto::CreateCompanyRequest>,
) -> Result<(NewCompany, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let new = new_company(&mut fields, request.company_id, request.display_name, request.scopes);
    fields.finish(new.map(|new| (new, terms)))
}

fn new_company(
    fields: &mut FieldValidator,
    id: String,
    display_name: String,
    scopes: Option<proto::Scopes>,
) -> Option<NewCompany> {
    let id = fields.new_company(id);
    let display_name = fields.line("display_name", display_name, MAX_LABEL);
    let scopes = scopes.map(|s| fields.scopes("scopes.names", s.names, MAX_CHANGE_SCOPES));
    Some(NewCompany { id: id?, display_name, scopes })
}

pub(crate) fn create_credential(
    Authorized { caller, mut request }: Authorized<proto::CreateCredentialRequest>,
) -> Result<(NewCredential, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let new = proto::ImportedCredential {
        company_id: request.company_id,
        credential_id: request.credential_id,
        label: request.label,
        scopes: request.scopes,
        expires_at: request.expires_at,
        ..Default::default()
    };
    let new = new_credential(&mut fields, new);
    fields.finish(new.map(|new| (new, terms)))
}

fn new_credential(
    fields: &mut FieldValidator,
    new: proto::ImportedCredential,
) -> Option<NewCredential> {
    let ids = fields.company(new.company_id).zip(fields.new_credential(new.credential_id));
    let label = fields.line("label", new.label, MAX_LABEL);
    let scopes = fields.scopes("scopes", new.scopes, MAX_CHANGE_SCOPES);
    let expires_at = fields.moment("expires_at", new.expires_at);
    let enabled = new.enabled.unwrap_or(true);
    let (company, id) = ids?;
    Some(NewCredential { company, id, label, scopes, expires_at, enabled })
}

/// The terms of an import, which its first message has.
pub(crate) fn import_terms(
    caller: &Caller,
    first: &proto::ImportCredentialsRequest,
) -> Result<WriteOptions, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = fields.terms(RawWriteOptions {
        caller: caller.clone(),
        body: [0; 32],
        etag: String::new(),
        validate_only: first.validate_only,
        request_id: String::new(),
        reason: first.reason.clone(),
        on_behalf_of: first.on_behalf_of.clone(),
    });
    fields.finish(Some(terms))
}

/// Refuses a message of an import that is too large, or that has other terms than the first.
pub(crate) fn import_message(
    message: &proto::ImportCredentialsRequest,
    terms: &WriteOptions,
) -> Result<(), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = message.companies.len() + message.credentials.len();
    if count > MAX_IMPORTED {
        let description = format!("has {count} items, the limit is {MAX_IMPORTED}");
        fields.too_many("message", description);
    }
    // Left out, they are those of the first message. A dry run that begins in the middle would
    // be taken for one of all.
    let otherwise = "is not that of the first message, which counts for the whole import";
    if message.validate_only && !terms.validate_only {
        fields.wrong("validate_only", otherwise);
    }
    if !["", terms.author.reason.as_str()].contains(&message.reason.as_str()) {
        fields.wrong("reason", otherwise);
    }
    if !["", terms.author.on_behalf_of.as_str()].contains(&message.on_behalf_of.as_str()) {
        fields.wrong("on_behalf_of", otherwise);
    }
    fields.finish(Some(()))
}

/// A company of an import; `index` is its place in the message.
pub(crate) fn imported_company(
    index: usize,
    new: proto::ImportedCompany,
) -> Result<NewCompany, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.place = Place::Companies(index);
    let new = new_company(&mut fields, new.company_id, new.display_name, new.scopes);
    fields.finish(new)
}

/// A credential of an import; `index` is its place in the message.
pub(crate) fn imported_credential(
    index: usize,
    new: proto::ImportedCredential,
) -> Result<NewCredential, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.place = Place::Credentials(index);
    let new = new_credential(&mut fields, new);
    fields.finish(new)
}

pub(crate) fn apply_catalog(
    Authorized { caller, mut request }: Authorized<proto::ApplyCatalogRequest>,
) -> Result<(String, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    if request.yaml.trim().is_empty() {
        fields.wrong("yaml", "must be a catalog file");
    }
    fields.finish(Some((request.yaml, terms)))
}

pub(crate) fn create_secret(
    Authorized { caller, mut request }: Authorized<proto::CreateSecretRequest>,
) -> Result<(CompanyId, CredentialId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    fields.finish(ids.map(|(company, credential)| (company, credential, terms)))
}

pub(crate) fn delete_secret(
    Authorized { caller, mut request }: Authorized<proto::DeleteSecretRequest>,
) -> Result<(CompanyId, CredentialId, Name, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let secret = fields.take("secret_id", Name::parse(request.secret_id));
    let all = ids.zip(secret);
    fields.finish(all.map(|((company, credential), secret)| (company, credential, secret, terms)))
}

/// Whose secret to verify; the secret is none if it does not read as one.
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

pub(crate) fn put_user(
    Authorized { caller, mut request }: Authorized<proto::PutUserRequest>,
) -> Result<(CompanyId, UserId, Vec<Name>, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.named_user(request.user_id));
    if request.roles.len() > MAX_ROLES {
        let count = request.roles.len();
        fields.too_many("roles", format!("names {count} roles, the limit is {MAX_ROLES}"));
    }
    let mut roles = Vec::new();
    for (n, role) in request.roles.into_iter().take(MAX_ROLES).enumerate() {
        roles.extend(fields.take(&format!("roles[{n}]"), Name::parse(role)));
    }
    fields.finish(ids.map(|(company, user)| (company, user, roles, terms)))
}

pub(crate) fn delete_user(
    Authorized { caller, mut request }: Authorized<proto::DeleteUserRequest>,
) -> Result<(CompanyId, UserId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.named_user(request.user_id));
    fields.finish(ids.map(|(company, user)| (company, user, terms)))
}

pub(crate) fn user(company: String, user: String) -> Result<(CompanyId, UserId), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(company).zip(fields.named_user(user));
    fields.finish(ids)
}

pub(crate) fn put_consent(
    Authorized { caller, mut request }: Authorized<proto::PutConsentRequest>,
) -> Result<(ConsentId, Vec<Scope>, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    let scopes = fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES);
    fields.finish(id.map(|id| (id, scopes, terms)))
}

pub(crate) fn delete_consent(
    Authorized { caller, mut request }: Authorized<proto::DeleteConsentRequest>,
) -> Result<(ConsentId, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id.map(|id| (id, terms)))
}

pub(crate) fn consent(request: proto::GetConsentRequest) -> Result<ConsentId, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id)
}

pub(crate) fn company(text: String) -> Result<CompanyId, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.company(text);
    fields.finish(id)
}

pub(crate) fn credential(
    company: String,
    credential: String,
) -> Result<(CompanyId, CredentialId), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(company).zip(fields.credential(credential));
    fields.finish(ids)
}

pub(crate) fn holding(
    scope: String,
    include_dormant: bool,
) -> Result<Option<ScopeFilter>, InvalidRequest> {
    let mut fields = FieldValidator::default();
    if scope.is_empty() {
        if include_dormant {
            fields.wrong("include_dormant", "needs a `scope` whose grants may be dormant");
        }
        return fields.finish(Some(None));
    }
    let scope = fields.take("scope", Scope::parse(scope));
    fields.finish(scope.map(|scope| Some(ScopeFilter { scope, include_dormant })))
}

pub(crate) fn optional_company(text: Option<String>) -> Result<Option<CompanyId>, InvalidRequest> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => company(text).map(Some),
        None => Ok(None),
    }
}

/// Which changes are wanted, and of which company.
pub(crate) fn wanted_changes(
    request: proto::ListChangesRequest,
) -> Result<(Option<CompanyId>, ChangeFilter), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let company = request.company_id.filter(|id| !id.is_empty());
    let company = company.and_then(|id| fields.company(id));
    let credential = (!request.credential_id.is_empty()).then_some(request.credential_id);
    if credential.is_some() && company.is_none() {
        fields.wrong("credential_id", "needs the `company_id` of its company");
    }
    let credential = credential.and_then(|id| fields.credential(id));
    let mut kinds = Vec::new();
    for (n, name) in request.kinds.iter().enumerate() {
        match ChangeKind::of(name) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(kind) => kinds.push(kind),
            None => {
                let all: Vec<_> = ChangeKind::ALL.iter().map(|kind| kind.name()).collect();
                let (name, all) = (text::quoted(name, MAX_QUOTED), all.join("`, `"));
                let wrong = format!("is {name}, which is no kind of change: the kinds are `{all}`");
                fields.wrong(format!("kinds[{n}]"), wrong);
            }
        }
    }
    let start = fields.moment("start_time", request.start_time);
    let end = fields.moment("end_time", request.end_time);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        fields.wrong("end_time", "must be later than `start_time`");
    }
    let actor = fields.line("actor", request.actor, MAX_LABEL);
    let wanted = ChangeFilter {
        newest_first: request.newest_first,
        after: Some(Revision(request.after_revision)).filter(|after| *after > Revision::ZERO),
        start,
        end,
        actor: Some(actor).filter(|actor| !actor.is_empty()),
        kinds,
        credential,
    };
    fields.finish(Some((company, wanted)))
}

pub(crate) fn create_key(
    Authorized { caller, mut request }: Authorized<proto::CreateKeyRequest>,
) -> Result<(NewKey, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let name = fields.take("name", Name::parse(request.name));
    if name.as_ref().is_some_and(|name| name.as_str() == ANONYMOUS) {
        fields.wrong("name", "is that of callers without a key");
    }
    if request.roles.is_empty() {
        fields.wrong("roles", "must have at least one role");
    }
    let mut roles = Roles::NONE;
    for (n, role) in request.roles.into_iter().enumerate() {
        match proto::Role::try_from(role).ok().and_then(role_of) {
            Some(role) => roles = roles.with(role),
            None => fields.wrong(format!("roles[{n}]"), "is no role"),
        }
    }
    if request.company_ids.len() > MAX_ROLES {
        let count = request.company_ids.len();
        fields
            .too_many("company_ids", format!("names {count} companies, the limit is {MAX_ROLES}"));
    }
    let mut companies = Vec::new();
    for (n, company) in request.company_ids.into_iter().take(MAX_ROLES).enumerate() {
        companies.extend(fields.take(&format!("company_ids[{n}]"), CompanyId::parse(company)));
    }
    companies.sort_unstable();
    companies.dedup();
    if roles.has(Role::CompanyAdmin) && companies.is_empty() {
        fields.wrong("company_ids", "must bind a company admin to its companies");
    }
    let certificate = fields.line("certificate", request.certificate, MAX_CERTIFICATE_NAME);
    let certificate = (!certificate.is_empty()).then(|| certificate.into_boxed_str());
    if request.certificate_only && certificate.is_none() {
        fields.wrong("certificate", "must be given if it shall be enough");
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
    fields.finish(new.map(|new| (new, terms)))
}

fn role_of(role: proto::Role) -> Option<Role> {
    match role {
        proto::Role::Unspecified => None,
        proto::Role::Service => Some(Role::Service),
        proto::Role::CompanyAdmin => Some(Role::CompanyAdmin),
        proto::Role::Identity => Some(Role::Identity),
        proto::Role::Operator => Some(Role::Operator),
        proto::Role::Auditor => Some(Role::Auditor),
    }
}

pub(crate) fn delete_key(
    Authorized { caller, mut request }: Authorized<proto::DeleteKeyRequest>,
) -> Result<(Name, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = terms!(caller, request);
    let terms = fields.terms(terms);
    let id = fields.take("key_id", Name::parse(request.key_id));
    fields.finish(id.map(|id| (id, terms)))
}

pub(crate) fn key(id: String) -> Result<Name, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let id = fields.take("key_id", Name::parse(id));
    fields.finish(id)
}
