//! Client: sends checks within a deadline, with retries, reconnection and other servers.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status};

use crate::check::Check;
use crate::connection::Connection;
use crate::decision::{Allowed, CheckError, Decision, NotAllowed, Reach};
use crate::failure::{Failure, to_client_status};
use crate::health::PriorState;
use crate::proto::BatchCheckRequest;
use crate::proto::authorization_service_client::AuthorizationServiceClient;
use crate::retry_budget::RetryBudget;
use crate::servers::Servers;

/// The longest deadline: a clock can count so far.
const LONGEST: Duration = Duration::from_hours(24);

/// A client. Its clones share its connections and its budget.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadline: Duration,
}

struct Shared {
    servers: Arc<Servers>,
    budget: RetryBudget,
}

impl Client {
    pub(crate) fn new(servers: Arc<Servers>, deadline: Duration, retries: u32) -> Self {
        let shared = Arc::new(Shared { servers, budget: RetryBudget::of(retries) });
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
    /// clients of [`crate::proto`] with it. It leads to the nearest server that is serving now. Set a
    /// deadline for each call. The client does not retry it: ask for another connection if it returns
    /// `UNAVAILABLE`. A change must then have the same `request_id`.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.shared.servers.nearest().connection()
    }

    /// Makes attempts until one succeeds, one fails permanently, or the deadline expires.
    ///
    /// A check that a server did not decide goes at once to the next server that is serving, and to
    /// each at most once. If there is none, the client waits for a server. It tries to connect as often
    /// as the deadline allows, and then repeats a lost attempt once. The repetition takes a token of the
    /// retry budget, unless the server was down and is now serving: then it adds no load to an outage.
    async fn ask<Q, A, F>(
        &self,
        question: &Q,
        send: impl Fn(AuthorizationServiceClient<Connection>, Request<Q>) -> F,
    ) -> Result<A, CheckError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let Shared { servers, budget } = &*self.shared;
        let end = Instant::now() + self.deadline;
        let mut last = None;
        let attempts = async {
            let mut server = servers.nearest();
            let mut connection = server.connection();
            let mut backoff = server.backoff();
            let (mut tried, mut retried) = (Vec::new(), false);
            loop {
                let found = server.found();
                let mut request = Request::new(question.clone());
                request.set_timeout(end.saturating_duration_since(Instant::now()));
                let client = AuthorizationServiceClient::new(connection);
                let status = match send(client, request).await {
                    Ok(answer) => {
                        budget.refill();
                        return Ok(answer.into_inner());
                    }
                    Err(status) => status,
                };
                let failure = Failure::of(&status);
                match failure {
                    Failure::NotSent | Failure::Lost => {}
                    Failure::Permanent => return Err(to_client_status(status)),
                    Failure::DeadlineExceeded => {
                        return Err(Status::deadline_exceeded(status.message()));
                    }
                }
                if status.source().is_some() {
                    server.failed();
                }
                servers.check_soon();
                let lost = last.insert(to_client_status(status));
                tried.push(server);
                if let Some(other) = servers.serving(&tried) {
                    (server, connection) = (other, other.connection());
                    continue;
                }
                if failure == Failure::Lost && std::mem::replace(&mut retried, true) {
                    return Err(lost.clone());
                }
                sleep(backoff.next()).await;
                let before;
                (server, connection, before) = servers.wait_serving(server, found, &backoff).await;
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
            .field("servers", &self.shared.servers.all().count())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
