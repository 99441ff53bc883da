//! Context: named servers in `~/.config/scopegate/config.yaml`, and which server a command uses:
//!
//! ```yaml
//! current: staging
//! contexts:
//!   staging: { endpoint: http://scopegate.staging:50051 }
//! ```
//!
//! Flags and environment variables take precedence over a context, except that the flag --context
//! takes precedence over the variable SCOPEGATE_ENDPOINT. File names are relative to the directory of
//! the config file. An --endpoint without --context ignores the current context, so that the key and
//! the certificate for one server are not sent to another.
//!
//! Not here: the connection; see [`super::connection`].

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::address;
use super::cell::Cell;
use super::endpoint_args::{EndpointArgs, TlsArgs};
use super::output_format::OutputFormat;
use super::printer::Printer;
use super::report::Report;
use super::text_file;

/// The endpoint if neither a flag, a variable nor the config file names one.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// The maximum size of the config file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The commands for contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts of the config file: $SCOPEGATE_CONFIG, else
    /// $XDG_CONFIG_HOME/scopegate/config.yaml, else ~/.config/scopegate/config.yaml.
    ///
    /// The file is YAML. `contexts:` has for each name an `endpoint` and, if the server needs them,
    /// `ca`, `client_cert`, `client_key` and `key_file`, relative to the directory of the config file.
    /// `current:` has the name of the current context.
    List(ContextListArgs),
    /// Set the current context.
    Use(UseArgs),
}

/// The arguments of the list of contexts.
#[derive(Debug, Args)]
pub struct ContextListArgs {
    /// The output format.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    output: OutputFormat,
}

/// The arguments of `context use`.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// The name of the context.
    #[arg(value_name = "CONTEXT")]
    name: String,
}

/// The config file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, ServerProfile>,
}

/// The address of a server, and the files to connect to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerProfile {
    /// The address.
    pub endpoint: String,
    /// The CA certificates to trust for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// The private key of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The file with the API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The file of the only certificate to trust, whatever it names. No config file has it.
    #[serde(skip)]
    pub pinned: Option<PathBuf>,
}

/// Lists contexts, or sets the current one.
///
/// # Errors
/// The config file cannot be read or written, or does not have the context.
pub async fn context(command: ContextCommand) -> anyhow::Result<bool> {
    match command {
        ContextCommand::List(args) => list(&args),
        ContextCommand::Use(args) => set_current(&args.name),
    }
}

fn list(args: &ContextListArgs) -> anyhow::Result<bool> {
    let (path, contexts) = read()?;
    let printer = Printer::new(args.output)?;
    let rows = contexts.contexts.iter().map(|(name, profile)| {
        let current = contexts.current.as_ref() == Some(name);
        [Cell::colored(true, if current { "*" } else { "" }), name.clone().into(), {
            profile.endpoint.clone().into()
        }]
    });
    let mut report = Report::default().rows(&["CURRENT", "NAME", "ENDPOINT"], rows);
    if contexts.contexts.is_empty() {
        report = report.line(format!("no contexts in {}", path.display()));
    }
    printer.print_value(&contexts, report)?;
    Ok(true)
}

/// Sets the current context. Replaces only the line `current:`, to keep the comments of the file.
fn set_current(name: &str) -> anyhow::Result<bool> {
    let (path, contexts) = read()?;
    find(&contexts, &path, name)?;
    let file = std::fs::read(&path).with_context(|| unreadable(&path))?;
    let file = text_file::text(&file).map_err(|error| anyhow!("{} {error}", path.display()))?;
    // A JSON string is a YAML string.
    let line = format!("current: {}", serde_json::to_string(name)?);
    let is_current = |line: &&str| line.starts_with("current:");
    let text = match file.lines().find(is_current) {
        Some(old) => file.replacen(old, &line, 1),
        None if contexts.current.is_some() => {
            bail!("in {} `current` does not begin a line: change it there", path.display())
        }
        None => format!("{line}\n{file}"),
    };
    // The rename replaces the file atomically for concurrent readers. The copy has its permissions.
    let temporary = path.with_extension("yaml.new");
    let wrote = std::fs::copy(&path, &temporary)
        .and_then(|_| std::fs::write(&temporary, text))
        .and_then(|()| std::fs::rename(&temporary, &path));
    wrote.with_context(|| format!("cannot write {}", path.display()))?;
    Printer::new(OutputFormat::Table)?
        .print_stderr(Report::default().line(format!("current: {name}")))?;
    Ok(true)
}

/// The profile of the server that the flags, the environment and the config file select.
pub(super) fn resolve_profile(args: &EndpointArgs) -> anyhow::Result<ServerProfile> {
    let TlsArgs { ca, client_cert, client_key } = args.tls.clone();
    let flags = |endpoint: &str| ServerProfile {
        endpoint: endpoint.to_owned(),
        ca: ca.clone(),
        client_cert: client_cert.clone(),
        client_key: client_key.clone(),
        key_file: args.key_file.clone(),
        pinned: None,
    };
    let profile = match (&args.endpoint, &args.context) {
        (Some(endpoint), None) => return Ok(flags(endpoint)),
        (endpoint, Some(name)) => {
            let (path, contexts) = read()?;
            let profile = find(&contexts, &path, name)?.clone();
            match endpoint {
                Some(endpoint) => ServerProfile { endpoint: endpoint.clone(), ..profile },
                None => profile,
            }
        }
        (None, None) => {
            let (path, contexts) = read()?;
            match &contexts.current {
                Some(name) => find(&contexts, &path, name)?.clone(),
                None => return Ok(flags(DEFAULT_ENDPOINT)),
            }
        }
    };
    // A certificate and its key belong together, so both come from the same source.
    let (client_cert, client_key) = match client_cert {
        Some(_) => (client_cert, client_key),
        None => (profile.client_cert, profile.client_key),
    };
    if client_cert.is_some() != client_key.is_some() {
        bail!("the context has only one of `client_cert` and `client_key`: set both or none");
    }
    Ok(ServerProfile {
        endpoint: profile.endpoint,
        ca: ca.or(profile.ca),
        client_cert,
        client_key,
        key_file: args.key_file.clone().or(profile.key_file),
        pinned: None,
    })
}

/// The name of the current context, if there is one.
pub(super) fn current() -> Option<String> {
    read().ok().and_then(|(_, contexts)| contexts.current)
}

fn find<'a>(contexts: &'a Contexts, path: &Path, name: &str) -> anyhow::Result<&'a ServerProfile> {
    contexts.contexts.get(name).ok_or_else(|| {
        let all: Vec<_> = contexts.contexts.keys().map(String::as_str).collect();
        let all = match all.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has: {}", all.join(", ")),
        };
        anyhow!("{} has no context `{name}`; {all}", path.display())
    })
}

/// Reads at most one byte more than the maximum size of the config file.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// The path of the config file, and its contexts. A missing file has none, unless SCOPEGATE_CONFIG
/// names it.
fn read() -> anyhow::Result<(PathBuf, Contexts)> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = set("SCOPEGATE_CONFIG");
    let home = || set("HOME").map(|home| home.join(".config"));
    let default =
        || set("XDG_CONFIG_HOME").or_else(home).map(|dir| dir.join("scopegate/config.yaml"));
    let Some(path) = named.clone().or_else(default) else {
        return Ok((PathBuf::from("~/.config/scopegate/config.yaml"), Contexts::default()));
    };
    let text = match read_bounded(&path) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => {
            bail!("{} has more than {MAX_FILE} bytes: is it the right file?", path.display())
        }
        Ok(bytes) => text_file::text(&bytes).map_err(|e| anyhow!("{} {e}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok((path, Contexts::default()));
        }
        Err(error) => return Err(error).with_context(|| unreadable(&path)),
    };
    let options = serde_saphyr::options! { with_snippet: false };
    let mut contexts: Contexts = serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| anyhow!("{}: {error}", path.display()))?;
    // File names are relative to the directory of the config file, whatever the current directory.
    let base = std::path::absolute(&path).with_context(|| unreadable(&path))?;
    let base = base.parent().unwrap_or(Path::new("/"));
    for profile in contexts.contexts.values_mut() {
        let files = [
            &mut profile.ca,
            &mut profile.client_cert,
            &mut profile.client_key,
            &mut profile.key_file,
        ];
        for file in files.into_iter().flatten() {
            *file = base.join(&*file);
        }
        profile.endpoint = address::based(&profile.endpoint, base);
    }
    Ok((path, contexts))
}
