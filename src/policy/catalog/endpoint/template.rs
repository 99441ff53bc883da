//! Template: an endpoint's path as the catalog writes it.

use std::collections::HashSet;
use std::fmt;

use super::foreign_syntax::foreign_syntax;
use super::path::{MAX_PATH_LEN, PathError, check_segment, check_stored_segment};
use super::segment::ends_path;
use super::template_error::{TemplateError, TemplateErrorKind};

/// The path of an endpoint, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub(super) parts: Vec<SegmentPattern>,
    /// The names of the parameters that match a segment with a raw `:` too.
    colon_in: HashSet<Box<str>>,
}

/// A segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SegmentPattern {
    /// It matches itself; the empty one is a trailing slash.
    Literal(Box<str>),
    /// `{name}:verb`.
    Verb { name: Box<str>, verb: Box<str> },
    /// `{name}`.
    Parameter(Box<str>),
    /// A last `{name+}`.
    Rest(Box<str>),
}

impl SegmentPattern {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Verb { name, .. } | Self::Parameter(name) | Self::Rest(name) => Some(name),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return f.write_str("/");
        }
        self.parts.iter().try_for_each(|part| match part {
            SegmentPattern::Literal(literal) => write!(f, "/{literal}"),
            SegmentPattern::Verb { name, verb } => write!(f, "/{{{name}}}:{verb}"),
            SegmentPattern::Parameter(name) => write!(f, "/{{{name}}}"),
            SegmentPattern::Rest(name) => write!(f, "/{{{name}+}}"),
        })
    }
}

impl Template {
    /// Reads a template of a new catalog.
    ///
    /// # Errors
    /// The problem, its offset, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let template = Self::read(text, new_part)?;
        let mut names = HashSet::new();
        let mut at = 1;
        for (part, segment) in template.parts.iter().zip(segments(text)) {
            let is_last = at + segment.len() == text.len();
            if ends_path(segment) && !is_last {
                return Err(TemplateError {
                    offset: at,
                    kind: TemplateErrorKind::Semicolon(segment.to_owned()),
                });
            }
            let repeated = part.name().filter(|name| !names.insert(*name));
            if let Some(name) = repeated {
                return Err(TemplateError {
                    offset: at,
                    kind: TemplateErrorKind::DuplicateName(name.to_owned()),
                });
            }
            at += segment.len() + 1;
        }
        Ok(template)
    }

    /// Reads a template of a catalog in force, which may be older than the rules for names and for
    /// what other tools write.
    ///
    /// # Errors
    /// It is nothing that any version has applied.
    pub fn parse_stored(text: &str) -> Result<Self, TemplateError> {
        Self::read(text, stored_part)
    }

    fn read(
        text: &str,
        part: fn(&str, bool) -> Result<SegmentPattern, TemplateErrorKind>,
    ) -> Result<Self, TemplateError> {
        if text.len() > MAX_PATH_LEN {
            return Err(TemplateError::whole(TemplateErrorKind::TooLong(text.len())));
        }
        if !text.starts_with('/') {
            return Err(TemplateError::whole(PathError::Relative));
        }
        let mut parts = Vec::new();
        let mut at = 1;
        let mut segments = segments(text).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let part = part(segment, is_last).map_err(|kind| TemplateError { offset: at, kind })?;
            parts.push(part);
            at += segment.len() + 1;
        }
        Ok(Self { parts, colon_in: HashSet::new() })
    }

    /// Lets a parameter match a segment with a raw `:` too. False if the template has none of this
    /// name.
    #[must_use]
    pub fn allow_colon(&mut self, name: &str) -> bool {
        let is_known = self.parts.iter().any(|part| part.name() == Some(name));
        if is_known {
            self.colon_in.insert(name.into());
        }
        is_known
    }

    /// Whether a segment with a raw `:` matches the part.
    pub(super) fn allows_colon(&self, part: &SegmentPattern) -> bool {
        part.name().is_none_or(|name| self.colon_in.contains(name))
    }

    /// Whether it has a parameter.
    #[must_use]
    pub fn has_parameter(&self) -> bool {
        self.parts.iter().any(|part| part.name().is_some())
    }

    /// Whether each of its parameters matches a segment with a raw `:` too.
    #[must_use]
    pub fn allows_all_colons(&self) -> bool {
        self.parts.iter().all(|part| self.allows_colon(part))
    }

    /// Whether it ends in a parameter for the rest of the path.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        matches!(self.parts.last(), Some(SegmentPattern::Rest(_)))
    }
}

/// The segments of a template; none for the root.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    let inner = text.strip_prefix('/').filter(|inner| !inner.is_empty());
    inner.into_iter().flat_map(|inner| inner.split('/'))
}

fn new_part(segment: &str, is_last: bool) -> Result<SegmentPattern, TemplateErrorKind> {
    if let Some(instead) = foreign_syntax(segment) {
        return Err(TemplateErrorKind::ForeignSyntax { segment: segment.to_owned(), instead });
    }
    let part = read_part(segment, is_last)?;
    let name = match &part {
        SegmentPattern::Literal(literal) => {
            check_segment(literal)?;
            return Ok(part);
        }
        SegmentPattern::Parameter(name) if name.ends_with('+') && name.len() > 1 => {
            return Err(TemplateErrorKind::RestNotLast(segment.to_owned()));
        }
        SegmentPattern::Verb { name, .. }
        | SegmentPattern::Parameter(name)
        | SegmentPattern::Rest(name) => name,
    };
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !name.bytes().all(is_letter) || name.starts_with('.') || name.ends_with('.') {
        return Err(TemplateErrorKind::InvalidName(name.to_string()));
    }
    Ok(part)
}

fn stored_part(segment: &str, is_last: bool) -> Result<SegmentPattern, TemplateErrorKind> {
    let part = read_part(segment, is_last)?;
    if let SegmentPattern::Literal(literal) = &part {
        check_stored_segment(literal)?;
    }
    Ok(part)
}

fn read_part(segment: &str, is_last: bool) -> Result<SegmentPattern, TemplateErrorKind> {
    if segment.is_empty() && !is_last {
        return Err(PathError::EmptySegment.into());
    }
    if !segment.contains(['{', '}']) {
        return Ok(SegmentPattern::Literal(segment.into()));
    }
    let invalid = || TemplateErrorKind::InvalidSegment(segment.to_owned());
    let (name, suffix) =
        segment.strip_prefix('{').and_then(|s| s.split_once('}')).ok_or_else(invalid)?;
    if name.is_empty() || name.contains('{') || suffix.contains(['{', '}']) {
        return Err(invalid());
    }
    let rest = name.strip_suffix('+').filter(|rest| !rest.is_empty());
    match (suffix.strip_prefix(':'), rest) {
        (None, _) if !suffix.is_empty() => Err(invalid()),
        (None, Some(rest)) if is_last => Ok(SegmentPattern::Rest(rest.into())),
        (None, _) => Ok(SegmentPattern::Parameter(name.into())),
        (Some(_), Some(_)) => Err(TemplateErrorKind::RestNotLast(segment.to_owned())),
        (Some(verb), None) => {
            let is_letter =
                |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
            if verb.is_empty() || !verb.bytes().all(is_letter) {
                return Err(TemplateErrorKind::InvalidVerb(verb.to_owned()));
            }
            Ok(SegmentPattern::Verb { name: name.into(), verb: verb.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::foreign_syntax::{CONSTRAINT, END, OPTIONAL, PARAMETER, PATTERN};
    use super::*;

    fn refused(text: &str) -> TemplateError {
        Template::parse(text).expect_err(text)
    }

    #[test]
    fn the_four_kinds_of_segments_are_read() {
        let template = Template::parse("/a.b:c/{x}/{y}:purge/{z-1.a_b+}").expect("a template");
        assert_eq!(
            template.parts,
            [
                SegmentPattern::Literal("a.b:c".into()),
                SegmentPattern::Parameter("x".into()),
                SegmentPattern::Verb { name: "y".into(), verb: "purge".into() },
                SegmentPattern::Rest("z-1.a_b".into()),
            ]
        );
        assert_eq!(Template::parse("/").expect("the root").parts, []);
        let slash = Template::parse("/a/").expect("a template").parts;
        assert_eq!(
            slash,
            [SegmentPattern::Literal("a".into()), SegmentPattern::Literal("".into())]
        );
        for good in
            ["/odata/$metadata", "/a@b", "/v1/me:purge", "/a+b", "/~x", "/a=b", "/a,b", "/..."]
        {
            assert!(Template::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn syntax_of_other_tools_is_refused_at_its_offset() {
        for (segment, instead) in [
            ("*", PARAMETER),
            ("**", PARAMETER),
            ("*path", PARAMETER),
            ("a*", PARAMETER),
            ("*.json", PARAMETER),
            (":id", PARAMETER),
            (":id?", PARAMETER),
            (":id(\\d+)", PARAMETER),
            (":path*", PARAMETER),
            ("(.*)", PATTERN),
            ("(a|b)", PATTERN),
            ("items(7)", PATTERN),
            ("<id>", PARAMETER),
            ("<int:id>", PARAMETER),
            ("[id]", PARAMETER),
            ("[...slug]", PARAMETER),
            ("{id:int}", CONSTRAINT),
            ("{id:[0-9]{2}}", CONSTRAINT),
            ("{id:.*}", PARAMETER),
            ("{id:path}", PARAMETER),
            ("{id:.+}", PARAMETER),
            ("{id?}", OPTIONAL),
            ("{?q}", OPTIONAL),
            ("{*path}", PARAMETER),
            ("{**path}", PARAMETER),
            ("{path*}", PARAMETER),
            ("{path**}", PARAMETER),
            ("{path...}", PARAMETER),
            ("{...path}", PARAMETER),
            ("{+path}", PARAMETER),
            ("{name=shelves}", PARAMETER),
            ("{name=**}", PARAMETER),
            ("{$}", END),
            ("${id}", PARAMETER),
            ("{{id}}", PARAMETER),
        ] {
            let error = refused(&format!("/a/{segment}"));
            let kind = TemplateErrorKind::ForeignSyntax { segment: segment.to_owned(), instead };
            assert_eq!((error.offset, error.kind), (3, kind), "{segment}");
            assert!(Template::parse(&format!("/a/{segment}/b")).is_err(), "{segment}");
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for bad in [
            "",
            "users",
            "//",
            "/a//",
            "/users//x",
            "/users/{}",
            "/users/a{id}",
            "/users/{a}{b}",
            "/users/{a}.json",
            "/users/{a}-{b}",
            "/users/{a",
            "/users/a}",
            "/users/}{",
            "/users/{a b}",
            "/users/{\u{e9}}",
            "/users/{.a}",
            "/users/{a.}",
            "/users/{+}",
            "/users/{a+}/",
            "/users/{a+}/b",
            "/users/{a++}",
            "/users/{a+}:purge",
            "/users/{a}:",
            "/users/{a}:x:y",
            "/users/{a}:x%20",
            "/users/{a}:x;y",
            "/users/{a}/{a}",
            "/users/{a}/{a}:x",
            "/users/{a}/{a+}",
            "/a/..",
            "/a?b",
            "/a/%252F",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        let twice = refused("/users/{a}/b/{a+}");
        assert_eq!(
            (twice.offset, twice.kind),
            (13, TemplateErrorKind::DuplicateName("a".to_owned()))
        );
        let rest = refused("/files/{path+}/x");
        assert_eq!(
            (rest.offset, rest.kind),
            (7, TemplateErrorKind::RestNotLast("{path+}".to_owned()))
        );
    }

    #[test]
    fn a_catalog_in_force_keeps_templates_of_older_versions() {
        for old in ["/*", "/:id/(x)", "/{*x}/{x...}/{x?}", "/{x:int}/{x=a}", "/{a}/{a}", "/{a+}/b"]
        {
            let template = Template::parse_stored(old).expect(old);
            assert!(!template.has_rest(), "{old}");
            assert!(Template::parse(old).is_err(), "{old}");
        }
        assert!(Template::parse_stored("/a/%252F").is_ok());
        assert!(Template::parse_stored("/a/{x+}").expect("a template").has_rest());
    }

    #[test]
    fn a_name_that_a_template_lacks_permits_nothing() {
        let mut template = Template::parse("/a/{x}:v/{y+}").expect("a template");
        assert!(!template.allows_all_colons() && template.has_parameter());
        assert!(template.allow_colon("x") && template.allow_colon("y"));
        assert!(template.allows_all_colons());
        assert!(!template.allow_colon("a") && !template.allow_colon("y+"));
    }

    #[test]
    fn a_template_is_no_longer_than_a_path() {
        let long = format!("/{}", "a".repeat(MAX_PATH_LEN));
        assert_eq!(refused(&long).kind, TemplateErrorKind::TooLong(MAX_PATH_LEN + 1));
        assert!(
            Template::parse(&long[1..]).is_err() && Template::parse(&long[..MAX_PATH_LEN]).is_ok()
        );
    }
}
