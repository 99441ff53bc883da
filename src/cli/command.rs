//! Command: the root of the command line, and one variant for each command.
//!
//! Not here: the arguments of a command, which are in the file of the command; the flags of a server,
//! which are in [`crate::server::args`].

use clap::{CommandFactory, Parser, Subcommand};

use super::authorization_code::{AuthorizationCodeCommand, authorization_code};
use super::backup::{BackupArgs, backup};
use super::batch::{BatchArgs, batch};
use super::catalog::{CatalogCommand, catalog};
use super::changes::{ChangesCommand, changes};
use super::check::{CheckArgs, check};
use super::client::ServerArgs;
use super::company::{CompanyCommand, company};
use super::completions::{CompletionsArgs, completions};
use super::consent::{ConsentCommand, consent};
use super::context::{ContextCommand, context};
use super::credential::{CredentialCommand, credential};
use super::effective::{EffectiveArgs, effective};
use super::explain::{ExplainArgs, explain};
use super::export::{ExportArgs, export};
use super::health::{HealthArgs, health};
use super::import::{ImportArgs, import};
use super::keys::{KeysCommand, keys, whoami};
use super::replicas::ReplicasCommand;
use super::restore::{RestoreArgs, restore};
use super::scope::{ScopeCommand, scope};
use super::signing_keys::{SigningKeysCommand, signing_keys};
use super::user::{UserCommand, user};
use crate::server::args::ServeArgs;

/// May this API credential of this company use these scopes now?
#[derive(Debug, Parser)]
#[command(
    name = "scopegate",
    version,
    about,
    propagate_version = true,
    after_help = "Terms: docs/glossary.md"
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server.
    Serve(Box<ServeArgs>),
    /// Get a decision from a server. Exit code 0: allowed, 1: denied, 2: error.
    Check(CheckArgs),
    /// Get the decisions for a file of checks. Exit code 0: all as expected, 1: a mismatch, 2: error.
    ///
    /// The file has one JSON object a line: {"company_id", "credential_id", "scopes" or "endpoint":
    /// {"method", "path"}, "audience", "user_id", "resource_owner_id", "token": {"audience", "scopes",
    /// "issued_at", "expires_at", "user_id"}, "bearer_token", "authorization", "expect": "allowed" or
    /// "denied"}. A token or a header names the company and the credential. Or the file is CSV, with a
    /// first line of columns: company_id, credential_id, scopes (separated by spaces), method, path,
    /// audience, user_id, resource_owner_id, expect. Without `expect` a check is expected to be
    /// allowed. A hundred checks are sent in one request and decided at one revision. With
    /// --output json each line is a response of the API, in the order of the file.
    Batch(BatchArgs),
    /// Explain a check: the result of every layer for every scope, now or at an earlier time.
    ///
    /// An earlier state is replayed from the audit log. The report has the facts at that revision,
    /// the decision at that time, the changes before it and the changes after it. A decision log adds
    /// the responses that callers received. All times are UTC.
    Explain(Box<ExplainArgs>),
    /// List every scope that a check would allow.
    Effective(EffectiveArgs),
    /// Companies and their ceilings of scopes.
    #[command(subcommand)]
    Company(CompanyCommand),
    /// Credentials, their grants and secrets.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Users and their roles.
    #[command(subcommand)]
    User(UserCommand),
    /// Consents: the scopes that a user allows a credential to use in the name of the user.
    #[command(subcommand)]
    Consent(ConsentCommand),
    /// Authorization codes: how an application gets an access token of a user.
    #[command(subcommand)]
    AuthorizationCode(AuthorizationCodeCommand),
    /// The catalog: scopes, audiences, roles and endpoints.
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// The scopes of the catalog: titles, implications and holders.
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// The audit log, as a list or as a stream.
    #[command(subcommand)]
    Changes(ChangesCommand),
    /// Get the health of a server. Exit code 0: serving, 2: not serving.
    Health(HealthArgs),
    /// API keys, by which a server authenticates its callers.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The keys with which a server signs access tokens.
    #[command(subcommand)]
    SigningKeys(SigningKeysCommand),
    /// Show the caller that a server authenticates: the key of this command, its roles, companies and
    /// expiry.
    Whoami(ServerArgs),
    /// Create companies and credentials from a file. Exit code 0: all of them exist, 2: error.
    ///
    /// The file has one JSON object a line. With a `credential_id` it is a credential:
    /// {"company_id", "credential_id", "label", "scopes", "expires_at" (RFC 3339), "enabled",
    /// "redirect_uris", "tokens_valid_from" (RFC 3339)}; without, a company: {"company_id", "display_name", "scopes"}. A company comes before its
    /// credentials; without "scopes" its ceiling is the whole catalog. An import does not change
    /// existing companies and credentials, so an interrupted import can be run again.
    Import(ImportArgs),
    /// Back up the store of a running server. Exit code 0: the backup is complete, 2: there is none.
    ///
    /// The file has the state at exactly one revision, and a checksum. It gets its name only when it
    /// is complete and on disk. Protect it like the store: it has the hashes of all secrets.
    Backup(BackupArgs),
    /// Create a store from a backup, without a server. Exit code 0: the store is complete, 2: there is
    /// none.
    ///
    /// Changes after the backup are lost, including restrictions and revoked secrets. The store is a
    /// new incarnation: it rejects etags, page tokens and cursors of the lost store, and its
    /// revisions start 4294967296 higher, so that no lost revision is used again.
    Restore(RestoreArgs),
    /// Several servers with the same data, in the order of a log in etcd.
    #[command(subcommand)]
    Replicas(ReplicasCommand),
    /// Export all data as text. Exit code 0: the export is complete, 2: it is not.
    ///
    /// The file has one JSON object a line. `scopegate import` reads the companies and credentials.
    /// It skips the lines with a `record`: the catalog, users, consents, and grants that are dormant,
    /// expired, or end before their credential. It rejects a disabled company, which it could only
    /// create enabled. An export is not a snapshot: a change during the export may or may not be in
    /// the file. Only a backup has the state at one revision.
    Export(ExportArgs),
    /// Contexts: named servers for the commands.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

impl Command {
    /// The exit code of a command that ran and whose result is negative.
    #[must_use]
    pub fn negative_exit_code(&self) -> u8 {
        if matches!(self, Self::Check(_) | Self::Batch(_)) { 1 } else { super::COULD_NOT_ASK }
    }

    /// Runs a command. The result is false for a denial, and for any other negative result.
    ///
    /// # Errors
    /// The command has no result: the server cannot be reached or returns an error. `serve`, `keys
    /// bootstrap` and `replicas` are not clients, and the caller runs them itself.
    pub async fn run(self) -> anyhow::Result<bool> {
        match self {
            Self::Serve(_) => anyhow::bail!("`serve` is not a client"),
            Self::Replicas(_) => anyhow::bail!("`replicas` is not a client"),
            Self::Check(args) => check(args).await,
            Self::Batch(args) => batch(args).await,
            Self::Explain(args) => explain(*args).await,
            Self::Effective(args) => effective(args).await,
            Self::Company(command) => company(command).await,
            Self::Credential(command) => credential(command).await,
            Self::User(command) => user(command).await,
            Self::Consent(command) => consent(command).await,
            Self::AuthorizationCode(command) => authorization_code(command).await,
            Self::Catalog(command) => catalog(command).await,
            Self::Scope(command) => scope(command).await,
            Self::Changes(command) => changes(command).await,
            Self::Health(args) => health(args).await,
            Self::Keys(command) => keys(command).await,
            Self::SigningKeys(command) => signing_keys(command).await,
            Self::Whoami(server) => whoami(server).await,
            Self::Import(args) => import(args).await,
            Self::Backup(args) => backup(args).await,
            Self::Restore(args) => restore(args),
            Self::Export(args) => export(args).await,
            Self::Context(command) => context(command).await,
            Self::Completions(args) => completions(args, Cli::command()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_serve_flag_has_an_environment_variable_of_its_name() {
        let command = Cli::command();
        command.clone().debug_assert();
        let serve = command.find_subcommand("serve").expect("serve");
        for arg in
            serve.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            let name = arg.get_id().as_str().to_uppercase();
            let env = arg.get_env().and_then(|env| env.to_str());
            assert_eq!(env, Some(format!("SCOPEGATE_{name}").as_str()));
            assert!(arg.get_help().is_some(), "{name}");
        }
    }
}
