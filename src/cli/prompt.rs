//! Prompt: asks the operator on the terminal, for a confirmation or for a secret.
//!
//! Not here: which changes need a confirmation; see [`super::confirmation`].

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::bail;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::policy::text;

/// Whether standard input and standard error are terminals.
#[must_use]
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question. Every answer but `y` and `yes` is a no, as are the end of the input and Ctrl-C.
///
/// # Errors
/// The terminal cannot be read or written.
pub async fn confirm(question: &str) -> anyhow::Result<bool> {
    // Installed before the question is shown, so that no interrupt is lost.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminal = io::stderr();
    write!(terminal, "{} [y/N] ", text::escaped_lines(question))?;
    terminal.flush()?;
    let (send, line) = oneshot::channel();
    // After an interrupt this thread stays blocked in `read` until the process exits.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        send.send(read.map(|_| line)).ok();
    });
    let line = tokio::select! {
        line = line => line.unwrap_or_else(|_| Ok(String::new()))?,
        _ = interrupts.recv() => String::new(),
    };
    if !line.ends_with('\n') {
        // Without an answer the cursor is still on the line of the question.
        writeln!(terminal)?;
    }
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads a secret of at most `max` bytes from a line of standard input. A terminal shows the prompt and does not echo the
/// input. It echoes again afterwards, also after Ctrl-C.
///
/// # Errors
/// The line cannot be read or is too long, or the read was interrupted.
pub async fn secret(prompt: &str, max: u64) -> anyhow::Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_bounded_line(&mut input.lock(), max);
    }
    let (mut interrupts, mut ends) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    write!(io::stderr(), "{prompt} ")?;
    let before = tcgetattr(&input)?;
    let mut without_echo = before.clone();
    without_echo.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Now, &without_echo)?;
    let (send, line) = oneshot::channel();
    // After an interrupt this thread stays blocked in `read` until the process exits.
    std::thread::spawn(move || send.send(read_bounded_line(&mut io::stdin().lock(), max)).ok());
    let line = tokio::select! {
        line = line => line.ok(),
        _ = interrupts.recv() => None,
        _ = ends.recv() => None,
    };
    tcsetattr(&input, OptionalActions::Now, &before)?;
    writeln!(io::stderr()).ok();
    line.unwrap_or_else(|| bail!("interrupted: no request was sent"))
}

/// Reads a line of at most `max` bytes.
fn read_bounded_line(input: &mut dyn BufRead, max: u64) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(max + 1).read_line(&mut line)?;
    if line.len() as u64 > max {
        bail!("the line on standard input has more than {max} bytes: no secret is that long");
    }
    Ok(line)
}
