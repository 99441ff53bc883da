//! Memory: reserves the memory of request and response bodies in the memory budget, while a request is
//! read and until a response is sent.
//!
//! Small messages are not counted: the limit on calls in flight bounds their memory.
//!
//! Not here: the budget; see [`crate::metrics::memory_budget`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::response_body::{InFlight, ResponseBody};
use super::{body_timeout, status};
use crate::authority::admission::Urgency;
use crate::metrics::memory_budget::{Account, Exhausted, Reservation};

/// Messages of up to this many bytes are not counted.
const COUNTED_FROM: usize = 1 << 10;
/// Messages of urgent calls of up to this many bytes are not counted either; see [`Urgency`].
const URGENT_COUNTED_FROM: usize = 16 << 10;

/// Request messages of up to this many bytes are not counted.
pub(super) const fn counted_from(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Read | Urgency::Change => COUNTED_FROM,
        Urgency::Urgent => URGENT_COUNTED_FROM,
    }
}
/// The bytes of the prefix of a message in a gRPC body.
const PREFIX: usize = 5;

/// Bytes with their reservation, which is released when the last of them is sent.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes of a response, reserved until the last reference to them is dropped.
///
/// # Errors
/// The budget is exhausted, and the response may be rejected.
fn hold(bytes: Bytes, account: &Account, urgency: Urgency) -> Result<Bytes, Exhausted> {
    if bytes.len() <= COUNTED_FROM {
        return Ok(bytes);
    }
    let (mut reservation, length) = (account.empty(), bytes.len() as u64);
    match urgency {
        Urgency::Read => reservation.grow(length)?,
        Urgency::Change | Urgency::Urgent => reservation.grow_anyway(length),
    }
    Ok(Bytes::from_owner(Held { bytes, _reservation: reservation }))
}

/// The reservation of a request during its call.
#[derive(Clone)]
pub struct RequestMemory(Arc<Mutex<Reservation>>);

impl RequestMemory {
    /// An empty reservation in this account.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self(Arc::new(Mutex::new(account.empty())))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Reservation) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a stream of messages, whose bytes are reserved as they are received. Only the bytes of the
/// current message are held.
pub struct CountedBody<B> {
    body: B,
    memory: RequestMemory,
    boundary: Boundary,
}

impl<B> CountedBody<B> {
    /// The body, with this reservation.
    pub fn new(body: B, memory: RequestMemory) -> Self {
        Self { body, memory, boundary: Boundary::default() }
    }
}

impl<B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = body_timeout::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body_timeout::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            // A message that ends in this frame may still wait to be read.
            let held = self.boundary.pass(data).max(length);
            let resized = self.memory.with(|reservation| reservation.resize(held));
            if let Err(exhausted) = resized {
                return Poll::Ready(Some(Err(status::no_memory(exhausted).into())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds the boundaries between the messages of a body.
#[derive(Default)]
struct Boundary {
    /// The received bytes of the prefix of a message.
    prefix: Vec<u8>,
    /// The bytes of the message that are not received yet.
    remaining: u64,
    /// The bytes of the message that are received.
    received: u64,
}

impl Boundary {
    /// Advances over bytes, and returns how many bytes of the last, incomplete message are received.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        while let Some((first, rest)) = bytes.split_first() {
            if self.remaining == 0 {
                self.prefix.push(*first);
                bytes = rest;
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; PREFIX - 1]>::try_from(length)
                {
                    self.remaining = u64::from(u32::from_be_bytes(length));
                    self.received = 0;
                    self.prefix.clear();
                }
                continue;
            }
            let count = self.remaining.min(bytes.len() as u64);
            let rest = usize::try_from(count).ok().and_then(|count| bytes.get(count..));
            bytes = rest.unwrap_or_default();
            self.remaining -= count;
            self.received += count;
        }
        if self.remaining == 0 { 0 } else { self.received }
    }
}

/// The body of a response whose bytes are reserved until they are sent. If the budget is exhausted, the
/// call ends with an error instead.
struct HeldReply {
    body: tonic::body::Body,
    account: Account,
    urgency: Urgency,
    /// The first frame, if it was read before the body was polled.
    first: Option<Option<Result<Frame<Bytes>, Status>>>,
    ended: bool,
}

impl HeldReply {
    fn hold(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return other,
        };
        match hold(data, &self.account, self.urgency) {
            Ok(data) => Frame::data(data),
            Err(exhausted) => {
                self.ended = true;
                let mut trailers = HeaderMap::new();
                // The only error is an invalid header value, and these are valid.
                status::no_memory(exhausted).add_header(&mut trailers).ok();
                Frame::trailers(trailers)
            }
        }
    }
}

impl Body for HeldReply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(first);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map(|frame| self.hold(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // An error may replace the body, so its size is not known.
        SizeHint::default()
    }
}

/// Reserves the bytes of a response. Its first message is encoded immediately, so that no response
/// message is in memory without a reservation.
pub async fn held(
    response: Response<tonic::body::Body>,
    account: Account,
    urgency: Urgency,
) -> Response<tonic::body::Body> {
    if response.body().is_end_stream() {
        // The status is in the headers.
        return response;
    }
    let (head, body) = response.into_parts();
    let mut reply = HeldReply { body, account, urgency, first: None, ended: false };
    let first = std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut reply.body).poll_frame(context) {
            Poll::Ready(first) => Some(first),
            // A stream that has no message yet.
            Poll::Pending => None,
        })
    })
    .await;
    reply.first = first.map(|first| first.map(|frame| frame.map(|frame| reply.hold(frame))));
    Response::from_parts(head, tonic::body::Body::new(reply))
}

impl ResponseBody {
    /// A response of one message, reserved until it is sent.
    ///
    /// # Errors
    /// The budget is exhausted, and the response may be rejected.
    pub(super) fn held(
        message: Bytes,
        urgency: Urgency,
        account: impl FnOnce() -> Account,
    ) -> Result<Self, Status> {
        if message.len() <= COUNTED_FROM {
            return Ok(Self::Message(Some(message), InFlight::default()));
        }
        let held = hold(message, &account(), urgency).map_err(status::no_memory)?;
        Ok(Self::Message(Some(held), InFlight::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).expect("short").to_be_bytes();
        [&[0][..], &prefix, &vec![7; length]].concat()
    }

    #[test]
    fn received_bytes_of_the_last_message_are_counted_however_frames_are_split() {
        let wire = [message(10), message(0), message(300), message(4)].concat();
        for size in 1..wire.len() {
            let mut boundary = Boundary::default();
            let mut passed = 0;
            for piece in wire.chunks(size) {
                passed += piece.len();
                let unfinished = boundary.pass(piece);
                let expected = match passed {
                    5..15 => passed - 5,
                    25..325 => passed - 25,
                    330..334 => passed - 330,
                    _ => 0,
                };
                assert_eq!(unfinished, expected as u64, "{size}: {passed}");
            }
        }
    }
}
