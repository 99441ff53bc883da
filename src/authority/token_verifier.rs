//! Token verifier: the access token of a call, verified with the keys of its issuer.
//!
//! The issuer's entry is that of the catalog of the decision, and the keys are those that are usable now.
//! A token in the cache is used only if its issuer's entry is still the same and its key is still in the
//! issuer's usable set (T22). Everything else is verified from the text.
//!
//! Not here: how a token is read and which keys fit; see [`crate::policy::token`]. How keys are fetched is
//! in [`super::issuer_keys`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Authority;
use super::check_metrics::TokenResult;
use super::client::VerifyResult;
use super::fact_cache::Snapshot;
use super::issuer_keys::{KeysNow, Refetched};
use crate::metrics::wait_spans;
use crate::policy::catalog::Catalog;
use crate::policy::cause::{Cause, DenialCause};
use crate::policy::reason::Reason;
use crate::policy::token::VerifiedToken;
use crate::policy::token::unverified_token::{UnverifiedToken, VerifyError};

/// How long one call waits for keys, at most (T19).
const KEY_WAIT: Duration = Duration::from_millis(500);

/// How long one call may still wait for keys, for all of its tokens together.
#[derive(Debug, Default)]
pub(super) struct KeyWait(Option<Instant>);

impl KeyWait {
    fn deadline(&mut self) -> Instant {
        *self.0.get_or_insert_with(|| Instant::now() + KEY_WAIT)
    }
}

impl Authority {
    /// The token with this text, if it is a token of an issuer of the snapshot's catalog. Its times, its
    /// audience, its company and its user are not compared with anything yet.
    pub(super) async fn verify_token(
        &self,
        view: &Snapshot,
        text: &str,
        wait: &mut KeyWait,
    ) -> VerifyResult {
        let hash = blake3::hash(text.as_bytes());
        if let Some(token) = self.tokens.get(&hash)
            && self.is_verified_now(&view.catalog, &token)
        {
            self.measures.verified(TokenResult::Cached);
            return Ok(token);
        }
        let result = self.verify_text(&view.catalog, text, wait).await;
        self.measures.verified(match &result {
            Ok(_) => TokenResult::Valid,
            Err(cause) if cause.reason == Reason::TokenUnverifiable => TokenResult::Unverifiable,
            Err(_) => TokenResult::Invalid,
        });
        if let Ok(token) = &result {
            self.tokens.insert(hash, token, self.clock.now());
        }
        result
    }

    /// Whether the issuer's entry and the key of a token are the same as at its verification.
    fn is_verified_now(&self, catalog: &Catalog, token: &VerifiedToken) -> bool {
        let Some(issuer) = catalog.issuer(&token.issuer.name) else { return false };
        let is_same = Arc::ptr_eq(issuer, &token.issuer) || *issuer == token.issuer;
        is_same
            && match self.issuer_keys.current(issuer) {
                KeysNow::Usable(keys) => keys.has(&token.key),
                KeysNow::Unusable => false,
            }
    }

    async fn verify_text(&self, catalog: &Catalog, text: &str, wait: &mut KeyWait) -> VerifyResult {
        let unverifiable = || Err(Cause::from(Reason::TokenUnverifiable));
        let token = UnverifiedToken::parse(text)?;
        let issuer = token.issuer().and_then(|name| catalog.issuer(name));
        let issuer = issuer.ok_or(DenialCause::IssuerUnknown)?;
        let mut has_looked_again = false;
        loop {
            let is_usable = match self.issuer_keys.current(issuer) {
                KeysNow::Usable(keys) => match token.verify(issuer, &keys) {
                    Ok(verified) => return Ok(Arc::new(verified)),
                    Err(VerifyError::Invalid(cause)) => return Err(cause.into()),
                    Err(VerifyError::UnknownKey) => true,
                },
                KeysNow::Unusable => false,
            };
            let refetched = if has_looked_again {
                Refetched::Unchanged
            } else {
                let fetch = self.issuer_keys.refetched(
                    issuer,
                    catalog.revision,
                    &self.key_waiters,
                    wait.deadline(),
                );
                Box::pin(wait_spans::span("issuer keys", fetch)).await
            };
            match refetched {
                Refetched::LookAgain => has_looked_again = true,
                Refetched::Unchanged if is_usable => return Err(DenialCause::KeyUnknown.into()),
                // With `Outdated`, a newer catalog has another entry: the next try is decided with it.
                Refetched::Unchanged | Refetched::Unverifiable | Refetched::Outdated => {
                    return unverifiable();
                }
            }
        }
    }
}
