#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! | type | purpose |
//! | --- | --- |
//! | [`Builder`] | server addresses, TLS, API key, deadlines |
//! | [`Caller`], [`Check`] | the caller, and the request to check |
//! | [`Client`] | deadlines, retries, the retry budget and other servers |
//! | [`Decision`] | the only place that reads a response as an allow |
//! | [`Guard`] | the tower layer, and its error responses |
//! | [`proto`] | the generated contract, for the other RPCs |
//!
//! # Not included
//!
//! There is no cache: a restriction applies as soon as it is acknowledged. A decision is not a
//! bool. No setting allows a call without a decision. The client does not verify tokens: the server
//! does.

mod backoff;
mod builder;
mod caller;
mod check;
mod client;
mod connection;
mod decision;
mod failure;
mod guard;
mod health;
mod response;
mod retry_budget;
mod server;
mod servers;

pub use builder::{Builder, ConfigError};
pub use caller::{Caller, Token};
pub use check::Check;
pub use client::Client;
pub use connection::{BearerInterceptor, Connection};
pub use decision::{Allowed, CheckError, Decision, Denied, NotAllowed, Reach};
pub use guard::{Guard, Guarded};
pub use proto::Reason;

/// The wire contract, generated from `proto/scopegate/v1`, whose comments describe it.
pub mod proto {
    tonic::include_proto!("scopegate.v1");
}
