//! Printer: an answer as people read it, or as programs do.
//!
//! For programs it is the answer's message in the JSON of the contract, whatever the message: the
//! names are read from its descriptors, as reflection shows them. Not here: what people are shown
//! of which message; each noun says that, as a [`Report`].

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, anyhow};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell as TableCell, Color, ContentArrangement, Table};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde::{Serialize, Serializer};

use super::layout::{GAP, Layout, wrapped};
use super::output_format::OutputFormat;
use super::time;
use super::undo::Undo;
use crate::policy::text;

/// Writes answers to standard output.
pub struct Printer {
    output: OutputFormat,
    messages: DescriptorPool,
    colours: bool,
}

impl Printer {
    /// A printer of this kind.
    ///
    /// # Errors
    /// This program was built with descriptors that cannot be read.
    pub fn new(output: OutputFormat) -> anyhow::Result<Self> {
        let messages = DescriptorPool::decode(crate::proto::DESCRIPTORS)?;
        Ok(Self { output, messages, colours: colours() })
    }

    /// Whether people read it.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        self.output == OutputFormat::Table
    }

    /// Writes an answer: the sheet for people, the message for programs.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print<M: Message + Name>(&self, answer: &M, sheet: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&sheet.text(self.colours)),
            OutputFormat::Json => self.json(answer, true),
        }
    }

    /// Writes an answer whose text is kept in a file, to the byte. On a terminal a person reads it,
    /// and sees every character of it.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print_text<M: Message + Name>(&self, answer: &M, text: &str) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table if io::stdout().is_terminal() => {
                Ok(io::stdout().write_all(text::escaped_lines(text).as_bytes())?)
            }
            OutputFormat::Table => Ok(io::stdout().write_all(text.as_bytes())?),
            OutputFormat::Json => self.json(answer, true),
        }
    }

    /// Writes one of many answers on a line of its own.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print_line<M: Message + Name>(&self, answer: &M, line: &str) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&in_lines(&plain(line), CONTINUED)),
            OutputFormat::Json => self.json(answer, false),
        }
    }

    /// Writes what is no message of the contract.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print_value(&self, answer: &impl Serialize, sheet: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&sheet.text(self.colours)),
            OutputFormat::Json => {
                write(&text::escaped_json(&serde_json::to_string_pretty(answer)?))
            }
        }
    }

    /// Writes a sheet where it is in nobody's way: to standard error if programs read the output.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn print_stderr(&self, sheet: Report) -> anyhow::Result<()> {
        match self.output {
            OutputFormat::Table => write(&sheet.text(self.colours)),
            OutputFormat::Json => Ok(writeln!(io::stderr(), "{}", sheet.text(false))?),
        }
    }

    /// Writes an answer and how its change is undone, on one line whatever the terminal's width;
    /// for programs as the field `undo`, beside `undoNotes`.
    ///
    /// # Errors
    /// The output is closed.
    pub fn print_undoable<M: Message + Name>(
        &self,
        answer: &M,
        sheet: Report,
        undo: Option<Undo>,
    ) -> anyhow::Result<()> {
        let (line, notes) = undo.map(Undo::shown).unwrap_or_default();
        if line.is_none() && notes.is_empty() {
            return self.print(answer, sheet);
        }
        match self.output {
            OutputFormat::Table => {
                let line = line.map(|line| Part::Verbatim(format!("undo  {line}")));
                let sheet = sheet.then(Report(line.into_iter().collect()));
                let sheet = notes.into_iter().fold(sheet, Report::line);
                write(&sheet.text(self.colours))
            }
            OutputFormat::Json => {
                let answer =
                    Undoable { answer: self.dynamic(answer)?, undo: line, undo_notes: notes };
                write(&text::escaped_json(&serde_json::to_string_pretty(&answer)?))
            }
        }
    }

    /// Writes a sheet to standard error: what a question is about, beside any answer.
    ///
    /// # Errors
    /// The output is closed.
    pub fn show(&self, sheet: Report) -> anyhow::Result<()> {
        Ok(writeln!(io::stderr(), "{}", sheet.text(false))?)
    }

    fn dynamic<M: Message + Name>(&self, answer: &M) -> anyhow::Result<DynamicMessage> {
        let name = M::full_name();
        let kind = self.messages.get_message_by_name(&name);
        let kind = kind.with_context(|| format!("the contract has no message {name}"))?;
        Ok(DynamicMessage::decode(kind, answer.encode_to_vec().as_slice())?)
    }

    fn json<M: Message + Name>(&self, answer: &M, pretty: bool) -> anyhow::Result<()> {
        let message = self.dynamic(answer)?;
        // What is absent from a message is not absent from a program's view of it: a script that
        // reads `.missingScopes` finds a list.
        let options = whole();
        let mut text = Vec::new();
        if pretty {
            message
                .serialize_with_options(&mut serde_json::Serializer::pretty(&mut text), &options)?;
        } else {
            message
                .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
        }
        let text = std::str::from_utf8(&text).map_err(|_| anyhow!("JSON is text"))?;
        write(&text::escaped_json(text))
    }
}

/// Options by which what is absent from a message is not absent from its JSON.
fn whole() -> SerializeOptions {
    SerializeOptions::new().skip_default_fields(false)
}

/// An answer with one field more.
#[derive(Serialize)]
struct Undoable {
    #[serde(flatten, serialize_with = "fields")]
    answer: DynamicMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    #[serde(rename = "undoNotes")]
    undo_notes: Vec<String>,
}

fn fields<S: Serializer>(message: &DynamicMessage, to: S) -> Result<S::Ok, S::Error> {
    message.serialize_with_options(to, &whole())
}

/// One write, so that lines of two processes do not mix.
fn write(text: &str) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// Colours are for a terminal whose owner did not ask for none (<https://no-color.org>).
fn colours() -> bool {
    let unwanted = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !unwanted("NO_COLOR") && !dumb
}

/// Text that a terminal only shows: a credential's label does not steer the operator's screen, and
/// is shown as it is stored.
fn plain(text: &str) -> String {
    text::escaped(text).into_owned()
}

/// So many of something, in words.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// How words are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Good,
    Bad,
}

/// Words of a sheet.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The text.
    pub(super) text: String,
    mood: Style,
    /// Whether it is a list that a table of a terminal may cut.
    pub(super) is_list: bool,
}

impl Cell {
    /// Words of good news if so, else of bad.
    pub fn colored(good: bool, text: impl Into<String>) -> Self {
        let mood = if good { Style::Good } else { Style::Bad };
        Self { text: text.into(), mood, is_list: false }
    }

    /// Names in a table. On a terminal many are cut, and how many more there are stands instead:
    /// only where another command shows all.
    #[must_use]
    pub fn list(names: &[String]) -> Self {
        Self { text: names.join(" "), mood: Style::Plain, is_list: true }
    }

    /// Whether something is in use.
    #[must_use]
    pub fn enabled(enabled: bool) -> Self {
        match enabled {
            true => "enabled".into(),
            false => Self::colored(false, "disabled"),
        }
    }

    /// Whether something is in use: by whether it is enabled, and by whether its time is over.
    #[must_use]
    pub fn state(enabled: bool, expired: bool) -> Self {
        match (enabled, expired) {
            (true, true) => Self::colored(false, "expired"),
            // When it ended is beside it.
            (enabled, _) => Self::enabled(enabled),
        }
    }

    /// When something ends; in red, and with how long ago that was, if it is over.
    #[must_use]
    pub fn end(time: Option<&Timestamp>, is_over: bool) -> Self {
        let text = time::text(time);
        match (is_over, time::since(time)) {
            (false, _) => text.into(),
            (true, since) if since.is_empty() => Self::colored(false, format!("{text} (over)")),
            (true, since) => Self::colored(false, format!("{text} ({since})")),
        }
    }

    /// As [`Self::end`], short enough for a column of a list: how long ago, if it is over.
    #[must_use]
    pub fn end_short(time: Option<&Timestamp>, is_over: bool) -> Self {
        match (is_over, time::since(time)) {
            (true, since) if !since.is_empty() => Self::colored(false, since),
            (true, _) => Self::colored(false, time::text(time)),
            (false, _) => time::text(time).into(),
        }
    }

    /// What is shown of them.
    fn plain(self) -> Self {
        Self { text: plain(&self.text), ..self }
    }

    /// Of plain text, in which a line break is one.
    fn cell(&self, colours: bool) -> TableCell {
        let cell = TableCell::new(&self.text);
        match self.mood {
            Style::Good if colours => cell.fg(Color::Green),
            Style::Bad if colours => cell.fg(Color::Red),
            _ => cell,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, mood: Style::Plain, is_list: false }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

/// What people are shown: parts, one below the other.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Line(String),
    /// A line as it is, which is never broken.
    Verbatim(String),
    Facts(Vec<(&'static str, Cell)>),
    Rows(&'static [&'static str], Vec<Vec<Cell>>),
    /// Rows whose last column may be left out.
    Titled(&'static [&'static str], Vec<Vec<Cell>>),
    /// Rows, each with lines below it.
    Detailed(&'static [&'static str], Vec<Vec<Cell>>, Vec<Vec<String>>),
}

impl Report {
    /// Adds a line.
    #[must_use]
    pub fn line(mut self, text: impl Into<String>) -> Self {
        self.0.push(Part::Line(text.into()));
        self
    }

    /// Adds a named value; an empty one is left out.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<Cell>) -> Self {
        let value = value.into();
        if value.text.is_empty() {
            return self;
        }
        if let Some(Part::Facts(facts)) = self.0.last_mut() {
            facts.push((name, value));
        } else {
            self.0.push(Part::Facts(vec![(name, value)]));
        }
        self
    }

    /// Adds a revision, if there is one: what a dry run shows has none.
    #[must_use]
    pub fn revision(self, revision: u64) -> Self {
        match revision {
            0 => self,
            revision => self.fact("revision", revision),
        }
    }

    /// Adds rows whose last column is left out where it is empty, and on a terminal where the rows
    /// would not fit.
    #[must_use]
    pub fn titled<const N: usize>(
        mut self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
    ) -> Self {
        let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
        if !rows.is_empty() {
            self.0.push(Part::Titled(head, rows));
        }
        self
    }

    /// Adds rows under a head; none of either if there are no rows.
    #[must_use]
    pub fn rows<const N: usize>(
        mut self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
    ) -> Self {
        let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
        if !rows.is_empty() {
            self.0.push(Part::Rows(head, rows));
        }
        self
    }

    /// Adds rows under a head, each with lines below it: what is of any length is there, and breaks
    /// no column.
    #[must_use]
    pub fn rows_with<const N: usize>(
        mut self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
        below: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
        if !rows.is_empty() {
            self.0.push(Part::Detailed(head, rows, below.into_iter().collect()));
        }
        self
    }

    /// Whether there is nothing on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the parts of another sheet.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        let mut parts = other.0.into_iter().peekable();
        // Values one below the other stand in one column.
        if let Some(Part::Facts(facts)) = self.0.last_mut()
            && let Some(Part::Facts(more)) = parts.next_if(|part| matches!(part, Part::Facts(_)))
        {
            facts.extend(more);
        }
        self.0.extend(parts);
        self
    }

    fn text(self, colours: bool) -> String {
        let mut text = String::new();
        for part in self.0 {
            let rows = matches!(part, Part::Rows(..) | Part::Titled(..) | Part::Detailed(..));
            let part = part.text(colours);
            if !text.is_empty() {
                // A head begins a part that can be read alone.
                text.push_str(if rows { "\n\n" } else { "\n" });
            }
            text.push_str(&part);
        }
        text
    }
}

impl Part {
    fn text(self, colours: bool) -> String {
        match self {
            Self::Verbatim(text) => text,
            Self::Line(text) => {
                let lines = text.lines().map(|line| in_lines(&plain(line), 0));
                lines.collect::<Vec<_>>().join("\n")
            }
            Self::Facts(facts) => {
                let name = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                let room = width().map(|width| width.saturating_sub(name + GAP).max(LEAST));
                let mut table = table();
                for (name, value) in facts {
                    let mut value = value.plain();
                    if let Some(room) = room {
                        value.text = wrapped(&value.text, room, 0).join("\n");
                    }
                    table.add_row([TableCell::new(name), value.cell(colours)]);
                }
                lines(table).join("\n")
            }
            Self::Rows(head, rows) => table_of(head, rows, vec![], false, colours),
            Self::Titled(head, rows) => table_of(head, rows, vec![], true, colours),
            Self::Detailed(head, rows, below) => table_of(head, rows, below, false, colours),
        }
    }
}

fn table_of(
    head: &[&'static str],
    rows: Vec<Vec<Cell>>,
    below: Vec<Vec<String>>,
    titled: bool,
    colours: bool,
) -> String {
    let rows = rows.into_iter().map(|row| row.into_iter().map(Cell::plain).collect());
    let below = below.iter().map(|lines| lines.iter().map(|line| plain(line)).collect());
    let layout = Layout::of(head, rows.collect(), below.collect());
    let layout = if titled { layout.without_title(width()) } else { layout };
    let Layout { head, rows, below, .. } = match width() {
        Some(width) => layout.fitted(width),
        None => layout,
    };
    let mut table = table();
    let title = |title: &&str| {
        let cell = TableCell::new(title);
        if colours { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    table.set_header(head.iter().map(title));
    let mut heights = Vec::new();
    for row in rows {
        heights.push(row.iter().map(|cell| cell.text.split('\n').count()).max().unwrap_or(1));
        // Never empty: a column stays a column for who cuts them.
        let full = |words: Cell| match words.text.is_empty() {
            true => "-".into(),
            false => words,
        };
        table.add_row(row.into_iter().map(|words| full(words).cell(colours)));
    }
    let mut lines = lines(table).into_iter();
    let mut all: Vec<_> = lines.next().into_iter().collect();
    let mut below = below.into_iter();
    for height in heights {
        all.extend(lines.by_ref().take(height));
        all.extend(below.next().into_iter().flatten());
    }
    all.join("\n")
}

/// How far a line of an answer is indented that goes on.
const CONTINUED: usize = 4;
/// No value is shown in less than this.
const LEAST: usize = 20;

/// A line as it is; on a terminal in as many lines as it takes, of whole words.
fn in_lines(text: &str, indent: usize) -> String {
    match width() {
        Some(width) => wrapped(text, width.max(LEAST), indent).join("\n"),
        None => text.to_owned(),
    }
}

/// Whether a person reads it on a terminal, which has a width.
#[must_use]
pub fn is_on_a_terminal() -> bool {
    width().is_some()
}

/// How wide the terminal is, if it is one and says so: some that programs make say 0.
fn width() -> Option<usize> {
    table().width().map(usize::from).filter(|width| *width > 0)
}

/// As wide as it needs to be: its cells are in lines already.
fn table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn lines(mut table: Table) -> Vec<String> {
    table.style_text_only();
    for column in table.column_iter_mut() {
        column.set_padding((0, u16::try_from(GAP).unwrap_or(2)));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_steers_no_screen() {
        let sheet = Report::default().fact("label", "a\u{1b}[2Jb\nc").line("\u{7}d\ne\u{202e}");
        assert_eq!(sheet.text(false), "label  a\\u{1b}[2Jb\\nc\n\\u{7}d\ne\\u{202e}");
    }

    #[test]
    fn a_column_stays_a_column() {
        let rows = [["a".into(), "".into(), 3_u64.into()], ["bb".into(), "x y".into(), "".into()]];
        let sheet = Report::default().rows(&["ID", "NAME", "N"], rows);
        assert_eq!(sheet.text(false), "ID  NAME  N\na   -     3\nbb  x y   -");
    }
}
