//! Transport: accepts calls: the listener, workers, connections, TLS, limits and timeouts.
//!
//! Not here: the meaning of a call; see [`crate::grpc`].

pub(crate) mod activity;
pub(crate) mod call_counters;
pub(crate) mod call_slots;
pub(crate) mod collector;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod file_descriptors;
pub(crate) mod frame_progress;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod inline_executor;
pub(crate) mod interruption;
pub mod jwks;
pub mod key_file;
pub mod listen_address;
pub(crate) mod listen_socket;
pub mod listener;
pub mod pem;
pub(crate) mod phase;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod socket;
pub(crate) mod socket_file;
pub(crate) mod stall_timer;
pub mod tls;
pub(crate) mod worker;
