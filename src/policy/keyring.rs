//! Keyring: the API keys and client certificates by which callers of scopegate authenticate (D8).
//! It contains only a hash of a key's secret.
//!
//! All keys are one fact that is always in memory. Authentication therefore never waits for the
//! disk, and many wrong keys cannot evict anything from a cache.
//!
//! Not here: the secrets of the platform's own API clients; see [`super::secret`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::credential::is_expired;
use super::edit::Stamped;
use super::id::{CompanyId, Name};
use super::revision::Revision;
use super::role::{Role, Roles};
use super::secret::{SecretKind, SecretText};

/// The limit of keys.
pub const MAX_KEYS: usize = 1_000;

/// An API key. It never changes; rotation creates another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public id.
    pub id: Name,
    /// The name of the caller. A key and its successor have the same name.
    pub name: Name,
    /// Its roles.
    pub roles: Roles,
    /// The companies that it is bound to, sorted; if empty, it is not bound.
    pub companies: Vec<CompanyId>,
    /// The name (SAN) of the required client certificate, if one is required.
    pub certificate: Option<Box<str>>,
    /// The hash of the secret; `None` if the certificate suffices. The comparison of two hashes
    /// takes constant time.
    pub hash: Option<blake3::Hash>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// The revision that made it.
    pub created_at: Revision,
    /// When it was made.
    pub create_time: Timestamp,
}

impl ApiKey {
    /// Whether it is valid for some companies only.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.companies.is_empty()
    }
}

/// Why authentication failed. Only a caller with a right secret learns more than that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// There is neither a key nor a known certificate.
    #[error("no API key: send it as `authorization: Bearer <key>`")]
    Nothing,
    /// The key is unknown, or was deleted.
    #[error(
        "unknown API key: send one that an operator has created, alone, as `authorization: Bearer <key>`"
    )]
    Unknown,
    /// The key is right and has expired.
    #[error("the API key has expired: ask an operator for another")]
    Expired,
    /// The key is right and has just expired, and its expiry is not durable yet. A reported expiry
    /// must survive a crash.
    #[error("the API key's expiry is not durable yet: try again")]
    Unsettled,
    /// The key is right and also requires its client certificate.
    #[error("the API key is valid only together with its client certificate")]
    Certificate,
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: BTreeMap<Name, Arc<ApiKey>>,
    /// Keys that need no secret, by their certificate's name.
    certificates: BTreeMap<Box<str>, Name>,
    /// Its last change. After the first change, callers are always authenticated.
    pub revision: Revision,
}

impl Keyring {
    /// The keyring of these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = ApiKey>, revision: Revision) -> Self {
        let mut keyring = Self { revision, ..Self::default() };
        keys.into_iter().for_each(|key| keyring.insert(key));
        keyring
    }

    /// Whether there has ever been a key.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.revision > Revision::ZERO
    }

    /// The key of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<ApiKey>> {
        self.keys.get(id)
    }

    /// The keys after this id, by id.
    pub fn after(&self, id: Option<&Name>) -> impl Iterator<Item = &Arc<ApiKey>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = id.map_or(Unbounded, Excluded);
        self.keys.range::<Name, _>((from, Unbounded)).map(|(_, key)| key)
    }

    /// Whether the limit of keys is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.keys.len() >= MAX_KEYS
    }

    /// The key for which this certificate suffices.
    #[must_use]
    pub fn key_for_certificate(&self, name: &str) -> Option<&Arc<ApiKey>> {
        self.keys.get(self.certificates.get(name)?)
    }

    /// Whether another valid, unbound operator key remains.
    #[must_use]
    pub fn has_other_operator(&self, id: &Name, now: Timestamp) -> bool {
        self.keys.values().any(|key| {
            key.id != *id
                && key.roles.has(Role::Operator)
                && !key.is_bound()
                && !is_expired(key.expires_at, now)
        })
    }

    /// Adds a key.
    pub fn insert(&mut self, key: ApiKey) {
        if let (Some(certificate), None) = (&key.certificate, &key.hash) {
            self.certificates.insert(certificate.clone(), key.id.clone());
        }
        self.keys.insert(key.id.clone(), Arc::new(key));
    }

    /// Removes a key.
    pub fn remove(&mut self, id: &Name) {
        if let Some(key) = self.keys.remove(id)
            && let (Some(certificate), None) = (&key.certificate, &key.hash)
        {
            self.certificates.remove(certificate);
        }
    }

    /// Authenticates a caller by its key, if it sends one, and by the names of its client
    /// certificate. A wrong key fails whatever the certificate is.
    ///
    /// # Errors
    /// Authentication failed.
    pub fn authenticate(
        &self,
        presented: Option<&str>,
        certificate: &[String],
        now: impl FnOnce() -> Timestamp,
    ) -> Result<&Arc<ApiKey>, AuthenticationError> {
        let key = match presented {
            Some(text) => {
                let id =
                    SecretText::id_in(SecretKind::Key, text).ok_or(AuthenticationError::Unknown)?;
                let key = self.keys.get(id).ok_or(AuthenticationError::Unknown)?;
                if key.hash != Some(blake3::hash(text.as_bytes())) {
                    return Err(AuthenticationError::Unknown);
                }
                if let Some(needed) = &key.certificate
                    && !certificate.iter().any(|name| **name == **needed)
                {
                    return Err(AuthenticationError::Certificate);
                }
                key
            }
            None => {
                let mut known =
                    certificate.iter().filter_map(|name| self.key_for_certificate(name));
                let key = known.next().ok_or(AuthenticationError::Nothing)?;
                // A certificate with the names of two keys is ambiguous.
                if known.any(|other| other.id != key.id) {
                    return Err(AuthenticationError::Unknown);
                }
                key
            }
        };
        if key.expires_at.is_some() && is_expired(key.expires_at, now()) {
            return Err(AuthenticationError::Expired);
        }
        Ok(key)
    }
}

impl Stamped for Keyring {
    fn stamp(&mut self, revision: Revision, time: Timestamp) {
        self.revision = revision;
        for key in self.keys.values_mut().filter(|key| key.created_at == Revision::NEXT) {
            let key = Arc::make_mut(key);
            (key.created_at, key.create_time) = (revision, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::UNIX_EPOCH;

    fn key(n: u8, certificate: Option<&str>, secret: bool) -> (ApiKey, String) {
        let presented = SecretText::mint(SecretKind::Key, &[n; 44]);
        let text = presented.clone().reveal();
        let key = ApiKey {
            id: presented.id().expect("an id"),
            name: Name::parse("someone").expect("a name"),
            roles: Roles::NONE.with(Role::Service),
            companies: vec![],
            certificate: certificate.map(Into::into),
            hash: secret.then(|| presented.hash()),
            expires_at: None,
            created_at: Revision(n.into()),
            create_time: NOON,
        };
        (key, text)
    }

    fn id(found: Result<&Arc<ApiKey>, AuthenticationError>) -> Result<u64, AuthenticationError> {
        found.map(|key| key.created_at.0)
    }

    #[test]
    fn a_caller_authenticates_by_key_by_certificate_or_by_both() {
        let (plain, plain_text) = key(1, None, true);
        let (bound, bound_text) = key(2, Some("spiffe://b"), true);
        let (alone, alone_text) = key(3, Some("spiffe://c"), false);
        let (other, _) = key(4, Some("d.example"), false);
        let keyring = Keyring::new([plain, bound, alone, other], Revision(4));
        let authenticate = |text: Option<&str>, names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            id(keyring.authenticate(text, &names, || NOON))
        };
        assert_eq!(authenticate(Some(&plain_text), &[]), Ok(1));
        assert_eq!(
            authenticate(Some(&plain_text), &["spiffe://c"]),
            Ok(1),
            "the key names the caller"
        );
        assert_eq!(authenticate(Some(&bound_text), &["x", "spiffe://b"]), Ok(2));
        assert_eq!(
            authenticate(Some(&bound_text), &["spiffe://c"]),
            Err(AuthenticationError::Certificate)
        );
        assert_eq!(authenticate(Some(&bound_text), &[]), Err(AuthenticationError::Certificate));
        assert_eq!(authenticate(None, &["spiffe://c"]), Ok(3));
        assert_eq!(
            authenticate(None, &["spiffe://b"]),
            Err(AuthenticationError::Nothing),
            "its key is needed too"
        );
        assert_eq!(
            authenticate(None, &["spiffe://c", "d.example"]),
            Err(AuthenticationError::Unknown)
        );
        assert_eq!(authenticate(None, &[]), Err(AuthenticationError::Nothing));
        assert_eq!(
            authenticate(Some(&alone_text), &["spiffe://c"]),
            Err(AuthenticationError::Unknown)
        );
        for wrong in [
            "",
            "sgk_",
            "x",
            &plain_text[..plain_text.len() - 1],
            &plain_text.replace("sgk_", "sgs_"),
        ] {
            assert_eq!(
                authenticate(Some(wrong), &["spiffe://c"]),
                Err(AuthenticationError::Unknown),
                "{wrong}"
            );
        }
        let mut last = plain_text.clone();
        last.pop();
        last.push('2');
        assert_eq!(authenticate(Some(&last), &[]), Err(AuthenticationError::Unknown));
    }

    #[test]
    fn an_expired_or_deleted_key_does_not_authenticate() {
        let (mut ending, text) = key(1, None, true);
        ending.expires_at = Some(NOON);
        let id_of = ending.id.clone();
        let mut keyring = Keyring::new([ending], Revision(1));
        let before = NOON - jiff::SignedDuration::from_nanos(1);
        assert_eq!(id(keyring.authenticate(Some(&text), &[], || before)), Ok(1));
        assert_eq!(
            id(keyring.authenticate(Some(&text), &[], || NOON)),
            Err(AuthenticationError::Expired)
        );
        keyring.remove(&id_of);
        assert_eq!(
            id(keyring.authenticate(Some(&text), &[], || before)),
            Err(AuthenticationError::Unknown)
        );
        let (alone, _) = key(3, Some("spiffe://c"), false);
        let id_of = alone.id.clone();
        let mut keyring = Keyring::new([alone], Revision(3));
        keyring.remove(&id_of);
        let names = ["spiffe://c".to_owned()];
        assert_eq!(
            id(keyring.authenticate(None, &names, || NOON)),
            Err(AuthenticationError::Nothing)
        );
        assert!(keyring.is_used(), "authentication stays required");
    }

    #[test]
    fn keys_are_found_by_id_listed_by_id_and_counted() {
        let (one, _) = key(1, None, true);
        let (two, _) = key(2, None, true);
        let ids = [one.id.clone(), two.id.clone()];
        assert!(!Keyring::default().is_used(), "no authentication before the first key");
        let keyring = Keyring::new([two, one], Revision(2));
        assert!(keyring.is_used());
        assert_eq!(keyring.get(ids[1].as_str()).map(|key| key.created_at.0), Some(2));
        assert!(keyring.get("0123").is_none());
        let after = |id| keyring.after(id).map(|key| key.created_at.0).collect::<Vec<_>>();
        assert_eq!(
            [after(None), after(Some(&ids[0])), after(Some(&ids[1]))],
            [vec![1, 2], vec![2], vec![]]
        );
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let (one, _) = key(1, None, true);
        let numbered =
            |n: usize| ApiKey { id: Name::parse(format!("k{n}")).expect("a name"), ..one.clone() };
        let mut keyring = Keyring::new((1..MAX_KEYS).map(numbered), Revision(1));
        assert!(!keyring.is_full());
        keyring.insert(numbered(MAX_KEYS));
        assert!(keyring.is_full());
        keyring.remove(&numbered(7).id);
        assert!(!keyring.is_full());
    }

    #[test]
    fn the_last_operator_is_unbound_and_not_expired() {
        let (service, _) = key(1, None, true);
        let (mut operator, _) = key(2, None, true);
        operator.roles = Roles::NONE.with(Role::Operator).with(Role::Auditor);
        let beside = |operator: &ApiKey, id: &Name| {
            let keyring = Keyring::new([service.clone(), operator.clone()], Revision(2));
            keyring.has_other_operator(id, NOON)
        };
        assert!(beside(&operator, &service.id));
        assert!(!beside(&operator, &operator.id), "it is no other than itself");
        let mut bound = operator.clone();
        bound.companies.push(CompanyId::parse("acme").expect("an id"));
        assert!(bound.is_bound() && !operator.is_bound());
        assert!(!beside(&bound, &service.id));
        let over = |end| ApiKey { expires_at: Some(end), ..operator.clone() };
        assert!(!beside(&over(NOON), &service.id));
        assert!(beside(&over(NOON + jiff::SignedDuration::from_nanos(1)), &service.id));
    }

    #[test]
    fn a_stamp_dates_new_keys_only() {
        let (old, _) = key(1, None, true);
        let (new, _) = key(2, None, true);
        let new = ApiKey { created_at: Revision::NEXT, ..new };
        let ids = [old.id.clone(), new.id.clone()];
        let mut keyring = Keyring::new([old, new], Revision::NEXT);
        let later = NOON + jiff::SignedDuration::from_secs(1);
        keyring.stamp(Revision(9), later);
        assert_eq!(keyring.revision, Revision(9));
        let made =
            ids.map(|id| keyring.get(id.as_str()).map(|key| (key.created_at.0, key.create_time)));
        assert_eq!(made, [Some((1, NOON)), Some((9, later))]);
    }

    #[test]
    fn a_certificate_authenticates_only_the_key_without_a_secret() {
        let (alone, _) = key(1, Some("spiffe://c"), false);
        let (both, text) = key(2, Some("spiffe://c"), true);
        let id_of = both.id.clone();
        let mut keyring = Keyring::new([alone, both], Revision(2));
        let names = ["spiffe://c".to_owned()];
        assert_eq!(id(keyring.authenticate(None, &names, || NOON)), Ok(1));
        assert_eq!(id(keyring.authenticate(Some(&text), &names, || NOON)), Ok(2));
        keyring.remove(&id_of);
        assert_eq!(
            id(keyring.authenticate(None, &names, || NOON)),
            Ok(1),
            "it stays when the other goes"
        );
    }
}
