//! `scopegate credential`: API clients of companies, and their scopes.
//!
//! Not here: their secrets; see `secret`.

use clap::Subcommand;
use prost_types::{FieldMask, Timestamp};

use super::asking::{Asking, Desk, Limit, Pages, Terms, answer, cut, moved, on_terms, whole};
use super::check::word;
use super::company::mask;
use super::lookup::Lookup;
use super::moment;
use super::printer::{Sheet, Words};
use super::secret::{self, SecretCommand};
use super::which::Which;
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
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The scopes to grant, with all that they imply.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// What it is for, for people.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        label: String,
        /// When the credential ends: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = moment::expiry)]
        expires_at: Option<Timestamp>,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Show a credential and its grants.
    Get {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
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
        /// How many.
        #[command(flatten)]
        limit: Limit,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
    /// Change a credential's label or end.
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Update {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// What it is for, for people.
        #[arg(long, value_name = "TEXT", group = "what")]
        label: Option<String>,
        /// When the credential ends: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = moment::expiry, group = "what")]
        expires_at: Option<Timestamp>,
        /// Let it never end.
        #[arg(long, conflicts_with = "expires_at", group = "what")]
        never_expires: bool,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Let checks of a credential be decided by its scopes again.
    Enable {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Suspend a credential: deny every check of it, at once, until it is enabled.
    Disable {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a credential, for good.
    Delete {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Give scopes to a credential, with all that they imply.
    Grant {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The scopes, all within the company's ceiling.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// When the grants end: an RFC 3339 time, a date (its start in UTC), or a duration such as `90d`.
        #[arg(long, value_name = "WHEN", value_parser = moment::expiry)]
        expires_at: Option<Timestamp>,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Take scopes from a credential, with those that imply them.
    Revoke {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The scopes.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Make a credential's scopes exactly these, with all that they imply.
    Replace {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The scopes.
        #[arg(required_unless_present = "allow_empty", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Name no scopes, and leave it without any.
        #[arg(long, conflicts_with = "scopes")]
        allow_empty: bool,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Make a credential's scopes a copy of its company's current ceiling.
    Reset {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// The credential's secrets.
    #[command(subcommand)]
    Secret(SecretCommand),
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn credential(command: CredentialCommand) -> anyhow::Result<bool> {
    match command {
        CredentialCommand::Create {
            which: Which { company, credential },
            scopes,
            label,
            expires_at,
            terms,
        } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                CreateCredentialRequest {
                    company_id: company,
                    credential_id: credential,
                    label: label,
                    scopes: scopes,
                    expires_at: expires_at,
                }
            );
            let said = answer(desk.directory.create_credential(request).await)?;
            let sheet = shown(&desk, &terms, None, whole(&said.credential)?, said.revision).await;
            desk.printer.print(&said, sheet)?;
        }
        CredentialCommand::Get { which: Which { company, credential }, asking } => {
            let mut desk = asking.open().await?;
            let request = GetCredentialRequest { company_id: company, credential_id: credential };
            let said = answer(desk.directory.get_credential(request).await)?;
            let credential = whole(&said.credential)?;
            let lookup = lookup(&desk, credential, None).await;
            desk.printer.print(&said, sheet(credential, &lookup))?;
        }
        CredentialCommand::List { company, scope, include_dormant, limit, asking } => {
            list(company, scope, include_dormant, limit, &asking).await?;
        }
        CredentialCommand::Update {
            which: Which { company, credential },
            label,
            expires_at,
            never_expires,
            terms,
        } => {
            let ends = (expires_at.is_some() || never_expires).then_some("expires_at");
            let paths = label.iter().map(|_| "label").chain(ends).map(ToOwned::to_owned);
            let request = on_terms!(
                terms,
                UpdateCredentialRequest {
                    company_id: company,
                    credential_id: credential,
                    update_mask: Some(FieldMask { paths: paths.collect() }),
                    label: label.unwrap_or_default(),
                    enabled: false,
                    expires_at: expires_at,
                }
            );
            update(request, &terms).await?;
        }
        CredentialCommand::Enable { which: Which { company, credential }, terms } => {
            able(company, credential, true, &terms).await?;
        }
        CredentialCommand::Disable { which: Which { company, credential }, terms } => {
            able(company, credential, false, &terms).await?;
        }
        CredentialCommand::Delete { which: Which { company, credential }, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                DeleteCredentialRequest { company_id: company, credential_id: credential }
            );
            let said = answer(desk.directory.delete_credential(request).await)?;
            let sheet = terms
                .gone(said.revision, "delete", "deleted")
                .then(facts(whole(&said.credential)?))
                .revision(terms.made(said.revision));
            desk.printer.print(&said, sheet)?;
        }
        CredentialCommand::Grant {
            which: Which { company, credential },
            scopes,
            expires_at,
            terms,
        } => {
            let mut desk = terms.asking.open().await?;
            let before = etag(&desk, &terms, &company, &credential).await;
            let request = on_terms!(
                terms,
                GrantScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes,
                    expires_at: expires_at,
                }
            );
            let said = answer(desk.authorization.grant_scopes(request).await)?;
            let credential = whole(&said.credential)?;
            let sheet = shown(&desk, &terms, before, credential, said.revision).await;
            desk.printer.print(&said, moved(sheet, &said.added_scopes, &[]))?;
        }
        CredentialCommand::Revoke { which: Which { company, credential }, scopes, terms } => {
            let mut desk = terms.asking.open().await?;
            let before = etag(&desk, &terms, &company, &credential).await;
            let request = on_terms!(
                terms,
                RevokeScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes,
                }
            );
            let said = answer(desk.authorization.revoke_scopes(request).await)?;
            let credential = whole(&said.credential)?;
            let sheet = shown(&desk, &terms, before, credential, said.revision).await;
            desk.printer.print(&said, moved(sheet, &[], &said.removed_scopes))?;
        }
        CredentialCommand::Replace {
            which: Which { company, credential },
            scopes,
            allow_empty,
            terms,
        } => {
            let mut desk = terms.asking.open().await?;
            let before = etag(&desk, &terms, &company, &credential).await;
            let request = on_terms!(
                terms,
                ReplaceScopesRequest {
                    company_id: company,
                    credential_id: credential,
                    scopes: scopes,
                    allow_empty: allow_empty,
                }
            );
            let said = answer(desk.authorization.replace_scopes(request).await)?;
            let credential = whole(&said.credential)?;
            let sheet = shown(&desk, &terms, before, credential, said.revision).await;
            desk.printer.print(&said, moved(sheet, &said.added_scopes, &said.removed_scopes))?;
        }
        CredentialCommand::Reset { which: Which { company, credential }, terms } => {
            let mut desk = terms.asking.open().await?;
            let before = etag(&desk, &terms, &company, &credential).await;
            let request = on_terms!(
                terms,
                ResetScopesRequest { company_id: company, credential_id: credential }
            );
            let said = answer(desk.authorization.reset_scopes(request).await)?;
            let credential = whole(&said.credential)?;
            let sheet = shown(&desk, &terms, before, credential, said.revision).await;
            desk.printer.print(&said, moved(sheet, &said.added_scopes, &said.removed_scopes))?;
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
    asking: &Asking,
) -> anyhow::Result<()> {
    let mut desk = asking.open().await?;
    let (mut all, mut pages) = (ListCredentialsResponse::default(), Pages::of(limit));
    loop {
        let request = ListCredentialsRequest {
            company_id: company.clone(),
            scope: scope.clone(),
            include_dormant,
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = answer(desk.directory.list_credentials(request).await)?;
        let more = pages.turn(page.credentials.len(), &page.next_page_token);
        all.credentials.extend(page.credentials);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            break;
        }
    }
    let rows = all.credentials.iter().map(|credential| {
        let seen = moment::text(credential.last_seen_time.as_ref());
        [
            credential.credential_id.clone().into(),
            credential.label.clone().into(),
            Words::state(credential.enabled, credential.expired),
            Words::end_short(credential.expires_at.as_ref(), credential.expired),
            if seen.is_empty() { "never".into() } else { seen.into() },
            credential.effective_scopes.join(" ").into(),
        ]
    });
    let head = &["CREDENTIAL", "LABEL", "STATE", "EXPIRES", "LAST SEEN", "SCOPES"];
    let sheet = Sheet::default().rows(head, rows);
    desk.printer.print(&all, cut(sheet, &all.next_page_token))
}

fn facts(credential: &Credential) -> Sheet {
    Sheet::default()
        .fact("company", credential.company_id.clone())
        .fact("credential", credential.credential_id.clone())
        .fact("label", credential.label.clone())
        .fact("state", Words::state(credential.enabled, credential.expired))
}

/// A credential as people read it.
fn sheet(credential: &Credential, lookup: &Lookup) -> Sheet {
    let grants = credential.grants.iter().map(|grant| {
        let state = word(grant.state().as_str_name(), "GRANT_STATE_").to_ascii_lowercase();
        [
            grant.scope.clone().into(),
            Words::news(grant.state() == GrantState::Active, state),
            lookup.since(grant.granted_at_revision).into(),
            Words::end(grant.expires_at.as_ref(), grant.state() == GrantState::Expired),
            lookup.title(&grant.scope).into(),
        ]
    });
    facts(credential)
        .fact("expires", Words::end(credential.expires_at.as_ref(), credential.expired))
        .fact("last seen", moment::text(credential.last_seen_time.as_ref()))
        .fact("secrets", credential.secret_ids.join(" "))
        .fact("created", moment::text(credential.create_time.as_ref()))
        .fact("updated", moment::text(credential.update_time.as_ref()))
        .fact("etag", credential.etag.clone())
        .revision(credential.revision)
        .titled(&["SCOPE", "GRANT", "SINCE", "EXPIRES", "TITLE"], grants)
}

async fn able(
    company: String,
    credential: String,
    enabled: bool,
    terms: &Terms,
) -> anyhow::Result<()> {
    let request = on_terms!(
        terms,
        UpdateCredentialRequest {
            company_id: company,
            credential_id: credential,
            label: String::new(),
            enabled: enabled,
            expires_at: None,
            update_mask: mask("enabled"),
        }
    );
    update(request, terms).await
}

async fn update(request: UpdateCredentialRequest, terms: &Terms) -> anyhow::Result<()> {
    let mut desk = terms.asking.open().await?;
    let before = etag(&desk, terms, &request.company_id, &request.credential_id).await;
    let said = answer(desk.directory.update_credential(request).await)?;
    let sheet = shown(&desk, terms, before, whole(&said.credential)?, said.revision).await;
    desk.printer.print(&said, sheet)
}

/// The etag of a credential before it is changed, if that is of use.
async fn etag(desk: &Desk, terms: &Terms, company: &str, credential: &str) -> Option<String> {
    if !terms.compares() {
        return None;
    }
    let request = GetCredentialRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
    };
    let read = desk.directory.clone().get_credential(request).await;
    Some(read.ok()?.into_inner().credential?.etag)
}

/// A credential as a change left it, or would leave it.
pub(super) async fn shown(
    desk: &Desk,
    terms: &Terms,
    before: Option<String>,
    credential: &Credential,
    answered: u64,
) -> Sheet {
    let is_same = terms.is_same(before.as_deref(), &credential.etag, credential.revision, answered);
    let would = terms.dry_run && !is_same;
    let lookup = lookup(desk, credential, would.then_some(answered)).await;
    let mut credential = credential.clone();
    if would {
        credential.revision = 0;
        credential.update_time = None;
    }
    terms.sheet(answered, is_same).then(sheet(&credential, &lookup))
}

async fn lookup(desk: &Desk, credential: &Credential, last: Option<u64>) -> Lookup {
    let known = (credential.revision, credential.update_time.as_ref());
    let revisions = credential.grants.iter().map(|grant| grant.granted_at_revision);
    Lookup::of(desk, &credential.company_id, known, last, revisions).await
}
