//! Report: the text form of a response, as lines, named values and tables.
//!
//! Not here: the JSON form; see [`super::printer`].

use super::cell::{Cell, escaped};
use super::table::{self, Rows};

/// A number of things, in words.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// Parts of text, one below the other.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Line(String),
    /// A line that is written as it is and never wrapped.
    Verbatim(String),
    Facts(Vec<(&'static str, Cell)>),
    Rows(Rows),
}

impl Report {
    /// Adds a line.
    #[must_use]
    pub fn line(mut self, text: impl Into<String>) -> Self {
        self.0.push(Part::Line(text.into()));
        self
    }

    /// Adds a line that is written as it is: not escaped and not wrapped.
    #[must_use]
    pub(super) fn verbatim(mut self, text: String) -> Self {
        self.0.push(Part::Verbatim(text));
        self
    }

    /// Adds a named value. An empty value is left out.
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

    /// Adds a revision. Zero, which a dry run has, is left out.
    #[must_use]
    pub fn revision(self, revision: u64) -> Self {
        match revision {
            0 => self,
            revision => self.fact("revision", revision),
        }
    }

    /// Adds a table without its last column if that column is empty, or if it makes the table wider
    /// than the terminal.
    #[must_use]
    pub fn titled<const N: usize>(
        self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
    ) -> Self {
        self.table(head, rows, vec![], true)
    }

    /// Adds a table; nothing if it has no rows.
    #[must_use]
    pub fn rows<const N: usize>(
        self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
    ) -> Self {
        self.table(head, rows, vec![], false)
    }

    /// Adds a table with lines below each row, for text of any length.
    #[must_use]
    pub fn rows_with<const N: usize>(
        self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
        below: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        self.table(head, rows, below.into_iter().collect(), false)
    }

    fn table<const N: usize>(
        mut self,
        head: &'static [&'static str; N],
        rows: impl IntoIterator<Item = [Cell; N]>,
        below: Vec<Vec<String>>,
        may_drop_last: bool,
    ) -> Self {
        let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
        if !rows.is_empty() {
            self.0.push(Part::Rows(Rows { head, rows, below, may_drop_last }));
        }
        self
    }

    /// Whether the report has no parts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the parts of another report.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        let mut parts = other.0.into_iter().peekable();
        // Adjacent named values are aligned in one column.
        if let Some(Part::Facts(facts)) = self.0.last_mut()
            && let Some(Part::Facts(more)) = parts.next_if(|part| matches!(part, Part::Facts(_)))
        {
            facts.extend(more);
        }
        self.0.extend(parts);
        self
    }

    /// The text of all parts.
    pub(super) fn text(self, has_color: bool) -> String {
        let mut text = String::new();
        for part in self.0 {
            let is_table = matches!(part, Part::Rows(_));
            let part = part.text(has_color);
            if !text.is_empty() {
                // An empty line before a table, so that its head is easy to find.
                text.push_str(if is_table { "\n\n" } else { "\n" });
            }
            text.push_str(&part);
        }
        text
    }
}

impl Part {
    fn text(self, has_color: bool) -> String {
        match self {
            Self::Verbatim(text) => text,
            Self::Line(text) => {
                let lines = text.lines().map(|line| table::wrapped_line(&escaped(line), 0));
                lines.collect::<Vec<_>>().join("\n")
            }
            Self::Facts(facts) => table::facts(facts, has_color),
            Self::Rows(rows) => rows.text(has_color),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let report = Report::default().fact("label", "a\u{1b}[2Jb\nc").line("\u{7}d\ne\u{202e}");
        assert_eq!(report.text(false), "label  a\\u{1b}[2Jb\\nc\n\\u{7}d\ne\\u{202e}");
    }

    #[test]
    fn empty_cell_keeps_its_column() {
        let rows = [["a".into(), "".into(), 3_u64.into()], ["bb".into(), "x y".into(), "".into()]];
        let report = Report::default().rows(&["ID", "NAME", "N"], rows);
        assert_eq!(report.text(false), "ID  NAME  N\na   -     3\nbb  x y   -");
    }
}
