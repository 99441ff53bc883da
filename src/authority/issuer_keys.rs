//! Issuer keys: the public keys of each issuer of the catalog, over time (T18 to T20).
//!
//! Keys that are not in the catalog itself are read in the background, from the time at which the
//! catalog is published. A check takes the keys that are there. It waits only for keys that a fetch may
//! bring now ([`IssuerKeys::refetched`]).
//!
//! INVARIANT (keys belong to an entry): a set of keys is returned only for the issuer entry that it was
//! read for. Any change of the entry begins without keys, and ends the fetch under way.
//!
//! Not here: how a document is read from a URL or a file; see `transport::jwks`. And which key
//! of a set verifies a token; see [`crate::policy::token`].

mod file_read;
mod read_time;
mod source;
mod waiters;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::fast::RandomState;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::source::{Asked, Source};
pub use self::waiters::Waiters;
use super::fact_cache::FactCache;
use crate::metrics::supervise::Supervisor;
use crate::policy::catalog::issuer::{Issuer, KeySource};
use crate::policy::revision::Revision;
use crate::policy::token::key_set::KeySet;

/// The name of the tasks that read the keys.
const READ_TASK: &str = "issuer_keys";

/// Reads the documents of key sets (RFC 7517 section 5).
pub trait KeyReader: Send + Sync + 'static {
    /// Reads the document of this source once. The read of a URL ends by itself within seconds, and that
    /// of a file may hang.
    fn read<'a>(&'a self, source: &'a KeySource) -> KeyReading<'a>;
}

/// A document that is being read.
pub type KeyReading<'a> = Pin<Box<dyn Future<Output = Result<Bytes, KeyReadError>> + Send + 'a>>;

/// Why a document could not be read: a short cause, without any of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyReadError(pub String);

/// The keys of an issuer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysNow {
    /// They verify tokens.
    Usable(Arc<KeySet>),
    /// No keys were read for this entry yet, or longer ago than its `usable_for`. No token of the
    /// issuer can be verified, also none that was verified before.
    Unusable,
}

/// What a check with a token of an unknown key learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refetched {
    /// A fetch has succeeded since the call: look at the keys again, once.
    LookAgain,
    /// No fetch may begin now, and the keys are those of the last fetch, which succeeded. A token of
    /// another key is invalid.
    Unchanged,
    /// The last fetch failed or is not over, or there are too many waiting calls
    /// (`TOKEN_UNVERIFIABLE`).
    Unverifiable,
    /// A newer catalog has changed or removed the issuer's entry: decide anew with that catalog.
    Outdated,
}

/// The state of one issuer's keys, for metrics.
#[derive(Clone, Debug)]
pub struct IssuerKeysStatus {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// The time since the keys in use were last read; none if there are no keys.
    pub age: Option<Duration>,
    /// Whether there are keys that are not too old. Without them every token of the issuer is denied.
    pub is_usable: bool,
    /// How many fetches brought a set of keys, since the issuer is in the catalog.
    pub fetched: u64,
    /// How many fetches failed, since the issuer is in the catalog.
    pub failed: u64,
}

impl IssuerKeysStatus {
    /// Whether the keys are fetched from a URL. The keys of a file are read all the time, which counts
    /// as no fetch.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        matches!(self.issuer.keys, KeySource::Url(_))
    }
}

/// The keys of all issuers. There is one for each process.
pub struct IssuerKeys {
    /// By the name of the issuer. Issuers with inline keys are not in it.
    entries: ArcSwap<Entries>,
    /// The revision of the catalog that the entries are of, for calls that wait for an entry. It is set
    /// after the entries.
    reconciled: watch::Sender<Revision>,
}

type Entries = HashMap<Box<str>, Entry, RandomState>;

/// The keys of one issuer entry.
#[derive(Clone)]
struct Entry {
    issuer: Arc<Issuer>,
    source: Arc<Source>,
    /// Reads the keys until the entry is removed.
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Entry {
    fn is_of(&self, issuer: &Arc<Issuer>) -> bool {
        Arc::ptr_eq(&self.issuer, issuer) || self.issuer == *issuer
    }
}

impl Default for IssuerKeys {
    fn default() -> Self {
        Self { entries: ArcSwap::default(), reconciled: watch::Sender::new(Revision::ZERO) }
    }
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuerKeys")
    }
}

impl IssuerKeys {
    /// The keys of an issuer now. It never waits.
    #[must_use]
    pub fn current(&self, issuer: &Arc<Issuer>) -> KeysNow {
        if let KeySource::Inline(keys) = &issuer.keys {
            return KeysNow::Usable(Arc::clone(keys));
        }
        let entries = self.entries.load();
        let entry = entries.get(&issuer.name).filter(|entry| entry.is_of(issuer));
        match entry.and_then(|entry| entry.source.usable()) {
            Some(keys) => KeysNow::Usable(keys),
            None => KeysNow::Unusable,
        }
    }

    /// Asks for the keys of an issuer to be fetched, after [`Self::current`] was unusable or had no key
    /// for a token. A fetch begins at most once in the issuer's `refetch_after`, where each attempt
    /// counts. Waits for the end of the fetch under way, at most until the deadline. `catalog` is the
    /// revision of the catalog that the issuer's entry is of. `waiters` are the waiting calls of this
    /// core.
    pub async fn refetched(
        &self,
        issuer: &Arc<Issuer>,
        catalog: Revision,
        waiters: &Waiters,
        deadline: Instant,
    ) -> Refetched {
        if matches!(issuer.keys, KeySource::Inline(_)) {
            return Refetched::Unchanged;
        }
        let mut reconciled = self.reconciled.subscribe();
        let mut place = None;
        // The entry of a catalog that has just been published may not be there yet.
        let under_way = loop {
            // Read before the entries, which are at least as new.
            let is_outdated = *reconciled.borrow_and_update() > catalog;
            match self.ask(issuer) {
                Some(Asked::Answered(answer)) => return answer,
                Some(Asked::UnderWay(fetch)) => break Some(fetch),
                None if is_outdated => return Refetched::Outdated,
                None => {}
            }
            if place.is_none() {
                place = waiters.enter(&issuer.name);
            }
            if place.is_none()
                || !matches!(timeout_at(deadline, reconciled.changed()).await, Ok(Ok(())))
            {
                break None;
            }
        };
        let Some(under_way) = under_way else { return Refetched::Unverifiable };
        if place.is_none() {
            place = waiters.enter(&issuer.name);
        }
        if place.is_none() {
            return Refetched::Unverifiable;
        }
        timeout_at(deadline, under_way.ended()).await.unwrap_or(Refetched::Unverifiable)
    }

    fn ask(&self, issuer: &Arc<Issuer>) -> Option<Asked> {
        let entries = self.entries.load();
        let entry = entries.get(&issuer.name).filter(|entry| entry.is_of(issuer))?;
        Some(entry.source.ask())
    }

    /// Takes over the issuers of the catalog of this revision: starts to read the keys of each new or changed entry, and
    /// ends to read those of the others. One task at a time may call it, in a runtime.
    pub fn reconcile<'a>(
        &self,
        catalog: Revision,
        issuers: impl IntoIterator<Item = &'a Arc<Issuer>>,
        reader: &Arc<dyn KeyReader>,
        supervisor: &Arc<Supervisor>,
    ) {
        let old = self.entries.load();
        let read =
            issuers.into_iter().filter(|issuer| !matches!(issuer.keys, KeySource::Inline(_)));
        let entries = read.map(|issuer| {
            let entry = match old.get(&issuer.name) {
                // The same entry of a newer catalog.
                Some(entry) if entry.is_of(issuer) => {
                    Entry { issuer: Arc::clone(issuer), ..entry.clone() }
                }
                other => {
                    let counts = other.map(|entry| Arc::clone(&entry.source.counts));
                    let source = Arc::new(Source::new(issuer, counts.unwrap_or_default()));
                    let (own, reader) = (Arc::clone(&source), Arc::clone(reader));
                    let task = supervisor
                        .task(READ_TASK, move || Arc::clone(&own).keep_read(Arc::clone(&reader)));
                    Entry { issuer: Arc::clone(issuer), source, _task: Arc::new(task) }
                }
            };
            (issuer.name.clone(), entry)
        });
        self.entries.store(Arc::new(entries.collect()));
        self.reconciled.send_replace(catalog);
    }

    /// The state of each issuer whose keys are read from a URL or a file.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerKeysStatus> {
        let entries = self.entries.load();
        let mut status: Vec<_> = entries.values().map(|entry| entry.source.status()).collect();
        status.sort_by(|a, b| a.issuer.name.cmp(&b.issuer.name));
        status
    }
}

/// Reads the keys of the issuers of each published catalog, until the store fails.
pub(super) async fn follow(
    facts: Arc<FactCache>,
    keys: Arc<IssuerKeys>,
    reader: Arc<dyn KeyReader>,
    supervisor: Arc<Supervisor>,
) {
    let mut published = facts.subscribe_published();
    let mut seen = None;
    loop {
        published.borrow_and_update();
        let Ok(snapshot) = facts.view().await else { return };
        let revision = snapshot.catalog.revision;
        if seen != Some(revision) {
            keys.reconcile(revision, snapshot.catalog.issuers(), &reader, &supervisor);
            seen = Some(revision);
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
