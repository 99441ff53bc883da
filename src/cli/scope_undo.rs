//! Scope undo: how a change of a credential's scopes is taken back.
//!
//! What was added is revoked, and what was lost is granted again with the end that it had: a grant
//! that was kept is not touched. Each command was tried on the server as a dry run: one that would
//! leave another scope than before, or another end of one, is not printed.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

use super::client::{Client, WriteArgs};
use super::credential_args::CredentialArgs;
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{
    Credential, GrantScopesRequest, GrantState, ReplaceScopesRequest, RevokeScopesRequest,
};

/// How many different ends of lost grants are given back; each needs a command of its own.
const ENDS: usize = 4;

/// What a change did.
pub(super) struct Change<'a> {
    pub(super) made: Made<'a>,
    pub(super) before: &'a Credential,
    pub(super) after: &'a Credential,
    pub(super) added: &'a [String],
    pub(super) removed: &'a [String],
}

type Ends = BTreeMap<String, Option<Timestamp>>;

/// The active grants, with their ends.
fn active(credential: &Credential) -> Ends {
    let active = |grant: &&crate::proto::Grant| grant.state() == GrantState::Active;
    let grants = credential.grants.iter().filter(active);
    grants.map(|grant| (grant.scope.clone(), grant.expires_at)).collect()
}

/// The scopes whose active grants no longer end, and those whose grants end later than before.
pub(super) fn moved_ends(before: &Credential, after: &Credential) -> (Vec<String>, Vec<String>) {
    let (is, mut no_longer, mut later) = (active(after), vec![], vec![]);
    for (scope, end) in active(before) {
        let Some(end) = end else { continue };
        match is.get(&scope) {
            Some(None) => no_longer.push(scope),
            Some(Some(now)) if (now.seconds, now.nanos) > (end.seconds, end.nanos) => {
                later.push(scope);
            }
            _ => {}
        }
    }
    (no_longer, later)
}

/// How the change is undone. None if nothing that acts was changed; no line if none is exact.
pub(super) async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    target: &CredentialArgs,
    change: Change<'_>,
) -> Option<Undo> {
    let Change { made, before, after, added, removed } = change;
    let undo = Undo::of(write)?;
    let (was, is) = (active(before), active(after));
    let known: BTreeSet<_> = before.grants.iter().map(|grant| grant.scope.as_str()).collect();
    let lost: Ends = removed.iter().filter_map(|s| Some((s.clone(), *was.get(s)?))).collect();
    let moved = was.iter().filter(|(scope, end)| is.get(*scope).is_some_and(|now| now != *end));
    let moved: Vec<_> = moved.map(|(scope, _)| scope.as_str()).collect();
    if added.is_empty() && lost.is_empty() && moved.is_empty() {
        return None;
    }
    if !undo::is_alone(client, made).await {
        return Undo::of_several(write);
    }
    let not_moved = format!("the undo does not bring back the earlier end of {}", moved.join(" "));
    if added.is_empty() && lost.is_empty() {
        return Undo::none(write, &not_moved.replace("the undo does", "a line would"));
    }
    let inexact = || Undo::none(write, "no command brings back exactly what was there");
    // By the present catalog and the company's scopes, the set of before can be, and is whole.
    if !leaves(client, target, was.keys()).await || !takes(client, target, added, &was).await {
        return inexact();
    }
    let mut by_end: BTreeMap<Option<(i64, i32)>, Vec<&str>> = BTreeMap::new();
    for (scope, end) in &lost {
        by_end.entry(end.map(|end| (end.seconds, end.nanos))).or_default().push(scope);
    }
    if by_end.len() > ENDS {
        return inexact();
    }
    let places = |scopes: &[&str]| -> Vec<String> {
        let ids = [target.company.as_str(), target.credential.as_str()];
        ids.iter().chain(scopes).map(|word| (*word).to_owned()).collect()
    };
    let mut undo = undo;
    if !added.is_empty() {
        let added: Vec<_> = added.iter().map(String::as_str).collect();
        let places = places(&added);
        undo = undo.then(&["credential", "revoke"], places.iter().map(String::as_str), &["--yes"]);
    }
    // Those without an end first, then the latest: what has ended by itself is refused, and only
    // what has ended, too, comes behind it.
    let never = by_end.remove(&None).map(|scopes| (None, scopes));
    let ends = by_end.into_iter().rev();
    for (end, scopes) in never.into_iter().chain(ends) {
        let end = end.map(|(seconds, nanos)| Timestamp { seconds, nanos });
        if !gives(client, target, &scopes, end, &was).await {
            return inexact();
        }
        let places = places(&scopes);
        let places = places.iter().map(String::as_str);
        undo = match &end {
            Some(end) => {
                let end = time::to_the_nanosecond(end)?;
                undo.then(&["credential", "grant"], places, &["--expires-at", &end])
            }
            None => undo.then(&["credential", "grant"], places, &[]),
        };
    }
    let inactive = removed.iter().chain(added).filter(|s| known.contains(s.as_str()));
    let inactive: Vec<_> = inactive.filter(|s| !was.contains_key(*s)).map(String::as_str).collect();
    if !inactive.is_empty() {
        let scopes = inactive.join(" ");
        undo = undo.note(format!("the undo does not bring back inactive grants: {scopes}"));
    }
    if !moved.is_empty() {
        undo = undo.note(not_moved);
    }
    Some(undo)
}

/// Whether a replacement by these scopes leaves exactly these active.
async fn leaves<'a>(
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
    let tried = client.authorization.replace_scopes(request).await.ok();
    let left = tried.and_then(|tried| tried.into_inner().credential);
    left.is_some_and(|left| active(&left).into_keys().eq(scopes))
}

/// Whether a revocation of these scopes takes exactly these, and leaves only what was there.
async fn takes(
    client: &mut Client,
    target: &CredentialArgs,
    scopes: &[String],
    was: &Ends,
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
    let Ok(tried) = client.authorization.revoke_scopes(request).await else { return false };
    let tried = tried.into_inner();
    let goes: BTreeSet<_> = tried.removed_scopes.iter().collect();
    let left = tried.credential.as_ref().map(active).unwrap_or_default();
    goes == scopes.iter().collect() && left.keys().all(|scope| was.contains_key(scope))
}

/// Whether a grant of these scopes with this end gives exactly these, and moves no other end.
async fn gives(
    client: &mut Client,
    target: &CredentialArgs,
    scopes: &[&str],
    end: Option<Timestamp>,
    was: &Ends,
) -> bool {
    let request = GrantScopesRequest {
        company_id: target.company.clone(),
        credential_id: target.credential.clone(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: end,
        validate_only: true,
        ..GrantScopesRequest::default()
    };
    let Ok(tried) = client.authorization.grant_scopes(request).await else { return false };
    let tried = tried.into_inner();
    let added: BTreeSet<_> = tried.added_scopes.iter().map(String::as_str).collect();
    let left = tried.credential.as_ref().map(active).unwrap_or_default();
    added.into_iter().eq(scopes.iter().copied())
        && left.iter().all(|(scope, end)| was.get(scope).is_none_or(|was| was == end))
}
