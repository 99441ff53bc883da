//! Undo: the commands that take a change back, as one line that can be pasted into a shell.
//!
//! The line names the server as the change's own command did, so that it works in another
//! directory and under another current context. Keys stay where they are: a file is named, a
//! variable of the environment is mentioned, a value is never repeated.
//!
//! INVARIANT (exact or not at all): a line is shown only if a shell reads it back to the byte.
//! Whether its commands bring back what was there is for the caller to know.

use std::path::Path;

use super::asking::Terms;
use super::context;
use crate::config::EndpointArgs;
use crate::policy::text;

/// How long a line may be. Beyond that terminals and shells do not take it in one piece.
const LONGEST: usize = 64 << 10;
/// What --timeout-seconds is if it is not given.
const USUAL_TIMEOUT: u64 = 5;

/// Commands, one after the other, and what they do not bring back.
#[derive(Clone, Debug)]
pub struct Undo {
    /// None if one of them cannot be written.
    commands: Option<Vec<String>>,
    connection: Option<Vec<String>>,
    notes: Vec<String>,
}

impl Undo {
    /// The undo of a change that was made on these terms. None for a dry run.
    pub(super) fn of(terms: &Terms) -> Option<Self> {
        if terms.dry_run {
            return None;
        }
        let server = &terms.asking.server;
        let notes = variables(server).into_iter().collect();
        Some(Self { commands: Some(vec![]), connection: connection(server), notes })
    }

    /// Adds a command: its name, its arguments by place, and its flags.
    #[must_use]
    pub(super) fn then<'a>(
        mut self,
        name: &[&str],
        places: impl IntoIterator<Item = &'a str>,
        flags: &[&str],
    ) -> Self {
        let places: Vec<_> = places.into_iter().map(str::to_owned).collect();
        let command = self.connection.clone().and_then(|connection| {
            let mut words: Vec<String> = vec!["scopegate".to_owned()];
            words.extend(name.iter().map(|word| (*word).to_owned()));
            let flags = flags.iter().map(|flag| (*flag).to_owned()).chain(connection);
            // A scope may begin with `-`, and is no flag.
            if places.iter().any(|place| place.starts_with('-')) {
                words.extend(flags);
                words.push("--".to_owned());
                words.extend(places);
            } else {
                words.extend(places);
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

    /// Adds what the commands do not bring back.
    #[must_use]
    pub(super) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The line, and the notes. None if there is no line that a shell would read back.
    pub(super) fn shown(self) -> Option<(String, Vec<String>)> {
        let line = self.commands.filter(|commands| !commands.is_empty())?.join(" && ");
        let shown_as_it_is = text::first_deceptive(&line).is_none();
        (shown_as_it_is && line.len() <= LONGEST).then_some((line, self.notes))
    }
}

/// The flags that reach the same server. None if a path cannot be written.
fn connection(server: &EndpointArgs) -> Option<Vec<String>> {
    let mut flags = Vec::new();
    if let Some(endpoint) = &server.endpoint {
        flags.extend(["--endpoint".to_owned(), endpoint.clone()]);
    }
    let context = match (&server.context, &server.endpoint) {
        (None, None) => context::current(),
        (named, _) => named.clone(),
    };
    if let Some(context) = context {
        flags.extend(["--context".to_owned(), context]);
    }
    if server.timeout_seconds != USUAL_TIMEOUT {
        flags.extend(["--timeout-seconds".to_owned(), server.timeout_seconds.to_string()]);
    }
    let files = [
        ("--key-file", &server.key_file),
        ("--ca", &server.tls.ca),
        ("--client-cert", &server.tls.client_cert),
        ("--client-key", &server.tls.client_key),
    ];
    for (flag, file) in files {
        if let Some(file) = file {
            flags.extend([flag.to_owned(), absolute(file)?]);
        }
    }
    Some(flags)
}

/// A path that means the same in every directory.
fn absolute(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.into_os_string().into_string().ok()
}

/// Which variables of the environment the command rests on that no flag repeats.
fn variables(server: &EndpointArgs) -> Option<String> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let config = server.endpoint.is_none() || server.context.is_some();
    let names = ["SCOPEGATE_KEY", if config { "SCOPEGATE_CONFIG" } else { "" }];
    let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).filter(is_set).collect();
    (!names.is_empty()).then(|| {
        format!("the undo needs {} in the environment, as this command did", names.join(" and "))
    })
}
