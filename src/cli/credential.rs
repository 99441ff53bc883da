//! `scopegate credential`: API clients of companies, and their scopes.
//!
//! Not here: their secrets; see `secret`.

use clap::Subcommand;
use prost_types::{FieldMask, Timestamp};

use super::check::word;
use super::client::{
    Client, Limit, Pages, ServerArgs, WriteArgs, free_text, moved, on_terms, require, truncated,
    unwrap_response,
};
use super::company::mask;
use super::confirmation::{Confirmation, rest_on, still_so};
use super::credential_args::CredentialArgs;
use super::failure;
use super::lookup::Lookup;
use super::printer::{Cell, Report};
use super::scope_holders::{Given, to_holders};
use super::scope_undo::{self, Change};
use super::secret::{self, SecretCommand};
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{
    CreateCredentialRequest, Credential, DeleteCredentialRequest, GetCredentialRequest,
    GrantScopesRequest, GrantState, ListCredentialsRequest, ListCredentialsResponse,
    ReplaceScopesRequest, ResetScopesRequest, RevokeScopesRequest, UpdateCredentialRequest,
};

/// Commands of credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Create a credential, with scopes if some are named.
    Create {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The scopes to grant, with all that they imply.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// What it is for, for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "TEXT")]
        label: String,
        /// When the credential ends: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry)]
        expires_at: Option<Timestamp>,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a credential and its grants.
    Get {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List a company's credentials, all or those that hold a scope.
    List {
        /// The company's id.
        company: String,
        /// Only those that hold this scope now.
        #[arg(long, default_value = "", hide_default_value = true)]
        scope: String,
        /// Also those whose grant of the --scope is dormant.
        #[arg(long, requires = "scope")]
        include_dormant: bool,
        /// The maximum number to list.
        #[command(flatten)]
        limit: Limit,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a credential's label or end.
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Update {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// What it is for, for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, value_name = "TEXT", group = "what")]
        label: Option<String>,
        /// When the credential ends: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry, group = "what")]
        expires_at: Option<Timestamp>,
        /// Let it never end.
        #[arg(long, conflicts_with = "expires_at", group = "what")]
        never_expires: bool,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Let checks of a credential be decided by its scopes again.
    Enable {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Suspend a credential: deny every check of it, at once, until it is enabled.
    Disable {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a credential, for good.
    Delete {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Give scopes to a credential, with all that they imply; or to all that hold a scope.
    ///
    /// After the catalog has split `users:write` into two scopes, and companies have the new one:
    /// scopegate credential grant --scope-holders users:write users:delete
    #[command(
        override_usage = "scopegate credential grant [OPTIONS] COMPANY CREDENTIAL SCOPE...\n       \
                                scopegate credential grant [OPTIONS] --scope-holders SCOPE NEW_SCOPE..."
    )]
    Grant {
        /// The company's id.
        #[arg(required_unless_present = "scope_holders")]
        company: Option<String>,
        /// The credential's id.
        #[arg(required_unless_present = "scope_holders")]
        credential: Option<String>,
        /// The scopes, all within the company's ceiling.
        #[arg(required_unless_present = "scope_holders", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Instead of one credential, all that hold this scope now. Each is a change of its own; run
        /// again, it changes nothing of what is done. It asks first.
        #[arg(long, value_name = "SCOPE")]
        scope_holders: Option<String>,
        /// Only holders of this company; may be given several times.
        #[arg(
            long = "company",
            id = "of_companies",
            value_name = "COMPANY",
            requires = "scope_holders"
        )]
        of_companies: Vec<String>,
        /// Grant to all holders without being asked.
        #[arg(long = "yes", id = "yes_to_all", requires = "scope_holders")]
        yes_to_all: bool,
        /// When the grants end: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry)]
        expires_at: Option<Timestamp>,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Take scopes from a credential, with those that imply them.
    Revoke {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The scopes.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Make a credential's scopes exactly these, with all that they imply.
    Replace {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The scopes.
        #[arg(required_unless_present = "allow_empty", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Name no scopes, and leave it without any.
        #[arg(long, conflicts_with = "scopes")]
        allow_empty: bool,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Set a credential's scopes to all of the company's scopes: it gains every scope of the
    /// company that it lacks, and loses every other.
    Reset {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// The credential's secrets.
    #[command(subcommand)]
    Secret(SecretCommand),
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn credential(command: CredentialCommand) -> anyhow::Result<bool> {
    match command {
        CredentialCommand::Create {
            target: CredentialArgs { company, credential },
            scopes,
            label,
            expires_at,
            write,
        } => {
            let mut client = write.asking.open().await?;
            let request = on_terms!(
                write,
                CreateCredentialRequest {
                    company_id: company,
                    credential_id: credential,
                    label: label,
                    scopes: scopes,
                    expires_at: expires_at,
                }
            );
            let response = unwrap_response(client.directory.create_credential(request).await)?;
            let report =
                shown(&client, &write, None, require(&response.credential)?, response.revision)
                    .await;
            client.printer.print(&response, report)?;
        }
        CredentialCommand::Get { target: CredentialArgs { company, credential }, server } => {
            let mut client = server.open().await?;
            let request = GetCredentialRequest { company_id: company, credential_id: credential };
            let response = unwrap_response(client.directory.get_credential(request).await)?;
            let credential = require(&response.credential)?;
            let lookup = lookup(&client, credential, None).await;
            client.printer.print(&response, report(credential, &lookup))?;
        }
        CredentialCommand::List { company, scope, include_dormant, limit, server } => {
            list(company, scope, include_dormant, limit, &server).await?;
        }
        CredentialCommand::Update {
            target: CredentialArgs { company, credential },
            label,
            expires_at,
            never_expires,
            confirmation,
            write,
        } => {
            let ends = (expires_at.is_some() || never_expires).then_some("expires_at");
            let paths = label.iter().map(|_| "label").chain(ends).map(ToOwned::to_owned);
            let request = on_terms!(
                write,
                UpdateCredentialRequest {
                    company_id: company,
                    credential_id: credential,
                    update_mask: Some(FieldMask { paths: paths.collect() }),
                    label: label.unwrap_or_default(),
                    enabled: false,
                    expires_at: expires_at,
                }
            );
            update(request, &write, Some(confirmation)).await?;
        }
        CredentialCommand::Enable { target: CredentialArgs { company, credential }, write } => {
            able(company, credential, true, &write, None).await?;
        }
        CredentialCommand::Disable {
            target: CredentialArgs { company, credential },
            confirmation,
            write,
        } => {
            able(company, credential, false, &write, Some(confirmation)).await?;
        }
        CredentialCommand::Delete { target, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                DeleteCredentialRequest { company_id: company, credential_id: credential }
            );
            if confirmation.is_asked(&write) {
                let now = read(&mut client, &target).await?;
                let question = format!("Delete {target}, for good?");
                confirmation.ask(&client.printer, at_stake(&now), &question).await?;
                rest_on(&mut request.etag, &now.etag);
            }
            let response = unwrap_response(client.directory.delete_credential(request).await)?;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .then(facts(require(&response.credential)?))
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
        CredentialCommand::Grant {
            company,
            credential,
            scopes,
            scope_holders: Some(scope),
            of_companies,
            yes_to_all,
            expires_at,
            write,
        } => {
            // With the holders of a scope for a credential, all words are scopes.
            let words = company.into_iter().chain(credential).chain(scopes).collect();
            let given = Given { scopes: words, expires_at, yes: yes_to_all };
            return to_holders(&scope, of_companies, given, &write).await;
        }
        CredentialCommand::Grant { company, credential, scopes, expires_at, write, .. } => {
            let (company, credential) =
                (company.unwrap_or_default(), credential.unwrap_or_default());
            let target = CredentialArgs { company, credential };
            let mut client = write.asking.open().await?;
            let (before, since) = read_at(&mut client, &target).await;
            let before = before.ok();
            let CredentialArgs { company, credential } = target.clone();
            let request = on_terms!(
                write,
                GrantScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes,
                    expires_at: expires_at,
                }
            );
            let response = unwrap_response(client.authorization.grant_scopes(request).await)?;
            let moved = (response.added_scopes.as_slice(), [].as_slice());
            let ends = before.as_ref().zip(response.credential.as_ref());
            let ends = ends.map(|(before, after)| scope_undo::moved_ends(before, after));
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo =
                undo(&mut client, &write, &target, made, before, &response.credential, moved).await;
            let report =
                shown(&client, &write, etag, require(&response.credential)?, response.revision)
                    .await;
            let (no_longer, later) = ends.unwrap_or_default();
            let report = moved_scopes(report, moved)
                .fact("no longer ends", no_longer.join(" "))
                .fact("ends later", later.join(" "));
            client.printer.print_undoable(&response, report, undo)?;
        }
        CredentialCommand::Revoke { target, scopes, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, since) = read_at(&mut client, &target).await;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                RevokeScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes.clone(),
                }
            );
            if confirmation.is_asked(&write) {
                let now = before.as_ref().map_err(failure::again)?;
                let ask = RevokeScopesRequest { validate_only: true, ..request.clone() };
                let preview =
                    unwrap_response(client.authorization.revoke_scopes(ask.clone()).await)?;
                let besides = without(&preview.removed_scopes, &scopes);
                // What is named goes by its name.
                if !besides.is_empty() {
                    let goes = at_stake(now).fact("removed", preview.removed_scopes.join(" "));
                    let question = format!(
                        "Take {} from {target}, too, which imply these?",
                        besides.join(" ")
                    );
                    confirmation.ask(&client.printer, goes, &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                    // The catalog has a say, too.
                    let again = unwrap_response(client.authorization.revoke_scopes(ask).await)?;
                    still_so(&preview.removed_scopes, &again.removed_scopes)?;
                }
            }
            let response = unwrap_response(client.authorization.revoke_scopes(request).await)?;
            let moved = ([].as_slice(), response.removed_scopes.as_slice());
            let before = before.ok();
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo =
                undo(&mut client, &write, &target, made, before, &response.credential, moved).await;
            let report =
                shown(&client, &write, etag, require(&response.credential)?, response.revision)
                    .await;
            client.printer.print_undoable(&response, moved_scopes(report, moved), undo)?;
        }
        CredentialCommand::Replace { target, scopes, allow_empty, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, since) = read_at(&mut client, &target).await;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                ReplaceScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes,
                    allow_empty: allow_empty,
                }
            );
            if confirmation.is_asked(&write) {
                let now = before.as_ref().map_err(failure::again)?;
                let ask = ReplaceScopesRequest { validate_only: true, ..request.clone() };
                let preview =
                    unwrap_response(client.authorization.replace_scopes(ask.clone()).await)?;
                if !preview.removed_scopes.is_empty() {
                    let goes = moved(at_stake(now), &preview.added_scopes, &preview.removed_scopes);
                    let removed = preview.removed_scopes.join(" ");
                    let question = format!("Take {removed} from {target}?");
                    confirmation.ask(&client.printer, goes, &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                    // The company's ceiling and the catalog have a say, too.
                    let again = unwrap_response(client.authorization.replace_scopes(ask).await)?;
                    let moves = (&again.added_scopes, &again.removed_scopes);
                    still_so(&(&preview.added_scopes, &preview.removed_scopes), &moves)?;
                }
            }
            let response = unwrap_response(client.authorization.replace_scopes(request).await)?;
            let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
            let before = before.ok();
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo =
                undo(&mut client, &write, &target, made, before, &response.credential, moved).await;
            let report =
                shown(&client, &write, etag, require(&response.credential)?, response.revision)
                    .await;
            client.printer.print_undoable(&response, moved_scopes(report, moved), undo)?;
        }
        CredentialCommand::Reset { target, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, since) = read_at(&mut client, &target).await;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                ResetScopesRequest { company_id: company, credential_id: credential }
            );
            if confirmation.is_asked(&write) {
                let now = before.as_ref().map_err(failure::again)?;
                let ask = ResetScopesRequest { validate_only: true, ..request.clone() };
                let preview =
                    unwrap_response(client.authorization.reset_scopes(ask.clone()).await)?;
                // A reset mostly widens, so it is asked about as soon as it changes anything.
                if !preview.added_scopes.is_empty() || !preview.removed_scopes.is_empty() {
                    let goes = moved(at_stake(now), &preview.added_scopes, &preview.removed_scopes);
                    let (gains, loses) = (preview.added_scopes.len(), preview.removed_scopes.len());
                    let question = format!(
                        "Set {target} to all of the company's scopes? It gains {gains} and loses \
                         {loses}."
                    );
                    confirmation.ask(&client.printer, goes, &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                    // The company's ceiling and the catalog have a say, too.
                    let again = unwrap_response(client.authorization.reset_scopes(ask).await)?;
                    let moves = (&again.added_scopes, &again.removed_scopes);
                    still_so(&(&preview.added_scopes, &preview.removed_scopes), &moves)?;
                }
            }
            let response = unwrap_response(client.authorization.reset_scopes(request).await)?;
            let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
            let before = before.ok();
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo =
                undo(&mut client, &write, &target, made, before, &response.credential, moved).await;
            let report =
                shown(&client, &write, etag, require(&response.credential)?, response.revision)
                    .await;
            let set = if write.dry_run { "would be set" } else { "is set" };
            let set = format!("{target} {set} to all of the company's scopes");
            let report = Report::default().line(set).then(report);
            client.printer.print_undoable(&response, moved_scopes(report, moved), undo)?;
        }
        CredentialCommand::Secret(command) => return secret::secret(command).await,
    }
    Ok(true)
}

async fn list(
    company: String,
    scope: String,
    include_dormant: bool,
    limit: Limit,
    server: &ServerArgs,
) -> anyhow::Result<()> {
    let mut client = server.open().await?;
    let (mut all, mut pages) = (ListCredentialsResponse::default(), Pages::of(limit));
    loop {
        let request = ListCredentialsRequest {
            company_id: company.clone(),
            scope: scope.clone(),
            include_dormant,
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = unwrap_response(client.directory.list_credentials(request).await)?;
        let more = pages.turn(page.credentials.len(), &page.next_page_token);
        all.credentials.extend(page.credentials);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            break;
        }
    }
    let rows = all.credentials.iter().map(|credential| {
        let seen = time::text(credential.last_seen_time.as_ref());
        [
            credential.credential_id.clone().into(),
            credential.label.clone().into(),
            Cell::state(credential.enabled, credential.expired),
            Cell::end_short(credential.expires_at.as_ref(), credential.expired),
            if seen.is_empty() { "never".into() } else { seen.into() },
            Cell::list(&credential.effective_scopes),
        ]
    });
    let head = &["CREDENTIAL", "LABEL", "STATE", "EXPIRES", "LAST SEEN", "SCOPES"];
    let report = Report::default().rows(head, rows);
    client.printer.print(&all, truncated(report, &all.next_page_token))
}

fn facts(credential: &Credential) -> Report {
    Report::default()
        .fact("company", credential.company_id.clone())
        .fact("credential", credential.credential_id.clone())
        .fact("label", credential.label.clone())
        .fact("state", Cell::state(credential.enabled, credential.expired))
}

/// A credential as people read it.
fn report(credential: &Credential, lookup: &Lookup) -> Report {
    let grants = credential.grants.iter().map(|grant| {
        let state = word(grant.state().as_str_name(), "GRANT_STATE_").to_ascii_lowercase();
        [
            grant.scope.clone().into(),
            Cell::colored(grant.state() == GrantState::Active, state),
            lookup.since(grant.granted_at_revision).into(),
            Cell::end(grant.expires_at.as_ref(), grant.state() == GrantState::Expired),
            lookup.title(&grant.scope).into(),
        ]
    });
    facts(credential)
        .fact("expires", Cell::end(credential.expires_at.as_ref(), credential.expired))
        .fact("last seen", time::text(credential.last_seen_time.as_ref()))
        .fact("secrets", credential.secret_ids.join(" "))
        .fact("created", time::text(credential.create_time.as_ref()))
        .fact("updated", time::text(credential.update_time.as_ref()))
        .fact("etag", credential.etag.clone())
        .revision(credential.revision)
        .titled(&["SCOPE", "GRANT", "SINCE", "EXPIRES", "TITLE"], grants)
}

async fn able(
    company: String,
    credential: String,
    enabled: bool,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let request = on_terms!(
        write,
        UpdateCredentialRequest {
            company_id: company,
            credential_id: credential,
            label: String::new(),
            enabled: enabled,
            expires_at: None,
            update_mask: mask("enabled"),
        }
    );
    update(request, write, confirmation).await
}

/// Updates. With an agreement it asks before a credential that works is disabled or ended.
async fn update(
    mut request: UpdateCredentialRequest,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (company, credential) = (request.company_id.clone(), request.credential_id.clone());
    let target = CredentialArgs { company, credential };
    let (before, since) = read_at(&mut client, &target).await;
    if let Some(confirmation) = confirmation.filter(|confirmation| confirmation.is_asked(write)) {
        let now = before.as_ref().map_err(failure::again)?;
        let names = |path: &str| {
            request.update_mask.iter().flat_map(|mask| &mask.paths).any(|name| name == path)
        };
        let is_over = |end: Option<&Timestamp>| end.is_some_and(time::is_past);
        let disables = names("enabled") && !request.enabled && now.enabled;
        let end = request.expires_at.as_ref().filter(|_| names("expires_at"));
        let is_sooner = |end: &&Timestamp| {
            now.expires_at.is_none_or(|then| (end.seconds, end.nanos) < (then.seconds, then.nanos))
        };
        let sooner = end.filter(|_| !is_over(now.expires_at.as_ref())).filter(is_sooner);
        if disables || sooner.is_some() {
            let question = match sooner {
                Some(end) if !is_over(Some(end)) && !disables => {
                    let (end, then) = (time::text(Some(end)), now.expires_at.as_ref());
                    let then = then.map_or("never".to_owned(), |then| time::text(Some(then)));
                    format!("Deny every check of {target} from {end} on? So far it ends {then}.")
                }
                _ => {
                    let until = if disables { "enabled" } else { "given a later end" };
                    format!("Deny every check of {target}, until it is {until}?")
                }
            };
            confirmation.ask(&client.printer, at_stake(now), &question).await?;
            rest_on(&mut request.etag, &now.etag);
        }
    }
    let mask = request.update_mask.clone().unwrap_or_default().paths;
    let response = unwrap_response(client.directory.update_credential(request).await)?;
    let after = require(&response.credential)?;
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let report = shown(&client, write, etag, after, response.revision).await;
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = match before.and_then(|before| undo_of_update(write, &target, &mask, &before, after))
    {
        Some(_) if !undo::is_alone(&mut client, made).await => Undo::of_several(write),
        undo => undo,
    };
    client.printer.print_undoable(&response, report, undo)
}

/// How an update of these fields is undone, if it changed one.
fn undo_of_update(
    write: &WriteArgs,
    target: &CredentialArgs,
    mask: &[String],
    before: &Credential,
    after: &Credential,
) -> Option<Undo> {
    let ids = [target.company.as_str(), target.credential.as_str()];
    let names = |path: &str| mask.iter().any(|name| name == path);
    if names("enabled") && before.enabled != after.enabled {
        let undo = Undo::of(write)?;
        return Some(match before.enabled {
            true => undo.then(&["credential", "enable"], ids, &[]),
            false => undo.then(&["credential", "disable"], ids, &["--yes"]),
        });
    }
    let mut flags = Vec::new();
    if names("label") && before.label != after.label {
        flags.push(format!("--label={}", before.label));
    }
    if names("expires_at") && before.expires_at != after.expires_at {
        match &before.expires_at {
            Some(end) => flags.push(format!("--expires-at={}", time::to_the_nanosecond(end)?)),
            None => flags.push("--never-expires".to_owned()),
        }
        // It may be a sooner end than the one now.
        if before.expires_at.is_some() {
            flags.push("--yes".to_owned());
        }
    }
    if flags.is_empty() {
        return None;
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Some(Undo::of(write)?.then(&["credential", "update"], ids, &flags))
}

/// A credential as it is now.
///
/// # Errors
/// There is none, or the server refused.
pub(super) async fn read(
    client: &mut Client,
    target: &CredentialArgs,
) -> anyhow::Result<Credential> {
    read_at(client, target).await.0
}

/// A credential as it is now, and the revision at which it was read.
async fn read_at(
    client: &mut Client,
    target: &CredentialArgs,
) -> (anyhow::Result<Credential>, u64) {
    let CredentialArgs { company, credential } = target.clone();
    let request = GetCredentialRequest { company_id: company, credential_id: credential };
    match unwrap_response(client.directory.get_credential(request).await) {
        Ok(read) => (require(&read.credential).cloned(), read.revision),
        Err(error) => (Err(error), 0),
    }
}

/// What an operator looks at before something is taken from a credential.
pub(super) fn at_stake(credential: &Credential) -> Report {
    let seen = time::text(credential.last_seen_time.as_ref());
    let scopes = credential.effective_scopes.join(" ");
    facts(credential)
        .fact("expires", time::text(credential.expires_at.as_ref()))
        .fact("last seen", if seen.is_empty() { "never".to_owned() } else { seen })
        .fact("active scopes", if scopes.is_empty() { "none".to_owned() } else { scopes })
}

fn without(scopes: &[String], named: &[String]) -> Vec<String> {
    scopes.iter().filter(|scope| !named.contains(scope)).cloned().collect()
}

fn moved_scopes(report: Report, (added, removed): (&[String], &[String])) -> Report {
    moved(report, added, removed)
}

/// How a change of scopes is undone, if what was there before is known.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    target: &CredentialArgs,
    made: Made<'_>,
    before: Option<Credential>,
    after: &Option<Credential>,
    (added, removed): (&[String], &[String]),
) -> Option<Undo> {
    if write.dry_run {
        return None;
    }
    let (before, after) = (&before?, after.as_ref()?);
    scope_undo::undo(client, write, target, Change { made, before, after, added, removed }).await
}

/// A credential as a change left it, or would leave it.
pub(super) async fn shown(
    client: &Client,
    write: &WriteArgs,
    before: Option<String>,
    credential: &Credential,
    answered: u64,
) -> Report {
    let is_same = write.is_same(before.as_deref(), &credential.etag, credential.revision, answered);
    let would = write.dry_run && !is_same;
    let lookup = lookup(client, credential, would.then_some(answered)).await;
    let mut credential = credential.clone();
    if would {
        credential.revision = 0;
        if credential.create_time == credential.update_time {
            // It is not there yet.
            credential.create_time = None;
        }
        credential.update_time = None;
    }
    write.sheet(answered, is_same).then(report(&credential, &lookup))
}

async fn lookup(client: &Client, credential: &Credential, last: Option<u64>) -> Lookup {
    let known = (credential.revision, credential.update_time.as_ref());
    let revisions = credential.grants.iter().map(|grant| grant.granted_at_revision);
    Lookup::of(client, &credential.company_id, known, last, revisions).await
}
