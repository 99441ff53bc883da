//! Endpoints: from a call's method and path to the scopes that it needs (D20).
//!
//! Not here: any normalising of a path. What a proxy and a server could read in two ways is
//! refused, since a guess here would be a hole.

use std::collections::{HashMap, HashSet};

use crate::policy::id::Name;
use crate::policy::scope::Scope;

/// The most bytes that a path can have.
pub const MAX_PATH_LEN: usize = 4096;

/// What a call to an endpoint needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The audience that it belongs to, if it says so.
    pub audience: Option<Name>,
    /// The scopes that a call needs, all of them.
    pub scopes: Vec<Scope>,
    /// The scopes of which a call needs at least one; empty if it needs none of this kind.
    pub any_of: Vec<Scope>,
    /// The file says `scopes: none`. Without that word an endpoint without scopes allows nothing.
    pub needs_no_scope: bool,
}

/// The path of a call: absolute, without query, in the one form that nothing reads twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Box<str>);

/// Why a text is not the path of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("must begin with `/`")]
    Relative,
    /// It has more than [`MAX_PATH_LEN`] bytes.
    #[error("has {0} bytes, the limit is {MAX_PATH_LEN}")]
    TooLong(usize),
    /// It carries a query or fragment.
    #[error("must come without query and fragment")]
    Query,
    /// It has an empty segment before its end, or one that is empty to some servers.
    #[error("must not have an empty segment (`//`, `/;`)")]
    EmptySegment,
    /// It has a segment that means another one.
    #[error("must not have a segment `.` or `..`")]
    DotSegment,
    /// It has a character that no URI path has.
    #[error("has the character {0:?}, which no path has unencoded")]
    Character(char),
    /// It has a `%` without two hexadecimal digits.
    #[error("has a `%` that two hexadecimal digits do not follow")]
    Percent,
    /// It encodes a character that separates, or that needs no encoding.
    #[error("encodes {0:?}, which servers decode in different ways")]
    Encoded(char),
}

impl Path {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the path of a call.
    ///
    /// # Errors
    /// Says why it could mean more than one path.
    pub fn parse(text: impl Into<Box<str>>) -> Result<Self, PathError> {
        let text = text.into();
        if text.len() > MAX_PATH_LEN {
            return Err(PathError::TooLong(text.len()));
        }
        let Some(inner) = text.strip_prefix('/') else {
            return Err(PathError::Relative);
        };
        let mut segments = inner.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                return Err(PathError::EmptySegment);
            }
            check_segment(segment)?;
        }
        Ok(Self(text))
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        // The root has no segments; any other path has one behind each slash.
        let inner = self.0.strip_prefix('/').filter(|inner| !inner.is_empty());
        inner.into_iter().flat_map(|inner| inner.split('/'))
    }
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    // `..;x` climbs where a server drops what follows a `;`, and `;x` is nothing there.
    match plainest(segment).as_slice() {
        b"." | b".." => return Err(PathError::DotSegment),
        [] if !segment.is_empty() => return Err(PathError::EmptySegment),
        _ => {}
    }
    let mut rest = segment.chars();
    while let Some(c) = rest.next() {
        match c {
            '?' | '#' => return Err(PathError::Query),
            '%' => {
                let digits = (
                    rest.next().and_then(|c| c.to_digit(16)),
                    rest.next().and_then(|c| c.to_digit(16)),
                );
                let (Some(high), Some(low)) = digits else {
                    return Err(PathError::Percent);
                };
                let byte = char::from_u32(high * 16 + low).unwrap_or('\0');
                // RFC 3986 section 2.3: encoding an unreserved character changes nothing, so a
                // server may see another path than the one compared here.
                let unreserved =
                    byte.is_ascii_alphanumeric() || matches!(byte, '-' | '.' | '_' | '~');
                if unreserved || matches!(byte, '/' | '\\') || byte.is_ascii_control() {
                    return Err(PathError::Encoded(byte));
                }
            }
            c if c.is_ascii_alphanumeric() => {}
            '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';'
            | '=' | ':' | '@' => {}
            c => return Err(PathError::Character(c)),
        }
    }
    Ok(())
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Its literal parts are not a path.
    #[error("the template {0}")]
    Path(#[from] PathError),
    /// It is longer than any path.
    #[error("the template has {0} bytes, the limit is {MAX_PATH_LEN}")]
    TooLong(usize),
    /// It ends in a slash, which no call matches.
    #[error("the template must not end in `/`")]
    TrailingSlash,
    /// A segment mixes braces and text, or a parameter has no name.
    #[error("`{0}` is neither a literal nor a parameter like `{{id}}`")]
    Segment(String),
    /// Some servers take it for a literal of another template.
    #[error("`{0}` is to some servers another endpoint's segment at the same place")]
    Twin(String),
    /// Another template has the same shape.
    #[error("another endpoint has the same method and the same shape of path")]
    SameShape,
}

/// All endpoints of a catalog.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    methods: HashMap<Box<str>, Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    endpoint: Option<Endpoint>,
    literals: HashMap<Box<str>, Node>,
    /// What servers may take the literals for; see [`plainest`].
    plain_literals: HashSet<Vec<u8>>,
    parameter: Option<Box<Node>>,
}

impl Endpoints {
    /// Adds an endpoint.
    ///
    /// # Errors
    /// Says what is wrong with the template.
    pub fn insert(
        &mut self,
        method: &str,
        template: &str,
        endpoint: Endpoint,
    ) -> Result<(), TemplateError> {
        if template.len() > MAX_PATH_LEN {
            return Err(TemplateError::TooLong(template.len()));
        }
        let inner = template.strip_prefix('/').ok_or(PathError::Relative)?;
        if inner.ends_with('/') {
            return Err(TemplateError::TrailingSlash);
        }
        let segments: Vec<_> = if inner.is_empty() { vec![] } else { inner.split('/').collect() };
        let mut node = self.methods.entry(method.into()).or_default();
        for segment in segments {
            let name = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            node = match name {
                Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                    node.parameter.get_or_insert_default()
                }
                _ if segment.contains(['{', '}']) => {
                    return Err(TemplateError::Segment(segment.to_owned()));
                }
                _ if segment.is_empty() => return Err(PathError::EmptySegment.into()),
                _ => {
                    check_segment(segment)?;
                    let is_new = node.plain_literals.insert(plainest(segment));
                    if !is_new && !node.literals.contains_key(segment) {
                        return Err(TemplateError::Twin(segment.to_owned()));
                    }
                    node.literals.entry(segment.into()).or_default()
                }
            };
        }
        if node.endpoint.is_some() {
            return Err(TemplateError::SameShape);
        }
        node.endpoint = Some(endpoint);
        Ok(())
    }

    /// The endpoint that matches; among several, literals win from left to right (D20).
    #[must_use]
    pub fn find(&self, method: &str, path: &Path) -> Option<&Endpoint> {
        let segments: Vec<_> = path.segments().collect();
        self.methods.get(method)?.find(&segments).ok().flatten()
    }
}

/// A segment that some servers take for a literal: no other way through the tree may answer.
struct Unclear;

impl Node {
    /// Depth is that of the template tree, so what a caller sends cannot deepen it.
    fn find(&self, segments: &[&str]) -> Result<Option<&Endpoint>, Unclear> {
        let Some((first, rest)) = segments.split_first() else {
            return Ok(self.endpoint.as_ref());
        };
        if let Some(literal) = self.literals.get(*first) {
            if let Some(endpoint) = literal.find(rest)? {
                return Ok(Some(endpoint));
            }
        } else if self.plain_literals.contains(&plainest(first)) {
            // `/users/export;x=1` and `/users/%65xport` are `/users/export` to some servers: such
            // a segment is no parameter, or a weaker endpoint would answer for a stronger one.
            return Err(Unclear);
        }
        // A parameter matches a non-empty segment: a trailing slash never matches.
        match &self.parameter {
            Some(node) if !first.is_empty() => node.find(rest),
            _ => Ok(None),
        }
    }
}

/// A segment as the most lenient server reads it: decoded, and without what follows a `;`. Only
/// ever used to refuse.
fn plainest(segment: &str) -> Vec<u8> {
    let mut bytes = segment.bytes();
    let mut plain = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let decoded = if byte == b'%' { digit().zip(digit()) } else { None };
        let decoded = decoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match decoded.unwrap_or(byte) {
            b';' => break,
            byte => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(endpoints: &'a Endpoints, method: &str, path: &str) -> Option<&'a str> {
        let path = Path::parse(path).expect("a good path");
        endpoints.find(method, &path).map(|e| e.scopes[0].as_str())
    }

    fn endpoints(templates: &[(&str, &str)]) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for (method, template) in templates {
            let scope = Scope::parse(template.replace(['{', '}'], "*")).expect("a scope");
            let endpoint = Endpoint { scopes: vec![scope], ..Endpoint::default() };
            endpoints.insert(method, template, endpoint).expect("a good template");
        }
        endpoints
    }

    #[test]
    fn literals_win_from_left_to_right_among_all_that_match() {
        let all = endpoints(&[
            ("GET", "/"),
            ("GET", "/users/{id}"),
            ("GET", "/users/me"),
            ("GET", "/users/me/photo"),
            ("GET", "/{kind}/{id}/files"),
            ("GET", "/users/{id}/{what}"),
            ("GRPC", "/pkg.Service/Method"),
        ]);
        assert_eq!(found(&all, "GET", "/"), Some("/"));
        assert_eq!(found(&all, "GET", "/users/me"), Some("/users/me"));
        assert_eq!(found(&all, "GET", "/users/7"), Some("/users/*id*"));
        // `/users/me` leads nowhere here: the parameter is tried behind it.
        assert_eq!(found(&all, "GET", "/users/me/files"), Some("/users/*id*/*what*"));
        assert_eq!(found(&all, "GET", "/groups/7/files"), Some("/*kind*/*id*/files"));
        assert_eq!(found(&all, "GRPC", "/pkg.Service/Method"), Some("/pkg.Service/Method"));
        assert_eq!(found(&all, "GET", "/pkg.Service/Method"), None);
        assert_eq!(found(&all, "get", "/users/me"), None);
        assert_eq!(found(&all, "GET", "/users/"), None, "a trailing slash never matches");
        assert_eq!(found(&all, "GET", "/users/me/"), None);
        assert_eq!(found(&all, "GET", "/users"), None);
    }

    #[test]
    fn what_a_server_may_take_for_a_literal_is_no_parameter() {
        let all = endpoints(&[
            ("GET", "/users/{id}"),
            ("GET", "/users/export"),
            ("GET", "/users/me:purge"),
            ("GET", "/users/%C3%A9"),
        ]);
        for path in ["/users/export;x=1", "/users/me%3Apurge", "/users/me%3apurge", "/users/%c3%a9"]
        {
            assert_eq!(found(&all, "GET", path), None, "{path}");
        }
        for path in ["/users/a%40b.com", "/users/exports", "/users/7;x=1"] {
            assert_eq!(found(&all, "GET", path), Some("/users/*id*"), "{path}");
        }
    }

    #[test]
    fn no_other_way_answers_for_what_a_server_may_take_for_a_literal() {
        let all = endpoints(&[("GET", "/users/me/photo"), ("GET", "/users/{id}/{what}")]);
        assert_eq!(found(&all, "GET", "/users/me/files"), Some("/users/*id*/*what*"));
        for path in ["/users/me/photo;x", "/users/me/photo%3Bx", "/users/me;x/files"] {
            assert_eq!(found(&all, "GET", path), None, "{path}");
        }
    }

    #[test]
    fn a_path_that_could_be_read_twice_is_refused() {
        for bad in [
            "",
            "users",
            "/a?b=1",
            "/a#b",
            "/./a",
            "/a/..",
            "/a//b",
            "//",
            "/a\\b",
            "/a%2Fb",
            "/a%2fb",
            "/%2e%2e/a",
            "/a%5cb",
            "/a b",
            "/a%",
            "/a%g0",
            "/é",
            "/a%00",
            "/%75sers",
            "/a/./",
            "/a/..;/b",
            "/a/.;x=1",
            "/a/..%3Bx/b",
            "/;x",
            "/a/;/b",
        ] {
            assert!(Path::parse(bad).is_err(), "{bad:?}");
        }
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a/...",
            "/a%20b",
            "/a%C3%A9",
            "/a@b:c;d=e",
            "/a%40b",
            "/a%2Bb",
        ] {
            assert!(Path::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn templates_of_one_shape_and_unclear_ones_are_refused() {
        let mut all = endpoints(&[("GET", "/users/{id}")]);
        let endpoint = Endpoint::default();
        let mut insert =
            |method: &str, template: &str| all.insert(method, template, endpoint.clone());
        assert_eq!(insert("GET", "/users/{name}"), Err(TemplateError::SameShape));
        assert!(insert("POST", "/users/{name}").is_ok());
        for bad in [
            "users",
            "/users/",
            "/users//x",
            "/users/{}",
            "/users/a{id}",
            "/users/{a}{b}",
            "/a/..",
            "/a?b",
        ] {
            assert!(insert("GET", bad).is_err(), "{bad}");
        }
        assert!(insert("GET", "/%C3%A9/a").is_ok() && insert("GET", "/%C3%A9/b").is_ok());
        for twin in ["%c3%a9", "%C3%A9;x", "%C3%A9%3B"] {
            let refused = Err(TemplateError::Twin(twin.to_owned()));
            assert_eq!(insert("GET", &format!("/{twin}/c")), refused, "{twin}");
        }
        for bad in ["{}", "x{id}", "{a}{b}", "{a{b}}", "{", "}"] {
            let unclear = Err(TemplateError::Segment(bad.to_owned()));
            assert_eq!(insert("GET", &format!("/fresh/{bad}")), unclear, "{bad}");
        }
    }

    #[test]
    fn a_path_is_as_long_as_a_template_may_be() {
        let endpoint = Endpoint::default();
        let mut all = Endpoints::default();
        for len in [MAX_PATH_LEN, MAX_PATH_LEN + 1, MAX_PATH_LEN + 2] {
            let path = format!("/{}", "a".repeat(len - 1));
            let (parsed, inserted) =
                (Path::parse(path.as_str()), all.insert("GET", &path, endpoint.clone()));
            if len == MAX_PATH_LEN {
                assert!(parsed.is_ok() && inserted.is_ok());
                continue;
            }
            assert_eq!(parsed, Err(PathError::TooLong(len)));
            assert_eq!(inserted, Err(TemplateError::TooLong(len)));
        }
    }
}
