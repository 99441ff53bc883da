//! Policy: the domain. It contains scopes, the catalog, companies, credentials, changes and the
//! decision.
//!
//! It is pure: no I/O, no async, no clock, no logging. Time and facts are parameters.
//! `docs/rules.md` defines the rules `D1` to `D22` that are cited here.

pub mod caller;
pub mod catalog;
pub mod cause;
pub mod ceiling;
pub mod change;
pub mod client_credential;
pub mod company;
pub mod consent;
pub mod credential;
pub mod decision;
pub mod edit;
pub mod id;
pub mod keyring;
pub mod narrowing;
pub mod property;
pub mod query;
pub mod reason;
pub mod redirect_uri;
pub mod replay;
pub mod revision;
pub mod role;
pub mod scope;
pub mod secret;
pub mod suggestion;
pub mod text;
pub mod token;
pub mod user;
