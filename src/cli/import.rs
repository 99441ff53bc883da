//! `scopegate import`: imports companies and credentials from a file of JSON lines.
//!
//! A thread reads and parses the lines, and sends them in batches. It waits while the server is
//! busy. Lines of an export with a `record`, which are neither a company nor a credential, are
//! skipped. Not here: validation of ids and scopes, which the server does.

use super::endpoint_args::EndpointArgs;
use super::output_format::OutputFormat;
use clap::Args;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt;

use super::connection::{Purpose, connect_for};
use super::failure::{self, server_error};
use super::printer::{Cell, Printer, Report, count};
use super::repeated::RepeatedIds;
use super::{text_file, time};

use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::{
    ImportCredentialsRequest, ImportCredentialsResponse, ImportDifference, ImportedCompany,
    ImportedCredential, Scopes,
};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; `-` for standard input.
    pub file: PathBuf,

    /// Validate the file and show what would be created, without importing it.
    #[arg(long)]
    pub dry_run: bool,

    /// The reason, for the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,

    /// The person on whose behalf you act, for the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub on_behalf_of: String,

    /// The output format: a table for people, or the JSON of the API for programs.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub output: OutputFormat,

    /// The server to call. An import has no time limit as long as the server makes progress.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// The maximum number of items in a message, which is the limit of the API.
const MAX_ITEMS: usize = 1_000;
/// The maximum number of bytes of lines in a message. It is far below the limit of a server, so
/// that one more long line still fits.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The maximum length of a line in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// The beginning of a line that is for people and not imported.
const RECORD_PREFIX: &[u8] = br#"{"record":"#;
/// The number of messages that are read ahead.
const MESSAGES_AHEAD: usize = 4;

/// One line of the file. Unknown keys are errors, so that a misspelled key is not silently ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportLine {
    company_id: String,
    credential_id: Option<String>,
    display_name: Option<String>,
    label: Option<String>,
    scopes: Option<Vec<String>>,
    expires_at: Option<String>,
    enabled: Option<bool>,
    redirect_uris: Option<Vec<String>>,
    tokens_valid_from: Option<String>,
}

/// Imports a file, and prints the result. True if all items exist now.
///
/// # Errors
/// A line is invalid, or the server cannot be reached or returns an error.
pub async fn import(args: ImportArgs) -> anyhow::Result<bool> {
    let (input, bytes) = open(&args.file)?;
    let mut input = BufReader::with_capacity(1 << 16, input);
    text_file::skip_mark(&mut input).with_context(|| args.file.display().to_string())?;
    let printer = Printer::new(args.output)?;
    let mut client = DirectoryServiceClient::new(connect_for(Purpose::Upload, &args.server).await?);
    let progress = progress(bytes);
    let (send, messages) = mpsc::channel(MESSAGES_AHEAD);
    let first = ImportCredentialsRequest {
        validate_only: args.dry_run,
        reason: args.reason,
        on_behalf_of: args.on_behalf_of,
        ..ImportCredentialsRequest::default()
    };
    let reader_progress = progress.clone();
    let reading = std::thread::spawn(move || read(input, first, &send, &reader_progress));
    let answer = client.import_credentials(ReceiverStream::new(messages)).await;
    progress.finish_and_clear();
    let answer = answer.map_err(|status| import_error(&status, args.dry_run))?.into_inner();
    let read = reading.join().map_err(|_| anyhow!("the file could not be read to the end"))?;
    let Content { items, records } = match read {
        Ok(read) => read,
        Err(error) => bail!("{error:#}; {}", failure_summary(&answer, args.dry_run)),
    };
    if items + records == 0 {
        bail!(
            "{} is empty: write one JSON object a line, such as {{\"company_id\": \"acme\"}}",
            args.file.display()
        );
    }
    let ImportCredentialsResponse { skipped_count, differing_count, revision, .. } = answer;
    let (done, nothing) =
        if args.dry_run { ("would create", ", nothing was changed") } else { ("created", "") };
    let counts = counts(&answer);
    let differ = match differing_count {
        0 => String::new(),
        many => format!(", {many} of them with other content, which was not changed"),
    };
    let mut report = Report::default().line(format!(
        "{done} {counts}; {skipped_count} existed already{differ}; revision {revision}{nothing}"
    ));
    if records > 0 {
        report =
            report.line(format!("skipped {records} lines with a `record`, which are not imported"));
    }
    report = report.rows(&["LINE", "COMPANY", "CREDENTIAL", "DIFFERS IN"], rows(&answer));
    let more = differing_count.saturating_sub(answer.differing.len() as u64);
    if more > 0 {
        report = report.line(format!("and {more} more with other content"));
    }
    printer.print(&answer, report)?;
    Ok(true)
}

/// The rows of items that exist with different content.
fn rows(answer: &ImportCredentialsResponse) -> impl Iterator<Item = [Cell; 4]> {
    answer.differing.iter().map(|difference| {
        let ImportDifference { company_id, credential_id, line, fields } = difference.clone();
        [line.into(), company_id.into(), credential_id.into(), fields.join(" ").into()]
    })
}

/// Opens the file, and returns its size if it is known.
fn open(file: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bytes = opened.metadata().ok().map(|about| about.len()).filter(|bytes| *bytes > 0);
    Ok((Box::new(opened), bytes))
}

/// A progress bar, on a terminal.
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

/// The number of lines of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    /// Lines of companies and credentials.
    items: u64,
    /// Lines with a `record`.
    records: u64,
}

/// Reads lines into messages until the end of the file, the first invalid line, or the end of the
/// call.
fn read(
    mut input: impl BufRead,
    first: ImportCredentialsRequest,
    send: &mpsc::Sender<ImportCredentialsRequest>,
    progress: &ProgressBar,
) -> anyhow::Result<Content> {
    let (mut message, mut bytes, mut number) = (first, 0, 0);
    let (mut text, mut content) = (Vec::new(), Content::default());
    let mut repeated = RepeatedIds::default();
    let outcome = loop {
        text.clear();
        number += 1;
        let length = match input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut text) {
            Ok(0) => break Ok(content),
            Ok(length) => length,
            Err(error) => break Err(anyhow!("line {number}: cannot be read: {}", error.kind())),
        };
        if text.starts_with(RECORD_PREFIX) {
            // The line of a catalog can exceed the maximum length.
            if text.last() != Some(&b'\n')
                && let Err(error) = input.skip_until(b'\n')
            {
                break Err(anyhow!("line {number}: cannot be read: {}", error.kind()));
            }
            progress.inc(length as u64);
            content.records += 1;
            continue;
        }
        if length as u64 > MAX_LINE_BYTES {
            break Err(anyhow!(
                "line {number}: has more than {MAX_LINE_BYTES} bytes: split its scopes into \
                 several grants"
            ));
        }
        progress.inc(length as u64);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // A duplicate id is found before the line is sent, so before anything of it is imported.
        if let Err(error) = add_line(&text, number, &mut message, &mut repeated) {
            break Err(anyhow!("line {number}: {error}"));
        }
        content.items += 1;
        bytes += length;
        if message.companies.len() + message.credentials.len() == MAX_ITEMS
            || bytes >= MAX_MESSAGE_BYTES
        {
            bytes = 0;
            if send.blocking_send(std::mem::take(&mut message)).is_err() {
                // The call has ended, and its status has the reason.
                return Ok(content);
            }
        }
    };
    // The lines before an invalid line are imported. The first message is always sent, because it
    // carries the write options.
    send.blocking_send(message).ok();
    outcome
}

/// Parses a line, and adds it to a message.
fn add_line(
    text: &[u8],
    line: u64,
    message: &mut ImportCredentialsRequest,
    repeated: &mut RepeatedIds,
) -> anyhow::Result<()> {
    let read: ImportLine = serde_json::from_slice(text).map_err(|error| {
        // serde_json counts lines of its own, so its position is cut off.
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        anyhow!("column {}: {text}", error.column())
    })?;
    let ImportLine {
        company_id,
        credential_id,
        display_name,
        label,
        scopes,
        expires_at,
        enabled,
        redirect_uris,
        tokens_valid_from,
    } = read;
    if let Some(credential_id) = credential_id {
        if display_name.is_some() {
            bail!("a credential has no `display_name`: give it a `label`");
        }
        let exact = |field: &str, text: Option<String>| {
            let time = text.map(|text| time::exact(&text)).transpose();
            time.map_err(|error| anyhow!("`{field}`: {error}"))
        };
        let expires_at = exact("expires_at", expires_at)?;
        let tokens_valid_from = exact("tokens_valid_from", tokens_valid_from)?;
        let (label, scopes) = (label.unwrap_or_default(), scopes.unwrap_or_default());
        let text = |time: &prost_types::Timestamp| format!("{}.{}", time.seconds, time.nanos);
        let times = [&expires_at, &tokens_valid_from];
        let [end, valid_from] = times.map(|time| time.as_ref().map(text).unwrap_or_default());
        let has = [expires_at.is_some().into(), enabled.unwrap_or(true).into()];
        let redirect_uris = redirect_uris.unwrap_or_default();
        let uris = redirect_uris.join(" ");
        let set = as_set(&scopes);
        let fields =
            [label.as_bytes(), end.as_bytes(), valid_from.as_bytes(), uris.as_bytes(), &has];
        let content = [&fields[..], &set].concat();
        repeated.insert(line, &[&company_id, &credential_id], &content)?;
        message.credentials.push(ImportedCredential {
            company_id,
            credential_id,
            label,
            scopes,
            expires_at,
            enabled,
            line,
            tokens_valid_from,
            redirect_uris,
        });
        return Ok(());
    }
    if label.is_none() && expires_at.is_none() && enabled == Some(false) {
        bail!(
            "a company is not imported disabled: remove `enabled`, and disable the company after \
             the import"
        );
    }
    let is_of_credential = label.is_some()
        || expires_at.is_some()
        || redirect_uris.is_some()
        || tokens_valid_from.is_some();
    if is_of_credential || enabled.is_some() {
        bail!(
            "a company has no `label`, `expires_at`, `enabled`, `redirect_uris` or \
             `tokens_valid_from`: is `credential_id` missing?"
        );
    }
    let name = display_name.as_deref().unwrap_or_default().as_bytes();
    let all = [scopes.is_none().into()];
    let set = as_set(scopes.as_deref().unwrap_or_default());
    repeated.insert(line, &[&company_id], &[&[name, &all][..], &set].concat())?;
    let (display_name, scopes) =
        (display_name.unwrap_or_default(), scopes.map(|names| Scopes { names }));
    message.companies.push(ImportedCompany { company_id, display_name, scopes, line });
    Ok(())
}

/// Scopes as a sorted set, because order and duplicates have no meaning.
fn as_set(scopes: &[String]) -> Vec<&[u8]> {
    let mut set: Vec<_> = scopes.iter().map(String::as_bytes).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// The counts of created items, as text.
fn counts(answer: &ImportCredentialsResponse) -> String {
    let companies = count(answer.created_company_count, "company", "companies");
    let credentials = count(answer.created_credential_count, "credential", "credentials");
    format!("{companies} and {credentials}")
}

/// The result of an import that failed, and what to do next.
fn failure_summary(done: &ImportCredentialsResponse, dry_run: bool) -> String {
    if dry_run {
        return "fix the line; nothing was changed".to_owned();
    }
    let (counts, skipped) = (counts(done), done.skipped_count);
    format!(
        "{counts} were created before it, {skipped} existed already: fix the line and import the \
         whole file again, existing items are skipped"
    )
}

/// Removes field paths of the message from an error text, because the text names the line of the
/// file instead.
fn without_field_paths(sentence: &str) -> String {
    let mut text = sentence.to_owned();
    for list in ["credentials[", "companies["] {
        while let Some(start) = text.find(list) {
            let Some(end) = text.get(start..).and_then(|rest| rest.find(']')) else { break };
            let dot = text.get(start + end + 1..).is_some_and(|rest| rest.starts_with('.'));
            text.replace_range(start..start + end + 1 + usize::from(dot), "");
        }
    }
    // The error was about the whole item, so its path is empty now.
    text.strip_prefix("``: ").map(str::to_owned).unwrap_or(text)
}

/// The error of an import that the server ended.
fn import_error(status: &Status, dry_run: bool) -> anyhow::Error {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        let error = server_error(status);
        let text = format!("{error}; then import the whole file again: existing items are skipped");
        return failure::reworded(&error, text);
    };
    let metadata = |key: &str| info.metadata.get(key)?.parse::<u64>().ok();
    let count = |key: &str| metadata(key).unwrap_or_default();
    let done = ImportCredentialsResponse {
        created_company_count: count("created_company_count"),
        created_credential_count: count("created_credential_count"),
        skipped_count: count("skipped_count"),
        revision: count("revision"),
        differing_count: count("differing_count"),
        differing: vec![],
    };
    match metadata("line") {
        Some(line) => {
            let reason = without_field_paths(status.message());
            let text = format!("line {line}: {reason}; {}", failure_summary(&done, dry_run));
            failure::reworded(&server_error(status), text)
        }
        None => server_error(status),
    }
}
