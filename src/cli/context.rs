//! Context: a server by name. `~/.config/scopegate/config.yaml` has them:
//!
//! ```yaml
//! current: staging
//! contexts:
//!   staging: { endpoint: http://scopegate.staging:50051 }
//! ```
//!
//! Flags and environment win over a context, except that a --context that is typed wins over the
//! variable SCOPEGATE_ENDPOINT. Files are named as seen from the config file's directory. An --endpoint alone leaves the current context out
//! altogether: what one server is to be shown must not be shown to another.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::endpoint_args::{EndpointArgs, TlsArgs};
use super::output_format::OutputFormat;
use super::printer::Printer;
use super::report::Report;
use super::text_file;

/// Where a server is looked for that nobody says the address of.
const HERE: &str = "http://127.0.0.1:50051";

/// The most bytes that are read of the config file.
const LONGEST: u64 = 1 << 20;

/// Commands of contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts of the config file: $SCOPEGATE_CONFIG, else
    /// $XDG_CONFIG_HOME/scopegate/config.yaml, else ~/.config/scopegate/config.yaml.
    ///
    /// The file is YAML: `contexts:` has, by name, an `endpoint` and, where the server asks for
    /// them, `ca`, `client_cert`, `client_key` and `key_file`, each as seen from the directory of the
    /// config file; `current:` names one of them.
    List(ListArgs),
    /// Make a context the current one.
    Use(UseArgs),
}

/// How to list contexts.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How to write the list.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    output: OutputFormat,
}

/// Which context to use.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// The context's name.
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

/// How a server is reached.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerProfile {
    /// Its address.
    pub endpoint: String,
    /// Who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate to show to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// The certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The file of the key that says who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// Lists contexts, or chooses one.
///
/// # Errors
/// The config file cannot be read, or not be written, or lacks the context.
pub async fn context(command: ContextCommand) -> anyhow::Result<bool> {
    match command {
        ContextCommand::List(args) => list(&args),
        ContextCommand::Use(args) => choose(&args.name),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<bool> {
    let (path, contexts) = read()?;
    let printer = Printer::new(args.output)?;
    let rows = contexts.contexts.iter().map(|(name, way)| {
        let current = contexts.current.as_ref() == Some(name);
        [Cell::colored(true, if current { "*" } else { "" }), name.clone().into(), {
            way.endpoint.clone().into()
        }]
    });
    let mut sheet = Report::default().rows(&["CURRENT", "NAME", "ENDPOINT"], rows);
    if contexts.contexts.is_empty() {
        sheet = sheet.line(format!("no contexts in {}", path.display()));
    }
    printer.print_value(&contexts, sheet)?;
    Ok(true)
}

/// Changes the one line that says it, so that comments stay.
fn choose(name: &str) -> anyhow::Result<bool> {
    let (path, contexts) = read()?;
    of(&contexts, &path, name)?;
    let file = std::fs::read(&path).with_context(|| unreadable(&path))?;
    let file = text_file::text(&file).map_err(|error| anyhow!("{} {error}", path.display()))?;
    // JSON is YAML: a quoted name is read as it is.
    let line = format!("current: {}", serde_json::to_string(name)?);
    let stands = |line: &&str| line.starts_with("current:");
    let text = match file.lines().find(stands) {
        Some(old) => file.replacen(old, &line, 1),
        None if contexts.current.is_some() => {
            bail!("in {} `current` does not begin a line: change it there", path.display())
        }
        None => format!("{line}\n{file}"),
    };
    // Whoever reads meanwhile reads the old file or the new one.
    let fresh = path.with_extension("yaml.new");
    let wrote = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path));
    wrote.with_context(|| format!("cannot write {}", path.display()))?;
    Printer::new(OutputFormat::Table)?
        .print_stderr(Report::default().line(format!("current: {name}")))?;
    Ok(true)
}

/// How the server is reached that the flags, the environment or the config file name.
pub(super) fn resolve_profile(args: &EndpointArgs) -> anyhow::Result<ServerProfile> {
    let TlsArgs { ca, client_cert, client_key } = args.tls.clone();
    let flags = |endpoint: &str| ServerProfile {
        endpoint: endpoint.to_owned(),
        ca: ca.clone(),
        client_cert: client_cert.clone(),
        client_key: client_key.clone(),
        key_file: args.key_file.clone(),
    };
    let way = match (&args.endpoint, &args.context) {
        (Some(endpoint), None) => return Ok(flags(endpoint)),
        (endpoint, Some(name)) => {
            let (path, contexts) = read()?;
            let way = of(&contexts, &path, name)?.clone();
            match endpoint {
                Some(endpoint) => ServerProfile { endpoint: endpoint.clone(), ..way },
                None => way,
            }
        }
        (None, None) => {
            let (path, contexts) = read()?;
            match &contexts.current {
                Some(name) => of(&contexts, &path, name)?.clone(),
                None => return Ok(flags(HERE)),
            }
        }
    };
    // A certificate and its key go together, so both come from one place.
    let (client_cert, client_key) = match client_cert {
        Some(_) => (client_cert, client_key),
        None => (way.client_cert, way.client_key),
    };
    if client_cert.is_some() != client_key.is_some() {
        bail!("the context has a `client_cert` without a `client_key`, or the reverse");
    }
    Ok(ServerProfile {
        endpoint: way.endpoint,
        ca: ca.or(way.ca),
        client_cert,
        client_key,
        key_file: args.key_file.clone().or(way.key_file),
    })
}

/// The name of the current context, if there is one.
pub(super) fn current() -> Option<String> {
    read().ok().and_then(|(_, contexts)| contexts.current)
}

fn of<'a>(contexts: &'a Contexts, path: &Path, name: &str) -> anyhow::Result<&'a ServerProfile> {
    contexts.contexts.get(name).ok_or_else(|| {
        let all: Vec<_> = contexts.contexts.keys().map(String::as_str).collect();
        let all = match all.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has: {}", all.join(", ")),
        };
        anyhow!("{} has no context `{name}`; {all}", path.display())
    })
}

/// The bytes of a file, and no more of them than one above the most.
fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// The config file's path and contexts; none of these if nobody wrote the file.
fn read() -> anyhow::Result<(PathBuf, Contexts)> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = set("SCOPEGATE_CONFIG");
    let home = || set("HOME").map(|home| home.join(".config"));
    let usual =
        || set("XDG_CONFIG_HOME").or_else(home).map(|dir| dir.join("scopegate/config.yaml"));
    let Some(path) = named.clone().or_else(usual) else {
        return Ok((PathBuf::from("~/.config/scopegate/config.yaml"), Contexts::default()));
    };
    let text = match bounded(&path) {
        Ok(bytes) if bytes.len() as u64 > LONGEST => {
            bail!("{} has more than {LONGEST} bytes: is it the right file?", path.display())
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
    // A file of the config is found from every directory: it is named as seen from the config file.
    let beside = std::path::absolute(&path).with_context(|| unreadable(&path))?;
    let beside = beside.parent().unwrap_or(Path::new("/"));
    for way in contexts.contexts.values_mut() {
        let files = [&mut way.ca, &mut way.client_cert, &mut way.client_key, &mut way.key_file];
        for file in files.into_iter().flatten() {
            *file = beside.join(&*file);
        }
    }
    Ok((path, contexts))
}
