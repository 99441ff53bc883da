//! Decision: computes the answer to a check from the facts of one revision. It is pure and total.
//!
//! All calls use one evaluator (D22): [`decide`], [`explain`] and [`effective`] read the results of
//! the same layers. For one scope, a layer returns how far the call reaches, or why it denies. The
//! reason of a denial is the first one in the order of D15.

use std::cell::OnceCell;

use jiff::Timestamp;

use super::catalog::endpoint::Endpoint;
use super::catalog::{AudienceError, Catalog, Reach, ResolvedAudience};
use super::cause::{Cause, DenialCause};
use super::company::Company;
use super::consent::Consent;
use super::credential::{Credential, GrantState, is_expired};
use super::id::{Name, UserId};
use super::query::{Query, Requirement, Subject};
use super::reason::Reason;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::token::own::TokenEpoch;
use super::token::{PresentedToken, Token};
use super::user::User;

/// How many scopes of a token are compared by name with the scope that is needed, before all that the token
/// implies is computed.
const MAX_COMPARED: usize = 16;

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

/// The facts of a decision, all of one revision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The catalog in force.
    pub catalog: &'a Catalog,
    /// The company, if it exists.
    pub company: Option<&'a Company>,
    /// The company's credential, if it exists.
    pub credential: Option<&'a Credential>,
    /// The user on whose behalf the call is made, if there is one and the user exists.
    pub user: Option<&'a User>,
    /// Whether the company has a user of the id that a token names as the client itself (T16).
    pub ambiguous_subject: bool,
    /// The user's consent to the credential, if there is one.
    pub consent: Option<&'a Consent>,
    /// What the whole store says about tokens.
    pub tokens: TokenEpoch,
    /// The time, read after the facts (D19).
    pub now: Timestamp,
}

impl Facts<'_> {
    /// Whether there is the company, and it is enabled. Otherwise the cause.
    fn has_live_company(&self) -> Result<(), Cause> {
        let company = self.company.ok_or(Reason::CompanyUnknown)?;
        if company.enabled { Ok(()) } else { Err(Reason::CompanyDisabled.into()) }
    }

    /// Whether there is the credential, it is enabled and it has not expired. Otherwise the cause.
    fn has_live_credential(&self) -> Result<(), Cause> {
        let known = self.credential.filter(|_| self.company.is_some());
        let credential = known.ok_or(Reason::CredentialUnknown)?;
        if !credential.enabled {
            return Err(Reason::CredentialDisabled.into());
        }
        if is_expired(credential.expires_at, self.now) {
            return Err(Reason::CredentialExpired.into());
        }
        Ok(())
    }
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every required scope is effective, and at least one of those of which one suffices.
    Allowed {
        /// How far the call reaches.
        reach: Reach,
    },
    /// A required scope is not effective.
    Denied {
        /// The first reason in the order of D15.
        reason: Reason,
        /// Its cause, if the reason has several.
        fault: Option<DenialCause>,
        /// The required scopes that are not effective, in the order of the request.
        missing: Vec<Scope>,
    },
}

/// The result of every applied layer for one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The scope.
    pub scope: Scope,
    /// For each applied layer, how far the scope reaches, or why the layer denies; outermost first.
    pub layers: Vec<(Layer, Result<Reach, Cause>)>,
}

/// Decides one check.
///
/// # Errors
/// The audience of the request cannot be resolved (D16): the request is malformed for this catalog.
pub fn decide(query: &Query, facts: Facts<'_>) -> Result<Verdict, AudienceError> {
    let Some((needed, resolved_audience)) = requirements(query, facts.catalog)? else {
        return Ok(denied(Reason::EndpointUnknown.into(), vec![]));
    };
    let evaluator = Evaluator::new(query, facts, resolved_audience).with_owner(needed.owner);
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
        Some(Err(last)) => {
            cause = Some(first(cause, last));
            for scope in needed.any_of {
                if !missing.contains(scope) {
                    missing.push(scope.clone());
                }
            }
        }
    }
    if needed.is_empty() {
        // Nothing is required, so the layers decide about the call itself.
        match evaluator.call() {
            // Only an endpoint that is declared to need no scope is allowed without one (D13).
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

/// Decides one check for a gateway, which has nothing between a client and an API but this decision:
///
/// - A client that did not prove who it is learns nothing of the endpoints: it is denied for what it
///   presented, whether the endpoint exists or not.
/// - An endpoint that has another audience than the gateway names does not exist there. The path is the
///   client's choice, and must not be an error of the call.
///
/// # Errors
/// The audience that the gateway names does not exist, or it names none and the catalog has several.
pub fn decide_for_gateway(query: &Query, facts: Facts<'_>) -> Result<Verdict, AudienceError> {
    let is_of_path = matches!(query.needs, Requirement::Endpoint { .. });
    let verdict = match decide(query, facts) {
        Err(AudienceError::EndpointMismatch { .. } | AudienceError::Ambiguous(_)) if is_of_path => {
            denied(Reason::EndpointUnknown.into(), vec![])
        }
        decided => decided?,
    };
    if let Verdict::Denied { reason: Reason::EndpointUnknown, .. } = verdict
        && let Some(cause) = client_fault(query, facts)
    {
        // For an endpoint that exists, the state of the company and of the credential is told first (D15).
        let state = match &query.subject {
            Subject::Known { .. } => {
                facts.has_live_company().and(facts.has_live_credential()).err()
            }
            Subject::Unproven(_) => None,
        };
        return Ok(denied(state.map_or(cause, |state| state.first(cause)), vec![]));
    }
    Ok(verdict)
}

fn denied(Cause { reason, fault }: Cause, missing: Vec<Scope>) -> Verdict {
    Verdict::Denied { reason, fault, missing }
}

/// The result of every applied layer for every scope that a check requires, each once. This
/// includes calls that every layer denies, and alternatives of which one suffices.
///
/// # Errors
/// As for [`decide`].
pub fn explain(query: &Query, facts: Facts<'_>) -> Result<Vec<Explanation>, AudienceError> {
    let Some((needed, resolved_audience)) = requirements(query, facts.catalog)? else {
        return Ok(vec![]);
    };
    let evaluator = Evaluator::new(query, facts, resolved_audience).with_owner(needed.owner);
    let explain = |scope: &Scope| Explanation {
        scope: scope.clone(),
        layers: evaluator.layers(scope).collect(),
    };
    let others = needed.any_of.iter().filter(|scope| !needed.scopes.contains(scope));
    Ok(needed.scopes.iter().chain(others).map(explain).collect())
}

/// The scopes for which a check of that scope alone is allowed, with the same reach, sorted by name
/// (D22). The requirement and the owner of the query are ignored.
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

/// Whether every applied layer admits a call for the query's audience, whatever it requires: none of
/// D15's rows with status 401 applies. Otherwise the first cause.
///
/// # Errors
/// As for [`decide`].
pub fn admits(query: &Query, facts: Facts<'_>) -> Result<Result<(), Cause>, AudienceError> {
    let resolved_audience = facts.catalog.resolve_audience(None, query.audience.as_ref())?;
    Ok(Evaluator::new(query, facts, resolved_audience).call())
}

/// Whether the company and the credential are live. Otherwise the first cause.
///
/// # Errors
/// As for [`decide`].
pub fn admits_client(query: &Query, facts: Facts<'_>) -> Result<Result<(), Cause>, AudienceError> {
    let resolved_audience = facts.catalog.resolve_audience(None, query.audience.as_ref())?;
    let evaluator = Evaluator::new(query, facts, resolved_audience);
    Ok(evaluator.admits(Layer::Company).and_then(|()| evaluator.admits(Layer::Credential)))
}

/// Whether what a client presented is good for the call: it names a credential, and its token, if it has
/// one, is good for the audience, the user and the time.
#[must_use]
pub fn is_client_proven(query: &Query, facts: Facts<'_>) -> bool {
    match (&query.subject, &query.token) {
        (Subject::Unproven(_), _) | (_, Some(PresentedToken::Rejected(_))) => false,
        (Subject::Known { .. }, None) => true,
        (Subject::Known { .. }, Some(PresentedToken::Stated(_) | PresentedToken::Verified(_))) => {
            matches!(requirements(query, facts.catalog), Ok(Some((_, resolved_audience)))
                if token_fault(query, facts, resolved_audience).is_none())
        }
    }
}

/// What is wrong with what a client presented, for whichever audience the call is made: it names no
/// credential, or its token is good for no audience.
fn client_fault(query: &Query, facts: Facts<'_>) -> Option<Cause> {
    match (&query.subject, &query.token) {
        (Subject::Unproven(cause), _) | (_, Some(PresentedToken::Rejected(cause))) => Some(*cause),
        (Subject::Known { .. }, None) => None,
        (Subject::Known { .. }, Some(PresentedToken::Stated(_) | PresentedToken::Verified(_))) => {
            let fault_for = |named: Option<&Name>| match facts.catalog.resolve_audience(None, named)
            {
                Ok(audience) => token_fault(query, facts, audience),
                Err(_) => Some(Reason::TokenAudienceMismatch.into()),
            };
            let mut all = facts.catalog.audience_names().peekable();
            if query.audience.is_some() || all.peek().is_none() {
                return fault_for(query.audience.as_ref());
            }
            all.map(|name| fault_for(Some(name)))
                .reduce(|fault, other| Some(fault?.last(other?)))?
        }
    }
}

/// When a fact of the decision expires. From then on, time alone can make the answer stricter. Nothing
/// else can, because a token that begins to be valid only removes a denial.
pub fn ends<'a>(query: &'a Query, facts: Facts<'a>) -> impl Iterator<Item = Timestamp> + 'a {
    let credential = facts.credential.into_iter().flat_map(Credential::ends);
    credential
        .chain(query.token_facts().into_iter().flat_map(move |token| token.ends(facts.catalog)))
}

/// The requirement of a call.
#[derive(Clone, Copy)]
struct Needed<'a> {
    /// All of these scopes.
    scopes: &'a [Scope],
    /// At least one of these, if the list is not empty.
    any_of: &'a [Scope],
    /// Whether the catalog declares that no scope is needed.
    no_scope: bool,
    /// The owner of the record, if the catalog knows it.
    owner: Option<&'a UserId>,
}

impl<'a> Needed<'a> {
    /// What a call to an endpoint needs.
    fn of(endpoint: &'a Endpoint) -> Self {
        Self {
            scopes: &endpoint.scopes,
            any_of: &endpoint.any_of,
            no_scope: endpoint.needs_no_scope,
            owner: None,
        }
    }

    fn is_empty(self) -> bool {
        self.scopes.is_empty() && self.any_of.is_empty()
    }
}

/// The requirement of a query, and its audience; `None` if no endpoint matches, or no rule of a resource.
fn requirements<'a>(
    query: &'a Query,
    catalog: &'a Catalog,
) -> Result<Option<(Needed<'a>, ResolvedAudience<'a>)>, AudienceError> {
    let named = query.audience.as_ref();
    let found = match &query.needs {
        Requirement::Scopes(scopes) => {
            let needed = Needed { scopes, any_of: &[], no_scope: false, owner: None };
            return Ok(Some((needed, catalog.resolve_audience(None, named)?)));
        }
        Requirement::Endpoint { method, path } => {
            catalog.endpoint(method, path).map(|it| (it, None))
        }
        Requirement::Template { method, template } => {
            catalog.endpoint_of_template(method, template).map(|it| (it, None))
        }
        Requirement::Resource(asked) => {
            let needs = catalog.resource_type(&asked.kind).and_then(|kind| kind.needs(asked));
            needs.map(|needs| (needs.needs, needs.owner))
        }
    };
    Ok(match found {
        Some((endpoint, owner)) => {
            let resolved_audience = catalog.resolve_audience(endpoint.audience.as_ref(), named)?;
            Some((Needed { owner, ..Needed::of(endpoint) }, resolved_audience))
        }
        None => {
            // An unknown endpoint has no audience, but a named audience must exist.
            if named.is_some() {
                catalog.resolve_audience(None, named)?;
            }
            None
        }
    })
}

/// Why the token is not valid for the call, if so.
fn token_fault(
    query: &Query,
    facts: Facts<'_>,
    resolved_audience: ResolvedAudience<'_>,
) -> Option<Cause> {
    if let Some(PresentedToken::Rejected(cause)) = &query.token {
        return Some(*cause);
    }
    let token = query.token_facts()?;
    let fault = token.fault(resolved_audience, query.user.as_ref(), facts.now);
    // What a token contradicts comes before its times and its audience.
    let ambiguous = facts.ambiguous_subject.then_some(DenialCause::AmbiguousSubject);
    let verified = query.verified_token();
    let ended = verified.and_then(|token| token.ended(query.on_behalf_of(), facts));
    ended.or(ambiguous).or(fault).map(Cause::from)
}

/// Evaluates the layers of one call.
struct Evaluator<'a> {
    query: &'a Query,
    facts: Facts<'a>,
    resolved_audience: ResolvedAudience<'a>,
    /// The owner of the record: the catalog's, else the request's.
    owner: Option<&'a UserId>,
    /// Why the token is not valid for the call, if so.
    token_fault: Option<Cause>,
    /// The token's scopes, sorted, closed under implication (D1); those that the catalog lacks are
    /// ignored (D16). Computed when a scope is needed that the token does not name.
    token_scopes: OnceCell<Vec<ScopeId>>,
    /// The permissions of each of the user's roles.
    roles: Vec<&'a ScopeMap<Reach>>,
}

impl<'a> Evaluator<'a> {
    fn new(query: &'a Query, facts: Facts<'a>, resolved_audience: ResolvedAudience<'a>) -> Self {
        let token_fault = token_fault(query, facts, resolved_audience);
        let roles =
            facts.user.map(|user| facts.catalog.role_permissions(&user.roles)).unwrap_or_default();
        let owner = query.owner.as_ref();
        let token_scopes = OnceCell::new();
        Self { query, facts, resolved_audience, owner, token_fault, token_scopes, roles }
    }

    /// The same, of a call whose record has this owner if the catalog knows it.
    fn with_owner(self, known: Option<&'a UserId>) -> Self {
        Self { owner: known.or(self.owner), ..self }
    }

    /// How far a scope reaches through all applied layers, or the first cause of a denial.
    fn scope(&self, scope: &Scope) -> Result<Reach, Cause> {
        let intersect = |all: Result<Reach, Cause>, one| match (all, one) {
            (Ok(a), Ok(b)) => Ok(a.min(b)),
            (Err(a), Err(b)) => Err(a.first(b)),
            (Err(cause), Ok(_)) | (Ok(_), Err(cause)) => Err(cause),
        };
        self.layers(scope).map(|(_, result)| result).fold(Ok(Reach::All), intersect)
    }

    /// The widest reach of these scopes, or, if none is effective, the cause that is last in D15
    /// (D20). `None` for an empty list.
    fn any(&self, scopes: &[Scope]) -> Option<Result<Reach, Cause>> {
        let better = |best: Result<Reach, Cause>, next| match (best, next) {
            (Ok(a), Ok(b)) => Ok(a.max(b)),
            (Err(a), Err(b)) => Err(a.last(b)),
            (Ok(reach), Err(_)) | (Err(_), Ok(reach)) => Ok(reach),
        };
        scopes.iter().map(|scope| self.scope(scope)).reduce(better)
    }

    /// Whether every applied layer admits the call, whatever it requires; else the first cause.
    fn call(&self) -> Result<(), Cause> {
        let failed = self.applied().filter_map(|layer| self.admits(layer).err());
        failed.reduce(Cause::first).map_or(Ok(()), Err)
    }

    /// The result of each applied layer for a scope.
    fn layers(&self, scope: &Scope) -> impl Iterator<Item = (Layer, Result<Reach, Cause>)> {
        let known = self.facts.catalog.id(scope);
        self.applied().map(move |layer| (layer, self.layer(layer, scope, known)))
    }

    /// The applied layers, outermost first.
    fn applied(&self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(|layer| self.applies(*layer))
    }

    /// Whether a layer applies to the call (D16). Of a call whose subject is unproven, only the layer that
    /// says so (T5).
    fn applies(&self, layer: Layer) -> bool {
        if let Subject::Unproven(cause) = &self.query.subject {
            return layer == Self::layer_of(*cause);
        }
        let audience = self.resolved_audience.audience;
        match layer {
            Layer::Company | Layer::Credential => true,
            Layer::Token => audience.token_required || self.query.token.is_some(),
            Layer::Consent => audience.consent_required,
            Layer::User => audience.user_required || self.query.on_behalf_of().is_some(),
        }
    }

    /// The layer that reports an unproven subject.
    fn layer_of(cause: Cause) -> Layer {
        if cause.reason < Reason::TokenRequired { Layer::Credential } else { Layer::Token }
    }

    /// Whether a layer admits the call as a whole.
    fn admits(&self, layer: Layer) -> Result<(), Cause> {
        if let Subject::Unproven(cause) = &self.query.subject {
            return Err(*cause);
        }
        match layer {
            Layer::Company => self.facts.has_live_company()?,
            Layer::Credential => self.facts.has_live_credential()?,
            Layer::Token => {
                if self.query.token.is_none() {
                    return Err(Reason::TokenRequired.into());
                }
                if let Some(fault) = self.token_fault {
                    return Err(fault);
                }
            }
            // A consent is about scopes. The user layer reports a missing user.
            Layer::Consent => {}
            Layer::User => {
                self.query.on_behalf_of().ok_or(Reason::UserRequired)?;
                self.facts.user.ok_or(Reason::UserUnknown)?;
            }
        }
        Ok(())
    }

    /// The result of one layer for a scope: first for the call as a whole, then for the scope.
    fn layer(&self, layer: Layer, name: &Scope, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        self.admits(layer)?;
        match layer {
            Layer::Company => self.company(scope),
            Layer::Credential => self.credential(scope),
            Layer::Token => self.token(name, scope),
            Layer::Consent => self.consent(scope),
            Layer::User => self.user(scope),
        }
    }

    fn company(&self, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let company = self.facts.company.ok_or(Reason::CompanyUnknown)?;
        // Outside the audience, a scope is unknown, as if the catalog lacked it.
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
        let granted = scope.and_then(|scope| Some((scope, credential.grants.get(scope)?)));
        let (scope, grant) = granted.ok_or(Reason::ScopeNotGranted)?;
        match grant.state(scope, company, self.facts.now) {
            GrantState::Active => Ok(Reach::All),
            GrantState::Dormant => Err(Reason::GrantDormant.into()),
            GrantState::Expired => Err(Reason::GrantExpired.into()),
        }
    }

    fn token(&self, name: &Scope, scope: Option<ScopeId>) -> Result<Reach, Cause> {
        let token = self.query.token_facts().filter(|_| self.facts.credential.is_some());
        let carried = token.zip(scope).is_some_and(|(token, scope)| {
            // A token usually names what a call needs.
            token.scopes.iter().take(MAX_COMPARED).any(|named| named == name)
                || self.token_scopes(token).binary_search(&scope).is_ok()
        });
        if carried { Ok(Reach::All) } else { Err(Reason::ScopeNotInToken.into()) }
    }

    fn token_scopes(&self, token: &Token) -> &[ScopeId] {
        self.token_scopes.get_or_init(|| {
            let known = token.scopes.iter().filter_map(|scope| self.facts.catalog.id(scope));
            self.facts.catalog.closure(&known.collect::<Vec<_>>())
        })
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
            Reach::Own => match self.owner {
                Some(owner) if owner == named => Ok(Reach::Own),
                None if !self.query.denies_own => Ok(Reach::Own),
                _ => Err(Reason::NotRecordOwner.into()),
            },
            Reach::All => Ok(Reach::All),
        }
    }
}
