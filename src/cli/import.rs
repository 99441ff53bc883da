//! `scopegate import`: companies and credentials from a file of JSON lines.
//!
//! A thread reads and understands lines and hands them over in messages; it is held up while the
//! server is. Lines of an export that are neither a company nor a credential have a `record`, and
//! are skipped. Not here: what a line's words may be, beyond its form; the server says that.

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
use super::repeated::Repeated;
use super::{text_file, time};

use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::{
    ImportCredentialsRequest, ImportCredentialsResponse, ImportDifference, ImportedCompany,
    ImportedCredential, Scopes,
};

/// What to import, and where to.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; `-` for standard input.
    pub file: PathBuf,

    /// Only say what would be created, and what is wrong.
    #[arg(long)]
    pub dry_run: bool,

    /// Why, for the audit record of each.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,

    /// For whom, for the audit record of each.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub on_behalf_of: String,

    /// How to write what came of it: for people, or as the contract's JSON for programs.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub output: OutputFormat,

    /// Which server to ask. The import takes any time, as long as the server makes progress.
    #[command(flatten)]
    pub server: EndpointArgs,
}

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
    let mut input = BufReader::with_capacity(1 << 16, input);
    text_file::skip_mark(&mut input).with_context(|| args.file.display().to_string())?;
    let printer = Printer::new(args.output)?;
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
    let Content { items, records } = match read {
        Ok(read) => read,
        Err(error) => bail!("{error:#}; {}", kept(&answer, args.dry_run)),
    };
    if items + records == 0 {
        bail!(
            "{} is empty: give a file with one JSON object a line, such as {{\"company_id\": \
             \"acme\"}}",
            args.file.display()
        );
    }
    let ImportCredentialsResponse { skipped_count, differing_count, revision, .. } = answer;
    let (done, nothing) =
        if args.dry_run { ("would create", ", nothing was changed") } else { ("created", "") };
    let counts = counts(&answer);
    let differ = match differing_count {
        0 => String::new(),
        many => format!(", {many} of them with other content, which was left as it is"),
    };
    let mut sheet = Report::default().line(format!(
        "{done} {counts}; {skipped_count} existed already{differ}; revision {revision}{nothing}"
    ));
    if records > 0 {
        sheet =
            sheet.line(format!("skipped {records} lines with a `record`, which are not imported"));
    }
    sheet = sheet.rows(&["LINE", "COMPANY", "CREDENTIAL", "DIFFERS IN"], rows(&answer));
    let more = differing_count.saturating_sub(answer.differing.len() as u64);
    if more > 0 {
        sheet = sheet.line(format!("and {more} more with other content"));
    }
    printer.print(&answer, sheet)?;
    Ok(true)
}

/// What exists with other content.
fn rows(answer: &ImportCredentialsResponse) -> impl Iterator<Item = [Cell; 4]> {
    answer.differing.iter().map(|difference| {
        let ImportDifference { company_id, credential_id, line, fields } = difference.clone();
        [line.into(), company_id.into(), credential_id.into(), fields.join(" ").into()]
    })
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

/// How many lines a file has.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    /// Lines of companies and credentials.
    items: u64,
    /// Lines with a `record`.
    records: u64,
}

/// Reads lines into messages until the end, the first wrong line, or nobody takes them any more.
fn read(
    mut input: impl BufRead,
    first: ImportCredentialsRequest,
    send: &mpsc::Sender<ImportCredentialsRequest>,
    progress: &ProgressBar,
) -> anyhow::Result<Content> {
    let (mut message, mut bytes, mut number) = (first, 0, 0);
    let (mut text, mut content) = (Vec::new(), Content::default());
    let mut repeated = Repeated::default();
    let outcome = loop {
        text.clear();
        number += 1;
        let length = match input.by_ref().take(LINE + 1).read_until(b'\n', &mut text) {
            Ok(0) => break Ok(content),
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
            content.records += 1;
            continue;
        }
        if length as u64 > LINE {
            break Err(anyhow!("line {number}: has more than {LINE} bytes: divide its scopes"));
        }
        progress.inc(length as u64);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // A second line of an id is seen before it is sent, so before anything of it is written.
        if let Err(error) = take(&text, number, &mut message, &mut repeated) {
            break Err(anyhow!("line {number}: {error}"));
        }
        content.items += 1;
        bytes += length;
        if message.companies.len() + message.credentials.len() == LINES || bytes >= BYTES {
            bytes = 0;
            if send.blocking_send(std::mem::take(&mut message)).is_err() {
                // The call has ended, and says why.
                return Ok(content);
            }
        }
    };
    // What stands before a wrong line is imported: it is not wrong. The terms go out in any case.
    send.blocking_send(message).ok();
    outcome
}

/// Understands a line.
fn take(
    text: &[u8],
    line: u64,
    message: &mut ImportCredentialsRequest,
    repeated: &mut Repeated,
) -> anyhow::Result<()> {
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
        let expires_at = expires_at.map(|text| time::exact(&text)).transpose();
        let expires_at = expires_at.map_err(|error| anyhow!("`expires_at`: {error}"))?;
        let (label, scopes) = (label.unwrap_or_default(), scopes.unwrap_or_default());
        let end =
            expires_at.map_or_else(String::new, |end| format!("{}.{}", end.seconds, end.nanos));
        let has = [expires_at.is_some().into(), enabled.unwrap_or(true).into()];
        let set = as_set(&scopes);
        let content = [&[label.as_bytes(), end.as_bytes(), &has][..], &set].concat();
        repeated.note(line, &[&company_id, &credential_id], &content)?;
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
    let name = display_name.as_deref().unwrap_or_default().as_bytes();
    let all = [scopes.is_none().into()];
    let set = as_set(scopes.as_deref().unwrap_or_default());
    repeated.note(line, &[&company_id], &[&[name, &all][..], &set].concat())?;
    let (display_name, scopes) =
        (display_name.unwrap_or_default(), scopes.map(|names| Scopes { names }));
    message.companies.push(ImportedCompany { company_id, display_name, scopes, line });
    Ok(())
}

/// Scopes as a set: their order and repetition say nothing.
fn as_set(scopes: &[String]) -> Vec<&[u8]> {
    let mut set: Vec<_> = scopes.iter().map(String::as_bytes).collect();
    set.sort_unstable();
    set.dedup();
    set
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

/// A sentence without the places of a message: the file's line is named.
fn in_the_file(sentence: &str) -> String {
    let mut text = sentence.to_owned();
    for list in ["credentials[", "companies["] {
        while let Some(start) = text.find(list) {
            let Some(end) = text.get(start..).and_then(|rest| rest.find(']')) else { break };
            let dot = text.get(start + end + 1..).is_some_and(|rest| rest.starts_with('.'));
            text.replace_range(start..start + end + 1 + usize::from(dot), "");
        }
    }
    // Of a whole line nothing is left.
    text.strip_prefix("``: ").map(str::to_owned).unwrap_or(text)
}

/// Why the server ended an import.
fn ended(status: &Status, dry_run: bool) -> anyhow::Error {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        let error = server_error(status);
        let text = format!("{error}; then import the whole file again: what exists is skipped");
        return failure::reworded(&error, text);
    };
    let told = |key: &str| info.metadata.get(key)?.parse::<u64>().ok();
    let count = |key: &str| told(key).unwrap_or_default();
    let done = ImportCredentialsResponse {
        created_company_count: count("created_company_count"),
        created_credential_count: count("created_credential_count"),
        skipped_count: count("skipped_count"),
        revision: count("revision"),
        differing_count: count("differing_count"),
        differing: vec![],
    };
    match told("line") {
        Some(line) => {
            let said = in_the_file(status.message());
            let text = format!("line {line}: {said}; {}", kept(&done, dry_run));
            failure::reworded(&server_error(status), text)
        }
        None => server_error(status),
    }
}
