//! Floor 2, who answers: checks from the facts at hand, and every change of them.
//!
//! Not here: how a question is parsed or an answer rendered (floor 3), and what is true (floor
//! 0): this floor only brings the two together at one revision.

mod admission;
pub mod audit;
pub mod clock;
mod etag;
mod facts;
mod ledger;
pub mod listing;
pub mod refusal;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::clock::Clock;
use self::facts::{Facts, Missed, View};
use self::refusal::Refusal;
use crate::policy::catalog::AudienceError;
use crate::policy::decision::{self, Verdict};
use crate::policy::query::Query;
use crate::policy::revision::Revision;
use crate::store::{Incarnation, Listener, Store, StoreError};

pub use self::ledger::{
    ApplyError, CompanyChange, CredentialChange, Done, NewCompany, NewCredential, Restriction,
    Terms,
};

/// How long a check waits for the revision that it asks for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a check may find its facts changing under it before it gives up.
const ATTEMPTS: usize = 1000;

/// Who answers: one per process.
pub struct Authority {
    facts: Arc<Facts>,
    clock: Clock,
}

/// An answer and the one published revision at which it is right (D12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub verdict: Verdict,
    /// The revision.
    pub revision: Revision,
}

impl Authority {
    /// Takes charge of a store: from here on it alone changes it. At most `cache_entries` facts
    /// are kept at hand.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn new(store: Arc<dyn Store>, cache_entries: u64) -> Result<Self, StoreError> {
        let clock = Clock::starting_at(store.time_mark());
        let facts = Arc::new(Facts::new(store, cache_entries)?);
        let listener: Arc<dyn Listener> = Arc::clone(&facts) as _;
        facts.store().start(listener);
        Ok(Self { facts, clock })
    }

    /// Decides a check at one published revision, no earlier than `at_least` (D12).
    ///
    /// # Errors
    /// The audience cannot be told, the revision did not come in time, or the store cannot
    /// answer. None of them is an allow (D14).
    pub async fn check(&self, query: &Query, at_least: Revision) -> Result<Answer, Refusal> {
        self.wait_for(at_least).await?;
        for _ in 0..ATTEMPTS {
            let view = self.facts.view().await?;
            match self.decide(&view, query).await {
                Ok(verdict) => {
                    return Ok(Answer { verdict: verdict?, revision: view.at });
                }
                Err(missed) => self.again(missed).await?,
            }
        }
        Err(StoreError::Unavailable.into())
    }

    /// Decides at a view's revision, if every fact can be told there.
    async fn decide(
        &self,
        view: &View,
        query: &Query,
    ) -> Result<Result<Verdict, AudienceError>, Missed> {
        let company = self.facts.company(view.at, &query.company).await?;
        let credential = match &company {
            Some(company) => {
                self.facts.credential(view.at, company.created_at, &query.credential).await?
            }
            None => None,
        };
        let facts = decision::Facts {
            catalog: &view.catalog,
            company: company.as_deref(),
            credential: credential.as_deref(),
            user: None,
            consent: None,
            // Read after the facts (D19).
            now: self.clock.now(),
        };
        Ok(decision::decide(query, facts))
    }

    /// Waits for what was missed, so that another attempt can succeed.
    async fn again(&self, missed: Missed) -> Result<(), Refusal> {
        match missed {
            Missed::Younger(revision) => Ok(self.facts.reached(revision).await?),
            Missed::Store(error) => Err(error.into()),
        }
    }

    async fn wait_for(&self, at_least: Revision) -> Result<(), Refusal> {
        if at_least <= self.facts.published() {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, self.facts.reached(at_least)).await {
            Ok(reached) => Ok(reached?),
            Err(_) => Err(Refusal::RevisionNotReached {
                asked: at_least,
                current: self.facts.published(),
            }),
        }
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

    /// Rings with every publication.
    #[must_use]
    pub fn bell(&self) -> watch::Receiver<Revision> {
        self.facts.bell()
    }

    /// Becomes true when the disk has failed: the process is to end.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<bool> {
        self.facts.failure()
    }

    /// Has the store remember the time, ahead of it by [`clock::LEAD`]; to be called more often
    /// than that.
    pub fn keep_time(&self) {
        self.facts.store().mark_time(self.clock.mark());
    }

    /// Commits what is queued and lets go of the store. Changes are refused from now on.
    pub fn close(&self) {
        // A clean end needs no lead.
        self.facts.store().mark_time(self.clock.now());
        self.facts.store().close();
    }
}
