//! Decisions: a log of each, one JSON object a line, for those who want one.
//!
//! It never holds up a check: what does not fit its queue is dropped, and counted. Denials come
//! first: of allowed decisions only a sample is written if so wanted, and none while the queue is
//! more than half full. Of tokens and secrets nothing is written.
//!
//! Not here: the audit log, which has every change and loses none; see the ChangeService.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::origin::{Origin, Parent};
use super::reason_word;
use crate::measure::{Count, Level};
use crate::policy::caller::Caller;
use crate::policy::decision::Verdict;
use crate::policy::query::{Needs, Query};
use crate::policy::revision::Revision;

/// How many decisions may wait to be written.
const QUEUE: usize = 1 << 14;

/// A decision that waits to be written.
struct Decided {
    time: Timestamp,
    caller: Caller,
    origin: Option<Arc<Origin>>,
    query: Query,
    verdict: Verdict,
    revision: Revision,
}

/// The log.
pub struct Decisions {
    queue: SyncSender<Decided>,
    /// Of so many allowed decisions one is written.
    sample: u64,
    allowed: AtomicU64,
    counts: Arc<Counts>,
}

/// What became of decisions.
#[derive(Default)]
pub struct Counts {
    waiting: Level,
    /// Written.
    pub written: Count,
    /// Not written, because too many waited or the file could not be written.
    pub dropped: Count,
}

impl Decisions {
    /// Starts a log on this output: every denial, and one of `sample` allowed decisions.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(output: impl Write + Send + 'static, sample: u64) -> io::Result<Self> {
        let (queue, decided) = sync_channel(QUEUE);
        let counts: Arc<Counts> = Arc::default();
        let own = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("decision-log".to_owned());
        thread.spawn(move || write_all(&decided, BufWriter::new(output), &own))?;
        Ok(Self { queue, sample: sample.max(1), allowed: AtomicU64::new(0), counts })
    }

    /// Logs a decision, if there is room.
    pub(super) fn note(
        &self,
        caller: &Caller,
        origin: Option<&Arc<Origin>>,
        query: &Query,
        verdict: &Verdict,
        revision: Revision,
    ) {
        if matches!(verdict, Verdict::Allowed { .. }) {
            if !self.allowed.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.sample) {
                return;
            }
            if self.counts.waiting.read() > QUEUE as u64 / 2 {
                self.counts.dropped.one();
                return;
            }
        }
        let (query, verdict) = (query.clone(), verdict.clone());
        let (time, caller, origin) = (Timestamp::now(), caller.clone(), origin.cloned());
        self.counts.waiting.up();
        let decided = Decided { time, caller, origin, query, verdict, revision };
        if self.queue.try_send(decided).is_err() {
            self.counts.waiting.down();
            self.counts.dropped.one();
        }
    }

    /// What became of decisions.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until what was decided before is written, but not for long.
    pub fn settle(&self) {
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_scopes: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn of(decided: &'a Decided) -> Self {
        let Decided { time, caller, origin, query, verdict, revision } = decided;
        let origin = origin.as_deref();
        let (scopes, method, path) = match &query.needs {
            Needs::Scopes(scopes) => {
                (Some(scopes.iter().map(|scope| scope.as_str()).collect()), None, None)
            }
            Needs::Endpoint { method, path } => (None, Some(&**method), Some(path.as_str())),
        };
        let (decision, reason, missing) = match verdict {
            Verdict::Allowed { .. } => ("ALLOWED", "ALLOWED", vec![]),
            Verdict::Denied { reason, missing } => {
                let missing = missing.iter().map(|scope| scope.as_str()).collect();
                ("DENIED", reason_word(*reason), missing)
            }
        };
        Self {
            time: time.to_string(),
            revision: revision.0,
            caller: caller.name(),
            key_id: match caller {
                Caller::Key(key) => Some(key.id.as_str()),
                _ => None,
            },
            x_request_id: origin.and_then(|origin| origin.request_id.as_deref()),
            trace_id: origin.and_then(|origin| origin.parent.as_ref()).map(Parent::trace),
            company_id: query.company.as_str(),
            credential_id: query.credential.as_str(),
            scopes,
            method,
            path,
            audience: query.audience.as_ref().map(|name| name.as_str()),
            user_id: query.on_behalf_of().map(|user| user.as_str()),
            resource_owner_id: query.owner.as_ref().map(|user| user.as_str()),
            decision,
            reason,
            missing_scopes: missing,
        }
    }
}

/// Writes until nobody can send any more. What was written is flushed whenever nothing waits.
fn write_all(queue: &Receiver<Decided>, mut output: impl Write, counts: &Counts) {
    let mut failing = false;
    loop {
        let decided = match queue.try_recv() {
            Ok(decided) => decided,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                report(output.flush(), &mut failing);
                match queue.recv_timeout(Duration::from_secs(3_600)) {
                    Ok(decided) => decided,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let written = serde_json::to_writer(&mut output, &Line::of(&decided));
        let written = written.map_err(io::Error::from).and_then(|()| output.write_all(b"\n"));
        match written {
            Ok(()) => counts.written.one(),
            Err(_) => counts.dropped.one(),
        }
        report(written, &mut failing);
        counts.waiting.down();
    }
}

/// Says once that the log cannot be written, and once that it can again.
fn report(written: io::Result<()>, failing: &mut bool) {
    match written {
        Ok(()) if *failing => {
            tracing::info!("the decision log is written again");
            *failing = false;
        }
        Err(error) if !*failing => {
            tracing::error!(%error, "the decision log cannot be written: decisions are dropped");
            *failing = true;
        }
        _ => {}
    }
}
