//! `scopegate export`: everything that people want to read, one JSON object a line.
//!
//! A line without a `record` is as `scopegate import` reads it, and gives no more than there is:
//! a grant that does not count, or ends before its credential, has a line of its own.
//!
//! Not here: secrets, the audit log, and one revision for all of it; a backup has these.

use std::io::{BufWriter, Write};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use super::output::Output;
use super::{PATIENCE, endpoint, reach, said};
use crate::config::ExportArgs;
use crate::proto::catalog_service_client::CatalogServiceClient;
use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::{
    Company, Credential, GetCatalogRequest, GetConsentRequest, GrantState, ListCompaniesRequest,
    ListCredentialsRequest, ListUsersRequest, User,
};

/// How many resources to ask for at once.
const PAGE: i32 = 1_000;
/// The most bytes of a page: a company may name a whole catalog.
const MESSAGE: usize = 256 << 20;

/// Exports. True if all is written.
///
/// # Errors
/// Not all could be read or written.
pub async fn export(args: ExportArgs) -> anyhow::Result<bool> {
    let channel = reach(endpoint(&args.endpoint)?.connect_timeout(PATIENCE)).await?;
    let mut export = Export {
        catalog: CatalogServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE),
        directory: DirectoryServiceClient::new(channel).max_decoding_message_size(MESSAGE),
        output: BufWriter::new(Output::open(&args.output)?),
    };
    let done = export.all().await;
    let (output, _) = export.output.into_parts();
    match done {
        Ok(()) => output.finish().map(|()| true),
        Err(error) => {
            output.give_up();
            Err(error)
        }
    }
}

struct Export {
    catalog: CatalogServiceClient<Channel>,
    directory: DirectoryServiceClient<Channel>,
    output: BufWriter<Output>,
}

/// Reads all pages of a list.
macro_rules! pages {
    ($client:expr, $list:ident, $request:expr, $items:ident, |$item:ident| $each:expr) => {{
        let mut request = $request;
        loop {
            let page = $client.$list(request.clone()).await.map_err(|status| said(&status))?;
            let page = page.into_inner();
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
        let catalog = catalog.map_err(|status| said(&status))?.into_inner();
        self.line(&json!({ "record": "catalog", "yaml": catalog.yaml }))?;
        let companies = ListCompaniesRequest { page_size: PAGE, ..Default::default() };
        pages!(self.directory, list_companies, companies, companies, |company| {
            self.company(company).await?
        });
        self.output.flush().context("cannot write")
    }

    async fn company(&mut self, company: Company) -> anyhow::Result<()> {
        let company_id = company.company_id.clone();
        self.line(&company_line(company))?;
        let list =
            ListCredentialsRequest { company_id: company_id.clone(), page_size: PAGE, ..Default::default() };
        let mut credentials = Vec::new();
        pages!(self.directory, list_credentials, list, credentials, |credential| {
            credential_lines(&credential).iter().try_for_each(|line| self.line(line))?;
            credentials.push(credential.credential_id)
        });
        let list = ListUsersRequest { company_id, page_size: PAGE, ..Default::default() };
        pages!(self.directory, list_users, list, users, |user| {
            self.user(user, &credentials).await?
        });
        Ok(())
    }

    /// A user, and every consent. There is no list of those: each credential is asked for.
    async fn user(&mut self, user: User, credentials: &[String]) -> anyhow::Result<()> {
        let User { company_id, user_id, roles, .. } = user;
        self.line(&json!({
            "record": "user", "company_id": company_id, "user_id": user_id, "roles": roles,
        }))?;
        for credential_id in credentials {
            let (company_id, user_id) = (company_id.clone(), user_id.clone());
            let credential_id = credential_id.clone();
            let asked = GetConsentRequest { company_id, credential_id, user_id };
            let consent = match self.directory.get_consent(asked).await {
                Ok(read) => read.into_inner().consent,
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(said(&status)),
            };
            if let Some(consent) = consent {
                self.line(&json!({
                    "record": "consent", "company_id": consent.company_id,
                    "credential_id": consent.credential_id, "user_id": consent.user_id,
                    "scopes": consent.scopes,
                }))?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &Value) -> anyhow::Result<()> {
        writeln!(self.output, "{line}").context("cannot write")
    }
}

fn company_line(company: Company) -> Value {
    let scopes: Vec<_> = company.scopes.into_iter().map(|place| place.scope).collect();
    let mut line = json!({
        "company_id": company.company_id, "display_name": company.display_name, "scopes": scopes,
    });
    if let (false, Some(line)) = (company.enabled, line.as_object_mut()) {
        line.insert("enabled".to_owned(), json!(false));
    }
    line
}

fn credential_lines(credential: &Credential) -> Vec<Value> {
    let (company_id, credential_id) = (&credential.company_id, &credential.credential_id);
    let plain = |grant: &&crate::proto::Grant| {
        grant.state() == GrantState::Active && grant.expires_at.is_none()
    };
    let scopes: Vec<_> = credential.grants.iter().filter(plain).map(|grant| &grant.scope).collect();
    let mut line = json!({
        "company_id": company_id, "credential_id": credential_id, "label": credential.label,
        "scopes": scopes, "enabled": credential.enabled,
    });
    let end = credential.expires_at.as_ref().and_then(moment);
    if let (Some(end), Some(line)) = (end, line.as_object_mut()) {
        line.insert("expires_at".to_owned(), json!(end));
    }
    let mut lines = vec![line];
    for grant in credential.grants.iter().filter(|grant| !plain(grant)) {
        let state = match grant.state() {
            GrantState::Active => "active",
            GrantState::Dormant => "dormant",
            GrantState::Expired => "expired",
            GrantState::Unspecified => "unknown",
        };
        lines.push(json!({
            "record": "grant", "company_id": company_id, "credential_id": credential_id,
            "scope": grant.scope, "state": state,
            "expires_at": grant.expires_at.as_ref().and_then(moment),
        }));
    }
    lines
}

fn moment(time: &prost_types::Timestamp) -> Option<String> {
    Timestamp::new(time.seconds, time.nanos).ok().map(|time| time.to_string())
}
