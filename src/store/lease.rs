//! Lease: until when this process may answer calls, and by which session.
//!
//! A replica may answer while its record exists where the other replicas see it. A session is the life of
//! one record. A call notes the session before it reads any state, and its answer is handed on only if
//! the same session still [holds](Lease::holds) then. A store without replicas has a lease that never
//! ends.
//!
//! INVARIANT (one session): whatever a call read, it read while the session existed that it noted. An
//! ended session never begins again. [`Lease::end`] takes away the time first and the session second, and
//! a test reads them in the same order.
//!
//! Not here: who renews the lease; see `replicated`. `tests/integration/lease.rs` also compiles this file,
//! with atomics of a test scheduler, by way of `super::sync`.

use super::sync::{AtomicBool, AtomicU64, Ordering};

/// No session: no call is answered.
const NONE: u64 = 0;
/// No session, for good.
const CLOSED: u64 = u64::MAX;
/// The end of a lease that never ends. Its test reads no clock.
const NEVER: u64 = u64::MAX;

/// The session that a call noted when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedSession(u64);

/// Until when this process may answer calls, and by which session.
#[derive(Debug)]
pub struct Lease {
    session: AtomicU64,
    /// In nanoseconds of the [boot clock](super::boot_clock).
    until: AtomicU64,
    /// Why there is no session, if there is none. Nothing rests on it.
    is_clock_behind: AtomicBool,
}

impl Lease {
    /// A lease that never ends.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::of(1, NEVER)
    }

    /// A lease that has not begun: no session exists until [`Self::begin`].
    #[must_use]
    pub fn none() -> Self {
        Self::of(NONE, 0)
    }

    fn of(session: u64, until: u64) -> Self {
        Self {
            session: AtomicU64::new(session),
            until: AtomicU64::new(until),
            is_clock_behind: AtomicBool::new(false),
        }
    }

    /// Notes whether the clock of this process is why no session begins.
    pub fn set_clock_behind(&self, is_behind: bool) {
        self.is_clock_behind.store(is_behind, Ordering::SeqCst);
    }

    /// Whether the clock of this process is why no session begins.
    pub fn is_clock_behind(&self) -> bool {
        self.is_clock_behind.load(Ordering::SeqCst)
    }

    /// The present session. Call it before the call reads any state, the key of its caller included. None:
    /// no call may be answered now.
    pub fn note(&self) -> Option<NotedSession> {
        match self.session.load(Ordering::SeqCst) {
            NONE | CLOSED => None,
            session => Some(NotedSession(session)),
        }
    }

    /// Whether the session of a call is still the present one, and its time is not over by this clock.
    /// Call it when the answer is complete, before it is handed on.
    pub fn holds(&self, noted: NotedSession, clock: impl FnOnce() -> u64) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        let is_in_time = until == NEVER || clock() < until;
        is_in_time && self.session.load(Ordering::SeqCst) == noted.0
    }

    /// The end of the lease, in nanoseconds of the boot clock; zero without a session.
    pub fn until(&self) -> u64 {
        match self.note() {
            Some(_) => self.until.load(Ordering::SeqCst),
            None => 0,
        }
    }

    /// Whether no session can begin any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.session.load(Ordering::SeqCst) == CLOSED
    }

    /// Whether it never ends, unless it is closed.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.until.load(Ordering::SeqCst) == NEVER
    }

    /// Begins a session until this time, in nanoseconds of the boot clock. No session had its number
    /// before, and the one before it has ended. One thread begins and extends sessions. False: the lease
    /// is closed.
    pub fn begin(&self, session: u64, until: u64) -> bool {
        self.until.store(until, Ordering::SeqCst);
        let begun =
            self.session.compare_exchange(NONE, session, Ordering::SeqCst, Ordering::SeqCst);
        begun.is_ok()
    }

    /// Lets a session go on until this time, if it is the present one and its time is not over. False: it
    /// is over, and has ended now.
    pub fn extend(&self, session: u64, until: u64, clock: impl FnOnce() -> u64) -> bool {
        if self.holds(NotedSession(session), clock) {
            self.until.fetch_max(until, Ordering::SeqCst);
            return true;
        }
        self.end();
        false
    }

    /// Ends the session. When this returns, no call is answered any more that noted it.
    pub fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
        let session = self.session.load(Ordering::SeqCst);
        if session != CLOSED {
            self.session.compare_exchange(session, NONE, Ordering::SeqCst, Ordering::SeqCst).ok();
        }
    }

    /// Ends the session, and no other begins.
    pub fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.session.store(CLOSED, Ordering::SeqCst);
    }
}
