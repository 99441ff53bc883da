//! The decision: from facts of one revision to an answer. Pure and total.
//!
//! Every door asks [`decide`]; none decides by itself (D22). Layers are applied outermost
//! first. The layers of token, consent and user are not built yet: where an audience requires
//! one, the answer is a denial, so that no layer is ever skipped.

use jiff::Timestamp;

use super::catalog::{AudienceError, Catalog, Hearing, Reach};
use super::company::Company;
use super::credential::{Credential, GrantState, is_over};
use super::query::{Needs, Query};
use super::scope::Scope;

/// Why a check was decided as it was; ordered as D15 orders them, so the least is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words are D15's, and the contract's enum describes them")]
pub enum Reason {
    EndpointUnknown,
    CompanyUnknown,
    CompanyDisabled,
    CredentialUnknown,
    CredentialDisabled,
    CredentialExpired,
    TokenRequired,
    UserRequired,
    ScopeUnknown,
    ScopeNotInCompany,
    ScopeNotGranted,
    GrantDormant,
    GrantExpired,
}

impl Reason {
    /// The HTTP status that an API should answer with (D15).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::EndpointUnknown => 404,
            Self::CompanyUnknown
            | Self::CompanyDisabled
            | Self::CredentialUnknown
            | Self::CredentialDisabled
            | Self::CredentialExpired
            | Self::TokenRequired
            | Self::UserRequired => 401,
            Self::ScopeUnknown
            | Self::ScopeNotInCompany
            | Self::ScopeNotGranted
            | Self::GrantDormant
            | Self::GrantExpired => 403,
        }
    }

    /// The word for an API's error body (D15; RFC 6749 section 5.2, RFC 6750 section 3.1).
    #[must_use]
    pub fn error(self) -> &'static str {
        match self {
            Self::EndpointUnknown => "not_found",
            Self::CompanyUnknown
            | Self::CompanyDisabled
            | Self::CredentialUnknown
            | Self::CredentialDisabled
            | Self::CredentialExpired => "invalid_client",
            Self::TokenRequired | Self::UserRequired => "invalid_token",
            Self::ScopeUnknown
            | Self::ScopeNotInCompany
            | Self::ScopeNotGranted
            | Self::GrantDormant
            | Self::GrantExpired => "invalid_scope",
        }
    }

    /// Who can mend it and where, in a sentence fit for an end user: it names no grants (D15).
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::EndpointUnknown => {
                "No such endpoint. Check the method and the path in the API reference."
            }
            Self::CompanyUnknown => {
                "The company is not known. Check the company id that the call was made for."
            }
            Self::CompanyDisabled => {
                "The company's API access is disabled. Ask the platform's operator to enable the company."
            }
            Self::CredentialUnknown => {
                "The API credential is not known. Check its id, or ask the company's admin to create one."
            }
            Self::CredentialDisabled => {
                "The API credential is disabled. Ask the company's admin to enable it."
            }
            Self::CredentialExpired => {
                "The API credential has expired. Ask the company's admin to extend it or to create another."
            }
            Self::TokenRequired => {
                "This API needs an access token. Request one and send it with the call."
            }
            Self::UserRequired => {
                "This API acts on behalf of a user. Send a token or a call that names the user."
            }
            Self::ScopeUnknown => {
                "A scope that the call needs does not exist in this API. Check its name in the API reference."
            }
            Self::ScopeNotInCompany => {
                "A scope that the call needs is not available to the company. Ask the platform's operator (your Customer Success Partner) to add it at the company level."
            }
            Self::ScopeNotGranted => {
                "The API credential lacks a scope that the call needs. Ask the company's admin to grant it at the credential level."
            }
            Self::GrantDormant => {
                "The API credential was granted a needed scope before the company lost and regained it. Ask the company's admin to grant it again."
            }
            Self::GrantExpired => {
                "The API credential's grant of a needed scope has expired. Ask the company's admin to renew it."
            }
        }
    }
}

/// What a decision rests on, all of one revision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The catalog in force.
    pub catalog: &'a Catalog,
    /// The company, if it exists.
    pub company: Option<&'a Company>,
    /// The company's credential, if it exists.
    pub credential: Option<&'a Credential>,
    /// The time, read after the facts (D19).
    pub now: Timestamp,
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every needed scope is effective.
    Allowed {
        /// How far the call reaches.
        reach: Reach,
    },
    /// At least one is not.
    Denied {
        /// The first reason in the order of D15.
        reason: Reason,
        /// The needed scopes that are not effective, in the order asked.
        missing: Vec<Scope>,
    },
}

/// Decides one check.
///
/// # Errors
/// The request's audience cannot be told (D16): it is malformed for this catalog.
pub fn decide(query: &Query, facts: Facts<'_>) -> Result<Verdict, AudienceError> {
    let (scopes, of_endpoint) = match &query.needs {
        Needs::Scopes(scopes) => (scopes, None),
        Needs::Endpoint { method, path } => match facts.catalog.endpoint(method, path) {
            Some(endpoint) => (&endpoint.scopes, endpoint.audience.as_ref()),
            None => {
                // An unknown endpoint needs no audience, but one that is named must exist.
                if query.audience.is_some() {
                    facts.catalog.hearing(None, query.audience.as_ref())?;
                }
                return Ok(Verdict::Denied { reason: Reason::EndpointUnknown, missing: vec![] });
            }
        },
    };
    let hearing = facts.catalog.hearing(of_endpoint, query.audience.as_ref())?;
    let evaluator = match Evaluator::admit(facts, hearing) {
        Ok(evaluator) => evaluator,
        Err(reason) => {
            return Ok(Verdict::Denied { reason, missing: scopes.clone() });
        }
    };
    let mut reason: Option<Reason> = None;
    let mut missing = Vec::new();
    for scope in scopes {
        if let Err(failed) = evaluator.layers(scope) {
            reason = Some(reason.map_or(failed, |first| first.min(failed)));
            missing.push(scope.clone());
        }
    }
    Ok(match reason {
        Some(reason) => Verdict::Denied { reason, missing },
        None => Verdict::Allowed { reach: Reach::All },
    })
}

/// The layers of one call whose company, credential, token and user are admitted.
struct Evaluator<'a> {
    catalog: &'a Catalog,
    hearing: Hearing<'a>,
    company: &'a Company,
    credential: &'a Credential,
    now: Timestamp,
}

impl<'a> Evaluator<'a> {
    /// The rows of D15 that concern the call as a whole.
    fn admit(facts: Facts<'a>, hearing: Hearing<'a>) -> Result<Self, Reason> {
        let company = facts.company.ok_or(Reason::CompanyUnknown)?;
        if !company.enabled {
            return Err(Reason::CompanyDisabled);
        }
        let credential = facts.credential.ok_or(Reason::CredentialUnknown)?;
        if !credential.enabled {
            return Err(Reason::CredentialDisabled);
        }
        if is_over(credential.expires_at, facts.now) {
            return Err(Reason::CredentialExpired);
        }
        // No request can carry these yet, so where they are required they are missing.
        if hearing.audience.token_required {
            return Err(Reason::TokenRequired);
        }
        if hearing.audience.user_required {
            return Err(Reason::UserRequired);
        }
        Ok(Self { catalog: facts.catalog, hearing, company, credential, now: facts.now })
    }

    /// The rows of D15 that concern one scope, outermost first.
    fn layers(&self, scope: &Scope) -> Result<(), Reason> {
        let known = self.catalog.id(scope).filter(|id| self.catalog.heard_by(*id, self.hearing));
        let scope = known.ok_or(Reason::ScopeUnknown)?;
        let ceiling = &self.company.ceiling;
        if !ceiling.contains(scope) {
            return Err(Reason::ScopeNotInCompany);
        }
        let grant = self.credential.grants.get(scope).ok_or(Reason::ScopeNotGranted)?;
        match grant.state(scope, ceiling, self.now) {
            GrantState::Active => Ok(()),
            GrantState::Dormant => Err(Reason::GrantDormant),
            GrantState::Expired => Err(Reason::GrantExpired),
        }
    }
}
