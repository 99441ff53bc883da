//! Traces: the spans of calls, sent by OTLP to a collector.
//!
//! A call that is traced has a span, by OpenTelemetry's conventions for RPC, and below it one for
//! each step that was waited for: a read of the store, a commit. Its core notes a few fields and
//! puts them in a queue; a thread of its own makes spans of them and sends those. What the queue
//! has no room for, or the collector does not take, is dropped and counted: no call waits.
//!
//! A span has ids of companies and credentials, the caller's name and its request id. It has no
//! user, token, scope, secret, key or text of an error.
//!
//! Of OpenTelemetry's SDK there is no provider, context or processor here: what is traced is
//! known before a call begins, and each call is one task.
//!
//! Not here: which calls are traced; see [`super::request_log`].

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{Response, Uri};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{Notify, mpsc};

use crate::metrics::supervise::Supervisor;
use crate::metrics::wait_spans::{WaitSpan, WaitSpans};
use crate::metrics::{Counter, Gauge};
use crate::observe::trace_context::RequestContext;
use crate::policy::caller::Caller;
use crate::proto::{BatchCheckResponse, CheckRequest, CheckResponse, Decision};
use crate::server::StartupError;

/// How many calls may wait to be sent.
const QUEUE: usize = 1 << 12;
/// How many calls are taken at once.
const CALLS: usize = 256;
/// How many spans go in one message: far from the 4 MiB that collectors take as a rule.
const SPANS: usize = 512;
/// How long a call waits for others to be sent with.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a message, whatever the exporter thinks.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// The codes that are a server's fault by OpenTelemetry's conventions: UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];
/// The code of a call that its caller took back.
const CANCELLED: i32 = 1;

/// Where traces go.
pub(crate) struct Traces {
    queue: mpsc::Sender<Box<Call>>,
    /// Of so many calls that are part of no trace one begins one; 0 for none.
    one_of: u64,
    shared: Arc<Shared>,
}

/// What calls and the sending thread share.
#[derive(Default)]
struct Shared {
    counts: Counts,
    /// Whether the collector did not take the last message.
    failing: AtomicBool,
    /// Rung when what waits is to be sent at once.
    hurry: Notify,
}

/// What became of spans.
#[derive(Default)]
pub(crate) struct Counts {
    /// Calls whose spans are not sent yet.
    waiting: Gauge,
    /// Taken by the collector.
    pub(crate) sent: Counter,
    /// Not sent for want of room, or not taken.
    pub(crate) dropped: Counter,
}

impl Traces {
    /// Begins to send to this collector, which need not be there.
    pub(crate) fn start(
        endpoint: &str,
        one_of: u64,
        supervisor: &Arc<Supervisor>,
    ) -> Result<Self, StartupError> {
        let wrong = |what: String| StartupError::Config(format!("--otlp-endpoint: {what}"));
        check(endpoint).map_err(|what| wrong(what.to_owned()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| wrong(error.kind().to_string()))?;
        let exporter = {
            // The connection, which is made when it is needed, is a task of this runtime.
            let _entered = runtime.enter();
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
            let exporter = match endpoint.starts_with("https:") {
                true => exporter.with_tls_config(ClientTlsConfig::new().with_native_roots()),
                false => exporter,
            };
            let mut exporter = exporter.build().map_err(|error| wrong(error.to_string()))?;
            exporter.set_resource(&resource());
            exporter
        };
        let (queue, mut calls) = mpsc::channel(QUEUE);
        let shared: Arc<Shared> = Arc::default();
        let own = Arc::clone(&shared);
        supervisor
            .thread("traces", move || runtime.block_on(send_all(&mut calls, &exporter, &own)))
            .map_err(|error| wrong(error.kind().to_string()))?;
        Ok(Self { queue, one_of, shared })
    }

    /// Whether a call that is part of no trace begins one.
    pub(crate) fn should_sample(&self) -> bool {
        let dice = || foldhash::quality::RandomState::default().hash_one(());
        self.one_of > 0 && dice().is_multiple_of(self.one_of)
    }

    /// What became of spans.
    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Has what waits sent, and waits for it, but not for long, and hardly at all for a
    /// collector that takes nothing.
    pub(crate) fn flush(&self) {
        self.shared.hurry.notify_one();
        for look in 0..500 {
            let is_in_vain = look > 50 && self.shared.failing.load(Ordering::Relaxed);
            if is_in_vain || self.shared.counts.waiting.read() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether spans can be sent to an address. It is not told: it may have a password in it.
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

/// Who sends: by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, where they are set.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let is_named = |key: &'static str| {
        let value = told.get(&Key::from_static_str(key));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let mut resource = Resource::builder();
    for (key, value) in
        [("service.name", env!("CARGO_PKG_NAME")), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if !is_named(key) {
            resource = resource.with_attribute(KeyValue::new(key, value));
        }
    }
    resource.build()
}

/// The gRPC status of a call that was answered so. A stream's is that of its beginning.
pub(crate) fn code<B>(response: &Response<B>) -> i32 {
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Whom a check is about, as it was asked.
pub(crate) struct TracedRequest {
    company: String,
    credential: String,
}

impl TracedRequest {
    /// Whom this check is about.
    pub(crate) fn of(check: &CheckRequest) -> Self {
        Self { company: check.company_id.clone(), credential: check.credential_id.clone() }
    }
}

/// What was decided.
enum Decided {
    One { asked: TracedRequest, denied: bool, reason: &'static str, revision: u64 },
    Many { checks: usize, denied: usize, revision: u64 },
}

/// A call that is traced, until it is dropped: then it is over, and sent.
pub(crate) struct Trace {
    traces: Arc<Traces>,
    call: Option<Box<Call>>,
}

/// What there is to tell of a call.
struct Call {
    /// The service and the method.
    name: String,
    origin: Arc<RequestContext>,
    caller: Caller,
    trace_id: u128,
    span_id: u64,
    began: SystemTime,
    ended: SystemTime,
    steps: WaitSpans,
    decided: OnceLock<Decided>,
    /// None if nobody waited for the answer.
    code: Option<i32>,
}

impl Trace {
    /// Begins the span of a call; none if there is no dice for its ids.
    pub(crate) fn begin(
        traces: Arc<Traces>,
        origin: Arc<RequestContext>,
        path: &str,
        caller: &Caller,
    ) -> Option<Self> {
        let trace_id = match &origin.parent {
            Some(parent) => parent.trace_id,
            None => u128::from(random_id()?) << 64 | u128::from(random_id()?),
        };
        let began = SystemTime::now();
        let call = Call {
            name: path.trim_start_matches('/').to_owned(),
            origin,
            caller: caller.clone(),
            trace_id,
            span_id: random_id()?,
            began,
            ended: began,
            steps: WaitSpans::default(),
            decided: OnceLock::new(),
            code: None,
        };
        Some(Self { traces, call: Some(Box::new(call)) })
    }

    /// Where its steps are to be noted.
    pub(crate) fn steps(&self) -> WaitSpans {
        self.call.as_ref().map(|call| call.steps.clone()).unwrap_or_default()
    }

    /// A check was decided so. Only now are its ids known to be ids.
    pub(crate) fn decided(&self, asked: TracedRequest, answer: &CheckResponse) {
        let denied = answer.decision() == Decision::Denied;
        let reason = answer.reason().as_str_name();
        let reason = reason.strip_prefix("REASON_").unwrap_or(reason);
        self.note(Decided::One { asked, denied, reason, revision: answer.revision });
    }

    /// A batch of checks was decided so.
    pub(crate) fn decided_all(&self, answer: &BatchCheckResponse) {
        let denied = answer.results.iter().filter(|one| one.decision() == Decision::Denied);
        let (checks, denied) = (answer.results.len(), denied.count());
        self.note(Decided::Many { checks, denied, revision: answer.revision });
    }

    fn note(&self, decided: Decided) {
        if let Some(call) = &self.call {
            call.decided.set(decided).ok();
        }
    }

    /// The call is over, and was answered so.
    pub(crate) fn answered<B>(mut self, response: &Response<B>) {
        if let Some(call) = &mut self.call {
            call.code = Some(code(response));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        call.ended = SystemTime::now();
        let counts = self.traces.counts();
        counts.waiting.up();
        if let Err(unsent) = self.traces.queue.try_send(call) {
            counts.waiting.down();
            counts.dropped.inc_by(1 + unsent.into_inner().steps.take().len() as u64);
        }
    }
}

/// An id of 64 bits by the system's dice, which is not 0.
fn random_id() -> Option<u64> {
    getrandom::u64().ok().map(|id| id.max(1))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Call {
    /// Its span, and those of its steps.
    fn spans(self) -> Vec<SpanData> {
        let steps = self.steps.take();
        let attributes = self.attributes(&steps);
        let parent = self.origin.parent.as_ref();
        let state = parent.and_then(|parent| parent.state.as_deref());
        let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let is_fault = self.code.is_some_and(|code| FAULTS.contains(&code));
        // Without a description: it would be text that a caller may have a hand in.
        let status = if is_fault { Status::error("") } else { Status::Unset };
        let context = |span_id: u64| {
            let (trace_id, span_id) =
                (TraceId::from_bytes(self.trace_id.to_be_bytes()), SpanId::from(span_id));
            SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state.clone())
        };
        let own = SpanData {
            span_context: context(self.span_id),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id.into()),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: Cow::Owned(self.name.clone()),
            start_time: self.began,
            end_time: self.ended,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: scope,
        };
        let of_step = |step: &WaitSpan| SpanData {
            span_context: context(random_id().unwrap_or(1)),
            parent_span_id: self.span_id.into(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(step.name),
            start_time: step.began,
            end_time: step.ended,
            attributes: step.revision.map(revision).into_iter().collect(),
            status: Status::Unset,
            ..own.clone()
        };
        let mut spans: Vec<_> = steps.iter().map(of_step).collect();
        spans.push(own);
        spans
    }

    fn attributes(&self, steps: &[WaitSpan]) -> Vec<KeyValue> {
        let (service, method) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
        let mut all = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.grpc.status_code", i64::from(self.code.unwrap_or(CANCELLED))),
            KeyValue::new("scopegate.caller", self.caller.name().to_owned()),
        ];
        if let Some(id) = &self.origin.request_id {
            all.push(KeyValue::new("scopegate.x_request_id", id.to_string()));
        }
        match self.decided.get() {
            Some(Decided::One { asked, denied, reason, revision: at }) => all.extend([
                KeyValue::new("scopegate.company_id", asked.company.clone()),
                KeyValue::new("scopegate.credential_id", asked.credential.clone()),
                KeyValue::new("scopegate.decision", if *denied { "DENIED" } else { "ALLOWED" }),
                KeyValue::new("scopegate.reason", *reason),
                revision(*at),
            ]),
            Some(Decided::Many { checks, denied, revision: at }) => all.extend([
                KeyValue::new("scopegate.checks", number(*checks as u64)),
                KeyValue::new("scopegate.denied", number(*denied as u64)),
                revision(*at),
            ]),
            // That of the change, by which the audit log has the rest.
            None => all.extend(steps.iter().rev().find_map(|step| step.revision).map(revision)),
        }
        all
    }
}

fn revision(revision: u64) -> KeyValue {
    KeyValue::new("scopegate.revision", number(revision))
}

/// Sends until nobody traces any more.
async fn send_all(queue: &mut mpsc::Receiver<Box<Call>>, exporter: &SpanExporter, shared: &Shared) {
    let Shared { counts, failing, hurry } = shared;
    let mut calls = Vec::with_capacity(CALLS);
    while queue.recv_many(&mut calls, CALLS).await > 0 {
        let more = async {
            while calls.len() < CALLS {
                let room = CALLS - calls.len();
                if queue.recv_many(&mut calls, room).await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(MAX_BATCH_DELAY, more) => {}
            () = hurry.notified() => {}
        }
        let _taken: Vec<_> = calls.iter().map(|_| Taken(&counts.waiting)).collect();
        let mut spans = calls.drain(..).flat_map(|call| call.spans()).peekable();
        while spans.peek().is_some() {
            let some: Vec<_> = spans.by_ref().take(SPANS).collect();
            let count = some.len() as u64;
            let sent = tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(some)).await;
            let sent = sent.map_err(|_| "no answer in time".to_owned());
            match sent.and_then(|sent| sent.map_err(|error| error.to_string())) {
                Ok(()) => {
                    counts.sent.inc_by(count);
                    if failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("traces are sent again");
                    }
                }
                Err(error) => {
                    counts.dropped.inc_by(count);
                    if !failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "traces cannot be sent: spans are dropped");
                    }
                }
            }
        }
    }
}

/// A call that waits no more once this is dropped, whatever became of its spans.
struct Taken<'a>(&'a Gauge);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_its_caller_took_back_is_cancelled_and_nobodys_fault() {
        let began = SystemTime::now();
        let call = Call {
            name: "scopegate.v1.AuthorizationService/Check".to_owned(),
            origin: Arc::default(),
            caller: Caller::Anonymous,
            trace_id: 7,
            span_id: 8,
            began,
            ended: began,
            steps: WaitSpans::default(),
            decided: OnceLock::new(),
            code: None,
        };
        let spans = call.spans();
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        assert!(span.attributes.contains(&KeyValue::new("rpc.grpc.status_code", 1)));
        assert_eq!((&span.status, span.parent_span_id), (&Status::Unset, SpanId::INVALID));
    }

    #[test]
    fn an_address_is_that_of_a_collector_and_has_no_secret() {
        for right in
            ["http://collector:4317", "https://collector.example:443", "http://[::1]:4317/"]
        {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "collector:4317",
            "grpc://collector:4317",
            "/collector",
            "http://",
            "http://me:hunter2@collector:4317",
        ] {
            let refusal = check(wrong).expect_err(wrong);
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
