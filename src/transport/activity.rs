//! Activity: what a connection is used for, and so when the server ends it.
//!
//! A connection ends by its age, by a drain, or because it is not used: no call was accepted on it
//! in the first time, or none is open and none was accepted since the idle timeout. To be accepted
//! a call needs a caller that is known and permitted.
//!
//! A call of health needs neither, so it is no proof of a caller: it keeps a new connection until
//! the idle timeout, counted from the connection's begin, and no longer. A prober that keeps its
//! connection makes another one every few minutes; a peer without a key cannot keep a place for
//! ever, by probes or by a health watch.
//!
//! A call notes itself with one store to memory. A task per connection reads it a few times within
//! an idle timeout, so a connection may end up to a quarter later than its timeout says.
//!
//! Not here: how open calls end; see [`super::interruption`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call_counters::CallCounters;
use super::phase::Phase;
use super::settings::ConnectionLimits;
use crate::observe::connection_events::EndReason;

/// How often a connection's use is read within an idle timeout.
const READS: u32 = 4;
/// The shortest time between two reads.
const SHORTEST: Duration = Duration::from_millis(50);
/// How long the peer of a connection without an accepted call may take to acknowledge its end. Some
/// never do.
const ACKNOWLEDGE: Duration = Duration::from_secs(5);

/// Why an open call is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Its connection was asked to end, and the grace is over.
    Connection,
    /// The server ends, and the call would not end by itself.
    Drain,
    /// The server ends, and the time to drain is over.
    Cut,
}

/// What one connection is used for.
pub(crate) struct Activity {
    /// Calls that were accepted. Written by the thread of its core alone.
    accepted: AtomicU64,
    /// Whether there was a call of health.
    is_probed: AtomicBool,
    /// Calls that are open, but for checks: these are too short to matter.
    open: AtomicU64,
    /// Cancelled when its calls have had their grace.
    over: CancellationToken,
    phase: watch::Receiver<Phase>,
    /// Those of its core.
    pub(crate) calls: Arc<CallCounters>,
}

/// An open call, until it is dropped.
pub(crate) struct OpenCall(Arc<Activity>);

impl Activity {
    /// Of a connection that was not used yet.
    pub(crate) fn new(calls: Arc<CallCounters>, phase: watch::Receiver<Phase>) -> Arc<Self> {
        let (accepted, is_probed, open) = (AtomicU64::new(0), AtomicBool::new(false), 0.into());
        Arc::new(Self { accepted, is_probed, open, over: CancellationToken::new(), phase, calls })
    }

    /// Notes that a call was accepted.
    pub(crate) fn accept(&self) {
        // One thread writes, so nothing is lost between the two.
        self.accepted.store(self.accepted() + 1, Ordering::Relaxed);
    }

    /// Notes a call of health.
    pub(crate) fn probe(&self) {
        self.is_probed.store(true, Ordering::Relaxed);
    }

    /// Counts a call as open, until what is returned is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenCall {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(self))
    }

    /// How many calls were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until the connection is to be asked to end.
    pub(crate) async fn ended(&self, limits: ConnectionLimits) -> EndReason {
        let mut phase = self.phase.clone();
        let aged = async {
            match limits.age {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => EndReason::Drain,
            () = aged => EndReason::Age,
            cause = self.unused(limits) => cause,
        }
    }

    /// Waits until the connection is unused.
    async fn unused(
        &self,
        ConnectionLimits { first_call, idle, .. }: ConnectionLimits,
    ) -> EndReason {
        let begin = Instant::now();
        tokio::time::sleep(first_call.min(idle)).await;
        if self.accepted() == 0 && self.is_probed.load(Ordering::Relaxed) {
            tokio::time::sleep_until(begin + idle).await;
        }
        if self.accepted() == 0 {
            return EndReason::NoCall;
        }
        let (mut seen, mut since) = (self.accepted(), Instant::now());
        while since.elapsed() < idle {
            tokio::time::sleep((idle / READS).max(SHORTEST)).await;
            let accepted = self.accepted();
            if accepted != seen || self.open.load(Ordering::Relaxed) > 0 {
                (seen, since) = (accepted, Instant::now());
            }
        }
        EndReason::Idle
    }

    /// Waits, after the connection was asked to end, as long as its calls may still be open, and
    /// then interrupts them.
    pub(crate) async fn interrupt(&self, cause: EndReason, grace: Duration) {
        let mut phase = self.phase.clone();
        let grace = async {
            match cause {
                // That of all connections together.
                EndReason::Drain => std::future::pending().await,
                EndReason::NoCall => {
                    let first = grace.min(ACKNOWLEDGE);
                    tokio::time::sleep(first).await;
                    if self.accepted() > 0 {
                        // One was on its way.
                        tokio::time::sleep(grace - first).await;
                    }
                }
                EndReason::Age | EndReason::Idle => tokio::time::sleep(grace).await,
            }
        };
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Terminate) => {}
            () = grace => {}
        }
        self.over.cancel();
    }

    /// Whether the time to drain is over.
    pub(crate) fn is_over(&self) -> bool {
        *self.phase.borrow() == Phase::Terminate
    }

    /// Waits until a call that is still open is to be interrupted. One that is endless gets no
    /// time to drain.
    pub(crate) fn interrupted(
        &self,
        is_endless: bool,
    ) -> impl Future<Output = Interruption> + Send + use<> {
        let (over, mut phase) = (self.over.clone(), self.phase.clone());
        async move {
            let least = if is_endless { Phase::Draining } else { Phase::Terminate };
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= least) => {}
                () = over.cancelled() => {}
            }
            // When the server ends, either can be the first.
            match *phase.borrow() {
                Phase::Terminate => Interruption::Cut,
                Phase::Draining if is_endless => Interruption::Drain,
                Phase::Serving | Phase::Draining => Interruption::Connection,
            }
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
