//! Body timeout: a request body must be received completely within a time.
//!
//! Only the caller can set a deadline. Without this timeout, a caller that starts a call and never
//! completes its message would hold the call forever.
//!
//! Not here: calls with a stream of request messages, which has no end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::status;

/// An error while a body is read: a [`Status`] if the timeout passed.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that ends with DEADLINE_EXCEEDED when the timeout passes.
///
/// The time starts when a poll of the body is pending for the first time. A body that has already been
/// received, as for most checks, needs no timer and does not read the clock.
pub struct BodyTimeout<B> {
    body: B,
    time: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl<B> BodyTimeout<B> {
    /// The body with this timeout.
    pub const fn new(body: B, time: Duration) -> Self {
        Self { body, time, end: None }
    }
}

impl<B: Body<Error: Into<Error>> + Unpin> Body for BodyTimeout<B> {
    type Data = B::Data;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let time = self.time;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        end.as_mut().poll(context).map(|()| Some(Err(status::body_timeout(time).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The status for a body that could not be read to its end.
pub(super) fn into_status(error: Error) -> Status {
    error.downcast::<Status>().map_or_else(|_| status::truncated(), |status| *status)
}
