//! Field words: translates the fields of requests in server errors into flags and arguments of the
//! command.

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::{Arg, Command};

/// The commands that the names are looked up in. `environment::parse` sets them: this file cannot
/// import them, because every command reports its errors through this file.
static COMMANDS: OnceLock<fn() -> Command> = OnceLock::new();

/// Sets the commands that names are looked up in. A second call has no effect.
pub(super) fn set_commands(commands: fn() -> Command) {
    COMMANDS.set(commands).ok();
}

/// Fields, and the ids of the arguments that set them. The first id that the command has is used.
const WORDS: &[(&str, &[&str])] = &[
    ("acknowledge_impact", &["affected", "yes"]),
    ("actor", &["actor"]),
    ("after_revision", &["after", "after_revision", "since"]),
    ("allow_empty", &["allow_empty", "none"]),
    ("at_least_revision", &["at_least_revision"]),
    ("audience", &["audience"]),
    ("authorization", &["authorization"]),
    ("bearer_token", &["bearer_token"]),
    ("certificate", &["certificate"]),
    ("certificate_only", &["certificate_only"]),
    ("code_challenge", &["code_challenge"]),
    ("company_id", &["company"]),
    ("company_ids", &["company"]),
    ("credential_id", &["credential"]),
    ("cursor", &["cursor"]),
    ("display_name", &["display_name", "name"]),
    ("enabled", &["enabled"]),
    ("end_time", &["until"]),
    ("endpoint", &["path"]),
    ("endpoint.method", &["method"]),
    ("endpoint.path", &["path"]),
    ("etag", &["etag"]),
    ("expires_at", &["expires_at"]),
    ("issued_before", &["issued_before"]),
    ("include_dormant", &["include_dormant"]),
    ("key_id", &["key"]),
    ("kinds", &["kind", "kinds"]),
    ("label", &["label"]),
    ("name", &["name"]),
    ("newest_first", &["oldest_first"]),
    ("on_behalf_of", &["on_behalf_of"]),
    ("page_size", &["limit"]),
    ("publish_only", &["publish_only"]),
    ("reason", &["reason"]),
    ("redirect_uri", &["redirect_uri"]),
    ("redirect_uris", &["redirect_uris"]),
    ("request_id", &["request_id"]),
    ("resource_owner_id", &["resource_owner"]),
    ("restricted_at_revision", &["at", "restriction", "revision", "restricted_at_revision"]),
    ("roles", &["role", "roles"]),
    ("scope", &["scope"]),
    ("scopes", &["scopes", "scope"]),
    ("scopes.names", &["scopes", "scope"]),
    ("secret_id", &["secret_id"]),
    ("start_time", &["since"]),
    ("state", &["state"]),
    ("token", &["token"]),
    ("token.audience", &["token_audience", "audience"]),
    ("token.expires_at", &["token_expires_at"]),
    ("token.issued_at", &["token_issued_at"]),
    ("token.scopes", &["token_scope"]),
    ("token.user_id", &["token_user"]),
    ("user_id", &["user"]),
    ("validate_only", &["dry_run"]),
    ("yaml", &["file"]),
];

/// Suggestions in server errors, and the same suggestions in terms of the commands.
const SUGGESTIONS: &[(&str, &str)] = &[
    ("set `allow_empty` to", "give `--allow-empty` to"),
    ("start again by `after_revision`", "start again by `--after`"),
    ("start again without one", "list again"),
    ("see ListChanges", "see `changes list`"),
    ("see ListSigningKeys", "see `signing-keys list`"),
    ("call RotateSigningKey", "run `signing-keys rotate`"),
    ("send it as `authorization: Bearer <key>`", "give it by --key-file or SCOPEGATE_KEY"),
    (
        "send one that an operator has made, alone, as `authorization: Bearer <key>`",
        "give one that an operator has made by --key-file or SCOPEGATE_KEY",
    ),
    (
        "send the `etag` of an audit, or `acknowledge_impact`",
        "see by `--dry-run` who, then give `--yes` and `--affected`",
    ),
];

/// The message of a server, with its suggestions in terms of the commands.
pub(super) fn in_sentence(sentence: &str) -> String {
    let mut text = sentence.to_owned();
    for (theirs, ours) in SUGGESTIONS {
        text = text.replace(theirs, ours);
    }
    text
}

/// The flag or argument for a field in the command of this process, if it has one.
pub(super) fn of(field: &str) -> Option<String> {
    let commands = COMMANDS.get()?();
    word(&invoked(commands, std::env::args_os()), field)
}

/// The command that a command line names.
fn invoked(mut command: Command, words: impl IntoIterator<Item = OsString>) -> Command {
    command.build();
    for word in words.into_iter().skip(1) {
        match word.to_str().and_then(|word| command.find_subcommand(word)) {
            Some(next) => command = next.clone(),
            None => break,
        }
    }
    command
}

fn word(command: &Command, field: &str) -> Option<String> {
    let field = without_indices(field);
    let (_, ids) = WORDS.iter().find(|(name, _)| *name == field)?;
    ids.iter().find_map(|id| command.get_arguments().find(|arg| arg.get_id() == id).map(shown))
}

/// A field without list indices, and without the prefix of a check.
fn without_indices(field: &str) -> String {
    let mut plain = String::new();
    let mut rest = field;
    while let Some((before, behind)) = rest.split_once('[') {
        plain.push_str(before);
        rest = behind.split_once(']').map_or("", |(_, behind)| behind);
    }
    plain.push_str(rest);
    for of in ["checks.", "check."] {
        if let Some(field) = plain.strip_prefix(of) {
            return field.to_owned();
        }
    }
    plain
}

fn shown(arg: &Arg) -> String {
    if let Some(long) = arg.get_long() {
        return format!("--{long}");
    }
    let name = arg.get_value_names().and_then(<[_]>::first).map(|name| name.to_string());
    name.unwrap_or_else(|| arg.get_id().as_str().to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

    use super::*;
    use crate::cli::command::Cli;

    /// Fields that the commands set by themselves, or that are lines of a file.
    const WITHOUT_ARGUMENT: &[&str] = &[
        "checks",
        "check",
        "page_token",
        "update_mask",
        "update_mask.paths",
        "secret",
        "companies",
        "credentials",
        "token.bearer_token",
    ];

    fn named(line: &str, field: &str) -> Option<String> {
        word(&invoked(Cli::command(), line.split(' ').map(OsString::from)), field)
    }

    #[test]
    fn fields_are_named_by_flags_and_arguments() {
        for (line, field, expected) in [
            ("scopegate company list", "page_size", "--limit"),
            ("scopegate check", "token.issued_at", "--token-issued-at"),
            ("scopegate explain", "check.token.issued_at", "--token-issued-at"),
            ("scopegate check", "user_id", "--user"),
            ("scopegate user put", "user_id", "USER"),
            ("scopegate user put", "roles[3]", "ROLE"),
            ("scopegate keys create", "company_ids[0]", "--company"),
            ("scopegate credential grant", "scopes[1]", "SCOPE"),
            ("scopegate credential grant", "credential_id", "CREDENTIAL"),
            ("scopegate catalog apply", "yaml", "FILE"),
        ] {
            assert_eq!(named(line, field).as_deref(), Some(expected), "{line} {field}");
        }
        assert_eq!(
            named("scopegate company list", "roles"),
            None,
            "the command has no such argument"
        );
    }

    /// The fields of a message; those of nested messages with a dot.
    fn fields(message: &MessageDescriptor, before: &str, all: &mut BTreeSet<String>) {
        for field in message.fields() {
            let name = format!("{before}{}", field.name());
            match field.kind() {
                Kind::Message(inner)
                    if inner.full_name().starts_with("scopegate.") && before.is_empty() =>
                {
                    let is_check = inner.full_name().ends_with(".CheckRequest");
                    fields(&inner, &if is_check { String::new() } else { format!("{name}.") }, all);
                    all.insert(name);
                }
                _ => drop(all.insert(name)),
            }
        }
    }

    #[test]
    fn every_request_field_has_a_flag_or_argument() {
        let pool = DescriptorPool::decode(crate::proto::DESCRIPTORS).expect("descriptors");
        let mut all = BTreeSet::new();
        let requests = pool.all_messages().filter(|message| {
            message.full_name().starts_with("scopegate.") && message.name().ends_with("Request")
        });
        for request in requests {
            fields(&request, "", &mut all);
        }
        let is_known = |field: &&String| {
            WORDS.iter().any(|(name, _)| name == field)
                || WITHOUT_ARGUMENT.contains(&field.as_str())
                // An import reports lines of its file.
                || field.starts_with("companies.")
                || field.starts_with("credentials.")
        };
        let without: Vec<_> = all.iter().filter(|field| !is_known(field)).collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
