//! Floor 2, who answers: checks from the facts at hand, and every change of them.
//!
//! Not here: how a question is parsed or an answer rendered (floor 3), and what is true (floor
//! 0): this floor only brings the two together at one revision.

pub mod api_keys;
mod catalogs;
mod change_feed;
mod change_stamps;
pub mod clock;
mod coherence;
mod companies;
mod core_local;
mod credentials;
pub mod error;
mod etag;
mod fact_cache;
pub mod history;
mod idempotency;
pub mod impact;
pub mod import;
pub mod import_difference;
mod l1_cache;
mod last_used;
mod load_pool;
pub mod queries;
mod restore_grants;
pub mod secrets;
mod sync;
mod transaction;
pub mod users;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::sync::watch as watched;

use self::clock::Clock;
use self::core_local::{CoreLocal, CoreLocals};
use self::error::AuthorityError;
use self::fact_cache::{FactCache, FactRef, ReadError, Snapshot};
use self::last_used::LastUsed;
use crate::metrics::wait_spans;
use crate::policy::catalog::{AudienceError, Reach};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::decision::{self, Explanation, Verdict};
use crate::policy::id::Name;
use crate::policy::query::Query;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::user::User;
use crate::store::backup::Backup;
use crate::store::{
    self, CommitHandle, CommitObserver, Fact, Incarnation, Proposal, Receipt, Store, StoreError,
};

pub use self::catalogs::{Applied, ApplyError, Losers, LosingCompany};
pub use self::companies::{CompanyChange, NewCompany, Restriction};
pub use self::core_local::{CheckMetrics, MetricsTotals};
pub use self::credentials::{CredentialChange, NewCredential};
pub use self::idempotency::{IdempotencyKey, StorableReply};
pub use self::restore_grants::RestoreGrants;
pub use self::transaction::{WriteOptions, Written};
pub use self::watch::{Event, Interest, Watcher};

/// How long a check waits for the revision that it asks for.
const REVISION_WAIT: Duration = Duration::from_millis(500);
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

/// An answer and the one published revision at which it is right (D12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub verdict: Verdict,
    /// The revision.
    pub revision: Revision,
}

/// The facts of one query, all of one revision.
#[derive(Default)]
struct CheckFacts {
    company: Option<Arc<Company>>,
    credential: Option<Arc<Credential>>,
    user: Option<Arc<User>>,
    consent: Option<Arc<Consent>>,
}

impl CheckFacts {
    fn facts<'a>(&'a self, view: &'a Snapshot, now: Timestamp) -> decision::Facts<'a> {
        decision::Facts {
            catalog: &view.catalog,
            company: self.company.as_deref(),
            credential: self.credential.as_deref(),
            user: self.user.as_deref(),
            consent: self.consent.as_deref(),
            now,
        }
    }

    /// The earliest time after this one from which on the answer is this one; none if it is the same
    /// at this one already.
    fn told_since<T: PartialEq>(
        &self,
        query: &Query,
        view: &Snapshot,
        (kept, now): (Timestamp, Timestamp),
        answer: &T,
        question: impl Fn(&Query, decision::Facts<'_>) -> Result<T, AudienceError>,
    ) -> Option<Timestamp> {
        let ends = decision::ends(query, self.facts(view, now)).map(clock::rounded_up);
        let mut ends: Vec<_> = ends.filter(|end| kept < *end && *end <= now).collect();
        ends.sort_unstable();
        let last = ends.last().copied()?;
        let same = |time| question(query, self.facts(view, time)).is_ok_and(|at| at == *answer);
        if same(kept) {
            return None;
        }
        // From one end to the next an answer only gets stricter.
        let first = ends.partition_point(|end| !same(*end));
        Some(ends.get(first).copied().unwrap_or(last))
    }
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

    /// Decides a check at one published revision, no earlier than `at_least` (D12).
    ///
    /// # Errors
    /// The audience cannot be told, the revision did not come in time, or the store cannot
    /// answer. None of them is an allow (D14).
    pub async fn check(&self, query: &Query, at_least: Revision) -> Result<Answer, AuthorityError> {
        let note = |facts: decision::Facts<'_>| self.note(facts);
        let (verdict, revision) = self.ask(query, at_least, note, decision::decide).await?;
        self.desk.measures.decided(&verdict);
        Ok(Answer { verdict, revision })
    }

    /// Decides many checks at one published revision, in the order asked (D13).
    ///
    /// # Errors
    /// As for a check; the first query whose audience cannot be told fails all, and is named by
    /// its place.
    pub async fn batch_check(
        &self,
        queries: &[Query],
        at_least: Revision,
    ) -> Result<(Vec<Verdict>, Revision), AuthorityError> {
        self.wait_for(at_least).await?;
        const AT_ONCE: usize = 50;
        'attempts: for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            // Checks in a row often concern the same parties: their facts are taken once.
            let mut all: Vec<(CheckFacts, usize)> = Vec::new();
            for (place, query) in queries.iter().enumerate() {
                let before = place.checked_sub(1).and_then(|before| queries.get(before));
                if let (Some(before), Some((_, end))) = (before, all.last_mut())
                    && query.same_subject_as(before)
                {
                    *end = place + 1;
                    continue;
                }
                match self.gather(&view, query).await {
                    Ok(gathered) => all.push((gathered, place + 1)),
                    Err(missed) => {
                        self.wait_and_retry(missed).await?;
                        continue 'attempts;
                    }
                }
            }
            // Read after all facts, once for all checks (D19).
            let now = self.clock.now();
            let mut verdicts = Vec::with_capacity(queries.len());
            let mut parties = all.iter();
            let mut current = parties.next();
            for (place, query) in queries.iter().enumerate() {
                if current.is_some_and(|(_, end)| *end <= place) {
                    current = parties.next();
                }
                let Some((gathered, _)) = current else {
                    return Err(StoreError::Unavailable.into());
                };
                let facts = gathered.facts(&view, now);
                self.note(facts);
                let verdict = decision::decide(query, facts);
                verdicts.push(verdict.map_err(|error| AuthorityError::AudienceOf(place, error))?);
                if place % AT_ONCE == AT_ONCE - 1 {
                    // A large batch lets others have a turn; its facts and time are taken.
                    tokio::task::yield_now().await;
                }
            }
            let told_since = |kept| {
                let (mut from, mut last) = (0, None);
                for (gathered, end) in &all {
                    let own = queries.iter().zip(&verdicts).take(*end).skip(from);
                    let since = own.filter_map(|(query, verdict)| {
                        let question = decision::decide;
                        gathered.told_since(query, &view, (kept, now), verdict, question)
                    });
                    last = since.max().max(last);
                    from = *end;
                }
                last
            };
            self.keep_told(now, told_since).await?;
            verdicts.iter().for_each(|verdict| self.desk.measures.decided(verdict));
            return Ok((verdicts, view.at));
        }
        Err(StoreError::Unavailable.into())
    }

    /// Decides a check, with what every applied layer says of every scope (D15).
    ///
    /// # Errors
    /// As for a check.
    pub async fn explain(
        &self,
        query: &Query,
        at_least: Revision,
    ) -> Result<(Answer, Vec<Explanation>), AuthorityError> {
        let both = |query: &Query, facts: decision::Facts<'_>| {
            Ok((decision::decide(query, facts)?, decision::explain(query, facts)?))
        };
        let asked = self.ask(query, at_least, |_| (), both).await;
        let ((verdict, layers), revision) = asked.map_err(|refusal| match refusal {
            AuthorityError::Audience(error) => AuthorityError::AudienceToExplain(error),
            other => other,
        })?;
        Ok((Answer { verdict, revision }, layers))
    }

    /// Exactly the scopes for which a check of one scope is allowed, sorted by name (D22).
    ///
    /// # Errors
    /// As for a check.
    pub async fn effective_scopes(
        &self,
        query: &Query,
    ) -> Result<(Vec<(Scope, Reach)>, Revision), AuthorityError> {
        self.ask(query, Revision::ZERO, |_| (), decision::effective).await
    }

    /// Notes that the credential is in use. An explanation or a list does not: an operator who
    /// looks at a credential must not make it look used.
    fn note(&self, facts: decision::Facts<'_>) {
        if let Some(credential) = facts.credential {
            self.seen.touch(credential.created_at, facts.now);
        }
    }

    /// Puts a question to the evaluator, on the facts of one published revision.
    async fn ask<T: PartialEq>(
        &self,
        query: &Query,
        at_least: Revision,
        note: impl Fn(decision::Facts<'_>),
        question: impl Fn(&Query, decision::Facts<'_>) -> Result<T, AudienceError>,
    ) -> Result<(T, Revision), AuthorityError> {
        self.wait_for(at_least).await?;
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            match self.gather(&view, query).await {
                Ok(gathered) => {
                    // Read after the facts (D19).
                    let now = self.clock.now();
                    let facts = gathered.facts(&view, now);
                    note(facts);
                    let answer = question(query, facts)?;
                    let told_since =
                        |kept| gathered.told_since(query, &view, (kept, now), &answer, &question);
                    self.keep_told(now, told_since).await?;
                    return Ok((answer, view.at));
                }
                Err(missed) => self.wait_and_retry(missed).await?,
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// The facts that a query's answer rests on, if every one can be told at the view's revision.
    async fn gather(&self, view: &Snapshot, query: &Query) -> Result<CheckFacts, ReadError> {
        let mut gathered = CheckFacts::default();
        let Some(Fact::Company(company)) =
            self.read(view, FactRef::Company(&query.company)).await?
        else {
            return Ok(gathered);
        };
        let birth = company.created_at;
        gathered.company = Some(company);
        let key = FactRef::Credential(birth, &query.credential);
        if let Some(Fact::Credential(credential)) = self.read(view, key).await? {
            gathered.credential = Some(credential);
        }
        if let Some(user) = query.on_behalf_of()
            && let Some(Fact::User(user)) = self.read(view, FactRef::User(birth, user)).await?
        {
            gathered.user = Some(user);
        }
        if let (Some(credential), Some(user)) = (&gathered.credential, &gathered.user)
            && view.catalog.requires_consent()
        {
            let (user, credential) = (user.created_at, credential.created_at);
            let of = Parties { company: birth, user, credential };
            if let Some(Fact::Consent(consent)) = self.read(view, FactRef::Consent(of)).await? {
                gathered.consent = Some(consent);
            }
        }
        Ok(gathered)
    }

    /// A fact at a view's revision, from the front if it is there.
    async fn read(&self, view: &Snapshot, key: FactRef<'_>) -> Result<Option<Fact>, ReadError> {
        self.facts.get_for_core(&self.desk, view.at, key).await
    }

    /// Waits for what was missed, so that another attempt can succeed.
    async fn wait_and_retry(&self, missed: ReadError) -> Result<(), AuthorityError> {
        match missed {
            ReadError::Younger(revision) => {
                let reached = self.facts.wait_published(revision);
                Ok(Box::pin(wait_spans::span("revision wait", reached)).await?)
            }
            ReadError::Store(error) => Err(error.into()),
        }
    }

    async fn wait_for(&self, at_least: Revision) -> Result<(), AuthorityError> {
        if at_least <= self.facts.published() {
            return Ok(());
        }
        let reached = tokio::time::timeout(REVISION_WAIT, self.facts.wait_published(at_least));
        match Box::pin(wait_spans::span("revision wait", reached)).await {
            Ok(reached) => Ok(reached?),
            Err(_) => Err(AuthorityError::RevisionNotReached {
                asked: at_least,
                current: self.facts.published(),
            }),
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
        self.facts.store().metrics()
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

    /// Has the store remember the time, ahead of it by [`CLOCK_LEAD`](crate::store::CLOCK_LEAD); to be called more often
    /// than that.
    pub fn keep_time(&self) {
        self.facts.store().mark_time(self.clock.mark(), self.clock.believed());
        self.clock.warn_if_ahead();
    }

    /// By how much the time that decides is ahead of the machine's clock.
    #[must_use]
    pub fn clock_ahead(&self) -> Duration {
        self.clock.ahead()
    }

    /// Before an answer is told, has the last end that it tells of on the disk, if that lies beyond
    /// the mark: after a crash it must not lie ahead again (D19). `told_since` is asked with the
    /// mark that is on the disk.
    ///
    /// # Errors
    /// The store cannot keep it.
    async fn keep_told(
        &self,
        now: Timestamp,
        told_since: impl FnOnce(Timestamp) -> Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let store = self.facts.store();
        // Nearly always: the mark is kept ahead of the time.
        let on_disk = store.durable_time();
        if now <= on_disk {
            return Ok(());
        }
        let Some(end) = told_since(on_disk).map(clock::rounded_up) else { return Ok(()) };
        if end <= on_disk {
            return Ok(());
        }
        let kept = store.persist_time(end)?;
        Box::pin(wait_spans::span("time mark", kept)).await.map_err(|_| StoreError::Unavailable)?;
        self.clock.raise(end);
        Ok(())
    }

    /// The time of a change as the audit log shall have it: the one that it was planned at, or,
    /// while that is doubted, the one that is kept, and no earlier than an end that its facts show.
    fn time_of(&self, proposal: &Proposal) -> Timestamp {
        let planned = proposal.change.time;
        let kept = self.clock.of_change(planned);
        if kept >= planned {
            return planned;
        }
        let end = shown_end(proposal, planned).map(clock::rounded_up);
        end.map_or(kept, |end| kept.max(end))
    }

    /// Queues a proposal, with the time that its change shall have. Of its receipt the clock is to be
    /// told: see [`Self::answered`].
    fn queue(&self, mut proposal: Proposal) -> Result<CommitHandle, StoreError> {
        proposal.change.time = self.time_of(&proposal);
        self.facts.store().commit(proposal)
    }

    /// The answer to a queued proposal; none if what it rests on has changed. Its time is on the disk
    /// now, whatever the machine's clock says.
    async fn answered(&self, ticket: CommitHandle) -> Result<Option<Receipt>, StoreError> {
        let receipt = transaction::await_commit(ticket).await?;
        if let Some(receipt) = &receipt {
            self.clock.raise(receipt.time);
        }
        Ok(receipt)
    }

    /// Has the store remember which credentials were asked for since the last time; to be called
    /// every minute or so.
    pub fn keep_seen(&self) {
        self.facts.store().note_last_seen(self.seen.take(self.clock.kept()));
    }

    /// Commits what is queued and lets go of the store. Changes are refused from now on.
    pub fn close(&self) {
        self.keep_seen();
        // A clean end needs no lead.
        self.facts.store().mark_time(self.clock.kept(), self.clock.believed());
        self.facts.store().close();
    }
}

/// The last end that the facts of a proposal show to have passed at this time.
fn shown_end(proposal: &Proposal, now: Timestamp) -> Option<Timestamp> {
    let facts = proposal.writes.iter().flat_map(|write| [&write.before, &write.after]);
    let ends = facts.flatten().filter_map(|fact| match fact {
        Fact::Credential(credential) => credential.ends().filter(|end| *end <= now).max(),
        _ => None,
    });
    ends.max()
}
