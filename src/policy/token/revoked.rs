//! Revoked tokens: which tokens of a credential ended before their time (T27).
//!
//! The record of a credential has them, because a check reads that record anyway. Its size is bounded:
//! many revoked tokens become few entries that end more tokens than were named, and never fewer.
//!
//! Not here: the other facts that end a token; see [`super::own`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};

use super::own::OwnClaims;
use crate::policy::catalog::MAX_TOKEN_TTL;
use crate::policy::revision::Revision;

/// The most entries of one credential.
pub const MAX_ENTRIES: usize = 256;
/// The most revoked tokens of one user. One more, and all tokens of this user until then are revoked.
pub const MAX_OF_USER: usize = 8;
/// How far ahead of now the time may be until which tokens of the catalog's issuers are revoked: the
/// clocks of issuers differ.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// How long an entry is kept after all tokens that it ends have expired, in seconds.
const KEPT_AFTER: i64 = 60;

/// The id of a token that is issued here: the claim `jti`, 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// Reads an id as a token has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A token that was revoked by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedToken {
    /// Its id.
    pub id: TokenId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The creation revision of its user, if it has one.
    pub user: Option<Revision>,
}

/// A user of whom all tokens until a revision were revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedUser {
    /// The creation revision of the user.
    pub user: Revision,
    /// Tokens that were issued before this revision are revoked.
    pub before: Revision,
    /// When they were revoked.
    pub revoked_at: Timestamp,
}

/// The tokens of one credential that ended before their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedTokens {
    /// Tokens of the catalog's issuers that were issued at or before this time are invalid, and those
    /// that do not say when.
    pub issued_before: Option<Timestamp>,
    /// Own tokens that were issued before this revision are invalid.
    pub own_before: Revision,
    /// The tokens that were revoked by their ids, oldest first.
    pub tokens: Vec<RevokedToken>,
    /// The users of whom all tokens were revoked, oldest first.
    pub users: Vec<RevokedUser>,
}

/// The latest time until which tokens can have been revoked at this time.
#[must_use]
pub fn latest(now: Timestamp) -> Timestamp {
    now.checked_add(MAX_AHEAD).unwrap_or(Timestamp::MAX)
}

/// The last time until which a token that was issued at a time can be valid.
fn last_end(issued_at: Timestamp) -> Timestamp {
    let ttl = SignedDuration::from_secs(MAX_TOKEN_TTL.into());
    issued_at.checked_add(ttl).unwrap_or(Timestamp::MAX)
}

/// Whether tokens that end at this time have been over for long enough to forget that they were
/// revoked.
fn is_forgotten(end: Timestamp, now: Timestamp) -> bool {
    now.duration_since(end) >= SignedDuration::from_secs(KEPT_AFTER)
}

impl RevokedTokens {
    /// Whether an own token of the credential was revoked, or the token that it was exchanged with.
    #[must_use]
    pub fn has(&self, token: &OwnClaims) -> bool {
        let by_user = |entry: &RevokedUser| {
            token.born.user == Some(entry.user) && token.issued_at_revision < entry.before
        };
        token.issued_at_revision < self.own_before
            || self.users.iter().any(by_user)
            || self
                .tokens
                .iter()
                .any(|entry| entry.id == token.id || Some(entry.id) == token.exchanged_with)
    }

    /// Revokes a token. Where there are too many entries, all own tokens of the credential that were
    /// issued before this change end; then the result is true.
    ///
    /// `believed` is the time by which entries are forgotten. A clock that is wrong for a minute must not
    /// let a token be forgotten that is valid when the clock is right again.
    pub fn revoke(&mut self, token: RevokedToken, now: Timestamp, believed: Timestamp) -> bool {
        self.tokens.retain(|entry| !is_forgotten(entry.expires_at, believed));
        self.users.retain(|entry| !is_forgotten(last_end(entry.revoked_at), believed));
        self.tokens.push(token);
        if let Some(user) = token.user
            && self.tokens.iter().filter(|entry| entry.user == Some(user)).count() > MAX_OF_USER
        {
            self.tokens.retain(|entry| entry.user != Some(user));
            self.users.retain(|entry| entry.user != user);
            self.users.push(RevokedUser { user, before: Revision::NEXT, revoked_at: now });
        }
        let is_full = self.tokens.len() + self.users.len() > MAX_ENTRIES;
        if is_full {
            self.end_own();
        }
        is_full
    }

    /// Ends all own tokens, and the tokens of the catalog's issuers that were issued at or before this
    /// time.
    pub fn end_all(&mut self, issued_before: Timestamp) {
        self.issued_before = self.issued_before.max(Some(issued_before));
        self.end_own();
    }

    /// Brings back what was revoked before an operator set the time back to this time, which has ended all
    /// own tokens. A revocation until a later time is one by a wrong clock: tokens would be refused until
    /// then. No token that was issued before says a later time than [`latest`].
    pub fn accept_clock(&mut self, time: Timestamp) {
        self.issued_before = self.issued_before.map(|before| before.min(latest(time)));
        self.tokens.clear();
        self.users.clear();
    }

    /// Ends all own tokens that were issued before this change. No other entry is needed then.
    fn end_own(&mut self) {
        self.own_before = Revision::NEXT;
        self.tokens.clear();
        self.users.clear();
    }

    /// Replaces [`Revision::NEXT`] by the assigned revision.
    pub(in crate::policy) fn stamp(&mut self, revision: Revision) {
        self.own_before = self.own_before.or_assigned(revision);
        for entry in &mut self.users {
            entry.before = entry.before.or_assigned(revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::own::Born;
    use super::*;

    fn id(n: usize) -> TokenId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        TokenId(bytes)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn revoked(n: usize, user: Option<u64>) -> RevokedToken {
        RevokedToken { id: id(n), expires_at: at(1000), user: user.map(Revision) }
    }

    /// The claims of a token of this number, user and revision of issue.
    fn claims(n: usize, user: Option<u64>, issued_at_revision: u64) -> OwnClaims {
        OwnClaims {
            secret: crate::policy::id::Name::parse("0123").expect("a name"),
            born: Born { company: Revision(1), credential: Revision(2), user: user.map(Revision) },
            incarnation: uuid::Uuid::nil(),
            issued_at_revision: Revision(issued_at_revision),
            id: id(n),
            exchanged_with: None,
            exchanged_with_key: None,
            is_exchanged: user.is_some(),
        }
    }

    #[test]
    fn t27_a_revoked_id_ends_this_token_and_those_that_were_exchanged_with_it() {
        let mut all = RevokedTokens::default();
        assert!(!all.revoke(revoked(1, None), at(0), at(0)));
        all.stamp(Revision(9));
        let exchanged = OwnClaims { exchanged_with: Some(id(1)), ..claims(2, Some(7), 20) };
        assert!(all.has(&claims(1, None, 5)) && all.has(&exchanged));
        assert!(!all.has(&claims(2, None, 5)) && !all.has(&claims(2, Some(7), 5)));
    }

    #[test]
    fn t27_a_revoked_id_is_kept_until_a_minute_after_its_token_has_expired() {
        let mut all = RevokedTokens::default();
        all.revoke(revoked(1, None), at(0), at(0));
        all.revoke(revoked(2, None), at(1059), at(1059));
        assert_eq!(all.tokens.len(), 2);
        all.revoke(revoked(3, None), at(1060), at(1060));
        assert_eq!(all.tokens, [revoked(3, None)]);
    }

    #[test]
    fn t27_no_entry_is_forgotten_by_a_clock_that_is_doubted() {
        let mut all = RevokedTokens::default();
        all.revoke(revoked(1, None), at(0), at(0));
        all.revoke(revoked(2, None), at(9_999_999), at(10));
        all.stamp(Revision(9));
        assert!(all.has(&claims(1, None, 5)));
    }

    #[test]
    fn t27_the_ninth_revoked_token_of_a_user_ends_all_of_this_user_until_then() {
        let mut all = RevokedTokens::default();
        for n in 0..MAX_OF_USER {
            all.revoke(revoked(n, Some(7)), at(0), at(0));
            all.revoke(revoked(100 + n, Some(8)), at(0), at(0));
        }
        all.stamp(Revision(9));
        assert_eq!(all.tokens.len(), 2 * MAX_OF_USER);
        assert!(!all.has(&claims(99, Some(7), 8)));
        all.revoke(revoked(50, Some(7)), at(10), at(10));
        all.stamp(Revision(10));
        assert!(all.has(&claims(99, Some(7), 9)), "issued before");
        assert!(!all.has(&claims(99, Some(7), 10)), "issued at this revision");
        assert!(!all.has(&claims(99, Some(8), 9)) && !all.has(&claims(99, None, 9)), "of others");
        assert_eq!((all.tokens.len(), all.users.len()), (MAX_OF_USER, 1));
        // The next token of this user is revoked by its id again, and the ninth renews the entry.
        for n in 60..=60 + MAX_OF_USER {
            all.revoke(revoked(n, Some(7)), at(20), at(20));
        }
        all.stamp(Revision(30));
        assert!(all.has(&claims(99, Some(7), 29)) && !all.has(&claims(99, Some(7), 30)));
        assert_eq!((all.tokens.len(), all.users.len()), (MAX_OF_USER, 1));
        let day = i64::from(MAX_TOKEN_TTL);
        all.revoke(revoked(70, None), at(20 + day + 59), at(20 + day + 59));
        assert_eq!(all.users.len(), 1);
        all.revoke(revoked(71, None), at(20 + day + 60), at(20 + day + 60));
        assert_eq!(all.users.len(), 0, "its tokens have expired");
    }

    #[test]
    fn t27_tokens_without_a_user_are_not_those_of_one_user() {
        let mut all = RevokedTokens::default();
        for n in 0..=MAX_OF_USER {
            all.revoke(revoked(n, None), at(0), at(0));
        }
        assert_eq!((all.tokens.len(), all.users.len()), (MAX_OF_USER + 1, 0));
        assert!(!all.has(&claims(99, None, 1)));
    }

    #[test]
    fn t27_one_entry_more_than_fits_ends_all_own_tokens_for_ever() {
        let mut all = RevokedTokens::default();
        for n in 0..MAX_ENTRIES {
            assert!(!all.revoke(revoked(n, None), at(0), at(0)), "{n}");
        }
        all.stamp(Revision(9));
        assert!(!all.has(&claims(999, None, 8)));
        assert!(all.revoke(revoked(999, None), at(0), at(0)));
        all.stamp(Revision(10));
        assert_eq!((all.tokens.len(), all.users.len()), (0, 0));
        assert!(all.has(&claims(5, Some(3), 9)) && !all.has(&claims(5, Some(3), 10)));
        assert_eq!(all.issued_before, None, "tokens of other issuers are not ended");
        all.revoke(revoked(7, None), at(1_000_000), at(1_000_000));
        assert!(all.has(&claims(5, None, 9)), "never forgotten");
    }

    #[test]
    fn t27_the_time_of_a_revocation_of_all_never_goes_back() {
        let mut all = RevokedTokens::default();
        all.revoke(revoked(1, None), at(0), at(0));
        all.end_all(at(50));
        all.stamp(Revision(5));
        assert_eq!((all.issued_before, all.own_before), (Some(at(50)), Revision(5)));
        assert!(all.tokens.is_empty());
        all.end_all(at(40));
        all.stamp(Revision(6));
        assert_eq!((all.issued_before, all.own_before), (Some(at(50)), Revision(6)));
    }

    proptest::proptest! {
        /// Whatever is revoked, and in whatever order: a token that was revoked once stays revoked until
        /// it has expired.
        #[test]
        fn t27_no_revocation_is_lost(
            steps in proptest::collection::vec((0..400_usize, 0..5_u64, 0..90_i64), 1..600),
        ) {
            let (mut all, mut now, mut revision) = (RevokedTokens::default(), 0, 10);
            let mut gone: Vec<(OwnClaims, Timestamp)> = Vec::new();
            for (n, user, wait) in steps {
                now += wait;
                let user = (user > 0).then_some(user);
                let token = RevokedToken { expires_at: at(now + 1000), ..revoked(n, user) };
                gone.push((claims(n, user, revision), token.expires_at));
                revision += 1;
                all.revoke(token, at(now), at(now));
                all.stamp(Revision(revision));
                proptest::prop_assert!(all.tokens.len() + all.users.len() <= MAX_ENTRIES);
                for (claims, end) in &gone {
                    proptest::prop_assert!(all.has(claims) || *end <= at(now));
                }
            }
        }
    }
}
