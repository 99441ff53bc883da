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
    caller: Box<str>,
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
        let line = self.operation.is_logged.then(|| AccessLogLine::begin(method, context));
        Some(AccessLogLine { caller: self.caller.name().into(), ..line?? })
    }
}

impl AccessLogLine {
    /// Begins the line of a request whose caller is not known yet, if the access log is on.
    #[must_use]
    pub fn begin(method: &str, context: Option<&Arc<RequestContext>>) -> Option<Self> {
        is_enabled().then(|| Self {
            method: method.into(),
            caller: Box::default(),
            context: context.map(Arc::clone),
            start: Instant::now(),
        })
    }

    /// The same line, of this caller.
    #[must_use]
    pub fn of_caller(self, caller: String) -> Self {
        Self { caller: caller.into(), ..self }
    }

    /// Writes the line of a call that was answered with the code of this name.
    pub fn write(self, code: &str) {
        let Self { method, caller, context, start } = self;
        let context = context.as_deref();
        tracing::debug!(
            target: TARGET,
            %method,
            code,
            caller = Some(&*caller).filter(|caller| !caller.is_empty()),
            x_request_id = context.and_then(|context| context.request_id.as_deref()),
            trace_id = context.and_then(|context| context.parent.as_ref()).map(Parent::trace),
            microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
    }
}
