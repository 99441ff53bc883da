//! Rejected callers: logs each rejected caller with one line, and a flood of them with a line that
//! counts them.
//!
//! Each rejection of a flood costs one lookup, and the flood costs a few lines a second. The log has
//! only the public id of a presented key.
//!
//! Not here: the reasons; see [`crate::observe::rejection`].

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Counter;
use crate::observe::peer_address::{PeerAddress, PeerHost};
use crate::observe::rejection::{RejectedCaller, RejectionReason};

/// The target of the lines, for the filter of the log: `info,scopegate::access=off`.
const TARGET: &str = "scopegate::access";
/// How many rejections may have their own line at once. One more may each second.
const MAX_LINES: f64 = 20.0;
/// After this time a summary is logged of the rejections without a line.
const SUMMARY_DELAY: Duration = Duration::from_secs(1);
/// The limit of distinct addresses that a summary counts.
const MAX_PEERS: usize = 1_000;

/// The rejections: their counts, and which of them are logged.
pub(crate) struct RejectedCallers {
    /// By reason.
    counts: [Counter; RejectionReason::ALL.len()],
    state: Mutex<RejectionState>,
}

struct RejectionState {
    /// How many lines may be written now.
    lines: f64,
    updated: Instant,
    /// Rejections that have a line since the last summary.
    logged: HashSet<Rejection>,
    unlogged: BTreeMap<RejectionReason, Unlogged>,
    /// Whether a task will write a summary.
    is_due: bool,
}

/// A rejection. Equal rejections share one line.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Rejection {
    why: RejectionReason,
    key_id: Option<Box<str>>,
    method: &'static str,
    peer: Option<PeerHost>,
}

/// The rejections for one reason that have no line.
struct Unlogged {
    count: u64,
    peers: HashSet<Option<PeerHost>>,
    last: Rejection,
}

impl Default for RejectedCallers {
    fn default() -> Self {
        let (logged, unlogged) = (HashSet::new(), BTreeMap::new());
        let state = RejectionState {
            lines: MAX_LINES,
            updated: Instant::now(),
            logged,
            unlogged,
            is_due: false,
        };
        Self { counts: Default::default(), state: Mutex::new(state) }
    }
}

impl RejectedCallers {
    /// Records that a call of a peer was rejected, if it was. `path` is `other` for a path that the
    /// server does not know.
    pub(crate) fn call(
        self: &Arc<Self>,
        peer: Option<PeerAddress>,
        path: &'static str,
        rejected: Option<RejectedCaller>,
    ) {
        if let Some(RejectedCaller { why, key_id }) = rejected {
            self.note(peer, path.trim_start_matches('/'), why, key_id);
        }
    }

    /// Records that a TLS handshake of a peer was rejected.
    pub(crate) fn handshake(self: &Arc<Self>, peer: Option<PeerAddress>, why: RejectionReason) {
        self.note(peer, "", why, None);
    }

    /// The number of rejected callers, by reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (RejectionReason, u64)> {
        RejectionReason::ALL.into_iter().zip(&self.counts).map(|(why, count)| (why, count.read()))
    }

    fn note(
        self: &Arc<Self>,
        address: Option<PeerAddress>,
        method: &'static str,
        why: RejectionReason,
        key_id: Option<Box<str>>,
    ) {
        if let Some(count) = self.counts.get(why as usize) {
            count.inc();
        }
        let peer = address.map(PeerAddress::host);
        let rejection = Rejection { why, key_id, method, peer };
        let mut state = self.lock();
        if state.take_line(&rejection) {
            drop(state);
            rejection.write(address);
            return;
        }
        let unlogged = state.unlogged.entry(why).or_insert_with(|| Unlogged {
            count: 0,
            peers: HashSet::new(),
            last: rejection.clone(),
        });
        unlogged.count += 1;
        if unlogged.peers.len() < MAX_PEERS {
            unlogged.peers.insert(peer);
        }
        unlogged.last = rejection;
        if !mem::replace(&mut state.is_due, true) {
            let own = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(SUMMARY_DELAY).await;
                own.summarize();
            });
        }
    }

    /// Logs a summary of the rejections without a line.
    pub(crate) fn summarize(&self) {
        let mut state = self.lock();
        let unlogged = mem::take(&mut state.unlogged);
        state.logged.clear();
        state.is_due = false;
        drop(state);
        for Unlogged { count, peers, last } in unlogged.into_values() {
            let peer = last.peer.map(tracing::field::display);
            tracing::info!(
                target: TARGET,
                reason = last.why.name(),
                count,
                peers = peers.len(),
                last_peer = peer,
                last_key_id = last.key_id.as_deref(),
                last_method = Some(last.method).filter(|method| !method.is_empty()),
                "more callers were refused"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, RejectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RejectionState {
    /// Whether a rejection gets its own line.
    fn take_line(&mut self, rejection: &Rejection) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(self.updated);
        self.lines = (self.lines + passed.as_secs_f64()).min(MAX_LINES);
        self.updated = now;
        if passed > SUMMARY_DELAY && !self.is_due {
            self.logged.clear();
        }
        if self.lines < 1.0 || self.logged.contains(rejection) {
            return false;
        }
        self.lines -= 1.0;
        self.logged.insert(rejection.clone());
        true
    }
}

impl Rejection {
    fn write(&self, address: Option<PeerAddress>) {
        tracing::info!(
            target: TARGET,
            reason = self.why.name(),
            peer = address.map(tracing::field::display),
            key_id = self.key_id.as_deref(),
            method = Some(self.method).filter(|method| !method.is_empty()),
            "a caller was refused"
        );
    }
}
