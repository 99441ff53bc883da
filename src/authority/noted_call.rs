//! Noted call: a call that noted the session of the store's lease when it began, and the answer that may
//! leave because the session still held when the answer was complete.
//!
//! INVARIANT (no answer without a lease): a transport sends only what is [`Leased`]. It is made by the test
//! of a noted call, or for one of the reasons of [`LeaseExemption`]. A call is noted before the key of its
//! caller is looked at, because [`Authority::admit`] needs the noted call. A refusal, a dry run and a
//! rejected caller are answers, too: they tell of a state of the store.
//!
//! Not here: when a session begins and ends; see [`crate::store::lease`]. A program that embeds the library
//! tests its own answers.

use std::sync::Arc;

use super::Authority;
use super::error::AuthorityError;
use crate::store::lease::{Lease, NotedSession};
use crate::store::{StoreError, boot_clock};

/// Why an answer needs no lease: it tells nothing of the facts in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseExemption {
    /// It tells the health of the server.
    Health,
    /// It tells the schema of the API.
    Reflection,
    /// It tells the paths of the HTTP API.
    Paths,
    /// It is for another replica, which reads on from its revision.
    Peer,
    /// The head of the request is malformed.
    UnfitHead,
    /// The store is not open, so nothing of it was read.
    NotOpen,
    /// The call was interrupted, because its connection or the server ends.
    Interrupted,
}

/// A call that may be admitted: it noted the session of the lease, or needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedCall {
    noted: Noted,
    /// Whether the call may have changed something.
    may_change: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noted {
    Session(NotedSession),
    Exempt(LeaseExemption),
}

impl NotedCall {
    /// A call whose answer needs no lease.
    #[must_use]
    pub fn exempt(why: LeaseExemption) -> Self {
        Self { noted: Noted::Exempt(why), may_change: false }
    }

    /// Whether its answer needs no lease.
    #[must_use]
    pub fn is_exempt(self) -> bool {
        matches!(self.noted, Noted::Exempt(_))
    }

    /// Notes the session of this lease, for a call that begins now.
    ///
    /// # Errors
    /// There is no session, so the call cannot be answered.
    pub fn on(lease: &Lease) -> Result<Self, NoLease> {
        let noted = |session| Self { noted: Noted::Session(session), may_change: false };
        lease.note().map(noted).ok_or_else(|| NoLease::of(lease, false))
    }

    /// The same call, which may change something from now on.
    #[must_use]
    pub fn of_change(self) -> Self {
        Self { may_change: true, ..self }
    }

    /// Tests that what the call has read so far may be told, because its session still holds.
    ///
    /// # Errors
    /// The session does not hold.
    pub fn test(self, lease: &Lease) -> Result<(), NoLease> {
        match self.noted {
            Noted::Session(session) if !lease.holds(session, boot_clock::now) => {
                Err(NoLease::of(lease, self.may_change))
            }
            Noted::Session(_) | Noted::Exempt(_) => Ok(()),
        }
    }

    /// The answer of the call, which is complete. If the session does not hold, the answer is replaced by
    /// a refusal.
    pub fn answer<T>(
        self,
        lease: &Lease,
        complete: T,
        refusal: impl FnOnce(AuthorityError) -> T,
    ) -> Leased<T> {
        match self.test(lease) {
            Ok(()) => Leased(complete),
            Err(error) => error.refused(refusal),
        }
    }
}

/// Why a call is not answered: its session does not hold, or it found none.
#[derive(Debug)]
pub struct NoLease(StoreError);

impl NoLease {
    fn of(lease: &Lease, may_change: bool) -> Self {
        Self(match (lease.is_closed(), may_change) {
            (true, _) => StoreError::Unavailable,
            (false, true) => StoreError::NotYetEverywhere(None),
            (false, false) if lease.is_clock_behind() => StoreError::ClockBehind,
            (false, false) => StoreError::CutOff,
        })
    }

    /// The refusal of the call.
    pub fn refused<T>(self, refusal: impl FnOnce(AuthorityError) -> T) -> Leased<T> {
        Leased(refusal(AuthorityError::Store(self.0)))
    }
}

/// An answer that may be sent.
#[derive(Debug)]
#[must_use]
pub struct Leased<T>(T);

impl<T> Leased<T> {
    /// An answer that needs no lease.
    pub fn exempt(answer: T, _why: LeaseExemption) -> Self {
        Self(answer)
    }

    /// The answer, to be counted and logged.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The answer, to be sent.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Authority {
    /// Until when calls may be answered.
    #[must_use]
    pub fn lease(&self) -> &Arc<Lease> {
        self.facts.store().lease()
    }

    /// Notes the session of the lease, for a call that begins now.
    ///
    /// # Errors
    /// There is no session, so the call cannot be answered.
    pub fn note_call(&self) -> Result<NotedCall, NoLease> {
        NotedCall::on(self.lease())
    }
}
