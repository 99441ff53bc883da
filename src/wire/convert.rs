//! Typed: messages as the policy's values, for what a command works out by itself.
//!
//! Not here: what a server refuses besides. What it has answered is well formed.

use anyhow::anyhow;
use jiff::Timestamp;
use prost_types::Timestamp as Wire;

use crate::policy::catalog::endpoint::RequestPath;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::id::{CompanyId, CredentialId, IdError, Name, UserId};
use crate::policy::query::{Query, Requirement};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::token::Token;
use crate::proto;

/// A check.
///
/// # Errors
/// A part of it is malformed.
pub(crate) fn query_from_proto(check: &proto::CheckRequest) -> anyhow::Result<Query> {
    let needs = match &check.endpoint {
        Some(call) => Requirement::Endpoint {
            method: call.method.as_str().into(),
            path: RequestPath::parse(call.path.as_str())
                .map_err(|error| anyhow!("the path {error}"))?,
        },
        None => {
            let mut once = Vec::new();
            for scope in scopes(&check.scopes)? {
                if !once.contains(&scope) {
                    once.push(scope);
                }
            }
            Requirement::Scopes(once)
        }
    };
    let token = check.token.as_ref().map(|token| {
        Ok::<_, anyhow::Error>(Token {
            audience: token.audience.clone(),
            scopes: scopes(&token.scopes)?,
            issued_at: token.issued_at.as_ref().map(time).transpose()?,
            expires_at: token.expires_at.as_ref().map(time).transpose()?,
            user: some(&token.user_id, "the token's user", UserId::parse)?,
        })
    });
    Ok(Query {
        company: id(&check.company_id, "the company's id", CompanyId::parse)?,
        credential: id(&check.credential_id, "the credential's id", CredentialId::parse)?,
        needs,
        audience: some(&check.audience, "the audience", Name::parse)?,
        token: token.transpose()?,
        user: some(&check.user_id, "the user's id", UserId::parse)?,
        owner: some(&check.resource_owner_id, "the owner's id", UserId::parse)?,
    })
}

/// A change.
///
/// # Errors
/// It is of a kind that this version does not know.
pub(crate) fn change(change: &proto::Change) -> anyhow::Result<Change> {
    let kind = ChangeKind::of(&change.kind).ok_or_else(|| {
        anyhow!(
            "revision {} is a `{}`, which this version does not know: use the server's version",
            change.revision,
            change.kind
        )
    })?;
    let fields = change.fields.iter().map(|field| FieldChange {
        field: field.field.clone(),
        before: field.before.clone(),
        after: field.after.clone(),
    });
    Ok(Change {
        revision: Revision(change.revision),
        time: time(&change.time.unwrap_or_default())?,
        // Who made it, people are shown as the server says it.
        author: Author::default(),
        kind,
        company: some(&change.company_id, "the company's id", CompanyId::parse)?,
        credential: some(&change.credential_id, "the credential's id", CredentialId::parse)?,
        user: some(&change.user_id, "the user's id", UserId::parse)?,
        added: scopes(&change.added_scopes)?,
        removed: scopes(&change.removed_scopes)?,
        displaced: vec![],
        fields: fields.collect(),
    })
}

/// A moment.
///
/// # Errors
/// There is no such moment.
pub(crate) fn time(time: &Wire) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::new(time.seconds, time.nanos)?)
}

fn scopes(names: &[String]) -> anyhow::Result<Vec<Scope>> {
    let scope = |name: &String| {
        Scope::parse(name.as_str()).map_err(|error| anyhow!("the scope `{name}` {error}"))
    };
    names.iter().map(scope).collect()
}

fn id<T>(text: &str, what: &str, parse: fn(String) -> Result<T, IdError>) -> anyhow::Result<T> {
    parse(text.to_owned()).map_err(|error| anyhow!("{what} {error}"))
}

fn some<T>(
    text: &str,
    what: &str,
    parse: fn(String) -> Result<T, IdError>,
) -> anyhow::Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { id(text, what, parse).map(Some) }
}

/// The contract's word for a reason.
pub(crate) fn reason_name(reason: Reason) -> String {
    let mut word = String::new();
    for c in format!("{reason:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_uppercase());
    }
    word
}
