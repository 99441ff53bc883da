//! Express: a unary call by the shortest way.
//!
//! The generated services carry any call: streams, compression, interceptors. A check is one
//! small message in and one out, and in front of every request of a platform. This file reads
//! and writes exactly that, on hyper's own types: no buffer beside the message, no boxed future.
//! What it does not know (a compressed message) it leaves to the generated service.
//!
//! The gRPC wire: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. A message
//! stands behind five bytes: one that says whether it is compressed, and its length.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::{Message, Name};
use tonic::Status;

use super::preflight::GRPC;
use super::{body_timeout, list_limits, memory, status};
use crate::metrics::Counted;
use crate::metrics::memory_budget::{Account, Reservation};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const OK: HeaderValue = HeaderValue::from_static("0");
/// The bytes in front of a message.
const PREFIX: usize = 5;

/// The body of a reply: of an express one, or of any other.
pub enum Reply {
    /// One message and the trailers behind it. Its call is in flight until the message is sent:
    /// only then the trailers are asked for.
    Message(Option<Bytes>, InFlight),
    /// Only the trailers are left.
    Trailers(InFlight),
    /// Nothing is left.
    Ended,
    /// Of a generated service.
    Other(tonic::body::Body),
}

/// The places in flight that a call takes: of all calls, and of those of its key.
#[derive(Debug, Default)]
pub struct InFlight(pub Option<Counted>, pub Option<Counted>);

impl Reply {
    /// Has a call stay in flight until its message is taken, if it has one.
    #[must_use]
    pub fn in_flight(self, places: InFlight) -> Self {
        match self {
            Self::Message(message, _) => Self::Message(message, places),
            other => other,
        }
    }

    /// Whether more than one message may come, at any time.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Other(body) if !body.is_end_stream())
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Message(message, places) => {
                let message = message.take().unwrap_or_default();
                *self = Self::Trailers(std::mem::take(places));
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Trailers(_) => {
                *self = Self::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            Self::Ended => Poll::Ready(None),
            Self::Other(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Message(..) | Self::Trailers(_) => false,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Other(body) => body.size_hint(),
            // Trailers follow, so no length is promised.
            _ => SizeHint::default(),
        }
    }
}

/// Whether a gRPC call can go this way: its messages are not compressed.
#[must_use]
pub fn is_supported(headers: &HeaderMap) -> bool {
    headers.get(GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// Keeps only the headers that a generated service reads: a call may be open for long, and holds
/// neither its key nor anything large meanwhile.
pub fn keep_own(headers: &mut HeaderMap) {
    let own = [CONTENT_TYPE, GRPC_ENCODING];
    *headers = own
        .into_iter()
        .filter_map(|name| headers.remove(&name).map(|value| (name, value)))
        .collect();
}

/// Reads a message of at most `limit` bytes, has it answered, and writes the answer. Long
/// messages are held in the caller's account.
pub async fn unary<B, Q, A>(
    deadline: Option<Duration>,
    body: B,
    limit: usize,
    account: impl Fn() -> Account,
    decode: fn(Bytes) -> Result<Q, Status>,
    answer: impl AsyncFnOnce(Q) -> Result<A, Status>,
) -> Response<Reply>
where
    B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
    A: Message,
{
    let answered = async {
        let (message, _held) = read(body, limit, &account, decode).await?;
        let answer = answer(message).await?;
        Reply::held(write(&answer), &account)
    };
    let answered = match deadline {
        None => answered.await,
        Some(time) => {
            // Apart, so that a call without a deadline carries no timer about.
            let answered = Box::pin(tokio::time::timeout(time, answered)).await;
            answered.unwrap_or_else(|_| Err(status::deadline_exceeded()))
        }
    };
    match answered {
        Ok(message) => reply(message),
        Err(status) => status.into_http(),
    }
}

/// A reply without a body has its status among the headers.
impl Default for Reply {
    fn default() -> Self {
        Self::Ended
    }
}

/// Reads the one message of a request, within the caller's deadline. It is short: none of its
/// memory is counted.
///
/// # Errors
/// It did not come as a whole, not in time, or is no such message.
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
    let message = read(body, limit, account, decode);
    let read = match deadline {
        None => message.await,
        Some(time) => {
            let message = Box::pin(tokio::time::timeout(time, message)).await;
            message.unwrap_or_else(|_| Err(status::deadline_exceeded()))
        }
    };
    read.map(|(message, _)| message)
}

/// The head of the reply to a call that was not refused.
pub fn reply<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// What stands behind the last message of a call that ended well.
#[must_use]
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}

/// The one message of a request, and what it holds if it is long.
pub(super) async fn read<B, Q>(
    mut body: B,
    limit: usize,
    account: &impl Fn() -> Account,
    decode: fn(Bytes) -> Result<Q, Status>,
) -> Result<(Q, Option<Reservation>), Status>
where
    B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
{
    let mut held: Option<Reservation> = None;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let most = limit.saturating_add(PREFIX);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| body_timeout::into_status(error.into()))?.into_data()
        else {
            continue;
        };
        if all.is_empty() && first.is_empty() {
            // As a rule all there is: decoded where it lies.
            first = data;
        } else {
            all.reserve(first.len() + data.len());
            all.put(std::mem::take(&mut first));
            all.put(data);
        }
        let length = first.len().max(all.len());
        if length > most {
            return Err(status::too_long(length - PREFIX, limit));
        }
        if length > memory::COUNTED_FROM {
            let held = held.get_or_insert_with(|| account().empty());
            held.resize(length as u64).map_err(status::no_memory)?;
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
    Ok((decode(whole.slice(PREFIX..))?, held))
}

/// The message that these bytes are.
///
/// # Errors
/// They are none.
pub fn decode<Q: Message + Default>(bytes: Bytes) -> Result<Q, Status> {
    Q::decode(bytes).map_err(|_| status::undecodable())
}

/// The message of the contract that these bytes are, whose lists are counted first.
///
/// # Errors
/// They are none, or a list is too long.
pub fn count_and_decode<Q: Message + Name + Default>(bytes: Bytes) -> Result<Q, Status> {
    if bytes.len() >= list_limits::COUNTED_FROM {
        list_limits::count(&Q::full_name(), &bytes)?;
    }
    decode(bytes)
}

/// The length of the message that begins here, if its prefix is complete.
fn declared_len(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(status::compressed());
    }
    Ok(Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)))
}

/// A message behind its prefix.
pub fn write(answer: &impl Message) -> Bytes {
    let length = answer.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The only error is a lack of room, and there is room.
    answer.encode(&mut bytes).ok();
    bytes.freeze()
}

/// The time that a caller gives, if it gives one.
///
/// # Errors
/// It is not written as the protocol says.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    duration(value).map(Some).ok_or_else(status::bad_deadline)
}

/// At most eight digits and a unit.
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
        let read = runtime.block_on(read(body(parts), limit, &account, decode));
        read.map(|(message, _)| message).map_err(|status| status.code())
    }

    #[test]
    fn a_message_is_read_in_whatever_pieces_it_comes() {
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
    fn what_is_no_message_is_refused_and_never_a_default_one() {
        let wire = write(&Endpoint { method: "GET".to_owned(), path: "/a".to_owned() });
        for at in 0..wire.len() {
            let refused = read_now(&[&wire[..at]], 100);
            assert!(refused.is_err(), "{at} bytes of it");
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
    fn what_may_be_compressed_goes_the_other_way() {
        let takes = |encoding: &'static str| {
            let headers = [(GRPC_ENCODING, HeaderValue::from_static(encoding))];
            super::is_supported(&headers.into_iter().collect())
        };
        assert!(super::is_supported(&HeaderMap::new()) && takes("identity"));
        assert!(!takes("gzip") && !takes("") && !takes("identity,gzip"));
    }

    #[test]
    fn a_deadline_is_read_as_the_protocol_writes_it() {
        let read = |text: &'static str| duration(&HeaderValue::from_static(text));
        assert_eq!(read("500m"), Some(Duration::from_millis(500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "5.0S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
