//! API keys: authenticates callers, and creates, reads and revokes the keys (D8).
//!
//! INVARIANT (revoked at once): the keyring is replaced when its change is durable, and before the change
//! is acknowledged. A message that is read after the acknowledgement is checked against the new keyring,
//! whenever its call began. A change has its caller's key as a precondition, so no change commits after
//! the revocation of that key. A change of the keyring, and a change without a key, have the whole
//! keyring as a precondition.
//!
//! Not here: the permissions of a role; the options of the methods in `proto/scopegate/v1` declare them.
//! And the limits of a key; see [`super::caller_limits`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Authority;
use super::clock::rounded_up;
use super::error::AuthorityError;
use super::queries::{Page, Read};
use super::secrets::generate;
use super::session::Session;
use super::transaction::{Outcome, Planned, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::caller::Caller;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::credential::is_expired;
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, Name};
use crate::policy::keyring::{ApiKey, AuthenticationError, Keyring, MAX_KEYS};
use crate::policy::revision::Revision;
use crate::policy::role::{Role, Roles};
use crate::policy::secret::{SecretKind, SecretText};
use crate::store::{ResultDetail, StoreError, StoredResult};

/// How often the clock is read for a stream whose key has an expiry.
const EXPIRY_POLL: Duration = Duration::from_secs(10);

/// A key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The name of its holder.
    pub name: Name,
    /// Its roles.
    pub roles: Roles,
    /// The companies that it is bound to, if it is bound.
    pub companies: Vec<CompanyId>,
    /// The name that the client certificate must have, if a certificate is required.
    pub certificate: Option<Box<str>>,
    /// Whether the certificate alone is sufficient. Then the key has no secret.
    pub certificate_only: bool,
    /// Its expiry.
    pub expires_at: Option<Timestamp>,
}

/// A key with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// The key.
    pub key: Arc<ApiKey>,
    /// When it was last used, in steps of minutes.
    pub last_used: Option<Timestamp>,
    /// Whether it has expired.
    pub expired: bool,
}

/// The result of a creation or a revocation of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWritten {
    /// Its id; none in the dry run of a creation.
    pub id: Option<Name>,
    /// The key. After a repeated request, the key as it is now; none if it does not exist. In the dry
    /// run of a creation it has no revision, and its id does not exist.
    pub key: Option<KeyView>,
    /// Its text, if the key is new and has a secret.
    pub secret: Option<SecretText>,
    /// Its etag; empty in a dry run of a creation.
    pub etag: String,
    /// The revision of the change, or the current one in a dry run.
    pub revision: Revision,
}

impl Authority {
    /// The caller, by its key and the names of its client certificate.
    ///
    /// # Errors
    /// The caller is unauthenticated.
    pub fn authenticate(
        &self,
        presented: Option<&str>,
        certificate: &[String],
    ) -> Result<Caller, AuthenticationError> {
        let now = self.clock.now();
        let keyring = self.facts.keyring();
        let key =
            keyring.authenticate(presented, certificate, || now).map_err(|why| match why {
                AuthenticationError::Expired => self.expired(&keyring, presented, certificate),
                why => why,
            })?;
        self.last_used.touch(key.created_at, now);
        Ok(Caller::Key(Arc::clone(key)))
    }

    /// The error for an expired key. An expiry is not reported before it is durable (D19). A call must
    /// not wait here, so the first callers with such a key are asked to try again.
    fn expired(
        &self,
        keyring: &Keyring,
        presented: Option<&str>,
        certificate: &[String],
    ) -> AuthenticationError {
        let key = keyring.authenticate(presented, certificate, || Timestamp::MIN);
        let is_durable = self.is_durable(key.ok().and_then(|key| key.expires_at));
        if is_durable { AuthenticationError::Expired } else { AuthenticationError::Unsettled }
    }

    /// Whether an expiry that has passed lies at or before the durable time mark. If not, starts the
    /// write that makes it so.
    fn is_durable(&self, end: Option<Timestamp>) -> bool {
        let store = self.facts.store();
        let Some(end) = end.map(rounded_up) else { return true };
        let is_durable = end <= store.durable_time();
        if is_durable {
            self.clock.raise(end);
        } else {
            store.persist_time(end).ok();
        }
        is_durable
    }

    /// Whether callers need a key. They do from the first key on, also after its deletion.
    #[must_use]
    pub fn requires_keys(&self) -> bool {
        !self.allow_unauthenticated && self.facts.keyring().is_used()
    }

    /// Whether a caller is still authenticated as it was when its call began. Check this when the
    /// request message has arrived, and repeatedly during a stream.
    #[must_use]
    pub fn is_current(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Internal => true,
            Caller::Anonymous => !self.requires_keys(),
            Caller::Key(key) => {
                let keyring = self.facts.keyring();
                let same = keyring.get(key.id.as_str()).is_some_and(|kept| kept == key);
                // This runs for every check, so the clock is read only if the key has an expiry.
                let over = || is_expired(key.expires_at, self.clock.now());
                let ended = same && key.expires_at.is_some() && over();
                if ended {
                    // The call ends now. The next call with this key depends on the durable mark.
                    self.is_durable(key.expires_at);
                }
                same && !ended
            }
        }
    }

    /// Waits until a caller is no longer authenticated as it was when its call began.
    pub async fn wait_revoked(&self, caller: &Caller) {
        let mut changed = self.facts.keyring_changed();
        loop {
            // Before the comparison, so that a change during it is noticed after it.
            changed.borrow_and_update();
            if !self.is_current(caller) {
                return;
            }
            let end = match caller {
                Caller::Key(key) => key.expires_at,
                Caller::Internal | Caller::Anonymous => None,
            };
            let Some(end) = end else {
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let remaining = end.duration_since(self.clock.now()).unsigned_abs();
            // Compared again now and then, because the clock may be set.
            let remaining = remaining.clamp(Duration::from_millis(1), EXPIRY_POLL);
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(remaining) => {}
            }
        }
    }
}

impl Session<'_> {
    /// Creates a key. Only the first response has its text. A dry run creates none.
    ///
    /// # Errors
    /// The first key is not an operator's, there are too many keys, or another key requires the same
    /// certificate alone.
    pub async fn create_key(
        &self,
        new: &NewKey,
        options: &WriteOptions,
    ) -> Result<KeyWritten, AuthorityError> {
        let authority = self.authority;
        // One creation at a time, so that a deletion waits for one at most: see
        // `Authority::key_changes`.
        let (_creation, _change) =
            (authority.key_creations.lock().await, authority.key_changes.lock().await);
        let plan = async |mut tx: Transaction<'_>| {
            let before = tx.keyring()?;
            // A key that does not exist has no etag.
            tx.check_etag(None)?;
            let now = tx.now();
            let ended = is_expired(new.expires_at, now);
            let lasts = !new.certificate_only && !ended && new.companies.is_empty();
            let can_be_first = lasts && new.roles.has(Role::Operator);
            if !before.is_used() && !can_be_first {
                return Err(AuthorityError::FirstKeyNotOperator.into());
            }
            if before.is_full() {
                return Err(AuthorityError::TooManyKeys(MAX_KEYS).into());
            }
            if let Some(name) = new.certificate.as_deref().filter(|_| new.certificate_only)
                && let Some(other) = before.key_for_certificate(name)
            {
                return Err(AuthorityError::CertificateTaken(other.id.clone()).into());
            }
            let (presented, id) = generate(SecretKind::Key)?;
            let key = ApiKey {
                id: id.clone(),
                name: new.name.clone(),
                roles: new.roles,
                companies: new.companies.clone(),
                certificate: new.certificate.clone(),
                hash: (!new.certificate_only).then(|| presented.hash()),
                expires_at: new.expires_at,
                created_at: Revision::NEXT,
                create_time: now,
            };
            authority.persist_reported(now, |_| new.expires_at.filter(|_| ended)).await?;
            let secret = key.hash.map(|_| presented);
            let mut after = Keyring::clone(&before);
            after.insert(key.clone());
            let fields = logged_fields(&key, FieldChange::new_text);
            let key = KeyView { key: Arc::new(key), last_used: None, expired: ended };
            Ok::<_, TransactionError>(
                put_keyring(tx, before, after, fields)
                    .with_detail(ResultDetail::Id(id))
                    .with_context((key, secret)),
            )
        };
        let subject = Subject::store(ChangeKind::CreateKey);
        match self.write(subject, options, plan).await? {
            Outcome::Written(Written { revision, .. }, (view, _)) if options.validate_only => {
                let key = ApiKey { created_at: Revision::ZERO, ..Arc::unwrap_or_clone(view.key) };
                let key = Some(KeyView { key: Arc::new(key), ..view });
                Ok(KeyWritten { id: None, key, secret: None, etag: String::new(), revision })
            }
            Outcome::Written(Written { resource, etag, revision, .. }, (view, secret)) => {
                // The commit stamped the key in the keyring.
                let id = view.key.id.clone();
                let stamped = resource.and_then(|ring| ring.get(id.as_str()).map(Arc::clone));
                let view = KeyView { key: stamped.unwrap_or(view.key), ..view };
                Ok(KeyWritten { id: Some(id), key: Some(view), secret, etag, revision })
            }
            Outcome::Repeated(stored) => self.key_repeated(stored).await,
        }
    }

    /// The response to a repeated creation. Only a hash of the key is stored, so it has no text. It has no
    /// id if an earlier version of the program stored the request, and the audit log no longer has it.
    pub(super) async fn key_repeated(
        &self,
        stored: StoredResult,
    ) -> Result<KeyWritten, AuthorityError> {
        let (Written { revision, .. }, detail) = self.repeated_without::<Keyring>(stored).await?;
        let id = detail.into_id();
        let read = match &id {
            Some(id) => self.key(id).await.map(Some),
            None => Ok(None),
        };
        let (key, etag) = match read {
            Ok(read) => read.map(|read| (read.resource, read.etag)).unzip(),
            Err(AuthorityError::KeyNotFound(_)) => (None, None),
            Err(other) => return Err(other),
        };
        Ok(KeyWritten { id, key, secret: None, etag: etag.unwrap_or_default(), revision })
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// The key is unknown, the etag is not current, or it is the last key of an operator.
    pub async fn delete_key(
        &self,
        id: &Name,
        options: &WriteOptions,
    ) -> Result<KeyWritten, AuthorityError> {
        let authority = self.authority;
        let _change = authority.key_changes.lock().await;
        let plan = async |mut tx: Transaction<'_>| {
            let before = tx.keyring()?;
            let found = before.get(id.as_str()).map(Arc::clone);
            let key = found.ok_or_else(|| AuthorityError::KeyNotFound(id.clone()))?;
            tx.check_etag(Some(key.created_at))?;
            let now = tx.now();
            let is_operator = key.roles.has(Role::Operator) && !key.is_bound();
            if is_operator && !before.has_other_operator(id, now) {
                return Err(AuthorityError::LastOperatorKey(id.clone()).into());
            }
            let mut after = Keyring::clone(&before);
            after.remove(id);
            let fields = logged_fields(&key, FieldChange::gone_text);
            let view = authority.key_view(key, now)?;
            authority.persist_reported_expiries([&view], now).await?;
            Ok::<_, TransactionError>(put_keyring(tx, before, after, fields).with_context(view))
        };
        let id = Some(id.clone());
        Ok(match self.write(Subject::store(ChangeKind::DeleteKey), options, plan).await? {
            Outcome::Written(Written { revision, .. }, view) => {
                let etag = authority.etag(view.key.created_at);
                KeyWritten { id, key: Some(view), secret: None, etag, revision }
            }
            Outcome::Repeated(stored) => {
                let (Written { etag, revision, .. }, _) =
                    self.repeated_without::<Keyring>(stored).await?;
                KeyWritten { id, key: None, secret: None, etag, revision }
            }
        })
    }

    /// One key.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn key(&self, id: &Name) -> Result<Read<KeyView>, AuthorityError> {
        let (keyring, revision) = self.authority.published_keyring().await?;
        let key =
            keyring.get(id.as_str()).ok_or_else(|| AuthorityError::KeyNotFound(id.clone()))?;
        let etag = self.authority.etag(key.created_at);
        let now = self.authority.clock.now();
        let resource = self.authority.key_view(Arc::clone(key), now)?;
        self.authority.persist_reported_expiries([&resource], now).await?;
        Ok(Read { resource, etag, revision })
    }

    /// A page of keys, by id.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn keys(
        &self,
        after: Option<Name>,
        size: usize,
    ) -> Result<Page<KeyView>, AuthorityError> {
        let (keyring, revision) = self.authority.published_keyring().await?;
        let now = self.authority.clock.now();
        let mut rest = keyring.after(after.as_ref());
        let page = rest.by_ref().take(size).map(|key| {
            let etag = self.authority.etag(key.created_at);
            Ok((self.authority.key_view(Arc::clone(key), now)?, etag))
        });
        let items = page.collect::<Result<Vec<_>, StoreError>>()?;
        let more = rest.next().is_some();
        self.authority.persist_reported_expiries(items.iter().map(|(view, _)| view), now).await?;
        Ok(Page { items, more, revision })
    }
}

impl Authority {
    /// The keyring, and a published revision that is not older than its last change.
    async fn published_keyring(&self) -> Result<(Arc<Keyring>, Revision), AuthorityError> {
        let keyring = Arc::clone(&self.facts.keyring());
        self.facts.wait_published(keyring.revision).await?;
        Ok((keyring, self.facts.published()))
    }

    fn key_view(&self, key: Arc<ApiKey>, now: Timestamp) -> Result<KeyView, StoreError> {
        let last_used =
            self.last_used.last_since(self.facts.store(), key.created_at, key.create_time)?;
        let expired = is_expired(key.expires_at, now);
        Ok(KeyView { key, last_used, expired })
    }

    /// Makes the expiries of the keys that are shown as expired durable.
    async fn persist_reported_expiries(
        &self,
        keys: impl IntoIterator<Item = &KeyView>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let ended = keys.into_iter().filter(|view| view.expired);
        let last = ended.filter_map(|view| view.key.expires_at).max();
        self.persist_reported(now, |_| last).await
    }
}

/// Plans the replacement of the keyring. The keyring, and so the caller's key, is a precondition.
fn put_keyring(
    tx: Transaction<'_>,
    before: Arc<Keyring>,
    after: Keyring,
    fields: Vec<FieldChange>,
) -> Planned<Keyring, ()> {
    let edit = Edit { fields, ..Edit::to(after) };
    tx.put(before.is_used().then_some(before), edit)
}

/// The fields of a key in the audit log.
fn logged_fields(
    key: &ApiKey,
    field: impl Fn(&str, &str) -> Option<FieldChange>,
) -> Vec<FieldChange> {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let roles = list(&mut key.roles.iter().map(|role| role.to_string()));
    let companies = list(&mut key.companies.iter().map(ToString::to_string));
    let end = key.expires_at.map(|end| end.to_string()).unwrap_or_default();
    [
        field("key_id", key.id.as_str()),
        field("name", key.name.as_str()),
        field("roles", &roles),
        field("company_ids", &companies),
        field("certificate", key.certificate.as_deref().unwrap_or_default()),
        field("expires_at", &end),
    ]
    .into_iter()
    .flatten()
    .collect()
}
