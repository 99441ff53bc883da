//! `scopegate keys`: the API keys that authenticate the callers of a server.
//!
//! Not here: the first key, which is created without a server; see `server::bootstrap`.

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;

use super::client::{
    Limit, Pages, ServerArgs, WriteArgs, on_terms, require, truncated, unwrap_response,
};
use super::confirmation::{Confirmation, rest_on};
use super::printer::{Cell, Report};
use super::{failure, time};
use crate::proto::{
    CreateKeyRequest, DeleteKeyRequest, GetKeyRequest, Key, ListKeysRequest, ListKeysResponse,
    Role, WhoAmIRequest,
};
use crate::server::bootstrap::BootstrapArgs;

/// Commands of keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create an operator key in a data directory that no server has open: the first key, or a new
    /// one if all keys are lost. Write access to the directory is sufficient, because it gives full
    /// access to the store anyway.
    Bootstrap(BootstrapArgs),
    /// Create a key, and show its secret once. The first key must have the role operator: after
    /// that, every call needs a key.
    Create(CreateArgs),
    /// Show a key without its secret.
    Get {
        /// The key's id.
        key: String,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List all keys.
    List {
        /// The maximum number to list.
        #[command(flatten)]
        limit: Limit,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Revoke a key. Calls with it are rejected from now on, and its open streams are closed.
    Delete {
        /// The key's id.
        key: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Arguments of `keys create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The name of the caller that will use the key. It is the actor of its changes in the audit
    /// log.
    name: String,

    /// The roles of the key, separated by commas.
    #[arg(long, required = true, value_delimiter = ',', value_name = "ROLE")]
    role: Vec<RoleName>,

    /// Restrict the key to these companies, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "COMPANY")]
    company: Vec<String>,

    /// The name (a URI or DNS SAN) that the client certificate must have.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SAN")]
    certificate: String,

    /// Create the key without a secret: the certificate is sufficient.
    #[arg(long, requires = "certificate")]
    certificate_only: bool,

    /// When the key expires: an RFC 3339 time, a date (its start in UTC), or a duration from now
    /// such as `90d`.
    #[arg(long, value_name = "WHEN", value_parser = time::expiry)]
    expires_at: Option<Timestamp>,

    /// Options of the change.
    #[command(flatten)]
    write: WriteArgs,
}

/// The role of a key.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Runs checks and verifies secrets. Changes nothing.
    Service,
    /// Reads the companies of the key, and edits their credentials.
    CompanyAdmin,
    /// Manages users and consents.
    Identity,
    /// Does everything.
    Operator,
    /// Reads everything.
    Auditor,
    /// Makes only the calls that any caller may make.
    Backup,
    /// Makes only the calls that any caller may make.
    Restrictor,
    /// Makes only the calls that any caller may make.
    KeyAdmin,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            Self::Service => Role::Service,
            Self::CompanyAdmin => Role::CompanyAdmin,
            Self::Identity => Role::Identity,
            Self::Operator => Role::Operator,
            Self::Auditor => Role::Auditor,
            Self::Backup => Role::Backup,
            Self::Restrictor => Role::Restrictor,
            Self::KeyAdmin => Role::KeyAdmin,
        }
    }
}

/// Runs a command that calls a server.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn keys(command: KeysCommand) -> anyhow::Result<bool> {
    match command {
        KeysCommand::Bootstrap(_) => anyhow::bail!("`keys bootstrap` needs no server"),
        KeysCommand::Create(args) => create(args).await?,
        KeysCommand::Get { key, server } => {
            let mut client = server.open().await?;
            let response =
                unwrap_response(client.keys.get_key(GetKeyRequest { key_id: key }).await)?;
            client.printer.print(&response, report(require(&response.key)?))?;
        }
        KeysCommand::List { limit, server } => list(limit, &server).await?,
        KeysCommand::Delete { key, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let mut request = on_terms!(write, DeleteKeyRequest { key_id: key.clone() });
            if confirmation.is_asked(&write) {
                let current =
                    unwrap_response(client.keys.get_key(GetKeyRequest { key_id: key }).await)?;
                let current = require(&current.key)?;
                let last_used = time::text(current.last_used_time.as_ref());
                let removal_report = report(current);
                let removal_report = if last_used.is_empty() {
                    removal_report.fact("last used", "never")
                } else {
                    removal_report
                };
                let question = format!("Revoke the key {} of {}?", current.key_id, current.name);
                confirmation.ask(&client.printer, removal_report, &question).await?;
                rest_on(&mut request.etag, &current.etag);
            }
            let response = unwrap_response(client.keys.delete_key(request).await)?;
            let key = require(&response.key)?;
            let report = write
                .gone(response.revision, "revoke", "revoked")
                .fact("key", key.key_id.clone())
                .fact("name", key.name.clone())
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
    }
    Ok(true)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { name, role, company, certificate, certificate_only, expires_at, write } = args;
    let mut client = write.asking.open().await?;
    let request = on_terms!(
        write,
        CreateKeyRequest {
            name: name,
            roles: role.into_iter().map(|role| role.role().into()).collect(),
            company_ids: company,
            certificate: certificate,
            certificate_only: certificate_only,
            expires_at: expires_at,
        }
    );
    let response = unwrap_response(client.keys.create_key(request).await)?;
    response.warnings.iter().for_each(|warning| failure::warn(warning));
    let mut key = require(&response.key)?.clone();
    if write.dry_run {
        // The ids of a dry run are not those of the real key.
        key.key_id.clear();
        key.etag.clear();
        key.revision = 0;
    }
    let mut report = write.sheet(response.revision, false).then(report(&key));
    if !response.secret.is_empty() {
        report = report
            .fact("secret", response.secret.clone())
            .line("keep the secret now: it is shown once");
    } else if !write.dry_run && !certificate_only {
        report = report.line(write.not_shown("secret"));
    }
    client.printer.print(&response, report)
}

async fn list(limit: Limit, server: &ServerArgs) -> anyhow::Result<()> {
    let mut client = server.open().await?;
    let (mut all, mut pages) = (ListKeysResponse::default(), Pages::of(limit));
    loop {
        let request = ListKeysRequest { page_size: pages.size(), page_token: pages.token.clone() };
        let page = unwrap_response(client.keys.list_keys(request).await)?;
        let more = pages.turn(page.keys.len(), &page.next_page_token);
        all.keys.extend(page.keys);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            break;
        }
    }
    let rows = all.keys.iter().map(|key| {
        let last_used = time::text(key.last_used_time.as_ref());
        [
            key.key_id.clone().into(),
            key.name.clone().into(),
            Cell::state(true, key.expired),
            roles(key).into(),
            companies(&key.company_ids),
            Cell::end_short(key.expires_at.as_ref(), key.expired),
            if last_used.is_empty() { "never".into() } else { last_used.into() },
        ]
    });
    const HEADINGS: [&str; 7] =
        ["KEY", "NAME", "STATE", "ROLES", "COMPANIES", "EXPIRES", "LAST USED"];
    let report = Report::default().rows(&HEADINGS, rows);
    client.printer.print(&all, truncated(report, &all.next_page_token))
}

/// Shows the caller of this command, as the server authenticates it.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn whoami(server: ServerArgs) -> anyhow::Result<bool> {
    let mut client = server.open().await?;
    let caller = unwrap_response(client.keys.who_am_i(WhoAmIRequest {}).await)?;
    let report = Report::default()
        .fact("key", caller.key_id.clone())
        .fact("name", caller.name.clone())
        .fact("roles", caller.roles.join(" "))
        .fact("companies", companies(&caller.company_ids))
        .fact("expires", Cell::end(caller.expires_at.as_ref(), false));
    client.printer.print(&caller, report)?;
    Ok(true)
}

fn roles(key: &Key) -> String {
    let word = |role: Role| {
        let name = role.as_str_name();
        name.strip_prefix("ROLE_").unwrap_or(name).to_lowercase().replace('_', "-")
    };
    key.roles().map(word).collect::<Vec<_>>().join(" ")
}

/// The companies that a key is bound to.
fn companies(ids: &[String]) -> Cell {
    match ids.is_empty() {
        true => "all".into(),
        false => Cell::list(ids),
    }
}

fn report(key: &Key) -> Report {
    Report::default()
        .fact("key", key.key_id.clone())
        .fact("name", key.name.clone())
        .fact("roles", roles(key))
        .fact("companies", companies(&key.company_ids))
        .fact("state", Cell::state(true, key.expired))
        .fact("certificate", key.certificate.clone())
        .fact("expires", Cell::end(key.expires_at.as_ref(), key.expired))
        .fact("last used", time::text(key.last_used_time.as_ref()))
        .fact("etag", key.etag.clone())
        .revision(key.revision)
}
