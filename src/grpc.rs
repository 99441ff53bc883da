//! Floor 3, how it is asked: gRPC messages in, one question to the authority, a message out.
//!
//! A handler parses, asks and renders. Not here: any decision, and any rule about what a
//! request means beyond its form.

mod authorization;
mod authorize;
mod backup;
pub mod body_timeout;
mod catalog;
mod change;
pub mod codec;
mod directory;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod import;
mod key;
mod list_limits;
pub mod memory;
pub mod peer;
pub mod preflight;
pub(crate) mod reply;
pub mod status;
pub mod stored_reply;
pub mod stream_limit;
pub mod unary;
mod warnings;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::watch;
use tonic::Status;

use self::peer::Peer;
use self::stored_reply::StoredResponse;
use self::stream_limit::StreamLimit;
use crate::authority::{Authority, StorableReply};
use crate::metrics::Gauge;
use crate::metrics::memory_budget::MemoryBudget;
use crate::observe::decision_log::DecisionLog;
use crate::observe::rejection::RejectedCaller;
use crate::policy::caller::Caller;
use crate::policy::keyring::AuthenticationError;
use crate::policy::secret::{SecretKind, SecretText};

impl<M: StoredResponse> StorableReply for M {
    fn into_bytes(self) -> Vec<u8> {
        self.to_keep().encode_to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }
}

/// How many streams of changes may be open,
const WATCHERS: usize = 1_000;
/// and how many of one key.
const WATCHERS_OF_KEY: usize = 16;
/// How many backups may be sent at once.
const BACKUPS: usize = 2;

/// What the handlers share: the authority, once the store is open, and whether the end has come.
#[derive(Clone)]
pub struct Api {
    authority: Arc<OnceLock<Authority>>,
    /// The authority's desk where these doors are.
    desk: Arc<OnceLock<Authority>>,
    closing: watch::Sender<bool>,
    /// The streams of changes that are open.
    pub watchers: Arc<StreamLimit>,
    /// The backups that are being sent.
    pub backups: Arc<StreamLimit>,
    /// How long a stream of changes is silent before it sends its cursor.
    pub heartbeat: Duration,
    /// Where decisions are logged, if they are.
    pub decisions: Option<Arc<DecisionLog>>,
    /// The memory that is held for callers.
    pub memory: Arc<MemoryBudget>,
    /// Whether the catalog file of the start was rejected: 1 if so.
    pub catalog_rejected: Arc<Gauge>,
}

impl Api {
    /// Doors that are not open yet.
    #[must_use]
    pub fn new(
        decisions: Option<Arc<DecisionLog>>,
        memory: Arc<MemoryBudget>,
        heartbeat: Duration,
    ) -> Self {
        let (authority, desk) = (Arc::default(), Arc::default());
        let closing = watch::Sender::new(false);
        let watchers = StreamLimit::new(WATCHERS, WATCHERS_OF_KEY);
        let backups = StreamLimit::new(BACKUPS, BACKUPS);
        let catalog_rejected = Arc::default();
        Self {
            authority,
            desk,
            closing,
            watchers,
            backups,
            heartbeat,
            decisions,
            memory,
            catalog_rejected,
        }
    }

    /// Who makes a call with these headers on a connection of this peer (D8).
    ///
    /// # Errors
    /// The doors are not open, or it is not proven. A wrong key is not taken for none.
    pub fn caller(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Status> {
        let authority = self.ready()?;
        let certificate = peer.certificate.as_deref().unwrap_or_default();
        let proven = match bearer_token(headers) {
            Ok(None) if certificate.is_empty() => Err(AuthenticationError::Nothing),
            Ok(key) => authority.authenticate(key, certificate),
            Err(unproven) => Err(unproven),
        };
        match proven {
            Ok(caller) => Ok(caller),
            Err(AuthenticationError::Nothing) if !authority.requires_keys() => {
                Ok(Caller::Anonymous)
            }
            Err(unproven) => {
                let key = bearer_token(headers).ok().flatten();
                let id = key.and_then(|key| SecretText::id_in(SecretKind::Key, key));
                let id = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
                Err(RejectedCaller::beside(status::unauthenticated(unproven), unproven.into(), id))
            }
        }
    }

    /// Opens the doors.
    pub fn open(&self, authority: Authority) -> &Authority {
        self.authority.get_or_init(|| authority)
    }

    /// The same doors on another core, with a desk of their own.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self { desk: Arc::default(), ..self.clone() }
    }

    /// Ends the streams, which would not end by themselves.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when the doors close.
    fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The authority, if the doors are open.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.get()
    }

    /// The authority, for a handler.
    fn ready(&self) -> Result<&Authority, Status> {
        let authority = self.authority().ok_or_else(status::not_ready)?;
        Ok(self.desk.get_or_init(|| authority.for_core()))
    }
}

/// The key that a call presents (RFC 6750 section 2.1), if it presents one.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, AuthenticationError> {
    const SCHEME: &str = "bearer ";
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else { return Ok(None) };
    // Of two it would be anybody's guess which one counts.
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
