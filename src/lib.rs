//! scopegate answers one question for each request of a platform: may this API credential of this
//! company use these scopes now?
//!
//! # Layers
//!
//! A module imports only from modules above it in this table.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`policy`] | the domain: scopes, companies, credentials, catalog, decision; pure, without I/O or clock |
//! | [`metrics`] | counters, gauges, histograms, memory budgets and the supervisor of threads |
//! | [`store`] | facts, indexes and the change log, committed as one; `store::replicated` for the log of several replicas; below it an engine, `store::engine` |
//! | [`authority`] | admission, sessions, transactions, checks, caches, queries, change streams, errors as data |
//! | [`wire`] | the conversion between protobuf and domain types, and the table of operations |
//! | [`gateway`] | the checks of gateways: what is asked for a request of HTTP, and what the client and the API get |
//! | [`envoy`] | the messages of Envoy's external authorization |
//! | [`observe`] | the log, the access log, the decision log, traces, the endpoint for Prometheus |
//! | [`grpc`] | the handlers: parse, call the session, render; each [`authority::problem`] becomes a status |
//! | [`web`] | what the servers over plain HTTP have in common: answers, and the reading of bodies |
//! | [`authzen`] | the OpenID AuthZEN API: parse JSON, call the session, render |
//! | [`oauth`] | the authorization server for API clients: parse a form, call the session, render |
//! | [`transport`] | the listeners, workers, connections, TLS, limits and timeouts |
//! | [`server`] | the life of the process: flags, open, serve, drain, close |
//! | [`cli`] | the commands of an operator; most of them are clients of a server |
//! | `main` | arguments and exit codes |
//!
//! # Flows
//!
//! `docs/architecture.md` describes them step by step.
//!
//! - **A call** comes from a transport, which is a codec. [`authority::Authority::admit`] authenticates
//!   the caller, compares its roles with those of the operation ([`wire::access`]) and applies the
//!   limits of its key, before the message is read. [`authority::Authority::authorize`] compares the
//!   companies in the message with those of the key, and returns the [`authority::Session`]. Every check,
//!   read and change is a function of the session. A program that embeds the library begins with
//!   [`authority::Authority::session`] or [`authority::Authority::internal_session`].
//! - **A check** stays on the worker that owns its connection; [`grpc::unary`] reads its message. [`wire`]
//!   makes a [`policy::query::Query`] of the message. [`authority::Session::check`] loads
//!   the facts of one published revision: from the fact cache, else from the store.
//!   [`policy::decision::decide`] computes the verdict, and [`wire`] renders it. All other calls run as background tasks.
//! - **A change** is one transaction of a session. Its plan reads facts of one published revision, and
//!   each read becomes a precondition. Retry, etag, dry run, idempotency and the check of the caller's
//!   key are inside `authority::transaction`, once. It returns [`authority::Written`], and the transport
//!   renders it.
//! - **A restriction** is planned by [`policy::company::Company::restrict`] from facts of one published
//!   revision. [`store::Store::commit`] queues the plan with its preconditions. The writer commits it
//!   with others in one durable batch, replaces the cached fact, publishes the revision and
//!   acknowledges. The cost does not depend on the number of credentials: a grant counts only if its
//!   scope has been in the ceiling since before the grant.
//! - **A backup** reads all entries chunk by chunk, and the writer passes every batch that it commits
//!   meanwhile. Applied in order, both are the state at one revision. [`store::backup`] is the file
//!   format, [`grpc`] streams the file, and [`cli`] verifies it. A restore needs no server.
//! - **An explanation at a past revision** reads the audit log as a client. [`policy::replay`] computes
//!   the facts at the revision from it, and the same evaluator decides on them.
//!
//! # Invariants
//!
//! Each is stated, as `INVARIANT (name)`, in the file that holds it.
//!
//! | invariant | file |
//! | --- | --- |
//! | newest wins, one published revision, absence has a revision | `authority/coherence.rs` |
//! | revoked at once | `authority/api_keys.rs` |
//! | keys belong to an entry | `authority/issuer_keys.rs` |
//! | keys never get younger | `authority/issuer_keys/read_time.rs` |
//! | preconditions cover the reads | `authority/transaction.rs` |
//! | once | `authority/idempotency.rs` |
//! | no gap | `authority/import.rs` |
//! | no gap, none twice | `authority/change_feed.rs` |
//! | reported is kept, removed as believed, kept ≤ decides | `authority/clock.rs` |
//! | no answer without a lease | `authority/noted_call.rs` |
//! | durable before known | `store.rs` |
//! | one session | `store/lease.rs` |
//! | one order | `store/decide.rs` |
//! | one log | `store/replicated.rs` |
//! | kept is on the disk | `store/apply.rs` |
//! | nothing outside the checksum | `store/checksum.rs` |
//! | counts are keys | `store/usage.rs` |
//! | no silent gap | `store/gc.rs` |
//! | schema last | `store/upgrade.rs` |
//! | a chunk before what it may lack, the writer never waits for a backup | `store/backup.rs` |
//! | the old store or the new one | `store/installation.rs` |
//! | whole or not at all, new incarnation | `store/restore.rs` |
//! | no wake is lost | `transport/inline_executor.rs` |
//!
//! # Rules
//!
//! `D1` to `D22` and `T1` to `T37` in comments are the rules of `docs/rules.md`.
//!
//! # Deliberately absent
//!
//! - A cache of decisions. Facts are cached and each check decides anew, so a cache key cannot omit a
//!   field of a request.
//! - A boolean decision. An absent field must not read as an allow.
//! - Decisions on facts that are not durable.
//! - Normalisation of paths: servers differ in how they read a path.

// These macros panic when standard output is closed. Write, and handle the result.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod authority;
pub mod authzen;
pub mod cli;
pub mod envoy;
pub mod gateway;
pub mod grpc;
pub mod metrics;
pub mod oauth;
pub mod observe;
pub mod policy;
pub mod server;
pub mod store;
pub mod transport;
pub mod web;
pub mod wire;

/// The messages and services of the API, generated from `proto/scopegate/v1`. The comments of the
/// `.proto` files describe them.
pub mod proto {
    tonic::include_proto!("scopegate.v1");

    /// The descriptors of the API, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/scopegate.v1.bin"));

    /// The part of Envoy's API that scopegate serves, generated from `proto/envoy`. A map of a `.proto` file
    /// is a list of its entries here.
    pub mod envoy {
        /// The descriptors of this API, with its maps.
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

        /// The messages of Envoy's configuration.
        pub mod config {
            /// Its core.
            pub mod core {
                /// Version 3.
                pub mod v3 {
                    tonic::include_proto!("envoy.config.core.v3");
                }
            }
        }
        /// The services that Envoy calls.
        pub mod service {
            /// External authorization.
            pub mod auth {
                /// Version 3.
                pub mod v3 {
                    tonic::include_proto!("envoy.service.auth.v3");
                }
            }
        }
        /// The types that the other messages have in common.
        pub mod r#type {
            /// Version 3.
            pub mod v3 {
                tonic::include_proto!("envoy.r#type.v3");
            }
        }
    }

    /// The messages of Google's APIs that those of Envoy contain.
    pub mod google {
        /// The outcome of a call.
        pub mod rpc {
            tonic::include_proto!("google.rpc");
        }
    }
}
