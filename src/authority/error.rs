//! Error: why a call to scopegate itself is not carried out. A denial is not an error: it is a reply
//! (D14).
//!
//! Not here: the code and the details of every variant; see [`super::problem`].

use uuid::Uuid;

use super::impact::Impact;
use crate::policy::catalog::AudienceError;
use crate::policy::credential::AboveCeiling;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::token::key_set::Thumbprint;
use crate::store::StoreError;

/// Why a call is rejected. Nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    /// The call names scopes that the catalog lacks.
    #[error("the catalog has no scope {}", names(.unknown))]
    ScopesUnknown {
        /// The field with the scopes.
        field: &'static str,
        /// The unknown scopes, each with its index in the field's list.
        unknown: Vec<(usize, Scope)>,
        /// The first of them for which the catalog has a similar name, with that name.
        near: Vec<(Scope, Scope)>,
    },
    /// The audience of a check is ambiguous (D16).
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// The audience of the check to explain is ambiguous.
    #[error("{0}")]
    AudienceToExplain(AudienceError),
    /// The audience of one check of a batch is ambiguous; with the index of the check.
    #[error("{1}")]
    AudienceOf(usize, AudienceError),
    /// The credential has no such redirect URI.
    #[error("is not one of the `redirect_uris` of the credential `{0}`: compare it byte for byte")]
    RedirectUriUnknown(CredentialId),
    /// No such company.
    #[error("there is no company `{0}`")]
    CompanyNotFound(CompanyId),
    /// No such credential.
    #[error("the company `{0}` has no credential `{1}`")]
    CredentialNotFound(CompanyId, CredentialId),
    /// No such user.
    #[error("the company `{0}` has no user `{1}`")]
    UserNotFound(CompanyId, UserId),
    /// No such secret.
    #[error("the credential `{0}` has no secret `{1}`")]
    SecretNotFound(CredentialId, Name),
    /// The credential has as many secrets as it can have.
    #[error("the credential `{0}` has two live secrets: end one first")]
    TooManySecrets(CredentialId),
    /// The caller's key was revoked, or has expired.
    #[error("the API key was revoked, or has expired: ask an operator for another")]
    CallerRevoked,
    /// No such key.
    #[error("there is no key `{0}`")]
    KeyNotFound(Name),
    /// The first key would lock out its creator.
    #[error(
        "the first key must have role `operator`, a secret, no company binding and no past expiry: from then on every call needs a key"
    )]
    FirstKeyNotOperator,
    /// Without this key, no caller could create another one.
    #[error("the key `{0}` is the last of an operator: make another one first")]
    LastOperatorKey(Name),
    /// The limit of keys is reached.
    #[error("there are {0} keys, which is the limit: delete unused keys")]
    TooManyKeys(usize),
    /// Two callers could not be distinguished.
    #[error("the key `{0}` already requires this certificate alone: delete that key first")]
    CertificateTaken(Name),
    /// No such consent.
    #[error("the user `{0}` has no consent for the credential `{1}`")]
    ConsentNotFound(UserId, CredentialId),
    /// The company's id is taken.
    #[error("a company `{0}` exists already")]
    CompanyExists(CompanyId),
    /// The credential's id is taken.
    #[error("the company `{0}` has a credential `{1}` already")]
    CredentialExists(CompanyId, CredentialId),
    /// The etag is not the current one.
    #[error(
        "etag mismatch: read the resource again and retry with its current etag; a resource that does not exist has none"
    )]
    EtagStale,
    /// The request's id was used for another request.
    #[error("`{0}` was used for another request: use a new id for every new request")]
    RequestReused(Uuid),
    /// Concurrent changes of the same facts were committed first, in every attempt.
    #[error("too many concurrent changes of the same resource: try again")]
    Conflict,
    /// A grant reaches above the ceiling (D9).
    #[error(transparent)]
    AboveCeiling(#[from] AboveCeiling),
    /// A restriction would affect enabled credentials, and the impact was not acknowledged (D7).
    #[error(
        "{} would lose a scope: send the `etag` of an audit, or `acknowledge_impact`",
        if .0.count == 1 { "1 credential".to_owned() } else { format!("{} credentials", .0.count) }
    )]
    ImpactNotAcknowledged(Box<Impact>),
    /// The revision is not a restriction of the company, or its record was compacted.
    #[error(
        "revision {0} is not a retained restriction of this company: see ListChanges for its restrictions"
    )]
    NoSuchRestriction(Revision),
    /// The restriction did not remove these scopes.
    #[error("the restriction at revision {0} did not remove {names}", names = list(.1))]
    NotTaken(Revision, Vec<Scope>),
    /// The scopes are not back in the ceiling.
    #[error("not back in the company's ceiling: {}; add to the ceiling first", list(.0))]
    NotInCeiling(Vec<Scope>),
    /// A later restriction removed scopes that the scopes to restore imply.
    #[error("implied, and removed by a later restriction: {}; restore that one first", list(.0))]
    LaterRestrictionFirst(Vec<Scope>),
    /// The requested revision was not published in time.
    #[error("revision {asked} is not reached; the current one is {current}")]
    RevisionNotReached {
        /// The requested revision.
        asked: Revision,
        /// The last published revision.
        current: Revision,
    },
    /// A new catalog would remove scopes, audiences or issuers, and removals are not allowed.
    #[error("the catalog file would remove {}", .0.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "))]
    RemovesScopes(Vec<String>),
    /// The dry run of an import exceeds the limit of new companies.
    #[error("a dry run has a limit of {0} new companies: split the import")]
    DryRunTooLarge(usize),
    /// The issuer of the token has no usable keys now (T4). An answer would say what is not known.
    #[error("there are no usable keys of the access token's issuer now: call again later")]
    TokenUnverifiable,
    /// This server has no private key of the current signing key.
    #[error("this server has no file of the current signing key: call RotateSigningKey")]
    CannotSign,
    /// The server was started without an issuer.
    #[error("this server issues no tokens: start it with --issuer")]
    IssuesNoTokens,
    /// The file of a new signing key cannot be written.
    #[error("the file of the new signing key cannot be written: see the server's log")]
    KeyFileNotWritten,
    /// No such signing key.
    #[error("there is no signing key `{0}`")]
    SigningKeyNotFound(Thumbprint),
    /// The limit of signing keys is reached.
    #[error("there are {0} signing keys, which is the limit: delete previous ones")]
    TooManySigningKeys(usize),
    /// A catalog declares this server itself as an issuer.
    #[error("`{0}` is the issuer of this server itself: remove it from the catalog's `issuers`")]
    IssuerIsOwn(String),
    /// The time until which all tokens are revoked is too far ahead.
    #[error("is more than 5 minutes ahead of the server's time")]
    RevokedTooFarAhead,
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
}

fn names(unknown: &[(usize, Scope)]) -> String {
    unknown.iter().map(|(_, scope)| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
}
