//! Web: what the servers over plain HTTP have in common: their answers and how a body is read.
//!
//! Not here: the connections; see `transport::http`. What a request means is in [`crate::oauth`] and
//! [`crate::authzen`].

pub mod answer;
pub mod body;
