//! Introspection: what a token says and is good for now (RFC 7662, T36).
//!
//! Not here: the endpoint and its JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::client_proof::ProvenSecret;
use super::error::AuthorityError;
use super::session::Session;
use crate::policy::catalog::Reach;
use crate::policy::client_credential::ClientCredential;
use crate::policy::decision::{self, Facts};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Asked, Client, Query, Requirement, Subject};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::token::new_token::NewToken;
use crate::policy::token::{PresentedToken, TokenAudience};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Introspector<'a> {
    /// The caller of the session, which is a service: about any token of a company that it reaches.
    Service,
    /// A client: about its own tokens.
    Client(&'a ProvenSecret),
}

/// The result of an introspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// The token is good for calls.
    Active(Box<ActiveToken>),
    /// It is not, or the asking party may not know.
    Inactive,
    /// There are no usable keys of its issuer now (T4): status 503.
    Unverifiable,
}

/// A token that is good for calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveToken {
    /// The scopes that a check without an owner would allow now on all records, sorted.
    pub scopes: Vec<Scope>,
    /// The scopes that it would allow on the user's own records only, sorted (D17).
    pub own_scopes: Vec<Scope>,
    /// The company.
    pub company: CompanyId,
    /// The credential: `client_id`.
    pub credential: CredentialId,
    /// The user, if it has one.
    pub user: Option<UserId>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `sub`.
    pub subject: String,
    /// The values of `aud`.
    pub audiences: Vec<Box<str>>,
    /// `jti`, if it has one.
    pub id: Option<Box<str>>,
    /// `iat`, if it has one.
    pub issued_at: Option<Timestamp>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
}

impl Session<'_> {
    /// Tells what a token is good for now. With a `company`, the token must be one of that company, and a
    /// token of an issuer with `company: request` is judged for it (T2). `audience` names one of several
    /// audiences of the token; without it the scopes are those that all of them allow.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn introspect(
        &self,
        who: Introspector<'_>,
        token: &str,
        company: Option<&CompanyId>,
        audience: Option<&Name>,
    ) -> Result<Introspection, AuthorityError> {
        if company.is_some_and(|company| !self.caller.reaches(company.as_str())) {
            return Ok(Introspection::Inactive);
        }
        let mut query = Query {
            subject: Subject::Unproven(Reason::TokenRequired.into()),
            needs: Requirement::Scopes(vec![]),
            audience: None,
            token: None,
            user: None,
            owner: None,
            denies_own: false,
        };
        let presented = ClientCredential::bearer_token(token.to_owned());
        let client = Client { presented, company: company.cloned(), credential: None };
        let mut asked = Asked::Client(&mut query, &client);
        let question = |query: &Query, facts: Facts<'_>| Ok(described(who, query, audience, facts));
        let (described, ..) =
            self.evaluate(&mut asked, Revision::ZERO, |_, _| (), question).await?;
        Ok(described)
    }
}

/// The token of a query that a client's credential has completed.
fn described(
    who: Introspector<'_>,
    query: &Query,
    audience: Option<&Name>,
    facts: Facts<'_>,
) -> Introspection {
    let (company, credential) = match &query.subject {
        Subject::Known { company, credential } => (company, credential),
        Subject::Unproven(cause) if cause.reason == Reason::TokenUnverifiable => {
            return Introspection::Unverifiable;
        }
        Subject::Unproven(_) => return Introspection::Inactive,
    };
    let Some(PresentedToken::Verified(token)) = &query.token else {
        return Introspection::Inactive;
    };
    if let Introspector::Client(client) = who {
        let born = facts.company.zip(facts.credential);
        let born = born.map(|(company, credential)| [company.created_at, credential.created_at]);
        let is_own = client.company == *company && client.credential == *credential;
        if !is_own || born != Some(client.born) {
            return Introspection::Inactive;
        }
    }
    let Some(allowed) = allowed(query, audience, facts) else { return Introspection::Inactive };
    let with = |reach: Reach| {
        let scopes = allowed.iter().filter(move |(_, own)| **own == reach);
        scopes.map(|(scope, _)| scope.clone()).collect()
    };
    let user = token.facts.user.as_ref();
    let audiences = match &token.facts.audience {
        TokenAudience::Claim { values, .. } => values.clone().unwrap_or_default(),
        TokenAudience::Own { values, .. } => values.clone(),
        TokenAudience::Stated(_) => vec![],
    };
    let subject = match (&token.own, user) {
        (Some(_), user) => NewToken::subject(company, credential, user),
        (None, Some(user)) => user.to_string(),
        (None, None) => credential.to_string(),
    };
    Introspection::Active(Box::new(ActiveToken {
        scopes: with(Reach::All),
        own_scopes: with(Reach::Own),
        company: company.clone(),
        credential: credential.clone(),
        user: user.cloned(),
        issuer: token.issuer.name.clone(),
        subject,
        audiences,
        id: token.id.clone(),
        issued_at: token.facts.issued_at,
        expires_at: token.facts.expires_at,
    }))
}

/// The scopes that calls with the token are allowed by, each with the narrowest reach, for the named
/// audience or for all audiences of the token. None if calls for none of them pass.
fn allowed(
    query: &Query,
    audience: Option<&Name>,
    facts: Facts<'_>,
) -> Option<BTreeMap<Scope, Reach>> {
    let mut names: Vec<Option<Name>> = match audience {
        Some(name) => vec![Some(name.clone())],
        None => facts.catalog.audience_names().cloned().map(Some).collect(),
    };
    if names.is_empty() {
        names.push(None);
    }
    let (mut all, mut passes): (Option<BTreeMap<Scope, Reach>>, bool) = (None, false);
    for name in names {
        let call = Query { audience: name, ..query.clone() };
        let effective = match decision::admits(&call, facts) {
            Ok(Ok(())) => {
                passes = true;
                decision::effective(&call, facts).ok()?
            }
            // It is no audience of the token.
            Ok(Err(cause)) if cause.reason == Reason::TokenAudienceMismatch => continue,
            Ok(Err(_)) => vec![],
            Err(_) => continue,
        };
        let effective: BTreeMap<_, _> = effective.into_iter().collect();
        all = Some(match all {
            None => effective,
            Some(before) => before
                .into_iter()
                .filter_map(|(scope, reach)| {
                    let other = *effective.get(&scope)?;
                    Some((scope, reach.min(other)))
                })
                .collect(),
        });
    }
    all.filter(|_| passes)
}
