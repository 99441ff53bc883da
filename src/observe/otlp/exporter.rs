//! Exporter: what scopegate adds around the SDK's batch processor: a bound that counts what it drops,
//! and an exporter that counts what was sent and logs when the collector takes nothing.
//!
//! The SDK counts the spans that do not fit its queue, but has no function that returns the number. So
//! the bound is applied before the queue, which then is never full.
//!
//! Not here: the queue, the batches and the thread that sends them; the SDK has those.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Span, SpanData, SpanExporter as Exporter, SpanProcessor,
};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{MAX_QUEUED_SPANS, Shared};
use crate::metrics::supervise::Supervisor;

/// How long the collector may take for a message. The exporter may have another timeout.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of the exporter among the restarted tasks.
pub(super) const TASK: &str = "traces";

/// The batch processor, with a bound that counts what it drops.
#[derive(Debug)]
pub(super) struct BoundedProcessor {
    pub(super) batches: BatchSpanProcessor,
    pub(super) shared: Arc<Shared>,
}

impl SpanProcessor for BoundedProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let counts = &self.shared.counts;
        if counts.queued.fetch_add(1, Ordering::Relaxed) < MAX_QUEUED_SPANS {
            self.batches.on_end(span);
        } else {
            counts.queued.fetch_sub(1, Ordering::Relaxed);
            counts.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// The OTLP exporter, with the counters and the log of its failures.
#[derive(Debug)]
pub(super) struct CountingExporter {
    pub(super) exporter: Arc<SpanExporter>,
    /// The runtime of the exporter's connection.
    pub(super) runtime: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) supervisor: Arc<Supervisor>,
}

impl Exporter for CountingExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let Shared { counts, is_failing } = &*self.shared;
        let (count, exporter) = (spans.len(), Arc::clone(&self.exporter));
        // The thread of the batch processor has no runtime, and it would not survive a panic.
        let sending = async move { timeout(EXPORT_TIMEOUT, exporter.export(spans)).await };
        let sent = match self.runtime.spawn(sending).await {
            Ok(sent) => sent.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT))),
            Err(ended) if ended.is_panic() => {
                self.supervisor.restarted(TASK);
                Err(OTelSdkError::InternalFailure("the exporter panicked".to_owned()))
            }
            // The runtime has ended, and the process ends with it.
            Err(_) => return Err(OTelSdkError::AlreadyShutdown),
        };
        counts.queued.fetch_sub(count, Ordering::Relaxed);
        match &sent {
            Ok(()) => {
                counts.sent.inc_by(count as u64);
                if is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                counts.dropped.inc_by(count as u64);
                if !is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces cannot be sent: spans are dropped");
                }
            }
        }
        sent
    }
}
