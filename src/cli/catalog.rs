//! `scopegate catalog`: reads, validates, compares and applies the catalog.
//!
//! Not here: catalog tests, which have a file format of their own; see [`super::catalog_test`].

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::catalog_change::CatalogChange;
use super::catalog_file::{format_errors, read_text, read_valid};
use super::catalog_schema;
use super::catalog_test::{TestArgs, test};
use super::client::{Client, ServerArgs, WriteArgs, on_terms, unwrap_response};
use super::failure;
use super::output_format::OutputFormat;
use super::printer::{Printer, Report, count};
use super::prompt;
use crate::policy::catalog::file::CatalogFile;
use crate::proto::{
    ApplyCatalogRequest, ApplyCatalogResponse, GetCatalogRequest, GetCatalogResponse,
};

/// Commands of the catalog.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Print the current catalog, as the YAML file that was applied.
    Get {
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Apply a catalog file. Asks for confirmation before it removes something.
    Apply {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Do not ask for confirmation. Required where there is no terminal.
        #[arg(long)]
        yes: bool,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Validate a catalog file without a server. Every error is printed with its line and column.
    Validate {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// The output format.
        #[arg(long, default_value = "table", value_name = "FORMAT")]
        output: OutputFormat,
    },
    /// Show the changes that a catalog file would make, without applying it.
    Diff {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print the JSON Schema of catalog files, for editors. No server is needed.
    Schema,
    /// Run the tests of a catalog without a server: a file of expected decisions.
    ///
    /// The test file is YAML. `catalog` is the path of the catalog file, relative to the test file.
    /// `companies` maps each company id to its `scopes` (by default all scopes of the catalog),
    /// `credentials`, `users` and `consents`. `tests` is a list of objects with `name`, `check` and
    /// `expect`. catalogs/360learning.test.yaml, which comes with scopegate, is a complete example.
    /// The exit code is 0 if all tests pass, and 2 if not.
    Test(TestArgs),
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached or returns an error, or the file is invalid.
pub async fn catalog(command: CatalogCommand) -> anyhow::Result<bool> {
    match command {
        CatalogCommand::Get { server } => {
            let mut client = server.open().await?;
            let response = unwrap_response(client.catalog.get_catalog(GetCatalogRequest {}).await)?;
            // The exact text, so that it can be saved as a file.
            client.printer.print_text(&response, &response.yaml)?;
            Ok(true)
        }
        CatalogCommand::Apply { file, yes, write } => apply(&file, yes, &write).await,
        CatalogCommand::Validate { file, output } => validate(&file, output),
        CatalogCommand::Diff { file, server } => {
            let yaml = read_valid(&file)?;
            let mut client = server.open().await?;
            let current = unwrap_response(client.catalog.get_catalog(GetCatalogRequest {}).await)?;
            let change = CatalogChange::of(&file, &current.yaml, &yaml)?;
            let request =
                ApplyCatalogRequest { yaml, validate_only: true, ..ApplyCatalogRequest::default() };
            let response = unwrap_response(client.catalog.apply_catalog(request).await)?;
            warn(&response);
            client.printer.print(&response, change.report(&response))?;
            Ok(true)
        }
        CatalogCommand::Schema => catalog_schema::print(),
        CatalogCommand::Test(args) => test(&args),
    }
}

async fn apply(file: &Path, yes: bool, write: &WriteArgs) -> anyhow::Result<bool> {
    let yaml = read_valid(file)?;
    let mut client = write.asking.open().await?;
    let current = unwrap_response(client.catalog.get_catalog(GetCatalogRequest {}).await)?;
    let change = CatalogChange::of(file, &current.yaml, &yaml)?;
    let request = on_terms!(write, ApplyCatalogRequest { yaml: yaml });
    if write.dry_run {
        let response = unwrap_response(client.catalog.apply_catalog(request).await)?;
        warn(&response);
        let line = format!("at revision {}, nothing was changed", response.revision);
        let report = Report::default().line(line).then(change.report(&response));
        client.printer.print(&response, report)?;
        return Ok(true);
    }
    // A file that changes nothing needs no confirmation. A request that is repeated with the same
    // request id must be identical, so it gets no etag here.
    let request = match yes || current.yaml == request.yaml {
        true => request,
        false => confirm_removals(request, current, &change, &mut client).await?,
    };
    let applied = unwrap_response(client.catalog.apply_catalog(request).await)?;
    warn(&applied);
    client.printer.print(&applied, change.applied_report(&applied))?;
    Ok(true)
}

/// Prints the warnings about issuers of the new catalog.
fn warn(response: &ApplyCatalogResponse) {
    response.warnings.iter().for_each(|warning| failure::warn(warning));
}

/// Returns the request if it removes nothing, or after the operator confirmed it. The request
/// carries the etag of the catalog that the preview was compared with.
async fn confirm_removals(
    request: ApplyCatalogRequest,
    current: GetCatalogResponse,
    change: &CatalogChange,
    client: &mut Client,
) -> anyhow::Result<ApplyCatalogRequest> {
    let etag = if request.etag.is_empty() { current.etag } else { request.etag.clone() };
    let request = ApplyCatalogRequest { etag, ..request };
    let preview_request = ApplyCatalogRequest { validate_only: true, ..request.clone() };
    let preview = unwrap_response(client.catalog.apply_catalog(preview_request.clone()).await)?;
    let removals = change.removals(&preview);
    if removals.is_empty() {
        return Ok(request);
    }
    let is_interactive = prompt::is_interactive();
    // With JSON output and no terminal, standard error holds one line of JSON.
    if is_interactive || client.printer.is_for_people() {
        client.printer.print_stderr(change.report(&preview))?;
    }
    let removals = removals.join("; ");
    if !is_interactive {
        bail!(
            "nothing was applied: the file would {removals}, and there is no terminal to confirm \
             it on: run it on a terminal, or add --yes to apply it"
        );
    }
    let question = match preview.removed_scopes.is_empty() {
        true => format!("Apply it? It would {removals}."),
        false => format!(
            "Remove {} from all companies and credentials?",
            preview.removed_scopes.join(" ")
        ),
    };
    if !prompt::confirm(&question).await? {
        bail!("nothing was applied");
    }
    // The etag covers the catalog, not the companies and credentials that lose a scope.
    let current_preview = unwrap_response(client.catalog.apply_catalog(preview_request).await)?;
    if affected(&preview) != affected(&current_preview) {
        bail!(
            "nothing was applied: the affected companies or credentials changed while the question \
             was open: run it again to see them"
        );
    }
    Ok(request)
}

/// The companies and credentials that lose scopes, and which. Last-seen times are left out.
fn affected(response: &ApplyCatalogResponse) -> impl PartialEq {
    let companies = response.affected_companies.iter();
    let companies = companies.map(|company| (company.company_id.clone(), company.scopes.clone()));
    let credentials = response.affected_credentials.iter().map(|loser| {
        let credential = loser.credential.clone().unwrap_or_default();
        (loser.company_id.clone(), credential.credential_id, credential.scopes, credential.enabled)
    });
    (
        (response.affected_company_count, response.affected_credential_count),
        companies.collect::<Vec<_>>(),
        credentials.collect::<Vec<_>>(),
    )
}

fn validate(file: &Path, output: OutputFormat) -> anyhow::Result<bool> {
    let yaml = read_text(file)?;
    let printer = Printer::new(output)?;
    let (errors, report) = match CatalogFile::parse(&yaml) {
        Ok(read) => {
            let mut parts = vec![
                count(read.scopes.len() as u64, "scope", "scopes"),
                count(read.audiences.len() as u64, "audience", "audiences"),
                count(read.roles.len() as u64, "role", "roles"),
                count(read.endpoints_by_name.len() as u64, "endpoint", "endpoints"),
            ];
            if !read.issuers.is_empty() {
                parts.push(count(read.issuers.len() as u64, "issuer", "issuers"));
            }
            if !read.resources.is_empty() {
                parts.push(count(read.resources.len() as u64, "resource", "resources"));
            }
            let summary = format!("{} is a valid catalog: {}", file.display(), parts.join(", "));
            let report = Report::default().line(summary);
            (vec![], report)
        }
        Err(errors) => {
            let report = Report::default().line(format_errors(file, &errors));
            (errors.0, report)
        }
    };
    let is_valid = errors.is_empty();
    let errors: Vec<_> = errors
        .into_iter()
        .map(|p| json!({ "line": p.line, "column": p.column, "message": p.message }))
        .collect();
    printer.print_value(&json!({ "valid": is_valid, "problems": errors }), report)?;
    Ok(is_valid)
}
