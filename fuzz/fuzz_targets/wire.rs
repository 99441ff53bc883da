//! Wire: the unary fast path decodes a request the same way, however its bytes are split into
//! chunks, or rejects it. It never decodes malformed bytes as an empty message.
//!
//! The first byte chooses the length of the chunks, the second the limit, the third the header.
#![no_main]

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use scopegate::grpc::{fuzz, unary};
use scopegate::proto::CheckRequest;

fuzz_target!(|bytes: &[u8]| {
    let [size, limit, wire @ ..] = bytes else { return };
    let limit = usize::from(*limit);
    let pieces = wire.chunks(usize::from(*size).max(1)).map(Bytes::copy_from_slice).collect();
    let read = fuzz::express(pieces, limit);
    let whole = fuzz::express(vec![Bytes::copy_from_slice(wire)], limit);
    assert_eq!(read.is_ok(), whole.is_ok(), "{read:?} in pieces, {whole:?} as a whole");
    // The reference: a simple decoder that follows the protocol.
    let expected = match wire {
        [0, a, b, c, d, message @ ..]
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len()
                && message.len() <= limit =>
        {
            CheckRequest::decode(message).ok()
        }
        _ => None,
    };
    assert_eq!(read.ok(), expected);
    // No list of an accepted message is longer than its limit.
    if let Ok(checks) = fuzz::batch_counted(wire) {
        assert!(wire.len() < 1024 || checks <= 1000, "{checks}");
    }
    let Ok(value) = HeaderValue::from_bytes(wire) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("grpc-timeout"), value.clone());
    if let Ok(Some(time)) = unary::deadline(&headers) {
        let digits = wire.len() - 1;
        assert!((1..=8).contains(&digits) && wire[..digits].iter().all(u8::is_ascii_digit));
        assert!(time.as_secs() <= 99_999_999 * 3_600);
    }
    headers.insert(AUTHORIZATION, value.clone());
    if let Some(Some(key)) = fuzz::presented(&headers) {
        assert!(wire.ends_with(key.as_bytes()) && wire.len() == key.len() + 7);
    }
    headers.append(AUTHORIZATION, value);
    assert_eq!(fuzz::presented(&headers), None, "of two none counts");
});
