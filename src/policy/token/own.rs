//! Own token: an access token that scopegate issued itself, and what ends it before its time (T25, T27).
//!
//! Its claims name the present lives of its company, its credential and its user, the store's
//! incarnation, and the revision of its issue. So everything that ends it is a fact of the decision's
//! revision, and no clock is asked.
//!
//! Not here: which scopes it gets; see `authority::token_issue`. Its expiry is compared as that of every
//! token.

use jiff::Timestamp;
use uuid::Uuid;

use super::VerifiedToken;
use super::key_set::Thumbprint;
use super::revoked::TokenId;
use crate::policy::cause::DenialCause;
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::decision::Facts;
use crate::policy::id::{Name, UserId};
use crate::policy::revision::Revision;

/// What the whole store says about tokens: what happened to it ends tokens of every credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenEpoch {
    /// The incarnation of the store. A restore ends all own tokens, because the backup lacks what was
    /// revoked after it.
    pub incarnation: Uuid,
    /// Own tokens that were issued before this revision are invalid: an operator set the time back.
    pub own_before: Revision,
    /// Tokens of the catalog's issuers that were issued at or before this time are invalid: the store
    /// was restored then.
    pub issued_before: Option<Timestamp>,
}

/// The creation revisions of those whom a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Born {
    /// Of the company.
    pub company: Revision,
    /// Of the credential.
    pub credential: Revision,
    /// Of the user, if the token has one.
    pub user: Option<Revision>,
}

/// The claims of an own token that no other issuer's has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnClaims {
    /// The public id of the secret by which its client proved who it is.
    pub secret: Name,
    /// The creation revisions of those whom it is for.
    pub born: Born,
    /// The incarnation of the store that issued it.
    pub incarnation: Uuid,
    /// The revision at which it was issued.
    pub issued_at_revision: Revision,
    /// Its id.
    pub id: TokenId,
    /// The id of the token that it was exchanged with, if a token proved the client.
    pub exchanged_with: Option<TokenId>,
    /// The key that signed that token. This token ends with the key: a thief who has a stolen key can sign an
    /// actor token. Tokens of earlier builds lack it.
    pub exchanged_with_key: Option<Thumbprint>,
    /// Whether it was made by an exchange: it has the claim `act`.
    pub is_exchanged: bool,
}

impl OwnClaims {
    /// Why this token ended before its time, if it did. `user` is the creation revision of the present
    /// user of the token's user id.
    #[must_use]
    pub fn ended(
        &self,
        (company, credential): (&Company, &Credential),
        user: Option<Revision>,
        epoch: &TokenEpoch,
    ) -> Option<DenialCause> {
        if self.incarnation != epoch.incarnation || self.issued_at_revision < epoch.own_before {
            return Some(DenialCause::OtherStore);
        }
        let born = Born { company: company.created_at, credential: credential.created_at, user };
        if self.born != born {
            return Some(DenialCause::Recreated);
        }
        if !credential.secrets.contains(&self.secret) {
            return Some(DenialCause::SecretDeleted);
        }
        credential.revoked_tokens.has(self).then_some(DenialCause::Revoked)
    }
}

impl VerifiedToken {
    /// Why this token ended before its time, if it did (T27). `user` is the user on whose behalf the
    /// call is made.
    #[must_use]
    pub fn ended(&self, user: Option<&UserId>, facts: Facts<'_>) -> Option<DenialCause> {
        // Without them, an earlier layer denies.
        let parties = facts.company.zip(facts.credential)?;
        let Some(own) = &self.own else {
            let limit = parties.1.revoked_tokens.issued_before.max(facts.tokens.issued_before)?;
            let is_later = self.facts.issued_at.is_some_and(|issued| issued > limit);
            return (!is_later).then_some(DenialCause::Revoked);
        };
        let user = match (&self.facts.user, user) {
            (None, _) => None,
            (Some(own), Some(user)) if own == user => facts.user.map(|user| user.created_at),
            // That the call names another user is another fault.
            (Some(_), _) => own.born.user,
        };
        own.ended(parties, user, &facts.tokens)
    }
}
