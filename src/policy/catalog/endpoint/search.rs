//! One search of the endpoint tree for the path of a request.

use super::node::{Leaf, Node, NodeId};
use super::segment::fold;

/// Some servers would match another template. The search ends without an endpoint.
#[derive(Debug)]
pub(super) struct AmbiguousMatch;

/// Candidates that are still to be tried; the next one is last in the list.
enum SearchTask<'t> {
    /// All patterns at a node, for the segment with this index.
    Node(&'t Node, usize),
    /// All but literals.
    Verbs(&'t Node, usize),
    /// Only parameters.
    Parameters(&'t Node, usize),
    /// A last `{x+}`.
    Rest(&'t Leaf, usize),
    /// The end: later candidates must not be tried.
    End,
}

pub(super) struct Search<'t, 's> {
    nodes: &'t [Node],
    segments: &'s [&'s str],
    tasks: Vec<SearchTask<'t>>,
    pub(super) visits: usize,
}

impl<'t, 's> Search<'t, 's> {
    pub(super) fn new(nodes: &'t [Node], segments: &'s [&'s str]) -> Self {
        Self { nodes, segments, tasks: Vec::with_capacity(8), visits: 0 }
    }

    pub(super) fn run(&mut self, root: &'t Node) -> Result<Option<&'t Leaf>, AmbiguousMatch> {
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
            // Some servers drop everything after a `;`, so also the verb.
            Some(_) if fold(segment).contains(&b';') => return Err(AmbiguousMatch),
            Some((name, verb)) => {
                self.tasks.push(match name.contains(':') {
                    // Some servers do not match a name with a colon here.
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
        // Some servers match a path that ends in a slash.
        let has_slash = self.segments.last().is_some_and(|last| last.is_empty());
        if has_slash || at >= self.segments.len() {
            return Err(AmbiguousMatch);
        }
        self.check_colons(leaf).map(Some)
    }

    /// The endpoint, unless an unencoded `:` is not allowed: some servers would match it anyway.
    fn check_colons(&self, leaf: &'t Leaf) -> Result<&'t Leaf, AmbiguousMatch> {
        if leaf.permits(self.segments) { Ok(leaf) } else { Err(AmbiguousMatch) }
    }
}
