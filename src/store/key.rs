//! Key: the keys of a store's entries in the engine.
//!
//! A key is a table byte, then numbers in big-endian order, then an id that runs to the end of the
//! key. If something follows an id, the length of the id precedes it. An id therefore cannot extend
//! into the range of another id.
//!
//! Not here: which parts the key of a fact has; see `fact`.

use super::quota::Quota;
use super::{FactKind, RequestKey};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::token::authorization_code::AuthorizationCode;
use crate::policy::user::User;

const HOLDER: u8 = b'H';
const CHANGE: u8 = b'L';
const CHANGE_OF: u8 = b'J';
const TOMBSTONE: u8 = b'D';
const CHUNK: u8 = b'O';
const SEEN: u8 = b'N';
const REPLY: u8 = b'R';
const REPLY_TIME: u8 = b'E';

/// The schema version of the store.
pub(super) const SCHEMA: &[u8] = b"Mschema";
/// The store's incarnation.
pub(super) const INCARNATION: &[u8] = b"Mincarnation";
/// The last revision committed.
pub(super) const HEAD: &[u8] = b"Mhead";
/// The chain up to the last revision committed.
pub(super) const CHAIN: &[u8] = b"Mchain";
/// The durable time mark (D19), unless an operator has set the time back since.
pub(super) const TIME: &[u8] = b"Mtime";

/// The last time an operator set the store's time back to the clock: the revision of that change,
/// and the time from which the store continued.
pub(super) const CLOCK_ACCEPTED: &[u8] = b"Mclock";

/// The change by which an operator set the time of a replica back, until the log has it.
pub(super) const UNTOLD_CLOCK: &[u8] = b"Muntold";

/// The time of the last restore from a backup.
pub(super) const RESTORED: &[u8] = b"Mrestored";

/// The store checksum.
pub(super) const CHECKSUM: &[u8] = b"Mtally";
/// The cluster that the store belongs to, and its etcd. Only the store of a replica has one.
pub(super) const CLUSTER: &[u8] = b"Mcluster";
/// The position in the log of the replicas. Only the store of a replica has one.
pub(super) const LOG_POSITION: &[u8] = b"Mlog";
/// The last revision whose change garbage collection removed.
pub(super) const COMPACTED: &[u8] = b"Mtrimmed";

/// Whether the store checksum covers this key.
pub(super) fn is_in_checksum(entry_key: &[u8]) -> bool {
    entry_key != CHECKSUM && entry_key.first() != Some(&SEEN)
}

/// Whether garbage collection may have removed a fact with this key at one replica, while a change at
/// another one still replaces the fact: garbage collection has no order among replicas.
pub(super) fn is_garbage_somewhere(entry_key: &[u8]) -> bool {
    matches!(entry_key.first(), Some(&(SecretOwner::TABLE | AuthorizationCode::TABLE)))
}

/// Whether a key is written at most once: it contains the revision that writes it.
pub(super) fn is_written_once(entry_key: &[u8]) -> bool {
    matches!(entry_key.first(), Some(&(CHANGE | CHANGE_OF | CHUNK)))
}

/// The company and the quota that a key counts for, if any. The company is given by its creation
/// revision.
pub(super) fn quota_of(entry_key: &[u8]) -> Option<(Revision, Quota)> {
    let (table, rest) = entry_key.split_first()?;
    let bound = match *table {
        Credential::TABLE => Quota::Credentials,
        User::TABLE => Quota::Users,
        Consent::TABLE => Quota::Consents,
        _ => return None,
    };
    let (company, _) = rest.split_first_chunk::<8>()?;
    Some((Revision(u64::from_be_bytes(*company)), bound))
}

/// Builds a key part by part.
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn table(table: u8) -> Self {
        Self(vec![table])
    }

    pub(super) fn part(mut self, part: &impl KeyPart) -> Self {
        part.append(&mut self.0);
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn short(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }
}

/// A part of the key of a fact.
pub(super) trait KeyPart: Sized {
    /// Appends the part to a key.
    fn append(&self, key: &mut Vec<u8>);
    /// Reads the part from the start of the rest of a key, and moves the rest behind it.
    fn read(rest: &mut &[u8]) -> Option<Self>;
}

/// An id runs to the end of the key.
macro_rules! ids {
    ($($id:ident)+) => {
        $(impl KeyPart for $id {
            fn append(&self, key: &mut Vec<u8>) {
                key.extend(self.as_str().as_bytes());
            }

            fn read(rest: &mut &[u8]) -> Option<Self> {
                Self::parse(std::str::from_utf8(std::mem::take(rest)).ok()?).ok()
            }
        })+
    };
}

ids! { CompanyId CredentialId UserId Name }

impl KeyPart for Revision {
    fn append(&self, key: &mut Vec<u8>) {
        key.extend(self.0.to_be_bytes());
    }

    fn read(rest: &mut &[u8]) -> Option<Self> {
        let (number, behind) = rest.split_first_chunk::<8>()?;
        *rest = behind;
        Some(Self(u64::from_be_bytes(*number)))
    }
}

impl KeyPart for Parties {
    fn append(&self, key: &mut Vec<u8>) {
        [self.company, self.user, self.credential].iter().for_each(|part| part.append(key));
    }

    fn read(rest: &mut &[u8]) -> Option<Self> {
        let mut next = || Revision::read(rest);
        Some(Self { company: next()?, user: next()?, credential: next()? })
    }
}

/// A prefix of keys that end with an id.
pub(super) struct Prefix(Vec<u8>);

impl Prefix {
    /// The key with this id at its end.
    pub(super) fn last_of(&self, id: &str) -> Vec<u8> {
        let mut key = self.0.clone();
        key.extend(id.as_bytes());
        key
    }

    /// The prefix itself.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id at the end of a key of this prefix.
    pub(super) fn id<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key.strip_prefix(self.bytes())?).ok()
    }
}

/// All companies.
pub(super) fn companies() -> Prefix {
    Prefix(vec![Company::TABLE])
}

/// All credentials of a company, by its creation revision.
pub(super) fn credentials(company: Revision) -> Prefix {
    Prefix(Key::table(Credential::TABLE).number(company.0).0)
}

/// All users of a company, by its creation revision.
pub(super) fn users(company: Revision) -> Prefix {
    Prefix(Key::table(User::TABLE).number(company.0).0)
}

/// All secrets of a company, by its creation revision.
pub(super) fn secrets(company: Revision) -> Vec<u8> {
    Key::table(Secret::TABLE).number(company.0).0
}

/// All secrets of all companies.
pub(super) fn all_secrets() -> Vec<u8> {
    vec![Secret::TABLE]
}

/// The company, by the revision that created it, and the public id of the secret of this key.
pub(super) fn secret_of(key: &[u8]) -> Option<(Revision, Name)> {
    let (company, id) = key.strip_prefix(&[Secret::TABLE])?.split_first_chunk::<8>()?;
    let id = Name::parse(std::str::from_utf8(id).ok()?).ok()?;
    Some((Revision(u64::from_be_bytes(*company)), id))
}

/// All authorization codes, in the order of their expiry.
pub(super) fn authorization_codes() -> Vec<u8> {
    vec![AuthorizationCode::TABLE]
}

/// The expiry of the authorization code of this key, in seconds.
pub(super) fn expiry_of_code(key: &[u8]) -> Option<i64> {
    let id = key.strip_prefix(&[AuthorizationCode::TABLE])?;
    AuthorizationCode::expiry_in(std::str::from_utf8(id).ok()?)
}

/// All entries of the index of secrets.
pub(super) fn all_secret_owners() -> Vec<u8> {
    vec![SecretOwner::TABLE]
}

/// All consents of a company, by its creation revision.
pub(super) fn consents(company: Revision) -> Vec<u8> {
    Key::table(Consent::TABLE).number(company.0).0
}

/// All consents of a user, by the creation revisions of company and user.
pub(super) fn consents_of(company: Revision, user: Revision) -> Vec<u8> {
    Key(consents(company)).number(user.0).0
}

/// The last-seen minute of a credential, by its creation revision.
pub(super) fn seen(credential: Revision) -> Vec<u8> {
    Key::table(SEEN).number(credential.0).0
}

/// All credentials of a company that have a grant of a scope, in any state.
pub(super) fn holders(company: Revision, scope: ScopeId) -> Prefix {
    Prefix(Key::table(HOLDER).number(company.0).short(scope.0).0)
}

/// One credential's entry among the holders of a scope.
pub(super) fn holder(company: Revision, scope: ScopeId, credential: &CredentialId) -> Vec<u8> {
    holders(company, scope).last_of(credential.as_str())
}

/// All holders of a company's scopes.
pub(super) fn all_holders(company: Revision) -> Vec<u8> {
    Key::table(HOLDER).number(company.0).0
}

/// One change.
pub(super) fn change(revision: Revision) -> Vec<u8> {
    Key::table(CHANGE).number(revision.0).0
}

/// One company's changes.
pub(super) fn changes_of(company: &CompanyId) -> Vec<u8> {
    let id = company.as_str().as_bytes();
    let mut key = vec![CHANGE_OF, u8::try_from(id.len()).unwrap_or(u8::MAX)];
    key.extend(id);
    key
}

/// One change's entry among its company's.
pub(super) fn change_of(company: &CompanyId, revision: Revision) -> Vec<u8> {
    Key(changes_of(company)).number(revision.0).0
}

/// Every change.
pub(super) fn changes() -> Vec<u8> {
    vec![CHANGE]
}

/// The revision that ends the key of a change, or of a change's entry.
pub(super) fn revision_at_end(key: &[u8]) -> Option<Revision> {
    let (_, number) = key.split_last_chunk::<8>()?;
    Some(Revision(u64::from_be_bytes(*number)))
}

/// A deleted resource whose keys garbage collection has still to remove. Creation revisions never
/// recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tombstone {
    /// A company.
    Company(Revision),
    /// A user of a company.
    User(Revision, Revision),
    /// A credential of a company.
    Credential(Revision, Revision),
}

const TOMBSTONE_USER: u8 = b'U';
const TOMBSTONE_CREDENTIAL: u8 = b'K';

/// The key of a tombstone.
pub(super) fn tombstone(of: Tombstone) -> Vec<u8> {
    let member = |company: Revision, kind: u8, created_at: Revision| {
        let mut key = Key::table(TOMBSTONE).number(company.0);
        key.0.push(kind);
        key.number(created_at.0).0
    };
    match of {
        Tombstone::Company(company) => Key::table(TOMBSTONE).number(company.0).0,
        Tombstone::User(company, user) => member(company, TOMBSTONE_USER, user),
        Tombstone::Credential(company, credential) => {
            member(company, TOMBSTONE_CREDENTIAL, credential)
        }
    }
}

/// All tombstones.
pub(super) fn all_tombstones() -> Vec<u8> {
    vec![TOMBSTONE]
}

/// The tombstone of this key.
pub(super) fn tombstone_of(key: &[u8]) -> Option<Tombstone> {
    let (company, member) = key.strip_prefix(&[TOMBSTONE])?.split_first_chunk::<8>()?;
    let company = Revision(u64::from_be_bytes(*company));
    let Some((kind, created_at)) = member.split_first() else {
        return Some(Tombstone::Company(company));
    };
    let created_at = Revision(u64::from_be_bytes(created_at.try_into().ok()?));
    match *kind {
        TOMBSTONE_USER => Some(Tombstone::User(company, created_at)),
        TOMBSTONE_CREDENTIAL => Some(Tombstone::Credential(company, created_at)),
        _ => None,
    }
}

/// The key of the stored result of a request.
pub(super) fn reply(request: &RequestKey) -> Vec<u8> {
    let mut key = vec![REPLY];
    key.extend(request.0);
    key
}

/// The key that notes in which millisecond the reply was stored.
pub(super) fn reply_time(millisecond: u64, request: &RequestKey) -> Vec<u8> {
    let mut key = Key::table(REPLY_TIME).number(millisecond);
    key.0.extend(request.0);
    key.0
}

/// All times of stored results, in order.
pub(super) fn all_reply_times() -> Vec<u8> {
    vec![REPLY_TIME]
}

/// The millisecond and the request of this key.
pub(super) fn reply_time_of(key: &[u8]) -> Option<(u64, RequestKey)> {
    let (millisecond, request) = key.strip_prefix(&[REPLY_TIME])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*millisecond), RequestKey(request.try_into().ok()?)))
}

/// One chunk of a value that is too long for its key.
pub(super) fn chunk(revision: Revision, value: u32, index: u32) -> Vec<u8> {
    Key::table(CHUNK).number(revision.0).short(value).short(index).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FactKey;
    use crate::store::fact::KINDS;

    #[test]
    fn no_two_tables_share_a_byte() {
        let others =
            [SCHEMA[0], HOLDER, CHANGE, CHANGE_OF, TOMBSTONE, CHUNK, SEEN, REPLY, REPLY_TIME];
        let mut tables = others.to_vec();
        tables.extend(KINDS.iter().map(|(table, _)| table));
        let count = tables.len();
        tables.sort_unstable();
        tables.dedup();
        assert_eq!(tables.len(), count);
        for meta in [INCARNATION, HEAD, CHAIN, TIME, LOG_POSITION, COMPACTED] {
            assert_eq!(meta[0], SCHEMA[0]);
        }
    }

    #[test]
    fn tombstones_and_reply_times_are_read_back_from_their_keys() {
        let created = (Revision(7), Revision(8));
        for of in [
            Tombstone::Company(created.0),
            Tombstone::User(created.0, created.1),
            Tombstone::Credential(created.0, created.1),
        ] {
            assert_eq!(tombstone_of(&tombstone(of)), Some(of));
        }
        let request = RequestKey([7; 32]);
        assert_eq!(reply_time_of(&reply_time(9, &request)), Some((9, request)));
    }

    #[test]
    fn a_secret_is_read_back_from_its_key() {
        let id = Name::parse("0123").expect("a name");
        let key = FactKey::Secret(Revision(7), id.clone()).bytes();
        assert_eq!(secret_of(&key), Some((Revision(7), id)));
        assert_eq!(secret_of(&key[..5]), None);
    }

    #[test]
    fn the_changes_of_a_company_have_a_prefix_of_their_own() {
        let a = CompanyId::parse("a").expect("an id");
        let ab = CompanyId::parse("ab").expect("an id");
        assert!(!change_of(&ab, Revision(1)).starts_with(&changes_of(&a)));
    }
}
