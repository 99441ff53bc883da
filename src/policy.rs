//! Floor 0, what is true: scopes, catalog, companies, credentials, changes, and the decision.
//!
//! Pure: no I/O, no async, no clock, no tracing. Time and facts come in as values. The rules
//! `D…` cited here are those of the domain's contract.

pub mod caller;
pub mod catalog;
pub mod cause;
pub mod ceiling;
pub mod change;
pub mod company;
pub mod consent;
pub mod credential;
pub mod decision;
pub mod edit;
pub mod id;
pub mod keyring;
pub mod narrowing;
pub mod query;
pub mod reason;
pub mod replay;
pub mod revision;
pub mod scope;
pub mod secret;
pub mod suggestion;
pub mod text;
pub mod token;
pub mod user;
