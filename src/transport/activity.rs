//! Activity: records how a connection is used, and decides when the server ends it.
//!
//! The server ends a connection for its age, for a drain, or because the connection is unused. It is
//! unused if no call was accepted within the first-call timeout, or if no call is open and none was
//! accepted within the idle timeout. An accepted call has an authenticated caller that may make it.
//!
//! A health call needs no key, so it does not count as accepted. It keeps a new connection open until
//! the idle timeout, counted from the connection's start. A prober therefore reconnects every few
//! minutes, and a peer without a key cannot hold a connection for ever, neither by probes nor by a
//! health watch.
//!
//! A call records itself with one store to memory. One task of each connection reads it several
//! times within an idle timeout, so a connection may end up to a quarter of the timeout late.
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

/// How often the activity is read within an idle timeout.
const READS_PER_TIMEOUT: u32 = 4;
/// The shortest time between two reads.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(50);
/// How long the peer of a connection without an accepted call may take to acknowledge the GOAWAY.
/// Some peers never do.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an open call is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Its connection was asked to end, and the grace period has passed.
    Connection,
    /// The server shuts down, and the call would never end.
    Drain,
    /// The server shuts down, and the drain timeout has passed.
    Cut,
}

/// The activity of one connection.
pub(crate) struct Activity {
    /// The number of accepted calls. Only the worker's thread writes it.
    accepted: AtomicU64,
    /// Whether there was a health call.
    is_probed: AtomicBool,
    /// The number of open calls without checks, which are too short to count.
    open: AtomicU64,
    /// Cancelled when the grace period of its calls has passed.
    grace_over: CancellationToken,
    phase: watch::Receiver<Phase>,
    /// The counters of its worker.
    pub(crate) calls: Arc<CallCounters>,
}

/// An open call, until it is dropped.
pub(crate) struct OpenCall(Arc<Activity>);

impl Activity {
    /// The activity of a new connection.
    pub(crate) fn new(calls: Arc<CallCounters>, phase: watch::Receiver<Phase>) -> Arc<Self> {
        let (accepted, is_probed, open) = (AtomicU64::new(0), AtomicBool::new(false), 0.into());
        Arc::new(Self {
            accepted,
            is_probed,
            open,
            grace_over: CancellationToken::new(),
            phase,
            calls,
        })
    }

    /// Records an accepted call.
    pub(crate) fn accept(&self) {
        // Only one thread writes, so no update is lost.
        self.accepted.store(self.accepted() + 1, Ordering::Relaxed);
    }

    /// Records a health call.
    pub(crate) fn probe(&self) {
        self.is_probed.store(true, Ordering::Relaxed);
    }

    /// Counts a call as open until the returned value is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenCall {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(self))
    }

    /// The number of open calls without checks.
    pub(crate) fn open_calls(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// The number of accepted calls.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until the server must ask the connection to end.
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
            reason = self.unused(limits) => reason,
        }
    }

    /// Waits until the connection is unused.
    async fn unused(
        &self,
        ConnectionLimits { first_call, idle, .. }: ConnectionLimits,
    ) -> EndReason {
        let start = Instant::now();
        tokio::time::sleep(first_call.min(idle)).await;
        if self.accepted() == 0 && self.is_probed.load(Ordering::Relaxed) {
            tokio::time::sleep_until(start + idle).await;
        }
        if self.accepted() == 0 {
            return EndReason::NoCall;
        }
        let (mut last_accepted, mut since) = (self.accepted(), Instant::now());
        while since.elapsed() < idle {
            tokio::time::sleep((idle / READS_PER_TIMEOUT).max(MIN_READ_INTERVAL)).await;
            let accepted = self.accepted();
            if accepted != last_accepted || self.open_calls() > 0 {
                (last_accepted, since) = (accepted, Instant::now());
            }
        }
        EndReason::Idle
    }

    /// Interrupts the calls of a connection that was asked to end, after their grace period.
    pub(crate) async fn interrupt(&self, reason: EndReason, grace: Duration) {
        let mut phase = self.phase.clone();
        let grace = async {
            match reason {
                // The drain timeout of all connections applies.
                EndReason::Drain => std::future::pending().await,
                EndReason::NoCall => {
                    let first = grace.min(GOAWAY_TIMEOUT);
                    tokio::time::sleep(first).await;
                    if self.accepted() > 0 {
                        // A call arrived meanwhile. It gets the whole grace period.
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
        self.grace_over.cancel();
    }

    /// Whether the drain timeout has passed.
    pub(crate) fn is_terminated(&self) -> bool {
        *self.phase.borrow() == Phase::Terminate
    }

    /// Waits until an open call must be interrupted. An endless call is interrupted when the drain
    /// begins.
    pub(crate) fn interrupted(
        &self,
        is_endless: bool,
    ) -> impl Future<Output = Interruption> + Send + use<> {
        let (grace_over, mut phase) = (self.grace_over.clone(), self.phase.clone());
        async move {
            let least = if is_endless { Phase::Draining } else { Phase::Terminate };
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= least) => {}
                () = grace_over.cancelled() => {}
            }
            // During a shutdown either of the two may come first.
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
