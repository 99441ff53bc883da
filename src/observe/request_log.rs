//! Request log: selects the calls that are traced or logged.
//!
//! Without traces, a decision log or debug lines no call is selected, and a check pays only for
//! that test. Otherwise the headers of each call are read for its request context. A call is traced
//! and logged only after it is admitted.
//!
//! Not here: how a trace is made and sent; see [`super::otlp`]. The line of a call is in
//! [`crate::authority::access_log`].

use std::sync::Arc;

use http::HeaderMap;

use super::otlp::{HttpTrace, Trace, Traces};
use super::trace_context;
use crate::authority::access_log;
use crate::authority::request_context::RequestContext;
use crate::policy::caller::Caller;

/// Selects the calls that are traced or logged.
pub(crate) struct RequestObserver {
    traces: Option<Arc<Traces>>,
    /// Whether a log shows the request context of calls.
    is_logged: bool,
}

/// A call that is traced or logged with its request context.
pub(crate) struct ObservedRequest {
    pub(crate) context: Arc<RequestContext>,
    traces: Option<Arc<Traces>>,
}

impl RequestObserver {
    /// Observes calls for the traces, the decision log and the access log. None if all three are
    /// off.
    pub(crate) fn new(traces: Option<Arc<Traces>>, decisions: bool) -> Option<Self> {
        let is_logged = decisions || access_log::is_enabled();
        (traces.is_some() || is_logged).then_some(Self { traces, is_logged })
    }

    /// Observes a call with these headers, if it is traced or its request context is logged. If only
    /// traces are on, one header is read.
    pub(crate) fn observe(&self, headers: &HeaderMap) -> Option<ObservedRequest> {
        let parent = trace_context::parent(headers);
        let traces = self.traces.as_ref().filter(|traces| match &parent {
            // A trace is recorded by all services or by none.
            Some(parent) => parent.is_sampled,
            None => traces.should_sample(),
        });
        if traces.is_none() && !self.is_logged {
            return None;
        }
        let request_id = trace_context::request_id(headers);
        if traces.is_none() && parent.is_none() && request_id.is_none() {
            return None;
        }
        let context = Arc::new(RequestContext { request_id, parent });
        Some(ObservedRequest { context, traces: traces.cloned() })
    }
}

impl ObservedRequest {
    /// Begins the call's trace, if the call is traced.
    pub(crate) fn trace(&self, path: &str, caller: &Caller) -> Option<Trace> {
        let traces = Arc::clone(self.traces.as_ref()?);
        Some(Trace::begin(traces, &self.context, path, caller))
    }

    /// Begins the trace of a request to the authorization server, if the request is traced.
    pub(crate) fn http_trace(&self) -> Option<HttpTrace> {
        let traces = Arc::clone(self.traces.as_ref()?);
        Some(HttpTrace::begin(traces, Arc::clone(&self.context)))
    }
}
