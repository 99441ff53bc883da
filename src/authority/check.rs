//! Check: decides checks from the facts of one published revision (D12).
//!
//! Not here: how a request is parsed and a reply is rendered; see `wire`. The rules of a decision
//! are in [`crate::policy::decision`].

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::{FactRef, ReadError, Snapshot};
use super::{ATTEMPTS, Authority, clock};
use crate::policy::catalog::{AudienceError, Reach};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::decision::{self, Explanation, Verdict};
use crate::policy::query::Query;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::user::User;
use crate::store::{Fact, StoreError};

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
}
