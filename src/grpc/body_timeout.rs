//! BodyTimeout: a request's body that must have come as a whole within a time.
//!
//! A caller who opens a call and never ends its message would otherwise keep the call for ever:
//! a deadline is the caller's to give. Not here: calls whose messages come one after another for
//! as long as the caller likes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::status;

/// What can go wrong while a body is read: a [`Status`] if it is late.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that ends with DEADLINE_EXCEEDED unless it comes in time.
///
/// The time begins when the body is first waited for. One that is there already, as that of a
/// check is as a rule, costs neither a timer nor a look at the clock.
pub struct BodyTimeout<B> {
    body: B,
    time: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl<B> BodyTimeout<B> {
    /// The body, which may take so long.
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

/// What is said about a body that could not be read to its end.
pub(super) fn into_status(error: Error) -> Status {
    error.downcast::<Status>().map_or_else(|_| status::truncated(), |status| *status)
}
