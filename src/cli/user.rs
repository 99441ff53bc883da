//! `scopegate user`: the users of a company and their roles.

use clap::Subcommand;
use tonic::Code;

use super::client::{
    Client, Limit, Pages, ServerArgs, WriteArgs, on_terms, require, truncated, unwrap_response,
};
use super::confirmation::{Confirmation, rest_on};
use super::failure;
use super::printer::{Cell, Report};
use super::undo::{self, Made, Undo};
use crate::proto::{
    DeleteUserRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, PutUserRequest, User,
};

/// Commands of users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user with these roles, or replace the roles of an existing user.
    Put {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// Roles of the catalog, separated by spaces or commas. Without any, the user has no roles.
        #[arg(value_name = "ROLE", value_delimiter = ',')]
        roles: Vec<String>,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a user.
    Get {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the users of a company.
    List {
        /// The company's id.
        company: String,
        /// The maximum number to list.
        #[command(flatten)]
        limit: Limit,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a user and all consents of the user.
    Delete {
        /// The company's id.
        company: String,
        /// The user's id.
        user: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn user(command: UserCommand) -> anyhow::Result<bool> {
    match command {
        UserCommand::Put { company, user, roles, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, read_revision) = read_at(&mut client, &company, &user).await?;
            let mut request = on_terms!(
                write,
                PutUserRequest { company_id: company, user_id: user, roles: roles }
            );
            if let Some(current) = before.as_ref().filter(|_| confirmation.is_asked(&write)) {
                let removed = current.roles.iter().filter(|role| !request.roles.contains(role));
                let removed: Vec<_> = removed.map(String::as_str).collect();
                if !removed.is_empty() {
                    let (removed, user) = (removed.join(" "), &current.user_id);
                    let question =
                        format!("Take the roles {removed} from {user} of {}?", current.company_id);
                    confirmation.ask(&client.printer, report(current), &question).await?;
                    rest_on(&mut request.etag, &current.etag);
                }
            }
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let response = unwrap_response(client.directory.put_user(request).await)?;
            response.warnings.iter().for_each(|warning| failure::warn(warning));
            let after = require(&response.user)?;
            let change = Made {
                company: &after.company_id,
                read: read_revision,
                answered: response.revision,
            };
            let undo = match undo(&write, before.as_ref(), after) {
                Some(_) if !undo::is_alone(&mut client, change).await => Undo::of_several(&write),
                undo => undo,
            };
            let is_same =
                write.is_same(etag.as_deref(), &after.etag, after.revision, response.revision);
            let mut user = after.clone();
            if write.dry_run && !is_same {
                user.revision = 0;
            }
            let report = write.sheet(response.revision, is_same).then(report(&user));
            client.printer.print_undoable(&response, report, undo)?;
        }
        UserCommand::Get { company, user, server } => {
            let mut client = server.open().await?;
            let request = GetUserRequest { company_id: company, user_id: user };
            let response = unwrap_response(client.directory.get_user(request).await)?;
            client.printer.print(&response, report(require(&response.user)?))?;
        }
        UserCommand::List { company, limit, server } => list(company, limit, &server).await?,
        UserCommand::Delete { company, user, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let current = match confirmation.is_asked(&write) {
                true => read(&mut client, &company, &user).await?,
                false => None,
            };
            let mut request =
                on_terms!(write, DeleteUserRequest { company_id: company, user_id: user });
            if let Some(current) = current {
                let (user, company) = (&current.user_id, &current.company_id);
                let question = format!("Delete {user} of {company} and all consents permanently?");
                confirmation.ask(&client.printer, report(&current), &question).await?;
                rest_on(&mut request.etag, &current.etag);
            }
            let response = unwrap_response(client.directory.delete_user(request).await)?;
            let user = require(&response.user)?;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .fact("company", user.company_id.clone())
                .fact("user", user.user_id.clone())
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
    }
    Ok(true)
}

async fn list(company: String, limit: Limit, server: &ServerArgs) -> anyhow::Result<()> {
    let mut client = server.open().await?;
    let (mut all, mut pages) = (ListUsersResponse::default(), Pages::of(limit));
    loop {
        let request = ListUsersRequest {
            company_id: company.clone(),
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = unwrap_response(client.directory.list_users(request).await)?;
        let more = pages.turn(page.users.len(), &page.next_page_token);
        all.users.extend(page.users);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            break;
        }
    }
    let rows = all.users.iter().map(|user| [user.user_id.clone().into(), Cell::list(&user.roles)]);
    let report = Report::default().rows(&["USER", "ROLES"], rows);
    client.printer.print(&all, truncated(report, &all.next_page_token))
}

/// Reads a user, if it exists.
async fn read(client: &mut Client, company: &str, user: &str) -> anyhow::Result<Option<User>> {
    Ok(read_at(client, company, user).await?.0)
}

/// Reads a user, if it exists, and the revision at which it was read; 0 if there is none.
async fn read_at(
    client: &mut Client,
    company: &str,
    user: &str,
) -> anyhow::Result<(Option<User>, u64)> {
    let request = GetUserRequest { company_id: company.to_owned(), user_id: user.to_owned() };
    match client.directory.get_user(request).await {
        Err(status) if status.code() == Code::NotFound => Ok((None, 0)),
        read => unwrap_response(read).map(|read| (read.user, read.revision)),
    }
}

/// The undo command of a change of roles. `None` if the roles are the same.
fn undo(write: &WriteArgs, before: Option<&User>, after: &User) -> Option<Undo> {
    let ids = [after.company_id.as_str(), after.user_id.as_str()];
    // A new user gets no undo command: the operator has just typed its id.
    let before = before?;
    let contains_all = |a: &[String], b: &[String]| a.iter().all(|role| b.contains(role));
    if contains_all(&before.roles, &after.roles) && contains_all(&after.roles, &before.roles) {
        return None;
    }
    let arguments = ids.into_iter().chain(before.roles.iter().map(String::as_str));
    Some(Undo::of(write)?.then(&["user", "put"], arguments, &["--yes"]))
}

fn report(user: &User) -> Report {
    Report::default()
        .fact("company", user.company_id.clone())
        .fact("user", user.user_id.clone())
        .fact("roles", if user.roles.is_empty() { "none".to_owned() } else { user.roles.join(" ") })
        .fact("etag", user.etag.clone())
        .revision(user.revision)
}
