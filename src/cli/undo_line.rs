//! Undo line: commands as one line that can be pasted into a shell, and notes on what the line does
//! not restore.
//!
//! INVARIANT (exact or not at all): a line is shown only if a shell parses it back to the same
//! bytes. Not here: which commands undo a change; see [`super::undo`] and the file of each command.

use crate::policy::text;

/// The maximum length of a line in bytes. Terminals and shells do not accept a longer paste in one
/// piece.
const MAX_LINE: usize = 64 << 10;

/// Commands in order, and notes on what they do not restore.
#[derive(Clone, Debug)]
pub struct Undo {
    /// None if one of them cannot be quoted for a shell.
    commands: Option<Vec<String>>,
    /// The flags that select the server. None if they cannot be written.
    connection: Option<Vec<String>>,
    notes: Vec<String>,
}

impl Undo {
    /// No commands yet.
    pub(super) fn new(connection: Option<Vec<String>>, notes: Vec<String>) -> Self {
        Self { commands: Some(vec![]), connection, notes }
    }

    /// Adds a command: its name, its positional arguments, and its flags.
    #[must_use]
    pub(super) fn then<'a>(
        mut self,
        name: &[&str],
        arguments: impl IntoIterator<Item = &'a str>,
        flags: &[&str],
    ) -> Self {
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let command = self.connection.clone().and_then(|connection| {
            let mut words: Vec<String> = vec!["scopegate".to_owned()];
            words.extend(name.iter().map(|word| (*word).to_owned()));
            let flags = flags.iter().map(|flag| (*flag).to_owned()).chain(connection);
            // A scope may begin with `-`: behind `--` it is not read as a flag.
            if arguments.iter().any(|argument| argument.starts_with('-')) {
                words.extend(flags);
                words.push("--".to_owned());
                words.extend(arguments);
            } else {
                words.extend(arguments);
                words.extend(flags);
            }
            shlex::try_join(words.iter().map(String::as_str)).ok()
        });
        match (&mut self.commands, command) {
            (Some(commands), Some(command)) => commands.push(command),
            (commands, _) => *commands = None,
        }
        self
    }

    /// Adds a note on what the commands do not restore.
    #[must_use]
    pub(super) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The line, if a shell parses it back to the same bytes, and the notes.
    pub(super) fn into_line(self) -> (Option<String>, Vec<String>) {
        let unwritten = || vec!["no undo line: no shell would read it back as it is".to_owned()];
        let Some(commands) = self.commands else { return (None, unwritten()) };
        if commands.is_empty() {
            return (None, self.notes);
        }
        let line = commands.join(" && ");
        if text::first_deceptive(&line).is_some() || line.len() > MAX_LINE {
            return (None, unwritten());
        }
        (Some(line), self.notes)
    }
}
