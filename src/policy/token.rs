//! Token: the facts of an access token that the caller has verified. It never widens anything.

use jiff::{SignedDuration, Timestamp};

use super::catalog::{Catalog, ResolvedAudience};
use super::cause::DenialCause;
use super::id::UserId;
use super::scope::Scope;

/// The most bytes of what a token says it was minted for.
pub const MAX_AUDIENCE_LEN: usize = 512;

/// The facts of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// What it was minted for: an audience's name or one of its `aud`; empty if it does not say.
    pub audience: String,
    /// What it allows; without scopes, nothing.
    pub scopes: Vec<Scope>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// In whose name it was minted.
    pub user: Option<UserId>,
}

impl Token {
    /// When it ends, and when it is too old for each of the catalog's audiences.
    pub fn ends(&self, catalog: &Catalog) -> impl Iterator<Item = Timestamp> {
        let ages = catalog.max_token_ages().map(|age| SignedDuration::from_secs(age.into()));
        let aged = self.issued_at.map(|issued| ages.map(move |age| issued.checked_add(age)));
        aged.into_iter().flatten().filter_map(Result::ok).chain(self.expires_at)
    }

    /// When each of the catalog's audiences begins to take it for issued.
    pub fn begins(&self, catalog: &Catalog) -> impl Iterator<Item = Timestamp> {
        let skews = catalog.clock_skews().chain([0]);
        let skews = skews.map(|skew| SignedDuration::from_secs(skew.into()));
        let issued = self.issued_at;
        skews.filter_map(move |skew| issued?.checked_sub(skew).ok())
    }

    /// Why this token does not admit a call, if it does not (D15, D16). The audience's clock skew
    /// is of its issue time alone.
    #[must_use]
    pub fn fault(
        &self,
        resolved_audience: ResolvedAudience<'_>,
        user: Option<&UserId>,
        now: Timestamp,
    ) -> Option<DenialCause> {
        // What time never changes comes first; of two ends, the token's own.
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
            // A token that does not say when it was issued may have any age.
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
