//! Confirm: a question to whoever sits at the terminal, before what cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether somebody can be asked.
#[must_use]
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks. Anything but a yes is a no.
///
/// # Errors
/// The terminal is gone.
pub fn ask(question: &str) -> anyhow::Result<bool> {
    let mut terminal = io::stderr();
    write!(terminal, "{question} [y/N] ")?;
    terminal.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    Ok(matches!(said.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
