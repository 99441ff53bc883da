//! `scopegate import`: companies and credentials from a file of JSON lines.
//!
//! A thread reads and understands lines and hands them over in messages; it is held up while the
//! server is. Lines of an export that are neither a company nor a credential have a `record`, and
//! are skipped. Not here: what a line's words may be, beyond its form; the server says that.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt;

use super::printer::count;
use super::{Purpose, connect_for, moment, said};
use crate::config::ImportArgs;
use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::{
    ImportCredentialsRequest, ImportCredentialsResponse, ImportedCompany, ImportedCredential,
    Scopes,
};

/// The most lines of a message: as many items as the contract allows.
const LINES: usize = 1_000;
/// The most bytes of the lines of a message: far fewer than a server reads of one, so that one
/// long line more does no harm.
const BYTES: usize = 1 << 20;
/// The most bytes of a line.
const LINE: u64 = 1 << 20;
/// How a line begins that is for people, and not for an import.
const RECORD: &[u8] = br#"{"record":"#;
/// How many messages are read ahead.
const AHEAD: usize = 4;

/// One line of the file. A key that is not here is refused: a mistyped one must not be dropped.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    company_id: String,
    credential_id: Option<String>,
    display_name: Option<String>,
    label: Option<String>,
    scopes: Option<Vec<String>>,
    expires_at: Option<String>,
    enabled: Option<bool>,
}

/// Imports a file, and prints what came of it. True if all of it exists now.
///
/// # Errors
/// A line is wrong, or could not ask.
pub async fn import(args: ImportArgs) -> anyhow::Result<bool> {
    let (input, bytes) = open(&args.file)?;
    let mut client = DirectoryServiceClient::new(connect_for(Purpose::Upload, &args.server).await?);
    let progress = progress(bytes);
    let (send, messages) = mpsc::channel(AHEAD);
    let first = ImportCredentialsRequest {
        validate_only: args.dry_run,
        reason: args.reason,
        on_behalf_of: args.on_behalf_of,
        ..ImportCredentialsRequest::default()
    };
    let shown = progress.clone();
    let reading = std::thread::spawn(move || read(input, first, &send, &shown));
    let answer = client.import_credentials(ReceiverStream::new(messages)).await;
    progress.finish_and_clear();
    let answer = answer.map_err(|status| ended(&status, args.dry_run))?.into_inner();
    let read = reading.join().map_err(|_| anyhow!("the file could not be read to its end"))?;
    let records = match read {
        Ok(records) => records,
        Err(error) => bail!("{error:#}; {}", kept(&answer, args.dry_run)),
    };
    let ImportCredentialsResponse { skipped_count, revision, .. } = answer;
    let (done, nothing) =
        if args.dry_run { ("would create", ", nothing was changed") } else { ("created", "") };
    let counts = counts(&answer);
    writeln!(
        io::stdout(),
        "{done} {counts}; {skipped_count} existed already; revision {revision}{nothing}"
    )?;
    if records > 0 {
        writeln!(io::stdout(), "skipped {records} lines with a `record`, which are not imported")?;
    }
    Ok(true)
}

/// The file, and how many bytes it has if that is known.
fn open(file: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bytes = opened.metadata().ok().map(|about| about.len()).filter(|bytes| *bytes > 0);
    Ok((Box::new(opened), bytes))
}

/// A bar, on a terminal.
fn progress(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{bar:40} {percent} % {bytes_per_sec}, {eta} to go")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads lines into messages until the end, the first wrong line, or nobody takes them any more.
/// Says how many had a `record`.
fn read(
    input: Box<dyn Read + Send>,
    first: ImportCredentialsRequest,
    send: &mpsc::Sender<ImportCredentialsRequest>,
    progress: &ProgressBar,
) -> anyhow::Result<u64> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let (mut message, mut bytes, mut number) = (first, 0, 0);
    let (mut text, mut records) = (Vec::new(), 0);
    let outcome = loop {
        text.clear();
        number += 1;
        let length = match input.by_ref().take(LINE + 1).read_until(b'\n', &mut text) {
            Ok(0) => break Ok(records),
            Ok(length) => length,
            Err(error) => break Err(anyhow!("line {number}: cannot be read: {}", error.kind())),
        };
        if text.starts_with(RECORD) {
            // A catalog may be longer than any other line.
            if text.last() != Some(&b'\n')
                && let Err(error) = input.skip_until(b'\n')
            {
                break Err(anyhow!("line {number}: cannot be read: {}", error.kind()));
            }
            progress.inc(length as u64);
            records += 1;
            continue;
        }
        if length as u64 > LINE {
            break Err(anyhow!("line {number}: has more than {LINE} bytes: divide its scopes"));
        }
        progress.inc(length as u64);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if let Err(error) = take(&text, number, &mut message) {
            break Err(anyhow!("line {number}: {error}"));
        }
        bytes += length;
        if message.companies.len() + message.credentials.len() == LINES || bytes >= BYTES {
            bytes = 0;
            if send.blocking_send(std::mem::take(&mut message)).is_err() {
                // The call has ended, and says why.
                return Ok(records);
            }
        }
    };
    // What stands before a wrong line is imported: it is not wrong. The terms go out in any case.
    send.blocking_send(message).ok();
    outcome
}

/// Understands a line.
fn take(text: &[u8], line: u64, message: &mut ImportCredentialsRequest) -> anyhow::Result<()> {
    let read: Line = serde_json::from_slice(text).map_err(|error| {
        // The library counts lines of its own.
        let said = error.to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
        anyhow!("column {}: {said}", error.column())
    })?;
    let Line { company_id, credential_id, display_name, label, scopes, expires_at, enabled } = read;
    if let Some(credential_id) = credential_id {
        if display_name.is_some() {
            bail!("a credential has no `display_name`: give it a `label`");
        }
        let expires_at = expires_at.map(|text| moment::exact(&text)).transpose();
        let expires_at = expires_at.map_err(|error| anyhow!("`expires_at`: {error}"))?;
        let (label, scopes) = (label.unwrap_or_default(), scopes.unwrap_or_default());
        message.credentials.push(ImportedCredential {
            company_id,
            credential_id,
            label,
            scopes,
            expires_at,
            enabled,
            line,
        });
        return Ok(());
    }
    if label.is_none() && expires_at.is_none() && enabled == Some(false) {
        bail!("a company is not imported disabled: take `enabled` out, and disable it afterwards");
    }
    if label.is_some() || expires_at.is_some() || enabled.is_some() {
        bail!("a company has no `label`, `expires_at` or `enabled`: is `credential_id` missing?");
    }
    let (display_name, scopes) =
        (display_name.unwrap_or_default(), scopes.map(|names| Scopes { names }));
    message.companies.push(ImportedCompany { company_id, display_name, scopes, line });
    Ok(())
}

/// What was created, in words.
fn counts(answer: &ImportCredentialsResponse) -> String {
    let companies = count(answer.created_company_count, "company", "companies");
    let credentials = count(answer.created_credential_count, "credential", "credentials");
    format!("{companies} and {credentials}")
}

/// What an import that did not come to its end has left, and what to do.
fn kept(done: &ImportCredentialsResponse, dry_run: bool) -> String {
    if dry_run {
        return "mend the line; nothing was changed".to_owned();
    }
    let (counts, skipped) = (counts(done), done.skipped_count);
    format!(
        "{counts} were created before it, {skipped} existed already: mend the line and import the \
         whole file again, what exists is skipped"
    )
}

/// Why the server ended an import.
fn ended(status: &Status, dry_run: bool) -> anyhow::Error {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        return anyhow!(
            "{}; then import the whole file again: what exists is skipped",
            said(status)
        );
    };
    let told = |key: &str| info.metadata.get(key)?.parse::<u64>().ok();
    let count = |key: &str| told(key).unwrap_or_default();
    let done = ImportCredentialsResponse {
        created_company_count: count("created_company_count"),
        created_credential_count: count("created_credential_count"),
        skipped_count: count("skipped_count"),
        revision: count("revision"),
    };
    match told("line") {
        Some(line) => anyhow!("line {line}: {}; {}", status.message(), kept(&done, dry_run)),
        None => said(status),
    }
}
