//! Authorization code: what a user has allowed an application, until the application redeems it for an
//! access token (T34, RFC 6749 section 4.1).
//!
//! The code names the present lives of its company, its credential and its user, so all that ends a
//! token of them ends the code (T27). It remembers the token that it was redeemed for: a second attempt
//! revokes that token (RFC 6749 section 4.1.2).
//!
//! Not here: the consent, which is given in the same change; see [`crate::policy::consent`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::digest;
use uuid::Uuid;

use super::revoked::TokenId;
use crate::policy::catalog::MAX_TOKEN_TTL;
use crate::policy::consent::Parties;
use crate::policy::edit::Stamped;
use crate::policy::id::{Name, UserId};
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::secret::{SecretKind, SecretText};

/// How long a code can be redeemed, in seconds.
pub const LIFETIME: i64 = 60;
/// How long a code is kept after its expiry, in seconds: as long as the token that it was redeemed for
/// can live, and a minute.
pub const KEPT_AFTER: i64 = MAX_TOKEN_TTL as i64 + 60;

/// The length of the time in the public id of a code, in bytes.
const TIME_BYTES: usize = 5;

/// A code challenge of the method S256 (RFC 7636 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeChallenge(pub [u8; 32]);

impl CodeChallenge {
    /// Reads a challenge: 43 characters of base64url. None: it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Whether this is the challenge of a verifier (RFC 7636 section 4.6), which has 43 to 128 unreserved
    /// characters.
    #[must_use]
    pub fn is_of(&self, verifier: &str) -> bool {
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(is_unreserved)
            && digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref() == self.0
    }
}

/// Whether a code was redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeState {
    /// It was not.
    Unused,
    /// Its client tried to redeem it and got no token.
    Refused,
    /// Its client got this token, which expires then.
    Redeemed(TokenId, Timestamp),
}

/// An authorization code as the store has it. Its key is its public id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationCode {
    /// Its public id, which begins with the time of its expiry.
    pub id: Name,
    /// The hash of its whole text. The comparison of two hashes takes constant time.
    pub hash: blake3::Hash,
    /// The creation revisions of company, user and credential.
    pub of: Parties,
    /// The incarnation of the store that issued it.
    pub incarnation: Uuid,
    /// The user.
    pub user: UserId,
    /// The audience of the token, if the catalog declares any.
    pub audience: Option<Name>,
    /// The scopes that the user gave, without those that they imply.
    pub scopes: Vec<ScopeId>,
    /// Where the browser was sent.
    pub redirect_uri: RedirectUri,
    /// The challenge of the application.
    pub challenge: CodeChallenge,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Whether it was redeemed.
    pub state: CodeState,
    /// The revision that created it.
    pub created_at: Revision,
    /// Its last change.
    pub revision: Revision,
}

impl AuthorizationCode {
    /// The text of a new code that expires at this time, from these random bytes. The public id of the
    /// code begins with that time, so that the store has the codes in the order of their expiry.
    #[must_use]
    pub fn mint(expires_at: Timestamp, mut random: [u8; 44]) -> SecretText {
        let seconds = expires_at.as_second().to_be_bytes();
        let (_, time) = seconds.split_at(seconds.len() - TIME_BYTES);
        random.iter_mut().zip(time).for_each(|(byte, of_time)| *byte = *of_time);
        SecretText::mint(SecretKind::Code, &random)
    }

    /// The time of the expiry in the public id of a code, in seconds. None: it is no id of a code.
    #[must_use]
    pub fn expiry_in(id: &str) -> Option<i64> {
        i64::from_str_radix(id.get(..TIME_BYTES * 2)?, 16).ok()
    }
}

impl Stamped for AuthorizationCode {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.created_at = self.created_at.or_assigned(revision);
        self.revision = revision;
    }
}

/// Whether a code whose public id has this time can be forgotten: no token lives that it was redeemed
/// for.
#[must_use]
pub fn is_forgotten(expiry: i64, now: Timestamp) -> bool {
    let kept = SignedDuration::from_secs(KEPT_AFTER);
    Timestamp::from_second(expiry).is_ok_and(|expiry| now.duration_since(expiry) >= kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t34_the_challenge_is_the_sha_256_of_the_verifier() {
        // RFC 7636 appendix B.
        let challenge = CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let challenge = challenge.expect("a challenge");
        assert!(challenge.is_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        for wrong in [
            "",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        ] {
            assert!(!challenge.is_of(wrong), "{wrong}");
        }
        for len in [42, 43, 128, 129] {
            let verifier = "a".repeat(len);
            let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
            let challenge = CodeChallenge(hash.as_ref().try_into().expect("32 bytes"));
            assert_eq!(challenge.is_of(&verifier), (43..=128).contains(&len), "{len}");
        }
    }

    #[test]
    fn t34_a_challenge_is_43_characters_of_base64url() {
        for wrong in [
            "",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cN",
        ] {
            assert_eq!(CodeChallenge::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn t34_codes_are_in_the_order_of_their_expiry() {
        let code = |second: i64, random: u8| {
            let at = Timestamp::from_second(second).expect("a time");
            AuthorizationCode::mint(at, [random; 44]).id().expect("an id").to_string()
        };
        let (early, late) = (code(1_000, 0xff), code(1_001, 0));
        assert!(early < late);
        assert_eq!(AuthorizationCode::expiry_in(&early), Some(1_000));
        let far = 253_402_207_200;
        assert_eq!(AuthorizationCode::expiry_in(&code(far, 0)), Some(far));
        assert_eq!(AuthorizationCode::expiry_in("x"), None);
        let now = |second| Timestamp::from_second(second).expect("a time");
        assert!(!is_forgotten(1_000, now(1_000 + KEPT_AFTER - 1)));
        assert!(is_forgotten(1_000, now(1_000 + KEPT_AFTER)));
    }
}
