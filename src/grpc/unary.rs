//! Unary: reads the one message of a call and writes the one message of its response.
//!
//! tonic supports every kind of call: streams, compression, interceptors. A check is one small request
//! message and one small response message, in front of every request of a platform. This module reads
//! and writes exactly that with the types of hyper: no buffer except the message, no boxed future. All
//! other unary methods use it, too.
//!
//! The gRPC protocol: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. Each message has
//! a prefix of five bytes: a compressed flag and the length.
//!
//! Not here: compressed messages, which are rejected, and streams; see [`super::streams`].

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use http_body_util::BodyExt;
use prost::{Message, Name};
use tonic::Status;

use super::preflight::GRPC;
use super::response_body::ResponseBody;
use super::{body_timeout, list_limits, memory, status};
use crate::authority::admission::Urgency;
use crate::metrics::memory_budget::{Account, Reservation};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The bytes of the prefix of a message.
const PREFIX: usize = 5;

/// Whether a call with these headers is supported: its messages are not compressed.
#[must_use]
pub fn is_supported(headers: &HeaderMap) -> bool {
    headers.get(GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// Keeps only the headers that tonic reads. A call may be open for a long time; it must
/// not hold its key or large headers in memory.
pub fn keep_own(headers: &mut HeaderMap) {
    let own = [CONTENT_TYPE, GRPC_ENCODING];
    *headers = own
        .into_iter()
        .filter_map(|name| headers.remove(&name).map(|value| (name, value)))
        .collect();
}

/// The bounds of a unary call.
#[derive(Clone, Copy, Debug)]
pub struct CallBounds {
    /// The time until the call must be answered, if the caller sets one.
    pub deadline: Option<Duration>,
    /// The limit of the request message, in bytes.
    pub max_len: usize,
    /// How urgent the call is for the memory budget.
    pub urgency: Urgency,
}

/// Reads a message, calls the handler and writes the response. The memory of long messages is reserved in
/// the caller's account.
pub async fn unary<B>(
    CallBounds { deadline, max_len, urgency }: CallBounds,
    body: B,
    account: impl Fn() -> Account,
    handler: impl AsyncFnOnce(Bytes) -> Result<Bytes, Status>,
) -> Response<ResponseBody>
where
    B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
{
    let result = async {
        let free = memory::counted_from(urgency);
        let (message, _reservation) = read(body, max_len, free, &account, Ok).await?;
        ResponseBody::held(handler(message).await?, urgency, &account)
    };
    let result = match deadline {
        None => result.await,
        Some(time) => {
            // Boxed, so that the future of a call without a deadline has no timer in it.
            let result = Box::pin(tokio::time::timeout(time, result)).await;
            result.unwrap_or_else(|_| Err(status::deadline_exceeded()))
        }
    };
    match result {
        Ok(message) => reply(message),
        Err(status) => status.into_http(),
    }
}

/// Reads the one message of a request, within the caller's deadline. The message is short, so its memory
/// is not reserved.
///
/// # Errors
/// The message is incomplete or malformed, or the deadline passed.
pub async fn message<B, Q>(
    deadline: Option<Duration>,
    body: B,
    limit: usize,
    account: &impl Fn() -> Account,
    decode: fn(Bytes) -> Result<Q, Status>,
) -> Result<Q, Status>
where
    B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
{
    let message = read(body, limit, limit, account, decode);
    let read = match deadline {
        None => message.await,
        Some(time) => {
            let message = Box::pin(tokio::time::timeout(time, message)).await;
            message.unwrap_or_else(|_| Err(status::deadline_exceeded()))
        }
    };
    read.map(|(message, _)| message)
}

/// The response to a call that was not rejected, with this body.
pub fn reply<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The one message of a request, and its memory reservation if it has more than `free` bytes.
pub(super) async fn read<B, Q>(
    mut body: B,
    limit: usize,
    free: usize,
    account: &impl Fn() -> Account,
    decode: fn(Bytes) -> Result<Q, Status>,
) -> Result<(Q, Option<Reservation>), Status>
where
    B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
{
    let mut reservation: Option<Reservation> = None;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let max_len = limit.saturating_add(PREFIX);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| body_timeout::into_status(error.into()))?.into_data()
        else {
            continue;
        };
        if all.is_empty() && first.is_empty() {
            // Usually the whole message, which is then decoded without a copy.
            first = data;
        } else {
            all.reserve(first.len() + data.len());
            all.put(std::mem::take(&mut first));
            all.put(data);
        }
        let length = first.len().max(all.len());
        if length > max_len {
            return Err(status::too_long(length - PREFIX, limit));
        }
        if length > free {
            let reservation = reservation.get_or_insert_with(|| account().empty());
            reservation.resize(length as u64).map_err(status::no_memory)?;
        }
        let whole: &[u8] = if all.is_empty() { &first } else { &all };
        if let Some(length) = declared_len(whole)?
            && length > limit
        {
            return Err(status::too_long(length, limit));
        }
        if body.is_end_stream() {
            break;
        }
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    let length = declared_len(&whole)?.ok_or_else(status::truncated)?;
    if whole.len() != PREFIX + length {
        return Err(status::truncated());
    }
    Ok((decode(whole.slice(PREFIX..))?, reservation))
}

/// Decodes a message.
///
/// # Errors
/// The bytes are not a message of this type.
pub fn decode<Q: Message + Default>(bytes: Bytes) -> Result<Q, Status> {
    Q::decode(bytes).map_err(|_| status::undecodable())
}

/// Counts the lists of a message and then decodes it.
///
/// # Errors
/// The bytes are not a message of this type, or a list is too long.
pub fn count_and_decode<Q: Message + Name + Default>(bytes: Bytes) -> Result<Q, Status> {
    count::<Q>(&bytes)?;
    decode(bytes)
}

/// Counts the lists of a message.
///
/// # Errors
/// A list is too long.
pub fn count<Q: Name>(bytes: &[u8]) -> Result<(), Status> {
    if bytes.len() >= list_limits::COUNTED_FROM {
        list_limits::count(&Q::full_name(), bytes)?;
    }
    Ok(())
}

/// The length in the prefix of a message, if the prefix is complete.
fn declared_len(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(status::compressed());
    }
    Ok(Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)))
}

/// A message with its prefix.
pub fn write(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The only error is a buffer that is too small, and this one is large enough.
    message.encode(&mut bytes).ok();
    bytes.freeze()
}

/// The deadline of a call (`grpc-timeout`), if it has one.
///
/// # Errors
/// The header is malformed.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    duration(value).map(Some).ok_or_else(status::bad_deadline)
}

/// Parses one to eight digits and a unit.
fn duration(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use http_body::Frame;

    use super::*;
    use crate::metrics::memory_budget::MemoryBudget;
    use crate::proto::Endpoint;

    type Parts = Vec<Result<Frame<Bytes>, std::convert::Infallible>>;

    fn body(parts: &[&[u8]]) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
        let parts: Parts =
            parts.iter().map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
        StreamBody::new(tokio_stream::iter(parts))
    }

    fn read_now(parts: &[&[u8]], limit: usize) -> Result<Endpoint, tonic::Code> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let account = || MemoryBudget::new(1 << 20).shared();
        let read = runtime.block_on(read(body(parts), limit, 1024, &account, decode));
        read.map(|(message, _)| message).map_err(|status| status.code())
    }

    #[test]
    fn message_is_read_however_its_bytes_are_split() {
        let endpoint = Endpoint { method: "GET".to_owned(), path: "/a".to_owned() };
        let wire = write(&endpoint);
        assert_eq!(read_now(&[&wire], 100), Ok(endpoint.clone()));
        for at in 0..=wire.len() {
            let (a, b) = wire.split_at(at);
            assert_eq!(read_now(&[a, b], 100), Ok(endpoint.clone()), "{at}");
        }
        let bytes: Vec<_> = wire.chunks(1).collect();
        assert_eq!(read_now(&bytes, 100), Ok(endpoint));
    }

    #[test]
    fn malformed_message_is_rejected_and_never_read_as_a_default_one() {
        let wire = write(&Endpoint { method: "GET".to_owned(), path: "/a".to_owned() });
        for at in 0..wire.len() {
            let result = read_now(&[&wire[..at]], 100);
            assert!(result.is_err(), "{at} bytes of it");
        }
        assert!(read_now(&[&wire, b"x"], 100).is_err(), "something behind it");
        assert!(read_now(&[&[0, 0, 0, 0, 1, 0xff]], 100).is_err(), "no protobuf");
        assert_eq!(read_now(&[&[1, 0, 0, 0, 0]], 100), Err(tonic::Code::Unimplemented));
        let too_long = Err(tonic::Code::ResourceExhausted);
        assert_eq!(read_now(&[&wire], 3), too_long);
        assert_eq!(read_now(&[&[0, 0xff, 0xff, 0xff, 0xff]], 100), too_long, "as announced");
        assert_eq!(read_now(&[&wire[..2], &[0; 200]], 100), too_long, "as sent");
    }

    #[test]
    fn compressed_calls_are_not_supported() {
        let is_supported = |encoding: &'static str| {
            let headers = [(GRPC_ENCODING, HeaderValue::from_static(encoding))];
            super::is_supported(&headers.into_iter().collect())
        };
        assert!(super::is_supported(&HeaderMap::new()) && is_supported("identity"));
        assert!(!is_supported("gzip") && !is_supported("") && !is_supported("identity,gzip"));
    }

    #[test]
    fn deadline_is_parsed_as_the_protocol_defines_it() {
        let read = |text: &'static str| duration(&HeaderValue::from_static(text));
        assert_eq!(read("500m"), Some(Duration::from_millis(500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "5.0S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
