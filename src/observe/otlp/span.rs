//! Span: makes the OpenTelemetry spans of a traced call.
//!
//! Not here: how spans are sent; see [`super::sender`].

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{TracedRequest, random_id};
use crate::metrics::wait_spans::{Step, Steps};
use crate::observe::trace_context::RequestContext;
use crate::policy::caller::Caller;

/// The codes that OpenTelemetry's conventions count as errors of the server: UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
const SERVER_ERRORS: [i32; 6] = [2, 4, 12, 13, 14, 15];
/// The code of a call that its caller cancelled.
const CANCELLED: i32 = 1;

/// The decision of a call.
pub(super) enum TracedDecision {
    One { request: TracedRequest, denied: bool, reason: &'static str, revision: u64 },
    Many { checks: usize, denied: usize, revision: u64 },
}

/// The recorded fields of one call.
pub(super) struct TracedCall {
    /// The service and the method.
    pub(super) name: String,
    pub(super) context: Arc<RequestContext>,
    pub(super) caller: Caller,
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) steps: Steps,
    pub(super) decision: OnceLock<TracedDecision>,
    /// None if the caller did not wait for the response.
    pub(super) code: Option<i32>,
}

impl TracedCall {
    /// The span of the call, and one child span for each of its steps.
    pub(super) fn spans(self) -> Vec<SpanData> {
        let steps = self.steps.take();
        let attributes = self.attributes(&steps);
        let parent = self.context.parent.as_ref();
        let state = parent.and_then(|parent| parent.state.as_deref());
        let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let is_error = self.code.is_some_and(|code| SERVER_ERRORS.contains(&code));
        // The status has no description: callers influence the text of an error.
        let status = if is_error { Status::error("") } else { Status::Unset };
        let span_context = |span_id: u64| {
            let (trace_id, span_id) =
                (TraceId::from_bytes(self.trace_id.to_be_bytes()), SpanId::from(span_id));
            SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state.clone())
        };
        let call_span = SpanData {
            span_context: span_context(self.span_id),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id.into()),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: Cow::Owned(self.name.clone()),
            start_time: self.start,
            end_time: self.end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: scope,
        };
        let step_span = |step: &Step| SpanData {
            span_context: span_context(random_id().unwrap_or(1)),
            parent_span_id: self.span_id.into(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(step.name),
            start_time: step.began,
            end_time: step.ended,
            attributes: step.revision.map(revision).into_iter().collect(),
            status: Status::Unset,
            ..call_span.clone()
        };
        let mut spans: Vec<_> = steps.iter().map(step_span).collect();
        spans.push(call_span);
        spans
    }

    fn attributes(&self, steps: &[Step]) -> Vec<KeyValue> {
        let (service, method) = self.name.rsplit_once('/').unwrap_or(("", &self.name));
        let mut all = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.grpc.status_code", i64::from(self.code.unwrap_or(CANCELLED))),
            KeyValue::new("scopegate.caller", self.caller.name().to_owned()),
        ];
        if let Some(id) = &self.context.request_id {
            all.push(KeyValue::new("scopegate.x_request_id", id.to_string()));
        }
        match self.decision.get() {
            Some(TracedDecision::One { request, denied, reason, revision: at }) => all.extend([
                KeyValue::new("scopegate.company_id", request.company.clone()),
                KeyValue::new("scopegate.credential_id", request.credential.clone()),
                KeyValue::new("scopegate.decision", if *denied { "DENIED" } else { "ALLOWED" }),
                KeyValue::new("scopegate.reason", *reason),
                revision(*at),
            ]),
            Some(TracedDecision::Many { checks, denied, revision: at }) => all.extend([
                KeyValue::new("scopegate.checks", number(*checks as u64)),
                KeyValue::new("scopegate.denied", number(*denied as u64)),
                revision(*at),
            ]),
            // The revision of a change finds its entry in the audit log.
            None => all.extend(steps.iter().rev().find_map(|step| step.revision).map(revision)),
        }
        all
    }
}

fn revision(revision: u64) -> KeyValue {
    KeyValue::new("scopegate.revision", number(revision))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_call_has_code_cancelled_and_no_error_status() {
        let start = SystemTime::now();
        let call = TracedCall {
            name: "scopegate.v1.AuthorizationService/Check".to_owned(),
            context: Arc::default(),
            caller: Caller::Anonymous,
            trace_id: 7,
            span_id: 8,
            start,
            end: start,
            steps: Steps::default(),
            decision: OnceLock::new(),
            code: None,
        };
        let spans = call.spans();
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        assert!(span.attributes.contains(&KeyValue::new("rpc.grpc.status_code", 1)));
        assert_eq!((&span.status, span.parent_span_id), (&Status::Unset, SpanId::INVALID));
    }
}
