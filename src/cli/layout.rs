//! Layout: how rows and values are fitted into the width of a terminal.
//!
//! INVARIANT (whole words): text is divided at spaces only, so that an id, a time or a scope is read
//! and copied in one piece. What has no room in its column stands on a line of its own below its
//! row. Not here: output that is no terminal, where a row is one line and nothing is left out.

use unicode_width::UnicodeWidthStr;

use super::cell::Cell;

/// Between two columns.
pub(super) const GAP: usize = 2;
/// What is no longer than this, such as a time, is not divided at all; nor is anything divided into
/// shorter lines.
const WHOLE: usize = 20;
/// A longer word than this stands on a line of its own before anything else does: a UUID does not.
const OUTLIER: usize = 40;
/// In more lines than this a cell is not read with the others of its row.
const TALL: usize = 3;
/// How far a line below a row is indented.
const INDENT: usize = 4;

/// A table as it is shown: plain text, with line breaks in it.
pub(super) struct Layout {
    /// The names of columns.
    pub head: Vec<&'static str>,
    /// Which column of the table each of them is.
    places: Vec<usize>,
    /// A cell for each of them.
    pub rows: Vec<Vec<Cell>>,
    /// The lines below each row, which are indented.
    pub below: Vec<Vec<String>>,
    /// What was moved there, by the column that it was in.
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
        Self { head: head.to_vec(), places: (0..head.len()).collect(), rows, below, moved }
    }

    /// Leaves the last column out if it is empty, or would have no room in this width.
    pub(super) fn without_title(mut self, width: Option<usize>) -> Self {
        let last = self.head.len().saturating_sub(1);
        let is_empty = |row: &Vec<Cell>| row.get(last).is_none_or(|cell| cell.text.is_empty());
        let fits = width.is_none_or(|width| sum(&self.least()) <= width);
        if !fits || self.rows.iter().all(is_empty) {
            self.remove(last);
        }
        self
    }

    /// Fits the rows into this width.
    pub(super) fn fitted(mut self, width: usize) -> Self {
        if sum(&self.widths()) > width {
            self.divide(width);
        }
        for (lines, mut moved) in self.below.iter_mut().zip(std::mem::take(&mut self.moved)) {
            // As they stood beside each other.
            moved.sort_by_key(|(column, _)| *column);
            lines.splice(..0, moved.into_iter().map(|(_, line)| line));
            wrap_below(lines, width);
        }
        self
    }

    fn divide(&mut self, width: usize) {
        for column in (0..self.head.len()).rev() {
            self.move_outliers(column, width);
        }
        // What is named first is what the row is about: it stays where it is. Of the others the
        // longest goes.
        while sum(&self.least()) > width {
            let columns = 1..self.head.len();
            let longer = |column: &usize| self.widest(*column) > name_length(&self.head, *column);
            // Of those that are short, the last.
            match columns.filter(longer).max_by_key(|column| self.widest(*column).max(WHOLE)) {
                Some(column) => self.move_below(column),
                None => break,
            }
        }
        let mut widths = self.shares(width);
        for column in (1..self.head.len()).rev() {
            let room = widths.get(column).copied().unwrap_or(usize::MAX);
            if self.move_cells(column, |text| wrapped(text, room, 0).len() > TALL) {
                widths = self.shares(width);
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

    /// How wide the columns are if no cell is divided.
    fn widths(&self) -> Vec<usize> {
        let columns = 0..self.head.len();
        columns.map(|column| self.widest(column).max(name_length(&self.head, column))).collect()
    }

    /// How wide they are at least.
    fn least(&self) -> Vec<usize> {
        let widths = self.widths().into_iter().enumerate();
        let least = widths.map(|(column, width)| {
            let words = self.rows.iter().filter_map(|row| row.get(column));
            let words = words.map(|cell| longest_word(&cell.text)).max().unwrap_or(0);
            width.min(WHOLE).max(words)
        });
        least.collect()
    }

    /// How wide they are in this width: what is left is for those that are divided.
    fn shares(&self, width: usize) -> Vec<usize> {
        let (wanted, mut shares) = (self.widths(), self.least());
        let mut left = width.saturating_sub(sum(&shares));
        let mut columns: Vec<_> = wanted.iter().zip(&mut shares).collect();
        columns.sort_by_key(|(wanted, share)| wanted.saturating_sub(**share));
        let mut count = columns.len();
        for (wanted, share) in columns {
            let more = wanted.saturating_sub(*share).min(left / count.max(1));
            *share += more;
            left -= more;
            count -= 1;
        }
        shares
    }

    /// Moves the cells below whose words are longer than others, if they do not fit.
    fn move_outliers(&mut self, column: usize, width: usize) {
        if sum(&self.least()) <= width {
            return;
        }
        // The first has the more room.
        let longest = if column == 0 { OUTLIER.max(width * 2 / 3) } else { OUTLIER };
        self.move_cells(column, |text| longest_word(text) > longest);
    }

    /// Moves such cells of a column below, and the column if nothing is left in it. False if there
    /// are none.
    fn move_cells(&mut self, column: usize, is_such: impl Fn(&str) -> bool) -> bool {
        let (name, place, mut moved) = (label(&self.head, column), self.place(column), false);
        for (row, below) in self.rows.iter_mut().zip(&mut self.moved) {
            if let Some(cell) = row.get_mut(column).filter(|cell| is_such(&cell.text)) {
                let cell = std::mem::replace(cell, MOVED.into());
                below.push((place, line_below(&name, &cell)));
                moved = true;
            }
        }
        let is_gone = |row: &Vec<Cell>| row.get(column).is_none_or(|cell| is_nothing(&cell.text));
        if moved && column > 0 && self.rows.iter().all(is_gone) {
            self.remove(column);
        }
        moved
    }

    /// Moves a column below.
    fn move_below(&mut self, column: usize) {
        let (name, place) = (label(&self.head, column), self.place(column));
        for (row, below) in self.rows.iter().zip(&mut self.moved) {
            let cell = row.get(column).filter(|cell| !is_nothing(&cell.text));
            if let Some(cell) = cell {
                below.push((place, line_below(&name, cell)));
            }
        }
        self.remove(column);
    }

    fn place(&self, column: usize) -> usize {
        self.places.get(column).copied().unwrap_or(column)
    }

    fn remove(&mut self, column: usize) {
        if column < self.head.len() {
            self.head.remove(column);
            self.places.remove(column);
        }
        for row in &mut self.rows {
            if column < row.len() {
                row.remove(column);
            }
        }
    }
}

/// What stands in the place of a cell that stands below.
const MOVED: &str = "…";

fn is_nothing(text: &str) -> bool {
    ["", "-", MOVED].contains(&text)
}

/// How wide columns are together.
fn sum(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP
}

fn name_length(head: &[&str], column: usize) -> usize {
    head.get(column).map_or(0, |name| name.len())
}

fn label(head: &[&str], column: usize) -> String {
    head.get(column).map(|name| name.to_ascii_lowercase()).unwrap_or_default()
}

/// A list is marked, and may be cut; see [`wrap_below`].
fn line_below(name: &str, cell: &Cell) -> String {
    let mark = if cell.is_list { LIST } else { "" };
    format!("{mark}{name}: {}", cell.text)
}

/// What a line below begins with if it is a list: no text has it, for it is no plain character.
const LIST: &str = "\u{0}";

fn wrap_below(lines: &mut Vec<String>, width: usize) {
    let indent = " ".repeat(INDENT);
    let room = width.max(2 * WHOLE) - INDENT;
    let all = lines.iter().flat_map(|line| match line.strip_prefix(LIST) {
        Some(list) => list_in(list, room),
        None => wrapped(line, room, 0),
    });
    *lines = all.map(|line| format!("{indent}{line}")).collect();
}

/// A list in few lines; how many more there are, if it has more.
fn list_in(list: &str, room: usize) -> Vec<String> {
    let mut lines = wrapped(list, room, 0);
    if lines.len() <= TALL {
        return lines;
    }
    let words = |lines: &[String]| lines.iter().map(|line| line.split(' ').count()).sum::<usize>();
    let mut more = words(&lines) - words(lines.get(..TALL).unwrap_or(&lines));
    lines.truncate(TALL);
    if let Some(last) = lines.last_mut() {
        while length(last) + format!(" +{more} more").len() > room
            && let Some((kept, _)) = last.rsplit_once(' ')
        {
            last.truncate(kept.len());
            more += 1;
        }
        last.push_str(&format!(" +{more} more"));
    }
    lines
}

/// How wide it is on a terminal.
fn length(text: &str) -> usize {
    text.width()
}

fn longest_word(text: &str) -> usize {
    text.split(' ').map(length).max().unwrap_or(0)
}

/// Text in lines of this width, all but the first of them indented. A word that is wider is a line.
pub(super) fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    if length(text) <= width {
        return vec![text.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    let mut left = 0;
    for word in text.split(' ') {
        let length = length(word);
        match lines.last_mut() {
            Some(line) if length < left => {
                line.push(' ');
                line.push_str(word);
                left -= length + 1;
            }
            Some(_) => {
                lines.push(format!("{}{word}", " ".repeat(indent)));
                left = width.saturating_sub(indent + length);
            }
            None => {
                lines.push(word.to_owned());
                left = width.saturating_sub(length);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(head: &[&'static str], rows: &[&[&str]], width: usize) -> String {
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
    fn text_is_divided_between_words() {
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
    fn a_column_is_as_wide_as_its_words_or_stands_below() {
        let head = &["ID", "NAME", "S"];
        let words = "some words that are long";
        let rows: &[&[&str]] = &[&["id", words, "x:y"]];
        assert_eq!(laid(head, rows, 80), format!("ID|NAME|S\nid|{words}|x:y"));
        assert_eq!(laid(head, rows, 29), "ID|NAME|S\nid|some words that are/long|x:y");
        assert_eq!(laid(head, rows, 28), format!("ID|S\nid|x:y\n    name: {words}"));
        let long = "w".repeat(50);
        let rows: &[&[&str]] = &[&["id", &long, "x:y"], &["id", "b", "-"]];
        let below = format!("ID|NAME|S\nid|…|x:y\n    name:\n    {long}\nid|b|-");
        assert_eq!(laid(head, rows, 30), below);
        let rows: &[&[&str]] = &[&[&long, words, "x:y"], &["id", words, "-"]];
        let below = format!("ID|NAME|S\n…|{words}|x:y\n    id:\n    {long}\nid|{words}|-");
        assert_eq!(laid(head, rows, 40), below);
    }
}
