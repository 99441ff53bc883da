//! Check: decides checks from the facts of one published revision (D12).
//!
//! Not here: many checks at once; see [`super::batch`]. Nor how a request is parsed and a reply is
//! rendered; see `wire`. The rules of a decision are in [`crate::policy::decision`].

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::client::Proof;
use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::session::Session;
use super::{ATTEMPTS, Authority, clock};
use crate::policy::catalog::{AudienceError, Reach};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::decision::{self, Explanation, Verdict};
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::query::{Asked, Query, Subject};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::token::PresentedToken;
use crate::policy::user::User;
use crate::store::{FactKind, StoreError};

/// A decision, and the published revision at which it is right (D12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub verdict: Verdict,
    /// The revision.
    pub revision: Revision,
    /// For whom it was decided, if the request had a client and the client proved who it is.
    pub client: Option<ProvenClient>,
}

/// A client that has proven who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenClient {
    /// Its company.
    pub company: CompanyId,
    /// Its credential.
    pub credential: CredentialId,
    /// The user on whose behalf it calls, if there is one.
    pub user: Option<UserId>,
}

impl ProvenClient {
    /// The client of a request, if it is proven.
    pub(super) fn of(asked: Asked<'_>, is_proven: bool) -> Option<Self> {
        match asked {
            Asked::Client(query, _) if is_proven => Self::taken_from(query),
            _ => None,
        }
    }

    /// The client of a query whose client is proven. The ids are taken out of the query, which is decided
    /// already, so that they are not copied for each check.
    fn taken_from(query: &mut Query) -> Option<Self> {
        let user = query.user.take().or_else(|| query.on_behalf_of().cloned());
        let decided = Subject::Unproven(Reason::CredentialUnknown.into());
        match mem::replace(&mut query.subject, decided) {
            Subject::Known { company, credential } => Some(Self { company, credential, user }),
            Subject::Unproven(_) => None,
        }
    }
}

/// The facts of one query, all of one revision.
#[derive(Default)]
pub(super) struct CheckFacts {
    company: Option<Arc<Company>>,
    credential: Option<Arc<Credential>>,
    user: Option<Arc<User>>,
    ambiguous_subject: bool,
    consent: Option<Arc<Consent>>,
}

impl CheckFacts {
    pub(super) fn facts<'a>(&'a self, view: &'a Snapshot, now: Timestamp) -> decision::Facts<'a> {
        decision::Facts {
            catalog: &view.catalog,
            company: self.company.as_deref(),
            credential: self.credential.as_deref(),
            user: self.user.as_deref(),
            ambiguous_subject: self.ambiguous_subject,
            consent: self.consent.as_deref(),
            tokens: view.tokens,
            now,
        }
    }

    /// The earliest expiry after `mark` from which on the answer is the same as at `now`. None if it is
    /// the same at `mark` already.
    pub(super) fn decided_since<T: PartialEq>(
        &self,
        query: &Query,
        view: &Snapshot,
        (mark, now): (Timestamp, Timestamp),
        answer: &T,
        question: impl Fn(&Query, decision::Facts<'_>) -> Result<T, AudienceError>,
    ) -> Option<Timestamp> {
        let ends = decision::ends(query, self.facts(view, now)).map(clock::rounded_up);
        let mut ends: Vec<_> = ends.filter(|end| mark < *end && *end <= now).collect();
        ends.sort_unstable();
        let last = ends.last().copied()?;
        let same = |time| question(query, self.facts(view, time)).is_ok_and(|at| at == *answer);
        if same(mark) {
            return None;
        }
        // From one expiry to the next, an answer only gets stricter.
        let first = ends.partition_point(|end| !same(*end));
        Some(ends.get(first).copied().unwrap_or(last))
    }
}

impl Session<'_> {
    /// Decides a check at one published revision, no earlier than `at_least` (D12). The ids of a proven client
    /// are taken out of its query.
    ///
    /// # Errors
    /// The audience is ambiguous, the revision was not published in time, or the store cannot
    /// answer. None of these is an allow (D14).
    pub async fn check<'q>(
        &self,
        asked: impl Into<Asked<'q>>,
        at_least: Revision,
    ) -> Result<Answer, AuthorityError> {
        self.decide(asked.into(), at_least, decision::decide).await
    }

    /// Decides a check for a gateway; see [`decision::decide_for_gateway`].
    ///
    /// # Errors
    /// As for a check.
    pub async fn check_for_gateway<'q>(
        &self,
        asked: impl Into<Asked<'q>>,
    ) -> Result<Answer, AuthorityError> {
        self.decide(asked.into(), Revision::ZERO, decision::decide_for_gateway).await
    }

    async fn decide(
        &self,
        mut asked: Asked<'_>,
        at_least: Revision,
        decide: impl Fn(&Query, decision::Facts<'_>) -> Result<Verdict, AudienceError>,
    ) -> Result<Answer, AuthorityError> {
        let start = Instant::now();
        let touch = |query: &Query, facts: decision::Facts<'_>| self.authority.touch(query, facts);
        let (verdict, is_proven, revision) =
            self.evaluate(&mut asked, at_least, touch, decide).await?;
        let measures = &self.authority.measures;
        measures.decided(&verdict);
        self.report(asked.query(), &verdict, revision);
        measures.checks.note(start.elapsed());
        let client = ProvenClient::of(asked, is_proven);
        Ok(Answer { verdict, revision, client })
    }

    /// Reports a decision to the observer of decisions.
    pub(super) fn report(&self, query: &Query, verdict: &Verdict, revision: Revision) {
        if let Some(observer) = &self.authority.decisions {
            observer.decided(&self.caller, self.context, query, verdict, revision);
        }
    }

    /// Decides a check, and explains the verdict of every applied layer for every scope (D15).
    ///
    /// # Errors
    /// As for a check.
    pub async fn explain<'q>(
        &self,
        asked: impl Into<Asked<'q>>,
        at_least: Revision,
    ) -> Result<(Answer, Vec<Explanation>), AuthorityError> {
        let both = |query: &Query, facts: decision::Facts<'_>| {
            Ok((decision::decide(query, facts)?, decision::explain(query, facts)?))
        };
        let mut asked = asked.into();
        let explained = self.evaluate(&mut asked, at_least, |_, _| (), both).await;
        let ((verdict, layers), is_proven, revision) = explained.map_err(|error| match error {
            AuthorityError::Audience(error) => AuthorityError::AudienceToExplain(error),
            other => other,
        })?;
        let client = ProvenClient::of(asked, is_proven);
        Ok((Answer { verdict, revision, client }, layers))
    }

    /// The scopes for which a check of that scope alone is allowed, sorted by name (D22).
    ///
    /// # Errors
    /// As for a check. Also where a check is denied because the keys of the token's issuer cannot be used
    /// now: [`AuthorityError::TokenUnverifiable`]. An empty list would say that nothing is allowed.
    pub async fn effective_scopes<'q>(
        &self,
        asked: impl Into<Asked<'q>>,
    ) -> Result<(Vec<(Scope, Reach)>, Revision), AuthorityError> {
        let mut asked = asked.into();
        let question = |query: &Query, facts: decision::Facts<'_>| {
            Ok((decision::admits(query, facts)?, decision::effective(query, facts)?))
        };
        let evaluated = self.evaluate(&mut asked, Revision::ZERO, |_, _| (), question).await?;
        match evaluated {
            ((Err(cause), _), ..) if cause.reason == Reason::TokenUnverifiable => {
                Err(AuthorityError::TokenUnverifiable)
            }
            ((_, scopes), _, revision) => Ok((scopes, revision)),
        }
    }

    /// Evaluates `question` on the facts of one published revision. `touch` gets the query and the facts
    /// first. A client completes the query. Also returns whether what the client presented is good for the
    /// call.
    pub(super) async fn evaluate<T: PartialEq>(
        &self,
        asked: &mut Asked<'_>,
        at_least: Revision,
        touch: impl Fn(&Query, decision::Facts<'_>),
        question: impl Fn(&Query, decision::Facts<'_>) -> Result<T, AudienceError>,
    ) -> Result<(T, bool, Revision), AuthorityError> {
        let authority = self.authority;
        authority.wait_for(at_least).await?;
        let mut proof = Proof::new(self.deadline);
        for _ in 0..ATTEMPTS {
            let view = authority.facts.view().await?;
            if let Asked::Client(query, client) = asked
                && let Err(error) = self.prove(&view, query, client, &mut proof).await
            {
                authority.wait_and_retry(error).await?;
                continue;
            }
            let (query, has_client) = (asked.query(), matches!(asked, Asked::Client(..)));
            match authority.load_facts(&view, query).await {
                Ok(loaded) => {
                    // Read after the facts (D19).
                    let now = authority.clock.now();
                    let facts = loaded.facts(&view, now);
                    touch(query, facts);
                    let answer = question(query, facts)?;
                    let is_proven = has_client && decision::is_client_proven(query, facts);
                    let decided_since =
                        |mark| loaded.decided_since(query, &view, (mark, now), &answer, &question);
                    authority.persist_reported(now, decided_since).await?;
                    return Ok((answer, is_proven, view.at));
                }
                Err(error) => authority.wait_and_retry(error).await?,
            }
        }
        Err(StoreError::Unavailable.into())
    }
}

impl Authority {
    /// Records a use of the credential. Explanations and lists record none: an operator who inspects
    /// a credential must not make it look used.
    ///
    /// A check with a token that was rejected records none either: any client can send such a token with the
    /// ids of any credential.
    pub(super) fn touch(&self, query: &Query, facts: decision::Facts<'_>) {
        let is_rejected = matches!(query.token, Some(PresentedToken::Rejected(_)));
        if let Some(credential) = facts.credential
            && !is_rejected
        {
            self.last_used.touch(credential.created_at, facts.now);
        }
    }

    /// Loads the facts of a query at the snapshot's revision.
    pub(super) async fn load_facts(
        &self,
        view: &Snapshot,
        query: &Query,
    ) -> Result<CheckFacts, ReadError> {
        let Subject::Known { company, credential } = &query.subject else {
            return Ok(CheckFacts::default());
        };
        let Some(company) = self.read::<Company>(view, company).await? else {
            return Ok(CheckFacts::default());
        };
        let created_at = company.created_at;
        let mut loaded = CheckFacts { company: Some(company), ..CheckFacts::default() };
        loaded.credential = self.read(view, (&created_at, credential)).await?;
        if let Some(user) = query.on_behalf_of() {
            loaded.user = self.read(view, (&created_at, user)).await?;
        }
        if let Some(subject) = query.client_subject() {
            let user = self.read::<User>(view, (&created_at, subject)).await?;
            loaded.ambiguous_subject = user.is_some();
        }
        if let (Some(credential), Some(user)) = (&loaded.credential, &loaded.user)
            && view.catalog.requires_consent()
        {
            let (user, credential) = (user.created_at, credential.created_at);
            let of = Parties { company: created_at, user, credential };
            loaded.consent = self.read(view, &of).await?;
        }
        Ok(loaded)
    }

    /// A fact at the snapshot's revision. Counts where it was found.
    async fn read<T: FactKind>(
        &self,
        view: &Snapshot,
        key: T::Key<'_>,
    ) -> Result<Option<Arc<T>>, ReadError> {
        self.facts.get(view.at, key, Some(&self.measures)).await
    }
}
