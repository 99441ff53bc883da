//! `scopegate catalog`: what exists on the platform, from a file to a server and back.
//!
//! Not here: a catalog's tests, which have a file and a form of their own; see [`super::catalog_test`].

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::catalog_change::CatalogChange;
use super::catalog_file::{format_errors, read_text, read_valid};
use super::catalog_schema;
use super::catalog_test::{TestArgs, test};
use super::client::{Client, ServerArgs, WriteArgs, on_terms, unwrap_response};
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
    /// Write the catalog in force, as the file that it was applied from.
    Get {
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Apply a catalog file. On a terminal it asks before it takes something away.
    Apply {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Do not ask before something is taken away. Needed where no terminal can answer.
        #[arg(long)]
        yes: bool,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Check a catalog file without a server. Every problem has its line and column.
    Validate {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// How to write what is found.
        #[arg(long, default_value = "table", value_name = "FORMAT")]
        output: OutputFormat,
    },
    /// Show what applying a catalog file would change, and change nothing.
    Diff {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Write the JSON Schema of catalog files, for editors. No server is needed.
    Schema,
    /// Run the tests of a catalog without a server: expected decisions, in a file.
    ///
    /// The file is YAML. `catalog` is the catalog file, beside it. `companies` are the facts: by
    /// name `scopes` (the whole catalog if not given), `credentials` and `users` by name, and
    /// `consents`. `tests` are a list of `name`, `check` and `expect`. The example that comes with
    /// scopegate, catalogs/360learning.test.yaml, shows the rest. Exit code 0 if all are as
    /// expected, 2 if not.
    Test(TestArgs),
}

/// Runs the command.
///
/// # Errors
/// Could not ask, the server refused, or the file is wrong.
pub async fn catalog(command: CatalogCommand) -> anyhow::Result<bool> {
    match command {
        CatalogCommand::Get { server } => {
            let mut client = server.open().await?;
            let response = unwrap_response(client.catalog.get_catalog(GetCatalogRequest {}).await)?;
            // As it is, so that it can be kept in a file.
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
        let line = format!("at revision {}, nothing was changed", response.revision);
        let report = Report::default().line(line).then(change.report(&response));
        client.printer.print(&response, report)?;
        return Ok(true);
    }
    // What changes nothing needs no yes; and a request that is sent again must be what it was.
    let request = match yes || current.yaml == request.yaml {
        true => request,
        false => agreed(request, current, &change, &mut client).await?,
    };
    let done = unwrap_response(client.catalog.apply_catalog(request).await)?;
    client.printer.print(&done, change.done(&done))?;
    Ok(true)
}

/// The request, once it takes no scopes away or somebody has agreed to that. It carries an etag:
/// what was seen is what is replaced.
async fn agreed(
    request: ApplyCatalogRequest,
    current: GetCatalogResponse,
    change: &CatalogChange,
    client: &mut Client,
) -> anyhow::Result<ApplyCatalogRequest> {
    let etag = if request.etag.is_empty() { current.etag } else { request.etag.clone() };
    let request = ApplyCatalogRequest { etag, ..request };
    let ask = ApplyCatalogRequest { validate_only: true, ..request.clone() };
    let preview = unwrap_response(client.catalog.apply_catalog(ask.clone()).await)?;
    let taken = change.taken(&preview);
    if taken.is_empty() {
        return Ok(request);
    }
    let is_answered = prompt::is_interactive();
    // A program reads one line of JSON on standard error.
    if is_answered || client.printer.is_for_people() {
        client.printer.print_stderr(change.report(&preview))?;
    }
    let taken = taken.join("; ");
    if !is_answered {
        bail!(
            "nothing was applied: the file would {taken}, and no terminal can answer whether it \
             shall: run it on a terminal, or add --yes if this is what you want"
        );
    }
    let question = match preview.removed_scopes.is_empty() {
        true => format!("Apply it? It would {taken}."),
        false => format!("Take {} from everybody?", preview.removed_scopes.join(" ")),
    };
    if !prompt::confirm(&question).await? {
        bail!("nothing was applied");
    }
    // The etag covers the catalog, and not who loses by it.
    let again = unwrap_response(client.catalog.apply_catalog(ask).await)?;
    if losers(&preview) != losers(&again) {
        bail!(
            "nothing was applied: others lose a scope by it than when the question was asked: run \
             it again to see who"
        );
    }
    Ok(request)
}

/// Who loses by a catalog, and what. When somebody was last seen says nothing of that.
fn losers(response: &ApplyCatalogResponse) -> impl PartialEq {
    let companies = response.affected_companies.iter();
    let companies = companies.map(|one| (one.company_id.clone(), one.scopes.clone()));
    let credentials = response.affected_credentials.iter().map(|one| {
        let losing = one.credential.clone().unwrap_or_default();
        (one.company_id.clone(), losing.credential_id, losing.scopes, losing.enabled)
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
    let (problems, report) = match CatalogFile::parse(&yaml) {
        Ok(read) => {
            let parts = [
                count(read.scopes.len() as u64, "scope", "scopes"),
                count(read.audiences.len() as u64, "audience", "audiences"),
                count(read.roles.len() as u64, "role", "roles"),
                count(read.endpoints_by_name.len() as u64, "endpoint", "endpoints"),
            ];
            let good = format!("{} is a good catalog: {}", file.display(), parts.join(", "));
            let report = Report::default().line(good);
            (vec![], report)
        }
        Err(problems) => {
            let report = Report::default().line(format_errors(file, &problems));
            (problems.0, report)
        }
    };
    let good = problems.is_empty();
    let problems: Vec<_> = problems
        .into_iter()
        .map(|p| json!({ "line": p.line, "column": p.column, "message": p.message }))
        .collect();
    printer.print_value(&json!({ "valid": good, "problems": problems }), report)?;
    Ok(good)
}
