//! Validate: reads the fields of a message one by one and collects a violation for each malformed field.
//!
//! Not here: the fields of each request; see [`super::parse`].

use std::collections::HashSet;
use std::fmt::{self, Display};

use jiff::Timestamp;
use uuid::Uuid;

use crate::authority::consents::ConsentId;
use crate::authority::problem::{Code, Detail, Problem, Violation};
use crate::authority::{IdempotencyKey, WriteOptions};
use crate::policy::catalog::AudienceError;
use crate::policy::catalog::endpoint::RequestPath;
use crate::policy::catalog::file::MAX_AUDIENCE_LEN;
use crate::policy::catalog::file::is_method;
use crate::policy::client_credential::ClientCredential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Client, Query, Request, Requirement, Subject};
use crate::policy::reason::Reason;
use crate::policy::redirect_uri::{MAX_REDIRECT_URIS, RedirectUri};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::text;
use crate::policy::token::{PresentedToken, Token, TokenAudience};
use crate::proto;

/// The most scopes of a check.
pub const MAX_CHECK_SCOPES: usize = 1_000;
/// The most checks of a batch.
pub const MAX_CHECKS: usize = 1_000;
/// The most distinct credentials of clients in a batch (T37).
pub const MAX_CLIENT_CREDENTIALS: usize = 100;
/// The most companies and credentials of one message of an import.
pub const MAX_IMPORTED: usize = 1_000;
/// The most roles of a user.
pub const MAX_ROLES: usize = 1_000;
/// The most scopes of a change.
pub const MAX_CHANGE_SCOPES: usize = 100_000;
/// The most bytes of a display name or label.
pub const MAX_LABEL: usize = 256;
/// The most bytes of a reason.
pub const MAX_REASON: usize = 1_024;
/// The most bytes of the name of a client certificate.
pub const MAX_CERTIFICATE_NAME: usize = 2_048;

/// The most bytes of a request's text that an error quotes.
pub const MAX_QUOTED: usize = 64;

/// The most violations that are kept; the rest is only counted.
pub const MAX_VIOLATIONS: usize = 20;

/// Why a request is malformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidRequest {
    /// Fields are malformed: the first [`MAX_VIOLATIONS`] of them, and the number of all.
    Malformed(Vec<Violation>, usize),
    /// A list is longer than its limit.
    TooMany(Violation),
}

impl std::error::Error for InvalidRequest {}

/// All violations in one line, for a caller that has no other way to show them.
impl Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (violations, count) = match self {
            Self::Malformed(violations, count) => (violations.as_slice(), *count),
            Self::TooMany(violation) => (std::slice::from_ref(violation), 1),
        };
        for (n, Violation { subject: field, description }) in violations.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}`{field}` {description}")?;
        }
        match count.saturating_sub(violations.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl From<InvalidRequest> for Problem {
    fn from(invalid: InvalidRequest) -> Self {
        let message = match &invalid {
            InvalidRequest::Malformed(violations, count) if violations.len() != 1 => {
                format!("{count} fields are malformed; see the details")
            }
            _ => invalid.to_string(),
        };
        match invalid {
            InvalidRequest::Malformed(violations, count) => {
                Self::new(Code::InvalidArgument, "MALFORMED_REQUEST", message)
                    .with_violations(Detail::Fields, violations)
                    .with_count(count)
            }
            InvalidRequest::TooMany(violation) => {
                Self::new(Code::ResourceExhausted, "LIMIT_EXCEEDED", message)
                    .with_violations(Detail::Quotas, [violation])
            }
        }
    }
}

/// The path prefix of fields in a request. It is formatted only for a violation.
#[derive(Clone, Copy, Default)]
pub(crate) enum FieldPrefix {
    /// The request itself.
    #[default]
    Request,
    /// The field `check`.
    Check,
    /// The item of `checks` with this index.
    Checks(usize),
    /// The item of `companies` with this index.
    Companies(usize),
    /// The item of `credentials` with this index.
    Credentials(usize),
    /// The settings of a gateway's route, such as Envoy's `context_extensions`.
    Route,
}

impl Display for FieldPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => Ok(()),
            Self::Check => f.write_str("check."),
            Self::Checks(n) => write!(f, "checks[{n}]."),
            Self::Companies(n) => write!(f, "companies[{n}]."),
            Self::Credentials(n) => write!(f, "credentials[{n}]."),
            Self::Route => f.write_str("context_extensions."),
        }
    }
}

/// Reads fields one by one and collects violations.
#[derive(Default)]
pub(crate) struct FieldValidator {
    /// The path prefix of the fields that are read.
    pub(crate) prefix: FieldPrefix,
    violations: Vec<Violation>,
    violation_count: usize,
    too_many: Option<Violation>,
}

impl FieldValidator {
    pub(crate) fn wrong(&mut self, field: impl Into<String>, description: impl Display) {
        self.violation_count += 1;
        if self.violations.len() == MAX_VIOLATIONS {
            return;
        }
        let field = format!("{}{}", self.prefix, field.into());
        self.violations.push(Violation::new(field, description.to_string()));
    }

    pub(crate) fn too_many(&mut self, field: &str, description: String) {
        let field = format!("{}{field}", self.prefix);
        self.too_many = Some(Violation::new(field, description));
    }

    pub(crate) fn take<T, E: Display>(&mut self, field: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.wrong(field, error)).ok()
    }

    pub(crate) fn company(&mut self, text: String) -> Option<CompanyId> {
        self.take("company_id", CompanyId::parse(text))
    }

    /// The id of a company that is to be created.
    pub(crate) fn new_company(&mut self, text: String) -> Option<CompanyId> {
        self.take("company_id", CompanyId::parse_new(text))
    }

    /// The id of a credential that is to be created.
    pub(crate) fn new_credential(&mut self, text: String) -> Option<CredentialId> {
        self.take("credential_id", CredentialId::parse_new(text))
    }

    pub(crate) fn credential(&mut self, text: String) -> Option<CredentialId> {
        self.take("credential_id", CredentialId::parse(text))
    }

    /// Scopes in the order of the request, with duplicates: an error names a scope by its index in the
    /// request.
    pub(crate) fn scopes(&mut self, field: &str, texts: Vec<String>, limit: usize) -> Vec<Scope> {
        self.read_scopes(field, texts, limit, |_, _| true)
    }

    /// Scopes in the order of the request, without duplicates.
    pub(crate) fn scopes_once(&mut self, field: &str, texts: Vec<String>) -> Vec<Scope> {
        let mut seen = None;
        self.read_scopes(field, texts, MAX_CHECK_SCOPES, |before, scope| match before.len() {
            // For a few scopes, comparing is faster than hashing.
            0..8 => !before.contains(scope),
            _ => fresh(&mut seen, before, scope),
        })
    }

    fn read_scopes(
        &mut self,
        field: &str,
        texts: Vec<String>,
        limit: usize,
        mut keep: impl FnMut(&[Scope], &Scope) -> bool,
    ) -> Vec<Scope> {
        if texts.len() > limit {
            self.too_many(field, format!("has {} scopes, the limit is {limit}", texts.len()));
            return vec![];
        }
        let mut scopes: Vec<Scope> = Vec::with_capacity(texts.len());
        for (n, text) in texts.into_iter().enumerate() {
            match Scope::parse(text) {
                Ok(scope) => {
                    if keep(&scopes, &scope) {
                        scopes.push(scope);
                    }
                }
                Err(error) => self.wrong(format!("{field}[{n}]"), error),
            }
        }
        scopes
    }

    pub(crate) fn some_scopes(&mut self, texts: Vec<String>) -> Vec<Scope> {
        if texts.is_empty() {
            self.wrong("scopes", "must have at least one scope");
        }
        self.scopes("scopes", texts, MAX_CHANGE_SCOPES)
    }

    pub(crate) fn line(&mut self, field: &str, text: String, limit: usize) -> String {
        if text.len() > limit {
            self.wrong(field, format_args!("has {} bytes, the limit is {limit}", text.len()));
        } else if let Err(error) = text::check_line(&text) {
            self.wrong(field, error);
        }
        text
    }

    /// Redirect URIs in the order of the request.
    pub(crate) fn redirect_uris(&mut self, texts: Vec<String>) -> Vec<RedirectUri> {
        if texts.len() > MAX_REDIRECT_URIS {
            let count = texts.len();
            let text = format!("has {count} URIs, the limit is {MAX_REDIRECT_URIS}");
            self.too_many("redirect_uris", text);
            return vec![];
        }
        let mut uris: Vec<RedirectUri> = Vec::with_capacity(texts.len());
        for (n, text) in texts.iter().enumerate() {
            let field = format!("redirect_uris[{n}]");
            match self.take(&field, RedirectUri::parse(text)) {
                Some(uri) if uris.contains(&uri) => self.wrong(field, "is there twice"),
                uri => uris.extend(uri),
            }
        }
        uris
    }

    pub(crate) fn moment(
        &mut self,
        field: &str,
        stamp: Option<prost_types::Timestamp>,
    ) -> Option<Timestamp> {
        let stamp = stamp?;
        // google.protobuf.Timestamp: years 1 to 9999, nanoseconds counted forward.
        let valid = (-62_135_596_800..=253_402_300_799).contains(&stamp.seconds)
            && (0..1_000_000_000).contains(&stamp.nanos);
        if !valid {
            self.wrong(field, "is not a time between the years 1 and 9999");
            return None;
        }
        // The last time of `jiff` is a day before that of the format: both mean never.
        Some(Timestamp::new(stamp.seconds, stamp.nanos).unwrap_or(Timestamp::MAX))
    }

    pub(crate) fn write_options(&mut self, raw: RawWriteOptions) -> WriteOptions {
        let request = match raw.request_id.as_str() {
            "" => None,
            text => self.take("request_id", request_id(text)),
        };
        let request = request.map(|id| IdempotencyKey { id, body: raw.body });
        let on_behalf_of = self.line("on_behalf_of", raw.on_behalf_of, MAX_LABEL);
        let reason = self.line("reason", raw.reason, MAX_REASON);
        let etag = (!raw.etag.is_empty()).then_some(raw.etag);
        WriteOptions { reason, on_behalf_of, etag, validate_only: raw.validate_only, request }
    }

    /// The paths of a field mask, which must be among the allowed fields.
    pub(crate) fn mask(
        &mut self,
        mask: Option<prost_types::FieldMask>,
        allowed: &[&str],
    ) -> Vec<String> {
        let paths = mask.unwrap_or_default().paths;
        for (n, path) in paths.iter().enumerate() {
            if !allowed.contains(&path.as_str()) {
                let allowed = allowed.join("`, `");
                let path = text::quoted(path, MAX_QUOTED);
                let message = format!("`{path}` cannot be changed here; these can: `{allowed}`");
                self.wrong(format!("update_mask.paths[{n}]"), message);
            }
        }
        paths
    }

    /// The value, if there is no violation.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, InvalidRequest> {
        if let Some(violation) = self.too_many {
            return Err(InvalidRequest::TooMany(violation));
        }
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(InvalidRequest::Malformed(self.violations, self.violation_count)),
        }
    }
}

/// A `request_id` in the text form of RFC 9562.
fn request_id(text: &str) -> Result<Uuid, &'static str> {
    let hyphened = text.len() == 36;
    match Uuid::try_parse(text) {
        Ok(id) if hyphened && !id.is_nil() => Ok(id),
        Ok(id) if id.is_nil() => Err("is the nil UUID: send a random one for each request"),
        _ => Err("is not a UUID, such as `6f1c0a52-9d5e-4a6b-8f0e-2c4d1b3a7e90`"),
    }
}

/// Whether a scope is not among the scopes before it.
fn fresh(seen: &mut Option<HashSet<Scope>>, before: &[Scope], scope: &Scope) -> bool {
    seen.get_or_insert_with(|| before.iter().cloned().collect()).insert(scope.clone())
}

/// The fields that every request for a change has, before validation.
pub(crate) struct RawWriteOptions {
    pub(crate) etag: String,
    pub(crate) validate_only: bool,
    pub(crate) request_id: String,
    /// A digest of the whole request, if it has a `request_id`.
    pub(crate) body: [u8; 32],
    pub(crate) reason: String,
    pub(crate) on_behalf_of: String,
}

/// The fields of a check that say for whom it is decided, before validation.
pub(crate) struct RawSubject {
    pub(crate) company: String,
    pub(crate) credential: String,
    pub(crate) token: Option<proto::Token>,
    pub(crate) bearer_token: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// For whom a check is decided.
pub(crate) enum AskedSubject {
    /// The request states it.
    Stated { company: CompanyId, credential: CredentialId, token: Option<PresentedToken> },
    /// A client proves it.
    Client(Client),
}

impl AskedSubject {
    /// The request of a check for this subject.
    pub(crate) fn request(
        self,
        needs: Requirement,
        audience: Option<Name>,
        user: Option<UserId>,
        owner: Option<UserId>,
    ) -> Request {
        let query = |subject, token| Query {
            subject,
            needs,
            audience,
            token,
            user,
            owner,
            denies_own: false,
        };
        match self {
            Self::Stated { company, credential, token } => Request {
                query: query(Subject::Known { company, credential }, token),
                client: None,
            },
            Self::Client(client) => {
                let unproven = Subject::Unproven(Reason::TokenRequired.into());
                Request { query: query(unproven, None), client: Some(client) }
            }
        }
    }
}

/// Finds the audience that has this `aud` string, if there is one.
pub(crate) type Auds<'a> = &'a dyn Fn(&str) -> Option<Name>;

impl FieldValidator {
    pub(crate) fn check(
        &mut self,
        request: proto::CheckRequest,
        auds: Auds<'_>,
    ) -> Option<(Request, Revision)> {
        let subject = self.subject(RawSubject {
            company: request.company_id,
            credential: request.credential_id,
            token: request.token,
            bearer_token: request.bearer_token,
            authorization: request.authorization,
        });
        let needs = match request.endpoint {
            Some(_) if !request.scopes.is_empty() => {
                self.wrong("endpoint", "must not be set together with `scopes`: set one of them");
                None
            }
            Some(endpoint) => {
                if !is_method(&endpoint.method) {
                    let wrong = "is not a method: a method has 1 to 32 letters, `-` and `_`, such as `GET`, or is `GRPC`";
                    self.wrong("endpoint.method", wrong);
                }
                let path = self.take("endpoint.path", RequestPath::parse(endpoint.path));
                path.map(|path| Requirement::Endpoint { method: endpoint.method.into(), path })
            }
            None => {
                if request.scopes.is_empty() {
                    self.wrong("scopes", "must have at least one scope, or `endpoint` must be set");
                }
                Some(Requirement::Scopes(self.scopes_once("scopes", request.scopes)))
            }
        };
        let audience = self.audience(&request.audience, auds);
        let user = self.user("user_id", request.user_id);
        let owner = self.user("resource_owner_id", request.resource_owner_id);
        let at_least = Revision(request.at_least_revision);
        let request = |subject: AskedSubject, needs| subject.request(needs, audience, user, owner);
        Some((request(subject?, needs?), at_least))
    }

    /// For whom a request asks. A client that presents a credential may leave out its ids.
    pub(crate) fn subject(&mut self, raw: RawSubject) -> Option<AskedSubject> {
        let RawSubject { company, credential, token, bearer_token, authorization } = raw;
        let set = [
            ("token", token.is_some()),
            ("bearer_token", bearer_token.is_some()),
            ("authorization", authorization.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, is_set)| *is_set).skip(1) {
            self.wrong(field, "must not be set together with another one of `token`, `bearer_token` and `authorization`: set one of them");
        }
        let token = token.map(|token| self.token(token));
        let bearer_token = bearer_token.map(ClientCredential::bearer_token);
        let authorization = || authorization.map(|header| ClientCredential::authorization(&header));
        let Some(presented) = bearer_token.or_else(authorization) else {
            let (company, credential) = (self.company(company), self.credential(credential));
            let token = token.map(PresentedToken::Stated);
            return Some(AskedSubject::Stated {
                company: company?,
                credential: credential?,
                token,
            });
        };
        let company = (!company.is_empty()).then(|| self.company(company)).flatten();
        let credential = (!credential.is_empty()).then(|| self.credential(credential)).flatten();
        Some(AskedSubject::Client(Client { presented, company, credential }))
    }

    pub(crate) fn audience(&mut self, text: &str, auds: Auds<'_>) -> Option<Name> {
        if text.is_empty() {
            return None;
        }
        let name = Name::parse(text);
        // A URL is not a valid name. If it is an `aud` string of an audience, the error says which name to send.
        if name.is_err()
            && let Some(audience) = auds(text)
        {
            self.wrong("audience", AudienceError::NamedByAud { aud: text.to_owned(), audience });
            return None;
        }
        self.take("audience", name)
    }

    /// An optional user.
    pub(crate) fn user(&mut self, field: &str, text: String) -> Option<UserId> {
        if text.is_empty() { None } else { self.take(field, UserId::parse(text)) }
    }

    pub(crate) fn token(&mut self, token: proto::Token) -> Token {
        Token {
            // Any text is valid: a token may be for an audience that is not in the catalog.
            audience: TokenAudience::Stated(self.line(
                "token.audience",
                token.audience,
                MAX_AUDIENCE_LEN,
            )),
            scopes: self.scopes_once("token.scopes", token.scopes),
            issued_at: self.moment("token.issued_at", token.issued_at),
            expires_at: self.moment("token.expires_at", token.expires_at),
            user: self.user("token.user_id", token.user_id),
            not_before: None,
            clock_skew: None,
        }
    }
}

impl FieldValidator {
    pub(crate) fn named_user(&mut self, text: String) -> Option<UserId> {
        self.take("user_id", UserId::parse(text))
    }

    pub(crate) fn consent(
        &mut self,
        company: String,
        credential: String,
        user: String,
    ) -> Option<ConsentId> {
        let company = self.company(company);
        let (credential, user) = (self.credential(credential), self.named_user(user));
        Some(ConsentId { company: company?, credential: credential?, user: user? })
    }
}

/// The error of one malformed field.
pub(crate) fn malformed(field: &str, description: &str) -> InvalidRequest {
    let mut fields = FieldValidator::default();
    fields.wrong(field, description);
    InvalidRequest::Malformed(fields.violations, 1)
}
