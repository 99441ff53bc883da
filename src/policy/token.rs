//! Token: the facts of an access token that the caller has verified. It never widens anything.

use jiff::{SignedDuration, Timestamp};

use super::catalog::{Catalog, Hearing};
use super::id::UserId;
use super::reason::Reason;
use super::scope::Scope;

/// The facts of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// What it was minted for; empty if it does not say.
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
        let ages = catalog.token_ages().map(|age| SignedDuration::from_secs(age.into()));
        let aged = self.issued_at.map(|issued| ages.map(move |age| issued.checked_add(age)));
        aged.into_iter().flatten().filter_map(Result::ok).chain(self.expires_at)
    }

    /// Why this token does not admit a call, if it does not (D15, D16). No clock skew is allowed.
    #[must_use]
    pub fn fault(
        &self,
        hearing: Hearing<'_>,
        user: Option<&UserId>,
        now: Timestamp,
    ) -> Option<Reason> {
        let other_user = self.user.as_ref().zip(user).is_some_and(|(own, asked)| own != asked);
        let from_the_future = self.issued_at.is_some_and(|issued| issued > now);
        let ends_first = self.issued_at.zip(self.expires_at).is_some_and(|(from, to)| to < from);
        if other_user || from_the_future || ends_first {
            return Some(Reason::TokenInvalid);
        }
        let over = self.expires_at.is_some_and(|end| now >= end);
        let too_old = hearing.audience.max_token_age.is_some_and(|age| {
            // A token that does not say when it was issued may have any age.
            let young = |issued: Timestamp| now.duration_since(issued).as_secs() < i64::from(age);
            !self.issued_at.is_some_and(young)
        });
        if over || too_old {
            return Some(Reason::TokenExpired);
        }
        let minted_for = hearing.name.map_or("", |name| name.as_str());
        (self.audience != minted_for).then_some(Reason::TokenAudienceMismatch)
    }
}
