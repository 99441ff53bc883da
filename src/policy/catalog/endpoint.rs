//! EndpointTree: from a call's method and path to the scopes that it needs (D20).
//!
//! Not here: normalization. A path that a proxy and a server could read in two ways is refused,
//! because a guess would open a way around the check.

mod foreign_syntax;
mod method;
mod node;
mod path;
mod search;
mod segment;
mod template;
mod template_error;
mod tree;

pub use self::method::{MethodError, check_method, is_method};
pub use self::path::{MAX_PATH_LEN, PathError, RequestPath};
pub use self::template::Template;
pub use self::template_error::{TemplateError, TemplateErrorKind};
pub use self::tree::{EndpointTree, MAX_NODES};
use crate::policy::id::Name;
use crate::policy::scope::Scope;

/// An endpoint: the audience and the scopes of a request to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The audience that it belongs to, if it names one.
    pub audience: Option<Name>,
    /// The scopes that a call needs, all of them.
    pub scopes: Vec<Scope>,
    /// The scopes of which a call needs at least one; empty if it needs none of this kind.
    pub any_of: Vec<Scope>,
    /// The file has `scopes: none`. Without it, an endpoint without scopes allows nothing.
    pub needs_no_scope: bool,
}

#[cfg(test)]
mod tests;
