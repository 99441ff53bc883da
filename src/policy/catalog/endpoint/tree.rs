//! Tree: all endpoints of a catalog by method and template, and how a call's path is matched.
//!
//! A path is matched from the root, segment by segment, and the ways are tried in the order of
//! D20: a literal, then `{x}:verb`, then `{x}`, then `{x+}`. The first template that matches is the
//! answer. A search ends without an answer as soon as it meets something that some servers take for
//! a template that comes before all those that are still to be tried: a segment that looks like a
//! sibling literal or verb, a template that would match but for a raw `:` or a trailing slash.
//!
//! What a match costs: each edge of the tree takes one segment and each node has one parent, so a
//! node is reached by one way only, with one count of segments behind it. A search visits each node
//! once at most, no deeper than the path, and keeps what is still to be tried in a list: whatever a
//! caller sends, the work is bounded by the catalog and the path. Nothing here calls itself, and the
//! nodes lie in one list, so a deep template is cloned and dropped as any other.

use std::collections::HashMap;

use super::Endpoint;
use super::path::RequestPath;
use super::segment::{ends_path, fold, without_parameters};
use super::template::{SegmentPattern, Template, TemplateError, TemplateErrorKind};

/// The most segments that all templates of a new catalog have together, each prefix once. A
/// segment takes some 600 bytes of memory.
const MAX_NODES: usize = 500_000;

/// All endpoints of a catalog.
#[derive(Clone, Debug, Default)]
pub struct EndpointTree {
    /// The root of each method.
    methods: HashMap<Box<str>, NodeId>,
    nodes: Vec<Node>,
}

/// A place in the list of nodes.
type NodeId = usize;

#[derive(Clone, Debug, Default)]
struct Node {
    leaf: Option<Leaf>,
    literals: HashMap<Box<str>, NodeId>,
    /// What servers may take the literals for, and whether that is said of several; see
    /// [`lenient_key`].
    folded: HashMap<Box<[u8]>, bool>,
    /// Whether it is said of several of any.
    has_ambiguous_literals: bool,
    verbs: Option<Box<VerbTable>>,
    parameter: Option<NodeId>,
    /// The endpoint of a last `{x+}`.
    rest: Option<Leaf>,
}

/// The `{x}:verb` of one place, by the verb without its `:`.
#[derive(Clone, Debug, Default)]
struct VerbTable {
    exact: HashMap<Box<str>, NodeId>,
    folded: HashMap<Box<[u8]>, bool>,
}

/// The end of a template.
#[derive(Clone, Debug)]
struct Leaf {
    endpoint: Endpoint,
    /// The template's segments.
    shape: Box<[ShapeSegment]>,
}

/// A segment of a template, as far as it says which of two templates is the more specific one.
#[derive(Clone, Copy, Debug)]
struct ShapeSegment {
    kind: SegmentKind,
    allows_colon: bool,
}

/// The kinds of segments, the most specific one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SegmentKind {
    Literal,
    Verb,
    Parameter,
    Rest,
}

impl ShapeSegment {
    fn of(template: &Template, part: &SegmentPattern) -> Self {
        let kind = match part {
            SegmentPattern::Literal(_) => SegmentKind::Literal,
            SegmentPattern::Verb { .. } => SegmentKind::Verb,
            SegmentPattern::Parameter(_) => SegmentKind::Parameter,
            SegmentPattern::Rest(_) => SegmentKind::Rest,
        };
        Self { kind, allows_colon: template.allows_colon(part) }
    }

    fn permits(self, segment: &str) -> bool {
        let own = usize::from(self.kind == SegmentKind::Verb);
        self.allows_colon || segment.bytes().filter(|b| *b == b':').count() <= own
    }
}

impl Leaf {
    /// Whether each segment that a parameter matches may have the raw `:` that it has.
    fn permits(&self, segments: &[&str]) -> bool {
        let mut steps = self.shape.iter();
        let mut last = None;
        segments.iter().all(|segment| {
            // The rest of a path belongs to the last step.
            last = steps.next().or(last);
            last.is_none_or(|step| step.permits(segment))
        })
    }

    /// Whether its template is chosen before the other one, literals winning from left to right.
    fn is_before(&self, other: &Self) -> bool {
        let kinds = |leaf: &Self| leaf.shape.iter().map(|step| step.kind).collect::<Vec<_>>();
        kinds(self) < kinds(other)
    }
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
    /// look alike; what looks like both matches neither.
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
        if segments.split_last().is_some_and(|(_, before)| before.iter().any(|s| ends_path(s))) {
            return None;
        }
        let own = self.search(method, &segments).ok()?;
        let leaf = match own {
            own if method != "HEAD" => own?,
            own => {
                let get = self.search("GET", &segments).ok()?;
                match (own, get) {
                    // Servers differ in whether the method or the path counts first.
                    (Some(own), Some(get)) if get.is_before(own) => return None,
                    (own, get) => own.or(get)?,
                }
            }
        };
        Some(&leaf.endpoint)
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
        let mut node = self.root(method);
        for part in &template.parts {
            let Some(here) = node else { return false };
            if let SegmentPattern::Rest(_) = part {
                return here.rest.is_some();
            }
            node = self.child(here, part);
        }
        node.is_some_and(|node| node.leaf.is_some())
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

    /// The node behind a segment of a template.
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

fn set_leaf(place: &mut Option<Leaf>, leaf: Leaf) -> Result<(), TemplateError> {
    if place.is_some() {
        return Err(TemplateError::whole(TemplateErrorKind::DuplicateShape));
    }
    *place = Some(leaf);
    Ok(())
}

/// The segment as the most lenient server reads it: two literals are alike if this is the same.
fn lenient_key(folded: &[u8]) -> &[u8] {
    without_parameters(folded)
}

impl Node {
    /// Whether the segment looks like a literal here, and like several of them.
    fn lookalike(&self, segment: &str) -> Option<bool> {
        self.folded.get(lenient_key(&fold(segment))).copied()
    }

    /// Notes a literal; the other one that some servers take it for, if there is one and the
    /// catalog is new.
    fn find_ambiguous(&mut self, literal: &str, is_new: bool) -> Option<String> {
        if self.literals.contains_key(literal) {
            return None;
        }
        let own = fold(literal);
        match self.folded.get_mut(lenient_key(&own)) {
            Some(_) if is_new => {
                let mut others = self.literals.keys().map(AsRef::as_ref);
                let other =
                    others.find(|other: &&str| lenient_key(&fold(other)) == lenient_key(&own));
                other.map(str::to_owned)
            }
            Some(several) => {
                (*several, self.has_ambiguous_literals) = (true, true);
                None
            }
            None => {
                self.folded.insert(lenient_key(&own).into(), false);
                None
            }
        }
    }
}

impl VerbTable {
    fn find_ambiguous(&mut self, verb: &str, is_new: bool) -> Option<String> {
        if self.exact.contains_key(verb) {
            return None;
        }
        let own = fold(verb);
        let earlier = self.folded.insert(own.as_ref().into(), false);
        earlier.filter(|_| is_new)?;
        let mut others = self.exact.keys().map(AsRef::as_ref);
        others.find(|other: &&str| fold(other) == own).map(str::to_owned)
    }

    /// Whether some server sees a verb at the end of the segment. Behind a `;` too, since what
    /// stands there is dropped by some servers and by others is not.
    fn is_alike(&self, segment: &str) -> bool {
        fold(segment).split(|b| *b == b';').any(|part| {
            let verb = part.rsplit(|b| *b == b':').next().unwrap_or_default();
            verb.len() < part.len() && self.folded.contains_key(verb)
        })
    }
}

/// A segment or template that some servers read otherwise: no other way may answer.
#[derive(Debug)]
struct AmbiguousMatch;

/// What is still to be tried, the next one last.
enum SearchTask<'t> {
    /// All ways from a node, that many segments behind it.
    Node(&'t Node, usize),
    /// Those that are no literal.
    Verbs(&'t Node, usize),
    /// Those that are no literal and no verb.
    Parameters(&'t Node, usize),
    /// A last `{x+}`.
    Rest(&'t Leaf, usize),
    /// There is nothing to be tried behind this.
    End,
}

struct Search<'t, 's> {
    nodes: &'t [Node],
    segments: &'s [&'s str],
    tasks: Vec<SearchTask<'t>>,
    visits: usize,
}

impl<'t, 's> Search<'t, 's> {
    fn new(nodes: &'t [Node], segments: &'s [&'s str]) -> Self {
        Self { nodes, segments, tasks: Vec::with_capacity(8), visits: 0 }
    }

    fn run(&mut self, root: &'t Node) -> Result<Option<&'t Leaf>, AmbiguousMatch> {
        self.tasks.push(SearchTask::Node(root, 0));
        while let Some(task) = self.tasks.pop() {
            let found = match task {
                SearchTask::Node(node, at) => self.node(node, at)?,
                SearchTask::Verbs(node, at) => self.verbs(node, at)?,
                SearchTask::Parameters(node, at) => {
                    self.parameters(node, at);
                    None
                }
                SearchTask::Rest(leaf, at) => self.rest(leaf, at)?,
                SearchTask::End => return Err(AmbiguousMatch),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn node(&mut self, node: &'t Node, at: usize) -> Result<Option<&'t Leaf>, AmbiguousMatch> {
        self.visits += 1;
        let Some(segment) = self.segments.get(at) else {
            return match &node.leaf {
                Some(leaf) => self.check_colons(leaf).map(Some),
                // Some servers match a template without its trailing slash, and some an empty rest.
                // Nothing follows an empty segment, so the node of one has an endpoint.
                None if node.rest.is_some() || node.literals.contains_key("") => {
                    Err(AmbiguousMatch)
                }
                None => Ok(None),
            };
        };
        self.tasks.push(SearchTask::Verbs(node, at));
        self.push(node.literals.get(*segment).copied(), at + 1);
        Ok(None)
    }

    fn verbs(&mut self, node: &'t Node, at: usize) -> Result<Option<&'t Leaf>, AmbiguousMatch> {
        let segment = self.segments.get(at).copied().unwrap_or_default();
        if segment.is_empty() {
            // A trailing slash, which no parameter matches. Some servers drop it, and to some an
            // empty rest is one.
            let answers = node.leaf.is_some() || node.rest.is_some();
            return if answers { Err(AmbiguousMatch) } else { Ok(None) };
        }
        let looks_like = if node.literals.contains_key(segment) {
            node.has_ambiguous_literals && node.lookalike(segment) == Some(true)
        } else {
            !node.folded.is_empty() && node.lookalike(segment).is_some()
        };
        if looks_like {
            // `/users/EXPORT`, `/users/export;x=1` and `/users/%65xport` are `/users/export` to
            // some servers: such a segment is no parameter, or a weaker endpoint would answer for
            // a stronger one.
            return Err(AmbiguousMatch);
        }
        let Some(verbs) = &node.verbs else {
            self.tasks.push(SearchTask::Parameters(node, at));
            return Ok(None);
        };
        let split = segment.rsplit_once(':').filter(|(name, _)| !name.is_empty());
        let exact = split.and_then(|(name, verb)| Some((name, verbs.exact.get(verb)?)));
        match exact {
            // Some servers drop the verb with what stands before it.
            Some(_) if fold(segment).contains(&b';') => return Err(AmbiguousMatch),
            Some((name, verb)) => {
                self.tasks.push(match name.contains(':') {
                    // To some servers it is no match, but looks like one.
                    true => SearchTask::End,
                    false => SearchTask::Parameters(node, at),
                });
                self.push(Some(*verb), at + 1);
            }
            None if verbs.is_alike(segment) => return Err(AmbiguousMatch),
            None => self.tasks.push(SearchTask::Parameters(node, at)),
        }
        Ok(None)
    }

    fn parameters(&mut self, node: &'t Node, at: usize) {
        if let Some(rest) = &node.rest {
            self.tasks.push(SearchTask::Rest(rest, at));
        }
        self.push(node.parameter, at + 1);
    }

    fn push(&mut self, id: Option<NodeId>, at: usize) {
        let node = id.and_then(|id| self.nodes.get(id));
        self.tasks.extend(node.map(|node| SearchTask::Node(node, at)));
    }

    fn rest(&mut self, leaf: &'t Leaf, at: usize) -> Result<Option<&'t Leaf>, AmbiguousMatch> {
        self.visits += 1;
        // Some servers match what ends in a slash.
        let has_slash = self.segments.last().is_some_and(|last| last.is_empty());
        if has_slash || at >= self.segments.len() {
            return Err(AmbiguousMatch);
        }
        self.check_colons(leaf).map(Some)
    }

    /// A template that would match but for a raw `:` matches on servers that do not mind it.
    fn check_colons(&self, leaf: &'t Leaf) -> Result<&'t Leaf, AmbiguousMatch> {
        if leaf.permits(self.segments) { Ok(leaf) } else { Err(AmbiguousMatch) }
    }
}
