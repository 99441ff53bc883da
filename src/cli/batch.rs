//! `scopegate batch`: the decisions of a file of checks.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;
use tonic_types::StatusExt;

use super::check::word;
use super::check_file::{Checks, FileCheck};
use super::client::{Client, ServerArgs};
use super::failure::server_error;
use super::report::count;
use crate::observe::log;
use crate::proto::{BatchCheckRequest, CheckRequest, CheckResponse, Decision};

/// How many checks are asked for at once.
const AT_ONCE: usize = 100;

/// Which checks.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// The file; `-` for standard input.
    file: PathBuf,

    /// Print only what is decided otherwise than expected.
    #[arg(long)]
    mismatches_only: bool,

    /// Whom to ask, and how to write the answers.
    #[command(flatten)]
    asking: ServerArgs,
}

/// What came of them.
#[derive(Default)]
struct Tally {
    allowed: u64,
    denied: u64,
    unexpected: u64,
}

/// Asks, and prints an answer a line. True if all are as expected, which is allowed if a line does
/// not say.
///
/// # Errors
/// Could not ask, or a line is wrong.
pub async fn batch(args: BatchArgs) -> anyhow::Result<bool> {
    let mut checks = Checks::open(&args.file)?;
    let mut desk = args.asking.open().await?;
    let mut tally = Tally::default();
    loop {
        let (mut asked, mut wrong) = (Vec::with_capacity(AT_ONCE), None);
        while asked.len() < AT_ONCE {
            match checks.next() {
                Ok(Some(check)) => asked.push(check),
                Ok(None) => break,
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        let ended = asked.len() < AT_ONCE;
        // What stands before a wrong line is asked: it is not wrong.
        for (listed, answer) in decide(&mut desk, asked).await? {
            tally.take(&args, &desk, &listed, &answer)?;
        }
        if let Some(error) = wrong {
            bail!("{error:#}; {} before it", tally.text());
        }
        if ended {
            break;
        }
    }
    if desk.printer.is_for_people() {
        log::tell(&tally.text());
    }
    Ok(tally.unexpected == 0)
}

/// Each check with its answer, all of one revision.
async fn decide(
    desk: &mut Client,
    asked: Vec<FileCheck>,
) -> anyhow::Result<Vec<(FileCheck, CheckResponse)>> {
    if asked.is_empty() {
        return Ok(vec![]);
    }
    let checks = asked.iter().map(|listed| listed.check.clone()).collect();
    let answer = desk.authorization.batch_check(BatchCheckRequest { checks }).await;
    let results = answer.map_err(|status| refused(&status, &asked))?.into_inner().results;
    if results.len() != asked.len() {
        bail!("{} answers came to {} checks", results.len(), asked.len());
    }
    Ok(asked.into_iter().zip(results).collect())
}

/// What the server said, by line: it counts the checks of a batch.
fn refused(status: &tonic::Status, asked: &[FileCheck]) -> anyhow::Error {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice());
    let wrong = fields.unwrap_or_default().iter().find_map(|violation| {
        let (number, field) = violation.field.strip_prefix("checks[")?.split_once(']')?;
        let line = asked.get(number.parse::<usize>().ok()?)?.line;
        let field = field.trim_start_matches('.');
        Some(anyhow!("line {line}: `{field}` {}", violation.description))
    });
    wrong.unwrap_or_else(|| server_error(status))
}

impl Tally {
    fn take(
        &mut self,
        args: &BatchArgs,
        desk: &Client,
        listed: &FileCheck,
        answer: &CheckResponse,
    ) -> anyhow::Result<()> {
        let decision = answer.decision();
        match decision {
            Decision::Allowed => self.allowed += 1,
            _ => self.denied += 1,
        }
        let as_expected = decision == listed.expected.unwrap_or(Decision::Allowed);
        self.unexpected += u64::from(!as_expected);
        if args.mismatches_only && as_expected {
            return Ok(());
        }
        desk.printer.print_line(answer, &line(listed, answer))
    }

    fn text(&self) -> String {
        let checks = count(self.allowed + self.denied, "check", "checks");
        let Self { allowed, denied, unexpected } = self;
        format!("{checks}: {allowed} allowed, {denied} denied; {unexpected} not as expected")
    }
}

fn line(listed: &FileCheck, answer: &CheckResponse) -> String {
    let CheckRequest { company_id, credential_id, scopes, endpoint, user_id, .. } = &listed.check;
    let mut parts = vec![
        listed.line.to_string(),
        word(answer.decision().as_str_name(), "DECISION_"),
        company_id.clone(),
        credential_id.clone(),
    ];
    match endpoint {
        Some(call) => parts.extend([call.method.clone(), call.path.clone()]),
        None => parts.extend(scopes.iter().cloned()),
    }
    if !user_id.is_empty() {
        parts.push(format!("for {user_id}"));
    }
    if answer.decision() != Decision::Allowed {
        parts.push(word(answer.reason().as_str_name(), "REASON_"));
        parts.extend(answer.missing_scopes.iter().map(|scope| format!("-{scope}")));
    }
    parts.join(" ")
}
