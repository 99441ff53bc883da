//! Undo: how the commands name the server for an undo line, and when such a line is safe to show.
//!
//! The line names the server by its address, and by its context if there was one. So it works in
//! another directory, and reaches the same server after the config file has changed. It never has a
//! key: it names the file of the key, or a note mentions the variable that has it.
//!
//! Each command decides whether its undo restores the previous state. [`is_alone`] tells it whether
//! no other change was made since the resource was read. Not here: how commands become a line;
//! see [`super::undo_line`].

use std::path::Path;

use super::client::{Client, WriteArgs};
use super::context;
use super::endpoint_args::EndpointArgs;
pub(super) use super::undo_line::Undo;
use crate::proto::ListChangesRequest;

/// The maximum number of pages to read until the first change of a company. A page may be empty.
const MAX_PAGES: usize = 8;

/// A change that was made, and when its resource was read before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made<'a> {
    /// The company of the resource.
    pub(super) company: &'a str,
    /// The revision at which the resource was read before the change.
    pub(super) read: u64,
    /// The revision in the response to the change.
    pub(super) answered: u64,
}

/// Whether the change is the only one of its company since the resource was read. Then the change
/// replaced exactly the state that was read. False if this cannot be determined, and for a response
/// that is a replay of an earlier request with the same request id.
pub(super) async fn is_alone(client: &mut Client, made: Made<'_>) -> bool {
    let mut token = String::new();
    if made.answered <= made.read {
        return false;
    }
    for _ in 0..MAX_PAGES {
        let request = ListChangesRequest {
            company_id: Some(made.company.to_owned()),
            after_revision: made.read,
            page_size: 1,
            page_token: token,
            ..ListChangesRequest::default()
        };
        let Ok(page) = client.changes.list_changes(request).await else { return false };
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

impl Undo {
    /// The undo of a change that was made with these options. None for a dry run.
    pub(super) fn of(write: &WriteArgs) -> Option<Self> {
        if write.dry_run {
            return None;
        }
        let server = &write.asking.server;
        let notes = variables(server).into_iter().collect();
        Some(Self::new(connection(server), notes))
    }

    /// A note that there is no line, with the reason. None for a dry run.
    pub(super) fn none(write: &WriteArgs, reason: &str) -> Option<Self> {
        let empty = Self::new(None, vec![]);
        (!write.dry_run).then(|| empty.note(format!("no undo line: {reason}")))
    }

    /// A note that there is no line, because another change may have come between.
    pub(super) fn of_several(write: &WriteArgs) -> Option<Self> {
        Self::none(
            write,
            "something else was changed meanwhile, or this request was sent before; see `scopegate changes list`",
        )
    }
}

/// The flags that reach the same server. None if a path is not UTF-8, or if the profile can no
/// longer be read from the config file.
fn connection(server: &EndpointArgs) -> Option<Vec<String>> {
    let mut flags = vec!["--endpoint".to_owned(), context::resolve_profile(server).ok()?.endpoint];
    if let Some(context) = context_of(server) {
        flags.extend(["--context".to_owned(), context]);
    }
    if let Some(seconds) = server.timeout {
        flags.extend(["--timeout".to_owned(), format!("{seconds}s")]);
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

/// The absolute form of a path, if it is UTF-8.
fn absolute(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.into_os_string().into_string().ok()
}

/// A note on the environment variables that the undo needs and that no flag replaces. It names
/// SCOPEGATE_KEY without its value, and SCOPEGATE_CONFIG with an absolute path.
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
