//! OTLP: traces of calls, sent to a collector by the OpenTelemetry SDK.
//!
//! A traced call has one span, by OpenTelemetry's conventions for RPC or HTTP, and one child span for each
//! step that it waited for: a read of the store, a commit. The SDK's batch processor queues the
//! spans, and its thread sends them. Spans for which the queue has no space, and spans that the
//! collector does not take, are dropped and counted, so no call waits.
//!
//! A span has the ids of companies and credentials, the caller's name and the request id. It has no
//! user, token, scope, secret, key or error text.
//!
//! Not here: which calls are traced; see [`super::request_log`]. And the headers that name a trace;
//! see [`super::trace_context`].

mod exporter;
mod http_span;
mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler,
    SamplingDecision, SdkTracer, SdkTracerProvider, ShouldSample, SpanExporter as _,
};
use tokio::runtime::Handle;

use self::exporter::{BoundedProcessor, CountingExporter};
pub(crate) use self::http_span::{HttpTrace, TracedSender};
pub(crate) use self::span::{Trace, TracedRequest, code};
use crate::metrics::Counter;
use crate::metrics::supervise::Supervisor;

/// The limit of spans that are not sent yet.
const MAX_QUEUED_SPANS: usize = 1 << 12;
/// The limit of spans in one message. It is well below the 4 MiB that most collectors accept.
const MAX_MESSAGE_SPANS: usize = 512;
/// How long a span waits for others of its message.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the end of the server waits until the queued spans are sent, and how long if the
/// collector did not take the last message.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const FAILING_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-endpoint: {0}")]
pub(crate) struct OtlpError(String);

/// Makes the spans of calls, and sends them.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Which of the calls without a trace of their own begin one. None: none of them.
    sampler: Option<Sampler>,
    shared: Arc<Shared>,
}

/// The state that calls and the sending thread share.
#[derive(Debug, Default)]
struct Shared {
    counts: SpanCounts,
    /// Whether the collector did not take the last message.
    is_failing: AtomicBool,
}

/// The numbers of spans that were sent and dropped.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    /// Spans that are neither sent nor dropped yet.
    queued: AtomicUsize,
    /// Spans that the collector took.
    pub(crate) sent: Counter,
    /// Spans that did not fit the queue, or that the collector did not take.
    pub(crate) dropped: Counter,
}

impl Traces {
    /// Starts the thread that sends to this collector. The connection is a task of the present
    /// runtime. The collector need not be reachable yet.
    ///
    /// # Errors
    /// The address is not one of a collector.
    pub(crate) fn start(
        endpoint: &str,
        one_in: u64,
        supervisor: &Arc<Supervisor>,
    ) -> Result<Self, OtlpError> {
        check(endpoint).map_err(|what| OtlpError(what.to_owned()))?;
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let exporter = match endpoint.starts_with("https:") {
            true => exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()),
            false => exporter,
        };
        let mut exporter = exporter.build().map_err(|error| OtlpError(error.to_string()))?;
        exporter.set_resource(&resource());
        let shared: Arc<Shared> = Arc::default();
        supervisor.register(exporter::TASK);
        let exporter = CountingExporter {
            exporter: Arc::new(exporter),
            runtime: Handle::current(),
            shared: Arc::clone(&shared),
            supervisor: Arc::clone(supervisor),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_max_export_batch_size(MAX_MESSAGE_SPANS)
            .with_scheduled_delay(MAX_BATCH_DELAY)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let processor = BoundedProcessor { batches, shared: Arc::clone(&shared) };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // A span begins only for a call that is traced.
            .with_sampler(Sampler::AlwaysOn)
            .build();
        Ok(Self::of(provider, one_in, shared))
    }

    fn of(provider: SdkTracerProvider, one_in: u64, shared: Arc<Shared>) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let tracer = provider.tracer_with_scope(scope);
        let sampler = (one_in > 0).then(|| Sampler::TraceIdRatioBased(1.0 / one_in as f64));
        Self { provider, tracer, sampler, shared }
    }

    /// Whether a call without a trace of its own begins one. This is decided before the call is
    /// admitted, and its span begins after that.
    pub(crate) fn should_sample(&self) -> bool {
        let Some(sampler) = &self.sampler else { return false };
        let id = RandomIdGenerator::default().new_trace_id();
        let sampled = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }

    /// The numbers of spans that were sent and dropped.
    pub(crate) fn counts(&self) -> &SpanCounts {
        &self.shared.counts
    }

    /// Sends the queued spans, and waits for it: at most five seconds, and half a second if the
    /// collector takes nothing. Later spans are dropped.
    pub(crate) fn shutdown(&self) {
        let timeout = match self.shared.is_failing.load(Ordering::Relaxed) {
            true => FAILING_DRAIN_TIMEOUT,
            false => DRAIN_TIMEOUT,
        };
        self.provider.shutdown_with_timeout(timeout).ok();
    }
}

/// Checks that spans can be sent to an address. The error does not repeat the address, which may
/// contain a password.
fn check(endpoint: &str) -> Result<(), &'static str> {
    let address: Uri = endpoint.parse().map_err(|_| "not an address")?;
    let authority = match (address.scheme_str(), address.authority()) {
        (Some("http" | "https"), Some(authority)) => authority,
        _ => return Err("not an http:// or https:// address, such as http://collector:4317"),
    };
    if authority.as_str().contains('@') {
        return Err("credentials do not belong in an address: give OTEL_EXPORTER_OTLP_HEADERS");
    }
    Ok(())
}

/// The resource that sends the spans. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the
/// defaults.
fn resource() -> Resource {
    let defaults =
        [("service.name", env!("CARGO_PKG_NAME")), ("service.version", env!("CARGO_PKG_VERSION"))];
    let environment = Resource::builder().build();
    // The SDK has a name of its own if the environment has none.
    let set =
        environment.iter().filter(|(_, value)| !value.as_str().starts_with("unknown_service"));
    Resource::builder_empty()
        .with_attributes(defaults.map(|(key, value)| KeyValue::new(key, value)))
        .with_attributes(set.map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_has_a_scheme_and_no_password() {
        for valid in
            ["http://collector:4317", "https://collector.example:443", "http://[::1]:4317/"]
        {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for invalid in [
            "",
            "collector:4317",
            "grpc://collector:4317",
            "/collector",
            "http://",
            "http://me:hunter2@collector:4317",
        ] {
            let error = check(invalid).expect_err(invalid);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
