//! Facts: those at hand in the cache, and the way to the store for those that are not.
//!
//! Facts are cached, never decisions: a restriction touches one entry whatever the number of
//! credentials, and no field of a request can be forgotten in a key.
//!
//! Not here: the order in which facts become known; see [`super::coherence`]. And what a core
//! keeps for itself; see [`super::l1_cache`].

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arc_swap::{ArcSwap, Guard};
use equivalent::Equivalent;
use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::change_feed::ChangeFeed;
use super::coherence::{CacheCoherence, CoherentMap, Entry};
use super::core_local::{CoreLocal, L1};
use super::load_pool::LoadPool;
use crate::metrics::wait_spans;
use crate::policy::catalog::Catalog;
use crate::policy::change::Change;
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::user::User;
use crate::store::{CommitObserver, Fact, FactKey, Outcome, Store, StoreError};

/// The fewest and the most scans at once, one for each core between: more would take the time of
/// the cores from checks.
const SCANS: RangeInclusive<usize> = 4..=64;
/// The most reads for changes at once.
const READS_FOR_CHANGES: usize = 64;

/// The cache as the protocol's shelf. Every path that puts or replaces goes through moka's
/// per-key computation: its other verbs take another lock.
struct MokaMap(Cache<FactKey, Entry<Fact>>);

impl CoherentMap for MokaMap {
    type Key = FactKey;
    type Fact = Fact;

    fn compute<R>(
        &self,
        key: &FactKey,
        step: impl FnOnce(Option<Entry<Fact>>) -> (Option<Entry<Fact>>, R),
    ) -> R {
        let mut result = None;
        self.0.entry_by_ref(key).and_compute_with(|shelved| {
            let (put, told) = step(shelved.map(moka::Entry::into_value));
            result = Some(told);
            put.map_or(Op::Nop, Op::Put)
        });
        #[expect(clippy::expect_used, reason = "moka runs the closure exactly once")]
        result.expect("the computation ran")
    }
}

/// How many facts a core keeps for itself: half as many as all share, between these.
const FRONT: RangeInclusive<usize> = 1 << 12..=1 << 20;
/// How many marks say what was changed when.
const MARKS: usize = 1 << 18;

/// A key without ownership, to look up by.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum FactRef<'a> {
    // In the order of `FactKey`, so that both hash alike.
    #[cfg_attr(not(test), expect(dead_code, reason = "the catalog is kept beside the cache"))]
    Catalog,
    #[cfg_attr(not(test), expect(dead_code, reason = "the keyring is kept beside the cache"))]
    Keyring,
    Company(&'a CompanyId),
    Credential(Revision, &'a CredentialId),
    Impact(Revision),
    User(Revision, &'a UserId),
    Consent(Parties),
    Secret(Revision, &'a Name),
    SecretOwner(&'a Name),
}

impl Equivalent<FactKey> for FactRef<'_> {
    fn equivalent(&self, key: &FactKey) -> bool {
        match (self, key) {
            (Self::Catalog, FactKey::Catalog) | (Self::Keyring, FactKey::Keyring) => true,
            (Self::Company(a), FactKey::Company(b)) => *a == b,
            (Self::Credential(a, x), FactKey::Credential(b, y)) => a == b && *x == y,
            (Self::Impact(a), FactKey::Impact(b)) => a == b,
            (Self::User(a, x), FactKey::User(b, y)) => a == b && *x == y,
            (Self::Consent(a), FactKey::Consent(b)) => a == b,
            (Self::Secret(a, x), FactKey::Secret(b, y)) => a == b && *x == y,
            (Self::SecretOwner(a), FactKey::SecretOwner(b)) => *a == b,
            _ => false,
        }
    }
}

impl FactRef<'_> {
    fn to_key(self) -> FactKey {
        match self {
            Self::Catalog => FactKey::Catalog,
            Self::Keyring => FactKey::Keyring,
            Self::Company(id) => FactKey::Company(id.clone()),
            Self::Credential(company, id) => FactKey::Credential(company, id.clone()),
            Self::Impact(company) => FactKey::Impact(company),
            Self::User(company, id) => FactKey::User(company, id.clone()),
            Self::Consent(of) => FactKey::Consent(of),
            Self::Secret(company, id) => FactKey::Secret(company, id.clone()),
            Self::SecretOwner(id) => FactKey::SecretOwner(id.clone()),
        }
    }
}

/// A published revision, and the catalog of it. Facts read for it are of it too.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision.
    pub at: Revision,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The last change of the keyring, which may be younger.
    pub keyring: Revision,
}

/// Why a fact cannot be told at a view's revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It is younger: wait for this revision and start over with another view.
    Younger(Revision),
    /// The store cannot answer.
    Store(StoreError),
}

/// The facts of a store.
pub struct FactCache {
    admission: Arc<CacheCoherence<MokaMap>>,
    readers: LoadPool<FactKey, Entry<Fact>>,
    /// Always at hand, and admitted by the same rule: replaced before it is published.
    catalog: ArcSwap<Catalog>,
    /// Always at hand. Replaced as soon as its change is durable, which is before anybody is
    /// told of it: a revoked key is refused from the acknowledgement on.
    keyring: ArcSwap<Keyring>,
    /// How many facts a core keeps for itself.
    front: usize,
    store: Arc<dyn Store>,
    bell: watch::Sender<Revision>,
    /// The last change of the keyring, for whoever waits for one.
    keyring_changed: watch::Sender<Revision>,
    feed: Arc<ChangeFeed>,
    failed: AtomicBool,
    failure: watch::Sender<bool>,
    /// How many reads beside those of facts may go on at once: scans leave threads for checks.
    scans: Arc<Semaphore>,
    /// The same for reads that changes need, which do not wait behind lists.
    reads_for_changes: Arc<Semaphore>,
    /// A catalog is parsed at a time: a large one takes much memory.
    parses: Arc<Semaphore>,
}

impl FactCache {
    /// The facts of this store, at most `entries` of them at hand.
    ///
    /// # Errors
    /// The catalog or the keyring cannot be read.
    pub fn new(store: Arc<dyn Store>, entries: u64) -> Result<Self, StoreError> {
        let catalog = match store.get(&FactKey::Catalog)? {
            Some(Fact::Catalog(catalog)) => catalog,
            _ => Arc::new(Catalog::empty()),
        };
        let keyring = match store.get(&FactKey::Keyring)? {
            Some(Fact::Keyring(keyring)) => keyring,
            _ => Arc::default(),
        };
        let cache = Cache::builder().max_capacity(entries).build();
        let opened_at = store.opened_at();
        let admission = Arc::new(CacheCoherence::new(MokaMap(cache), opened_at, MARKS));
        let (shelf, kept) = (Arc::clone(&admission), Arc::clone(&store));
        let readers = LoadPool::start(move |key: &FactKey| {
            shelf.get_or_load(key, || Ok(kept.get(key)?.map(|fact| (fact.revision(), fact))))
        });
        let scans = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let scans = scans.clamp(*SCANS.start(), *SCANS.end());
        Ok(Self {
            admission,
            readers: readers.map_err(|_| StoreError::Unavailable)?,
            catalog: ArcSwap::new(catalog),
            keyring_changed: watch::Sender::new(keyring.revision),
            keyring: ArcSwap::new(keyring),
            front: usize::try_from(entries / 2)
                .unwrap_or(usize::MAX)
                .clamp(*FRONT.start(), *FRONT.end()),
            store,
            bell: watch::Sender::new(opened_at),
            feed: ChangeFeed::new(opened_at),
            failed: AtomicBool::new(false),
            failure: watch::Sender::new(false),
            scans: Arc::new(Semaphore::new(scans)),
            reads_for_changes: Arc::new(Semaphore::new(READS_FOR_CHANGES)),
            parses: Arc::new(Semaphore::new(1)),
        })
    }

    /// A front for one core.
    pub(super) fn front(&self) -> L1 {
        L1::new(self.front)
    }

    /// The store behind the cache.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The keyring, as new as the last change that was acknowledged.
    pub(super) fn keyring(&self) -> Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// About how many facts are in the cache.
    #[must_use]
    pub fn cached(&self) -> u64 {
        self.admission.shelf.0.entry_count()
    }

    /// The audience that tokens name by this string, for a sentence that says so: the catalog is the
    /// latest, whatever is published.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<Name> {
        self.catalog.load().audience_by_aud(aud).cloned()
    }

    /// The last published revision.
    #[must_use]
    pub fn published(&self) -> Revision {
        self.admission.published()
    }

    /// Rings with every publication.
    #[must_use]
    pub fn subscribe_published(&self) -> watch::Receiver<Revision> {
        self.bell.subscribe()
    }

    /// Tells of every change of the keyring.
    pub(super) fn keyring_changed(&self) -> watch::Receiver<Revision> {
        self.keyring_changed.subscribe()
    }

    /// Hands changes to watchers.
    pub(super) fn feed(&self) -> &Arc<ChangeFeed> {
        &self.feed
    }

    /// Becomes true when the disk has failed and nothing more can be relied on.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.failure.subscribe()
    }

    /// Waits until this revision is published.
    ///
    /// # Errors
    /// The disk failed: it never will be.
    pub async fn wait_published(&self, revision: Revision) -> Result<(), StoreError> {
        let (mut bell, mut failure) = (self.bell.subscribe(), self.failure.subscribe());
        tokio::select! {
            rung = bell.wait_for(|published| *published >= revision) => {
                rung.map(|_| ()).map_err(|_| StoreError::Unavailable)
            }
            _ = failure.wait_for(|failed| *failed) => Err(StoreError::Unavailable),
        }
    }

    /// A view of the last published revision.
    ///
    /// # Errors
    /// The disk failed: nothing can be known of what is published elsewhere.
    pub async fn view(&self) -> Result<Snapshot, StoreError> {
        loop {
            if self.failed.load(Ordering::Acquire) {
                return Err(StoreError::Unavailable);
            }
            let keyring = self.keyring.load().revision;
            let at = self.published();
            let catalog = self.catalog.load_full();
            if catalog.revision <= at {
                return Ok(Snapshot { at, catalog, keyring });
            }
            Box::pin(self.wait_published(catalog.revision)).await?;
        }
    }

    /// A company at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn company(
        self: &Arc<Self>,
        at: Revision,
        id: &CompanyId,
    ) -> Result<Option<Arc<Company>>, ReadError> {
        match self.fact(at, FactRef::Company(id)).await? {
            Some(Fact::Company(company)) => Ok(Some(company)),
            _ => Ok(None),
        }
    }

    /// A credential of the company of this birth, at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn credential(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &CredentialId,
    ) -> Result<Option<Arc<Credential>>, ReadError> {
        match self.fact(at, FactRef::Credential(company, id)).await? {
            Some(Fact::Credential(credential)) => Ok(Some(credential)),
            _ => Ok(None),
        }
    }

    /// A company's impact revision at this revision; none if it never had a credential (D7).
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn impact(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
    ) -> Result<Option<Revision>, ReadError> {
        Ok(self.fact(at, FactRef::Impact(company)).await?.map(|fact| fact.revision()))
    }

    /// A user of the company of this birth, at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn user(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &UserId,
    ) -> Result<Option<Arc<User>>, ReadError> {
        match self.fact(at, FactRef::User(company, id)).await? {
            Some(Fact::User(user)) => Ok(Some(user)),
            _ => Ok(None),
        }
    }

    /// A consent at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn consent(
        self: &Arc<Self>,
        at: Revision,
        of: Parties,
    ) -> Result<Option<Arc<Consent>>, ReadError> {
        match self.fact(at, FactRef::Consent(of)).await? {
            Some(Fact::Consent(consent)) => Ok(Some(consent)),
            _ => Ok(None),
        }
    }

    /// A secret of the company of this birth, at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn secret(
        self: &Arc<Self>,
        at: Revision,
        company: Revision,
        id: &Name,
    ) -> Result<Option<Arc<Secret>>, ReadError> {
        match self.fact(at, FactRef::Secret(company, id)).await? {
            Some(Fact::Secret(secret)) => Ok(Some(secret)),
            _ => Ok(None),
        }
    }

    /// Whose the secret of this public id is, at this revision.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub async fn secret_owner(
        self: &Arc<Self>,
        at: Revision,
        id: &Name,
    ) -> Result<Option<Arc<SecretOwner>>, ReadError> {
        match self.fact(at, FactRef::SecretOwner(id)).await? {
            Some(Fact::SecretOwner(owner)) => Ok(Some(owner)),
            _ => Ok(None),
        }
    }

    async fn fact(
        self: &Arc<Self>,
        at: Revision,
        key: FactRef<'_>,
    ) -> Result<Option<Fact>, ReadError> {
        self.entry(key).await?.at(at).map_err(ReadError::Younger)
    }

    /// A fact at this revision, by way of a front.
    ///
    /// # Errors
    /// It cannot be told at this revision.
    pub(super) async fn get_for_core(
        self: &Arc<Self>,
        desk: &CoreLocal,
        at: Revision,
        key: FactRef<'_>,
    ) -> Result<Option<Fact>, ReadError> {
        let marks = &self.admission.marks;
        let hash = marks.hash(&key);
        if let Some(fact) = desk.front.get(marks, at, hash, &key) {
            desk.measures.near.inc();
            return Ok(Some(fact));
        }
        let entry = match self.admission.shelf.0.get(&key) {
            Some(entry) => {
                desk.measures.cached.inc();
                entry
            }
            None => {
                desk.measures.read.inc();
                self.read_entry(key).await?
            }
        };
        let fact = entry.clone().at(at).map_err(ReadError::Younger)?;
        desk.front.insert(hash, || key.to_key(), entry, at);
        Ok(fact)
    }

    async fn entry(self: &Arc<Self>, key: FactRef<'_>) -> Result<Entry<Fact>, ReadError> {
        match self.admission.shelf.0.get(&key) {
            Some(entry) => Ok(entry),
            None => self.read_entry(key).await,
        }
    }

    async fn read_entry(self: &Arc<Self>, key: FactRef<'_>) -> Result<Entry<Fact>, ReadError> {
        let hash = self.admission.marks.hash(&key);
        let read = self.readers.read(hash, key.to_key());
        let read = Box::pin(wait_spans::span("store read", read));
        read.await.map_err(ReadError::Store)
    }

    /// Runs a read of the store that is no fact's, on a thread that may wait for the disk, and
    /// waits until everything that it may have seen is published.
    ///
    /// # Errors
    /// Those of the read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.scans, read).await
    }

    /// The same for a change: it does not wait behind lists.
    ///
    /// # Errors
    /// Those of the read.
    pub async fn read_for_change<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.reads_for_changes, read).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let found = in_place(places, move || read(&*store));
        let found =
            wait_spans::span("store scan", found).await.unwrap_or(Err(StoreError::Damaged))?;
        self.wait_published(self.admission.read_horizon()).await?;
        Ok(found)
    }

    /// Runs the parsing of a catalog, on a thread of its own and one at a time.
    ///
    /// # Errors
    /// It panicked.
    pub async fn parse<T: Send + 'static>(
        &self,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        in_place(&self.parses, parse).await.ok_or(StoreError::Unavailable)
    }
}

/// Runs work on a thread that may wait, in one of these places. The place is taken until the work
/// is done, also when nothing waits for it any more: a caller that cancels and calls again gets
/// no second one. None if the work panicked.
async fn in_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let work = move || {
        let _place = place;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

impl CommitObserver for FactCache {
    fn before_apply(&self, last: Revision, keys: &[FactKey]) {
        self.admission.begin_batch(last, keys.iter().cloned());
    }

    fn durable(&self, last: Revision, outcomes: Vec<Outcome>) {
        for outcome in &outcomes {
            match &outcome.fact {
                Some(Fact::Catalog(catalog)) => self.catalog.store(Arc::clone(catalog)),
                Some(Fact::Keyring(keyring)) => {
                    self.keyring.store(Arc::clone(keyring));
                    self.keyring_changed.send_replace(keyring.revision);
                }
                _ => {}
            }
        }
        let entries = outcomes
            .into_iter()
            .map(|outcome| (outcome.key, Entry { since: outcome.since, fact: outcome.fact }));
        self.admission.publish(last, entries);
        self.bell.send_replace(last);
    }

    fn published(&self, changes: Vec<Change>) {
        self.feed.offer(changes);
    }

    fn failed(&self) {
        self.failed.store(true, Ordering::Release);
        self.failure.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;
    use crate::authority::change_stamps::ChangeStamps;
    use crate::authority::l1_cache;

    #[test]
    fn a_key_and_its_reference_hash_alike() {
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
            FactRef::Credential(Revision(7), &credential),
            FactRef::Impact(Revision(7)),
            FactRef::User(Revision(7), &user),
            FactRef::Consent(of),
            FactRef::Secret(Revision(7), &secret),
            FactRef::SecretOwner(&secret),
        ] {
            assert_eq!(state.hash_one(key), state.hash_one(key.to_key()), "{key:?}");
            assert!(key.equivalent(&key.to_key()));
        }
    }

    // Of the front, whose own file is also compiled over scheduled locks.

    fn kept(number: u64) -> Entry<u64> {
        Entry { since: Revision(1), fact: Some(number) }
    }

    #[test]
    fn a_front_grows_as_it_is_filled_and_no_further() {
        let (marks, at) = (ChangeStamps::new(1 << 10), Revision(1));
        let all = 0..40_000_u64;
        for (places, least) in [(1 << 16, 30_000), (1 << 12, 3_000)] {
            let front = l1_cache::L1Cache::<u64, u64>::new(places);
            for number in all.clone() {
                front.insert(marks.hash(&number), || number, kept(number), at);
            }
            let found = all.clone().filter_map(|number| {
                let found = front.get(&marks, at, marks.hash(&number), &number)?;
                assert_eq!(found, number);
                Some(found)
            });
            let found = found.count();
            assert!((least..=places).contains(&found), "{found} of {places}");
        }
    }

    #[test]
    fn what_is_asked_for_again_outlasts_what_is_not() {
        let (marks, at) = (ChangeStamps::new(1), Revision(1));
        let front = l1_cache::L1Cache::<u64, u64>::new(4);
        let ask = |number: u64| front.get(&marks, at, number << 32, &number);
        // It comes last into a full set, where the next would displace it.
        for number in (0..5_u64).rev() {
            front.insert(number << 32, || number, kept(number), at);
        }
        for number in 5..1_000_u64 {
            assert_eq!(ask(0), Some(0));
            front.insert(number << 32, || number, kept(number), at);
            assert_eq!(ask(number), Some(number));
        }
        // What is kept anew of one key is in the place of the older.
        front.insert(0, || 0, Entry { since: Revision(1), fact: Some(7) }, at);
        assert_eq!(ask(0), Some(7));
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let (marks, at) = (ChangeStamps::new(1), Revision(1));
        let front = l1_cache::L1Cache::<u64, u64>::new(4);
        for number in 0..3 {
            front.insert(5, || number, kept(number), at);
        }
        for number in 0..3 {
            assert_eq!(front.get(&marks, at, 5, &number), Some(number));
        }
        assert_eq!(front.get(&marks, at, 5, &3), None);
    }
}

#[cfg(test)]
mod places {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_nothing_waits_for_any_more_keeps_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let (begun, has_begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let work = tokio::spawn({
            let places = Arc::clone(&places);
            async move {
                let work = move || {
                    begun.send(()).ok();
                    ended.recv().ok();
                };
                in_place(&places, work).await
            }
        });
        let begun = tokio::task::spawn_blocking(move || has_begun.recv());
        begun.await.expect("no panic").expect("begun");
        work.abort();
        assert!(work.await.is_err(), "cancelled");
        assert_eq!(places.available_permits(), 0);
        end.send(()).expect("it still runs");
        assert_eq!(in_place(&places, || 7).await, Some(7));
    }
}
