//! Span: the span of a traced call, and the child spans of its steps.
//!
//! Not here: how spans are sent; see [`super::exporter`].

use std::sync::{Arc, OnceLock};

use http::Response;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::Traces;
use crate::authority::request_context::{Parent, RequestContext};
use crate::gateway::response::Description;
use crate::metrics::wait_spans::WaitSpans;
use crate::policy::caller::Caller;
use crate::proto::{BatchCheckResponse, CheckRequest, CheckResponse, Decision};
use crate::wire::names::reason_name;

/// The codes that OpenTelemetry's conventions count as errors of the server: UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
const SERVER_ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];
/// The code of a call that its caller cancelled.
const CANCELLED: i32 = 1;

/// The gRPC status code of a response. For a stream it is the status at its beginning.
pub(crate) fn code<B>(response: &Response<B>) -> i32 {
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The subject of a check, as the request names it: the ids of a company and of a credential. Each is empty
/// if the request leaves it to the client's token or secret.
pub(crate) struct TracedRequest([String; 2]);

impl TracedRequest {
    /// The subject of this check.
    pub(crate) fn of(check: &CheckRequest) -> Self {
        Self([check.company_id.clone(), check.credential_id.clone()])
    }

    /// The ids. Those of a client that has proven who it is come before those of the request.
    fn ids(self, response: &CheckResponse) -> impl Iterator<Item = KeyValue> {
        let Self([company, credential]) = self;
        let id = |key: &'static str, proven: &str, named: String| {
            let id = if proven.is_empty() { named } else { proven.to_owned() };
            (!id.is_empty()).then(|| KeyValue::new(key, id))
        };
        [
            id(COMPANY_ID, &response.company_id, company),
            id(CREDENTIAL_ID, &response.credential_id, credential),
        ]
        .into_iter()
        .flatten()
    }
}

/// The attributes of ids.
pub(super) const COMPANY_ID: &str = "scopegate.company_id";
pub(super) const CREDENTIAL_ID: &str = "scopegate.credential_id";

/// A traced call. When it is dropped, the call has ended and its spans are queued.
pub(crate) struct Trace {
    traces: Arc<Traces>,
    span: Span,
    steps: WaitSpans,
    decision: OnceLock<Vec<KeyValue>>,
    /// None if the caller did not wait for the response.
    code: Option<i32>,
}

impl Trace {
    /// Begins the span of a call.
    pub(crate) fn begin(
        traces: Arc<Traces>,
        context: &RequestContext,
        path: &str,
        caller: &Caller,
    ) -> Self {
        let name = path.trim_start_matches('/');
        let (service, method) = name.rsplit_once('/').unwrap_or(("", name));
        let attributes = [
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new(CALLER, caller.name().to_owned()),
        ];
        let span = SpanBuilder::from_name(name.to_owned())
            .with_kind(SpanKind::Server)
            .with_attributes(attributes.into_iter().chain(request_id(context)))
            .start_with_context(&traces.tracer, &parent(context.parent.as_ref()));
        Self { traces, span, steps: WaitSpans::default(), decision: OnceLock::new(), code: None }
    }

    /// The list to which the call's steps are added.
    pub(crate) fn steps(&self) -> WaitSpans {
        self.steps.clone()
    }

    /// Records the decision of a check. The ids are recorded only here, because only a decided check has
    /// valid ids.
    pub(crate) fn record_decision(&self, request: TracedRequest, response: &CheckResponse) {
        let denied = response.decision() == Decision::Denied;
        let reason = response.reason().as_str_name();
        let decision = [
            KeyValue::new("scopegate.decision", if denied { "DENIED" } else { "ALLOWED" }),
            KeyValue::new("scopegate.reason", reason.strip_prefix("REASON_").unwrap_or(reason)),
            revision(response.revision),
        ];
        self.decision.set(request.ids(response).chain(decision).collect()).ok();
    }

    /// Records the decision of a gateway's check. The ids are those of a client that is known.
    pub(crate) fn record_gateway_decision(&self, described: &Description) {
        let client = described.client.as_ref();
        let id = |key: &'static str, id: &str| KeyValue::new(key, id.to_owned());
        let ids = client.map(|client| {
            let company = id(COMPANY_ID, client.company.as_str());
            [company, id(CREDENTIAL_ID, client.credential.as_str())]
        });
        let decision = if described.is_allowed { "ALLOWED" } else { "DENIED" };
        let reason = match (described.reason, described.is_allowed) {
            (Some(reason), _) => Some(reason_name(reason)),
            (None, true) => Some("ALLOWED"),
            (None, false) => None,
        };
        let attributes = ids.into_iter().flatten();
        let attributes = attributes.chain([KeyValue::new("scopegate.decision", decision)]);
        let attributes = attributes.chain(reason.map(|it| KeyValue::new("scopegate.reason", it)));
        let at = described.revision.map(|at| revision(at.0));
        self.decision.set(attributes.chain(at).collect()).ok();
    }

    /// Records the decisions of a batch of checks.
    pub(crate) fn record_batch(&self, response: &BatchCheckResponse) {
        let denied = response.results.iter().filter(|one| one.decision() == Decision::Denied);
        let decisions = vec![
            KeyValue::new("scopegate.checks", number(response.results.len() as u64)),
            KeyValue::new("scopegate.denied", number(denied.count() as u64)),
            revision(response.revision),
        ];
        self.decision.set(decisions).ok();
    }

    /// Ends the call with the status of this response.
    pub(crate) fn finish<B>(mut self, response: &Response<B>) {
        self.code = Some(code(response));
    }

    /// Adds the steps, the decision and the status.
    fn complete(&mut self) {
        let last = add_steps(&self.traces, &self.span, &self.steps);
        let decision = self.decision.take().unwrap_or_else(|| last.into_iter().collect());
        self.span.set_attributes(decision);
        let code = self.code.unwrap_or(CANCELLED);
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        if SERVER_ERRORS.contains(&code) {
            // The status has no description: callers influence the text of an error.
            self.span.set_status(Status::error(""));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.complete();
        self.span.end();
    }
}

/// The attribute of the caller's name.
pub(super) const CALLER: &str = "scopegate.caller";

/// The attribute of the request id, if the caller sent one.
pub(super) fn request_id(context: &RequestContext) -> Option<KeyValue> {
    let id = context.request_id.as_ref()?;
    Some(KeyValue::new("scopegate.x_request_id", id.to_string()))
}

/// Adds the child spans of the steps. Returns the attribute of the last revision of a step: that of a
/// change finds its entry in the audit log.
pub(super) fn add_steps(traces: &Traces, span: &Span, steps: &WaitSpans) -> Option<KeyValue> {
    let steps = steps.take();
    let context = Context::new().with_remote_span_context(span.span_context().clone());
    for step in &steps {
        SpanBuilder::from_name(step.name)
            .with_start_time(step.began)
            .with_attributes(step.revision.map(revision))
            .start_with_context(&traces.tracer, &context)
            .end_with_timestamp(step.ended);
    }
    steps.iter().rev().find_map(|step| step.revision).map(revision)
}

/// The context of a call whose caller named this span.
pub(super) fn parent(parent: Option<&Parent>) -> Context {
    let Some(parent) = parent else { return Context::new() };
    let state: Option<TraceState> = parent.state.as_deref().and_then(|state| state.parse().ok());
    Context::new().with_remote_span_context(SpanContext::new(
        parent.trace_id.into(),
        parent.span_id.into(),
        TraceFlags::SAMPLED,
        true,
        state.unwrap_or_default(),
    ))
}

fn revision(revision: u64) -> KeyValue {
    KeyValue::new("scopegate.revision", number(revision))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanId;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn cancelled_call_has_code_cancelled_and_no_error_status() {
        let traces = Arc::new(Traces::of(SdkTracerProvider::default(), 0, Arc::default()));
        let path = "/scopegate.v1.AuthorizationService/Check";
        let mut call = Trace::begin(traces, &RequestContext::default(), path, &Caller::Anonymous);
        call.complete();
        let span = call.span.exported_data().expect("it is recorded");
        assert!(span.attributes.contains(&KeyValue::new("rpc.grpc.status_code", 1)));
        assert_eq!((&span.status, span.parent_span_id), (&Status::Unset, SpanId::INVALID));
    }
}
