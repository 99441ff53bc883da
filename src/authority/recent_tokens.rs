//! Recent tokens: the verified tokens that one core has seen last, found by their whole text.
//!
//! To hash the text takes longer than the rest of a check with a token that is in the cache. A core
//! therefore looks here first. A token is found only if every byte of its text is the same.
//!
//! INVARIANT (a fact, never a verdict): it holds what the token cache holds, and a token from here is used
//! under the same conditions; see `token_verifier` (T21, T22). So nothing has to be removed from here when
//! a key or an issuer changes.
//!
//! Only tokens that were found in the token cache are kept, so forged tokens displace nothing.
//!
//! Not here: the tokens of all cores; see [`super::token_cache`].

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, TryLockError};

use foldhash::quality::RandomState;

use crate::policy::token::VerifiedToken;

/// How many tokens a core keeps, at most. Tokens whose hashes have the same remainder displace each other.
const PLACES: usize = 1 << 10;
/// The most bytes of the text of a token that is kept. The texts of a core take at most 2 MiB, and tokens
/// that have left the token cache meanwhile 4 MiB.
const MAX_TEXT_BYTES: usize = 2 << 10;

/// A token and its text.
struct RecentToken {
    text: Box<str>,
    token: Arc<VerifiedToken>,
}

/// The tokens that a core has seen last. `Debug` does not print them.
pub(super) struct RecentTokens {
    /// Nothing waits for the lock: a core uses it alone, but for requests that are answered by other
    /// threads.
    places: Mutex<Vec<Option<RecentToken>>>,
    /// Has a random seed, so that no client can choose texts that displace others.
    hasher: RandomState,
}

impl fmt::Debug for RecentTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecentTokens(…)")
    }
}

impl Default for RecentTokens {
    fn default() -> Self {
        let places = std::iter::repeat_with(|| None).take(PLACES).collect();
        Self { places: Mutex::new(places), hasher: RandomState::default() }
    }
}

impl RecentTokens {
    /// The token with this text, if its issuer's entry and its key are in force (T22).
    pub(super) fn get(
        &self,
        text: &str,
        is_in_force: impl FnOnce(&VerifiedToken) -> bool,
    ) -> Option<Arc<VerifiedToken>> {
        let found = |place: &mut Option<RecentToken>| {
            place.as_ref().filter(|kept| *kept.text == *text).map(|kept| Arc::clone(&kept.token))
        };
        let token = self.with_place(text, found).flatten()?;
        if !is_in_force(&token) {
            self.with_place(text, Option::take);
            return None;
        }
        Some(token)
    }

    /// Keeps a token that is in the token cache.
    pub(super) fn keep(&self, text: &str, token: &Arc<VerifiedToken>) {
        self.with_place(text, |place| {
            *place = Some(RecentToken { text: text.into(), token: Arc::clone(token) });
        });
    }

    fn with_place<T>(
        &self,
        text: &str,
        work: impl FnOnce(&mut Option<RecentToken>) -> T,
    ) -> Option<T> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let place = self.hasher.hash_one(text) as usize % PLACES;
        let mut places = match self.places.try_lock() {
            Ok(places) => places,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        places.get_mut(place).map(work)
    }
}

#[cfg(test)]
mod tests {
    use super::super::token_cache::tests::token;
    use super::*;

    #[test]
    fn a_token_is_found_by_its_whole_text_and_by_no_other() {
        let tokens = RecentTokens::default();
        let text = |n: usize| format!("{n}.{}", "x".repeat(900));
        let kept: Vec<_> = (0..2 * PLACES).map(|n| token(&format!("c{n}"), 60_000, 1)).collect();
        for (n, token) in kept.iter().enumerate() {
            assert!(tokens.get(&text(n), |_| true).is_none(), "it is new");
            tokens.keep(&text(n), token);
            assert!(tokens.get(&text(n), |_| true).is_some_and(|found| Arc::ptr_eq(&found, token)));
        }
        let found = kept.iter().enumerate().filter(|(n, token)| {
            let found = tokens.get(&text(*n), |_| true);
            assert!(
                found.as_ref().is_none_or(|found| Arc::ptr_eq(found, token)),
                "its own or none"
            );
            found.is_some()
        });
        // Others were displaced.
        assert!((1..=PLACES).contains(&found.count()));
        assert!(tokens.get("", |_| true).is_none());
    }

    #[test]
    fn a_long_token_is_not_kept() {
        let tokens = RecentTokens::default();
        let long = "x".repeat(MAX_TEXT_BYTES);
        tokens.keep(&long, &token("hr", 60_000, 1));
        assert!(tokens.get(&long, |_| true).is_some());
        let longer = "x".repeat(MAX_TEXT_BYTES + 1);
        tokens.keep(&longer, &token("hr", 60_000, 1));
        assert!(tokens.get(&longer, |_| true).is_none());
    }
}
