//! Nodes of the endpoint tree: the segments that can follow a prefix, and the endpoints that end
//! there.

use std::collections::HashMap;

use super::Endpoint;
use super::segment::{fold, without_parameters};
use super::template::{SegmentPattern, Template};
use super::template_error::{TemplateError, TemplateErrorKind};

/// An index into the list of nodes.
pub(super) type NodeId = usize;

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) leaf: Option<Leaf>,
    pub(super) literals: HashMap<Box<str>, NodeId>,
    /// The lenient keys of the literals, each with whether several literals share it; see
    /// [`lenient_key`].
    pub(super) folded: HashMap<Box<[u8]>, bool>,
    /// Whether any lenient key is shared.
    pub(super) has_ambiguous_literals: bool,
    pub(super) verbs: Option<Box<VerbTable>>,
    pub(super) parameter: Option<NodeId>,
    /// The endpoint of a last `{x+}`.
    pub(super) rest: Option<Leaf>,
}

/// The `{x}:verb` patterns at one node, by the verb without its `:`.
#[derive(Clone, Debug, Default)]
pub(super) struct VerbTable {
    pub(super) exact: HashMap<Box<str>, NodeId>,
    pub(super) folded: HashMap<Box<[u8]>, bool>,
}

/// The end of a template.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) endpoint: Endpoint,
    /// The template's segments.
    pub(super) shape: Box<[ShapeSegment]>,
}

/// The kind of one segment of a template, for comparing how specific two templates are.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShapeSegment {
    kind: SegmentKind,
    allows_colon: bool,
}

/// The kinds of segments, the most specific one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SegmentKind {
    Literal,
    Verb,
    Parameter,
    Rest,
}

impl ShapeSegment {
    pub(super) fn of(template: &Template, part: &SegmentPattern) -> Self {
        let kind = match part {
            SegmentPattern::Literal(_) => SegmentKind::Literal,
            SegmentPattern::Verb { .. } => SegmentKind::Verb,
            SegmentPattern::Parameter(_) => SegmentKind::Parameter,
            SegmentPattern::Rest(_) => SegmentKind::Rest,
        };
        Self { kind, allows_colon: template.allows_colon(part) }
    }

    pub(super) fn permits(self, segment: &str) -> bool {
        let own = usize::from(self.kind == SegmentKind::Verb);
        self.allows_colon || segment.bytes().filter(|b| *b == b':').count() <= own
    }
}

impl Leaf {
    /// Whether each segment that a parameter matches may have the raw `:` that it has.
    pub(super) fn permits(&self, segments: &[&str]) -> bool {
        let mut steps = self.shape.iter();
        let mut last = None;
        segments.iter().all(|segment| {
            // The rest of a path belongs to the last step.
            last = steps.next().or(last);
            last.is_none_or(|step| step.permits(segment))
        })
    }

    /// Whether its template is chosen before the other one, literals winning from left to right.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let kinds = |leaf: &Self| leaf.shape.iter().map(|step| step.kind).collect::<Vec<_>>();
        kinds(self) < kinds(other)
    }
}

pub(super) fn set_leaf(place: &mut Option<Leaf>, leaf: Leaf) -> Result<(), TemplateError> {
    if place.is_some() {
        return Err(TemplateError::whole(TemplateErrorKind::DuplicateShape));
    }
    *place = Some(leaf);
    Ok(())
}

/// The segment as the most lenient server reads it. Two literals with one key are ambiguous.
pub(super) fn lenient_key(folded: &[u8]) -> &[u8] {
    without_parameters(folded)
}

impl Node {
    /// `Some` if the segment resembles a literal of this node; true if it resembles several.
    pub(super) fn lookalike(&self, segment: &str) -> Option<bool> {
        self.folded.get(lenient_key(&fold(segment))).copied()
    }

    /// Registers a literal. In a new catalog, returns a literal that some servers confuse with it.
    pub(super) fn find_ambiguous(&mut self, literal: &str, is_new: bool) -> Option<String> {
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
    pub(super) fn find_ambiguous(&mut self, verb: &str, is_new: bool) -> Option<String> {
        if self.exact.contains_key(verb) {
            return None;
        }
        let own = fold(verb);
        let earlier = self.folded.insert(own.as_ref().into(), false);
        earlier.filter(|_| is_new)?;
        let mut others = self.exact.keys().map(AsRef::as_ref);
        others.find(|other: &&str| fold(other) == own).map(str::to_owned)
    }

    /// Whether some server sees a verb at the end of the segment. The text after a `;` counts,
    /// because only some servers drop it.
    pub(super) fn is_alike(&self, segment: &str) -> bool {
        fold(segment).split(|b| *b == b';').any(|part| {
            let verb = part.rsplit(|b| *b == b':').next().unwrap_or_default();
            verb.len() < part.len() && self.folded.contains_key(verb)
        })
    }
}
