//! Envoy: the messages of Envoy's external authorization, as the requests and the responses of a gateway.
//!
//! An allow has the status code 0, and only an allow has it: Envoy passes a request on whenever the code is
//! 0, whatever else the response says.
//!
//! Not here: what is asked and answered; see [`crate::gateway`]. How a call arrives; see [`crate::grpc`].

mod metadata;
mod raw_request;
mod request;
mod response;

pub use self::raw_request::decode_raw;
pub use self::request::{ContextExtensions, MissingRequest, http_request, request_id, settings};
pub use self::response::response;
