//! Confirm: a question to whoever sits at the terminal, before what cannot be taken back, or for
//! what nobody else shall see.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::bail;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::policy::text;

/// Whether somebody can be asked.
#[must_use]
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks. Anything but a yes is a no: the end of the input and an interrupt (Ctrl-C), too.
///
/// # Errors
/// The terminal is gone.
pub async fn confirm(question: &str) -> anyhow::Result<bool> {
    // Before the question is shown: an interrupt that answers it is not lost.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminal = io::stderr();
    write!(terminal, "{} [y/N] ", text::escaped_lines(question))?;
    terminal.flush()?;
    let (send, line) = oneshot::channel();
    // A thread that an interrupt leaves behind: the end of the process ends it.
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
        // The answer has not ended the question's line.
        writeln!(terminal)?;
    }
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The most bytes that are read of a secret.
const LONGEST: u64 = 4 << 10;

/// Reads a line of standard input, which a terminal asks for and does not show. However it ends, by
/// Ctrl-C, too, the terminal shows again what is typed.
///
/// # Errors
/// It cannot be read, is too long, or was interrupted.
pub async fn secret(prompt: &str) -> anyhow::Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return bounded(&mut input.lock());
    }
    let (mut interrupts, mut ends) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    write!(io::stderr(), "{prompt} ")?;
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Now, &silent)?;
    let (send, line) = oneshot::channel();
    // A thread that an interrupt leaves behind: the end of the process ends it.
    std::thread::spawn(move || send.send(bounded(&mut io::stdin().lock())).ok());
    let line = tokio::select! {
        line = line => line.ok(),
        _ = interrupts.recv() => None,
        _ = ends.recv() => None,
    };
    tcsetattr(&input, OptionalActions::Now, &before)?;
    writeln!(io::stderr()).ok();
    line.unwrap_or_else(|| bail!("interrupted: nothing was asked"))
}

/// A line of an input, if it is no longer than a secret can be.
fn bounded(input: &mut dyn BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(LONGEST + 1).read_line(&mut line)?;
    if line.len() as u64 > LONGEST {
        bail!("the line on standard input has more than {LONGEST} bytes: no secret is that long");
    }
    Ok(line)
}
