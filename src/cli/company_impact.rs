//! Company impact: what goes with a company, and how a change of one is undone.

use super::client::{Client, WriteArgs, require, unwrap_response};
use super::company::facts;
use super::printer::{Report, count};
use super::time;
use super::undo::Undo;
use crate::proto::{
    AddCompanyScopesResponse, Company, GetCompanyRequest, ListCredentialsRequest, ListUsersRequest,
    RestrictCompanyScopesRequest,
};

/// How many pages of credentials, and of users, are counted before a question.
const PAGES: usize = 10;
/// How many of a page.
const PAGE: i32 = 1_000;

/// A company as it is now.
///
/// # Errors
/// There is none, or the server refused.
pub(super) async fn read(desk: &mut Client, company: &str) -> anyhow::Result<Company> {
    read_at(desk, company).await.0
}

/// A company as it is now, and the revision at which it was read.
pub(super) async fn read_at(desk: &mut Client, company: &str) -> (anyhow::Result<Company>, u64) {
    let request = GetCompanyRequest { company_id: company.to_owned() };
    match unwrap_response(desk.directory.get_company(request).await) {
        Ok(read) => (require(&read.company).cloned(), read.revision),
        Err(error) => (Err(error), 0),
    }
}

/// What goes with a company, and the company in words; and everything that is counted, to be
/// compared with what there is later.
///
/// # Errors
/// The server refused.
pub(super) async fn impact(
    desk: &mut Client,
    company: &Company,
) -> anyhow::Result<(Report, String, Vec<String>)> {
    let mut all = Vec::new();
    let (credentials, enabled, seen) = credentials(desk, &company.company_id, &mut all).await?;
    let users = users(desk, &company.company_id, &mut all).await?;
    let sheet = facts(company)
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
    Ok((sheet, what, all))
}

/// How many, as far as it was counted.
struct Counted {
    number: u64,
    has_more: bool,
}

impl Counted {
    fn text(&self, one: &str, many: &str) -> String {
        let number = count(self.number, one, many);
        if self.has_more { format!("more than {number}") } else { number }
    }
}

/// How many credentials, how many of them enabled, and when one of them was last seen.
async fn credentials(
    desk: &mut Client,
    company: &str,
    all: &mut Vec<String>,
) -> anyhow::Result<(Counted, Counted, String)> {
    let (mut number, mut enabled, mut seen, mut token) = (0, 0, None, String::new());
    for _ in 0..PAGES {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            page_size: PAGE,
            page_token: token,
            ..ListCredentialsRequest::default()
        };
        let page = unwrap_response(desk.directory.list_credentials(request).await)?;
        number += page.credentials.len() as u64;
        // An etag stands for all that was changed in one, and not for when it was seen.
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
    Ok((Counted { number, has_more }, Counted { number: enabled, has_more }, seen))
}

async fn users(desk: &mut Client, company: &str, all: &mut Vec<String>) -> anyhow::Result<Counted> {
    let (mut number, mut token) = (0, String::new());
    for _ in 0..PAGES {
        let request =
            ListUsersRequest { company_id: company.to_owned(), page_size: PAGE, page_token: token };
        let page = unwrap_response(desk.directory.list_users(request).await)?;
        number += page.users.len() as u64;
        all.extend(page.users.iter().map(|user| format!("user {}", user.user_id)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    Ok(Counted { number, has_more: !token.is_empty() })
}

/// How an update of these fields is undone, if it changed one.
pub(super) fn undo(
    terms: &WriteArgs,
    mask: &[String],
    before: &Company,
    after: &Company,
) -> Option<Undo> {
    let id = [before.company_id.as_str()];
    let names = |path: &str| mask.iter().any(|name| name == path);
    if names("enabled") && before.enabled != after.enabled {
        let undo = Undo::of(terms)?;
        return Some(match before.enabled {
            true => undo.then(&["company", "enable"], id, &[]),
            false => undo.then(&["company", "disable"], id, &["--yes"]),
        });
    }
    if names("display_name") && before.display_name != after.display_name {
        let name = format!("--display-name={}", before.display_name);
        return Some(Undo::of(terms)?.then(&["company", "update"], id, &[&name]));
    }
    None
}

/// How an addition to a ceiling is undone: by a restriction of exactly these scopes, as long as no
/// credential holds one of them.
pub(super) async fn undo_of_addition(
    desk: &mut Client,
    terms: &WriteArgs,
    done: &AddCompanyScopesResponse,
) -> Option<Undo> {
    let (undo, company) = (Undo::of(terms)?, done.company.as_ref()?);
    if done.added_scopes.is_empty() {
        return None;
    }
    let request = RestrictCompanyScopesRequest {
        company_id: company.company_id.clone(),
        scopes: done.added_scopes.clone(),
        validate_only: true,
        ..RestrictCompanyScopesRequest::default()
    };
    let tried = desk.authorization.restrict_company_scopes(request).await.ok()?.into_inner();
    let (mut goes, mut came) = (tried.restricted_scopes, done.added_scopes.clone());
    goes.sort();
    came.sort();
    if goes != came || tried.affected_credential_count > 0 {
        return Undo::none(terms, "credentials use these scopes, or more would go with them");
    }
    let places = std::iter::once(company.company_id.as_str());
    let places = places.chain(done.added_scopes.iter().map(String::as_str));
    Some(undo.then(&["company", "restrict"], places, &["--yes", "--affected", "0"]))
}
