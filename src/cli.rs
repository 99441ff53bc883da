//! The commands of the `scopegate` program, one file for each command.
//!
//! They are gRPC clients like any other, and use no layer below that. Four need no server: the check
//! and the tests of a catalog file ask the policy; `explain --at` replays changes with the policy,
//! because a server keeps only the changes; a restore writes the store itself; `replicas` asks etcd, and
//! reads the stores of stopped replicas.
//!
//! Not here: the flags of a server; see [`crate::server::args`].

mod address;
mod api_key;
mod authorization_code;
mod backup;
mod batch;
mod catalog;
mod catalog_change;
mod catalog_file;
mod catalog_schema;
mod catalog_test;
mod cell;
mod change_row;
mod changes;
mod check;
mod check_args;
mod check_file;
mod client;
mod client_credential_args;
pub mod command;
mod company;
mod company_impact;
mod company_list;
mod company_restrict;
mod company_view;
mod completions;
mod confirmation;
mod connection;
mod consent;
mod context;
mod credential;
mod credential_args;
mod credential_report;
mod credential_scopes;
mod credential_update;
mod decision_log;
mod diagnosis;
mod effective;
mod endpoint_args;
mod endpoint_input;
pub mod environment;
mod explain;
mod explain_at;
mod export;
mod failover;
pub mod failure;
mod field_words;
mod health;
mod history;
mod import;
mod keys;
mod layout;
mod lookup;
mod output;
mod output_format;
mod own_server;
mod pinned_certificate;
mod printer;
mod prompt;
mod repeated;
mod replica_list;
mod replicas;
mod report;
mod restore;
mod scope;
mod scope_holders;
mod scope_undo;
mod secret;
mod server_address;
mod signing_keys;
mod suggestion;
mod table;
mod text_file;
mod time;
mod timeout;
mod undo;
mod undo_line;
mod user;
mod watch;

pub use self::check_args::{CheckQueryArgs, SubjectArgs};
pub use self::client::{Limit, ServerArgs, WriteArgs};
pub use self::company_restrict::RestrictArgs;
pub use self::confirmation::Confirmation;
pub use self::keys::KeysCommand;
pub use self::replicas::{FactsDiffer, ReplicasCommand, replicas};
pub use self::secret::SecretCommand;

/// The exit code of a command that has no result: the server cannot be reached or returns an error.
pub const COULD_NOT_ASK: u8 = 2;
