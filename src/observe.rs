//! What an operator sees of the process: the log, the access log, the decision log, traces and the
//! endpoint for Prometheus.
//!
//! Not here: the counters themselves; see [`crate::metrics`].

pub(crate) mod connection_events;
pub mod decision_log;
pub mod log;
pub mod otlp;
pub mod prometheus;
pub(crate) mod rejected_callers;
pub mod rejection;
pub mod request_log;
pub mod trace_context;
