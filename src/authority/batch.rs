//! Batch: decides many checks at one published revision (D13). A batch can end early, and then nothing is
//! decided, counted or logged of the checks after its end.
//!
//! Not here: a single check, and how facts are loaded; see `authority::check`.

use std::time::Instant;

use super::ATTEMPTS;
use super::check::{Answer, CheckFacts, ProvenClient};
use super::client::Proof;
use super::error::AuthorityError;
use super::session::Session;
use crate::policy::catalog::AudienceError;
use crate::policy::decision::{self, Verdict};
use crate::policy::query::Request;
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::store::StoreError;

/// After this many checks a batch lets other tasks run.
const YIELD_EVERY: usize = 50;

/// After which check a batch ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchEnd {
    /// After the last one.
    #[default]
    Last,
    /// After the first that is not allowed.
    FirstDenied,
    /// After the first that is allowed.
    FirstAllowed,
}

/// One check of a batch, decided: the verdict, unless its audience is ambiguous, and whether its client has
/// proven who it is.
type Decided = (Result<Verdict, AudienceError>, bool);

impl Session<'_> {
    /// Decides many checks at one published revision, in the order of the request (D13).
    ///
    /// # Errors
    /// As for a check. The first query whose audience is ambiguous fails all, and the error has its
    /// index.
    pub async fn batch_check(
        &self,
        requests: &mut [Request],
        at_least: Revision,
    ) -> Result<(Vec<Answer>, Revision), AuthorityError> {
        let start = Instant::now();
        let ends = |verdict: &Result<Verdict, AudienceError>, _| verdict.is_err();
        let (decided, at) = self.decide_all(requests, at_least, true, ends).await?;
        let ambiguous = |(index, (verdict, is_proven))| match verdict {
            Ok(verdict) => Ok((verdict, is_proven)),
            Err(error) => Err(AuthorityError::AudienceOf(index, error)),
        };
        let decided: Vec<_> =
            decided.into_iter().enumerate().map(ambiguous).collect::<Result<_, _>>()?;
        let answers = requests.iter_mut().zip(decided);
        let answers = answers.map(|(request, decided)| self.answer(request, decided, at)).collect();
        self.authority.measures.batches.note(start.elapsed());
        Ok((answers, at))
    }

    /// As [`Self::batch_check`], but a query whose audience is ambiguous is an error of that one, and the
    /// batch can end early. An ambiguous audience counts as a denial there.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn evaluate_each(
        &self,
        requests: &mut [Request],
        end: BatchEnd,
    ) -> Result<(Vec<Result<Answer, AudienceError>>, Revision), AuthorityError> {
        let start = Instant::now();
        let ends = |verdict: &Result<Verdict, AudienceError>, _| match end {
            BatchEnd::Last => false,
            BatchEnd::FirstDenied => !is_allowed(verdict),
            BatchEnd::FirstAllowed => is_allowed(verdict),
        };
        let (decided, at) = self.decide_all(requests, Revision::ZERO, true, ends).await?;
        let answers = requests.iter_mut().zip(decided).map(|(request, (verdict, is_proven))| {
            verdict.map(|verdict| self.answer(request, (verdict, is_proven), at))
        });
        let answers = answers.collect();
        self.authority.measures.batches.note(start.elapsed());
        Ok((answers, at))
    }

    /// Which of these checks are allowed, in their order, until as many are found as the limit. A check
    /// whose audience is ambiguous is not. Nothing is recorded of a search, as of a list.
    ///
    /// # Errors
    /// The store cannot answer, or the keys of a token's issuer cannot be used now
    /// ([`AuthorityError::TokenUnverifiable`]): an empty result would say that nothing is allowed.
    pub async fn find_allowed(
        &self,
        requests: &mut [Request],
        limit: usize,
    ) -> Result<Vec<bool>, AuthorityError> {
        let ends = |_: &Result<Verdict, AudienceError>, allowed| allowed >= limit;
        let (decided, _) = self.decide_all(requests, Revision::ZERO, false, ends).await?;
        let found = decided.iter().map(|(verdict, _)| match verdict {
            Ok(Verdict::Denied { reason: Reason::TokenUnverifiable, .. }) => {
                Err(AuthorityError::TokenUnverifiable)
            }
            verdict => Ok(is_allowed(verdict)),
        });
        found.collect()
    }

    /// Counts and reports a decision, and returns it.
    fn answer(
        &self,
        request: &mut Request,
        (verdict, is_proven): (Verdict, bool),
        revision: Revision,
    ) -> Answer {
        self.authority.measures.decided(&verdict);
        self.report(&request.query, &verdict, revision);
        let client = ProvenClient::of(request.into(), is_proven);
        Answer { verdict, revision, client }
    }

    /// Decides the checks in their order until `ends`, which gets each verdict and the number of those that
    /// were allowed so far. `is_use`: each check is a use of its credential.
    async fn decide_all(
        &self,
        requests: &mut [Request],
        at_least: Revision,
        is_use: bool,
        ends: impl Fn(&Result<Verdict, AudienceError>, usize) -> bool,
    ) -> Result<(Vec<Decided>, Revision), AuthorityError> {
        self.authority.wait_for(at_least).await?;
        let mut proof = Proof::new(self.deadline);
        'attempts: for _ in 0..ATTEMPTS {
            let view = self.authority.facts.view().await?;
            if let Err(error) = self.prove_all(&view, requests, &mut proof).await {
                self.authority.wait_and_retry(error).await?;
                continue;
            }
            // Consecutive checks often have the same subject: their facts are loaded once.
            let mut all: Vec<(CheckFacts, usize)> = Vec::new();
            for (index, Request { query, .. }) in requests.iter().enumerate() {
                let before = index.checked_sub(1).and_then(|before| requests.get(before));
                if let (Some(before), Some((_, end))) = (before, all.last_mut())
                    && query.same_subject_as(&before.query)
                {
                    *end = index + 1;
                    continue;
                }
                match self.authority.load_facts(&view, query).await {
                    Ok(loaded) => all.push((loaded, index + 1)),
                    Err(error) => {
                        self.authority.wait_and_retry(error).await?;
                        continue 'attempts;
                    }
                }
            }
            // Read after all facts, once for all checks (D19).
            let now = self.authority.clock.now();
            let mut decided: Vec<Decided> = Vec::with_capacity(requests.len());
            let mut subjects = all.iter();
            let mut current = subjects.next();
            let mut allowed = 0;
            for (index, request) in requests.iter().enumerate() {
                if current.is_some_and(|(_, end)| *end <= index) {
                    current = subjects.next();
                }
                let Some((loaded, _)) = current else {
                    return Err(StoreError::Unavailable.into());
                };
                let facts = loaded.facts(&view, now);
                if is_use {
                    self.authority.touch(&request.query, facts);
                }
                let verdict = decision::decide(&request.query, facts);
                let is_proven =
                    request.client.is_some() && decision::is_client_proven(&request.query, facts);
                allowed += usize::from(is_allowed(&verdict));
                let is_last = ends(&verdict, allowed);
                decided.push((verdict, is_proven));
                if is_last {
                    break;
                }
                if index % YIELD_EVERY == YIELD_EVERY - 1 {
                    // A large batch yields to other tasks. Its facts and time are fixed already.
                    tokio::task::yield_now().await;
                }
            }
            let decided_since = |mark| {
                let (mut from, mut last) = (0, None);
                for (loaded, end) in &all {
                    let own = requests.iter().zip(&decided).take(*end).skip(from);
                    let since = own.filter_map(|(request, (verdict, _))| {
                        let verdict = verdict.as_ref().ok()?;
                        let question = decision::decide;
                        loaded.decided_since(&request.query, &view, (mark, now), verdict, question)
                    });
                    last = since.max().max(last);
                    from = *end;
                }
                last
            };
            self.authority.persist_reported(now, decided_since).await?;
            return Ok((decided, view.at));
        }
        Err(StoreError::Unavailable.into())
    }
}

fn is_allowed(verdict: &Result<Verdict, AudienceError>) -> bool {
    matches!(verdict, Ok(Verdict::Allowed { .. }))
}
