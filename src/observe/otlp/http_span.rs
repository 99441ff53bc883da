//! HTTP span: the span of a traced request to the authorization server, by OpenTelemetry's conventions for
//! HTTP.
//!
//! The client may come from the internet, so its request has a span only if it has proven who it is: an
//! unknown client cannot fill the collector.
//!
//! Not here: the spans of calls; see [`super::span`].

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status};

use super::Traces;
use super::span::{CALLER, COMPANY_ID, CREDENTIAL_ID, add_steps, parent, request_id};
use crate::authority::request_context::RequestContext;
use crate::metrics::wait_spans::WaitSpans;
use crate::policy::id::{CompanyId, CredentialId};

/// A traced request. It has no span if it is dropped.
pub(crate) struct HttpTrace {
    traces: Arc<Traces>,
    context: Arc<RequestContext>,
    began: SystemTime,
    steps: WaitSpans,
}

/// The sender of a request, who has proven who it is.
pub(crate) struct TracedSender<'a> {
    /// Its name.
    pub(crate) name: String,
    /// Its ids, if it is a client.
    pub(crate) client: Option<(&'a CompanyId, &'a CredentialId)>,
}

impl HttpTrace {
    pub(crate) fn begin(traces: Arc<Traces>, context: Arc<RequestContext>) -> Self {
        Self { traces, context, began: SystemTime::now(), steps: WaitSpans::default() }
    }

    /// The list to which the steps of the request are added.
    pub(crate) fn steps(&self) -> WaitSpans {
        self.steps.clone()
    }

    /// Records the request, which ends with this status. `route` is its path without ids.
    pub(crate) fn finish(
        self,
        method: &Method,
        route: &'static str,
        sender: TracedSender<'_>,
        status: StatusCode,
    ) {
        let attributes = [
            KeyValue::new("http.request.method", method.to_string()),
            KeyValue::new("http.route", route),
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new(CALLER, sender.name),
        ];
        let ids = sender.client.into_iter().flat_map(|(company, credential)| {
            [
                KeyValue::new(COMPANY_ID, company.to_string()),
                KeyValue::new(CREDENTIAL_ID, credential.to_string()),
            ]
        });
        let mut span = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(self.began)
            .with_attributes(attributes.into_iter().chain(ids).chain(request_id(&self.context)))
            .start_with_context(&self.traces.tracer, &parent(self.context.parent.as_ref()));
        span.set_attributes(add_steps(&self.traces, &span, &self.steps));
        if status.is_server_error() {
            // The status has no description, as for a call.
            span.set_status(Status::error(""));
        }
        span.end();
    }
}
