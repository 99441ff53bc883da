//! Command: the root of the command line, and one variant for each command.
//!
//! Not here: the arguments of a command, which stand with the command; the flags of a server, which
//! are [`crate::server::args`].

use clap::{Parser, Subcommand};

use super::backup::BackupArgs;
use super::batch::BatchArgs;
use super::catalog::CatalogCommand;
use super::changes::ChangesCommand;
use super::check::CheckArgs;
use super::company::CompanyCommand;
use super::completions::CompletionsArgs;
use super::consent::ConsentCommand;
use super::context::ContextCommand;
use super::credential::CredentialCommand;
use super::effective::EffectiveArgs;
use super::explain::ExplainArgs;
use super::export::ExportArgs;
use super::health::HealthArgs;
use super::import::ImportArgs;
use super::keys::KeysCommand;
use super::restore::RestoreArgs;
use super::scope::ScopeCommand;
use super::user::UserCommand;
use crate::server::args::ServeArgs;

/// May this API credential of this company use these scopes now?
#[derive(Debug, Parser)]
#[command(name = "scopegate", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve decisions and changes over gRPC.
    Serve(Box<ServeArgs>),
    /// Ask a server for a decision: exit code 0 allowed, 1 denied, 2 could not ask.
    Check(CheckArgs),
    /// Ask for the decisions of a file of checks: exit code 0 all as expected, 1 one is not, 2 could
    /// not ask.
    ///
    /// The file has one JSON object a line: {"company_id", "credential_id", "scopes" or "endpoint":
    /// {"method", "path"}, "audience", "user_id", "resource_owner_id", "token": {"audience", "scopes",
    /// "issued_at", "expires_at", "user_id"}, "expect": "allowed" or "denied"}. Or it is CSV, with a
    /// first line of columns: company_id, credential_id, scopes (with spaces between), method, path,
    /// audience, user_id, resource_owner_id, expect. Where nothing is expected, it is that a check is
    /// allowed. A hundred are asked for at once, and these are decided at one revision. With
    /// --output json each line is the contract's answer, in the order of the file.
    Batch(BatchArgs),
    /// Ask what every layer says of every scope of a check, now or at a moment of the past.
    ///
    /// The past is replayed from the audit log: which facts there were at that revision, what was
    /// decided of them at that time, which changes had led to it, and which came since. A decision
    /// log adds what was answered to whom. All times are UTC.
    Explain(Box<ExplainArgs>),
    /// List everything that a check would allow.
    Effective(EffectiveArgs),
    /// Companies, and the ceiling of scopes that each has.
    #[command(subcommand)]
    Company(CompanyCommand),
    /// Credentials, their scopes and secrets.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Users and the roles that they hold.
    #[command(subcommand)]
    User(UserCommand),
    /// What users have allowed credentials to do in their name.
    #[command(subcommand)]
    Consent(ConsentCommand),
    /// The catalog: scopes, audiences, roles, endpoints.
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// The scopes of the catalog: titles, what implies what, and who names them.
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// The audit log, and the stream of it.
    #[command(subcommand)]
    Changes(ChangesCommand),
    /// Ask a server whether it is serving: exit code 0 if so, 2 if not.
    Health(HealthArgs),
    /// The keys by which callers of a server prove who they are.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Create companies and credentials from a file: exit code 0 if all exist now, 2 if not.
    ///
    /// The file has one JSON object a line. With a `credential_id` it is a credential:
    /// {"company_id", "credential_id", "label", "scopes", "expires_at" (RFC 3339), "enabled"};
    /// without, a company: {"company_id", "display_name", "scopes"}, which stands before its
    /// credentials and has the whole catalog unless it names scopes. What exists already is left
    /// as it is: an import that was interrupted is run again.
    Import(ImportArgs),
    /// Back up a server's store while it serves: exit code 0 if the file is whole, 2 if there is
    /// none.
    ///
    /// The file is exactly the state at one revision, and has a checksum. It gets its name only
    /// when it is whole and on the disk. Keep it as you keep the store: it has the hashes of all
    /// secrets.
    Backup(BackupArgs),
    /// Make a new store of a backup, with no server: exit code 0 if it is there, 2 if nothing is.
    ///
    /// What was changed after the backup is lost, restrictions and ended secrets among it. The
    /// store begins another life: etags, page tokens and cursors of the lost one are refused, and
    /// revisions jump ahead by 4294967296, so that none of the lost ones is used again.
    Restore(RestoreArgs),
    /// Write everything down for people and programs: exit code 0 if all is written, 2 if not.
    ///
    /// The file has one JSON object a line. Companies and credentials are as `scopegate import`
    /// reads them; it skips the lines that have a `record`: the catalog, grants that are dormant,
    /// expired, or end before their credential, users, consents. It refuses a disabled company,
    /// which it could only enable. What is changed meanwhile may or may not be in the file: only a
    /// backup is of one revision.
    Export(ExportArgs),
    /// The servers that the commands can go to, by name.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Write what a shell needs to complete the commands.
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_knob_of_a_server_has_an_environment_variable_of_its_name() {
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
