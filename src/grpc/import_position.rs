//! Import position: the place of an item in the messages of an import.

use std::fmt;

/// The position of an item in an import.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ImportPosition {
    /// The index of the message, from 0.
    pub(super) message: u64,
    /// The list of the message; empty for the whole message.
    pub(super) list: &'static str,
    /// The index of the item in the list, from 0.
    pub(super) index: usize,
    /// The line in the caller's file; 0 if the caller does not send one.
    pub(super) line: u64,
}

impl fmt::Display for ImportPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}
