//! DenialCause: the cause of a denial, for reasons with several causes.
//!
//! D15 fixes the reasons, and clients rely on them. Some reasons have several causes with different
//! fixes: an expired token is replaced, but a token without an issue time must be sent with one. A
//! cause says which one applies. It changes neither the reason nor the status.

use super::reason::Reason;

/// Declares the causes: the reason, the code, the sentence for an end user, which names no grants,
/// and the sentence for a developer, which names fields and keys.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident, $reason:ident, $word:literal, $message:expr, $detail:literal;)*) => {
        /// The cause of a reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DenialCause {
            $($(#[$doc])* $fault,)*
        }

        impl DenialCause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$fault),*];

            /// The reason that it is a cause of.
            #[must_use]
            pub fn reason(self) -> Reason {
                match self {
                    $(Self::$fault => Reason::$reason,)*
                }
            }

            /// Its code in the decision log.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$fault => $word,)*
                }
            }

            /// What is wrong and who can fix it, for an end user; `None` if the sentence of the
            /// reason applies.
            fn message(self) -> Option<&'static str> {
                match self {
                    $(Self::$fault => $message,)*
                }
            }

            /// What is wrong, for a developer. It names the field of the request or the key of the
            /// catalog.
            fn detail(self) -> &'static str {
                match self {
                    $(Self::$fault => $detail,)*
                }
            }
        }
    };
}

faults! {
    /// The token's user is not the request's.
    OtherUser, TokenInvalid, "OTHER_USER",
        Some("The access token was issued for another user than the call names. Request a token for this user."),
        "`token.user_id` is another user than `user_id`. Of a verified token, it is the user that the issuer's `user` names.";
    /// The token ends before it was issued.
    EndsBeforeIssue, TokenInvalid, "ENDS_BEFORE_ISSUE",
        Some("The access token ends before the time at which it was issued. Request a new one."),
        "`token.expires_at` is before `token.issued_at`. Of a verified token, these are the claims `exp` and `iat`.";
    /// The token was issued later than now, and than the audience's `clock_skew` lets it be.
    IssuedAhead, TokenInvalid, "ISSUED_AHEAD",
        Some("The access token was issued in the future. Request a new one; if that does not help, ask the API's operator to check its clock."),
        "`token.issued_at` is ahead of the time now by more than the audience's `clock_skew`. Of a verified token, it is the claim `iat`, and the `clock_skew` is the issuer's.";
    /// The token is not valid yet, and will not be within its issuer's `clock_skew`.
    NotYetValid, TokenInvalid, "NOT_YET_VALID",
        Some("The access token is not valid yet. Try again later; if that does not help, ask the API's operator to check its clock."),
        "The token's claim `nbf` is ahead of the time now by more than the issuer's `clock_skew`.";
    /// The text is not a token of the required form.
    MalformedToken, TokenInvalid, "MALFORMED_TOKEN",
        None,
        "The text is not a signed JWT of at most 16 KiB: three parts of base64url, whose header and claims are JSON objects without repeated members.";
    /// The header has a parameter that changes how the token is read, and that is not supported.
    UnsupportedHeader, TokenInvalid, "UNSUPPORTED_HEADER",
        None,
        "The token's header has `crit`, `b64`, `zip` or `enc`, which is not supported.";
    /// The issuer's entry does not list the algorithm.
    AlgorithmNotAllowed, TokenInvalid, "ALGORITHM_NOT_ALLOWED",
        None,
        "The token's `alg` is not one of the `algorithms` of the issuer in the catalog.";
    /// The issuer's entry does not list the type.
    TypeNotAllowed, TokenInvalid, "TYPE_NOT_ALLOWED",
        None,
        "The token's `typ` is not one of the `types` of the issuer in the catalog.";
    /// No issuer of the catalog has this name.
    IssuerUnknown, TokenInvalid, "ISSUER_UNKNOWN",
        None,
        "The token's `iss` is missing, or it is no issuer of the catalog.";
    /// The issuer has no key that the token was signed with.
    KeyUnknown, TokenInvalid, "KEY_UNKNOWN",
        None,
        "The issuer has no usable key that fits the token's `kid` and `alg`.";
    /// The signature is wrong.
    SignatureWrong, TokenInvalid, "SIGNATURE_WRONG",
        None,
        "The token's signature is wrong.";
    /// A claim is missing, or has another type or another form than it must have.
    MalformedClaim, TokenInvalid, "MALFORMED_CLAIM",
        None,
        "A claim that the token must have is missing, or is of another type or form than it must be: `exp`, `nbf` and `iat` are numbers, scopes a string or a list of strings, and company, credential and user are ids.";
    /// A claim of the issuer's `require` is missing or has another value.
    RequiredClaim, TokenInvalid, "REQUIRED_CLAIM",
        None,
        "A claim that the issuer's `require` lists is missing or has another value.";
    /// Claims that name one credential differ.
    AmbiguousClient, TokenInvalid, "AMBIGUOUS_CLIENT",
        None,
        "The token's claims that name the company or the credential differ from each other.";
    /// The `sub` of the token is the client itself, and the company has a user of that id.
    AmbiguousSubject, TokenInvalid, "AMBIGUOUS_SUBJECT",
        None,
        "The token's `sub` is the credential itself, and the company has a user of the same id: set `prefix` or `unless` in the issuer's `user`.";
    /// The token is bound to a key, and no caller has verified that the client holds it.
    BoundToken, TokenInvalid, "BOUND_TOKEN",
        None,
        "The token has `cnf`: it is bound to a key. Verify that the client holds the key, and set the issuer's `confirmation: caller`.";
    /// The issuer may not speak for the company.
    CompanyNotAllowed, TokenInvalid, "COMPANY_NOT_ALLOWED",
        None,
        "The company is not one of the issuer's `companies` in the catalog.";
    /// The same, for a caller that may not know it (T6).
    CompanyNotAllowedUntold, TokenInvalid, "COMPANY_NOT_ALLOWED_UNTOLD",
        None,
        "The company is not one of the issuer's `companies` in the catalog, and the caller is told that the signature is wrong.";
    /// The caller's key is bound to other companies than the token's (T6).
    CompanyNotReached, TokenInvalid, "COMPANY_NOT_REACHED",
        None,
        "The token's company is not one of the caller's key, and the caller is told that the signature is wrong.";
    /// The caller's key is bound to other companies than the secret's (T6).
    SecretNotReached, CredentialUnknown, "SECRET_NOT_REACHED",
        None,
        "The secret's company is not one of the caller's key, and the caller is told that the credential is not known.";
    /// The request names another company or credential than the token.
    OtherClient, TokenInvalid, "OTHER_CLIENT",
        Some("The access token was issued for another client than the call names. Request a token for this client."),
        "`company_id` or `credential_id` is another one than the token's.";
    /// Neither the token nor the request names the company or the credential.
    ClientMissing, TokenInvalid, "CLIENT_MISSING",
        None,
        "Neither the token nor the request names both the company and the credential: the issuer's entry says that the request names one of them.";
    /// The token was revoked.
    Revoked, TokenInvalid, "REVOKED",
        Some("The access token was revoked. Request a new one."),
        "The token was revoked, or the token that it was exchanged with, or all tokens of the credential or the user that were issued until then.";
    /// The secret by which the token's client proved who it is was deleted.
    SecretDeleted, TokenInvalid, "SECRET_DELETED",
        Some("The access token was revoked. Request a new one."),
        "The secret with which the token was requested was deleted.";
    /// The company, the credential or the user was deleted after the token was issued.
    Recreated, TokenInvalid, "RECREATED",
        Some("The access token was revoked. Request a new one."),
        "The company, the credential or the user of the token was deleted after the token was issued: one that has the id since is another.";
    /// The store was restored, or its time was set back, after the token was issued.
    OtherStore, TokenInvalid, "OTHER_STORE",
        Some("The access token was revoked. Request a new one."),
        "The store was restored from a backup, or its time was set back, after the token was issued.";
    /// The token has expired.
    Ended, TokenExpired, "ENDED",
        None,
        "`token.expires_at` has passed. Of a verified token, it is the claim `exp`.";
    /// The token is older than the audience's `max_token_age`.
    TooOld, TokenExpired, "TOO_OLD",
        Some("The access token is older than this API allows. Request a new one."),
        "`token.issued_at` is as long ago as the audience's `max_token_age`, or longer. Of a verified token, it is the claim `iat`.";
    /// The audience has a `max_token_age`, and the token does not say how old it is.
    IssueTimeMissing, TokenExpired, "ISSUE_TIME_MISSING",
        Some("The access token's issue time is missing, and this API limits the age of tokens. Request a new one, or have the API pass the token's issue time."),
        "`token.issued_at` is missing, and the audience has a `max_token_age`: pass the time at which the token was issued. Of a verified token, it is the claim `iat`.";
    /// The token was issued for another audience.
    OtherAudience, TokenAudienceMismatch, "OTHER_AUDIENCE",
        None,
        "`token.audience` is neither the name of the call's audience nor one of its `aud`. Of a verified token, it is the claim `aud`, and the issuer's `audiences` may say what its values stand for.";
    /// The token does not name an audience.
    AudienceMissing, TokenAudienceMismatch, "AUDIENCE_MISSING",
        Some("The access token does not say which API it was issued for. Request one for this API, or have the API pass the token's audience."),
        "`token.audience` is missing, and the catalog declares audiences: pass what the token was minted for. Of a verified token, it is the claim `aud`.";
    /// The token names an audience, and the catalog declares none.
    AudienceUndeclared, TokenAudienceMismatch, "AUDIENCE_UNDECLARED",
        None,
        "`token.audience` names an audience, and the catalog declares none: declare it there, or leave the field empty.";
    /// The catalog has the scope, for other audiences than the call's.
    ScopeOfOtherAudience, ScopeUnknown, "SCOPE_OF_OTHER_AUDIENCE",
        None,
        "The catalog has this scope, and it does not belong to the call's audience.";
}

/// Why a layer denies: the reason, and its cause if the reason has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The reason.
    pub reason: Reason,
    /// The cause, if the reason has several.
    pub fault: Option<DenialCause>,
}

impl DenialCause {
    /// What a caller is told instead of this cause: what it is told of a wrong signature or secret, if it may
    /// not know that the credential is right (T6). The decision log has the cause itself.
    fn told(self) -> Option<Self> {
        match self {
            Self::CompanyNotAllowedUntold | Self::CompanyNotReached => Some(Self::SignatureWrong),
            Self::SecretNotReached => None,
            told => Some(told),
        }
    }
}

impl Cause {
    /// What is wrong and who can fix it, in a sentence for an end user.
    #[must_use]
    pub fn message(self) -> &'static str {
        let told = self.fault.and_then(DenialCause::told);
        told.and_then(DenialCause::message).unwrap_or_else(|| self.reason.remedy())
    }

    /// The same for a developer. It may name a field or a key.
    #[must_use]
    pub fn detail(self) -> &'static str {
        let told = self.fault.and_then(DenialCause::told);
        told.map_or_else(|| self.reason.remedy(), DenialCause::detail)
    }

    /// Of two, the one that is first in D15; `self` if the reasons are the same.
    #[must_use]
    pub fn first(self, other: Self) -> Self {
        if other.reason < self.reason { other } else { self }
    }

    /// Of two, the one that is last in D15, so closest to an allow; `self` if the reasons are the
    /// same.
    #[must_use]
    pub fn last(self, other: Self) -> Self {
        if other.reason > self.reason { other } else { self }
    }
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        Self { reason, fault: None }
    }
}

impl From<DenialCause> for Cause {
    fn from(fault: DenialCause) -> Self {
        Self { reason: fault.reason(), fault: Some(fault) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_a_word_and_sentences_of_its_own() {
        let words: BTreeSet<_> = DenialCause::ALL.iter().map(|fault| fault.word()).collect();
        let details: BTreeSet<_> = DenialCause::ALL.iter().map(|fault| fault.detail()).collect();
        assert_eq!((words.len(), details.len()), (DenialCause::ALL.len(), DenialCause::ALL.len()));
        for fault in DenialCause::ALL {
            let cause = Cause::from(*fault);
            assert!(cause.message().ends_with('.') && cause.detail().ends_with('.'), "{fault:?}");
            // A text for an end user names no field and no key.
            assert!(!cause.message().contains(['`', '_']), "{fault:?}");
        }
    }

    #[test]
    fn causes_are_in_the_order_of_their_reasons_and_the_first_of_equals_stays() {
        let (old, missing) =
            (Cause::from(DenialCause::TooOld), Cause::from(DenialCause::IssueTimeMissing));
        let invalid = Cause::from(DenialCause::OtherUser);
        assert_eq!((old.first(missing), old.last(missing)), (old, old));
        assert_eq!((old.first(invalid), old.last(invalid)), (invalid, old));
        assert_eq!(Cause::from(Reason::TokenExpired).detail(), Reason::TokenExpired.remedy());
    }
}
