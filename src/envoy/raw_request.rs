//! Raw request: a message of Envoy in which the client's part is not text.
//!
//! Envoy sends some of what a client sent as it came, such as the query of the path, in fields that must be
//! text. A decoder refuses such a message. But that would be an error of the call, and a client must not be
//! able to choose what the gateway does without a decision. So the message is read again as bytes.
//!
//! Not here: the requests of all other clients; see [`super::request`].

use prost::Message;

use crate::proto::envoy::config::core::v3::{HeaderMap, HeaderValue};
use crate::proto::envoy::service::auth::v3::attribute_context::{
    ContextExtensionsEntry, HttpRequest, Request,
};
use crate::proto::envoy::service::auth::v3::{AttributeContext, CheckRequest};

#[derive(Clone, PartialEq, Message)]
struct RawCheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<RawAttributes>,
}

#[derive(Clone, PartialEq, Message)]
struct RawAttributes {
    #[prost(message, optional, tag = "4")]
    request: Option<RawRequest>,
    /// The operator's part. It must be text.
    #[prost(message, repeated, tag = "10")]
    context_extensions: Vec<ContextExtensionsEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct RawRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<RawHttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct RawHttpRequest {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    method: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<RawHeader>,
    #[prost(bytes = "vec", tag = "4")]
    path: Vec<u8>,
    #[prost(message, optional, tag = "13")]
    header_map: Option<RawHeaderMap>,
}

#[derive(Clone, PartialEq, Message)]
struct RawHeaderMap {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<RawHeader>,
}

/// An entry of `headers`, or of `header_map`, which has a third field.
#[derive(Clone, PartialEq, Message)]
struct RawHeader {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

/// The message with these bytes. A method or a path that is not text is empty, so it cannot be judged. Header
/// values keep their bytes.
///
/// # Errors
/// The bytes are no message of this type, or the names of the headers or the settings of the route are not
/// text.
pub fn decode_raw(bytes: &[u8]) -> Result<CheckRequest, prost::DecodeError> {
    let RawCheckRequest { attributes } = RawCheckRequest::decode(bytes)?;
    let attributes = attributes.map(|RawAttributes { request, context_extensions }| {
        let request = request.map(|request| Request { http: request.http.map(http_request) });
        AttributeContext { request, context_extensions }
    });
    Ok(CheckRequest { attributes })
}

fn http_request(raw: RawHttpRequest) -> HttpRequest {
    let RawHttpRequest { id, method, headers, path, header_map } = raw;
    // The query is not judged.
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec();
    let in_map = header_map.into_iter().flat_map(|map| map.headers);
    let headers = headers.into_iter().chain(in_map).flat_map(values).collect();
    HttpRequest {
        id: text(id),
        method: text(method),
        headers: vec![],
        path: text(path),
        header_map: Some(HeaderMap { headers }),
    }
}

/// A header for each value that it has. Without a value it is an empty one.
fn values(RawHeader { key, value, raw_value }: RawHeader) -> Vec<HeaderValue> {
    let header = |raw_value| HeaderValue { key: key.clone(), value: String::new(), raw_value };
    match (value.is_empty(), raw_value.is_empty()) {
        (true, _) => vec![header(raw_value)],
        (false, true) => vec![header(value)],
        (false, false) => vec![header(value), header(raw_value)],
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::http_request as judged;
    use super::*;
    use crate::gateway::http_request::Header;

    fn header(key: &str, value: &[u8], raw_value: &[u8]) -> RawHeader {
        RawHeader { key: key.to_owned(), value: value.to_vec(), raw_value: raw_value.to_vec() }
    }

    fn message(http: RawHttpRequest) -> Vec<u8> {
        let setting =
            ContextExtensionsEntry { key: "company_id".to_owned(), value: "acme".to_owned() };
        let request = Some(RawRequest { http: Some(http) });
        let attributes = RawAttributes { request, context_extensions: vec![setting] };
        RawCheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }

    fn http(path: &[u8], headers: Vec<RawHeader>, in_map: Vec<RawHeader>) -> RawHttpRequest {
        RawHttpRequest {
            id: b"1".to_vec(),
            method: b"GET".to_vec(),
            headers,
            path: path.to_vec(),
            header_map: Some(RawHeaderMap { headers: in_map }),
        }
    }

    #[test]
    fn what_is_not_text_is_never_an_error_and_never_read_as_something_else() {
        let headers = vec![header("a", b"1", b""), header("b", b"\xff", b"")];
        let in_map =
            vec![header("c", b"", b"\xff"), header("d", b"1", b"1"), header("e", b"", b"")];
        let bytes = message(http(b"/users?\xff=?", headers, in_map));
        CheckRequest::decode(&*bytes).expect_err("not text");
        let read = decode_raw(&bytes).expect("a message");
        let settings = super::super::settings(&read);
        assert_eq!(settings.iter().map(|it| &*it.value).collect::<Vec<_>>(), ["acme"]);
        let request = judged(&read).expect("a request");
        assert_eq!((request.method, request.path()), ("GET", "/users"));
        for (name, expected) in [
            ("a", Header::Once("1")),
            ("b", Header::Unclear),
            ("c", Header::Unclear),
            ("d", Header::Unclear),
            ("e", Header::Once("")),
            ("f", Header::Absent),
        ] {
            assert_eq!(request.header(name), expected, "{name}");
        }
        let path = decode_raw(&message(http(b"/users/\xff", vec![], vec![]))).expect("a message");
        assert_eq!(judged(&path).expect("a request").path(), "");
        let method = RawHttpRequest { method: b"G\xff".to_vec(), ..http(b"/", vec![], vec![]) };
        let method = decode_raw(&message(method)).expect("a message");
        assert_eq!(judged(&method).expect("a request").method, "");
    }

    #[test]
    fn message_of_text_means_the_same() {
        let headers = vec![header("a", b"1", b""), header("a", b"2", b"")];
        let in_map = vec![header("b", b"1", b""), header("b", b"", b"2"), header("c", b"", b"")];
        let bytes = message(http(b"/users?x", headers, in_map));
        let (text, raw) = (CheckRequest::decode(&*bytes), decode_raw(&bytes));
        let (text, raw) = (text.expect("a message"), raw.expect("a message"));
        assert_eq!(super::super::settings(&text), super::super::settings(&raw));
        let (text, raw) = (judged(&text).expect("one"), judged(&raw).expect("one"));
        assert_eq!((text.method, text.path()), (raw.method, raw.path()));
        assert_eq!(text.headers, raw.headers);
    }

    #[test]
    fn other_malformed_messages_stay_errors() {
        let whole = message(http(b"/users", vec![], vec![]));
        decode_raw(&whole[..whole.len() - 1]).expect_err("it is cut off");
        let mut setting = whole.clone();
        let at = whole.windows(4).position(|it| it == b"acme").expect("it is there");
        setting[at] = 0xff;
        decode_raw(&setting).expect_err("the operator's part");
    }
}
