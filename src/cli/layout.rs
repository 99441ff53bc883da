//! Layout: fits the rows of a table into the width of a terminal.
//!
//! INVARIANT (whole words): text is wrapped at spaces only, so that an id, a time or a scope can be
//! copied in one piece. A value that does not fit in its column moves to a line of its own below its
//! row. Not here: output to a file or a pipe, where a row is one line and has all columns.

use std::borrow::Cow;

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};
use unicode_width::UnicodeWidthStr;

use super::cell::Cell;

/// The space between two columns.
pub(super) const GAP: usize = 2;
/// Text up to this width, such as a time, is not wrapped. No column is made narrower than this to wrap
/// its text.
const MIN_WRAP: usize = 20;
/// Words above this width move below their row first. A UUID is shorter.
const OUTLIER: usize = 40;
/// The maximum lines of a cell. A taller cell moves below its row.
const MAX_LINES: usize = 3;
/// The indent of a line below a row.
const INDENT: usize = 4;

/// The cells of a table as they are shown. Their text may have line breaks.
pub(super) struct Layout {
    /// The names of the columns.
    pub head: Vec<&'static str>,
    /// For each column its index in the original table.
    indices: Vec<usize>,
    /// The rows, with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// The indented lines below each row.
    pub below: Vec<Vec<String>>,
    /// For each row the lines that moved below it, with the index of their column.
    moved: Vec<Vec<(usize, String)>>,
}

impl Layout {
    /// A table, with lines below its rows.
    pub(super) fn of(
        head: &[&'static str],
        rows: Vec<Vec<Cell>>,
        mut below: Vec<Vec<String>>,
    ) -> Self {
        below.resize(rows.len(), Vec::new());
        let moved = vec![Vec::new(); rows.len()];
        Self { head: head.to_vec(), indices: (0..head.len()).collect(), rows, below, moved }
    }

    /// Removes the last column if it is empty, or if the table does not fit in this width with it.
    pub(super) fn without_title(mut self, width: Option<usize>) -> Self {
        let last = self.head.len().saturating_sub(1);
        let is_empty = |row: &Vec<Cell>| row.get(last).is_none_or(|cell| cell.text.is_empty());
        let fits = width.is_none_or(|width| total(&self.min_widths()) <= width);
        if !fits || self.rows.iter().all(is_empty) {
            self.remove(last);
        }
        self
    }

    /// Fits the rows into this width.
    pub(super) fn fitted(mut self, width: usize) -> Self {
        if total(&self.widths()) > width {
            self.wrap_cells(width);
        }
        for (lines, mut moved) in self.below.iter_mut().zip(std::mem::take(&mut self.moved)) {
            // In the order of the columns.
            moved.sort_by_key(|(column, _)| *column);
            lines.splice(..0, moved.into_iter().map(|(_, line)| line));
            wrap_below(lines, width);
        }
        self
    }

    fn wrap_cells(&mut self, width: usize) {
        for column in (0..self.head.len()).rev() {
            self.move_outliers(column, width);
        }
        // The first column identifies the row and stays. Of the others the widest moves below.
        while total(&self.min_widths()) > width {
            let columns = 1..self.head.len();
            let longer = |column: &usize| self.widest(*column) > name_length(&self.head, *column);
            // Among columns up to MIN_WRAP, the last.
            match columns.filter(longer).max_by_key(|column| self.widest(*column).max(MIN_WRAP)) {
                Some(column) => self.move_below(column),
                None => break,
            }
        }
        let mut widths = self.shared_widths(width);
        for column in (1..self.head.len()).rev() {
            let available = widths.get(column).copied().unwrap_or(usize::MAX);
            if self.move_cells(column, |text| wrapped(text, available, 0).len() > MAX_LINES) {
                widths = self.shared_widths(width);
            }
        }
        for row in &mut self.rows {
            for (cell, width) in row.iter_mut().zip(&widths) {
                cell.text = wrapped(&cell.text, *width, 0).join("\n");
            }
        }
    }

    fn widest(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| length(&cell.text)).max().unwrap_or(0)
    }

    /// The widths of the columns without wrapping.
    fn widths(&self) -> Vec<usize> {
        let columns = 0..self.head.len();
        columns.map(|column| self.widest(column).max(name_length(&self.head, column))).collect()
    }

    /// The minimum widths of the columns.
    fn min_widths(&self) -> Vec<usize> {
        let widths = self.widths().into_iter().enumerate();
        let minimum = widths.map(|(column, width)| {
            let words = self.rows.iter().filter_map(|row| row.get(column));
            let words = words.map(|cell| longest_word(&cell.text)).max().unwrap_or(0);
            width.min(MIN_WRAP).max(words)
        });
        minimum.collect()
    }

    /// The widths of the columns in this total width. Columns that are wrapped share the remaining width.
    fn shared_widths(&self, width: usize) -> Vec<usize> {
        let (natural, mut shares) = (self.widths(), self.min_widths());
        let mut remaining = width.saturating_sub(total(&shares));
        let mut columns: Vec<_> = natural.iter().zip(&mut shares).collect();
        columns.sort_by_key(|(natural, share)| natural.saturating_sub(**share));
        let mut count = columns.len();
        for (natural, share) in columns {
            let more = natural.saturating_sub(*share).min(remaining / count.max(1));
            *share += more;
            remaining -= more;
            count -= 1;
        }
        shares
    }

    /// Moves cells with very long words below their rows, if the table does not fit.
    fn move_outliers(&mut self, column: usize, width: usize) {
        if total(&self.min_widths()) <= width {
            return;
        }
        // The first column may be wider.
        let longest = if column == 0 { OUTLIER.max(width * 2 / 3) } else { OUTLIER };
        self.move_cells(column, |text| longest_word(text) > longest);
    }

    /// Moves the cells of a column that match below their rows. Removes the column if it is empty then.
    /// False if no cell matches.
    fn move_cells(&mut self, column: usize, matches: impl Fn(&str) -> bool) -> bool {
        let (name, index, mut moved) =
            (label(&self.head, column), self.original_index(column), false);
        for (row, below) in self.rows.iter_mut().zip(&mut self.moved) {
            if let Some(cell) = row.get_mut(column).filter(|cell| matches(&cell.text)) {
                let cell = std::mem::replace(cell, MOVED.into());
                below.push((index, line_below(&name, &cell)));
                moved = true;
            }
        }
        let is_empty = |row: &Vec<Cell>| row.get(column).is_none_or(|cell| is_blank(&cell.text));
        if moved && column > 0 && self.rows.iter().all(is_empty) {
            self.remove(column);
        }
        moved
    }

    /// Moves a column below the rows.
    fn move_below(&mut self, column: usize) {
        let (name, index) = (label(&self.head, column), self.original_index(column));
        for (row, below) in self.rows.iter().zip(&mut self.moved) {
            let cell = row.get(column).filter(|cell| !is_blank(&cell.text));
            if let Some(cell) = cell {
                below.push((index, line_below(&name, cell)));
            }
        }
        self.remove(column);
    }

    fn original_index(&self, column: usize) -> usize {
        self.indices.get(column).copied().unwrap_or(column)
    }

    fn remove(&mut self, column: usize) {
        if column < self.head.len() {
            self.head.remove(column);
            self.indices.remove(column);
        }
        for row in &mut self.rows {
            if column < row.len() {
                row.remove(column);
            }
        }
    }
}

/// The text in a cell whose value moved below the row.
const MOVED: &str = "…";

fn is_blank(text: &str) -> bool {
    ["", "-", MOVED].contains(&text)
}

/// The total width of columns and the gaps between them.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP
}

fn name_length(head: &[&str], column: usize) -> usize {
    head.get(column).map_or(0, |name| name.len())
}

fn label(head: &[&str], column: usize) -> String {
    head.get(column).map(|name| name.to_ascii_lowercase()).unwrap_or_default()
}

/// The line below a row for a cell. A list is marked, because [`wrap_below`] may cut it.
fn line_below(name: &str, cell: &Cell) -> String {
    let mark = if cell.is_list { LIST } else { "" };
    format!("{mark}{name}: {}", cell.text)
}

/// The mark of a list. Escaped text never has this character.
const LIST: &str = "\u{0}";

fn wrap_below(lines: &mut Vec<String>, width: usize) {
    let indent = " ".repeat(INDENT);
    let available = width.max(2 * MIN_WRAP) - INDENT;
    let all = lines.iter().flat_map(|line| match line.strip_prefix(LIST) {
        Some(list) => list_in(list, available),
        None => wrapped(line, available, 0),
    });
    *lines = all.map(|line| format!("{indent}{line}")).collect();
}

/// A list in at most [`MAX_LINES`] lines, with the number of entries that were cut.
fn list_in(list: &str, available: usize) -> Vec<String> {
    let mut lines = wrapped(list, available, 0);
    if lines.len() <= MAX_LINES {
        return lines;
    }
    let words = |lines: &[String]| lines.iter().map(|line| line.split(' ').count()).sum::<usize>();
    let mut more = words(&lines) - words(lines.get(..MAX_LINES).unwrap_or(&lines));
    lines.truncate(MAX_LINES);
    if let Some(last) = lines.last_mut() {
        while length(last) + format!(" +{more} more").len() > available
            && let Some((kept, _)) = last.rsplit_once(' ')
        {
            last.truncate(kept.len());
            more += 1;
        }
        last.push_str(&format!(" +{more} more"));
    }
    lines
}

/// The width of text on a terminal, in columns.
fn length(text: &str) -> usize {
    text.width()
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(length).max().unwrap_or(0)
}

/// Wraps text into lines of this width, all but the first indented. A wider word has its own line.
pub(super) fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent);
    let options = Options::new(width)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(head: &[&'static str], rows: &[&[&str]], width: usize) -> String {
        let rows = rows.iter().map(|row| row.iter().map(|cell| (*cell).into()).collect());
        let Layout { head, rows, below, .. } =
            Layout::of(head, rows.collect(), vec![]).fitted(width);
        let mut text = head.join("|");
        for (row, below) in rows.iter().zip(below) {
            let cells: Vec<_> = row.iter().map(|cell| cell.text.replace('\n', "/")).collect();
            text.push_str(&format!("\n{}", cells.join("|")));
            below.iter().for_each(|line| text.push_str(&format!("\n{line}")));
        }
        text
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("a bb ccc", 4, 0), ["a bb", "ccc"]);
        assert_eq!(wrapped("研修 用", 6, 0), ["研修", "用"]);
        assert_eq!(wrapped("a bbbbbb c", 4, 1), ["a", " bbbbbb", " c"]);
        assert_eq!(
            list_in("a: bb cc dd ee ff gg hh ii jj", 12).join("/"),
            "a: bb cc dd/ee ff gg hh/ii jj"
        );
        let many = ["a:"].into_iter().chain(std::iter::repeat_n("bbbbb", 20)).collect::<Vec<_>>();
        let lines = list_in(&many.join(" "), 20);
        assert_eq!(lines, ["a: bbbbb bbbbb bbbbb", "bbbbb bbbbb bbbbb", "bbbbb bbbbb +12 more"]);
    }

    #[test]
    fn column_that_does_not_fit_moves_below_the_row() {
        let head = &["ID", "NAME", "S"];
        let words = "some words that are long";
        let rows: &[&[&str]] = &[&["id", words, "x:y"]];
        assert_eq!(laid_out(head, rows, 80), format!("ID|NAME|S\nid|{words}|x:y"));
        assert_eq!(laid_out(head, rows, 29), "ID|NAME|S\nid|some words that are/long|x:y");
        assert_eq!(laid_out(head, rows, 28), format!("ID|S\nid|x:y\n    name: {words}"));
        let long = "w".repeat(50);
        let rows: &[&[&str]] = &[&["id", &long, "x:y"], &["id", "b", "-"]];
        let below = format!("ID|NAME|S\nid|…|x:y\n    name:\n    {long}\nid|b|-");
        assert_eq!(laid_out(head, rows, 30), below);
        let rows: &[&[&str]] = &[&[&long, words, "x:y"], &["id", words, "-"]];
        let below = format!("ID|NAME|S\n…|{words}|x:y\n    id:\n    {long}\nid|{words}|-");
        assert_eq!(laid_out(head, rows, 40), below);
    }
}
