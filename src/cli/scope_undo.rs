//! Scope undo: how a change of a credential's scopes is taken back.
//!
//! What is printed was tried on the server as a dry run: a command that would leave another set
//! than the one before is not printed.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

use super::asking::{Desk, Terms};
use super::moment;
use super::undo::Undo;
use super::which::Which;
use crate::proto::{Credential, GrantScopesRequest, GrantState, ReplaceScopesRequest};

/// How many different ends of lost grants are given back; each needs a command of its own.
const ENDS: usize = 4;

/// Which change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Scopes were granted.
    Granted,
    /// Scopes were revoked.
    Revoked,
    /// All scopes were replaced, or reset.
    Replaced,
}

/// What a change did.
pub(super) struct Change<'a> {
    pub(super) kind: Changed,
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

/// How the change is undone. None if nothing that acts was changed, or if no command is exact.
pub(super) async fn undo(
    desk: &mut Desk,
    terms: &Terms,
    which: &Which,
    change: Change<'_>,
) -> Option<Undo> {
    let Change { kind, before, after, added, removed } = change;
    let undo = Undo::of(terms)?;
    let (was, is) = (active(before), active(after));
    let known: BTreeSet<_> = before.grants.iter().map(|grant| grant.scope.as_str()).collect();
    // Another client changed it between the read and the change.
    if added.iter().any(|scope| was.contains_key(scope))
        || removed.iter().any(|scope| !known.contains(scope.as_str()))
    {
        return None;
    }
    let lost: Ends = removed.iter().filter_map(|s| Some((s.clone(), *was.get(s)?))).collect();
    if added.is_empty() && lost.is_empty() {
        return None;
    }
    let Which { company, credential } = which;
    let ids = [company.as_str(), credential.as_str()];
    // The whole set of before: it is left by the undo exactly if a replacement leaves it so.
    if !leaves(desk, which, was.keys()).await {
        return None;
    }
    let (mut by_end, mut never): (BTreeMap<String, Vec<&str>>, Vec<&str>) = Default::default();
    for (scope, end) in &lost {
        match end {
            Some(end) => {
                by_end.entry(moment::to_the_nanosecond(end)?).or_default().push(scope);
            }
            None => never.push(scope),
        }
    }
    if by_end.len() > ENDS {
        return None;
    }
    for (end, scopes) in &by_end {
        if !gives(desk, which, scopes, end).await {
            return None;
        }
    }
    let words = |scopes: &[&str]| -> Vec<String> {
        ids.iter().chain(scopes).map(|word| (*word).to_owned()).collect()
    };
    let mut undo = match kind {
        Changed::Granted => {
            let added: Vec<_> = added.iter().map(String::as_str).collect();
            let places = words(&added);
            undo.then(&["credential", "revoke"], places.iter().map(String::as_str), &["--yes"])
        }
        Changed::Revoked if never.is_empty() => undo,
        Changed::Revoked => {
            let places = words(&never);
            undo.then(&["credential", "grant"], places.iter().map(String::as_str), &[])
        }
        Changed::Replaced => {
            let stays = |scope: &&String| lost.get(*scope).is_none_or(Option::is_none);
            let first: Vec<_> = was.keys().filter(stays).collect();
            if !by_end.is_empty() && !leaves(desk, which, first.iter().copied()).await {
                return None;
            }
            let first: Vec<_> = first.into_iter().map(String::as_str).collect();
            let places = words(&first);
            let flags: &[&str] =
                if first.is_empty() { &["--allow-empty", "--yes"] } else { &["--yes"] };
            undo.then(&["credential", "replace"], places.iter().map(String::as_str), flags)
        }
    };
    for (end, scopes) in &by_end {
        let places = words(scopes);
        let places = places.iter().map(String::as_str);
        undo = undo.then(&["credential", "grant"], places, &["--expires-at", end]);
    }
    let inactive = removed.iter().chain(added).filter(|s| known.contains(s.as_str()));
    let inactive: Vec<_> = inactive.filter(|s| !was.contains_key(*s)).map(String::as_str).collect();
    if !inactive.is_empty() {
        let scopes = inactive.join(" ");
        undo = undo.note(format!("the undo does not bring back inactive grants: {scopes}"));
    }
    let moved = was.iter().filter(|(scope, end)| is.get(*scope).is_some_and(|now| now != *end));
    let moved: Vec<_> = moved.map(|(scope, _)| scope.as_str()).collect();
    if !moved.is_empty() {
        let scopes = moved.join(" ");
        undo = undo.note(format!("the undo does not bring back the earlier end of {scopes}"));
    }
    Some(undo)
}

/// Whether a replacement by these scopes leaves exactly these active.
async fn leaves<'a>(
    desk: &mut Desk,
    which: &Which,
    scopes: impl Iterator<Item = &'a String>,
) -> bool {
    let scopes: Vec<_> = scopes.cloned().collect();
    let request = ReplaceScopesRequest {
        company_id: which.company.clone(),
        credential_id: which.credential.clone(),
        allow_empty: scopes.is_empty(),
        scopes: scopes.clone(),
        validate_only: true,
        ..ReplaceScopesRequest::default()
    };
    let tried = desk.authorization.replace_scopes(request).await.ok();
    let left = tried.and_then(|tried| tried.into_inner().credential);
    left.is_some_and(|left| active(&left).into_keys().eq(scopes))
}

/// Whether a grant of these scopes with this end gives exactly these.
async fn gives(desk: &mut Desk, which: &Which, scopes: &[&str], end: &str) -> bool {
    let Ok(end) = moment::exact(end) else { return false };
    let request = GrantScopesRequest {
        company_id: which.company.clone(),
        credential_id: which.credential.clone(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: Some(end),
        validate_only: true,
        ..GrantScopesRequest::default()
    };
    let tried = desk.authorization.grant_scopes(request).await.ok();
    tried.is_some_and(|tried| {
        let added: BTreeSet<_> = tried.into_inner().added_scopes.into_iter().collect();
        added.iter().map(String::as_str).eq(scopes.iter().copied())
    })
}
