//! Parse: the only way from messages to values. Text becomes typed here, once, and every field
//! that is wrong is named.
//!
//! Not here: whether what is named exists.

use std::fmt::Display;
use std::mem;

use jiff::Timestamp;

use crate::authority::listing::Holding;
use crate::authority::people::ConsentId;
use crate::authority::{
    CompanyChange, CredentialChange, NewCompany, NewCredential, Restoration, Restriction, Terms,
};
use crate::policy::catalog::endpoint::Path;
use crate::policy::catalog::file::is_method;
use crate::policy::change::Author;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Needs, Query};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::secret::Presented;
use crate::policy::token::Token;
use crate::proto;

/// The most scopes that a check can ask for.
pub const MAX_CHECK_SCOPES: usize = 1_000;
/// The most checks of a batch.
pub const MAX_CHECKS: usize = 1_000;
/// The most roles of a user.
pub const MAX_ROLES: usize = 1_000;
/// The most scopes that a change can name.
pub const MAX_CHANGE_SCOPES: usize = 100_000;
/// The most bytes of a name or label for people.
pub const MAX_LABEL: usize = 256;
/// The most bytes of a reason.
pub const MAX_REASON: usize = 1_024;
/// Who makes a change as long as callers are not authenticated.
pub const ANONYMOUS: &str = "anonymous";

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

/// Why a request cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Fields are malformed.
    Malformed(Vec<Violation>),
    /// A list is longer than its limit.
    TooMany(Violation),
    /// The request asks for what this version does not do yet.
    NotYet(&'static str),
}

/// Reads fields one by one, and remembers what is wrong.
#[derive(Default)]
struct Fields {
    /// Where in the request the fields stand.
    prefix: String,
    wrong: Vec<Violation>,
    too_many: Option<Violation>,
    not_yet: Option<&'static str>,
}

impl Fields {
    fn wrong(&mut self, field: impl Into<String>, description: impl Display) {
        let field = format!("{}{}", self.prefix, field.into());
        self.wrong.push(Violation { field, description: description.to_string() });
    }

    fn too_many(&mut self, field: &str, description: String) {
        let field = format!("{}{field}", self.prefix);
        self.too_many = Some(Violation { field, description });
    }

    fn take<T, E: Display>(&mut self, field: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.wrong(field, error)).ok()
    }

    fn company(&mut self, text: String) -> Option<CompanyId> {
        self.take("company_id", CompanyId::parse(text))
    }

    fn credential(&mut self, text: String) -> Option<CredentialId> {
        self.take("credential_id", CredentialId::parse(text))
    }

    /// Scopes in the order named, once each.
    fn scopes(&mut self, field: &str, texts: Vec<String>, limit: usize) -> Vec<Scope> {
        if texts.len() > limit {
            self.too_many(field, format!("names {} scopes, the limit is {limit}", texts.len()));
            return vec![];
        }
        let mut scopes: Vec<Scope> = Vec::with_capacity(texts.len());
        for (n, text) in texts.into_iter().enumerate() {
            match Scope::parse(text) {
                // Short lists, which checks have, are not worth a set.
                Ok(scope) if limit > MAX_CHECK_SCOPES || !scopes.contains(&scope) => {
                    scopes.push(scope)
                }
                Ok(_) => {}
                Err(error) => self.wrong(format!("{field}[{n}]"), error),
            }
        }
        scopes
    }

    fn some_scopes(&mut self, texts: Vec<String>) -> Vec<Scope> {
        if texts.is_empty() {
            self.wrong("scopes", "must name at least one scope");
        }
        self.scopes("scopes", texts, MAX_CHANGE_SCOPES)
    }

    fn line(&mut self, field: &str, text: String, limit: usize) -> String {
        if text.len() > limit {
            self.wrong(field, format_args!("has {} bytes, the limit is {limit}", text.len()));
        } else if text.chars().any(char::is_control) {
            self.wrong(field, "must not have control characters");
        }
        text
    }

    fn moment(&mut self, field: &str, stamp: Option<prost_types::Timestamp>) -> Option<Timestamp> {
        let stamp = stamp?;
        // google.protobuf.Timestamp: years 1 to 9999, nanoseconds counted forward.
        let valid = (-62_135_596_800..=253_402_300_799).contains(&stamp.seconds)
            && (0..1_000_000_000).contains(&stamp.nanos);
        if !valid {
            self.wrong(field, "is not a time between the years 1 and 9999");
            return None;
        }
        // The library's last moment is a day before the format's: both mean never.
        Some(Timestamp::new(stamp.seconds, stamp.nanos).unwrap_or(Timestamp::MAX))
    }

    fn terms(&mut self, raw: RawTerms) -> Terms {
        if !raw.request_id.is_empty() {
            self.not_yet = Some("`request_id`");
        }
        let author = Author {
            actor: ANONYMOUS.to_owned(),
            on_behalf_of: self.line("on_behalf_of", raw.on_behalf_of, MAX_LABEL),
            reason: self.line("reason", raw.reason, MAX_REASON),
        };
        let etag = (!raw.etag.is_empty()).then_some(raw.etag);
        Terms { author, etag, validate_only: raw.validate_only }
    }

    /// Which of the allowed fields the mask names.
    fn mask(&mut self, mask: Option<prost_types::FieldMask>, allowed: &[&str]) -> Vec<String> {
        let paths = mask.unwrap_or_default().paths;
        for (n, path) in paths.iter().enumerate() {
            if !allowed.contains(&path.as_str()) {
                let allowed = allowed.join("`, `");
                let message = format!("`{path}` cannot be changed here; these can: `{allowed}`");
                self.wrong(format!("update_mask.paths[{n}]"), message);
            }
        }
        paths
    }

    /// The value, if no field was wrong.
    fn finish<T>(self, value: Option<T>) -> Result<T, Rejection> {
        if let Some(violation) = self.too_many {
            return Err(Rejection::TooMany(violation));
        }
        match value {
            Some(value) if self.wrong.is_empty() => match self.not_yet {
                Some(what) => Err(Rejection::NotYet(what)),
                None => Ok(value),
            },
            _ => Err(Rejection::Malformed(self.wrong)),
        }
    }
}

/// The fields that every change has.
struct RawTerms {
    etag: String,
    validate_only: bool,
    request_id: String,
    reason: String,
    on_behalf_of: String,
}

macro_rules! terms {
    ($request:ident) => {
        RawTerms {
            etag: mem::take(&mut $request.etag),
            validate_only: $request.validate_only,
            request_id: mem::take(&mut $request.request_id),
            reason: mem::take(&mut $request.reason),
            on_behalf_of: mem::take(&mut $request.on_behalf_of),
        }
    };
}

/// A check as asked, and the revision that it waits for.
pub(super) fn check(request: proto::CheckRequest) -> Result<(Query, Revision), Rejection> {
    let mut fields = Fields::default();
    let query = fields.check(request);
    fields.finish(query)
}

/// The checks of a batch, and the latest revision that one of them waits for.
pub(super) fn batch(
    request: proto::BatchCheckRequest,
) -> Result<(Vec<Query>, Revision), Rejection> {
    let mut fields = Fields::default();
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
        fields.prefix = format!("checks[{n}].");
        if let Some((query, revision)) = fields.check(check) {
            at_least = at_least.max(revision);
            queries.push(query);
        }
    }
    fields.finish(Some((queries, at_least)))
}

/// The check to explain.
pub(super) fn explain(request: proto::ExplainCheckRequest) -> Result<(Query, Revision), Rejection> {
    let mut fields = Fields::default();
    let Some(check) = request.check else {
        fields.wrong("check", "must be given");
        return fields.finish(None);
    };
    fields.prefix = "check.".to_owned();
    let query = fields.check(check);
    fields.finish(query)
}

/// For whom to list what is allowed: a query that needs nothing.
pub(super) fn effective(request: proto::ListEffectiveScopesRequest) -> Result<Query, Rejection> {
    let mut fields = Fields::default();
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let audience = fields.audience(&request.audience);
    let token = request.token.map(|token| fields.token(token));
    let user = fields.user("user_id", request.user_id);
    fields.finish(ids.map(|(company, credential)| {
        let needs = Needs::Scopes(vec![]);
        Query { company, credential, needs, audience, token, user, owner: None }
    }))
}

impl Fields {
    fn check(&mut self, request: proto::CheckRequest) -> Option<(Query, Revision)> {
        let company = self.company(request.company_id);
        let credential = self.credential(request.credential_id);
        let needs = match request.endpoint {
            Some(_) if !request.scopes.is_empty() => {
                self.wrong("endpoint", "must not stand beside `scopes`: name one of them");
                None
            }
            Some(endpoint) => {
                if !is_method(&endpoint.method) {
                    let wrong = "is not a method: 1 to 32 letters, such as `GET`, or `GRPC`";
                    self.wrong("endpoint.method", wrong);
                }
                let path = self.take("endpoint.path", Path::parse(endpoint.path));
                path.map(|path| Needs::Endpoint { method: endpoint.method.into(), path })
            }
            None => {
                if request.scopes.is_empty() {
                    self.wrong(
                        "scopes",
                        "must name at least one scope, or `endpoint` one endpoint",
                    );
                }
                Some(Needs::Scopes(self.scopes("scopes", request.scopes, MAX_CHECK_SCOPES)))
            }
        };
        let audience = self.audience(&request.audience);
        let token = request.token.map(|token| self.token(token));
        let user = self.user("user_id", request.user_id);
        let owner = self.user("resource_owner_id", request.resource_owner_id);
        let at_least = Revision(request.at_least_revision);
        let (company, credential, needs) = (company?, credential?, needs?);
        Some((Query { company, credential, needs, audience, token, user, owner }, at_least))
    }

    fn audience(&mut self, text: &str) -> Option<Name> {
        if text.is_empty() { None } else { self.take("audience", Name::parse(text)) }
    }

    /// A user that may be left out.
    fn user(&mut self, field: &str, text: String) -> Option<UserId> {
        if text.is_empty() { None } else { self.take(field, UserId::parse(text)) }
    }

    fn token(&mut self, token: proto::Token) -> Token {
        Token {
            // Any text is the name of somebody's audience: of ours, or of none of ours.
            audience: self.line("token.audience", token.audience, MAX_LABEL),
            scopes: self.scopes("token.scopes", token.scopes, MAX_CHECK_SCOPES),
            issued_at: self.moment("token.issued_at", token.issued_at),
            expires_at: self.moment("token.expires_at", token.expires_at),
            user: self.user("token.user_id", token.user_id),
        }
    }
}

type CredentialCall = (CompanyId, CredentialId, CredentialChange, Terms);

fn credential_call(
    mut fields: Fields,
    company: String,
    credential: String,
    change: CredentialChange,
    terms: RawTerms,
) -> Result<CredentialCall, Rejection> {
    let ids = fields.company(company).zip(fields.credential(credential));
    let terms = fields.terms(terms);
    fields.finish(ids.map(|(company, credential)| (company, credential, change, terms)))
}

pub(super) fn grant(mut request: proto::GrantScopesRequest) -> Result<CredentialCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let scopes = fields.some_scopes(request.scopes);
    let expires_at = fields.moment("expires_at", request.expires_at);
    let change = CredentialChange::Grant { scopes, expires_at };
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(super) fn revoke(mut request: proto::RevokeScopesRequest) -> Result<CredentialCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let change = CredentialChange::Revoke(fields.some_scopes(request.scopes));
    credential_call(fields, request.company_id, request.credential_id, change, terms)
}

pub(super) fn replace(
    mut request: proto::ReplaceScopesRequest,
) -> Result<CredentialCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
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

pub(super) fn reset(mut request: proto::ResetScopesRequest) -> Result<CredentialCall, Rejection> {
    let terms = terms!(request);
    let change = CredentialChange::Reset;
    credential_call(Fields::default(), request.company_id, request.credential_id, change, terms)
}

pub(super) fn update_credential(
    mut request: proto::UpdateCredentialRequest,
) -> Result<CredentialCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
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

pub(super) fn delete_credential(
    mut request: proto::DeleteCredentialRequest,
) -> Result<CredentialCall, Rejection> {
    let terms = terms!(request);
    let change = CredentialChange::Delete;
    credential_call(Fields::default(), request.company_id, request.credential_id, change, terms)
}

type CompanyCall = (CompanyId, CompanyChange, Terms);

fn company_call(
    mut fields: Fields,
    company: String,
    change: CompanyChange,
    terms: RawTerms,
) -> Result<CompanyCall, Rejection> {
    let company = fields.company(company);
    let terms = fields.terms(terms);
    fields.finish(company.map(|company| (company, change, terms)))
}

pub(super) fn add_company_scopes(
    mut request: proto::AddCompanyScopesRequest,
) -> Result<CompanyCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let change = CompanyChange::AddScopes(fields.some_scopes(request.scopes));
    company_call(fields, request.company_id, change, terms)
}

pub(super) fn update_company(
    mut request: proto::UpdateCompanyRequest,
) -> Result<CompanyCall, Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let paths = fields.mask(request.update_mask, &["display_name", "enabled"]);
    let masked = |path: &str| paths.iter().any(|p| p == path);
    let display_name = fields.line("display_name", request.display_name, MAX_LABEL);
    let change = CompanyChange::Update {
        display_name: masked("display_name").then_some(display_name),
        enabled: masked("enabled").then_some(request.enabled),
    };
    company_call(fields, request.company_id, change, terms)
}

pub(super) fn delete_company(
    mut request: proto::DeleteCompanyRequest,
) -> Result<CompanyCall, Rejection> {
    let terms = terms!(request);
    company_call(Fields::default(), request.company_id, CompanyChange::Delete, terms)
}

pub(super) fn restrict(
    mut request: proto::RestrictCompanyScopesRequest,
) -> Result<(Restriction, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let acknowledge_impact = request.acknowledge_impact;
    let restriction = company.map(|company| Restriction { company, scopes, acknowledge_impact });
    fields.finish(restriction.map(|restriction| (restriction, terms)))
}

pub(super) fn restore(
    mut request: proto::RestoreGrantsRequest,
) -> Result<(Restoration, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let company = fields.company(request.company_id);
    let scopes = fields.some_scopes(request.scopes);
    let restricted_at = Revision(request.restricted_at_revision);
    if restricted_at == Revision::ZERO {
        fields.wrong("restricted_at_revision", "must be the revision of the restriction");
    }
    let restoration = company.map(|company| Restoration { company, scopes, restricted_at });
    fields.finish(restoration.map(|restoration| (restoration, terms)))
}

pub(super) fn create_company(
    mut request: proto::CreateCompanyRequest,
) -> Result<(NewCompany, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let id = fields.company(request.company_id);
    let display_name = fields.line("display_name", request.display_name, MAX_LABEL);
    let scopes = request.scopes.map(|s| fields.scopes("scopes.names", s.names, MAX_CHANGE_SCOPES));
    fields.finish(id.map(|id| (NewCompany { id, display_name, scopes }, terms)))
}

pub(super) fn create_credential(
    mut request: proto::CreateCredentialRequest,
) -> Result<(NewCredential, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let label = fields.line("label", request.label, MAX_LABEL);
    let scopes = fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES);
    let expires_at = fields.moment("expires_at", request.expires_at);
    fields.finish(
        ids.map(|(company, id)| (NewCredential { company, id, label, scopes, expires_at }, terms)),
    )
}

pub(super) fn apply_catalog(
    mut request: proto::ApplyCatalogRequest,
) -> Result<(String, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    if request.yaml.trim().is_empty() {
        fields.wrong("yaml", "must be a catalog file");
    }
    fields.finish(Some((request.yaml, terms)))
}

pub(super) fn create_secret(
    mut request: proto::CreateSecretRequest,
) -> Result<(CompanyId, CredentialId, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    fields.finish(ids.map(|(company, credential)| (company, credential, terms)))
}

pub(super) fn delete_secret(
    mut request: proto::DeleteSecretRequest,
) -> Result<(CompanyId, CredentialId, Name, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let secret = fields.take("secret_id", Name::parse(request.secret_id));
    let all = ids.zip(secret);
    fields.finish(all.map(|((company, credential), secret)| (company, credential, secret, terms)))
}

/// Whose secret to verify; the secret is none if it does not read as one.
pub(super) fn verify_secret(
    request: proto::VerifySecretRequest,
) -> Result<(CompanyId, Option<CredentialId>, Option<Presented>), Rejection> {
    let mut fields = Fields::default();
    let company = fields.company(request.company_id);
    let named = match request.credential_id.as_str() {
        "" => None,
        text => fields.take("credential_id", CredentialId::parse(text)),
    };
    let presented = Presented::parse(request.secret);
    fields.finish(company.map(|company| (company, named, presented)))
}

pub(super) fn put_user(
    mut request: proto::PutUserRequest,
) -> Result<(CompanyId, UserId, Vec<Name>, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
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

pub(super) fn delete_user(
    mut request: proto::DeleteUserRequest,
) -> Result<(CompanyId, UserId, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let ids = fields.company(request.company_id).zip(fields.named_user(request.user_id));
    fields.finish(ids.map(|(company, user)| (company, user, terms)))
}

pub(super) fn user(company: String, user: String) -> Result<(CompanyId, UserId), Rejection> {
    let mut fields = Fields::default();
    let ids = fields.company(company).zip(fields.named_user(user));
    fields.finish(ids)
}

pub(super) fn put_consent(
    mut request: proto::PutConsentRequest,
) -> Result<(ConsentId, Vec<Scope>, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    let scopes = fields.scopes("scopes", request.scopes, MAX_CHANGE_SCOPES);
    fields.finish(id.map(|id| (id, scopes, terms)))
}

pub(super) fn delete_consent(
    mut request: proto::DeleteConsentRequest,
) -> Result<(ConsentId, Terms), Rejection> {
    let mut fields = Fields::default();
    let terms = terms!(request);
    let terms = fields.terms(terms);
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id.map(|id| (id, terms)))
}

pub(super) fn consent(request: proto::GetConsentRequest) -> Result<ConsentId, Rejection> {
    let mut fields = Fields::default();
    let id = fields.consent(request.company_id, request.credential_id, request.user_id);
    fields.finish(id)
}

impl Fields {
    fn named_user(&mut self, text: String) -> Option<UserId> {
        self.take("user_id", UserId::parse(text))
    }

    fn consent(&mut self, company: String, credential: String, user: String) -> Option<ConsentId> {
        let company = self.company(company);
        let (credential, user) = (self.credential(credential), self.named_user(user));
        Some(ConsentId { company: company?, credential: credential?, user: user? })
    }
}

pub(super) fn company(text: String) -> Result<CompanyId, Rejection> {
    let mut fields = Fields::default();
    let id = fields.company(text);
    fields.finish(id)
}

pub(super) fn credential(
    company: String,
    credential: String,
) -> Result<(CompanyId, CredentialId), Rejection> {
    let mut fields = Fields::default();
    let ids = fields.company(company).zip(fields.credential(credential));
    fields.finish(ids)
}

pub(super) fn holding(scope: String, include_dormant: bool) -> Result<Option<Holding>, Rejection> {
    let mut fields = Fields::default();
    if scope.is_empty() {
        if include_dormant {
            fields.wrong("include_dormant", "needs a `scope` whose grants may be dormant");
        }
        return fields.finish(Some(None));
    }
    let scope = fields.take("scope", Scope::parse(scope));
    fields.finish(scope.map(|scope| Some(Holding { scope, include_dormant })))
}

pub(super) fn optional_company(text: Option<String>) -> Result<Option<CompanyId>, Rejection> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => company(text).map(Some),
        None => Ok(None),
    }
}

/// The rejection of one field.
pub(super) fn malformed(field: &str, description: &str) -> Rejection {
    let mut fields = Fields::default();
    fields.wrong(field, description);
    Rejection::Malformed(fields.wrong)
}
