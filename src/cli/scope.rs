//! `scopegate scope`: shows the scopes of the current catalog.
//!
//! Not here: the catalog as a file, with all of its other parts; see [`super::catalog`].

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use serde_json::json;

use super::client::{ServerArgs, unwrap_response};
use super::printer::Report;
use crate::policy::catalog::Reach;
use crate::policy::catalog::endpoint::Endpoint;
use crate::policy::catalog::file::{CatalogFile, ScopeEntry};
use crate::policy::scope::Scope;
use crate::policy::suggestion::nearest;
use crate::proto::GetCatalogRequest;

/// Commands of scopes.
#[derive(Debug, Subcommand)]
pub enum ScopeCommand {
    /// List the scopes of the current catalog. Needs the role operator or auditor.
    List {
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a scope: the scopes that it implies, and the scopes, roles, endpoints and resources that use it.
    Get {
        /// The scope.
        scope: String,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached or returns an error, or there is no such scope.
pub async fn scope(command: ScopeCommand) -> anyhow::Result<bool> {
    let server = match &command {
        ScopeCommand::List { server } | ScopeCommand::Get { server, .. } => server,
    };
    let mut client = server.open().await?;
    let catalog = unwrap_response(client.catalog.get_catalog(GetCatalogRequest {}).await)?;
    let file = match catalog.yaml.as_str() {
        "" => CatalogFile::default(),
        yaml => CatalogFile::parse_stored(yaml).context(
            "the server's catalog cannot be parsed: is this program older than the server?",
        )?,
    };
    match command {
        ScopeCommand::List { .. } => {
            let all: Vec<_> = file.scopes.iter().map(|(name, entry)| json(name, entry)).collect();
            let answer = json!({ "scopes": all, "revision": catalog.revision.to_string() });
            client.printer.print_value(&answer, list(&file))?;
        }
        ScopeCommand::Get { scope, .. } => {
            let entry = file.scopes.iter().find(|(name, _)| name.as_str() == scope);
            let Some((name, entry)) = entry else {
                let suggestion = nearest(&scope, file.scopes.keys().map(Scope::as_str));
                let suggestion =
                    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                bail!(
                    "the catalog has no scope {}: run `scopegate scope list` to see \
                     all{suggestion}",
                    crate::policy::text::quoted(&scope, 64)
                );
            };
            let uses = Uses::of(name, &file);
            let mut answer = json(name, entry);
            let fields = answer.as_object_mut().ok_or_else(|| anyhow!("a scope is an object"))?;
            fields.insert("impliedBy".to_owned(), json!(uses.implied_by));
            fields.insert("roles".to_owned(), json!(uses.roles));
            fields.insert("endpoints".to_owned(), json!(uses.endpoints));
            fields.insert("resources".to_owned(), json!(uses.resources));
            fields.insert("revision".to_owned(), json!(catalog.revision.to_string()));
            client.printer.print_value(&answer, get(name, entry, &uses))?;
        }
    }
    Ok(true)
}

/// A scope in the JSON style of the API, which has no message for it.
fn json(name: &Scope, entry: &ScopeEntry) -> serde_json::Value {
    json!({
        "scope": name.as_str(),
        "title": entry.title,
        "implies": names(&entry.implies),
        "audiences": entry.audiences.iter().flatten().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn names(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

/// The audiences that a scope belongs to.
fn audiences(entry: &ScopeEntry) -> String {
    match &entry.audiences {
        None => "all".to_owned(),
        Some(some) => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

fn list(file: &CatalogFile) -> Report {
    let rows = file.scopes.iter().map(|(name, entry)| {
        [
            name.to_string().into(),
            entry.title.clone().into(),
            names(&entry.implies).join(" ").into(),
            audiences(entry).into(),
        ]
    });
    let report = Report::default().rows(&["SCOPE", "TITLE", "IMPLIES", "AUDIENCES"], rows);
    if report.is_empty() { report.line("none") } else { report }
}

/// The uses of a scope.
struct Uses {
    implied_by: Vec<String>,
    roles: Vec<String>,
    endpoints: Vec<String>,
    /// The type and the action of each rule of a resource.
    resources: Vec<String>,
}

impl Uses {
    fn of(name: &Scope, file: &CatalogFile) -> Self {
        let implies = |(_, entry): &(&Scope, &ScopeEntry)| entry.implies.contains(name);
        let roles = file.roles.iter().filter_map(|(role, permits)| {
            permits.scopes.get(name).map(|reach| match reach {
                Reach::All => role.to_string(),
                Reach::Own => format!("{role} (own records)"),
            })
        });
        let has = |needs: &Endpoint| needs.scopes.contains(name) || needs.any_of.contains(name);
        let needs = |(_, endpoint): &(&String, &Endpoint)| has(endpoint);
        let actions = file.resources.iter().flat_map(|(kind, resource)| {
            let own = resource.actions.iter();
            let own = own.filter(|(_, rules)| rules.iter().any(|rule| has(&rule.needs)));
            own.map(move |(action, _)| format!("{kind} {action}"))
        });
        Self {
            implied_by: file.scopes.iter().filter(implies).map(|(by, _)| by.to_string()).collect(),
            roles: roles.collect(),
            endpoints: file
                .endpoints_by_name
                .iter()
                .filter(needs)
                .map(|(at, _)| at.clone())
                .collect(),
            resources: actions.collect(),
        }
    }
}

fn get(name: &Scope, entry: &ScopeEntry, uses: &Uses) -> Report {
    let joined = |names: Vec<String>, separator: &str| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(separator),
    };
    Report::default()
        .fact("scope", name.to_string())
        .fact("title", entry.title.clone())
        .fact("implies", joined(names(&entry.implies), " "))
        .fact("implied by", joined(uses.implied_by.clone(), " "))
        .fact("audiences", audiences(entry))
        .fact("roles", joined(uses.roles.clone(), ", "))
        .rows(&["ENDPOINTS"], uses.endpoints.iter().map(|endpoint| [endpoint.clone().into()]))
        .rows(&["RESOURCES"], uses.resources.iter().map(|action| [action.clone().into()]))
}
