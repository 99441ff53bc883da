//! Authority: decides checks from the cached facts, and carries out every change of them.
//!
//! Not here: how a request is parsed and a reply is rendered; see `wire` and `grpc`. The rules of a
//! decision are in [`crate::policy`]. This layer combines the two at one published revision.

pub mod access_log;
pub mod admission;
pub mod api_keys;
pub mod authorization_codes;
pub mod batch;
pub mod caller_limits;
mod catalogs;
mod change_feed;
mod check;
mod check_metrics;
mod client;
pub mod client_proof;
pub mod clock;
pub mod code_redemption;
mod coherence;
mod companies;
pub mod consents;
mod credentials;
pub mod decision_observer;
mod durable_time;
pub mod error;
mod etag;
mod fact_cache;
pub mod history;
mod idempotency;
pub mod impact;
pub mod import;
pub mod import_difference;
pub mod import_item;
pub mod introspection;
pub mod issuer_keys;
mod last_used;
mod load_pool;
pub mod noted_call;
pub mod operation;
pub mod own_issuer;
pub mod problem;
pub mod queries;
mod reader;
mod recent_tokens;
pub mod replica_waits;
pub mod request_context;
mod restore_grants;
mod revision_wait;
pub mod secrets;
mod session;
mod signing_key_files;
pub mod signing_keys;
mod sync;
pub mod token_cache;
pub mod token_issue;
pub mod token_revocation;
mod token_verifier;
mod transaction;
pub mod users;
mod watch;
mod write_options;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::watch as watched;
use tokio_util::task::AbortOnDropHandle;

use self::check_metrics::CoreRegistry;
use self::clock::Clock;
use self::decision_observer::DecisionObserver;
use self::fact_cache::FactCache;
use self::issuer_keys::{IssuerKeys, KeyReader, Waiters};
use self::last_used::LastUsed;
use self::own_issuer::OwnIssuer;
use self::recent_tokens::RecentTokens;
use self::token_cache::{DEFAULT_TOKEN_CACHE_ENTRIES, TokenCache};
use crate::metrics::supervise::Supervisor;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::backup::Backup;
use crate::store::replicated::{LogError, Replica};
use crate::store::{self, CommitObserver, FactSums, Incarnation, Store, StoreError};

pub use self::catalogs::{Applied, ApplyError, Losers, LosingCompany};
pub use self::check::{Answer, ProvenClient};
pub use self::check_metrics::{CheckMetrics, MetricsTotals, TokenResult};
pub use self::companies::{CompanyChange, NewCompany, Restriction};
pub use self::credentials::{CredentialChange, NewCredential};
pub use self::restore_grants::RestoreGrants;
pub use self::session::Session;
pub use self::transaction::Written;
pub use self::watch::{WatchEvent, Watcher};
pub use self::write_options::{IdempotencyKey, WriteOptions};

/// How many times a check or a change is tried when its facts change meanwhile.
const ATTEMPTS: usize = 1000;

/// The actor of the server itself in the audit log.
const SERVER: &str = "scopegate serve";

/// Answers checks and carries out changes. There is one for each process, with counters for each core
/// ([`Authority::for_core`]).
pub struct Authority {
    facts: Arc<FactCache>,
    clock: Arc<Clock>,
    last_used: Arc<LastUsed>,
    /// The counters of this core.
    measures: Arc<CheckMetrics>,
    cores: Arc<CoreRegistry>,
    /// The keys of the catalog's issuers of tokens.
    issuer_keys: Arc<IssuerKeys>,
    /// This server as an issuer of tokens, if it is one.
    own_issuer: Option<Arc<OwnIssuer>>,
    /// The access tokens that were verified.
    tokens: Arc<TokenCache>,
    /// Those of them that this core has seen last.
    recent_tokens: RecentTokens,
    /// The calls of this core that wait for keys.
    key_waiters: Arc<Waiters>,
    /// Limits the proposals of all imports that wait for the writer.
    import_slots: Arc<Semaphore>,
    /// Held by a change of the keyring. The keyring is one fact: concurrent changes of it would
    /// conflict, and one of them could start over again and again. A creation holds both locks, so a
    /// deletion waits for one creation at most.
    key_changes: Arc<tokio::sync::Mutex<()>>,
    key_creations: Arc<tokio::sync::Mutex<()>>,
    /// Whether a caller without a key may do everything, also when there are keys.
    allow_unauthenticated: bool,
    /// The observer of decisions, if there is one.
    decisions: Option<Arc<dyn DecisionObserver>>,
}

impl Authority {
    /// Starts an authority on a store. From then on, nothing else may change the store. At most
    /// `cache_entries` facts are cached.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn new(store: Arc<Store>, cache_entries: u64) -> Result<Self, StoreError> {
        let clock = Clock::of(Arc::clone(store.deciding_time()));
        let facts = Arc::new(FactCache::new(store, cache_entries)?);
        let observer: Arc<dyn CommitObserver> = Arc::clone(&facts) as _;
        facts.store().start(observer);
        let (clock, last_used) = (Arc::new(clock), Arc::new(LastUsed::new()));
        let import_slots = Arc::new(Semaphore::new(import::MAX_IN_FLIGHT));
        let cores: Arc<CoreRegistry> = Arc::default();
        let measures = cores.register();
        let (key_changes, key_creations) = (Arc::default(), Arc::default());
        Ok(Self {
            facts,
            clock,
            last_used,
            measures,
            cores,
            issuer_keys: Arc::default(),
            own_issuer: None,
            tokens: Arc::new(TokenCache::new(DEFAULT_TOKEN_CACHE_ENTRIES)),
            recent_tokens: RecentTokens::default(),
            key_waiters: Arc::default(),
            import_slots,
            key_changes,
            key_creations,
            allow_unauthenticated: false,
            decisions: None,
        })
    }

    /// The same authority, but a caller without a key may do everything, also when there are keys.
    #[must_use]
    pub fn allow_unauthenticated(self, allow_unauthenticated: bool) -> Self {
        Self { allow_unauthenticated, ..self }
    }

    /// The same authority, with an observer of its decisions.
    #[must_use]
    pub fn observed(self, decisions: Option<Arc<dyn DecisionObserver>>) -> Self {
        Self { decisions, ..self }
    }

    /// The same authority, with a cache of at most this many verified tokens.
    #[must_use]
    pub fn token_cache(self, entries: u64) -> Self {
        Self { tokens: Arc::new(TokenCache::new(entries)), ..self }
    }

    /// The same authority for one core, with counters of its own.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self {
            facts: Arc::clone(&self.facts),
            clock: Arc::clone(&self.clock),
            last_used: Arc::clone(&self.last_used),
            measures: self.cores.register(),
            cores: Arc::clone(&self.cores),
            issuer_keys: Arc::clone(&self.issuer_keys),
            own_issuer: self.own_issuer.clone(),
            tokens: Arc::clone(&self.tokens),
            recent_tokens: RecentTokens::default(),
            key_waiters: Arc::default(),
            import_slots: Arc::clone(&self.import_slots),
            key_changes: Arc::clone(&self.key_changes),
            key_creations: Arc::clone(&self.key_creations),
            allow_unauthenticated: self.allow_unauthenticated,
            decisions: self.decisions.clone(),
        }
    }

    /// The audience whose `aud` list has this string.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<Name> {
        self.facts.audience_by_aud(aud)
    }

    /// The digest of the catalog in force.
    #[must_use]
    pub fn catalog_digest(&self) -> blake3::Hash {
        self.facts.catalog_digest()
    }

    /// The last published revision.
    #[must_use]
    pub fn published(&self) -> Revision {
        self.facts.published()
    }

    /// The store's incarnation. Every etag and page token carries it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.facts.store().incarnation()
    }

    /// The replica that this process is, if it is one of several.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.facts.store().replica()
    }

    /// The keys of the catalog's issuers of tokens.
    #[must_use]
    pub fn issuer_keys(&self) -> &Arc<IssuerKeys> {
        &self.issuer_keys
    }

    /// Reads the keys of the issuers of each published catalog in the background, until the returned
    /// handle is dropped.
    pub fn follow_issuers(
        &self,
        reader: &Arc<dyn KeyReader>,
        supervisor: &Arc<Supervisor>,
    ) -> AbortOnDropHandle<()> {
        let (facts, keys) = (Arc::clone(&self.facts), Arc::clone(&self.issuer_keys));
        let (reader, own) = (Arc::clone(reader), Arc::clone(supervisor));
        supervisor.task("issuers", move || {
            let (facts, keys) = (Arc::clone(&facts), Arc::clone(&keys));
            issuer_keys::follow(facts, keys, Arc::clone(&reader), Arc::clone(&own))
        })
    }

    /// The counters of this core.
    #[must_use]
    pub fn measures(&self) -> &CheckMetrics {
        &self.measures
    }

    /// The sum of the counters of all cores.
    #[must_use]
    pub fn sum(&self) -> MetricsTotals {
        self.cores.sum()
    }

    /// The metrics of the store.
    #[must_use]
    pub fn store_measures(&self) -> &store::StoreMetrics {
        self.facts.store().metrics()
    }

    /// The approximate number of facts in the cache.
    #[must_use]
    pub fn cached(&self) -> u64 {
        self.facts.cached()
    }

    /// The approximate number of verified tokens in the cache.
    #[must_use]
    pub fn cached_tokens(&self) -> u64 {
        self.tokens.len()
    }

    /// A receiver of each published revision.
    #[must_use]
    pub fn bell(&self) -> watched::Receiver<Revision> {
        self.facts.subscribe_published()
    }

    /// The number of watchers that read the store because they are behind the window.
    #[must_use]
    pub fn lagging_watchers(&self) -> u64 {
        self.facts.feed().lagging.read()
    }

    /// The bytes of changes that are held for watchers: the recent changes, and those read ahead.
    #[must_use]
    pub fn bytes_for_watchers(&self) -> u64 {
        self.facts.feed().bytes() + self.facts.feed().read_ahead.held()
    }

    /// Becomes true when the disk has failed. The process must then end.
    #[must_use]
    pub fn failure(&self) -> watched::Receiver<bool> {
        self.facts.failure()
    }

    /// Writes to the store which credentials were used since the last call. Call it about every
    /// minute.
    pub fn keep_seen(&self) {
        self.facts.store().note_last_seen(self.last_used.take(self.clock.persisted()));
    }

    /// The sums of the facts at the last revisions; see [`Store::fact_sums`].
    #[must_use]
    pub fn fact_sums(&self) -> Vec<(Revision, FactSums)> {
        self.facts.store().fact_sums()
    }

    /// Begins a snapshot of the store for another replica. Changes continue meanwhile.
    ///
    /// # Errors
    /// The store follows no log, it cannot answer, or the limit of concurrent snapshots is reached.
    pub async fn snapshot(&self) -> Result<Backup, LogError> {
        self.facts.read(|store| Ok(store.snapshot())).await?
    }

    /// Commits the queued changes and closes the store. From then on, changes are rejected.
    pub fn close(&self) {
        self.keep_seen();
        // A clean shutdown needs no lead.
        self.facts.store().mark_time(self.clock.persisted(), self.clock.believed());
        self.facts.store().close();
    }
}
