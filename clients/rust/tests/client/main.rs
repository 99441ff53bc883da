//! The client against the real server, over real sockets; and against a server that lies.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod checks;
mod doc_examples;
mod guards;
mod harness;
mod misbehaving_server;
mod outages;
mod several_servers;
