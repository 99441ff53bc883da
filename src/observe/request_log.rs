//! Follow: which single calls somebody wants to know of, and the line of the log for each call
//! that is no check.
//!
//! Without traces, a decision log or debug lines nobody does, and to find that out is all that a
//! check pays. Else each call is asked where it comes from, and told of only if it is let in.
//!
//! Not here: how a trace is made and sent; see [`super::otlp`].

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use tracing::Level;

use super::otlp::{self, Trace, Traces};
use crate::observe::trace_context::{self, Parent, RequestContext};
use crate::policy::caller::Caller;
use crate::transport::service::{BATCH_CHECK, CHECK, HEALTH};
use crate::wire::names::code_name;

/// Where the lines of calls come from, for the filter of the log: `info,scopegate::calls=debug`.
const TARGET: &str = "scopegate::calls";

/// Who wants to know of single calls.
pub(crate) struct RequestObserver {
    traces: Option<Arc<Traces>>,
    /// Whether some log is to say where calls come from.
    logs: bool,
}

/// A call that somebody wants to know of.
pub(crate) struct ObservedRequest {
    pub(crate) origin: Arc<RequestContext>,
    traces: Option<Arc<Traces>>,
}

impl RequestObserver {
    /// Follows calls for traces and for the decision log, where there are such; none if nobody
    /// wants to know of any.
    pub(crate) fn new(traces: Option<Arc<Traces>>, decisions: bool) -> Option<Self> {
        let logs = decisions || tracing::enabled!(target: TARGET, Level::DEBUG);
        (traces.is_some() || logs).then_some(Self { traces, logs })
    }

    /// Whether somebody wants to know of a call with these headers. For traces alone one header
    /// is read.
    pub(crate) fn observe(&self, headers: &HeaderMap) -> Option<ObservedRequest> {
        let parent = Parent::of(headers);
        let traces = self.traces.as_ref().filter(|traces| match &parent {
            // A trace is recorded by all or by none.
            Some(parent) => parent.is_sampled,
            None => traces.should_sample(),
        });
        if traces.is_none() && !self.logs {
            return None;
        }
        let request_id = trace_context::request_id(headers);
        if traces.is_none() && parent.is_none() && request_id.is_none() {
            return None;
        }
        let origin = Arc::new(RequestContext { request_id, parent });
        Some(ObservedRequest { origin, traces: traces.cloned() })
    }
}

impl ObservedRequest {
    /// Begins the call's trace, if it is to have one.
    pub(crate) fn trace(&self, path: &str, caller: &Caller) -> Option<Trace> {
        let (traces, origin) = (Arc::clone(self.traces.as_ref()?), Arc::clone(&self.origin));
        Trace::begin(traces, origin, path, caller)
    }
}

/// The line of a call in the log.
pub(crate) struct AccessLogLine {
    method: Box<str>,
    caller: Caller,
    origin: Option<Arc<RequestContext>>,
    began: Instant,
}

impl AccessLogLine {
    /// Begins a line, if this call is to have one.
    pub(crate) fn begin<B>(
        request: &Request<B>,
        caller: &Caller,
        followed: Option<&ObservedRequest>,
    ) -> Option<Self> {
        if !tracing::enabled!(target: TARGET, Level::DEBUG) {
            return None;
        }
        let path = request.uri().path();
        // Probes and checks are too many, and decisions have a log of their own.
        if path.starts_with(HEALTH) || [CHECK, BATCH_CHECK].contains(&path) {
            return None;
        }
        let method = path.trim_start_matches('/').into();
        let origin = followed.map(|followed| Arc::clone(&followed.origin));
        Some(Self { method, caller: caller.clone(), origin, began: Instant::now() })
    }

    /// Writes the line of a call that was answered so.
    pub(crate) fn write<B>(self, response: &Response<B>) {
        let Self { method, caller, origin, began } = self;
        let origin = origin.as_deref();
        tracing::debug!(
            target: TARGET,
            %method,
            code = code_name(otlp::code(response).into()),
            caller = caller.name(),
            x_request_id = origin.and_then(|origin| origin.request_id.as_deref()),
            trace_id = origin.and_then(|origin| origin.parent.as_ref()).map(Parent::trace),
            microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
    }
}
