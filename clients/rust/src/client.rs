//! Client: sends checks within a deadline, with retries and reconnection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status};

use crate::backoff::Backoff;
use crate::check::Check;
use crate::connection::Connection;
use crate::decision::{Allowed, CheckError, Decision, NotAllowed, Reach};
use crate::failure::{Failure, to_client_status};
use crate::health::{Health, PriorState};
use crate::proto::BatchCheckRequest;
use crate::proto::authorization_service_client::AuthorizationServiceClient;
use crate::retry_budget::RetryBudget;

/// The longest deadline: a clock can count so far.
const LONGEST: Duration = Duration::from_hours(24);

/// A client. Its clones share its connections and its budget.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
}

struct Shared {
    connections: Vec<Connection>,
    next: AtomicUsize,
    budget: RetryBudget,
    health: Health,
}

impl Client {
    pub(crate) fn new(connections: Vec<Connection>, deadline: Duration, retries: u32) -> Self {
        let (next, budget) = (AtomicUsize::new(0), RetryBudget::of(retries));
        let shared = Arc::new(Shared { connections, next, budget, health: Health::new() });
        Self { shared, deadline: deadline.min(LONGEST) }
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline: deadline.min(LONGEST), ..self.clone() }
    }

    /// Sends a check. A denial is a decision and not an error: use [`require`](Self::require) to
    /// get an error.
    pub async fn check(&self, check: &Check) -> Result<Decision, CheckError> {
        let answer = self
            .ask(&check.request, |mut client, request| async move { client.check(request).await });
        Decision::read(&check.request, answer.await?)
    }

    /// Sends a check, and returns an error unless the call is allowed. If it is allowed for the
    /// user's own records only, it is denied
    /// ([`Reason::NotRecordOwner`](crate::Reason::NotRecordOwner)), unless the check names the
    /// owner of the record ([`Check::owned_by`]): then the server has compared them (D17).
    pub async fn require(&self, check: &Check) -> Result<Allowed, NotAllowed> {
        Ok(self.check(check).await?.allowed()?)
    }

    /// Sends a check, and returns an error unless the call is allowed at least for the user's own
    /// records. With [`Reach::Own`], the application filters by the owner. This is for lists and
    /// searches.
    pub async fn require_reach(&self, check: &Check) -> Result<Reach, NotAllowed> {
        Ok(self.check(check).await?.at_least_own()?.reach)
    }

    /// Sends up to 1000 checks, which the server decides at one revision. The results have the
    /// order of the checks. One malformed check fails the batch (D13).
    pub async fn batch_check(&self, checks: &[Check]) -> Result<Vec<Decision>, CheckError> {
        let checks = checks.iter().map(|check| check.request.clone()).collect();
        let batch = BatchCheckRequest { checks };
        let answer = self
            .ask(&batch, |mut client, request| async move { client.batch_check(request).await });
        let results = answer.await?.results;
        if results.len() != batch.checks.len() {
            // The client cannot assign the results to the checks.
            return Err(CheckError::invalid_response("not one decision for each question"));
        }
        batch
            .checks
            .iter()
            .zip(results)
            .map(|(check, result)| Decision::read(check, result))
            .collect()
    }

    /// A connection that sends the client's key, for the other RPCs of the contract: create the
    /// clients of [`crate::proto`] with it. Set a deadline for each call. The client does not retry
    /// it.
    #[must_use]
    pub fn connection(&self) -> Connection {
        // `next` picks one of them, and there is at least one.
        let at = self.shared.next.fetch_add(1, Ordering::Relaxed) % self.shared.connections.len();
        #[expect(clippy::indexing_slicing, reason = "`at` is below the length")]
        self.shared.connections[at].clone()
    }

    /// Makes attempts until one succeeds, one fails permanently, or the deadline expires. It tries
    /// to connect as often as the deadline allows, and repeats a lost attempt once. The repetition
    /// takes a token of the retry budget, unless the server was down and is now serving: then it
    /// adds no load to an outage.
    async fn ask<Q, A, F>(
        &self,
        question: &Q,
        send: impl Fn(AuthorizationServiceClient<Connection>, Request<Q>) -> F,
    ) -> Result<A, CheckError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let Shared { next, budget, health, .. } = &*self.shared;
        let end = Instant::now() + self.deadline;
        let mut last = None;
        let attempts = async {
            let mut backoff = Backoff::new(next.load(Ordering::Relaxed));
            let mut retried = false;
            let mut connection = self.connection();
            loop {
                let found = health.found();
                let mut request = Request::new(question.clone());
                request.set_timeout(end.saturating_duration_since(Instant::now()));
                let client = AuthorizationServiceClient::new(connection.clone());
                let status = match send(client, request).await {
                    Ok(answer) => {
                        budget.refill();
                        return Ok(answer.into_inner());
                    }
                    Err(status) => status,
                };
                let failure = Failure::of(&status);
                match failure {
                    Failure::NotSent => {}
                    Failure::Lost if !retried => retried = true,
                    Failure::Lost | Failure::Permanent => return Err(to_client_status(status)),
                    Failure::DeadlineExceeded => {
                        return Err(Status::deadline_exceeded(status.message()));
                    }
                }
                let lost = last.insert(to_client_status(status));
                sleep(backoff.next()).await;
                // Use another connection, if there are several: only this one may have failed.
                connection = self.connection();
                let before = health.serving(found, &connection, backoff.clone()).await;
                if failure == Failure::Lost && before == PriorState::Serving && !budget.take() {
                    return Err(lost.clone());
                }
            }
        };
        let ended = timeout_at(end, attempts).await;
        let answer = ended.unwrap_or_else(|_| {
            Err(match last {
                // Why, rather than when.
                Some(status) => Status::unavailable(status.message()),
                None => Status::deadline_exceeded("no answer within the deadline"),
            })
        });
        answer.map_err(CheckError::new)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connections", &self.shared.connections.len())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
