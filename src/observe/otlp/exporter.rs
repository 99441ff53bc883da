//! Exporter: what scopegate adds around the SDK's batch processor: a bound that counts what it drops,
//! and an exporter that counts what was sent and logs when the collector takes nothing.
//!
//! The SDK counts the spans that do not fit its queue, but it shows that number to nobody. So the
//! bound is applied before the queue, which then is never full.
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

use super::{MAX_QUEUED_SPANS, Shared};
use crate::metrics::supervise::Supervisor;

/// How long the collector may take for a message. The exporter may have another timeout.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of the exporter among the restarted tasks.
const TASK: &str = "traces";

/// The batch processor, with a bound that counts what it drops.
#[derive(Debug)]
pub(super) struct BoundedProcessor {
    batches: BatchSpanProcessor,
    shared: Arc<Shared>,
}

impl BoundedProcessor {
    pub(super) fn new(batches: BatchSpanProcessor, shared: Arc<Shared>) -> Self {
        Self { batches, shared }
    }
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
    exporter: Arc<SpanExporter>,
    runtime: Handle,
    shared: Arc<Shared>,
    supervisor: Arc<Supervisor>,
}

impl CountingExporter {
    /// An exporter whose connection is a task of the present runtime.
    pub(super) fn new(
        exporter: SpanExporter,
        shared: Arc<Shared>,
        supervisor: Arc<Supervisor>,
    ) -> Self {
        supervisor.register(TASK);
        Self { exporter: Arc::new(exporter), runtime: Handle::current(), shared, supervisor }
    }

    /// Sends one message. None if the runtime has ended.
    async fn send(&self, spans: Vec<SpanData>) -> Option<Result<(), String>> {
        // The thread of the batch processor has no runtime, and it would not survive a panic.
        let exporter = Arc::clone(&self.exporter);
        let sending =
            async move { tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(spans)).await };
        match self.runtime.spawn(sending).await {
            Ok(Ok(sent)) => Some(sent.map_err(|error| error.to_string())),
            Ok(Err(_)) => Some(Err("no reply within the export timeout".to_owned())),
            Err(ended) if ended.is_panic() => {
                self.supervisor.restarted(TASK);
                Some(Err("the exporter panicked".to_owned()))
            }
            Err(_) => None,
        }
    }
}

impl Exporter for CountingExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let Shared { counts, is_failing } = &*self.shared;
        let count = spans.len();
        let sent = self.send(spans).await;
        counts.queued.fetch_sub(count, Ordering::Relaxed);
        match sent {
            Some(Ok(())) => {
                counts.sent.inc_by(count as u64);
                if is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are sent again");
                }
                Ok(())
            }
            Some(Err(error)) => {
                counts.dropped.inc_by(count as u64);
                if !is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces cannot be sent: spans are dropped");
                }
                Err(OTelSdkError::InternalFailure(error))
            }
            None => Err(OTelSdkError::AlreadyShutdown),
        }
    }
}
