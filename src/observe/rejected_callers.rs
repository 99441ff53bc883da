//! Refused callers: a line of the log for each, and of many a line that counts them.
//!
//! A flood of refusals costs a lookup each, and a few lines a second. Of a presented key only its
//! public id is told.
//!
//! Not here: why a caller is refused; see [`crate::observe::rejection`].

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Counter;
use crate::observe::rejection::{RejectedCaller, RejectionReason};
use crate::wire::access;

/// Where the lines come from, for the filter of the log: `info,scopegate::access=off`.
const TARGET: &str = "scopegate::access";
/// How many lines of single refusals there may be at once; one more each second.
const LINES: f64 = 20.0;
/// After how long refusals without a line of their own are told of.
const SUMMARY: Duration = Duration::from_secs(1);
/// How many addresses are told apart in a summary.
const MAX_PEERS: usize = 1_000;

/// What of refusals was told, and what is still to be told.
pub(crate) struct RejectedCallers {
    /// By reason.
    counts: [Counter; RejectionReason::ALL.len()],
    state: Mutex<State>,
}

struct State {
    /// How many lines there may be now.
    lines: f64,
    at: Instant,
    /// Those that have a line since the last summary.
    told: HashSet<Refusal>,
    untold: BTreeMap<RejectionReason, Untold>,
    /// Whether a summary will be written by itself.
    is_due: bool,
}

/// One refusal: of which, where all is the same, one line tells.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Refusal {
    why: RejectionReason,
    key_id: Option<Box<str>>,
    method: &'static str,
    peer: Option<IpAddr>,
}

/// Refusals without a line.
struct Untold {
    count: u64,
    peers: HashSet<Option<IpAddr>>,
    last: Refusal,
}

impl Default for RejectedCallers {
    fn default() -> Self {
        let (told, untold) = (HashSet::new(), BTreeMap::new());
        let state = State { lines: LINES, at: Instant::now(), told, untold, is_due: false };
        Self { counts: Default::default(), state: Mutex::new(state) }
    }
}

impl RejectedCallers {
    /// A call of this place in [`access::PATHS`] was refused to a peer.
    pub(crate) fn call(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        place: usize,
        refused: Option<RejectedCaller>,
    ) {
        if let Some(RejectedCaller { why, key_id }) = refused {
            let method =
                access::PATHS.get(place).map_or("other", |path| path.trim_start_matches('/'));
            self.note(peer, method, why, key_id);
        }
    }

    /// A TLS handshake was refused to a peer.
    pub(crate) fn handshake(self: &Arc<Self>, peer: Option<SocketAddr>, why: RejectionReason) {
        self.note(peer, "", why, None);
    }

    /// How many were refused, by reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (RejectionReason, u64)> {
        RejectionReason::ALL.into_iter().zip(&self.counts).map(|(why, count)| (why, count.read()))
    }

    fn note(
        self: &Arc<Self>,
        address: Option<SocketAddr>,
        method: &'static str,
        why: RejectionReason,
        key_id: Option<Box<str>>,
    ) {
        if let Some(count) = self.counts.get(why as usize) {
            count.inc();
        }
        let peer = address.map(|address| address.ip());
        let refusal = Refusal { why, key_id, method, peer };
        let mut state = self.lock();
        if state.takes_line(&refusal) {
            drop(state);
            refusal.write(address);
            return;
        }
        let untold = state.untold.entry(why).or_insert_with(|| Untold {
            count: 0,
            peers: HashSet::new(),
            last: refusal.clone(),
        });
        untold.count += 1;
        if untold.peers.len() < MAX_PEERS {
            untold.peers.insert(peer);
        }
        untold.last = refusal;
        if !mem::replace(&mut state.is_due, true) {
            let own = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(SUMMARY).await;
                own.summarize();
            });
        }
    }

    /// Tells of those without a line.
    pub(crate) fn summarize(&self) {
        let mut state = self.lock();
        let untold = mem::take(&mut state.untold);
        state.told.clear();
        state.is_due = false;
        drop(state);
        for Untold { count, peers, last } in untold.into_values() {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a refusal is to have a line of its own.
    fn takes_line(&mut self, refusal: &Refusal) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(self.at);
        self.lines = (self.lines + passed.as_secs_f64()).min(LINES);
        self.at = now;
        if passed > SUMMARY && !self.is_due {
            self.told.clear();
        }
        if self.lines < 1.0 || self.told.contains(refusal) {
            return false;
        }
        self.lines -= 1.0;
        self.told.insert(refusal.clone());
        true
    }
}

impl Refusal {
    fn write(&self, address: Option<SocketAddr>) {
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
