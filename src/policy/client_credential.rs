//! Client credential: what an API client presents to prove who it is, as the client sent it.
//!
//! Nothing that a client presents is an error of the call. A credential that cannot be read is a denial
//! (D14), so an API client can never choose how the service in front of it fails.
//!
//! Not here: whether the credential is right; see `authority::client`.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use super::cause::{Cause, DenialCause};
use super::reason::Reason;
use super::secret::{SecretKind, SecretText};

/// The most bytes of a credential, which is the most bytes of an access token (T11).
pub const MAX_LEN: usize = 16 << 10;

/// Some clients leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an API client presents to prove who it is. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub enum ClientCredential {
    /// The text of an access token.
    BearerToken(Box<str>),
    /// A secret of a credential, alone or by HTTP Basic.
    Secret {
        /// The user name of HTTP Basic: the company's id, or the credential's.
        name: Option<Box<str>>,
        /// The secret.
        secret: SecretText,
    },
    /// It proves nothing, for this cause.
    Unusable(Cause),
}

impl fmt::Debug for ClientCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BearerToken(_) => f.write_str("BearerToken(…)"),
            Self::Secret { .. } => f.write_str("Secret(…)"),
            Self::Unusable(cause) => f.debug_tuple("Unusable").field(cause).finish(),
        }
    }
}

impl ClientCredential {
    /// The credential with the text of an access token.
    #[must_use]
    pub fn bearer_token(text: String) -> Self {
        if text.is_empty() || text.len() > MAX_LEN {
            return Self::Unusable(DenialCause::MalformedToken.into());
        }
        Self::BearerToken(text.into())
    }

    /// The credential in the value of the HTTP header `Authorization` (RFC 9110 section 11.6.2). Schemes
    /// are compared in any case.
    #[must_use]
    pub fn authorization(header: &str) -> Self {
        let header = header.trim_matches([' ', '\t']);
        let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
        let value = value.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            if value.starts_with(SecretKind::Credential.prefix()) {
                return Self::secret(None, value.to_owned());
            }
            return Self::bearer_token(value.to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::basic(value).unwrap_or(Self::Unusable(Reason::CredentialUnknown.into()));
        }
        Self::Unusable(Reason::TokenRequired.into())
    }

    /// The credential of a client that sends its name and its secret in a form
    /// (`client_secret_post`, RFC 6749 section 2.3.1).
    #[must_use]
    pub fn client_secret(name: String, secret: String) -> Self {
        Self::secret(Some(name.into()), secret)
    }

    fn secret(name: Option<Box<str>>, text: String) -> Self {
        match SecretText::parse(SecretKind::Credential, text) {
            Some(secret) => Self::Secret { name, secret },
            None => Self::Unusable(Reason::CredentialUnknown.into()),
        }
    }

    /// HTTP Basic (RFC 7617). Each half is form-encoded (RFC 6749 section 2.3.1). An id may have a colon
    /// and a secret has none, so the last colon separates them.
    fn basic(value: &str) -> Option<Self> {
        if value.len() > MAX_LEN {
            return None;
        }
        let decoded = String::from_utf8(BASE64.decode(value).ok()?).ok()?;
        let (name, secret) = decoded.rsplit_once(':')?;
        Some(Self::secret(Some(form_decoded(name)?.into()), form_decoded(secret)?))
    }
}

/// A text of `application/x-www-form-urlencoded`, decoded once. None: it is not UTF-8 then.
#[must_use]
pub fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|decoded| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(reason: Reason) -> ClientCredential {
        ClientCredential::Unusable(reason.into())
    }

    fn basic(name: &str, secret: &str) -> String {
        format!("Basic {}", BASE64.encode(format!("{name}:{secret}")))
    }

    #[test]
    fn header_is_read_by_its_scheme() {
        let secret = SecretText::mint(SecretKind::Credential, &[0xab; 44]);
        let text = secret.clone().reveal();
        let read = ClientCredential::authorization;
        let token = |text: &str| ClientCredential::BearerToken(text.into());
        for (header, expected) in [
            ("Bearer a.b.c", token("a.b.c")),
            ("bearer a.b.c", token("a.b.c")),
            ("  BEARER   a.b.c ", token("a.b.c")),
            ("Bearer anything", token("anything")),
            ("Bearer", ClientCredential::Unusable(DenialCause::MalformedToken.into())),
            ("Bearer ", ClientCredential::Unusable(DenialCause::MalformedToken.into())),
            ("", unusable(Reason::TokenRequired)),
            (" ", unusable(Reason::TokenRequired)),
            ("a.b.c", unusable(Reason::TokenRequired)),
            ("Digest username=x", unusable(Reason::TokenRequired)),
            ("Bearera a.b.c", unusable(Reason::TokenRequired)),
            ("Bearer sgs_", unusable(Reason::CredentialUnknown)),
            ("Bearer sgs_ab_cd", unusable(Reason::CredentialUnknown)),
            ("Basic", unusable(Reason::CredentialUnknown)),
            ("Basic !!!", unusable(Reason::CredentialUnknown)),
            ("Basic YWJj", unusable(Reason::CredentialUnknown)),
        ] {
            assert_eq!(read(header), expected, "{header}");
        }
        let alone = ClientCredential::Secret { name: None, secret: secret.clone() };
        assert_eq!(read(&format!("Bearer {text}")), alone);
        assert_eq!(read(&format!("Bearer {text}0")), unusable(Reason::CredentialUnknown));
        let named = |name: &str| ClientCredential::Secret {
            name: Some(name.into()),
            secret: secret.clone(),
        };
        assert_eq!(read(&basic("acme", &text)), named("acme"));
        assert_eq!(read(&basic("a:b", &text)), named("a:b"), "the last colon separates");
        assert_eq!(read(&basic("a%3Ab", &text)), named("a:b"), "decoded once");
        assert_eq!(read(&basic("a%253Ab", &text)), named("a%3Ab"), "and not twice");
        assert_eq!(read(&basic("a+b", &text)), named("a b"));
        assert_eq!(read(basic("acme", &text).trim_end_matches('=')), named("acme"));
        for wrong in [basic("acme", ""), basic("acme", "x"), basic("%ff", &text)] {
            assert_eq!(read(&wrong), unusable(Reason::CredentialUnknown), "{wrong}");
        }
    }

    #[test]
    fn long_credential_is_one_that_proves_nothing() {
        let long = "a".repeat(MAX_LEN + 1);
        let malformed = ClientCredential::Unusable(DenialCause::MalformedToken.into());
        assert_eq!(ClientCredential::bearer_token(long.clone()), malformed);
        assert_eq!(ClientCredential::authorization(&format!("Bearer {long}")), malformed);
        let basic = ClientCredential::authorization(&format!("Basic {long}"));
        assert_eq!(basic, unusable(Reason::CredentialUnknown));
    }

    #[test]
    fn it_is_never_printed() {
        let text = SecretText::mint(SecretKind::Credential, &[0xab; 44]).reveal();
        for header in [format!("Bearer {text}"), basic("acme", &text), "Bearer a.b.c".to_owned()] {
            let printed = format!("{:?}", ClientCredential::authorization(&header));
            assert!(!printed.contains("abab") && !printed.contains("a.b.c"), "{printed}");
        }
    }
}
