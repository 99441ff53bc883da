//! Refusal: why a call of scopegate itself is not carried out. A denial is not one: that is an
//! answer (D14).
//!
//! Not here: how it looks on the wire; `grpc::status` has every variant's code and details.

use uuid::Uuid;

use super::impact::Impact;
use crate::policy::catalog::AudienceError;
use crate::policy::credential::AboveCeiling;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::StoreError;

/// Why a call is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    /// The call names scopes that the catalog lacks.
    #[error("the catalog has no scope {}", names(.unknown))]
    ScopesUnknown {
        /// The field that names them.
        field: &'static str,
        /// Each with its place in the field's list.
        unknown: Vec<(usize, Scope)>,
        /// Of the first of them, those for which the catalog has a name that was probably meant.
        near: Vec<(Scope, Scope)>,
    },
    /// The audience of a check cannot be told (D16).
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// The audience of the check to explain cannot be told.
    #[error("{0}")]
    AudienceToExplain(AudienceError),
    /// The audience of one check of a batch cannot be told; with its place.
    #[error("{1}")]
    AudienceOf(usize, AudienceError),
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
    /// The caller's key was revoked, or is over.
    #[error("the API key was revoked, or has expired")]
    CallerRevoked,
    /// No such key.
    #[error("there is no key `{0}`")]
    KeyNotFound(Name),
    /// The first key would lock out whoever makes it.
    #[error(
        "the first key must be an operator's, with a secret, bound to no company and not over: from then on every call needs a key"
    )]
    FirstKeyNotOperator,
    /// Nobody could make another key.
    #[error("the key `{0}` is the last of an operator: make another one first")]
    LastOperatorKey(Name),
    /// There are as many keys as there can be.
    #[error("there are {0} keys, which is the limit: delete some that are no longer used")]
    TooManyKeys(usize),
    /// Two callers could not be told apart.
    #[error("the key `{0}` needs this certificate and nothing else: delete that one first")]
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
        "the etag is not the current one: read again, and decide again; what does not exist yet has none"
    )]
    EtagStale,
    /// The request's id was used for another request.
    #[error("{0} was used for another request: give every new request an id of its own")]
    RequestReused(Uuid),
    /// Other changes of the same facts came first, time after time.
    #[error("too many concurrent changes of the same resource: try again")]
    Conflict,
    /// A grant reaches above the ceiling (D9).
    #[error(transparent)]
    AboveCeiling(#[from] AboveCeiling),
    /// A restriction would break enabled credentials and nobody has acknowledged it (D7).
    #[error(
        "{} would lose a scope: send the `etag` of an audit, or `acknowledge_impact`",
        if .0.count == 1 { "1 credential".to_owned() } else { format!("{} credentials", .0.count) }
    )]
    ImpactNotAcknowledged(Box<Impact>),
    /// The revision is no restriction of the company, or its record is no longer kept.
    #[error(
        "revision {0} is not a restriction of this company that is still kept: see ListChanges for its restrictions"
    )]
    NoSuchRestriction(Revision),
    /// The restriction did not take these scopes.
    #[error("the restriction at revision {0} did not take {names}", names = list(.1))]
    NotTaken(Revision, Vec<Scope>),
    /// The scopes are not back in the ceiling.
    #[error("not back in the company's ceiling: {}; add to the ceiling first", list(.0))]
    NotInCeiling(Vec<Scope>),
    /// A later restriction took what the scopes to restore imply.
    #[error("implied, and taken by a later restriction: {}; restore that one first", list(.0))]
    LaterRestrictionFirst(Vec<Scope>),
    /// The revision asked for did not come in time.
    #[error("revision {asked} is not reached; the current one is {current}")]
    RevisionNotReached {
        /// The one asked for.
        asked: Revision,
        /// The last one published.
        current: Revision,
    },
    /// A new catalog would take scopes or audiences away, and removals are not allowed.
    #[error("the catalog file would remove {}", .0.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "))]
    RemovesScopes(Vec<String>),
    /// A dry run of an import would have to remember more companies than it does.
    #[error("a dry run remembers {0} new companies at most: try a part of them at a time")]
    DryRunTooLarge(usize),
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
