//! Cell: one value of a report, with its color.
//!
//! Not here: how cells are put into columns; see [`super::table`].

use comfy_table::{Cell as TableCell, Color};
use prost_types::Timestamp;

use super::time;
use crate::policy::text;

/// How a value is colored on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Good,
    Bad,
}

/// One value of a report.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The text.
    pub(super) text: String,
    style: Style,
    /// Whether it is a list that a table on a terminal may cut.
    pub(super) is_list: bool,
}

impl Cell {
    /// A value in green if it is good, else in red.
    pub fn colored(good: bool, text: impl Into<String>) -> Self {
        let style = if good { Style::Good } else { Style::Bad };
        Self { text: text.into(), style, is_list: false }
    }

    /// A list of names in a table. A terminal shows the first of a long list and the number of the
    /// others. Use it only if another command shows the whole list.
    #[must_use]
    pub fn list(names: &[String]) -> Self {
        Self { text: names.join(" "), style: Style::Plain, is_list: true }
    }

    /// `enabled`, or `disabled` in red.
    #[must_use]
    pub fn enabled(enabled: bool) -> Self {
        match enabled {
            true => "enabled".into(),
            false => Self::colored(false, "disabled"),
        }
    }

    /// The state of a resource that can be disabled and can expire.
    #[must_use]
    pub fn state(enabled: bool, expired: bool) -> Self {
        match (enabled, expired) {
            (true, true) => Self::colored(false, "expired"),
            // A disabled resource shows its expiry in another column.
            (enabled, _) => Self::enabled(enabled),
        }
    }

    /// An expiry; if it has passed, in red with how long ago.
    #[must_use]
    pub fn end(time: Option<&Timestamp>, is_over: bool) -> Self {
        let text = time::text(time);
        match (is_over, time::since(time)) {
            (false, _) => text.into(),
            (true, since) if since.is_empty() => Self::colored(false, format!("{text} (over)")),
            (true, since) => Self::colored(false, format!("{text} ({since})")),
        }
    }

    /// As [`Self::end`], short enough for a column of a list: only how long ago, if it has passed.
    #[must_use]
    pub fn end_short(time: Option<&Timestamp>, is_over: bool) -> Self {
        match (is_over, time::since(time)) {
            (true, since) if !since.is_empty() => Self::colored(false, since),
            (true, _) => Self::colored(false, time::text(time)),
            (false, _) => time::text(time).into(),
        }
    }

    /// The cell with its control characters escaped.
    pub(super) fn escaped(self) -> Self {
        Self { text: escaped(&self.text), ..self }
    }

    /// The cell of a table. A line break in its text, which must be escaped already, is kept.
    pub(super) fn into_table_cell(self, has_color: bool) -> TableCell {
        let cell = TableCell::new(&self.text);
        match self.style {
            Style::Good if has_color => cell.fg(Color::Green),
            Style::Bad if has_color => cell.fg(Color::Red),
            _ => cell,
        }
    }
}

/// Text with its control characters escaped: a stored label must not control the terminal of an
/// operator.
pub(super) fn escaped(text: &str) -> String {
    text::escaped(text).into_owned()
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::Plain, is_list: false }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}
