//! The library in process: decisions without a server.
//!
//! ```sh
//! cargo run --example embed
//! ```
//! ```text
//! granted:    Allowed { reach: All } at revision 4
//! restricted: Denied { reason: ScopeNotInCompany, .. } at revision 5
//! ```
//!
//! There is one process for a store: it holds a lock on the folder. A service that runs in several
//! processes asks a server instead.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use scopegate::authority::{
    Authority, CredentialChange, NewCompany, NewCredential, Restriction, WriteOptions,
};
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::query::{Query, Requirement, Subject};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;

const CATALOG: &str = "
name: example
scopes:
  docs:read: { title: Read documents }
  docs:write: { title: Change documents }
";
/// How many facts the cache may hold.
const CACHE_ENTRIES: u64 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path())?;
    let authority = Authority::new(Arc::new(store), CACHE_ENTRIES)?;

    // The audit log has this actor and reason of each change.
    let session = authority.internal_session("embed");
    let options = WriteOptions { reason: "an example".to_owned(), ..WriteOptions::default() };

    let (acme, app) = (CompanyId::parse("acme")?, CredentialId::parse("app")?);
    let write = Scope::parse("docs:write")?;
    session.apply_catalog(CATALOG, &options).await?;
    // With no scopes named, the company has the whole catalog.
    let company = NewCompany { id: acme.clone(), display_name: "Acme".to_owned(), scopes: None };
    session.create_company(&company, &options).await?;
    let credential = NewCredential {
        company: acme.clone(),
        id: app.clone(),
        label: "The app".to_owned(),
        scopes: vec![],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    session.create_credential(&credential, &options).await?;
    let grant = CredentialChange::Grant { scopes: vec![write.clone()], expires_at: None };
    session.change_credential(&acme, &app, &grant, &options).await?;

    let query = Query {
        subject: Subject::Known { company: acme.clone(), credential: app },
        needs: Requirement::Scopes(vec![write.clone()]),
        audience: None,
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    };
    // A change is in force once its call has returned, so no revision needs to be waited for.
    let answer = session.check(&query, Revision::ZERO).await?;
    println!("granted:    {} at revision {}", shown(&answer.verdict), answer.revision.0);

    let restriction = Restriction { company: acme, scopes: vec![write], acknowledge_impact: true };
    session.restrict_company(&restriction, &options).await?;
    let answer = session.check(&query, Revision::ZERO).await?;
    println!("restricted: {} at revision {}", shown(&answer.verdict), answer.revision.0);

    authority.close();
    Ok(())
}

fn shown(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed { reach } => format!("Allowed {{ reach: {reach:?} }}"),
        Verdict::Denied { reason, .. } => format!("Denied {{ reason: {reason:?}, .. }}"),
    }
}
