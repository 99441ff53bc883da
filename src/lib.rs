//! scopegate answers, per request: may this API credential of this company use these scopes now?
//!
//! # The house
//!
//! Four floors; a module imports only from floors below its own.
//!
//! | floor | room | what it is for |
//! | --- | --- | --- |
//! | frame | [`config`], [`telemetry`], [`server`], [`cli`] | knobs, the log, a process's life and traces, commands |
//! | 3 | [`grpc`] | how it is asked: parse, ask, render; the only errors of the wire |
//! | 2 | [`authority`] | who answers: checks from facts at hand, and every change of them |
//! | 1 | [`store`] | what is kept: facts, index and change log, committed as one |
//! | 0 | [`policy`] | what is true: scopes, sets, companies, credentials, the decision |
//! | 0 | [`measure`] | counts, times, memory and restarts, for all floors above |
//!
//! # A check, wire to wire
//!
//! A core is one thread with its own connections (`transport::worker`). `transport::service` finds out
//! who calls ([`policy::keyring`]) and whether they may ([`wire::access`]), reads the message by
//! the shortest way ([`grpc::unary`]) and never hands a check to another core. `wire::parse`
//! makes a [`policy::query::Query`] of it. [`authority::Authority::check`] takes the facts of one
//! published revision: from what this core was just asked for, else from the cache of all, else
//! by one read of the store, on a thread that may wait for the disk. [`policy::decision::decide`]
//! answers, purely. `wire::render` writes it down. Whatever is not a check runs elsewhere, and
//! holds up none.
//!
//! # A restriction, wire to wire
//!
//! The authority reads the company at a published revision, [`policy::company::Company::restrict`]
//! plans, and [`store::Store::commit`] queues the plan with what it rests on. The engine's writer
//! commits it with others in one durable batch, tells the authority, which replaces the cached
//! fact and publishes the revision; then the reply goes out. One record and one cache entry,
//! whatever the number of credentials: a grant counts only while its scope has been in the
//! ceiling since before it was made.
//!
//! # A backup, store to file
//!
//! The engine reads its tree chunk by chunk, and its writer hands over what it commits meanwhile;
//! in the right order the two are the state at one revision. [`store::backup`] is the file's form,
//! `grpc` streams it, `cli` checks and keeps it. A restore makes a store of it, without a server.
//!
//! # A denial of yesterday, log to answer
//!
//! A change says what it did, so the log up to a revision gives the facts of then
//! ([`policy::replay`]), and the same evaluator decides of them at the time of then. `cli` reads the
//! log like any client and does that; the server has no part in it.
//!
//! # Invariants
//!
//! *Newest wins*, *one published revision* and *absence has a date* are stated in
//! `authority::coherence`, *still so* in `authority::l1_cache`, *revoked at once* in
//! [`authority::api_keys`]; *once* in `authority::idempotency`; *no
//! gap* in [`authority::import`]; *durable before known* in [`store`]; *one order* in the engine's
//! writer, *no silent gap* in its sweep, *nothing beside the tally* in its tally, *a chunk before
//! what it may lack* and *the writer never waits for a backup* in its backup, *whole or not at
//! all* and *another life* in its restore.
//!
//! # Deliberately absent
//!
//! A cache of decisions: facts are cached, and a decision is made of them each time, so no field
//! of a request can be forgotten in a key. A bool for an answer: absence must not read as one.
//! Deciding on anything that is not durable. Normalising a path.

// They panic when nobody reads any more: write, and look at the result.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod authority;
pub mod cli;
pub mod grpc;
pub mod metrics;
pub mod observe;
pub mod policy;
pub mod server;
pub mod store;
pub mod transport;
pub mod wire;

/// The wire contract, generated from `proto/scopegate/v1`, whose comments describe it.
pub mod proto {
    tonic::include_proto!("scopegate.v1");

    /// The contract's descriptors, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/scopegate.v1.bin"));
}
