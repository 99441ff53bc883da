//! OTLP: traces of calls, sent to a collector.
//!
//! A traced call has one span, by OpenTelemetry's conventions for RPC, and one child span for each
//! step that it waited for: a read of the store, a commit. The worker records a few fields and
//! queues them. A separate thread makes spans of them and sends the spans. Spans for which the
//! queue has no space, and spans that the collector does not take, are dropped and counted, so no
//! call waits.
//!
//! A span has the ids of companies and credentials, the caller's name and the request id. It has no
//! user, token, scope, secret, key or error text.
//!
//! OpenTelemetry's SDK has a provider, contexts and processors. None of them is needed here: a call
//! is known to be traced before it begins, and each call is one task.
//!
//! Not here: which calls are traced; see [`super::request_log`].

mod sender;
mod span;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{Response, Uri};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::{Notify, mpsc};

use self::span::{TracedCall, TracedDecision};
use crate::metrics::supervise::Supervisor;
use crate::metrics::wait_spans::Steps;
use crate::metrics::{Counter, Gauge};
use crate::observe::trace_context::RequestContext;
use crate::policy::caller::Caller;
use crate::proto::{BatchCheckResponse, CheckRequest, CheckResponse, Decision};

/// The limit of calls that wait to be sent.
const MAX_QUEUED_CALLS: usize = 1 << 12;

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-endpoint: {0}")]
pub(crate) struct OtlpError(String);

/// The queue of traced calls.
pub(crate) struct Traces {
    queue: mpsc::Sender<Box<TracedCall>>,
    /// One of this many calls without a trace of their own begins one. 0: none of them.
    one_in: u64,
    shared: Arc<Shared>,
}

/// The state that calls and the sending thread share.
#[derive(Default)]
struct Shared {
    counts: SpanCounts,
    /// Whether the collector did not take the last message.
    is_failing: AtomicBool,
    /// Wakes the sender to send the queued calls at once.
    flush: Notify,
}

/// The numbers of spans that were sent and dropped.
#[derive(Default)]
pub(crate) struct SpanCounts {
    /// Calls whose spans are not sent yet.
    queued: Gauge,
    /// Spans that the collector took.
    pub(crate) sent: Counter,
    /// Spans that did not fit the queue, or that the collector did not take.
    pub(crate) dropped: Counter,
}

impl Traces {
    /// Starts the thread that sends to this collector. The collector need not be reachable yet.
    ///
    /// # Errors
    /// The address is not one of a collector, or the system has no thread.
    pub(crate) fn start(
        endpoint: &str,
        one_in: u64,
        supervisor: &Arc<Supervisor>,
    ) -> Result<Self, OtlpError> {
        check(endpoint).map_err(|what| OtlpError(what.to_owned()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| OtlpError(error.kind().to_string()))?;
        let exporter = {
            // The exporter connects when it first sends. The connection is a task of this runtime.
            let _entered = runtime.enter();
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
            let exporter = match endpoint.starts_with("https:") {
                true => exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()),
                false => exporter,
            };
            let mut exporter = exporter.build().map_err(|error| OtlpError(error.to_string()))?;
            exporter.set_resource(&resource());
            exporter
        };
        let (queue, mut calls) = mpsc::channel(MAX_QUEUED_CALLS);
        let shared: Arc<Shared> = Arc::default();
        let own = Arc::clone(&shared);
        supervisor
            .thread("traces", move || runtime.block_on(sender::run(&mut calls, &exporter, &own)))
            .map_err(|error| OtlpError(error.kind().to_string()))?;
        Ok(Self { queue, one_in, shared })
    }

    /// Whether a call without a trace of its own begins one.
    pub(crate) fn should_sample(&self) -> bool {
        let random = || foldhash::quality::RandomState::default().hash_one(());
        self.one_in > 0 && random().is_multiple_of(self.one_in)
    }

    /// The numbers of spans that were sent and dropped.
    pub(crate) fn counts(&self) -> &SpanCounts {
        &self.shared.counts
    }

    /// Sends the queued calls and waits for it: at most five seconds, and half a second if the
    /// collector takes nothing.
    pub(crate) fn flush(&self) {
        self.shared.flush.notify_one();
        for poll in 0..500 {
            let is_in_vain = poll > 50 && self.shared.is_failing.load(Ordering::Relaxed);
            if is_in_vain || self.shared.counts.queued.read() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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
    let environment = Resource::builder().build();
    let is_set = |key: &'static str| {
        let value = environment.get(&Key::from_static_str(key));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let mut resource = Resource::builder();
    for (key, value) in
        [("service.name", env!("CARGO_PKG_NAME")), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if !is_set(key) {
            resource = resource.with_attribute(KeyValue::new(key, value));
        }
    }
    resource.build()
}

/// The gRPC status code of a response. For a stream it is the status at its beginning.
pub(crate) fn code<B>(response: &Response<B>) -> i32 {
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The subject of a check, as the request names it.
pub(crate) struct TracedRequest {
    company: String,
    credential: String,
}

impl TracedRequest {
    /// The subject of this check.
    pub(crate) fn of(check: &CheckRequest) -> Self {
        Self { company: check.company_id.clone(), credential: check.credential_id.clone() }
    }
}

/// A traced call. When it is dropped, the call has ended and its spans are queued.
pub(crate) struct Trace {
    traces: Arc<Traces>,
    call: Option<Box<TracedCall>>,
}

impl Trace {
    /// Begins the span of a call. None if the system has no random numbers for its ids.
    pub(crate) fn begin(
        traces: Arc<Traces>,
        context: Arc<RequestContext>,
        path: &str,
        caller: &Caller,
    ) -> Option<Self> {
        let trace_id = match &context.parent {
            Some(parent) => parent.trace_id,
            None => u128::from(random_id()?) << 64 | u128::from(random_id()?),
        };
        let start = SystemTime::now();
        let call = TracedCall {
            name: path.trim_start_matches('/').to_owned(),
            context,
            caller: caller.clone(),
            trace_id,
            span_id: random_id()?,
            start,
            end: start,
            steps: Steps::default(),
            decision: OnceLock::new(),
            code: None,
        };
        Some(Self { traces, call: Some(Box::new(call)) })
    }

    /// The list to which the call's steps are added.
    pub(crate) fn steps(&self) -> Steps {
        self.call.as_ref().map(|call| call.steps.clone()).unwrap_or_default()
    }

    /// Records the decision of a check. The ids of the request are recorded only here, because
    /// only a decided check has valid ids.
    pub(crate) fn record_decision(&self, request: TracedRequest, response: &CheckResponse) {
        let denied = response.decision() == Decision::Denied;
        let reason = response.reason().as_str_name();
        let reason = reason.strip_prefix("REASON_").unwrap_or(reason);
        self.record(TracedDecision::One { request, denied, reason, revision: response.revision });
    }

    /// Records the decisions of a batch of checks.
    pub(crate) fn record_batch(&self, response: &BatchCheckResponse) {
        let denied = response.results.iter().filter(|one| one.decision() == Decision::Denied);
        let (checks, denied) = (response.results.len(), denied.count());
        self.record(TracedDecision::Many { checks, denied, revision: response.revision });
    }

    fn record(&self, decision: TracedDecision) {
        if let Some(call) = &self.call {
            call.decision.set(decision).ok();
        }
    }

    /// Ends the call with the status of this response.
    pub(crate) fn finish<B>(mut self, response: &Response<B>) {
        if let Some(call) = &mut self.call {
            call.code = Some(code(response));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        call.end = SystemTime::now();
        let counts = self.traces.counts();
        counts.queued.up();
        if let Err(unsent) = self.traces.queue.try_send(call) {
            counts.queued.down();
            counts.dropped.inc_by(1 + unsent.into_inner().steps.take().len() as u64);
        }
    }
}

/// A random id of 64 bits from the operating system, which is not 0.
fn random_id() -> Option<u64> {
    getrandom::u64().ok().map(|id| id.max(1))
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
