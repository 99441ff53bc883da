//! Access log: one line for each call that an operator wants to see, whatever transport it came by.
//!
//! It is a debug log of its own target, so that a filter selects it: `info,scopegate::calls=debug`.
//!
//! Not here: decisions, which have a log of their own; see [`super::decision_observer`].

use std::sync::Arc;
use std::time::Instant;

use tracing::Level;

use super::admission::Admission;
use super::request_context::{Parent, RequestContext};
use crate::policy::caller::Caller;

/// The target of the access log, for the filter of the log.
const TARGET: &str = "scopegate::calls";

/// Whether the access log is on.
#[must_use]
pub fn is_enabled() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

/// The line of a call that is not answered yet.
pub struct AccessLogLine {
    method: Box<str>,
    caller: Caller,
    context: Option<Arc<RequestContext>>,
    start: Instant,
}

impl Admission {
    /// Begins the line of this call, if the access log is on and the operation is in it. `method` is the
    /// name that the transport has for the operation.
    #[must_use]
    pub fn access_log_line(
        &self,
        method: &str,
        context: Option<&Arc<RequestContext>>,
    ) -> Option<AccessLogLine> {
        (self.operation.is_logged && is_enabled()).then(|| AccessLogLine {
            method: method.into(),
            caller: self.caller.clone(),
            context: context.map(Arc::clone),
            start: Instant::now(),
        })
    }
}

impl AccessLogLine {
    /// Writes the line of a call that was answered with the code of this name.
    pub fn write(self, code: &str) {
        let Self { method, caller, context, start } = self;
        let context = context.as_deref();
        tracing::debug!(
            target: TARGET,
            %method,
            code,
            caller = caller.name(),
            x_request_id = context.and_then(|context| context.request_id.as_deref()),
            trace_id = context.and_then(|context| context.parent.as_ref()).map(Parent::trace),
            microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
    }
}
