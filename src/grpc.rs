//! gRPC: the services of the API. A handler parses a request, calls the authority and renders the
//! response.
//!
//! Not here: decisions and rules of the domain; see [`crate::policy`] and [`crate::authority`]. Nor how
//! messages become values; see [`crate::wire`].

mod authorization;
mod authorize;
mod backup;
pub mod body_timeout;
mod catalog;
mod change;
pub mod codec;
mod directory;
mod ext_authz;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod import;
mod import_position;
mod key;
pub mod leased_body;
mod list_limits;
pub mod memory;
pub mod methods;
pub mod peer;
pub mod peer_service;
pub mod preflight;
pub(crate) mod reply;
pub mod response_body;
mod signing_key;
pub mod status;
pub mod stream_limit;
pub mod streams;
pub mod unary;
mod warnings;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::watch;
use tonic::Status;

use self::peer::Peer;
use self::stream_limit::StreamLimit;
use crate::authority::Authority;
use crate::authority::admission::Presented;
use crate::authority::decision_observer::DecisionObserver;
use crate::metrics::Gauge;
use crate::metrics::memory_budget::MemoryBudget;
use crate::observe::decision_log::DecisionLog;
use crate::policy::keyring::AuthenticationError;
use crate::store::replicated::membership::MembershipState;

/// The limit on open change streams of all callers.
const MAX_WATCHERS: usize = 1_000;
/// The limit on open change streams of one key.
const MAX_WATCHERS_OF_KEY: usize = 16;
/// The limit on backups, and on snapshots, in progress.
const MAX_BACKUPS: usize = 2;

/// The state that all handlers share: the authority, once the store is open, and whether the server
/// shuts down.
#[derive(Clone)]
pub struct Api {
    authority: Arc<OnceLock<Authority>>,
    /// The authority with the per-core state of this worker.
    core_local: Arc<OnceLock<Authority>>,
    closing: watch::Sender<bool>,
    /// The open change streams.
    pub watchers: Arc<StreamLimit>,
    /// The backups in progress.
    pub backups: Arc<StreamLimit>,
    /// The snapshots for other replicas in progress.
    snapshots: Arc<StreamLimit>,
    /// The session of this replica, if it is one, with the token that other replicas present.
    membership: Arc<OnceLock<watch::Receiver<MembershipState>>>,
    /// How long a change stream sends no message before it sends its cursor.
    pub heartbeat: Duration,
    /// The decision log, if it is enabled.
    pub decisions: Option<Arc<DecisionLog>>,
    /// The memory budget for requests and responses.
    pub memory: Arc<MemoryBudget>,
    /// 1 if the catalog file of the start was rejected, otherwise 0.
    pub catalog_rejected: Arc<Gauge>,
}

impl Api {
    /// The state before the store is open.
    #[must_use]
    pub fn new(
        decisions: Option<Arc<DecisionLog>>,
        memory: Arc<MemoryBudget>,
        heartbeat: Duration,
    ) -> Self {
        let (authority, core_local) = (Arc::default(), Arc::default());
        let closing = watch::Sender::new(false);
        let watchers = StreamLimit::new(MAX_WATCHERS, MAX_WATCHERS_OF_KEY);
        let backups = StreamLimit::new(MAX_BACKUPS, MAX_BACKUPS);
        let snapshots = StreamLimit::new(MAX_BACKUPS, MAX_BACKUPS);
        let (catalog_rejected, membership) = (Arc::default(), Arc::default());
        Self {
            authority,
            core_local,
            closing,
            watchers,
            backups,
            snapshots,
            membership,
            heartbeat,
            decisions,
            memory,
            catalog_rejected,
        }
    }

    /// Sets the authority when the store is open.
    pub fn open(&self, authority: Authority) -> &Authority {
        let decisions = self.decisions.clone().map(|log| log as Arc<dyn DecisionObserver>);
        self.authority.get_or_init(|| authority.observed(decisions))
    }

    /// Serves other replicas, which present the token of the present session of this one.
    pub fn serve_peers(&self, membership: watch::Receiver<MembershipState>) {
        self.membership.set(membership).ok();
    }

    /// The same state for another worker, with per-core state of its own.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self { core_local: Arc::default(), ..self.clone() }
    }

    /// Ends the open streams when the server shuts down.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when the server shuts down.
    fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The authority, if the store is open.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.get()
    }

    /// The authority for a handler, with the per-core state of this worker.
    ///
    /// # Errors
    /// The store is not open.
    pub fn ready(&self) -> Result<&Authority, Status> {
        let authority = self.authority().ok_or_else(status::not_ready)?;
        Ok(self.core_local.get_or_init(|| authority.for_core()))
    }
}

/// What a caller with these headers, on a connection of this peer, presents to prove who it is.
#[must_use]
pub fn presented<'a>(headers: &'a HeaderMap, peer: &'a Peer) -> Presented<'a> {
    let certificate = peer.certificate.as_deref().unwrap_or_default();
    Presented { key: bearer_token(headers), certificate }
}

/// The key in the `authorization` header (RFC 6750 section 2.1), if there is one.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, AuthenticationError> {
    const SCHEME: &str = "bearer ";
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else { return Ok(None) };
    // Two headers are ambiguous.
    if all.next().is_some() {
        return Err(AuthenticationError::Unknown);
    }
    let text = header.to_str().map_err(|_| AuthenticationError::Unknown)?;
    let (scheme, key) = text.split_at_checked(SCHEME.len()).ok_or(AuthenticationError::Unknown)?;
    if scheme.eq_ignore_ascii_case(SCHEME) {
        Ok(Some(key))
    } else {
        Err(AuthenticationError::Unknown)
    }
}
