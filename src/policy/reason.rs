//! Reason: why a check was decided as it was (D15).

/// Declares the reasons in the order of D15, so that the least of several is the reason. Each has
/// the HTTP status that an API should answer with, the error code for its body (RFC 6749 section
/// 5.2, RFC 6750 section 3.1), and a sentence for an end user. The sentence says who can fix it and
/// where, and names no grants.
macro_rules! reasons {
    ($($reason:ident, $status:literal, $error:literal, $remedy:literal;)*) => {
        /// Why a check was decided as it was; ordered as D15 orders them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the words are D15's, and the remedies describe them")]
        pub enum Reason {
            $($reason,)*
        }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &[Self] = &[$(Self::$reason),*];

            /// The HTTP status that an API should answer with (D15).
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self {
                    $(Self::$reason => $status,)*
                }
            }

            /// The error code for an API's error body (D15).
            #[must_use]
            pub fn error(self) -> &'static str {
                match self {
                    $(Self::$reason => $error,)*
                }
            }

            /// Who can fix it and where, in a sentence for an end user (D15).
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$reason => $remedy,)*
                }
            }
        }
    };
}

impl Reason {
    /// Whether the token is what the call fails by.
    #[must_use]
    pub fn is_of_token(self) -> bool {
        (Self::TokenRequired..=Self::TokenAudienceMismatch).contains(&self)
    }
}

reasons! {
    EndpointUnknown, 404, "not_found",
        "No such endpoint. Check the method and the path in the API reference.";
    CompanyUnknown, 401, "invalid_client",
        "The company is not known. Check the company id that the call was made for.";
    CompanyDisabled, 401, "invalid_client",
        "The company's API access is disabled. Ask the platform's operator to enable the company.";
    CredentialUnknown, 401, "invalid_client",
        "The API credential is not known. Check its id, or ask the company's admin to create one.";
    CredentialDisabled, 401, "invalid_client",
        "The API credential is disabled. Ask the company's admin to enable it.";
    CredentialExpired, 401, "invalid_client",
        "The API credential has expired. Ask the company's admin to extend it or to create another.";
    TokenRequired, 401, "invalid_token",
        "This API needs an access token. Request one and send it with the call.";
    TokenUnverifiable, 503, "temporarily_unavailable",
        "The access token cannot be verified at the moment, because the keys of its issuer are not available. Try again later.";
    TokenInvalid, 401, "invalid_token",
        "The access token is not valid for this call. Request a new one for this user and this API.";
    TokenExpired, 401, "invalid_token",
        "The access token has expired. Request a new one.";
    TokenAudienceMismatch, 401, "invalid_token",
        "The access token was issued for another API. Request one for this API.";
    UserRequired, 401, "invalid_token",
        "This API acts on behalf of a user. Send a token or a call that names the user.";
    UserUnknown, 401, "invalid_token",
        "The user is not known in this company. Check the user id, or ask the company's admin to add the user.";
    ScopeUnknown, 403, "invalid_scope",
        "A scope that the call needs does not exist in this API. Check its name in the API reference.";
    ScopeNotInCompany, 403, "invalid_scope",
        "A scope that the call needs is not available to the company. Ask the platform's operator (your Customer Success Partner) to add it at the company level.";
    ScopeNotGranted, 403, "invalid_scope",
        "The API credential lacks a scope that the call needs. Ask the company's admin to grant it at the credential level.";
    GrantDormant, 403, "invalid_scope",
        "The API credential was granted a needed scope before the company lost and regained it. Ask the company's admin to grant it again.";
    GrantExpired, 403, "invalid_scope",
        "The API credential's grant of a needed scope has expired. Ask the company's admin to renew it.";
    ScopeNotInToken, 403, "invalid_scope",
        "The access token lacks a scope that the call needs. Request a token with that scope.";
    ScopeNotConsented, 403, "invalid_scope",
        "The user has not consented to a scope that the call needs. Ask the user to allow it.";
    UserLacksPermission, 403, "access_denied",
        "The user's own permissions do not allow this. Ask the company's admin for a role that does.";
    NotRecordOwner, 403, "access_denied",
        "The user's own permissions allow this for their own records only. Ask the company's admin for a wider role, or use a record of the user.";
}
