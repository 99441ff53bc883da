//! `scopegate user`: somebody of a company, and the roles that they hold there.

use clap::Subcommand;

use super::asking::{Asking, Desk, Limit, Pages, Terms, answer, cut, on_terms, whole};
use super::printer::Sheet;
use crate::proto::{
    DeleteUserRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, PutUserRequest, User,
};

/// Commands of users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user with exactly these roles, or replace the roles of one.
    Put {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// Names of the catalog's roles; none leaves the user without any.
        #[arg(value_name = "ROLE")]
        roles: Vec<String>,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Show a user.
    Get {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
    /// List a company's users.
    List {
        /// The company's id.
        company: String,
        /// How many.
        #[command(flatten)]
        limit: Limit,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
    /// Delete a user with its consents.
    Delete {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn user(command: UserCommand) -> anyhow::Result<bool> {
    match command {
        UserCommand::Put { company, user, roles, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                PutUserRequest { company_id: company, user_id: user, roles: roles }
            );
            let before = etag(&desk, &terms, &request).await;
            let said = answer(desk.directory.put_user(request).await)?;
            let mut user = whole(&said.user)?.clone();
            let is_same =
                terms.is_same(before.as_deref(), &user.etag, user.revision, said.revision);
            if terms.dry_run && !is_same {
                user.revision = 0;
            }
            desk.printer.print(&said, terms.sheet(said.revision, is_same).then(sheet(&user)))?;
        }
        UserCommand::Get { company, user, asking } => {
            let mut desk = asking.open().await?;
            let request = GetUserRequest { company_id: company, user_id: user };
            let said = answer(desk.directory.get_user(request).await)?;
            desk.printer.print(&said, sheet(whole(&said.user)?))?;
        }
        UserCommand::List { company, limit, asking } => list(company, limit, &asking).await?,
        UserCommand::Delete { company, user, terms } => {
            let mut desk = terms.asking.open().await?;
            let request =
                on_terms!(terms, DeleteUserRequest { company_id: company, user_id: user });
            let said = answer(desk.directory.delete_user(request).await)?;
            let user = whole(&said.user)?;
            let sheet = terms
                .gone(said.revision, "delete", "deleted")
                .fact("company", user.company_id.clone())
                .fact("user", user.user_id.clone())
                .revision(terms.made(said.revision));
            desk.printer.print(&said, sheet)?;
        }
    }
    Ok(true)
}

async fn list(company: String, limit: Limit, asking: &Asking) -> anyhow::Result<()> {
    let mut desk = asking.open().await?;
    let (mut all, mut pages) = (ListUsersResponse::default(), Pages::of(limit));
    loop {
        let request = ListUsersRequest {
            company_id: company.clone(),
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = answer(desk.directory.list_users(request).await)?;
        let more = pages.turn(page.users.len(), &page.next_page_token);
        all.users.extend(page.users);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            break;
        }
    }
    let rows =
        all.users.iter().map(|user| [user.user_id.clone().into(), user.roles.join(" ").into()]);
    let sheet = Sheet::default().rows(&["USER", "ROLES"], rows);
    desk.printer.print(&all, cut(sheet, &all.next_page_token))
}

fn sheet(user: &User) -> Sheet {
    Sheet::default()
        .fact("company", user.company_id.clone())
        .fact("user", user.user_id.clone())
        .fact("roles", user.roles.join(" "))
        .fact("etag", user.etag.clone())
        .revision(user.revision)
}

/// The etag of a user before it is put, if that is of use.
async fn etag(desk: &Desk, terms: &Terms, request: &PutUserRequest) -> Option<String> {
    if !terms.compares() {
        return None;
    }
    let (company_id, user_id) = (request.company_id.clone(), request.user_id.clone());
    let read = desk.directory.clone().get_user(GetUserRequest { company_id, user_id }).await;
    Some(read.ok()?.into_inner().user?.etag)
}
