//! Parameter syntax of other tools: recognized, so that the error can say what to write here.

pub(super) const PARAMETER: &str =
    "a parameter is `{name}`, and the rest of the path is a last `{name+}`";
pub(super) const CONSTRAINT: &str = "a parameter has a name and no pattern: write `{name}`";
pub(super) const PATTERN: &str = "there are no groups and no patterns: write an endpoint for each path, and `{name}` for a parameter";
pub(super) const OPTIONAL: &str =
    "every segment is needed: write two endpoints, one with `{name}` and one without";
pub(super) const END: &str = "a path that ends in a slash is written with `/` at its end";

/// The advice for a segment that another tool reads as more than a literal.
pub(super) fn foreign_syntax(segment: &str) -> Option<&'static str> {
    let inner = segment.strip_prefix('{').map(|s| s.strip_suffix('}').unwrap_or(s));
    match inner {
        // The verbs of Google APIs have the same syntax here.
        Some(inner) if inner.contains("}:") && !inner.contains(['(', '*', '?', '=', '<']) => None,
        Some("$") => Some(END),
        Some(inner) if inner.starts_with('*') || inner.ends_with('*') => Some(PARAMETER),
        // The rest of the path, in Starlette and in routers that read patterns.
        Some(inner) if inner.ends_with(":path") || inner.ends_with(":.+") => Some(PARAMETER),
        Some(inner) if inner.contains(':') => Some(CONSTRAINT),
        Some(inner) if inner.starts_with("...") || inner.ends_with("...") => Some(PARAMETER),
        Some(inner) if inner.starts_with('+') => Some(PARAMETER),
        Some(inner) if inner.contains('=') => Some(PARAMETER),
        Some(inner) if inner.starts_with('?') || inner.ends_with('?') => Some(OPTIONAL),
        _ if segment.starts_with(':') => Some(PARAMETER),
        _ if segment.contains("${") || segment.contains("{{") => Some(PARAMETER),
        _ if segment.contains(['(', ')']) => Some(PATTERN),
        _ if segment.contains(['*', '<', '>', '[', ']']) => Some(PARAMETER),
        _ => None,
    }
}
