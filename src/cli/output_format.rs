//! Output format: the choice between tables and JSON.

use clap::ValueEnum;

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Tables for people.
    Table,
    /// JSON for programs.
    Json,
}
