//! Trace context: the request id and the trace that a caller names in its headers: `x-request-id`,
//! `traceparent` and `tracestate` (W3C Trace Context).
//!
//! Logs and traces show them. No decision depends on them. A header that is not well-formed is
//! ignored, as W3C Trace Context requires: no call is rejected for it.
//!
//! Not here: the `request_id` field of the API, which makes a change safe to send again. And the
//! export of traces; see `observe::otlp`.

use http::{HeaderMap, HeaderName};

use crate::authority::request_context::Parent;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The limit of a request id, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// The limit of a `tracestate`, in bytes. W3C Trace Context requires no more.
const MAX_STATE: usize = 512;

/// The caller's span, if these headers name one.
#[must_use]
pub fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut parts = single_value(headers, &TRACEPARENT)?.split('-');
    let mut part = |digits| hex(parts.next()?, digits);
    let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let has_more = parts.next().is_some();
    // Later versions may append more fields.
    if version == 0xff || (version == 0 && has_more) || trace_id == 0 || span_id == 0 {
        return None;
    }
    let is_sampled = flags & 1 == 1;
    let state = if is_sampled { state(headers) } else { None };
    Some(Parent { trace_id, span_id: u64::try_from(span_id).ok()?, is_sampled, state })
}

/// The id of the request that a call with these headers serves, if it is well-formed: 1 to 128
/// visible ASCII characters.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Option<Box<str>> {
    well_formed_id(single_value(headers, &REQUEST_ID)?)
}

/// This id of a request, if it is well-formed.
#[must_use]
pub fn well_formed_id(id: &str) -> Option<Box<str>> {
    let well_formed = id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    (well_formed && !id.is_empty()).then(|| id.into())
}

/// The value of a header that occurs exactly once.
fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    // With two values it is undefined which one is meant.
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// Parses a number of exactly this many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = text.len() == digits && text.bytes().all(is_hex);
    if well_formed { u128::from_str_radix(text, 16).ok() } else { None }
}

/// The `tracestate`, which may be split into several headers.
fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let all: Result<Vec<_>, _> =
        headers.get_all(TRACESTATE).iter().map(|header| header.to_str()).collect();
    let state = all.ok()?.join(",");
    (!state.is_empty() && state.len() <= MAX_STATE).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        of.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn appended(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, text) in of {
            all.append(*name, HeaderValue::from_str(text).expect("a value"));
        }
        all
    }

    fn parent(text: &str) -> Option<Parent> {
        super::parent(&headers(&[("traceparent", text)]))
    }

    #[test]
    fn traceparent_is_parsed_by_w3c_trace_context() {
        let read = parent(&format!("00-{TRACE}-00f067aa0ba902b7-01")).expect("a parent");
        assert_eq!(read.trace(), TRACE);
        assert_eq!(read.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(read.is_sampled);
        let unsampled = parent(&format!("00-{TRACE}-00f067aa0ba902b7-02")).expect("a parent");
        assert!(!unsampled.is_sampled, "another flag");
        let later = parent(&format!("01-{TRACE}-00f067aa0ba902b7-03-what-comes-later"));
        assert!(later.expect("a parent").is_sampled);
    }

    #[test]
    fn malformed_traceparent_is_ignored() {
        let span = "00f067aa0ba902b7";
        for invalid in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{span}"),
            format!("00-{TRACE}-{span}-1"),
            format!("00-{TRACE}-{span}-01-more"),
            format!("00-{TRACE}-{span}-01-"),
            format!("ff-{TRACE}-{span}-01"),
            format!("0-{TRACE}-{span}-01"),
            format!("00-{}-{span}-01", TRACE.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}0-{span}-01"),
            format!("00-+{}-{span}-01", TRACE.split_at(1).1),
            format!("00-{TRACE}-{span}-0g"),
            format!(" 00-{TRACE}-{span}-01"),
        ] {
            assert_eq!(parent(&invalid), None, "`{invalid}`");
        }
        let one = format!("00-{TRACE}-{span}-01");
        let two = appended(&[("traceparent", &one), ("traceparent", &one)]);
        assert_eq!(super::parent(&two), None, "two");
    }

    #[test]
    fn tracestate_keeps_its_order_and_is_bounded() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let long = format!("a={}", "x".repeat(MAX_STATE));
        let state = |states: &[&str]| {
            let mut all = vec![("traceparent", parent.as_str())];
            all.extend(states.iter().map(|state| ("tracestate", *state)));
            super::parent(&appended(&all)).expect("a parent").state
        };
        assert_eq!(state(&["a=1", "b=2,c=3"]).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[&long]), None);
    }

    #[test]
    fn request_id_is_bounded_visible_ascii() {
        let read = |text: &str| request_id(&headers(&[("x-request-id", text)]));
        let longest = "x".repeat(MAX_REQUEST_ID);
        for valid in ["1", "a-b_c.d:e/f\"{}", &longest] {
            assert_eq!(read(valid).as_deref(), Some(valid));
        }
        for invalid in ["", "two words", "tab\tbed", &format!("{longest}x")] {
            assert_eq!(read(invalid), None, "`{invalid}`");
        }
        let non_ascii = HeaderValue::from_bytes("é".as_bytes()).expect("a value");
        assert_eq!(request_id(&[(REQUEST_ID, non_ascii)].into_iter().collect()), None);
        assert_eq!(request_id(&appended(&[("x-request-id", "a"), ("x-request-id", "a")])), None);
    }
}
