//! Sender: sends the spans of queued calls to the collector, in batches.
//!
//! Not here: what a span contains; see [`super::span`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;

use super::Shared;
use super::span::TracedCall;
use crate::metrics::Gauge;

/// The limit of calls in one batch.
const MAX_BATCH_CALLS: usize = 256;
/// The limit of spans in one message. It is well below the 4 MiB that most collectors accept.
const MAX_MESSAGE_SPANS: usize = 512;
/// How long a call waits for others of its batch.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a message. The exporter may have another timeout.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends until the last sender of the queue is dropped.
pub(super) async fn run(
    queue: &mut mpsc::Receiver<Box<TracedCall>>,
    exporter: &SpanExporter,
    shared: &Shared,
) {
    let Shared { counts, is_failing, flush } = shared;
    let mut calls = Vec::with_capacity(MAX_BATCH_CALLS);
    while queue.recv_many(&mut calls, MAX_BATCH_CALLS).await > 0 {
        let more = async {
            while calls.len() < MAX_BATCH_CALLS {
                let free = MAX_BATCH_CALLS - calls.len();
                if queue.recv_many(&mut calls, free).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(MAX_BATCH_DELAY, more) => {}
            () = flush.notified() => {}
        }
        let _batch: Vec<_> = calls.iter().map(|_| QueuedCall(&counts.queued)).collect();
        let mut spans = calls.drain(..).flat_map(|call| call.spans()).peekable();
        while spans.peek().is_some() {
            let message: Vec<_> = spans.by_ref().take(MAX_MESSAGE_SPANS).collect();
            let count = message.len() as u64;
            let sent = tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(message)).await;
            let sent = sent.map_err(|_| "no reply within the export timeout".to_owned());
            match sent.and_then(|sent| sent.map_err(|error| error.to_string())) {
                Ok(()) => {
                    counts.sent.inc_by(count);
                    if is_failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("traces are sent again");
                    }
                }
                Err(error) => {
                    counts.dropped.inc_by(count);
                    if !is_failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "traces cannot be sent: spans are dropped");
                    }
                }
            }
        }
    }
}

/// Counts a call as queued until it is dropped, whether its spans were sent or not.
struct QueuedCall<'a>(&'a Gauge);

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}
