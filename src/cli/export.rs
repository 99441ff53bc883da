//! `scopegate export`: writes the catalog and all resources as JSON lines, for people and for
//! `scopegate import`.
//!
//! `scopegate import` reads the lines without a `record`. Such a line never grants more than the
//! original. A grant that is not active, or that has an expiry of its own, is written as a separate
//! line with a `record`.
//!
//! Not here: secrets, the audit log, and a snapshot of one revision; use a backup for these.

use super::endpoint_args::EndpointArgs;
use clap::Args;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use tonic::Code;

use super::connection::{Connection, connect};
use super::failure::server_error;
use super::output::Output;
use super::time;

use crate::policy::text;
use crate::proto::catalog_service_client::CatalogServiceClient;
use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::{
    Company, Credential, GetCatalogRequest, GetConsentRequest, Grant, GrantState,
    ListCompaniesRequest, ListCredentialsRequest, ListUsersRequest, User,
};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write; `-` for standard output. An existing regular file is replaced. Anything
    /// else of that name, such as a link or a FIFO, is an error.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,

    /// The server to read.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// The page size of lists.
const PAGE_SIZE: i32 = 1_000;
/// The maximum size of a response in bytes: each company of a page can have all scopes of the
/// catalog.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Writes the export. True if it is complete.
///
/// # Errors
/// A resource could not be read or written.
pub async fn export(args: ExportArgs) -> anyhow::Result<bool> {
    let channel = connect(&args.server).await?;
    let mut export = Export {
        catalog: CatalogServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        directory: DirectoryServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        output: BufWriter::new(Output::open(&args.output)?),
    };
    let outcome = export.all().await;
    let (output, _) = export.output.into_parts();
    match outcome {
        Ok(()) => output.finish().map(|()| true),
        Err(error) => {
            output.give_up();
            Err(error)
        }
    }
}

struct Export {
    catalog: CatalogServiceClient<Connection>,
    directory: DirectoryServiceClient<Connection>,
    output: BufWriter<Output>,
}

/// Reads all pages of a list. The list ends early if its company is deleted in between.
macro_rules! pages {
    ($client:expr, $list:ident, $request:expr, $items:ident, |$item:ident| $each:expr) => {{
        let mut request = $request;
        loop {
            let page = match $client.$list(request.clone()).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == Code::NotFound => break,
                Err(status) => return Err(server_error(&status)),
            };
            for $item in page.$items {
                $each;
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }};
}

impl Export {
    async fn all(&mut self) -> anyhow::Result<()> {
        let catalog = self.catalog.get_catalog(GetCatalogRequest {}).await;
        let catalog = catalog.map_err(|status| server_error(&status))?.into_inner();
        self.line(&Record::Catalog { yaml: &catalog.yaml })?;
        let companies = ListCompaniesRequest { page_size: PAGE_SIZE, ..Default::default() };
        pages!(self.directory, list_companies, companies, companies, |company| {
            self.company(&company).await?
        });
        self.output.flush().context("cannot write")
    }

    async fn company(&mut self, company: &Company) -> anyhow::Result<()> {
        let company_id = company.company_id.clone();
        self.line(&company_line(company))?;
        let list = ListCredentialsRequest {
            company_id: company_id.clone(),
            page_size: PAGE_SIZE,
            ..Default::default()
        };
        let mut credentials = Vec::new();
        pages!(self.directory, list_credentials, list, credentials, |credential| {
            self.line(&credential_line(&credential))?;
            grant_lines(&credential).try_for_each(|line| self.line(&line))?;
            credentials.push(credential.credential_id)
        });
        let list = ListUsersRequest { company_id, page_size: PAGE_SIZE, ..Default::default() };
        pages!(self.directory, list_users, list, users, |user| {
            self.user(user, &credentials).await?
        });
        Ok(())
    }

    /// Writes a user and all consents of the user. There is no list of consents, so this reads one
    /// for each credential.
    async fn user(&mut self, user: User, credentials: &[String]) -> anyhow::Result<()> {
        let User { company_id, user_id, roles, .. } = user;
        self.line(&Record::User { company_id: &company_id, user_id: &user_id, roles: &roles })?;
        for credential_id in credentials {
            let (company_id, user_id) = (company_id.clone(), user_id.clone());
            let credential_id = credential_id.clone();
            let request = GetConsentRequest { company_id, credential_id, user_id };
            let consent = match self.directory.get_consent(request).await {
                Ok(read) => read.into_inner().consent,
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(server_error(&status)),
            };
            if let Some(consent) = consent {
                self.line(&Record::Consent {
                    company_id: &consent.company_id,
                    credential_id: &consent.credential_id,
                    user_id: &consent.user_id,
                    scopes: &consent.scopes,
                })?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(line).context("cannot write")?;
        writeln!(self.output, "{}", text::escaped_json(&line)).context("cannot write")
    }
}

/// A line that `scopegate import` skips.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record<'a> {
    Catalog {
        yaml: &'a str,
    },
    Grant {
        company_id: &'a str,
        credential_id: &'a str,
        scope: &'a str,
        state: &'static str,
        expires_at: Option<String>,
    },
    User {
        company_id: &'a str,
        user_id: &'a str,
        roles: &'a [String],
    },
    Consent {
        company_id: &'a str,
        credential_id: &'a str,
        user_id: &'a str,
        scopes: &'a [String],
    },
}

/// A company. `scopegate import` reads it, unless it is disabled.
#[derive(Serialize)]
struct CompanyLine<'a> {
    company_id: &'a str,
    display_name: &'a str,
    scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

/// A credential as `scopegate import` reads it.
#[derive(Serialize)]
struct CredentialLine<'a> {
    company_id: &'a str,
    credential_id: &'a str,
    label: &'a str,
    scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    enabled: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    redirect_uris: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_valid_from: Option<String>,
}

fn company_line(company: &Company) -> CompanyLine<'_> {
    CompanyLine {
        company_id: &company.company_id,
        display_name: &company.display_name,
        scopes: company.scopes.iter().map(|entry| entry.scope.as_str()).collect(),
        enabled: (!company.enabled).then_some(false),
    }
}

/// Whether a new grant of the scope would give the same access as this grant.
fn is_plain(grant: &Grant) -> bool {
    grant.state() == GrantState::Active && grant.expires_at.is_none()
}

fn credential_line(credential: &Credential) -> CredentialLine<'_> {
    let scopes = credential.grants.iter().filter(|grant| is_plain(grant));
    CredentialLine {
        company_id: &credential.company_id,
        credential_id: &credential.credential_id,
        label: &credential.label,
        scopes: scopes.map(|grant| grant.scope.as_str()).collect(),
        expires_at: credential.expires_at.as_ref().and_then(time::to_the_nanosecond),
        enabled: credential.enabled,
        redirect_uris: &credential.redirect_uris,
        tokens_valid_from: credential.tokens_valid_from.as_ref().and_then(time::to_the_nanosecond),
    }
}

fn grant_lines(credential: &Credential) -> impl Iterator<Item = Record<'_>> {
    let others = credential.grants.iter().filter(|grant| !is_plain(grant));
    others.map(|grant| Record::Grant {
        company_id: &credential.company_id,
        credential_id: &credential.credential_id,
        scope: &grant.scope,
        state: match grant.state() {
            GrantState::Active => "active",
            GrantState::Dormant => "dormant",
            GrantState::Expired => "expired",
            GrantState::Unspecified => "unknown",
        },
        expires_at: grant.expires_at.as_ref().and_then(time::to_the_nanosecond),
    })
}
