//! Company impact: the credentials and users that a change of a company affects, and the undo of such
//! a change.
//!
//! Not here: the impact preview of a restriction; see [`super::company_restrict`].

use super::client::{Client, WriteArgs, require, unwrap_response};
use super::company_view::facts;
use super::report::{Report, count};
use super::time;
use super::undo::Undo;
use crate::proto::{
    AddCompanyScopesResponse, Company, GetCompanyRequest, ListCredentialsRequest, ListUsersRequest,
    RestrictCompanyScopesRequest,
};

/// The maximum number of pages of credentials, and of users, to count before a confirmation.
const MAX_PAGES: usize = 10;
/// The size of a page.
const PAGE_SIZE: i32 = 1_000;

/// The current state of a company.
///
/// # Errors
/// The company does not exist, or the server returns another error.
pub(super) async fn read(client: &mut Client, company: &str) -> anyhow::Result<Company> {
    read_at(client, company).await.0
}

/// The current state of a company, and the revision at which it was read.
pub(super) async fn read_at(client: &mut Client, company: &str) -> (anyhow::Result<Company>, u64) {
    let request = GetCompanyRequest { company_id: company.to_owned() };
    match unwrap_response(client.directory.get_company(request).await) {
        Ok(read) => (require(&read.company).cloned(), read.revision),
        Err(error) => (Err(error), 0),
    }
}

/// The impact of a change of a company: a report, a phrase for a question, and an entry for each
/// credential and user. The caller compares the entries with later ones.
///
/// # Errors
/// The server returns an error.
pub(super) async fn impact(
    client: &mut Client,
    company: &Company,
) -> anyhow::Result<(Report, String, Vec<String>)> {
    let mut all = Vec::new();
    let (credentials, enabled, seen) = credentials(client, &company.company_id, &mut all).await?;
    let users = users(client, &company.company_id, &mut all).await?;
    let report = facts(company)
        .fact("scopes", company.scopes.len() as u64)
        .fact("credentials", credentials.text("credential", "credentials"))
        .fact("of these enabled", enabled.text("credential", "credentials"))
        .fact("users", users.text("user", "users"))
        .fact("last seen", if seen.is_empty() { "never".to_owned() } else { seen });
    let what = format!(
        "{} with {} and {}",
        company.company_id,
        credentials.text("credential", "credentials"),
        users.text("user", "users")
    );
    Ok((report, what, all))
}

/// A number, and whether counting stopped before the end.
struct ImpactCount {
    number: u64,
    has_more: bool,
}

impl ImpactCount {
    fn text(&self, one: &str, many: &str) -> String {
        let number = count(self.number, one, many);
        if self.has_more { format!("more than {number}") } else { number }
    }
}

/// The number of credentials, the number of enabled ones, and the last-seen time of the latest.
async fn credentials(
    client: &mut Client,
    company: &str,
    all: &mut Vec<String>,
) -> anyhow::Result<(ImpactCount, ImpactCount, String)> {
    let (mut number, mut enabled, mut seen, mut token) = (0, 0, None, String::new());
    for _ in 0..MAX_PAGES {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            page_size: PAGE_SIZE,
            page_token: token,
            ..ListCredentialsRequest::default()
        };
        let page = unwrap_response(client.directory.list_credentials(request).await)?;
        number += page.credentials.len() as u64;
        // The etag changes with the credential, but not with its last-seen time.
        let each = page.credentials.iter();
        all.extend(each.map(|one| format!("credential {} {}", one.credential_id, one.etag)));
        enabled += page.credentials.iter().filter(|credential| credential.enabled).count() as u64;
        let times = page.credentials.iter().filter_map(|credential| credential.last_seen_time);
        seen = times.chain(seen).max_by_key(|time| (time.seconds, time.nanos));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let has_more = !token.is_empty();
    let seen = time::text(seen.as_ref());
    Ok((ImpactCount { number, has_more }, ImpactCount { number: enabled, has_more }, seen))
}

async fn users(
    client: &mut Client,
    company: &str,
    all: &mut Vec<String>,
) -> anyhow::Result<ImpactCount> {
    let (mut number, mut token) = (0, String::new());
    for _ in 0..MAX_PAGES {
        let request = ListUsersRequest {
            company_id: company.to_owned(),
            page_size: PAGE_SIZE,
            page_token: token,
        };
        let page = unwrap_response(client.directory.list_users(request).await)?;
        number += page.users.len() as u64;
        all.extend(page.users.iter().map(|user| format!("user {}", user.user_id)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    Ok(ImpactCount { number, has_more: !token.is_empty() })
}

/// The undo of an update of these fields; None if it changed none of them.
pub(super) fn undo(
    write: &WriteArgs,
    mask: &[String],
    before: &Company,
    after: &Company,
) -> Option<Undo> {
    let id = [before.company_id.as_str()];
    let names = |path: &str| mask.iter().any(|name| name == path);
    if names("enabled") && before.enabled != after.enabled {
        let undo = Undo::of(write)?;
        return Some(match before.enabled {
            true => undo.then(&["company", "enable"], id, &[]),
            false => undo.then(&["company", "disable"], id, &["--yes"]),
        });
    }
    if names("display_name") && before.display_name != after.display_name {
        let name = format!("--display-name={}", before.display_name);
        return Some(Undo::of(write)?.then(&["company", "update"], id, &[&name]));
    }
    None
}

/// The undo of an addition to a ceiling: a restriction of exactly these scopes, if no credential holds
/// one of them.
pub(super) async fn undo_of_addition(
    client: &mut Client,
    write: &WriteArgs,
    response: &AddCompanyScopesResponse,
) -> Option<Undo> {
    let (undo, company) = (Undo::of(write)?, response.company.as_ref()?);
    if response.added_scopes.is_empty() {
        return None;
    }
    let request = RestrictCompanyScopesRequest {
        company_id: company.company_id.clone(),
        scopes: response.added_scopes.clone(),
        validate_only: true,
        ..RestrictCompanyScopesRequest::default()
    };
    let preview = client.authorization.restrict_company_scopes(request).await.ok()?.into_inner();
    let (mut removed, mut added) = (preview.restricted_scopes, response.added_scopes.clone());
    removed.sort();
    added.sort();
    if removed != added || preview.affected_credential_count > 0 {
        return Undo::none(write, "credentials use these scopes, or more would go with them");
    }
    let arguments = std::iter::once(company.company_id.as_str());
    let arguments = arguments.chain(response.added_scopes.iter().map(String::as_str));
    Some(undo.then(&["company", "restrict"], arguments, &["--yes", "--affected", "0"]))
}
