//! `scopegate credential`: the commands of API credentials, which belong to companies.
//!
//! Not here: how scopes and other fields are changed; see `credential_scopes` and
//! `credential_update`. Secrets; see `secret`.

use clap::Subcommand;
use prost_types::{FieldMask, Timestamp};

use super::client::{
    Limit, Pages, ServerArgs, WriteArgs, free_text, on_terms, require, truncated, unwrap_response,
};
use super::confirmation::{Confirmation, rest_on};
use super::credential_args::CredentialArgs;
use super::credential_report::{after_change, before_removal, facts, lookup, read, report};
use super::credential_scopes;
use super::credential_update::{set_enabled, update};
use super::printer::{Cell, Report};
use super::scope_holders::{HolderGrant, grant_to_holders};
use super::secret::{self, SecretCommand};
use super::time;
use crate::proto::{
    CreateCredentialRequest, DeleteCredentialRequest, GetCredentialRequest, ListCredentialsRequest,
    ListCredentialsResponse, RevokeTokensRequest, UpdateCredentialRequest,
};

/// Commands of credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Create a credential, optionally with scopes.
    Create {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The scopes to grant, including all scopes that they imply.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// A description for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "TEXT")]
        label: String,
        /// When the credential expires: an RFC 3339 time, a date (its start in UTC), or a duration
        /// from now such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry)]
        expires_at: Option<Timestamp>,
        /// A URI to which a browser may be sent with an authorization code of the credential. Repeat it
        /// for others.
        #[arg(long = "redirect-uri", value_name = "URI")]
        redirect_uris: Vec<String>,
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
    /// List the credentials of a company, all or those that hold a scope.
    List {
        /// The company's id.
        company: String,
        /// Only credentials that hold this scope now.
        #[arg(long, default_value = "", hide_default_value = true)]
        scope: String,
        /// Include credentials whose grant of --scope is dormant.
        #[arg(long, requires = "scope")]
        include_dormant: bool,
        /// The maximum number to list.
        #[command(flatten)]
        limit: Limit,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change the label or the expiry of a credential.
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Update {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// A description for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, value_name = "TEXT", group = "what")]
        label: Option<String>,
        /// When the credential expires: an RFC 3339 time, a date (its start in UTC), or a duration
        /// from now such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry, group = "what")]
        expires_at: Option<Timestamp>,
        /// Remove the expiry.
        #[arg(long, conflicts_with = "expires_at", group = "what")]
        never_expires: bool,
        /// A URI to which a browser may be sent with an authorization code of the credential. Repeat it
        /// for others. The given URIs replace the present ones.
        #[arg(long = "redirect-uri", value_name = "URI", group = "what")]
        redirect_uris: Vec<String>,
        /// Remove all redirect URIs.
        #[arg(long, conflicts_with = "redirect_uris", group = "what")]
        no_redirect_uris: bool,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Enable a disabled credential: checks use its scopes again.
    Enable {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Disable a credential: every check of it is denied until it is enabled again.
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
    /// Delete a credential permanently. Before its id is used again, see `credential revoke-tokens`.
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
    /// Grant scopes to a credential, or to all credentials that hold a scope. Implied scopes are
    /// granted too.
    ///
    /// For example, after the catalog split `users:write` into two scopes and companies have the
    /// new one:
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
        /// The scopes. All must be in the ceiling of the company.
        #[arg(required_unless_present = "scope_holders", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Grant to all credentials that hold this scope now, instead of to one credential. Each
        /// grant is a change of its own, and a repeated run leaves finished grants unchanged. Asks
        /// for confirmation first.
        #[arg(long, value_name = "SCOPE")]
        scope_holders: Option<String>,
        /// Only credentials of this company; repeat the flag for several companies.
        #[arg(
            long = "company",
            id = "of_companies",
            value_name = "COMPANY",
            requires = "scope_holders"
        )]
        of_companies: Vec<String>,
        /// Grant to all holders without a confirmation.
        #[arg(long = "yes", id = "yes_to_all", requires = "scope_holders")]
        yes_to_all: bool,
        /// When the grants expire: an RFC 3339 time, a date (its start in UTC), or a duration from
        /// now such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = time::expiry)]
        expires_at: Option<Timestamp>,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Revoke scopes of a credential. Scopes that imply them are revoked too.
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
    /// Replace the scopes of a credential by these and all scopes that they imply.
    Replace {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The scopes.
        #[arg(required_unless_present = "allow_empty", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Allow an empty list, which removes all scopes.
        #[arg(long, conflicts_with = "scopes")]
        allow_empty: bool,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Set the scopes of a credential to those of its company: missing scopes are granted, and all
    /// others are revoked.
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
    /// Revoke all access tokens of a credential: those that the server issued until now, and those of
    /// the catalog's issuers that were issued until now or until another time. Use it after a
    /// credential, its company or a user was created again under an old id: tokens of other issuers
    /// for the old one are valid for the new one otherwise.
    RevokeTokens {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Revoke the tokens of the catalog's issuers that were issued until this time, instead of
        /// until now: an RFC 3339 time, a date (its start in UTC), or a duration before now such as
        /// `1h`.
        #[arg(long, value_name = "WHEN", value_parser = time::ago)]
        issued_before: Option<Timestamp>,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Manage the secrets of a credential.
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
            redirect_uris,
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
                    redirect_uris: redirect_uris,
                }
            );
            let response = unwrap_response(client.directory.create_credential(request).await)?;
            let report = after_change(
                &client,
                &write,
                None,
                require(&response.credential)?,
                response.revision,
            )
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
            redirect_uris,
            no_redirect_uris,
            confirmation,
            write,
        } => {
            let expiry_path = (expires_at.is_some() || never_expires).then_some("expires_at");
            let uris_path =
                (!redirect_uris.is_empty() || no_redirect_uris).then_some("redirect_uris");
            let paths = label.iter().map(|_| "label").chain(expiry_path).chain(uris_path);
            let paths = paths.map(ToOwned::to_owned);
            let request = on_terms!(
                write,
                UpdateCredentialRequest {
                    company_id: company,
                    credential_id: credential,
                    update_mask: Some(FieldMask { paths: paths.collect() }),
                    label: label.unwrap_or_default(),
                    enabled: false,
                    expires_at: expires_at,
                    redirect_uris: redirect_uris,
                }
            );
            update(request, &write, Some(confirmation)).await?;
        }
        CredentialCommand::Enable { target: CredentialArgs { company, credential }, write } => {
            set_enabled(company, credential, true, &write, None).await?;
        }
        CredentialCommand::Disable {
            target: CredentialArgs { company, credential },
            confirmation,
            write,
        } => {
            set_enabled(company, credential, false, &write, Some(confirmation)).await?;
        }
        CredentialCommand::Delete { target, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                DeleteCredentialRequest { company_id: company, credential_id: credential }
            );
            if confirmation.is_asked(&write) {
                let current = read(&mut client, &target).await?;
                let question = format!("Delete {target} permanently?");
                confirmation.ask(&client.printer, before_removal(&current), &question).await?;
                rest_on(&mut request.etag, &current.etag);
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
            // With --scope-holders, all positional arguments are scopes.
            let new_scopes = company.into_iter().chain(credential).chain(scopes).collect();
            let grant = HolderGrant { scopes: new_scopes, expires_at, yes: yes_to_all };
            return grant_to_holders(&scope, of_companies, grant, &write).await;
        }
        CredentialCommand::Grant { company, credential, scopes, expires_at, write, .. } => {
            let (company, credential) =
                (company.unwrap_or_default(), credential.unwrap_or_default());
            let target = CredentialArgs { company, credential };
            credential_scopes::grant(&target, scopes, expires_at, &write).await?;
        }
        CredentialCommand::Revoke { target, scopes, confirmation, write } => {
            credential_scopes::revoke(&target, scopes, confirmation, &write).await?;
        }
        CredentialCommand::Replace { target, scopes, allow_empty, confirmation, write } => {
            credential_scopes::replace(&target, scopes, allow_empty, confirmation, &write).await?;
        }
        CredentialCommand::Reset { target, confirmation, write } => {
            credential_scopes::reset(&target, confirmation, &write).await?;
        }
        CredentialCommand::RevokeTokens { target, issued_before, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                RevokeTokensRequest {
                    company_id: company,
                    credential_id: credential,
                    issued_before: issued_before,
                }
            );
            if confirmation.is_asked(&write) {
                let current = read(&mut client, &target).await?;
                let question = format!("Revoke all access tokens of {target}?");
                confirmation.ask(&client.printer, before_removal(&current), &question).await?;
                rest_on(&mut request.etag, &current.etag);
            }
            let response = unwrap_response(client.directory.revoke_tokens(request).await)?;
            let after = require(&response.credential)?;
            let report = after_change(&client, &write, None, after, response.revision).await;
            client.printer.print(&response, report)?;
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
