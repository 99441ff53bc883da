//! OAuth: the authorization server for API clients: the token endpoint, introspection, revocation, the
//! public keys and the metadata (RFC 6749, 7009, 7517, 7662, 8414, 8693 and 8707). An endpoint parses a
//! request, calls the session and renders the result.
//!
//! Not here: what a token says, and when it is good; see [`crate::authority::token_issue`]. The
//! connections are in `transport::oauth`. A person logs in elsewhere: there is no page here.

pub mod authorization_server;
pub mod counters;
mod documents;
mod form;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod introspection;
mod presented_client;
mod refusal;
mod revocation;
mod route;
mod token;
