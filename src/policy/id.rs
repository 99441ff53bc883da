//! Ids of companies, credentials and users: one grammar, three types that do not mix.

use std::borrow::Borrow;
use std::fmt;

/// The most bytes that an id can have.
pub const MAX_LEN: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no bytes.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`MAX_LEN`] bytes.
    #[error("has {0} bytes, the limit is {MAX_LEN}")]
    TooLong(usize),
    /// It has a character that ids do not have.
    #[error("has the character {0:?}; ids are made of letters, digits and `.` `_` `:` `@` `-`")]
    Character(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong(text.len()));
    }
    let own = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-');
    if text.bytes().all(own) {
        return Ok(());
    }
    let foreign = text.chars().find(|c| !u8::try_from(*c).is_ok_and(own));
    Err(foreign.map_or(IdError::Empty, IdError::Character))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Reads an id: 1 to 128 bytes of `[A-Za-z0-9._:@-]`, compared byte for byte.
            ///
            /// # Errors
            /// Says which rule the text breaks.
            pub fn parse(text: impl Into<Box<str>>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text).map(|()| Self(text))
            }

            /// The id as text.
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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The id of a tenant.
    CompanyId
}
id! {
    /// The id of an API client, unique in its company.
    CredentialId
}
id! {
    /// The id of a user, unique in its company.
    UserId
}
id! {
    /// The name of an audience or role in a catalog.
    Name
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
        assert_eq!(CompanyId::parse("x".repeat(129)), Err(IdError::TooLong(129)));
        for bad in ["a/b", "a b", "a\0b", "é", "a%"] {
            assert!(matches!(CompanyId::parse(bad), Err(IdError::Character(_))), "{bad}");
        }
        assert_ne!(CompanyId::parse("Acme").ok(), CompanyId::parse("acme").ok());
    }
}
