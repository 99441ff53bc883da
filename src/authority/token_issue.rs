//! Token issue: the access tokens that scopegate issues itself, by the client credentials grant, by
//! token exchange and for an authorization code (T25 to T27, T32 to T35).
//!
//! Nothing is stored when a token is issued. A token has the scopes that are effective at its issue, and
//! every check asks all layers again, so a token never allows more than that later.
//!
//! Not here: the endpoint and its forms. The verification of such a token is in
//! `token_verifier`, and what ends it is in [`crate::policy::token::own`].

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;

use super::ATTEMPTS;
use super::client_proof::{ProvenActor, ProvenSecret};
use super::error::AuthorityError;
use super::reader::Reader;
use super::session::Session;
use super::token_verifier::{Proof, check_reached};
use crate::policy::catalog::{Audience, AudienceError, MAX_TOKEN_TTL};
use crate::policy::cause::Cause;
use crate::policy::credential::GrantContext;
use crate::policy::decision::{self, Facts, Verdict};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Query, Requirement, Subject};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::policy::token::new_token::NewToken;
use crate::policy::token::own::{Born, OwnClaims};
use crate::policy::token::private_key::PrivateKey;
use crate::policy::token::revoked::TokenId;
use crate::policy::token::signing_keys::{KeyState, SigningKeys};
use crate::policy::token::{PresentedToken, Token, TokenAudience, VerifiedToken};
use crate::store::StoreError;

/// The most bytes of a token that is issued (T35).
pub const MAX_ISSUED_BYTES: usize = 7 << 10;

/// How the client of a token request proves who it is. `Debug` prints no token.
#[derive(Clone, Copy)]
pub enum TokenClient<'a> {
    /// By a secret.
    Secret(&'a ProvenSecret),
    /// By an access token of its own, which a token exchange presents as `actor_token`.
    Actor {
        /// The text of the token.
        token: &'a str,
        /// The secret, if the client presents one besides. Both must be of one client.
        secret: Option<&'a ProvenSecret>,
        /// The company that the request names, if any. The client must be one of it.
        company: Option<&'a CompanyId>,
    },
}

impl fmt::Debug for TokenClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(proven) => f.debug_tuple("Secret").field(proven).finish(),
            Self::Actor { .. } => f.write_str("Actor(…)"),
        }
    }
}

/// The grant of a token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenGrant {
    /// `client_credentials` (RFC 6749 section 4.4).
    ClientCredentials,
    /// `authorization_code` (RFC 6749 section 4.1). A code without scopes is refused before.
    AuthorizationCode {
        /// The user who gave the scopes.
        user: UserId,
        /// The claims of a token with the code's creation. What ends that token ends the code (T27).
        claims: OwnClaims,
    },
    /// Token exchange for a user of the client's company (RFC 8693). A client that presents an
    /// `actor_token` can ask for this grant only.
    Exchange {
        /// The user.
        user: UserId,
    },
}

impl TokenGrant {
    /// The user that the token is for, if there is one.
    fn user(&self) -> Option<&UserId> {
        match self {
            Self::ClientCredentials => None,
            Self::AuthorizationCode { user, .. } | Self::Exchange { user } => Some(user),
        }
    }
}

/// A request for a token. `Debug` does not print the token of its client.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The client.
    pub client: TokenClient<'a>,
    /// The grant.
    pub grant: TokenGrant,
    /// The audience of the token, as the catalog names it; none if the catalog declares none, or only
    /// one.
    pub audience: Option<Name>,
    /// The scopes; none for all that are effective, without those that an `exchange` names.
    pub scopes: Option<Vec<Scope>>,
}

/// A token that was issued. `Debug` does not print its text.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The text.
    pub text: String,
    /// In how many seconds it ends.
    pub expires_in: u32,
    /// When it ends.
    pub(super) expires_at: Timestamp,
    /// Its id.
    pub(super) token_id: TokenId,
    /// Its scopes, sorted.
    pub scopes: Vec<Scope>,
    /// The claim `jti`, for the log.
    pub id: String,
    /// The company of the client.
    pub company: CompanyId,
    /// The credential of the client.
    pub credential: CredentialId,
    /// The user, after an exchange.
    pub user: Option<UserId>,
    /// The audience.
    pub audience: Option<Name>,
    /// The revision at which it was issued.
    pub revision: Revision,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedToken({})", self.id)
    }
}

/// The error code of a refusal (RFC 6749 section 5.2, RFC 8707 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// `invalid_request`.
    InvalidRequest,
    /// `invalid_client`, with status 401: the client is disabled or has expired since its proof.
    InvalidClient,
    /// `invalid_grant`.
    InvalidGrant,
    /// `invalid_scope`.
    InvalidScope,
    /// `invalid_target`: the catalog has no such audience.
    InvalidTarget,
    /// `unauthorized_client`.
    UnauthorizedClient,
}

impl TokenError {
    /// Its code on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
        }
    }
}

/// Why a token is not issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// The error code.
    pub error: TokenError,
    /// The cause of a decision, if that is why: for the log.
    pub cause: Option<Cause>,
    /// What is wrong and who can fix it: a sentence of ASCII without `"` and `\`, which repeats nothing
    /// of the request (T35).
    pub description: &'static str,
}

impl TokenRefusal {
    fn new(error: TokenError, description: &'static str) -> Self {
        Self { error, cause: None, description }
    }

    fn by(error: TokenError, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self { error, cause: Some(cause), description: cause.message() }
    }
}

/// A token that the facts of one revision permit. It does not depend on the time of its issue.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Draft {
    born: Born,
    audience: Option<Name>,
    /// The strings by which others know the audience.
    aud: Vec<Box<str>>,
    scopes: Vec<Scope>,
    /// How long the token lives, in seconds.
    ttl: u32,
    /// When the credential expires.
    credential_end: Option<Timestamp>,
}

/// The client of a request, and what its token will say of it.
struct Applicant {
    company: CompanyId,
    credential: CredentialId,
    /// The secret by which the client has proven who it is.
    secret: Name,
    /// The client's own token, if it has presented one.
    actor: Option<Arc<VerifiedToken>>,
    /// The creation revisions of company and credential at the proof.
    born: [Revision; 2],
}

impl Session<'_> {
    /// Issues a token. Use the session of a client: [`Authority::internal_session`], with
    /// [`ProvenSecret::actor`] where the client has proven itself by a secret.
    ///
    /// [`Authority::internal_session`]: super::Authority::internal_session
    ///
    /// # Errors
    /// The store cannot answer, or this server has no key to sign with:
    /// [`AuthorityError::CannotSign`].
    pub async fn issue_token(
        &self,
        request: &TokenRequest<'_>,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let authority = self.authority;
        let issuer = &authority.issuer()?.entry.name;
        let applicant = match self.applicant(&request.client).await? {
            Ok(applicant) => applicant,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let is_exchange = matches!(request.grant, TokenGrant::Exchange { .. });
        if applicant.actor.is_some() && !is_exchange {
            let what = "An actor token is for a token exchange only.";
            return Ok(Err(TokenRefusal::new(TokenError::InvalidRequest, what)));
        }
        // Before the facts, so that every decision on the token knows its key.
        let keys = self.read(async |mut reader: Reader<'_>| Ok(reader.find(()).await?)).await?;
        let keys: Arc<SigningKeys> = keys.unwrap_or_default();
        let key = keys.in_state(KeyState::Current).ok_or(AuthorityError::CannotSign)?;
        let key = authority.private_key(key.id).await?;
        let query = Query {
            subject: Subject::Known {
                company: applicant.company.clone(),
                credential: applicant.credential.clone(),
            },
            needs: Requirement::Scopes(vec![]),
            audience: request.audience.clone(),
            token: applicant.actor.clone().map(PresentedToken::Verified),
            user: request.grant.user().cloned(),
            owner: None,
            denies_own: false,
        };
        let touch = |query: &Query, facts: Facts<'_>| authority.touch(query, facts);
        let question =
            |query: &Query, facts: Facts<'_>| Ok(draft(request, &applicant, query, facts));
        let (drafted, _, revision) =
            self.evaluate(&mut (&query).into(), keys.revision, touch, question).await?;
        match drafted {
            Ok(draft) => self.sign(&key, issuer, request, &applicant, draft, revision),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// The client of a request.
    async fn applicant(
        &self,
        client: &TokenClient<'_>,
    ) -> Result<Result<Applicant, TokenRefusal>, AuthorityError> {
        let (text, secret, company) = match client {
            TokenClient::Secret(proven) => {
                let ProvenSecret { company, credential, secret, born } = (*proven).clone();
                return Ok(Ok(Applicant { company, credential, secret, actor: None, born }));
            }
            TokenClient::Actor { token, secret, company } => (*token, *secret, *company),
        };
        let proven = self.prove_actor(text, company).await?;
        let proven = proven.filter(|proven| secret.is_none_or(|secret| proven.is(secret)));
        let Some(ProvenActor { company, credential, secret, born, token }) = proven else {
            let what = "The actor token is not a valid token of the client itself.";
            return Ok(Err(TokenRefusal::new(TokenError::InvalidRequest, what)));
        };
        Ok(Ok(Applicant { company, credential, secret, actor: Some(token), born }))
    }

    /// The token with this text, at a revision that is published now.
    pub(super) async fn verified(
        &self,
        text: &str,
    ) -> Result<Result<Arc<VerifiedToken>, Cause>, AuthorityError> {
        let mut proof = Proof::new(self.deadline);
        for _ in 0..ATTEMPTS {
            let view = self.authority.facts.view().await?;
            let verified = self.authority.verify_token(&view, text, &mut proof).await;
            let reached = verified.and_then(|verified| {
                verified.iter().try_for_each(|token| check_reached(&view, token))?;
                Ok(verified)
            });
            match reached {
                Ok(verified) => return Ok(verified),
                Err(error) => self.authority.wait_and_retry(error).await?,
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Signs a token.
    fn sign(
        &self,
        key: &PrivateKey,
        issuer: &str,
        request: &TokenRequest<'_>,
        applicant: &Applicant,
        draft: Draft,
        revision: Revision,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let id = new_id()?;
        let actor = applicant.actor.as_ref();
        let user = request.grant.user();
        let own = OwnClaims {
            secret: applicant.secret.clone(),
            born: draft.born,
            incarnation: self.authority.incarnation(),
            issued_at_revision: revision,
            id,
            exchanged_with: actor.and_then(|actor| actor.own.as_ref()).map(|own| own.id),
            // The proof is older than the facts. If its key was deleted between them, the token is invalid.
            exchanged_with_key: actor.map(|actor| actor.key),
            is_exchanged: matches!(request.grant, TokenGrant::Exchange { .. }),
        };
        self.authority.facts.store().check_clock()?;
        // No time of the token is ahead, and no end is later than it may be.
        let issued_at = self.authority.clock.now().as_second();
        let ends = [draft.credential_end, actor.and_then(|actor| actor.facts.expires_at)];
        let ends = ends.into_iter().flatten().map(Timestamp::as_second);
        let expires_at = ends.fold(issued_at + i64::from(draft.ttl), i64::min);
        let expires_in = u32::try_from(expires_at - issued_at).unwrap_or(0);
        if expires_in == 0 {
            let what = "The credential or the actor token ends within this second.";
            return Ok(Err(TokenRefusal::new(TokenError::InvalidRequest, what)));
        }
        let name = draft.audience.as_ref().map_or(issuer, Name::as_str);
        let token = NewToken {
            issuer,
            company: &applicant.company,
            credential: &applicant.credential,
            user,
            audiences: [name].into_iter().chain(draft.aud.iter().map(|aud| &**aud)).collect(),
            scopes: &draft.scopes,
            issued_at,
            expires_at,
            own: &own,
        };
        let signed = token.to_sign(&key.id).map_err(|_| StoreError::Unavailable)?;
        let signature = key.sign(signed.as_bytes()).map_err(|_| StoreError::Unavailable)?;
        let text = format!("{signed}.{}", BASE64.encode(signature));
        if text.len() > MAX_ISSUED_BYTES {
            let what = "The token would be too long. Request fewer scopes by name.";
            return Ok(Err(TokenRefusal::new(TokenError::InvalidScope, what)));
        }
        Ok(Ok(IssuedToken {
            text,
            expires_in,
            expires_at: Timestamp::from_second(expires_at).unwrap_or(Timestamp::MAX),
            token_id: id,
            scopes: draft.scopes,
            id: own.id.to_string(),
            company: applicant.company.clone(),
            credential: applicant.credential.clone(),
            user: user.cloned(),
            audience: draft.audience,
            revision,
        }))
    }
}

/// What the facts permit.
fn draft(
    request: &TokenRequest<'_>,
    applicant: &Applicant,
    query: &Query,
    facts: Facts<'_>,
) -> Result<Draft, TokenRefusal> {
    use TokenError::{
        InvalidClient, InvalidGrant, InvalidRequest, InvalidScope, InvalidTarget,
        UnauthorizedClient,
    };

    let resolved = facts.catalog.resolve_audience(None, query.audience.as_ref());
    let resolved = resolved.map_err(|error| match error {
        AudienceError::Ambiguous(_) => TokenRefusal::new(
            InvalidRequest,
            "The audience is missing, and there are several. Name one by the parameter audience.",
        ),
        _ => TokenRefusal::new(InvalidTarget, "The audience is not known. Check its name."),
    })?;
    let unknown = || TokenRefusal::by(InvalidClient, Reason::CredentialUnknown);
    match decision::admits_client(query, facts) {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => return Err(TokenRefusal::by(InvalidClient, cause)),
        Err(_) => return Err(unknown()),
    }
    let (company, credential) = facts.company.zip(facts.credential).ok_or_else(unknown)?;
    if [company.created_at, credential.created_at] != applicant.born
        || !credential.secrets.contains(&applicant.secret)
    {
        return Err(unknown());
    }
    let Audience {
        user_required, consent_required, token_ttl, max_token_age, exchange, aud, ..
    } = resolved.audience;
    let user = match &request.grant {
        TokenGrant::ClientCredentials if *user_required || *consent_required => {
            let what = "This audience is for calls on behalf of a user. Use an authorization code, or a token exchange if the audience has one.";
            return Err(TokenRefusal::new(UnauthorizedClient, what));
        }
        TokenGrant::ClientCredentials => None,
        TokenGrant::AuthorizationCode { claims, .. } => {
            let over = || {
                TokenRefusal::new(InvalidGrant, "The code was revoked, or its user was deleted.")
            };
            let user = facts.user.ok_or_else(over)?;
            match claims.ended((company, credential), Some(user.created_at), &facts.tokens) {
                Some(_) => return Err(over()),
                None => Some(user),
            }
        }
        TokenGrant::Exchange { .. } => {
            if let Some(actor) = &applicant.actor
                && !is_live(actor, facts)
            {
                let what = "The actor token has expired or was revoked. Request a new one.";
                return Err(TokenRefusal::new(InvalidRequest, what));
            }
            let context = GrantContext { catalog: facts.catalog, company, now: facts.now };
            let is_allowed = exchange.as_ref().is_some_and(|scope| {
                let id = facts.catalog.id(scope);
                let is_held = id.is_some_and(|id| credential.active(id, context).is_some());
                // By name, because no token has this scope that was not asked for it by name.
                let actor = applicant.actor.as_ref();
                is_held && actor.is_none_or(|actor| actor.facts.scopes.contains(scope))
            });
            if !is_allowed {
                let what = "The client may not act for users at this audience. Ask for the scope that the audience names as its exchange.";
                return Err(TokenRefusal::new(UnauthorizedClient, what));
            }
            let unknown =
                || TokenRefusal::new(InvalidRequest, "The user is not known in this company.");
            Some(facts.user.ok_or_else(unknown)?)
        }
    };
    let wanted: Vec<Scope> = match request.scopes.as_deref() {
        Some(scopes) => scopes.to_vec(),
        None => {
            let of_audience = |id: &ScopeId| facts.catalog.in_audience(*id, resolved);
            let all = facts.catalog.scope_ids().filter(of_audience);
            let all = all.filter_map(|id| facts.catalog.name(id));
            let mut all: Vec<_> =
                all.filter(|scope| !facts.catalog.is_for_exchange(scope)).cloned().collect();
            all.sort();
            all
        }
    };
    // The token as if it had all of these scopes.
    let token = Token {
        audience: TokenAudience::Own { name: resolved.name.cloned(), values: vec![] },
        scopes: wanted.clone(),
        issued_at: Some(facts.now),
        user: user.map(|user| user.id.clone()),
        ..Token::default()
    };
    let call = Query {
        needs: Requirement::Scopes(wanted.clone()),
        token: Some(PresentedToken::Stated(token)),
        user: None,
        ..query.clone()
    };
    let effective = decision::effective(&call, facts).unwrap_or_default().into_iter();
    let wanted: HashSet<_> = wanted.iter().collect();
    let scopes: Vec<_> =
        effective.map(|(scope, _)| scope).filter(|scope| wanted.contains(scope)).collect();
    if scopes.is_empty() {
        return Err(match decision::decide(&call, facts) {
            Ok(Verdict::Denied { reason, fault, .. }) if !wanted.is_empty() => {
                TokenRefusal::by(InvalidScope, Cause { reason, fault })
            }
            _ => TokenRefusal::new(InvalidScope, "No scope is effective for this client."),
        });
    }
    let ages = [Some(*token_ttl), *max_token_age, Some(MAX_TOKEN_TTL)];
    Ok(Draft {
        born: Born {
            company: company.created_at,
            credential: credential.created_at,
            user: user.map(|user| user.created_at),
        },
        audience: resolved.name.cloned(),
        aud: aud.clone(),
        scopes,
        ttl: ages.into_iter().flatten().min().unwrap_or(0),
        credential_end: credential.expires_at,
    })
}

/// A new id of a token.
pub(super) fn new_id() -> Result<TokenId, StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| StoreError::Unavailable)?;
    Ok(TokenId(id))
}

/// Whether a client's own token is good for its own audience.
pub(super) fn is_live(actor: &VerifiedToken, facts: Facts<'_>) -> bool {
    let TokenAudience::Own { name, .. } = &actor.facts.audience else { return false };
    let Ok(audience) = facts.catalog.resolve_audience(None, name.as_ref()) else { return false };
    actor.ended(None, facts).is_none() && actor.facts.fault(audience, None, facts.now).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::cause::DenialCause;

    #[test]
    fn t35_a_description_is_ascii_without_quotation_marks_and_backslashes() {
        let faults = DenialCause::ALL.iter().map(|fault| Cause::from(*fault));
        let reasons = Reason::ALL.iter().map(|reason| Cause::from(*reason));
        for cause in faults.chain(reasons) {
            let text = TokenRefusal::by(TokenError::InvalidScope, cause).description;
            assert!(text.is_ascii() && !text.contains(['"', '\\']), "{text}");
        }
    }
}
