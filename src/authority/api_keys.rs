//! Keys: who calls scopegate, and the keys by which that is known (D8).
//!
//! INVARIANT (revoked at once): the keyring is replaced when its change is durable and before
//! that is acknowledged. A message that is read after the acknowledgement is judged by it, whenever
//! its call began; and a change rests on its caller's key (a change of the keyring, and one without
//! a key, on the whole keyring), so none is committed after the revocation of the key that makes it.
//!
//! Not here: what a role may do; `grpc::access` has the table of all calls.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::rounded_up;
use super::error::AuthorityError;
use super::idempotency::{IdempotencyStart, StorableReply};
use super::queries::{Page, Read};
use super::secrets::generate;
use super::transaction::WriteOptions;
use super::{ATTEMPTS, Authority, etag};
use crate::policy::caller::{Caller, Role, Roles};
use crate::policy::change::{Change, ChangeKind, FieldChange};
use crate::policy::credential::is_expired;
use crate::policy::id::{CompanyId, Name};
use crate::policy::keyring::{ApiKey, AuthenticationError, Keyring, MAX_KEYS};
use crate::policy::revision::Revision;
use crate::policy::secret::{SecretKind, SecretText};
use crate::store::{Fact, FactKey, FactWrite, IdempotencyRecord, Proposal, Receipt, StoreError};

/// How often the clock is looked at for a stream whose key has an end.
const CLOCK_LOOK: Duration = Duration::from_secs(10);

/// A key to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Who will have it.
    pub name: Name,
    /// Its roles.
    pub roles: Roles,
    /// The companies that it is bound to, if it is bound.
    pub companies: Vec<CompanyId>,
    /// The name that the client certificate must have, if one is needed.
    pub certificate: Option<Box<str>>,
    /// Whether the certificate is enough, so that there is no secret.
    pub certificate_only: bool,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// The key.
    pub key: Arc<ApiKey>,
    /// When it was last used, in steps of minutes.
    pub last_used: Option<Timestamp>,
    /// Whether its time is over.
    pub expired: bool,
}

/// A key that was made or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChanged {
    /// The key. In a dry run it has neither revision nor secret, and its id leads nowhere.
    pub key: KeyView,
    /// Its text, once, if it was made and has one.
    pub secret: Option<SecretText>,
    /// Its etag; empty in a dry run of making one.
    pub etag: String,
    /// The revision of the change, or the current one in a dry run.
    pub revision: Revision,
}

impl Authority {
    /// Who calls, by the key and the names of the certificate that they present.
    ///
    /// # Errors
    /// It is not proven.
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
        self.seen.touch(key.created_at, now);
        Ok(Caller::Key(Arc::clone(key)))
    }

    /// What to say of a key that is over: nothing is told before it is kept (D19). A call must not
    /// wait here, so the first callers of such a key are to try again.
    fn expired(
        &self,
        keyring: &Keyring,
        presented: Option<&str>,
        certificate: &[String],
    ) -> AuthenticationError {
        let key = keyring.authenticate(presented, certificate, || Timestamp::MIN);
        let is_kept = self.is_kept(key.ok().and_then(|key| key.expires_at));
        if is_kept { AuthenticationError::Expired } else { AuthenticationError::Unsettled }
    }

    /// Whether an end that has passed lies at or before the mark on the disk. If not, it soon does.
    fn is_kept(&self, end: Option<Timestamp>) -> bool {
        let store = self.facts.store();
        let Some(end) = end.map(rounded_up) else { return true };
        let is_kept = end <= store.durable_time();
        if is_kept {
            self.clock.raise(end);
        } else {
            store.persist_time(end).ok();
        }
        is_kept
    }

    /// Whether callers need a key: once there was one, for ever.
    #[must_use]
    pub fn requires_keys(&self) -> bool {
        !self.admits_anybody && self.facts.keyring().is_used()
    }

    /// Whether a caller is still who it was when its call began. To be asked when its message has
    /// come, and again and again while the call goes on.
    #[must_use]
    pub fn is_current(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Internal => true,
            Caller::Anonymous => !self.requires_keys(),
            Caller::Key(key) => {
                let keyring = self.facts.keyring();
                let same = keyring.get(key.id.as_str()).is_some_and(|kept| kept == key);
                // Asked of every check: without an end nobody looks at the clock.
                let over = || is_expired(key.expires_at, self.clock.now());
                let ended = same && key.expires_at.is_some() && over();
                if ended {
                    // The call ends now; the next one that presents the key waits for the disk.
                    self.is_kept(key.expires_at);
                }
                same && !ended
            }
        }
    }

    /// Waits until a caller is no longer who it was when its call began.
    pub async fn no_longer_stands(&self, caller: &Caller) {
        let mut changed = self.facts.keyring_changed();
        loop {
            // Before the look: a change during it is noticed behind it.
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
            let left = end.duration_since(self.clock.now()).unsigned_abs();
            // Looked at again now and then: the clock may be set.
            let left = left.clamp(Duration::from_millis(1), CLOCK_LOOK);
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Makes a key. Its text is in the answer and nowhere else; a dry run makes none.
    ///
    /// # Errors
    /// It is the first and no operator's, there are too many, or another key needs the same
    /// certificate and nothing else.
    pub async fn create_key<R: StorableReply>(
        &self,
        new: &NewKey,
        terms: &WriteOptions,
        render: impl Fn(KeyChanged) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::CreateKey;
        // One after the other, and one at a time before a deletion: see `Authority::key_changes`.
        let (_first, _turn) = (self.key_creations.lock().await, self.key_changes.lock().await);
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let before = Arc::clone(&self.facts.keyring());
            // By this keyring or a younger one, which would be a conflict (revoked at once).
            if !self.is_current(&terms.caller) {
                return Err(AuthorityError::CallerRevoked);
            }
            // What does not exist has no etag.
            self.check_etag(terms, None)?;
            let ended = is_expired(new.expires_at, self.clock.now());
            let lasts = !new.certificate_only && !ended && new.companies.is_empty();
            let can_be_first = lasts && new.roles.has(Role::Operator);
            if !before.is_used() && !can_be_first {
                return Err(AuthorityError::FirstKeyNotOperator);
            }
            if before.is_full() {
                return Err(AuthorityError::TooManyKeys(MAX_KEYS));
            }
            if let Some(name) = new.certificate.as_deref().filter(|_| new.certificate_only)
                && let Some(other) = before.key_for_certificate(name)
            {
                return Err(AuthorityError::CertificateTaken(other.id.clone()));
            }
            let (presented, id) = generate(SecretKind::Key)?;
            let now = self.clock.now();
            let key = ApiKey {
                id,
                name: new.name.clone(),
                roles: new.roles,
                companies: new.companies.clone(),
                certificate: new.certificate.clone(),
                hash: (!new.certificate_only).then(|| presented.hash()),
                expires_at: new.expires_at,
                created_at: Revision::NEXT,
                create_time: now,
            };
            let ended = is_expired(new.expires_at, now);
            self.keep_told(now, |_| new.expires_at.filter(|_| ended)).await?;
            let incarnation = self.incarnation();
            let answer = move |key: ApiKey, secret, Receipt { revision, time }| {
                let key = ApiKey { created_at: revision, create_time: time, ..key };
                let key = KeyView { key: Arc::new(key), last_used: None, expired: ended };
                KeyChanged { key, secret, etag: etag::of(incarnation, revision), revision }
            };
            if terms.validate_only {
                let dry = answer(key, None, Receipt { revision: Revision::ZERO, time: now });
                return Ok(render(KeyChanged { etag: String::new(), revision: view.at, ..dry }));
            }
            // Of the key itself only a hash is kept, so a repeat tells the rest alone.
            let (keep, kept) = (render.clone(), key.clone());
            let keep = terms.keep(move |receipt| keep(answer(kept, None, receipt)));
            let remember = keep.map(|keep| keep.remember(terms, kind, |receipt| receipt));
            let secret = key.hash.map(|_| presented);
            let mut after = Keyring::clone(&before);
            after.insert(key.clone());
            let fields = described(&key, FieldChange::new_text);
            if let Some(receipt) =
                self.put_keyring(before, after, terms, kind, fields, remember).await?
            {
                return Ok(render(answer(key, secret, receipt)));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// There is none of this id, the etag is not current, or it is the last of an operator.
    pub async fn delete_key<R: StorableReply>(
        &self,
        id: &Name,
        terms: &WriteOptions,
        render: impl Fn(KeyChanged) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let kind = ChangeKind::DeleteKey;
        let _turn = self.key_changes.lock().await;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(terms, kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let before = Arc::clone(&self.facts.keyring());
            // By this keyring or a younger one, which would be a conflict (revoked at once).
            if !self.is_current(&terms.caller) {
                return Err(AuthorityError::CallerRevoked);
            }
            let found = before.get(id.as_str()).map(Arc::clone);
            let key = found.ok_or_else(|| AuthorityError::KeyNotFound(id.clone()))?;
            self.check_etag(terms, Some(key.created_at))?;
            let is_operator = key.roles.has(Role::Operator) && !key.is_bound();
            if is_operator && !before.has_other_operator(id, self.clock.now()) {
                return Err(AuthorityError::LastOperatorKey(id.clone()));
            }
            let etag = self.etag(key.created_at);
            let now = self.clock.now();
            let key = self.key_view(Arc::clone(&key), now)?;
            self.keep_ends_told([&key], now).await?;
            let render = render.clone();
            let answer = move |revision| {
                render(KeyChanged { key: key.clone(), secret: None, etag: etag.clone(), revision })
            };
            if terms.validate_only {
                return Ok(answer(view.at));
            }
            let mut after = Keyring::clone(&before);
            after.remove(id);
            let remember = terms
                .keep(answer.clone())
                .map(|keep| keep.remember(terms, kind, |receipt| receipt.revision));
            let fields = before.get(id.as_str()).map(|key| described(key, FieldChange::gone_text));
            let fields = fields.unwrap_or_default();
            if let Some(receipt) =
                self.put_keyring(before, after, terms, kind, fields, remember).await?
            {
                return Ok(answer(receipt.revision));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// One key.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn key(&self, id: &Name) -> Result<Read<KeyView>, AuthorityError> {
        let (keyring, revision) = self.published_keyring().await?;
        let key =
            keyring.get(id.as_str()).ok_or_else(|| AuthorityError::KeyNotFound(id.clone()))?;
        let etag = self.etag(key.created_at);
        let now = self.clock.now();
        let resource = self.key_view(Arc::clone(key), now)?;
        self.keep_ends_told([&resource], now).await?;
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
        let (keyring, revision) = self.published_keyring().await?;
        let now = self.clock.now();
        let mut behind = keyring.after(after.as_ref());
        let page = behind.by_ref().take(size).map(|key| {
            let etag = self.etag(key.created_at);
            Ok((self.key_view(Arc::clone(key), now)?, etag))
        });
        let items = page.collect::<Result<Vec<_>, StoreError>>()?;
        let more = behind.next().is_some();
        self.keep_ends_told(items.iter().map(|(view, _)| view), now).await?;
        Ok(Page { items, more, revision })
    }

    /// The keyring, and a published revision that is no earlier than its last change.
    async fn published_keyring(&self) -> Result<(Arc<Keyring>, Revision), AuthorityError> {
        let keyring = Arc::clone(&self.facts.keyring());
        self.facts.wait_published(keyring.revision).await?;
        Ok((keyring, self.facts.published()))
    }

    fn key_view(&self, key: Arc<ApiKey>, now: Timestamp) -> Result<KeyView, StoreError> {
        let last_used =
            self.seen.last_since(&**self.facts.store(), key.created_at, key.create_time)?;
        let expired = is_expired(key.expires_at, now);
        Ok(KeyView { key, last_used, expired })
    }

    /// Keeps the time at which these keys are shown as expired.
    async fn keep_ends_told(
        &self,
        keys: impl IntoIterator<Item = &KeyView>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let ended = keys.into_iter().filter(|view| view.expired);
        let last = ended.filter_map(|view| view.key.expires_at).max();
        self.keep_told(now, |_| last).await
    }

    /// Commits a keyring; none if another one came first.
    async fn put_keyring(
        &self,
        before: Arc<Keyring>,
        after: Keyring,
        terms: &WriteOptions,
        kind: ChangeKind,
        fields: Vec<FieldChange>,
        remember: Option<IdempotencyRecord>,
    ) -> Result<Option<Receipt>, AuthorityError> {
        let change = Change {
            revision: Revision::NEXT,
            time: self.clock.now(),
            author: terms.author.clone(),
            kind,
            company: None,
            credential: None,
            user: None,
            added: vec![],
            removed: vec![],
            displaced: vec![],
            fields,
        };
        let step = FactWrite {
            key: FactKey::Keyring,
            before: before.is_used().then_some(Fact::Keyring(before)),
            after: Some(Fact::Keyring(Arc::new(after))),
        };
        // The step itself rests on the keyring, and so on the caller's key.
        let (preconditions, caller, steps) = (vec![], None, vec![step]);
        self.commit(Proposal {
            preconditions,
            caller,
            writes: steps,
            change,
            idempotency: remember,
        })
        .await
    }
}

/// What the log says of a key.
fn described(key: &ApiKey, field: impl Fn(&str, &str) -> Option<FieldChange>) -> Vec<FieldChange> {
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
