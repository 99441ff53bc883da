//! Endpoints: from a call's method and path to the scopes that it needs (D20).
//!
//! Not here: any normalising of a path. What a proxy and a server could read in two ways is
//! refused, since a guess here would be a hole.

mod method;
mod path;
mod segment;
mod template;
mod tree;

pub use self::method::{MethodError, check_method};
pub use self::path::{MAX_PATH_LEN, Path, PathError};
pub use self::template::{Fault, Template, TemplateError};
pub use self::tree::Endpoints;
use crate::policy::id::Name;
use crate::policy::scope::Scope;

/// What a call to an endpoint needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The audience that it belongs to, if it says so.
    pub audience: Option<Name>,
    /// All the scopes that a call needs, at least one.
    pub scopes: Vec<Scope>,
}

#[cfg(test)]
mod tests;
