//! Source: the keys of one issuer entry that come from a URL or a file, and the task that reads them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::file_read::FileRead;
use super::read_time::ReadTime;
use super::{IssuerKeysStatus, KeyReadError, KeyReader, Refetched};
use crate::metrics::Counter;
use crate::metrics::jitter::jittered;
use crate::policy::catalog::issuer::{Issuer, KeySource};
use crate::policy::token::key_set::{KeySet, SkippedKey};

/// How long to wait before a failed fetch is repeated, at first. Each failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest time before a failed fetch is repeated.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How often a file is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait for a file that is read.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of one issuer entry.
pub(super) struct Source {
    issuer: Arc<Issuer>,
    keys: ArcSwapOption<KeysRead>,
    progress: watch::Sender<Progress>,
    /// They stay when the entry changes: a counter never decreases.
    pub(super) counts: Arc<Counts>,
}

/// Keys, and when they were read.
struct KeysRead {
    keys: Arc<KeySet>,
    /// The hash of their document.
    document: blake3::Hash,
    /// When the read of the document began.
    at: ReadTime,
}

/// The number of fetches of an issuer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    fetched: Counter,
    failed: Counter,
}

/// The fetches of an issuer so far.
#[derive(Clone, Copy)]
struct Progress {
    /// A fetch has begun, or is to begin now.
    is_under_way: bool,
    /// When the last fetch began.
    began: Instant,
    /// How many fetches have ended.
    ended: u64,
    /// Whether the last fetch that ended failed.
    has_failed: bool,
}

/// The answer to a call that asks for a fetch.
pub(super) enum Asked {
    /// A fetch is under way.
    UnderWay(UnderWay),
    /// No fetch may begin now.
    Answered(Refetched),
}

/// A fetch under way.
pub(super) struct UnderWay {
    progress: watch::Receiver<Progress>,
    /// How many fetches had ended before.
    ended: u64,
}

impl UnderWay {
    /// Waits for its end.
    pub(super) async fn ended(mut self) -> Refetched {
        match self.progress.wait_for(|progress| progress.ended > self.ended).await {
            Ok(progress) if progress.has_failed => Refetched::Unverifiable,
            Ok(_) => Refetched::LookAgain,
            // The entry was changed or removed.
            Err(_) => Refetched::Outdated,
        }
    }
}

impl Source {
    /// The source of an entry without keys. Its first fetch counts as under way.
    pub(super) fn new(issuer: &Arc<Issuer>, counts: Arc<Counts>) -> Self {
        let progress =
            Progress { is_under_way: true, began: Instant::now(), ended: 0, has_failed: false };
        Self {
            issuer: Arc::clone(issuer),
            keys: ArcSwapOption::empty(),
            progress: watch::Sender::new(progress),
            counts,
        }
    }

    /// The keys, if they were read recently enough. The keys of a file are never too old (T19).
    pub(super) fn usable(&self) -> Option<Arc<KeySet>> {
        let read = self.keys.load();
        let read = read.as_ref()?;
        let usable_for = Duration::from_secs(self.issuer.usable_for.into());
        let is_usable = self.is_file() || read.at.age() < usable_for;
        is_usable.then(|| Arc::clone(&read.keys))
    }

    fn is_file(&self) -> bool {
        matches!(self.issuer.keys, KeySource::File(_))
    }

    /// Asks for a fetch.
    pub(super) fn ask(&self) -> Asked {
        let receiver = self.progress.subscribe();
        let refetch_after = Duration::from_secs(self.issuer.refetch_after.into());
        let mut seen = *receiver.borrow();
        self.progress.send_if_modified(|progress| {
            // A file is read all the time.
            let begins = !progress.is_under_way
                && !self.is_file()
                && progress.began.elapsed() >= refetch_after;
            if begins {
                progress.begin();
            }
            seen = *progress;
            begins
        });
        if seen.is_under_way {
            return Asked::UnderWay(UnderWay { progress: receiver, ended: seen.ended });
        }
        // A file that cannot be read leaves its last keys in force.
        let is_current = self.is_file() || !seen.has_failed;
        Asked::Answered(match self.usable() {
            Some(_) if is_current => Refetched::Unchanged,
            _ => Refetched::Unverifiable,
        })
    }

    pub(super) fn status(&self) -> IssuerKeysStatus {
        IssuerKeysStatus {
            issuer: Arc::clone(&self.issuer),
            age: self.keys.load().as_ref().map(|read| read.at.age()),
            is_usable: self.usable().is_some(),
            fetched: self.counts.fetched.read(),
            failed: self.counts.failed.read(),
        }
    }

    /// Reads the keys for as long as the entry is in force.
    pub(super) async fn keep_read(self: Arc<Self>, reader: Arc<dyn KeyReader>) {
        if self.is_file() { self.poll_file(&*reader).await } else { self.refresh(&*reader).await }
    }

    async fn refresh(&self, reader: &dyn KeyReader) {
        let mut asked = self.progress.subscribe();
        let mut log = SourceLog::default();
        loop {
            let (began, at) = (self.begin(), ReadTime::now());
            let read = reader.read(&self.issuer.keys).await;
            let outcome = read.and_then(|document| self.replace(&document, at, &mut log));
            let next = match &outcome {
                Ok(()) => {
                    self.counts.fetched.inc();
                    log.succeeded(&self.issuer);
                    began + jittered(Duration::from_secs(self.issuer.refresh.into()))
                }
                Err(error) => {
                    self.counts.failed.inc();
                    log.failed(&self.issuer, error, 1);
                    Instant::now() + jittered(retry_delay(log.failures))
                }
            };
            self.end(outcome.is_err());
            tokio::select! {
                () = sleep_until(next) => {}
                _ = asked.wait_for(|progress| progress.is_under_way) => {}
            }
        }
    }

    async fn poll_file(&self, reader: &dyn KeyReader) {
        let mut log = SourceLog::default();
        let mut file = FileRead::default();
        loop {
            let read = file.next(|| reader.read(&self.issuer.keys), FILE_TIMEOUT).await;
            let outcome = read.and_then(|(document, at)| self.replace(&document, at, &mut log));
            match &outcome {
                Ok(()) => log.succeeded(&self.issuer),
                // A file that is being written is malformed for a moment.
                Err(error) => log.failed(&self.issuer, error, 2),
            }
            self.end(outcome.is_err());
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Puts the keys of a document in force. A malformed document changes nothing. The document of the
    /// keys in force is not parsed again.
    fn replace(&self, text: &Bytes, at: ReadTime, log: &mut SourceLog) -> Result<(), KeyReadError> {
        let document = blake3::hash(text);
        let keys = match self.keys.load_full().filter(|last| last.document == document) {
            Some(last) => Arc::clone(&last.keys),
            None => {
                let parsed = KeySet::parse(text)
                    .map_err(|error| KeyReadError(format!("the document {error}")))?;
                log.skipped(&self.issuer, parsed.skipped);
                Arc::new(parsed.keys)
            }
        };
        self.keys.store(Some(Arc::new(KeysRead { keys, document, at })));
        Ok(())
    }

    /// Begins a fetch, and returns when.
    fn begin(&self) -> Instant {
        let mut began = Instant::now();
        self.progress.send_modify(|progress| {
            progress.begin();
            began = progress.began;
        });
        began
    }

    /// Ends a fetch, after its keys are in force.
    fn end(&self, has_failed: bool) {
        self.progress.send_modify(|progress| {
            progress.is_under_way = false;
            progress.ended += 1;
            progress.has_failed = has_failed;
        });
    }
}

impl Progress {
    fn begin(&mut self) {
        self.is_under_way = true;
        self.began = Instant::now();
    }
}

/// How long to wait after this many failures in succession, which is at least one.
fn retry_delay(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY)
}

/// The warnings of one source. Each cause is logged once until it has gone.
#[derive(Default)]
struct SourceLog {
    /// How many fetches in succession failed.
    failures: u32,
    /// The keys of the last document that cannot be used.
    skipped: Vec<SkippedKey>,
}

impl SourceLog {
    /// Logs the failure that is this one in a succession.
    fn failed(&mut self, issuer: &Issuer, error: &KeyReadError, logged: u32) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == logged {
            tracing::warn!(
                issuer = &*issuer.name,
                cause = %error,
                "the keys of an issuer could not be read: keys that were read before stay in use, \
                 and the read is repeated"
            );
        }
    }

    fn succeeded(&mut self, issuer: &Issuer) {
        if self.failures > 0 {
            let failures = self.failures;
            tracing::info!(
                issuer = &*issuer.name,
                failures,
                "the keys of the issuer are read again"
            );
        }
        self.failures = 0;
    }

    fn skipped(&mut self, issuer: &Issuer, skipped: Vec<SkippedKey>) {
        if let Some(first) = skipped.first().filter(|_| skipped != self.skipped) {
            let number = skipped.len();
            tracing::warn!(
                issuer = &*issuer.name,
                number,
                %first,
                "keys of the issuer are skipped, because they cannot be used"
            );
        }
        self.skipped = skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_fetch_is_repeated_after_twice_the_time_up_to_a_limit() {
        let delays: Vec<_> = (1..8).map(|failures| retry_delay(failures).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(retry_delay(u32::MAX), LAST_RETRY);
    }
}
