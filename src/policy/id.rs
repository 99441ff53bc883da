//! Id: ids of companies, credentials and users, and names of a catalog. They are distinct types,
//! each with its own grammar.

use std::borrow::Borrow;
use std::fmt;

/// The grammar of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// The subject of an error message, in the plural.
    of: &'static str,
    /// The limit of bytes.
    max_len: usize,
    /// The allowed characters besides ASCII letters and digits.
    punctuation: &'static [u8],
}

/// Ids of companies and credentials.
const IDS: Grammar = Grammar { of: "ids", max_len: 128, punctuation: b"._:@-" };
/// Ids of users, as identity providers issue them: `auth0|5f7c`, `o'brien+test@example.org`.
const USER_IDS: Grammar = Grammar { of: "user ids", max_len: 255, punctuation: b"._:@|+=~'-" };
/// Names of a catalog.
const NAMES: Grammar = Grammar { of: "names", ..IDS };

impl Grammar {
    fn has(&self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || self.punctuation.contains(&byte)
    }

    fn check(&'static self, text: &str) -> Result<(), IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > self.max_len {
            return Err(IdError::TooLong(text.len(), self));
        }
        if text.bytes().all(|byte| self.has(byte)) {
            return Ok(());
        }
        let foreign = text.chars().find(|c| !u8::try_from(*c).is_ok_and(|byte| self.has(byte)));
        Err(foreign.map_or(IdError::Empty, |foreign| IdError::Character(foreign, self)))
    }

    /// The characters besides letters and digits, each quoted.
    fn list(&self) -> String {
        let quoted = self.punctuation.iter().map(|byte| format!("`{}`", char::from(*byte)));
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no bytes.
    #[error("must not be empty")]
    Empty,
    /// It has more bytes than its grammar allows.
    #[error("has {0} bytes, the limit is {limit}", limit = .1.max_len)]
    TooLong(usize, &'static Grammar),
    /// It has a character that its grammar lacks.
    #[error("has the character {0:?}; {of} are made of letters, digits and {punctuation}", of = .1.of, punctuation = .1.list())]
    Character(char, &'static Grammar),
    /// It is a path segment that a URL cannot carry.
    #[error("must not be `.` or `..`: no URL can name that; choose another id")]
    Dots,
}

/// Rejects an id that no new resource may have.
fn check_new(id: &str) -> Result<(), IdError> {
    if matches!(id, "." | "..") { Err(IdError::Dots) } else { Ok(()) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident of $grammar:ident, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            #[doc = concat!("Reads one: ", $form, ", compared byte for byte.")]
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn parse(text: impl Into<Box<str>>) -> Result<Self, IdError> {
                let text = text.into();
                $grammar.check(&text).map(|()| Self(text))
            }

            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! new_id {
    ($name:ident) => {
        impl $name {
            /// Parses the id of a new resource: `.` and `..` are rejected. An existing resource
            /// keeps such an id.
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn parse_new(text: impl Into<Box<str>>) -> Result<Self, IdError> {
                let id = Self::parse(text)?;
                check_new(id.as_str()).map(|()| id)
            }
        }
    };
}

id! {
    /// The id of a tenant.
    CompanyId of IDS, "1 to 128 bytes of `[A-Za-z0-9._:@-]`"
}
new_id!(CompanyId);
id! {
    /// The id of an API client, unique in its company.
    CredentialId of IDS, "1 to 128 bytes of `[A-Za-z0-9._:@-]`"
}
new_id!(CredentialId);
id! {
    /// The id of a user, unique in its company.
    UserId of USER_IDS, "1 to 255 bytes of `[A-Za-z0-9._:@|+=~'-]`"
}
id! {
    /// The name of an audience or role in a catalog.
    Name of NAMES, "1 to 128 bytes of `[A-Za-z0-9._:@-]`"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_128_bytes_of_its_alphabet() {
        assert!(CompanyId::parse("eu-west-2_AbcdEfghI").is_ok());
        assert!(CompanyId::parse("a.b_c:d@e-f").is_ok());
        assert_eq!(CompanyId::parse(""), Err(IdError::Empty));
        assert!(CompanyId::parse("x".repeat(128)).is_ok());
        assert_eq!(CompanyId::parse("x".repeat(129)), Err(IdError::TooLong(129, &IDS)));
        for bad in ["a/b", "a b", "a\0b", "é", "a%", "a|b", "a+b", "a=b", "a~b", "o'brien"] {
            assert!(matches!(CompanyId::parse(bad), Err(IdError::Character(..))), "{bad}");
            assert!(matches!(CredentialId::parse(bad), Err(IdError::Character(..))), "{bad}");
            assert!(matches!(Name::parse(bad), Err(IdError::Character(..))), "{bad}");
        }
        assert_ne!(CompanyId::parse("Acme").ok(), CompanyId::parse("acme").ok());
    }

    #[test]
    fn a_user_id_allows_what_identity_providers_issue() {
        let long = "x".repeat(255);
        for good in ["auth0|5f7c", "o'brien+test@x.org", "uid=ada", "~ada", ".", "..", &long] {
            assert_eq!(UserId::parse(good).map(|id| id.to_string()).as_deref(), Ok(good));
        }
        assert_eq!(UserId::parse("x".repeat(256)), Err(IdError::TooLong(256, &USER_IDS)));
        for bad in ["a b", "a/b", "a\"b", "a\\b", "a,b", "a%b", "a\nb", "a\0b", "é", "a`b", "a$b"]
        {
            assert!(matches!(UserId::parse(bad), Err(IdError::Character(..))), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_alphabet_of_its_type() {
        let company = CompanyId::parse("a|b").expect_err("refused").to_string();
        let user = UserId::parse("a/b").expect_err("refused").to_string();
        let alphabet = "are made of letters, digits and";
        assert_eq!(company, format!("has the character '|'; ids {alphabet} `.` `_` `:` `@` `-`"));
        assert_eq!(
            user,
            format!(
                "has the character '/'; user ids {alphabet} \
                 `.` `_` `:` `@` `|` `+` `=` `~` `'` `-`"
            )
        );
    }

    #[test]
    fn a_new_id_is_not_a_dot_segment() {
        for dots in [".", ".."] {
            assert!(CompanyId::parse(dots).is_ok());
            assert_eq!(CompanyId::parse_new(dots), Err(IdError::Dots));
            assert_eq!(CredentialId::parse_new(dots), Err(IdError::Dots));
        }
        assert!(CompanyId::parse_new("...").is_ok());
    }
}
