//! Token: the facts of an access token. A token never widens access.
//!
//! Either the caller of scopegate has verified the token and states its facts, or scopegate verifies the
//! text of the token itself.

pub mod authorization_code;
mod claims;
mod json;
mod key;
pub mod key_set;
pub mod new_token;
pub mod own;
pub mod private_key;
pub mod revoked;
mod signature;
pub mod signing_keys;
pub mod unverified_token;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::key_set::{KeySet, Thumbprint};
use self::own::OwnClaims;
use super::catalog::issuer::Issuer;
use super::catalog::{Catalog, ResolvedAudience};
use super::cause::{Cause, DenialCause};
use super::id::{CompanyId, CredentialId, Name, UserId};
use super::scope::Scope;

/// The token of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentedToken {
    /// The caller of scopegate has verified the token and states its facts.
    Stated(Token),
    /// scopegate has verified the token.
    Verified(Arc<VerifiedToken>),
    /// The token is not good for the call, for this cause.
    Rejected(Cause),
}

impl PresentedToken {
    /// The facts of the token; none if the token was rejected.
    #[must_use]
    pub fn facts(&self) -> Option<&Token> {
        match self {
            Self::Stated(token) => Some(token),
            Self::Verified(verified) => Some(&verified.facts),
            Self::Rejected(_) => None,
        }
    }
}

impl From<Token> for PresentedToken {
    fn from(token: Token) -> Self {
        Self::Stated(token)
    }
}

/// A token whose signature is right, and that has the form and the claims that its issuer's entry asks
/// for. It is a fact and not a verdict: its times, its audience, its company, its user and its scopes are
/// compared in each decision (T21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// Its issuer, as the catalog declared it when the token was verified.
    pub issuer: Arc<Issuer>,
    /// The key that verified it.
    pub key: Thumbprint,
    /// The claim `jti`, for logs.
    pub id: Option<Box<str>>,
    /// The company that it names; none if the request names the company.
    pub company: Option<CompanyId>,
    /// The credential that it names; none if the request names the credential.
    pub credential: Option<CredentialId>,
    /// The value of `sub` if it is the credential itself, and so no user (RFC 9068 section 2.2). If the
    /// company has a user of this id, the token is ambiguous and so invalid (T16).
    pub client_subject: Option<UserId>,
    /// The facts that a decision needs.
    pub facts: Token,
    /// What only a token has that scopegate issued itself.
    pub own: Option<Box<OwnClaims>>,
}

impl VerifiedToken {
    /// Whether the token is good with this entry of its issuer and this set of the issuer's keys, as it was
    /// with those of its verification (T22).
    #[must_use]
    pub fn is_in_force(&self, issuer: &Arc<Issuer>, keys: &KeySet) -> bool {
        let is_same = Arc::ptr_eq(issuer, &self.issuer) || *issuer == self.issuer;
        is_same && self.rests_on(keys)
    }

    /// Whether the set has every key that the token rests on: the key that verified it, and the key of the
    /// token that it was exchanged with (T22).
    #[must_use]
    pub(super) fn rests_on(&self, keys: &KeySet) -> bool {
        let exchanged_with = self.own.as_ref().and_then(|own| own.exchanged_with_key);
        keys.has(&self.key) && exchanged_with.is_none_or(|key| keys.has(&key))
    }

    /// Roughly the memory that it takes, in bytes, for the bound of a cache. The issuer is shared.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// What an allocation costs besides its bytes, with the pointer to it.
        const ALLOCATION: usize = 32;
        let facts = &self.facts;
        let ids = [
            self.id.as_deref(),
            self.company.as_ref().map(CompanyId::as_str),
            self.credential.as_ref().map(CredentialId::as_str),
            self.client_subject.as_ref().map(UserId::as_str),
            facts.user.as_ref().map(UserId::as_str),
        ];
        let audiences = match &facts.audience {
            TokenAudience::Claim { values: Some(values), .. } => values.as_slice(),
            TokenAudience::Own { values, .. } => values.as_slice(),
            TokenAudience::Claim { values: None, .. } | TokenAudience::Stated(_) => &[],
        };
        let texts = ids.into_iter().flatten();
        let texts = texts.chain(audiences.iter().map(|value| &**value));
        let texts = texts.chain(facts.scopes.iter().map(Scope::as_str));
        let own =
            self.own.as_ref().map_or(0, |own| size_of::<OwnClaims>() + own.secret.as_str().len());
        own + size_of::<Self>() + texts.map(|text| ALLOCATION + text.len()).sum::<usize>()
    }
}

/// The audience of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAudience {
    /// As the caller states it: the name of an audience or one of its `aud`; empty if the token has none.
    Stated(String),
    /// The values of the claim `aud`; none if the token has no such claim.
    Claim {
        /// The issuer, whose entry says what the values stand for.
        issuer: Arc<Issuer>,
        /// The values.
        values: Option<Vec<Box<str>>>,
    },
    /// That of an own token.
    Own {
        /// The name of the audience; none if the catalog declared none.
        name: Option<Name>,
        /// The values of the claim `aud`, of which the first is the name.
        values: Vec<Box<str>>,
    },
}

impl From<&str> for TokenAudience {
    fn from(stated: &str) -> Self {
        Self::Stated(stated.to_owned())
    }
}

impl Default for TokenAudience {
    fn default() -> Self {
        Self::Stated(String::new())
    }
}

/// The facts of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Its audience.
    pub audience: TokenAudience,
    /// Its scopes; without scopes it allows nothing.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// The time before which it is not valid.
    pub not_before: Option<Timestamp>,
    /// How far its times may be ahead of the time here, in seconds. None: the audience's `clock_skew`
    /// (T14).
    pub clock_skew: Option<u32>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// The user that it was issued for.
    pub user: Option<UserId>,
}

impl Token {
    /// When it expires, and when it becomes too old for each of the catalog's audiences.
    pub fn ends(&self, catalog: &Catalog) -> impl Iterator<Item = Timestamp> {
        let ages = catalog.max_token_ages().map(|age| SignedDuration::from_secs(age.into()));
        let aged = self.issued_at.map(|issued| ages.map(move |age| issued.checked_add(age)));
        aged.into_iter().flatten().filter_map(Result::ok).chain(self.expires_at)
    }

    /// When each of the catalog's audiences begins to accept its times.
    pub fn begins(&self, catalog: &Catalog) -> impl Iterator<Item = Timestamp> {
        let skews = catalog.clock_skews().chain([0]).chain(self.clock_skew);
        let skews = skews.map(|skew| SignedDuration::from_secs(skew.into()));
        let times = [self.issued_at, self.not_before];
        skews.flat_map(move |skew| {
            times.into_iter().flatten().filter_map(move |time| time.checked_sub(skew).ok())
        })
    }

    /// Why this token is not valid for a call, if so (D15, D16). The audience's clock skew applies
    /// to the issue time only.
    #[must_use]
    pub fn fault(
        &self,
        resolved_audience: ResolvedAudience<'_>,
        user: Option<&UserId>,
        now: Timestamp,
    ) -> Option<DenialCause> {
        // Causes that do not depend on the time come first; of two expiries, the token's own.
        if self.user.as_ref().zip(user).is_some_and(|(own, asked)| own != asked) {
            return Some(DenialCause::OtherUser);
        }
        if self.issued_at.zip(self.expires_at).is_some_and(|(from, to)| to < from) {
            return Some(DenialCause::EndsBeforeIssue);
        }
        let skew = self.clock_skew.unwrap_or(resolved_audience.audience.clock_skew);
        let skew = SignedDuration::from_secs(skew.into());
        let is_ahead = |time: Timestamp| time.duration_since(now) > skew;
        if self.issued_at.is_some_and(is_ahead) {
            return Some(DenialCause::IssuedAhead);
        }
        if self.not_before.is_some_and(is_ahead) {
            return Some(DenialCause::NotYetValid);
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Some(DenialCause::Ended);
        }
        if let Some(age) = resolved_audience.audience.max_token_age {
            // A token without an issue time may have any age.
            let Some(issued) = self.issued_at else { return Some(DenialCause::IssueTimeMissing) };
            if now.duration_since(issued).as_secs() >= i64::from(age) {
                return Some(DenialCause::TooOld);
            }
        }
        let stated = match &self.audience {
            TokenAudience::Claim { issuer, values } => {
                let values = values.as_deref();
                return match (issuer.is_for(values, resolved_audience), values) {
                    (true, _) => None,
                    (false, None | Some([])) => Some(DenialCause::AudienceMissing),
                    (false, Some(_)) => Some(DenialCause::OtherAudience),
                };
            }
            TokenAudience::Own { name, .. } => {
                let is_same = name.as_ref() == resolved_audience.name;
                return (!is_same).then_some(DenialCause::OtherAudience);
            }
            TokenAudience::Stated(stated) => stated.as_str(),
        };
        if resolved_audience.accepts_token_audience(stated) {
            return None;
        }
        Some(match (resolved_audience.name, stated) {
            (None, _) => DenialCause::AudienceUndeclared,
            (Some(_), "") => DenialCause::AudienceMissing,
            (Some(_), _) => DenialCause::OtherAudience,
        })
    }
}
