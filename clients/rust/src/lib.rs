#![doc = include_str!("../README.md")]
//!
//! # The house
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`Setup`] | which server, how it is reached, as whom |
//! | [`Caller`], [`Check`] | who calls, and the question |
//! | [`Scopegate`] | asks within a deadline; attempts, failures and the budget of retries |
//! | [`Decision`] | the one place where a message is read as a yes |
//! | [`Guard`] | the layer, and how it refuses |
//! | [`proto`] | the contract, for what is not wrapped here |
//!
//! # Deliberately absent
//!
//! A cache: a restriction is in force when it is acknowledged, and here too. A bool for an answer.
//! A setting that lets through what could not be asked. Verifying tokens.

mod budget;
mod caller;
mod check;
mod decision;
mod failure;
mod guard;
mod health;
mod pauses;
mod refusal;
mod scopegate;
mod setup;

pub use caller::{Caller, Token};
pub use check::Check;
pub use decision::{Allowed, Decision, Denied, Reach, Refused, Unanswered};
pub use guard::{Guard, Guarded};
pub use proto::Reason;
pub use scopegate::Scopegate;
pub use setup::{Connection, Misconfigured, Presents, Setup};

/// The wire contract, generated from `proto/scopegate/v1`, whose comments describe it.
pub mod proto {
    tonic::include_proto!("scopegate.v1");
}
