//! Tree: all endpoints of a catalog by method and template.
//!
//! A path is matched from the root, segment by segment. Patterns are tried in the order of D20: a
//! literal, then `{x}:verb`, then `{x}`, then `{x+}`. The first template that matches wins. The
//! search ends without an endpoint if some servers would match a template that comes before all
//! remaining candidates: a segment that resembles a sibling literal or verb, or a template that
//! fails only because of an unencoded `:` or a trailing slash.
//!
//! Cost: each edge of the tree consumes one segment and each node has one parent, so a node is
//! reached by one path only, at one depth. A search visits each node at most once, no deeper than
//! the path, and keeps its candidates in a list. The work is bounded by the catalog and the path,
//! whatever a client sends. Nothing recurses, and the nodes are in one list, so that deep templates
//! cannot overflow the stack when they are searched, cloned or dropped.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Endpoint;
use super::node::{Leaf, Node, NodeId, ShapeSegment, set_leaf};
use super::path::RequestPath;
use super::search::{AmbiguousMatch, Search};
use super::segment::ends_path;
use super::template::{SegmentPattern, Template};
use super::template_error::{TemplateError, TemplateErrorKind};

/// The most segments that all templates of a new catalog have together, each prefix once. A
/// segment takes some 600 bytes of memory.
pub const MAX_NODES: usize = 500_000;

/// The most lengths of a rest of a path that are tried for a template.
const MAX_REST_TRIED: usize = 32;

/// All endpoints of a catalog.
#[derive(Clone, Debug, Default)]
pub struct EndpointTree {
    /// The root of each method.
    methods: HashMap<Box<str>, NodeId>,
    nodes: Vec<Node>,
}

impl EndpointTree {
    /// Adds an endpoint of a new catalog.
    ///
    /// # Errors
    /// Another template has this shape, or a segment that some servers take for one of this one.
    pub fn insert(
        &mut self,
        method: &str,
        template: &Template,
        endpoint: Endpoint,
    ) -> Result<(), TemplateError> {
        self.add(method, template, endpoint, true)
    }

    /// Adds an endpoint of a catalog in force. It may be older than the rule that no two segments
    /// are ambiguous; a segment that resembles both matches neither.
    ///
    /// # Errors
    /// Another template has this shape.
    pub fn insert_stored(
        &mut self,
        method: &str,
        template: &Template,
        endpoint: Endpoint,
    ) -> Result<(), TemplateError> {
        self.add(method, template, endpoint, false)
    }

    fn add(
        &mut self,
        method: &str,
        template: &Template,
        endpoint: Endpoint,
        is_new: bool,
    ) -> Result<(), TemplateError> {
        let shape = template.parts.iter().map(|part| ShapeSegment::of(template, part)).collect();
        let leaf = Leaf { endpoint, shape };
        if is_new && self.nodes.len() + template.parts.len() > MAX_NODES {
            return Err(TemplateError::whole(TemplateErrorKind::TooManySegments(MAX_NODES)));
        }
        let next = self.nodes.len();
        let mut id = *self.methods.entry(method.into()).or_insert(next);
        let mut at = 1;
        for part in &template.parts {
            let ambiguous = |segment: String, other: String| TemplateError {
                offset: at,
                kind: TemplateErrorKind::AmbiguousSegment { segment, other },
            };
            let (node, next) = self.node_mut(id)?;
            let len;
            (id, len) = match part {
                SegmentPattern::Literal(literal) => {
                    if let Some(other) = node.find_ambiguous(literal, is_new) {
                        return Err(ambiguous(literal.to_string(), other));
                    }
                    (*node.literals.entry(literal.clone()).or_insert(next), literal.len())
                }
                SegmentPattern::Verb { name, verb } => {
                    let verbs = node.verbs.get_or_insert_default();
                    if let Some(other) = verbs.find_ambiguous(verb, is_new) {
                        return Err(ambiguous(format!(":{verb}"), format!(":{other}")));
                    }
                    let len = name.len() + verb.len() + "{}:".len();
                    (*verbs.exact.entry(verb.clone()).or_insert(next), len)
                }
                SegmentPattern::Parameter(name) => {
                    (*node.parameter.get_or_insert(next), name.len() + "{}".len())
                }
                SegmentPattern::Rest(_) => return set_leaf(&mut node.rest, leaf),
            };
            at += len + 1;
        }
        set_leaf(&mut self.node_mut(id)?.0.leaf, leaf)
    }

    /// The endpoint that matches; among several, literals win from left to right (D20). A `HEAD`
    /// without an endpoint of its own is answered by that of `GET`.
    #[must_use]
    pub fn find(&self, method: &str, path: &RequestPath) -> Option<&Endpoint> {
        let segments: Vec<_> = path.segments().collect();
        self.find_leaf(method, &segments).map(|leaf| &leaf.endpoint)
    }

    fn find_leaf(&self, method: &str, segments: &[&str]) -> Option<&Leaf> {
        if segments.split_last().is_some_and(|(_, before)| before.iter().any(|s| ends_path(s))) {
            return None;
        }
        let own = self.search(method, segments).ok()?;
        if method != "HEAD" {
            return own;
        }
        let get = self.search("GET", segments).ok()?;
        match (own, get) {
            // Servers differ in whether the method or the path counts first.
            (Some(own), Some(get)) if get.is_before(own) => None,
            (own, get) => own.or(get),
        }
    }

    /// The endpoint of a template of this shape, whatever its parameters are called; for `HEAD` without one
    /// that of `GET`. It is the endpoint that [`EndpointTree::find`] finds for a path of the template whose
    /// parameters resemble nothing in the catalog: a template never allows what none of its paths does.
    #[must_use]
    pub fn find_template(&self, method: &str, template: &Template) -> Option<&Endpoint> {
        /// Text that no literal and no verb has.
        const ANY: &str = "\u{1}";
        let of_get = || if method == "HEAD" { self.leaf("GET", template) } else { None };
        let named = self.leaf(method, template).or_else(of_get)?;
        let texts: Vec<Cow<'_, str>> = template
            .parts
            .iter()
            .map(|part| match part {
                SegmentPattern::Literal(literal) => Cow::Borrowed(&**literal),
                SegmentPattern::Verb { verb, .. } => Cow::Owned(format!("{ANY}:{verb}")),
                SegmentPattern::Parameter(_) | SegmentPattern::Rest(_) => Cow::Borrowed(ANY),
            })
            .collect();
        let mut segments: Vec<_> = texts.iter().map(AsRef::as_ref).collect();
        // A rest has any length, and other templates can take the paths of some.
        let lengths = if template.has_rest() { MAX_REST_TRIED } else { 1 };
        for _ in 0..lengths {
            let found = self.find_leaf(method, &segments);
            if found.is_some_and(|found| std::ptr::eq(found, named)) {
                return Some(&named.endpoint);
            }
            segments.push(ANY);
        }
        None
    }

    /// The end of the template of this shape.
    fn leaf(&self, method: &str, template: &Template) -> Option<&Leaf> {
        let mut node = self.root(method)?;
        for part in &template.parts {
            if let SegmentPattern::Rest(_) = part {
                return node.rest.as_ref();
            }
            node = self.child(node, part)?;
        }
        node.leaf.as_ref()
    }

    /// Whether a template of this method has a parameter where this template has a literal with a
    /// letter: in another case the literal matched that parameter in older versions.
    pub(in crate::policy::catalog) fn has_case_variant_of_parameter(
        &self,
        method: &str,
        template: &Template,
    ) -> bool {
        self.any_literal(method, template, |node, literal| {
            node.parameter.is_some() && literal.bytes().any(|b| b.is_ascii_alphabetic())
        })
    }

    /// Whether a literal of this template has a sibling that some servers take it for.
    pub(in crate::policy::catalog) fn has_ambiguous_literal(
        &self,
        method: &str,
        template: &Template,
    ) -> bool {
        self.any_literal(method, template, |node, literal| {
            node.has_ambiguous_literals && node.lookalike(literal) == Some(true)
        })
    }

    /// Whether an endpoint of this method has the shape of this template.
    pub(in crate::policy::catalog) fn has_shape(&self, method: &str, template: &Template) -> bool {
        self.leaf(method, template).is_some()
    }

    #[cfg(test)]
    pub(super) fn count_visits(&self, method: &str, path: &RequestPath) -> (bool, usize) {
        let segments: Vec<_> = path.segments().collect();
        let Some(root) = self.root(method) else { return (false, 0) };
        let mut search = Search::new(&self.nodes, &segments);
        let found = search.run(root).ok().flatten().is_some();
        (found, search.visits)
    }

    /// A node, which is made if it is the next one, and the id of the one that is next then.
    ///
    /// # Errors
    /// Never: an id is that of a node, or of the next one.
    fn node_mut(&mut self, id: NodeId) -> Result<(&mut Node, NodeId), TemplateError> {
        if id >= self.nodes.len() {
            self.nodes.push(Node::default());
        }
        let next = self.nodes.len();
        let node = self.nodes.get_mut(id);
        node.map(|node| (node, next))
            .ok_or_else(|| TemplateError::whole(TemplateErrorKind::DuplicateShape))
    }

    fn root(&self, method: &str) -> Option<&Node> {
        self.nodes.get(*self.methods.get(method)?)
    }

    /// The child of a node for a segment of a template.
    fn child(&self, node: &Node, part: &SegmentPattern) -> Option<&Node> {
        let id = match part {
            SegmentPattern::Literal(literal) => node.literals.get(literal).copied(),
            SegmentPattern::Verb { verb, .. } => node.verbs.as_ref()?.exact.get(verb).copied(),
            SegmentPattern::Parameter(_) => node.parameter,
            SegmentPattern::Rest(_) => None,
        };
        self.nodes.get(id?)
    }

    /// Whether it is so at a literal of the template: of the node that the literal is at.
    fn any_literal(
        &self,
        method: &str,
        template: &Template,
        is_so: impl Fn(&Node, &str) -> bool,
    ) -> bool {
        let mut node = self.root(method);
        for part in &template.parts {
            let Some(here) = node else { return false };
            if let SegmentPattern::Literal(literal) = part
                && is_so(here, literal)
            {
                return true;
            }
            node = self.child(here, part);
        }
        false
    }

    fn search(&self, method: &str, segments: &[&str]) -> Result<Option<&Leaf>, AmbiguousMatch> {
        match self.root(method) {
            Some(root) => Search::new(&self.nodes, segments).run(root),
            None => Ok(None),
        }
    }
}
