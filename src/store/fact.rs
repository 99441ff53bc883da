//! Fact: a record that the store keeps and the caches hold, and its key.
//!
//! The kinds of facts are the rows of the table at the end of this file. A new kind is its type in
//! `policy`, its row here, and its record in `record` and in the schema.
//!
//! Not here: the encoding of the records and of the parts of a key; see `record` and `key`.

use std::sync::Arc;

use equivalent::Equivalent;
use jiff::Timestamp;

use super::key::{Key, KeyPart};
use crate::policy::catalog::Catalog;
use crate::policy::company::{Company, ImpactRevision as Impact};
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::edit::Stamped;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::token::authorization_code::AuthorizationCode;
use crate::policy::token::signing_keys::SigningKeys;
use crate::policy::user::User;

/// A kind of fact.
pub trait FactKind: Stamped + Clone + Send + Sync + 'static {
    /// The parts of its key.
    type Key<'a>: Copy + Send;
    /// The first byte of its keys in the engine.
    const TABLE: u8;

    /// The key with these parts.
    fn key_of(parts: Self::Key<'_>) -> FactRef<'_>;
    /// The key of this fact.
    fn key(&self) -> FactKey;
    /// The revision that last changed it.
    fn revision(&self) -> Revision;
    /// This fact among the facts of all kinds.
    fn into_fact(self: Arc<Self>) -> Fact;
    /// The fact, if it is of this kind.
    fn from_fact(fact: Fact) -> Option<Arc<Self>>;
}

impl Equivalent<FactKey> for FactRef<'_> {
    fn equivalent(&self, key: &FactKey) -> bool {
        *self == key.borrowed()
    }
}

/// Defines the kinds of facts. A row has the byte of the table in the engine, the type of the fact,
/// and the parts of the key, which are fields of that type. Only the last part may be an id; see
/// `key`.
macro_rules! facts {
    ($($(#[$doc:meta])* $table:literal $kind:ident $(($($part:ident: $type:ty),+))?;)+) => {
        /// The key of a fact, in the store and in the caches.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum FactKey {
            $($(#[$doc])* $kind $(($($type),+))?,)+
        }

        /// A borrowed key, for lookups without allocation. It has the same hash as the key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FactRef<'a> {
            $($(#[$doc])* $kind $(($(&'a $type),+))?,)+
        }

        /// A fact.
        #[derive(Clone, Debug)]
        pub enum Fact {
            $($(#[$doc])* $kind(Arc<$kind>),)+
        }

        impl FactKey {
            /// The borrowed key.
            #[must_use]
            pub fn borrowed(&self) -> FactRef<'_> {
                match self {
                    $(Self::$kind $(($($part),+))? => FactRef::$kind $(($($part),+))?,)+
                }
            }

            /// The key in the engine.
            pub(super) fn bytes(&self) -> Vec<u8> {
                match self {
                    $(Self::$kind $(($($part),+))? => {
                        Key::table($table) $($(.part($part))+)? .into_bytes()
                    })+
                }
            }

            /// The key that has these bytes in the engine; `None` if no kind of fact has such a key.
            pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let (table, mut rest) = bytes.split_first()?;
                let key = match *table {
                    $($table => Self::$kind $(($(<$type>::read(&mut rest)?),+))?,)+
                    _ => return None,
                };
                rest.is_empty().then_some(key)
            }
        }

        impl FactRef<'_> {
            /// The key.
            #[must_use]
            pub fn to_key(self) -> FactKey {
                match self {
                    $(Self::$kind $(($($part),+))? => {
                        FactKey::$kind $(($(Clone::clone($part)),+))?
                    })+
                }
            }
        }

        impl Fact {
            /// The revision that last changed it.
            #[must_use]
            pub fn revision(&self) -> Revision {
                match self {
                    $(Self::$kind(fact) => fact.revision,)+
                }
            }

            /// Sets the revision and the time of its commit.
            pub(super) fn stamp(&mut self, revision: Revision, time: Timestamp) {
                match self {
                    $(Self::$kind(fact) => Arc::make_mut(fact).stamp(revision, time),)+
                }
            }
        }

        $(#[allow(unused_parens, reason = "a key of one part is no tuple")]
        impl FactKind for $kind {
            type Key<'a> = ($($(&'a $type),+)?);
            const TABLE: u8 = $table;

            fn key_of(($($($part),+)?): Self::Key<'_>) -> FactRef<'_> {
                FactRef::$kind $(($($part),+))?
            }

            fn key(&self) -> FactKey {
                FactRef::$kind $(($(&self.$part),+))? .to_key()
            }

            fn revision(&self) -> Revision {
                self.revision
            }

            fn into_fact(self: Arc<Self>) -> Fact {
                Fact::$kind(self)
            }

            fn from_fact(fact: Fact) -> Option<Arc<Self>> {
                match fact {
                    Fact::$kind(fact) => Some(fact),
                    _ => None,
                }
            }
        })+

        /// The kinds of facts: the first byte of their keys, which differ, and their names.
        pub(super) const KINDS: &[(u8, &str)] = &[$(($table, stringify!($kind))),+];
    };
}

facts! {
    /// The catalog.
    b'G' Catalog;
    /// The keyring.
    b'A' Keyring;
    /// A company, by id.
    b'C' Company(id: CompanyId);
    /// A credential, by the creation revision of its company and by its id. A fact of an earlier
    /// company with the same id has another key (D3).
    b'K' Credential(company: Revision, id: CredentialId);
    /// A company's impact revision, by the creation revision of the company.
    b'X' Impact(company: Revision);
    /// A user, by the creation revision of the company and by the user's id.
    b'U' User(company: Revision, id: UserId);
    /// A user's consent to a credential, by the creation revisions of company, user and credential.
    b'T' Consent(of: Parties);
    /// A secret, by the creation revision of the company and by its public id.
    b'S' Secret(company: Revision, id: Name);
    /// The owner of a secret, by the secret's public id.
    b'P' SecretOwner(secret: Name);
    /// The public keys that sign own tokens.
    b'Q' SigningKeys;
    /// An authorization code, by its public id, which begins with the time of its expiry.
    b'W' AuthorizationCode(id: Name);
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn a_key_has_one_hash_and_is_read_back_from_its_bytes() {
        let company = CompanyId::parse("acme").expect("an id");
        let credential = CredentialId::parse("hr").expect("an id");
        let user = UserId::parse("ada").expect("an id");
        let secret = Name::parse("0123").expect("a name");
        let of = Parties { company: Revision(7), user: Revision(8), credential: Revision(9) };
        let state = RandomState::new();
        for key in [
            FactRef::Catalog,
            FactRef::Keyring,
            FactRef::Company(&company),
            FactRef::Credential(&Revision(7), &credential),
            FactRef::Impact(&Revision(7)),
            FactRef::User(&Revision(7), &user),
            FactRef::Consent(&of),
            FactRef::Secret(&Revision(7), &secret),
            FactRef::SecretOwner(&secret),
            FactRef::SigningKeys,
            FactRef::AuthorizationCode(&secret),
        ] {
            assert_eq!(state.hash_one(key), state.hash_one(key.to_key()), "{key:?}");
            assert!(key.equivalent(&key.to_key()));
            let bytes = key.to_key().bytes();
            assert_eq!(FactKey::from_bytes(&bytes), Some(key.to_key()));
            assert_ne!(FactKey::from_bytes(&[&bytes, &b" "[..]].concat()), Some(key.to_key()));
        }
        assert_eq!(FactKey::from_bytes(b""), None);
        assert_eq!(FactKey::from_bytes(b"Mhead"), None, "the key of no fact");
    }
}
