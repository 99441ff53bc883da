//! Etag: identifies the state of a resource that a caller has read.
//!
//! An etag is opaque to clients. It includes the incarnation of the store, so a restored store rejects
//! the etags of an earlier incarnation.

use crate::policy::company::Company;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::Incarnation;

/// The etag of a resource that last changed at this revision.
#[must_use]
pub fn of(incarnation: Incarnation, revision: Revision) -> String {
    let digest = blake3::Hasher::new()
        .update(b"resource")
        .update(incarnation.as_bytes())
        .update(&revision.0.to_be_bytes())
        .finalize();
    short(&digest)
}

/// The etag of an impact preview. It covers the ceiling, the requested scopes, and every fact that
/// could change the affected credentials (D7).
#[must_use]
pub fn of_impact(
    incarnation: Incarnation,
    company: &Company,
    impact: Option<Revision>,
    catalog: Revision,
    scopes: &[Scope],
) -> String {
    let mut names: Vec<_> = scopes.iter().map(Scope::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut digest = blake3::Hasher::new();
    digest.update(b"audit").update(incarnation.as_bytes());
    for revision in [company.created_at, company.revision, impact.unwrap_or_default(), catalog] {
        digest.update(&revision.0.to_be_bytes());
    }
    for name in names {
        // No scope has a space.
        digest.update(name.as_bytes()).update(b" ");
    }
    short(&digest.finalize())
}

fn short(digest: &blake3::Hash) -> String {
    digest.to_hex().chars().take(32).collect()
}
