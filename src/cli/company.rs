//! `scopegate company`: the commands for companies and their ceilings.
//!
//! Not here: how a company is shown, see [`super::company_view`]; taking scopes from a ceiling, see
//! [`super::company_restrict`].

use clap::Subcommand;
use prost_types::FieldMask;

use super::client::{
    Limit, ServerArgs, WriteArgs, free_text, moved, on_terms, require, unwrap_response,
};
use super::company_restrict::{RestrictArgs, restrict};
use super::company_view::{changed, etag, facts, lookup, report};
use super::confirmation::{Confirmation, rest_on, still_so};
use super::undo::{self, Made, Undo};
use super::{company_impact, company_list, failure};
use crate::proto::{
    AddCompanyScopesRequest, CreateCompanyRequest, DeleteCompanyRequest, GetCompanyRequest,
    RestoreGrantsRequest, Scopes, UpdateCompanyRequest,
};

/// The commands for companies.
#[derive(Debug, Subcommand)]
pub enum CompanyCommand {
    /// Create a company. Without SCOPE its ceiling is the whole catalog.
    Create {
        /// The company's id.
        company: String,
        /// The scopes of its ceiling. The scopes that they imply are added.
        #[arg(value_name = "SCOPE", conflicts_with = "no_scopes")]
        scopes: Vec<String>,
        /// Create it with an empty ceiling.
        #[arg(long)]
        no_scopes: bool,
        /// The name to display.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "NAME")]
        display_name: String,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a company and its ceiling.
    Get {
        /// The company's id.
        company: String,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List companies: all, or those with a credential that holds a scope.
    List {
        /// List only companies with credentials that hold this scope now, and count these credentials.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        /// The maximum number to list.
        #[command(flatten)]
        limit: Limit,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change the display name of a company.
    Update {
        /// The company's id.
        company: String,
        /// The name to display.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, value_name = "NAME")]
        display_name: String,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Enable a company: its checks are decided by its scopes again.
    Enable {
        /// The company's id.
        company: String,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Disable a company: every check of it is denied, at once, until it is enabled.
    Disable {
        /// The company's id.
        company: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a company with its credentials, users and consents. This cannot be undone.
    Delete {
        /// The company's id.
        company: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Add scopes to the ceiling of a company. Its credentials get no new grants.
    AddScopes {
        /// The company's id.
        company: String,
        /// The scopes. The scopes that they imply are added.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Remove scopes from the ceiling of a company, and so at once from all of its credentials.
    ///
    /// The command first shows the impact preview: the credentials that would lose a scope. On a
    /// terminal it then asks for confirmation. A script passes --yes with --affected, the number of
    /// credentials in the preview, or the --etag of a --dry-run. If the impact has changed since the
    /// preview, nothing is restricted.
    Restrict(RestrictArgs),
    /// Undo a restriction: reactivate the grants that it made dormant.
    RestoreGrants {
        /// The company's id.
        company: String,
        /// The scopes. They must be in the ceiling again: see `company add-scopes`.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The revision of the restriction, as `changes list` shows it.
        #[arg(long, value_name = "REVISION")]
        restricted_at: u64,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn company(command: CompanyCommand) -> anyhow::Result<bool> {
    match command {
        CompanyCommand::Create { company, scopes, no_scopes, display_name, write } => {
            let named = no_scopes || !scopes.is_empty();
            let mut client = write.asking.open().await?;
            let request = on_terms!(
                write,
                CreateCompanyRequest {
                    company_id: company,
                    display_name: display_name,
                    scopes: named.then_some(Scopes { names: scopes }),
                }
            );
            let response = unwrap_response(client.directory.create_company(request).await)?;
            let report =
                changed(&client, &write, None, require(&response.company)?, response.revision)
                    .await;
            client.printer.print(&response, report)?;
        }
        CompanyCommand::Get { company, server } => {
            let mut client = server.open().await?;
            let request = GetCompanyRequest { company_id: company };
            let response = unwrap_response(client.directory.get_company(request).await)?;
            let company = require(&response.company)?;
            let lookup = lookup(&client, company, None).await;
            client.printer.print(&response, report(company, &lookup))?;
        }
        CompanyCommand::List { scope, limit, server } => {
            company_list::list(&mut server.open().await?, scope.as_deref(), limit).await?;
        }
        CompanyCommand::Update { company, display_name, write } => {
            let request = on_terms!(
                write,
                UpdateCompanyRequest {
                    company_id: company,
                    display_name: display_name,
                    enabled: false,
                    update_mask: mask("display_name"),
                }
            );
            update(request, &write, None).await?;
        }
        CompanyCommand::Enable { company, write } => {
            set_enabled(company, true, &write, None).await?
        }
        CompanyCommand::Disable { company, confirmation, write } => {
            set_enabled(company, false, &write, Some(confirmation)).await?;
        }
        CompanyCommand::Delete { company, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let mut request = on_terms!(write, DeleteCompanyRequest { company_id: company });
            if confirmation.is_asked(&write) {
                let now = company_impact::read(&mut client, &request.company_id).await?;
                let (report, what, all) = company_impact::impact(&mut client, &now).await?;
                let question = format!("Delete {what}, for good?");
                confirmation.ask(&client.printer, report, &question).await?;
                still_so(&all, &company_impact::impact(&mut client, &now).await?.2)?;
                rest_on(&mut request.etag, &now.etag);
            }
            let response = unwrap_response(client.directory.delete_company(request).await)?;
            let company = require(&response.company)?;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .then(facts(company))
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
        CompanyCommand::AddScopes { company, scopes, write } => {
            let mut client = write.asking.open().await?;
            let before = etag(&client, &write, &company).await;
            let request =
                on_terms!(write, AddCompanyScopesRequest { company_id: company, scopes: scopes });
            let response = unwrap_response(client.authorization.add_company_scopes(request).await)?;
            let report =
                changed(&client, &write, before, require(&response.company)?, response.revision)
                    .await;
            let report = moved(report, &response.added_scopes, &[]);
            let undo = company_impact::undo_of_addition(&mut client, &write, &response).await;
            client.printer.print_undoable(&response, report, undo)?;
        }
        CompanyCommand::Restrict(args) => return restrict(args).await,
        CompanyCommand::RestoreGrants { company, scopes, restricted_at, write } => {
            let mut client = write.asking.open().await?;
            let request = on_terms!(
                write,
                RestoreGrantsRequest {
                    company_id: company,
                    scopes: scopes,
                    restricted_at_revision: restricted_at,
                }
            );
            let response = unwrap_response(client.authorization.restore_grants(request).await)?;
            let report = write
                .sheet(response.revision, response.restored_credential_count == 0)
                .fact("restored credentials", response.restored_credential_count)
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
    }
    Ok(true)
}

/// A field mask with one path.
pub(super) fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.to_owned()] })
}

async fn set_enabled(
    company: String,
    enabled: bool,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let request = on_terms!(
        write,
        UpdateCompanyRequest {
            company_id: company,
            display_name: String::new(),
            enabled: enabled,
            update_mask: mask("enabled"),
        }
    );
    update(request, write, confirmation).await
}

/// Updates. With an confirmation it asks before checks are denied.
async fn update(
    mut request: UpdateCompanyRequest,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (before, since) = company_impact::read_at(&mut client, &request.company_id).await;
    if let Some(confirmation) = confirmation.filter(|confirmation| confirmation.is_asked(write)) {
        let now = before.as_ref().map_err(failure::again)?;
        if now.enabled {
            let (report, what, all) = company_impact::impact(&mut client, now).await?;
            let question = format!("Deny every check of {what}, until it is enabled?");
            confirmation.ask(&client.printer, report, &question).await?;
            still_so(&all, &company_impact::impact(&mut client, now).await?.2)?;
            rest_on(&mut request.etag, &now.etag);
        }
    }
    let mask = request.update_mask.clone().unwrap_or_default().paths;
    let response = unwrap_response(client.directory.update_company(request).await)?;
    let after = require(&response.company)?;
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let report = changed(&client, write, etag, after, response.revision).await;
    let made = Made { company: &after.company_id, read: since, answered: response.revision };
    let undo = match before.and_then(|before| company_impact::undo(write, &mask, &before, after)) {
        Some(_) if !undo::is_alone(&mut client, made).await => Undo::of_several(write),
        undo => undo,
    };
    client.printer.print_undoable(&response, report, undo)
}
