//! Signing keys: makes, publishes, replaces and deletes the keys that sign own tokens (T28).
//!
//! INVARIANT (file first): the file of a key is durable before the commit that makes its public half a
//! fact. A call that made a file and does not commit its key removes the file.
//!
//! A process that is killed leaves a file whose key is no fact: the commit was lost, or the key was deleted
//! and its file was not removed yet. The next starts remove it.
//!
//! Not here: the files themselves; see `signing_key_files`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::task::AbortOnDropHandle;

use super::Authority;
use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::own_issuer::OwnIssuer;
use super::queries::Read;
use super::reader::Reader;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::metrics::supervise::Supervisor;
use crate::policy::catalog::MAX_TOKEN_TTL;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::edit::Edit;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::policy::token::key_set::Thumbprint;
use crate::policy::token::private_key::PrivateKey;
use crate::policy::token::signing_keys::{KeyState, MAX_KEYS, SigningKey, SigningKeys};
use crate::store::{ResultDetail, StoreError};

/// How long the next key is published before it signs.
const PUBLISHED_BEFORE: SignedDuration = SignedDuration::from_hours(24);
/// How old a file must be before a start removes it. A key that a commit is about to make a fact has a
/// younger one, and so have keys that an operator has just copied here.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the ages of the keys are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// The result of a change of the signing keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyWritten {
    /// The key that was published or signs from now on, or that was deleted. None if the request was
    /// sent again and the key does not exist any more.
    pub key: Option<SigningKey>,
    /// The etag of the signing keys.
    pub etag: String,
    /// The revision of the change, or the current one if nothing changed.
    pub revision: Revision,
}

/// A key that a change has made. Its file is removed unless the change is committed.
#[derive(Default)]
struct MadeKey(Mutex<Option<Arc<PrivateKey>>>);

impl MadeKey {
    fn get(&self) -> Option<Arc<PrivateKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, key: &Arc<PrivateKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(key));
    }
}

/// Whose directory the files of the keys are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDirectory {
    /// That of this store alone: no other process has keys in it.
    Own,
    /// One that another server may have its keys in, or another replica.
    Shared,
}

/// A change of the keys.
#[derive(Clone, Copy, Debug)]
enum KeyChange {
    /// Makes the next key, if there is none.
    Publish,
    /// Lets the next key sign, or a new one.
    Rotate,
    /// The same, if no key signs. Of several servers that start, one makes the key.
    Ensure,
    /// Deletes a key. If it is the current one, the next key signs, or a new one.
    Delete(Thumbprint),
    /// Deletes a key, and no other signs instead of it.
    DeleteAlone(Thumbprint),
}

impl KeyChange {
    /// The same deletion without a successor, if a deletion failed because the disk has no space for one.
    fn without_successor(self, error: &AuthorityError) -> Option<Self> {
        use AuthorityError::{KeyFileNotWritten, Store};
        use StoreError::{LogNearlyFull, NearlyFull};

        match (self, error) {
            (Self::Delete(id), KeyFileNotWritten | Store(NearlyFull | LogNearlyFull)) => {
                Some(Self::DeleteAlone(id))
            }
            _ => None,
        }
    }
}

/// The keys after a change, the key that it is about, and the fields for the audit log.
type PlannedKeys = (SigningKeys, SigningKey, Vec<FieldChange>);

impl Session<'_> {
    /// The signing keys, oldest first.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn signing_keys(&self) -> Result<Read<Vec<SigningKey>>, AuthorityError> {
        let read = async |mut reader: Reader<'_>| {
            let keys = reader.find::<SigningKeys>(()).await?.unwrap_or_default();
            let resource = keys.iter().cloned().collect();
            let etag = self.authority.etag(keys.revision);
            Ok(Read { resource, etag, revision: reader.revision() })
        };
        self.read(read).await
    }

    /// Lets the next key sign, or a new one where there is none. With `publish_only`, makes the next
    /// key; nothing changes if there is one.
    ///
    /// # Errors
    /// The server issues no tokens, there are too many keys, the file of the key cannot be written, or
    /// the etag is not current.
    pub async fn rotate_signing_key(
        &self,
        publish_only: bool,
        options: &WriteOptions,
    ) -> Result<SigningKeyWritten, AuthorityError> {
        let change = if publish_only { KeyChange::Publish } else { KeyChange::Rotate };
        self.change_keys(change, options).await
    }

    /// Deletes a key. Its tokens are invalid from the acknowledgement on. If it is the current one, the
    /// next key signs, or a new one.
    ///
    /// # Errors
    /// There is no such key; otherwise as for [`Self::rotate_signing_key`].
    pub async fn delete_signing_key(
        &self,
        id: &Thumbprint,
        options: &WriteOptions,
    ) -> Result<SigningKeyWritten, AuthorityError> {
        self.change_keys(KeyChange::Delete(*id), options).await
    }

    /// Plans a change of the keys.
    async fn plan_keys(
        &self,
        change: KeyChange,
        keys: SigningKeys,
        now: Timestamp,
        made: &MadeKey,
        options: &WriteOptions,
    ) -> Result<PlannedKeys, AuthorityError> {
        if let (KeyChange::Ensure, Some(current)) = (change, keys.in_state(KeyState::Current)) {
            let current = current.clone();
            return Ok((keys, current, vec![]));
        }
        let is_growing =
            matches!(change, KeyChange::Publish | KeyChange::Rotate | KeyChange::Ensure);
        if is_growing && keys.is_full() {
            return Err(AuthorityError::TooManySigningKeys(MAX_KEYS));
        }
        match (change, keys.in_state(KeyState::Next).cloned()) {
            (KeyChange::Publish, Some(next)) => Ok((keys, next, vec![])),
            (KeyChange::Publish, None) => {
                let key = self.new_key(made, options, now).await?;
                let fields = logged_state(&key.id, None, Some(KeyState::Next));
                Ok((keys.with(key.clone()), key, fields))
            }
            (KeyChange::Rotate | KeyChange::Ensure, _) => {
                self.replace_current(keys, now, made, options).await
            }
            (KeyChange::Delete(id) | KeyChange::DeleteAlone(id), _) => {
                let key = keys.get(&id).cloned().ok_or(AuthorityError::SigningKeyNotFound(id))?;
                let rest = keys.without(&id);
                let mut fields = logged_state(&id, Some(key.state), None);
                if key.state != KeyState::Current || matches!(change, KeyChange::DeleteAlone(_)) {
                    return Ok((rest, key, fields));
                }
                let (after, _, more) = self.replace_current(rest, now, made, options).await?;
                fields.extend(more);
                Ok((after, key, fields))
            }
        }
    }

    /// Lets the next key sign if its file is here, otherwise a new one.
    async fn replace_current(
        &self,
        keys: SigningKeys,
        now: Timestamp,
        made: &MadeKey,
        options: &WriteOptions,
    ) -> Result<PlannedKeys, AuthorityError> {
        let mut fields = Vec::new();
        let (mut keys, mut usable) = (keys, None);
        if let Some(next) = keys.in_state(KeyState::Next).cloned() {
            if self.authority.private_key(next.id).await.is_ok() {
                usable = Some(next.id);
            } else {
                // It has signed nothing, and cannot sign.
                fields.extend(logged_state(&next.id, Some(KeyState::Next), None));
                keys = keys.without(&next.id);
            }
        }
        let old = keys.in_state(KeyState::Current).map(|key| key.id);
        let (id, before) = match usable {
            Some(id) => (id, Some(KeyState::Next)),
            None => {
                let key = self.new_key(made, options, now).await?;
                let id = key.id;
                keys = keys.with(key);
                (id, None)
            }
        };
        let after = keys.signing_with(&id, now);
        fields.extend(logged_state(&id, before, Some(KeyState::Current)));
        if let Some(old) = old {
            let (current, previous) = (KeyState::Current, KeyState::Previous);
            fields.extend(logged_state(&old, Some(current), Some(previous)));
        }
        let key = after.get(&id).cloned().ok_or(StoreError::Unavailable)?;
        Ok((after, key, fields))
    }

    /// A new key, which will sign. A dry run makes no file.
    async fn new_key(
        &self,
        made: &MadeKey,
        options: &WriteOptions,
        now: Timestamp,
    ) -> Result<SigningKey, AuthorityError> {
        let own = self.authority.issuer()?;
        let key = match made.get() {
            // The change is planned again.
            Some(key) => key,
            None => {
                let (files, is_kept) = (Arc::clone(&own.files), !options.validate_only);
                let key = blocking(move || files.make(is_kept)).await;
                let key = key.map_err(|error| {
                    tracing::warn!(%error, "the file of a signing key cannot be written");
                    AuthorityError::KeyFileNotWritten
                })?;
                made.set(&key);
                key
            }
        };
        Ok(SigningKey::new(key.point, KeyState::Next, now))
    }

    async fn change_keys(
        &self,
        change: KeyChange,
        options: &WriteOptions,
    ) -> Result<SigningKeyWritten, AuthorityError> {
        let outcome = match self.write_keys(change, options).await {
            Err(error) => match change.without_successor(&error) {
                // A stolen key must go, also if no other key can be made. Until there is one, no token is
                // issued.
                Some(alone) => self.write_keys(alone, options).await?,
                None => return Err(error),
            },
            Ok(outcome) => outcome,
        };
        match outcome {
            Outcome::Written(Written { resource, etag, revision, .. }, key) => {
                let now = resource.as_ref().and_then(|keys| keys.get(&key.id)).cloned();
                if let (Some(keys), false) = (&resource, options.validate_only)
                    && keys.get(&key.id).is_none()
                {
                    let (files, id) = (Arc::clone(&self.authority.issuer()?.files), key.id);
                    blocking(move || files.remove(&id)).await;
                }
                Ok(SigningKeyWritten { key: Some(now.unwrap_or(key)), etag, revision })
            }
            Outcome::Repeated(stored) => {
                let (Written { revision, .. }, detail) =
                    self.repeated_without::<SigningKeys>(stored).await?;
                let id = detail.into_id();
                let Read { resource, etag, .. } = self.signing_keys().await?;
                let is_same = |key: &SigningKey| {
                    id.as_ref().is_some_and(|id| *id.as_str() == key.id.to_string())
                };
                let key = resource.into_iter().find(is_same);
                Ok(SigningKeyWritten { key, etag, revision })
            }
        }
    }

    /// Commits a change of the keys. The file of a key that it makes stays only if the key is a fact then.
    async fn write_keys(
        &self,
        change: KeyChange,
        options: &WriteOptions,
    ) -> Result<Outcome<SigningKeys, SigningKey>, AuthorityError> {
        let kind = match change {
            KeyChange::Publish | KeyChange::Rotate | KeyChange::Ensure => {
                ChangeKind::RotateSigningKey
            }
            KeyChange::Delete(_) | KeyChange::DeleteAlone(_) => ChangeKind::DeleteSigningKey,
        };
        let own = self.authority.issuer()?;
        let made = MadeKey::default();
        let in_transaction = async |mut tx: Transaction<'_>| {
            let before = tx.find::<SigningKeys>(()).await?;
            let keys = before.as_deref().cloned().unwrap_or_default();
            tx.check_etag(before.as_ref().map(|keys| keys.revision))?;
            let now = tx.now();
            let (after, key, fields) = self.plan_keys(change, keys, now, &made, options).await?;
            let name = Name::parse(key.id.to_string()).map_err(|_| StoreError::Unavailable)?;
            let edit = Edit { fields, ..Edit::to(after) };
            let planned = tx.put(before, edit).with_detail(ResultDetail::Id(name));
            Ok::<_, TransactionError>(planned.with_context(key))
        };
        let outcome = self.write(Subject::store(kind), options, in_transaction).await;
        let is_committed = |keys: &SigningKeys, key: &Arc<PrivateKey>| {
            !options.validate_only && keys.get(&key.id).is_some()
        };
        if let Some(key) = made.get() {
            let is_kept = matches!(
                &outcome,
                Ok(Outcome::Written(Written { resource: Some(keys), .. }, _))
                    if is_committed(keys, &key)
            );
            // A commit whose outcome is unknown may have made the key a fact.
            let is_unknown = matches!(
                &outcome,
                Err(AuthorityError::Store(
                    StoreError::Unavailable | StoreError::NotYetEverywhere(_)
                ))
            );
            if !is_kept && !is_unknown {
                let files = Arc::clone(&own.files);
                blocking(move || files.remove(&key.id)).await;
            }
        }
        outcome
    }
}

impl Authority {
    /// scopegate as an issuer.
    pub(super) fn issuer(&self) -> Result<&OwnIssuer, AuthorityError> {
        self.own_issuer.as_deref().ok_or(AuthorityError::IssuesNoTokens)
    }

    /// The signing keys at the snapshot's revision.
    pub(super) async fn signing_keys(
        &self,
        view: &Snapshot,
    ) -> Result<Arc<SigningKeys>, ReadError> {
        Ok(self.facts.get::<SigningKeys>(view.at, (), None).await?.unwrap_or_default())
    }

    /// The public keys of this issuer, as a JSON Web Key Set (RFC 7517): the next, the current and the
    /// previous ones.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn signing_jwks(&self) -> Result<String, AuthorityError> {
        let keys = self.internal_session(super::SERVER).signing_keys().await?.resource;
        let keys: Vec<_> = keys.iter().map(SigningKey::jwk).collect();
        Ok(format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
    }

    /// The private half of a key, if its file is here.
    pub(super) async fn private_key(
        &self,
        id: Thumbprint,
    ) -> Result<Arc<PrivateKey>, AuthorityError> {
        let own = self.issuer()?;
        if let Some(key) = own.files.loaded_key(&id) {
            return Ok(key);
        }
        let files = Arc::clone(&own.files);
        blocking(move || files.load(&id)).await.map_err(|_| AuthorityError::CannotSign)
    }

    /// Sees to it that this server can sign when it starts: makes the first key, or a new one if the
    /// file of the current key is gone. Returns the path of the file that it signs with.
    ///
    /// # Errors
    /// The key cannot be made or committed.
    pub async fn prepare_signing_keys(&self) -> Result<std::path::PathBuf, AuthorityError> {
        let session = self.internal_session(super::SERVER);
        let keys = session.signing_keys().await?.resource;
        let current = keys.iter().rfind(|key| key.state == KeyState::Current);
        let options =
            |reason: &str| WriteOptions { reason: reason.to_owned(), ..WriteOptions::default() };
        let id = match current {
            Some(key) if self.private_key(key.id).await.is_ok() => key.id,
            Some(key) => {
                tracing::warn!(
                    key_id = %key.id, path = %self.issuer()?.files.path(&key.id).display(),
                    "the file of the current signing key is missing or unreadable, so another key \
                     signs tokens from now on; tokens of the lost key stay valid until they expire: \
                     delete it with `scopegate signing-keys delete` if others may have it"
                );
                let options = options("the file of the current key is missing");
                let written = session.rotate_signing_key(false, &options).await?;
                written.key.ok_or(StoreError::Unavailable)?.id
            }
            None => {
                let options = options("the first key");
                let written = session.change_keys(KeyChange::Ensure, &options).await?;
                written.key.ok_or(StoreError::Unavailable)?.id
            }
        };
        Ok(self.issuer()?.files.path(&id))
    }

    /// Removes the files of keys that are no facts and that were written a day ago or earlier. In a shared
    /// directory such a file can be another server's key, so it stays, and one warning has the number.
    ///
    /// Call it at a start, before the server answers calls.
    ///
    /// # Errors
    /// The store cannot answer. That the directory cannot be read is a warning.
    pub async fn remove_orphaned_key_files(
        &self,
        directory: KeyDirectory,
    ) -> Result<(), AuthorityError> {
        let keys = self.internal_session(super::SERVER).signing_keys().await?.resource;
        let files = Arc::clone(&self.issuer()?.files);
        blocking(move || {
            let orphans = files.older_than(ORPHAN_AGE).map(|mut ids| {
                ids.retain(|id| keys.iter().all(|key| key.id != *id));
                ids
            });
            match orphans {
                Err(error) => {
                    tracing::warn!(%error, "the directory of the signing keys cannot be read");
                }
                Ok(orphans) if directory == KeyDirectory::Own => {
                    for id in orphans {
                        tracing::info!(
                            key_id = %id,
                            "removing the file of a signing key that the store does not have"
                        );
                        files.remove(&id);
                    }
                }
                Ok(orphans) if orphans.is_empty() => {}
                Ok(orphans) => tracing::warn!(
                    files = orphans.len(),
                    "--signing-keys has files of keys that the store does not have: remove them if \
                     no other server uses the directory"
                ),
            }
        })
        .await;
        Ok(())
    }

    /// Publishes and replaces the signing key by its age, and deletes keys of which all tokens have
    /// expired, in the background until the returned handle is dropped. `every` is how long a key
    /// signs; none: it is not replaced.
    pub fn rotate_signing_keys(
        &self,
        every: Option<Duration>,
        supervisor: &Arc<Supervisor>,
    ) -> AbortOnDropHandle<()> {
        let own = Arc::new(self.for_core());
        supervisor.task("signing keys", move || {
            let own = Arc::clone(&own);
            async move {
                let mut look = tokio::time::interval(LOOK);
                loop {
                    look.tick().await;
                    // The time that decisions take as past may be a jump of the clock that does not last.
                    let now = own.clock.persisted();
                    if let Err(error) = own.keep_signing_keys(every, now).await {
                        tracing::warn!(%error, "the signing keys cannot be changed now");
                    }
                }
            }
        })
    }

    /// Does what is due at this time.
    pub(super) async fn keep_signing_keys(
        &self,
        every: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), AuthorityError> {
        let session = self.internal_session(super::SERVER);
        let keys =
            session.read(async |mut reader: Reader<'_>| Ok(reader.find::<SigningKeys>(()).await?));
        let keys: Option<Arc<SigningKeys>> = keys.await?;
        let (exists, keys) = (keys.is_some(), keys.unwrap_or_default());
        // Of several replicas that look at the same keys, one changes them.
        let etag = exists.then(|| self.etag(keys.revision));
        let keys: Vec<_> = keys.iter().cloned().collect();
        let kept = SignedDuration::from_secs(MAX_TOKEN_TTL.into());
        let age = |key: &SigningKey| now.duration_since(key.state_time);
        let options =
            |reason: &str| WriteOptions { reason: reason.to_owned(), ..WriteOptions::default() };
        for key in &keys {
            if key.state == KeyState::Previous && age(key) >= kept {
                let options = options("all tokens of the key have expired");
                session.delete_signing_key(&key.id, &options).await?;
            }
        }
        let in_state = |state| keys.iter().rfind(|key| key.state == state);
        // A deletion found no space for another key. The first key is made at the start.
        if exists && in_state(KeyState::Current).is_none() {
            session.change_keys(KeyChange::Ensure, &options("no key signs")).await?;
        }
        let Some((every, current)) = every.zip(in_state(KeyState::Current)) else { return Ok(()) };
        let every = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX);
        let due = match in_state(KeyState::Next) {
            None if age(current) >= every.saturating_sub(PUBLISHED_BEFORE) => {
                (true, "the key will be replaced")
            }
            Some(next) if age(current) >= every && age(next) >= PUBLISHED_BEFORE => {
                (false, "the age of the key")
            }
            _ => return Ok(()),
        };
        let options = WriteOptions { etag, ..options(due.1) };
        match session.rotate_signing_key(due.0, &options).await {
            // Another replica was first, or a key was deleted above; the next look tells what is due.
            Err(AuthorityError::EtagStale) => Ok(()),
            rotated => rotated.map(drop),
        }
    }
}

/// A state of a key in the audit log.
fn logged_state(
    id: &Thumbprint,
    before: Option<KeyState>,
    after: Option<KeyState>,
) -> Vec<FieldChange> {
    let name = |state: Option<KeyState>| state.map_or("", KeyState::name);
    let field = format!("signing_keys[{id}].state");
    FieldChange::names(&field, name(before), name(after)).into_iter().collect()
}

/// Runs work with files on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn t28_a_key_is_published_a_day_before_it_signs_and_verifies_a_day_after() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Store::open(dir.path()).expect("opened"));
        let own_issuer = OwnIssuer::new("https://id.example.org", dir.path().join("keys"));
        let authority = Authority::new(store, 1_000).expect("readable");
        let authority = authority.with_own_issuer(Some(own_issuer));
        let states = async || {
            let keys = authority.internal_session("test").signing_keys().await.expect("read");
            keys.resource.iter().map(|key| key.state).collect::<Vec<_>>()
        };
        const DAY: u64 = 24 * 60 * 60;
        let every = Some(Duration::from_secs(90 * DAY));
        let start = authority.clock.now();
        let keep = async |every, days: u64| {
            let now = start + SignedDuration::from_secs((days * DAY + 1).cast_signed());
            authority.keep_signing_keys(every, now).await.expect("kept");
            states().await
        };
        use KeyState::{Current, Next};
        assert_eq!(keep(every, 1_000).await, [], "the first key is made at the start");
        authority.prepare_signing_keys().await.expect("a key");
        authority.prepare_signing_keys().await.expect("the same key");
        assert_eq!(keep(every, 88).await, [Current]);
        assert_eq!(keep(None, 10_000).await, [Current], "never");
        assert_eq!(keep(every, 89).await, [Current, Next]);
        assert_eq!(keep(every, 0).await, [Current, Next]);
        // The times of the states are those of the clock, at which nothing but a moment has passed.
        assert_eq!(keep(every, 90).await, [KeyState::Previous, Current]);
        assert_eq!(keep(every, 0).await, [KeyState::Previous, Current]);
        let first = authority.internal_session("test").signing_keys().await.expect("read");
        let file = authority.issuer().expect("own").files.path(&first.resource[0].id);
        assert!(file.exists());
        assert_eq!(keep(every, 1).await, [Current]);
        assert!(!file.exists(), "all of its tokens have expired");
        // Where a deletion left no key that signs, another is made.
        let session = authority.internal_session("test");
        let id = session.signing_keys().await.expect("read").resource[0].id;
        let alone = KeyChange::DeleteAlone(id);
        session.write_keys(alone, &WriteOptions::default()).await.expect("deleted");
        assert_eq!(states().await, []);
        assert_eq!(keep(None, 0).await, [Current]);
    }
}
