//! Path: that of a call, in the one form that nothing reads twice.

use super::segment::{decode_fully, decode_once, without_parameters};

/// The most bytes that a path can have.
pub const MAX_PATH_LEN: usize = 4096;

/// The path of a call: absolute, without query, in the one form that nothing reads twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath(Box<str>);

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

impl RequestPath {
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

    /// The segments of the path: none for the root, and an empty last one for a trailing slash.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        let inner = self.0.strip_prefix('/').filter(|inner| !inner.is_empty());
        inner.into_iter().flat_map(|inner| inner.split('/'))
    }
}

/// Why a segment of a call's path, or a literal of a new template, could mean another one.
pub(super) fn check_segment(segment: &str) -> Result<(), PathError> {
    check_stored_segment(segment)?;
    // Nothing is encoded twice in nearly all paths.
    if segment.contains("%25") {
        let decoded = decode_fully(segment);
        let separates = |b: &&u8| matches!(b, b'/' | b'\\') || b.is_ascii_control();
        if let Some(byte) = decoded.iter().find(separates) {
            return Err(PathError::Encoded(char::from(*byte)));
        }
        check_plain(segment, without_parameters(&decoded))?;
    }
    Ok(())
}

/// The same check for a literal of a stored catalog, without the rule for double encoding.
pub(super) fn check_stored_segment(segment: &str) -> Result<(), PathError> {
    // `..;x` climbs where a server drops what follows a `;`, and `;x` is nothing there.
    if segment.bytes().any(|b| matches!(b, b'.' | b';' | b'%')) {
        check_plain(segment, &decode_once(segment))?;
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

fn check_plain(segment: &str, plain: &[u8]) -> Result<(), PathError> {
    match plain {
        b"." | b".." => Err(PathError::DotSegment),
        [] if !segment.is_empty() => Err(PathError::EmptySegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_path_is_refused() {
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
            // Encoded twice, or more often.
            "/a%252Fb",
            "/a%25252fb",
            "/a%255Cb",
            "/a%2500b",
            "/%252e%252e/a",
            "/a/.%252e%253Bx/b",
            "/%253Bx",
        ] {
            assert!(RequestPath::parse(bad).is_err(), "{bad:?}");
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
            "/100%25",
            "/a%2540b",
        ] {
            assert!(RequestPath::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_path_has_a_maximum_length() {
        for len in [MAX_PATH_LEN, MAX_PATH_LEN + 1] {
            let path = format!("/{}", "a".repeat(len - 1));
            let good = len == MAX_PATH_LEN;
            assert_eq!(RequestPath::parse(path).err(), (!good).then_some(PathError::TooLong(len)));
        }
    }
}
