//! Protobuf messages to and from the values of the domain, for every transport and for the CLI.
//!
//! Not here: any decision, and anything about how a message comes or goes.

pub mod convert;
pub mod parse;
pub mod render;
pub mod validate;
