//! Token verifier: the access token of a call, verified with the keys of its issuer.
//!
//! The issuer's entry is that of the catalog of the decision, and the keys are those that are usable now.
//! A token that is known already is used only if its issuer's entry is still the same and its key is still in the
//! issuer's usable set (T22). Everything else is verified from the text.
//!
//! The tokens of a batch wait for the keys of all their issuers at the same time, so that a token of one
//! issuer does not take the time of another's.
//!
//! The keys of own tokens are facts of the decision's revision, as the catalog is.
//!
//! Not here: how a token is read and which keys fit; see [`crate::policy::token`]. How keys are fetched is
//! in [`super::issuer_keys`]. What ends a token before its time is a part of the decision.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Authority;
use super::check_metrics::TokenResult;
use super::fact_cache::{ReadError, Snapshot};
use super::issuer_keys::{KeysNow, Refetched};
use super::own_issuer::OwnIssuer;
use crate::metrics::wait_spans;
use crate::policy::catalog::Catalog;
use crate::policy::catalog::issuer::Issuer;
use crate::policy::cause::{Cause, DenialCause};
use crate::policy::reason::Reason;
use crate::policy::token::VerifiedToken;
use crate::policy::token::signing_keys::SigningKeys;
use crate::policy::token::unverified_token::{UnverifiedToken, VerifyError};

/// How long one call waits for keys, at most (T19).
const KEY_WAIT: Duration = Duration::from_millis(500);

/// The result of the verification of a token.
pub(super) type VerifyResult = Result<Arc<VerifiedToken>, Cause>;

/// The work of one call for the proofs of its clients, which is kept when the call starts over.
#[derive(Debug)]
pub(super) struct Proof {
    deadline: Option<Instant>,
    /// Until when the call waits for keys.
    waits_until: Option<Instant>,
    /// The results of a batch, by the hash of the text, and what they rest on.
    results: HashMap<blake3::Hash, VerifyResult>,
    rest_on: Option<Trusted>,
}

/// The issuers that are trusted at one revision.
#[derive(Clone, Debug)]
struct Trusted {
    catalog: Arc<Catalog>,
    /// The keys of own tokens, if this server is an issuer.
    signing_keys: Option<Arc<SigningKeys>>,
}

impl Trusted {
    /// Whether another one is the same.
    fn is(&self, other: &Self) -> bool {
        let keys = |trusted: &Self| trusted.signing_keys.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.catalog, &other.catalog) && keys(self) == keys(other)
    }
}

impl Proof {
    /// The work of a call that must be answered by this time.
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, waits_until: None, results: HashMap::new(), rest_on: None }
    }

    /// Until when to wait for keys. Half of the time until the deadline is left for the decision: a client
    /// must not be able to let the call fail (T3).
    fn waits_until(&mut self) -> Instant {
        let now = Instant::now();
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now) / 2);
        let wait = left.map_or(KEY_WAIT, |left| left.min(KEY_WAIT));
        *self.waits_until.get_or_insert(now + wait)
    }
}

/// A token that the keys that are there cannot verify.
struct Undecided {
    hash: blake3::Hash,
    token: UnverifiedToken,
    issuer: Arc<Issuer>,
    /// Whether the issuer has usable keys.
    is_usable: bool,
}

/// The result of a verification with the keys that are there.
enum Attempt {
    Decided(VerifyResult),
    Undecided(Box<Undecided>),
}

impl Authority {
    /// The issuers that are trusted at the snapshot's revision.
    async fn trusted(&self, view: &Snapshot) -> Result<Trusted, ReadError> {
        let signing_keys = match &self.own_issuer {
            Some(_) => Some(self.signing_keys(view).await?),
            None => None,
        };
        Ok(Trusted { catalog: Arc::clone(&view.catalog), signing_keys })
    }

    /// The token with this text, if it is a token of this server or of an issuer of the snapshot's catalog.
    /// Its times, its audience, its company and its user are not compared with anything yet.
    ///
    /// # Errors
    /// A fact cannot be read at the snapshot's revision: start over with a new snapshot.
    pub(super) async fn verify_token(
        &self,
        view: &Snapshot,
        text: &str,
        proof: &mut Proof,
    ) -> Result<VerifyResult, ReadError> {
        let trusted = self.trusted(view).await?;
        if let Some(token) = self.recent_tokens.get(text, |token| self.is_in_force(&trusted, token))
        {
            self.measures.verified(TokenResult::Cached);
            return Ok(Ok(token));
        }
        Ok(match self.attempt(&trusted, text, blake3::hash(text.as_bytes())) {
            Attempt::Decided(result) => result,
            Attempt::Undecided(mut undecided) => {
                let waits_until = proof.waits_until();
                let refetched = self.refetched(view, &undecided.issuer, waits_until).await?;
                self.settle(&mut undecided, refetched)
            }
        })
    }

    /// The results for these texts, in their order.
    ///
    /// # Errors
    /// As for one text.
    pub(super) async fn verify_tokens<'t>(
        &self,
        view: &Snapshot,
        texts: impl Iterator<Item = &'t str>,
        proof: &mut Proof,
    ) -> Result<Vec<VerifyResult>, ReadError> {
        let trusted = self.trusted(view).await?;
        if !proof.rest_on.as_ref().is_some_and(|before| before.is(&trusted)) {
            proof.results.clear();
            proof.rest_on = Some(trusted.clone());
        }
        let (mut hashes, mut undecided) = (Vec::new(), HashMap::new());
        for text in texts {
            let hash = blake3::hash(text.as_bytes());
            hashes.push(hash);
            if proof.results.contains_key(&hash) || undecided.contains_key(&hash) {
                continue;
            }
            match self.attempt(&trusted, text, hash) {
                Attempt::Decided(result) => drop(proof.results.insert(hash, result)),
                Attempt::Undecided(token) => drop(undecided.insert(hash, token)),
            }
            // A verification takes longer than the rest of a check: other tasks come between.
            tokio::task::yield_now().await;
        }
        let issuers = undecided.values().map(|token| (token.issuer.name.clone(), &token.issuer));
        let issuers: HashMap<_, _> = issuers.collect();
        if !issuers.is_empty() {
            let waits_until = proof.waits_until();
            let refetched = issuers.into_iter().map(|(name, issuer)| async move {
                Ok((name, self.refetched(view, issuer, waits_until).await?))
            });
            let refetched: Result<HashMap<_, _>, ReadError> =
                join_all(refetched).await.into_iter().collect();
            let refetched = refetched?;
            for (hash, token) in &mut undecided {
                let refetched = refetched.get(&token.issuer.name).copied();
                let result = self.settle(token, refetched.unwrap_or(Refetched::Unverifiable));
                proof.results.insert(*hash, result);
                tokio::task::yield_now().await;
            }
        }
        let unverifiable = || Err(Cause::from(Reason::TokenUnverifiable));
        let result = |hash| proof.results.get(hash).cloned().unwrap_or_else(unverifiable);
        Ok(hashes.iter().map(result).collect())
    }

    /// Waits for the keys of an issuer.
    ///
    /// # Errors
    /// A newer catalog has another entry of the issuer: start over with a new snapshot.
    async fn refetched(
        &self,
        view: &Snapshot,
        issuer: &Arc<Issuer>,
        waits_until: Instant,
    ) -> Result<Refetched, ReadError> {
        let (catalog, waiters) = (view.catalog.revision, &self.key_waiters);
        let fetch = self.issuer_keys.refetched(issuer, catalog, waiters, waits_until);
        match Box::pin(wait_spans::span("issuer keys", fetch)).await {
            Refetched::Outdated if self.facts.published() > view.at => {
                Err(ReadError::Younger(self.facts.published()))
            }
            refetched => Ok(refetched),
        }
    }

    /// Verifies a token with the keys that are there, or finds it in the cache.
    fn attempt(&self, trusted: &Trusted, text: &str, hash: blake3::Hash) -> Attempt {
        if let Some(token) = self.tokens.get(&hash, |token| self.is_in_force(trusted, token)) {
            self.measures.verified(TokenResult::Cached);
            self.recent_tokens.keep(text, &token);
            return Attempt::Decided(Ok(token));
        }
        let token = match UnverifiedToken::parse(text) {
            Ok(token) => token,
            Err(cause) => return Attempt::Decided(self.counted(Err(cause.into()))),
        };
        if let Some((own, keys)) = self.own_issuer.as_ref().zip(trusted.signing_keys.as_ref())
            && self.is_own(token.issuer())
        {
            return Attempt::Decided(self.verify_own(own, keys, &token, hash));
        }
        let Some(issuer) = token.issuer().and_then(|name| trusted.catalog.issuer(name)) else {
            let unknown = Err(DenialCause::IssuerUnknown.into());
            return Attempt::Decided(self.counted(unknown));
        };
        let issuer = Arc::clone(issuer);
        let mut undecided = Box::new(Undecided { hash, token, issuer, is_usable: false });
        match self.verify_now(&mut undecided) {
            Some(result) => Attempt::Decided(result),
            None => Attempt::Undecided(undecided),
        }
    }

    /// The result for an own token.
    fn verify_own(
        &self,
        own: &OwnIssuer,
        keys: &SigningKeys,
        token: &UnverifiedToken,
        hash: blake3::Hash,
    ) -> VerifyResult {
        match token.verify_own(&own.entry, keys.verifying()) {
            Ok(verified) => self.kept(hash, verified),
            Err(VerifyError::Invalid(cause)) => self.counted(Err(cause.into())),
            Err(VerifyError::UnknownKey) => self.counted(Err(DenialCause::KeyUnknown.into())),
        }
    }

    /// The result for a token that is right, which the cache keeps.
    fn kept(&self, hash: blake3::Hash, verified: VerifiedToken) -> VerifyResult {
        let verified = Arc::new(verified);
        self.tokens.insert(hash, &verified, self.clock.now());
        self.counted(Ok(verified))
    }

    /// The result with the keys that are there; none if they do not have the token's.
    fn verify_now(&self, undecided: &mut Undecided) -> Option<VerifyResult> {
        let Undecided { hash, token, issuer, is_usable } = undecided;
        let KeysNow::Usable(keys) = self.issuer_keys.current(issuer) else {
            *is_usable = false;
            return None;
        };
        *is_usable = true;
        match token.verify(issuer, &keys) {
            Ok(verified) => Some(self.kept(*hash, verified)),
            Err(VerifyError::Invalid(cause)) => Some(self.counted(Err(cause.into()))),
            Err(VerifyError::UnknownKey) => None,
        }
    }

    /// The result after the keys were asked for (T19).
    fn settle(&self, undecided: &mut Undecided, refetched: Refetched) -> VerifyResult {
        let result = match refetched {
            Refetched::LookAgain => self.verify_now(undecided),
            Refetched::Unchanged | Refetched::Unverifiable | Refetched::Outdated => None,
        };
        result.unwrap_or_else(|| {
            self.counted(Err(match refetched {
                Refetched::LookAgain | Refetched::Unchanged if undecided.is_usable => {
                    DenialCause::KeyUnknown.into()
                }
                _ => Reason::TokenUnverifiable.into(),
            }))
        })
    }

    fn counted(&self, result: VerifyResult) -> VerifyResult {
        self.measures.verified(match &result {
            Ok(_) => TokenResult::Valid,
            Err(cause) if cause.reason == Reason::TokenUnverifiable => TokenResult::Unverifiable,
            Err(_) => TokenResult::Invalid,
        });
        result
    }

    /// Whether a token is good with its issuer's entry and keys, as both are now.
    fn is_in_force(&self, trusted: &Trusted, token: &VerifiedToken) -> bool {
        if token.own.is_some() {
            let own = self.own_issuer.as_ref().zip(trusted.signing_keys.as_ref());
            return own.is_some_and(|(own, keys)| token.is_in_force(&own.entry, keys.verifying()));
        }
        let Some(issuer) = trusted.catalog.issuer(&token.issuer.name) else { return false };
        match self.issuer_keys.current(issuer) {
            KeysNow::Usable(keys) => token.is_in_force(issuer, &keys),
            KeysNow::Unusable => false,
        }
    }
}

/// Checks that the snapshot is as new as the issue of a token, if it is an own token (T25). Call it only for
/// a token that the call is decided by: it lets the call wait or fail, and no other token may do that (T3,
/// T6).
///
/// # Errors
/// The token was issued at a later revision: start over with a snapshot of that one.
pub(super) fn check_reached(view: &Snapshot, token: &VerifiedToken) -> Result<(), ReadError> {
    let Some(own) = &token.own else { return Ok(()) };
    let is_of_store = own.incarnation == view.tokens.incarnation;
    if is_of_store && own.issued_at_revision > view.at {
        return Err(ReadError::AtLeast(own.issued_at_revision));
    }
    Ok(())
}
