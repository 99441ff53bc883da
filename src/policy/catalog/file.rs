//! The catalog file: YAML to a catalog's parts, every problem with its line and column.
//!
//! Not here: scope ids. A file has names; the catalog that adopts it gives them ids.

mod cycle;
mod duration;
mod error;
mod host;
mod issuers;
mod raw;
mod resources;
mod validator;
pub(super) mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_saphyr::Location;

pub use self::duration::{MAX_CLOCK_SKEW, duration, duration_or_zero};
pub use self::error::{CatalogError, CatalogErrors};
pub use self::host::check_own_issuer;
use self::raw::RawFile;
use self::validator::FileValidator;
pub use self::validator::{MAX_AUDS, MAX_HOSTS};
pub use super::endpoint::is_method;
use super::endpoint::{Endpoint, EndpointTree};
use super::issuer::Issuer;
use super::rename::Renames;
use super::resource::ResourceType;
use super::{Audience, RoleEntry};
use crate::policy::id::Name;
use crate::policy::scope::Scope;
use crate::policy::text;

/// The limit of bytes of a token's audience.
pub const MAX_AUDIENCE_LEN: usize = 512;

/// The most bytes that a catalog file can have.
pub const MAX_LEN: usize = 16 << 20;

/// A catalog file that holds together.
#[derive(Clone, Debug, Default)]
pub struct CatalogFile {
    /// The platform's name.
    pub name: String,
    /// The audiences by name.
    pub audiences: BTreeMap<Name, Audience>,
    /// The scopes by name.
    pub scopes: BTreeMap<Scope, ScopeEntry>,
    /// The scopes that had another name, by their new one.
    pub renames: Renames,
    /// The roles by name.
    pub roles: BTreeMap<Name, RoleEntry>,
    /// The endpoints by method and path, for people.
    pub endpoints_by_name: BTreeMap<String, Endpoint>,
    /// Their parameters that match a segment with a raw `:` too, where there are any.
    pub colon_in: BTreeMap<String, BTreeSet<String>>,
    pub(super) endpoints: EndpointTree,
    /// The types of resources by name.
    pub resources: BTreeMap<Name, ResourceType>,
    /// The issuers of tokens by name.
    pub issuers: BTreeMap<Box<str>, Arc<Issuer>>,
    /// A sentence for each key of an issuer's `jwks` that is not used.
    pub skipped_keys: Vec<String>,
}

/// A scope as the file declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeEntry {
    /// For people.
    pub title: String,
    /// The scopes that it implies directly.
    pub implies: Vec<Scope>,
    /// The audiences that it belongs to; none named, all.
    pub audiences: Option<BTreeSet<Name>>,
}

impl CatalogFile {
    /// Parses a new catalog file. It must not have characters that mislead a reader, not even in
    /// comments.
    ///
    /// # Errors
    /// Every problem, each with line and column. A file that is not YAML of the right shape has
    /// one problem: the first.
    pub fn parse(yaml: &str) -> Result<Self, CatalogErrors> {
        let mut problems = deceptive_characters(yaml);
        // What the lines have is not said again of the texts.
        let file = match Self::read(yaml, problems.is_empty()) {
            Ok(file) if problems.is_empty() => return Ok(file),
            Ok(_) => return Err(CatalogErrors(problems)),
            Err(file) => file,
        };
        problems.extend(file.0);
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(CatalogErrors(problems))
    }

    /// Reads a catalog file that a store or an audit log has kept. It may be older than the rule
    /// that nothing in it deceives a reader.
    ///
    /// # Errors
    /// As [`CatalogFile::parse`].
    pub fn parse_stored(yaml: &str) -> Result<Self, CatalogErrors> {
        Self::read(yaml, false)
    }

    fn read(yaml: &str, is_new: bool) -> Result<Self, CatalogErrors> {
        let one =
            |line, column, message| CatalogErrors(vec![CatalogError { line, column, message }]);
        if yaml.len() > MAX_LEN {
            return Err(one(
                1,
                1,
                format!("the file has {} bytes, the limit is {MAX_LEN}", yaml.len()),
            ));
        }
        if yaml.trim_start_matches('\u{feff}').trim().is_empty() {
            let message = "the file is empty: a catalog has `scopes`, at least one";
            return Err(one(1, 1, message.to_owned()));
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            strict_booleans: true,
            merge_keys: serde_saphyr::MergeKeyPolicy::Error,
            // As much as MAX_LEN bytes can hold.
            budget: serde_saphyr::budget! { max_nodes: MAX_LEN, max_events: MAX_LEN },
        };
        let raw: RawFile = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
            let place = error.location().unwrap_or(Location::UNKNOWN);
            one(
                place.line().max(1),
                place.column().max(1),
                without_location(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
            )
        })?;
        let mut reader = FileValidator { yaml, problems: vec![], is_new };
        let file = reader.read(raw);
        if reader.problems.is_empty() {
            return Ok(file);
        }
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(CatalogErrors(reader.problems))
    }
}

/// The message of the YAML library without the location, which is reported separately.
fn without_location(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    text::quoted(message.trim_end_matches(['.', ',', ' ']), 400)
}

/// The most deceptive characters that are reported of one file.
const MAX_DECEPTIVE: usize = 20;

/// The first deceptive characters of a file, apart from its line ends, its tabs, and the mark that
/// some editors put at the beginning of a file.
fn deceptive_characters(yaml: &str) -> Vec<CatalogError> {
    let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml);
    let lines = (1..).zip(yaml.split('\n'));
    let wrong = lines.filter_map(|(line, text)| {
        let text = text.strip_suffix('\r').unwrap_or(text);
        // A tab is seen as a space is.
        let text = text.replace('\t', " ");
        let error = text::check_line(&text).err()?;
        let (behind, _) = text::first_deceptive(&text)?;
        let column = text.get(..behind).unwrap_or_default().chars().count() as u64 + 1;
        Some(CatalogError { line, column, message: format!("the line {error}") })
    });
    wrong.take(MAX_DECEPTIVE).collect()
}

#[cfg(test)]
mod issuer_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod resource_tests;
#[cfg(test)]
mod tests;
