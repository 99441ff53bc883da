//! Scope undo: the commands that undo a change of the scopes of a credential.
//!
//! Added scopes are revoked. Lost scopes are granted again with their previous expiry. Other grants
//! are not touched. Each command is first tried on the server as a dry run. It is not printed if it
//! would leave other scopes or other expiries than before the change.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

use super::client::{Client, WriteArgs};
use super::credential_args::CredentialArgs;
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{
    Credential, GrantScopesRequest, GrantState, ReplaceScopesRequest, RevokeScopesRequest,
};

/// The maximum number of different expiries of lost grants. Each needs a command of its own.
const MAX_EXPIRIES: usize = 4;

/// A change of scopes.
pub(super) struct ScopeChange<'a> {
    pub(super) made: Made<'a>,
    pub(super) before: &'a Credential,
    pub(super) after: &'a Credential,
    pub(super) added: &'a [String],
    pub(super) removed: &'a [String],
}

type Expiries = BTreeMap<String, Option<Timestamp>>;

/// The active grants with their expiries.
fn active(credential: &Credential) -> Expiries {
    let active = |grant: &&crate::proto::Grant| grant.state() == GrantState::Active;
    let grants = credential.grants.iter().filter(active);
    grants.map(|grant| (grant.scope.clone(), grant.expires_at)).collect()
}

/// The scopes whose active grants no longer expire, and those whose grants expire later than
/// before.
pub(super) fn later_expiries(
    before: &Credential,
    after: &Credential,
) -> (Vec<String>, Vec<String>) {
    let (current_expiries, mut no_longer, mut later) = (active(after), vec![], vec![]);
    for (scope, expiry) in active(before) {
        let Some(expiry) = expiry else { continue };
        match current_expiries.get(&scope) {
            Some(None) => no_longer.push(scope),
            Some(Some(current))
                if (current.seconds, current.nanos) > (expiry.seconds, expiry.nanos) =>
            {
                later.push(scope);
            }
            _ => {}
        }
    }
    (no_longer, later)
}

/// The undo commands of a change. `None` if no active grant was changed. An undo without a command
/// if no command restores the exact state.
pub(super) async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    target: &CredentialArgs,
    change: ScopeChange<'_>,
) -> Option<Undo> {
    let ScopeChange { made, before, after, added, removed } = change;
    let undo = Undo::of(write)?;
    let (previous, current_expiries) = (active(before), active(after));
    let known: BTreeSet<_> = before.grants.iter().map(|grant| grant.scope.as_str()).collect();
    let lost: Expiries =
        removed.iter().filter_map(|s| Some((s.clone(), *previous.get(s)?))).collect();
    let changed_expiries = previous.iter().filter(|(scope, expiry)| {
        current_expiries.get(*scope).is_some_and(|current| current != *expiry)
    });
    let changed_expiries: Vec<_> = changed_expiries.map(|(scope, _)| scope.as_str()).collect();
    if added.is_empty() && lost.is_empty() && changed_expiries.is_empty() {
        return None;
    }
    if !undo::is_alone(client, made).await {
        return Undo::of_several(write);
    }
    let not_restored =
        format!("the undo does not restore the earlier expiry of {}", changed_expiries.join(" "));
    if added.is_empty() && lost.is_empty() {
        return Undo::none(write, &not_restored.replace("the undo does", "an undo command would"));
    }
    let inexact = || Undo::none(write, "no command restores the exact previous scopes");
    // Test that the current catalog and ceiling still permit exactly the previous scopes.
    if !replace_is_exact(client, target, previous.keys()).await
        || !revoke_is_exact(client, target, added, &previous).await
    {
        return inexact();
    }
    let mut by_expiry: BTreeMap<Option<(i64, i32)>, Vec<&str>> = BTreeMap::new();
    for (scope, expiry) in &lost {
        by_expiry
            .entry(expiry.map(|expiry| (expiry.seconds, expiry.nanos)))
            .or_default()
            .push(scope);
    }
    if by_expiry.len() > MAX_EXPIRIES {
        return inexact();
    }
    let arguments = |scopes: &[&str]| -> Vec<String> {
        let ids = [target.company.as_str(), target.credential.as_str()];
        ids.iter().chain(scopes).map(|word| (*word).to_owned()).collect()
    };
    let mut undo = undo;
    if !added.is_empty() {
        let added: Vec<_> = added.iter().map(String::as_str).collect();
        let arguments = arguments(&added);
        undo =
            undo.then(&["credential", "revoke"], arguments.iter().map(String::as_str), &["--yes"]);
    }
    // Grants without an expiry come first, then the latest expiry. A grant with a past expiry is
    // rejected, so only grants that have expired too follow it.
    let never = by_expiry.remove(&None).map(|scopes| (None, scopes));
    let expiries = by_expiry.into_iter().rev();
    for (expiry, scopes) in never.into_iter().chain(expiries) {
        let expiry = expiry.map(|(seconds, nanos)| Timestamp { seconds, nanos });
        if !grant_is_exact(client, target, &scopes, expiry, &previous).await {
            return inexact();
        }
        let arguments = arguments(&scopes);
        let arguments = arguments.iter().map(String::as_str);
        undo = match &expiry {
            Some(expiry) => {
                let expiry = time::to_the_nanosecond(expiry)?;
                undo.then(&["credential", "grant"], arguments, &["--expires-at", &expiry])
            }
            None => undo.then(&["credential", "grant"], arguments, &[]),
        };
    }
    let inactive = removed.iter().chain(added).filter(|s| known.contains(s.as_str()));
    let inactive: Vec<_> =
        inactive.filter(|s| !previous.contains_key(*s)).map(String::as_str).collect();
    if !inactive.is_empty() {
        let scopes = inactive.join(" ");
        undo = undo.note(format!("the undo does not restore inactive grants: {scopes}"));
    }
    if !changed_expiries.is_empty() {
        undo = undo.note(not_restored);
    }
    Some(undo)
}

/// Whether a replacement by these scopes leaves exactly these active.
async fn replace_is_exact<'a>(
    client: &mut Client,
    target: &CredentialArgs,
    scopes: impl Iterator<Item = &'a String>,
) -> bool {
    let scopes: Vec<_> = scopes.cloned().collect();
    let request = ReplaceScopesRequest {
        company_id: target.company.clone(),
        credential_id: target.credential.clone(),
        allow_empty: scopes.is_empty(),
        scopes: scopes.clone(),
        validate_only: true,
        ..ReplaceScopesRequest::default()
    };
    let preview = client.authorization.replace_scopes(request).await.ok();
    let remaining = preview.and_then(|preview| preview.into_inner().credential);
    remaining.is_some_and(|remaining| active(&remaining).into_keys().eq(scopes))
}

/// Whether a revocation of these scopes removes exactly these, and leaves only scopes of before.
async fn revoke_is_exact(
    client: &mut Client,
    target: &CredentialArgs,
    scopes: &[String],
    previous: &Expiries,
) -> bool {
    if scopes.is_empty() {
        return true;
    }
    let request = RevokeScopesRequest {
        company_id: target.company.clone(),
        credential_id: target.credential.clone(),
        scopes: scopes.to_vec(),
        validate_only: true,
        ..RevokeScopesRequest::default()
    };
    let Ok(preview) = client.authorization.revoke_scopes(request).await else { return false };
    let preview = preview.into_inner();
    let removed_scopes: BTreeSet<_> = preview.removed_scopes.iter().collect();
    let remaining = preview.credential.as_ref().map(active).unwrap_or_default();
    removed_scopes == scopes.iter().collect()
        && remaining.keys().all(|scope| previous.contains_key(scope))
}

/// Whether a grant of these scopes with this expiry adds exactly these, and changes no other
/// expiry.
async fn grant_is_exact(
    client: &mut Client,
    target: &CredentialArgs,
    scopes: &[&str],
    expiry: Option<Timestamp>,
    previous: &Expiries,
) -> bool {
    let request = GrantScopesRequest {
        company_id: target.company.clone(),
        credential_id: target.credential.clone(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: expiry,
        validate_only: true,
        ..GrantScopesRequest::default()
    };
    let Ok(preview) = client.authorization.grant_scopes(request).await else { return false };
    let preview = preview.into_inner();
    let added: BTreeSet<_> = preview.added_scopes.iter().map(String::as_str).collect();
    let remaining = preview.credential.as_ref().map(active).unwrap_or_default();
    added.into_iter().eq(scopes.iter().copied())
        && remaining
            .iter()
            .all(|(scope, expiry)| previous.get(scope).is_none_or(|previous| previous == expiry))
}
