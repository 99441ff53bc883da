//! The integration tests: one program, so that the library is linked once and the harness is
//! compiled once. A module is a subject; `cargo test --test integration tls::` runs one.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access_tokens;
mod architecture;
mod authentication;
mod authorization_codes;
mod authzen;
mod authzen_callers;
mod authzen_searches;
mod backup;
mod barrier;
mod chain;
mod cli;
mod cli_client_credentials;
mod cli_confirmations;
mod cli_connection;
mod cli_failures;
mod cli_output;
mod cli_previews;
mod client_credentials;
mod clock;
mod cluster_administration;
mod company_limits;
mod connections;
mod consistency;
mod corruption;
mod crash;
mod cut_off;
mod disk_full;
mod document_tokens;
mod edge;
mod endpoints;
mod entries;
mod envoy;
mod errors;
mod etcd;
mod fixture;
mod golden;
mod harness;
mod idempotency;
mod import;
mod import_files;
mod interleavings;
mod issuer_keys;
mod issuers;
mod key_limits;
mod large_company;
mod laws;
mod lease;
mod logs;
mod membership;
mod metrics;
mod model;
mod oauth;
mod opaque_tokens;
mod open_errors;
mod own_tokens;
mod platforms;
mod power_loss;
mod redb_engine;
mod replay;
mod replica_changes;
mod replica_imports;
mod replicas;
mod replicas_cli;
mod replication;
mod requirements;
mod resilience;
mod restarts;
mod scope_renames;
mod secret_index;
mod server_limits;
mod service;
mod slow_clients;
mod snapshots;
mod startup_catalog;
mod store;
mod tls;
mod token_rotation;
mod token_verification;
mod traces;
mod unix_sockets;
mod user_ids;
mod watch;
mod watch_streams;

// The server's files that `interleavings` compiles find the policy at `crate::policy`.
use scopegate::policy;
