//! AuthZEN: the OpenID AuthZEN Authorization API 1.0 over HTTP and JSON: evaluations, searches and the
//! metadata. An endpoint parses a request, calls the session and renders the result.
//!
//! Not here: how a check is decided; see [`crate::policy::decision`]. The connections are in
//! `transport::http`.

mod base;
pub mod counters;
mod decision;
pub mod decision_point;
mod entity;
mod evaluation;
mod evaluations;
mod json;
mod metadata;
mod page;
mod question;
mod refusal;
mod route;
mod search;
mod stated_token;
