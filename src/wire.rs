//! Protobuf messages to and from the values of the domain, for every transport and for the CLI.
//!
//! Not here: any decision, and anything about how a message comes or goes.

pub mod access;
pub mod convert;
pub mod names;
pub(crate) mod pagination;
pub mod parse;
pub mod render;
pub mod validate;
