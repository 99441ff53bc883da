//! Token: the claims of an access token that the caller of scopegate has verified. A token never
//! widens access.

use jiff::{SignedDuration, Timestamp};

use super::catalog::{Catalog, ResolvedAudience};
use super::cause::DenialCause;
use super::id::UserId;
use super::scope::Scope;

/// The claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Its audience: the name of an audience or one of its `aud`; empty if the token has none.
    pub audience: String,
    /// Its scopes; without scopes it allows nothing.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
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

    /// When each of the catalog's audiences begins to accept its issue time.
    pub fn begins(&self, catalog: &Catalog) -> impl Iterator<Item = Timestamp> {
        let skews = catalog.clock_skews().chain([0]);
        let skews = skews.map(|skew| SignedDuration::from_secs(skew.into()));
        let issued = self.issued_at;
        skews.filter_map(move |skew| issued?.checked_sub(skew).ok())
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
        let skew = SignedDuration::from_secs(resolved_audience.audience.clock_skew.into());
        if self.issued_at.is_some_and(|issued| issued.duration_since(now) > skew) {
            return Some(DenialCause::IssuedAhead);
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
        if resolved_audience.accepts_token_audience(&self.audience) {
            return None;
        }
        Some(match (resolved_audience.name, self.audience.as_str()) {
            (None, _) => DenialCause::AudienceUndeclared,
            (Some(_), "") => DenialCause::AudienceMissing,
            (Some(_), _) => DenialCause::OtherAudience,
        })
    }
}
