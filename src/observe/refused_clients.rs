//! Refused clients: counts the API clients that were refused because they did not prove who they are,
//! and logs one line for each address and minute.
//!
//! Any peer can cause such refusals, so each of a flood costs one lookup. A line names no client: who
//! has proven nothing can name any.
//!
//! Not here: callers of the API, which have keys; see [`super::rejected_callers`].

use std::collections::HashMap;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::decision_log::{DecisionLog, TokenDecision};
use crate::policy::cause::Cause;
use crate::wire::names::reason_name;

/// The target of the lines, for the filter of the log.
const TARGET: &str = "scopegate::access";
/// How long refusals are counted for one line.
const LINE_INTERVAL: Duration = Duration::from_secs(60);
/// The most addresses that are counted apart. The rest share a line without an address.
const MAX_ADDRESSES: usize = 1_000;

/// The refusals that have no line yet.
#[derive(Default)]
pub(crate) struct RefusedClients {
    decisions: Option<Arc<DecisionLog>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: HashMap<Option<IpAddr>, Refused>,
    /// Whether a task will write the lines.
    is_due: bool,
}

/// The refusals of one address.
struct Refused {
    count: u64,
    /// The cause of the last one.
    cause: Cause,
}

impl RefusedClients {
    /// Lines are also written to this decision log.
    pub(crate) fn new(decisions: Option<Arc<DecisionLog>>) -> Arc<Self> {
        Arc::new(Self { decisions, state: Mutex::default() })
    }

    /// Records that a client at this address was refused for this cause.
    pub(crate) fn note(self: &Arc<Self>, peer: Option<SocketAddr>, cause: Cause) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let address = peer.map(|peer| peer.ip().to_canonical());
        let is_new = !state.counts.contains_key(&address);
        let address = address.filter(|_| !is_new || state.counts.len() < MAX_ADDRESSES);
        let refused = state.counts.entry(address).or_insert(Refused { count: 0, cause });
        refused.count += 1;
        refused.cause = cause;
        if !mem::replace(&mut state.is_due, true) {
            let own = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(LINE_INTERVAL).await;
                own.summarize();
            });
        }
    }

    /// Writes the lines of the refusals so far.
    pub(crate) fn summarize(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = mem::take(&mut state.counts);
        state.is_due = false;
        drop(state);
        for (address, Refused { count, cause }) in counts {
            tracing::info!(
                target: TARGET,
                reason = reason_name(cause.reason),
                address = address.map(tracing::field::display),
                count,
                "clients were refused"
            );
            if let Some(log) = &self.decisions {
                log.token(TokenDecision {
                    error: Some("invalid_client"),
                    cause: Some(cause),
                    refused: Some((address, count)),
                    ..TokenDecision::default()
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::reason::Reason;

    #[tokio::test]
    async fn addresses_are_counted_apart_up_to_a_limit() {
        let refused = RefusedClients::new(None);
        let note = |n: u32| {
            let peer = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 1);
            refused.note(Some(peer), Reason::CredentialUnknown.into());
        };
        for n in 0..2_000 {
            note(n);
            note(n);
        }
        let counts = &refused.state.lock().expect("kept").counts;
        assert_eq!(counts.len(), MAX_ADDRESSES + 1);
        assert_eq!(counts[&None].count, 2_000);
        assert_eq!(counts.values().map(|refused| refused.count).sum::<u64>(), 4_000);
    }
}
