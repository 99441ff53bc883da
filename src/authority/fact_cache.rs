//! Facts: those at hand in the cache, and the way to the store for those that are not.
//!
//! Facts are cached, never decisions: a restriction touches one entry whatever the number of
//! credentials, and no field of a request can be forgotten in a key.
//!
//! Not here: the order in which facts become known; see [`super::coherence`]. And what a core
//! keeps for itself; see [`super::l1_cache`].

mod blocking_reads;
mod fact_ref;
mod typed_reads;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arc_swap::{ArcSwap, Guard};
use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::{Semaphore, watch};

pub(super) use self::fact_ref::FactRef;
use super::change_feed::ChangeFeed;
use super::coherence::{CacheCoherence, CoherentMap, Entry};
use super::core_local::{CoreLocal, L1};
use super::load_pool::LoadPool;
use crate::metrics::wait_spans;
use crate::policy::catalog::Catalog;
use crate::policy::change::Change;
use crate::policy::id::Name;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
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
mod tests;
