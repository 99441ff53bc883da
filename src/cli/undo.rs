//! Undo: the commands that take a change back, as one line that can be pasted into a shell.
//!
//! The line names the server by its address, and by its context if there was one, so that it works
//! in another directory and reaches the same server whatever the context says by then. Keys stay where they are: a file is named, a
//! variable of the environment is mentioned, a value is never repeated.
//!
//! INVARIANT (exact or not at all): a line is shown only if a shell reads it back to the byte.
//! Whether its commands bring back what was there is for the caller to know; that nothing else was
//! changed since it was read, [`is_alone`] says.

use std::path::Path;

use super::client::{Client, WriteArgs};
use super::context;
use super::endpoint_args::EndpointArgs;
use crate::policy::text;
use crate::proto::ListChangesRequest;

/// How long a line may be. Beyond that terminals and shells do not take it in one piece.
const LONGEST: usize = 64 << 10;
/// What --timeout is if it is not given.
const USUAL_TIMEOUT: u32 = 5;
/// How many pages are read to find the first change of a company. A page may be empty.
const PAGES: usize = 8;

/// What a change was of, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made<'a> {
    /// The company that it is part of.
    pub(super) company: &'a str,
    /// The revision at which the resource was read before.
    pub(super) read: u64,
    /// The revision that the answer to the change says.
    pub(super) answered: u64,
}

/// Whether a change is the only one of its company since the resource was read, so that what was
/// read is what it changed. False if that cannot be known, and for the answer to a change that was
/// made earlier by the same request id.
pub(super) async fn is_alone(desk: &mut Client, made: Made<'_>) -> bool {
    let mut token = String::new();
    if made.answered <= made.read {
        return false;
    }
    for _ in 0..PAGES {
        let request = ListChangesRequest {
            company_id: Some(made.company.to_owned()),
            after_revision: made.read,
            page_size: 1,
            page_token: token,
            ..ListChangesRequest::default()
        };
        let Ok(page) = desk.changes.list_changes(request).await else { return false };
        let page = page.into_inner();
        if let Some(first) = page.changes.first() {
            return first.revision == made.answered;
        }
        token = page.next_page_token;
        if token.is_empty() {
            return false;
        }
    }
    false
}

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
    pub(super) fn of(terms: &WriteArgs) -> Option<Self> {
        if terms.dry_run {
            return None;
        }
        let server = &terms.asking.server;
        let notes = variables(server).into_iter().collect();
        Some(Self { commands: Some(vec![]), connection: connection(server), notes })
    }

    /// No line, and why.
    pub(super) fn none(terms: &WriteArgs, why: &str) -> Option<Self> {
        let no = Self { commands: Some(vec![]), connection: None, notes: vec![] };
        (!terms.dry_run).then(|| no.note(format!("no undo line: {why}")))
    }

    /// No line, since another change may have come between.
    pub(super) fn of_several(terms: &WriteArgs) -> Option<Self> {
        Self::none(
            terms,
            "something else was changed meanwhile, or this request was sent before; see `scopegate changes list`",
        )
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

    /// The line, if there is one that a shell would read back, and the notes.
    pub(super) fn shown(self) -> (Option<String>, Vec<String>) {
        let unwritten = || vec!["no undo line: no shell would read it back as it is".to_owned()];
        let Some(commands) = self.commands else { return (None, unwritten()) };
        if commands.is_empty() {
            return (None, self.notes);
        }
        let line = commands.join(" && ");
        if text::first_deceptive(&line).is_some() || line.len() > LONGEST {
            return (None, unwritten());
        }
        (Some(line), self.notes)
    }
}

/// The flags that reach the same server. None if a path cannot be written, or if the config file
/// is no longer what it was.
fn connection(server: &EndpointArgs) -> Option<Vec<String>> {
    let mut flags = vec!["--endpoint".to_owned(), context::resolve_profile(server).ok()?.endpoint];
    if let Some(context) = context_of(server) {
        flags.extend(["--context".to_owned(), context]);
    }
    if server.timeout != USUAL_TIMEOUT {
        flags.extend(["--timeout".to_owned(), format!("{}s", server.timeout)]);
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

/// The name of the context that a command used, if it used one.
fn context_of(server: &EndpointArgs) -> Option<String> {
    match (&server.context, &server.endpoint) {
        (None, None) => context::current(),
        (named, _) => named.clone(),
    }
}

/// A path that means the same in every directory.
fn absolute(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.into_os_string().into_string().ok()
}

/// Which variables of the environment the command rests on that no flag repeats. A key's value is
/// not repeated; a file is named by its whole path.
fn variables(server: &EndpointArgs) -> Option<String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let key = set("SCOPEGATE_KEY").map(|_| "SCOPEGATE_KEY".to_owned());
    let config = set("SCOPEGATE_CONFIG").filter(|_| context_of(server).is_some());
    let config = config.map(|path| match absolute(Path::new(&path)) {
        Some(path) => format!("SCOPEGATE_CONFIG={path}"),
        None => "SCOPEGATE_CONFIG".to_owned(),
    });
    let names: Vec<_> = key.into_iter().chain(config).collect();
    (!names.is_empty()).then(|| {
        format!("the undo needs {} in the environment, as this command did", names.join(" and "))
    })
}
