//! The decision: from facts of one revision to an answer. Pure and total.
//!
//! Every door asks one evaluator, and none decides by itself (D22): [`decide`], [`explain`] and
//! [`effective`] are three ways to read what its layers say. A layer says of one scope how far
//! it lets a call reach, or why it does not let it through; the least reason is the reason,
//! since reasons are ordered as D15 orders them.

use jiff::Timestamp;

use super::catalog::{AudienceError, Catalog, Reach, ResolvedAudience};
use super::cause::{Cause, DenialCause};
use super::company::Company;
use super::consent::Consent;
use super::credential::{Credential, GrantState, is_over};
use super::query::{Query, Requirement};
use super::reason::Reason;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::user::User;

/// A layer of a decision, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The company and its ceiling.
    Company,
    /// The credential and its grants.
    Credential,
    /// The token and its scopes.
    Token,
    /// The user's consent.
    Consent,
    /// The user and their roles.
    User,
}

impl Layer {
    /// Every layer, outermost first.
    pub const ALL: [Self; 5] =
        [Self::Company, Self::Credential, Self::Token, Self::Consent, Self::User];
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
    /// The user on whose behalf the call is made, if there is one and they exist.
    pub user: Option<&'a User>,
    /// The user's consent to the credential, if there is one.
    pub consent: Option<&'a Consent>,
    /// The time, read after the facts (D19).
    pub now: Timestamp,
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every needed scope is effective, and one of those of which one is enough.
    Allowed {
        /// How far the call reaches.
        reach: Reach,
    },
    /// At least one is not.
    Denied {
        /// The first reason in the order of D15.
        reason: Reason,
        /// Which of its causes it has, where it has several.
        fault: Option<DenialCause>,
        /// The needed scopes that are not effective, in the order asked.
        missing: Vec<Scope>,
    },
}

/// What every applied layer says of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The scope.
    pub scope: Scope,
    /// How far each applied layer lets it reach, or why it does not; outermost first.
    pub layers: Vec<(Layer, Result<Reach, Cause>)>,
}

/// Decides one check.
///
/// # Errors
/// The request's audience cannot be told (D16): it is malformed for this catalog.
pub fn decide(query: &Query, facts: Facts<'_>) -> Result<Verdict, AudienceError> {
    let Some((needed, resolved_audience)) = needs(query, facts.catalog)? else {
        return Ok(denied(Reason::EndpointUnknown.into(), vec![]));
    };
    let evaluator = Evaluator::new(query, facts, resolved_audience);
    let mut reach = Reach::All;
    let mut cause: Option<Cause> = None;
    let mut missing: Vec<Scope> = Vec::new();
    let first = |cause: Option<Cause>, failed| cause.map_or(failed, |cause| cause.first(failed));
    for scope in needed.scopes {
        match evaluator.scope(scope) {
            Ok(own) => reach = reach.min(own),
            Err(failed) => {
                cause = Some(first(cause, failed));
                missing.push(scope.clone());
            }
        }
    }
    match evaluator.any(needed.any_of) {
        None => {}
        Some(Ok(widest)) => reach = reach.min(widest),
        Some(Err(nearest)) => {
            cause = Some(first(cause, nearest));
            for scope in needed.any_of {
                if !missing.contains(scope) {
                    missing.push(scope.clone());
                }
            }
        }
    }
    if needed.is_empty() {
        // No scope is asked for: the call as a whole is.
        match evaluator.call() {
            // Nothing needed without the word for it is no yes (D13).
            Ok(()) if needed.no_scope => {}
            Ok(()) => cause = Some(Reason::ScopeUnknown.into()),
            Err(failed) => cause = Some(failed),
        }
    }
    Ok(match cause {
        Some(cause) => denied(cause, missing),
        None => Verdict::Allowed { reach },
    })
}

fn denied(Cause { reason, fault }: Cause, missing: Vec<Scope>) -> Verdict {
    Verdict::Denied { reason, fault, missing }
}

/// What every applied layer says of every scope that a check needs, once each, also of a call that
/// no layer admits, and of scopes of which another one is enough.
///
/// # Errors
/// As for [`decide`].
pub fn explain(query: &Query, facts: Facts<'_>) -> Result<Vec<Explanation>, AudienceError> {
    let Some((needed, resolved_audience)) = needs(query, facts.catalog)? else { return Ok(vec![]) };
    let evaluator = Evaluator::new(query, facts, resolved_audience);
    let explain = |scope: &Scope| Explanation {
        scope: scope.clone(),
        layers: evaluator.layers(scope).collect(),
    };
    let others = needed.any_of.iter().filter(|scope| !needed.scopes.contains(scope));
    Ok(needed.scopes.iter().chain(others).map(explain).collect())
}

/// Exactly the scopes for which a check of that scope alone is allowed, with the same reach,
/// sorted by name (D22). What the query needs is not looked at, and neither is an owner.
///
/// # Errors
/// As for [`decide`].
pub fn effective(query: &Query, facts: Facts<'_>) -> Result<Vec<(Scope, Reach)>, AudienceError> {
    let resolved_audience = facts.catalog.resolve_audience(None, query.audience.as_ref())?;
    let without_owner = Query { owner: None, ..query.clone() };
    let evaluator = Evaluator::new(&without_owner, facts, resolved_audience);
    let mut allowed: Vec<_> = facts
        .catalog
        .scope_ids()
        .filter_map(|id| facts.catalog.name(id))
        .filter_map(|scope| Some((scope.clone(), evaluator.scope(scope).ok()?)))
        .collect();
    allowed.sort();
    Ok(allowed)
}

/// When something ends that a decision may rest on: only there can time alone change the answer,
/// and only to a stricter one.
pub fn ends<'a>(query: &'a Query, facts: Facts<'a>) -> impl Iterator<Item = Timestamp> + 'a {
    let credential = facts.credential.into_iter().flat_map(Credential::ends);
    credential.chain(query.token.iter().flat_map(move |token| token.ends(facts.catalog)))
}

/// What a call needs.
#[derive(Clone, Copy)]
struct Needed<'a> {
    /// All of these scopes.
    scopes: &'a [Scope],
    /// At least one of these, if there are any.
    any_of: &'a [Scope],
    /// No scope, as the catalog says.
    no_scope: bool,
}

impl Needed<'_> {
    fn is_empty(self) -> bool {
        self.scopes.is_empty() && self.any_of.is_empty()
    }
}

/// What a query needs, and its audience; none if no endpoint matches.
fn needs<'a>(
    query: &'a Query,
    catalog: &'a Catalog,
) -> Result<Option<(Needed<'a>, ResolvedAudience<'a>)>, AudienceError> {
    let named = query.audience.as_ref();
    Ok(match &query.needs {
        Requirement::Scopes(scopes) => {
            let needed = Needed { scopes, any_of: &[], no_scope: false };
            Some((needed, catalog.resolve_audience(None, named)?))
        }
        Requirement::Endpoint { method, path } => match catalog.endpoint(method, path) {
            Some(endpoint) => {
                let resolved_audience =
                    catalog.resolve_audience(endpoint.audience.as_ref(), named)?;
                let needed = Needed {
                    scopes: &endpoint.scopes,
                    any_of: &endpoint.any_of,
                    no_scope: endpoint.needs_no_scope,
                };
                Some((needed, resolved_audience))
            }
            None => {
                // An unknown endpoint needs no audience, but one that is named must exist.
                if named.is_some() {
                    catalog.resolve_audience(None, named)?;
                }
                None
            }
        },
    })
}

/// The layers of one call.
struct Evaluator<'a> {
    query: &'a Query,
    facts: Facts<'a>,
    resolved_audience: ResolvedAudience<'a>,
    /// Why the token admits no call at all, if it does not.
    token_fault: Option<DenialCause>,
    /// The token's scopes, sorted, closed under implication (D1); those that the catalog lacks are
    /// ignored (D16).
    token_scopes: Vec<ScopeId>,
    /// What each of the user's roles permits.
    roles: Vec<&'a ScopeMap<Reach>>,
}

impl<'a> Evaluator<'a> {
    fn new(query: &'a Query, facts: Facts<'a>, resolved_audience: ResolvedAudience<'a>) -> Self {
        let (mut token_fault, mut token_scopes) = (None, Vec::new());
        if let Some(token) = &query.token {
            token_fault = token.fault(resolved_audience, query.user.as_ref(), facts.now);
            if token_fault.is_none() && facts.credential.is_some() {
                let known: Vec<_> =
                    token.scopes.iter().filter_map(|s| facts.catalog.id(s)).collect();
                token_scopes = facts.catalog.closure(&known);
            }
        }
        let roles =
            facts.user.map(|user| facts.catalog.role_permissions(&user.roles)).unwrap_or_default();
        Self { query, facts, resolved_audience, token_fault, token_scopes, roles }
    }

    /// How far all applied layers together let a scope reach, or the first cause why not.
    fn scope(&self, scope: &Scope) -> Result<Reach, Cause> {
        let least = |all: Result<Reach, Cause>, one| match (all, one) {
            (Ok(a), Ok(b)) => Ok(a.min(b)),
            (Err(a), Err(b)) => Err(a.first(b)),
            (Err(cause), Ok(_)) | (Ok(_), Err(cause)) => Err(cause),
        };
        self.layers(scope).map(|(_, said)| said).fold(Ok(Reach::All), least)
    }

    /// How far the widest of these scopes reaches, or the cause that is nearest to a yes if none is
    /// effective (D20); none where there are no scopes.
    fn any(&self, scopes: &[Scope]) -> Option<Result<Reach, Cause>> {
        let better = |best: Result<Reach, Cause>, next| match (best, next) {
            (Ok(a), Ok(b)) => Ok(a.max(b)),
            (Err(a), Err(b)) => Err(a.last(b)),
            (Ok(reach), Err(_)) | (Err(_), Ok(reach)) => Ok(reach),
        };
        scopes.iter().map(|scope| self.scope(scope)).reduce(better)
    }

    /// Whether every applied layer admits the call, whatever it needs, or the first cause why not.
    fn call(&self) -> Result<(), Cause> {
        let failed = self.applied().filter_map(|layer| self.admits(layer).err());
        failed.reduce(Cause::first).map_or(Ok(()), Err)
    }

    /// What each applied layer says of a scope.
    fn layers(&self, scope: &Scope) -> impl Iterator<Item = (Layer, Result<Reach, Cause>)> {
        let known = self.facts.catalog.id(scope);
        self.applied().map(move |layer| (layer, self.layer(layer, known)))
    }

    /// The layers that the call has, outermost first.
    fn applied(&self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(|layer| self.applies(*layer))
    }

    /// Which layers a call has (D16).
    fn applies(&self, layer: Layer) -> bool {
        let audience = self.resolved_audience.audience;
        match layer {
            Layer::Company | Layer::Credential => true,
            Layer::Token => audience.token_required || self.query.token.is_some(),
            Layer::Consent => audience.consent_required,
            Layer::User => audience.user_required || self.query.on_behalf_of().is_some(),
        }
    }

    /// Whether a layer admits the call as a whole.
    fn admits(&self, layer: Layer) -> Result<(), Cause> {
        match layer {
            Layer::Company => {
                let company = self.facts.company.ok_or(Reason::CompanyUnknown)?;
                if !company.enabled {
                    return Err(Reason::CompanyDisabled.into());
                }
            }
            Layer::Credential => {
                let known = self.facts.credential.filter(|_| self.facts.company.is_some());
                let credential = known.ok_or(Reason::CredentialUnknown)?;
                if !credential.enabled {
                    return Err(Reason::CredentialDisabled.into());
                }
                if is_over(credential.expires_at, self.facts.now) {
                    return Err(Reason::CredentialExpired.into());
                }
            }
            Layer::Token => {
                if self.query.token.is_none() {
                    return Err(Reason::TokenRequired.into());
                }
                if let Some(fault) = self.token_fault {
                    return Err(fault.into());
                }
            }
            // It is of scopes; the user whose consent it is, is asked for by their own layer.
            Layer::Consent => {}
            Layer::User => {
                self.query.on_behalf_of().ok_or(Reason::UserRequired)?;
                self.facts.user.ok_or(Reason::UserUnknown)?;
            }
        }
        Ok(())
    }

    /// What one layer says of a scope: first of the call as a whole, then of the scope.
    fn layer(&self, layer: Layer, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        self.admits(layer)?;
        match layer {
            Layer::Company => self.company(scope),
            Layer::Credential => self.credential(scope),
            Layer::Token => self.token(scope),
            Layer::Consent => self.consent(scope),
            Layer::User => self.user(scope),
        }
    }

    fn company(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let company = self.facts.company.ok_or(Reason::CompanyUnknown)?;
        // Of another audience is as unknown here as of no catalog.
        let scope = scope.ok_or(Reason::ScopeUnknown)?;
        if !self.facts.catalog.in_audience(scope, self.resolved_audience) {
            return Err(DenialCause::ScopeOfOtherAudience.into());
        }
        let within = company.ceiling.contains(scope);
        if within { Ok(Reach::All) } else { Err(Reason::ScopeNotInCompany.into()) }
    }

    fn credential(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let (Some(company), Some(credential)) = (self.facts.company, self.facts.credential) else {
            return Err(Reason::CredentialUnknown.into());
        };
        let held = scope.and_then(|scope| Some((scope, credential.grants.get(scope)?)));
        let (scope, grant) = held.ok_or(Reason::ScopeNotGranted)?;
        match grant.state(scope, company, self.facts.now) {
            GrantState::Active => Ok(Reach::All),
            GrantState::Dormant => Err(Reason::GrantDormant.into()),
            GrantState::Expired => Err(Reason::GrantExpired.into()),
        }
    }

    fn token(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let carried = scope.is_some_and(|scope| self.token_scopes.binary_search(&scope).is_ok());
        if carried { Ok(Reach::All) } else { Err(Reason::ScopeNotInToken.into()) }
    }

    fn consent(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let given = self.facts.consent.zip(scope);
        let given = given.is_some_and(|(consent, scope)| consent.scopes.contains(scope));
        if given { Ok(Reach::All) } else { Err(Reason::ScopeNotConsented.into()) }
    }

    fn user(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let named = self.query.on_behalf_of().ok_or(Reason::UserRequired)?;
        let permitted = |scope| self.roles.iter().filter_map(|role| role.get(scope)).max().copied();
        match scope.and_then(permitted).ok_or(Reason::UserLacksPermission)? {
            Reach::Own if self.query.owner.as_ref().is_some_and(|owner| owner != named) => {
                Err(Reason::NotRecordOwner.into())
            }
            reach => Ok(reach),
        }
    }
}
