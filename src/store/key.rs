//! Key: where a thing lies in the one ordered space of the embedded engine.
//!
//! A table byte, then numbers big-endian, then an id that runs to the end of the key. Where
//! something follows an id its length goes before it. So no id can reach into another's place.

use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;

use super::quota::Quota;
use super::{FactKey, RequestKey};

const CATALOG: u8 = b'G';
const COMPANY: u8 = b'C';
const CREDENTIAL: u8 = b'K';
const IMPACT: u8 = b'X';
const HOLDER: u8 = b'H';
const CHANGE: u8 = b'L';
const CHANGE_OF: u8 = b'J';
const DEAD: u8 = b'D';
const PART: u8 = b'O';
const USER: u8 = b'U';
const CONSENT: u8 = b'T';
const SECRET: u8 = b'S';
const SECRET_OWNER: u8 = b'P';
const SEEN: u8 = b'N';
const ANSWERED: u8 = b'R';
const ANSWERED_AT: u8 = b'E';
const KEYRING: u8 = b'A';

/// The version of the schema of what is kept.
pub(super) const SCHEMA: &[u8] = b"Mschema";
/// The store's incarnation.
pub(super) const INCARNATION: &[u8] = b"Mincarnation";
/// The last revision committed.
pub(super) const HEAD: &[u8] = b"Mhead";
/// The latest time that was relied on (D19), unless an operator brought time back since.
pub(super) const TIME: &[u8] = b"Mtime";

/// The last time an operator brought the store's time back to the clock: the revision of that
/// change, and the time from which the store went on.
pub(super) const CLOCK_ACCEPTED: &[u8] = b"Mclock";

/// The sum of all that is kept.
pub(super) const TALLY: &[u8] = b"Mtally";
/// The last revision whose change is no longer kept.
pub(super) const TRIMMED: &[u8] = b"Mtrimmed";

/// Whether what lies here is part of the tally.
pub(super) fn is_tallied(place: &[u8]) -> bool {
    place != TALLY && place.first() != Some(&SEEN)
}

/// Whether nothing can lie here when something is put here: the key has the revision that makes
/// it.
pub(super) fn is_written_once(place: &[u8]) -> bool {
    matches!(place.first(), Some(&(CHANGE | CHANGE_OF | PART)))
}

/// Whose what lies here, if it is bounded: of each company, by its creation.
pub(super) fn bounded(place: &[u8]) -> Option<(Revision, Quota)> {
    let (table, rest) = place.split_first()?;
    let bound = match *table {
        CREDENTIAL => Quota::Credentials,
        USER => Quota::Users,
        CONSENT => Quota::Consents,
        _ => return None,
    };
    let (company, _) = rest.split_first_chunk::<8>()?;
    Some((Revision(u64::from_be_bytes(*company)), bound))
}

/// Builds keys piece by piece.
struct Key(Vec<u8>);

impl Key {
    fn table(table: u8) -> Self {
        Self(vec![table])
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn short(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn last(mut self, id: &str) -> Vec<u8> {
        self.0.extend(id.as_bytes());
        self.0
    }
}

/// Where a fact lies.
pub(super) fn fact(key: &FactKey) -> Vec<u8> {
    match key {
        FactKey::Catalog => vec![CATALOG],
        FactKey::Keyring => vec![KEYRING],
        FactKey::Company(id) => Key::table(COMPANY).last(id.as_str()),
        FactKey::Credential(company, id) => credentials(*company).last_of(id.as_str()),
        FactKey::Impact(company) => Key::table(IMPACT).number(company.0).0,
        FactKey::User(company, id) => users(*company).last_of(id.as_str()),
        FactKey::Secret(company, id) => Key(secrets(*company)).last(id.as_str()),
        FactKey::SecretOwner(id) => Key::table(SECRET_OWNER).last(id.as_str()),
        FactKey::Consent(of) => {
            Key(consents(of.company)).number(of.user.0).number(of.credential.0).0
        }
    }
}

/// A prefix of keys that an id ends.
pub(super) struct Prefix(Vec<u8>);

impl Prefix {
    /// The key that this id ends.
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
    Prefix(vec![COMPANY])
}

/// All credentials of a company, by its birth.
pub(super) fn credentials(company: Revision) -> Prefix {
    Prefix(Key::table(CREDENTIAL).number(company.0).0)
}

/// All users of a company, by its birth.
pub(super) fn users(company: Revision) -> Prefix {
    Prefix(Key::table(USER).number(company.0).0)
}

/// All secrets of a company, by its birth.
pub(super) fn secrets(company: Revision) -> Vec<u8> {
    Key::table(SECRET).number(company.0).0
}

/// All secrets of all companies.
pub(super) fn all_secrets() -> Vec<u8> {
    vec![SECRET]
}

/// The company, by the revision that created it, and the public id of the secret of this key.
pub(super) fn secret_of(key: &[u8]) -> Option<(Revision, Name)> {
    let (company, id) = key.strip_prefix(&[SECRET])?.split_first_chunk::<8>()?;
    let id = Name::parse(std::str::from_utf8(id).ok()?).ok()?;
    Some((Revision(u64::from_be_bytes(*company)), id))
}

/// All entries of the index of secrets.
pub(super) fn all_secret_owners() -> Vec<u8> {
    vec![SECRET_OWNER]
}

/// All consents of a company, by its birth.
pub(super) fn consents(company: Revision) -> Vec<u8> {
    Key::table(CONSENT).number(company.0).0
}

/// All consents of a user of a company, by their births.
pub(super) fn consents_of(company: Revision, user: Revision) -> Vec<u8> {
    Key(consents(company)).number(user.0).0
}

/// When a credential was last seen, by its birth.
pub(super) fn seen(credential: Revision) -> Vec<u8> {
    Key::table(SEEN).number(credential.0).0
}

/// All credentials of a company that have a grant of a scope, in whatever state.
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

/// Who was deleted and left something that is still to be swept. By births, which never recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    /// A company.
    Company(Revision),
    /// A user of a company.
    User(Revision, Revision),
    /// A credential of a company.
    Credential(Revision, Revision),
}

const DEAD_USER: u8 = b'U';
const DEAD_CREDENTIAL: u8 = b'K';

/// Where it is noted that someone is still to be swept.
pub(super) fn dead(dead: Dead) -> Vec<u8> {
    let member = |company: Revision, kind: u8, birth: Revision| {
        let mut key = Key::table(DEAD).number(company.0);
        key.0.push(kind);
        key.number(birth.0).0
    };
    match dead {
        Dead::Company(company) => Key::table(DEAD).number(company.0).0,
        Dead::User(company, user) => member(company, DEAD_USER, user),
        Dead::Credential(company, credential) => member(company, DEAD_CREDENTIAL, credential),
    }
}

/// All who are still to be swept.
pub(super) fn all_dead() -> Vec<u8> {
    vec![DEAD]
}

/// Who is to be swept by this key.
pub(super) fn dead_of(key: &[u8]) -> Option<Dead> {
    let (company, member) = key.strip_prefix(&[DEAD])?.split_first_chunk::<8>()?;
    let company = Revision(u64::from_be_bytes(*company));
    let Some((kind, birth)) = member.split_first() else {
        return Some(Dead::Company(company));
    };
    let birth = Revision(u64::from_be_bytes(birth.try_into().ok()?));
    match *kind {
        DEAD_USER => Some(Dead::User(company, birth)),
        DEAD_CREDENTIAL => Some(Dead::Credential(company, birth)),
        _ => None,
    }
}

/// What is kept of a request that was carried out.
pub(super) fn answered(request: &RequestKey) -> Vec<u8> {
    let mut key = vec![ANSWERED];
    key.extend(request.0);
    key
}

/// That a request was carried out in this millisecond.
pub(super) fn answered_at(millisecond: u64, request: &RequestKey) -> Vec<u8> {
    let mut key = Key::table(ANSWERED_AT).number(millisecond);
    key.0.extend(request.0);
    key.0
}

/// All requests that were carried out, by time.
pub(super) fn all_answered_at() -> Vec<u8> {
    vec![ANSWERED_AT]
}

/// When which request was carried out, by this key.
pub(super) fn answered_of(key: &[u8]) -> Option<(u64, RequestKey)> {
    let (millisecond, request) = key.strip_prefix(&[ANSWERED_AT])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*millisecond), RequestKey(request.try_into().ok()?)))
}

/// One part of a value too long for its place.
pub(super) fn part(revision: Revision, value: u32, part: u32) -> Vec<u8> {
    Key::table(PART).number(revision.0).short(value).short(part).0
}

/// The table bytes, which must differ.
#[cfg(test)]
const TABLES: [u8; 18] = [
    SCHEMA[0],
    CATALOG,
    COMPANY,
    CREDENTIAL,
    IMPACT,
    HOLDER,
    CHANGE,
    CHANGE_OF,
    DEAD,
    PART,
    USER,
    CONSENT,
    SECRET,
    SECRET_OWNER,
    SEEN,
    ANSWERED,
    ANSWERED_AT,
    KEYRING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tables_share_a_byte() {
        let mut tables = TABLES.to_vec();
        tables.sort_unstable();
        tables.dedup();
        assert_eq!(tables.len(), TABLES.len());
        for meta in [INCARNATION, HEAD, TIME, TRIMMED] {
            assert_eq!(meta[0], SCHEMA[0]);
        }
    }

    #[test]
    fn the_dead_and_the_answered_are_read_back_from_their_keys() {
        let births = (Revision(7), Revision(8));
        for someone in [
            Dead::Company(births.0),
            Dead::User(births.0, births.1),
            Dead::Credential(births.0, births.1),
        ] {
            assert_eq!(dead_of(&dead(someone)), Some(someone));
        }
        let request = RequestKey([7; 32]);
        assert_eq!(answered_of(&answered_at(9, &request)), Some((9, request)));
    }

    #[test]
    fn a_secret_is_read_back_from_its_key() {
        let id = Name::parse("0123").expect("a name");
        let key = fact(&FactKey::Secret(Revision(7), id.clone()));
        assert_eq!(secret_of(&key), Some((Revision(7), id)));
        assert_eq!(secret_of(&key[..5]), None);
    }

    #[test]
    fn no_company_reads_anothers_changes() {
        let a = CompanyId::parse("a").expect("an id");
        let ab = CompanyId::parse("ab").expect("an id");
        assert!(!change_of(&ab, Revision(1)).starts_with(&changes_of(&a)));
    }
}
