//! Printer: writes a response to standard output, as a [`Report`] or as JSON.
//!
//! The JSON is the canonical protobuf JSON of the response message. Field names come from the
//! descriptors that reflection serves. Not here: which values a report has; the file of each command
//! builds its report.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, anyhow};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};

pub use super::cell::Cell;
use super::cell::escaped;
use super::output_format::OutputFormat;
pub use super::report::{Report, count};
pub use super::table::is_on_a_terminal;
use super::table::wrapped_line;
use super::undo_line::Undo;
use crate::policy::text;

/// The indent of the second and later lines of a response that is one wrapped line, in columns.
const CONTINUATION_INDENT: usize = 4;

/// Writes responses to standard output.
pub struct Printer {
    output: OutputFormat,
    messages: DescriptorPool,
    has_color: bool,
}

impl Printer {
    /// A printer for this format.
    ///
    /// # Errors
    /// The protobuf descriptors of this program cannot be decoded.
    pub fn new(output: OutputFormat) -> anyhow::Result<Self> {
        let messages = DescriptorPool::decode(crate::proto::DESCRIPTORS)?;
        Ok(Self { output, messages, has_color: has_color() })
    }

    /// Whether it writes tables, and not JSON.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        self.output == OutputFormat::Table
    }

    /// Writes the report, or the response as JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print<M: Message + Name>(&self, response: &M, report: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&report.text(self.has_color)),
            OutputFormat::Json => self.json(response, true),
        }
    }

    /// Writes text that is meant for a file, byte for byte, or the response as JSON. A terminal
    /// shows control characters escaped.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_text<M: Message + Name>(&self, response: &M, text: &str) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table if io::stdout().is_terminal() => {
                Ok(io::stdout().write_all(text::escaped_lines(text).as_bytes())?)
            }
            OutputFormat::Table => Ok(io::stdout().write_all(text.as_bytes())?),
            OutputFormat::Json => self.json(response, true),
        }
    }

    /// Writes one of many responses on a line of its own.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_line<M: Message + Name>(&self, response: &M, line: &str) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&wrapped_line(&escaped(line), CONTINUATION_INDENT)),
            OutputFormat::Json => self.json(response, false),
        }
    }

    /// Writes the report, or as JSON a value that is not a message of the API.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_value(&self, value: &impl Serialize, report: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&report.text(self.has_color)),
            OutputFormat::Json => write(&text::escaped_json(&serde_json::to_string_pretty(value)?)),
        }
    }

    /// Writes a report that is not the response: to standard output, or with `--output json` to
    /// standard error.
    ///
    /// # Errors
    /// The output is closed.
    pub fn print_stderr(&self, report: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&report.text(self.has_color)),
            OutputFormat::Json => Ok(writeln!(io::stderr(), "{}", report.text(false))?),
        }
    }

    /// Writes a response and the command that undoes its change. The command is one line, whatever
    /// the width of the terminal; in JSON it is the field `undo`, with its notes in `undoNotes`.
    ///
    /// # Errors
    /// The output is closed.
    pub fn print_undoable<M: Message + Name>(
        &self,
        response: &M,
        report: Report,
        undo: Option<Undo>,
    ) -> anyhow::Result<()> {
        let (line, notes) = undo.map(Undo::into_line).unwrap_or_default();
        if line.is_none() && notes.is_empty() {
            return self.print(response, report);
        }
        match self.output {
            OutputFormat::Table => {
                let report = match line {
                    Some(line) => report.verbatim(format!("undo  {line}")),
                    None => report,
                };
                let report = notes.into_iter().fold(report, Report::line);
                write(&report.text(self.has_color))
            }
            OutputFormat::Json => {
                let response =
                    Undoable { response: self.dynamic(response)?, undo: line, undo_notes: notes };
                write(&text::escaped_json(&serde_json::to_string_pretty(&response)?))
            }
        }
    }

    /// Writes the subject of a confirmation to standard error, whatever the format.
    ///
    /// # Errors
    /// Standard error is closed.
    pub fn show(&self, report: Report) -> anyhow::Result<()> {
        Ok(writeln!(io::stderr(), "{}", report.text(false))?)
    }

    fn dynamic<M: Message + Name>(&self, response: &M) -> anyhow::Result<DynamicMessage> {
        let name = M::full_name();
        let kind = self.messages.get_message_by_name(&name);
        let kind = kind.with_context(|| format!("the API has no message {name}"))?;
        Ok(DynamicMessage::decode(kind, response.encode_to_vec().as_slice())?)
    }

    fn json<M: Message + Name>(&self, response: &M, pretty: bool) -> anyhow::Result<()> {
        let message = self.dynamic(response)?;
        let options = with_defaults();
        let mut text = Vec::new();
        if pretty {
            message
                .serialize_with_options(&mut serde_json::Serializer::pretty(&mut text), &options)?;
        } else {
            message
                .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
        }
        let text = std::str::from_utf8(&text).map_err(|_| anyhow!("the JSON is not UTF-8"))?;
        write(&text::escaped_json(text))
    }
}

/// Options that write fields with their default value, too: a script that reads `.missingScopes`
/// finds a list.
fn with_defaults() -> SerializeOptions {
    SerializeOptions::new().skip_default_fields(false)
}

/// A response with the undo of its change.
#[derive(Serialize)]
struct Undoable {
    #[serde(flatten, serialize_with = "fields")]
    response: DynamicMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    #[serde(rename = "undoNotes")]
    undo_notes: Vec<String>,
}

fn fields<S: Serializer>(message: &DynamicMessage, to: S) -> Result<S::Ok, S::Error> {
    message.serialize_with_options(to, &with_defaults())
}

/// Writes a text in one call, so that the lines of two processes do not mix.
fn write(text: &str) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// Whether to use color: on a terminal, unless `NO_COLOR` (<https://no-color.org>) or `TERM=dumb`
/// is set.
fn has_color() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}
