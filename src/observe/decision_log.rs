//! Decisions: a log of each, one JSON object a line, for those who want one.
//!
//! It never holds up a check: what does not fit its queue is dropped, and counted. Denials come
//! first: of allowed decisions only a sample is written if so wanted, and none while the queue is
//! more than half full. Of tokens and secrets nothing is written.
//!
//! A line has a bound, and so has what is written a second. A decision counts as written when the
//! system has taken its line.
//!
//! Not here: the audit log, which has every change and loses none; see the ChangeService.

mod output;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

pub use self::output::Output;
use super::trace_context::{Parent, RequestContext};
use crate::metrics::supervise::Supervisor;
use crate::metrics::{Counter, Gauge};
use crate::policy::caller::Caller;
use crate::policy::cause::DenialCause;
use crate::policy::decision::Verdict;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Query, Requirement};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::wire::names::reason_name;

/// How many decisions may wait to be written.
const QUEUE: usize = 1 << 14;
/// About how many bytes they may have together.
const QUEUE_BYTES: u64 = 32 << 20;
/// About how many bytes are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// The most names of scopes in a list of a line.
const MAX_NAMES: usize = 20;
/// How often it is said, at most, that decisions are dropped for their bytes.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What the thread that writes is sent.
enum Message {
    /// Write this.
    DecisionLogEntry(Box<DecisionLogEntry>),
    /// Look whether the file is to be opened again.
    Wake,
}

/// A decision that waits to be written: no more of it than its line has.
struct DecisionLogEntry {
    time: Timestamp,
    caller: Caller,
    origin: Option<Arc<RequestContext>>,
    company: CompanyId,
    credential: CredentialId,
    needs: Requirement,
    /// How many scopes were asked for, if these are not all.
    scopes_count: Option<usize>,
    audience: Option<Name>,
    user: Option<UserId>,
    owner: Option<UserId>,
    /// None if it was allowed.
    denied: Option<Reason>,
    /// Which cause of the reason it was, where that has several.
    fault: Option<DenialCause>,
    missing: Vec<Scope>,
    missing_count: Option<usize>,
    revision: Revision,
}

impl DecisionLogEntry {
    /// About how many bytes it holds.
    fn bytes(&self) -> u64 {
        let names = |scopes: &[Scope]| scopes.iter().map(|s| s.as_str().len() + 16).sum::<usize>();
        let needs = match &self.needs {
            Requirement::Scopes(scopes) => names(scopes),
            Requirement::Endpoint { method, path } => method.len() + path.as_str().len(),
        };
        let users = [&self.user, &self.owner].into_iter().flatten();
        let users = users.map(|user| user.as_str().len()).sum::<usize>();
        let ids = self.company.as_str().len() + self.credential.as_str().len() + users;
        (size_of::<Self>() + 128 + ids + needs + names(&self.missing)) as u64
    }
}

/// The log.
pub struct DecisionLog {
    queue: SyncSender<Message>,
    /// Of so many allowed decisions one is written.
    sample: u64,
    allowed: AtomicU64,
    counts: Arc<Counts>,
    reopen: Arc<AtomicBool>,
}

/// What became of decisions.
#[derive(Default)]
pub struct Counts {
    waiting: Gauge,
    waiting_bytes: AtomicU64,
    /// Written: the system has their lines.
    pub written: Counter,
    /// Not written, because too many waited, they had too many bytes, or the file could not be
    /// written.
    pub dropped: Counter,
}

impl DecisionLog {
    /// Starts a log on this output: every denial, and one of `sample` allowed decisions, of at
    /// most so many bytes a second.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(
        output: Output,
        sample: u64,
        bytes_per_second: u32,
        supervisor: &Arc<Supervisor>,
    ) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let (counts, reopen) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let mut writer = Writer {
            messages,
            output,
            rate: Rate::of(bytes_per_second),
            lines: vec![],
            ends: vec![],
            counts: Arc::clone(&counts),
            reopen: Arc::clone(&reopen),
            is_failing: false,
            said_too_much: None,
        };
        supervisor.thread("decision_log", move || writer.run())?;
        Ok(Self { queue, sample: sample.max(1), allowed: AtomicU64::new(0), counts, reopen })
    }

    /// Has the file opened again, as after a rotation. It waits for nothing: what was decided
    /// before and waits is still written to the old file.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // A queue without room is being read anyway.
        self.queue.try_send(Message::Wake).ok();
    }

    /// Logs a decision, if there is room.
    pub(crate) fn note(
        &self,
        caller: &Caller,
        origin: Option<&Arc<RequestContext>>,
        query: &Query,
        verdict: &Verdict,
        revision: Revision,
    ) {
        if matches!(verdict, Verdict::Allowed { .. }) {
            if !self.allowed.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.sample) {
                return;
            }
            if self.counts.waiting.read() > QUEUE as u64 / 2 {
                self.counts.dropped.inc();
                return;
            }
        }
        let (needs, scopes_count) = match &query.needs {
            Requirement::Scopes(scopes) => {
                let (scopes, count) = cut(scopes);
                (Requirement::Scopes(scopes), count)
            }
            endpoint @ Requirement::Endpoint { .. } => (endpoint.clone(), None),
        };
        let (denied, fault, (missing, missing_count)) = match verdict {
            Verdict::Allowed { .. } => (None, None, (vec![], None)),
            Verdict::Denied { reason, fault, missing } => (Some(*reason), *fault, cut(missing)),
        };
        let decided = Box::new(DecisionLogEntry {
            time: crate::metrics::machine_time(),
            caller: caller.clone(),
            origin: origin.cloned(),
            company: query.company.clone(),
            credential: query.credential.clone(),
            needs,
            scopes_count,
            audience: query.audience.clone(),
            user: query.on_behalf_of().cloned(),
            owner: query.owner.clone(),
            denied,
            fault,
            missing,
            missing_count,
            revision,
        });
        let bytes = decided.bytes();
        if self.counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.inc();
            return;
        }
        self.counts.waiting.up();
        if self.queue.try_send(Message::DecisionLogEntry(decided)).is_err() {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.waiting.down();
            self.counts.dropped.inc();
        }
    }

    /// What became of decisions.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until what was decided before is written, but not for long.
    pub fn flush(&self) {
        for _ in 0..100 {
            if self.counts.waiting.read() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    revision: u64,
    caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    // Of the caller, and not the `request_id` of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    x_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    company_id: &'a str,
    credential_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'a str>>,
    // How many there are, if these are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_owner_id: Option<&'a str>,
    decision: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_scopes_count: Option<usize>,
}

impl<'a> Line<'a> {
    fn of(decided: &'a DecisionLogEntry) -> Self {
        let origin = decided.origin.as_deref();
        let names = |scopes: &'a [Scope]| scopes.iter().map(|scope| scope.as_str()).collect();
        let (scopes, method, path) = match &decided.needs {
            Requirement::Scopes(scopes) => (Some(names(scopes)), None, None),
            Requirement::Endpoint { method, path } => (None, Some(&**method), Some(path.as_str())),
        };
        Self {
            time: decided.time.to_string(),
            revision: decided.revision.0,
            caller: decided.caller.name(),
            key_id: match &decided.caller {
                Caller::Key(key) => Some(key.id.as_str()),
                _ => None,
            },
            x_request_id: origin.and_then(|origin| origin.request_id.as_deref()),
            trace_id: origin.and_then(|origin| origin.parent.as_ref()).map(Parent::trace),
            company_id: decided.company.as_str(),
            credential_id: decided.credential.as_str(),
            scopes,
            scopes_count: decided.scopes_count,
            method,
            path,
            audience: decided.audience.as_ref().map(|name| name.as_str()),
            user_id: decided.user.as_ref().map(|user| user.as_str()),
            resource_owner_id: decided.owner.as_ref().map(|user| user.as_str()),
            decision: if decided.denied.is_some() { "DENIED" } else { "ALLOWED" },
            reason: decided.denied.map_or("ALLOWED", reason_name),
            cause: decided.fault.map(DenialCause::word),
            missing_scopes: names(&decided.missing),
            missing_scopes_count: decided.missing_count,
        }
    }
}

/// The first scopes, and how many there are if these are not all.
fn cut(scopes: &[Scope]) -> (Vec<Scope>, Option<usize>) {
    let count = scopes.len();
    (scopes.iter().take(MAX_NAMES).cloned().collect(), (count > MAX_NAMES).then_some(count))
}

/// How many bytes may be written: so many a second, and those of one second at once.
struct Rate {
    bytes_per_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    fn of(bytes_per_second: u32) -> Self {
        let bytes_per_second = bytes_per_second.into();
        Self { bytes_per_second, left: bytes_per_second, at: Instant::now() }
    }

    /// Whether so many more may be written. Half of a second's bytes are kept for denials.
    fn take(&mut self, bytes: usize, is_denial: bool, now: Instant) -> bool {
        let more = now.duration_since(self.at).as_secs_f64() * self.bytes_per_second;
        self.left = (self.left + more).min(self.bytes_per_second);
        self.at = now;
        let kept = if is_denial { 0.0 } else { self.bytes_per_second / 2.0 };
        let left = self.left - bytes as f64;
        if left < kept {
            return false;
        }
        self.left = left;
        true
    }
}

/// The thread that writes.
struct Writer {
    messages: Receiver<Message>,
    output: Output,
    rate: Rate,
    /// Lines that are not written yet, and where each ends.
    lines: Vec<u8>,
    ends: Vec<usize>,
    counts: Arc<Counts>,
    reopen: Arc<AtomicBool>,
    is_failing: bool,
    said_too_much: Option<Instant>,
}

impl Writer {
    /// Writes until nobody can send any more, whenever there is enough or nothing waits.
    fn run(&mut self) {
        loop {
            if self.reopen.load(Ordering::Acquire) {
                // Before the flag is taken: what waits for a reader gives up by it.
                self.write();
                self.reopen.store(false, Ordering::Release);
                self.open_again();
            }
            let message = match self.messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => return self.write(),
                Err(TryRecvError::Empty) => {
                    self.write();
                    match self.messages.recv() {
                        Ok(message) => message,
                        Err(_) => return,
                    }
                }
            };
            if let Message::DecisionLogEntry(decided) = message {
                self.counts.waiting_bytes.fetch_sub(decided.bytes(), Ordering::Relaxed);
                self.add(&decided);
            }
            if self.lines.len() >= WRITE_BYTES {
                self.write();
            }
        }
    }

    fn add(&mut self, decided: &DecisionLogEntry) {
        let begin = self.lines.len();
        let line = serde_json::to_writer(&mut self.lines, &Line::of(decided));
        self.lines.push(b'\n');
        let (bytes, now) = (self.lines.len() - begin, Instant::now());
        let is_denial = decided.denied.is_some();
        if line.is_ok() && self.rate.take(bytes, is_denial, now) {
            self.ends.push(self.lines.len());
            return;
        }
        self.lines.truncate(begin);
        self.counts.dropped.inc();
        self.counts.waiting.down();
        if self.said_too_much.is_none_or(|said| now.duration_since(said) > SAY_AGAIN) {
            self.said_too_much = Some(now);
            tracing::warn!(
                "the decision log has more bytes than --decision-log-bytes-per-second lets it: \
                 decisions are dropped and counted"
            );
        }
    }

    fn write(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let Self { output, lines, ends, counts, reopen, .. } = self;
        let (bytes, result) = output.write(lines, || reopen.load(Ordering::Relaxed));
        let written = ends.iter().filter(|end| **end <= bytes).count();
        counts.written.inc_by(written as u64);
        counts.dropped.inc_by((ends.len() - written) as u64);
        for _ in ends.drain(..) {
            counts.waiting.down();
        }
        lines.clear();
        self.report(result);
    }

    fn open_again(&mut self) {
        match self.output.reopen() {
            Ok(()) => tracing::info!("the decision log was opened again"),
            Err(error) => tracing::warn!(
                %error,
                "the decision log cannot be opened again: the old file is still written"
            ),
        }
    }

    /// Says once that the log cannot be written, and once that it can again.
    fn report(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) if self.is_failing => {
                tracing::info!("the decision log is written again");
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                tracing::error!(%error, "the decision log cannot be written: decisions are dropped");
                self.is_failing = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_bytes_than_the_rate_and_denials_come_first() {
        let mut rate = Rate::of(1_000);
        let begin = rate.at;
        assert!(rate.take(500, false, begin));
        assert!(!rate.take(1, false, begin), "the other half is for denials");
        assert!(rate.take(500, true, begin));
        assert!(!rate.take(1, true, begin));
        let later = begin + Duration::from_millis(600);
        assert!(rate.take(100, false, later));
        assert!(!rate.take(1, false, later));
        assert!(rate.take(500, true, later));
        assert!(!rate.take(2_000, true, later + Duration::from_secs(60)), "no more at once");
    }

    #[test]
    fn a_line_has_twenty_names_and_how_many_there_are() {
        let all: Vec<_> =
            (0..21).map(|n| Scope::parse(format!("s:{n}")).expect("a scope")).collect();
        let (names, count) = cut(&all);
        assert_eq!((names.len(), count), (20, Some(21)));
        let (names, count) = cut(&all[..20]);
        assert_eq!((names.len(), count), (20, None));
    }
}
