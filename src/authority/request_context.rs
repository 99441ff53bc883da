//! Request context: the request and the span of the caller that a call is part of. Logs and traces show
//! them. No decision depends on them.
//!
//! Not here: how a transport reads them; see `observe::trace_context`.

/// The request id and the parent span of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The id of the request that the call serves.
    pub request_id: Option<Box<str>>,
    /// The span that the call is part of.
    pub parent: Option<Parent>,
}

/// A span of the caller (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace's id, which is not 0.
    pub trace_id: u128,
    /// The span's id, which is not 0.
    pub span_id: u64,
    /// Whether the caller records the trace.
    pub is_sampled: bool,
    /// The data of other tracing systems, unchanged. None unless the trace is recorded.
    pub state: Option<Box<str>>,
}

impl Parent {
    /// The trace's id in hexadecimal, as W3C Trace Context writes it.
    #[must_use]
    pub fn trace(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}
