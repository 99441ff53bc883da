//! Decision log: writes one JSON object a line for each decision, and for each token that was issued or
//! refused, if the operator enables it.
//!
//! The log never delays a check: a decision that does not fit its queue is dropped and counted.
//! Denials have priority: only a sample of the allowed decisions is written if the operator wants
//! that, and none while the queue is more than half full. The log contains no token and no secret: of a
//! token that the server verified, it has the issuer's name and the token's id (T7).
//!
//! The length of a line is bounded, and so are the bytes that are written in a second. A decision
//! counts as written when the operating system has taken its line.
//!
//! Not here: the audit log, which has every change and loses none; see the ChangeService.

mod entry;
mod output;
mod token_entry;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use self::entry::{DecisionLogEntry, truncated};
pub use self::output::DecisionLogOutput;
pub use self::token_entry::TokenDecision;
use self::token_entry::TokenLogEntry;
use self::writer::DecisionLogWriter;
use crate::authority::decision_observer::DecisionObserver;
use crate::authority::request_context::RequestContext;
use crate::metrics::supervise::Supervisor;
use crate::metrics::{Counter, Gauge};
use crate::policy::caller::Caller;
use crate::policy::decision::Verdict;
use crate::policy::query::{Query, Requirement, ResourceAction};
use crate::policy::revision::Revision;
use crate::policy::text;

/// The limit of queued decisions.
const MAX_QUEUED: usize = 1 << 14;
/// The limit of bytes of the type, the id and the action of a resource, each.
const MAX_RESOURCE_TEXT: usize = 256;
/// The approximate limit of their memory, in bytes.
const MAX_QUEUED_BYTES: u64 = 32 << 20;

/// A message to the writer.
enum Message {
    /// Write this entry.
    Entry(Box<DecisionLogEntry>),
    /// Write this entry.
    Token(Box<TokenLogEntry>),
    /// Read the flag to open the file again.
    Reopen,
}

/// The log. Its thread writes; callers only queue.
pub struct DecisionLog {
    queue: SyncSender<Message>,
    /// One of this many allowed decisions is written.
    allowed_one_in: u64,
    allowed: AtomicU64,
    counts: Arc<DecisionCounts>,
    reopen: Arc<AtomicBool>,
}

/// The numbers of decisions that were written and dropped.
#[derive(Default)]
pub struct DecisionCounts {
    queued: Gauge,
    queued_bytes: AtomicU64,
    /// Decisions whose lines the operating system took.
    pub written: Counter,
    /// Decisions that were not written: too many were queued, the log had too many bytes, or the
    /// file could not be written.
    pub dropped: Counter,
}

impl DecisionLog {
    /// Starts a log that writes every denial and one of `allowed_one_in` allowed decisions to this
    /// output, at most `bytes_per_second`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        output: DecisionLogOutput,
        allowed_one_in: u64,
        bytes_per_second: u32,
        supervisor: &Arc<Supervisor>,
    ) -> io::Result<Self> {
        let (queue, messages) = sync_channel(MAX_QUEUED);
        let (counts, reopen) = (Arc::<DecisionCounts>::default(), Arc::<AtomicBool>::default());
        let (own, reopened) = (Arc::clone(&counts), Arc::clone(&reopen));
        let mut writer = DecisionLogWriter::new(messages, output, bytes_per_second, own, reopened);
        supervisor.thread("decision_log", move || writer.run())?;
        let (allowed_one_in, allowed) = (allowed_one_in.max(1), AtomicU64::new(0));
        Ok(Self { queue, allowed_one_in, allowed, counts, reopen })
    }

    /// Opens the file again, for example after a rotation. This does not wait: decisions that are
    /// queued are still written to the old file.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // If the queue is full, the writer is awake and sees the flag.
        self.queue.try_send(Message::Reopen).ok();
    }

    /// The numbers of decisions that were written and dropped.
    #[must_use]
    pub fn counts(&self) -> &DecisionCounts {
        &self.counts
    }

    /// Queues a token decision, if the queue has space. These are not sampled.
    pub fn token(&self, decision: TokenDecision) {
        let entry = Box::new(TokenLogEntry::new(decision));
        let bytes = entry.bytes();
        self.queue(Message::Token(entry), bytes);
    }

    /// Queues an entry of this many bytes, or counts it as dropped.
    fn queue(&self, entry: Message, bytes: u64) {
        if self.counts.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.counts.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.inc();
            return;
        }
        self.counts.queued.up();
        if self.queue.try_send(entry).is_err() {
            self.counts.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.queued.down();
            self.counts.dropped.inc();
        }
    }

    /// Waits until the queued decisions are written, for one second at most.
    pub fn flush(&self) {
        for _ in 0..100 {
            if self.counts.queued.read() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl DecisionObserver for DecisionLog {
    /// Queues a decision, if it is sampled and the queue has space.
    fn decided(
        &self,
        caller: &Caller,
        context: Option<&Arc<RequestContext>>,
        query: &Query,
        verdict: &Verdict,
        revision: Revision,
    ) {
        if matches!(verdict, Verdict::Allowed { .. }) {
            if !self.allowed.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.allowed_one_in) {
                return;
            }
            if self.counts.queued.read() > MAX_QUEUED as u64 / 2 {
                self.counts.dropped.inc();
                return;
            }
        }
        let (requirement, scopes_count) = match &query.needs {
            Requirement::Scopes(scopes) => {
                let (scopes, count) = truncated(scopes);
                (Requirement::Scopes(scopes), count)
            }
            Requirement::Resource(asked) => {
                let named = |text: &str| text::quoted(text, MAX_RESOURCE_TEXT).into();
                let named = ResourceAction {
                    kind: named(&asked.kind),
                    id: named(&asked.id),
                    action: named(&asked.action),
                    // Properties can be personal data, and are as long as the request.
                    ..ResourceAction::default()
                };
                (Requirement::Resource(Box::new(named)), None)
            }
            endpoint @ (Requirement::Endpoint { .. } | Requirement::Template { .. }) => {
                (endpoint.clone(), None)
            }
        };
        let (denied, cause, (missing, missing_count)) = match verdict {
            Verdict::Allowed { .. } => (None, None, (vec![], None)),
            Verdict::Denied { reason, fault, missing } => {
                (Some(*reason), *fault, truncated(missing))
            }
        };
        let entry = Box::new(DecisionLogEntry {
            time: crate::metrics::machine_time(),
            caller: caller.clone(),
            context: context.cloned(),
            company: query.company().cloned(),
            credential: query.credential().cloned(),
            requirement,
            scopes_count,
            audience: query.audience.clone(),
            token: query.verified_token().cloned(),
            user: query.on_behalf_of().cloned(),
            owner: query.owner.clone(),
            denied,
            cause,
            missing,
            missing_count,
            revision,
        });
        let bytes = entry.bytes();
        self.queue(Message::Entry(entry), bytes);
    }
}
