//! Memory: what the bodies of calls hold of the budget of all callers, while a request is read
//! and while a reply is not yet sent.
//!
//! Small messages are not counted: the number of calls in flight bounds them.
//!
//! Not here: the budget; see [`crate::metrics::memory_budget`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::unary::{InFlight, Reply};
use super::{body_timeout, status};
use crate::metrics::memory_budget::{Account, Exhausted, Reservation};

/// Messages up to so many bytes are not counted.
pub(super) const COUNTED_FROM: usize = 1 << 10;
/// Nor those of calls that must get through up to so many: see [`Urgency`].
const URGENT_COUNTED_FROM: usize = 16 << 10;
/// The bytes in front of a message in a gRPC body.
const PREFIX: usize = 5;

/// Bytes that hold their reservation until the last of them is sent.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether a call may be refused for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Its request and its reply may be refused.
    Read,
    /// Its request may be refused, and not its reply: it tells of a change that is made already.
    Change,
    /// The same, and a short request may not be refused either.
    Urgent,
}

/// Bytes of a reply, reserved for as long as there are references to them.
///
/// # Errors
/// There is no room for them, and the reply may be refused.
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

/// What a request holds while its call goes on.
#[derive(Clone)]
pub struct RequestMemory(Arc<Mutex<Reservation>>);

impl RequestMemory {
    /// Nothing yet, in this account.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self(Arc::new(Mutex::new(account.empty())))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Reservation) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a request whose bytes are reserved as they come.
pub struct CountedBody<B> {
    body: B,
    memory: RequestMemory,
    messages: Messages,
}

/// How the messages of a body follow each other.
enum Messages {
    /// There is one: it is held until its call ends. So many bytes of it have come, of which these
    /// need no memory of the budget.
    One { come: u64, free: u64 },
    /// They come one after another: of each no more is held than what has come of it.
    Stream(Boundary),
}

impl<B> CountedBody<B> {
    /// The body of a call with one message.
    pub const fn unary(body: B, memory: RequestMemory, urgency: Urgency) -> Self {
        let free = match urgency {
            Urgency::Read | Urgency::Change => COUNTED_FROM,
            Urgency::Urgent => URGENT_COUNTED_FROM,
        };
        Self { body, memory, messages: Messages::One { come: 0, free: free as u64 } }
    }

    /// The body of a call whose messages come one after another.
    pub fn stream(body: B, memory: RequestMemory) -> Self {
        Self { body, memory, messages: Messages::Stream(Boundary::default()) }
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
            let holds = match &mut self.messages {
                Messages::One { come, free } => {
                    *come += length;
                    if *come > *free { *come } else { 0 }
                }
                // What ended in this frame may still wait to be taken.
                Messages::Stream(boundary) => boundary.pass(data).max(length),
            };
            let held = self.memory.with(|reservation| reservation.resize(holds));
            if let Err(exhausted) = held {
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

/// Where one message of a body ends and the next begins.
#[derive(Default)]
struct Boundary {
    /// As much as has come of a message's prefix.
    prefix: Vec<u8>,
    /// How many bytes of the message are still to come, and how many have come.
    left: u64,
    come: u64,
}

impl Boundary {
    /// Passes over bytes, and returns how many the last, unfinished message has so far.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.prefix.push(*first);
                bytes = rest;
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; PREFIX - 1]>::try_from(length)
                {
                    self.left = u64::from(u32::from_be_bytes(length));
                    self.come = 0;
                    self.prefix.clear();
                }
                continue;
            }
            let count = self.left.min(bytes.len() as u64);
            let behind = usize::try_from(count).ok().and_then(|count| bytes.get(count..));
            bytes = behind.unwrap_or_default();
            self.left -= count;
            self.come += count;
        }
        if self.left == 0 { 0 } else { self.come }
    }
}

/// The body of a reply whose bytes are reserved until they are sent. Where there is no room for
/// them, the call ends with an error instead.
struct HeldReply {
    body: tonic::body::Body,
    account: Account,
    urgency: Urgency,
    /// What was read of it ahead.
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
                // The only error is a header that cannot be written, and these can.
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
        // What an error would replace is not promised.
        SizeHint::default()
    }
}

/// Has the bytes of a response reserved. Its first message is written at once, so that a reply is
/// either counted or not there yet.
pub async fn held(
    response: Response<tonic::body::Body>,
    account: Account,
    urgency: Urgency,
) -> Response<tonic::body::Body> {
    if response.body().is_end_stream() {
        // Its status is in its headers.
        return response;
    }
    let (head, body) = response.into_parts();
    let mut reply = HeldReply { body, account, urgency, first: None, ended: false };
    let first = std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut reply.body).poll_frame(context) {
            Poll::Ready(first) => Some(first),
            // A stream without a message yet.
            Poll::Pending => None,
        })
    })
    .await;
    reply.first = first.map(|first| first.map(|frame| frame.map(|frame| reply.hold(frame))));
    Response::from_parts(head, tonic::body::Body::new(reply))
}

impl Reply {
    /// One message, reserved until it is sent.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn held(message: Bytes, account: impl FnOnce() -> Account) -> Result<Self, Status> {
        if message.len() <= COUNTED_FROM {
            return Ok(Self::Message(Some(message), InFlight::default()));
        }
        let held = hold(message, &account(), Urgency::Read).map_err(status::no_memory)?;
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
    fn what_has_come_of_the_last_message_is_known_however_the_bytes_are_cut() {
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
