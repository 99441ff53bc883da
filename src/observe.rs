//! Observe: the output that an operator watches: the log, the access log, the decision log, traces
//! and the endpoint for Prometheus.
//!
//! Not here: the counters; see [`crate::metrics`]. And the collector that reads them; see
//! `transport::collector`.

pub(crate) mod connection_events;
pub mod decision_log;
pub mod log;
pub mod otlp;
pub mod peer_address;
pub mod prometheus;
pub(crate) mod refused_clients;
pub(crate) mod rejected_callers;
pub mod rejection;
pub mod request_log;
pub mod trace_context;
