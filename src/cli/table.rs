//! Table: cells in columns as text, in the width of the terminal if there is one.
//!
//! Not here: how rows are fitted into a width; see [`super::layout`].

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell as TableCell, ContentArrangement, Table};

use super::cell::{Cell, escaped};
use super::layout::{GAP, Layout, wrapped};

/// The minimum width of a value, in columns of the terminal.
const MIN_WIDTH: usize = 20;

/// The rows of a table.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// The names of the columns.
    pub head: &'static [&'static str],
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// Lines below each row; rows beyond its length have none.
    pub below: Vec<Vec<String>>,
    /// Whether the last column is left out if it is empty or does not fit.
    pub may_drop_last: bool,
}

impl Rows {
    /// The text of the table.
    pub(super) fn text(self, has_color: bool) -> String {
        let rows = self.rows.into_iter().map(|row| row.into_iter().map(Cell::escaped).collect());
        let below = self.below.iter().map(|lines| lines.iter().map(|line| escaped(line)).collect());
        let layout = Layout::of(self.head, rows.collect(), below.collect());
        let layout = if self.may_drop_last { layout.without_title(width()) } else { layout };
        let Layout { head, rows, below, .. } = match width() {
            Some(width) => layout.fitted(width),
            None => layout,
        };
        let mut table = table();
        let title = |title: &&str| {
            let cell = TableCell::new(title);
            if has_color { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(head.iter().map(title));
        let mut heights = Vec::new();
        for row in rows {
            heights.push(row.iter().map(|cell| cell.text.split('\n').count()).max().unwrap_or(1));
            // No cell is empty, so that `cut` and `awk` find every column.
            let full = |cell: Cell| match cell.text.is_empty() {
                true => "-".into(),
                false => cell,
            };
            table.add_row(row.into_iter().map(|cell| full(cell).into_table_cell(has_color)));
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
}

/// Named values, one a line.
pub(super) fn facts(facts: Vec<(&'static str, Cell)>, has_color: bool) -> String {
    let name = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let available = width().map(|width| width.saturating_sub(name + GAP).max(MIN_WIDTH));
    let mut table = table();
    for (name, value) in facts {
        let mut value = value.escaped();
        if let Some(available) = available {
            value.text = wrapped(&value.text, available, 0).join("\n");
        }
        table.add_row([TableCell::new(name), value.into_table_cell(has_color)]);
    }
    lines(table).join("\n")
}

/// A line; on a terminal wrapped between words, with all but its first line indented.
pub(super) fn wrapped_line(text: &str, indent: usize) -> String {
    match width() {
        Some(width) => wrapped(text, width.max(MIN_WIDTH), indent).join("\n"),
        None => text.to_owned(),
    }
}

/// Whether standard output is a terminal with a known width.
#[must_use]
pub fn is_on_a_terminal() -> bool {
    width().is_some()
}

/// The width of the terminal. Some pseudo-terminals report 0, which counts as unknown.
fn width() -> Option<usize> {
    table().width().map(usize::from).filter(|width| *width > 0)
}

/// A table that does not arrange its content: [`Layout`] has wrapped the cells already.
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
