//! Floor 2, who answers: checks from the facts at hand, and every change of them.
//!
//! Not here: how a question is parsed or an answer rendered (floor 3), and what is true (floor
//! 0): this floor only brings the two together at one revision.

pub mod api_keys;
mod catalogs;
mod change_feed;
mod change_stamps;
mod check;
pub mod clock;
mod coherence;
mod companies;
pub mod consents;
mod core_local;
mod credentials;
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
mod l1_cache;
mod last_used;
mod load_pool;
pub mod queries;
mod restore_grants;
mod revision_wait;
pub mod secrets;
mod sync;
mod transaction;
pub mod users;
mod watch;
mod write_options;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::watch as watched;

use self::clock::Clock;
use self::core_local::{CoreLocal, CoreLocals};
use self::error::AuthorityError;
use self::fact_cache::FactCache;
use self::last_used::LastUsed;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::backup::Backup;
use crate::store::{self, CommitObserver, Incarnation, Store, StoreError};

pub use self::catalogs::{Applied, ApplyError, Losers, LosingCompany};
pub use self::check::Answer;
pub use self::companies::{CompanyChange, NewCompany, Restriction};
pub use self::core_local::{CheckMetrics, MetricsTotals};
pub use self::credentials::{CredentialChange, NewCredential};
pub use self::idempotency::StorableReply;
pub use self::restore_grants::RestoreGrants;
pub use self::transaction::Written;
pub use self::watch::{Event, Interest, Watcher};
pub use self::write_options::{IdempotencyKey, WriteOptions};

/// How often a check or a change may find its facts changing under it before it gives up.
const ATTEMPTS: usize = 1000;

/// Who answers: one per process, with a desk on each core ([`Authority::desk`]).
pub struct Authority {
    facts: Arc<FactCache>,
    clock: Arc<Clock>,
    seen: Arc<LastUsed>,
    /// What is this core's own.
    desk: Arc<CoreLocal>,
    desks: Arc<CoreLocals>,
    /// How many more proposals of imports may wait for the writer.
    room: Arc<Semaphore>,
    /// Held by a change of the keyring, which is one fact: changes of it made side by side would
    /// conflict, and one of them could start over again and again. A creation holds both, so a
    /// deletion waits for one creation at most.
    key_changes: Arc<tokio::sync::Mutex<()>>,
    key_creations: Arc<tokio::sync::Mutex<()>>,
    /// Whether who presents no key may do everything, also when there are keys.
    admits_anybody: bool,
}

impl Authority {
    /// Takes charge of a store: from here on it alone changes it. At most `cache_entries` facts
    /// are kept at hand.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn new(store: Arc<dyn Store>, cache_entries: u64) -> Result<Self, StoreError> {
        let clock = Clock::starting_at(store.time_mark());
        let facts = Arc::new(FactCache::new(store, cache_entries)?);
        let listener: Arc<dyn CommitObserver> = Arc::clone(&facts) as _;
        facts.store().start(listener);
        let (clock, seen) = (Arc::new(clock), Arc::new(LastUsed::new()));
        let room = Arc::new(Semaphore::new(import::MAX_IN_FLIGHT));
        let desks: Arc<CoreLocals> = Arc::default();
        let desk = desks.register(facts.front());
        let (key_changes, key_creations) = (Arc::default(), Arc::default());
        Ok(Self {
            facts,
            clock,
            seen,
            desk,
            desks,
            room,
            key_changes,
            key_creations,
            admits_anybody: false,
        })
    }

    /// The same, for everybody: who presents no key may do everything, also when there are keys.
    #[must_use]
    pub fn allow_unauthenticated(self, admits_anybody: bool) -> Self {
        Self { admits_anybody, ..self }
    }

    /// The same authority, for one core: what it was just asked for there it has at hand.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self {
            facts: Arc::clone(&self.facts),
            clock: Arc::clone(&self.clock),
            seen: Arc::clone(&self.seen),
            desk: self.desks.register(self.facts.front()),
            desks: Arc::clone(&self.desks),
            room: Arc::clone(&self.room),
            key_changes: Arc::clone(&self.key_changes),
            key_creations: Arc::clone(&self.key_creations),
            admits_anybody: self.admits_anybody,
        }
    }

    /// The audience that tokens name by this string, besides its name.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<Name> {
        self.facts.audience_by_aud(aud)
    }

    /// The last published revision.
    #[must_use]
    pub fn published(&self) -> Revision {
        self.facts.published()
    }

    /// The store's incarnation, which every etag and page token carries.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.facts.store().incarnation()
    }

    /// What is counted at this desk.
    #[must_use]
    pub fn measures(&self) -> &CheckMetrics {
        &self.desk.measures
    }

    /// What was counted at all desks.
    #[must_use]
    pub fn sum(&self) -> MetricsTotals {
        self.desks.sum()
    }

    /// What the store tells of its work.
    #[must_use]
    pub fn store_measures(&self) -> &store::StoreMetrics {
        self.facts.store().measures()
    }

    /// About how many facts the cache of all desks has.
    #[must_use]
    pub fn cached(&self) -> u64 {
        self.facts.cached()
    }

    /// Begins a backup of everything, which goes on beside changes.
    ///
    /// # Errors
    /// The store cannot answer, or enough backups are under way.
    pub async fn backup(&self) -> Result<Box<dyn Backup>, AuthorityError> {
        Ok(self.facts.read(|store| store.backup()).await?)
    }

    /// Rings with every publication.
    #[must_use]
    pub fn bell(&self) -> watched::Receiver<Revision> {
        self.facts.subscribe_published()
    }

    /// How many watchers read the store, because they are behind.
    #[must_use]
    pub fn lagging_watchers(&self) -> u64 {
        self.facts.feed().lagging.read()
    }

    /// How many bytes of changes are kept for watchers: the recent ones, and those read ahead.
    #[must_use]
    pub fn bytes_for_watchers(&self) -> u64 {
        self.facts.feed().bytes() + self.facts.feed().read_ahead.held()
    }

    /// Becomes true when the disk has failed: the process is to end.
    #[must_use]
    pub fn failure(&self) -> watched::Receiver<bool> {
        self.facts.failure()
    }

    /// Has the store remember which credentials were asked for since the last time; to be called
    /// every minute or so.
    pub fn keep_seen(&self) {
        self.facts.store().note_seen(self.seen.take(self.clock.kept()));
    }

    /// Commits what is queued and lets go of the store. Changes are refused from now on.
    pub fn close(&self) {
        self.keep_seen();
        // A clean end needs no lead.
        self.facts.store().mark_time(self.clock.kept(), self.clock.believed());
        self.facts.store().close();
    }
}
