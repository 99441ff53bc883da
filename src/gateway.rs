//! Gateway: what every gateway asks, in whatever protocol: whether it may pass on a request of HTTP. A
//! gateway knows the request and the settings of its route. This module makes a check of them, and makes
//! of the answer what the client and the API get.
//!
//! It is pure: it has no transport, no store and no clock. Not here: the decision; see
//! [`crate::policy::decision`]. Nor how a gateway sends a request; see [`crate::envoy`].

pub mod challenge;
pub mod http_request;
pub mod question;
pub mod response;
pub mod route;
pub mod upstream;
