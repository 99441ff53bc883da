//! Fact cache: the one cache of facts, which all cores share, and the way to the store for facts
//! that it lacks.
//!
//! It caches facts, never decisions. A restriction therefore replaces one entry, whatever the number
//! of credentials, and a cache key cannot omit a field of a request.
//!
//! Not here: the order in which a change becomes visible; see [`super::coherence`].

mod blocking_reads;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arc_swap::{ArcSwap, Guard};
use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::change_feed::ChangeFeed;
use super::check_metrics::CheckMetrics;
use super::coherence::{CacheCoherence, CoherentMap, Entry};
use super::load_pool::LoadPool;
use crate::metrics::wait_spans;
use crate::policy::catalog::Catalog;
use crate::policy::change::Change;
use crate::policy::id::Name;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::token::own::TokenEpoch;
use crate::store::{CommitObserver, Fact, FactKey, FactKind, FactRef, Outcome, Store, StoreError};

/// The bounds for the number of concurrent scans, which is one for each core. More scans would
/// take CPU time from checks.
const SCANS: RangeInclusive<usize> = 4..=64;
/// The most concurrent reads for changes.
const READS_FOR_CHANGES: usize = 64;

/// The cache map of the protocol. Every insertion and replacement uses moka's per-key computation:
/// the other methods of moka take another lock.
struct MokaMap {
    entries: Cache<FactKey, Entry<Fact>>,
    capacity: u64,
}

impl CoherentMap for MokaMap {
    type Key = FactKey;
    type Fact = Fact;

    fn compute<R>(
        &self,
        key: &FactKey,
        step: impl FnOnce(Option<Entry<Fact>>) -> (Option<Entry<Fact>>, R),
    ) -> R {
        let mut result = None;
        self.entries.entry_by_ref(key).and_compute_with(|cached| {
            let (put, output) = step(cached.map(moka::Entry::into_value));
            result = Some(output);
            put.map_or(Op::Nop, Op::Put)
        });
        #[expect(clippy::expect_used, reason = "moka runs the closure exactly once")]
        result.expect("the computation ran")
    }

    /// Only while the cache is less than half full. moka begins to count uses when it is half full,
    /// so a flood of requests for unknown ids would evict the facts that were used before.
    fn takes_absences(&self) -> bool {
        self.entries.entry_count() < self.capacity / 2
    }
}

/// A published revision and its catalog. Facts that are read for it are of the same revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision.
    pub at: Revision,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The revision of the last change of the keyring, which may be younger than `at`.
    pub keyring: Revision,
    /// What the whole store says about tokens.
    pub tokens: TokenEpoch,
}

/// Why a fact cannot be read at the revision of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The fact is younger: wait for this revision and start over with a new snapshot.
    Younger(Revision),
    /// The token of a call was issued at this revision, so the call is decided no earlier.
    AtLeast(Revision),
    /// The store cannot answer.
    Store(StoreError),
}

/// The cached facts of a store.
pub struct FactCache {
    coherence: Arc<CacheCoherence<MokaMap>>,
    loads: LoadPool<FactKey, Entry<Fact>>,
    /// Always in memory. It follows the same protocol: it is replaced before its revision is
    /// published.
    catalog: ArcSwap<Catalog>,
    /// Always in memory. It is replaced as soon as its change is durable, which is before the change
    /// is acknowledged. A revoked key is therefore rejected from the acknowledgement on.
    keyring: ArcSwap<Keyring>,
    store: Arc<Store>,
    tokens: TokenEpoch,
    published: watch::Sender<Revision>,
    /// The revision of the last change of the keyring, for tasks that wait for a change.
    keyring_changed: watch::Sender<Revision>,
    feed: Arc<ChangeFeed>,
    failed: AtomicBool,
    failure: watch::Sender<bool>,
    /// Limits the concurrent reads that are no reads of single facts, so that scans leave threads
    /// for checks.
    scans: Arc<Semaphore>,
    /// The same for reads that a change needs, so that a change does not wait for lists.
    reads_for_changes: Arc<Semaphore>,
    /// Allows one catalog to be parsed at a time: a large catalog takes much memory.
    parses: Arc<Semaphore>,
}

impl FactCache {
    /// A cache of at most `entries` facts of this store.
    ///
    /// # Errors
    /// The catalog or the keyring cannot be read.
    pub fn new(store: Arc<Store>, entries: u64) -> Result<Self, StoreError> {
        let catalog = match store.get(&FactKey::Catalog)? {
            Some(Fact::Catalog(catalog)) => catalog,
            _ => Arc::new(Catalog::empty()),
        };
        let keyring = match store.get(&FactKey::Keyring)? {
            Some(Fact::Keyring(keyring)) => keyring,
            _ => Arc::default(),
        };
        let map = MokaMap { entries: Cache::new(entries), capacity: entries };
        let opened_at = store.opened_at();
        let coherence = Arc::new(CacheCoherence::new(map, opened_at));
        let (cache, source) = (Arc::clone(&coherence), Arc::clone(&store));
        let loads = LoadPool::start(move |key: &FactKey| {
            cache.get_or_load(key, || Ok(source.get(key)?.map(|fact| (fact.revision(), fact))))
        });
        let scans = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let scans = scans.clamp(*SCANS.start(), *SCANS.end());
        Ok(Self {
            coherence,
            loads: loads.map_err(|_| StoreError::Unavailable)?,
            catalog: ArcSwap::new(catalog),
            keyring_changed: watch::Sender::new(keyring.revision),
            keyring: ArcSwap::new(keyring),
            tokens: store.token_epoch()?,
            store,
            published: watch::Sender::new(opened_at),
            feed: ChangeFeed::new(opened_at),
            failed: AtomicBool::new(false),
            failure: watch::Sender::new(false),
            scans: Arc::new(Semaphore::new(scans)),
            reads_for_changes: Arc::new(Semaphore::new(READS_FOR_CHANGES)),
            parses: Arc::new(Semaphore::new(1)),
        })
    }

    /// The store behind the cache.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The keyring, which is at least as new as the last acknowledged change.
    pub(super) fn keyring(&self) -> Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// The approximate number of cached facts.
    #[must_use]
    pub fn cached(&self) -> u64 {
        self.coherence.map.entries.entry_count()
    }

    /// The audience whose `aud` list has this string. For messages only: it reads the latest catalog,
    /// which may not be published yet.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<Name> {
        self.catalog.load().audience_by_aud(aud).cloned()
    }

    /// The digest of the catalog in force.
    pub fn catalog_digest(&self) -> blake3::Hash {
        Catalog::digest(&self.catalog.load().yaml)
    }

    /// The last published revision.
    #[must_use]
    pub fn published(&self) -> Revision {
        self.coherence.published()
    }

    /// A receiver of each published revision.
    #[must_use]
    pub fn subscribe_published(&self) -> watch::Receiver<Revision> {
        self.published.subscribe()
    }

    /// A receiver of the revision of each change of the keyring.
    pub(super) fn keyring_changed(&self) -> watch::Receiver<Revision> {
        self.keyring_changed.subscribe()
    }

    /// The feed that passes changes to watchers.
    pub(super) fn feed(&self) -> &Arc<ChangeFeed> {
        &self.feed
    }

    /// Becomes true when the disk has failed. From then on no answer is reliable.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.failure.subscribe()
    }

    /// Waits until this revision is published.
    ///
    /// # Errors
    /// The disk failed: the revision will never be published.
    pub async fn wait_published(&self, revision: Revision) -> Result<(), StoreError> {
        let (mut published, mut failure) = (self.published.subscribe(), self.failure.subscribe());
        tokio::select! {
            reached = published.wait_for(|published| *published >= revision) => {
                reached.map(|_| ()).map_err(|_| StoreError::Unavailable)
            }
            _ = failure.wait_for(|failed| *failed) => Err(StoreError::Unavailable),
        }
    }

    /// A snapshot of the last published revision.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn view(&self) -> Result<Snapshot, StoreError> {
        loop {
            if self.failed.load(Ordering::Acquire) {
                return Err(StoreError::Unavailable);
            }
            let keyring = self.keyring.load().revision;
            let at = self.published();
            let catalog = self.catalog.load_full();
            if catalog.revision <= at {
                return Ok(Snapshot { at, catalog, keyring, tokens: self.tokens });
            }
            Box::pin(self.wait_published(catalog.revision)).await?;
        }
    }

    /// A fact at this revision; none if it does not exist. `measures` counts where it was found.
    ///
    /// # Errors
    /// The fact cannot be read at this revision.
    pub(super) async fn get<T: FactKind>(
        self: &Arc<Self>,
        at: Revision,
        key: T::Key<'_>,
        measures: Option<&CheckMetrics>,
    ) -> Result<Option<Arc<T>>, ReadError> {
        let key = T::key_of(key);
        let cached = self.coherence.map.entries.get(&key);
        if let Some(measures) = measures {
            if cached.is_some() { measures.cached.inc() } else { measures.read.inc() }
        }
        let entry = match cached {
            Some(entry) => entry,
            None => self.read_entry(key).await?,
        };
        let fact = entry.at(at).map_err(ReadError::Younger)?;
        #[cfg(test)]
        super::transaction::tests::note_read(&key.to_key(), fact.as_ref());
        Ok(fact.and_then(T::from_fact))
    }

    async fn read_entry(self: &Arc<Self>, key: FactRef<'_>) -> Result<Entry<Fact>, ReadError> {
        let read = self.loads.read(key.to_key());
        let read = Box::pin(wait_spans::span("store read", read));
        read.await.map_err(ReadError::Store)
    }
}

impl CommitObserver for FactCache {
    fn before_apply(&self, last: Revision, keys: &[FactKey]) {
        self.coherence.begin_batch(last, keys.iter().cloned());
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
        self.coherence.publish(last, entries);
        self.published.send_replace(last);
    }

    fn published(&self, changes: Vec<Change>) {
        self.feed.offer(changes);
    }

    fn failed(&self) {
        // No answer leaves from here on.
        self.store.lease().close();
        self.failed.store(true, Ordering::Release);
        self.failure.send_replace(true);
    }
}
