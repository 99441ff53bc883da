//! `scopegate batch`: the decisions for a file of checks.
//!
//! Not here: how the file is read; see [`super::check_file`].

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;
use tonic_types::StatusExt;

use super::check::word;
use super::check_file::{Checks, FileCheck};
use super::client::{Client, ServerArgs};
use super::client_credential_args::ClientCredentialArgs;
use super::failure::server_error;
use super::report::count;
use crate::observe::log;
use crate::proto::{BatchCheckRequest, CheckRequest, CheckResponse, Decision};

/// The number of checks in one request.
const BATCH_SIZE: usize = 100;

/// The arguments of a batch.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// The file of checks; `-` for standard input.
    file: PathBuf,

    /// What the client presents to prove who it is, for the lines that have no token of their own.
    #[command(flatten)]
    presented: ClientCredentialArgs,

    /// Print only decisions that are not as expected.
    #[arg(long)]
    mismatches_only: bool,

    /// The server to call, and the output format.
    #[command(flatten)]
    server: ServerArgs,
}

/// The numbers of decisions.
#[derive(Default)]
struct Summary {
    allowed: u64,
    denied: u64,
    unexpected: u64,
}

/// Prints a decision a line. True if all are as expected; a line without an expectation expects
/// `allowed`.
///
/// # Errors
/// The server cannot be reached or returns an error, or a line is invalid.
pub async fn batch(args: BatchArgs) -> anyhow::Result<bool> {
    if args.presented.is_standard_input() && args.file.as_os_str() == "-" {
        bail!("the checks and the token cannot both come from standard input: put one in a file");
    }
    let mut checks = Checks::open(&args.file, args.presented.read().await?)?;
    let mut client = args.server.open().await?;
    let mut summary = Summary::default();
    loop {
        let (mut batch, mut wrong) = (Vec::with_capacity(BATCH_SIZE), None);
        while batch.len() < BATCH_SIZE {
            match checks.next() {
                Ok(Some(check)) => batch.push(check),
                Ok(None) => break,
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        let ended = batch.len() < BATCH_SIZE;
        // The checks before an invalid line are sent.
        for (listed, response) in decide(&mut client, batch).await? {
            summary.take(&args, &client, &listed, &response)?;
        }
        if let Some(error) = wrong {
            bail!("{error:#}; {} before it", summary.text());
        }
        if ended {
            break;
        }
    }
    if client.printer.is_for_people() {
        log::tell(&summary.text());
    }
    Ok(summary.unexpected == 0)
}

/// Each check with its response, all at one revision.
async fn decide(
    client: &mut Client,
    batch: Vec<FileCheck>,
) -> anyhow::Result<Vec<(FileCheck, CheckResponse)>> {
    if batch.is_empty() {
        return Ok(vec![]);
    }
    let checks = batch.iter().map(|listed| listed.check.clone()).collect();
    let response = client.authorization.batch_check(BatchCheckRequest { checks }).await;
    let results = response.map_err(|status| at_line(&status, &batch))?.into_inner().results;
    if results.len() != batch.len() {
        bail!("the server returned {} results for {} checks", results.len(), batch.len());
    }
    Ok(batch.into_iter().zip(results).collect())
}

/// The error of the server, with the line of the file for the index of the check.
fn at_line(status: &tonic::Status, batch: &[FileCheck]) -> anyhow::Error {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice());
    let wrong = fields.unwrap_or_default().iter().find_map(|violation| {
        let (number, field) = violation.field.strip_prefix("checks[")?.split_once(']')?;
        let line = batch.get(number.parse::<usize>().ok()?)?.line;
        let field = field.trim_start_matches('.');
        Some(anyhow!("line {line}: `{field}` {}", violation.description))
    });
    wrong.unwrap_or_else(|| server_error(status))
}

impl Summary {
    fn take(
        &mut self,
        args: &BatchArgs,
        client: &Client,
        listed: &FileCheck,
        response: &CheckResponse,
    ) -> anyhow::Result<()> {
        let decision = response.decision();
        match decision {
            Decision::Allowed => self.allowed += 1,
            _ => self.denied += 1,
        }
        let as_expected = decision == listed.expected.unwrap_or(Decision::Allowed);
        self.unexpected += u64::from(!as_expected);
        if args.mismatches_only && as_expected {
            return Ok(());
        }
        client.printer.print_line(response, &line(listed, response))
    }

    fn text(&self) -> String {
        let checks = count(self.allowed + self.denied, "check", "checks");
        let Self { allowed, denied, unexpected } = self;
        format!("{checks}: {allowed} allowed, {denied} denied; {unexpected} not as expected")
    }
}

fn line(listed: &FileCheck, response: &CheckResponse) -> String {
    let CheckRequest { company_id, credential_id, scopes, endpoint, user_id, .. } = &listed.check;
    // A client that proved who it is; else what the line says, if it says anything.
    let subject = |proven: &str, stated: &str| {
        [proven, stated, "-"].into_iter().find(|id| !id.is_empty()).unwrap_or_default().to_owned()
    };
    let mut parts = vec![
        listed.line.to_string(),
        word(response.decision().as_str_name(), "DECISION_"),
        subject(&response.company_id, company_id),
        subject(&response.credential_id, credential_id),
    ];
    match endpoint {
        Some(call) => parts.extend([call.method.clone(), call.path.clone()]),
        None => parts.extend(scopes.iter().cloned()),
    }
    let user = if response.user_id.is_empty() { user_id } else { &response.user_id };
    if !user.is_empty() {
        parts.push(format!("for {user}"));
    }
    if response.decision() != Decision::Allowed {
        parts.push(word(response.reason().as_str_name(), "REASON_"));
        parts.extend(response.missing_scopes.iter().map(|scope| format!("-{scope}")));
    }
    parts.join(" ")
}
