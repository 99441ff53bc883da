//! Unverified token: the text of a token as its client presents it, a JWT in the compact form
//! (RFC 7515 section 7.1, RFC 7519).
//!
//! Only the name of the issuer is read before the signature is verified, to find its keys. No key that
//! the token itself names (`jwk`, `jku`, `x5u`, `x5c`) is ever used (T12).
//!
//! Not here: the claims after the signature, which are in `claims`, and time: a decision
//! compares times.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::json::{self, Object, Value};
use super::key::{Key, MAX_ID_LEN, Thumbprint};
use super::key_set::KeySet;
use super::{VerifiedToken, claims};
use crate::policy::catalog::issuer::{Algorithm, Issuer};
use crate::policy::cause::DenialCause;

/// The most bytes of a token (T11).
pub const MAX_BYTES: usize = 16 * 1024;

/// Parameters of the header that change how a token is read. None of them is supported.
const UNSUPPORTED: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// The most keys that are tried for a token that does not name exactly one.
const MAX_TRIED_KEYS: usize = 2;

/// A token whose signature is not verified yet. Its text is in no output: `Debug` does not print it.
pub struct UnverifiedToken {
    /// The text that is signed: header and claims.
    signed: Box<[u8]>,
    signature: Box<[u8]>,
    header: Object,
    claims: Object,
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnverifiedToken(…)")
    }
}

/// Why a token could not be verified with a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The set has no key with the token's `kid`; without `kid`, no key that has signed it. A newer set
    /// may have one. If there is none, the cause is [`DenialCause::KeyUnknown`].
    UnknownKey,
    /// The token is invalid for this cause, and stays so with any newer set that has the key.
    Invalid(DenialCause),
}

impl From<DenialCause> for VerifyError {
    fn from(cause: DenialCause) -> Self {
        Self::Invalid(cause)
    }
}

impl UnverifiedToken {
    /// Reads the text of a token (T11).
    ///
    /// # Errors
    /// The text is not of the required form, or its header is not supported.
    pub fn parse(text: &str) -> Result<Self, DenialCause> {
        Self::read(text).ok_or(DenialCause::MalformedToken).and_then(|token| {
            if token.header.has_any(&UNSUPPORTED) {
                return Err(DenialCause::UnsupportedHeader);
            }
            Ok(token)
        })
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        // A third point is no letter of base64url, so more parts are refused.
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| {
            let object = json::parse(&BASE64.decode(part).ok()?).ok()?;
            (!object.has_repeats).then_some(object)
        };
        Some(Self {
            signature: BASE64.decode(signature).ok()?.into(),
            header: object(header)?,
            claims: object(claims)?,
            signed: signed.as_bytes().into(),
        })
    }

    /// The claim `iss`, to find the issuer by its name or alias; none if it is no string.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The token's facts, if one of the keys has signed it and its claims are as the issuer's entry
    /// asks.
    ///
    /// # Errors
    /// The keys do not have the token's, or the token is invalid.
    pub fn verify(
        &self,
        issuer: &Arc<Issuer>,
        keys: &KeySet,
    ) -> Result<VerifiedToken, VerifyError> {
        let key = self.signed_by(issuer, keys)?;
        Ok(claims::read(&self.header, &self.claims, issuer, key)?)
    }

    /// As [`Self::verify`], for a token of scopegate itself.
    ///
    /// # Errors
    /// As for [`Self::verify`].
    pub fn verify_own(
        &self,
        issuer: &Arc<Issuer>,
        keys: &KeySet,
    ) -> Result<VerifiedToken, VerifyError> {
        let key = self.signed_by(issuer, keys)?;
        let token = claims::read_own(&self.header, &self.claims, issuer, key)?;
        if token.rests_on(keys) { Ok(token) } else { Err(VerifyError::UnknownKey) }
    }

    /// The key of the issuer that has signed the token.
    fn signed_by(&self, issuer: &Issuer, keys: &KeySet) -> Result<Thumbprint, VerifyError> {
        // A caller that mixes up issuers must not make a token of one valid for another.
        if !self.issuer().is_some_and(|name| issuer.has_name(name)) {
            return Err(DenialCause::IssuerUnknown.into());
        }
        let algorithm = self.header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm
            .filter(|algorithm| issuer.algorithms.contains(algorithm))
            .ok_or(DenialCause::AlgorithmNotAllowed)?;
        let key = self
            .candidates(algorithm, keys)?
            .into_iter()
            .find(|key| key.has_signed(algorithm, &self.signed, &self.signature))
            .ok_or_else(|| match self.header.get("kid") {
                // A newer set may have the key of a token that names none.
                None => VerifyError::UnknownKey,
                Some(_) => DenialCause::SignatureWrong.into(),
            })?;
        Ok(key.thumbprint)
    }

    /// The keys that may have signed the token (T12).
    fn candidates<'a>(
        &self,
        algorithm: Algorithm,
        keys: &'a KeySet,
    ) -> Result<Vec<&'a Key>, VerifyError> {
        let id = match self.header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_ID_LEN => Some(&**id),
            // No set can have it, so a newer one is not worth a fetch.
            Some(_) => return Err(DenialCause::KeyUnknown.into()),
        };
        let of_id: Vec<_> = keys.with_id(id).collect();
        let fitting: Vec<_> = of_id.iter().copied().filter(|key| key.is_for(algorithm)).collect();
        match (id, of_id.len(), fitting.len()) {
            (Some(_), 0, _) | (None, _, 0) => Err(VerifyError::UnknownKey),
            (_, _, 1..=MAX_TRIED_KEYS) => Ok(fitting),
            _ => Err(DenialCause::KeyUnknown.into()),
        }
    }
}
